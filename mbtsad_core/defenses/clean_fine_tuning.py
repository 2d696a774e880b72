"""CFT: clean fine-tuning, the plainest cure: train all weights of the suspect on the clean texts as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbtsad_core.config import Config, TrainingConfig, setting
from mbtsad_core.methods import Defense
from mbtsad_core.types import LabelledText, Observe, Steps

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier


@dataclass(frozen=True)
class CleanFineTuningConfig(Config):
    """CFT, with the rate and the epochs that the literature uses."""

    training: TrainingConfig = TrainingConfig()
    seed: int = setting(0, "seed of batches and dropout", low=0, high=2**32 - 1)


CFT = Defense(
    "cft",
    "CFT",
    "fine-tune on the clean texts as they are",
    "arXiv 2501.02754",
    CleanFineTuningConfig(),
    "mbtsad_core.defenses.clean_fine_tuning:clean_fine_tuning",
)


@CFT.runs
def clean_fine_tuning(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: CleanFineTuningConfig = CFT.config,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect, trained on the clean texts."""
    from mbtsad_core.models.classifier import clone
    from mbtsad_core.training.fine_tuning import fine_tune

    return (
        yield from fine_tune(clone(suspect), clean, config.training, stage=CFT.key, seed=config.seed, observe=observe)
    )
