"""What a run's figures were made of, so that they can be made again: sources, their digests, versions, the day.

It goes where a report goes: of a local place it has the last name alone.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.sources import Source

if TYPE_CHECKING:
    from mbtsad_core.data import Dataset
    from mbtsad_core.models.classifier import Classifier

NAMED = ("mbtsad", "torch", "transformers")


def about_model(classifier: Classifier, asked: str) -> dict[str, Any]:
    """Where a classifier came from, at which commit, what `sha256sum FILES | sha256sum` prints of the files that are
    read, the tokens of a text that it reads, and what vetting chose; `asked` is the source as the user gave it."""
    origin = classifier.origin
    where = {"source": Source(asked).shown, "commit": origin and origin.commit, "sha256": origin and origin.sha256}
    return where | {"max_length": classifier.max_length, "notes": list(classifier.notes)}


def about_data(data: Dataset, asked: str, texts: int) -> dict[str, Any]:
    """Where texts came from, the columns that were read, and how many of them are used."""
    columns = {"text": data.columns.text, "pair": data.columns.pair, "label": data.columns.label}
    return {"source": Source(asked).shown, "sha256": data.sha256, "columns": columns, "texts": texts}


def about_trigger(triggers: Sequence[str], target: str | None) -> dict[str, Any]:
    """What was measured with: words as they were given, or the name and the digest of a file of paired texts."""
    from mbtsad_core.attacks.triggers import names_file

    files = [Path(spec) for spec in triggers if names_file(spec)]
    found: dict[str, Any] = {
        "texts": [Path(spec).name if names_file(spec) else spec for spec in triggers],
        "target": target,
    }
    return found | ({"sha256": hashlib.sha256(files[0].read_bytes()).hexdigest()} if files else {})


def made_of(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a report beside its figures: the inputs (`about_...`), the versions, the day."""
    return {"inputs": dict(inputs), "versions": versions(), "date": now()}


def versions() -> dict[str, str]:
    """Of Python and of what decides a run's figures."""

    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "(not installed)"

    return {"python": platform.python_version(), **{name: of(name) for name in NAMED}}


def now() -> str:
    """The time in UTC, to the second: 2026-03-01T12:00:00+00:00."""
    return datetime.now(UTC).isoformat(timespec="seconds")
