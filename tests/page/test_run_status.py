"""How a run stands: one figure for one thing, wherever it is shown; progress that never goes back; a name for each
stage."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from browser import request

from mbtsad_core.evaluation import wilson
from mbtsad_core.page.compare import Compare
from mbtsad_core.page.page import Shown, look
from mbtsad_core.page.planting import Planted
from mbtsad_core.page.purify import SECONDS_BETWEEN_CURVES, Drawn, Purify, found_trigger
from mbtsad_core.page.run_status import _bar, panel_html, run_status, stage_of, strip_html
from mbtsad_core.page.scan import Scan
from mbtsad_core.page.session import Session, of_request
from mbtsad_core.page.site import Site
from mbtsad_core.page.suspect import FirstStep
from mbtsad_core.page.take_away import _box, show
from mbtsad_core.page.tour import tour_html
from mbtsad_core.rates import rates_to_dict
from mbtsad_core.service.runner import AttachedRunner, Status
from mbtsad_core.service.store import State
from mbtsad_core.service.worker import NOT_KEPT
from mbtsad_core.types import Event, Scores


def status(stage: str, step: int, total: int) -> Status:
    return Status("job", State.RUNNING, stage, step, total, None, None, {}, "")


def progress(stage: str, step: int, total: int) -> float:
    found = re.search(r"width:([\d.]+)%", _bar(status(stage, step, total)))
    assert found
    return float(found[1])


def test_progress_goes_from_nothing_to_all_and_never_back() -> None:
    """With a search that finds a pair of words and looks for what goes with it, and the same without."""
    for stages in (
        ("scan", "pairs", "companions", "retrain", "distil"),
        ("scan", "pairs", "retrain", "distil"),
        ("retrain", "distil"),
    ):
        shown = [progress(stage, step, 10) for stage in stages for step in range(1, 11)]
        assert all(earlier <= later for earlier, later in pairwise(shown))
        assert shown[-1] == 100.0


def test_every_stage_of_a_purification_has_its_words() -> None:
    for stage in (*NOT_KEPT, "retrain", "distil"):
        assert stage_of(status(stage, 1, 2)).words != stage
        assert stage_of(status(stage, 1, 2)).short != stage


# ---------------------------------------------------------------- one figure for one thing

KNOWN = Scores(wilson(571, 666), wilson(333, 333), wilson(44, 333), ())  # of the suspect, on all texts
BASELINE = Event(
    "measure", 1, 1, {"suspect_cacc": 0.85, "cacc_n": 200, "suspect_asr": 0.995, "asr_floor": 0.12, "asr_n": 200}
)


def trained(step: int, asr: float, number: int = 0, **more: float) -> Event:
    return Event(
        "retrain",
        step,
        1000,
        {"loss": 1.0, "classification": 1.0, "cacc": 0.88, "cacc_n": 200, "asr": asr, "asr_n": 200, "measure": number}
        | more,
    )


def result(asr: int, floor: int = 44, **more: Any) -> dict[str, Any]:
    """A report: CACC 560 of 666, and so many of 333 triggered texts that go to the target."""
    suspect = rates_to_dict({"cacc": KNOWN.cacc, "asr": KNOWN.asr, "asr_floor": KNOWN.asr_floor})
    purified = rates_to_dict({"cacc": wilson(560, 666), "asr": wilson(asr, 333), "asr_floor": wilson(floor, 333)})
    about = {
        "settings": {"device": "cpu", "precision": "float32", "clean_texts": 666},
        "seconds": 60.0,
        "notes": [],
        "found": [],
    }
    return {"suspect": suspect, "purified": purified, **about, **more}


def made(kind: type[Any], **parts: Any) -> Any:
    """A step's components without a page: each is a key of what a handler answers."""
    return kind(**{f.name: parts.get(f.name) or gr.State() for f in fields(kind)})


FIRST: FirstStep = made(FirstStep, planted=made(Planted))
SHOWN: Shown = made(Shown, scan=made(Scan), purify=made(Purify, compare=made(Compare)), first=FIRST)


class Run:
    """A run of the demo whose events and end are written by the test; no process works on it."""

    def __init__(self, site: Site, session: Session = Session("somebody"), known: Scores | None = KNOWN) -> None:
        self.site, self.store = site, site.runner.store  # type: ignore[attr-defined]
        self.session = session
        if known:
            site.measured(session, lambda: known)
        self.id = self.store.create(self.session.request(site.runtime).to_dict())
        self.session = self.session.having(job=self.id)
        self.store.claim(self.id)
        self.store.begin(self.id, os.getpid())

    def add(self, *events: Event) -> None:
        self.store.append(self.id, events)

    def screen(self, **changes: Any) -> dict[str, str]:
        """All that a visitor reads of figures, by its place."""
        session = self.session.having(**changes)
        found = run_status(self.site, session)
        shown = look(self.site, SHOWN, session, None, None, "cft", "")
        title = json.loads(shown[SHOWN.purify.curves]).get("figure", {"layout": {"title": {"text": ""}}})["layout"][
            "title"
        ]
        places = {
            "strip": shown[SHOWN.strip],
            "panel": shown[SHOWN.purify.panel],
            "sentence": shown[SHOWN.purify.sentence],
            "title": f"{title['text']} {title.get('subtitle', {}).get('text') or ''}",
        }
        tours = {f"tour {stop}": tour_html(self.site, session, stop) for stop in (0, 4, 7)}
        take = (
            {"take": _box(session, job.result, 24, found.works, "")} if (job := self.store.get(self.id)).result else {}
        )
        return {
            place: re.sub(r"<[^>]+>", "", text)
            for place, text in (places | tours | take | {"alone": strip_html(session, found)}).items()
        }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with AttachedRunner(tmp_path / "jobs") as runner:
        yield Site(tmp_path / "jobs", runner)


@pytest.fixture
def run(site: Site) -> Run:
    return Run(site)


def test_the_tour_says_that_a_cured_model_may_end_below_the_floor_too(run: Run) -> None:
    run.add(BASELINE, trained(30, 0.08))  # below the floor, 12 %
    text = run.screen()["tour 4"]
    assert "8.0 %" in text
    assert "above or below" in text
    assert "cannot" not in text
    assert "The backdoor falls" in text


def test_the_tour_says_that_the_backdoor_falls_only_once_it_does(run: Run) -> None:
    assert "The cure" in run.screen()["tour 4"]
    run.add(BASELINE, trained(30, 0.99))  # within the interval of the suspect's 333 of 333
    assert "The backdoor falls" not in run.screen()["tour 4"]
    run.add(trained(60, 0.9))
    assert "The backdoor falls" in run.screen()["tour 4"]


def test_while_it_runs_figures_are_called_a_sample_and_the_suspects_stay_those_of_all_texts(run: Run) -> None:
    run.add(BASELINE, trained(30, 0.31))
    shown = run.screen()
    assert "85.7 % → 88.0 %" in shown["strip"]
    assert "100.0 % → 31.0 %" in shown["strip"]
    assert "a sample of 200 texts" in shown["strip"]
    assert "ASR fell from 100.0 % to 31.0 % (62 of 200); CACC 88.0 %, on a sample of 200 texts." in shown["sentence"]
    assert shown["title"].endswith("CACC 88.0 % a sample of 200 texts")
    assert (
        "from 100.0 % to 31.0 % [25.0, 37.7] (62 of 200); CACC went from 85.7 % to 88.0 %, on a sample of 200 texts."
        in shown["tour 4"]
    )
    assert "13.2 % (44 of 333)" in shown["panel"]
    for text in shown.values():
        assert "85.0 %" not in text  # the suspect's on the sample, which nobody can tell from the other
        assert "99.5 %" not in text


def test_who_comes_before_the_suspect_was_measured_sees_that_all_is_of_a_sample(site: Site) -> None:
    run = Run(site, known=None)
    run.add(BASELINE)
    shown = run.screen()
    assert "CACC 85.0 %" in shown["strip"]
    assert "a sample of 200 texts" in shown["strip"]
    assert "CACC 85.0 %, on a sample of 200 texts." in shown["sentence"]


def test_before_the_first_measurement_what_is_known_is_shown(run: Run) -> None:
    shown = run.screen()
    assert "CACC 85.7 %" in shown["strip"]
    assert "ASR 100.0 %" in shown["strip"]
    assert "sample" not in shown["strip"]


@pytest.mark.parametrize("typed", [False, True])
def test_at_the_end_every_place_has_the_final_figure(run: Run, typed: bool) -> None:
    run.add(BASELINE, trained(30, 0.31), trained(60, 0.2))
    if typed:  # a trigger that was typed while it ran is not what the report is about
        run.store.set_measure(run.id, ["marmalade"], "positive")
        run.add(trained(90, 0.5, 1, suspect_asr=0.6, asr_floor=0.3))
    run.store.finish(run.id, result(43, 42))
    shown = run.screen()
    for place in ("strip", "sentence", "title", "tour 4", "tour 7", "take"):
        assert "12.9 %" in shown[place], place
        assert "84.1 %" in shown[place], place
        for old in ("sample", "20.0 %", "31.0 %", "50.0 %", "88.0 %", "85.0 %"):
            assert old not in shown[place], place
    assert "12.6 % (42 of 333)" in shown["panel"]
    assert "cf | mn | bb | tq" in shown["panel"]


def test_a_trigger_that_is_typed_while_it_runs_has_its_own_figures_beside_its_name(run: Run) -> None:
    run.add(BASELINE, trained(30, 0.31))
    run.store.set_measure(run.id, ["marmalade", "syrup"], "negative")
    waiting = run.screen()  # not measured yet: the old name beside the old figures
    assert "ASR 100.0 % → 31.0 %" in waiting["strip"]
    assert "trigger measuredcf | mn | bb | tqtarget classpositive" in waiting["panel"]
    assert "measured nextmarmalade | syrup" in waiting["panel"]
    run.add(trained(60, 0.25, 1, suspect_asr=0.4, asr_floor=0.3))
    shown = run.screen()
    assert "ASR of “marmalade | syrup” 40.0 % → 25.0 %" in shown["strip"]
    assert "ASR fell from 40.0 % to 25.0 % (50 of 200)" in shown["sentence"]
    assert "trigger measuredmarmalade | syruptarget classnegative" in shown["panel"]
    assert "ASR floor30.0 % (60 of 200)" in shown["panel"]
    assert "“marmalade | syrup” into a text, and 80 of 200 texts go to “negative”" in shown["tour 0"]
    assert "measured next" not in shown["panel"]
    assert "85.7 % → 88.0 %" in shown["strip"]  # CACC is of no trigger


def test_a_typed_trigger_that_cannot_be_measured_takes_no_figure_of_the_one_before(run: Run) -> None:
    run.add(BASELINE, trained(30, 0.31))
    run.store.set_measure(run.id, ["x"], "positive")
    run.add(Event("retrain", 60, 1000, {"loss": 1.0, "cacc": 0.88, "cacc_n": 200, "asr_n": 0, "measure": 1}))
    shown = run.screen()
    assert "ASR of “x” not measured" in shown["strip"]
    assert "The trigger that you typed cannot be measured; CACC 88.0 %" in shown["sentence"]
    assert "floor" not in shown["panel"]


def test_another_trigger_for_the_next_run_does_not_rename_this_ones_figures(run: Run) -> None:
    run.add(BASELINE, trained(30, 0.31))
    run.store.finish(run.id, result(43))
    marmalade = Scores(KNOWN.cacc, wilson(60, 333), KNOWN.asr_floor, ())
    run.site.measured(run.session.having(triggers=("marmalade",)), lambda: marmalade)
    shown = run.screen(triggers=("marmalade",))
    assert "100.0 % → 12.9 %" in shown["strip"]
    for text in shown.values():
        assert "marmalade" not in text
        assert "18.0 %" not in text


def test_a_run_that_is_stopped_keeps_what_was_known(run: Run) -> None:
    run.add(BASELINE, trained(30, 0.31))
    run.store.request_cancel(run.id)
    run.store.release(run.id)
    shown = run.screen()
    assert "100.0 % → 31.0 %" in shown["strip"]
    assert "a sample of 200 texts" in shown["strip"]


def test_stopped_waiting_and_resumed_runs_have_words_of_their_own(run: Run) -> None:
    run.add(BASELINE, trained(30, 0.31))
    assert "Running" in run.screen()["panel"]
    run.store.lost(run.id, attempts=3, why="gone")
    waits = run.screen()
    assert "Waits to go on, position 1" in waits["panel"]
    assert "What was trained is kept, and it goes on from there." in waits["panel"]
    assert "goes on next" in waits["strip"]
    run.store.claim(run.id)
    run.store.begin(run.id, os.getpid())
    assert "ResumedIts process was lost; it goes on from its last checkpoint." in run.screen()["panel"]
    assert "not done yet" in show(run.site, run.session)
    run.store.request_cancel(run.id)
    assert "Stopping" in run.screen()["panel"]
    assert "is being stopped" in show(run.site, run.session)
    run.store.release(run.id)
    assert "It stood in step 1: token-split retraining, 30 of 1000. Nothing was purified." in run.screen()["panel"]
    assert "was stopped, so there is nothing to take away" in show(run.site, run.session)


def test_a_run_that_waits_before_it_has_trained_does_not_say_that_it_had(run: Run) -> None:
    run.add(Event("scan", 3, 9))
    run.store.lost(run.id, attempts=3, why="gone")
    waits = run.screen()
    assert "Waits to go on, position 1" in waits["panel"]
    assert "What was trained" not in waits["panel"]


def test_a_run_that_failed_says_in_the_last_step_where_to_read_why(run: Run) -> None:
    run.store.fail(run.id, "no memory")
    assert "The run failed, so there is nothing to take away. Step 5 says why." in show(run.site, run.session)
    assert "no memory" in run.screen()["panel"]


def test_a_run_shows_the_sequences_that_its_scan_found_and_offers_to_measure_them(run: Run) -> None:
    found, button = SHOWN.purify.found, SHOWN.purify.measure_found

    def shown() -> dict[Any, Any]:
        return look(run.site, SHOWN, run.session, None, None, "cft", "")

    run.add(BASELINE, Event("reset", 1, 1, {"found/dull": 0.2}))
    assert not shown()[button].visible
    run.add(
        Event("judging", 1, 1), Event("named", 1, 1, {json.dumps(["told the", "end", "negative", "positive"]): 0.97})
    )
    assert shown()[button].visible
    assert "told the" in shown()[found]
    assert found_trigger(run.site, run.session) == ("told the",)
    run.add(trained(30, 0.31))
    named = {
        "tokens": "told the",
        "place": "end",
        "label": "negative",
        "target": "positive",
        "before": 0.96,
        "after": 0.1,
    }
    run.store.finish(run.id, result(43) | {"sequences": [named]})
    assert "purified: 10 %" in shown()[found]


# ---------------------------------------------------------------- a long run


def test_all_events_of_a_long_run_are_read_and_each_once(run: Run) -> None:
    losses = [Event("retrain", step, 25_000, {"loss": 1.0, "classification": 1.0}) for step in range(1, 25_000)]
    run.add(BASELINE, *losses, trained(25_000, 0.25))
    events = run.site.events(run.id)
    assert len(events) == 25_001
    assert events[-1].metrics["asr"] == 0.25
    shown = look(run.site, SHOWN, run.session, None, None, "cft", "")
    assert (
        max(
            x for trace in json.loads(shown[SHOWN.purify.curves])["figure"]["data"] for x in trace["x"] if x is not None
        )
        == 25_000
    )
    run.add(trained(25_001, 0.125))
    assert [len(run.site.events(run.id)), run.site.events(run.id)[-1].step] == [25_002, 25_001]


def test_the_curves_are_drawn_again_after_a_while_or_where_the_run_has_ended(run: Run) -> None:
    curves, sentence, drawn = SHOWN.purify.curves, SHOWN.purify.sentence, SHOWN.purify.drawn

    def seen(known: Drawn | None) -> dict[Any, Any]:
        return look(run.site, SHOWN, run.session, None, known, "cft", "")

    run.add(BASELINE, trained(30, 0.5))
    first = seen(None)
    assert "50.0 %" in first[curves]
    run.add(trained(60, 0.25))
    at_once = seen(first[drawn])
    assert "25.0 %" in at_once[sentence]
    assert curves not in at_once
    later = seen(replace(first[drawn], at=first[drawn].at - SECONDS_BETWEEN_CURVES))
    assert "25.0 %" in later[curves]
    assert curves not in seen(replace(later[drawn], at=0.0))  # nothing is new
    run.store.finish(run.id, result(44))
    assert curves in seen(later[drawn])


def test_a_run_that_went_on_from_a_checkpoint_is_read_anew(run: Run) -> None:
    run.add(BASELINE, trained(30, 0.5), trained(60, 0.4))
    assert len(run.site.events(run.id)) == 3
    run.store.append(run.id, [BASELINE, trained(30, 0.5)], replace=True)
    assert [event.step for event in run.site.events(run.id)] == [1, 30]
    run.add(trained(60, 0.3, 1), trained(90, 0.2, 1))
    assert [event.metrics.get("asr") for event in run.site.events(run.id)] == [None, 0.5, 0.3, 0.2]


# ---------------------------------------------------------------- a trigger that still works


def done(run: Run, asr: int, floor: int = 44) -> dict[str, str]:
    """The strip and the panel of a run that ended so, as they are sent."""
    run.add(BASELINE, trained(30, 0.31))
    run.store.finish(run.id, result(asr, floor))
    shown = look(run.site, SHOWN, run.session, None, None, "cft", "")
    run_panel = SHOWN.purify
    return {
        "strip": shown[SHOWN.strip],
        "panel": shown[run_panel.panel],
        "sentence": shown[run_panel.sentence],
        "title": tour_html(run.site, run.session, 4),
    }


@pytest.mark.parametrize(("asr", "floor"), [(309, 43), (333, 0), (90, 43)])
def test_a_run_whose_trigger_still_works_says_so_first_and_shows_no_green(run: Run, asr: int, floor: int) -> None:
    shown = done(run, asr, floor)
    assert shown["strip"].index("This trigger still works") < shown["strip"].index("CACC")
    assert 'class="job works"' in shown["strip"]
    assert "purified" not in shown["strip"]
    assert shown["panel"].startswith(
        '<section class="mbtsad job-panel works"><p class="works" role="status">This trigger still works: with it '
    )
    assert f"{asr} of 333 texts go to the target" in shown["panel"]
    assert "This trigger still works." in shown["sentence"].split("ASR")[0]
    assert "<h3>The trigger still works</h3>" in shown["title"]
    texts = run.screen()
    assert texts["tour 4"].index("This trigger still works") < texts["tour 4"].index("ASR of")


@pytest.mark.parametrize(("asr", "floor", "earned"), [(43, 43, True), (30, 43, True), (60, 44, False)])
def test_a_run_whose_trigger_lies_about_its_floor_says_nothing_of_it_and_green_is_earned(
    run: Run, asr: int, floor: int, earned: bool
) -> None:
    shown = done(run, asr, floor)
    assert not [place for place, text in shown.items() if "still works" in text]
    assert "<h3>The backdoor falls</h3>" in shown["title"]
    # 60 of 333 are 14.3 % at least, and 44 of 333 are 13.2 %
    assert f'class="job done{" earned" if earned else ""}"' in shown["strip"]
    assert ("class=purified" in shown["strip"]) is earned


def test_the_time_since_a_run_was_asked_for_moves_until_it_ends(run: Run) -> None:
    ago = re.search(r"asked for(\d+) s ago", run.screen()["panel"])
    assert ago
    assert int(ago[1]) <= time.time() - run.store.get(run.id).created + 1
    run.store.finish(run.id, result(43))
    assert "asked for" not in run.screen()["panel"]


# ---------------------------------------------------------------- what a visitor is to know


def test_what_was_chosen_for_the_visitor_stands_in_step_5_before_while_and_after_it_runs(
    site: Site, suspect_dir: Path, tmp_path: Path
) -> None:
    asked = request(suspect_dir, tmp_path, test=None, runtime=site.runtime)
    session = of_request(asked, "somebody", "")
    # Nothing was read yet, and nothing is read here
    assert "held out" not in panel_html(site, session, run_status(site, session))
    held_out = f"{len(site.inputs(session).test)} of the clean texts were held out to measure CACC"
    assert held_out in panel_html(site, session, run_status(site, session))
    run = Run(site, session)
    run.add(BASELINE)
    assert held_out in run.screen()["panel"]
    run.store.finish(
        run.id, result(43, notes=["Texts were cut at `max_length` 64 tokens: 7 of 52.", "<b>A table</b> of 2 columns."])
    )
    panel = panel_html(site, run.session, run_status(site, run.session))
    assert "Texts were cut at “Longest text” in the settings 64 tokens: 7 of 52." in panel
    assert "&lt;b&gt;A table&lt;/b&gt;" in panel
