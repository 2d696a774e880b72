"""The guided tour: the same page, step by step, narrated with the visitor's own run and figures."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mbtsad_core.errors import MBTSADError
from mbtsad_core.page.components import html, render
from mbtsad_core.page.handlers import LIGHT, told
from mbtsad_core.page.parts import Parts
from mbtsad_core.page.run_status import RunStatus, run_status
from mbtsad_core.page.session import Session
from mbtsad_core.page.site import Site
from mbtsad_core.views.words import sample_of

STOPS = {
    "suspect": "The suspect",
    "clean": "What the cure may know",
    "scan": "Is anything in it?",
    "splits": "Words cut in two",
    "purify": "The cure",
    "inside": "What changed inside",
    "triggers": "Try it yourself",
    "take": "Take it home",
}


def tour_html(site: Site, session: Session, stop: int) -> str:
    """The narration of a stop, from 0."""
    step, found = list(STOPS)[stop], run_status(site, session)
    inputs = None
    if step == "clean":
        with contextlib.suppress(MBTSADError):
            inputs = site.inputs(session)
    return render(
        "tour.html",
        step=step,
        title=_course(found) if step == "purify" else STOPS[step],
        stop=stop,
        stops=len(STOPS),
        name=session.suspect.name,
        found=found,
        inputs=inputs,
        sample=sample_of(found.sample or 0),
    )


def _course(found: RunStatus) -> str:
    """The title of the stop at the run says what its figures show."""
    before, now = found.before[1], found.now[1]
    if found.works:
        return "The trigger still works"
    return "The backdoor falls" if before and now and now.high < before.low else STOPS["purify"]


# ---------------------------------------------------------------- on the page


@dataclass(frozen=True)
class Tour:
    """The components of the tour. `stop` is the number of the stop, -1 outside the tour."""

    tabs: gr.Tabs
    row: gr.Row
    text: gr.HTML
    next: gr.Button
    leave: gr.Button
    stop: gr.State


def tour_part() -> tuple[gr.Row, gr.HTML, gr.Button, gr.Button]:
    with gr.Row(visible=False, elem_id="tour") as row:
        text = html(elem_id="tour-text")
        with gr.Column(scale=0, min_width=120):
            following = gr.Button("Next stop", variant="primary", size="sm", elem_id="tour-next")
            leave = gr.Button("Leave the tour", size="sm", elem_id="tour-leave")
    return row, text, following, leave


def listen_to_tour(parts: Parts, tour: Tour, start: gr.Button) -> None:
    site, session, ended = parts.site, parts.session, [tour.stop, tour.row, tour.text]
    going = told(go, site, tour)
    start.click(lambda session: going(session, -1), session, [*ended, tour.tabs, tour.next], **LIGHT)
    tour.next.click(going, [session, tour.stop], [*ended, tour.tabs, tour.next], **LIGHT)
    tour.leave.click(lambda: end(tour), None, ended, **LIGHT)


def end(tour: Tour) -> dict[Any, Any]:
    return {tour.stop: -1, tour.row: gr.Row(visible=False), tour.text: ""}


def go(site: Site, tour: Tour, session: Session, stop: int) -> dict[Any, Any]:
    """The next stop of the tour; after the last it ends."""
    stop += 1
    if stop >= len(STOPS):
        return end(tour) | {tour.next: gr.Button("Next stop")}
    return {
        tour.stop: stop,
        tour.row: gr.Row(visible=True),
        tour.text: tour_html(site, session, stop),
        tour.tabs: gr.Tabs(selected=list(STOPS)[stop]),
        tour.next: gr.Button("End of the tour" if stop == len(STOPS) - 1 else "Next stop"),
    }


def narrate(site: Site, session: Session, stop: int) -> Any:
    return tour_html(site, session, stop) if stop >= 0 else gr.skip()
