"""Step 4, below the run: any other method on the same suspect, clean sample, test texts and trigger, its figures beside
MBTSAD's.

Each is a job of the visitor's, as a run of MBTSAD is; the store knows them, so a closed tab loses none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.mbtsad_method import MBTSAD
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.detectors.onion import MODEL
from mbtsad_core.errors import BadData, UnknownJob
from mbtsad_core.methods import Method, Need
from mbtsad_core.page.components import html
from mbtsad_core.page.handlers import PRIVATE, QUIET, in_the_pages_words, told
from mbtsad_core.page.parts import Parts, empty, said
from mbtsad_core.page.run_status import MOVING, stage_of
from mbtsad_core.page.session import Session, read_hub_id
from mbtsad_core.page.site import Site
from mbtsad_core.service.comparison import Comparison, is_comparison, subject
from mbtsad_core.service.purification import Request, scores_to_dict
from mbtsad_core.service.store import Job, State
from mbtsad_core.sources import Source
from mbtsad_core.types import Rate
from mbtsad_core.views.words import duration, percent

ATTACHED = (
    "This host lends its machine for less than a minute at a time, and these methods cannot be cut into such "
    "pieces. Run them in the terminal."
)
NONE_YET = (
    "No other method has been run on this suspect, these texts and this trigger. Choose one and run it: its "
    "figures stand here, beside MBTSAD’s."
)
FIGURES = {
    "cacc": (
        "CACC",
        "Share of clean test texts that are answered right; behind a detector a flagged text counts as wrong",
    ),
    "asr": (
        "ASR",
        "Share of triggered texts of the other classes that go to the target; behind a detector a flagged text counts "
        "as not attacked",
    ),
    "asr_floor": ("floor", "Share of the same texts that go to the target without the trigger"),
}
ERRORS = ("frr", "far")  # of a detector


def others() -> dict[str, Method[Any, Any]]:
    """All methods but the page's own, in the order of the menu."""
    return {key: method for key, method in (DEFENSES | DETECTORS).items() if method is not MBTSAD}


def lacking() -> dict[str, str]:
    """The methods that cannot be run here, and what each lacks; looked up anew each time."""
    source = os.environ.get(MODEL, "")
    if Source(source).is_hub or (Path(source).is_absolute() and Path(source).is_dir()):
        return {}
    what = (
        f"a causal language model, which this server’s environment variable {MODEL} names: hub:OWNER/NAME, "
        "or the whole path of a folder"
    )
    return {key: what for key, method in others().items() if method.needs is Need.LANGUAGE_MODEL}


def offered() -> list[tuple[str, str]]:
    """The menu: what it shows, and the key of DEFENSES or DETECTORS."""
    return [(f"{method.title}: {method.about}", key) for key, method in others().items() if key not in lacking()]


def needs_pretrained(key: str) -> bool:
    return others()[key].needs is Need.PRETRAINED


@dataclass(frozen=True)
class Compare:
    """The components that show comparisons, and `sent`: the table as the page has it."""

    method: gr.Dropdown
    run: gr.Button
    stop: gr.Button
    table: gr.HTML
    sent: gr.State

    @property
    def shown(self) -> list[Any]:
        return [self.table, self.run, self.stop, self.sent]


def compare_part(parts: Parts) -> Compare:
    site = parts.site
    with gr.Accordion("Compare other methods", open=False, elem_id="compare") as accordion:
        html(
            '<p class="mbtsad muted">The same suspect, clean sample, test texts and trigger, in the same queue. No '
            "method gets the trigger: it is for measuring only. "
            "The figures are kept, the models are not; a method that is interrupted begins anew.</p>"
        )
        with gr.Row():
            method = gr.Dropdown(
                offered(), value=next(iter(others())), label="Method", elem_id="compare-method", scale=3, min_width=280
            )
            pretrained = gr.Textbox(
                label="Pre-trained model on the Hub",
                info="The encoder that the suspect was fine-tuned from",
                placeholder="owner/name, or owner/name@revision",
                visible=False,
                elem_id="compare-pretrained",
                scale=2,
                min_width=280,
            )
        about = html(_settings_of(next(iter(others()))), elem_id="compare-about")
        with gr.Row():
            run = gr.Button(
                "Run this method",
                variant="primary",
                interactive=site.runner.detached,
                elem_classes="narrow",
                elem_id="compare-run",
            )
            stop = gr.Button(
                "Stop this method", variant="stop", interactive=False, elem_classes="narrow", elem_id="compare-stop"
            )
        answer = html("" if site.runner.detached else said(ATTACHED), elem_id="compare-said")
        absent = "; ".join(f"{others()[name].title} lacks {what}" for name, what in lacking().items())
        html(
            f'<p class="mbtsad muted" id="compare-lacking">Not to be run here: {escape(absent)}.</p>' if absent else ""
        )
        table = html(empty(NONE_YET), elem_id="compared")
    compare = Compare(method, run, stop, table, gr.State(""))

    @told
    def begin(session: Session, name: str, id: str | None) -> str:
        place = read_hub_id(id)
        if missing := lacking().get(name):
            raise BadData(f"This method cannot be run here: it lacks {missing}. Choose another.")
        if needs_pretrained(name) and not place:
            raise BadData(
                f"{others()[name].title} needs the encoder that the suspect was fine-tuned from. Type its id on the "
                "Hub, such as owner/name."
            )
        if _moves(compared(site, session).get(name)):
            raise BadData(f"{others()[name].title} waits or runs already. Wait for its end, or stop it.")
        site.compare(session, name, f"hub:{place}" if needs_pretrained(name) else None)
        return said(f"{others()[name].title} is in the queue. It goes on when you close this page.")

    @told
    def end(session: Session, name: str) -> str:
        job = compared(site, session).get(name)
        if job is not None and _moves(job):
            site.runner.cancel(job.id)
        return ""

    @told
    def show(session: Session, name: str, sent: str) -> tuple[Any, ...]:
        """The table for who comes in or comes back; it is open where there is something in it."""
        shown, _ = update_compared(site, session, name, sent)
        return *shown, gr.Accordion(open=True) if compared(site, session) else gr.skip()

    @told
    def choose(session: Session, name: str) -> tuple[Any, ...]:
        job = compared(site, session).get(name)
        return gr.Textbox(visible=needs_pretrained(name)), _settings_of(name), *_buttons(site, job)

    method.change(choose, [parts.session, method], [pretrained, about, run, stop], **QUIET)
    parts.refresh_on(run.click(begin, [parts.session, method, pretrained], answer, **PRIVATE))
    parts.refresh_on(stop.click(end, [parts.session, method], answer, **PRIVATE))
    showing = (show, [parts.session, method, compare.sent], [*compare.shown, accordion])
    parts.opened["purify"] = [showing]
    parts.on_load.append(showing)
    return compare


def update_compared(site: Site, session: Session, method: str, sent: str) -> tuple[tuple[Any, ...], bool]:
    """Table, buttons and what was sent, as the visitor's comparisons stand now; and whether one waits or runs."""
    jobs = compared(site, session)
    table = table_html(site, session, jobs)
    shown = (gr.skip() if table == sent else table, *_buttons(site, jobs.get(method)), table)
    return shown, any(map(_moves, jobs.values()))


def compared(site: Site, session: Session) -> dict[str, Job]:
    """The visitor's newest job of each method on what the session has now. A figure means something only beside those
    of the same suspect, texts and trigger: once these change, the others are left out, and come back with them."""
    found: dict[str, Job] = {}
    for job in site.runner.jobs(session.visitor):
        if is_comparison(job.request):
            asked = Comparison.from_dict(job.request)
            if asked.method not in found and _same(site, session, asked.request):
                found[asked.method] = job
    return found


def _same(site: Site, session: Session, request: Request) -> bool:
    return subject(request) == subject(session.request(site.runtime))


def _moves(job: Job | None) -> bool:
    return job is not None and job.state in MOVING


def _buttons(site: Site, job: Job | None) -> tuple[Any, Any]:
    can_stop = job is not None and _moves(job) and job.state is not State.CANCELLING
    return gr.Button(interactive=site.runner.detached and not _moves(job)), gr.Button(interactive=can_stop)


def _settings_of(method: str) -> str:
    command = f"mbtsad {'detect' if method in DETECTORS else 'defend'} {method} --help"
    return (
        '<p class="mbtsad muted">It runs with its default settings. To change them, in the terminal: <code>'
        f"{escape(command)}</code></p>"
    )


# ---------------------------------------------------------------- the table


def table_html(site: Site, session: Session, jobs: Mapping[str, Job]) -> str:
    """The suspect, MBTSAD, and each other method that was run, in the order of the menu."""
    if not jobs:
        return empty(NONE_YET)
    mbtsad = _own_run(site, session)
    results = [job.result for job in (mbtsad, *jobs.values()) if job and job.result]
    suspect = results[0]["suspect"] if results else scores_to_dict(session.scores) if session.scores else None
    rows = [_row("suspect", session.suspect.name, suspect, "" if suspect else "not measured yet")]
    rows.append(
        _job_row(site, "MBTSAD", "the run above", mbtsad, "purified")
        if mbtsad
        else _row("MBTSAD", "the run above", None, "not run yet")
    )
    rows += [
        _job_row(site, method.title, method.about, jobs[key], "result")
        for key, method in others().items()
        if key in jobs
    ]
    heads = "".join(
        f'<th scope="col" role="columnheader" class="number" title="{escape(about)}">{name}</th>'
        for name, about in FIGURES.values()
    )
    return (
        '<section class="mbtsad compared" aria-label="Methods compared"><p class="muted">In brackets: Wilson 95 % '
        "interval. "
        "Floor: share of the same texts that go to the target without the trigger. FRR: share of clean texts that a "
        "detector flags; FAR: share of triggered ones "
        "that it does not. Time: from start to end, with loading and measuring.</p>"
        '<table class="figures" role="table"><thead role="rowgroup"><tr role="row"><th scope="col" '
        f'role="columnheader">method</th>{heads}'
        f'<th scope="col" role="columnheader">time</th></tr></thead><tbody role="rowgroup">{"".join(rows)}</tbody>'
        "</table></section>"
    )


def _own_run(site: Site, session: Session) -> Job | None:
    """The session's run of MBTSAD, where it is of the same suspect, texts and trigger."""
    try:
        job = site.runner.job(session.job) if session.job else None
    except UnknownJob:
        return None
    return job if job and job.request and _same(site, session, Request.from_dict(job.request)) else None


def _job_row(site: Site, name: str, about: str, job: Job, figures: str) -> str:
    if job.state is State.DONE and job.result:
        found = job.result[figures]
        errors = ", ".join(f"{rate.upper()} {percent(found[rate])}" for rate in ERRORS if found.get(rate) is not None)
        return _row(name, f"{about}. {errors}" if errors else about, found, duration(job.result["seconds"]))
    return _row(name, about, None, *_state(site, job))


def _state(site: Site, job: Job) -> tuple[str, str]:
    """How a job without figures stands; and the stage that it is in, or what its visitor is told."""
    status = site.runner.status(job.id)
    match status.state:
        case State.QUEUED:
            return (
                "starts next" if status.position == 1 else f"queued, position {status.position}"
            ), in_the_pages_words(status.message)
        case State.RUNNING if not status.total:
            return "starting", ""
        case State.RUNNING:
            left = f", {duration(status.seconds_left)} left" if status.seconds_left is not None else ""
            return f"running {100 * status.step // status.total} %{left}", stage_of(status).words
        case State.CANCELLING:
            return "stopping", ""
        case State.CANCELLED:
            return "stopped", ""
        case State.FAILED:
            return f"failed: {in_the_pages_words(status.message)}", ""
        case _:
            return str(status.state.value), ""


def _row(name: str, about: str, figures: Mapping[str, Any] | None, state: str, more: str = "") -> str:
    head = f'<th scope="row" role="rowheader">{escape(name)}<small>{escape(about)}</small></th>'
    small = f"<small>{escape(more)}</small>" if more else ""
    if figures is None:
        return (
            f'<tr role="row">{head}<td role="cell" class="state" colspan="{len(FIGURES) + 1}">'
            f"{escape(state)}{small}</td></tr>"
        )
    cells = "".join(
        f'<td role="cell" class="number" data-name="{FIGURES[key][0]}">{_figure(_rate(figures, key))}</td>'
        for key in FIGURES
    )
    return f'<tr role="row">{head}{cells}<td role="cell" data-name="time">{escape(state)}{small}</td></tr>'


def _rate(figures: Mapping[str, Any], key: str) -> Rate | None:
    return (
        None
        if figures.get(key) is None
        else Rate(figures[f"{key}_hits"], figures[f"{key}_n"], *figures[f"{key}_interval"])
    )


def _figure(rate: Rate | None) -> str:
    if rate is None:
        return '<span class="muted">not measured</span>'
    return (
        f'<b title="{rate.hits} of {rate.n}">{percent(rate.share)}</b><small>[{100 * rate.low:.1f}, '
        f"{100 * rate.high:.1f}]</small>"
    )
