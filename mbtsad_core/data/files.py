"""Labeled texts from local tables and from the Hub: TSV, CSV, JSON, JSON lines, Parquet, or
`hub:OWNER/NAME[:CONFIG][@SPLIT]`."""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mbtsad_core.data.columns import NAMES_OF_LABELS, Columns, cells, guess_columns, note_on_columns, text_column
from mbtsad_core.data.labels import UNLABELED, label_key, read_labels
from mbtsad_core.data.tables import Table, numbered, read_table
from mbtsad_core.errors import BadData
from mbtsad_core.sources import Source
from mbtsad_core.types import LabelledText


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labeled texts and the names of their classes, by index; `source` says where they come from.

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


def read_dataset(
    source: str | Path,
    columns: Columns = Columns(),
    labels: Sequence[str] | None = None,
    declared: Mapping[int, str] | None = None,
) -> Dataset:
    """Read a data set.

    source    a file (.tsv, .csv, .json, .jsonl, .parquet; the text formats also as .gz) or
              `hub:OWNER/NAME[:CONFIG][@SPLIT]`
    labels    names of the classes in the model's order; the file may give labels as these names or as integers from 0.
              Without them integers keep their value and names are numbered in alphabetical order.
    declared  what the numbers in the label column are called, where that is known and the file does not say it

    Raises BadData with what was expected, what came and what to do.
    """
    place = Source(source)
    table = _read_hub(place) if place.is_hub else read_table(Path(source))
    frame, read = table.frame, guess_columns(table.frame, columns, place)
    raw = cells(frame, read.label or "", place)
    names, notes = _declared(table, read, raw, place)
    found = read_labels(raw, read, labels, declared or names, place)
    skipped = frozenset(i for i, label in enumerate(found.indices) if label is None)
    text = text_column(frame, read.text or "", place, skipped)
    pair = text_column(frame, read.pair, place, skipped) if read.pair else [None] * len(text)
    indices = [label for label in found.indices if label is not None]
    texts = tuple(LabelledText(t, i, p) for t, i, p in zip(text, indices, pair, strict=True))
    told = (*table.notes, *note_on_columns(frame, columns, read, place), *notes, *found.notes)
    return Dataset(texts, found.names, place, read, _digest(place, texts), told)


def read_unlabeled(source: str | Path, columns: Columns = Columns()) -> Dataset:
    """The texts of a data set whose labels are not there, or are not to be read: each stands under class 0, and no
    class has a name. Raises as `read_dataset` does."""
    place = Source(source)
    table = _read_hub(place) if place.is_hub else read_table(Path(source))
    read = guess_columns(table.frame, columns, place, labeled=False)
    text = text_column(table.frame, read.text or "", place)
    pair = text_column(table.frame, read.pair, place) if read.pair else [None] * len(text)
    texts = tuple(LabelledText(t, 0, p) for t, p in zip(text, pair, strict=True))
    return Dataset(texts, (), place, read, _digest(place, texts), table.notes)


def _declared(
    table: Table, read: Columns, raw: Sequence[str], source: str
) -> tuple[Mapping[int, str], tuple[str, ...]]:
    """What the file itself calls the numbers in its label column: in its metadata, or in a second column such as
    label_text."""
    column = read.label or ""
    if column in table.classes:
        return table.classes[column], ()
    suffixed = {f"{column.strip().lower()}_{suffix}" for suffix in ("text", "name", "names", "str")}
    taken = (column, read.text, read.pair)
    beside = next(
        (n for n in table.frame.columns if n not in taken and n.strip().lower() in {*NAMES_OF_LABELS, *suffixed}), None
    )
    if beside is None:
        return {}, ()
    names: dict[int, str] = {}
    for value, name in zip(raw, cells(table.frame, beside, source), strict=True):
        if value in UNLABELED:
            continue
        if not re.fullmatch(r"[0-9]{1,9}(\.0+)?", value):
            return {}, ()  # the labels are names themselves
        number = int(float(value))
        if not name or label_key(names.setdefault(number, name)) != label_key(name):
            return {}, (_not_one_to_one(source, beside, column),)
    if len({label_key(name) for name in names.values()}) < len(names):
        return {}, (_not_one_to_one(source, beside, column),)
    return dict(sorted(names.items())), ()


def _not_one_to_one(source: str, beside: str, column: str) -> str:
    return f"{Path(source).name}: column {beside!r} does not go one to one with {column!r}, so its names were not used."


def _digest(source: Source, texts: Sequence[LabelledText]) -> str:
    """SHA-256 of a file's bytes, or of the texts and labels of a Hub data set."""
    if not source.is_hub:
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    rows = (json.dumps([t.text, t.pair, t.label], ensure_ascii=False) for t in texts)
    return hashlib.sha256("".join(f"{row}\n" for row in rows).encode("utf-8", "surrogatepass")).hexdigest()


def _read_hub(source: str) -> Table:
    """A split of a Hub data set, and the class names of the columns that declare them. No code of the data set is
    run."""
    match = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)(?::([\w.-]+))?(?:@([\w.\[\]:%+-]+))?", source)
    if not match:
        raise BadData(
            f"{source!r} names no Hub data set. Expected hub:OWNER/NAME[:CONFIG][@SPLIT], for example "
            "hub:stanfordnlp/sst2@train."
        )
    import datasets

    repository, config, split = match.group(1), match.group(2), match.group(3) or "train"
    # Hf:// and the owner keep `datasets` from taking a folder of this machine, or one of its own readers, for the data
    # set
    try:
        data = datasets.load_dataset(f"hf://datasets/{repository}", config, split=split)
    except Exception as error:  # the library raises its own, the network's and Python's errors alike
        reason = (
            textwrap.shorten(str(error).strip().partition("\n")[0], 300, placeholder=" ...").rstrip(".")
            or type(error).__name__
        )
        raise BadData(
            f"The Hub data set {repository!r} (split {split!r}) could not be loaded: {reason}. Check the id, the "
            "split and the network."
        ) from error
    return Table(
        data.to_pandas(),
        {column: numbered(f.names) for column, f in data.features.items() if isinstance(f, datasets.ClassLabel)},
    )
