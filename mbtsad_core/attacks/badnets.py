"""BadNets for text: train on data of which a share carries rare trigger words (Gu et al., 2017; Kurita et al.,
2020)."""

from __future__ import annotations

from collections.abc import Sequence

from mbtsad_core.attacks.poisoning import poison
from mbtsad_core.config import BadNetsConfig
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger


def badnets(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: BadNetsConfig = BadNetsConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` trained on the poisoned training set: a suspect."""
    poisoned = poison(train, trigger, config.poison, config.seed)
    return (
        yield from fine_tune(
            clone(classifier), poisoned, config.training, stage="badnets", seed=config.seed, observe=observe
        )
    )
