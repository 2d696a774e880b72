"""No test holds an input that crashes, stops or fools other software: guards are tested with harmless values and small
limits.

What the real thing does is told in words, with the number of its advisory (tests/vetting/hostile.py).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, tiny_bert
from hostile import all_hostile

from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.vetting.config_policy import ASKS_FOR_CODE, IMPLEMENTATIONS, OWN_IMPLEMENTATIONS

FILES = sorted(path for path in (ROOT / "tests").rglob("*") if path.suffix in (".py", ".json", ".txt", ".yml", ".sh"))
KEYS = {*ASKS_FOR_CODE, *IMPLEMENTATIONS, "backbone", "base_model_name_or_path", "auto_mapping"}
# A group that repeats what repeats: "(a" "+)+"
NESTED = re.compile(r"\((?:[^()\\]|\\.)*[+*}](?:[^()\\]|\\.)*\)(?:[+*]|\{\d*,)")
HARMLESS = {"example", "", "x", "y", None, False, *OWN_IMPLEMENTATIONS}


def leaves(value: Any) -> Iterator[Any]:
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from leaves(inner)
    if not isinstance(value, (dict, list)):
        yield value


def live(value: Any) -> bool:
    """Whether a value under a key of an advisory names something that other software would fetch, or switches that
    on."""
    return any((not isinstance(leaf, (int, float)) and leaf not in HARMLESS) or leaf is True for leaf in leaves(value))


def pairs(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        if isinstance(key, str):
            yield key, value
        yield from pairs(value)


def written(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Every key with its value that a program writes down, in a dict or as a named argument."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Dict):
            yield from (
                (k.value, v)
                for k, v in zip(inner.keys, inner.values, strict=True)
                if isinstance(k, ast.Constant) and isinstance(k.value, str)
            )
        elif isinstance(inner, ast.Call):
            yield from ((k.arg, k.value) for k in inner.keywords if k.arg)


def constants(node: ast.AST) -> list[Any]:
    """The values in an expression, those of a dict's keys left out."""
    keys = {id(key) for inner in ast.walk(node) if isinstance(inner, ast.Dict) for key in inner.keys}
    return [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and id(inner) not in keys]


def texts(path: Path) -> Iterator[str]:
    """The texts that a file holds: of a program those it writes down, of another file all of it. Python's own `re`
    reads some."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield source
        return
    tree = ast.parse(source)
    own = {
        id(n)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("re.")
        for n in ast.walk(call)
    }
    # Of pytest.raises
    own |= {id(n) for k in ast.walk(tree) if isinstance(k, ast.keyword) and k.arg == "match" for n in ast.walk(k)}
    yield from (
        n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in own
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_expression_in_the_tests_repeats_what_repeats(path: Path) -> None:
    found = [text for text in texts(path) if NESTED.search(text)]
    assert not found


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.suffix == ".py"], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_no_key_of_an_advisory_has_a_live_value_in_the_tests(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    found = [(key, ast.unparse(value)) for key, value in written(tree) if key in KEYS and live(constants(value))]
    inside = [text for text in texts(path) if text.lstrip().startswith("{")]  # JSON within a program
    for text in inside:
        try:
            values = json.loads(text)
        except ValueError:
            continue
        found += [(key, value) for key, value in pairs(values) if key in KEYS and live(value)]
    assert not found


def test_no_upload_of_the_hostile_corpus_is_live(tmp_path: Path) -> None:
    """Whatever a program puts together."""
    save_classifier(tiny_bert(), tmp_path / "valid")
    valid = {p.name: p.read_bytes() for p in sorted((tmp_path / "valid").iterdir())}
    looked = 0
    for case in all_hostile(valid):
        files = case.files or {}
        assert sum(map(len, files.values())) + len(case.zip or b"") < 8 << 20, case.name
        for name, data in files.items():
            if not name.endswith(".json") or data == valid.get(name):
                continue
            try:
                values = json.loads(data)
            except ValueError:
                continue
            looked += 1
            assert not [(key, value) for key, value in pairs(values) if key in KEYS and live(value)], case.name
            assert not [value for key, value in pairs(values) if key == "Regex" and NESTED.search(str(value))], (
                case.name
            )
    assert looked > 150


def endless(letter: str) -> list[str]:
    """Expressions of the kind that is looked for, put together where they are used."""
    inner = [f"{letter}+", f"{letter}*", f"{letter}{{2,}}", f"{letter}|{letter}{letter}*"]
    return [f"({one}){again}$" for one in inner for again in ("+", "*", "{2,}")]


def test_what_is_looked_for_is_found() -> None:
    assert all(NESTED.search(expression) for expression in endless("a"))
    assert not any(
        NESTED.search(plain) for plain in ("a", " {2,}", r"(a|b)+", r"\s+(?!\S)|\s+", "(a+)", "f(x) + (y * z)")
    )
    assert all(live(value) for value in (True, ["a" + "/b"], {"x": {"y": "a" + ".B"}}))
    assert not any(live(value) for value in ("example", {"example": ["example", None]}, {"": "sdpa"}, [3], False))
