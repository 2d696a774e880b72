"""Settings that Fine-Mixing and Fine-Purifying share."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, TrainingConfig, setting


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
