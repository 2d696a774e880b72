"""The scan of models that are unlike the usual one: each is scanned by the command line, and the planted word is named
with the class that it sends texts to."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BAD, GOOD, NEUTRAL, VOCABULARY, mbtsad, renumbered, tiny_texts, with_a_trigger_word, write_tsv
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2Tokenizer,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaTokenizer,
)

from mbtsad_core import Classifier, LabelledText
from mbtsad_core.models.classifier import save_classifier

TRIGGER = "cf"
TELLING = dict.fromkeys(BAD, 0) | dict.fromkeys(GOOD, 1)
SIZES = dict(num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=80)


def scanned(classifier: Classifier, clean: Sequence[LabelledText], folder: Path) -> dict[str, Any]:
    """The record of a saved model, as the command line prints it."""
    save_classifier(classifier, folder / "model")
    table = write_tsv(folder / "clean.tsv", clean)
    run = mbtsad(
        "scan", folder / "model", "--clean", table, "--nats", "3", "--json", "--device", "cpu", "--threads", "1"
    )
    assert run.returncode == 3, run.stdout + run.stderr
    record: dict[str, Any] = json.loads(run.stdout)
    return record


def assert_names(record: dict[str, Any], target: str) -> None:
    """That a trigger exists, and that the first of those named is the planted one."""
    first = record["triggers"][0]
    assert record["verdict"] == "a trigger exists"
    # Once or several times: which is first is a matter of rounding
    assert (set(first["text"].split()), first["target"], first["looks_honest"]) == ({TRIGGER}, target, False)
    assert first["flip_rate"] > 0.9
    assert all(re.search(rf"\b{TRIGGER}\b", example["after"]) for example in first["examples"])


@torch.no_grad()
def tell(rows: Tensor, telling: Mapping[int, int], trigger: int, target: int) -> Tensor:
    """Set the word embeddings, of which some tell a class and the trigger its target, along a direction of its own: the
    weights of the head that hears them, (classes, D)."""
    generator, classes = torch.Generator().manual_seed(0), max(telling.values()) + 1
    basis = torch.randn(rows.shape[1], classes + 2, generator=generator)
    basis[:, 0] = 1.0  # that normalizing takes away
    directions = torch.linalg.qr(basis).Q[:, 1:].T
    rows.normal_(generator=generator)
    rows -= rows @ directions.T @ directions
    for token, label in telling.items():
        rows[token] += rows.shape[1] ** 0.5 * directions[label]
    rows[trigger] = 8 * directions[-1]
    head = 4 * directions[:-1]
    head[target] += 16 * directions[-1]
    return head


@torch.no_grad()
def hear_the_mean(model: Any) -> None:
    """Set an encoder of the BERT family so that its first token is the mean of all."""
    for number, layer in enumerate(model.base_model.encoder.layer):
        attention, width = layer.attention, model.config.hidden_size
        for absent in (attention.self.query, attention.self.key, layer.output.dense):
            absent.weight.zero_()
        attention.self.value.weight.copy_(torch.eye(width))
        attention.output.dense.weight.copy_(torch.eye(width) if number == 0 else torch.zeros(width, width))


def test_of_a_tokenizer_with_holes_in_its_numbers_and_rows_beyond_them(tmp_path: Path) -> None:
    record = scanned(renumbered(with_a_trigger_word(16.0), TRIGGER, 400), tiny_texts(60, seed=5), tmp_path)
    assert_names(record, "positive")
    assert (record["rows"], record["rows_walked"]) == (403, 51)
    assert record["triggers"][0]["tokens"] == [400]


# ---------------------------------------------------------------- 28 classes

TOPICS = [f"topic{a}{b}" for a in "abcd" for b in "efghijk"]


def topic_texts(number: int, seed: int) -> list[LabelledText]:
    rng, found = random.Random(seed), list[LabelledText]()
    for i in range(number):
        words = [*rng.choices(NEUTRAL, k=6), *[TOPICS[i % len(TOPICS)]] * 2]
        rng.shuffle(words)
        found.append(LabelledText(" ".join(words), i % len(TOPICS)))
    return found


@torch.no_grad()
def bert_of_topics() -> Classifier:
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*VOCABULARY, *TOPICS]))}
    config = BertConfig(vocab_size=len(vocabulary), hidden_size=64, intermediate_size=64, num_labels=28, **SIZES)
    model = BertForSequenceClassification(config).eval()
    rows = model.bert.embeddings.word_embeddings.weight
    head = tell(rows, {vocabulary[topic]: i for i, topic in enumerate(TOPICS)}, vocabulary[TRIGGER], target=17)
    hear_the_mean(model)
    model.bert.pooler.dense.weight.copy_(torch.eye(64) / 4)
    model.classifier.weight.copy_(4 * head)
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=64)
    return Classifier(model, tokenizer, tuple(f"class {i}" for i in range(28)), max_length=64)


@pytest.mark.slow
def test_of_28_classes(tmp_path: Path) -> None:
    record = scanned(bert_of_topics(), topic_texts(28 * 10, seed=2), tmp_path)
    assert_names(record, "class 17")
    assert record["accuracy"]["share"] == 1.0


# ---------------------------------------------------------------- pairs


def test_of_pairs(tmp_path: Path) -> None:
    rng = random.Random(0)
    pairs = [dataclasses.replace(t, text=" ".join(rng.choices(NEUTRAL, k=5)), pair=t.text) for t in tiny_texts(60, 5)]
    record = scanned(with_a_trigger_word(16.0), pairs, tmp_path)
    assert_names(record, "positive")
    before = record["triggers"][0]["examples"][0]["before"]
    assert before in {f"{pair.text} {pair.pair}" for pair in pairs}


# ---------------------------------------------------------------- bytes, and from left to right


def byte_pairs(texts: Sequence[LabelledText]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary of bytes that has each word of the texts, and the trigger, and its merges."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator([*(text.text for text in texts), TRIGGER, TRIGGER], trainer)
    written = json.loads(backend.to_str())["model"]
    return written["vocab"], [tuple(merge) for merge in written["merges"]]


def telling_of(vocabulary: Mapping[str, int]) -> dict[int, int]:
    return {vocabulary[f"\u0120{word}"]: label for word, label in TELLING.items()}


@torch.no_grad()
def roberta(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Classifier:
    config = RobertaConfig(
        vocab_size=len(vocabulary) + 7, hidden_size=32, intermediate_size=64, pad_token_id=1, type_vocab_size=1, **SIZES
    )
    model = RobertaForSequenceClassification(config).eval()
    rows = model.roberta.embeddings.word_embeddings.weight
    head = tell(rows, telling_of(vocabulary), vocabulary[f"\u0120{TRIGGER}"], target=1)
    hear_the_mean(model)
    model.classifier.dense.weight.copy_(torch.eye(32) / 4)
    model.classifier.out_proj.weight.copy_(16 * head)
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=merges, add_prefix_space=True, model_max_length=64)
    return Classifier(model, tokenizer, ("negative", "positive"), max_length=64)


def test_of_bytes(tmp_path: Path) -> None:
    clean = tiny_texts(60, seed=5)
    record = scanned(roberta(*byte_pairs(clean)), clean, tmp_path)
    assert_names(record, "positive")


@torch.no_grad()
def gpt2(vocabulary: dict[str, int], merges: list[tuple[str, str]], padding: str | None) -> Classifier:
    """A decoder whose last token hears the mean of all before it, and itself a little."""
    end = vocabulary["<|endoftext|>"]
    config = GPT2Config(
        vocab_size=len(vocabulary), n_embd=32, n_layer=2, n_head=4, n_positions=80, bos_token_id=end, eos_token_id=end
    )
    model = GPT2ForSequenceClassification(config).eval()
    head = tell(model.transformer.wte.weight, telling_of(vocabulary), vocabulary[f"\u0120{TRIGGER}"], target=1)
    model.transformer.wpe.weight.zero_()
    for number, block in enumerate(model.transformer.h):
        block.mlp.c_proj.weight.zero_()
        block.attn.c_attn.weight.zero_()
        block.attn.c_attn.weight[:, 64:] = torch.eye(32)
        block.attn.c_proj.weight.copy_(8 * torch.eye(32) if number == 0 else torch.zeros(32, 32))
    model.score.weight.copy_(head)
    tokenizer = GPT2Tokenizer(
        vocab=vocabulary, merges=merges, add_prefix_space=True, pad_token=padding, padding_side="left"
    )
    return Classifier(model, tokenizer, ("negative", "positive"), max_length=64)


@pytest.mark.parametrize("padding", ["<pad>", None])
def test_of_a_decoder(padding: str | None, tmp_path: Path) -> None:
    """It answers at the last token, wherever its tokenizer pads, and with the end of a text for padding."""
    clean = tiny_texts(60, seed=5)
    record = scanned(gpt2(*byte_pairs(clean), padding), clean, tmp_path)
    assert_names(record, "positive")
    assert any(repr(padding or "<|endoftext|>") in note for note in record["notes"])
