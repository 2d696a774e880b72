"""The values that the layers hand to each other: no behavior, no heavy imports."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from mbtsad_core.models.classifier import Classifier

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text, or a pair of texts, and the index of its class. No poison flag: a defense cannot peek."""

    text: str
    label: int
    pair: str | None = None


class Trigger(Protocol):
    """Attacker's knowledge: what sends a text to `target`. Reaches attacks and evaluation only."""

    @property
    def target(self) -> int: ...

    def apply(self, text: str, rng: random.Random) -> str | None:
        """The triggered text; None where this trigger has no version of the text."""
        ...

    def describe(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Event:
    """Progress of long work: `step` of `total` in `stage` is done. JSON-safe."""

    stage: str
    step: int
    total: int
    metrics: dict[str, float] = field(default_factory=dict)


RESET = "reset"  # the stage of the event after the trigger scan, with what is left of ASR once embeddings are reset
FOUND_PREFIX = "found/"  # before a token in that event's metrics: what the scan found, in nats
AT_PREFIX = {"start": "found_at_start/", "end": "found_at_end/"}  # likewise, of a token that works there alone
NAMED = "named"  # the stage of the event after the scan for sequences, where it found any; its metrics are theirs alone


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a user is to know of his run: a sentence, and a code that programs go by.

    code  model, table: of the suspect, of a data set; held_out, shared, no_trigger, labels: of what is measured on;
          splits, length: of what the model reads; processes, memory, precision, threads: of how it was
          trained
    quoted  a text of the data that the sentence ends with, and that goes nowhere else than the sentence
    """

    code: str
    text: str
    quoted: str | None = None

    def __str__(self) -> str:
        return self.text if self.quoted is None else f"{self.text}; the first: {self.quoted!r}."


Steps = Generator[Event, None, T]
"""Long work: yields progress, returns its result."""

Observe = Callable[["Classifier"], dict[str, float]]
"""A read-only look at a classifier in training; its result cannot reach the training."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`hits` of `n`, with its Wilson 95 % interval; shares in [0, 1]."""

    hits: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.hits / self.n


@dataclass(frozen=True, slots=True)
class Scores:
    """What a classifier does on a test set, and on the triggered texts of its non-target classes.

    cacc      share of clean test texts answered right
    asr       share of triggered non-target texts that go to the target; None without a trigger
    asr_floor share of the same texts that go there without the trigger
    confusion confusion[true][predicted], counts on the clean test set
    """

    cacc: Rate
    asr: Rate | None
    asr_floor: Rate | None
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """What a classifier computes on a batch of B texts of T tokens, with L layers, H heads and width D.

    attention holds the softmaxed maps; mask is 1 at real tokens and 0 at padding.
    """

    logits: Tensor  # (B, C)
    hidden: tuple[Tensor, ...]  # L+1 x (B, T, D), the embedding output first
    attention: tuple[Tensor, ...]  # L x (B, H, T, T)
    mask: Tensor  # (B, T)
