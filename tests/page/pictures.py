"""The README's pictures of the page, from a real run of the demo: `python tests/page/pictures.py [docs/pictures]`. Some
five minutes on two cores.

Screenshots of the steps, and purify.gif: ASR falling while the run trains.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from PIL import Image  # noqa: E402
from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402
from server import serving  # noqa: E402

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 800}
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECONDS_A_FRAME, FRAME = 4.0, (960, 600)


def picture(page: Page, path: Path, *, colors: int = 256) -> None:
    """A screenshot of what is in view, in few colors: a third of the bytes. What the README does not show is left
    out."""
    if path.name not in README:
        return
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(colors, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


def run_demo(page: Page, url: str, out: Path) -> str:
    """One click, frames until the run is done; returns the link to the run."""
    page.goto(url)
    page.wait_for_selector("#suspect-card .card")
    page.wait_for_timeout(1000)
    picture(page, out / "suspect.png")
    page.locator("#run-demo").click()
    page.wait_for_selector("#job-panel .running", timeout=60_000)
    frames = []
    while not page.locator("#job-panel .done").count():
        frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize(FRAME, Image.Resampling.LANCZOS))
        page.wait_for_timeout(1000 * SECONDS_A_FRAME)
    page.wait_for_timeout(2000)
    picture(page, out / "purify.png")
    last = Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize(FRAME, Image.Resampling.LANCZOS)
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
    return page.url


def steps(browser: Browser, link: str, out: Path) -> None:
    """The other steps on the finished run, in light; one in dark, one on a narrow screen."""
    for name, size, scheme in (("", WIDE, "light"), ("-dark", WIDE, "dark"), ("-narrow", NARROW, "light")):
        context = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1)  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(link)
        page.wait_for_selector("#curves .main-svg")
        for step, ready, top in (
            ("4 Splits", "#loss-bars .main-svg", None),
            ("6 Inside", "#projection canvas.points", "#attention-triggered"),
            ("7 Triggers", "#tokens .tokens", None),
        ):
            page.get_by_role("tab", name=step).click()
            page.wait_for_selector(ready, timeout=60_000)
            if step.startswith("7"):
                page.locator("#insert-random").click()
                page.locator("#try-trigger").click()
                page.wait_for_selector("#trials table, #trials [data-trial]", timeout=60_000)
            if top:
                page.locator(top).scroll_into_view_if_needed()
                page.evaluate(
                    "(top) => window.scrollTo(0, document.querySelector(top).getBoundingClientRect().top + "
                    "window.scrollY - 124)",
                    top,
                )
            page.wait_for_timeout(1500)
            picture(page, out / f"{step.split()[1].lower()}{name}.png")
            if step.startswith("6") and not name:
                page.get_by_test_id("UMAP-radio-label").click()
                page.wait_for_function(
                    "() => document.querySelector('#projection').innerText.includes('UMAP')", timeout=120_000
                )
                page.evaluate(
                    "() => window.scrollTo(0, document.querySelector('#projection').getBoundingClientRect().top + "
                    "window.scrollY - 160)"
                )
                page.wait_for_timeout(800)
                picture(page, out / "projection.png")
        if name:
            page.get_by_role("tab", name="5 Purify").click()
            page.wait_for_timeout(1500)
            picture(page, out / f"purify{name}.png")
        context.close()


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "jobs") as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        link = run_demo(browser.new_page(viewport=WIDE), url, out)  # type: ignore[arg-type]
        steps(browser, link, out)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/pictures"))
