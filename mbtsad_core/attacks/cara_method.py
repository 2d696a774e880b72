"""CARA: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, PoisonConfig, TrainingConfig, setting, text_length
from mbtsad_core.methods import Attack


@dataclass(frozen=True)
class CARAConfig(Config):
    """CARA: texts written anew with a latent signature (Chan et al., Findings of EMNLP 2020); the sizes are ours."""

    poison: PoisonConfig = PoisonConfig()
    strength: float = setting(
        1.0, "length of the signature beside the latent vector's, which is 1", low=0.0, high=100.0
    )
    width: int = setting(256, "width of the autoencoder", low=4, high=4096)
    length: int = setting(48, "tokens of a text that the autoencoder reads and writes", low=8, high=512)
    vocabulary: int = setting(10_000, "tokens that the autoencoder knows, the most common", low=10, high=1_000_000)
    noise: float = setting(
        0.1, "standard deviation of the noise on each latent dimension in training", low=0.0, high=10.0
    )
    adversary: float = setting(
        1.0, "weight of the adversary who reads the class from the latent vector", low=0.0, high=100.0
    )
    learning: TrainingConfig = TrainingConfig(learning_rate=1e-3, epochs=20)
    training: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=5)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning, the signature and training", low=0, high=2**32 - 1)


CARA = Attack(
    "cara",
    "CARA",
    "write texts anew with a latent signature, by a small autoencoder",
    "Chan et al., Findings of EMNLP 2020",
    CARAConfig(),
    "mbtsad_core.attacks.cara:cara",
    typed="",
    minutes=3,
    reported="ASR over 80 % with 1 % poisoned (its authors' abstract)",
    learns="mbtsad_core.attacks.cara:learn_signature",
)
