"""The page without a mouse and without eyes: the order of Tab, the arrow keys, names of what can be operated, words for
what is drawn."""

from __future__ import annotations

import pytest
from browser import NEEDS_BROWSER, Visits, open_step, rail
from playwright.sync_api import Page, expect

from mbtsad_core.page.parts import STEPS

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]
# What the browser offers to a screen reader for each control that can be seen, and is without a name.
NAMELESS = """() => [...document.querySelectorAll('input, textarea, select, button, a[href], [role=tab], [role=radio], [role=slider], [role=combobox]')]
  .filter((e) => e.checkVisibility({visibilityProperty: true, opacityProperty: true}) && e.type !== 'hidden' && !e.closest('[aria-hidden=true]'))
  .filter((e) => !(e.getAttribute('aria-label')?.trim() || e.title?.trim() || e.innerText?.trim() || e.querySelector('img[alt]')?.alt
    || (e.getAttribute('aria-labelledby') || '').split(' ').some((id) => document.getElementById(id)?.textContent.trim())
    || [...(e.labels || [])].some((label) => label.textContent.trim())))
  .map((e) => e.outerHTML.slice(0, 300))"""


@pytest.fixture
def page(visits: Visits) -> Page:
    return visits.visitor()


def focused(page: Page) -> str:
    return str(
        page.evaluate("document.activeElement.id || document.activeElement.innerText || document.activeElement.tagName")
    )


def tab_to(page: Page, selector: str, most: int = 40) -> int:
    """Press Tab until this has the focus: how many times."""
    for n in range(1, most + 1):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return n
    raise AssertionError(f"{most} times Tab do not reach {selector}; the focus is on {focused(page)}")


def test_tab_reaches_the_steps_and_then_the_demo(page: Page) -> None:
    tab_to(page, "#start-tour")
    tab_to(page, "#steps [role=tab]", most=5)
    tab_to(page, "#run-demo", most=12)
    expect(page.locator("#run-demo")).to_be_focused()


def test_the_arrow_keys_move_along_the_rail(page: Page) -> None:
    rail(page).first.focus()
    for key, place in (
        ("ArrowDown", 1),
        ("ArrowRight", 2),
        ("ArrowUp", 1),
        ("ArrowLeft", 0),
        ("ArrowLeft", len(STEPS) - 1),
        ("ArrowDown", 0),
        ("ArrowRight", 1),
    ):
        page.keyboard.press(key)
        expect(rail(page).nth(place)).to_be_focused()
    page.keyboard.press("Enter")
    expect(rail(page).nth(1)).to_have_attribute("aria-selected", "true")
    expect(page.locator("#clean-check h3")).to_be_visible()


def test_the_run_can_be_started_and_stopped_without_a_mouse(page: Page) -> None:
    page.locator("#run-demo").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#stop")).to_be_enabled()
    page.locator("#stop").focus()
    page.keyboard.press("Space")
    expect(page.locator("#strip .job")).to_have_text("stopped")


def test_everything_that_can_be_operated_has_a_name(page: Page) -> None:
    for step in STEPS:
        open_step(page, step)
        if step == "purify":
            page.locator("#settings button").first.click()
            expect(page.locator("#use-settings")).to_be_visible()
        if step == "inside":
            expect(page.locator("#attention-plain canvas").first).to_be_visible()
        assert page.evaluate(NAMELESS) == [], step


def test_a_plot_says_in_words_what_it_shows(page: Page) -> None:
    open_step(page, "splits")
    expect(
        page.locator("#loss-bars").get_by_role("img", name="Mean cross-entropy in nats under the suspect: ")
    ).to_be_visible()
    expect(page.locator("#loss-bars figcaption")).to_contain_text("original 0.")
    open_step(page, "inside")
    expect(
        page.locator("#projection").get_by_role("img", name="600 texts by PCA. Share outside the clean 95 % region.")
    ).to_be_visible()
    for canvas in page.locator("#attention-plain canvas").all():
        assert canvas.get_attribute("aria-label") or canvas.evaluate("e => e.closest('[aria-label]') !== null")


def draw_again(page: Page) -> None:
    """As an answer that comes late does: a head is chosen, and the focus stays where it is."""
    other = page.locator("#attention-plain .grid button[aria-pressed=false]").first
    name = other.get_attribute("aria-label")
    other.evaluate("button => button.click()")
    expect(page.locator("#attention-plain .grid button[aria-pressed=true]")).to_have_attribute("aria-label", str(name))


def test_what_has_the_focus_keeps_it_where_maps_are_drawn_anew(page: Page) -> None:
    open_step(page, "inside")
    for control in (".where button >> nth=0", ".sentence button >> nth=2", "canvas >> nth=0"):
        focus = page.locator("#attention-plain").locator(control)
        focus.focus()
        draw_again(page)
        expect(focus).to_be_focused()


def test_the_heads_of_a_model_are_one_stop_and_the_arrow_keys_move_among_them(page: Page) -> None:
    open_step(page, "inside")
    grid = page.locator("#attention-plain .grid")
    grid.get_by_label("layer 4, sum over heads").click()
    expect(grid.get_by_label("layer 4, sum over heads")).to_have_attribute("aria-pressed", "true")
    expect(grid.locator("button[tabindex='0']")).to_have_count(1)
    grid.locator("button[tabindex='0']").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    expect(grid.get_by_label("layer 3, head 12:")).to_be_focused()
    draw_again(page)
    expect(grid.get_by_label("layer 3, head 12:")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#attention-plain .where")).to_contain_text("Layer 3, head 12")


def test_the_state_of_a_run_is_announced(page: Page) -> None:
    expect(page.get_by_role("region", name="Status")).to_contain_text("no run yet")
    expect(page.locator("html")).to_have_attribute("lang", "en")
