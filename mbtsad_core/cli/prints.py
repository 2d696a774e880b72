"""Figures and notes, as the commands print them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.errors import BadOutput
from mbtsad_core.flags import with_flags
from mbtsad_core.terminal import is_first

if TYPE_CHECKING:
    from mbtsad_core.service.purification import Inputs
    from mbtsad_core.types import Rate, Scores


def print_json(*parts: Mapping[str, Any]) -> None:
    """One object of all parts."""
    print(json.dumps({name: value for part in parts for name, value in part.items()}))


def check_sarif(file: str | None) -> None:
    """Raise BadOutput where what --sarif names cannot be written: before the work, not after it."""
    if file is None:
        return
    new = not Path(file).exists()
    try:
        with open(file, "a", encoding="utf-8"):
            pass
        if new:
            Path(file).unlink()
    except OSError as error:
        raise _no_sarif(file, error) from error


def write_sarif(file: str, log: Mapping[str, Any]) -> None:
    """Write what --sarif names."""
    try:
        Path(file).write_text(json.dumps(log, indent=1), encoding="utf-8")
    except OSError as error:
        raise _no_sarif(file, error) from error


def _no_sarif(file: str, error: OSError) -> BadOutput:
    return BadOutput(f"--sarif: {file} cannot be written: {error.strerror}. Name another file.")


def print_scores(scores: Scores, labels: Sequence[str], title: str = "") -> None:
    from mbtsad_core.views.words import rate

    if title:
        print(f"-- {title}")
    print(f"CACC       {rate(scores.cacc)}")
    print(f"ASR        {rate(scores.asr)}")
    print(f"ASR floor  {rate(scores.asr_floor)}")
    for label, row in zip(labels, scores.confusion, strict=True):
        print(f"{label}: " + ", ".join(f"{n} answered {other}" for other, n in zip(labels, row, strict=True)))


def print_rates(rates: Mapping[str, Rate | None], title: str) -> None:
    from mbtsad_core.views.words import rate

    print(f"-- {title}")
    for name, value in rates.items():
        print(f"{name.upper():<10} {rate(value)}")


def print_notes(notes: Iterable[object]) -> None:
    for note in notes:
        print(f"Note: {with_flags(note)}")


def print_inputs(inputs: Inputs) -> None:
    """What splitting did to the texts, and the notes on them."""
    if inputs.splits:
        print(inputs.splits.sentence())
    print_notes(inputs.notes)


def tell(inputs: Inputs) -> None:
    """Say before a method begins what was chosen for the user, and what of it will have no effect."""
    for note in inputs.notes if is_first() else ():
        print(f"Note: {with_flags(note)}", file=sys.stderr, flush=True)
