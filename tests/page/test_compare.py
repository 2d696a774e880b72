"""Other methods beside MBTSAD on the page: picked, run, stopped, and their figures in one table."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from browser import LATE, NEEDS_BROWSER, SOON, Visits, choose, field, halted, open_step, overflow, request, state, toast
from conftest import ROOT, finish
from playwright.sync_api import Locator, Page, expect

from mbtsad_core.defenses import DEFENSES
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.page.compare import offered, others
from mbtsad_core.rates import rate_of
from mbtsad_core.service.comparison import (
    Comparison,
    floor_behind,
    is_comparison,
    read_inputs,
    run_defense,
    run_detector,
)
from mbtsad_core.service.purification import Request
from mbtsad_core.service.store import ACTIVE, State
from mbtsad_core.types import Rate
from mbtsad_core.views.words import percent, rate

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]


@pytest.fixture(scope="module")
def asked(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """A quick run of MBTSAD on the tiny suspect; the others are compared with it."""
    return request(suspect_dir, tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def page(all_visits: Visits, asked: Request) -> Page:
    page = all_visits.visitor(f"?job={all_visits.store.create(asked.to_dict())}")
    state(page, "done")
    open_step(page, "purify")
    page.locator("#compare button").first.click()
    return page


def label(method: str) -> str:
    return f"{others()[method].title}: {others()[method].about}"


def row(page: Page, name: str) -> Locator:
    return page.locator("#compared tbody tr").filter(
        has=page.locator("th", has_text=re.compile(rf"^{re.escape(name)}"))
    )


def run(page: Page, method: str) -> Locator:
    """Pick a method and run it: its row."""
    choose(page, "#compare-method", label(method))
    page.locator("#compare-run").click()
    found = row(page, others()[method].title)
    expect(found).to_be_visible()
    return found


def in_words(*rates: Rate | None) -> list[str]:
    return [f"{100 * r.share:.1f} %[{100 * r.low:.1f}, {100 * r.high:.1f}]" for r in rates if r is not None]


def test_the_menu_has_every_method_and_says_what_is_lacking_and_how_settings_change(page: Page) -> None:
    expect(page.locator("#compared")).to_contain_text(
        "No other method has been run on this suspect, these texts and this trigger."
    )
    expect(page.locator("#compare-run")).to_be_enabled()
    expect(page.locator("#compare-stop")).to_be_disabled()
    field(page, "#compare-method").click()
    expect(page.locator("#compare-method").get_by_role("option")).to_have_text(
        [re.compile(re.escape(name)) for name, _ in offered()]
    )
    page.locator("#compare-method").get_by_role("option", name=label("rap"), exact=True).click()
    if len(offered()) < len(others()):
        expect(page.locator("#compare-lacking")).to_contain_text("ONION lacks a causal language model")
    expect(page.locator("#compare-about code")).to_have_text("mbtsad detect rap --help")
    expect(page.locator("#compare-pretrained")).to_have_count(0)
    choose(page, "#compare-method", label("fine_mixing"))
    expect(page.locator("#compare-about code")).to_have_text("mbtsad defend fine_mixing --help")
    expect(field(page, "#compare-pretrained")).to_be_visible()
    page.locator("#compare-run").click()
    toast(page, "Fine-Mixing needs the encoder that the suspect was fine-tuned from.")


def test_a_defense_and_a_detector_stand_beside_mbtsad_with_the_figures_of_the_command_line(
    page: Page, all_visits: Visits, asked: Request
) -> None:
    cft, strip = run(page, "cft"), run(page, "strip")
    for found in (cft, strip):
        expect(found.locator("td")).to_have_count(4, timeout=LATE)
    inputs = read_inputs(asked)
    defended, _ = finish(run_defense("cft", inputs, DEFENSES["cft"].config))
    detected, _ = finish(run_detector("strip", inputs, DETECTORS["strip"].config))
    assert [cell.text_content() for cell in cft.locator("td.number").all()] == in_words(
        *(getattr(defended.after, key) for key in ("cacc", "asr", "asr_floor"))
    )
    assert [cell.text_content() for cell in strip.locator("td.number").all()] == in_words(
        detected.behind.cacc, detected.behind.asr, floor_behind(detected, inputs)
    )
    assert detected.behind.far is not None
    expect(strip.locator("th")).to_contain_text(
        f"FRR {100 * detected.behind.frr.share:.1f} %, FAR {100 * detected.behind.far.share:.1f} %"
    )
    suspect = [cell.text_content() for cell in row(page, "suspect").locator("td.number").all()]
    assert suspect == in_words(defended.before.cacc, defended.before.asr, defended.before.asr_floor)

    result = all_visits.job(page).result or {}
    for at, key in enumerate(("cacc", "asr", "asr_floor")):
        expect(row(page, "MBTSAD").locator("td.number b").nth(at)).to_have_text(
            f"{100 * result['purified'][key]:.1f} %"
        )
    expect(page.locator("#compared tbody tr")).to_have_count(4)
    expect(cft.locator("td").last).to_have_text(re.compile(r"^(\d+ min )?\d+ s$"))
    jobs = [job for job in all_visits.store.in_state(State.DONE) if is_comparison(job.request)]
    assert {Comparison.from_dict(job.request).method for job in jobs} == {"cft", "strip"}
    assert len({job.owner for job in jobs}) == 1


def numbers(table: Locator) -> list[list[str]]:
    """The figures of each row, as they are read."""
    rows = table.locator("tbody tr").all()
    return [[cell.text_content() or "" for cell in row.locator("td.number").all()] for row in rows]


def test_page_report_and_json_have_the_same_figures(page: Page, tmp_path: Path) -> None:
    """Those that were compared with it too; the report of the run's own folder knows nothing of these."""
    shown = numbers(page.locator("#compared"))
    open_step(page, "take")
    files = {}
    for name in ("report.html", "report.json", "report.sarif"):
        with page.expect_download() as started:
            page.locator(f"#take-away a[download='mbtsad-{name}']").click()
        started.value.save_as(tmp_path / name)
        files[name] = tmp_path / name
    report = json.loads(files["report.json"].read_text("utf-8"))
    jsonschema.Draft202012Validator(json.loads((ROOT / "docs" / "report.schema.json").read_text())).validate(report)
    assert [one["method"] for one in report["compared"]] == ["strip", "cft"]
    tab = page.context.new_page()
    tab.goto(files["report.html"].as_uri())
    assert sorted(numbers(tab.locator(".compared"))) == sorted(shown)
    stages = [part.locator(".stages td.number").all_text_contents() for part in (tab, page.locator("#stages"))]
    assert stages[0] == stages[1] != []
    head = page.locator("#take-away h3").text_content() or ""
    for model in ("suspect", "purified"):
        rates = [rate_of(report[model], name) for name in ("cacc", "asr", "asr_floor")]
        cells = tab.locator("table.figures tr", has=tab.locator(f"th:text-is('{model}')")).first.locator("td").all()
        assert [cell.text_content() for cell in cells] == [rate(found) for found in rates]
        assert all(found and percent(found.share) in head for found in rates[:2])
    assert json.loads(files["report.sarif"].read_text("utf-8"))["runs"][1]["results"]
    tab.close()
    open_step(page, "purify")


def test_what_fails_says_why(page: Page) -> None:
    choose(page, "#compare-method", label("fine_purifying"))
    field(page, "#compare-pretrained").fill("nobody/nothing")
    page.locator("#compare-run").click()
    expect(row(page, "Fine-Purifying").locator("td")).to_contain_text(
        "failed: The Hub model 'nobody/nothing' could not be fetched", timeout=LATE
    )


def test_a_closed_tab_loses_nothing_and_another_trigger_has_figures_of_its_own(page: Page) -> None:
    again = page.context.new_page()
    again.goto(page.url)
    expect(row(again, "CFT").locator("td.number")).to_have_count(3)  # open, as there is something in it
    expect(row(again, "STRIP").locator("td.number")).to_have_count(3)
    open_step(again, "purify")
    expect(field(again, "#measure-trigger")).to_have_value("cf")
    field(again, "#measure-trigger").fill("mn")
    again.locator("#measure").click()
    expect(again.locator("#compared")).to_contain_text(
        "No other method has been run on this suspect, these texts and this trigger."
    )
    field(again, "#measure-trigger").fill("cf")
    again.locator("#measure").click()
    expect(row(again, "CFT").locator("td.number")).to_have_count(3)
    again.close()


def test_it_fits_every_window_in_both_themes(page: Page) -> None:
    """Set MBTSAD_SCREENSHOTS to a folder to keep the pictures."""
    folder = os.environ.get("MBTSAD_SCREENSHOTS")
    for theme in ("light", "dark"):
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            expect(row(page, "CFT").locator("td.number b").first).to_be_visible()
            assert overflow(page) == 0
            if folder:
                page.locator("#compare").scroll_into_view_if_needed()
                page.screenshot(path=Path(folder) / f"compare-{width}-{theme}.png", full_page=True)
        page.locator("#dark").dispatch_event("click")


class TestBehindALongRun:
    """That has the one worker, so that what comes after it is still waiting when it is stopped."""

    @pytest.fixture(autouse=True, scope="class")
    def busy(self, all_visits: Visits, suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        store = all_visits.store
        id = store.create(request(suspect_dir, tmp_path_factory.mktemp("busy"), epochs=1000).to_dict())
        with halted(store, id):
            yield
        assert store.get(id).state in ACTIVE
        store.request_cancel(id)

    def test_one_is_stopped(self, page: Page) -> None:
        found = run(page, "mbtsad_no_att")
        page.locator("#compare-stop").click()
        expect(found.locator("td")).to_have_text("stopped", timeout=SOON)
        expect(page.locator("#compare-run")).to_be_enabled()
        expect(page.locator("#compare-stop")).to_be_disabled()

    def test_another_visitor_sees_none_of_it_and_runs_the_first_method_at_once(
        self, page: Page, all_visits: Visits
    ) -> None:
        other = all_visits.visitor("?job=" + all_visits.job(page).id)
        open_step(other, "purify")
        other.locator("#compare button").first.click()
        expect(other.locator("#compared")).to_contain_text("No other method has been run")
        other.locator("#compare-run").click()
        expect(other.locator("#compare-said")).to_contain_text("TS-FT is in the queue.")
        expect(row(other, "TS-FT")).to_be_visible()
        other.locator("#compare-stop").click()
        expect(row(other, "TS-FT").locator("td")).to_have_text("stopped")
        expect(other.locator("#compared tbody tr")).to_have_count(3)
