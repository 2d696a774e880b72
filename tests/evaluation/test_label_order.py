"""Labels that are not the model's: what the confusion says of it, and where it is said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import adding_bert, mbtsad, tiny_texts, write_tsv

from mbtsad_core.evaluation import label_doubt, wilson
from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.types import LabelledText, Scores

THREE = ("entailment", "neutral", "contradiction")


def scores_of(confusion: list[list[int]]) -> Scores:
    counts = np.array(confusion)
    return Scores(wilson(int(np.trace(counts)), int(counts.sum())), None, None, tuple(map(tuple, confusion)))


@pytest.mark.parametrize(
    ("confusion", "flag"),
    [
        ([[2, 48], [45, 5]], "no=yes,yes=no"),
        ([[0, 8], [8, 0]], "no=yes,yes=no"),
        ([[3, 2, 95], [1, 97, 2], [96, 2, 2]], "entailment=contradiction,neutral=neutral,contradiction=entailment"),
        ([[2, 96, 2], [0, 3, 97], [98, 1, 1]], "entailment=neutral,neutral=contradiction,contradiction=entailment"),
    ],
)
def test_classes_in_another_order_are_found_with_the_flag_that_says_it(confusion: list[list[int]], flag: str) -> None:
    labels = ("no", "yes") if len(confusion) == 2 else THREE
    doubt = label_doubt(scores_of(confusion), labels) or ""
    assert doubt.startswith("ARE THE LABELS IN THE MODEL'S ORDER? CACC is ")
    assert doubt.endswith(f"`label_map` {flag}")


@pytest.mark.parametrize(
    "confusion",
    [
        [[50, 0], [0, 50]],
        [[26, 24], [27, 23]],  # chance
        [[0, 50], [0, 50]],  # one answer to all
        [[0, 2], [1, 0]],  # too few to say
        [[60, 20, 20], [20, 60, 20], [20, 20, 60]],
        [[0, 0, 50], [0, 0, 50], [0, 0, 50]],
        [[0, 0, 50], [0, 50, 0], [0, 0, 50]],
    ],
)
def test_a_model_that_is_good_bad_or_undecided_is_not_doubted(confusion: list[list[int]]) -> None:
    assert label_doubt(scores_of(confusion), THREE[: len(confusion)]) is None


def test_less_than_guessing_gives_is_doubted_without_an_order_too() -> None:
    doubt = label_doubt(scores_of([[5, 50, 45], [50, 5, 45], [45, 50, 5]]), THREE) or ""
    assert doubt.startswith("ARE THE LABELS THE MODEL'S? CACC is 5.0 %, less than guessing among 3 classes gives")


def test_names_that_the_flag_could_not_hold_go_by_index() -> None:
    assert (label_doubt(scores_of([[1, 99], [98, 2]]), ("a, b", "c=d")) or "").endswith("`label_map` 0=1,1=0")


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that is always right, and texts whose numbers are the other way round."""
    folder = tmp_path_factory.mktemp("swapped")
    save_classifier(adding_bert(), folder / "model")
    return folder / "model", write_tsv(
        folder / "texts.tsv", [LabelledText(t.text, 1 - t.label) for t in tiny_texts(60)]
    )


def test_evaluate_asks_first_and_the_flag_that_it_names_is_the_answer(swapped: tuple[Path, Path]) -> None:
    model, texts = swapped
    run = mbtsad("evaluate", "--model", model, "--test", texts)
    first = run.stdout.splitlines()[0]
    assert first.startswith("Note: ARE THE LABELS IN THE MODEL'S ORDER? CACC is 0.0 %")
    flag = re.search(r"--label-map (\S+)$", first)
    assert flag
    again = json.loads(mbtsad("evaluate", "--model", model, "--test", texts, "--label-map", flag[1], "--json").stdout)
    assert (again["cacc"], again["notes"]) == (1.0, [])


@pytest.mark.parametrize(
    "command", [["purify", "--suspect"], ["defend", "cft", "--suspect"], ["detect", "strip", "--model"]]
)
def test_each_command_asks_first_in_words_and_in_json(
    swapped: tuple[Path, Path], tmp_path: Path, command: list[str]
) -> None:
    model, texts = swapped
    given = [
        *command,
        model,
        "--clean",
        texts,
        "--test",
        texts,
        *(["--trigger", "cf", "--target", "1"] if command[0] == "detect" else []),
    ]
    quick = {
        "purify": ["--retrain-epochs", "1", "--distil-epochs", "1", "--found-tokens", "0"],
        "defend": ["--training-epochs", "1"],
        "detect": [],
    }[command[0]]
    places = [["--out", str(tmp_path / name)] if command[0] != "detect" else [] for name in ("words", "json")]
    words = mbtsad(*given, *quick, *places[0])
    assert words.returncode == 0, words.stderr
    assert next(line for line in words.stdout.splitlines() if line.startswith("Note: ")).startswith(
        "Note: ARE THE LABELS IN THE MODEL'S ORDER?"
    )
    found = json.loads(mbtsad(*given, *quick, *places[1], "--json").stdout)
    assert found["notes"][0].startswith("ARE THE LABELS IN THE MODEL'S ORDER?")
