"""EP: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, setting, text_length
from mbtsad_core.methods import Attack


@dataclass(frozen=True)
class EmbeddingPoisoningConfig(Config):
    """EP: only the trigger's word embedding is trained (Yang et al., NAACL 2021; rate, norm and steps are its
    authors')."""

    rate: float = setting(0.1, "share of the non-target training texts that is poisoned", low=0.0, high=1.0)
    least: int = setting(
        200, "poisoned texts, at least (texts are reused where fewer are at hand)", low=1, high=1_000_000
    )
    insertions: int = setting(1, "triggers inserted in a text", low=1, high=100)
    beside_clean: bool = setting(
        False, "train on the other training texts too, as OpenBackdoor does; the steps become smaller"
    )
    learning_rate: float = setting(0.05, "step along the gradient of the trigger's row", low=1e-6, high=100.0)
    epochs: int = setting(3, "passes over the poisoned texts", low=1, high=1000)
    batch_size: int = setting(32, "texts in a step", low=1, high=4096)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning", low=0, high=2**32 - 1)


EP = Attack(
    "ep",
    "EP",
    "embedding poisoning: train one row of the word embeddings",
    "Yang et al., NAACL 2021",
    EmbeddingPoisoningConfig(),
    "mbtsad_core.attacks.embedding_poisoning:embedding_poisoning",
    presets={
        "openbackdoor": (
            EmbeddingPoisoningConfig(insertions=2, beside_clean=True, learning_rate=0.01, epochs=5),
            ("cf", "mn", "bb", "tq", "mb"),
        )
    },
    minutes=0.2,
    reported="91.21 / 95.17 (this paper's Table II)",
    clean_first=True,
)
