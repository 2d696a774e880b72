"""Strict JSON: what is taken is what Python reads; all else is an UnsafeModel."""

from __future__ import annotations

import json

from fuzzing import change_json, fuzz, smallest_model, watched

with watched(__name__):
    from mbtsad_core.errors import UnsafeModel
    from mbtsad_core.vetting.strict_json import parse_object


def seeds() -> list[bytes]:
    files = [data for name, data in smallest_model().items() if name.endswith(".json")]
    hand = [
        '{"a": [1, -2.5e3, true, null, "\\u00e9\\ud83d\\ude00\\n"]}',
        '{"a": {"b": {"c": [[[]]]}}}',
        '{"é": "\\\\\\""}',
        "{}",
        '[{"a": 1}]',
        '{"a": NaN}',
    ]
    return [*files, *(text.encode() for text in hand)]


change = change_json


def once(data: bytes) -> None:
    try:
        values = parse_object(data, "x.json")
    except UnsafeModel:
        return
    assert values == json.loads(data.decode("utf-8"))


if __name__ == "__main__":
    fuzz(__file__, once, seeds(), change)
