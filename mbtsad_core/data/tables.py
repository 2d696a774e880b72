"""A table from a local file: TSV, CSV, JSON, JSON lines or Parquet, as the programs write them that people use."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.errors import BadData
from mbtsad_core.vetting.first_bytes import HEAD, content_of, in_bytes

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMATS = (".tsv", ".csv", ".jsonl", ".json", ".parquet")
SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}
LARGEST = 2**32  # bytes that a file may unpack to
LOOKED_AT = 100  # rows, to find the separator
MARKS = (  # byte order marks, the longer ones first
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns.

    classes  names of the classes that the file itself declares for the numbers of a column, by column and number
    notes    what was found out of the file and should be known, a sentence each
    """

    frame: pd.DataFrame
    classes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_table(path: Path) -> Table:
    """The file as a table: all of it as text but for JSON and Parquet, which carry types. Raises BadData."""
    import pandas as pd
    import pyarrow as pa

    if not path.is_file():
        raise BadData(
            f"No data file at {path}{', which is a folder' if path.is_dir() else ''}. Give a .tsv, .csv, .jsonl, "
            ".json or .parquet file, or hub:OWNER/NAME@SPLIT."
        )
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    kind = suffix[1:].upper() or "A TABLE"
    try:
        head = _bytes_of(path, HEAD)
        _look_at(path.name, suffix, head)
        if not head:
            raise BadData(
                f"{path.name} is empty. Expected a table with a header line, a text column and a label column."
            )
        table = (
            _parquet(path)
            if suffix == ".parquet"
            else _text_table(path.name, suffix, decoded(path.name, kind, _bytes_of(path)))
        )
    except (
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
        OSError,
        EOFError,
        zlib.error,
        pa.ArrowException,
    ) as error:
        raise BadData(
            f"{path.name} cannot be read as {kind}: {_reason(error)}. Check the format and the encoding (UTF-8)."
        ) from error
    frame = table.frame
    if suffix in (".tsv", ".csv") and not isinstance(frame.index, pd.RangeIndex):
        # Pandas took the first fields for row names
        raise BadData(
            f"{path.name}: the rows have more fields than the header has columns "
            f"({', '.join(map(str, frame.columns))}). Name every column in the header, or quote texts that hold the "
            "separator (.csv)."
        )
    if frame.empty:
        raise BadData(
            f"{path.name} has no rows. Expected one labeled text a "
            f"row{' below the header' if suffix in ('.tsv', '.csv') else ''}."
        )
    frame = frame.set_axis([str(name) for name in frame.columns], axis="columns")
    if twice := frame.columns[frame.columns.duplicated()].tolist():
        raise BadData(f"{path.name} has two columns named {twice[0]!r}. Give every column a name of its own.")
    return Table(frame, table.classes, table.notes)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _bytes_of(path: Path, most: int | None = None) -> bytes:
    """What is in a file, or its first bytes; unpacked where it is called .gz."""
    packed = path.name.lower().endswith(".gz")
    with gzip.open(path) if packed else open(path, "rb") as file:
        data = file.read(most if most is not None else LARGEST + 1 if packed else -1)
    if len(data) > LARGEST and packed:
        raise BadData(f"{path.name} unpacks to more than {in_bytes(LARGEST)}. Give fewer texts.")
    return data


def _look_at(name: str, suffix: str, head: bytes) -> None:
    """Raise BadData where the name or the first bytes are those of something else than a table."""
    found = content_of(head)
    expected = {".parquet": ("parquet",), ".json": ("array", "utf-16"), ".jsonl": ("array", "utf-16")}.get(
        suffix, ("utf-16",)
    )
    if found is not None and found.kind not in expected:
        own_names = {
            "array": "Name it .json.",
            "parquet": "Name it .parquet.",
            "gzip": found.remedy if name.lower().endswith(".gz") else f"Name it {name}.gz.",
        }
        no = f", no {suffix[1:].upper()}" if suffix in FORMATS else ""
        raise BadData(f"{name} is {found.what}{no}. {own_names.get(found.kind, found.remedy)}".rstrip())
    if suffix not in FORMATS:
        by_name = " Name a table of text .tsv or .csv." if suffix in (".txt", ".tab", ".dat", "") else ""
        raise BadData(
            f"{name}: unknown kind of file. Expected one of {', '.join(FORMATS)} (text formats also .gz).{by_name}"
        )


# ---------------------------------------------------------------- text


def decoded(name: str, kind: str, data: bytes) -> str:
    """The text of a file: UTF-8, or what its byte order mark says. Raises BadData, which names the encoding that it
    could be."""
    encoding = next((encoding for mark, encoding in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding not in ("utf-8", "utf-8-sig"):
            raise BadData(
                f"{name} cannot be read as {kind}: its first bytes say {encoding.upper()}, and it is not. Save it as "
                "UTF-8."
            ) from error
        raise BadData(_not_utf8(name, kind, data, error.start)) from error
    if "\0" in text:
        raise BadData(
            f"{name} cannot be read as {kind}: it holds NUL characters. If it is UTF-16 without a byte order mark, "
            "save it as UTF-8."
        )
    return text


def _not_utf8(name: str, kind: str, data: bytes, at: int) -> str:
    """What to say of bytes that are no UTF-8 at `at`."""
    line = data.count(b"\n", 0, at) + 1
    said = f"{name} cannot be read as {kind}: line {line} is not UTF-8"
    before, after = data[:at].split(b"\n")[-1][-20:], data[at : at + 20].split(b"\n")[0].rstrip(b"\r")
    try:
        data.decode("windows-1252")
    except UnicodeDecodeError:
        return f"{said}. Save it with the encoding UTF-8."
    glimpse = before.decode("utf-8", "ignore") + after.decode("windows-1252")
    return (
        f"{said}. It may be Windows-1252, as Excel's plain CSV is: that line would then read {glimpse!r}. "
        f"Save it with the encoding UTF-8 (in Excel: CSV UTF-8), or: iconv -f WINDOWS-1252 -t UTF-8 {name} > "
        f"utf8-{name}"
    )


# ---------------------------------------------------------------- fields between separators


def _text_table(name: str, suffix: str, text: str) -> Table:
    return (
        _delimited(name, suffix, text) if suffix in (".tsv", ".csv") else Table(_json(name, suffix[1:].upper(), text))
    )


def _delimited(name: str, suffix: str, text: str) -> Table:
    """A table whose first line names the columns. Fields may be quoted as in CSV; in a .tsv, where the whole file
    is."""
    import pandas as pd

    notes = []
    first = text[: text.find("\n") + 1] or text
    if told := re.fullmatch(r'"?sep=([\t !#-~])"?\r?\n?', first, re.IGNORECASE):  # Excel's own first line
        text, separator = text[len(first) :], told[1]
    else:
        separator = _separator(text, "\t" if suffix == ".tsv" else ",")
    if SEPARATORS.get(separator) != {".tsv": "tabs", ".csv": "commas"}[suffix]:
        notes.append(f"{name}: {SEPARATORS.get(separator, repr(separator))} divide the columns.")
    quoted = suffix == ".csv" or separator != "\t"
    if not quoted and (count := quoted_fields(text)):
        quoted = True
        fields = "1 field stands" if count == 1 else f"{count} fields stand"
        notes.append(f"{name} is quoted as CSV is: {fields} in quotes, which are not part of the text.")
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    return Table(
        pd.read_csv(_lines(text), dtype=str, keep_default_na=False, sep=separator, quoting=quoting), notes=tuple(notes)
    )


def _separator(text: str, own: str) -> str:
    """What divides the columns: the format's own separator, or that other one by which the header and the rows have
    several fields, as many each."""
    header = next((line for line in _lines(text) if line.strip()), "")
    candidates = [s for s in (own, *(s for s in SEPARATORS if s != own)) if s in header]
    if not candidates or candidates == [own]:
        return own
    even = [s for s in candidates if _is_even(text, s)]
    if own in candidates and (own in even or not even):
        return own
    return (even or candidates)[0]


def _lines(text: str) -> io.StringIO:
    return io.StringIO(text, newline="")


def _is_even(text: str, separator: str) -> bool:
    """Whether the first rows have as many fields as the header, and two at least."""
    try:
        widths = {len(row) for row in islice(csv.reader(_lines(text), delimiter=separator), LOOKED_AT) if row}
    except csv.Error:
        return False
    return len(widths) == 1 and widths.pop() > 1


_FIELD = re.compile(r'("(?:[^"]++|"")*+"|[^"\t\r\n]*+)(\t|\r\n|\r|\n|\Z)')


def quoted_fields(text: str) -> int:
    """How many fields of a file divided by tabs stand in quotes by the rules of CSV; 0 where the file does not keep to
    these rules.

    Many a corpus has quotes that are part of its texts, and no rules for them: `"Bold," said my aunt`, `"art`. A file
    counts as quoted only where every quote in it fits the rules and something shows that they are meant: a quoted field
    that had to be (it holds a doubled quote, a tab or a line break), a header in quotes, or quotes around just those
    fields that hold a comma, as Excel writes them.
    """
    if '"' not in text:
        return 0
    quoted: list[str] = []
    bare: list[str] = []
    in_header, header_quoted, at, width, widths = True, True, 0, 0, set[int]()
    while at < len(text):
        match = _FIELD.match(text, at)
        if match is None:
            return 0
        cell, end = match.groups()
        (quoted if cell.startswith('"') else bare).append(cell)
        width += 1
        if in_header:
            header_quoted = header_quoted and cell.startswith('"')
        if end != "\t":
            in_header = in_header and not cell and width == 1  # blank lines ahead of it
            if cell or width > 1:
                widths.add(width)
            width = 0
        at = match.end()
    insides = [cell[1:-1] for cell in quoted]
    if len(widths) != 1 or (any(re.search(r"[\r\n]", inside) for inside in insides) and _raw_is_even(text)):
        return 0
    had_to = any(re.search(r'["\t\r\n]', inside) for inside in insides)
    as_excel = all("," in inside or '"' in inside for inside in insides) and not any("," in cell for cell in bare)
    return len(quoted) if had_to or header_quoted or as_excel else 0


def _raw_is_even(text: str) -> bool:
    """Whether every line has as many tabs: then none of its line breaks stands within a field."""
    tabs = (line.count("\t") for line in _lines(text) if line.strip("\r\n"))
    return all(a == b for a, b in pairwise(tabs))


# ---------------------------------------------------------------- JSON


def _json(name: str, kind: str, text: str) -> pd.DataFrame:
    """Objects a line, one array of them, or one object that holds such an array or a list a column."""
    import pandas as pd

    decoder, start = json.JSONDecoder(), len(text) - len(text.lstrip())
    if start == len(text):
        return pd.DataFrame()
    first, end = decoder.raw_decode(text, start)
    if text[end:].strip():
        rows = _json_lines(text)
    elif isinstance(first, list):
        rows = first
    elif isinstance(first, dict):
        return _frame_of_object(name, first)
    else:
        rows = [first]
    strange = next((i for i, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if strange and not all(isinstance(row, list) for row in rows):
        raise BadData(
            f'{name} cannot be read as {kind}: row {strange} is no object. Expected objects such as {{"text": ..., '
            f'"label": ...}}.'
        )
    return pd.DataFrame(rows, dtype=object)


def _json_lines(text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(_lines(text), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return rows


def _frame_of_object(name: str, value: dict[str, Any]) -> pd.DataFrame:
    """The rows that a single object holds."""
    import pandas as pd

    lists = {
        key: rows
        for key, rows in value.items()
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)
    }
    if len(lists) == 1:  # {"data": [{...}, ...]}
        return pd.DataFrame(next(iter(lists.values())), dtype=object)
    if value and not lists and all(isinstance(column, list) for column in value.values()):  # a list a column
        return pd.DataFrame(value, dtype=object)
    if value and all(isinstance(column, dict) for column in value.values()):  # as pandas writes it
        return pd.DataFrame({key: pd.Series(column, dtype=object) for key, column in value.items()}).reset_index(
            drop=True
        )
    if value and not any(isinstance(cell, (list, dict)) for cell in value.values()):
        return pd.DataFrame([value], dtype=object)
    raise BadData(
        f"{name} is one JSON object with the keys {', '.join(map(str, list(value)[:8])) or '(none)'}, and which of "
        "them holds the rows is not plain. Give one array of objects, or one object a line."
    )


# ---------------------------------------------------------------- Parquet


def _parquet(path: Path) -> Table:
    """A Parquet file, with the class names that `datasets` writes into it."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        arrow = file.read()
    arrow.validate(full=True)  # else bytes that are no UTF-8 fail later, where they are first looked at
    # Pandas' nameless row names
    kept = [i for i, name in enumerate(arrow.column_names) if not name.startswith("__index_level_")]
    return Table(arrow.select(kept).to_pandas(ignore_metadata=True), _declared(arrow.schema))


def _declared(schema: pa.Schema) -> dict[str, dict[int, str]]:
    """The names in the metadata that `datasets` writes: {"info": {"features": {"label": {"names": [...], "_type":
    "ClassLabel"}}}}."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        columns = {
            name: feature["names"]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # not the metadata of `datasets`
    return {
        column: numbered(names)
        for column, names in columns.items()
        if isinstance(names, list) and all(isinstance(name, str) for name in names)
    }


def numbered(names: Sequence[str]) -> dict[int, str]:
    return dict(enumerate(names))
