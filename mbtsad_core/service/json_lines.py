"""Files of one JSON object a line, to which several processes may add, and which a kill may leave unfinished."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, none where there is no file; a line that a kill left unfinished is not among them. Raises
    ValueError where another line is no JSON."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def add_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line, in one write; one that a kill left unfinished stays a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        whole = True
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            whole = file.read(1) == b"\n"
        file.write(("" if whole else "\n").encode() + f"{json.dumps(record)}\n".encode())
