"""Fixtures of the browser tests: a plugin and no conftest, whose name the one of all tests has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Look, Visits, chromium, overflow, request
from playwright.sync_api import Browser, Page
from server import MEGABYTES, serving, until

from mbtsad_core.service.store import State, Store

WIDTHS = (390, 1920)
ALL_WAYS = ("empty", "before-clean", "before-triggers", "finished", "after-5", "refused-upload")
# No plot that is seen is wider than its box; plots follow the window with a delay.
FITTED = """[...document.querySelectorAll('.plot .svg-container')].every((plot) =>
  !plot.checkVisibility() || plot.offsetWidth <= plot.closest('.plot').clientWidth + 1)"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests: half of a first visit is that it compiles the page's scripts. While it is there this thread has
    Playwright's event loop, so what needs one of its own is asked in another thread (`server.in_a_thread`)."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server for all tests that ask nothing special of it, and it allows little: some ask as programs do, and not
    always what they may. Its address, and the directory of its jobs."""
    root = tmp_path_factory.mktemp("server") / "jobs"
    with serving(root, "--grace", "5", "--megabytes", str(MEGABYTES), "--quota", "2") as url:
        yield url, root


@pytest.fixture(scope="session")
def everybody(browser: Browser, served: tuple[str, Path]) -> Iterator[Visits]:
    """The visitors of `served`: the tabs that those of a module leave are taken by those of the next."""
    visits = Visits(browser, *served)
    yield visits
    visits.store.close()


@pytest.fixture(scope="module")
def all_visits(everybody: Visits) -> Iterator[Visits]:
    """Visitors who leave when the module ends."""
    everybody.begin()
    yield everybody
    everybody.leave()
    everybody.check_log()


@pytest.fixture
def visits(all_visits: Visits) -> Iterator[Visits]:
    """Visitors who leave when the test ends."""
    yield all_visits
    all_visits.leave()


@pytest.fixture(scope="session")
def finished(served: tuple[str, Path], suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny run that is done, the same for all tests: its id."""
    with Store(served[1]) as store:
        id = store.create(request(suspect_dir, tmp_path_factory.mktemp("finished")).to_dict())
        until(lambda: store.get(id).state is State.DONE)
    return id


@pytest.fixture
def look() -> Look:
    """Look at a page in both themes, on a telephone and on a large screen: some states in all four ways."""
    folder = os.environ.get("MBTSAD_SCREENSHOTS")

    def look_at(page: Page, name: str) -> None:
        for theme, widths in (("light", WIDTHS[:1]), ("dark", WIDTHS[1:])):
            assert page.evaluate("document.body.classList.contains('dark')") is (theme == "dark")
            for width in WIDTHS if folder or name in ALL_WAYS else widths:
                page.set_viewport_size({"width": width, "height": 900})
                page.wait_for_function(FITTED)
                assert overflow(page) == 0, f"{name}: wider than the window of {width} px"
                if folder:  # half a second each
                    page.screenshot(path=Path(folder) / f"{name}-{width}-{theme}.png", full_page=True)
            page.locator("#dark").dispatch_event("click")  # a message may lie over it; in the end it is light again

    return look_at
