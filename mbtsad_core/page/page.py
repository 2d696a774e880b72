"""The whole page: header, strip, seven steps, the tour; what happens as a visitor comes in, and as time goes on."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mbtsad_core.errors import MBTSADError
from mbtsad_core.page.api import add_api
from mbtsad_core.page.clean_data import clean_step
from mbtsad_core.page.compare import update_compared
from mbtsad_core.page.components import html
from mbtsad_core.page.handlers import LIGHT, PRIVATE, QUIET, told, words
from mbtsad_core.page.inside import inside_step
from mbtsad_core.page.parts import STEPS, Call, Parts, in_turn
from mbtsad_core.page.planting import Planted, update_planted, waited_for
from mbtsad_core.page.purify import Purify, attend, job_of_link, purify_step, update_run
from mbtsad_core.page.run_status import RunStatus, run_status, strip_html
from mbtsad_core.page.session import Session, of_request
from mbtsad_core.page.site import Site
from mbtsad_core.page.splits import splits_step
from mbtsad_core.page.suspect import suspect_step
from mbtsad_core.page.take_away import take_step
from mbtsad_core.page.tour import Tour, listen_to_tour, narrate, tour_part
from mbtsad_core.page.triggers import triggers_step
from mbtsad_core.service.comparison import is_comparison
from mbtsad_core.service.planting import is_planting
from mbtsad_core.service.purification import Request

TITLE = "MBTSAD: see a backdoor, watch it fall"
SECONDS_BETWEEN_LOOKS = 1.0
VISITOR_BYTES = 18
BUILDERS = {
    "suspect": suspect_step,
    "clean": clean_step,
    "splits": splits_step,
    "purify": purify_step,
    "inside": inside_step,
    "triggers": triggers_step,
    "take": take_step,
}
KEEP_LINK = """(job) => {
  const url = new URL(window.location.href);
  if (job) url.searchParams.set("job", job); else url.searchParams.delete("job");
  window.history.replaceState(null, "", url);
}"""
TURN_DARK = "() => { document.body.classList.toggle('dark'); }"


@dataclass(frozen=True)
class Shown:
    """The components that show how the visitor's jobs stand."""

    strip: gr.HTML
    purify: Purify
    planted: Planted
    timer: gr.Timer

    @property
    def all(self) -> list[Any]:
        return [self.strip, *self.purify.shown, *self.purify.compare.shown, *self.planted.shown, self.timer]


def build_page(site: Site) -> gr.Blocks:
    """The page of a site; `launch` it with ui.launch."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86_400), fill_width=True) as page:
        session = gr.State(Session())
        visitor = gr.BrowserState("", storage_key="mbtsad-visitor", secret="mbtsad")
        timer = gr.Timer(SECONDS_BETWEEN_LOOKS, active=False)
        with gr.Row(elem_id="top"):
            strip = html(strip_html(Session(), RunStatus()), elem_id="strip")
            with gr.Row(elem_id="top-buttons"):
                start_tour = gr.Button("Guided tour", size="sm", elem_id="start-tour", min_width=60)
                dark = gr.Button("Light / dark", size="sm", elem_id="dark", min_width=60)
        touring = tour_part()
        with gr.Tabs(elem_id="steps", overflow_behavior="wrap", selected="suspect") as tabs:
            parts, opened, made = Parts(site, session, tabs), dict[str, gr.Tab](), dict[str, Any]()
            for step, build in BUILDERS.items():
                with gr.Tab(STEPS[step], id=step, elem_id=f"step-{step}") as opened[step]:
                    made[step] = build(parts)
        shown = Shown(strip, made["purify"], made["suspect"], timer)
        tour = Tour(tabs, *touring, gr.State(-1))
        compare = shown.purify.compare
        looking = (told(look, site, shown), [session, shown.purify.drawn, compare.method, compare.sent], shown.all)
        ticked = timer.tick(*looking, **LIGHT, trigger_mode="once")
        ticked.then(told(narrate, site), [session, tour.stop], tour.text, **LIGHT)
        _listen_to_jobs(parts, looking)
        coming = page.load(told(come_in, parts, visitor), visitor, [session, visitor, tabs], **PRIVATE)
        coming = _work(parts, coming.success(*looking, **QUIET), looking)
        in_turn(coming.success, *parts.on_load, looking, **QUIET)
        for step, calls in parts.opened.items():
            in_turn(opened[step].select, *calls, **QUIET)
        listen_to_tour(parts, tour, start_tour)
        dark.click(None, None, None, js=TURN_DARK)
        add_api(site)
    return page


def _listen_to_jobs(parts: Parts, looking: Call) -> None:
    """After each event that changes the session or starts a job, show how the jobs stand, and keep the link."""
    # A session that names its job only, for the address bar: the session itself stays on the server.
    job = gr.Textbox(visible=False, elem_id="job-id")
    for event, runs in parts.events:
        named = event.success(*looking, **QUIET).then(lambda s: s.planting or s.job, parts.session, job, **LIGHT)
        kept = named.then(None, job, None, js=KEEP_LINK)
        if runs:
            _work(parts, kept, looking)


def _work(parts: Parts, event: Any, looking: Call) -> Any:
    """Where jobs need a caller, work on them after this event; returns the event to go on from."""
    if not parts.site.runner.detached:
        gpu: dict[str, Any] = dict(concurrency_id="gpu", concurrency_limit=1)
        event.then(told(attend, parts.site), parts.session, None, **QUIET, **gpu).then(*looking, **QUIET)
    return event


def look(site: Site, shown: Shown, session: Session, drawn: Any, method: str, sent: str) -> dict[Any, Any]:
    """The strip and all else that shows the visitor's jobs, as they stand now; the timer goes on while one moves."""
    found = run_status(site, session)
    compared, comparing = update_compared(site, shown.purify.compare, session, method, sent)
    planted, planting = update_planted(site, shown.planted, session)
    return {
        shown.strip: strip_html(session, found),
        **update_run(site, shown.purify, session, drawn, found),
        **compared,
        **planted,
        shown.timer: gr.Timer(active=found.moving or comparing or planting),
    }


def come_in(parts: Parts, known: gr.BrowserState, visitor: str, request: gr.Request) -> dict[Any, Any]:
    """A new session, or the one of the job in the link."""
    visitor = visitor or secrets.token_urlsafe(VISITOR_BYTES)
    id = job_of_link(parts.site, dict(request.query_params).get("job", ""))
    session, step = _session_of(parts.site, visitor, id)
    return {parts.session: session, known: visitor, parts.tabs: gr.Tabs(selected=step)}


def _session_of(site: Site, visitor: str, id: str) -> tuple[Session, str]:
    """The session of a visitor who came by the link to a job, "" for none; and the step that shows it."""
    if not id:
        return Session(visitor, planting=waited_for(site, visitor)), "suspect"
    try:
        asked = site.runner.job(id).request
        if is_planting(asked):
            return Session(visitor, planting=id), "suspect"
        if is_comparison(asked):  # no run, and it is found by its visitor
            return Session(visitor), "suspect"
        found = of_request(Request.from_dict(asked), visitor, id)
    except (MBTSADError, KeyError):  # unknown, or expired: what it asked for is gone
        return Session(visitor, job=id), "purify"
    try:
        found = found.with_description(site.suspect(found))
    except MBTSADError as error:
        gr.Warning(words(error))
    return found, "purify"
