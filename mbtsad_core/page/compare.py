"""Step 5, below the run: any other method on the same suspect, clean sample, test texts and trigger, its figures beside
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
from mbtsad_core.page.parts import Parts, empty, hint, said
from mbtsad_core.page.run_status import MOVING, left_words, stage_of, state_words
from mbtsad_core.page.session import Session, read_hub_id
from mbtsad_core.page.site import ATTACHED, Site
from mbtsad_core.service.comparison import Comparison, is_comparison, subject
from mbtsad_core.service.purification import Request, scores_to_dict
from mbtsad_core.service.store import Job, State
from mbtsad_core.sources import Source
from mbtsad_core.views.compared import Row, compared_html, done_row

NONE_YET = (
    "No other method has been run on this suspect, these texts and this trigger. Choose one and run it: its "
    "figures stand here, beside MBTSAD’s."
)


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

    accordion: gr.Accordion
    method: gr.Dropdown
    pretrained: gr.Textbox
    about: gr.HTML
    run: gr.Button
    stop: gr.Button
    table: gr.HTML
    sent: gr.State

    @property
    def shown(self) -> list[Any]:
        return [self.table, self.run, self.stop, self.sent]


def compare_part(parts: Parts) -> Compare:
    site, session = parts.site, parts.session
    with gr.Accordion("Compare other methods", open=False, elem_id="compare") as accordion:
        hint(
            "Run another method on the same suspect, clean sample, test texts and trigger. No method gets the trigger: "
            "it is only measured. The figures are kept, the models are not. A method that is interrupted begins anew."
        )
        with gr.Row():
            method, pretrained = _choices()
        about = html(_settings_of(next(iter(others()))), elem_id="compare-about")
        with gr.Row():
            run = gr.Button("Run this method", variant="primary", elem_classes="narrow", elem_id="compare-run")
            stop = gr.Button("Stop this method", variant="stop", elem_classes="narrow", elem_id="compare-stop")
            run.interactive, stop.interactive = site.runner.detached, False
        answer = html("" if site.runner.detached else said(ATTACHED), elem_id="compare-said")
        if absent := "; ".join(f"{others()[name].title} lacks {what}" for name, what in lacking().items()):
            hint(f"Not available here: {escape(absent)}.", "compare-lacking")
        table = html(empty(NONE_YET), elem_id="compared")
    step = Compare(accordion, method, pretrained, about, run, stop, table, gr.State(""))
    method.change(told(choose, site, step), [session, method], [pretrained, about, run, stop], **QUIET)
    parts.refresh_on(run.click(told(begin, site), [session, method, pretrained], answer, **PRIVATE))
    parts.refresh_on(stop.click(told(end, site), [session, method], answer, **PRIVATE))
    showing = (told(show, site, step), [session, method, step.sent], [*step.shown, accordion])
    parts.opened["purify"] = [showing]
    parts.on_load.append(showing)
    return step


def _choices() -> tuple[gr.Dropdown, gr.Textbox]:
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
    return method, pretrained


def begin(site: Site, session: Session, name: str, id: str | None) -> str:
    """Put the method in the queue."""
    place, title = read_hub_id(id), others()[name].title
    if missing := lacking().get(name):
        raise BadData(f"This method cannot be run here: it lacks {missing}. Choose another.")
    if needs_pretrained(name) and not place:
        raise BadData(
            f"{title} needs the encoder that the suspect was fine-tuned from. Type its id on the Hub, such as "
            "owner/name."
        )
    if _moves(compared(site, session).get(name)):
        raise BadData(f"{title} waits or runs already. Wait for its end, or stop it.")
    site.compare(session, name, f"hub:{place}" if needs_pretrained(name) else None)
    return said(f"{title} is in the queue. It goes on when you close this page.")


def end(site: Site, session: Session, name: str) -> str:
    job = compared(site, session).get(name)
    if job is not None and _moves(job):
        site.runner.cancel(job.id)
    return ""


def show(site: Site, step: Compare, session: Session, name: str, sent: str) -> dict[Any, Any]:
    """The table for who comes in or comes back; it is open where there is something in it."""
    shown, _ = update_compared(site, step, session, name, sent)
    return shown | ({step.accordion: gr.Accordion(open=True)} if compared(site, session) else {})


def choose(site: Site, step: Compare, session: Session, name: str) -> dict[Any, Any]:
    return {
        step.pretrained: gr.Textbox(visible=needs_pretrained(name)),
        step.about: _settings_of(name),
        **_buttons(site, step, compared(site, session).get(name)),
    }


def update_compared(site: Site, step: Compare, session: Session, method: str, sent: str) -> tuple[dict[Any, Any], bool]:
    """Table, buttons and what was sent, as the visitor's comparisons stand now; and whether one waits or runs."""
    jobs = compared(site, session)
    table = table_html(site, session, jobs)
    shown = _buttons(site, step, jobs.get(method)) | ({} if table == sent else {step.table: table, step.sent: table})
    return shown, any(map(_moves, jobs.values()))


def compared(site: Site, session: Session, run: Request | None = None) -> dict[str, Job]:
    """The visitor's newest job of each method on what the session has now, or on what a run used. A figure means
    something only beside those of the same suspect, texts and trigger: once these change, the others are left out, and
    come back with them."""
    found: dict[str, Job] = {}
    on = subject(run or session.request(site.runtime))
    for job in site.runner.jobs(session.visitor):
        if is_comparison(job.request):
            asked = Comparison.from_dict(job.request)
            if asked.method not in found and subject(asked.request) == on:
                found[asked.method] = job
    return found


def _same(site: Site, session: Session, request: Request) -> bool:
    return subject(request) == subject(session.request(site.runtime))


def _moves(job: Job | None) -> bool:
    return job is not None and job.state in MOVING


def _buttons(site: Site, step: Compare, job: Job | None) -> dict[Any, Any]:
    can_stop = job is not None and _moves(job) and job.state is not State.CANCELLING
    return {
        step.run: gr.Button(interactive=site.runner.detached and not _moves(job)),
        step.stop: gr.Button(interactive=can_stop),
    }


def _settings_of(method: str) -> str:
    command = f"mbtsad {'detect' if method in DETECTORS else 'defend'} {method} --help"
    return (
        '<p class="mbtsad muted">It runs with its default settings. To change them, use the terminal: <code>'
        f"{escape(command)}</code></p>"
    )


# ---------------------------------------------------------------- the table


def table_html(site: Site, session: Session, jobs: Mapping[str, Job]) -> str:
    """The suspect, MBTSAD, and each other method that was run, in the order of the menu."""
    if not jobs:
        return empty(NONE_YET)
    mbtsad = _own_run(site, session)
    results = [job.result for job in (mbtsad, *jobs.values()) if job and job.result]
    scores = site.scores(session)
    suspect = results[0]["suspect"] if results else scores_to_dict(scores) if scores else None
    own = ("MBTSAD", "the run above")
    rows = [
        Row("suspect", session.suspect.name, "" if suspect else "not measured yet", suspect),
        _job_row(site, *own, mbtsad, "purified") if mbtsad else Row(*own, "not run yet"),
        *(_job_row(site, m.title, m.about, jobs[key], "result") for key, m in others().items() if key in jobs),
    ]
    return compared_html(rows)


def _own_run(site: Site, session: Session) -> Job | None:
    """The session's run of MBTSAD, where it is of the same suspect, texts and trigger."""
    try:
        job = site.runner.job(session.job) if session.job else None
    except UnknownJob:
        return None
    return job if job and job.request and _same(site, session, Request.from_dict(job.request)) else None


def _job_row(site: Site, name: str, about: str, job: Job, figures: str) -> Row:
    if job.state is State.DONE and job.result:
        return done_row(name, about, job.result[figures], job.result["seconds"])
    state, more = _state(site, job)
    return Row(name, about, state, more=more)


def _state(site: Site, job: Job) -> tuple[str, str]:
    """How a job without figures stands; and the stage that it is in, or what its visitor is told."""
    status = site.runner.status(job.id)
    message = in_the_pages_words(status.message)
    if status.state is State.FAILED:
        return f"failed: {message}", ""
    if status.state is not State.RUNNING:
        return state_words(status), message if status.state is State.QUEUED else ""
    if not status.total:
        return "starting", ""
    return f"running {100 * status.step // status.total} %{left_words(status)}", stage_of(status).words
