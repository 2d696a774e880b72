"""What labels mean: names before numbers, and a question, with the flag that answers it, where neither tells."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbtsad_core.data import Columns, Dataset, class_index, read_dataset
from mbtsad_core.data.labels import label_key, nameless
from mbtsad_core.errors import BadConfig, BadData

Write = Callable[..., Path]
MOODS = ("calm", "angry", "sad")
NAMELESS = ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a CSV file of the given columns, with texts, and return its path."""

    def put(**columns: list[Any]) -> Path:
        rows = list(zip(*columns.values(), strict=True))
        out = io.StringIO(newline="")
        csv.writer(out).writerows([("text", *columns), *((f"text number {i}", *row) for i, row in enumerate(rows))])
        (tmp_path / "moods.csv").write_text(out.getvalue(), encoding="utf-8")
        return tmp_path / "moods.csv"

    return put


def of(dataset: Dataset) -> list[int]:
    return [example.label for example in dataset.texts]


def refusal(path: Path, labels: tuple[str, ...] | None, columns: Columns = Columns()) -> str:
    with pytest.raises((BadData, BadConfig)) as error:
        read_dataset(path, columns, labels)
    return str(error.value)


# ---------------------------------------------------------------- names that are the same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("positive", " Positive "),
        ("n\u00e9gatif", "ne\u0301gatif"),
        ("\uff30\uff4f\uff53", "pos"),  # full width
        ("stra\u00dfe", "STRASSE"),
        ("po\u200bsitive", "positive"),
        ("\ufeffpositive", "positive"),
        ("1.0", "1"),
        ("two  words", "two\u00a0words"),
    ],
)
def test_names_that_look_the_same_are_the_same(write: Write, one: str, other: str) -> None:
    assert label_key(one) == label_key(other)
    for said, model in ((one, other), (other, one)):
        assert of(read_dataset(write(label=[said, "calm"]), labels=("calm", model))) == [1, 0]
    assert class_index(one, ("calm", other)) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("1.5", "1"), ("positive", "positives"), ("-1", "1"), ("a b", "ab"), ("e\u0301", "e")]
)
def test_names_that_look_different_are_different(one: str, other: str) -> None:
    assert label_key(one) != label_key(other)


def test_float_labels_go_by_the_name_that_looks_like_them(write: Write) -> None:
    assert of(read_dataset(write(label=["1.0", "3.0"]), labels=("1.0", "2.0", "3.0"))) == [0, 2]
    assert of(read_dataset(write(label=[1, 3]), labels=("1.0", "2.0", "3.0"))) == [0, 2]


def test_numbers_that_are_not_all_names_of_numbered_classes_are_asked_about(write: Write) -> None:
    path = write(label=[0, 1, 2])
    assert (
        "the model calls its classes 1, 2, 3. If the labels are no names but count its classes from 0: "
        "`labels_start_at` 0" in refusal(path, ("1", "2", "3"))
    )
    assert of(read_dataset(path, Columns(labels_start_at=0), ("1", "2", "3"))) == [0, 1, 2]


def test_without_a_model_names_that_look_the_same_are_one_class_and_that_is_said(write: Write) -> None:
    found = read_dataset(write(label=["Good", "bad", "good "]))
    assert (of(found), found.labels) == ([0, 1, 0], ("Good", "bad"))
    assert found.notes == ("moods.csv: 'good' was taken for the class 'Good'.",)


# ---------------------------------------------------------------- names that the file declares


@pytest.fixture(params=["datasets", "pandas", "arrow", "beside", "beside, by another name"])
def declared(request: pytest.FixtureRequest, tmp_path: Path, write: Write) -> Path:
    """A table that has angry, sad, angry, calm in an order of its own: numbers with names, or categories."""
    names, numbers = ["sad", "calm", "angry"], [2, 0, 2, 1]
    called, texts, path = [names[i] for i in numbers], [f"text {i}" for i in range(4)], tmp_path / "moods.parquet"
    if request.param == "datasets":
        features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
        datasets.Dataset.from_dict({"text": texts, "label": numbers}, features=features).to_parquet(path)
    elif request.param == "pandas":
        pd.DataFrame({"text": texts, "label": pd.Categorical(called, categories=names)}).to_parquet(path)
    elif request.param == "arrow":
        pq.write_table(pa.table({"text": texts, "label": pa.array(called).dictionary_encode()}), path)
    else:
        path = write(**{"label": numbers, "label_text" if request.param == "beside" else "class_name": called})
    return path


@pytest.mark.parametrize("model", [MOODS, ("sad", "calm", "angry"), ("Angry", "SAD", "calm", "glad")])
def test_names_in_the_file_win_over_its_numbers(declared: Path, model: tuple[str, ...]) -> None:
    assert [model[i].casefold() for i in of(read_dataset(declared, labels=model))] == ["angry", "sad", "angry", "calm"]


def test_names_of_the_file_that_the_model_has_not_are_asked_about(write: Write) -> None:
    path = write(label=[1, 0, 1], label_text=["furious", "calm", "furious"])
    said = refusal(path, ("calm", "angry"))
    assert (
        "calls its labels 0 = calm, 1 = furious; the model calls its classes 0 = calm, 1 = angry. Which is which?"
        in said
    )
    assert "`label_map` calm=calm,furious=CLASS, where CLASS is one of: calm, angry." in said
    assert of(read_dataset(path, Columns(label_map="calm=calm,furious=angry"), ("calm", "angry"))) == [1, 0, 1]
    assert of(read_dataset(path, Columns(labels_start_at=0), ("calm", "angry"))) == [1, 0, 1]
    assert of(read_dataset(path, Columns(label="label_text"), ("calm", "furious"))) == [1, 0, 1]


def test_names_beside_the_numbers_of_a_nameless_model_are_said(write: Write) -> None:
    found = read_dataset(write(label=[1, 0, 2], label_text=["angry", "calm", "sad"]), labels=NAMELESS)
    assert of(found) == [1, 0, 2]
    assert any(
        "the model does not name its classes, so class 0 = calm, 1 = angry, 2 = sad as in the file" in note
        for note in found.notes
    )


@pytest.mark.parametrize("names", [["angry", "calm", "calm"], ["angry", "angry", "calm"], ["angry", "", "sad"]])
def test_names_that_do_not_go_one_to_one_are_not_used_and_that_is_said(write: Write, names: list[str]) -> None:
    found = read_dataset(write(label=[0, 1, 0], label_text=names), labels=MOODS)
    assert of(found) == [0, 1, 0]
    assert (
        "moods.csv: column 'label_text' does not go one to one with 'label', so its names were not used." in found.notes
    )


@pytest.mark.parametrize(
    "metadata",
    [
        b"no JSON",
        b"{}",
        b"[]",
        b'{"info": {"features": 7}}',
        b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": 3}}}}',
    ],
)
def test_metadata_of_another_kind_declares_nothing(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"text": ["a", "b"], "label": [0, 1]}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "moods.parquet")
    assert of(read_dataset(tmp_path / "moods.parquet", labels=("calm", "angry"))) == [0, 1]


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("labels", [[1, 2, 3], [3, 1, 2, 2], ["1.0", "2.0", "3.0"]])
@pytest.mark.parametrize("model", [MOODS, NAMELESS])
def test_labels_that_start_at_1_are_asked_about_and_the_answer_is_taken(
    write: Write, labels: list[Any], model: tuple[str, ...]
) -> None:
    path = write(label=labels)
    said = refusal(path, model)
    assert f"none is 0; the model's classes are 0 = {model[0]}" in said
    assert f"Do the labels start at 1, so that 1 is {model[0]!r}? Then: `labels_start_at` 1." in said
    assert of(read_dataset(path, Columns(labels_start_at=1), model)) == [int(float(label)) - 1 for label in labels]


def test_labels_that_never_use_0_are_asked_about_and_either_answer_is_taken(write: Write) -> None:
    path = write(label=[1, 2, 1])
    assert "Or is there no text of class 0? Then: `labels_start_at` 0." in refusal(path, MOODS)
    assert [of(read_dataset(path, Columns(labels_start_at=n), MOODS)) for n in (0, 1)] == [[1, 2, 1], [0, 1, 0]]


def test_without_a_model_labels_without_0_are_noted(write: Write) -> None:
    assert read_dataset(write(label=[1, 2, 1])).notes == (
        "moods.csv: no text has the label 0, so class 0 is empty; if the labels start at 1: `labels_start_at` 1.",
    )
    assert read_dataset(write(label=[1, 2, 1]), Columns(labels_start_at=1)).labels == ("0", "1")


def test_a_wrong_answer_is_refused(write: Write) -> None:
    assert "from 1, labels 0 to 2 are out of range" in refusal(
        write(label=[0, 1, 2]), MOODS, Columns(labels_start_at=1)
    )
    assert "`labels_start_at` is for labels that are numbers" in refusal(
        write(label=["calm", "sad"]), MOODS, Columns(labels_start_at=1)
    )


@pytest.mark.parametrize(
    ("labels", "given", "expected"),
    [
        ([0, 1, 0], "0=angry,1=calm", [1, 0, 1]),
        ([1, 2, 5], "1=sad, 2=sad, 5=calm", [2, 2, 0]),
        (["neg", "pos", "Neg"], "neg=2,pos=0", [2, 0, 2]),
        (["calm", "angry", "calm"], "calm=angry,angry=calm", [1, 0, 1]),
        (["-1", "0", "-1"], "-1=sad,0=calm", [2, 0, 2]),
        (["a=b", "c", "c"], "a=b=calm,c=sad", [0, 2, 2]),
        ([0, 1, 1], "calm=sad,angry=calm", [2, 0, 0]),
    ],
)
def test_a_map_says_what_each_label_means(write: Write, labels: list[Any], given: str, expected: list[int]) -> None:
    assert of(read_dataset(write(label=labels), Columns(label_map=given), MOODS)) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0=calm", r"label '1' in column 'label' is not in `label_map` 0=calm\. Add it there"),
        ("0=calm,1=glad", r"There is no class 'glad'\. Name one of the model's, or its index: 0 = calm"),
        ("0,1", r"`label_map`: expected LABEL=CLASS for each label, such as"),
        ("0=calm,1=calm", r"every text has the label"),
    ],
)
def test_a_map_that_says_too_little_is_refused(write: Write, given: str, message: str) -> None:
    assert re.search(message, refusal(write(label=[0, 1]), MOODS, Columns(label_map=given)))


# ---------------------------------------------------------------- two classes of one name


def test_a_name_that_two_classes_have_is_asked_about(write: Write) -> None:
    model, path = ("other", "angry", "Other "), write(label=["other", "angry"])
    assert "label 'other' is the name of 2 classes of the model (0 = other, 1 = angry, 2 = Other )" in refusal(
        path, model
    )
    assert of(read_dataset(path, Columns(label_map="other=2,angry=1"), model)) == [2, 1]
    assert of(read_dataset(write(label=[0, 1, 2]), labels=model)) == [0, 1, 2]
    with pytest.raises(
        BadData, match=r"2 classes are called 'other'\. Name the one by its index \(0 = other, 1 = angry"
    ):
        class_index("other", model)
    assert class_index("2", model) == 2


# ---------------------------------------------------------------- rows without a label


@pytest.mark.parametrize(
    "labels", [[0, 1, -1, 1, -1], ["calm", "angry", "-", "calm", "-"], [0, 1, "", 1, ""], ["0", "1", "?", "1", "-1"]]
)
def test_rows_without_a_label_are_counted_and_left_out_on_request(write: Write, labels: list[Any]) -> None:
    path = write(label=labels)
    said = refusal(path, MOODS)
    assert "2 of 5 rows have" in said
    assert "(the first: row 3)" in said
    assert "Leave them out with `skip_unlabeled`" in said
    found = read_dataset(path, Columns(skip_unlabeled=True), MOODS)
    assert [t.text for t in found.texts] == ["text number 0", "text number 1", "text number 3"]
    assert any("2 of 5 rows have no label" in note and "were left out" in note for note in found.notes)


def test_a_class_that_is_called_minus_1_is_a_class(write: Write) -> None:
    path = write(label=[-1, 0, 1])
    assert of(read_dataset(path, Columns(skip_unlabeled=True), ("-1", "0", "1"))) == [0, 1, 2]
    flag = re.search(r"`label_map`=(-1=)CLASS", refusal(path, MOODS))
    assert flag
    assert of(read_dataset(path, Columns(label_map=f"{flag[1]}sad,0=calm,1=angry"), MOODS)) == [2, 0, 1]


def test_a_table_without_any_label_is_told_so(write: Write) -> None:
    for columns in (Columns(), Columns(skip_unlabeled=True)):
        assert "no row has a label in column 'label' ('-1')" in refusal(write(label=[-1, -1]), MOODS, columns)


def test_an_empty_text_in_a_row_that_is_left_out_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "moods.csv"
    path.write_text("text,label\na,0\n,-1\nb,1\n", encoding="utf-8")
    assert len(read_dataset(path, Columns(skip_unlabeled=True), MOODS).texts) == 2


# ---------------------------------------------------------------- columns


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("title,description,label", "'title', 'description'"),
        ("headline,label,article", "'headline', 'article'"),
        ("abstract,paper,label", "'abstract', 'paper'"),
    ],
)
def test_a_heading_beside_a_longer_text_is_asked_about(tmp_path: Path, header: str, asked: str) -> None:
    path, names = tmp_path / "news.csv", header.split(",")
    row = {"label": "0", names[0]: "Item"}
    lines = [
        ",".join(row.get(name, "quite a long text") for name in names),
        ",".join((row | {"label": "1"}).get(name, "another long text") for name in names),
    ]
    path.write_text("\n".join([header, *lines]), encoding="utf-8")
    assert f"Which column holds the text, {asked}?" in refusal(path, None)
    assert len(read_dataset(path, Columns(text=names[0])).texts) == 2


def test_a_heading_alone_is_the_text(tmp_path: Path) -> None:
    path = tmp_path / "news.csv"
    path.write_text("id,title,label\n1,A short day,0\n2,A long day,1\n", encoding="utf-8")
    assert [t.text for t in read_dataset(path).texts] == ["A short day", "A long day"]


@pytest.mark.parametrize(
    ("labels", "is_so"),
    [
        (("LABEL_0", "LABEL_1"), True),
        (("0", "1"), True),
        (("1", "2"), False),
        (("LABEL_1", "LABEL_0"), False),
        (("a", "1"), False),
    ],
)
def test_classes_are_nameless_where_they_have_their_own_numbers_alone(labels: tuple[str, ...], is_so: bool) -> None:
    assert nameless(labels) == is_so


def test_how_a_table_is_read_goes_into_a_request_and_back() -> None:
    from mbtsad_core.service.purification import Request

    asked = replace(Request(), columns=Columns(labels_start_at=1, skip_unlabeled=True))
    assert Request.from_dict(asked.to_dict()) == asked
