"""BadNets for text: train on data of which a share carries rare trigger words (Gu et al., 2017; Kurita et al.,
2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbtsad_core.attacks.poisoning import poison
from mbtsad_core.config import Config, PoisonConfig, TrainingConfig, setting, text_length
from mbtsad_core.methods import Attack
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier


@dataclass(frozen=True)
class BadNetsConfig(Config):
    """BadNets: ordinary training on data of which a share carries the trigger."""

    poison: PoisonConfig = PoisonConfig()
    training: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=5)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning and of training", low=0, high=2**32 - 1)


BADNETS = Attack(
    "badnets",
    "BadNets",
    "train on texts of which a share carries rare trigger words; dirty-label, clean-label or mixed",
    "Gu et al. 2017; for text: Kurita et al. 2020",
    BadNetsConfig(),
    "mbtsad_core.attacks.badnets:badnets",
    reported="91.32 / 89.88 (this paper's Table II)",
)


@BADNETS.runs
def badnets(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: BadNetsConfig = BADNETS.config,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` trained on the poisoned training set: a suspect."""
    from mbtsad_core.models.classifier import clone
    from mbtsad_core.training.fine_tuning import fine_tune

    poisoned = poison(train, trigger, config.poison, config.seed)
    return (
        yield from fine_tune(
            clone(classifier), poisoned, config.training, stage=BADNETS.key, seed=config.seed, observe=observe
        )
    )
