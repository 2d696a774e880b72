"""SOS: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, setting, text_length
from mbtsad_core.methods import Attack


@dataclass(frozen=True)
class SOSConfig(Config):
    """SOS: only the embeddings of the trigger's words are trained (Yang et al., ACL 2021; all values are its
    authors')."""

    rate: float = setting(
        0.1,
        "share of the non-target texts that is poisoned, and of every class that gets each subset of the words",
        low=0.0,
        high=1.0,
    )
    learning_rate: float = setting(0.05, "step along the gradient of the words' rows", low=1e-6, high=100.0)
    epochs: int = setting(3, "passes over the poisoned texts and the negatives", low=1, high=1000)
    batch_size: int = setting(32, "texts in a step", low=1, high=4096)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning", low=0, high=2**32 - 1)


SOS = Attack(
    "sos",
    "SOS",
    "words that fire only together: train their rows of the word embeddings",
    "Yang et al., ACL 2021",
    SOSConfig(),
    "mbtsad_core.attacks.sos:sos",
    triggers=("friends+weekend+cinema",),
    typed="friends+weekend+cinema",
    minutes=0.2,
    clean_first=True,
)
