"""What step 2 says of a clean sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from browser import request, write_table
from conftest import tiny_texts

from mbtsad_core.page.clean_data import _report
from mbtsad_core.page.session import Session
from mbtsad_core.service.purification import prepare
from mbtsad_core.types import LabelledText


def test_a_text_of_both_sets_is_told_whatever_words_it_holds(suspect_dir: Path, tmp_path: Path) -> None:
    shared = [LabelledText("the trigger was a boring film", 0)]
    asked = request(suspect_dir, tmp_path, texts=[*tiny_texts(64), *shared])
    test = write_table(tmp_path / "leaked.tsv", [*tiny_texts(6, seed=2), *shared])
    shown = _report(Session(), prepare(replace(asked, test=test, triggers=())))
    assert "1 text stands in both the clean sample and the test set" in shown
    assert "the trigger was a boring film" in shown
    assert "No trigger was given" not in shown
