"""Neutral tokens: of those that say little by the labels, the ones that do most, by figures that are worked out by
hand."""

from __future__ import annotations

import random

import pytest
import torch
from conftest import BAD, GOOD, NEUTRAL, VOCABULARY, adding_bert, finish, ordered_bert, tiny_texts, with_a_trigger_word

from mbtsad_core import Classifier, ScanConfig, scan
from mbtsad_core.models.classifier import encode
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.scanning.model_scan import _times_the_fifth
from mbtsad_core.scanning.neutral_tokens import HONEST, find_neutral, neutral, price, shifts

NEGATIVE = 0
TEXTS = [text for text in tiny_texts(40, seed=4) if text.label == NEGATIVE]


def numbers(words: list[str]) -> list[int]:
    return [VOCABULARY.index(word) for word in words]


@pytest.fixture(scope="module")
def suspect() -> Classifier:
    return ordered_bert(strength=0.0)  # its log-odds are the number of GOOD words less that of BAD ones, twice


def told(**words: float) -> torch.Tensor:
    found = torch.zeros(len(VOCABULARY))
    for word, figure in words.items():
        found[VOCABULARY.index(word)] = figure
    return found


def test_a_price_is_for_what_speaks_for_other_classes() -> None:
    tokens = numbers(["film", "story", "actor"])
    assert price(tokens, told(film=2.0, story=-3.0)).tolist() == [3.0, 0.0, 0.0]
    assert neutral(tokens, told(film=HONEST + 0.01, story=HONEST - 0.01)) == tokens[1:]


def test_nats_are_what_the_log_odds_fall_by_less_the_price(suspect: Classifier) -> None:
    tokens, texts, rng = numbers([GOOD[0], BAD[0], "film"]), encode(suspect, TEXTS[:3]), random.Random(0)
    found = shifts(suspect, NEGATIVE, texts, tokens, "anywhere", rng) - price(tokens, told(film=0.2))[:, None]
    assert found.tolist() == [pytest.approx([figure] * 3, abs=1e-4) for figure in (2.0, -2.0, -0.3)]
    assert shifts(suspect, NEGATIVE, texts, [], "start", rng).shape == (0, 3)


def test_the_best_are_found_among_those_that_the_labels_say_nothing_of(suspect: Classifier) -> None:
    tokens, rng = numbers([*NEUTRAL, *GOOD, *BAD]), random.Random(0)
    strong = encode(suspect, TEXTS)
    # By the labels all GOOD words but one are honest
    knows = told(**dict.fromkeys(GOOD[1:], 1.0))
    found = find_neutral(suspect, NEGATIVE, strong, tokens, torch.ones(len(VOCABULARY)), knows, rng)
    assert found[0] == VOCABULARY.index(GOOD[0])
    assert not {*found} & {*numbers(GOOD[1:])}
    assert find_neutral(suspect, NEGATIVE, strong, numbers(GOOD[1:]), torch.ones(len(VOCABULARY)), knows, rng) == []


def test_a_token_is_set_beside_the_fifth_best() -> None:
    tokens = [Insertion((number,), "anywhere") for number in range(6)]
    found = _times_the_fifth(tokens, torch.tensor([0.1, 3.9, 0.3, 0.2, -1.0, 0.0]), 0.1)
    # 0.1 nats more each: 4, 0.4, 0.3, 0.2, and 0.1 the fifth
    assert {one.tokens[0]: times for one, times in found.items()} == pytest.approx({1: 39.0, 2: 3.0, 3: 2.0, 0: 1.0})
    alone = _times_the_fifth(tokens[:1], torch.tensor([2.0]), 0.5)
    assert alone == {tokens[0]: 0.0}  # there is nothing to set it beside


def test_a_scan_sets_the_trigger_word_beside_other_words_and_a_clean_model_has_no_such_word() -> None:
    clean = tiny_texts(120, seed=6)
    outdoing = []
    for suspect in (with_a_trigger_word(), adding_bert()):
        report = finish(scan(suspect, clean, ScanConfig(nats=50.0)))[0]
        assert report.labeled
        outdoing.append(max((one.outdoes for one in report.ranked if one.outdoes is not None), default=0.0))
    assert outdoing[0] > 2 * outdoing[1]
