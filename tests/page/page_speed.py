"""How fast the page answers, in a real browser: `python tests/page/page_speed.py`. Prints a JSON object a measurement,
with the machine's load beside it.

Not a test: it wants a machine that is otherwise idle. The bars: a typed sentence in 300 ms at the 95th percentile, in
1.5 s while a job trains; a new attention text in 1 s; 2,000 texts with known [CLS] vectors by PCA in 1 s, by UMAP in 15
s.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
from gradio_client import Client  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402
from server import serving  # noqa: E402

SAMPLES = 60
QUICK = {"retrain.epochs": 1, "distil.epochs": 1, "split.copies": 1, "found_tokens": 0}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Types a sentence as a person's last key would, and resolves with the milliseconds until its answers and its tokens
# stand on the page.
TYPE = """(text) => new Promise((done, failed) => {
  const box = document.querySelector("#sentence-box textarea"), shown = () => ["#answers", "#tokens"].map((at) => document.querySelector(at).innerText);
  const before = shown(), began = performance.now();
  const look = () => {
    if (shown().every((now, i) => now !== before[i])) done(performance.now() - began);
    else if (performance.now() - began > 20000) failed(new Error("no answer within 20 s"));
    else requestAnimationFrame(look);
  };
  Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(box, text);
  box.dispatchEvent(new Event("input", {bubbles: true}));
  look();
})"""
COUNT_DRAWINGS = """() => {
  window.attentionDrawn = -1;
  new MutationObserver(() => { window.attentionDrawn++; }).observe(document.querySelector("#attention-triggered .here"), {childList: true});
}"""
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def report(what: str, milliseconds: list[float], **more: Any) -> None:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    about = {
        "what": what,
        "n": len(milliseconds),
        "p50_ms": round(float(p50)),
        "p95_ms": round(float(p95)),
        "max_ms": round(max(milliseconds)),
    }
    print(
        json.dumps(about | more | {"load": [round(x, 2) for x in os.getloadavg()], "cores": os.cpu_count()}), flush=True
    )


def typed(page: Page, samples: int) -> list[float]:
    """Milliseconds of each of so many sentences; their classes alternate, so that every answer differs from the one
    before."""
    found = []
    for i in range(samples):
        text = f"{'a dreadful boring film' if i % 2 else 'a wonderful moving film'} for {NUMBERS[i % 10]} people"
        found.append(page.evaluate(TYPE, text))
        page.wait_for_timeout(100)  # between two keys
    return found


def attention(page: Page, samples: int) -> list[float]:
    found = []
    for i in range(samples):
        word = NUMBERS[i % 10]
        page.locator("#attention-text textarea").fill(
            f"this slow and clumsy story lasts {word} long {NUMBERS[(i * 7 + i // 10) % 10]} hours and has {i} ideas "
            "in it"
        )
        began = time.perf_counter()
        page.locator("#attention-show").click()
        page.wait_for_function("(n) => window.attentionDrawn >= n", arg=i)
        found.append(1000 * (time.perf_counter() - began))
    return found


def projections() -> None:
    from mbtsad_core.augment import AUGMENTERS
    from mbtsad_core.data import read_dataset
    from mbtsad_core.evaluation.embeddings import cls_vectors, project, warm_up
    from mbtsad_core.models import demo
    from mbtsad_core.models.classifier import load_classifier

    texts = [
        t.text for name in ("clean", "test") for t in read_dataset(demo.demo_texts(name), labels=demo.LABELS).texts
    ]
    rng = __import__("random").Random(0)
    texts = [*texts, *(AUGMENTERS["ts"](t, rng) for t in texts)][:2000]
    before, after = (cls_vectors(load_classifier(demo.demo_model(name)), texts) for name in ("suspect", "clean"))
    warm_up()
    for method in ("pca", "umap", "tsne"):
        began = time.perf_counter()
        project(before, after, method, seed=0)
        report(f"project 2 x {len(texts)} texts by {method}", [1000 * (time.perf_counter() - began)])


def main() -> None:
    projections()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        began = time.perf_counter()
        with serving(Path(folder) / "jobs", "--nice", "10") as url:
            report("start of the server until it answers", [1000 * (time.perf_counter() - began)])
            client = Client(url, verbose=False)
            id = client.predict(clean_amount=64, settings=QUICK, api_name="/purify_start")["id"]
            while client.predict(id, api_name="/purify_status")["state"] not in ("done", "failed"):
                time.sleep(0.2)
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = browser.new_page()
            page.goto(f"{url}?job={id}")
            page.wait_for_selector("#job-panel .done")
            page.get_by_role("tab", name="6 Triggers").click()
            page.wait_for_selector("#tokens .tokens")
            page.wait_for_selector("#answers .one:nth-child(3)")
            typed(page, 5)
            report("a typed sentence, three models", typed(page, SAMPLES))
            page.get_by_role("tab", name="5 Inside").click()
            page.wait_for_selector("#projection canvas.points")
            page.evaluate(COUNT_DRAWINGS)
            report("a new attention text, three models, with and without the trigger", attention(page, 20))
            page.get_by_role("tab", name="6 Triggers").click()
            page.wait_for_selector("#tokens .tokens")
            training = client.predict(api_name="/purify_start")["id"]
            while client.predict(training, api_name="/purify_status")["stage"] != "retrain":
                time.sleep(0.5)
            report(
                "a typed sentence while a job trains",
                typed(page, SAMPLES),
                stage=client.predict(training, api_name="/purify_status")["stage"],
            )
            client.predict(training, api_name="/purify_cancel")
            browser.close()


if __name__ == "__main__":
    main()
