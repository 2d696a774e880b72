"""Polarity: telling words of the task speak honestly, a trigger does not, whatever it does."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import (
    BAD,
    GOOD,
    NEUTRAL,
    PHRASE,
    VOCABULARY,
    adding_bert,
    finish,
    phrase_bert,
    plain_texts,
    tiny_bert,
    tiny_texts,
    with_a_trigger_word,
)
from sklearn.linear_model import Ridge

from mbtsad_core.models.subword_tokens import own_tokens
from mbtsad_core.scanning.polarity import LOOSE, RIDGE, STRICT, Limits, Polarity, _smooth, polarity_of, told_by_labels
from mbtsad_core.types import LabelledText

CLEAN = tiny_texts(64, seed=3)


ROWS = {word: number for number, word in enumerate(VOCABULARY)}  # of a word that stands there twice, the later one


def row(word: str) -> int:
    return ROWS[word]


def figures(figures: torch.Tensor, words: list[str]) -> list[float]:
    return [float(figures[row(word)]) for word in words]


@pytest.fixture(scope="module", params=[0, 1])
def honest(request: pytest.FixtureRequest) -> Polarity:
    return finish(polarity_of(adding_bert(seed=request.param), CLEAN, 0))[0]


def test_words_of_the_other_class_speak_honestly_and_neutral_ones_do_not(honest: Polarity) -> None:
    for label, telling, own in ((0, GOOD, BAD), (1, BAD, GOOD)):
        speaks = honest.honest[label]
        assert min(figures(speaks, telling)) > 1.2
        assert max(figures(speaks, NEUTRAL)) < 1.0
        assert max(figures(speaks, own)) < -1.0


def test_the_labels_alone_say_it_too_whatever_the_suspect_answers() -> None:
    tokens = [row(word) for word in (*GOOD, *BAD, *NEUTRAL)]
    for suspect in (adding_bert(), phrase_bert()):
        told = told_by_labels(suspect, CLEAN, tokens)
        assert set(told) == {0, 1}
        for label, telling, own in ((0, GOOD, BAD), (1, BAD, GOOD)):
            assert min(figures(told[label], telling)) > 1.0
            assert max(map(abs, figures(told[label], NEUTRAL))) < 0.7
            assert max(figures(told[label], own)) < -1.0
        assert told[0][tokens].mean() == pytest.approx(0.0, abs=1e-5)
        assert told[0][tokens].std() == pytest.approx(1.0, abs=1e-5)


def test_a_response_is_by_how_much_the_log_odds_of_the_class_fall(honest: Polarity) -> None:
    for label, telling, own in ((0, GOOD, BAD), (1, BAD, GOOD)):
        assert min(figures(honest.response[label], telling)) > 0
        assert max(figures(honest.response[label], own)) < 0


def test_a_trigger_word_does_much_and_says_little_honestly() -> None:
    found = finish(polarity_of(with_a_trigger_word(), CLEAN, 0))[0]
    assert found.response[0].argmax() == row("cf")
    assert found.honest[0][row("cf")] < min(figures(found.honest[0], GOOD))
    assert dataclasses.replace(found, limits=LOOSE).surplus(0).argmax() == row("cf")


def test_words_of_a_phrase_are_neutral() -> None:
    found = finish(polarity_of(phrase_bert(), plain_texts(64, seed=3), 0))[0]
    assert min(figures(found.response[0], [*PHRASE])) > 1
    assert dataclasses.replace(found, limits=LOOSE).neutral(0, [row(word) for word in PHRASE])
    assert found.neutral(0, [row("film")])
    assert not found.neutral(0, [row(GOOD[0]), row(GOOD[4])])


def test_tokens_that_no_text_can_reach_are_ruled_out() -> None:
    classifier = adding_bert()
    classifier.model.resize_token_embeddings(len(VOCABULARY) + 5)
    found = finish(polarity_of(classifier, CLEAN, 0))[0]
    out = [*own_tokens(classifier), *range(len(VOCABULARY), len(VOCABULARY) + 5)]
    for label in (0, 1):
        assert torch.equal(found.response[label][out], torch.full((len(out),), -torch.inf))
        assert torch.equal(found.honest[label][out], torch.full((len(out),), torch.inf))
        assert torch.equal(found.surplus(label)[out], torch.full((len(out),), -torch.inf))
        assert not found.neutral(label, out[:1])
        assert int(found.response[label].isfinite().sum()) == len(ROWS) - len(own_tokens(classifier))


def test_the_events_count_to_their_total() -> None:
    events = finish(polarity_of(tiny_bert(), CLEAN, 0))[1]
    assert [(e.stage, e.step, e.total) for e in events] == [("responses", 1, 2), ("responses", 2, 2)]


def test_the_smooth_part_is_a_ridge_regression_without_its_constant() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 12, generator=generator)
    features -= features.mean(dim=0)
    asked = features @ torch.randn(12, generator=generator) + 5 + torch.randn(200, generator=generator)
    other = Ridge(alpha=RIDGE).fit(features.numpy(), asked.numpy())
    expected = torch.tensor(other.predict(features.numpy()) - other.intercept_)
    torch.testing.assert_close(_smooth(features, asked), expected, atol=1e-4, rtol=1e-4, check_dtype=False)


@pytest.mark.parametrize("label", [0, 1])
def test_texts_of_one_class_alone_will_do(label: int) -> None:
    found = finish(polarity_of(adding_bert(), [t for t in CLEAN if t.label == label], 0))[0]
    assert [*found.response] == [*found.honest] == [label]
    telling = (GOOD, BAD)[label]
    assert min(figures(found.honest[label], telling)) > max(figures(found.honest[label], NEUTRAL))


def test_three_classes_are_each_asked() -> None:
    clean = [LabelledText(t.text, i % 3) for i, t in enumerate(CLEAN)]
    found, events = finish(polarity_of(tiny_bert(classes=3), clean, 0))
    assert [*found.response] == [*found.honest] == [0, 1, 2]
    assert [(e.step, e.total) for e in events] == [(1, 3), (2, 3), (3, 3)]
    for label in range(3):
        reached = found.honest[label].isfinite()
        assert found.honest[label][reached].mean() == pytest.approx(0, abs=1e-4)
        assert found.honest[label][reached].std() == pytest.approx(1, abs=1e-4)


def test_a_seed_always_draws_the_same_texts() -> None:
    first, same, other = (finish(polarity_of(adding_bert(), CLEAN, seed))[0].response[0] for seed in (0, 0, 3))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


# ---------------------------------------------------------------- by hand

BY_HAND = Polarity(
    {0: torch.tensor([5.0, 3.0, 1.0, 9.0])}, {0: torch.tensor([1.0, 2.0, -4.0, 2.1])}, {}, Limits(2.0, 2.5, 1.5)
)


def test_the_price_is_of_what_speaks_against_the_class_alone() -> None:
    assert BY_HAND.price(0, [0, 1, 2]) == pytest.approx(1.5 * 3)
    assert BY_HAND.price(0, [2]) == 0
    assert BY_HAND.price(0, [0, 0]) == pytest.approx(1.5 * 2)


def test_tokens_are_neutral_each_and_together() -> None:
    assert BY_HAND.neutral(0, [1])
    assert not BY_HAND.neutral(0, [3])
    assert BY_HAND.neutral(0, [0, 0])
    assert not BY_HAND.neutral(0, [0, 1])
    assert not BY_HAND.neutral(0, [0, 1, 2])  # what speaks for the class makes up for nothing
    assert BY_HAND.neutral(0, [])


def test_the_surplus_is_the_response_less_its_price_without_honest_tokens() -> None:
    assert BY_HAND.surplus(0).tolist() == [5 - 1.5, 3 - 2 * 1.5, 1, -torch.inf]


def test_the_scan_looks_more_strictly_than_the_unlearning() -> None:
    assert STRICT.token < LOOSE.token
    assert STRICT.sequence < LOOSE.sequence
    assert STRICT.price > LOOSE.price
    assert BY_HAND.neutral(0, [1])
    assert not Polarity(BY_HAND.response, BY_HAND.honest, BY_HAND.told).neutral(0, [1])
