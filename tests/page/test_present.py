"""Large type for a wall: one switch for all steps, in reach of the keyboard, kept in the address."""

from __future__ import annotations

import re

import pytest
from browser import NEEDS_BROWSER, Visits, open_step, overflow, state
from playwright.sync_api import Locator, expect

from mbtsad_core.page.parts import STEPS

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]
# The height of a line of a box's first text, in pixels of the screen
LINE = """(box) => {
  const text = document.createTreeWalker(box, NodeFilter.SHOW_TEXT, (node) => node.data.trim() && node.parentElement.checkVisibility() ? 1 : 2).nextNode();
  const range = document.createRange();
  range.setStart(text, 0);
  range.setEnd(text, 1);
  return range.getBoundingClientRect().height;
}"""


def line(box: Locator) -> float:
    return float(box.evaluate(LINE))


@pytest.mark.slow
def test_one_key_makes_the_type_of_every_step_larger_and_a_new_tab_keeps_it(visits: Visits, finished: str) -> None:
    page = visits.visitor(f"?job={finished}", width=1280)
    state(page, "done")
    panel = page.locator("#steps > .tabitem:visible")
    before = {}
    for step in STEPS:
        open_step(page, step)
        expect(panel).to_have_count(1)
        before[step] = line(panel)
    page.locator("#present").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"[?&]present=1"))
    expect(page.locator("#present")).to_have_attribute("aria-pressed", "true")
    again = page.context.new_page()
    again.set_viewport_size({"width": 1280, "height": 900})
    again.goto(page.url)
    state(again, "done")
    panel = again.locator("#steps > .tabitem:visible")
    for step, height in before.items():
        open_step(again, step)
        expect(panel).to_have_count(1)
        assert line(panel) >= 1.4 * height, step
        assert overflow(again) == 0, step
    again.locator("#present").click()
    expect(again.locator("#present")).to_have_attribute("aria-pressed", "false")
    assert "present" not in again.url


def test_a_plot_in_large_type_still_finds_the_pointer(visits: Visits, finished: str) -> None:
    page = visits.visitor(f"?job={finished}&present=1&step=purify", width=1280)
    state(page, "done")
    point = page.locator("#curves .plot .points .point").last
    point.scroll_into_view_if_needed()
    expect(point).to_be_visible()
    place = point.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    expect(page.locator("#curves .hoverlayer .hovertext").first).to_be_visible()
    size = page.locator("#curves .x3tick text").first.evaluate("e => parseFloat(getComputedStyle(e).fontSize)")
    assert size == pytest.approx(18, abs=1)
