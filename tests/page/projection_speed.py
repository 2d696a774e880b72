"""How many frames a second the projection draws of 10,000 texts, a point each in two panels, in a headless browser with
software rendering: `python tests/page/projection_speed.py [TEXTS]`. Prints a JSON object a measurement. Linux alone tells
the CPU time, of all processes of the browser.

Not a test: it wants a machine that is otherwise idle. The bar: 30 frames a second while one drags and while one points.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
from browser import chromium  # noqa: E402
from playwright.sync_api import Page  # noqa: E402

from mbtsad_core.evaluation.embeddings import Projection  # noqa: E402
from mbtsad_core.views.embeddings import Points, projection_document, projection_view  # noqa: E402

SECONDS = 3.0
# Moves the pointer in every frame, along a curve through the panel, and resolves with the time between frames.
MOVE = """(seconds) => new Promise((done) => {
  const canvas = document.querySelector("canvas.over"), box = canvas.getBoundingClientRect(), times = [];
  const step = (now) => {
    times.push(now);
    const t = times.length / 20;
    canvas.dispatchEvent(new PointerEvent("pointermove", {
      clientX: box.left + box.width * (0.5 + 0.3 * Math.sin(t)), clientY: box.top + box.height * (0.5 + 0.3 * Math.cos(1.3 * t)),
    }));
    if (now - times[0] < 1000 * seconds) requestAnimationFrame(step); else done(times.slice(1).map((at, i) => at - times[i]));
  };
  requestAnimationFrame(step);
})"""
SLIDE = """(seconds) => new Promise((done) => {
  const slider = document.querySelector("input[type=range]"), times = [];
  const step = (now) => {
    times.push(now);
    slider.value = 50 + 50 * Math.sin(times.length / 20);
    slider.dispatchEvent(new Event("input"));
    if (now - times[0] < 1000 * seconds) requestAnimationFrame(step); else done(times.slice(1).map((at, i) => at - times[i]));
  };
  requestAnimationFrame(step);
})"""


def many(texts: int) -> str:
    """A page with so many texts: three sets in two heaps each, which move."""
    rng = np.random.default_rng(0)
    sets, classes = rng.integers(0, 3, texts), rng.integers(0, 2, texts)
    before = rng.normal(size=(texts, 2)) + np.stack([4 * classes, 3 * sets], 1)
    after = before + rng.normal(size=(texts, 2)) + np.stack([2 * sets, -2 * classes], 1)
    points = Points(
        tuple(f"text number {i}, of as many words as a short film review has, or about that" for i in range(texts)),
        tuple(("clean", "triggered", "token-split")[s] for s in sets),
        tuple(("negative", "positive")[c] for c in classes),
    )
    return projection_document(projection_view(Projection("umap", before, after, 0.9, None), points))


def cpu_seconds(root: int) -> float:
    """Of the processes below this one, the driver and the browser, so far."""
    seconds, below = 0.0, {root}
    for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        fields = (path / "stat").read_text().rpartition(")")[2].split()
        if int(fields[1]) in below:
            below.add(int(path.name))
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def tell(what: str, page: Page, script: str, texts: int) -> None:
    began = cpu_seconds(os.getpid())
    between = np.array(page.evaluate(script, SECONDS))
    cpu = cpu_seconds(os.getpid()) - began
    about = {
        "what": what,
        "texts": texts,
        "frames_a_second": round(1000 / float(between.mean()), 1),
        "cpu_ms_a_frame": round(1000 * cpu / len(between), 1),
        "p95_ms": round(float(np.percentile(between, 95)), 1),
    }
    print(json.dumps(about | {"load": [round(x, 2) for x in os.getloadavg()], "cores": os.cpu_count()}), flush=True)


def main(texts: int) -> None:
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        path = Path(folder) / "many.html"
        path.write_text(many(texts), encoding="utf-8")
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(path.as_uri())
        page.wait_for_function("n => Number(document.querySelector('canvas.points').dataset.points) === n", arg=texts)
        tell("pointing", page, MOVE, texts)
        page.locator("canvas.over").first.hover()
        page.mouse.down()
        tell("dragging", page, MOVE, texts)
        page.mouse.up()
        tell("sliding from before to after", page, SLIDE, texts)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
