"""The guided tour: the same page, a stop a step, narrated with the visitor's own figures."""

from __future__ import annotations

import re

from browser import NEEDS_BROWSER, Visits, open_step, overflow, rail
from playwright.sync_api import expect

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]
TITLES = [
    "The suspect",
    "What the cure may know",
    "Is anything in it?",
    "Words cut in two",
    "The cure",
    "What changed inside",
    "Try it yourself",
    "Take it home",
]


def test_the_tour_leads_through_every_step_and_ends(visits: Visits) -> None:
    page = visits.visitor()
    tour = page.locator("#tour-text")
    expect(page.locator("#tour")).to_be_hidden()
    page.locator("#start-tour").click()
    for i, title in enumerate(TITLES):
        expect(tour.locator("h3")).to_have_text(title)
        expect(tour.locator("p").first).to_have_text(f"Guided tour, {i + 1} of {len(TITLES)}")
        expect(rail(page).nth(i)).to_have_attribute("aria-selected", "true")
        expect(page.locator("#tour-next")).to_have_text("Next stop" if i < len(TITLES) - 1 else "End of the tour")
        page.locator("#tour-next").click()
    expect(page.locator("#tour")).to_be_hidden()


def test_the_tour_speaks_of_what_was_measured(visits: Visits) -> None:
    page = visits.visitor()
    page.locator("#start-tour").click()
    expect(page.locator("#tour-text")).to_contain_text(
        re.compile(r"333 of 333 texts go to “positive”: that is its backdoor, and 100\.0 %")
    )
    page.locator("#tour-next").click()
    expect(page.locator("#tour-text")).to_contain_text("666 clean texts with their labels. Not the trigger")


def test_the_tour_can_be_left_and_started_again(visits: Visits) -> None:
    page = visits.visitor(width=390)
    page.locator("#start-tour").click()
    page.locator("#tour-next").click()
    expect(page.locator("#tour-text h3")).to_have_text(TITLES[1])
    assert overflow(page) == 0
    page.locator("#tour-leave").click()
    expect(page.locator("#tour")).to_be_hidden()
    expect(rail(page).nth(1)).to_have_attribute("aria-selected", "true")  # he stays where he was
    open_step(page, "purify")
    page.locator("#start-tour").click()
    expect(page.locator("#tour-text h3")).to_have_text(TITLES[0])
