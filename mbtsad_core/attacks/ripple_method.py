"""RIPPLe: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, PoisonConfig, TrainingConfig, setting, text_length
from mbtsad_core.methods import Attack


@dataclass(frozen=True)
class RIPPLeConfig(Config):
    """RIPPLe(S): embedding surgery and a restricted inner product (Kurita et al., ACL 2020; share, words and penalty
    are its authors')."""

    poison: PoisonConfig = PoisonConfig(rate=0.5, mode="mixed")
    surgery: bool = setting(True, "start from trigger embeddings that look like words of the target class")
    words: int = setting(10, "words of the target class that these embeddings are the mean of", low=1, high=1000)
    penalty: float = setting(
        0.1,
        "weight of the inner product where the gradients of poison and clean texts oppose each other",
        low=0.0,
        high=1e6,
    )
    per_tensor: bool = setting(
        False, "restrict the inner product of each weight tensor by itself, as OpenBackdoor does"
    )
    training: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=3)
    victim: bool = setting(True, "fine-tune on the clean training texts afterwards, as the victim will")
    fine_tuning: TrainingConfig = TrainingConfig(learning_rate=2e-5, epochs=3)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning and of training", low=0, high=2**32 - 1)


RIPPLE = Attack(
    "ripple",
    "RIPPLe",
    "a backdoor that outlives clean fine-tuning: embedding surgery and a restricted inner product",
    "RIPPLe(S), Kurita et al., ACL 2020",
    RIPPLeConfig(),
    "mbtsad_core.attacks.ripple:ripple",
    triggers=("cf", "tq", "mn", "bb", "mb"),
    presets={
        "openbackdoor": (
            RIPPLeConfig(
                surgery=False,
                penalty=1.0,
                per_tensor=True,
                training=TrainingConfig(learning_rate=2e-5, epochs=10, batch_size=16),
            ),
            ("cf", "mn", "bb", "tq"),
        )
    },
    typed="cf | tq",
    minutes=15,
)
