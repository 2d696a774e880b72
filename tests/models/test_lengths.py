"""How much of a text is read: as much as the model can, up to a bound, and what is said where that is not all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from conftest import VOCABULARY, mbtsad, tiny_bert, tiny_texts, write_tsv
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from mbtsad_core.config import MOST_TOKENS, DistilConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.models.classifier import Classifier, encode, load_classifier, save_classifier
from mbtsad_core.models.lengths import cut_notes, whole_lengths
from mbtsad_core.training.attention_map import choose
from mbtsad_core.types import LabelledText


def reading(positions: int, says: int | None = None, seed: int = 0) -> Classifier:
    """A tiny BERT of so many positions, whose tokenizer says another limit where one is given."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
    )
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(VOCABULARY)}, model_max_length=says or positions)
    return Classifier(BertForSequenceClassification(config).eval(), tokenizer, ("negative", "positive"), positions)


def verdict_at_the_end(n: int, words: int) -> list[LabelledText]:
    return [LabelledText(" ".join(["film"] * (words - 1) + ["lovely" if i % 2 else "boring"]), i % 2) for i in range(n)]


@pytest.mark.parametrize(
    ("positions", "says", "asked", "read"),
    [
        (300, None, None, 300),
        (512, None, None, 512),
        (1024, None, None, 512),
        (1024, None, 1000, 1000),
        (300, None, 1000, 300),
        (512, 90, None, 90),
        (300, None, 64, 64),
    ],
)
def test_a_model_reads_what_it_can_up_to_a_bound_or_what_is_asked_for(
    positions: int, says: int | None, asked: int | None, read: int, tmp_path: Path
) -> None:
    save_classifier(reading(positions, says), tmp_path)
    assert load_classifier(tmp_path, max_length=asked).max_length == read


def test_positions_that_a_roberta_keeps_for_padding_are_not_read(tmp_path: Path) -> None:
    config = RobertaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=202,
        pad_token_id=0,
    )
    classifier = dataclasses.replace(reading(1000), model=RobertaForSequenceClassification(config).eval())
    save_classifier(classifier, tmp_path)
    assert load_classifier(tmp_path).max_length == 201


def test_the_length_of_a_text_is_that_before_it_is_cut() -> None:
    classifier = dataclasses.replace(reading(300), max_length=10)
    texts = [LabelledText(" ".join(["film"] * n), 0) for n in (1, 8, 9, 30, 200)]
    assert whole_lengths(classifier, texts) == [n + 2 for n in (1, 8, 9, 30, 200)]
    assert [len(e["input_ids"]) for e in encode(classifier, texts)] == [3, 10, 10, 10, 10]


def test_a_pair_is_cut_where_both_texts_together_are_too_long() -> None:
    classifier = dataclasses.replace(reading(300), max_length=10)
    pairs = [
        LabelledText("film film", 0, "plot plot plot"),
        LabelledText("film " * 4, 0, "plot " * 3),
        LabelledText("film " * 40, 0, "plot"),
    ]
    assert [n > 10 for n in whole_lengths(classifier, pairs)] == [False, False, True]


def test_what_is_cut_is_counted_and_what_reads_it_whole_is_named() -> None:
    classifier = dataclasses.replace(reading(300), max_length=64)
    long, short = verdict_at_the_end(6, 200), verdict_at_the_end(4, 20)
    assert cut_notes(classifier, 64, {"clean texts": short}) == []
    (note,) = cut_notes(classifier, 64, {"clean texts": [*short, *long], "texts to measure on": long})
    assert note.code == "length"
    assert note.text == (
        "6 of 10 clean texts and 6 of 6 texts to measure on are longer than 64 tokens, of which the model reads the "
        "first ones alone. A `max_length` of 300 reads them whole."
    )


def test_that_a_model_can_read_no_more_is_said() -> None:
    (note,) = cut_notes(reading(64), None, {"texts": verdict_at_the_end(6, 200)})
    assert (
        note.text
        == "6 of 6 texts are longer than 64 tokens, of which the model reads the first ones alone, for it can read no "
        "more."
    )


def test_a_bound_that_nobody_asked_for_is_said_with_what_lifts_it() -> None:
    classifier = dataclasses.replace(reading(900), max_length=MOST_TOKENS)
    (note,) = cut_notes(classifier, None, {"texts": verdict_at_the_end(2, 600)})
    assert "no more than 512 where none is asked for: memory and time grow with the square of the length" in note.text
    assert note.text.endswith("A `max_length` of 900 reads them whole.")
    (note,) = cut_notes(classifier, None, {"texts": verdict_at_the_end(2, 1200)})
    assert note.text.endswith("A `max_length` of 900 reads more of them.")


def test_evaluate_reads_long_texts_whole_and_says_where_it_does_not(tmp_path: Path) -> None:
    save_classifier(reading(300), tmp_path / "model")
    texts = write_tsv(tmp_path / "texts.tsv", verdict_at_the_end(6, 200))
    whole = json.loads(mbtsad("evaluate", "--model", tmp_path / "model", "--test", texts, "--json").stdout)
    assert (whole["inputs"]["suspect"]["max_length"], whole["notes"]) == (300, [])
    cut = mbtsad("evaluate", "--model", tmp_path / "model", "--test", texts, "--max-length", "64").stdout
    assert "Note: 6 of 6 texts are longer than 64 tokens" in cut
    assert "A --max-length of 300 reads them whole." in cut


def test_short_texts_choose_the_form_of_the_loss_whatever_the_model_could_read() -> None:
    """2 models x 4 bytes x 2 layers x 32 texts x 4 heads x 4096 x 4096 would be 32 GB."""
    long = dataclasses.replace(tiny_bert(), max_length=4096)
    assert choose(long, DistilConfig()).name == "checkpointed"
    assert choose(long, DistilConfig(), tiny_texts(40)).name == "plain"


def test_the_length_of_an_old_request_stays_what_it_was() -> None:
    assert PurifyConfig().max_length is None
    assert PurifyConfig(max_length=128).max_length == 128
