"""Runs and their visitors: tabs that close, workers that die, two visitors at once, stopping, waiting, and a trigger
that changes."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from pathlib import Path

import pytest
from browser import LATE, NEEDS_BROWSER, Look, Visits, choose, field, halted, open_step, request, source, state
from playwright.sync_api import Page, expect

from mbtsad_core.config import replace
from mbtsad_core.models.classifier import load_classifier, weights_hash
from mbtsad_core.service.purification import execute
from mbtsad_core.service.store import State
from mbtsad_core.steps import drain

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]
LONG = 24  # epochs: some hundred steps, of which a page sees many
STOPPED = 200  # of a run that is not to end by itself
TRAINS = re.compile(r"(retrain|distill)ing \d+ of \d+")


def start(visits: Visits, suspect: Path, folder: Path, epochs: int = LONG) -> str:
    """Put a run of the tiny model in the queue: its id."""
    return visits.store.create(request(suspect, folder, epochs=epochs).to_dict())


def readings(page: Page) -> int:
    """Measurements of ASR that the curves show."""
    lines = page.evaluate(
        "document.querySelector('#curves .plot').data.map((trace) => [trace.yaxis, trace.name, trace.x.length])"
    )
    return sum(points for axis, name, points in lines if axis == "y" and name in ("retraining", "distillation"))


def drawn(page: Page) -> None:
    """Wait until there is a curve that is longer than a dot."""
    page.wait_for_function(
        "[...document.querySelectorAll('#curves .plot .js-line')].some((line) => line.getTotalLength() > 20)"
    )


def test_what_is_clicked_before_the_visitor_is_known_waits_and_is_not_lost(visits: Visits) -> None:
    """Else the session that the server then puts in place knows nothing of the run that the click has started."""
    page, held = visits.tab(), []
    page.route("**/queue/join*", lambda route: held.append(route))
    page.goto(visits.url)
    page.locator("#run-demo").click()
    page.wait_for_function("() => new Promise(requestAnimationFrame).then(() => true)")  # what is asked has been asked
    button = page.evaluate("gradio_config.components.find((one) => one.props.elem_id === 'run-demo').id")
    assert held
    assert button not in [route.request.post_data_json["trigger_id"] for route in held]
    for route in held:
        route.continue_()
    page.unroute_all()
    assert visits.job(page).request["suspect"] == "demo"
    expect(page.locator("#stop")).to_be_enabled()


def test_a_run_goes_on_while_its_tab_is_closed(visits: Visits, suspect_dir: Path, tmp_path: Path) -> None:
    """And measures a trigger that was typed while it ran, which changes nothing of what it ends with."""
    page = visits.visitor()
    id = start(visits, suspect_dir, tmp_path)
    page.goto(f"{visits.url}?job={id}")
    state(page, TRAINS)
    expect(field(page, "#measure-trigger")).to_have_value("cf")
    field(page, "#measure-trigger").fill("mn")
    with halted(visits.store, id):  # which else may be done by the time that it is asked
        page.locator("#measure").click()
        expect(page.get_by_text("measured from the next measurement on")).to_be_visible()
    expect(page.locator("#job-panel dd", has_text=re.compile("^mn$"))).to_be_visible()
    job = visits.store.get(id)  # and no more is waited for: the run takes seconds
    page.close()
    assert visits.store.get(id).state is State.RUNNING

    again = visits.visitor(f"?job={id}")
    expect(again.locator("#strip .job")).to_have_text(re.compile(f"{TRAINS.pattern}|measuring|done"))
    now = visits.store.get(id)
    assert (now.stage, now.step) != (job.stage, job.step)
    assert (now.pid, now.attempts) in ((job.pid, 1), (None, 1))  # the same process, or it is done
    state(again, "done")
    expect(again.locator("#curves .annotation", has_text="mn")).to_be_visible()
    drawn(again)
    assert readings(again) == 2 * (1 + 2 * LONG)  # the suspect, and every fourth step of eight an epoch
    expect(again.locator("#strip .figure").nth(1)).to_contain_text(re.compile(r"\d %.*\d %"))
    assert [m.triggers for m in visits.store.measures(id)] == [("mn",)]

    # The same training, of which nothing is measured on its way
    without = request(suspect_dir, tmp_path, epochs=LONG, triggers=(), target=None)
    rarely = {(stage, "observe_every"): 10_000 for stage in ("retrain", "distil")}
    without = dataclasses.replace(without, config=replace(without.config, rarely))
    drain(execute(without, tmp_path / "without"))
    purified = weights_hash(load_classifier(visits.store.directory(id) / "run" / "model"))
    assert purified == weights_hash(load_classifier(tmp_path / "without" / "model"))


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_the_visitor_is_told(
    visits: Visits, suspect_dir: Path, tmp_path: Path
) -> None:
    id = start(visits, suspect_dir, tmp_path)
    page = visits.visitor(f"?job={id}")
    state(page, TRAINS)
    pid = visits.store.get(id).pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    expect(page.locator("#job-panel")).to_contain_text(
        "Its process was lost; it goes on from its last checkpoint.", timeout=LATE
    )
    state(page, "done")
    assert visits.store.get(id).attempts == 2
    drawn(page)
    # None twice, none left out: the suspect, and every fourth step of eight an epoch
    assert readings(page) == 2 * (1 + 2 * LONG)


def test_a_run_is_stopped_and_another_started(visits: Visits, look: Look, suspect_dir: Path, tmp_path: Path) -> None:
    id = start(visits, suspect_dir, tmp_path, STOPPED)
    page = visits.visitor(f"?job={id}")
    state(page, TRAINS)
    page.locator("#stop").click()
    state(page, "stopped")
    assert visits.store.get(id).state is State.CANCELLED
    expect(page.locator("#job-panel h3")).to_have_text("Stopped")
    expect(page.locator("#job-panel")).to_contain_text("Nothing was purified. Start again when you like.")
    expect(page.locator("#stop")).to_be_disabled()
    look(page, "stopped")
    page.get_by_role("button", name="Start again").click()
    page.wait_for_function("id => !location.search.includes(id)", arg=id)
    assert visits.job(page).id != id
    state(page, TRAINS)


def test_a_run_that_waits_says_at_which_place(visits: Visits, look: Look, suspect_dir: Path, tmp_path: Path) -> None:
    ids = [start(visits, suspect_dir, tmp_path, STOPPED) for _ in range(4)]
    with halted(visits.store, ids[0]):
        page = visits.visitor(f"?job={ids[3]}")
        state(page, "queued, position 3")
        expect(page.locator("#job-panel h3")).to_have_text("Queued, position 3")
        expect(page.locator("#job-panel")).to_contain_text("2 runs ahead of yours.")
        look(page, "queued")
        visits.store.request_cancel(ids[1])
        state(page, "queued, position 2")
        expect(page.locator("#job-panel")).to_contain_text("1 run ahead of yours.")
        visits.store.request_cancel(ids[2])
        state(page, "starts next")
        page.locator("#stop").click()
        state(page, "stopped")
    assert visits.store.get(ids[0]).state is State.RUNNING


def test_two_visitors_do_not_see_each_other(visits: Visits, suspect_dir: Path, tmp_path: Path) -> None:
    one, two = visits.visitor(), visits.visitor()
    source(one, "#sources", "Upload")
    one.locator("#model-files input[type=file]").set_input_files([str(file) for file in suspect_dir.iterdir()])
    expect(one.locator("#strip .who b")).to_have_text("uploaded model")
    open_step(one, "triggers")
    expect(field(one, "#sentence-box")).not_to_have_value("")
    field(one, "#sentence-box").fill("only the first visitor wrote this")
    field(one, "#lab-trigger").fill("truffle")
    choose(one, "#lab-target", "positive")
    one.locator("#try-trigger").click()
    expect(one.locator("#trials button[data-trial]")).to_have_text(["truffle"])
    open_step(one, "purify")
    one.locator("#start").click()
    first = visits.job(one)
    state(one, re.compile(r"\w+ing"))

    expect(two.locator("#strip .job")).to_have_text("no run yet")
    expect(two.locator("#strip .who b")).to_have_text("demo suspect")
    open_step(two, "triggers")
    expect(field(two, "#sentence-box")).not_to_have_value("")
    expect(two.locator("#trials button[data-trial]")).to_have_count(0)
    open_step(two, "suspect")
    two.locator("#run-demo").click()
    second = visits.job(two)
    state(two, "starts next")
    assert first.owner
    assert second.owner
    assert first.owner != second.owner
    assert first.id != second.id
    assert second.request["suspect"] == "demo"
    for words in ("truffle", "only the first visitor", "uploaded model", first.id, first.owner):
        assert words not in two.content()
    for words in (second.id, second.owner):
        assert words not in one.content()
    two.locator("#stop").click()
    state(two, "stopped")
    state(one, re.compile(r"^(?!stop)"))
    assert visits.store.get(first.id).state is not State.CANCELLED
