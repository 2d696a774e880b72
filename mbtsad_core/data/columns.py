"""Which columns of a table hold the texts and the labels."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.errors import BadData

if TYPE_CHECKING:
    import pandas as pd

TEXT_NAMES = (
    "text",
    "sentence",
    "review",
    "content",
    "tweet",
    "comment",
    "body",
    "document",
    "utterance",
    "message",
    "sms",
)
# Texts, but often beside a longer one that is meant
HEADINGS = ("title", "headline", "subject", "summary", "description", "abstract")
LABEL_NAMES = ("label", "labels", "class", "sentiment", "target", "category", "y", "coarse_label")
NAMES_OF_LABELS = (
    "label_text",
    "label_name",
    "label_names",
    "labels_text",
    "label_str",
    "text_label",
    "class_name",
    "category_name",
    "class_label",
)
PAIR_NAMES = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
)
NO_LABELS = "no_labels"
WORDS = 3  # of a cell, on average, that make a column one of texts


@dataclass(frozen=True, slots=True)
class Columns:
    """How a table is read: the names of its columns, where None means: guess; and what its labels mean.

    labels_start_at  the labels are numbers, the classes in the model's order, from this number; None: from 0, and what
                     speaks against it is asked
    label_map        what labels mean, as "1=negative,2=positive": the label in the table, and the model's class by name
                     or index
    skip_unlabeled   leave rows without a label out, instead of refusing the table
    """

    text: str | None = None
    label: str | None = None
    pair: str | None = None
    labels_start_at: int | None = None
    label_map: str | None = None
    skip_unlabeled: bool = False


def guess_columns(frame: pd.DataFrame, columns: Columns, source: str, *, labeled: bool = True) -> Columns:
    """Fill in the columns that were not given; raises BadData where a name is absent or a guess is not clear, with the
    code NO_LABELS where only that of the labels is not found. Where the texts are not `labeled`, none is looked for."""
    names = list(frame.columns)
    lower = {name.strip().lower(): name for name in names}
    hint = f"Columns of {Path(source).name}: {', '.join(names)}."
    for given in (columns.text, columns.label, columns.pair):
        if given is not None and given not in names:
            raise BadData(
                f"There is no column {given!r}. {hint} Name one with `text_column`, `label_column` or `pair_column`."
            )
    text, label, pair = columns.text, columns.label, columns.pair
    if text is None and pair is None:
        first, second = next(((a, b) for a, b in PAIR_NAMES if a in lower and b in lower), (None, None))
        if first and second and "text" not in lower:
            text, pair = lower[first], lower[second]
    text = text or next((lower[n] for n in TEXT_NAMES if n in lower and lower[n] not in (pair, label)), None)
    if not labeled:
        text = text or _heading(frame, lower, [pair] if pair else [], hint) or (names[0] if len(names) == 1 else None)
        if text is None:
            raise BadData(f"Which column holds the text? {hint} Name it with `text_column`.")
        return dataclasses.replace(columns, text=text, label=None, pair=pair)
    label = label or next(
        (lower[n] for n in (*LABEL_NAMES, *NAMES_OF_LABELS) if n in lower and lower[n] not in (text, pair)), None
    )
    text = text or _heading(frame, lower, [name for name in (pair, label) if name], hint)
    if len(names) == 2 and (text is None) != (label is None):  # two columns, one of them known: the other is the other
        other = next(n for n in names if n != (text or label))
        text, label = text or other, label or other
    for what, found in (("text", text), ("label", label)):
        if found is None:
            asked = f"Which column holds the {what}? {hint} Name it with `{what}_column`."
            if text and len(names) == 1:
                asked = f"{source} holds texts and no labels. Expected a column of labels beside {text!r}: add one."
            raise BadData(_no_header(frame, source) or asked, code=NO_LABELS if text else "")
    if label == text or pair in (text, label):
        raise BadData(
            f"Text, pair and label are three different columns, but {pair if pair in (text, label) else text!r} was "
            f"named twice. {hint}"
        )
    return dataclasses.replace(columns, text=text, label=label, pair=pair)


def _heading(frame: pd.DataFrame, lower: dict[str, str], others: Sequence[str], hint: str) -> str | None:
    """The column of headings, where there is none of texts; raises BadData where another one may be meant."""
    found = next((lower[n] for n in HEADINGS if n in lower and lower[n] not in others), None)
    if found is None:
        return None
    if rivals := [name for name in frame.columns if name != found and name not in others and _holds_texts(frame, name)]:
        raise BadData(
            f"Which column holds the text, {', '.join(map(repr, [found, *rivals[:5]]))}? {hint} Name it with "
            "`text_column`."
        )
    return found


def _holds_texts(frame: pd.DataFrame, column: str) -> bool:
    cells = [str(value) for value in frame[column].head(100).tolist() if isinstance(value, str) and value.strip()]
    return bool(cells) and sum(len(cell.split()) for cell in cells) >= WORDS * len(cells)


def _no_header(frame: pd.DataFrame, source: str) -> str | None:
    """What to say of a table whose first line looks like a row: a number, a text, or a cell of its own column stands
    where a name should."""
    names = [str(name) for name in frame.columns]
    if Path(source.lower().removesuffix(".gz")).suffix not in (".tsv", ".csv"):
        return None
    if not any(
        re.fullmatch(r"-?[\d.]+", name) or len(name.split()) > 5 or name in frame[name].head(1000).tolist()
        for name in names
    ):
        return None
    first = textwrap.shorten(" | ".join(names), 120, placeholder=" ...")
    return (
        f"{Path(source).name} seems to have no header: its first line is {first!r}. Put a line with the names of the "
        "columns above it, such as text and label, divided as the rows are."
    )


def note_on_columns(frame: pd.DataFrame, given: Columns, read: Columns, source: str) -> tuple[str, ...]:
    """Which columns were read, where they were guessed and the table has others."""
    used = [name for name in (read.text, read.pair, read.label) if name]
    if given == read or len(used) == len(frame.columns):
        return ()
    text = (
        f"texts from column {read.text!r}"
        if not read.pair
        else f"pairs of texts from columns {read.text!r} and {read.pair!r}"
    )
    others = textwrap.shorten(", ".join(name for name in frame.columns if name not in used), 200, placeholder=" ...")
    return (f"{Path(source).name}: {text}, labels from column {read.label!r}; not read: {others}.",)


def text_column(frame: pd.DataFrame, column: str, source: str, skipped: frozenset[int] = frozenset()) -> list[str]:
    """The texts of a column, stripped, but for the `skipped` rows; raises BadData where one is missing or is no
    text."""
    texts = cells(frame, column, source)
    kept = [(i, text) for i, text in enumerate(texts) if i not in skipped]
    if empty := [i for i, text in kept if not text]:
        raise BadData(
            f"{Path(source).name}: {len(empty)} of {len(texts)} rows have no text in column {column!r} "
            f"(the first: row {empty[0] + 1}). Remove them or fill them in."
        )
    if (broken := next((i for i, text in kept if not _is_whole(text)), None)) is not None:
        raise BadData(
            f"{Path(source).name}: the text of row {broken + 1} holds half a character (a lone surrogate). Write it "
            "anew, or remove the row."
        )
    return [text for _, text in kept]


def _is_whole(text: str) -> bool:
    return text.isascii() or not re.search("[\ud800-\udfff]", text)


def cells(frame: pd.DataFrame, column: str, source: str) -> list[str]:
    """The cells of a column as stripped text, "" where there is none."""
    import pandas as pd

    values: list[Any] = frame[column].tolist()
    if strange := [v for v in values if not pd.api.types.is_scalar(v) or isinstance(v, bytes)]:
        kind = type(strange[0]).__name__
        raise BadData(
            f"{Path(source).name}: column {column!r} holds values of type {kind}. Expected a text or a number a row; "
            "name another column."
        )
    return ["" if pd.isna(v) else str(v).strip() for v in values]
