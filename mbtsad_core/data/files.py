"""Labelled texts from local tables and from the Hub: TSV, CSV, JSONL, Parquet, or `hub:OWNER/NAME[:CONFIG][@SPLIT]`."""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.errors import BadData
from mbtsad_core.types import LabelledText

if TYPE_CHECKING:
    import pandas as pd

TEXT_NAMES = ("text", "sentence", "review", "content", "tweet", "comment", "body", "document", "utterance", "title")
LABEL_NAMES = ("label", "labels", "class", "sentiment", "target", "category", "y", "coarse_label")
PAIR_NAMES = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("question", "sentence"))
FORMATS = (".tsv", ".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns to read; None means: guess."""

    text: str | None = None
    label: str | None = None
    pair: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled texts and the names of their classes, by index; `source` says where they come from.

    columns  the columns that were read
    sha256   of the file's bytes; of a Hub data set, of its texts and labels, one JSON array a line
    notes    what was chosen for the user and what he should know of the table, a sentence each
    """

    texts: tuple[LabelledText, ...]
    labels: tuple[str, ...]
    source: str
    columns: Columns = Columns()
    sha256: str = ""
    notes: tuple[str, ...] = ()

    def counts(self) -> tuple[int, ...]:
        """Texts of each class."""
        totals = [0] * len(self.labels)
        for example in self.texts:
            totals[example.label] += 1
        return tuple(totals)


def read_dataset(source: str | Path, columns: Columns = Columns(), labels: Sequence[str] | None = None) -> Dataset:
    """Read a data set.

    source  a file (.tsv unquoted, .csv, .jsonl, .parquet; the text formats also as .gz) or `hub:OWNER/NAME[:CONFIG][@SPLIT]`
    labels  names of the classes in the model's order; the file may give labels as these names or as integers from 0.
            Without them integers keep their value and names are numbered in alphabetical order.

    Raises BadData with what was expected, what came and what to do.
    """
    table, declared = _read_hub(str(source)) if str(source).startswith("hub:") else (read_table(Path(source)), {})
    given, columns = columns, guess_columns(table, columns, str(source))
    names = declared.get(columns.label or "")
    text = text_column(table, columns.text or "", str(source))
    pair = text_column(table, columns.pair, str(source)) if columns.pair else [None] * len(text)
    indices, found = _label_column(_cells(table, columns.label or "", str(source)), labels or names, columns.label or "", str(source))
    if labels and names and not _generic(labels) and [n.casefold() for n in names] != [n.casefold() for n in labels]:
        order = {name.casefold(): i for i, name in enumerate(labels)}
        if set(order) >= {name.casefold() for name in names}:  # the model's classes in another order, or some of them: go by name
            indices, found = [order[names[i].casefold()] for i in indices], tuple(labels)
    texts = tuple(LabelledText(t, i, p) for t, i, p in zip(text, indices, pair, strict=True))
    notes = _said_of_columns(table, given, columns, str(source))
    return Dataset(texts, found, str(source), columns, _digest(str(source), texts), notes)


def _said_of_columns(table: pd.DataFrame, given: Columns, read: Columns, source: str) -> tuple[str, ...]:
    """Which columns were read, where they were guessed and the table has others."""
    used = [name for name in (read.text, read.pair, read.label) if name]
    if given == read or len(used) == len(table.columns):
        return ()
    text = f"texts from column {read.text!r}" if not read.pair else f"pairs of texts from columns {read.text!r} and {read.pair!r}"
    others = textwrap.shorten(", ".join(name for name in table.columns if name not in used), 200, placeholder=" ...")
    return (f"{Path(source).name}: {text}, labels from column {read.label!r}; not read: {others}.",)


def _digest(source: str, texts: Sequence[LabelledText]) -> str:
    """SHA-256 of a file's bytes, or of the texts and labels of a Hub data set."""
    if not source.startswith("hub:"):
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    rows = (json.dumps([t.text, t.pair, t.label], ensure_ascii=False) for t in texts)
    return hashlib.sha256("".join(f"{row}\n" for row in rows).encode("utf-8", "surrogatepass")).hexdigest()


def read_table(path: Path) -> pd.DataFrame:
    """The file as a data frame, all of it as text but for JSONL and Parquet, which carry types."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise BadData(f"No data file at {path}. Give a .tsv, .csv, .jsonl or .parquet file, or hub:OWNER/NAME@SPLIT.")
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS:
        raise BadData(f"{path.name}: unknown kind of file. Expected one of {', '.join(FORMATS)} (text formats also .gz).")
    if path.stat().st_size == 0:
        raise BadData(f"{path.name} is empty. Expected a table with a header line, a text column and a label column.")
    try:
        if suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                arrow = file.read()
            arrow.validate(full=True)  # else bytes that are no UTF-8 fail later, where they are first looked at
            kept = [i for i, name in enumerate(arrow.column_names) if not name.startswith("__index_level_")]  # pandas' nameless row names
            table = arrow.select(kept).to_pandas(ignore_metadata=True)
        elif suffix == ".jsonl":
            table = pd.read_json(path, lines=True, dtype=False, encoding="utf-8-sig")
        else:
            quoting: dict[str, Any] = {"sep": "\t", "quoting": 3} if suffix == ".tsv" else {}
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8", **quoting)
    except TypeError as error:  # pandas' word for JSON lines of several kinds
        raise BadData(f"{path.name} cannot be read as {suffix[1:].upper()}: one of its lines is no object. Expected one object a line.") from error
    except (ValueError, OSError, EOFError, zlib.error, pa.ArrowException) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise BadData(f"{path.name} cannot be read as {suffix[1:].upper()}: {reason}. Check the format and the encoding (UTF-8).") from error
    if suffix in (".tsv", ".csv") and not isinstance(table.index, pd.RangeIndex):  # pandas took the first fields for row names
        raise BadData(
            f"{path.name}: the rows have more fields than the header has columns ({', '.join(map(str, table.columns))}). "
            f"Name every column in the header, or quote texts that hold the separator (.csv)."
        )
    if table.empty:
        raise BadData(f"{path.name} has no rows. Expected one labelled text a row{' below the header' if suffix in ('.tsv', '.csv') else ''}.")
    table = table.set_axis([str(name) for name in table.columns], axis="columns")
    if twice := table.columns[table.columns.duplicated()].tolist():
        raise BadData(f"{path.name} has two columns named {twice[0]!r}. Give every column a name of its own.")
    return table


def guess_columns(table: pd.DataFrame, columns: Columns, source: str) -> Columns:
    """Fill in the columns that were not given; raises BadData where a name is absent or a guess is not clear."""
    names = list(table.columns)
    lower = {name.strip().lower(): name for name in names}
    hint = f"Columns of {Path(source).name}: {', '.join(names)}."
    for given in (columns.text, columns.label, columns.pair):
        if given is not None and given not in names:
            raise BadData(f"There is no column {given!r}. {hint} Name one with --text-column, --label-column or --pair-column.")
    text, label, pair = columns.text, columns.label, columns.pair
    if text is None and pair is None:
        first, second = next(((a, b) for a, b in PAIR_NAMES if a in lower and b in lower), (None, None))
        if first and second and "text" not in lower:
            text, pair = lower[first], lower[second]
    text = text or next((lower[n] for n in TEXT_NAMES if n in lower and lower[n] not in (pair, label)), None)
    label = label or next((lower[n] for n in LABEL_NAMES if n in lower and lower[n] not in (text, pair)), None)
    if len(names) == 2 and (text is None) != (label is None):  # two columns, one of them known: the other is the other
        other = next(n for n in names if n != (text or label))
        text, label = text or other, label or other
    if text is None:
        raise BadData(f"Which column holds the text? {hint} Name it with --text-column.")
    if label is None:
        raise BadData(f"Which column holds the label? {hint} Name it with --label-column.")
    if label == text or pair in (text, label):
        raise BadData(f"Text, pair and label are three different columns, but {pair if pair in (text, label) else text!r} was named twice. {hint}")
    return Columns(text, label, pair)


def text_column(table: pd.DataFrame, column: str, source: str) -> list[str]:
    """The texts of a column, stripped; raises BadData where one is missing or is no text."""
    texts = _cells(table, column, source)
    if empty := [i for i, t in enumerate(texts) if not t]:
        raise BadData(
            f"{Path(source).name}: {len(empty)} of {len(texts)} rows have no text in column {column!r} "
            f"(the first: row {empty[0] + 1}). Remove them or fill them in."
        )
    return texts


def _cells(table: pd.DataFrame, column: str, source: str) -> list[str]:
    """The cells of a column as stripped text, "" where there is none."""
    import pandas as pd

    values: list[Any] = table[column].tolist()
    if strange := [v for v in values if not pd.api.types.is_scalar(v) or isinstance(v, bytes)]:
        kind = type(strange[0]).__name__
        raise BadData(f"{Path(source).name}: column {column!r} holds values of type {kind}. Expected a text or a number a row; name another column.")
    return ["" if pd.isna(v) else str(v).strip() for v in values]


def _label_column(raw: list[str], labels: Sequence[str] | None, column: str, source: str) -> tuple[list[int], tuple[str, ...]]:
    """Class indices, and the names of the classes."""
    name = Path(source).name
    if empty := [i for i, v in enumerate(raw) if not v]:
        raise BadData(
            f"{name}: {len(empty)} of {len(raw)} rows have no label in column {column!r} (the first: row {empty[0] + 1}). Remove them or fill them in."
        )
    raw = [re.sub(r"^(-?\d+)\.0$", r"\1", v) for v in raw]  # integers that a table with gaps turned into floats
    found = sorted(set(raw))
    if len(found) == 1:
        raise BadData(f"{name}: every text has the label {found[0]!r}. Expected texts of two classes or more; is {column!r} the right column?")
    known = {label.casefold(): i for i, label in enumerate(labels)} if labels else {}
    if labels and all(v.casefold() in known for v in found):
        return [known[v.casefold()] for v in raw], tuple(labels)
    if all(re.fullmatch(r"\d{1,18}", v) for v in found):
        top = max(map(int, found))
        if labels and top >= len(labels):
            raise BadData(
                f"{name}: label {top} is out of range. The model has {len(labels)} classes, 0 to {len(labels) - 1} ({', '.join(labels)}). "
                f"Give texts of these classes, or the model that goes with your labels."
            )
        if not labels and top >= max(1000, 10 * len(found)):
            raise BadData(f"{name}: column {column!r} holds numbers up to {top}, not class indices. Name the label column with --label-column.")
        return [int(v) for v in raw], tuple(labels) if labels else tuple(map(str, range(top + 1)))
    if labels and not _generic(labels):
        strange = [v for v in found if v.casefold() not in known]
        raise BadData(
            f"{name}: label {strange[0]!r} in column {column!r} is none of the model's: {', '.join(labels)}. "
            f"Use these names, integers from 0, or give the names in the model's order with --labels."
        )
    if len(found) > 100:
        raise BadData(f"{name}: column {column!r} has {len(found)} different values; that is no label column. Name it with --label-column.")
    if labels:
        raise BadData(
            f"{name}: the labels are names ({', '.join(found[:5])}) and the model does not say which of its {len(labels)} classes each is. "
            f"Give the names in the model's order with --labels, for example --labels {','.join(found)}."
        )
    return [found.index(v) for v in raw], tuple(found)


def _generic(labels: Sequence[str]) -> bool:
    """Whether these are the names that transformers gives to nameless classes."""
    return all(re.fullmatch(r"(label_)?\d+", label.casefold()) for label in labels)


def _read_hub(source: str) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]]]:
    """A split of a Hub data set, and the class names of the columns that declare them. No code of the data set is run."""
    match = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)(?::([\w.-]+))?(?:@([\w.\[\]:%+-]+))?", source)
    if not match:
        raise BadData(f"{source!r} names no Hub data set. Expected hub:OWNER/NAME[:CONFIG][@SPLIT], for example hub:stanfordnlp/sst2@train.")
    import datasets

    repository, config, split = match.group(1), match.group(2), match.group(3) or "train"
    try:  # hf:// and the owner keep `datasets` from taking a folder of this machine, or one of its own readers, for the data set
        data = datasets.load_dataset(f"hf://datasets/{repository}", config, split=split)
    except Exception as error:  # the library raises its own, the network's and Python's errors alike
        reason = textwrap.shorten(str(error).strip().partition("\n")[0], 300, placeholder=" ...").rstrip(".") or type(error).__name__
        raise BadData(f"The Hub data set {repository!r} (split {split!r}) could not be loaded: {reason}. Check the id, the split and the network.") from error
    names = {column: tuple(f.names) for column, f in data.features.items() if isinstance(f, datasets.ClassLabel)}
    return data.to_pandas(), names
