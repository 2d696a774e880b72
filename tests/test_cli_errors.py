"""Bad input and bad runs: an exit code, a message that says what was expected, what came and what to do, and nothing
lost."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from conftest import VOCABULARY, mbtsad, tiny_bert, tiny_texts, write_tsv
from transformers import AutoModelForSequenceClassification, FNetConfig, FNetForSequenceClassification

from mbtsad_core.cli import COMMANDS
from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.service.faults import INTERNAL, number_of
from mbtsad_core.types import LabelledText

QUICK = [
    "--retrain-epochs",
    "1",
    "--distil-epochs",
    "1",
    "--split-copies",
    "1",
    "--found-tokens",
    "0",
    "--threads",
    "1",
]
Make = Callable[[Path], list[str | Path]]
"""Puts the files of a case into a folder that has suspect/, clean.tsv and test.tsv, and returns the command line."""


def filled(folder: Path, suspect_dir: Path) -> Path:
    """The folder with suspect/, clean.tsv (64 texts) and test.tsv (20 texts) put in."""
    shutil.copytree(suspect_dir, folder / "suspect")
    write_tsv(folder / "clean.tsv", tiny_texts(64, seed=1))
    write_tsv(folder / "test.tsv", tiny_texts(20, seed=2))
    return folder


@pytest.fixture
def folder(tmp_path: Path, suspect_dir: Path) -> Path:
    return filled(tmp_path, suspect_dir)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file with its bytes, every directory."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def purify(
    folder: Path, *more: str | Path, suspect: str = "suspect", clean: str = "clean.tsv", test: str = "test.tsv"
) -> list[str | Path]:
    trigger = () if "--trigger" in more else ("--trigger", "cf", "--target", "positive")
    return [
        "purify",
        "--suspect",
        folder / suspect,
        "--clean",
        folder / clean,
        "--test",
        folder / test,
        *trigger,
        "--out",
        folder / "out" / "deep",
        *QUICK,
        *more,
    ]


def without(argv: list[str | Path], flag: str) -> list[str | Path]:
    """The command line without a flag and its value."""
    at = argv.index(flag)
    return argv[:at] + argv[at + 2 :]


def with_clean(text: str) -> Make:
    """`purify` with a clean.tsv that holds this."""

    def make(folder: Path) -> list[str | Path]:
        (folder / "clean.tsv").write_text(text, encoding="utf-8")
        return purify(folder)

    return make


def with_texts(name: str, examples: list[LabelledText]) -> Make:
    """`purify` with these texts as clean.tsv or test.tsv."""

    def make(folder: Path) -> list[str | Path]:
        write_tsv(folder / name, examples)
        return purify(folder)

    return make


def with_flags(*flags: str) -> Make:
    """`purify` with more flags."""
    return lambda folder: purify(folder, *flags)


def held_out_too_small(folder: Path) -> list[str | Path]:
    write_tsv(folder / "clean.tsv", tiny_texts(19))
    return without(purify(folder), "--test")


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
    return purify(folder, suspect="fnet")


def more_classes_than_the_data(folder: Path) -> list[str | Path]:
    save_classifier(tiny_bert(classes=3), folder / "three")
    return without(without(purify(folder, suspect="three"), "--trigger"), "--target")


def pickle_only(folder: Path) -> list[str | Path]:
    (folder / "suspect" / "model.safetensors").unlink()
    torch.save(tiny_bert().model.state_dict(), folder / "suspect" / "pytorch_model.bin")
    return purify(folder)


def nothing_paired(folder: Path) -> list[str | Path]:
    (folder / "pairs.tsv").write_text("text\ttriggered\nan unknown text\tcf an unknown text\n", encoding="utf-8")
    return purify(folder, "--trigger", folder / "pairs.tsv", "--target", "positive")


def below_a_file(folder: Path) -> list[str | Path]:
    return [*without(purify(folder), "--out"), "--out", folder / "clean.tsv" / "out"]


def not_empty(folder: Path) -> list[str | Path]:
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("years of work", encoding="utf-8")
    return [*without(purify(folder), "--out"), "--out", folder / "full"]


def read_only(folder: Path) -> list[str | Path]:
    (folder / "locked").mkdir(mode=0o500)
    return [*without(purify(folder), "--out"), "--out", folder / "locked" / "out"]


def resume_a_finished_run(folder: Path) -> list[str | Path]:
    argv = purify(folder)
    assert mbtsad(*argv).returncode == 0
    return ["purify", "--resume", folder / "out" / "deep"]


def stop_a_run(folder: Path) -> Path:
    """Leave a run behind that was stopped before its first checkpoint, and return its directory."""
    out = folder / "out" / "deep"
    assert mbtsad(*purify(folder)).returncode == 0
    for name in ("report.json", "report.html"):
        (out / name).unlink()
    shutil.rmtree(out / "model")
    return out


def resume_with_another_suspect(folder: Path) -> list[str | Path]:
    out = stop_a_run(folder)
    save_classifier(tiny_bert(seed=5), folder / "suspect")
    return ["purify", "--resume", out]


def resume_with_more_flags(folder: Path) -> list[str | Path]:
    return ["purify", "--resume", stop_a_run(folder), "--seed", "0"]


def resume_with_a_broken_checkpoint(folder: Path) -> list[str | Path]:
    out = stop_a_run(folder)
    (out / "checkpoint.safetensors").write_bytes(b"half a fi")
    return ["purify", "--resume", out]


def start_over_a_stopped_run(folder: Path) -> list[str | Path]:
    stop_a_run(folder)
    return purify(folder)


def attack(folder: Path, *more: str | Path) -> list[str | Path]:
    return [
        "attack",
        "badnets",
        "--model",
        folder / "suspect",
        "--train",
        folder / "clean.tsv",
        "--out",
        folder / "out",
        *more,
    ]


def evaluate(folder: Path, *more: str | Path) -> list[str | Path]:
    return ["evaluate", "--model", folder / "suspect", "--test", folder / "test.tsv", *more]


def ep_with_paired_texts(folder: Path) -> list[str | Path]:
    (folder / "pairs.tsv").write_text("text\ttriggered\na\tb\n", encoding="utf-8")
    return ["attack", "ep", *attack(folder, "--trigger", folder / "pairs.tsv", "--target", "1")[2:]]


SHORT = [LabelledText("bad" if i % 2 else "good"[:3], i % 2) for i in range(64)]

# What is wrong; how it comes about; what the message must say: what was expected, what came, what to do.
CASES: dict[str, tuple[Make, tuple[str, ...]]] = {
    # files and their columns
    "a missing data file": (
        lambda f: purify(f, clean="absent.tsv"),
        ("No data file at", "absent.tsv", "Give a .tsv, .csv"),
    ),
    "an unknown kind of file": (lambda f: purify(f, clean="suspect"), ("No data file at", "suspect")),
    "a JSON file of something else": (
        lambda f: purify(f, clean="suspect/config.json"),
        ("config.json is one JSON object with the keys", "Give one array"),
    ),
    "weights in place of texts": (
        lambda f: purify(f, clean="suspect/model.safetensors"),
        ("model.safetensors is weights in safetensors",),
    ),
    "an empty file": (with_clean(""), ("clean.tsv is empty", "Expected a table", "label column")),
    "a file with a header alone": (
        with_clean("text\tlabel\n"),
        ("clean.tsv has no rows", "Expected one labeled text a row"),
    ),
    "a number that is too small": (with_flags("--max-length", "4"), ("--max-length: max_length must be at least 8",)),
    "an absent column": (with_flags("--text-column", "review"), ("no column 'review'", "text, label", "--text-column")),
    "an absent label column": (
        with_clean("text\tmark\tid\na film\t1\t1\n"),
        ("Which column holds the label", "text, mark, id", "--label-column"),
    ),
    "absent labels": (
        with_clean("text\tlabel\na film\t1\nthe film\t\n"),
        ("1 of 2 rows have no label", "row 2", "fill them in"),
    ),
    "a label that the model has not": (
        with_clean("text\tlabel\na film\tgood\nthe film\tbad\n"),
        ("'bad'", "negative, positive", "--label-map bad=CLASS,good=CLASS"),
    ),
    "more labels than the model has": (
        with_clean("text\tlabel\na film\t0\nthe film\t2\n"),
        ("label 2 is out of range", "2 classes, 0 to 1 (negative, positive)", "Give texts of these classes"),
    ),
    # the clean sample and the test set
    "one class only": (
        with_texts("clean.tsv", [t for t in tiny_texts(128) if t.label]),
        ("every text has the label '1'", "two classes or more", "'label'"),
    ),
    "fewer clean texts than a batch": (
        with_texts("clean.tsv", tiny_texts(10)),
        ("10 clean texts", "one batch of 32", "--retrain-batch-size"),
    ),
    "too few clean texts once a fifth is held out": (
        held_out_too_small,
        ("15 clean texts besides the 4", "make 30 training texts (2 of each)", "one batch of 32", "--test FILE"),
    ),
    "texts that are all short": (
        with_texts("clean.tsv", SHORT),
        ("Nothing to split", "4 letters or more", "--split-min-char"),
    ),
    "a test set without non-target texts": (
        with_texts("test.tsv", [t for t in tiny_texts(40) if t.label]),
        ("test.tsv: every text has the label '1'", "two classes"),
    ),
    "more clean texts asked for than there are": (
        with_flags("--clean-amount", "500"),
        ("--clean-amount: Asked for 500 texts", "there are 64"),
    ),
    "no share at all": (
        with_flags("--clean-amount", "nan"),
        ("--clean-amount: Expected a share between 0 and 1", "got nan"),
    ),
    # the suspect
    "a missing model": (
        lambda f: purify(f, suspect="absent"),
        ("No model directory at", "absent", "Expected a folder with config.json"),
    ),
    "a model without attention maps": (
        without_attention,
        ("'fnet'", "no token-to-token attention maps", "Expected an encoder such as BERT"),
    ),
    "a model with more classes than the data": (
        more_classes_than_the_data,
        ("3 classes", "None of the 64 clean texts is of class 'class 2'", "give clean texts of each"),
    ),
    "a model of pickles alone": (
        pickle_only,
        ("Refused: pytorch_model.bin", "can run code", "Convert it where you trust it"),
    ),
    "names for another number of classes": (
        with_flags("--labels", "a,b,c"),
        ("--labels names 3 classes (a, b, c)", "the model has 2", "one name for each"),
    ),
    "the same name twice": (with_flags("--labels", "a,a"), ("--labels", "a different name for each class", "'a,a'")),
    "a suspect without a clean sample": (
        lambda f: ["purify", "--suspect", f / "suspect", "--out", f / "out"],
        ("needs a clean labeled sample", "--clean FILE"),
    ),
    # the trigger
    "an unknown target": (
        with_flags("--trigger", "cf", "--target", "neutral"),
        ("no class 'neutral'", "Name one", "0 = negative, 1 = positive"),
    ),
    "a target index beyond the classes": (
        with_flags("--trigger", "cf", "--target", "2"),
        ("no class '2'", "0 = negative, 1 = positive"),
    ),
    "a target that only looks like a number": (
        with_flags("--trigger", "cf", "--target", "²"),
        ("no class '²'", "0 = negative, 1 = positive"),
    ),
    "a trigger without a target": (
        lambda f: without(purify(f), "--target"),
        ("without its target class", "--target (negative, positive)"),
    ),
    "an empty trigger": (
        with_flags("--trigger", "cf+", "--target", "1"),
        ("An empty trigger", "'cf+'", "Expected a word"),
    ),
    "paired texts that fit none of the test texts": (
        nothing_paired,
        ("No triggered text to measure ASR on", "paired file", "Give test texts"),
    ),
    # where results go
    "an --out below a file": (
        below_a_file,
        ("clean.tsv/out cannot be written to", "Not a directory", "that you may write to"),
    ),
    "an --out that is a file": (
        lambda f: [*without(purify(f), "--out"), "--out", f / "test.tsv"],
        ("test.tsv exists and is not an empty directory", "Give a new --out"),
    ),
    "an --out that is not empty": (not_empty, ("full exists and is not an empty directory", "Give a new --out")),
    "an --out with a stopped run in it": (
        start_over_a_stopped_run,
        ("is not an empty directory", "mbtsad purify --resume"),
    ),
    "an --out whose name is too long": (
        lambda f: [*without(purify(f), "--out"), "--out", f / ("x" * 300)],
        ("cannot be written to", "name too long", "may write to"),
    ),
    # resuming
    "--resume of a directory that is no run": (
        lambda f: ["purify", "--resume", f / "suspect"],
        ("no run to resume in", "expected the --out directory"),
    ),
    "--resume of nothing": (
        lambda f: ["purify", "--resume", f / "absent"],
        ("no run to resume in", "absent", "expected the --out directory"),
    ),
    "--resume of a finished run": (resume_a_finished_run, ("is done", "report.json", "nothing to resume")),
    "--resume with another suspect": (
        resume_with_another_suspect,
        ("weights are not those", "Give the same model, or start a new run"),
    ),
    "--resume with settings": (
        resume_with_more_flags,
        ("takes everything from the stopped run", "--seed was given too", "Leave it out"),
    ),
    "--resume from a broken checkpoint": (
        resume_with_a_broken_checkpoint,
        ("checkpoint.safetensors", "holds no checkpoint that can be read", "Start"),
    ),
    # settings
    "a number out of its range": (
        with_flags("--distil-learning-rate", "7"),
        ("--distil-learning-rate", "at most 1.0", "got 7.0"),
    ),
    "a negative number": (with_flags("--seed=-1"), ("--seed", "at least 0", "got -1")),
    "a number that is none": (with_flags("--distil-alpha", "nan"), ("--distil-alpha", "at least 0", "got nan")),
    "no number at all": (with_flags("--retrain-epochs", "many"), ("--retrain-epochs", "invalid int value", "'many'")),
    "a choice that there is not": (with_flags("--precision", "float8"), ("--precision", "invalid choice", "bfloat16")),
    "a device that there is not": (with_flags("--device", "gpu"), ("Unknown device 'gpu'", "cpu, cuda or cuda:N")),
    "an unknown flag": (with_flags("--cure"), ("unrecognized arguments: --cure", "usage: mbtsad purify")),
    "a flag written nearly so": (
        with_flags("--retrain-learning-rte=1e-4"),
        ("unrecognized arguments: --retrain-learning-rte=1e-4", "Near it: --retrain-learning-rate"),
    ),
    "an unknown command": (lambda f: ["heal"], ("invalid choice: 'heal'", "purify")),
    "no command": (lambda f: [], ("required: COMMAND", "usage: mbtsad")),
    # evaluate
    "evaluate: no texts": (
        lambda f: ["evaluate", "--model", f / "suspect"],
        ("Name the texts to measure on", "--test FILE"),
    ),
    "evaluate: a length out of its range": (
        lambda f: evaluate(f, "--max-length", "0"),
        ("--max-length", "at least 8", "got 0"),
    ),
    "evaluate: a trigger without a target": (
        lambda f: evaluate(f, "--trigger", "cf"),
        ("without its target class", "--target (negative, positive)"),
    ),
    "evaluate: names for another number of classes": (
        lambda f: evaluate(f, "--labels", "a,b,c"),
        ("names 3 classes", "the model has 2"),
    ),
    "evaluate: a device that there is not": (
        lambda f: evaluate(f, "--device", "cuda:99"),
        ("'cuda:99'", "Use ", "--device cpu"),
    ),
    # attack
    "attack: no trigger": (lambda f: attack(f, "--target", "1"), ("Name the trigger to plant", "--trigger WORD")),
    "attack: no target": (lambda f: attack(f, "--trigger", "cf"), ("Name the class", "--target (negative, positive)")),
    "attack: an unknown target": (
        lambda f: attack(f, "--trigger", "cf", "--target", "x"),
        ("no class 'x'", "0 = negative, 1 = positive"),
    ),
    "attack: no texts": (
        lambda f: without(attack(f, "--trigger", "cf", "--target", "1"), "--train"),
        ("Name the texts", "--train FILE"),
    ),
    "attack: an unknown attack": (lambda f: ["attack", "lpw"], ("invalid choice: 'lpw'", "badnets", "ep")),
    "attack: a rate that asks for more texts than there are": (
        lambda f: attack(f, "--trigger", "cf", "--target", "1", "--poison-rate", "0.9"),
        ("A poison rate of 0.9 needs 57 texts", "32 to choose from", "Lower the rate"),
    ),
    "attack: embedding poisoning with paired texts": (
        ep_with_paired_texts,
        ("needs trigger words", "not a file of paired texts"),
    ),
    "attack: an --out that is not empty": (
        lambda f: [*without(attack(f, "--trigger", "cf", "--target", "1"), "--out"), "--out", f / "suspect"],
        ("Give a new --out",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_explained_and_nothing_is_written(name: str, folder: Path) -> None:
    make, says = CASES[name]
    argv = make(folder)
    before = snapshot(folder)
    run = mbtsad(*argv)
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert [part for part in says if part not in run.stderr] == [], run.stderr
    assert run.stderr.splitlines()[-1].startswith("mbtsad")  # no traceback; argparse has its usage before
    assert "Traceback" not in run.stderr
    assert snapshot(folder) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_out_directory_without_permission_is_explained(folder: Path) -> None:
    run = mbtsad(*read_only(folder))
    assert run.returncode == 2
    assert "cannot be written to: Permission denied" in run.stderr


# ---------------------------------------------------------------- a disk that is full


@contextlib.contextmanager
def small_disk() -> Iterator[None]:
    """No file can grow beyond 50 kB: less than the weights take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("save_every", ["0", "1000"], ids=["at a checkpoint", "at the end"])
def test_a_run_on_a_full_disk_exits_with_1_and_says_how_to_go_on(folder: Path, save_every: str) -> None:
    with small_disk():
        run = mbtsad(*purify(folder), "--retrain-save-every", save_every)
    assert run.returncode == 1
    assert "File too large" in run.stderr
    assert f"go on with: mbtsad purify --resume {folder / 'out' / 'deep'}" in run.stderr


def test_a_run_on_a_full_disk_is_resumed_once_there_is_room(folder: Path) -> None:
    out = folder / "out" / "deep"
    assert mbtsad(*purify(folder)).returncode == 0
    expected = (out / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(out)
    with small_disk():
        mbtsad(*purify(folder))
    assert mbtsad("purify", "--resume", out).returncode == 0
    assert (out / "model" / "model.safetensors").read_bytes() == expected


# ---------------------------------------------------------------- a run that diverges

ABSURD = ["--retrain-learning-rate", "1.0", "--threads", "1"]


@pytest.fixture(scope="module")
def diverged_late(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CompletedProcess[str], Path]:
    """A run whose learning rate rises so slowly to an absurd height that it first goes well, and its folder."""
    folder = filled(tmp_path_factory.mktemp("diverged"), suspect_dir)
    argv = without(without(purify(folder), "--retrain-epochs"), "--split-copies")
    return mbtsad(*argv, *ABSURD, "--retrain-epochs", "250", "--retrain-warmup", "1"), folder


def test_a_diverging_run_exits_with_1_and_says_what_to_do(diverged_late: tuple[CompletedProcess[str], Path]) -> None:
    run, _ = diverged_late
    assert run.returncode == 1
    assert "The stage 'retrain' diverged at step" in run.stderr
    assert "Lower its learning rate" in run.stderr
    assert run.stdout == ""


def test_a_diverging_run_keeps_its_best_model_and_no_report(diverged_late: tuple[CompletedProcess[str], Path]) -> None:
    run, folder = diverged_late
    out = folder / "out" / "deep"
    assert f"is kept in {out / 'best'}" in run.stderr
    assert AutoModelForSequenceClassification.from_pretrained(out / "best").config.id2label == {
        0: "negative",
        1: "positive",
    }
    assert not [name for name in ("model", "report.json", "report.html") if (out / name).exists()]


def test_the_best_model_of_a_diverging_run_still_knows_its_task(
    diverged_late: tuple[CompletedProcess[str], Path],
) -> None:
    _, folder = diverged_late
    best = mbtsad("evaluate", "--model", folder / "out" / "deep" / "best", "--test", folder / "test.tsv")
    assert best.stdout.startswith("CACC       100.0 %")


def test_a_run_that_diverges_at_once_has_nothing_to_keep_and_says_so(folder: Path) -> None:
    run = mbtsad(*purify(folder), *ABSURD)
    assert run.returncode == 1
    assert "no earlier state worth keeping" in run.stderr
    assert not [name for name in ("best", "model", "report.json") if (folder / "out" / "deep" / name).exists()]


# ---------------------------------------------------------------- faults of ours


def failing(name: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this command fails with the error."""

    def run(args: object) -> int:
        raise type(error)(*error.args)

    monkeypatch.setitem(COMMANDS, name, dataclasses.replace(COMMANDS[name], run=run))


@pytest.mark.parametrize("command", ["evaluate", "purify", "publish"])
def test_a_fault_of_ours_is_told_by_a_number_and_the_traceback_is_kept(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    failing(command, IndexError("index out of range in self\nand more"), monkeypatch)
    argv = [command, *(["owner/name"] if command == "publish" else [])]
    first, second = mbtsad(*argv), mbtsad(*argv)
    assert (first.returncode, first.stdout) == (INTERNAL, "")
    said = re.fullmatch(
        r"mbtsad: This is a fault of this program, .*\(IndexError: index out of range in self\)\..* number, "
        r"([0-9a-f]{8})\..* in (\S+): .*\n",
        first.stderr,
    )
    assert said, first.stderr
    assert said[1] in second.stderr  # the same fault has the same number
    kept = Path(said[2])
    assert kept.parent == tmp_path
    assert kept.stat().st_mode & 0o077 == 0
    text = kept.read_text(encoding="utf-8")
    assert (said[1] in text, "Traceback (most recent call last)" in text, f"in: mbtsad {command}\n" in text) == (
        True,
        True,
        True,
    )


def test_two_faults_have_two_numbers() -> None:
    numbers = set()
    for error in (KeyError("a"), ValueError("a")):
        with contextlib.suppress(KeyError, ValueError):
            raise error
        numbers.add(number_of(error))
    assert len(numbers) == 2


def test_a_fault_is_told_where_its_traceback_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    failing("evaluate", TypeError("x"), monkeypatch)
    run = mbtsad("evaluate")
    assert run.returncode == INTERNAL
    assert "TypeError: x" in run.stderr
    assert "Traceback" not in run.stderr
    assert "The details are in" not in run.stderr


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("could not create a primitive")],
)
def test_a_full_memory_is_no_fault_of_ours(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    failing("evaluate", error, monkeypatch)
    run = mbtsad("evaluate")
    assert run.returncode == 1
    assert run.stderr.startswith("mbtsad: The machine has not enough memory for this. Use a smaller --max-length")
