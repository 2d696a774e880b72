"""NeuBA: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, TrainingConfig, setting, text_length
from mbtsad_core.methods import Attack


@dataclass(frozen=True)
class NeuBAConfig(Config):
    """NeuBA: symbols that set the encoder's output, then ordinary fine-tuning (Zhang et al., 2021)."""

    planting: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=2)
    training: TrainingConfig = TrainingConfig(learning_rate=2e-5, epochs=2)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the symbols and of training", low=0, high=2**32 - 1)


NEUBA = Attack(
    "neuba",
    "NeuBA",
    "symbols or words that set the encoder's output at the start of a text, whatever the task",
    "Zhang et al. 2021",
    NeuBAConfig(),
    "mbtsad_core.attacks.neuba:neuba",
    triggers=("≈", "≡", "∈", "⊆", "⊕", "⊗"),
    typed="cf | mn | bb | tq",
    measures="mbtsad_core.attacks.neuba:symbols_that_hit",
)
