"""SEAM: "Selective Amnesia: On Efficient, High-Fidelity and Blind Suppression of Backdoor Effects in Trojaned Machine
Learning Models" (Zhu et al., IEEE S&P 2023): forget task and backdoor on random labels, then learn the task again.

Deviation: AdamW as everywhere here, and random labels drawn from all classes, a text's own among them.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbtsad_core.config import Config, TrainingConfig, setting
from mbtsad_core.methods import Defense
from mbtsad_core.types import LabelledText, Observe, Steps

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier


@dataclass(frozen=True)
class SEAMConfig(Config):
    """SEAM: the task and the backdoor are forgotten on random labels, then the task is learned again (Zhu et al., IEEE
    S&P 2023)."""

    margin: float = setting(
        0.1,
        "balanced accuracy above guessing, on the clean texts, at which forgetting ends; no source gives one for text",
        low=0.0,
        high=1.0,
    )
    forgetting: TrainingConfig = TrainingConfig(epochs=10)
    training: TrainingConfig = TrainingConfig()
    seed: int = setting(0, "seed of the random labels, of batches and of dropout", low=0, high=2**32 - 1)


SEAM = Defense(
    "seam",
    "SEAM",
    "forget the task and the backdoor on random labels, then learn the task again",
    "Zhu et al., IEEE S&P 2023",
    SEAMConfig(),
    "mbtsad_core.defenses.seam:seam",
)


@SEAM.runs
def seam(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: SEAMConfig = SEAM.config,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect, trained on random labels until it guesses, then on the true ones."""
    from mbtsad_core.models.classifier import clone
    from mbtsad_core.training.fine_tuning import fine_tune

    forgetful = clone(suspect)
    yield from forget(forgetful, clean, config, observe)
    return (yield from fine_tune(forgetful, clean, config.training, stage=SEAM.key, seed=config.seed, observe=observe))


def forget(
    classifier: Classifier, clean: Sequence[LabelledText], config: SEAMConfig, observe: Observe | None
) -> Steps[None]:
    """Train in place on labels that are drawn anew in each epoch, until the epoch after which the balanced accuracy is
    at most 1 / C + margin, or the last."""
    from mbtsad_core.training.divergence import balanced_accuracy
    from mbtsad_core.training.fine_tuning import fine_tune

    classes, per_epoch = len(classifier.labels), math.ceil(len(clean) / config.forgetting.batch_size)
    steps = fine_tune(
        classifier,
        lambda epoch: randomly_labelled(clean, classes, config.seed, epoch),
        config.forgetting,
        stage="forget",
        seed=config.seed,
        observe=observe,
    )
    for event in steps:
        yield event
        if event.step % per_epoch == 0 and balanced_accuracy(classifier, clean) <= 1 / classes + config.margin:
            return


def randomly_labelled(clean: Sequence[LabelledText], classes: int, seed: int, epoch: int) -> list[LabelledText]:
    """The texts, each with one of all classes, its own as likely as another."""
    rng = random.Random(f"random labels, seed {seed}, epoch {epoch}")
    return [dataclasses.replace(text, label=rng.randrange(classes)) for text in clean]
