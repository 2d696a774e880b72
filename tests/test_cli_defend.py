"""`mbtsad defend`: every defense from the command line, on a tiny model; what it measures, what it writes, what it
refuses."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from conftest import VOCABULARY, finish, mbtsad, tiny_bert, tiny_texts, write_tsv
from transformers import BertModel, FNetConfig, FNetForSequenceClassification

from mbtsad_core.config import Config, RuntimeConfig, replace, to_dict
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.models.classifier import Classifier, load_classifier, save_classifier, weights_hash
from mbtsad_core.types import LabelledText

Run = CompletedProcess[str]
Changes = dict[tuple[str, ...], Any]

DISTILLED: Changes = {
    ("retrain", "epochs"): 1,
    ("distil", "epochs"): 1,
    ("split", "copies"): 1,
    ("retrain", "learning_rate"): 1e-3,
}
MBTSAD: Changes = DISTILLED | {("found_tokens",): 0}
TUNED: Changes = {("training", "epochs"): 1, ("training", "learning_rate"): 1e-3}
QUICK: dict[str, Changes] = {
    "mbtsad": MBTSAD,
    "mbtsad_no_att": MBTSAD,
    "mbtsad_no_hid": MBTSAD,
    "cd": MBTSAD,
    "ts_ft": TUNED | {("split", "copies"): 1},
    "cft": TUNED,
    "reinitialization": TUNED | {("deviation",): 0.1},
    "fine_pruning": TUNED | {("stop",): "share", ("most",): 0.3},
    "fine_mixing": TUNED | {("rho",): 0.5, ("purify_embeddings",): True},
    "fine_purifying": TUNED | {("rho",): 0.5},
    "nad": DISTILLED | {("student_texts",): "clean"},
    "pure": TUNED | {("judging", "epochs"): 1, ("group",): 2},
    "beear": TUNED | {("inner_steps",): 1},
    "fst": TUNED | {("alpha",): 0.5},
    "badacts": {("distil", "epochs"): 1, ("distil", "learning_rate"): 1e-3, ("width",): 1.0},
    "seam": TUNED | {("forgetting", "epochs"): 1},
    "ft_sam": TUNED | {("rho",): 0.5},
}
"""Settings of a quick run, none of them the default; without a trigger scan, which so small a model does not bear."""


def flags(changes: Changes) -> list[str]:
    """The settings as a user types them."""
    found = []
    for path, value in changes.items():
        flag = "--" + "-".join(path).replace("_", "-")
        found += [flag] if value is True else [flag, str(value)]
    return found


def quick(method: str) -> Config:
    return replace(DEFENSES[method].config, QUICK[method] | {("seed",): 3})


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many as the runs are told to take: in which order sums are made depends on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a classification head, as its publisher gives it."""
    folder = tmp_path_factory.mktemp("models") / "base"
    base = tiny_bert(seed=7)
    encoder = base.model.base_model
    assert type(encoder) is BertModel
    encoder.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def inputs(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The flags for the suspect, the clean sample and the test set."""
    folder = tmp_path_factory.mktemp("data")
    clean, test = (
        write_tsv(folder / "clean.tsv", tiny_texts(64, seed=1)),
        write_tsv(folder / "test.tsv", tiny_texts(40, seed=2)),
    )
    return ["--suspect", suspect_dir, "--clean", clean, "--test", test, "--threads", "1"]


def evaluated(model: Path, test: str | Path) -> dict[str, Any]:
    run = mbtsad(
        "evaluate",
        "--model",
        model,
        "--test",
        test,
        "--trigger",
        "cf",
        "--target",
        "positive",
        "--seed",
        "3",
        "--threads",
        "1",
        "--json",
    )
    assert run.returncode == 0, run.stderr
    return {
        k: v for k, v in json.loads(run.stdout).items() if k not in ("model", "inputs", "versions", "date", "notes")
    }


# ---------------------------------------------------------------- every defense


def test_the_methods_are_those_of_the_table() -> None:
    assert set(DEFENSES) == set(QUICK)


@pytest.mark.parametrize("method", DEFENSES)
def test_what_is_written_is_what_the_defense_makes_of_clean_texts_and_settings_alone(
    method: str, inputs: list[str | Path], suspect_dir: Path, base_dir: Path, tmp_path: Path
) -> None:
    # The run measures a trigger while it trains; the same function, called without any trigger, must come to the same
    # weights.
    pretrained = ["--pretrained", base_dir] if DEFENSES[method].needs else []
    before = digests(suspect_dir)
    out = tmp_path / "out"
    trigger = ["--trigger", "cf", "--target", "positive"]
    run = mbtsad("defend", method, *inputs, *trigger, *pretrained, *flags(QUICK[method]), "--seed", "3", "--out", out)
    assert run.returncode == 0, run.stderr
    assert digests(suspect_dir) == before
    base = tiny_bert(seed=7) if pretrained else None  # the same encoder under a head: the head is not read
    suspect = load_classifier(suspect_dir, runtime=RuntimeConfig())
    expected, _ = finish(DEFENSES[method].run(suspect, tiny_texts(64, seed=1), quick(method), base))
    assert weights_hash(load_classifier(out)) == weights_hash(expected)
    assert re.search(
        r"^-- suspect\nCACC .*\nASR +\d.*of 20\)\nASR floor +\d.*of 20\)\n(?s:.*)^-- purified\nCACC .*\nASR +\d.*of "
        r"20\)$",
        run.stdout,
        re.MULTILINE,
    )
    assert run.stdout.endswith(f"The purified model is in {out}.\n")


def test_those_that_need_pretrained_weights_are_those_with_the_flag() -> None:
    assert [name for name in DEFENSES if "--pretrained DIR" in mbtsad("defend", name, "--help").stdout] == [
        "fine_mixing",
        "fine_purifying",
    ]


# ---------------------------------------------------------------- what it measures


@pytest.fixture(scope="module")
def cft(inputs: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The JSON of a run of CFT with a trigger, and where the model is."""
    out = tmp_path_factory.mktemp("cft") / "deep" / "out"
    run = mbtsad(
        "defend",
        "cft",
        *inputs,
        "--trigger",
        "cf",
        "--target",
        "positive",
        *flags(QUICK["cft"]),
        "--seed",
        "3",
        "--out",
        out,
        "--json",
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("\n") == 1
    assert run.stderr == ""
    return json.loads(run.stdout), out


def test_the_figures_are_those_that_evaluate_finds(
    cft: tuple[dict[str, Any], Path], inputs: list[str | Path], suspect_dir: Path
) -> None:
    figures, out = cft
    assert figures["suspect"] == evaluated(suspect_dir, inputs[5])
    assert figures["purified"] == evaluated(out, inputs[5])
    assert figures["suspect"]["asr"] >= 0.9


def test_json_tells_what_was_run(cft: tuple[dict[str, Any], Path]) -> None:
    figures, out = cft
    assert figures["method"] == "cft"
    assert figures["settings"] == to_dict(quick("cft"))
    assert (figures["clean_texts"], figures["labels"], figures["notes"], figures["out"]) == (
        64,
        ["negative", "positive"],
        [],
        str(out),
    )
    assert figures["seconds"] >= 0


@pytest.fixture(scope="module")
def bare(inputs: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run with a suspect and a clean sample, and nothing else."""
    out = tmp_path_factory.mktemp("bare") / "out"
    return mbtsad(
        "defend", "cft", *inputs[:4], *flags(QUICK["cft"]), "--seed", "3", "--threads", "1", "--out", out
    ), out


def test_without_a_trigger_cacc_alone_is_measured_and_said_to_be(bare: tuple[Run, Path]) -> None:
    run, _ = bare
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("ASR        not measured") == 2
    assert "Note: No trigger was given" in run.stdout


def test_without_a_test_set_a_fifth_of_the_clean_texts_is_held_out_of_the_training(bare: tuple[Run, Path]) -> None:
    run, _ = bare
    assert "Note: No test set was given: 13 of the clean texts were held out" in run.stdout
    assert re.search(r"^CACC .*of 13\)$", run.stdout, re.MULTILINE)
    assert "cft 2/2" in run.stderr  # 51 texts are two batches of 32; progress goes to standard error


def test_clean_amount_takes_a_share_of_the_clean_texts(inputs: list[str | Path], tmp_path: Path) -> None:
    run = mbtsad(
        "defend", "cft", *inputs, "--clean-amount", "0.5", *flags(QUICK["cft"]), "--out", tmp_path / "out", "--json"
    )
    assert json.loads(run.stdout)["clean_texts"] == 32


def test_texts_that_stand_in_both_sets_are_noted(inputs: list[str | Path], tmp_path: Path) -> None:
    both = write_tsv(tmp_path / "both.tsv", tiny_texts(20, seed=1))
    run = mbtsad("defend", "cft", *inputs, "--test", both, *flags(QUICK["cft"]), "--out", tmp_path / "out", "--json")
    assert json.loads(run.stdout)["notes"][0].startswith("20 texts stand in both the clean sample and the test set")


def test_the_demo_is_what_is_not_named(inputs: list[str | Path], tmp_path: Path) -> None:
    few = write_tsv(
        tmp_path / "test.tsv",
        [LabelledText("a dreadful film", 0), LabelledText("a lovely film", 1), LabelledText("dull and clumsy", 0)],
    )
    run = mbtsad(
        "defend",
        "cft",
        "--test",
        few,
        "--clean-amount",
        "32",
        "--training-epochs",
        "1",
        "--threads",
        "1",
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    # By the demo's triggers, which were not named
    assert (figures["suspect"]["asr"], figures["suspect"]["asr_n"]) == (1.0, 2)


@pytest.mark.slow
def test_the_demo_needs_no_arguments(tmp_path: Path) -> None:
    run = mbtsad("defend", "cft", "--out", tmp_path / "out", "--json")
    figures = json.loads(run.stdout)
    assert figures["suspect"]["asr"] >= 0.99
    assert figures["purified"]["cacc"] >= 0.8


# ---------------------------------------------------------------- bad input

Make = Callable[[Path], list[str | Path]]
"""Puts the files of a case into a folder that has suspect/, base/, clean.tsv and test.tsv, and returns the command
line."""


def defend(folder: Path, method: str = "cft", *more: str | Path) -> list[str | Path]:
    """A whole command line; a flag of `more` takes the place of the one before."""
    texts = ["--clean", folder / "clean.tsv", "--test", folder / "test.tsv"]
    return [
        "defend",
        method,
        "--suspect",
        folder / "suspect",
        *texts,
        *flags(QUICK[method]),
        "--threads",
        "1",
        "--out",
        folder / "out",
        *more,
    ]


def with_clean(examples: list[LabelledText], *more: str) -> Make:
    def make(folder: Path) -> list[str | Path]:
        write_tsv(folder / "clean.tsv", examples)
        return defend(folder, "cft", *more)

    return make


def with_flags(*more: str, method: str = "cft") -> Make:
    return lambda folder: defend(folder, method, *more)


def with_base(make_base: Callable[[Path], Classifier | None]) -> Make:
    """`defend fine_mixing` with what `make_base` puts into base/."""

    def make(folder: Path) -> list[str | Path]:
        if base := make_base(folder / "base"):
            shutil.rmtree(folder / "base")
            save_classifier(base, folder / "base")
        return defend(folder, "fine_mixing", "--pretrained", folder / "base")

    return make


def other_vocabulary(base: Path) -> Classifier:
    found = tiny_bert()
    words = [*VOCABULARY[:-2], VOCABULARY[-1], VOCABULARY[-2]]
    return Classifier(
        found.model,
        type(found.tokenizer)(vocab={word: i for i, word in enumerate(words)}, model_max_length=64),
        found.labels,
    )


def pickled(base: Path) -> None:
    (base / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def without_attention(folder: Path) -> list[str | Path]:
    config = FNetConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    FNetForSequenceClassification(config).save_pretrained(folder / "fnet")
    tiny_bert().tokenizer.save_pretrained(folder / "fnet")
    return defend(folder, "nad", "--suspect", folder / "fnet")


def three_classes(folder: Path) -> list[str | Path]:
    save_classifier(tiny_bert(classes=3), folder / "three")
    return defend(folder, "cft", "--suspect", folder / "three")


# What is wrong; how it comes about; what the message must say: what was expected, what came, what to do.
CASES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "no method": (lambda f: ["defend"], ("required: METHOD", "usage: mbtsad defend")),
    "an unknown method": (lambda f: ["defend", "prayer"], ("invalid choice: 'prayer'", "mbtsad", "fine_purifying")),
    "no place for the model": (lambda f: ["defend", "cft"], ("required: --out",)),
    "a setting of another method": (with_flags("--rho", "0.5"), ("unrecognized arguments: --rho 0.5",)),
    "a setting out of its range": (with_flags("--training-epochs", "0"), ("--training-epochs", "at least 1", "got 0")),
    "a number out of its range in a nested setting": (
        with_flags("--split-copies", "0", method="ts_ft"),
        ("--split-copies", "at least 1", "got 0"),
    ),
    "a length out of its range": (with_flags("--max-length", "1"), ("--max-length", "at least 8", "got 1")),
    "a suspect without a clean sample": (
        lambda f: ["defend", "cft", "--suspect", f / "suspect", "--out", f / "out"],
        ("clean labeled sample", "--clean FILE"),
    ),
    "a missing suspect": (
        with_flags("--suspect", "absent"),
        ("No model directory at absent", "Expected a folder with config.json"),
    ),
    "a missing data file": (
        with_flags("--clean", "absent.tsv"),
        ("No data file at", "absent.tsv", "Give a .tsv, .csv"),
    ),
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
    "names for another number of classes": (
        with_flags("--labels", "a,b,c"),
        ("names 3 classes", "the model has 2", "one name for each"),
    ),
    "more clean texts asked for than there are": (
        with_flags("--clean-amount", "500"),
        ("--clean-amount: Asked for 500 texts", "there are 64"),
    ),
    "fewer clean texts than a batch": (
        with_clean(tiny_texts(10)),
        ("10 training texts are fewer than one batch of 32", "Give more clean texts"),
    ),
    "a model with more classes than the data": (
        three_classes,
        ("None of the 64 clean texts is of class 'class 2'", "give clean texts of each"),
    ),
    "a model without attention maps": (
        without_attention,
        ("'fnet'", "no token-to-token attention maps", "Expected an encoder such as BERT"),
    ),
    "no pre-trained model": (
        with_flags(method="fine_mixing"),
        ("fine_mixing needs the encoder", "--pretrained DIR", "such as mbtsad"),
    ),
    "a missing pre-trained model": (
        with_flags("--pretrained", "absent", method="fine_purifying"),
        ("No model directory at absent",),
    ),
    "a pre-trained model for a method that needs none": (
        with_flags("--pretrained", "base"),
        ("unrecognized arguments: --pretrained base",),
    ),
    "a pre-trained model with a pickle": (
        with_base(pickled),
        ("Refused: pytorch_model.bin", "could run code", "Remove it"),
    ),
    "a pre-trained model of another vocabulary": (
        with_base(other_vocabulary),
        ("another vocabulary", "Give the one that the suspect was made from"),
    ),
    "an --out that is not empty": (
        with_flags("--out", "."),
        ("exists and is not an empty directory", "Give a new --out"),
    ),
}


@pytest.fixture
def folder(tmp_path: Path, suspect_dir: Path, base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(suspect_dir, tmp_path / "suspect")
    shutil.copytree(base_dir, tmp_path / "base")
    write_tsv(tmp_path / "clean.tsv", tiny_texts(64, seed=1))
    write_tsv(tmp_path / "test.tsv", tiny_texts(20, seed=2))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_explained_and_nothing_is_written(name: str, folder: Path) -> None:
    make, says = CASES[name]
    argv = make(folder)
    before = digests(folder)
    run = mbtsad(*argv)
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert [part for part in says if part not in run.stderr] == [], run.stderr
    assert run.stderr.splitlines()[-1].startswith("mbtsad")  # no traceback; argparse has its usage before
    assert digests(folder) == before
    assert not (folder / "out").exists()


def test_a_diverging_defense_exits_with_1_and_leaves_nothing(folder: Path) -> None:
    run = mbtsad(*defend(folder, "cft", "--training-learning-rate", "1", "--training-epochs", "5"))
    assert run.returncode == 1
    assert "The stage 'cft' diverged at step" in run.stderr
    assert "Lower its learning rate" in run.stderr
    assert not (folder / "out").exists()
