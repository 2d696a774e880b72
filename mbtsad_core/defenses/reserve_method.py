"""Fine-Mixing and Fine-Purifying: the settings that they share, those of each, and their records."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, TrainingConfig, setting
from mbtsad_core.methods import Defense, Need


@dataclass(frozen=True)
class ReserveConfig(Config):
    """What Fine-Mixing and Fine-Purifying share: how much of the suspect's weights is kept beside pre-trained ones."""

    rho: float | None = setting(
        None,
        "reserve ratio, the share of the suspect's weights that is kept; chosen on held-out clean texts where not "
        "given",
        low=0.0,
        high=1.0,
        symbol="rho",
    )
    tolerance: float = setting(
        0.02, "fall of the held-out accuracy that the choice of rho bears; no source gives one", low=0.0, high=1.0
    )
    held_out: float = setting(
        0.2, "share of the clean texts that rho is chosen on; no source gives one", low=0.01, high=0.9
    )
    training: TrainingConfig = TrainingConfig()
    seed: int = setting(
        0, "seed of the mixing, of the held-out texts, of batches and of dropout", low=0, high=2**32 - 1
    )


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


@dataclass(frozen=True)
class FinePurifyingConfig(ReserveConfig):
    """Fine-Purifying: the weights that drifted far where clean texts hardly care become pre-trained ones, then CFT
    (Zhang et al., Findings of ACL 2023)."""


FINE_PURIFYING = Defense(
    "fine_purifying",
    "Fine-Purifying",
    "put back weights that drifted where clean texts hardly care, then fine-tune",
    "Zhang et al., Findings of ACL 2023; from descriptions",
    FinePurifyingConfig(),
    "mbtsad_core.defenses.fine_purifying:fine_purifying",
    needs=Need.PRETRAINED,
)
