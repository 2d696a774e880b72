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

Every message says what was expected, what came, and what to do. It calls a setting by its path in backticks, such as
`split.copies`; who shows the message calls it as it is called there (`named`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier


_SETTING = re.compile(r"`([a-z_]+(?:\.[a-z_]+)*)`")


def named(sentence: object, names: Mapping[str, str]) -> str:
    """A sentence with its settings called by these names, and the others by their paths."""
    return _SETTING.sub(lambda setting: names.get(setting[1], setting[1]), str(sentence))


class MBTSADError(Exception):
    """Base of every error that a user can cause and mend.

    code  what is wrong, for programs: of the kind of error, or closer
    """

    code = "error"

    def __init__(self, message: str = "", *, code: str = "") -> None:
        super().__init__(message)
        self.code = code or type(self).code

    @property
    def settings(self) -> tuple[str, ...]:
        """The paths of the settings that the message names."""
        return tuple(_SETTING.findall(str(self)))


class UnsafeModel(MBTSADError):
    """The model's files are refused before anything is loaded from them.

    rule  what they break: a key of `mbtsad_core.vetting.rules.RULES`
    file  name of the file that breaks it, as it was found; "" where it is the whole
    """

    code = "unsafe_model"

    def __init__(self, message: str, rule: str = "", file: str = "") -> None:
        super().__init__(message, code=rule)
        self.rule, self.file = rule, file


class CouldNotTell(UnsafeModel):
    """The model's files could not be judged, which never counts as sound; `rule` says why."""

    code = "could_not_tell"


class UnsuitableModel(MBTSADError):
    """The model loads, but the method cannot work on it."""

    code = "unsuitable_model"


class BadData(MBTSADError):
    """A data file, a column, a label or a trigger is not what it should be."""

    code = "bad_data"


class BadConfig(MBTSADError):
    """A setting is unknown or out of its range."""

    code = "bad_config"


class BadOutput(MBTSADError):
    """Results cannot be written where asked, or a run cannot be resumed from there."""

    code = "bad_output"


class UnknownMethod(MBTSADError):
    """No method of this family has that name."""

    code = "unknown_method"

    def __init__(self, family: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"Unknown {family} {name!r}. Known: {', '.join(sorted(known))}.")


class Diverged(MBTSADError):
    """Training diverged; `best` is the classifier with the lowest loss before it did, or None."""

    code = "diverged"

    def __init__(self, message: str, best: Classifier | None = None) -> None:
        super().__init__(message)
        self.best = best


class Cancelled(MBTSADError):
    """The user stopped the run."""

    code = "cancelled"


class UnknownJob(MBTSADError):
    """No job has this id, or its record is gone for good."""

    code = "unknown_job"


class QueueFull(MBTSADError):
    """No further job is taken now, from anyone or from this visitor."""

    code = "queue_full"


class WrongState(MBTSADError):
    """A job cannot do this in the state that it is in, such as stop once it is done."""

    code = "wrong_state"
