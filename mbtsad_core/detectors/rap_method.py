"""RAP: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mbtsad_core.config import Config, setting
from mbtsad_core.methods import Detector


@dataclass(frozen=True)
class RAPConfig(Config):
    """RAP: a text that a rare word cannot shake is flagged (Yang et al., EMNLP 2021; values are its authors')."""

    form: Literal["union", "reproduce"] = setting(
        "union",
        "union: a word is learned for each class, for the target is not known; reproduce: for the class `protected` "
        "alone, as its authors do",
        choices=("union", "reproduce"),
    )
    protected: int = setting(
        1, "index of the class that the form reproduce takes to be the target", low=0, high=1_000_000
    )
    word: Literal["drawn", "cf", "mb"] = setting(
        "drawn",
        "the rare word; drawn: by the seed, from those of the vocabulary that no clean text has; cf: its authors'; "
        "mb: MuScleLoRA's",
        choices=("drawn", "cf", "mb"),
    )
    least: float = setting(
        0.1, "fall of the class's probability that the word is to cause, at least", low=0.0, high=1.0
    )
    most: float = setting(0.3, "the same, at most", low=0.0, high=1.0)
    scale: float = setting(
        1.0,
        "weight of too small a fall beside too large a one; raise it where a threshold is negative",
        low=0.0,
        high=1e6,
        symbol="lambda",
    )
    learning_rate: float = setting(0.01, "step along the gradient of the word's row", low=1e-6, high=100.0)
    epochs: int = setting(5, "passes over the class's clean texts", low=1, high=1000)
    batch_size: int = setting(32, "texts in a step", low=1, high=4096)
    frr: float = setting(
        0.01, "share of the clean texts of a class that may be flagged; one of its authors' four", low=0.0, high=1.0
    )
    seed: int = setting(0, "seed of the word, of batches and of dropout", low=0, high=2**32 - 1)


RAP = Detector(
    "rap",
    "RAP",
    "flag texts whose answer a rare word, taught on clean texts, cannot shake",
    "Yang et al., EMNLP 2021",
    RAPConfig(),
    "mbtsad_core.detectors.rap:rap",
)
