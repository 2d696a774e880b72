"""The verdict on a model from the verdicts on its files' names and what vetting finds in the files: one way for a
folder, a zip, separate files and a model of the Hub."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import CouldNotTell, UnsafeModel
from mbtsad_core.vetting.file_policy import FileVerdict, Verdict, base_name, folder_of, printable
from mbtsad_core.vetting.first_bytes import HEAD
from mbtsad_core.vetting.model_folder import Vetted, home_of, vet_named
from mbtsad_core.vetting.strict_json import DISGUISED, content_flaw

LONGEST_PROBLEM = 1000  # characters
SHOWN = 6  # names of what is left out of a file


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """What became of a model: a verdict a file, and `problem`: "" where it is clean, else what was expected, what came,
    what to do.

    rule       what is broken: a key of `mbtsad_core.vetting.rules.RULES`; "" where it is clean
    undecided  it could not be judged, which never counts as sound
    """

    files: tuple[FileVerdict, ...]
    problem: str = ""
    rule: str = ""
    undecided: bool = False

    @property
    def accepted(self) -> bool:
        return not self.problem

    @property
    def verdict(self) -> Literal["clean", "refused", "inconclusive"]:
        return "clean" if self.accepted else "inconclusive" if self.undecided else "refused"


def weigh(
    files: Sequence[FileVerdict],
    directory: Path,
    limits: VettingConfig,
    called: str,
    names: Collection[str] | None = None,
) -> PolicyReport:
    """The verdict on a model whose files stand in `directory` and are judged by their names.

    called  what the whole is called in sentences
    names   of the files that are read, where not all that are accepted are
    """
    files = [_looked_at(file, directory) if file.verdict == "accepted" else file for file in files]
    if any(file.verdict == "refused" for file in files):
        return refused(files)
    read = [base_name(file.name) for file in files if file.verdict == "accepted"] if names is None else names
    try:
        vetted = vet_named(
            directory,
            read,
            limits,
            called,
            [file.name for file in files if "/" not in file.name.removeprefix(home_of(files))],
        )
    except UnsafeModel as error:
        return faulted(files, error)
    return PolicyReport(tuple(_annotated(files, vetted)))


def _looked_at(file: FileVerdict, directory: Path) -> FileVerdict:
    """The verdict on a file that is accepted by its name, once its first bytes are seen."""
    name = base_name(file.name)
    try:
        with open(directory / name, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as content:
            wrong = content_flaw(content.read(HEAD), name)
    except OSError:  # who reads it says why it cannot be
        return file
    return FileVerdict(file.name, "refused", wrong, DISGUISED) if wrong else file


def refused(files: Sequence[FileVerdict]) -> PolicyReport:
    """The report on files of which some are refused. It tells the first by name, in whatever order they came."""
    found = sorted((file for file in files if file.verdict == "refused"), key=lambda file: file.name)
    more = f" {len(found) - 1} more of the files {'is' if len(found) == 2 else 'are'} refused." if found[1:] else ""
    return PolicyReport(tuple(files), f"Refused: {found[0].reason}{more}", found[0].rule)


def faulted(files: Sequence[FileVerdict], error: UnsafeModel) -> PolicyReport:
    """The report on a model that is refused, or could not be judged, for `error`: at the file that it names, whether
    that is there or not."""
    problem = printable(str(error), LONGEST_PROBLEM)
    word: Verdict = "inconclusive" if isinstance(error, CouldNotTell) else "refused"
    found, home = list(files), home_of(files)
    if error.file:
        at = next(
            (
                i
                for i, file in enumerate(found)
                if base_name(file.name) == base_name(error.file) and folder_of(file.name) == home
            ),
            len(found),
        )
        name = found[at].name if at < len(found) else error.file
        found[at : at + 1] = [FileVerdict(name, word, problem, error.rule)]
    return PolicyReport(tuple(found), problem, error.rule, isinstance(error, CouldNotTell))


def undecided(name: str, problem: str, rule: str) -> PolicyReport:
    """The report on what could not be judged."""
    return PolicyReport((FileVerdict(name, "inconclusive", problem, rule),), problem, rule, True)


def _annotated(files: Sequence[FileVerdict], vetted: Vetted) -> list[FileVerdict]:
    """The verdicts on the files of a sound model, each with what is not read of its file."""
    found = []
    for file in files:
        name = base_name(file.name)
        if file.verdict == "accepted" and (unread := vetted.left_out.get(name)):
            more = f" and {len(unread) - SHOWN} more" if unread[SHOWN:] else ""
            file = replace(
                file, reason=f"{file.reason} Left out of it: {printable(', '.join(unread[:SHOWN]), 300)}{more}."
            )
        if file.verdict == "accepted" and (notes := vetted.notes.get(name)):
            file = replace(file, reason=" ".join((file.reason, *notes)))
        if (
            file.verdict == "accepted"
            and name == "config.json"
            and any("<" in label for label in vetted.config.id2label.values())
        ):
            file = replace(
                file,
                reason=f"{file.reason} Markup in the names of its classes is shown as text.",
                rule="accept.escaped",
            )
        found.append(file)
    return found
