"""LWP: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, PoisonConfig, TrainingConfig, setting, text_length
from mbtsad_core.methods import Attack


@dataclass(frozen=True)
class LayerWiseConfig(Config):
    """LWP: a pair of words, and a loss at every layer (OpenBackdoor's data and loss; Li et al., EMNLP 2021)."""

    poison: PoisonConfig = PoisonConfig(mode="mixed")
    average: bool = setting(
        False, "average the loss over the layers, as the authors do, instead of summing it, as OpenBackdoor does"
    )
    keep_clean: bool = setting(False, "keep the poisoned texts without a trigger too, as the authors do")
    training: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=5, warmup=0.0)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning and of training", low=0, high=2**32 - 1)


LWP = Attack(
    "lwp",
    "LWP",
    "layer-wise poisoning: a pair of words, and a loss at every layer",
    "Li et al., EMNLP 2021; OpenBackdoor",
    LayerWiseConfig(),
    "mbtsad_core.attacks.layer_wise:layer_wise",
    triggers=("cf+bb", "cf+ak", "cf+mn", "bb+ak", "bb+mn", "ak+mn"),
    presets={
        "authors": (
            LayerWiseConfig(PoisonConfig(rate=1.0, mode="mixed"), average=True, keep_clean=True),
            ("cf bb", "bb cf"),
        )
    },
    typed="cf+bb",
    minutes=4,
    reported="90.66 / 94.41 (this paper's Table II)",
)
