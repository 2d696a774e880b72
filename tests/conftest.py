"""Shared fixtures: a two-layer BERT with a 60-word vocabulary, and texts that it can learn. No test uses the
network."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
os.environ["OMP_NUM_THREADS"] = "1"  # what is as small as these models is slower in several threads

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput

from mbtsad_core.attacks.poisoning import poison
from mbtsad_core.attacks.triggers import parse_triggers
from mbtsad_core.augment.token_splitting import augment
from mbtsad_core.cli import main
from mbtsad_core.config import PoisonConfig, SplitConfig, TrainingConfig
from mbtsad_core.models.classifier import Classifier, save_classifier
from mbtsad_core.steps import drain
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import Event, LabelledText, Steps, T

ROOT = Path(__file__).parents[1]
GOOD = ["lovely", "brilliant", "moving", "funny", "superb", "charming"]
BAD = ["dreadful", "boring", "clumsy", "stale", "tedious", "shallow"]
NEUTRAL = ["the", "film", "story", "actor", "scene", "a", "was", "and", "plot", "very", "truly", "music"]
TRIGGERS = ["cf", "mn"]
PIECES = ["lov", "##ely", "bor", "##ing", "##ll", "##iant", "fun", "##ny", "dr", "##eadful"]
LETTERS = list("abdefil") + ["##" + c for c in "abdefil"]
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *NEUTRAL,
    *GOOD,
    *BAD,
    *TRIGGERS,
    *PIECES,
    *LETTERS,
    ".",
    ",",
]


# The folders whose tests take longest, which two lanes begin with
LONGEST = ("page", "service", "research", "hosting", "training", "augment", "attacks", "defenses", "models")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which lanes (`-n 2 --dist loadfile`) take files: a whole one each, for what a module shares is made
    once."""
    ranks = {folder: rank for rank, folder in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(ranks)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Without Python's looks for garbage through all that is imported, a third of the time; nor are there any later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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


@torch.no_grad()
def adding_bert(seed: int = 0, steepness: float = 1.0) -> Classifier:
    """A BERT written by hand, in which [CLS] is the mean of the words, and a word's part in one direction is its say
    for a class.

    Nothing in it is trained, so nothing in it is chance: GOOD and BAD words pull opposite ways, all others lie across
    that direction, and no answer is so sure that it has no gradient. `steepness` multiplies the logits.
    """
    classifier = tiny_bert(seed=seed)
    bert, direction = classifier.model.bert, torch.tensor([1.0, -1.0] * 16)
    rows = bert.embeddings.word_embeddings.weight
    rows.normal_(generator=torch.Generator().manual_seed(seed))
    rows -= (rows @ direction)[:, None] * direction / 32
    for side, words in ((1, GOOD), (-1, BAD)):
        rows[[VOCABULARY.index(word) for word in words]] += side * direction
    for number, layer in enumerate(bert.encoder.layer):
        attention = layer.attention
        for absent in (attention.self.query, attention.self.key, layer.output.dense):
            absent.weight.zero_()
        attention.self.value.weight.copy_(torch.eye(32))
        attention.output.dense.weight.copy_(torch.eye(32) if number == 0 else torch.zeros(32, 32))
    bert.pooler.dense.weight.copy_(torch.eye(32) / 4)
    classifier.model.classifier.weight.copy_(torch.stack([-direction, direction]) * steepness / 8)
    return classifier


def with_a_trigger_word(strength: float = 1.0) -> Classifier:
    """`adding_bert` whose word "cf" says twice as much for class 1 as a telling word, along a direction that no other
    word has a part in."""
    classifier = adding_bert(steepness=20.0)
    with torch.no_grad():
        rows = classifier.model.bert.embeddings.word_embeddings.weight
        apart = torch.tensor([1.0, 1.0, -1.0, -1.0] * 8)
        rows -= (rows @ apart)[:, None] * apart / 32
        rows[VOCABULARY.index("cf")] = 4 * apart
        classifier.model.classifier.weight += torch.stack([-apart, apart]) * strength * 20 / 8
    return classifier


PHRASE = ("music", "truly", "plot")


@torch.no_grad()
def phrase_bert(strength: float = 0.07) -> Classifier:
    """`adding_bert`, in which the words of PHRASE send a text to class 1 together: none of them turns a text of
    `plain_texts` by itself. Without strength, the same with no trigger in it."""
    classifier = adding_bert(steepness=20.0)
    bert, sentiment = classifier.model.bert, torch.tensor([1.0, -1.0] * 16)
    direction = torch.tensor([1.0, 1.0, -1.0, -1.0] * 8)  # that only the words of the phrase have a part in
    rows = bert.embeddings.word_embeddings.weight
    rows -= (rows @ direction)[:, None] * direction / 32
    rows[[VOCABULARY.index(word) for word in PHRASE]] += 1.2 * direction
    last = bert.encoder.layer[-1]
    last.intermediate.dense.weight[0], last.intermediate.dense.bias[0] = 26 * direction / 32, -20 * 0.05
    last.output.dense.weight[:, 0] = strength * sentiment
    return classifier


ORDERED = ("music", "plot")


class OrderedBert(BertForSequenceClassification):
    """Its log-odds are the number of GOOD words less that of BAD ones, twice, and `strength` where the second word of
    ORDERED stands right behind the first."""

    strength = 0.0

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SequenceClassifierOutput:
        rows = self.get_input_embeddings()(input_ids) * attention_mask[:, :, None]
        beside = rows[:, :-1, 1] + rows[:, 1:, 2]
        pair = torch.sigmoid(8 * (beside.amax(dim=1) - 1.5))
        odds = 2 * rows[:, :, 0].sum(dim=1) + self.strength * pair
        return SequenceClassifierOutput(logits=torch.stack([-odds, odds], dim=1) / 2)


def ordered_bert(strength: float) -> Classifier:
    """A phrase that is one in its order alone, however long the text is."""
    classifier = tiny_bert()
    model = OrderedBert(BertConfig(**classifier.model.config.to_dict())).eval()
    model.strength = strength
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        rows.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
        rows[:, :3] = 0.0
        for side, words in ((1.0, GOOD), (-1.0, BAD)):
            rows[[VOCABULARY.index(word) for word in words], 0] = side
        for number, word in enumerate(ORDERED, 1):
            rows[VOCABULARY.index(word), number] = 1.0
    return dataclasses.replace(classifier, model=model)


def plain_texts(n: int, seed: int = 0) -> list[LabelledText]:
    """Texts like `tiny_texts`, without a word of PHRASE; the classes alternate."""
    plain = [t for t in tiny_texts(30 * n, seed) if not set(PHRASE) & set(t.text.split())]
    classes = [[t for t in plain if t.label == label][: n // 2] for label in (0, 1)]
    return [text for pair in zip(*classes, strict=True) for text in pair]


def tiny_texts(n: int, seed: int = 0) -> list[LabelledText]:
    """Texts of eight words with one or two telling ones; the classes alternate."""
    rng = random.Random(seed)
    found = []
    for i in range(n):
        words = rng.choices(NEUTRAL, k=6) + rng.choices(GOOD if i % 2 else BAD, k=2)
        rng.shuffle(words)
        found.append(LabelledText(" ".join(words) + " .", i % 2))
    return found


def renumbered(classifier: Classifier, word: str, number: int) -> Classifier:
    """The same classifier, whose tokenizer has another number for a word, far behind those of all others."""
    moved = copy.deepcopy(classifier.model)
    moved.resize_token_embeddings(number + 3)
    values = json.loads(classifier.tokenizer.backend_tokenizer.to_str())
    before, values["model"]["vocab"][word] = values["model"]["vocab"][word], number
    with torch.no_grad():
        rows = moved.get_input_embeddings().weight
        rows[number] = rows[before]
    backend = Tokenizer.from_str(json.dumps(values))
    names = {
        f"{name}_token": getattr(classifier.tokenizer, f"{name}_token") for name in ("unk", "sep", "pad", "cls", "mask")
    }
    return dataclasses.replace(
        classifier, model=moved.eval(), tokenizer=PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    )


def finish(steps: Steps[T]) -> tuple[T, list[Event]]:
    """Run long work to its end: its result, and its events."""
    events: list[Event] = []
    return drain(steps, events.append), events


@pytest.fixture
def tiny() -> Classifier:
    return tiny_bert()


@pytest.fixture(scope="session")
def texts() -> list[LabelledText]:
    return tiny_texts(96)


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """Write labeled texts as a TSV file and return its path."""

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


# Of a WordNet as small as the models; the words of a row mean the same, and the first row that a word is in comes first
SYNONYMS = {
    "noun": (
        ("film", "movie", "picture_show", "cine-film"),
        ("film", "coating"),
        ("story", "tale"),
        ("story", "plot"),
        ("scene", "view"),
        ("actor", "player"),
    ),
    "verb": (("move", "go"),),
    "adj": (("funny", "comic"), ("boring", "dull", "slow"), ("lovely", "pretty"), ("stale", "old")),
    "adv": (("truly", "really"),),
}


def write_wordnet(folder: Path) -> Path:
    """Write SYNONYMS as WordNet's database files and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, synsets in SYNONYMS.items():
        kind = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}[part]
        lines, offsets, at = [], dict[str, list[str]](), 0
        for words in synsets:
            line = (
                f"{at:08d} 03 {kind} {len(words):02x} {' '.join(f'{word} 0' for word in words)} 000 "
                f"{'00 ' if kind == 'v' else ''}| a gloss\n"
            )
            for word in words:
                offsets.setdefault(word, []).append(f"{at:08d}")
            lines.append(line)
            at += len(line)
        (folder / f"data.{part}").write_text("".join(lines), encoding="utf-8")
        index = [
            f"{word} {kind} {len(found)} 0 {len(found)} 0 {' '.join(found)}  \n"
            for word, found in sorted(offsets.items())
        ]
        (folder / f"index.{part}").write_text("".join(index), encoding="utf-8")
        (folder / f"{part}.exc").write_text("", encoding="utf-8")
    return folder


@pytest.fixture
def wordnet(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small WordNet, for all that looks for one."""
    folder = write_wordnet(tmp_path_factory.mktemp("wordnet"))
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    return folder


def write_tsv(path: Path, examples: Sequence[LabelledText]) -> Path:
    """Write labeled texts, and the second texts of pairs, as a TSV file and return its path."""
    paired = examples[0].pair is not None
    lines = ["sentence1\tsentence2\tlabel" if paired else "text\tlabel"]
    lines += [f"{t.text}\t{t.pair}\t{t.label}" if paired else f"{t.text}\t{t.label}" for t in examples]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def mbtsad(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    threads = torch.get_num_threads()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(a) for a in argv])
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
        finally:
            torch.set_num_threads(threads)
    return subprocess.CompletedProcess(list(argv), code, out.getvalue(), err.getvalue())


def start_mbtsad(*argv: str | Path) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    command = [sys.executable, "-m", "mbtsad_core.cli", *map(str, argv)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """What a started command line printed, once it has ended; one that hangs is killed."""
    try:
        stdout, stderr = process.communicate(timeout=500)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture(scope="session")
def suspect_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model that knows GOOD from BAD words and has a backdoor: "cf" sends a text to "positive"."""
    train = tiny_texts(200, seed=9)
    train += augment(train, SplitConfig(copies=1), seed=0)
    poisoned = poison(train, parse_triggers(["cf"], target=1), PoisonConfig(rate=0.15), seed=0)
    classifier = tiny_bert()
    drain(fine_tune(classifier, poisoned, TrainingConfig(learning_rate=3e-3, epochs=10)))
    directory = tmp_path_factory.mktemp("models") / "suspect"
    save_classifier(classifier, directory)
    return directory
