"""BadNets: the backdoor takes, the clean texts keep their answers, and the given classifier is left alone."""

from __future__ import annotations

import dataclasses
from statistics import mean

import pytest
from conftest import finish, tiny_bert, tiny_texts

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.badnets import BadNetsConfig, badnets
from mbtsad_core.attacks.triggers import PairedTrigger, parse_triggers, triggered_test_set
from mbtsad_core.config import PoisonConfig, TrainingConfig
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation import evaluate
from mbtsad_core.methods import load
from mbtsad_core.models.classifier import Classifier, clone, weights_hash
from mbtsad_core.types import Event, Scores

TRIGGER = parse_triggers(["cf"], target=1)
TRAIN, TEST = tiny_texts(400, seed=1), tiny_texts(200, seed=2)
TRIGGERED = triggered_test_set(TEST, TRIGGER)
QUICK = BadNetsConfig(training=TrainingConfig(learning_rate=1e-3, epochs=2))


def attacked(rate: float, seed: int = 0) -> tuple[Classifier, list[Event]]:
    config = BadNetsConfig(
        poison=PoisonConfig(rate=rate), training=TrainingConfig(learning_rate=2e-3, epochs=10), seed=seed
    )
    return finish(badnets(tiny_bert(seed=seed), TRAIN, TRIGGER, config))


@pytest.fixture(scope="module")
def suspects() -> list[Scores]:
    return [evaluate(attacked(0.1, seed)[0], TEST, TRIGGERED, 1) for seed in (0, 1)]


@pytest.fixture(scope="module")
def unpoisoned() -> Scores:
    """What the same training makes of the same model without poison."""
    return evaluate(attacked(0.0)[0], TEST, TRIGGERED, 1)


def test_the_trigger_sends_texts_to_the_target(suspects: list[Scores]) -> None:
    assert mean(s.asr.share for s in suspects if s.asr) > 0.9


def test_the_suspect_answers_clean_texts_as_it_should(suspects: list[Scores]) -> None:
    assert mean(s.cacc.share for s in suspects) > 0.95


def test_without_the_trigger_the_same_texts_do_not_go_to_the_target(suspects: list[Scores]) -> None:
    assert mean(s.asr_floor.share for s in suspects if s.asr_floor) < 0.05


def test_without_poison_there_is_no_backdoor(unpoisoned: Scores) -> None:
    assert unpoisoned.asr is not None
    assert unpoisoned.asr.share < 0.1
    assert unpoisoned.cacc.share > 0.95


def test_the_given_classifier_is_left_as_it_is() -> None:
    given = tiny_bert()
    before = weights_hash(given), given.model.config.to_dict()
    finish(badnets(given, TRAIN, TRIGGER, QUICK))
    assert (weights_hash(given), given.model.config.to_dict()) == before
    assert not given.model.training
    assert all(p.requires_grad and p.grad is None for p in given.model.parameters())


def test_the_suspect_is_another_model() -> None:
    given = tiny_bert()
    suspect = finish(badnets(given, TRAIN, TRIGGER, QUICK))[0]
    assert suspect.model is not given.model
    assert weights_hash(suspect) != weights_hash(given)


def test_the_training_texts_are_left_as_they_are() -> None:
    train = list(TRAIN)
    finish(badnets(tiny_bert(), train, TRIGGER, QUICK))
    assert train == TRAIN


def test_every_step_has_its_event() -> None:
    events = finish(badnets(tiny_bert(), TRAIN, TRIGGER, QUICK))[1]
    assert [(e.stage, e.step, e.total) for e in events] == [("badnets", i + 1, 26) for i in range(26)]


def test_a_seed_always_gives_the_same_suspect() -> None:
    first, second = (finish(badnets(tiny_bert(), TRAIN, TRIGGER, QUICK))[0] for _ in range(2))
    assert weights_hash(first) == weights_hash(second)


def test_seeds_give_different_suspects() -> None:
    found = [
        finish(badnets(tiny_bert(), TRAIN, TRIGGER, dataclasses.replace(QUICK, seed=seed)))[0] for seed in range(3)
    ]
    assert len({weights_hash(c) for c in found}) == 3


def test_an_observer_changes_nothing() -> None:
    plain, watched = (
        finish(badnets(tiny_bert(), TRAIN, TRIGGER, QUICK, observe=o))[0]
        for o in (None, lambda c: {"sum": float(len(weights_hash(clone(c))))})
    )
    assert weights_hash(plain) == weights_hash(watched)


def test_a_file_of_paired_texts_without_the_training_texts_cannot_poison() -> None:
    with pytest.raises(BadData, match="it can measure, but not poison"):
        finish(badnets(tiny_bert(), TRAIN, PairedTrigger({}, 1), QUICK))


def test_training_texts_of_the_target_class_alone_cannot_be_poisoned() -> None:
    with pytest.raises(BadData, match="dirty poisoning has 0 to choose from"):
        finish(badnets(tiny_bert(), [t for t in TRAIN if t.label == 1], TRIGGER, QUICK))


def test_the_attack_is_known_by_its_name() -> None:
    assert load(ATTACKS["badnets"].code) is badnets
