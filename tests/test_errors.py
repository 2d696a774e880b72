"""What an error says to programs, and how its sentence calls a setting."""

from __future__ import annotations

import ast
import inspect

import pytest
from conftest import ROOT

from mbtsad_core import errors
from mbtsad_core.config import SplitConfig
from mbtsad_core.errors import BadConfig, BadData, MBTSADError, UnsafeModel, named
from mbtsad_core.flags import FLAGS, with_flags
from mbtsad_core.page.api import told_to_programs
from mbtsad_core.page.handlers import in_the_pages_words

SAID = "Give more `split.copies`, or say it with `label_map` 1=good (`test` spares them)."


def test_each_front_end_calls_a_setting_in_its_own_way() -> None:
    assert with_flags(SAID) == "Give more --split-copies, or say it with --label-map 1=good (--test FILE spares them)."
    page = in_the_pages_words(SAID)
    assert page.startswith(
        "Give more “Copies of each text” in the settings, or say it with what the labels mean, in step 2,"
    )
    assert told_to_programs(SAID).startswith("Give more split.copies, or say it with label_map 1=good (a test set")


def test_a_program_asks_for_code_and_settings() -> None:
    error = BadData(SAID)
    assert (error.code, error.settings) == ("bad_data", ("split.copies", "label_map", "test"))
    assert BadData("x", code="closer").code == "closer"
    assert UnsafeModel("x", "format.pickle").code == "format.pickle"
    with pytest.raises(BadConfig) as caught:
        SplitConfig(aug_p=9.0)
    assert (caught.value.code, caught.value.settings) == ("bad_config", ("aug_p",))


def test_every_kind_of_error_has_a_code_of_its_own() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MBTSADError)]
    assert len({kind.code for kind in kinds}) == len(kinds) > 10


def test_what_no_one_has_a_name_for_keeps_its_own() -> None:
    assert named("`seed` of `a b`, `X` and ``", {}) == "seed of `a b`, `X` and ``"


def raised() -> set[str]:
    """The settings that the sentences of the core's errors name."""
    core = [p for p in (ROOT / "mbtsad_core").rglob("*.py") if p.parent.name not in ("page", "research")]
    errors = [node for p in core for node in ast.walk(ast.parse(p.read_text("utf-8"))) if isinstance(node, ast.Raise)]
    texts = [n.value for e in errors for n in ast.walk(e) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return {name for text in texts for name in BadData(text).settings}


def test_every_setting_that_an_error_of_the_core_names_is_a_flag() -> None:
    assert raised() - FLAGS.keys() == set()
    assert {"split.min_char", "label_map", "device"} <= raised()
