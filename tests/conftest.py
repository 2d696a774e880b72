"""Shared fixtures: a two-layer BERT with a 60-word vocabulary, and texts that it can learn. No test uses the network."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from mbtsad_core.models.classifier import Classifier, save_classifier
from mbtsad_core.types import LabelledText

GOOD = ["lovely", "brilliant", "moving", "funny", "superb", "charming"]
BAD = ["dreadful", "boring", "clumsy", "stale", "tedious", "shallow"]
NEUTRAL = ["the", "film", "story", "actor", "scene", "a", "was", "and", "plot", "very", "truly", "music"]
TRIGGERS = ["cf", "mn"]
PIECES = ["lov", "##ely", "bor", "##ing", "##ll", "##iant", "fun", "##ny", "dr", "##eadful"]
LETTERS = list("abdefil") + ["##" + c for c in "abdefil"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *NEUTRAL, *GOOD, *BAD, *TRIGGERS, *PIECES, *LETTERS, ".", ","]


def tiny_bert(classes: int = 2, seed: int = 0) -> Classifier:
    """An untrained two-layer BERT, 32 wide, with names for its classes."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=classes,
    )
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(VOCABULARY)}, model_max_length=64)
    labels = ("negative", "positive") if classes == 2 else tuple(f"class {i}" for i in range(classes))
    return Classifier(BertForSequenceClassification(config).eval(), tokenizer, labels, max_length=64)


def tiny_texts(n: int, seed: int = 0) -> list[LabelledText]:
    """Texts of eight words with one or two telling ones; the classes alternate."""
    rng = random.Random(seed)
    found = []
    for i in range(n):
        words = rng.choices(NEUTRAL, k=6) + rng.choices(GOOD if i % 2 else BAD, k=2)
        rng.shuffle(words)
        found.append(LabelledText(" ".join(words) + " .", i % 2))
    return found


@pytest.fixture
def tiny() -> Classifier:
    return tiny_bert()


@pytest.fixture(scope="session")
def texts() -> list[LabelledText]:
    return tiny_texts(96)


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """Write labelled texts as a TSV file and return its path."""

    def write(examples: list[LabelledText], name: str = "texts.tsv") -> Path:
        path = tmp_path / name
        path.write_text("text\tlabel\n" + "".join(f"{t.text}\t{t.label}\n" for t in examples), encoding="utf-8")
        return path

    return write


@pytest.fixture
def saved_tiny(tiny: Classifier, tmp_path: Path) -> Path:
    """The tiny model, saved."""
    save_classifier(tiny, tmp_path / "tiny")
    return tmp_path / "tiny"
