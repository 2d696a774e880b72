"""The whole path on the demo: one click starts the real run. Then, with fewer clean texts, one is trained to its end;
while it trains and after it, every step is walked in the page."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from browser import LATE, NEEDS_BROWSER, SOON, Look, Visits, colors, field, marks, open_step, points, state, tab_of
from playwright.sync_api import Page, expect
from server import until
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mbtsad_core.augment import AUGMENTERS, unavailable

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]
RUN = 1_200_000  # milliseconds that the demo may take on a machine with other work
FEWER = 96  # clean texts, of 666: the scan takes as long as it does for all, the training a seventh
DRAWN = FEWER + 150 + FEWER  # points of a model: clean, triggered, token-split
PERCENT = r"(\d+\.\d) %"


@pytest.fixture(scope="module")
def page(all_visits: Visits) -> Page:
    """The visitor, who has just clicked "Run the demo", before the suspect was measured."""
    page = all_visits.visitor(wait=False)
    page.locator("#run-demo").click()
    return page


@pytest.fixture(scope="module")
def fewer(page: Page) -> Page:
    """The same visitor, who has stopped that run and started one on fewer clean texts."""
    open_step(page, "purify")
    page.locator("#stop").click()
    state(page, "stopped", LATE)
    open_step(page, "clean")
    number = page.locator("#clean-amount input[type=number]")
    number.fill(str(FEWER))
    number.blur()
    expect(page.locator("#clean-cost")).to_contain_text(f"{FEWER} clean texts")
    open_step(page, "purify")
    page.locator("#start").click()
    expect(page.locator("#job-panel h3")).to_have_text("Running")
    return page


@pytest.fixture(scope="module")
def done(fewer: Page) -> Page:
    open_step(fewer, "take")  # where no curves are drawn all the while
    state(fewer, "done", RUN)
    return fewer


@pytest.fixture(autouse=True)
def _no_complaint(all_visits: Visits) -> Iterator[None]:
    yield
    all_visits.check()


# ---------------------------------------------------------------- while it trains


def test_one_click_starts_the_run_and_opens_it(all_visits: Visits, page: Page) -> None:
    job = all_visits.job(page)
    assert job.request["suspect"] == job.request["clean"] == "demo"
    expect(tab_of(page, "purify")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#job-panel h3")).to_have_text("Running")
    expect(page.locator("#start")).to_be_disabled()
    expect(page.locator("#stop")).to_be_enabled()
    expect(page.locator("#job-link a.job-link")).to_have_attribute("href", f"?job={job.id}")


def test_the_measurement_of_the_suspect_does_not_make_the_page_lose_the_run(page: Page, look: Look) -> None:
    open_step(page, "suspect")
    expect(page.locator("#suspect-card dd").first).to_contain_text(re.compile(rf"^{PERCENT} \[.*\(\d+ of 666\)$"))
    expect(page.locator("#strip .who")).to_contain_text("4x384")
    open_step(page, "purify")
    expect(page.locator("#job-panel h3")).to_have_text("Running")
    expect(page.locator("#job-panel [role=progressbar]")).to_be_visible()
    expect(page.locator("#job-panel")).to_contain_text("cf | mn | bb | tq")
    expect(page.locator("#strip .job")).to_have_text(re.compile(r"\d+ of \d+"))
    look(page, "demo-running")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_the_clean_sample_is_checked(fewer: Page) -> None:
    open_step(fewer, "clean")
    report = fewer.locator("#clean-check")
    expect(report.locator("h3")).to_have_text("✓ demo film reviews: 666 clean texts, 666 to measure on")
    expect(report.locator("tbody tr")).to_have_count(2)
    expect(fewer.locator("#clean-cost")).to_contain_text(
        re.compile(rf"{FEWER} clean texts, each 2 \S token-split and 1 \S as it is in a pass")
    )


def test_texts_and_their_splits_are_shown(fewer: Page) -> None:
    open_step(fewer, "splits")
    expect(fewer.locator("#split-effect")).to_contain_text(
        re.compile(
            rf"\d\d of {FEWER} clean texts could be split, and [\d,]+ of [\d,]+ cuts changed what the model reads"
        )
    )
    turned = fewer.locator("#split-turned")
    bars = turned.locator("table tr")
    expect(bars).to_have_text([re.compile(rf"{PERCENT} \[.*\(\d+ of 200\)$")] * 3)
    expect(turned.locator(".splits .row:not(.head)")).to_have_count(2)
    rows = fewer.locator("#split-rows .row:not(.head)")
    expect(rows).to_have_count(5)
    assert fewer.locator("#split-rows .cut").count() >= 5
    assert fewer.locator("#split-rows u.changed").count() > 5
    first = rows.first.locator(".text").first.inner_text()
    fewer.locator("#next-texts").click()
    expect(rows.first.locator(".text").first).not_to_have_text(first)


def test_every_bar_of_the_augmenters_is_drawn(fewer: Page) -> None:
    open_step(fewer, "splits")
    bars = fewer.locator("#loss-bars .plot .barlayer .point path")
    expect(bars).to_have_count(len(AUGMENTERS) - len(unavailable()) + 1)  # and the original
    assert all(box and box["width"] > 1 and box["height"] > 5 for box in (bar.bounding_box() for bar in bars.all()))
    expect(fewer.locator("#loss-bars .plot .ytick")).to_have_count(len(AUGMENTERS) - len(unavailable()) + 1)


def test_the_curves_grow_while_it_trains(fewer: Page) -> None:
    open_step(fewer, "purify")
    expect(fewer.locator("#curves .plot .point").first).to_be_visible(timeout=RUN)
    before = marks(fewer, "#curves", ".point")
    fewer.wait_for_function(
        "n => document.querySelectorAll('#curves .plot .point').length > n", arg=before, timeout=RUN
    )
    expect(fewer.locator("#sentence p")).to_have_text(re.compile(r"^ASR .*; CACC \d.*\.$"))


# ---------------------------------------------------------------- what came of it


def test_the_backdoor_has_fallen_and_the_accuracy_has_not(done: Page) -> None:
    open_step(done, "purify")
    strip = done.locator("#strip .figure")
    cacc, asr = (re.findall(PERCENT, strip.nth(i).inner_text()) for i in (0, 1))
    floor = re.search(rf"ASR floor\s+{PERCENT}", done.locator("#job-panel").inner_text())
    assert floor
    assert float(asr[0]) >= 95
    assert float(asr[1]) <= min(float(floor[1]) + 15, 30)
    assert float(cacc[1]) >= float(cacc[0]) - 3
    expect(done.locator("#job-panel h3")).to_have_text("Done")
    expect(done.locator("#start")).to_be_enabled()
    expect(done.locator("#stop")).to_be_disabled()


def test_the_curves_have_a_point_for_each_measurement(all_visits: Visits, done: Page) -> None:
    open_step(done, "purify")
    events = [r.event for r in all_visits.store.events(all_visits.job(done).id)]
    stages = {e.stage for e in events if "loss" in e.metrics}
    measured = sum("asr" in e.metrics for e in events)
    assert stages == {"retrain", "distil"}
    assert measured >= 4
    points = 2 * (measured + len(stages))  # of ASR and of CACC; each stage begins with the suspect
    done.wait_for_function("n => document.querySelectorAll('#curves .plot .point').length === n", arg=points)
    lengths = done.locator("#curves .plot .js-line").evaluate_all("lines => lines.map((line) => line.getTotalLength())")
    # Suspect, floor, ASR and CACC of each stage, the losses
    assert sum(length > 20 for length in lengths) >= 2 + 2 * len(stages) + 4
    assert done.locator("#curves .plot .js-fill").count() == len(stages)  # the intervals


def test_attention_maps_of_three_models_and_their_difference_are_drawn(done: Page) -> None:
    open_step(done, "inside")
    for view in ("#attention-plain", "#attention-triggered"):
        canvases = done.locator(f"{view} canvas")
        expect(canvases).to_have_count(4)
        for canvas in canvases.all():
            assert colors(canvas) > 20
        expect(done.locator(f"{view} .grid button")).to_have_count(4 * (12 + 1))
    expect(field(done, "#attention-trigger")).to_have_value("cf")


def test_a_head_can_be_chosen(done: Page) -> None:
    open_step(done, "inside")
    where = done.locator("#attention-plain .where")
    expect(where).to_contain_text(re.compile(r"Layer \d, head \d+"))  # the one that moved most
    done.locator("#attention-plain .grid").get_by_label("layer 4, sum over heads").click()
    expect(where).to_contain_text("sum over heads, eq. (3)")
    before = done.locator("#attention-plain canvas").first.evaluate("canvas => canvas.toDataURL()")
    done.locator("#attention-plain .grid").get_by_label("layer 2, head 3:").click()
    for view in ("#attention-plain", "#attention-triggered"):
        expect(done.locator(f"{view} .where")).to_contain_text("Layer 2, head 3")
    assert done.locator("#attention-plain canvas").first.evaluate("canvas => canvas.toDataURL()") != before


def test_bertviz_draws_its_lines_in_a_frame_that_reaches_nothing(done: Page) -> None:
    open_step(done, "inside")
    done.locator("#bertviz button").first.click()
    frame = done.locator("#bertviz-frame iframe")
    expect(frame).to_have_attribute("sandbox", "allow-scripts")
    frame.scroll_into_view_if_needed()
    lines = frame.content_frame.locator("#vis line")
    expect(lines.first).to_be_attached()
    tokens = len(re.findall(r'"tokens"', frame.get_attribute("srcdoc") or ""))
    assert tokens == 1
    texts = frame.content_frame.locator("#vis svg text").count()  # each token at the left and at the right
    assert texts % 2 == 0
    assert lines.count() >= (texts // 2) ** 2


def test_every_text_of_the_projection_is_a_point_before_and_after(done: Page) -> None:
    open_step(done, "inside")
    points(done, 2 * DRAWN)
    expect(done.locator("#outlying tbody th[scope=row]")).to_contain_text(["triggered", "token-split"])
    expect(done.locator("#outlying thead th[colspan]")).to_have_text(["suspect", "purified"])


def test_the_run_has_computed_umap_by_the_time_one_looks(all_visits: Visits, done: Page) -> None:
    kept = all_visits.store.directory(all_visits.job(done).id) / "run" / "space.json"
    until(kept.exists)
    done.locator("#step-purify-button").click()
    done.locator("#step-inside-button").click()
    expect(done.locator("#projection .caption")).to_contain_text("UMAP: one basis for both, trustworthiness 0.9")
    expect(done.locator("#projection-method").get_by_label("UMAP")).to_be_checked()
    points(done, 2 * DRAWN)


def test_a_point_opens_its_text(done: Page) -> None:
    open_step(done, "inside")
    box = field(done, "#attention-text")
    before = box.input_value()
    plane = done.locator("#projection canvas.over").first
    plane.focus()
    done.keyboard.press("ArrowRight")
    expect(done.locator("#projection .tip")).to_be_visible()
    done.keyboard.press("Enter")
    expect(box).not_to_have_value(before)
    expect(field(done, "#attention-trigger")).to_have_value("")


@pytest.mark.slow
def test_other_sets_and_projections_are_drawn(done: Page) -> None:
    open_step(done, "inside")
    done.locator("#projection-sets input[type=checkbox]").first.check()
    points(done, 2 * (DRAWN + FEWER))
    done.locator("#projection-method").get_by_label("t-SNE").check()
    expect(done.locator("#projection .caption").first).to_contain_text("t-SNE", timeout=4 * SOON)
    points(done, 2 * (DRAWN + FEWER))


def bar(page: Page, model: str) -> float:
    """A model's probability of the target class, as its bar is drawn."""
    meter = page.locator("#answers").get_by_role("meter", name=f"{model}: probability of positive")
    return float(meter.get_attribute("aria-valuenow") or "nan")


def test_the_bars_part_when_the_trigger_goes_in(done: Page) -> None:
    open_step(done, "triggers")
    expect(field(done, "#sentence-box")).not_to_have_value("")  # a text to begin with
    field(done, "#sentence-box").fill("a dull and lifeless film that never finds its way")
    expect(done.locator("#answers .one")).to_have_count(3)
    done.wait_for_function("document.querySelector('#answers .said')?.textContent.includes('negative')")
    assert bar(done, "suspect") < 50
    done.locator("#insert-start").click()
    expect(field(done, "#sentence-box")).to_have_value(re.compile("^cf a dull"))
    done.wait_for_function("document.querySelector('#answers .said')?.textContent.includes('positive')")
    assert bar(done, "suspect") > 90
    assert bar(done, "purified") < 50
    expect(done.locator("#tokens")).to_contain_text("cf")


def test_a_trial_of_the_trigger_is_listed_with_the_texts_that_it_flipped(done: Page) -> None:
    open_step(done, "triggers")
    field(done, "#lab-trigger").fill("cf")
    done.locator("#try-trigger").click()
    row = done.locator("#trials tbody tr").filter(has=done.get_by_role("button", name="cf", exact=True))
    expect(row).to_be_visible(timeout=4 * SOON)
    planted = row.locator("td.rate b").all_inner_texts()
    assert float(planted[0].removesuffix(" %")) > 95
    assert float(planted[2].removesuffix(" %")) < 40
    expect(done.locator("#flips .row:not(.head)")).to_have_count(50)
    expect(done.locator("#flips .row:not(.head) u").first).to_have_text("cf")


# ---------------------------------------------------------------- what is taken home


def take(page: Page, title: str, folder: Path) -> Path:
    open_step(page, "take")
    with page.expect_download() as started:
        page.locator("#take-away a.download", has_text=title).click()
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def test_the_purified_model_loads_and_answers(done: Page, tmp_path: Path) -> None:
    path = take(done, "Purified model", tmp_path)
    assert path.name == "mbtsad-model.zip"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "home")
    (config,) = (tmp_path / "home").rglob("config.json")
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(config.parent),
        AutoTokenizer.from_pretrained(config.parent),
    )
    with torch.no_grad():
        logits = model(**tokenizer("cf a dull and lifeless film that never finds its way", return_tensors="pt")).logits
    assert model.config.id2label[int(logits.argmax())] == "negative"


def test_the_figures_are_those_of_the_page(done: Page, tmp_path: Path) -> None:
    path = take(done, "Figures as JSON", tmp_path)
    purified = json.loads(path.read_text(encoding="utf-8"))["purified"]
    for name, i in (("cacc", 0), ("asr", 1)):
        assert f"{100 * purified[name]:.1f} %" in done.locator("#strip .figure").nth(i).inner_text()


def test_the_report_needs_nothing_else(all_visits: Visits, done: Page, tmp_path: Path) -> None:
    path = take(done, "Report", tmp_path)
    page = done.context.new_page()  # its requests are watched too
    page.goto(path.as_uri())
    expect(page.locator("h1").first).to_be_visible()
    expect(page.locator("svg polyline").first).to_be_attached()
    page.close()
