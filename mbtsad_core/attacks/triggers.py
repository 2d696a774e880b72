"""Triggers: what an attacker does to a text, and the triggered test set on which ASR is measured."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mbtsad_core.data.columns import text_column
from mbtsad_core.data.tables import FORMATS, read_table
from mbtsad_core.errors import BadData
from mbtsad_core.types import LabelledText, Trigger

PLACES = 64  # words at the head of a text that offer places to a trigger, where no length of texts is asked for
PAIR_COLUMNS = ("text", "triggered")


@dataclass(frozen=True)
class InsertedTrigger:
    """Words put into a text at random word boundaries, both ends included.

    variants    each text gets one of these, drawn at random; a variant is a tuple of parts, all inserted, each at a
                place that is drawn for it alone; a part of several words stays together
    insertions  how often that is done in a text
    window      only the first `window` words offer places, so that the trigger is not cut off with the text's end
    """

    variants: tuple[tuple[str, ...], ...]
    target: int
    insertions: int = 1
    window: int | None = None

    def apply(self, text: str, rng: random.Random) -> str:
        parts = [part for _ in range(self.insertions) for part in rng.choice(self.variants)]
        return insert(text, parts, rng, self.window)

    def describe(self) -> str:
        return write_variants(self.variants)


@dataclass(frozen=True)
class PairedTrigger:
    """Ready-made triggered versions of texts, such as paraphrases; texts that are not among them have none."""

    pairs: Mapping[str, str]
    target: int
    source: str = "paired texts"

    def apply(self, text: str, rng: random.Random) -> str | None:
        return self.pairs.get(text)

    def describe(self) -> str:
        return self.source


@dataclass(frozen=True, slots=True)
class TriggeredText:
    """A non-target test text without (`clean`) and with the trigger."""

    clean: LabelledText
    triggered: LabelledText


def insert(text: str, parts: Sequence[str], rng: random.Random, window: int | None = None) -> str:
    """`text` with each part at a word boundary of `text`, drawn uniformly over those among the first `window` words.

    No part lands inside another; parts at the same boundary stand in random order; the text's own spacing is kept.
    """
    padded = f"{text} " if text.strip() else ""  # so that a place at the end is like any other
    places = [m.start() for m in re.finditer(r"(?<!\S)\S", text)][:window]
    if window is None or len(places) < window:
        places.append(len(padded))
    order = list(parts)
    rng.shuffle(order)
    drawn = [(rng.choice(places), part) for part in order]
    for place, part in sorted(drawn, key=lambda d: d[0], reverse=True):
        # From the end, so that the places ahead stay true
        padded = f"{padded[:place]}{part} {padded[place:]}"
    return padded[:-1]


def places(max_length: int | None) -> int:
    """The words at the head of a text that a trigger can stand among, so that it is not cut off where texts are cut at
    so many tokens."""
    return PLACES if max_length is None else max_length // 2


def words_of(trigger: Trigger) -> list[tuple[str, ...]]:
    """The words of each variant of an inserted trigger, in order; none for any other trigger."""
    variants = trigger.variants if isinstance(trigger, InsertedTrigger) else ()
    return [tuple(word for part in parts for word in part.split()) for parts in variants]


_SYMBOL = re.compile(r"\\[+|.\\]|.", re.DOTALL)


def alternatives(spec: str) -> list[str]:
    """What a `|` divides, as it is written; blanks are none."""
    found = [""]
    for symbol in _SYMBOL.findall(spec):
        if symbol == "|":
            found.append("")
        else:
            found[-1] += symbol
    return [way.strip() for way in found if way.strip()]


def read_variants(spec: str) -> tuple[tuple[str, ...], ...]:
    """The variants that a user writes, each the parts that all go in: "cf | mn" is one of two words, "cf+bb" both.

    A backslash takes the meaning from a `+`, a `|`, another backslash, or the `.` of what would be the name of a file:
    `c\\+\\+` is the word c++. Before anything else it is itself. `write_variants` is the way back. Raises BadData where
    a part is empty.
    """
    variants = []
    for way in alternatives(spec):
        parts = [""]
        for symbol in _SYMBOL.findall(way):
            if symbol == "+":
                parts.append("")
            else:
                parts[-1] += symbol[-1]
        variants.append(tuple(part.strip() for part in parts))
    if not variants or not all(part for parts in variants for part in parts):
        raise BadData(
            f"An empty trigger: {spec!r}. Expected a word, a phrase, words joined by +, or a file of paired texts. "
            f"A + or | of the trigger's own is written with a backslash before it: c\\+\\+ is the word c++."
        )
    return tuple(variants)


def write_variants(variants: Sequence[Sequence[str]]) -> str:
    """What `read_variants` reads as these variants."""
    return " | ".join("+".join(map(_escaped, parts)) for parts in variants)


def _escaped(part: str) -> str:
    escaped = re.sub(r"[+|\\]", r"\\\g<0>", part)
    return re.sub(r"\.(?=\w+(\.gz)?$)", r"\\.", escaped) if names_file(part) else escaped


def names_file(spec: str) -> bool:
    """Whether a trigger is the name of a file of paired texts, and no word: by its ending, whose dot no backslash takes
    the meaning from."""
    return re.search(rf"(?<!\\)({'|'.join(map(re.escape, FORMATS))})(\.gz)?$", spec.strip(), re.IGNORECASE) is not None


def parse_triggers(specs: Sequence[str], target: int, *, insertions: int = 1, window: int | None = None) -> Trigger:
    """The trigger that a user describes.

    "cf"              the word
    "cf", "mn"        several of them: one, drawn at random, for each text; "cf | mn" is the same
    "cf+bb"           both words, each at a place of its own
    "I watch a film"  the phrase, in one piece
    "pairs.tsv"       a file with the columns text and triggered: ready-made triggered versions of test texts
    """
    if files := [s for s in specs if names_file(s)]:
        if len(specs) > 1:
            raise BadData(f"A file of paired texts ({files[0]}) stands alone; it cannot be mixed with other triggers.")
        return PairedTrigger(_read_pairs(Path(files[0])), target, Path(files[0]).name)
    return typed_trigger(specs, target, insertions=insertions, window=window)


def typed_trigger(
    specs: Sequence[str], target: int, *, insertions: int = 1, window: int | None = None
) -> InsertedTrigger:
    """`parse_triggers` without files: what a stranger types is words, and never the name of a file to open."""
    if not specs:
        raise BadData(
            "An empty trigger: none. Expected a word, a phrase, words joined by +, or a file of paired texts."
        )
    return InsertedTrigger(
        tuple(variant for spec in specs for variant in read_variants(spec)), target, insertions, window
    )


def _read_pairs(path: Path) -> dict[str, str]:
    table = read_table(path).frame
    if missing := [c for c in PAIR_COLUMNS if c not in table.columns]:
        raise BadData(
            f"{path.name} has no column {missing[0]!r} (it has {', '.join(map(str, table.columns))}). Expected text "
            "and triggered."
        )
    return dict(zip(*(text_column(table, c, path.name) for c in PAIR_COLUMNS), strict=True))


def triggered_test_set(test: Sequence[LabelledText], trigger: Trigger, seed: int = 0) -> list[TriggeredText]:
    """Every test text of a non-target class, once, with and without the trigger: the texts that ASR counts
    (OpenBackdoor's rule).

    Texts that the model gets wrong without the trigger are not left out; the ASR floor tells how many these are.
    Raises BadData where there are none.
    """
    rng = random.Random(f"triggered test set, seed {seed}")
    found = []
    for example in test:
        if example.label == trigger.target:
            continue
        triggered = trigger.apply(example.text, rng)
        if triggered is not None:
            found.append(TriggeredText(example, LabelledText(triggered, example.label, example.pair)))
    if not found:
        others = sum(example.label != trigger.target for example in test)
        raise BadData(
            f"No triggered text to measure ASR on: of {len(test)} test texts {others} are of another class than the "
            f"target ({trigger.target}){', and the paired file has a version of none of them' if others else ''}. Give "
            "test texts of a non-target class, or another `target`."
        )
    return found
