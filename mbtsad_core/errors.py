"""What can go wrong because of what the user gave or asked.

    MBTSADError
    ├── UnsafeModel      a model file that could run code, or that is malformed
    │   └── CouldNotTell a model that could not be judged, which is no better
    ├── UnsuitableModel  a sound model that the method cannot treat (no attention maps, wrong number of labels)
    ├── BadData          a data file, column, label or trigger
    ├── BadConfig        a setting out of its range, or an unknown one
    ├── BadOutput        a place that results cannot be written to, or a run that cannot be resumed
    ├── UnknownMethod    a name that no family has
    ├── Diverged         training left the range where it makes sense; carries the best state so far
    ├── Cancelled        the user stopped the run
    ├── UnknownJob       no job has this id
    ├── QueueFull        as many jobs wait, or are one visitor's, as may
    └── WrongState       a job cannot do this in the state that it is in

Every message says what was expected, what came, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier


class MBTSADError(Exception):
    """Base of every error that a user can cause and mend."""


class UnsafeModel(MBTSADError):
    """The model's files are refused before anything is loaded from them.

    rule  what they break: a key of `mbtsad_core.vetting.rules.RULES`
    file  name of the file that breaks it, as it was found; "" where it is the whole
    """

    def __init__(self, message: str, rule: str = "", file: str = "") -> None:
        super().__init__(message)
        self.rule, self.file = rule, file


class CouldNotTell(UnsafeModel):
    """The model's files could not be judged, which never counts as sound; `rule` says why."""


class UnsuitableModel(MBTSADError):
    """The model loads, but the method cannot work on it."""


class BadData(MBTSADError):
    """A data file, a column, a label or a trigger is not what it should be."""


class BadConfig(MBTSADError):
    """A setting is unknown or out of its range."""


class BadOutput(MBTSADError):
    """Results cannot be written where asked, or a run cannot be resumed from there."""


class UnknownMethod(MBTSADError):
    """No method of this family has that name."""

    def __init__(self, family: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"Unknown {family} {name!r}. Known: {', '.join(sorted(known))}.")


class Diverged(MBTSADError):
    """Training diverged; `best` is the classifier with the lowest loss before it did, or None."""

    def __init__(self, message: str, best: Classifier | None = None) -> None:
        super().__init__(message)
        self.best = best


class Cancelled(MBTSADError):
    """The user stopped the run."""


class UnknownJob(MBTSADError):
    """No job has this id, or its record is gone for good."""


class QueueFull(MBTSADError):
    """No further job is taken now, from anyone or from this visitor."""


class WrongState(MBTSADError):
    """A job cannot do this in the state that it is in, such as stop once it is done."""
