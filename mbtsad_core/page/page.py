"""The whole page: header, strip, steps, the tour; what happens as a visitor comes in, and as time goes on."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from mbtsad_core.errors import BadData, MBTSADError, UnknownJob
from mbtsad_core.page.api import add_api
from mbtsad_core.page.clean_data import clean_step
from mbtsad_core.page.compare import update_compared
from mbtsad_core.page.components import html, render
from mbtsad_core.page.first_look import cured_html
from mbtsad_core.page.handlers import LIGHT, QUIET, told, words
from mbtsad_core.page.inside import inside_step
from mbtsad_core.page.parts import STEPS, Call, Parts, in_turn
from mbtsad_core.page.planting import update_planted, waited_for
from mbtsad_core.page.purify import Purify, attend, job_of_link, purify_step, update_run
from mbtsad_core.page.run_status import MOVING, TERMS, RunStatus, run_status, strip_html
from mbtsad_core.page.scan import Scan, scan_step, update_scan
from mbtsad_core.page.session import Session, of_request, of_scan
from mbtsad_core.page.site import Site
from mbtsad_core.page.splits import splits_step
from mbtsad_core.page.suspect import FirstStep, suspect_step
from mbtsad_core.page.take_away import take_step
from mbtsad_core.page.tour import Tour, listen_to_tour, narrate, tour_part
from mbtsad_core.page.triggers import take_from_inside, triggers_step
from mbtsad_core.service.comparison import is_comparison
from mbtsad_core.service.planting import is_planting
from mbtsad_core.service.purification import Request
from mbtsad_core.service.scan_job import ScanJob, is_scan
from mbtsad_core.service.store import State

TITLE = "MBTSAD: see a backdoor, watch it fall"
SECONDS_BETWEEN_LOOKS = 1.0
VISITOR_BYTES = 18
BUILDERS = {
    "suspect": suspect_step,
    "clean": clean_step,
    "scan": scan_step,
    "splits": splits_step,
    "purify": purify_step,
    "inside": inside_step,
    "triggers": triggers_step,
    "take": take_step,
}
KEEP_LINK = """(named) => {
  const url = new URL(window.location.href), jobs = new URLSearchParams(named);
  for (const kind of ["job", "scan"])
    if (jobs.has(kind)) url.searchParams.set(kind, jobs.get(kind)); else url.searchParams.delete(kind);
  window.history.replaceState(null, "", url);
}"""
TURN_DARK = "() => keepTheme(document.body.classList.toggle('dark'))"
BROKEN = '<p class="mbtsad card refused" role="alert">{} <a href="?step=suspect">Open the demo</a></p>'


@dataclass(frozen=True)
class Shown:
    """The components that show how the visitor's jobs stand."""

    strip: gr.HTML
    scan: Scan
    purify: Purify
    first: FirstStep
    timer: gr.Timer

    @property
    def all(self) -> list[Any]:
        return [
            self.strip,
            *self.scan.shown,
            *self.purify.shown,
            *self.purify.compare.shown,
            self.first.cured,
            *self.first.planted.shown,
            self.timer,
        ]


def build_page(site: Site) -> gr.Blocks:
    """The page of a site; `launch` it with ui.launch."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86_400), fill_width=True) as page:
        html('<a class="mbtsad skip" href="#steps">Skip to the step</a>')
        session = gr.State(Session())
        visitor = gr.BrowserState("", storage_key="mbtsad-visitor", secret="mbtsad")
        timer = gr.Timer(SECONDS_BETWEEN_LOOKS, active=False)
        with gr.Row(elem_id="top"):
            strip = html(strip_html(Session(), RunStatus()), elem_id="strip")
            with gr.Row(elem_id="top-buttons"):
                start_tour = gr.Button("Guided tour", size="sm", elem_id="start-tour", min_width=60)
                dark = gr.Button("Light / dark", size="sm", elem_id="dark", min_width=60)
                present = gr.Button("Large type", size="sm", elem_id="present", min_width=60)
        touring, notice = tour_part(), html(elem_id="notice")
        with gr.Tabs(elem_id="steps", overflow_behavior="wrap", selected="suspect") as tabs:
            parts, opened, made = Parts(site, session, tabs), dict[str, gr.Tab](), dict[str, Any]()
            for step, build in BUILDERS.items():
                with gr.Tab(STEPS[step], id=step, elem_id=f"step-{step}") as opened[step]:
                    made[step] = build(parts)
        take_from_inside(parts, made["inside"], made["triggers"])
        shown = Shown(strip, made["scan"], made["purify"], made["suspect"], timer)
        html(render("terms.html", terms=TERMS))
        tour = Tour(tabs, *touring, gr.State(-1))
        compare = shown.purify.compare
        known = [session, shown.scan.sent, shown.purify.drawn, compare.method, compare.sent]
        looking = (told(look, site, shown), known, shown.all)
        ticked = timer.tick(*looking, **LIGHT, trigger_mode="once")
        ticked.then(told(narrate, site), [session, tour.stop], tour.text, **LIGHT)
        _listen_to_jobs(parts, looking)
        coming = page.load(told(come_in, parts, visitor, notice), visitor, [session, visitor, tabs, notice], **QUIET)
        coming.then(None, None, None, js="() => cameIn()")
        coming = _work(parts, coming.success(*looking, **QUIET), looking)
        in_turn(coming.success, *parts.on_load, looking, **QUIET)
        for step, calls in parts.opened.items():
            in_turn(opened[step].select, *calls, **QUIET)
        listen_to_tour(parts, tour, start_tour)
        dark.click(None, None, None, js=TURN_DARK)
        page.load(None, None, None, js="() => putPresenting()")
        present.click(None, None, None, js="() => keepPresenting(!document.body.classList.contains('present'))")
        add_api(site)
    return page


def _listen_to_jobs(parts: Parts, looking: Call) -> None:
    """After each event that changes the session or starts a job, show how the jobs stand, and keep the link."""
    # A session that names its jobs only, for the address bar: the session itself stays on the server.
    job = gr.Textbox(visible=False, elem_id="job-id")
    for event, runs in parts.events:
        named = event.success(*looking, **QUIET).then(told(linked, parts.site), parts.session, job, **LIGHT)
        kept = named.then(None, job, None, js=KEEP_LINK)
        if runs:
            _work(parts, kept, looking)


def linked(site: Site, session: Session) -> str:
    """The jobs that the address names: the visitor's own run or planting, and his scan, if any."""
    job = session.planting or ("" if site.is_shared(session) else session.job)
    return urlencode({kind: id for kind, id in (("job", job), ("scan", session.scan)) if id})


def _work(parts: Parts, event: Any, looking: Call) -> Any:
    """Where jobs need a caller, work on them after this event; returns the event to go on from."""
    if not parts.site.runner.detached:
        gpu: dict[str, Any] = dict(concurrency_id="gpu", concurrency_limit=1)
        event.then(told(attend, parts.site), parts.session, None, **QUIET, **gpu).then(*looking, **QUIET)
    return event


def look(
    site: Site, shown: Shown, session: Session, scanned: Any, drawn: Any, method: str, sent: str
) -> dict[Any, Any]:
    """The strip and all else that shows the visitor's jobs, as they stand now; the timer goes on while one moves."""
    found = run_status(site, session)
    scan, scanning = update_scan(site, shown.scan, session, scanned)
    compared, comparing = update_compared(site, shown.purify.compare, session, method, sent)
    planted, planting = update_planted(site, shown.first.planted, session)
    curing = bool(site.demo) and site.runner.status(site.demo).state in MOVING
    return {
        shown.first.cured: cured_html(site),
        shown.strip: strip_html(site.described(session), found),
        **scan,
        **update_run(site, shown.purify, session, drawn, found),
        **compared,
        **planted,
        shown.timer: gr.Timer(active=found.moving or scanning or comparing or planting or curing),
    }


def come_in(parts: Parts, known: gr.BrowserState, notice: gr.HTML, visitor: str, request: gr.Request) -> dict[Any, Any]:
    """A new session, or the one of the job in the link, at the step that the address names."""
    visitor, asked = visitor or secrets.token_urlsafe(VISITOR_BYTES), dict(request.query_params)
    session, step, broken = _session_of(parts.site, visitor, asked.get("job", ""), asked.get("scan", ""))
    if (named := asked.get("step")) in STEPS and not broken:
        step = named
    return {
        parts.session: session,
        known: visitor,
        parts.tabs: gr.Tabs(selected=step) if step != "suspect" else gr.skip(),  # a visitor may have gone on by then
        notice: BROKEN.format(escape(broken)) if broken else "",
    }


def _session_of(site: Site, visitor: str, id: str, scan: str = "") -> tuple[Session, str, str]:
    """The session of a visitor who came by the link to a job, "" for none, or to a scan, or both; the step that shows
    it; and what is wrong with the link, where something is."""
    if id and scan:
        session, step, broken = _session_of(site, visitor, id)
        return (session if broken else session.having(scan=scan)), step, broken
    new = Session(visitor, planting=waited_for(site, visitor), job=site.demo)
    id = id or scan
    if not id:
        return new, "suspect", ""
    try:
        job = site.runner.job(job_of_link(id))
        if job.state is State.EXPIRED:
            return Session(visitor, job=id), "purify", "The run of this link has expired: its results are gone."
        if is_planting(job.request):
            return Session(visitor, planting=id), "suspect", ""
        if is_scan(job.request):
            found = of_scan(ScanJob.from_dict(job.request), visitor, id)
            return found.having(job=site.demo if found.suspect.source.is_demo else ""), "scan", ""
        if is_comparison(job.request):  # no run, and it is found by its visitor
            return new, "suspect", ""
        found = of_request(Request.from_dict(job.request), visitor, id)
    except UnknownJob as error:
        return Session(visitor, job=id), "purify", words(error)
    except BadData as error:  # damaged
        return new, "suspect", words(error)
    except KeyError:
        return new, "suspect", "The run of this link was made by another version of this page."
    try:
        found = found.with_description(site.suspect(found))
    except MBTSADError as error:
        gr.Warning(words(error))
    return found, "purify", ""
