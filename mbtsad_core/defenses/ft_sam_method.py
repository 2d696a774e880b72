"""FT-SAM: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, TrainingConfig, setting
from mbtsad_core.methods import Defense


@dataclass(frozen=True)
class FTSAMConfig(Config):
    """FT-SAM: CFT by sharpness-aware steps, which shrink large weights (Zhu et al., ICCV 2023)."""

    rho: float = setting(
        2.0, "length of the ascent, in weights relative to their own size; BackdoorBench's", low=0.0, high=1e3
    )
    training: TrainingConfig = TrainingConfig()
    seed: int = setting(0, "seed of batches and dropout", low=0, high=2**32 - 1)


FT_SAM = Defense(
    "ft_sam",
    "FT-SAM",
    "fine-tune by the gradient at the worst weights nearby, large weights farthest off",
    "Zhu et al., ICCV 2023; BackdoorBench",
    FTSAMConfig(),
    "mbtsad_core.defenses.ft_sam:ft_sam",
)
