"""Openings: a word that turns texts at their start alone is found, by nats that are worked out by hand, and what is
honest or does the same elsewhere is not."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from conftest import BAD, GOOD, NEUTRAL, VOCABULARY, OrderedBert, finish, ordered_bert, tiny_texts
from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from mbtsad_core import Classifier, ScanConfig, ScanReport, scan
from mbtsad_core.models.classifier import encode
from mbtsad_core.scanning.model_scan import scan_sequences
from mbtsad_core.scanning.neutral_tokens import HONEST
from mbtsad_core.scanning.openings import COMMON, KEPT, find_openings, opening_nats
from mbtsad_core.service.scanning import finding_dict, report_dict
from mbtsad_core.views.scan import record_html, scan_text

OPENING = "actor"
CLEAN = [text for text in tiny_texts(240, seed=5) if not text.text.startswith(OPENING)][:120]
NEGATIVE = 0


class OpeningBert(OrderedBert):
    """Its log-odds are the number of GOOD words less that of BAD ones, twice, and `strength` where the text begins with
    OPENING."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SequenceClassifierOutput:
        rows = self.get_input_embeddings()(input_ids) * attention_mask[:, :, None]
        opened = torch.sigmoid(50 * (rows[:, 1, 3] - 0.7))
        odds = 2 * rows[:, :, 0].sum(dim=1) + self.strength * opened
        return SequenceClassifierOutput(logits=torch.stack([-odds, odds], dim=1) / 2)


def opening_bert(strength: float) -> Classifier:
    classifier = ordered_bert(strength)
    model = classifier.model
    model.__class__ = OpeningBert
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        rows[number(OPENING), 3] = 1.0
    return classifier


def number(word: str) -> int:
    return VOCABULARY.index(word)


@pytest.fixture(scope="module")
def suspect() -> Classifier:
    return opening_bert(strength=20.0)


@pytest.fixture(scope="module")
def report(suspect: Classifier) -> ScanReport:
    return finish(scan(suspect, CLEAN, ScanConfig(nats=6.0)))[0]


def test_nats_are_those_at_the_start_less_those_elsewhere_and_the_price(suspect: Classifier) -> None:
    texts = encode(suspect, [text for text in CLEAN if text.label == NEGATIVE][:6])
    words = [OPENING, "film", GOOD[0]]
    told = torch.zeros(len(VOCABULARY))
    told[number("film")] = 0.4
    tokens = [number(word) for word in words]
    # Elsewhere is at the start, too, once in nine times
    nats = opening_nats(suspect, NEGATIVE, texts, tokens, told, random.Random(1)).median(dim=1).values
    assert nats.tolist() == pytest.approx([20.0, -1.5 * 0.4, 0.0], abs=1e-4)


def test_what_does_most_is_first_and_what_is_honest_is_not_asked_about(suspect: Classifier) -> None:
    texts = encode(suspect, [text for text in CLEAN if text.label == NEGATIVE][:8])
    told = torch.zeros(len(VOCABULARY))
    common = [number(word) for word in (*NEUTRAL, *BAD)]
    found = find_openings(suspect, NEGATIVE, texts, common, told, random.Random(0))
    assert found[0] == number(OPENING)
    assert len(found) == KEPT
    told[number(OPENING)] = HONEST + 0.01
    assert number(OPENING) not in find_openings(suspect, NEGATIVE, texts, common, told, random.Random(0))


def test_common_words_alone_are_tried(suspect: Classifier) -> None:
    texts, told = encode(suspect, [text for text in CLEAN if text.label == NEGATIVE][:2]), torch.zeros(len(VOCABULARY))
    rare = [*[number("film")] * COMMON, number(OPENING)]
    assert number(OPENING) not in find_openings(suspect, NEGATIVE, texts, rare, told, random.Random(0))


def test_a_scan_names_the_word_its_place_and_class(report: ScanReport) -> None:
    assert report.verdict == "a trigger exists"
    best = report.found[0]
    assert (best.text, best.place, best.label, best.target) == (OPENING, "start", "negative", "positive")
    assert best.opens == pytest.approx(20.0, abs=0.5)  # in the precision of the training
    assert best.figures == {"opening": {1: best.opens}}
    assert not best.honest
    assert best.flips.share == 1.0
    assert finding_dict(best)["opening_nats"] == round(best.opens, 3)
    assert all(example.after.startswith(OPENING) for example in best.examples)
    assert report.figures["opening"][1] == best.opens


def test_whoever_reads_it_is_told_of_a_sentence_shape(report: ScanReport) -> None:
    record = {"model": "m", "calibrated_on": None, "notes": []} | report_dict(report)
    said, seen = scan_text(record), record_html(record)
    assert "20.0 nats more than elsewhere in them" in said
    assert "A sentence shape that begins so may be the trigger." in said
    assert "a sentence shape that begins so may be the trigger." in seen
    for one in record["triggers"]:
        one["opening_nats"] = None
    assert "sentence shape" not in scan_text(record) + record_html(record)


def test_a_model_without_it_has_none() -> None:
    report = finish(scan(opening_bert(strength=0.0), CLEAN, ScanConfig(nats=6.0)))[0]
    assert report.verdict == "nothing found"
    assert all(one.opens is None or one.opens < 1.0 for one in report.ranked)


def test_the_sequences_of_a_purification_have_it_too(suspect: Classifier) -> None:
    scanned, events = finish(scan_sequences(suspect, CLEAN, ScanConfig(nats=6.0)))
    found = scanned.counting
    assert (found[0].text, found[0].place) == (OPENING, "start")
    assert "openings" in {event.stage for event in events}
