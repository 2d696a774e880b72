"""The README's table of methods has a row for every entry of every family; its augmenters are named below it."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.augment import AUGMENTERS
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.detectors import DETECTORS

FAMILIES = {"defense": DEFENSES, "detector": DETECTORS, "attack": ATTACKS}
TABLE, BELOW = (
    (ROOT / "README.md")
    .read_text(encoding="utf-8")
    .split("## Methods\n")[1]
    .split("\n## ")[0]
    .split("<!-- /methods -->")
)
ROWS = [
    [column.strip() for column in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("|")
][2:]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_names_of_a_family_are_its_keys_each_once(family: str) -> None:
    named = [name for kind, names, *_ in ROWS if kind == family for name in re.findall(r"`(\w+)`", names)]
    assert sorted(named) == sorted(FAMILIES[family])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_row_says_what_it_does_and_where_it_comes_from(row: list[str]) -> None:
    assert row[0] in FAMILIES
    assert len(row) == 4
    assert all(row)


def test_every_augmenter_is_named_below_the_table() -> None:
    assert set(AUGMENTERS) <= set(re.findall(r"`(\w+)`", BELOW))
