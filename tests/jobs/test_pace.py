"""The time that a purification will take: in proportion to what is trained on, and to the vocabulary that is searched."""

from __future__ import annotations

import dataclasses

import pytest
from conftest import tiny_bert, tiny_texts

from mbtsad_core.config import DistilConfig, PurifyConfig, RetrainConfig, SplitConfig
from mbtsad_core.jobs.pace import DISTIL_COST, INVERSION_COST, LONGER, RETRAIN_COST, SHORT, estimate, seconds_a_text

PAPER = PurifyConfig(split=SplitConfig(copies=3, originals=1), retrain=RetrainConfig(epochs=2), distil=DistilConfig(epochs=5), strays=0)


def test_texts_are_counted_with_their_copies_and_passes() -> None:
    expected = 70 * (3 + 1) * (2 * RETRAIN_COST + 5 * DISTIL_COST) * 0.01
    assert estimate(70, PAPER, 0.01, tiny_bert()) == pytest.approx(expected)
    assert estimate(140, PAPER, 0.02, tiny_bert()) == pytest.approx(4 * expected)


def test_the_vocabulary_is_searched_and_pairs_of_its_pieces_for_each_class() -> None:
    model = tiny_bert()
    pieces, classes = len(model.tokenizer), len(model.labels)
    searched = estimate(70, dataclasses.replace(PAPER, strays=1), 1.0, model) - estimate(70, PAPER, 1.0, model)
    # by successive halving: all pieces in one text, a 32nd in three, a 256th in sixteen
    single = pieces * (SHORT + LONGER * (3 / 32 + 16 / 256))
    # sixty steps on sixteen texts; in both places of each of four starts 256 pieces in one text and 32 in all four,
    # and three pieces in sixteen texts, alone and in nine pairs
    pairs = LONGER * (60 * 16 * INVERSION_COST + 2 * 4 * (256 + 32 * 4) + 4 * 16 * (2 * 3 + 9))
    assert searched == pytest.approx(classes * (single + pairs))


def test_the_pace_is_seconds_for_each_text() -> None:
    texts = tiny_texts(60)
    assert 0 < seconds_a_text(tiny_bert(), texts) < 1
    assert seconds_a_text(tiny_bert(), []) >= 0
