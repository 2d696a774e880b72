"""What the labels of a table mean: names before numbers, and a question where neither tells."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mbtsad_core.data.columns import Columns
from mbtsad_core.errors import BadConfig, BadData

UNLABELED = ("", "-1", "-", "?")  # how data sets write that a row has no label: GLUE and SNLI
FIRST_NUMBERS = (0, 1)


@dataclass(frozen=True, slots=True)
class Labels:
    """The class of each row by index, None for a row that is left out; the names of the classes; what should be known
    of them."""

    indices: tuple[int | None, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def label_key(name: str) -> str:
    """What counts of a class name: not its case, its spaces, how its letters are composed, what has no width, nor the
    .0 of a whole number."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    shown = " ".join("".join(c for c in folded if unicodedata.category(c) != "Cf").split())
    return re.sub(r"^([+-]?[0-9]+)\.0+$", r"\1", shown)


def nameless(labels: Sequence[str]) -> bool:
    """Whether classes have no names but their own numbers, such as transformers gives: LABEL_0, LABEL_1."""
    return all(label_key(label).removeprefix("label_") == str(i) for i, label in enumerate(labels))


def class_index(name: str, labels: Sequence[str]) -> int:
    """The class that a name or an index means. Raises BadData where there is none, or where two classes have that
    name."""
    found = [i for i, label in enumerate(labels) if label_key(label) == label_key(name)]
    shown = ", ".join(f"{i} = {label}" for i, label in enumerate(labels))
    if len(found) > 1:
        raise BadData(
            f"{len(found)} classes are called {name!r}. Name the one by its index ({shown}), or give each a name of "
            "its own with `labels`."
        )
    if found:
        return found[0]
    if re.fullmatch(r"[0-9]{1,9}", name.strip()) and int(name) < len(labels):
        return int(name)
    raise BadData(f"There is no class {name!r}. Name one of the model's, or its index: {shown}.")


def read_labels(
    raw: Sequence[str], columns: Columns, model: Sequence[str] | None, declared: Mapping[int, str], source: str
) -> Labels:
    """The classes of the rows.

    raw       the cells of the label column, stripped
    model     names of the classes in the model's order; None: integers keep their value, and names are numbered in
              alphabetical order
    declared  what the file itself calls the numbers in that column

    Raises BadData, which asks and names the flag that answers, where the labels could mean several things.
    """
    reader = _Reader(
        columns, Path(source).name, columns.label or "", tuple(model) if model is not None else None, declared
    )
    values, notes = reader.labeled(raw)
    present = sorted({value for value in values if value is not None})
    one_name = len({label_key(value) for value in present}) == 1
    meaning, names, more = ({present[0]: 0}, (), ()) if one_name else reader.meaning(present)
    if len(set(meaning.values())) == 1:
        raise BadData(
            f"{reader.name}: every text has the label {present[0]!r}. Expected texts of two classes or more; is "
            f"{reader.column!r} the right column?"
        )
    return Labels(tuple(None if value is None else meaning[value] for value in values), names, (*notes, *more))


@dataclass(frozen=True)
class _Reader:
    columns: Columns
    name: str  # of the file
    column: str
    model: tuple[str, ...] | None
    declared: Mapping[int, str]

    # ------------------------------------------------------------ rows without a label

    def labeled(self, raw: Sequence[str]) -> tuple[list[str | None], tuple[str, ...]]:
        """The labels, whole numbers as such; None for a row that has none and is left out."""
        known = {
            label_key(name)
            for name in (*(self.model or ()), *self.declared.values(), *(value for value, _ in self.mapping()))
        }
        # where no names are known, -1 or - may be a class as well as none
        signs = {
            sign
            for sign in (UNLABELED if self.model is not None or self.declared or self.columns.skip_unlabeled else ("",))
            if sign not in known or not sign
        }
        # Integers that a table with gaps turned into floats
        values = [re.sub(r"^([+-]?[0-9]+)\.0+$", r"\1", value) for value in raw]
        if not (empty := [i for i, value in enumerate(values) if value in signs]):
            return list(values), ()
        of = f"{len(empty)} of {len(values)} rows"
        found = Counter(values[i] for i in empty)
        written = ", ".join(f"{sign!r}" for sign in found if sign)
        if len(empty) == len(values):
            raise BadData(
                f"{self.name}: no row has a label in column {self.column!r}{f' ({written})' if written else ''}, as in "
                "the test sets of many data sets. Give a table or a split that has labels."
            )
        if self.columns.skip_unlabeled:
            what = "an empty cell" if not written else written + (" or an empty cell" if "" in found else "")
            return [None if value in signs else value for value in values], (
                f"{self.name}: {of} have no label ({what}) and were left out.",
            )
        way = "Leave them out with `skip_unlabeled`, remove them or fill them in."
        if not written:
            raise BadData(
                f"{self.name}: {of} have no label in column {self.column!r} (the first: row {empty[0] + 1}). {way}"
            )
        raise BadData(
            f"{self.name}: {of} have {written}{' or nothing' if '' in found else ''} in column {self.column!r} (the "
            f"first: row {empty[0] + 1}). In many data sets that stands for no label, and none of the model's classes "
            f"is called so: {', '.join(self.model or ())}. {way} If it is a class, say which: "
            f"`label_map`={written.split(', ')[0].strip(chr(39))}=CLASS,..., with all labels."
        )

    # ------------------------------------------------------------ what the labels mean

    def meaning(self, present: list[str]) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
        """The index of each label, the names of the classes, and what should be known."""
        if self.columns.label_map is not None:
            return self.by_map(present)
        numbers = all(re.fullmatch(r"[0-9]{1,18}", value) for value in present)
        if self.columns.labels_start_at is not None:
            return self.from_given_start(present, numbers)
        named = (
            {value: self.declared[int(value)] for value in present if int(value) in self.declared} if numbers else {}
        )
        if named and not nameless(tuple(self.declared.values())):
            return self.by_declared(present, named)
        if numbers and (self.model is None or nameless(self.model) or not self.are_names(present)):
            return self.by_number(present)
        return self.by_name(present)

    def are_names(self, values: Sequence[str]) -> bool:
        return {label_key(value) for value in values} <= {label_key(name) for name in self.model or ()}

    def by_map(self, present: list[str]) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
        """By `label_map`, whose left side are labels of the table."""
        if self.model is None:
            raise BadConfig(
                "`label_map` needs the classes of a model. Leave it out, or name the classes with `labels`."
            )
        given = {label_key(value): class_index(name, self.model) for value, name in self.mapping()}
        meaning = {}
        for value in present:
            keys = [label_key(value), *self.called(value)]
            if (key := next((key for key in keys if key in given), None)) is None:
                raise BadData(
                    f"{self.name}: label {value!r} in column {self.column!r} is not in `label_map` "
                    f"{self.columns.label_map}. Add it there."
                )
            meaning[value] = given[key]
        return meaning, self.model, ()

    def called(self, value: str) -> list[str]:
        """What else a label may be called in `label_map`: by the name that the file declares, or by the class that it
        would be taken for without."""
        model, number = self.model or (), int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None
        declared = [self.declared[number]] if number is not None and number in self.declared else []
        same = [i for i, name in enumerate(model) if label_key(name) in {label_key(n) for n in declared or [value]}]
        usual = same if same else [number] if number is not None and number < len(model) else []
        return [label_key(name) for name in (*declared, *(name for i in usual for name in (model[i], str(i))))]

    def mapping(self) -> list[tuple[str, str]]:
        if self.columns.label_map is None:
            return []
        pairs = [pair.rpartition("=") for pair in self.columns.label_map.split(",")]
        if not all(value.strip() and name.strip() for value, _, name in pairs):
            raise BadConfig(
                "`label_map`: expected LABEL=CLASS for each label, such as 1=negative,2=positive; got "
                f"{self.columns.label_map!r}."
            )
        return [(value.strip(), name.strip()) for value, _, name in pairs]

    def from_given_start(
        self, present: list[str], numbers: bool
    ) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
        """Numbers in the model's order, from where `labels_start_at` says."""
        start, classes = self.columns.labels_start_at or 0, self.model
        if not numbers:
            raise BadData(
                f"{self.name}: `labels_start_at` is for labels that are numbers; column {self.column!r} holds "
                f"{self.some(present)}. Leave it out."
            )
        low, high = min(map(int, present)), max(map(int, present))
        names = tuple(map(str, range(high - start + 1))) if classes is None else classes
        if low < start or high - start >= len(names):
            raise BadData(
                f"{self.name}: from {start}, labels {low} to {high} are out of range. {self.range()} Give texts of "
                "these classes, another `labels_start_at`, or say what each label means with `label_map`."
            )
        return {value: int(value) - start for value in present}, names, ()

    def by_declared(
        self, present: list[str], named: Mapping[str, str]
    ) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
        """Numbers that the file itself has names for: by these names."""
        if absent := [value for value in present if value not in named]:
            raise BadData(
                f"{self.name}: column {self.column!r} holds {absent[0]}, and the file has no name for it. It names "
                f"{self.numbered(self.declared)}."
            )
        if self.model is None:
            names = tuple(self.declared.get(i, str(i)) for i in range(max(self.declared) + 1))
            return {value: int(value) for value in present}, names, ()
        if nameless(self.model) and max(self.declared) < len(self.model):
            said = (
                f"the model does not name its classes, so class {self.numbered(self.declared)} as in the file. If "
                "not so: `labels`, with the model's order."
            )
            return {value: int(value) for value in present}, self.model, (f"{self.name}: {said}",)
        if nameless(self.model) or not self.are_names(list(named.values())):
            raise BadData(
                f"{self.name} calls its labels {self.numbered(self.declared)}; the model calls its classes "
                f"{self.classes()}. Which is which? If both go in the same order: `labels_start_at` 0. Else say it for "
                f"each label: `label_map` {self.example(list(named.values()))}"
            )
        meaning = {value: self.only(name) for value, name in named.items()}
        if any(index != int(value) for value, index in meaning.items()):
            said = (
                f"labels were matched by the names in the file ({self.numbered(self.declared)}); the model has "
                "them in another order."
            )
            return meaning, self.model, (f"{self.name}: {said}",)
        return meaning, self.model, ()

    def by_number(self, present: list[str]) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
        """Numbers that nothing has names for: indices from 0, unless something speaks against it."""
        low, high = min(map(int, present)), max(map(int, present))
        meaning = {value: int(value) for value in present}
        if self.model is None:
            if high >= max(1000, 10 * len(present)):
                raise BadData(
                    f"{self.name}: column {self.column!r} holds numbers up to {high}, not class indices. Name the "
                    "label column with `label_column`."
                )
            said = (
                f"{self.name}: no text has the label 0, so class 0 is empty; if the labels start at 1: "
                "`labels_start_at` 1."
            )
            return meaning, tuple(map(str, range(high + 1))), (said,) if low else ()
        if low >= 1 and high <= len(self.model):
            other = (
                "is there no text of class 0? Then: `labels_start_at` 0."
                if high < len(self.model)
                else "say what each label means with `label_map`."
            )
            raise BadData(
                f"{self.name}: the labels are {self.some(present)}, and none is 0; the model's classes are "
                f"{self.classes()}. Do the labels start at 1, so that 1 is {self.model[0]!r}? Then: `labels_start_at` "
                f"1. Or {other}"
            )
        if high >= len(self.model):
            raise BadData(
                f"{self.name}: label {high} is out of range. {self.range()} Give texts of these classes, or the model "
                "that goes with your labels, or say what each label means with `label_map`."
            )
        if all(re.fullmatch(r"[+-]?[0-9]+", label_key(name)) for name in self.model) and not nameless(self.model):
            raise BadData(
                f"{self.name}: the labels are {self.some(present)}, and the model calls its classes "
                f"{', '.join(self.model)}. If the labels are no names but count its classes from 0: `labels_start_at` "
                "0. Else say what each label means with `label_map`."
            )
        return meaning, self.model, ()

    def by_name(self, present: list[str]) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
        if self.model is None:
            first = {label_key(value): value for value in reversed(present)}
            if len(first) > 100:
                raise BadData(
                    f"{self.name}: column {self.column!r} has {len(first)} different values; that is no label column. "
                    "Name it with `label_column`."
                )
            names = tuple(sorted(first.values()))
            same = [value for value in present if first[label_key(value)] != value]
            notes = tuple(
                f"{self.name}: {value!r} was taken for the class {first[label_key(value)]!r}." for value in same
            )
            return {value: names.index(first[label_key(value)]) for value in present}, names, notes
        if self.are_names(present):
            return {value: self.only(value) for value in present}, self.model, ()
        if nameless(self.model):
            raise BadData(
                f"{self.name}: the labels are names ({self.some(present)}) and the model does not say which of its "
                f"{len(self.model)} classes each is. Give the names in the model's order with `labels`, for example "
                f"`labels` {','.join(present)}."
            )
        strange = next(value for value in present if not self.are_names([value]))
        raise BadData(
            f"{self.name}: label {strange!r} in column {self.column!r} is none of the model's: "
            f"{', '.join(self.model)}. Use these names, integers from 0, or say what each label means: `label_map` "
            f"{self.example(present)}"
        )

    # ------------------------------------------------------------ words

    def only(self, name: str) -> int:
        """The one class of the model that has this name."""
        model = self.model or ()
        found = [i for i, label in enumerate(model) if label_key(label) == label_key(name)]
        if len(found) > 1:
            raise BadData(
                f"{self.name}: label {name!r} is the name of {len(found)} classes of the model ({self.classes()}). "
                "Give each class a name of its own with `labels`, or say what each label means with `label_map`, by "
                "index."
            )
        return found[0]

    def range(self) -> str:
        model = self.model or ()
        return f"The model has {len(model)} classes, 0 to {len(model) - 1} ({', '.join(model)})."

    def classes(self) -> str:
        return self.numbered(dict(enumerate(self.model or ())))

    def example(self, present: Sequence[str]) -> str:
        """A `label_map` to be filled in."""
        filled = ",".join(f"{value}={value if self.are_names([value]) else 'CLASS'}" for value in present[:6])
        return f"{filled}{',...' if len(present) > 6 else ''}, where CLASS is one of: {', '.join(self.model or ())}."

    def some(self, present: Sequence[str]) -> str:
        return ", ".join(present[:5]) + (", ..." if len(present) > 5 else "")

    def numbered(self, names: Mapping[int, str]) -> str:
        shown = [f"{i} = {name}" for i, name in list(names.items())[:10]]
        return ", ".join(shown) + (", ..." if len(names) > 10 else "")
