"""Inside: what a pointer or a key lights up, the linked panels of the projection, and the way to the trigger lab."""

from __future__ import annotations

from typing import Any

import pytest
from browser import NEEDS_BROWSER, Visits, field, points, state
from playwright.sync_api import Locator, Page, expect

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]
# Of a canvas, how many of its pixels are neither empty nor of a point: what lies over the points
OVER = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.filter((v, i) => i % 4 === 3 && v).length"
PICTURE = "canvas => canvas.toDataURL()"


@pytest.fixture(scope="module")
def page(all_visits: Visits, finished: str) -> Page:
    """A visitor of a finished run who has opened Inside, all of it drawn."""
    page = all_visits.visitor(f"?job={finished}")
    state(page, "done")
    page.locator("#step-inside-button").click()
    expect(page.locator("#attention-triggered canvas")).to_have_count(4)
    expect(page.locator("#projection canvas.points")).to_have_count(2)
    return page


@pytest.fixture(autouse=True)
def check(all_visits: Visits) -> Any:
    yield
    all_visits.check()


def over(page: Page, n: int) -> Locator:
    return page.locator("#projection canvas.over").nth(n)


def texts(page: Page) -> int:
    return int(page.locator("#projection canvas.points").first.get_attribute("data-points") or 0)


def test_a_token_of_the_sentence_lights_up_in_all_maps_of_both_views(page: Page) -> None:
    plain, triggered = page.locator("#attention-plain"), page.locator("#attention-triggered")
    maps = [*plain.locator("canvas").all(), *triggered.locator("canvas").all()]
    before = [canvas.evaluate(PICTURE) for canvas in maps]
    last = plain.locator(".sentence button").nth(1)
    last.hover()
    word = last.inner_text()
    expect(triggered.locator(".sentence button.lit")).to_have_text(word)
    expect(plain.locator(".read")).to_contain_text(f"{word} (2) is looked at, on average")
    assert [canvas.evaluate(PICTURE) == old for canvas, old in zip(maps, before, strict=True)] == [False] * len(maps)
    page.mouse.move(0, 0)
    expect(page.locator(".sentence button.lit")).to_have_count(0)
    assert [canvas.evaluate(PICTURE) for canvas in maps] == before
    trigger = triggered.locator(".sentence button.marked")
    expect(trigger).to_have_text("cf")
    trigger.focus()  # of no place in the text without it
    expect(triggered.locator(".sentence button.lit")).to_have_text("cf")
    expect(plain.locator(".sentence button.lit")).to_have_count(0)
    page.keyboard.press("ArrowLeft")
    expect(plain.locator(".sentence button.lit")).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.locator(".sentence button.lit")).to_have_count(0)


def test_the_sum_over_heads_is_a_click_away_and_back(page: Page) -> None:
    where = page.locator("#attention-triggered .where")
    began = where.inner_text().split(" sum")[0]
    where.get_by_role("button", name="sum over heads").click()
    expect(where).to_contain_text("sum over heads, eq. (3)")
    where.get_by_role("button", name="the head that moved most").click()
    expect(where).to_contain_text(began)


def test_pointing_at_a_text_marks_it_in_both_panels_and_says_what_it_is(page: Page) -> None:
    over(page, 0).focus()
    assert [over(page, n).evaluate(OVER) for n in (0, 1)] == [0, 0]
    page.keyboard.press("ArrowRight")
    expect(page.locator("#projection .tip")).to_be_visible()
    page.wait_for_function("document.querySelector('#projection .tip').innerText.length > 10")
    page.evaluate("new Promise(requestAnimationFrame)")
    assert all(over(page, n).evaluate(OVER) > 50 for n in (0, 1))
    page.keyboard.press("Tab")
    expect(page.locator("#projection .tip")).to_be_hidden()


def test_the_slider_moves_each_text_from_before_to_after(page: Page) -> None:
    before, after = page.locator("#projection canvas.points").all()
    slider = page.get_by_label("From suspect to purified, in %")
    at_the_end = after.evaluate(PICTURE)
    assert before.evaluate(PICTURE) != at_the_end
    slider.fill("0")
    caption = page.locator("#projection figcaption").nth(1)
    expect(caption).to_have_text("suspect: before")
    page.wait_for_function(
        "([a, b]) => a.toDataURL() === b.toDataURL()", arg=[before.element_handle(), after.element_handle()]
    )
    slider.fill("40")
    expect(caption).to_have_text("40 % of the way from suspect to purified")
    page.get_by_role("button", name="▶ Play").click()  # at once, for who asked for less motion
    expect(caption).to_have_text("purified")
    page.wait_for_function("([a, old]) => a.toDataURL() === old", arg=[after.element_handle(), at_the_end])


def test_the_legend_hides_a_set_and_a_class(page: Page) -> None:
    both = 2 * texts(page)
    for kind in ("triggered", "negative"):
        toggle = page.locator("#projection .legend button", has_text=kind)
        n = int(toggle.locator("span").inner_text())
        assert n > 0
        toggle.click()
        expect(toggle).to_have_attribute("aria-pressed", "false")
        points(page, both - 2 * n)
        toggle.click()
        points(page, both)


def test_search_and_lasso_list_texts(page: Page) -> None:
    page.get_by_role("searchbox", name="Search the texts").fill("cf")
    said = page.locator("#projection .said")
    expect(said).to_contain_text("texts hold “cf”")
    rows = page.locator("#projection .found li .text")
    assert all("cf" in text.lower() for text in rows.all_inner_texts())
    page.get_by_role("button", name="Whole picture").click()
    expect(rows).to_have_count(0)
    page.get_by_role("button", name="Lasso").click()
    over(page, 0).scroll_into_view_if_needed()
    box = over(page, 0).bounding_box()
    assert box
    left, top, right, bottom = box["x"] + 2, box["y"] + 2, box["x"] + box["width"] - 2, box["y"] + box["height"] - 2
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(x, y)
    page.mouse.up()
    expect(said).to_contain_text(f"{texts(page)} of {texts(page)} texts lie in the lasso")  # around all of them
    expect(rows).to_have_count(50)


def test_a_text_of_the_list_opens_in_the_attention_maps_and_goes_to_the_lab(page: Page) -> None:
    page.get_by_role("searchbox", name="Search the texts").fill("cf")
    row = page.locator("#projection .found li").first
    text = row.locator(".text").inner_text()
    row.locator(".text").click()
    expect(field(page, "#attention-text")).to_have_value(text)
    expect(page.locator("#attention-plain .sentence button.lit")).to_have_count(0)
    row.get_by_role("button", name="To the trigger lab").click()
    expect(page.locator("#step-triggers-button")).to_have_attribute("aria-selected", "true")
    expect(field(page, "#sentence-box")).to_have_value(text)
    expect(page.locator("#tokens")).to_contain_text("integrated gradients")
    page.locator("#step-inside-button").click()
    field(page, "#attention-text").fill("a slow film")
    field(page, "#attention-trigger").fill("cf")
    page.locator("#attention-to-lab").click()
    expect(field(page, "#sentence-box")).to_have_value("a cf slow film")
    expect(field(page, "#lab-trigger")).to_have_value("cf")


def test_a_trigger_is_compared_with_a_neutral_phrase_of_its_length(page: Page) -> None:
    page.locator("#step-triggers-button").click()
    expect(field(page, "#lab-trigger")).not_to_have_value("")  # the step is ready
    field(page, "#lab-trigger").fill("cf")
    page.locator("#try-neutral").click()
    rows = page.locator("#trials tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("neutral phrase")
    expect(page.locator("#trials button[aria-pressed=true]")).to_have_text("cf")
    expect(page.locator("#trial-progress")).to_contain_text("With cf, and with the neutral phrase")


def test_another_trigger_is_tried_and_the_one_before_looked_at_again(page: Page) -> None:
    page.locator("#step-triggers-button").click()
    expect(field(page, "#lab-trigger")).not_to_have_value("")  # the step is ready
    rows, pressed = page.locator("#trials tbody tr"), page.locator("#trials button[aria-pressed=true]")
    suspect, before = dict[str, float](), rows.count()
    for n, trigger in enumerate(("cf", "music"), before + 1):
        field(page, "#lab-trigger").fill(trigger)
        page.locator("#try-trigger").click()
        expect(rows).to_have_count(n)
        expect(pressed).to_have_text(trigger)
        row = rows.filter(has=page.get_by_role("button", name=trigger, exact=True)).first
        suspect[trigger] = float(row.locator("td.rate b").first.inner_text().removesuffix(" %"))
    assert suspect["music"] < 60 < 95 < suspect["cf"]
    page.locator("#trials").get_by_role("button", name="cf", exact=True).first.click()
    expect(page.locator("#flips .note")).to_contain_text("With cf,")
    expect(pressed).to_have_text("cf")
