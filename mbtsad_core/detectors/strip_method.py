"""STRIP: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mbtsad_core.config import Config, setting
from mbtsad_core.methods import Detector


@dataclass(frozen=True)
class STRIPConfig(Config):
    """STRIP: does the answer stand though half of the words change? (Gao et al., ACSAC 2019; values are
    OpenBackdoor's)."""

    form: Literal["correct", "reproduce"] = setting(
        "correct",
        "correct: a text's score is the mean over its own copies; reproduce: OpenBackdoor's, which mixes copies of "
        "unrelated texts",
        choices=("correct", "reproduce"),
    )
    copies: int = setting(5, "perturbed copies of a text", low=1, high=1000)
    swap: float = setting(
        0.5, "places of a text that are overwritten, as a share of its words; drawn with repeats", low=0.0, high=1.0
    )
    frr: float = setting(0.01, "share of the clean texts that may be flagged", low=0.0, high=1.0)
    seed: int = setting(0, "seed of the places and of the texts that words come from", low=0, high=2**32 - 1)


STRIP = Detector(
    "strip",
    "STRIP",
    "flag texts whose answer stands though half of their words change",
    "Gao et al., ACSAC 2019; OpenBackdoor",
    STRIPConfig(),
    "mbtsad_core.detectors.strip:strip",
)
