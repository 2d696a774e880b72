"""`mbtsad detect`: every detector from the command line, on a tiny model; what it measures, what it refuses."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import VOCABULARY, finish, mbtsad, tiny_bert, tiny_texts, write_tsv
from transformers import GPT2Config, GPT2LMHeadModel

from mbtsad_core.attacks.triggers import parse_triggers, triggered_test_set
from mbtsad_core.config import RuntimeConfig, replace, to_dict
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.detectors.onion import MODEL
from mbtsad_core.evaluation import wilson
from mbtsad_core.models.classifier import load_classifier, predict, save_classifier
from mbtsad_core.types import LabelledText

CLEAN, TEST = tiny_texts(64, seed=1), tiny_texts(40, seed=2)
QUICK: dict[str, dict[str, Any]] = {
    "strip": {"copies": 3, "frr": 0.2, "swap": 0.6},
    "rap": {"epochs": 2, "frr": 0.2, "scale": 2.0},
    "onion": {"clean_texts": 10, "tolerance": 0.3},
    "span": {"probes": 4, "clean_texts": 10, "frr": 0.2},
}
"""Settings of a quick run, none of them the default."""
TRIGGER = ["--trigger", "cf", "--target", "positive"]


def flags(method: str) -> list[str]:
    """The settings as a user types them."""
    return [part for name, value in QUICK[method].items() for part in (f"--{name.replace('_', '-')}", str(value))]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def language_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained one-layer GPT-2 with the tiny vocabulary."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "language"
    config = GPT2Config(
        vocab_size=len(VOCABULARY), n_embd=16, n_layer=1, n_head=2, n_positions=64, bos_token_id=None, eos_token_id=None
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tiny_bert().tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def language_model(language_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODEL, str(language_model_dir))


@pytest.fixture(scope="module")
def inputs(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The flags for the model, the clean sample and the test set."""
    folder = tmp_path_factory.mktemp("data")
    clean, test = write_tsv(folder / "clean.tsv", CLEAN), write_tsv(folder / "test.tsv", TEST)
    return ["--model", suspect_dir, "--clean", clean, "--test", test, "--threads", "1"]


def detected(method: str, *argv: str | Path) -> dict[str, Any]:
    run = mbtsad("detect", method, *argv, *flags(method), "--seed", "3", "--json")
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("\n") == 1
    assert run.stderr == ""
    found: dict[str, Any] = json.loads(run.stdout)
    return found


# ---------------------------------------------------------------- every detector


def test_the_methods_are_those_of_the_table() -> None:
    assert list(DETECTORS) == list(QUICK)


@pytest.mark.parametrize("method", DETECTORS)
def test_the_figures_are_counted_from_the_detectors_verdicts(
    method: str, inputs: list[str | Path], suspect_dir: Path
) -> None:
    before = digests(suspect_dir)
    figures = detected(method, *inputs, *TRIGGER)
    assert digests(suspect_dir) == before

    model = load_classifier(suspect_dir, runtime=RuntimeConfig())
    config = replace(
        DETECTORS[method].config, {(name,): value for name, value in (QUICK[method] | {"seed": 3}).items()}
    )
    attacked = [t.triggered.text for t in triggered_test_set(TEST, parse_triggers(["cf"], 1, window=64), seed=3)]
    texts = [t.text for t in TEST] + attacked
    found, _ = finish(DETECTORS[method].run(model, CLEAN, texts, config))
    answers = predict(model, found.corrected or texts).argmax(-1).tolist()
    refused = [flag and found.corrected is None for flag in found.flags]
    counted = {
        "cacc": (sum(a == t.label and not r for a, t, r in zip(answers[:40], TEST, refused[:40], strict=True)), 40),
        "asr": (sum(a == 1 and not r for a, r in zip(answers[40:], refused[40:], strict=True)), 20),
        "frr": (sum(found.flags[:40]), 40),
        "far": (20 - sum(found.flags[40:]), 20),
    }
    behind = figures["behind_detector"]
    for name, (hits, n) in counted.items():
        interval = wilson(hits, n)
        assert (behind[f"{name}_hits"], behind[f"{name}_n"], behind[name]) == (hits, n, hits / n), name
        assert behind[f"{name}_interval"] == [interval.low, interval.high]
    assert figures["thresholds"] == list(found.thresholds)
    assert figures["settings"] == to_dict(config)
    assert (figures["method"], figures["clean_texts"], figures["notes"]) == (method, 64, [])


def test_the_model_alone_is_measured_as_evaluate_does(inputs: list[str | Path]) -> None:
    run = mbtsad(
        "evaluate", "--model", inputs[1], "--test", inputs[5], *TRIGGER, "--seed", "3", "--threads", "1", "--json"
    )
    evaluated, alone = json.loads(run.stdout), detected("strip", *inputs, *TRIGGER)["alone"]
    assert {name: evaluated[name] for name in alone} == alone
    assert alone["asr"] >= 0.9


@pytest.mark.parametrize("method", DETECTORS)
def test_without_a_trigger_frr_and_cacc_are_measured_and_the_rest_is_not(method: str, inputs: list[str | Path]) -> None:
    bare, whole = detected(method, *inputs), detected(method, *inputs, *TRIGGER)
    behind = bare["behind_detector"]
    assert (behind["asr"], behind["far"], bare["alone"]["asr"]) == (None, None, None)
    same = [f"{name}{part}" for name in ("cacc", "frr") for part in ("", "_hits", "_n", "_interval")]
    # A detector is not told the trigger
    assert [behind[key] for key in same] == [whole["behind_detector"][key] for key in same]
    assert bare["thresholds"] == whole["thresholds"]
    assert bare["notes"] == ["No trigger was given to measure with."]


# ---------------------------------------------------------------- what is printed, what may be left out


def test_the_figures_are_printed_with_intervals(inputs: list[str | Path]) -> None:
    run = mbtsad("detect", "strip", *inputs, *TRIGGER, *flags("strip"))
    assert run.returncode == 0, run.stderr
    rate = r"\d+\.\d % \[\d+\.\d, \d+\.\d\] \(\d+ of "
    behind = (
        rf"-- behind strip\nCACC       {rate}40\)\nASR        {rate}20\)\nFRR        {rate}40\)\nFAR        "
        rf"{rate}20\)\n"
    )
    assert re.fullmatch(
        rf"-- the model alone\nCACC       {rate}40\)\nASR        {rate}20\)\nASR floor  .*\n(?:\w+: .*\n){{2}}{behind}",
        run.stdout,
    )


def test_without_a_trigger_the_rest_is_said_not_to_be_measured(inputs: list[str | Path]) -> None:
    out = mbtsad("detect", "strip", *inputs, *flags("strip")).stdout
    assert re.search(
        r"^-- behind strip\nCACC .*\nASR        not measured\nFRR .*of 40\)\nFAR        not measured\nNote: No "
        r"trigger was given",
        out,
        re.MULTILINE,
    )


def test_without_a_test_set_a_fifth_of_the_clean_texts_is_held_out(inputs: list[str | Path]) -> None:
    figures = detected("strip", *inputs[:4], "--threads", "1")
    assert (figures["clean_texts"], figures["behind_detector"]["frr_n"]) == (51, 13)
    assert figures["notes"][0] == "No test set was given: 13 of the clean texts were held out to measure on."


def test_clean_amount_takes_a_share_of_the_clean_texts(inputs: list[str | Path]) -> None:
    assert detected("strip", *inputs, "--clean-amount", "0.5")["clean_texts"] == 32


def test_the_demo_is_what_is_not_named(tmp_path: Path) -> None:
    few = write_tsv(
        tmp_path / "test.tsv",
        [LabelledText("a dreadful film", 0), LabelledText("a lovely film", 1), LabelledText("dull and clumsy", 0)],
    )
    figures = detected("strip", "--test", few, "--clean-amount", "32", "--threads", "1")
    # By the demo's triggers
    assert (figures["alone"]["asr"], figures["alone"]["asr_n"], figures["behind_detector"]["far_n"]) == (1.0, 2, 2)


@pytest.mark.slow
def test_the_demo_needs_no_arguments() -> None:
    run = mbtsad("detect", "strip", "--json")
    figures = json.loads(run.stdout)
    assert figures["alone"]["asr"] >= 0.99
    assert figures["behind_detector"]["frr"] <= 0.05


# ---------------------------------------------------------------- bad input

Make = Callable[[Path], list[str | Path]]
"""Puts the files of a case into a folder that has model/, clean.tsv and test.tsv, and returns the command line."""


def detect(folder: Path, method: str = "strip", *more: str | Path) -> list[str | Path]:
    """A whole command line; a flag of `more` takes the place of the one before."""
    texts = ["--clean", folder / "clean.tsv", "--test", folder / "test.tsv"]
    return ["detect", method, "--model", folder / "model", *texts, *flags(method), "--threads", "1", *more]


def with_flags(*more: str, method: str = "strip") -> Make:
    return lambda folder: detect(folder, method, *more)


def with_texts(examples: list[LabelledText], *names: str, method: str = "strip") -> Make:
    """`detect` with these texts as clean.tsv, test.tsv or both."""

    def make(folder: Path) -> list[str | Path]:
        for name in names:
            write_tsv(folder / name, examples)
        return detect(folder, method)

    return make


def three_classes(folder: Path) -> list[str | Path]:
    save_classifier(tiny_bert(classes=3), folder / "three")
    return detect(folder, "rap", "--model", folder / "three")


PAIRS = [LabelledText(t.text, t.label, "the film was a story") for t in CLEAN]
# What is wrong; how it comes about; what the message must say: what was expected, what came, what to do.
CASES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "no method": (lambda f: ["detect"], ("required: METHOD", "usage: mbtsad detect")),
    "an unknown method": (lambda f: ["detect", "sniff"], ("invalid choice: 'sniff'", "strip", "onion")),
    "a setting of another method": (with_flags("--protected", "1"), ("unrecognized arguments: --protected 1",)),
    "a setting out of its range": (with_flags("--copies", "0"), ("--copies", "at least 1", "got 0")),
    "a choice that there is not": (with_flags("--form", "new"), ("--form", "invalid choice", "reproduce")),
    "a length out of its range": (with_flags("--max-length", "1"), ("--max-length", "at least 8", "got 1")),
    "a model without a clean sample": (
        lambda f: ["detect", "strip", "--model", f / "model"],
        ("clean labeled sample", "--clean FILE"),
    ),
    "a missing model": (
        with_flags("--model", "absent"),
        ("No model directory at absent", "Expected a folder with config.json"),
    ),
    "a missing data file": (with_flags("--test", "absent.tsv"), ("No data file at", "absent.tsv", "Give a .tsv, .csv")),
    "a trigger without a target": (
        with_flags("--trigger", "cf"),
        ("without its target class", "--target (negative, positive)"),
    ),
    "a target without a trigger": (
        with_flags("--target", "positive"),
        ("--target names the class", "no trigger was given", "--trigger WORD"),
    ),
    "an unknown target": (
        with_flags("--trigger", "cf", "--target", "neutral"),
        ("no class 'neutral'", "0 = negative, 1 = positive"),
    ),
    "an empty trigger": (
        with_flags("--trigger", "cf+", "--target", "1"),
        ("An empty trigger", "'cf+'", "Expected a word"),
    ),
    "more clean texts asked for than there are": (
        with_flags("--clean-amount", "500"),
        ("--clean-amount: Asked for 500 texts", "there are 64"),
    ),
    "pairs of texts": (
        with_texts(PAIRS, "clean.tsv", "test.tsv"),
        ("judges single texts", "are pairs", "mbtsad defend"),
    ),
    "pairs of clean texts": (
        with_texts(PAIRS, "clean.tsv"),
        ("judges single texts", "clean sample holds pairs", "Take a defense"),
    ),
    "a model with more classes than the data": (
        three_classes,
        ("None of the 64 clean texts is of class 'class 2'", "give clean texts of each"),
    ),
    "a word that the tokenizer has not": (
        with_flags("--word", "mb", method="rap"),
        ("no single token for the word 'mb'", "Set word to drawn"),
    ),
    "a class to protect that there is not": (
        with_flags("--form", "reproduce", "--protected", "2", method="rap"),
        ("no class 2 to protect", "the classifier has 2"),
    ),
}


@pytest.fixture
def folder(tmp_path: Path, suspect_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(suspect_dir, tmp_path / "model")
    write_tsv(tmp_path / "clean.tsv", CLEAN)
    write_tsv(tmp_path / "test.tsv", TEST)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def is_explained(argv: list[str | Path], says: tuple[str, ...], folder: Path) -> None:
    before = digests(folder)
    run = mbtsad(*argv)
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert [part for part in says if part not in run.stderr] == [], run.stderr
    assert run.stderr.splitlines()[-1].startswith("mbtsad")  # no traceback; argparse has its usage before
    assert digests(folder) == before


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_explained(name: str, folder: Path) -> None:
    make, says = CASES[name]
    is_explained(make(folder), says, folder)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("", ("ONION needs a causal language model", f"environment variable {MODEL}")),
        ("absent", ("There is no folder absent", "causal language model")),
    ],
)
def test_a_missing_language_model_is_explained(
    named: str, says: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODEL, named)
    is_explained(detect(folder, "onion"), says, folder)
