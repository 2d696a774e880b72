"""Nothing lies over what a visitor reads or presses, and nothing is cut off where he cannot scroll."""

from __future__ import annotations

import re

import pytest
from browser import NEEDS_BROWSER, Visits, field, open_step, overflow, source
from playwright.sync_api import Page, expect

from mbtsad_core.page.parts import STEPS

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]
BROAD_OR_NARROW = [pytest.param(1440, marks=pytest.mark.slow), 390]  # where it is tighter
# Whether a click in the middle of the control reaches it.
REACHED = (
    "e => { const box = e.getBoundingClientRect(); return e.contains(document.elementFromPoint(box.x + "
    "box.width / 2, box.y + box.height / 2)); }"
)
# What shows in the strip's place and is not part of it, however far the page is scrolled.
SHINING = """() => {
  const strip = document.querySelector("#top"), found = new Set();
  for (let y = 0; y < document.documentElement.scrollHeight; y += 40) {
    window.scrollTo(0, y);
    const {left, right, top, bottom} = strip.getBoundingClientRect();
    for (let x = left + 2; x < right; x += 16) for (let y = top + 2; y < bottom - 1; y += 6) {
      const there = document.elementFromPoint(x, y);
      if (there && !strip.contains(there)) found.add(there.outerHTML.slice(0, 80));
    }
  }
  window.scrollTo(0, 0);
  return [...found];
}"""


def reaches(page: Page, name: str | re.Pattern[str]) -> None:
    button = page.get_by_role("button", name=name)
    button.scroll_into_view_if_needed()
    assert button.evaluate(REACHED)


@pytest.mark.parametrize("width", BROAD_OR_NARROW)
def test_the_flipped_texts_lie_over_nothing(visits: Visits, width: int) -> None:
    page = visits.visitor(width=width)
    open_step(page, "triggers")
    expect(field(page, "#lab-trigger")).to_have_value("cf")
    page.locator("#try-trigger").click()
    expect(page.locator("#flips .row:not(.head)")).to_have_count(50)
    reaches(page, "Next: take it away")
    footer = page.locator("footer")
    footer.scroll_into_view_if_needed()
    assert footer.evaluate(REACHED)
    assert "·" not in footer.inner_text()  # a dot that parts nothing
    last = page.locator("#flips .row").last
    last.scroll_into_view_if_needed()  # in a box of its own
    assert last.evaluate(REACHED)
    page.get_by_role("button", name="Next: take it away").click()
    expect(page.locator("#take-away .empty")).to_be_visible()


@pytest.mark.parametrize("width", BROAD_OR_NARROW)
def test_nothing_shines_through_the_strip(visits: Visits, width: int) -> None:
    page = visits.visitor(width=width)
    for step in STEPS:
        open_step(page, step)
        match step:
            case "suspect":
                source(page, "#sources", "Upload")
            case "clean":
                source(page, "#clean-sources", "Upload")
            case "purify":
                page.locator("#settings button").first.click()
                expect(page.locator("#use-settings")).to_be_visible()
        assert page.evaluate(SHINING) == []


def test_all_of_a_wide_table_can_be_reached_on_a_narrow_screen(visits: Visits, finished: str) -> None:
    page = visits.visitor(f"?job={finished}", width=390)
    open_step(page, "inside")
    cell = page.locator("#outlying tbody tr").first.locator("td").last
    cell.scroll_into_view_if_needed()
    expect(cell).to_have_text(re.compile(r"^[\d.]+ \([\d.]+\)$"))
    box, room = cell.bounding_box(), page.viewport_size
    assert box
    assert room
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= room["width"]
    assert cell.evaluate(REACHED)
    assert overflow(page) == 0


@pytest.mark.parametrize("width", BROAD_OR_NARROW)
def test_the_title_of_the_curves_is_not_cut_off(visits: Visits, finished: str, width: int) -> None:
    page = visits.visitor(f"?job={finished}", width=width)
    title = page.locator("#curves .gtitle")
    expect(title).to_contain_text("CACC 100.0 %")
    box, plot = title.bounding_box(), page.locator("#curves .plot").bounding_box()
    assert box
    assert plot
    assert box["x"] + box["width"] <= plot["x"] + plot["width"]
