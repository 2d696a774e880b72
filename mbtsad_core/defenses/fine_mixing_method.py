"""Fine-Mixing: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import setting
from mbtsad_core.defenses.reserve_config import ReserveConfig
from mbtsad_core.methods import Defense, Need


@dataclass(frozen=True)
class FineMixingConfig(ReserveConfig):
    """Fine-Mixing: the suspect's weights mixed with pre-trained ones, then CFT (Zhang et al., Findings of EMNLP
    2022)."""

    purify_embeddings: bool = setting(
        False, "E-PUR first: the most suspicious word embeddings become the pre-trained ones"
    )
    words: int = setting(
        200,
        "word embeddings that E-PUR resets; its authors' as it is passed on, no source at hand",
        low=0,
        high=1_000_000,
    )
    rare: int = setting(
        20,
        "frequency that E-PUR takes a word to have, at least; its authors' as it is passed on, no source at hand",
        low=2,
        high=1_000_000,
    )


FINE_MIXING = Defense(
    "fine_mixing",
    "Fine-Mixing",
    "mix the weights with pre-trained ones, with E-PUR as an option, then fine-tune",
    "Zhang et al., Findings of EMNLP 2022; from descriptions",
    FineMixingConfig(),
    "mbtsad_core.defenses.fine_mixing:fine_mixing",
    needs=Need.PRETRAINED,
)
