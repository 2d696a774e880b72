"""What axe-core says of every step: nothing serious or critical, light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import NEEDS_BROWSER, Visits, open_step, state
from playwright.sync_api import Page, expect

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]
# By when a step has what it shows
SHOWN = {
    "suspect": "#suspect-card dd",
    "clean": "#clean-check h3",
    "scan": "#scan-start",
    "splits": "#loss-bars .plot .point",
    "purify": "#curves .plot .point",
    "inside": "#projection canvas.points",
    "triggers": "#tokens .tokens",
    "take": "#take-away a.download",
}
STRUCTURE = ("landmark-unique", "landmark-one-main", "page-has-heading-one", "duplicate-id-aria")
RULES: dict[str, Any] = {"resultTypes": ["violations"]}


def serious(page: Page, *, but: Iterable[str] = (), rules: Sequence[str] = ()) -> list[str]:
    """The serious and critical findings: rule, and where. `but`: parts that are not looked at; `rules`: those alone."""
    options = RULES | ({"runOnly": list(rules)} if rules else {})
    found = Axe().run(page, {"exclude": [[part] for part in but]}, options).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical") or one["id"] in STRUCTURE
        for node in one["nodes"]
    ]


# The narrow and dark one always; the other three with `-m slow`
VIEWS = [
    (390, True),
    *(pytest.param(*view, marks=pytest.mark.slow) for view in ((1440, False), (1440, True), (390, False))),
]


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_axe_finds_nothing_serious_on_any_step(visits: Visits, finished: str, width: int, dark: bool) -> None:
    page = visits.visitor(f"?job={finished}", width=width, dark=dark)
    state(page, "done")
    found = {}
    for step, there in SHOWN.items():
        open_step(page, step)
        expect(page.locator(there).first).to_be_attached()
        page.wait_for_timeout(300)  # what appears fades in
        # The steps that are not open, which take most of the time, have their turn
        if said := serious(page, but=[f"#step-{other}" for other in SHOWN if other != step]):
            found[step] = said
    if said := serious(page, rules=STRUCTURE):
        found["all together"] = said
    assert not found, "\n".join(f"step {step}: {line}" for step, lines in found.items() for line in lines)


def test_there_is_one_heading_of_the_first_level_and_a_way_past_the_rail(visits: Visits) -> None:
    page = visits.visitor()
    expect(page.locator("h1")).to_have_count(1)
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the step")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    inside = "document.activeElement.closest('#steps > .tabitem') !== null"
    assert page.evaluate(inside)


def test_the_focus_can_be_seen(visits: Visits) -> None:
    page = visits.visitor()
    for n in range(12):
        page.keyboard.press("Tab")
        width, style = page.evaluate(
            "(() => { const s = getComputedStyle(document.activeElement); return [s.outlineWidth, s.outlineStyle]; })()"
        )
        assert style == "solid", n
        assert float(width.removesuffix("px")) >= 2, (
            n,
            page.evaluate("document.activeElement.outerHTML.slice(0, 200)"),
        )
