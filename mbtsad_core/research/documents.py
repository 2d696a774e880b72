"""What stands between marks of a Markdown file and is written by a program; the README's table of methods.

python -m mbtsad_core.research.documents README.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.errors import BadData
from mbtsad_core.methods import Method

METHODS = "methods"


def marks(name: str) -> tuple[str, str]:
    """The lines that what is written stands between."""
    return f"<!-- {name} -->\n", f"<!-- /{name} -->"


def between(text: str, name: str) -> tuple[str, str, str]:
    """What stands before, between and behind the marks of this name. Raises BadData where they are not there."""
    first, last = marks(name)
    if first not in text or last not in text:
        raise BadData(f"The document has no place for what is written: expected the lines {first.strip()} and {last}.")
    before, _, rest = text.partition(first)
    inner, _, after = rest.partition(last)
    return before, inner, after


def write_between(document: Path, name: str, new: str) -> None:
    """Put `new` between the marks of a Markdown file. Raises BadData where it has none."""
    before, _, after = between(document.read_text(encoding="utf-8"), name)
    first, last = marks(name)
    document.write_text(f"{before}{first}{new}{last}{after}", encoding="utf-8")


def methods_table() -> str:
    """All defenses, detectors and attacks, each with what it does and where it comes from."""
    families: dict[str, Mapping[str, Method[Any, Any]]]
    families = {"defense": DEFENSES, "detector": DETECTORS, "attack": ATTACKS}
    rows = [
        f"| {kind} | {method.title}, `{method.key}` | {method.sentence} | {method.source} |\n"
        for kind, methods in families.items()
        for method in methods.values()
    ]
    return "".join(["| kind | name | what it does | source |\n", "|---|---|---|---|\n", *rows])


if __name__ == "__main__":
    write_between(Path(sys.argv[1]), METHODS, methods_table())
