"""What a user is told of an error that is not his: a number, which stands beside the traceback where that is kept."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import traceback
from pathlib import Path

from mbtsad_core.service.provenance import versions

INTERNAL = 70  # the exit code of a fault of ours; EX_SOFTWARE of sysexits.h


def number_of(error: BaseException) -> str:
    """Eight hexadecimal digits that stay the same where the same line fails in the same way, whatever the input."""
    frames = [f"{Path(f.filename).name} {f.name} {f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
    return hashlib.sha256("\n".join([type(error).__qualname__, *frames]).encode()).hexdigest()[:8]


def keep(error: BaseException, doing: str) -> Path | None:
    """Write the traceback to a new file of this user's alone, and return its place; None where there is no room for
    one."""
    used = ", ".join(f"{name} {number}" for name, number in versions().items())
    lines = [
        f"mbtsad, fault {number_of(error)}, in: {doing}\n{used}, {platform.platform()}\n\n",
        *traceback.format_exception(error),
    ]
    try:
        handle, path = tempfile.mkstemp(prefix=f"mbtsad-fault-{number_of(error)}-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(lines)
    except OSError:
        return None
    return Path(path)


def fault_words(error: BaseException, place: Path | None) -> str:
    """What a user of the command line is told of a fault of ours."""
    kind = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}".rstrip(" .:")
    kept = f" The details are in {place}: send them along." if place else ""
    return (
        f"This is a fault of this program, not of what you gave it ({kind}). If it stays, report its number, "
        f"{number_of(error)}.{kept}"
    )
