"""A method is named in one place: its record. All else is made from the records."""

from __future__ import annotations

import ast
import importlib
import json
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT, tiny_texts, write_tsv

from mbtsad_core import cli
from mbtsad_core.attacks import ATTACKS
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.methods import Method, load
from mbtsad_core.models.classifier import load_classifier, weights_hash
from mbtsad_core.page import compare
from mbtsad_core.research import documents, tables

PACKAGE = ROOT / "mbtsad_core"
METHODS = {**ATTACKS, **DEFENSES, **DETECTORS}
OTHER_MEANINGS = {
    ("badnets", "__init__.py"),  # the function, among the names that the package exports
    ("sentence", "data/columns.py"),  # a column of a table
    ("sentence", "page/purify.py"),  # two parts of the page
    ("strip", "page/page.py"),
}
EXORCISM = '''
"""Exorcism: a defense that there is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mbtsad_core.config import Config, setting
from mbtsad_core.methods import Defense
from mbtsad_core.types import Event, LabelledText, Observe, Steps


@dataclass(frozen=True)
class ExorcismConfig(Config):
    """Exorcism takes as little as a method may."""

    prayers: int = setting(1, "steps in which nothing happens", low=1, high=99)
    seed: int = setting(0, "seed of nothing", low=0, high=99)


RECORD = Defense(
    "exorcism", "Exorcism", "leave all weights as they are", "Nobody, 1973", ExorcismConfig(), "exorcism:exorcism"
)


@RECORD.runs
def exorcism(
    suspect: Any, clean: Sequence[LabelledText], config: ExorcismConfig, *, observe: Observe | None = None
) -> Steps[Any]:
    from mbtsad_core.models.classifier import clone

    for step in range(config.prayers):
        yield Event("exorcism", step + 1, config.prayers)
    return clone(suspect)
'''


def test_a_methods_key_stands_in_one_file_of_the_package() -> None:
    found = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in METHODS:
                found[node.value].add(path.relative_to(PACKAGE).as_posix())
    for key, name in OTHER_MEANINGS:
        found[key].remove(name)
    del found["mbtsad"]  # the program's name too
    assert found.keys() == METHODS.keys() - {"mbtsad"}
    assert {key: files for key, files in found.items() if len(files) > 1} == {}


@pytest.mark.parametrize("key", METHODS)
def test_a_record_is_whole(key: str) -> None:
    method: Method = METHODS[key]  # type: ignore[type-arg]
    assert method.key == key
    assert callable(load(method.code))
    assert method.title
    assert method.source
    assert not method.about.endswith(".")
    assert len({m.title for m in METHODS.values()}) == len(METHODS)


def test_the_readmes_table_of_methods_is_that_of_the_records() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = documents.between(readme, documents.METHODS)[1]
    assert table == documents.methods_table(), "run: python -m mbtsad_core.research.documents README.md"


@pytest.fixture
def exorcism(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A made-up defense: one file, and its line in the family."""
    (tmp_path / "exorcism.py").write_text(EXORCISM, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("exorcism")
    monkeypatch.setitem(DEFENSES, "exorcism", module.RECORD)
    return module


@pytest.mark.usefixtures("exorcism")
def test_one_file_and_one_line_make_a_defense_known_to_all(capsys: pytest.CaptureFixture[str]) -> None:
    for asked, said in (([], "leave all weights as they are"), (["exorcism"], "--prayers")):
        with pytest.raises(SystemExit, match="0"):
            cli.main(["defend", *asked, "--help"])
        assert said in " ".join(capsys.readouterr().out.split())
    assert ("Exorcism: leave all weights as they are", "exorcism") in compare.offered()
    assert "| defense | Exorcism, `exorcism` | leave all weights as they are | Nobody, 1973 |\n" in (
        documents.methods_table()
    )
    assert [point.config() for point in tables.points("table2", 1, {}) if point.method == "exorcism"]


@pytest.mark.usefixtures("exorcism")
def test_defend_runs_it(suspect_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean, test = (str(write_tsv(tmp_path / f"{n}.tsv", tiny_texts(n, seed=n))) for n in (64, 20))
    given = ["--suspect", str(suspect_dir), "--clean", clean, "--test", test, "--out", str(tmp_path / "out")]
    assert cli.main(["defend", "exorcism", *given, "--prayers", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["method"], told["settings"]["prayers"]) == ("exorcism", 3)
    assert weights_hash(load_classifier(tmp_path / "out")) == weights_hash(load_classifier(suspect_dir))
