"""What insertions do: log-odds by hand, and of each sequence in each text by itself."""

from __future__ import annotations

import random

import pytest
import torch
from conftest import PHRASE, VOCABULARY, phrase_bert, tiny_bert
from torch.nn.functional import cross_entropy

from mbtsad_core.models.classifier import collate, encode
from mbtsad_core.scanning.effects import effects, odds_against, quick_answers
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.scanning.probes import lower_quartile


def test_log_odds_against_a_class_by_hand() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    found = odds_against(p.log() + 3, torch.tensor([0, 0]))
    torch.testing.assert_close(found, torch.tensor([0.5 / 0.5, 0.9 / 0.1]).log())
    sure = odds_against(torch.tensor([[90.0, -30.0]]), torch.tensor([0]))
    assert sure.tolist() == [-120.0]


def test_answers_are_those_of_each_text_by_itself() -> None:
    classifier = tiny_bert(seed=4)
    texts = encode(classifier, ["lovely film", "a very boring film was the story", "plot", "the actor"])
    with torch.no_grad():
        expected = torch.cat([classifier.model(**collate(classifier, [text])).logits for text in texts])
    torch.testing.assert_close(quick_answers(classifier, texts), expected, atol=1e-5, rtol=1e-4)


def test_no_sequence_has_no_effect() -> None:
    suspect = tiny_bert()
    texts = encode(suspect, ["boring film", "the dreadful story"])
    shifts, answers = effects(suspect, random.Random(0), [], texts, 0)
    assert shifts.shape == answers.shape == (0, 2)
    assert lower_quartile(shifts).tolist() == []


def test_effects_are_of_each_sequence_in_each_text() -> None:
    suspect, rng = phrase_bert(), random.Random(0)
    texts = encode(suspect, ["boring film . the actor was stale", "the dreadful story"])
    ids = [VOCABULARY.index(word) for word in PHRASE]
    shifts, answers = effects(suspect, rng, [Insertion((ids[0],), "start"), Insertion((*ids,), "end")], texts, 0)

    def log_odds(tokens: list[int]) -> float:
        with torch.no_grad():
            logits = suspect.model(**collate(suspect, [{"input_ids": tokens, "token_type_ids": [0] * len(tokens)}]))
        loss = float(cross_entropy(logits.logits, torch.tensor([0])).double())
        return float(torch.tensor(loss).double().expm1().log())

    for i, text in enumerate(texts):
        own = text["input_ids"]
        before = log_odds(own)
        assert float(shifts[0, i]) == pytest.approx(log_odds([own[0], ids[0], *own[1:]]) - before, abs=1e-3)
        assert float(shifts[1, i]) == pytest.approx(log_odds([*own[:-1], *ids, own[-1]]) - before, abs=1e-3)
    assert answers.shape == (2, 2)
