"""Lineages: what turns joined texts only together is found, with the order of its words; honest words are not, nor are
words that do the same wherever they stand."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from itertools import pairwise

import pytest
from conftest import GOOD, ORDERED, PHRASE, VOCABULARY, finish, ordered_bert, phrase_bert, plain_texts, tiny_texts

from mbtsad_core.models.classifier import Classifier, encode, predict
from mbtsad_core.models.subword_tokens import own_tokens, vocabulary
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.scanning.lineages import LOW, Lineages, together
from mbtsad_core.scanning.polarity import polarity_of
from mbtsad_core.scanning.strong_texts import JOINED, draw_joined, joined, strong_texts
from mbtsad_core.types import Event

CLEAN = plain_texts(64, seed=3)
FIRST, SECOND = (VOCABULARY.index(word) for word in ORDERED)


def search(classifier: Classifier, seed: int = 0) -> tuple[Lineages, list[Event]]:
    special = own_tokens(classifier)
    tokens = [token for token in vocabulary(classifier) if token not in special]
    polarity = finish(polarity_of(classifier, CLEAN, seed))[0]
    strong = strong_texts(classifier, encode(classifier, [text for text in CLEAN if text.label == 0]), 0)
    lineages = Lineages(classifier, 0, strong, tokens, tokens, polarity, seed)
    return lineages, finish(lineages.run())[1]


# ---------------------------------------------------------------- the texts


def test_joined_texts_have_one_beginning_one_end_and_all_that_stands_between() -> None:
    one, other = ({"input_ids": [2, *body, 3], "token_type_ids": [0] * (len(body) + 2)} for body in ([7, 8], [9]))
    assert joined([one, other], 8) == {"input_ids": [2, 7, 8, 9, 3], "token_type_ids": [0] * 5}
    assert joined([one], 8) == one
    assert joined([one, other], 5) == {"input_ids": [2, 7, 9, 3], "token_type_ids": [0] * 4}  # a token of each


def test_strong_texts_are_the_surest_of_the_shorter_half() -> None:
    classifier = ordered_bert(0.0)
    texts = [text for text in tiny_texts(40, seed=1) if text.label == 1]
    texts += [dataclasses.replace(text, text=f"{text.text} {text.text}") for text in texts]
    sure = dict(zip((text.text for text in texts), predict(classifier, texts)[:, 1].tolist(), strict=True))
    strong = strong_texts(classifier, encode(classifier, texts), 1)
    told = [" ".join(VOCABULARY[token] for token in text["input_ids"][1:-1]) for text in strong]
    assert sorted(told) == sorted(text.text for text in texts[:20])
    assert [sure[text] for text in told] == sorted((sure[text] for text in told), reverse=True)


def test_each_text_is_joined_as_often_as_any_other() -> None:
    texts = [{"input_ids": [2, 10 + i, 3]} for i in range(6)]
    drawn = draw_joined(texts, 4, 9, 64, random.Random(0))
    seen = Counter(token for text in drawn for token in text["input_ids"][1:-1])
    assert {len(text["input_ids"]) for text in drawn} == {6}
    assert set(seen.values()) == {6}


# ---------------------------------------------------------------- the figure


def figure(classifier: Classifier, *words: str) -> list[float]:
    texts = draw_joined(
        encode(classifier, [text for text in CLEAN if text.label == 0]), JOINED, 12, 64, random.Random(1)
    )
    ones = [Insertion(tuple(VOCABULARY.index(word) for word in words), "anywhere")]
    polarity = finish(polarity_of(classifier, CLEAN, 0))[0]
    return [float(nats) for nats in together(classifier, random.Random(2), ones, texts, 0, polarity)[0]]


def test_a_phrase_does_its_all_together_and_honest_words_nothing_more() -> None:
    classifier = ordered_bert(strength=20.0)
    nats = sorted(figure(classifier, "music", "plot"))
    assert nats[3] == pytest.approx(20 * math.tanh(2), abs=0.1)  # sigmoid(4) - sigmoid(-4); each word alone does -4
    assert max(map(abs, figure(classifier, "plot", "music"))) < 20.1
    assert max(map(abs, figure(classifier, *GOOD[:3]))) < 1e-3


def test_words_that_do_the_same_wherever_they_stand_have_no_figure() -> None:
    assert max(map(abs, figure(phrase_bert(), *PHRASE))) < 0.1


# ---------------------------------------------------------------- the search


@pytest.mark.parametrize("seed", [0, 1])
def test_a_phrase_is_found_in_its_order(seed: int) -> None:
    lineages, _ = search(ordered_bert(strength=20.0), seed)
    for length in (2, 3):
        best = lineages.leading(1)[length - 2].tokens
        assert len(best) == length
        assert (FIRST, SECOND) in pairwise(best)
        assert lineages.best[best] > 15


def test_a_clean_model_is_left_early() -> None:
    lineages, events = search(ordered_bert(strength=0.0))
    assert {len(one) for one in lineages.best} == {2, 3}
    assert max(nats for one, nats in lineages.best.items() if len(one) == 3) < LOW
    assert events[-1].step < events[-1].total


def test_the_search_counts_its_steps_and_says_the_same_again() -> None:
    (lineages, events), (again, _) = (search(ordered_bert(strength=20.0)) for _ in range(2))
    assert lineages.best == again.best
    assert [event.step for event in events] == [*range(1, events[-1].total + 1)]
    assert {(event.stage, event.total) for event in events} == {("sequences", events[-1].total)}


def test_nothing_stands_beside_a_founder_that_says_something_honest() -> None:
    lineages, _ = search(ordered_bert(strength=20.0))
    assert not set(lineages.common) & {VOCABULARY.index(word) for word in GOOD}
    assert {FIRST, SECOND} <= set(lineages.common)
