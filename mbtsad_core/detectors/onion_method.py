"""ONION: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, setting
from mbtsad_core.methods import Detector, Need


@dataclass(frozen=True)
class ONIONConfig(Config):
    """ONION: words that a language model finds unlikely are deleted (Qi et al., EMNLP 2021)."""

    threshold: float | None = setting(
        None,
        "suspicion from which on a word is deleted; chosen on clean texts where not given; OpenBackdoor's is 0",
        low=-1e9,
        high=1e9,
    )
    tolerance: float = setting(
        0.02,
        "fall of the clean accuracy that the choice of the threshold bears; no source gives one",
        low=0.0,
        high=1.0,
    )
    clean_texts: int = setting(
        200, "clean texts that the threshold is chosen on, at most; no source gives a number", low=1, high=1_000_000
    )
    words: int = setting(
        128, "words of a text that are judged, the first ones; no source gives a number", low=2, high=8192
    )
    batch_size: int = setting(32, "texts in a pass of the language model", low=1, high=4096)
    seed: int = setting(0, "seed of the clean texts that the threshold is chosen on", low=0, high=2**32 - 1)


ONION = Detector(
    "onion",
    "ONION",
    "delete words that a language model finds unlikely, and flag texts whose answer then changes",
    "Qi et al., EMNLP 2021",
    ONIONConfig(),
    "mbtsad_core.detectors.onion:onion",
    needs=Need.LANGUAGE_MODEL,
)
