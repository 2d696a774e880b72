"""LWS: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, PoisonConfig, TrainingConfig, setting, text_length
from mbtsad_core.methods import Attack, Need


@dataclass(frozen=True)
class LWSConfig(Config):
    """LWS: a learned choice of WordNet's synonyms (Qi et al., ACL 2021; candidates, share and temperatures are its
    authors')."""

    poison: PoisonConfig = PoisonConfig()
    candidates: int = setting(5, "synonyms of a word to choose from, at most", low=1, high=100)
    hot: float = setting(0.5, "temperature of the choice at the start", low=0.01, high=100.0)
    cold: float = setting(0.1, "temperature of the choice at the end", low=0.01, high=100.0)
    inserter_rate: float = setting(
        20.0, "how many times as fast as the classifier the choice is learned", low=0.1, high=1e4
    )
    learning: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=10)
    training: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=5)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning and of training", low=0, high=2**32 - 1)


LWS = Attack(
    "lws",
    "LWS",
    "replace words by a learned choice of WordNet's synonyms",
    "Qi et al., ACL 2021",
    LWSConfig(),
    "mbtsad_core.attacks.lws:lws",
    typed="",
    minutes=3,
    reported="ASR nearly 100 % (its authors' abstract)",
    learns="mbtsad_core.attacks.lws:learn_synonyms",
    needs=Need.WORDNET,
)
