"""JSON from strangers: the same values as Python's own reader where both accept, and bounded time, depth and memory
where it would not be."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any

import pytest

from mbtsad_core.errors import UnsafeModel
from mbtsad_core.vetting.strict_json import DEPTH, VALUES, parse_object


def rule_of(data: bytes, values: int = VALUES) -> str:
    with pytest.raises(UnsafeModel) as refused:
        parse_object(data, "x.json", values)
    assert refused.value.file == "x.json"
    return refused.value.rule


def tree(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(8 if depth else 6)
    if kind == 6:
        return [tree(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {
            rng.choice(['a"', "b\\", "[{", "é", "\n", "c"]) + str(i): tree(rng, depth - 1)
            for i in range(rng.randrange(4))
        }
    return [
        None,
        True,
        rng.randrange(-(10**9), 10**9),
        rng.random(),
        rng.choice(['"', "\\", '\\"', "]}", "\u2028", ""]),
        "x" * rng.randrange(50),
    ][kind]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_sound_json_is_read_as_python_reads_it(ascii_only: bool) -> None:
    rng = random.Random(0)
    for _ in range(500):
        value = {"value": tree(rng, 6)}
        assert parse_object(json.dumps(value, ensure_ascii=ascii_only).encode(), "x.json") == value


def test_a_character_may_be_written_in_two_halves_or_as_a_text_about_them() -> None:
    assert parse_object(b'{"a": "\\ud83d\\ude00", "b": "\\\\ud800"}', "x.json") == {"a": "\U0001f600", "b": "\\ud800"}


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_the_depth_is_exact(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    inside = (opening * (DEPTH - 1) + "1" + closing * (DEPTH - 1)).encode()
    parse_object(b'{"x":' + inside + b"}", "x.json")
    assert rule_of(b'{"x":[' + inside + b"]}") == "json.depth"


def test_brackets_within_texts_are_no_depth() -> None:
    assert parse_object(json.dumps({"x": "[" * 1000, "[" * 100: '{"\\'}).encode(), "x.json")["x"] == "[" * 1000


@pytest.mark.parametrize("depth", [DEPTH, DEPTH + 1, 2 * DEPTH])
def test_deep_json_is_refused_on_a_small_stack_too(depth: int) -> None:
    """As in a thread of a server, whose stack is a fraction of the main one's."""
    found: list[str] = []
    before = threading.stack_size(256 << 10)
    try:
        thread = threading.Thread(target=lambda: found.append(rule_of(b'{"x":' + b"[" * depth)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert found == ["json.depth"]


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b'{"a": 1, "a": 2}', "json.duplicate"),
        (b'{"x": [{"a": 1, "\\u0061": 2}]}', "json.duplicate"),
        (b'{"a": NaN}', "json.malformed"),
        (b'{"a": -Infinity}', "json.malformed"),
        (b'{"a": ' + b"1" * 5000 + b"}", "json.malformed"),
        (b'{"a": 1e400}', "json.malformed"),
        (b'{"a": [-1.5E+999]}', "json.malformed"),
        (
            b'{"a": "\\ud800"}',
            "json.malformed",
        ),  # half a character: found by fuzzing, the library of safetensors refuses it
        (b'{"a": [-0]}', "json.malformed"),  # found by fuzzing too: a fraction to that library
        (b'{"\\uDFFF": 1}', "json.malformed"),
        (b'{"a": {"b": ["\\ude00\\ud83d"]}}', "json.malformed"),
        (b'{"a": 1}\0', "json.malformed"),
        (b"\xef\xbb\xbf{}", "json.malformed"),
        (b'{"a": "\xff"}', "json.malformed"),
        (b"", "json.malformed"),
        (b'{"a": "', "json.malformed"),
        (b'{"a": "\\', "json.malformed"),
        (b"[]", "json.malformed"),
        (b"]" * 1000, "json.malformed"),
    ],
)
def test_what_readers_differ_in_is_refused(data: bytes, rule: str) -> None:
    assert rule_of(data) == rule


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b'{"x": "' + b"\\n" * 100_000 + b'"}', ""),
        (b'{"x": "' + b"\\" * 200_000, "json.malformed"),
        (b'"' * 201, "json.size"),
        (b'{"x": [' + b"[]," * 100 + b"0]}", "json.size"),
        (b'{"x": [' + b"{}," * 100 + b"0]}", "json.size"),
        (b'{"x": [' + b'"",' * 100 + b"0]}", "json.size"),
    ],
    ids=["escapes", "backslashes", "quotes", "lists", "objects", "texts"],
)
def test_what_takes_time_and_memory_is_counted_first(data: bytes, rule: str) -> None:
    """A hundred values are allowed here; escapes within a text take time in proportion to their number."""
    started = time.process_time()
    if rule:
        assert rule_of(data, 100) == rule
    else:
        assert len(parse_object(data, "x.json", 100)["x"]) == 100_000
    assert time.process_time() - started < 2
