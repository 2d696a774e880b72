"""CFT: clean fine-tuning, the plainest cure: train all weights of the suspect on the clean texts as they are."""

from __future__ import annotations

from collections.abc import Sequence

from mbtsad_core.config import CleanFineTuningConfig
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps


def clean_fine_tuning(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: CleanFineTuningConfig = CleanFineTuningConfig(),
    pretrained: Classifier | None = None,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect, trained on the clean texts. `pretrained` is not needed."""
    return (
        yield from fine_tune(clone(suspect), clean, config.training, stage="cft", seed=config.seed, observe=observe)
    )
