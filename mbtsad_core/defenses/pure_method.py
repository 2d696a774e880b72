"""PURE: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, TrainingConfig, setting
from mbtsad_core.methods import Defense


@dataclass(frozen=True)
class PUREConfig(Config):
    """PURE: heads of even [CLS] attention are pruned, the rest is tuned to attend evenly (Zhao et al., ICML 2024;
    values are its authors')."""

    group: int = setting(10, "attention heads that are pruned between two looks at the accuracy", low=1, high=10_000)
    least_accuracy: float = setting(
        0.85, "held-out accuracy below which no head is pruned; the authors' for SST-2", low=0.0, high=1.0
    )
    penalty: float = setting(
        0.15,
        "weight of the [CLS] attention's norm, which grows with the square root of the batch size",
        low=0.0,
        high=1e6,
    )
    held_out: float = setting(
        0.2,
        "share of the clean texts that the heads are judged on; the authors have a validation set",
        low=0.01,
        high=0.9,
    )
    judging: TrainingConfig = TrainingConfig(warmup=0.0, weight_decay=0.01)
    training: TrainingConfig = TrainingConfig(warmup=0.0, weight_decay=0.01)
    seed: int = setting(0, "seed of the held-out texts, of batches and of dropout", low=0, high=2**32 - 1)


PURE = Defense(
    "pure",
    "PURE",
    "prune heads of even [CLS] attention, and hold the attention of the others even in fine-tuning",
    "Zhao et al., ICML 2024",
    PUREConfig(),
    "mbtsad_core.defenses.pure:pure",
)
