"""The ablations and NAD: each is MBTSAD but for what its name says."""

from __future__ import annotations

import dataclasses
import math

import pytest
from conftest import finish, tiny_bert, tiny_texts

from mbtsad_core.augment.token_splitting import augment
from mbtsad_core.config import DistilConfig, RetrainConfig, SplitConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.clean_fine_tuning import CleanFineTuningConfig
from mbtsad_core.defenses.mbtsad import purify
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.defenses.nad_method import NADConfig
from mbtsad_core.models.classifier import clone, weights_hash
from mbtsad_core.training.distillation import distil
from mbtsad_core.training.fine_tuning import fine_tune

CLEAN = tiny_texts(64)
CONFIG = PurifyConfig(
    SplitConfig(copies=2),
    0,
    RetrainConfig(learning_rate=1e-3, batch_size=32, epochs=1),
    DistilConfig(learning_rate=1e-3, batch_size=32, epochs=1),
)
NAD = NADConfig(CONFIG.split, 0, CONFIG.retrain, CONFIG.distil)


def made(name: str, config: object) -> str:
    return weights_hash(finish(DEFENSES[name].run(tiny_bert(), CLEAN, config))[0])


def weighted(alpha: float, beta: float) -> str:
    config = dataclasses.replace(CONFIG, distil=dataclasses.replace(CONFIG.distil, alpha=alpha, beta=beta))
    return weights_hash(finish(purify(tiny_bert(), CLEAN, config))[0].student)


def test_the_ablations_are_the_method_with_weights_of_zero() -> None:
    assert made("mbtsad", CONFIG) == weighted(1, 1)
    assert made("mbtsad_no_att", CONFIG) == weighted(0, 1)
    assert made("mbtsad_no_hid", CONFIG) == weighted(1, 0)
    assert made("cd", CONFIG) == weighted(0, 0)
    assert len({made(name, CONFIG) for name in ("mbtsad", "mbtsad_no_att", "mbtsad_no_hid", "cd")}) == 4


def test_cd_is_the_classification_loss_alone_on_the_same_texts() -> None:
    alone = finish(fine_tune(tiny_bert(), lambda epoch: augment(CLEAN, CONFIG.split, 0, epoch), CONFIG.distil))[0]
    found = finish(DEFENSES["cd"].run(tiny_bert(), CLEAN, CONFIG))[0]
    pairs = zip(alone.model.parameters(), found.model.parameters(), strict=True)
    assert all((a - b).abs().max() < 1e-5 for a, b in pairs)  # attention is computed by other kernels


def test_the_student_of_nad_differs_from_mbtsads_in_its_teacher_alone() -> None:
    suspect = tiny_bert()
    # As many steps as on two splits of each
    teacher = finish(DEFENSES["cft"].run(suspect, CLEAN * 2, CleanFineTuningConfig(CONFIG.retrain)))[0]
    student = finish(
        distil(clone(suspect), teacher, lambda epoch: augment(CLEAN, CONFIG.split, 0, epoch), CONFIG.distil)
    )[0]
    assert made("nad", NAD) == weights_hash(student) != made("mbtsad", CONFIG)


def test_nad_can_be_as_published_with_clean_texts_for_both() -> None:
    suspect, clean = tiny_bert(), CLEAN * 2
    teacher = finish(fine_tune(clone(suspect), clean, CONFIG.retrain))[0]
    student = finish(distil(clone(suspect), teacher, clean, CONFIG.distil))[0]
    assert made("nad", dataclasses.replace(NAD, student_texts="clean")) == weights_hash(student) != made("nad", NAD)


def test_nad_takes_as_many_steps_as_mbtsad() -> None:
    totals = [
        [e.total for e in finish(DEFENSES[name].run(tiny_bert(), CLEAN, config))[1]]
        for name, config in (("nad", NAD), ("mbtsad", CONFIG))
    ]
    assert totals[0] == totals[1] == [4] * 8


@pytest.mark.parametrize(
    "split", [SplitConfig(copies=2, keep_originals=1), SplitConfig(copies=1, keep_originals=2), NADConfig().split]
)
@pytest.mark.parametrize("texts", ["split", "clean"])
def test_teacher_and_student_of_nad_take_as_many_steps_with_originals_too(split: SplitConfig, texts: str) -> None:
    config = dataclasses.replace(NAD, split=split, student_texts=texts)
    events = finish(DEFENSES["nad"].run(tiny_bert(), CLEAN, config))[1]
    per_epoch = math.ceil(split.texts * len(CLEAN) / CONFIG.retrain.batch_size)
    assert {e.stage: e.total for e in events} == {
        "teacher": per_epoch * config.retrain.epochs,
        "distil": per_epoch * config.distil.epochs,
    }


def test_found_tokens_reach_the_student_of_nad_where_asked_for() -> None:
    scanned = dataclasses.replace(NAD, found_tokens=1)
    events = finish(DEFENSES["nad"].run(tiny_bert(), CLEAN, scanned))[1]
    assert list(dict.fromkeys(e.stage for e in events)) == ["scan", "pairs", "teacher", "distil"]
    assert made("nad", scanned) != made("nad", NAD)
