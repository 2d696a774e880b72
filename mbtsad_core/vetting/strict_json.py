"""Reading JSON that came with a model: bounded before it is parsed, and nothing in it said twice.

Python's parser is safe, but it takes memory many times the size of some inputs, goes down a level of the stack for
every bracket, takes the last of two values of a key where other readers take the first, knows numbers (NaN, Infinity)
that JSON has not, takes 1e400 for infinity, and takes half a character ("\\ud800") for one and -0 for a whole number,
which the library of safetensors refuses.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from mbtsad_core.errors import CouldNotTell, UnsafeModel
from mbtsad_core.vetting.file_policy import what_to_do
from mbtsad_core.vetting.first_bytes import HEAD, content_of

DEPTH = 64  # brackets within each other; a tokenizer.json has about 8
VALUES = 4_000_000  # strings and brackets: a vocabulary of a million words has about as many
LARGEST_CONFIG = 1 << 20  # bytes
REMEDY = "Give the file that save_pretrained wrote."
DISGUISED = "format.disguised"

# Possessive (*+): a string is never gone back into, so that any input takes time in proportion to its length.
TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)

HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # of a character that is written as two


def kind_of(value: Any) -> str:
    """What a value of JSON is, in its words."""
    if value is None:
        return "null"
    kinds: dict[type, str] = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return kinds[type(value)]


def check_content(head: bytes, name: str) -> None:
    """Raise UnsafeModel where a file of a model is something else than its name says, by its first bytes."""
    if wrong := content_flaw(head, name):
        raise UnsafeModel(f"Refused: {wrong}", DISGUISED, name)


def content_flaw(head: bytes, name: str) -> str:
    """What a file of a model is in truth, by its first bytes, and what to do; "" where that is what its name says."""
    content = content_of(head)
    if (
        not content
        or content.kind in ("array", "utf-16")
        or (content.kind == "safetensors" and name.endswith(".safetensors"))
    ):
        return ""  # what is text is told of by who reads it
    remedy = (
        what_to_do("model.bin", "")
        if content.kind == "pickle" and name.endswith(".safetensors")
        else content.remedy or REMEDY
    )
    return f"{name} is {content.what}. {remedy}"


def read_bytes(path: Path, most: int) -> bytes:
    """The bytes of a regular file, `most` of them at most. Raises UnsafeModel, or CouldNotTell where it cannot be
    read."""
    name = path.name
    try:
        with open(path, "rb", opener=lambda file, flags: os.open(file, flags | os.O_NONBLOCK)) as file:
            # A pipe would never open
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnsafeModel(f"Refused: {name} is no regular file.", "file.special", name)
            data = file.read(most + 1)
    except IsADirectoryError as error:
        raise UnsafeModel(f"Refused: {name} is a folder. Expected a file.", "file.special", name) from error
    except OSError as error:
        raise CouldNotTell(
            f"{name} could not be read ({error.strerror or type(error).__name__}), so it could not be judged.",
            "vet.unreadable",
            name,
        ) from error
    if len(data) > most:
        raise UnsafeModel(
            f"Refused: {name} is larger than {most} bytes. Give the file that save_pretrained wrote.", "size.json", name
        )
    return data


def read_object(path: Path, most: int = LARGEST_CONFIG) -> dict[str, Any]:
    """The JSON object that a file holds. Raises UnsafeModel, or CouldNotTell where the file cannot be read."""
    return parse_object(read_bytes(path, most), path.name)


def parse_object(data: bytes, name: str, values: int = VALUES) -> dict[str, Any]:
    """The JSON object in UTF-8 that `data` is, with `values` strings and brackets at most. Raises UnsafeModel."""
    check_content(data[:HEAD], name)
    _bound(data, name, values)
    try:
        # A vocabulary has many numbers, and a function of ours would be called for each
        whole = _whole if b"-0" in data else int
        found = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=whole,
        )
        if HALF.search(data):
            # A UnicodeEncodeError, which is a ValueError, where the other half is missing
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except _Twice as error:
        raise UnsafeModel(
            f"Refused: {name} gives a value for {str(error)[:100]!r} twice. Readers differ in which they take.",
            "json.duplicate",
            name,
        ) from error
    except (ValueError, RecursionError) as error:
        content = content_of(data[:HEAD])
        why = f"it is {content.what}. {content.remedy or REMEDY}" if content else f"{str(error)[:200]}. {REMEDY}"
        raise UnsafeModel(f"{name} is not valid JSON: {why}", "json.malformed", name) from error
    if not isinstance(found, dict):
        raise UnsafeModel(f"{name} does not hold a JSON object, but {kind_of(found)}. {REMEDY}", "json.malformed", name)
    return found


def _bound(data: bytes, name: str, values: int) -> None:
    depth = 0
    for count, token in enumerate(TOKENS.finditer(data)):
        first = data[token.start()]
        if first in b"[{":
            depth += 1
        elif first in b"]}":
            depth -= 1
        if depth > DEPTH:
            raise UnsafeModel(
                f"{name} is not valid JSON of a model: it is nested deeper than {DEPTH} levels.", "json.depth", name
            )
        if count >= values:
            raise UnsafeModel(
                f"{name} is not valid JSON of a model: it holds more than {values} strings and lists.",
                "json.size",
                name,
            )


class _Twice(Exception):
    """A key that an object has twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                raise _Twice(key)
            seen.add(key)
    return found


def _whole(text: str) -> int:
    return int(text) if text != "-0" else _no_number(text)


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")
