"""A run without a typed trigger tells what its scan found, and measures it with one click."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from browser import LATE, NEEDS_BROWSER, Visits, field, open_step, request, state
from playwright.sync_api import expect
from server import until

from mbtsad_core.service.store import State

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]


@pytest.fixture(scope="module")
def unnamed(all_visits: Visits, suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run of a suspect with a backdoor, started by somebody who knows of no trigger: its id."""
    asked = request(suspect_dir, tmp_path_factory.mktemp("unnamed"), triggers=(), target=None)
    asked = dataclasses.replace(asked, config=dataclasses.replace(asked.config, found_tokens=4))
    id = all_visits.store.create(asked.to_dict())
    until(lambda: all_visits.store.get(id).state is State.DONE)
    return id


def test_the_page_names_the_trigger_that_nobody_told_it(visits: Visits, unnamed: str) -> None:
    page = visits.visitor(f"?job={unnamed}")
    state(page, re.compile("done"))
    expect(page.locator("#found p").first).to_contain_text("“cf”")
    expect(page.locator("#found th").first).to_have_text("cf")
    expect(field(page, "#measure-trigger")).to_have_value(re.compile(r"\bcf\b"))
    page.locator("#measure-found").click()
    table = page.locator("#found-measured")
    expect(table).to_contain_text("cf", timeout=LATE)
    expect(table.locator("table")).to_be_visible(timeout=LATE)
    expect(table).to_contain_text("positive")
    for step, box in (("inside", "#attention-trigger"), ("triggers", "#lab-trigger")):
        open_step(page, step)
        expect(field(page, box)).to_have_value("cf")


def test_a_run_with_a_trigger_shows_what_each_stage_took_off(visits: Visits, suspect_dir: Path, tmp_path: Path) -> None:
    asked = request(suspect_dir, tmp_path)
    asked = dataclasses.replace(asked, config=dataclasses.replace(asked.config, found_tokens=4))
    page = visits.visitor(f"?job={visits.store.create(asked.to_dict())}")
    state(page, re.compile("done"))
    names = page.locator("#stages th")
    expect(names).to_have_count(4)
    assert names.all_inner_texts()[:2] == ["suspect", "scan and embedding reset"]
