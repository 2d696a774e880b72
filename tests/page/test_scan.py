"""The scan on the page: started, watched, reloaded, stopped; and what it found, taken to the later steps."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
from browser import NEEDS_BROWSER, SOON, Visits, field, open_step, overflow, tab_of, write_table
from conftest import tiny_texts
from playwright.sync_api import expect
from server import until
from test_axe import serious

from mbtsad_core.config import RuntimeConfig
from mbtsad_core.service.scan_job import ScanJob
from mbtsad_core.service.scanning import ScanRequest
from mbtsad_core.service.store import State
from mbtsad_core.sources import Source

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]
WORDS = re.compile(r"^(Nothing found|A trigger exists|Inconclusive)\. .")


def test_a_scan_is_started_watched_reloaded_and_stopped(visits: Visits) -> None:
    page = visits.visitor("?step=scan", width=390)
    expect(page.locator("#scan-rows .empty")).to_contain_text(
        "The suspect comes from step 1, the clean texts from step 2"
    )
    page.locator("#scan-start").focus()
    page.keyboard.press("Enter")
    rows = page.locator("#scan-rows li")
    expect(rows).to_have_count(8)
    expect(rows.first).to_contain_text(re.compile(r"“.+”.*in texts of (negative|positive).*\d+ of \d+", re.DOTALL))
    expect(page.locator("#scan-verdict")).to_contain_text(re.compile(r"So far “.+” turns \d+ of \d+ texts"))
    assert overflow(page) == 0
    page.wait_for_url(re.compile(r"[?&]scan="))

    page.reload()
    expect(tab_of(page, "scan")).to_have_attribute("aria-selected", "true")
    expect(rows).to_have_count(8)
    expect(page.locator("#scan-start")).to_be_disabled()
    expect(page.locator("#scan-panel")).to_contain_text(re.compile(r"step\s*\d+ of \d+"))
    page.locator("#scan-stop").click()
    sentence = page.locator("#scan-verdict .sentence")
    expect(sentence).to_have_text(WORDS, timeout=2 * SOON)
    expect(page.locator("#scan-panel")).to_contain_text("sequences of tokens")  # was not looked at
    expect(page.locator("#scan-start")).to_have_text("Scan again")
    assert overflow(page) == 0


@pytest.fixture(scope="module")
def scanned(all_visits: Visits, suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A scan of the tiny suspect that is done: its id."""
    clean = write_table(tmp_path_factory.mktemp("scanned") / "clean.tsv", tiny_texts(64))
    asked = ScanRequest(Source(clean), runtime=RuntimeConfig(device="cpu", threads=1))
    id = all_visits.store.create(ScanJob(Source(suspect_dir), asked).to_dict())
    until(lambda: all_visits.store.get(id).state is State.DONE)
    return id


def test_a_found_word_goes_to_the_lab_in_one_click_and_to_the_steps_after(visits: Visits, scanned: str) -> None:
    page = visits.visitor(f"?scan={scanned}")
    expect(tab_of(page, "scan")).to_have_attribute("aria-selected", "true")
    best = (visits.store.get(scanned).result or {})["triggers"][0]
    word = best["text"]
    expect(page.locator("#scan-verdict .sentence")).to_contain_text(
        f"A trigger exists. '{word}' ({best['place']}) sends"
    )
    first = page.locator("#scan-rows li").first
    for said in (f"“{word}”", f"{best['label']} → {best['target']}", f"({best['flips']} of {best['n']})"):
        expect(first).to_contain_text(said)
    first.locator("summary").click()
    expect(first.locator(".example.after u").first).to_have_text(word)
    for step, box in (("inside", "#attention-trigger"), ("triggers", "#lab-trigger")):  # by themselves
        open_step(page, step)
        expect(field(page, box)).to_have_value(word)
    field(page, "#lab-trigger").fill("other")
    open_step(page, "scan")
    expect(first.locator("details")).to_have_attribute("open", "")
    first.get_by_role("button", name="Try it in the trigger lab").click()
    expect(tab_of(page, "triggers")).to_have_attribute("aria-selected", "true")
    expect(field(page, "#lab-trigger")).to_have_value(word)
    expect(field(page, "#sentence-box")).to_have_value(re.compile(rf"\b{word}\b"))
    open_step(page, "purify")
    expect(field(page, "#measure-trigger")).to_have_value(word)
    expect(field(page, "#measure-target")).to_have_value(best["target"])


@pytest.mark.parametrize(("width", "dark"), [(1440, True), (390, False)])
def test_what_was_found_is_for_everybody(visits: Visits, scanned: str, width: int, dark: bool) -> None:
    page = visits.visitor(f"?scan={scanned}", width=width, dark=dark)
    expect(page.locator("#scan-rows li").first).to_be_visible()
    assert overflow(page) == 0
    assert serious(page) == []


def test_what_is_wrong_with_a_scan_is_told(visits: Visits, suspect_dir: Path, tmp_path: Path) -> None:
    clean = write_table(tmp_path / "clean.tsv", tiny_texts(8))
    id = visits.store.create(ScanJob(Source(suspect_dir), ScanRequest(Source(clean))).to_dict())
    page = visits.visitor(f"?scan={id}")
    expect(page.locator("#scan-verdict .sentence")).to_contain_text("Inconclusive. Too few clean texts")
    lost = visits.visitor("?scan=" + "x" * 32)
    expect(lost.locator("#notice")).to_contain_text("There is no such job")


def test_the_report_that_is_taken_away_has_the_verdict_of_the_scan(visits: Visits, finished: str, scanned: str) -> None:
    page = visits.visitor(f"?job={finished}&scan={scanned}")
    expect(tab_of(page, "purify")).to_have_attribute("aria-selected", "true")  # the link leads there first
    open_step(page, "take")
    expect(page.locator("#take-away")).to_contain_text("and what the scan of step 3 says")
    with page.expect_download() as started:
        page.locator("#take-away a[download='mbtsad-report.html']").click()
    report = Path(started.value.path()).read_text("utf-8")
    record = visits.store.get(scanned).result
    assert record is not None
    assert f"<b>{record['verdict'].capitalize()}.</b> {record['reason']}" in unescape(report).partition("<h2>")[0]
    page = visits.visitor(f"?job={finished}")
    open_step(page, "take")
    expect(page.locator("#take-away")).to_contain_text("Print it or send it.")
    expect(page.locator("#take-away")).not_to_contain_text("step 3")
