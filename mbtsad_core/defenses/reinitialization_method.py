"""Reinitialization: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, TrainingConfig, setting
from mbtsad_core.methods import Defense


@dataclass(frozen=True)
class ReinitializationConfig(Config):
    """Reinitialization: the last transformer layer is drawn anew, then CFT (the paper names the layer; the draw is
    BERT's own)."""

    layers: int = setting(
        1, "transformer layers that are drawn anew, counted from the last; the paper's is 1", low=1, high=96
    )
    deviation: float = setting(
        0.02, "standard deviation of the drawn weights: BERT's, for the paper gives none", low=1e-6, high=10.0
    )
    training: TrainingConfig = TrainingConfig()
    seed: int = setting(0, "seed of the drawn weights, of batches and of dropout", low=0, high=2**32 - 1)


REINITIALIZATION = Defense(
    "reinitialization",
    "Reinit",
    "draw the last layers anew, then fine-tune",
    "arXiv 2501.02754",
    ReinitializationConfig(),
    "mbtsad_core.defenses.reinitialization:reinitialization",
)
