"""Every state that a visitor can find the page in: the words that he reads, and nothing wider than his window.

Set MBTSAD_SCREENSHOTS to a folder to keep the pictures: NAME-WIDTH-THEME.png. Those of a server with a past come from
test_demo_run.py, of runs that wait or are stopped from test_runs.py, of what is not taken from test_own_model.py.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import NEEDS_BROWSER, SOON, Look, Visits, faults, field, open_step, request, source, state
from conftest import ROOT
from late import late
from playwright.sync_api import Browser, expect
from server import serving

from mbtsad_core.augment import AUGMENTER_NAMES, AUGMENTERS, unavailable
from mbtsad_core.config import RetrainConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]
TRAINS = re.compile(r"(retrain|distill)ing \d+ of \d+")
SOMEBODY = ("somebody", "secret")


def test_of_a_servers_log_only_what_gradio_says_of_a_visitor_who_left_is_no_fault() -> None:
    start = "ERROR:    Exception in ASGI application\nTraceback (most recent call last):\n  File\n"
    deleted = "    del blocks._queue.pending_messages_per_session[session_hash]\n        ~~~~^^^^\n"
    chained = "asyncio.exceptions.CancelledError\n\nDuring handling\n\nTraceback (most recent call last):\n"
    left, ours = f"{start}{chained}{deleted}KeyError: '49tfw4'\n", f"{start}    look()\nKeyError: 'job'\n"
    assert [faults(log) for log in ("INFO: up\n", left, left + left, ours)] == [False, False, False, True]
    assert faults(ours + left)
    assert faults(left + ours)
    assert faults("Traceback (most recent call last):\n" + left)


# ---------------------------------------------------------------- on any server


def test_empty(visits: Visits, look: Look) -> None:
    page = visits.visitor()
    expect(page.locator("#strip .job")).to_have_text("no run yet")
    expect(page.locator("#run-demo")).to_be_in_viewport()
    expect(page.locator("#use-mine")).to_be_in_viewport()
    look(page, "empty")
    open_step(page, "purify")
    expect(page.locator("#job-panel h3")).to_have_text("No run yet")
    expect(page.locator("#curves figcaption")).to_contain_text("The curves appear with the first measurement")
    look(page, "empty-purify")
    open_step(page, "take")
    expect(page.locator("#take-away")).to_contain_text("There is nothing to take away yet")


def test_before_a_run(visits: Visits, look: Look) -> None:
    page = visits.visitor()
    shown = {
        "clean": "#clean-check h3",
        "scan": "#scan-start",
        "splits": "#loss-bars .barlayer .point",
        "inside": "#projection canvas.points",
        "triggers": "#answers .one",
    }
    for step, first in shown.items():
        open_step(page, step)
        expect(page.locator(first).first).to_be_visible()
        look(page, f"before-{step}")


def test_only_what_this_server_can_do_is_offered_in_the_projection(visits: Visits) -> None:
    page = visits.visitor()
    open_step(page, "inside")
    offered = [AUGMENTER_NAMES[name] for name in AUGMENTERS if name != "ts" and name not in unavailable()]
    expect(page.locator("#projection-sets label")).to_have_text(offered)
    for name, what in unavailable().items():
        expect(page.locator("#sets-lacking")).to_contain_text(f"{AUGMENTER_NAMES[name]} needs {what}")
    first = page.locator("#projection canvas.points")
    expect(first.first).to_be_visible()
    page.locator("#projection-sets label").last.click()
    expect(page.locator("#projection .legend button", has_text=offered[-1])).to_be_visible()


def test_finished_and_the_trigger_still_works(visits: Visits, finished: str) -> None:
    """A tiny run cures nothing: strip and step 5 say so before all else, and nothing of them is green."""
    page = visits.visitor(f"?job={finished}")
    state(page, "done")
    expect(page.locator("#strip .works").first).to_have_text("This trigger still works")
    first = page.locator("#job-panel section > *").first
    expect(first).to_have_text(
        "This trigger still works: with it 20 of 20 texts go to the target (100.0 %), without it 0 (0.0 %)."
    )
    green = """all => all.flatMap((e) => [e, ...e.querySelectorAll('*')]).filter((e) => {
      const style = getComputedStyle(e);
      return [style.color, style.backgroundColor, style.borderLeftColor].some((color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).map(Number);
        return g > r + 40 && g > b + 20;
      });
    }).map((e) => e.outerHTML.slice(0, 100))"""
    assert page.locator("#strip, #job-panel, #sentence").evaluate_all(green) == []


def test_finished(visits: Visits, look: Look, finished: str) -> None:
    page = visits.visitor(f"?job={finished}")
    state(page, "done")
    expect(page.locator("#job-panel h3")).to_have_text("Done")
    expect(page.locator("#curves .plot .point").first).to_be_visible()
    look(page, "finished")
    open_step(page, "take")
    expect(page.locator("#take-away a.download")).to_have_count(4)
    look(page, "finished-take-away")
    open_step(page, "inside")
    expect(page.locator("#attention-triggered canvas")).to_have_count(4)
    expect(page.locator("#projection canvas.points").first).to_be_visible()
    look(page, "after-5")
    open_step(page, "triggers")
    expect(field(page, "#lab-trigger")).not_to_have_value("")  # the step is ready
    page.locator("#try-trigger").click()
    expect(page.locator("#trials td.rate")).to_have_count(3)
    look(page, "after-6")


def test_no_answer_is_lost_where_the_end_of_a_stream_comes_late(
    browser: Browser, served: tuple[str, Path], finished: str
) -> None:
    """What is asked after the server has ended a stream, and before the browser knows, is answered by another stream."""
    with late(served[0], b'"close_stream"') as url:
        visits = Visits(browser, url, served[1])
        for _ in range(2):
            state(visits.visitor(f"?job={finished}"), re.compile("done"), timeout=SOON)
        visits.leave()
        visits.close()


def test_failed_because_it_diverged(visits: Visits, look: Look, suspect_dir: Path, tmp_path: Path) -> None:
    wild = PurifyConfig(
        retrain=RetrainConfig(learning_rate=1.0, clip=1e6, epochs=100, batch_size=16), max_length=32, found_tokens=0
    )
    page = visits.visitor(f"?job={visits.store.create(request(suspect_dir, tmp_path, config=wild).to_dict())}")
    state(page, "failed")
    expect(page.locator("#job-panel h3")).to_have_text("Failed")
    expect(page.locator("#job-panel")).to_contain_text("diverged")
    expect(page.locator("#start")).to_be_enabled()
    look(page, "failed-diverged")


def test_a_damaged_link(visits: Visits, look: Look) -> None:
    page = visits.visitor("?job=<b>no</b>", wait=False)
    expect(page.locator("#notice [role=alert]")).to_contain_text("The link to the run is damaged")
    look(page, "damaged-link")
    page.get_by_role("link", name="Open the demo").click()
    expect(page.locator("#notice")).to_be_hidden()
    assert "job=" not in page.url


def test_a_link_to_no_run(visits: Visits, look: Look) -> None:
    page = visits.visitor(f"?job={'x' * 32}")
    state(page, "run not found")
    expect(page.locator("#job-panel h3")).to_have_text("Run not found")
    expect(page.locator("#notice a")).to_have_text("Open the demo")
    look(page, "unknown-run")


# ---------------------------------------------------------------- on other hosts


@pytest.fixture(scope="module")
def elsewhere(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visits]:
    """The visitors of a host without background jobs that asks who one is."""
    folder = tmp_path_factory.mktemp("elsewhere")
    site, root = folder / "site", folder / "jobs"
    site.mkdir()
    shutil.copy(ROOT / "tests" / "hosting" / "zero_gpu_host.py", site / "spaces.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site))
        patch.setenv("SPACES_ZERO_GPU", "true")
        with serving(root, "--auth", ":".join(SOMEBODY)) as url:
            visits = Visits(browser, url, root)
            yield visits
            visits.leave()
            visits.close()


def test_the_form_to_log_in_does_not_say_what_the_page_is_for(elsewhere: Visits) -> None:
    elsewhere.expected.append("401")
    page = elsewhere.visitor(wait=False)
    expect(page.locator("input[type=password]")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body, '::before').content") == "none"
    elsewhere.leave()


def test_hosting_without_background_jobs(elsewhere: Visits, look: Look, suspect_dir: Path, tmp_path: Path) -> None:
    elsewhere.expected.append("401")
    id = elsewhere.store.create(request(suspect_dir, tmp_path, epochs=1000).to_dict())  # until it is stopped
    page = elsewhere.visitor(f"?job={id}", wait=False)
    for box, value in zip(("text", "password"), SOMEBODY, strict=True):
        page.locator(f"input[type={box}]").fill(value)
    page.get_by_role("button", name="Login").click()
    expect(page.locator("#job-panel h3")).to_have_text("Running")
    expect(page.locator("#job-panel")).to_contain_text("This host has no background jobs: keep the page open.")
    look(page, "without-background-jobs")
    expect(page.locator("#curves .plot .js-line").first).to_be_attached()
    page.locator("#stop").click()
    state(page, re.compile("stopped"))
    open_step(page, "suspect")
    for tab in ("Upload", "Hugging Face Hub"):
        source(page, "#sources", tab)
        expect(page.locator("#sources .sandbox:visible")).to_contain_text(
            re.compile(r"opened in the page.s own process, without a sandbox\.")
        )
