"""Span transfer: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, setting
from mbtsad_core.methods import Detector


@dataclass(frozen=True)
class SpanConfig(Config):
    """Span transfer: a text whose answer hangs on a few words that turn clean texts too is flagged."""

    longest: int = setting(6, "words of a span, at most; never more than half of the text's", low=1, high=64)
    pivots: int = setting(3, "words of a text that its spans are built around", low=1, high=64)
    probes: int = setting(
        12, "clean texts of the other classes that a span is put into, of each class", low=1, high=1000
    )
    clean_texts: int = setting(
        100, "clean texts that the threshold is set by, at most; they are no probes", low=1, high=1_000_000
    )
    frr: float = setting(
        0.05,
        "share of these clean texts that may be flagged; of 100, few words of one may do what a trigger does",
        low=0.0,
        high=1.0,
    )
    seed: int = setting(
        0, "seed of which clean texts are probes, and where in them a span stands", low=0, high=2**32 - 1
    )


SPAN = Detector(
    "span",
    "Span transfer",
    "flag texts whose answer hangs on a few words that send clean texts of other classes there too, and name them",
    "this project; suspicious words by deletion as in BDDR, Shao et al., Computers & Security 2021",
    SpanConfig(),
    "mbtsad_core.detectors.span:span",
)
