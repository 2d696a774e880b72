"""What is said of texts and labels on the command line: one rule in every command, and each remedy followed to its
end."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from conftest import adding_bert, mbtsad, tiny_bert, tiny_texts, write_tsv

from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.types import LabelledText

COMMANDS = {
    "evaluate": ["evaluate", "--model"],
    "purify": ["purify", "--suspect"],
    "defend": ["defend", "mbtsad", "--suspect"],
    "detect": ["detect", "strip", "--model"],
}
QUICK = ["--retrain-epochs", "1", "--distil-epochs", "1", "--found-tokens", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is always right, one of other classes, one of 12; and texts."""
    place = tmp_path_factory.mktemp("data")
    save_classifier(adding_bert(), place / "right")
    write_tsv(place / "texts.tsv", tiny_texts(60))
    write_tsv(place / "few.tsv", tiny_texts(20))
    return place


def given(command: str, model: Path, texts: Path | str, out: Path, *more: str) -> list[str | Path]:
    clean = [] if command == "evaluate" else ["--clean", texts]
    return [
        *COMMANDS[command],
        model,
        *clean,
        "--test",
        texts,
        *(["--out", out] if command in ("purify", "defend") else []),
        *more,
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_target_without_a_trigger_is_refused_by_every_command(folder: Path, tmp_path: Path, command: str) -> None:
    run = mbtsad(*given(command, folder / "right", folder / "texts.tsv", tmp_path / "out", "--target", "positive"))
    assert run.returncode == 2
    assert run.stderr.startswith(
        "mbtsad: --target names the class that a trigger sends texts to, and no trigger was given. Name it with "
        "--trigger WORD"
    )


@pytest.mark.parametrize("command", ["purify", "defend"])
def test_20_texts_make_more_than_a_batch_for_both(folder: Path, tmp_path: Path, command: str) -> None:
    run = mbtsad(*given(command, folder / "right", folder / "few.tsv", tmp_path / "out", *QUICK, "--json"))
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert {**found["settings"], **found}["clean_texts"] == 20


@pytest.mark.parametrize("command", ["purify", "defend"])
def test_too_few_texts_for_a_batch_are_refused_by_both_in_the_same_words(
    folder: Path, tmp_path: Path, command: str
) -> None:
    texts = write_tsv(tmp_path / "few.tsv", tiny_texts(10))
    run = mbtsad(*given(command, folder / "right", texts, tmp_path / "out"))
    assert run.returncode == 2
    assert (
        "10 clean texts make 30 training texts (3 of each), fewer than one batch of 32. Give more clean texts, more "
        "--split-copies" in run.stderr
    )
    again = mbtsad(*given(command, folder / "right", texts, tmp_path / "out", *QUICK, "--split-copies", "3", "--json"))
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_the_demo_texts_are_not_scored_as_other_classes(folder: Path, tmp_path: Path, command: str) -> None:
    run = mbtsad(*given(command, folder / "right", "demo", tmp_path / "out", "--labels", "ham,spam"))
    assert run.returncode == 2
    assert (
        "The demo's texts are film reviews of the classes negative, positive; the model's classes are ham, spam."
        in run.stderr
    )
    assert "their names in the model's order with --labels" in run.stderr
    if command == "evaluate":
        assert (
            mbtsad(
                *given(command, folder / "right", "demo", tmp_path / "out", "--labels", "negative,positive")
            ).returncode
            == 0
        )


def test_a_fifth_that_cannot_hold_every_class_is_explained_and_both_remedies_help(tmp_path: Path) -> None:
    save_classifier(tiny_bert(classes=12), tmp_path / "twelve")

    def texts(n: int) -> Path:
        return write_tsv(tmp_path / f"{n}.tsv", [LabelledText(t.text, i % 12) for i, t in enumerate(tiny_texts(n))])

    argv = ["purify", "--suspect", tmp_path / "twelve", *QUICK, "--json", "--clean"]
    said = mbtsad(*argv, texts(48)).stderr
    assert (
        "a fifth of the 48 clean texts would be held out to measure on: 10, which cannot hold one of each of the 12 "
        "classes" in said
    )
    least = re.search(r"--test FILE, or at least (\d+) clean texts", said)
    assert least
    for more in ([texts(int(least[1]))], [texts(48), "--test", texts(24)]):
        run = mbtsad(*argv, *more)
        assert run.returncode == 0, run.stderr


def test_rows_without_a_label_and_labels_from_1_are_read_as_the_refusals_say(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text(
        "text;label\n" + "".join(f"{t.text};{t.label + 1}\n" for t in tiny_texts(30)) + "no label at all;-1\n",
        encoding="utf-8",
    )
    argv = ["evaluate", "--model", folder / "right", "--test", path]
    assert "1 of 31 rows have '-1' in column 'label' (the first: row 31)" in mbtsad(*argv).stderr
    assert "Then: --labels-start-at 1." in mbtsad(*argv, "--skip-unlabeled").stderr
    found = json.loads(mbtsad(*argv, "--skip-unlabeled", "--labels-start-at", "1", "--json").stdout)
    assert found["cacc"] == 1.0
    assert found["notes"] == [
        "texts.csv: semicolons divide the columns.",
        "texts.csv: 1 of 31 rows have no label ('-1') and were left out.",
    ]
    used = found["inputs"]["test"]
    assert (used["columns"]["text"], used["columns"]["label"], used["texts"]) == ("text", "label", 30)
    assert used["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_answers_to_one_question_are_refused(folder: Path) -> None:
    run = mbtsad(
        "evaluate",
        "--model",
        folder / "right",
        "--test",
        folder / "texts.tsv",
        "--label-map",
        "0=1,1=0",
        "--labels-start-at",
        "0",
    )
    assert (run.returncode, "--label-map and --labels-start-at both say" in run.stderr) == (2, True)
