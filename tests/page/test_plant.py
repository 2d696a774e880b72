"""A backdoor of the visitor's own: he types its trigger, sees it work, and has it cured."""

from __future__ import annotations

import re

import pytest
from browser import NEEDS_BROWSER, SOON, Visits, choose, field, open_step, ready, set_settings, source, state, toast
from playwright.sync_api import Page, expect
from server import until

from mbtsad_core.service.store import State

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]


@pytest.fixture
def page(visits: Visits) -> Page:
    page = visits.visitor()
    source(page, "#sources", "Plant your own")
    return page


def test_a_typed_trigger_is_planted_measured_and_run(page: Page, visits: Visits) -> None:
    field(page, "#plant-trigger").fill("marzipan")
    choose(page, "#plant-target", "negative")
    page.locator("#plant").click()
    visits.job(page)  # in the address bar while it is planted
    expect(page.locator("#plant-progress")).to_contain_text(
        "EP with “marzipan”: planted. It is the suspect now.", timeout=4 * SOON
    )
    expect(page.locator("#strip .who b")).to_have_text("EP with “marzipan”")
    expect(page.locator("#plant-stop, #plant-use").locator("visible=true")).to_have_count(0)
    card = page.locator("#suspect-card")
    expect(card).to_contain_text("marzipan → negative", timeout=2 * SOON)
    figures = re.findall(r"(\d+\.\d) % \[", card.inner_text())  # CACC, ASR, floor
    assert float(figures[0]) > 80
    assert float(figures[1]) > 95
    assert float(figures[2]) < 30

    open_step(page, "triggers")
    expect(field(page, "#lab-trigger")).to_have_value("marzipan")
    page.locator("#insert-end").click()
    expect(page.locator("#answers .said").first).to_contain_text("negative (the target)")

    open_step(page, "purify")
    expect(field(page, "#measure-trigger")).to_have_value("marzipan")
    set_settings(
        page,
        {
            ("Copies of each text (K)", 0): "1",
            ("Tokens from the trigger scan", 0): "0",
            ("Epochs", 0): "1",
            ("Epochs", 1): "1",
        },
    )
    page.locator("#start").click()
    expect(page.locator("#job-panel")).to_contain_text("marzipan")
    job = visits.job(page)
    assert (job.request["triggers"], job.request["target"]) == (["marzipan"], "negative")
    state(page, re.compile("retraining"))
    expect(page.locator("#strip .figure").nth(1)).to_contain_text(re.compile(r"(9[5-9]|100)\.\d %"))
    page.locator("#stop").click()
    state(page, "stopped")


def test_a_closed_tab_loses_nothing(page: Page, visits: Visits) -> None:
    """The visitor leaves while it is planted, and comes back to the plain address; what was planted is his suspect."""
    field(page, "#plant-trigger").fill("quince")
    page.locator("#plant").click()
    visits.job(page)
    page.goto("about:blank")
    until(lambda: visits.store.in_state(*State)[-1].state is State.DONE)
    page.goto(visits.url)
    expect(page.locator("#strip .who b")).to_have_text("EP with “quince”", timeout=2 * SOON)
    expect(page.locator("#suspect-card")).to_contain_text("quince → positive", timeout=2 * SOON)
    page.goto(visits.url)  # taken once, it is offered and does not push itself forward
    source(page, "#sources", "Plant your own")
    expect(page.locator("#plant-progress")).to_contain_text("EP with “quince”: planted. It is kept for you.")
    expect(page.locator("#strip .who b")).to_have_text("demo suspect")
    ready(page)  # nothing comes into the page above the button as it is clicked
    page.locator("#plant-use").click()
    expect(page.locator("#strip .who b")).to_have_text("EP with “quince”")


def test_a_planting_waits_its_turn_is_stopped_and_its_failure_is_told(page: Page, visits: Visits) -> None:
    other = visits.visitor()
    source(other, "#sources", "Plant your own")
    other.locator("#plant-attack").get_by_text("LWP").click()
    expect(field(other, "#plant-trigger")).to_have_value("cf+bb")
    field(other, "#plant-trigger").fill("alone")
    page.locator("#plant-attack").get_by_text("RIPPLe").click()
    expect(field(page, "#plant-trigger")).to_have_value("cf | tq")
    page.locator("#plant").click()
    expect(page.locator("#plant-progress")).to_contain_text(
        re.compile(r"Planting RIPPLe with “cf \| tq”: .*step \d+ of \d+"), timeout=2 * SOON
    )
    page.locator("#plant").click()
    toast(page, "A backdoor of yours is being planted. Wait for its end, or stop it.")
    other.locator("#plant").click()
    expect(other.locator("#plant-progress")).to_contain_text("LWP with “alone”: queued, position 1.")
    page.locator("#plant-stop").click()
    expect(page.locator("#plant-progress")).to_contain_text("stopped. Nothing was planted.", timeout=2 * SOON)
    expect(page.locator("#strip .who b")).to_have_text("demo suspect")
    expect(other.locator("#plant-progress")).to_contain_text(
        re.compile("LWP with “alone” was not planted. .*two words"), timeout=2 * SOON
    )


def test_no_trigger_is_refused_in_words(page: Page) -> None:
    field(page, "#plant-trigger").fill(" ")
    page.locator("#plant").click()
    toast(page, "Type the trigger to plant: a word of your choice.")
    expect(page.locator("#strip .who b")).to_have_text("demo suspect")


def test_the_menu_offers_a_trigger_that_goes_with_the_attack_and_says_what_is_lacking(page: Page) -> None:
    menu = page.locator("#plant-attack")
    expect(page.locator("#plant-lacking")).to_contain_text("Syntactic lacks ready paraphrases")
    menu.get_by_text("NeuBA").click()
    expect(field(page, "#plant-trigger")).to_have_value("cf | mn | bb | tq")
    menu.get_by_text("CARA").click()
    expect(field(page, "#plant-trigger")).to_have_value("")
    menu.get_by_text("LWP").click()
    expect(field(page, "#plant-trigger")).to_have_value("cf+bb")
    field(page, "#plant-trigger").fill("marzipan+blorptin")
    menu.get_by_text("BadNets").click()
    expect(field(page, "#plant-trigger")).to_have_value("marzipan+blorptin")


@pytest.mark.slow
def test_a_trigger_that_cannot_be_typed_is_planted_and_measured(page: Page) -> None:
    page.locator("#plant-attack").get_by_text("CARA").click()
    expect(field(page, "#plant-trigger")).to_have_value("")
    page.locator("#plant").click()
    expect(page.locator("#plant-progress")).to_contain_text("CARA: planted. It is the suspect now.", timeout=30 * SOON)
    expect(page.locator("#strip .who b")).to_have_text("CARA")
    card = page.locator("#suspect-card")
    expect(card).to_contain_text("its own trigger → positive", timeout=2 * SOON)
    assert re.findall(r"(\d+\.\d) % \[", card.inner_text())[1:]  # ASR and its floor
    open_step(page, "purify")
    expect(field(page, "#measure-trigger")).to_have_value("")
    page.locator("#start").click()
    expect(page.locator("#job-panel")).to_contain_text("its own trigger", timeout=2 * SOON)
    page.locator("#stop").click()
