"""Tables as programs write them: separators, quotes, encodings, JSON in its shapes, and what is no table by its first
bytes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mbtsad_core.data import read_dataset
from mbtsad_core.data import tables as module
from mbtsad_core.data.tables import quoted_fields, read_table
from mbtsad_core.errors import BadData

Put = Callable[[str, str | bytes], Path]
TEXTS = ["She said “no”, then left", "Tea; scones; jam", "Nothing | to add", "A dull afternoon"]
ROWS = list(zip(TEXTS, (1, 0, 1, 0), strict=True))


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a file and return its path."""

    def write(name: str, contents: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return path

    return write


def texts_of(path: Path) -> list[str]:
    return [example.text for example in read_dataset(path).texts]


def written(rows: list[tuple[Any, ...]], header: tuple[str, ...] = ("text", "label"), **how: Any) -> str:
    """As Python's own writer of CSV puts it."""
    out = io.StringIO(newline="")
    csv.writer(out, **how).writerows([header, *rows])
    return out.getvalue()


# ---------------------------------------------------------------- separators


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_the_separator_is_found_whatever_the_ending_says(put: Put, suffix: str, separator: str) -> None:
    path = put(f"films{suffix}", written(ROWS, delimiter=separator))
    assert texts_of(path) == TEXTS
    is_usual = separator == {".csv": ",", ".tsv": "\t"}[suffix]
    assert any("divide the columns" in note for note in read_dataset(path).notes) != is_usual


@pytest.mark.parametrize("first", ["sep=;\r\n", "SEP=;\n", '"sep=;"\n'])
def test_the_first_line_by_which_excel_names_the_separator_is_no_header(put: Put, first: str) -> None:
    assert texts_of(put("films.csv", first + written(ROWS, delimiter=";"))) == TEXTS


def test_a_separator_within_a_name_of_the_header_divides_nothing(put: Put) -> None:
    path = put("films.csv", written([(text, 7, label) for text, label in ROWS], ("text", "id;year", "label")))
    assert list(read_table(path).frame.columns) == ["text", "id;year", "label"]


def test_of_two_separators_in_the_header_the_one_that_fits_the_rows_divides(put: Put) -> None:
    path = put("films.csv", "text;votes, by hand;label\nGood;3;1\nBad, very;2;0\n")
    assert list(read_table(path).frame.columns) == ["text", "votes, by hand", "label"]


# ---------------------------------------------------------------- quotes in a TSV file

QUOTED = ['He said "well done"', "Two\nlines", "a\ttab", "Plain words"]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_a_tsv_file_as_pandas_writes_it_is_read_as_pandas_reads_it(put: Put, quoting: Any) -> None:
    path = put(
        "films.tsv",
        pd.DataFrame({"text": QUOTED, "label": [0, 1, 0, 1]}).to_csv(sep="\t", index=False, quoting=quoting),
    )
    assert texts_of(path) == QUOTED
    (note,) = read_dataset(path).notes
    assert "is quoted as CSV is" in note


def test_a_tsv_file_with_quotes_around_commas_is_one_of_excel(put: Put) -> None:
    path = put("films.tsv", 'text\tlabel\r\n"Slow, but fine"\t1\r\nSlow\t0\r\n"No, no, no"\t0\r\n')
    assert texts_of(path) == ["Slow, but fine", "Slow", "No, no, no"]


@pytest.mark.parametrize(
    "texts",
    [
        ['"Bold," said my aunt', "Nothing"],
        ['She calls it "art', '"art" , she says'],
        ['"', 'a "film"'],
        ['"Fine"', "Plain, with a comma", "Other"],
        ['" opens here', 'closes here "'],
        ["`` so-called '' quotes", 'and "real" ones'],
        ['""twice""', "x"],
    ],
)
def test_a_corpus_with_bare_quotes_keeps_them(put: Put, texts: list[str]) -> None:
    path = put("films.tsv", "text\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(texts)))
    assert texts_of(path) == [text.strip() for text in texts]
    assert read_dataset(path).notes == ()


def test_what_is_written_by_the_rules_and_needs_them_is_found() -> None:
    rng = random.Random(0)
    for _ in range(500):
        rows = [
            ("".join(rng.choices('ab "\n,', k=rng.randrange(9))), rng.choice("01")) for _ in range(rng.randrange(1, 6))
        ]
        if any('"' in cell for cell, _ in rows):
            assert quoted_fields(written(rows, delimiter="\t", lineterminator="\n")) > 0, rows


# ---------------------------------------------------------------- no header


@pytest.mark.parametrize(
    "contents",
    [
        "A long day at sea\t1\nA short one\t0\n",
        "0\tbad plot\n1\tgood plot\n0\tno plot\n",
        "x\t1\ty\nz\t0\tw\nu\t1\tv\n",
    ],
)
def test_a_table_without_a_header_is_told_so_and_what_to_do_helps(put: Put, contents: str) -> None:
    with pytest.raises(
        BadData,
        match=r"films\.tsv seems to have no header: its first line is .* Put a line with the names of the columns "
        r"above it",
    ):
        read_dataset(put("films.tsv", contents))
    width = contents.split("\n")[0].count("\t")
    names = ["label", "text"] if contents[0] == "0" else ["text", "label", "other"][: width + 1]
    assert len(read_dataset(put("films.tsv", "\t".join(names) + "\n" + contents)).texts) == contents.count("\n")


# ---------------------------------------------------------------- encodings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["films.tsv", "films.csv", "films.jsonl", "films.json", "films.tsv.gz"])
def test_a_byte_order_mark_says_the_encoding(put: Put, name: str, encoding: str) -> None:
    rows = [{"text": text, "label": label} for text, label in ROWS]
    contents = {
        "films.tsv": written(ROWS, delimiter="\t", lineterminator="\r\n"),  # as Excel's "Unicode text", renamed
        "films.csv": written(ROWS),
        "films.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "films.json": json.dumps(rows, ensure_ascii=False, indent=1),
    }[name.removesuffix(".gz")].encode(encoding)
    assert texts_of(put(name, gzip.compress(contents) if name.endswith(".gz") else contents)) == TEXTS


@pytest.mark.parametrize(("name", "separator"), [("films.csv", ","), ("films.tsv", "\t")])
def test_saved_as_utf_8_as_it_is_told_a_table_in_windows_1252_is_read(put: Put, name: str, separator: str) -> None:
    contents = f"text{separator}label\nCafé crème{separator}1\nNaïve{separator}0\n"
    with pytest.raises(
        BadData, match=r"line 2 is not UTF-8\. It may be Windows-1252, .* 'Café crème.*Save it with the encoding UTF-8"
    ):
        read_dataset(put(name, contents.encode("windows-1252")))
    assert texts_of(put(name, contents.encode("windows-1252").decode("windows-1252"))) == ["Café crème", "Naïve"]


# ---------------------------------------------------------------- JSON

OBJECTS = [{"text": text, "label": label} for text, label in ROWS]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".json.gz"])
@pytest.mark.parametrize(
    "contents",
    [
        json.dumps(OBJECTS),
        json.dumps(OBJECTS, indent=2),
        "\n".join(map(json.dumps, OBJECTS)),
        "\n\n".join(map(json.dumps, OBJECTS)) + "\n",
        json.dumps({"version": "1.1", "data": OBJECTS}),
        json.dumps({"text": TEXTS, "label": [1, 0, 1, 0]}),
        pd.DataFrame(OBJECTS).to_json(),
    ],
    ids=["array", "indented array", "lines", "lines with blanks", "array under a key", "a list a column", "pandas"],
)
def test_json_is_read_in_each_of_its_shapes(put: Put, suffix: str, contents: str) -> None:
    data = contents.encode()
    dataset = read_dataset(put(f"films{suffix}", gzip.compress(data) if suffix.endswith(".gz") else data))
    assert [(t.text, t.label) for t in dataset.texts] == ROWS


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (
            '{"train": [{"text": "a", "label": 0}], "test": [{"text": "b", "label": 1}]}',
            r"the keys train, test.*Give one array of objects",
        ),
        ("{}", r"one JSON object with the keys \(none\)"),
        ("7", r"row 1 is no object"),
        ('[{"text": "a", "label": 0}, "b"]', r"row 2 is no object"),
        ('{"text": "a", "label": 0}\n{"text": "b", "label": }\n', r"line 2: Expecting value"),
        ("[" * 3000 + "]" * 3000, r"cannot be read as JSON: it is nested too deeply"),
        (
            '{"text": "half \\ud83d", "label": 0}\n{"text": "b", "label": 1}',
            r"the text of row 1 holds half a character",
        ),
    ],
)
def test_json_that_is_no_table_is_refused_with_the_reason(put: Put, contents: str, message: str) -> None:
    with pytest.raises(BadData, match=message):
        read_dataset(put("films.json", contents))


# ---------------------------------------------------------------- something else under the name of a table

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 1234567\n"


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        (
            "films.csv",
            POINTER,
            r"films\.csv is a pointer of Git LFS, not the file itself \(1\.23 MB\), no CSV\. Run `git lfs pull`",
        ),
        ("films.parquet", POINTER, r"films\.parquet is a pointer of Git LFS"),
        (
            "films.jsonl",
            "<!DOCTYPE html><html>",
            r"films\.jsonl is a web page \(HTML\), no JSONL\. Download the file itself",
        ),
        (
            "films.xlsx",
            b"PK\x03\x04" + 22 * b"\0" + b"\x13\0\0\0[Content_Types].xml",
            r"films\.xlsx is an Office document \(\.xlsx.*Save it as CSV in UTF-8",
        ),
        (
            "films.csv",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(8),
            r"films\.csv is an Office document of the old kind",
        ),
        (
            "films.csv",
            gzip.compress(b"text,label\n", mtime=0),
            r"films\.csv is a gzip archive, no CSV\. Name it films\.csv\.gz\.",
        ),
        ("films.tsv", json.dumps(OBJECTS), r"films\.tsv is a JSON array, no TSV\. Name it \.json\."),
        ("films.csv", b"PAR1" + bytes(20), r"films\.csv is a Parquet file, no CSV\. Name it \.parquet\."),
        (
            "films.txt",
            "text\tlabel\na\t0\n",
            r"films\.txt: unknown kind of file\. .* Name a table of text \.tsv or \.csv\.",
        ),
    ],
)
def test_the_first_bytes_say_what_it_is(put: Put, name: str, contents: str | bytes, message: str) -> None:
    with pytest.raises(BadData, match=message):
        read_dataset(put(name, contents))


def test_a_file_that_unpacks_to_more_than_the_limit_is_refused(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 1000)
    rows = "".join(f"words\t{i % 2}\n" for i in range(200))
    with pytest.raises(BadData, match=r"films\.tsv\.gz unpacks to more than 1 kB\. Give fewer texts"):
        read_dataset(put("films.tsv.gz", gzip.compress(f"text\tlabel\n{rows}".encode())))


def test_a_parquet_column_that_pandas_has_no_type_for_is_no_hindrance(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    far = pa.array([2**60, 2**61], pa.timestamp("us"))  # beyond the year 9999
    pq.write_table(pa.table({"text": ["a", "b"], "label": [0, 1], "made": far}), tmp_path / "films.parquet")
    assert texts_of(tmp_path / "films.parquet") == ["a", "b"]
