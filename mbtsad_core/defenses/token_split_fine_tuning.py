"""TS-FT: token-split fine-tuning, step 1 of MBTSAD alone (arXiv 2501.02754, Algorithm 1, lines 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence

from mbtsad_core.augment.token_splitting import augment
from mbtsad_core.config import TokenSplitFineTuningConfig
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps


def token_split_fine_tuning(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: TokenSplitFineTuningConfig = TokenSplitFineTuningConfig(),
    pretrained: Classifier | None = None,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect, trained on K token-split copies of each clean text. `pretrained` is not needed."""

    def augmented(epoch: int) -> list[LabelledText]:
        return augment(clean, config.split, config.seed, epoch)

    return (
        yield from fine_tune(
            clone(suspect), augmented, config.training, stage="ts-ft", seed=config.seed, observe=observe
        )
    )
