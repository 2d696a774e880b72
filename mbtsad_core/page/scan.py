"""Step 3: the scan of the suspect, alone. It works in the background, as a run does; the page looks at it by its id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from mbtsad_core.attacks.triggers import write_variants
from mbtsad_core.errors import BadData, UnknownJob
from mbtsad_core.page.components import choices, html, render
from mbtsad_core.page.handlers import PRIVATE, QUIET, in_the_pages_words, told
from mbtsad_core.page.parts import Parts, empty, leads_to, lede, notes_html
from mbtsad_core.page.run_status import MOVING, ahead_words
from mbtsad_core.page.session import Session
from mbtsad_core.page.site import Site
from mbtsad_core.service.runner import Status
from mbtsad_core.service.scan_job import is_scan
from mbtsad_core.service.store import Job, State
from mbtsad_core.views.scan import listed, race_html, record_html
from mbtsad_core.views.words import duration, percent

NOT_YET = (
    "Nothing was scanned yet. The suspect comes from step 1, the clean texts from step 2; no trigger is needed. The "
    "first candidates stand here some seconds after the click."
)
NO_TEXTS = (
    "There are no clean texts yet. Step 2 gives them; labeled texts of the suspect’s task are all that a scan needs."
)
STAYS = "A scan works in the background and goes on when you close this page."
NEEDS_PAGE = "This host has no background jobs: keep the page open until the scan is done."
MEANING = {
    "nothing found": "A trigger of another kind, such as a syntax or a style, may still be there.",
    "a trigger exists": "Purify the model, or do not use it. One click takes what was found to the trigger lab.",
    "inconclusive": "The scan says neither. Give more clean texts of the suspect’s task, or let it run to its end.",
}


class Part(NamedTuple):
    """A stage of a scan: what it looks at, and its part of the time, from 0 to 1."""

    words: str
    start: float
    end: float


PARTS = {
    "scan": Part("single tokens", 0.00, 0.10),
    "pairs": Part("pairs of tokens", 0.10, 0.20),
    "companions": Part("tokens beside a pair", 0.20, 0.21),
    "openings": Part("words at the start of texts", 0.21, 0.24),
    "sequences": Part("sequences, in texts joined to one", 0.24, 0.93),
    "judging": Part("held-out texts have the last word", 0.93, 1.00),
}


@dataclass(frozen=True)
class Scan:
    """The components of the step, and `sent`: what the page has of the rows."""

    sentence: gr.HTML
    rows: gr.HTML
    panel: gr.HTML
    link: gr.HTML
    start: gr.Button
    stop: gr.Button
    sent: gr.State

    @property
    def shown(self) -> list[Any]:
        return [self.sentence, self.rows, self.panel, self.link, self.start, self.stop, self.sent]


def scan_step(parts: Parts) -> Scan:
    lede(
        "Is there a trigger in the suspect, and which? Tokens, pairs and sequences are put into clean texts, and those "
        "that turn the answers rise. Nothing is known or assumed of a trigger."
    )
    sentence = html(elem_id="scan-verdict")
    with gr.Row():
        with gr.Column(scale=3, min_width=260, elem_id="scan-side"):
            panel = html(elem_id="scan-panel")
            with gr.Row():
                start = gr.Button("Scan this model", variant="primary", elem_id="scan-start")
                stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="scan-stop")
            link = html(elem_id="scan-link")
        with gr.Column(scale=7, min_width=340):
            rows = choices(empty(NOT_YET), elem_id="scan-rows")
    leads_to(parts, "Next: token splits", "splits")
    step, session = Scan(sentence, rows, panel, link, start, stop, gr.State(())), parts.session
    parts.refresh_on(start.click(told(begin, parts.site), session, session, **PRIVATE), runs=True)
    parts.refresh_on(stop.click(told(end, parts.site), session, None, **PRIVATE))
    parts.refresh_on(rows.pick(told(take, parts), session, [session, parts.tabs], **QUIET))
    return step


def scan_of(site: Site, session: Session) -> Job | None:
    """The session's scan; None where there is none, or none any more."""
    try:
        job = site.runner.job(session.scan) if session.scan else None
    except UnknownJob:
        return None
    return job if job and (is_scan(job.request) or job.state is State.EXPIRED) else None


def begin(site: Site, session: Session) -> Session:
    job = scan_of(site, session)
    if job is not None and job.state in MOVING:
        raise BadData("This suspect is being scanned. Wait for its end, or stop it.")
    return session.having(scan=site.scan(session.scan_job(site.own_runtime), session.visitor))


def end(site: Site, session: Session) -> None:
    """What was found so far has the last word."""
    if session.scan:
        site.cancel(session.scan)


def take(parts: Parts, session: Session, event: gr.EventData) -> dict[Any, Any]:
    """One of the rows is the trigger that all steps measure from here on, and the lab opens with it."""
    job = scan_of(parts.site, session)
    one = listed(job.result if job else None)[int(event._data["trial"])]
    chosen = session.having(triggers=(typed(one),), target=one["target"])
    return {parts.session: chosen, parts.tabs: gr.Tabs(selected="triggers")}


def typed(one: Mapping[str, Any]) -> str:
    """A finding as a trigger that is typed."""
    return write_variants([one["text"].split() if one["place"] == "scattered" else [one["text"]]])


def scanned_trigger(site: Site, session: Session) -> tuple[str, ...]:
    """What the session's scan found to send texts where the strongest does, as a trigger; () where it found nothing, or
    no whole words."""
    job = scan_of(site, session)
    found = job.result["triggers"] if job and job.result else []
    return tuple(typed(one) for one in found if one["target"] == found[0]["target"] and "##" not in one["text"])


# ---------------------------------------------------------------- how it stands


def update_scan(site: Site, step: Scan, session: Session, sent: Any) -> tuple[dict[Any, Any], bool]:
    """All of the step as the session's scan stands now; and whether it waits or runs. The rows are sent only where they
    changed: one of them may be open."""
    job = scan_of(site, session)
    status = site.runner.status(job.id) if job else None
    moves = status is not None and status.state in MOVING
    stands = _rows(session, job, status), _sentence(session, job, status)
    shown: dict[Any, Any] = {
        step.panel: _panel(site, session, job, status),
        step.link: _link(session) if job else "",
        step.start: gr.Button("Scan again" if job and not moves else "Scan this model", interactive=not moves),
        step.stop: gr.Button(interactive=moves and status is not None and status.state is not State.CANCELLING),
    }
    if stands != sent:
        shown |= {step.rows: stands[0], step.sentence: stands[1], step.sent: stands}
    return shown, moves


def _rows(session: Session, job: Job | None, status: Status | None) -> str:
    if status is None or job is None:
        return empty(NOT_YET if session.clean.source else NO_TEXTS)
    if job.result:
        return record_html(job.result)
    if status.state in MOVING:
        return race_html(status.leading) or empty("The first candidates come in a moment.")
    return empty(NOT_YET)


def _sentence(session: Session, job: Job | None, status: Status | None) -> str:
    """The verdict, or what is in the lead."""
    if job is None or status is None:
        return ""
    if job.result:
        verdict = job.result["verdict"]
        kind = "works" if job.result["triggers"] else ""
        said = f'<strong class="{kind}">{verdict.capitalize()}.</strong> {escape(job.result["reason"])}'
        meaning = f'<p class="mbtsad muted">{escape(MEANING[verdict])}</p>'
        return f'<p class="mbtsad sentence" role="status">{said}</p>{meaning}'
    best = next((one for one in status.leading if one["flips"]), None) if status.state in MOVING else None
    if best is None:
        return ""
    hits, n = best["flips"]["hits"], best["flips"]["n"]
    text = f"So far “{best['text']}” turns {hits} of {n} texts of {best['label']}. Held-out texts have the last word."
    return f'<p class="mbtsad sentence">{escape(text)}</p>'


def _panel(site: Site, session: Session, job: Job | None, status: Status | None) -> str:
    stays = STAYS if site.runner.detached else NEEDS_PAGE
    if job is None or status is None:
        lost = "It is not here any more. Scan again." if session.scan else stays
        return _panel_of("none", "No scan yet" if not session.scan else "Scan not found", lost)
    heads = {
        State.QUEUED: (f"Queued, position {status.position}", ahead_words(status, "yours")),
        State.RUNNING: ("Scanning", stays),
        State.CANCELLING: ("Stopping", "What was found so far has the last word."),
        State.DONE: ("Done", "Scan again with other texts when you like."),
        State.CANCELLED: ("Stopped", "It had not begun. Scan again when you like."),
        State.FAILED: ("Failed", in_the_pages_words(status.message)),
        State.EXPIRED: ("Expired", "The result was kept for a limited time, and it is gone now. Scan again."),
    }
    moves = status.state in MOVING and status.total
    bar = render("progress.html", label="Progress of the scan", share=100 * _share(status)) if moves else ""
    rows = _about(job.result) if job.result else _progress(status) if status.state in MOVING else []
    notes = notes_html(job.result["notes"]) if job.result else ""
    kind = "works" if job.result and job.result["triggers"] else str(status.state)
    return _panel_of(kind, *heads[status.state], bar=bar, rows=rows, notes=notes)


def _panel_of(kind: str, head: str, text: str, **more: Any) -> str:
    nothing = {"works": "", "bar": "", "message": "", "notes": "", "rows": []}
    return render("panel.html", **nothing | {"kind": kind, "head": head, "text": text} | more)


def _share(status: Status) -> float:
    """How much of the scan is done, from 0 to 1."""
    part = PARTS.get(status.stage, PARTS["scan"])
    return part.start + (part.end - part.start) * status.step / max(1, status.total)


def seconds_left(status: Status) -> float | None:
    """To the end of the scan, from the pace of the stage that it is in."""
    part = PARTS.get(status.stage)
    if part is None or status.seconds_left is None or status.step >= status.total:
        return None
    return status.seconds_left * (1 - _share(status)) / (part.end - _share(status))


def _progress(status: Status) -> list[tuple[str, str]]:
    """Stage, step and time left, and what was looked at, of a scan that is under way."""
    if not status.total or status.stage not in PARTS:
        return [("stage", "loading the model")] if status.state is State.RUNNING else []
    part, left = PARTS[status.stage], seconds_left(status)
    names = {before.words: None for before in PARTS.values() if before.end <= part.start}
    return [
        ("stage", part.words),
        ("step", f"{status.step} of {status.total}"),
        ("time left", f"about {duration(left)}" if left is not None else "known in a moment"),
        ("looked at", "; ".join(names) or "nothing to the end yet"),
    ]


def _about(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a verdict rests on."""
    known, accuracy = result["calibrated_on"], result["accuracy"]
    labels = f"{percent(accuracy['share'])} answered right" if accuracy else "without labels"
    return [
        ("took", duration(result["seconds"])),
        ("tokens tried", f"{result['rows_walked']:,} of {result['rows']:,} rows of the word embeddings"),
        ("not looked at", "; ".join(result["not_looked_at"]) or "nothing was left out"),
        ("clean texts", f"{result['clean_texts']}, {labels}; {result['held_out_texts']} held out for the last word"),
        *([("thresholds", f"rest on {known['clean']} clean and {known['suspects']} planted models")] if known else []),
    ]


def _link(session: Session) -> str:
    query = escape(f"?scan={session.scan}&step=scan")
    return (
        '<p class="mbtsad muted">Whoever has the link can see this scan and stop it: <a class="job-link" '
        f'href="{query}">link to this scan</a> <button type="button" class="copy-link">copy</button></p>'
    )
