"""Visitors of the page: Chromium, which finds no other address than the server's, and every complaint of the console
counted."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_texts
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request, expect, sync_playwright
from server import log_of, until

from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig, SplitConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import WrongState
from mbtsad_core.service.purification import Request as RunRequest
from mbtsad_core.service.store import ACTIVE, Job, State, Store
from mbtsad_core.types import LabelledText

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"),
]
SOON, LATE = 60_000, 240_000  # milliseconds: what is short on an idle machine; what trains
HERE = re.compile(r"(https?|wss?)://(127\.0\.0\.1|localhost)(:\d+)?/|(data|blob|about|file):")
expect.set_options(timeout=SOON)
Look = Callable[[Page, str], None]  # at a page in a state, by its name (`pages.look`)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


# What Gradio's client says of a stream that is cut off as a visitor closes the tab, and as they leave for another page
CLOSED = r"AbortError: signal is aborted without reason|Connection errored out"
# What its server says where the stream of a visitor who leaves ends twice
LEFT = re.compile(
    r"ERROR:\s+Exception in ASGI application\n(?:(?!Exception in ASGI application).)*?"
    r"del blocks\._queue\.pending_messages_per_session\[session_hash\]\n[ ~^]*\nKeyError: '\w+'\n",
    re.DOTALL,
)


class Visits:
    """The visitors of one server, each with a browser context of his own, and the jobs of that server.

    complaints  what went wrong for a visitor: errors of console and scripts, requests to elsewhere
    expected    patterns of complaints that a test brings about, such as a connection that it cuts
    """

    def __init__(self, browser: Browser, url: str, root: Path) -> None:
        self.browser, self.url, self.root = browser, url, root
        self.store = Store(root)
        self.begin()
        self.complaints: list[str] = []
        self.expected: list[str] = []
        self._contexts: list[BrowserContext] = []
        self._alone: list[BrowserContext] = []
        self._left: list[Page] = []  # empty tabs of visitors who have left

    def begin(self) -> None:
        """What the server's log says from here on counts."""
        self._logged = log_of(self.root).stat().st_size

    def visitor(
        self, path: str = "", *, width: int = 1280, dark: bool = False, wait: bool = True, alone: bool = False
    ) -> Page:
        """A new visitor who has opened the page, or a link to a job as `path` "?job=ID", and waits until it is
        ready. `alone`: in a browser that no visitor had before or has after him."""
        page = self.tab(width=width, dark=dark, alone=alone)
        page.goto(self.url + path)
        if wait:
            ready(page)
        return page

    def tab(self, *, width: int = 1280, dark: bool = False, alone: bool = False) -> Page:
        """An empty tab of a new visitor."""
        page = self._context().new_page() if alone or not self._left else self._left.pop()
        (self._alone if alone else self._contexts).append(page.context)
        self._forget(page)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="dark" if dark else "light", reduced_motion="reduce")
        return page

    def _context(self) -> BrowserContext:
        context = self.browser.new_context(
            viewport={"width": 1280, "height": 900}, reduced_motion="reduce", accept_downloads=True
        )
        context.set_default_timeout(SOON)
        context.on("request", self._meant)  # and no `route`: it asks Python about each, and turns the cache off
        context.on(
            "console", lambda message: self._complain("console", message.text) if message.type == "error" else None
        )
        context.on("weberror", lambda error: self._complain("script", str(error.error)))
        return context

    def _forget(self, page: Page) -> None:
        """All that a visitor before left in the browser, but for the compiled scripts: these are half of a visit."""
        page.context.clear_cookies()
        browser = page.context.new_cdp_session(page)
        browser.send(
            "Storage.clearDataForOrigin",
            {"origin": self.url.rstrip("/"), "storageTypes": "local_storage,indexeddb,cookies"},
        )
        browser.detach()

    def _meant(self, request: Request) -> None:
        if not HERE.match(request.url):
            self._complain("request to elsewhere", request.url)

    def _complain(self, what: str, text: str) -> None:
        self.complaints.append(f"{what}: {text}")
        print(f"{time.monotonic():.1f} s, {what}: {text}")  # pytest shows it where a test fails

    def leave(self) -> None:
        """All visitors leave, what still runs is stopped, and nobody has complained."""
        for context in self._contexts:
            self._empty(context)
        for context in self._alone:
            context.close()
        self._contexts.clear()
        self._alone.clear()
        for job in self.store.in_state(State.QUEUED, *ACTIVE):
            with contextlib.suppress(WrongState):  # it has ended a moment ago
                self.store.request_cancel(job.id)
        self.check()

    def _empty(self, context: BrowserContext) -> None:
        """Close all tabs but the first, and leave the page in it: its process knows the page's scripts already."""
        first, *others = context.pages or [context.new_page()]
        for page in others:
            page.close()
        first.unroute_all()
        if first.url.startswith(self.url):
            first.evaluate("sessionStorage.clear()")
        first.goto("about:blank")
        self._left.append(first)

    def check(self) -> None:
        """Fails on a complaint since the last check."""
        expected = [*self.expected, CLOSED]
        unexpected = [text for text in self.complaints if not any(re.search(pattern, text) for pattern in expected)]
        self.complaints.clear()
        self.expected.clear()
        assert not unexpected, unexpected  # this module is no test, so pytest explains none of its assertions

    def close(self) -> None:
        """The end of visits to a server that has no others."""
        self.store.close()
        self.check_log()

    def check_log(self) -> None:
        """Fails on a traceback in the server's log since the last `begin`."""
        log = log_of(self.root).read_bytes()[self._logged :].decode("utf-8", errors="replace")
        assert not faults(log), log[-5000:]

    def job(self, page: Page) -> Job:
        """The job that the address bar of a visitor names."""
        page.wait_for_url(re.compile(r"[?&]job="))
        return self.store.get(re.sub(r".*[?&]job=([\w-]+).*", r"\1", page.url))


@contextlib.contextmanager
def halted(store: Store, id: str) -> Iterator[None]:
    """Within it a run that is under way is stopped as by Ctrl-Z: it has its place, and takes no core from the page."""
    pid = until(lambda: store.get(id).pid)
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def faults(log: str) -> bool:
    """Whether a server's log has a traceback of its own."""
    return "Traceback" in LEFT.sub("", log)


def ready(page: Page) -> None:
    """The visitor's session is known, and the strip says how his run stands."""
    expect(page.locator("#strip .strip .job")).to_be_visible()
    expect(page.locator("#suspect-card .card, #scan-panel, #job-panel").locator("visible=true").first).to_be_visible()


def open_step(page: Page, step: str) -> None:
    """Open a step by its name in the address; once more where a button pressed before led elsewhere after the click."""
    tab = tab_of(page, step)
    tab.click()
    try:
        expect(tab).to_have_attribute("aria-selected", "true", timeout=5000)
    except AssertionError:
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")


def tab_of(page: Page, step: str) -> Locator:
    """A step's button."""
    return rail(page).and_(page.locator(f"#step-{step}-button"))


def rail(page: Page) -> Locator:
    """The buttons of all steps."""
    return page.locator("#steps > .tab-wrapper > .tab-container").first.get_by_role("tab")


def state(page: Page, words: str | re.Pattern[str], timeout: int = LATE) -> None:
    """Wait until the strip says this of the run."""
    expect(page.locator("#strip .job")).to_have_text(words, timeout=timeout)


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def marks(page: Page, plot: str, selector: str) -> int:
    """How many marks of a kind a plot has drawn; 0 while there is none."""
    return page.locator(f"{plot} .plot {selector}").count()


def points(page: Page, number: int) -> None:
    """Wait until the panels of the projection have drawn so many points, all together."""
    page.wait_for_function(
        "n => [...document.querySelectorAll('#projection canvas.points')].reduce((sum, c) => sum + "
        "Number(c.dataset.points), 0) === n",
        arg=number,
    )


DRAWN = """canvas => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(pixels.buffer)).size;
}"""


def colors(canvas: Locator) -> int:
    """How many colors the pixels of a canvas have: 1 where nothing was drawn."""
    return int(canvas.evaluate(DRAWN))


def request(
    suspect: Path | str, folder: Path, *, epochs: int = 1, texts: list[LabelledText] | None = None, **asked: Any
) -> RunRequest:
    """A run of a tiny model on 64 texts of its own, 2 x 8 steps an epoch."""
    stage = {"epochs": epochs, "batch_size": 16, "observe_every": 4, "save_every": 0.5}
    defaults: dict[str, Any] = dict(
        clean=write_table(folder / "clean.tsv", texts or tiny_texts(64)),
        test=write_table(folder / "test.tsv", tiny_texts(40, seed=1)),
        triggers=("cf",),
        target="positive",
        config=PurifyConfig(
            split=SplitConfig(copies=2),
            retrain=RetrainConfig(**stage),
            distil=DistilConfig(**stage),
            max_length=32,
            found_tokens=0,
        ),
        runtime=RuntimeConfig(device="cpu", precision="float32", threads=1),
    )
    return RunRequest(suspect=str(suspect), **defaults | asked)


def write_table(path: Path, texts: list[LabelledText], names: tuple[str, str] = ("text", "label")) -> str:
    path.write_text("\t".join(names) + "\n" + "".join(f"{t.text}\t{t.label}\n" for t in texts), encoding="utf-8")
    return str(path)


def source(page: Page, tabs: str, name: str) -> None:
    """Open one of the inner tabs of a step."""
    page.locator(tabs).get_by_role("tab", name=name, exact=True).click()


def field(page: Page, box: str) -> Locator:
    """What a visitor types into, of a box of the page."""
    return page.locator(f"{box} input, {box} textarea").first


def choose(page: Page, dropdown: str, name: str) -> None:
    field(page, dropdown).click()
    page.locator(dropdown).get_by_role("option", name=name, exact=True).click()
    expect(field(page, dropdown)).to_have_value(name)


def set_settings(page: Page, values: dict[tuple[str, int], str]) -> None:
    """Type into the settings of the method: name and, of those with the same name, which; then use them."""
    settings = page.locator("#settings")
    settings.locator("button").first.click()
    for (name, which), value in values.items():
        label = settings.locator("label").filter(
            has=page.locator("[data-testid=block-info]", has_text=re.compile(rf"^\s*{re.escape(name)}\s*$"))
        )
        label.nth(which).locator("input, textarea").fill(value)
    page.locator("#use-settings").click()
    toast(page, "The next run uses these settings.")


def toast(page: Page, words: str | re.Pattern[str]) -> None:
    """Wait until a message with these words stands in a corner of the page, and put it away."""
    found = page.locator(".toast-body").filter(has_text=words)
    expect(found.first).to_be_visible()
    found.first.get_by_test_id("toast-close").click()
