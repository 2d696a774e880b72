"""Plots: drawn however late their script comes, and without a control that reaches another host."""

from __future__ import annotations

import re

import pytest
from browser import HERE, NEEDS_BROWSER, Visits, marks, open_step, overflow, state
from playwright.sync_api import Page, Route, expect
from test_axe import serious

from mbtsad_core.page.components import PLOTLY_ROUTE
from mbtsad_core.page.first_look import PAPER
from mbtsad_core.page.parts import STEPS

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]
# What a visitor can press without leaving his place; what takes minutes of the machine is left out.
CONTROLS = "button, [role=button], [role=radio], summary"
PRESS = """(controls) => {
  const left = "[role=tab], #run-demo, #start, #scan-start, #plant, #compare-run, #bertviz *, .grid *, footer *";
  const seen = [...document.querySelectorAll(controls)].filter((e) => e.checkVisibility() && !e.disabled && !e.matches(left));
  for (const control of seen) control.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true}));
  return seen.length;
}"""


def held_back(visits: Visits, link: str) -> tuple[Page, list[Route]]:
    """A visitor of a finished run whose connection is slow: the page, and the plots' script, which has not come yet."""
    page, held = visits.visitor("?job=none", wait=False), list[Route]()
    page.goto("about:blank")
    page.route(f"**{PLOTLY_ROUTE}", lambda route: held.append(route))
    with page.expect_request(f"**{PLOTLY_ROUTE}"):
        page.goto(visits.url + link)
    state(page, "done")
    return page, held


@pytest.mark.parametrize("milliseconds", [0, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_curves_of_a_finished_run_are_drawn_however_late_their_script_comes(
    visits: Visits, finished: str, milliseconds: int
) -> None:
    page, (script,) = held_back(visits, f"?job={finished}")
    expect(page.locator("#suspect-card .card")).to_be_attached()  # the last of what a page asks for as it opens
    page.wait_for_function(
        "wait => performance.now() > performance.getEntriesByType('navigation')[0].domComplete + wait", arg=milliseconds
    )
    assert marks(page, "#curves", ".point") == 0
    script.fallback()
    expect(page.locator("#curves .plot .point").first).to_be_visible()
    expect(page.locator("#curves figcaption")).to_have_class("for-readers")


def test_a_script_that_did_not_come_is_asked_for_again(visits: Visits, finished: str) -> None:
    visits.expected.append("ERR_FAILED|Failed to load resource")
    page, (script,) = held_back(visits, f"?job={finished}")
    script.abort()
    expect(page.locator("#curves figcaption")).to_have_text("The plots' script could not be loaded. Reload the page.")
    page.unroute(f"**{PLOTLY_ROUTE}")
    open_step(page, "splits")
    expect(page.locator("#loss-bars .plot .barlayer .point").first).to_be_visible()


def test_a_plot_of_a_step_that_is_not_open_waits_for_it(visits: Visits, finished: str) -> None:
    page = visits.visitor(f"?job={finished}&step=take", wait=False)  # for a panel that this step has not
    state(page, "done")
    expect(page.locator("#take-away a.download")).to_have_count(4)
    assert page.evaluate("window.mbtsadPlotly === undefined")  # nor was its script fetched
    open_step(page, "purify")
    expect(page.locator("#curves .plot .point").first).to_be_visible()


def press_plots(page: Page, plots: str) -> None:
    """Press all that a plot's own bar offers; none of it sends the plot anywhere."""
    page.locator(f"{plots} .modebar-btn").first.wait_for(state="attached")
    buttons = page.locator(f"{plots} .modebar-btn")
    titles = buttons.evaluate_all("all => all.map((button) => button.dataset.title)")
    assert len(titles) >= 3
    assert not [title for title in titles if re.search("cloud|share|send|edit", title, re.IGNORECASE)]
    for i in range(len(titles)):
        buttons.nth(i).dispatch_event("click")


def test_no_control_of_a_plot_reaches_another_host(visits: Visits, finished: str) -> None:
    """`visits` fails on a request to elsewhere."""
    page = visits.visitor(f"?job={finished}")
    for step, plots in {"splits": "#loss-bars", "purify": "#curves"}.items():
        open_step(page, step)
        press_plots(page, plots)
    assert page.evaluate("document.querySelector('#curves .plot')._context.plotlyServerURL") == ""


def test_no_control_of_the_page_reaches_another_host(visits: Visits, finished: str) -> None:
    page = visits.visitor(f"?job={finished}")  # of a tiny suspect: what is pressed computes little
    state(page, "done")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for step in STEPS:
        open_step(page, step)
        assert page.evaluate(PRESS, CONTROLS) >= 3
    # Gradio's help for programs asks how often each was called, which this server does not say
    visits.expected.append("403")
    page.locator("footer button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert asked
    assert [url for url in asked if not HERE.match(url)] == []
    places = page.locator("#steps a[href], #top a[href], form[action]").evaluate_all(
        "all => all.map((e) => e.href || e.action)"
    )
    assert [url for url in places if not HERE.match(url)] == [PAPER]


def test_no_control_of_the_report_reaches_another_host(visits: Visits, finished: str) -> None:
    page = visits.tab().context.new_page()
    page.goto((visits.store.directory(finished) / "run" / "report.html").as_uri())
    expect(page.locator("svg polyline").first).to_be_attached()
    assert page.locator("a[href], form[action], script, button").count() == 0
    words = page.locator("details.terms dl")
    expect(words).to_be_visible()
    page.locator("details.terms summary").focus()
    page.keyboard.press("Enter")
    expect(words).to_be_hidden()


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_axe_finds_nothing_serious_in_the_report(visits: Visits, finished: str, width: int, dark: bool) -> None:
    page = visits.tab(width=width, dark=dark).context.new_page()
    page.goto((visits.store.directory(finished) / "run" / "report.html").as_uri())
    assert serious(page) == []
    assert overflow(page) == 0
