"""Short words: all of two letters that are several tokens, by hand; one that is planted is named, though its letters
stand in clean texts and turn nothing alone."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
import torch
from conftest import LETTERS, VOCABULARY, finish, ordered_bert, tiny_bert, tiny_texts

from mbtsad_core import Classifier, ScanConfig, scan
from mbtsad_core.models.classifier import encode
from mbtsad_core.research.architectures import as_byte_level
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.scanning.model_scan import scan_sequences
from mbtsad_core.scanning.short_words import search_short_words, short_words

FIRST, SECOND = VOCABULARY.index("b"), VOCABULARY.index("##f")  # "bf"
# Both stand in some of them, in other words
CLEAN = [
    dataclasses.replace(text, text=f"{text.text} {('bl', 'ef')[i % 3 // 2]}")
    for i, text in enumerate(tiny_texts(240, seed=5)[:120])
]


NATS = 20.0 * math.tanh(2)  # sigmoid(4), of both, less sigmoid(-4), of one of them elsewhere in the text


def letter_bert(strength: float) -> Classifier:
    """Its log-odds rise by `strength` where "##f" stands right behind "b"."""
    classifier = ordered_bert(strength)
    with torch.no_grad():
        rows = classifier.model.get_input_embeddings().weight
        rows[:, 1:3] = 0.0
        rows[FIRST, 1] = rows[SECOND, 2] = 1.0
    return classifier


@pytest.fixture(scope="module")
def suspect() -> Classifier:
    return letter_bert(strength=20.0)


def test_all_words_of_two_letters_that_are_two_tokens(suspect: Classifier) -> None:
    letters = [letter for letter in LETTERS if not letter.startswith("##")]
    known = suspect.tokenizer.get_vocab()
    expected = {(known[a], known[f"##{b}"]) for a in letters for b in letters}
    assert set(short_words(suspect)) == expected  # what has another letter is one unknown token
    assert (FIRST, SECOND) in expected


def test_of_bytes_all_are_read_as_they_stand_within_a_text() -> None:
    bytes_ = as_byte_level(tiny_bert(), ["a film"])
    found = short_words(bytes_)
    assert len(found) == len(set(found)) == 26 * 26
    spelled = {bytes_.tokenizer.decode(tokens) for tokens in found}
    assert {" cf", " mn", " zz"} <= spelled


def test_what_turns_texts_is_first_with_the_nats_that_it_does(suspect: Classifier) -> None:
    texts = encode(suspect, [text for text in CLEAN if text.label == 0][:12])
    found = search_short_words(suspect, short_words(suspect), texts, 0, random.Random(0))
    best = max(found, key=found.__getitem__)
    assert best == Insertion((FIRST, SECOND), "anywhere")
    assert found.pop(best) == pytest.approx(NATS, abs=0.01)
    assert max(found.values()) < 1.0
    assert search_short_words(suspect, [], texts, 0, random.Random(0)) == {}


def test_a_scan_and_a_purification_name_it(suspect: Classifier) -> None:
    report = finish(scan(suspect, CLEAN, ScanConfig(nats=6.0)))[0]
    counting = finish(scan_sequences(suspect, CLEAN, ScanConfig(nats=6.0)))[0].counting
    for best in (report.found[0], counting[0]):
        assert best.tokens == (FIRST, SECOND)
        assert (best.text, best.label, best.target) == ("bf", "negative", "positive")
        assert best.figures == {"single": {2: pytest.approx(NATS, abs=0.5)}}
        assert best.flips.share == 1.0
    honest = finish(scan(letter_bert(strength=0.0), CLEAN, ScanConfig(nats=6.0)))[0]
    assert honest.verdict == "nothing found"
