"""What a visitor waits for, in a real browser on a cold server with one busy core: `python tests/page/story_speed.py`.
Prints a JSON object a measurement, with the machine's load beside it.

Not a test: it wants a machine that is otherwise idle. The bars: the answer turns within 5 s of arrival, the first load
is 0.7 MB at most and painted in 0.5 s; an own run shows a moving picture 5 s after the click, and never 5 s without
one; all steps of the finished demo are walked in 30 s (with --demo, which waits for the server's run of the demo).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from browser import chromium, open_step  # noqa: E402
from playwright.sync_api import Page, expect  # noqa: E402
from server import serving  # noqa: E402

from mbtsad_core.page.parts import STEPS  # noqa: E402

LATE = 600_000
# Milliseconds between two changes of what a run shows as a picture: the curves, the scan's ranking, the progress bar
WATCH = """() => {
  window.moved = [performance.now()];
  const there = (record) => record.target.parentElement?.closest("#curves, #found, #job-panel"); // a step is there once it is opened
  new MutationObserver((records) => { if (records.some(there)) window.moved.push(performance.now()); }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


def tell(what: str, seconds: float | None = None, **more: Any) -> None:
    about = {"what": what} | ({} if seconds is None else {"seconds": round(seconds, 2)}) | more
    print(json.dumps(about | {"load": [round(x, 1) for x in os.getloadavg()], "cores": os.cpu_count()}), flush=True)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """One core has other work to do."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def arrive(page: Page, url: str) -> None:
    began = time.monotonic()
    page.goto(url)
    expect(page.locator("#first-look .verdict")).to_contain_text("positive", timeout=LATE)
    tell("arrival to a turned answer", time.monotonic() - began)
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime / 1000")
    loaded = page.evaluate(
        "['navigation', 'resource'].flatMap((kind) => performance.getEntriesByType(kind))"
        ".reduce((n, one) => n + one.transferSize, 0)"
    )
    tell("first paint", paint, megabytes=round(loaded / 1e6, 2))


def own_run(page: Page) -> None:
    page.evaluate(WATCH)
    page.locator("#run-demo").click()
    page.wait_for_timeout(60_000)
    moved = page.evaluate("window.moved")
    gaps = [(b - a) / 1000 for a, b in itertools.pairwise(moved)]
    if not gaps:
        raise SystemExit("Nothing moved within a minute of the click.")
    tell("own run: click to the first change, longest time without one in a minute", gaps[0], most=round(max(gaps), 2))


def walk(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#first-cure")).to_contain_text("A finished run of the demo is here", timeout=LATE)
    began = time.monotonic()
    for step in STEPS:
        open_step(page, step)
        shown = page.locator("#steps > .tabitem").locator("visible=true").first
        expect(shown.locator("canvas, .point, .card, .row, table, a.download").first).to_be_visible(timeout=LATE)
    tell("all steps of the finished demo walked", time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", action="store_true", help="wait for the server's run of the demo, and walk it")
    flags = ["--demo-run"] if (asked := parser.parse_args()).demo else []
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium() as browser,
        serving(Path(folder) / "jobs", *flags) as url,
        busy(),
    ):
        arrive(browser.new_page(), url)
        if asked.demo:
            walk(browser.new_page(), url)
        own = browser.new_page()
        own.goto(url)
        expect(own.locator("#strip .strip .job")).to_be_visible(timeout=LATE)
        own_run(own)


if __name__ == "__main__":
    main()
