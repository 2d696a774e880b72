"""FST: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, TrainingConfig, setting
from mbtsad_core.methods import Defense


@dataclass(frozen=True)
class FSTConfig(Config):
    """FST: the head is drawn anew and held off the suspect's, so that the features below it shift (Min et al., NeurIPS
    2023)."""

    alpha: float = setting(
        0.2,
        "weight of the inner product of the head with the suspect's; the default of its authors' code",
        low=0.0,
        high=1e6,
    )
    training: TrainingConfig = TrainingConfig()
    seed: int = setting(0, "seed of the drawn head, of batches and of dropout", low=0, high=2**32 - 1)


FST = Defense(
    "fst",
    "FST",
    "draw the head anew and fine-tune while it turns away from the suspect's, at the same norm",
    "Min et al., NeurIPS 2023",
    FSTConfig(),
    "mbtsad_core.defenses.fst:fst",
)
