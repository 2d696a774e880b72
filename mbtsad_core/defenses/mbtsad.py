"""MBTSAD: mitigating backdoors by token splitting and attention distillation (arXiv 2501.02754), Algorithm 1."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mbtsad_core.augment.token_splitting import augment
from mbtsad_core.config import PurifyConfig
from mbtsad_core.defenses.embedding_reset import reset_embeddings
from mbtsad_core.defenses.token_insertion import insertion
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.scan.trigger_scan import scan_vocabulary
from mbtsad_core.training.distillation import distil
from mbtsad_core.training.fine_tuning import Save, fine_tune
from mbtsad_core.training.state import TrainState
from mbtsad_core.types import LabelledText, Observe, Steps


@dataclass(frozen=True)
class Purified:
    """The suspect as it was, the token-split retrained teacher, and the distilled student: the purified model.

    found  what `scan_vocabulary` said of the suspect: nats by token id; empty where found_tokens = 0
    """

    suspect: Classifier
    teacher: Classifier
    student: Classifier
    found: Mapping[int, float]


def purify(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: PurifyConfig = PurifyConfig(),
    *,
    observe: Observe | None = None,
    resume: TrainState | None = None,
    save: Save | None = None,
) -> Steps[Purified]:
    """MBTSAD, Algorithm 1: needs a little clean data, no pre-trained weights, and knows nothing of the trigger."""

    def augmented(epoch: int) -> list[LabelledText]:  # D_aug: token splitting, K copies of each text
        return augment(clean, config.split, config.seed, epoch)

    def save_retraining(state: TrainState) -> None:
        assert save is not None
        save(dataclasses.replace(state, numbers=state.numbers | {"raised": list(raised.items())}))

    def save_distillation(state: TrainState) -> None:
        save_retraining(state.having("teacher", teacher.model))

    raised: dict[int, float] = {}  # Deviation: see augment/found_tokens.py
    if resume is not None:
        raised = dict(resume.numbers["raised"])
    elif config.found_tokens:
        raised = yield from scan_vocabulary(suspect, clean, config.seed)
    teacher, student = clone(suspect), clone(suspect)
    for copy in (teacher, student):
        reset_embeddings(copy, clean, raised)
    run: dict[str, Any] = {
        "perturb": insertion(raised, config.found_tokens, suspect.max_length, config.seed),
        "seed": config.seed,
        "observe": observe,
    }

    if resume is None or resume.stage == "retrain":  # step 1: cross-entropy on D_aug
        teacher = yield from fine_tune(
            teacher, augmented, config.retrain, stage="retrain", resume=resume, save=save and save_retraining, **run
        )
        resume = None
    else:
        teacher.model.load_state_dict(resume.part("teacher"))

    # step 2: eq. (1) on D_aug
    student = yield from distil(
        student,
        teacher,
        augmented,
        config.distil,
        stage="distil",
        resume=resume,
        save=save and save_distillation,
        **run,
    )
    return Purified(suspect, teacher, student, raised)


def mbtsad_student(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: PurifyConfig = PurifyConfig(),
    pretrained: Classifier | None = None,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """`purify` as the other defenses are called: the student alone. `pretrained` is not needed."""
    return (yield from purify(suspect, clean, config, observe=observe)).student
