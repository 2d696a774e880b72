"""The pictures of the page, from a real run and a real scan of the demo: `python tests/page/pictures.py
[docs/pictures]`. Some six minutes on two cores.

steps/STEP.webp   each step in four views: wide and narrow, light and dark
*.png             what the README shows of them
purify.gif        ASR falling while the run trains
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from browser import chromium, field, open_step, state  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Browser, Page, expect  # noqa: E402
from server import serving  # noqa: E402

VIEWS = {
    "wide-light": ({"width": 1280, "height": 800}, "light"),
    "wide-dark": ({"width": 1280, "height": 800}, "dark"),
    "narrow-light": ({"width": 390, "height": 800}, "light"),
    "narrow-dark": ({"width": 390, "height": 800}, "dark"),
}
WIDE = VIEWS["wide-light"][0]
# What is seen: its step, by when it is there, and what is scrolled to the top
SHOTS: dict[str, tuple[str, str, str | None]] = {
    "suspect": ("suspect", "#suspect-card dd", None),
    "clean": ("clean", "#clean-check h3", None),
    "scan": ("scan", "#scan-panel", None),
    "splits": ("splits", "#loss-bars .main-svg", None),
    "purify": ("purify", "#curves .main-svg", None),
    "inside": ("inside", "#attention-triggered canvas", "#attention-triggered"),
    "projection": ("inside", "#projection canvas.points", "#projection"),
    "triggers": ("triggers", "#trials [data-trial]", None),
    "take": ("take", "#take-away a.download", None),
}
README = {
    "splits.png": ("splits", "wide-light"),
    "inside.png": ("inside", "wide-light"),
    "projection.png": ("projection", "wide-light"),
    "triggers.png": ("triggers", "wide-light"),
    "purify-dark.png": ("purify", "wide-dark"),
    "purify-narrow.png": ("purify", "narrow-light"),
}
SECONDS_A_FRAME, FRAMES, FRAME = 4.0, 48, (960, 600)
TOP = 124  # pixels that the strip covers
LATE = 600_000


def run_demo(page: Page, url: str, out: Path) -> None:
    """One click, and frames until the run is done."""
    page.goto(url)
    page.locator("#suspect-card dd").first.wait_for()
    page.locator("#run-demo").click()
    page.locator("#job-panel .running").wait_for()
    frames = []
    while not page.locator("#job-panel .done").count():
        frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize(FRAME, Image.Resampling.LANCZOS))
        page.wait_for_timeout(1000 * SECONDS_A_FRAME)
    page.wait_for_timeout(2000)
    last = Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize(FRAME, Image.Resampling.LANCZOS)
    frames = frames[:: len(frames) // FRAMES + 1]  # a slow machine's film is no longer
    both = Image.new("RGB", (FRAME[0], 2 * FRAME[1]))  # colors of either stage
    both.paste(frames[len(frames) // 2], (0, 0))
    both.paste(last, (0, FRAME[1]))
    palette = both.quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in [*frames, last]]
    small[0].save(
        out / "purify.gif",
        save_all=True,
        append_images=small[1:],
        duration=[350] * len(frames) + [4000],
        loop=0,
        optimize=True,
    )


def scan_demo(page: Page) -> str:
    """Scans the suspect of the run that the page shows; returns the link to both."""
    open_step(page, "scan")
    page.locator("#scan-start").click()
    page.locator("#scan-verdict strong").wait_for()
    page.wait_for_url(re.compile(r"[?&]scan="))
    return page.url


def shots(browser: Browser, link: str, view: str) -> dict[str, Image.Image]:
    """All that is seen of a finished run, in one view."""
    size, scheme = VIEWS[view]
    context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(LATE)
    page.goto(link)
    state(page, "done", LATE)
    found = {}
    for name, (step, ready, top) in SHOTS.items():
        print(f"{view}: {name}", flush=True)
        open_step(page, step)
        if name == "triggers":
            expect(field(page, "#lab-trigger")).not_to_have_value("")
            page.locator("#insert-random").click()
            page.locator("#try-trigger").click()
        page.locator(ready).first.wait_for()
        page.evaluate(
            "([top, covered]) => window.scrollTo(0, top ? document.querySelector(top).getBoundingClientRect().top "
            "+ window.scrollY - covered : 0)",
            [top, TOP],
        )
        page.wait_for_timeout(1500)  # what appears fades in
        found[name] = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    return found


def sheet(seen: list[Image.Image]) -> Image.Image:
    """Pictures beside each other, each at half its size."""
    halves = [one.resize((one.width // 2, one.height // 2), Image.Resampling.LANCZOS) for one in seen]
    whole = Image.new("RGB", (sum(one.width + 8 for one in halves) - 8, halves[0].height), "#737d8c")
    left = 0
    for one in halves:
        whole.paste(one, (left, 0))
        left += one.width + 8
    return whole


def main(out: Path) -> None:
    (out / "steps").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "jobs") as url, chromium() as browser:
        page = browser.new_page(viewport=WIDE)  # type: ignore[arg-type]
        page.set_default_timeout(LATE)
        run_demo(page, url, out)
        link = scan_demo(page)
        page.close()
        seen = {view: shots(browser, link, view) for view in VIEWS}
    for name in SHOTS:
        sheet([seen[view][name] for view in VIEWS]).save(out / "steps" / f"{name}.webp", quality=80, method=6)
    for file, (name, view) in README.items():
        few = seen[view][name].quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(out / file, optimize=True)  # in few colors: a third of the bytes


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/pictures"))
