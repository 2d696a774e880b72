"""BEEAR: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, TrainingConfig, setting
from mbtsad_core.methods import Defense


@dataclass(frozen=True)
class BEEARConfig(Config):
    """BEEAR carried over to classifiers: find the drift of hidden states that acts as a trigger does, and unlearn it
    (Zeng et al., EMNLP 2024; no source gives values for a classifier)."""

    depth: float = setting(
        0.5, "where the drift is added: after this share of the layers, one at least", low=0.0, high=1.0
    )
    bound: float = setting(
        0.2, "largest norm of a drift, as a share of the mean norm of a clean text's hidden state", low=0.0, high=100.0
    )
    inner_steps: int = setting(3, "steps of the drifts before each step of the weights", low=1, high=1000)
    inner_rate: float = setting(0.2, "length of a drift's step, as a share of its largest norm", low=0.0, high=2.0)
    weight: float = setting(
        1.0, "weight of the loss under a drift, beside that on the clean texts as they are", low=0.0, high=1e6
    )
    training: TrainingConfig = TrainingConfig()
    seed: int = setting(0, "seed of the wrong classes, of batches and of dropout", low=0, high=2**32 - 1)


BEEAR = Defense(
    "beear",
    "BEEAR",
    "find the drift of hidden states that sends clean texts to a wrong class, and train to answer right under it",
    "Zeng et al., EMNLP 2024, carried over to classifiers",
    BEEARConfig(),
    "mbtsad_core.defenses.beear:beear",
)
