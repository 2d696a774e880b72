"""What a source names, and that it stays the words that were written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mbtsad_core.service.purification import Request
from mbtsad_core.sources import DEMO, Source


@pytest.mark.parametrize(
    ("written", "demo", "hub", "id", "shown"),
    [
        ("demo", True, False, None, "demo"),
        ("hub:owner/name", False, True, "owner/name", "hub:owner/name"),
        ("hub:owner/name:config@train", False, True, "owner/name", "hub:owner/name:config@train"),
        ("hub:../../etc", False, True, None, "hub:../../etc"),
        ("/home/someone/demo", False, False, None, "demo"),
        ("demo.zip", False, False, None, "demo.zip"),
    ],
)
def test_what_a_source_names(written: str, demo: bool, hub: bool, id: str | None, shown: str) -> None:
    source = Source(written)
    assert (source.is_demo, source.is_hub, source.hub_id, source.shown) == (demo, hub, id, shown)


def test_a_model_of_the_hub_is_fixed_at_a_commit() -> None:
    assert Source("hub:owner/name@main").at("a" * 40) == f"hub:owner/name@{'a' * 40}"


def test_a_request_is_written_with_the_words_that_it_was_given_with() -> None:
    asked = Request("hub:owner/name", Path("/data/clean.tsv"), None)  # type: ignore[arg-type]
    written = json.loads(json.dumps(asked.to_dict()))
    assert (written["suspect"], written["clean"], written["test"]) == ("hub:owner/name", "/data/clean.tsv", None)
    assert Request.from_dict(written) == asked
    assert dataclasses.replace(asked, clean="demo").clean.is_demo
    assert Request().suspect is not None
    assert Request().clean == DEMO == "demo"
