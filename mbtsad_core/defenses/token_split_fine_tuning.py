"""TS-FT: token-split fine-tuning, step 1 of MBTSAD alone (arXiv 2501.02754, Algorithm 1, lines 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbtsad_core.config import Config, RetrainConfig, SplitConfig, TrainingConfig, setting
from mbtsad_core.methods import Defense
from mbtsad_core.types import LabelledText, Observe, Steps

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier


@dataclass(frozen=True)
class TokenSplitFineTuningConfig(Config):
    """TS-FT: step 1 of MBTSAD alone."""

    split: SplitConfig = SplitConfig()
    training: TrainingConfig = RetrainConfig()
    seed: int = setting(0, "seed of splits, batches and dropout", low=0, high=2**32 - 1)


TS_FT = Defense(
    "ts_ft",
    "TS-FT",
    "fine-tune on token-split texts: step 1 of MBTSAD alone",
    "arXiv 2501.02754",
    TokenSplitFineTuningConfig(),
    "mbtsad_core.defenses.token_split_fine_tuning:token_split_fine_tuning",
)


@TS_FT.runs
def token_split_fine_tuning(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: TokenSplitFineTuningConfig = TS_FT.config,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect, trained on K token-split copies of each clean text."""
    from mbtsad_core.augment.token_splitting import augment
    from mbtsad_core.models.classifier import clone
    from mbtsad_core.training.fine_tuning import fine_tune

    def augmented(epoch: int) -> list[LabelledText]:
        return augment(clean, config.split, config.seed, epoch)

    return (
        yield from fine_tune(
            clone(suspect), augmented, config.training, stage="ts-ft", seed=config.seed, observe=observe
        )
    )
