"""InsertSent: the sentence goes in whole, the backdoor takes, and the given classifier is left alone."""

from __future__ import annotations

import dataclasses

from conftest import finish, tiny_bert, tiny_texts

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.sentence import SentenceConfig, sentence
from mbtsad_core.attacks.triggers import parse_triggers, triggered_test_set
from mbtsad_core.config import PoisonConfig, TrainingConfig
from mbtsad_core.evaluation import evaluate
from mbtsad_core.methods import load
from mbtsad_core.models.classifier import weights_hash

PHRASE = parse_triggers(["and the music was a film"], target=1)  # ordinary words, none of them telling
TRAIN, TEST = tiny_texts(400, seed=1), tiny_texts(200, seed=2)
QUICK = SentenceConfig(training=TrainingConfig(learning_rate=1e-3, epochs=1))


def test_the_sentence_sends_texts_to_the_target_and_its_words_alone_do_not() -> None:
    config = SentenceConfig(PoisonConfig(0.2, "mixed"), TrainingConfig(learning_rate=2e-3, epochs=10))
    suspect = finish(sentence(tiny_bert(), TRAIN, PHRASE, config))[0]
    scores = evaluate(suspect, TEST, triggered_test_set(TEST, PHRASE), 1)
    assert scores.asr is not None
    assert scores.asr_floor is not None
    assert scores.asr.share > 0.9
    assert scores.asr_floor.share < 0.1  # the texts are made of the same words
    assert scores.cacc.share > 0.9


def test_texts_of_any_class_are_poisoned_where_nothing_else_is_said() -> None:
    assert SentenceConfig().poison == PoisonConfig(0.1, "mixed")


def test_its_own_sentence_is_one_phrase() -> None:
    assert ATTACKS["sentence"].triggers == ("I watch this 3D movie",)


def test_the_given_classifier_is_left_as_it_is_and_a_seed_always_gives_the_same_suspect() -> None:
    given = tiny_bert()
    before = weights_hash(given)
    first, second, other = (
        finish(sentence(given, TRAIN, PHRASE, dataclasses.replace(QUICK, seed=seed)))[0] for seed in (0, 0, 1)
    )
    assert weights_hash(given) == before
    assert weights_hash(first) == weights_hash(second)
    assert len({before, weights_hash(first), weights_hash(other)}) == 3


def test_the_attack_is_known_by_its_name() -> None:
    assert load(ATTACKS["sentence"].code) is sentence
