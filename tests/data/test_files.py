"""Labeled texts from local tables: formats, columns, labels, and what the messages say when a file is wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbtsad_core.data import Columns, Dataset, read_dataset
from mbtsad_core.errors import BadData
from mbtsad_core.types import LabelledText

Put = Callable[[str, str | bytes], Path]

HARBOUR = "The harbour scenes glow"
KNEES = "My knees ached before it ended"
ROWS = f"{KNEES}\t0\n{HARBOUR}\t1\n"
TEXTS = (LabelledText(KNEES, 0), LabelledText(HARBOUR, 1))
SENTIMENT = ("negative", "positive")


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a file and return its path."""

    def write(name: str, contents: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return path

    return write


def parquet(**columns: Any) -> bytes:
    """The bytes of a Parquet file, as pandas writes it."""
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer, index=False)
    return buffer.getvalue()


def labels_of(dataset: Dataset) -> list[int]:
    return [example.label for example in dataset.texts]


# ---------------------------------------------------------------- formats


def test_a_tsv_file_gives_its_texts_labels_columns_and_digest(put: Put) -> None:
    path = put("films.tsv", "text\tlabel\n" + ROWS)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_dataset(path) == Dataset(TEXTS, ("0", "1"), str(path), Columns("text", "label"), digest)


def test_columns_chosen_among_others_are_noted(put: Put) -> None:
    path = put("films.tsv", f"id\tsentence\tsource\tlabel\n7\t{KNEES}\tweb\t0\n8\t{HARBOUR}\tweb\t1\n")
    (note,) = read_dataset(path).notes
    assert note == "films.tsv: texts from column 'sentence', labels from column 'label'; not read: id, source."
    assert read_dataset(path, Columns(text="sentence", label="label")).notes == ()


def test_a_tsv_file_keeps_the_quotes_inside_its_texts(put: Put) -> None:
    path = put("films.tsv", 'text\tlabel\n"Bold," said my aunt\t1\nHe calls it "art\t0\n""\t1\n')
    assert [example.text for example in read_dataset(path).texts] == ['"Bold," said my aunt', 'He calls it "art', '""']


def test_a_csv_file_may_quote_commas_quotes_and_line_breaks(put: Put) -> None:
    path = put("films.csv", 'text,label\n"Slow, then ""sudden""",1\n"One line\nand another",0\n')
    assert [example.text for example in read_dataset(path).texts] == ['Slow, then "sudden"', "One line\nand another"]


def test_a_jsonl_file_gives_texts_and_integer_labels(put: Put) -> None:
    path = put("films.jsonl", f'{{"text": "{KNEES}", "label": 0}}\n{{"text": "{HARBOUR}", "label": 1}}\n')
    assert read_dataset(path).texts == TEXTS


@pytest.mark.parametrize("texts", [["007", "08"], ["2001-01-01", "1999-12-31"], ["true", "false"]])
def test_jsonl_texts_that_look_like_numbers_dates_or_truths_stay_as_they_are(put: Put, texts: list[str]) -> None:
    path = put("films.jsonl", "".join(f'{{"text": "{text}", "label": {i}}}\n' for i, text in enumerate(texts)))
    assert [example.text for example in read_dataset(path).texts] == texts


def test_a_parquet_file_gives_texts_and_integer_labels(put: Put) -> None:
    assert read_dataset(put("films.parquet", parquet(text=[KNEES, HARBOUR], label=[0, 1]))).texts == TEXTS


def test_a_parquet_file_may_hold_categories_as_labels(put: Put) -> None:
    path = put("films.parquet", parquet(text=[KNEES, HARBOUR], label=pd.Categorical(["bad", "good"])))
    found = read_dataset(path)
    assert (found.texts, found.labels) == (TEXTS, ("bad", "good"))


def test_a_parquet_file_with_the_texts_as_row_names_is_read(tmp_path: Path) -> None:
    pd.DataFrame({"text": [KNEES, HARBOUR], "label": [0, 1]}).set_index("text").to_parquet(tmp_path / "films.parquet")
    assert read_dataset(tmp_path / "films.parquet").texts == TEXTS


def test_nameless_row_names_of_a_parquet_file_are_no_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"opinion": [KNEES, HARBOUR, "Not bad"], "label": [0, 1, 1]}, index=[4, 9, 5])
    frame.to_parquet(tmp_path / "films.parquet")
    assert "__index_level_0__" in pq.read_schema(tmp_path / "films.parquet").names
    assert read_dataset(tmp_path / "films.parquet").texts == (*TEXTS, LabelledText("Not bad", 1))


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("films.tsv.gz", "text\tlabel\n" + ROWS),
        ("films.csv.gz", f"text,label\n{KNEES},0\n{HARBOUR},1\n"),
        ("films.jsonl.gz", f'{{"text": "{KNEES}", "label": 0}}\n{{"text": "{HARBOUR}", "label": 1}}\n'),
    ],
)
def test_the_text_formats_may_be_gzipped(put: Put, name: str, contents: str) -> None:
    assert read_dataset(put(name, gzip.compress(contents.encode()))).texts == TEXTS


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("films.tsv", "text\tlabel\n" + ROWS),
        ("films.csv", f"text,label\n{KNEES},0\n{HARBOUR},1\n"),
        ("films.jsonl", f'{{"text": "{KNEES}", "label": 0}}\n{{"text": "{HARBOUR}", "label": 1}}\n'),
    ],
)
def test_a_byte_order_mark_at_the_start_is_skipped(put: Put, name: str, contents: str) -> None:
    assert read_dataset(put(name, b"\xef\xbb\xbf" + contents.encode())).texts == TEXTS


def test_letters_beyond_ascii_come_through(put: Put) -> None:
    assert read_dataset(put("films.tsv", "text\tlabel\nRührend, 映画\t1\nÖde\t0\n")).texts[0].text == "Rührend, 映画"


def test_texts_such_as_na_and_null_are_texts(put: Put) -> None:
    assert [
        example.text for example in read_dataset(put("films.tsv", "text\tlabel\nNA\t0\nnull\t1\nnan\t1\n")).texts
    ] == ["NA", "null", "nan"]


def test_space_around_a_text_is_dropped(put: Put) -> None:
    assert read_dataset(put("films.tsv", "text\tlabel\n  A calm  film \t1\nNoise\t0\n")).texts[0].text == "A calm  film"


def test_blank_lines_and_windows_line_ends_are_no_rows(put: Put) -> None:
    assert read_dataset(put("films.tsv", f"text\tlabel\r\n{KNEES}\t0\r\n\r\n{HARBOUR}\t1\r\n")).texts == TEXTS


def test_the_suffix_may_be_in_capitals(put: Put) -> None:
    assert read_dataset(put("FILMS.TSV", "text\tlabel\n" + ROWS)).texts == TEXTS


def test_counts_gives_the_texts_of_each_class(put: Put) -> None:
    dataset = read_dataset(put("films.tsv", "text\tlabel\na\t0\nb\t2\nc\t2\nd\t2\n"))
    assert dataset.counts() == (1, 0, 3)


# ---------------------------------------------------------------- columns


@pytest.mark.parametrize("header", ["review\tsentiment", "Sentence\tLABEL", "tweet\tclass"])
def test_common_column_names_are_guessed_whatever_their_case(put: Put, header: str) -> None:
    assert read_dataset(put("films.tsv", f"{header}\n{ROWS}")).texts == TEXTS


def test_guessed_columns_may_stand_anywhere_among_others(put: Put) -> None:
    assert (
        read_dataset(put("films.tsv", f"id\tlabel\tyear\ttext\n7\t0\t1999\t{KNEES}\n8\t1\t2004\t{HARBOUR}\n")).texts
        == TEXTS
    )


def test_space_around_column_names_does_not_matter_to_the_guess(put: Put) -> None:
    assert read_dataset(put("films.tsv", f"id\t Text\tlabel \n7\t{KNEES}\t0\n8\t{HARBOUR}\t1\n")).texts == TEXTS


def test_given_columns_win_over_guessed_ones(put: Put) -> None:
    path = put("films.tsv", f"text\tlabel\tsummary\tmood\na\t1\t{KNEES}\t0\nb\t0\t{HARBOUR}\t1\n")
    assert read_dataset(path, Columns(text="summary", label="mood")).texts == TEXTS


def test_the_other_of_two_columns_is_the_text(put: Put) -> None:
    assert read_dataset(put("films.tsv", f"opinion\tlabel\n{ROWS}")).texts == TEXTS


def test_the_other_of_two_columns_is_the_label(put: Put) -> None:
    assert read_dataset(put("films.tsv", f"text\tgold\n{ROWS}")).texts == TEXTS


def test_a_given_column_tells_what_the_other_of_two_is(put: Put) -> None:
    assert read_dataset(put("films.tsv", f"opinion\tgold\n{ROWS}"), Columns(label="gold")).texts == TEXTS


@pytest.mark.parametrize(
    "names", ["premise\thypothesis", "Sentence1\tSentence2", "question1\tquestion2", "question\tsentence"]
)
def test_sentence_pairs_are_guessed_first_text_first(put: Put, names: str) -> None:
    path = put("pairs.tsv", f"{names}\tlabel\nA cat sleeps\tAn animal rests\t1\nIt rains\tThe sun shines\t0\n")
    assert read_dataset(path).texts == (
        LabelledText("A cat sleeps", 1, "An animal rests"),
        LabelledText("It rains", 0, "The sun shines"),
    )


def test_a_text_column_wins_over_the_columns_of_a_pair(put: Put) -> None:
    path = put("pairs.tsv", f"premise\thypothesis\ttext\tlabel\na\tb\t{KNEES}\t0\nc\td\t{HARBOUR}\t1\n")
    assert read_dataset(path).texts == TEXTS


def test_a_pair_column_can_be_given(put: Put) -> None:
    path = put("pairs.tsv", "text\treply\tlabel\nShall we?\tLet us\t1\nAre you in?\tNever\t0\n")
    assert read_dataset(path, Columns(pair="reply")).texts[0] == LabelledText("Shall we?", 1, "Let us")


def test_a_given_text_column_makes_single_texts_of_a_pair_table(put: Put) -> None:
    path = put(
        "pairs.tsv", "premise\thypothesis\tlabel\nA cat sleeps\tAn animal rests\t1\nIt rains\tThe sun shines\t0\n"
    )
    assert [example.pair for example in read_dataset(path, Columns(text="hypothesis")).texts] == [None, None]


def test_a_given_pair_column_is_not_guessed_as_the_text_too(put: Put) -> None:
    path = put("pairs.tsv", "title\ttext\tlabel\nStorm\tRain for days\t0\nSpring\tBlossom at last\t1\n")
    assert read_dataset(path, Columns(pair="text")).texts[0] == LabelledText("Storm", 0, "Rain for days")


def test_columns_without_names_can_be_given_by_number(put: Put) -> None:
    path = put("films.jsonl", f'["{KNEES}", 0]\n["{HARBOUR}", 1]\n')
    assert read_dataset(path, Columns(text="0", label="1")).texts == TEXTS


# ---------------------------------------------------------------- labels


def test_integer_labels_keep_their_value_and_name_the_classes(put: Put) -> None:
    dataset = read_dataset(put("films.tsv", "text\tlabel\na\t3\nb\t1\n"))
    assert (labels_of(dataset), dataset.labels) == ([3, 1], ("0", "1", "2", "3"))


def test_integer_labels_take_the_names_of_the_model(put: Put) -> None:
    dataset = read_dataset(put("films.tsv", "text\tlabel\n" + ROWS), labels=SENTIMENT)
    assert (labels_of(dataset), dataset.labels) == ([0, 1], SENTIMENT)


def test_names_without_a_model_are_numbered_in_alphabetical_order(put: Put) -> None:
    dataset = read_dataset(put("films.tsv", "text\tlabel\na\ttart\nb\tsweet\nc\ttart\n"))
    assert (labels_of(dataset), dataset.labels) == ([1, 0, 1], ("sweet", "tart"))


def test_names_of_the_model_go_by_the_order_of_the_model(put: Put) -> None:
    dataset = read_dataset(put("films.tsv", "text\tlabel\na\tgood\nb\tbad\n"), labels=("good", "bad"))
    assert (labels_of(dataset), dataset.labels) == ([0, 1], ("good", "bad"))


def test_names_of_the_model_match_in_any_case_and_keep_the_spelling_of_the_model(put: Put) -> None:
    dataset = read_dataset(
        put("films.tsv", "text\tlabel\na\tPOSITIVE\nb\tnegative\nc\tPositive\n"), labels=("Negative", "positive")
    )
    assert (labels_of(dataset), dataset.labels) == ([1, 0, 1], ("Negative", "positive"))


def test_a_file_may_lack_some_classes_of_the_model(put: Put) -> None:
    dataset = read_dataset(
        put("films.tsv", "text\tlabel\na\tpositive\nb\tnegative\n"), labels=("negative", "neutral", "positive")
    )
    assert (labels_of(dataset), dataset.counts()) == ([2, 0], (1, 0, 1))


def test_generic_names_in_the_file_match_the_generic_names_of_the_model(put: Put) -> None:
    dataset = read_dataset(put("films.tsv", "text\tlabel\na\tLABEL_1\nb\tlabel_0\n"), labels=("LABEL_0", "LABEL_1"))
    assert labels_of(dataset) == [1, 0]


def test_integers_in_the_file_match_the_generic_names_of_the_model(put: Put) -> None:
    dataset = read_dataset(put("films.tsv", "text\tlabel\na\t1\nb\t0\n"), labels=("LABEL_0", "LABEL_1"))
    assert (labels_of(dataset), dataset.labels) == ([1, 0], ("LABEL_0", "LABEL_1"))


def test_numbers_that_are_the_names_of_the_model_go_by_name(put: Put) -> None:
    dataset = read_dataset(put("films.tsv", "text\tlabel\na\t4\nb\t0\n"), labels=("0", "4"))
    assert labels_of(dataset) == [1, 0]


def test_whole_floats_are_integers(put: Put) -> None:
    dataset = read_dataset(put("films.csv", "text,label\na,0.0\nb,1.0\nc,2\n"))
    assert (labels_of(dataset), dataset.labels) == ([0, 1, 2], ("0", "1", "2"))


def test_floats_in_a_parquet_file_are_integers(put: Put) -> None:
    assert labels_of(read_dataset(put("films.parquet", parquet(text=["a", "b"], label=[1.0, 0.0])))) == [1, 0]


# ---------------------------------------------------------------- errors: the file

ONE_ROW = "text\tlabel\na\t0\n"


def test_a_missing_file_is_named_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"No data file at .*absent\.tsv.*\.jsonl.*hub:OWNER/NAME"):
        read_dataset(tmp_path / "absent.tsv")


def test_a_folder_is_no_data_file(tmp_path: Path) -> None:
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(BadData, match=r"No data file at .*folder\.tsv, which is a folder\. Give "):
        read_dataset(tmp_path / "folder.tsv")


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("films.xlsx", "PK", r"films\.xlsx: unknown kind of file.*\.tsv, \.csv, \.jsonl, \.json, \.parquet"),
        ("films", "text", r"films: unknown kind of file"),
        ("films.json", "[]", r"films\.json has no rows\. Expected one labeled text a row\."),
        ("films.tsv", "", r"films\.tsv is empty.*a header line, a text column and a label column"),
        ("films.parquet", "", r"films\.parquet is empty"),
        ("films.tsv", "text\tlabel\n", r"films\.tsv has no rows.*one labeled text a row below the header"),
        ("films.csv", "text,label", r"films\.csv has no rows"),
        ("films.jsonl", "\n\n", r"films\.jsonl has no rows\. Expected one labeled text a row\."),
        ("films.parquet", parquet(text=[], label=[]), r"films\.parquet has no rows"),
        ("films.tsv", "\n\n", r"films\.tsv cannot be read as TSV: No columns"),
        ("films.parquet", b"PAR1 and then nonsense", r"films\.parquet cannot be read as PARQUET:.*Check the format"),
        (
            "films.jsonl",
            '{"text": "a", "label": 0}\n{"text": "b"',
            r"films\.jsonl cannot be read as JSONL:.*Check the format",
        ),
        (
            "films.jsonl",
            '{"text": "a", "label": 0}\n2',
            r"films\.jsonl cannot be read as JSONL: row 2 is no object",
        ),  # found by fuzzing
        (
            "films.jsonl",
            '{"text": "a", "label": 0}\nnull\n',
            r"films\.jsonl cannot be read as JSONL: row 2 is no object",
        ),
        (
            "films.csv",
            'text,label\n"never closed,0\nb,1\n',
            r"films\.csv cannot be read as CSV:.*EOF inside string.*Check the format",
        ),
        (
            "films.tsv",
            "text\tlabel\na\t0\nb\tc\t1\n",
            r"films\.tsv cannot be read as TSV:.*Expected 2 fields in line 3, saw 3\. Check the format",
        ),
        ("films.tsv.gz", b"not gzipped", r"films\.tsv\.gz cannot be read as TSV: Not a gzipped file"),
        (
            "films.tsv.gz",
            gzip.compress(ONE_ROW.encode(), mtime=0)[:-9],
            r"films\.tsv\.gz cannot be read as TSV: Compressed file ended",
        ),
        (
            "films.tsv",
            "text\tlabel\nMüde\t0\nb\t1\n".encode("latin-1"),
            r"TSV: line 2 is not UTF-8\. It may be Windows-1252, .* then read 'Müde.*0'",
        ),
        (
            "films.csv",
            "text,label\na,0\nb “c”,1\n".encode("cp1252"),
            r"CSV: line 3 is not UTF-8\. It may be Windows-1252, .* then read 'b “c”,1'",
        ),
        (
            "films.jsonl",
            '{"text": "Müde", "label": 0}\n'.encode("latin-1"),
            r"JSONL: line 1 is not UTF-8\. It may be Windows-1252.*iconv",
        ),
        (
            "films.csv",
            b"text,label\n\x81\x8d,0\nb,1\n",
            r"CSV: line 2 is not UTF-8\. Save it with the encoding UTF-8\.$",
        ),
        (
            "films.csv",
            "text,label\na,0\nb,1\n".encode("utf-16-le"),
            r"CSV: it holds NUL characters\. If it is UTF-16 without a byte order mark",
        ),
        ("films.csv", b"\xff\xfea\x00b", r"CSV: its first bytes say UTF-16, and it is not\. Save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_reason(
    put: Put, name: str, contents: str | bytes, message: str
) -> None:
    with pytest.raises(BadData, match=message):
        read_dataset(put(name, contents))


def test_a_gzip_stream_that_is_damaged_in_the_middle_is_refused(put: Put) -> None:
    damaged = bytearray(gzip.compress("".join(f"text number {i}\t{i % 2}\n" for i in range(300)).encode()))
    damaged[20:60] = bytes(40)
    with pytest.raises(BadData, match=r"films\.tsv\.gz cannot be read as TSV: .*Check the format"):
        read_dataset(put("films.tsv.gz", bytes(damaged)))


def test_a_parquet_file_whose_texts_are_no_utf8_is_refused(put: Put) -> None:
    path = put(
        "films.parquet",
        parquet(text=["quite plain words", "other plain words"], label=[0, 1]).replace(
            b"quite plain words", b"quite pl\xffin words"
        ),
    )
    with pytest.raises(BadData, match=r"films\.parquet cannot be read as PARQUET: .*UTF8.*encoding \(UTF-8\)"):
        read_dataset(path)


def test_a_parquet_file_with_a_damaged_byte_is_read_or_refused(tmp_path: Path) -> None:
    path, rng, refused = tmp_path / "films.parquet", random.Random(0), 0
    pq.write_table(
        pa.table({"text": ["plain words", "other words"], "label": [0, 1]}),
        path,
        store_schema=False,
        compression="none",
    )
    whole = path.read_bytes()
    places = range(0, len(whole), 4)
    for i in places:
        damaged = bytearray(whole)
        damaged[i] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_dataset(path)
        except BadData:
            refused += 1
    assert refused > len(places) / 4


# ---------------------------------------------------------------- errors: columns


@pytest.mark.parametrize("columns", [Columns(text="review"), Columns(label="review"), Columns(pair="review")])
def test_an_absent_column_is_named_beside_those_of_the_file(put: Put, columns: Columns) -> None:
    with pytest.raises(
        BadData, match=r"no column 'review'.*films\.tsv: text, label\..*`text_column`, `label_column` or `pair_column`"
    ):
        read_dataset(put("films.tsv", "text\tlabel\n" + ROWS), columns)


def test_without_a_likely_text_column_the_user_is_asked_to_name_it(put: Put) -> None:
    with pytest.raises(
        BadData,
        match=r"Which column holds the text\? Columns of films\.tsv: id, remark, label\. Name it with `text_column`",
    ):
        read_dataset(put("films.tsv", "id\tremark\tlabel\n1\ta\t0\n2\tb\t1\n"))


def test_without_a_likely_label_column_the_user_is_asked_to_name_it(put: Put) -> None:
    with pytest.raises(
        BadData,
        match=r"Which column holds the label\? Columns of films\.tsv: text, stars, votes\. Name it with `label_column`",
    ):
        read_dataset(put("films.tsv", "text\tstars\tvotes\na\t0\t3\nb\t1\t4\n"))


def test_a_table_of_texts_alone_is_told_to_lack_labels(put: Put) -> None:
    with pytest.raises(BadData, match=r"films\.tsv holds texts and no labels\. Expected .* beside 'text': add one"):
        read_dataset(put("films.tsv", "text\na film\nb film\n"))


def test_two_columns_that_both_say_nothing_are_ambiguous(put: Put) -> None:
    with pytest.raises(BadData, match=r"Which column holds the text\? Columns of films\.tsv: left, right"):
        read_dataset(put("films.tsv", f"left\tright\n{ROWS}"))


@pytest.mark.parametrize(
    "columns",
    [Columns(text="label", label="label"), Columns(text="text", pair="text"), Columns(pair="label", label="label")],
)
def test_one_column_cannot_have_two_roles(put: Put, columns: Columns) -> None:
    with pytest.raises(
        BadData,
        match=r"three different columns, but '(text|label)' was named twice\. Columns of films\.tsv: text, label",
    ):
        read_dataset(put("films.tsv", "text\tlabel\n" + ROWS), columns)


@pytest.mark.parametrize(
    ("name", "contents"),
    [("films.tsv", "text\tlabel\nfirst\tsecond\t0\nthird\tfourth\t1\n"), ("films.csv", "text,label\na,0,\nb,1,\n")],
)
def test_rows_longer_than_the_header_are_refused_instead_of_shifted(put: Put, name: str, contents: str) -> None:
    with pytest.raises(
        BadData,
        match=rf"{re.escape(name)}: the rows have more fields than the header has columns \(text, label\)\. Name "
        rf"every column",
    ):
        read_dataset(put(name, contents))


def test_two_columns_of_the_same_name_are_refused(tmp_path: Path) -> None:
    columns = [pa.array(["a", "b"]), pa.array(["c", "d"]), pa.array([0, 1])]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "text", "label"]), tmp_path / "films.parquet")
    with pytest.raises(BadData, match=r"films\.parquet has two columns named 'text'"):
        read_dataset(tmp_path / "films.parquet")


# ---------------------------------------------------------------- errors: texts and labels


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("films.tsv", "text\tlabel\na\t0\n   \t1\n\t1\n"),
        ("films.csv", 'text,label\na,0\n"",1\n" ",1\n'),
        ("films.jsonl", '{"text": "a", "label": 0}\n{"text": null, "label": 1}\n{"label": 1}\n'),
        ("films.parquet", parquet(text=["a", None, ""], label=[0, 1, 1])),
        ("films.parquet", parquet(text=pd.array(["a", None, ""], dtype="string"), label=[0, 1, 1])),
    ],
)
def test_empty_texts_are_counted_and_the_first_is_pointed_at(put: Put, name: str, contents: str | bytes) -> None:
    with pytest.raises(
        BadData,
        match=rf"{re.escape(name)}: 2 of 3 rows have no text in column 'text' \(the first: row 2\)\. Remove them or "
        rf"fill them in",
    ):
        read_dataset(put(name, contents))


def test_an_empty_second_text_of_a_pair_is_refused(put: Put) -> None:
    with pytest.raises(BadData, match=r"1 of 2 rows have no text in column 'hypothesis' \(the first: row 2\)"):
        read_dataset(put("pairs.tsv", "premise\thypothesis\tlabel\na\tb\t0\nc\t\t1\n"))


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("films.tsv", "text\tlabel\na\t0\nb\t1\nc\t\n"),
        ("films.tsv", "text\tlabel\na\t0\nb\t1\nc\n"),
        ("films.jsonl", '{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n{"text": "c", "label": null}\n'),
        ("films.parquet", parquet(text=["a", "b", "c"], label=[0.0, 1.0, None])),
        ("films.parquet", parquet(text=["a", "b", "c"], label=pd.array([0, 1, None], dtype="Int64"))),
    ],
)
def test_empty_labels_are_counted_and_the_first_is_pointed_at(put: Put, name: str, contents: str | bytes) -> None:
    with pytest.raises(
        BadData,
        match=rf"{re.escape(name)}: 1 of 3 rows have no label in column 'label' \(the first: row 3\)\. Leave them out "
        rf"with `skip_unlabeled`, remove",
    ):
        read_dataset(put(name, contents))


@pytest.mark.parametrize(
    ("name", "contents", "kind"),
    [
        ("films.jsonl", '{"text": ["a", "b"], "label": 0}\n{"text": ["c"], "label": 1}\n', "list"),
        ("films.jsonl", '{"text": {"en": "a"}, "label": 0}\n{"text": {"en": "b"}, "label": 1}\n', "dict"),
        ("films.parquet", parquet(text=[["a"], ["b", "c"]], label=[0, 1]), "ndarray"),
        ("films.parquet", parquet(text=[b"a", b"b"], label=[0, 1]), "bytes"),
    ],
)
def test_a_text_column_of_lists_or_bytes_is_refused(put: Put, name: str, contents: str | bytes, kind: str) -> None:
    with pytest.raises(
        BadData, match=rf"column 'text' holds values of type {kind}\. Expected a text or a number a row"
    ):
        read_dataset(put(name, contents))


def test_a_label_column_of_lists_is_refused(put: Put) -> None:
    with pytest.raises(BadData, match=r"column 'label' holds values of type list"):
        read_dataset(put("films.jsonl", '{"text": "a", "label": [0]}\n{"text": "b", "label": [1]}\n'))


def test_one_class_only_is_refused_with_its_label_and_column(put: Put) -> None:
    with pytest.raises(
        BadData,
        match=r"films\.tsv: every text has the label '1'\. Expected texts of two classes or more; is 'label' the "
        r"right column\?",
    ):
        read_dataset(put("films.tsv", "text\tlabel\na\t1\nb\t1.0\n"))


def test_a_label_out_of_the_range_of_the_model_is_named_with_the_range(put: Put) -> None:
    with pytest.raises(
        BadData,
        match=r"label 2 is out of range\. The model has 2 classes, 0 to 1 \(negative, positive\)\. Give texts of "
        r"these classes, .* or say what each label means with `label_map`",
    ):
        read_dataset(put("films.tsv", "text\tlabel\na\t0\nb\t2\n"), labels=SENTIMENT)


def test_a_name_that_the_model_does_not_know_is_named_with_those_it_knows(put: Put) -> None:
    with pytest.raises(
        BadData,
        match=r"label 'mixed' in column 'label' is none of the model's: negative, positive\. .*`label_map` "
        r"mixed=CLASS,positive=positive, where",
    ):
        read_dataset(put("films.tsv", "text\tlabel\na\tpositive\nb\tmixed\n"), labels=SENTIMENT)


def test_names_for_a_nameless_model_ask_for_their_order(put: Put) -> None:
    with pytest.raises(
        BadData, match=r"the labels are names \(bad, good\).*which of its 2 classes each is.*`labels` bad,good"
    ):
        read_dataset(put("films.tsv", "text\tlabel\na\tgood\nb\tbad\n"), labels=("LABEL_0", "LABEL_1"))


def test_negative_labels_are_none_of_the_classes_of_the_model(put: Put) -> None:
    with pytest.raises(BadData, match=r"label '-2' in column 'label' is none of the model's"):
        read_dataset(put("films.tsv", "text\tlabel\na\t-2\nb\t1\n"), labels=SENTIMENT)


@pytest.mark.parametrize("large", ["20000", "9" * 18])
def test_large_numbers_are_no_class_indices(put: Put, large: str) -> None:
    with pytest.raises(
        BadData,
        match=rf"column 'label' holds numbers up to {large}, not class indices\. Name the label column with "
        rf"`label_column`",
    ):
        read_dataset(put("films.tsv", f"text\tlabel\na\t0\nb\t{large}\n"))


def test_a_number_of_thousands_of_digits_is_refused_beside_the_names_of_the_model(put: Put) -> None:
    with pytest.raises(BadData, match=r"is none of the model's: negative, positive"):
        read_dataset(put("films.tsv", f"text\tlabel\na\t0\nb\t{'9' * 5000}\n"), labels=SENTIMENT)


def test_a_column_of_very_many_different_names_is_no_label_column(put: Put) -> None:
    with pytest.raises(
        BadData, match=r"column 'label' has 101 different values; that is no label column\. Name it with `label_column`"
    ):
        read_dataset(put("films.tsv", "text\tlabel\n" + "".join(f"text {i}\tname {i}\n" for i in range(101))))
