"""How a visitor's run stands, in words: the strip that is always in view, and the panel beside the curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, NamedTuple

from mbtsad_core.errors import UnknownJob
from mbtsad_core.evaluation.scores import still_works, wilson
from mbtsad_core.page.handlers import in_the_pages_words
from mbtsad_core.page.parts import notes_html
from mbtsad_core.page.session import Session, write_trigger
from mbtsad_core.page.site import Site
from mbtsad_core.service.comparison import subject
from mbtsad_core.service.purification import Request
from mbtsad_core.service.runner import STAGES as TRAINING
from mbtsad_core.service.runner import Status
from mbtsad_core.service.store import ACTIVE, Measure, State
from mbtsad_core.types import Rate
from mbtsad_core.views.curves import Whole
from mbtsad_core.views.words import STILL_WORKS, duration, percent, sample_of, still_works_words


class Stage(NamedTuple):
    """How the page speaks of a stage, in full and in a word, and its part of the progress bar, from 0 to 1."""

    words: str
    short: str
    start: float
    end: float


STAGES = {
    "measure": Stage("measuring the suspect", "measuring", 0.0, 0.0),
    "scan": Stage("a look at the vocabulary", "scanning", 0.0, 0.06),
    "pairs": Stage("a look at pairs of words", "scanning pairs", 0.06, 0.16),
    "companions": Stage("a look at what goes with a pair of words", "scanning pairs", 0.16, 0.2),
    "retrain": Stage("step 1: token-split retraining", "retraining", 0.2, 0.6),
    "distil": Stage("step 2: attention distillation", "distilling", 0.6, 1.0),
}
MOVING = (State.QUEUED, *ACTIVE)


def stage_of(status: Status) -> Stage:
    """The stage that a run is in; one of another method goes by its own name."""
    name = status.stage or "starting"
    return STAGES.get(name, Stage(name, name, 0.0, 0.1))


@dataclass(frozen=True)
class RunStatus:
    """What the page knows of a run: the one source of every figure that stands on a screen. Rates are None where they
    were not measured.

    before, now, floor  of the trigger `measured`, which sends texts to `target`
    sample              clean texts that figures which are no more than a sample's are of; None where all are of all
                        texts
    whole               what is known on all texts with the trigger of the request
    typed               whether the trigger is one that was typed while the run trains
    works               at the end, that the trigger still works, in a sentence; "" where it does not, or none was
                        measured
    awaited             a trigger that was typed and waits for its first measurement
    """

    status: Status | None = None
    gone: str = ""  # why there is no such job
    before: tuple[Rate | None, Rate | None] = (None, None)  # CACC and ASR of the suspect
    now: tuple[Rate | None, Rate | None] = (None, None)
    floor: Rate | None = None
    measured: str = ""
    target: str = ""
    sample: int | None = None
    whole: Whole = Whole()
    typed: bool = False
    awaited: str = ""
    works: str = ""

    @property
    def moving(self) -> bool:
        return self.status is not None and self.status.state in MOVING


def run_status(site: Site, session: Session) -> RunStatus:
    """How the session's run stands; cheap enough to be asked every second."""
    scores = session.scores
    whole = Whole((scores.cacc, scores.asr), floor=scores.asr_floor) if scores else Whole()
    alone = RunStatus(
        before=whole.suspect,
        floor=whole.floor,
        measured=write_trigger(session.triggers),
        target=session.target or "",
        whole=whole,
    )
    if not session.job:
        return alone
    try:
        status, job = site.runner.status(session.job), site.runner.job(session.job)
    except UnknownJob as error:
        return replace(alone, gone=str(error))
    if not job.request:  # expired
        return replace(alone, status=status)
    asked = Request.from_dict(job.request)
    found = RunStatus(status, measured=write_trigger(asked.triggers), target=asked.target or "")
    if status.state is State.DONE and job.result:
        (suspect, _), (purified, floor) = (_of_result(job.result[name]) for name in ("suspect", "purified"))
        asr = purified[1]
        works = still_works_words(asr, floor) if asr and floor and still_works(asr, floor) else ""
        return replace(
            found, before=suspect, now=purified, floor=floor, whole=Whole(suspect, purified, floor), works=works
        )
    # Else what is known is of other texts, or of another trigger
    same = subject(asked) == subject(session.request(site.runtime))
    return _sampled(found, whole if same else Whole(), site.runner.measures(session.job))


def _sampled(found: RunStatus, whole: Whole, typed: Sequence[Measure]) -> RunStatus:
    """The standing of a run before its end: the last figures of a sample, beside those that are known on all texts."""
    assert found.status is not None
    m = found.status.metrics
    measured = next((t for t in typed if t.number == m.get("measure")), None)
    awaited = write_trigger(typed[-1].triggers) if typed and typed[-1] != measured and found.moving else ""
    if measured:
        found = replace(found, measured=write_trigger(measured.triggers), target=measured.target, typed=True)
    known = replace(whole, suspect=(whole.suspect[0], None), floor=None) if measured else whole
    before = (
        known.suspect[0] or _rate(m, "suspect_cacc", "cacc_n"),
        known.suspect[1] or _rate(m, "suspect_asr", "asr_n"),
    )
    now = (_rate(m, "cacc", "cacc_n"), _rate(m, "asr", "asr_n"))
    sample = int(m.get("cacc_n", 0)) if now[0] or before != known.suspect else None
    floor = known.floor or _rate(m, "asr_floor", "asr_n")
    return replace(found, before=before, now=now, floor=floor, sample=sample or None, whole=whole, awaited=awaited)


def _rate(metrics: dict[str, float], name: str, number: str) -> Rate | None:
    n = int(metrics.get(number, 0))
    return wilson(round(metrics[name] * n), n) if name in metrics and n else None


def _of_result(scores: dict[str, Any]) -> tuple[tuple[Rate | None, Rate | None], Rate | None]:
    """CACC and ASR, and the floor, of one model of a report."""
    cacc, asr, floor = (
        Rate(scores[f"{k}_hits"], scores[f"{k}_n"], *scores[f"{k}_interval"]) if scores.get(k) is not None else None
        for k in ("cacc", "asr", "asr_floor")
    )
    return (cacc, asr), floor


# ---------------------------------------------------------------- HTML


def strip_html(session: Session, found: RunStatus) -> str:
    """One line: the suspect, CACC and ASR before and now, and the run. A trigger that was typed while it trains is
    named."""
    about = f" · {escape(session.suspect.description)}" if session.suspect.description else ""
    figures = "".join(
        f'<span class="figure" title="{escape(HELP[name])}"><b>{name}{of}</b> '
        f"{_arrow(before, now, name == 'ASR' and not found.works)}</span>"
        for name, of, before, now in zip(
            ("CACC", "ASR"), ("", f" of “{escape(found.measured)}”" * found.typed), found.before, found.now, strict=True
        )
    )
    figures = f'<strong class="works">{STILL_WORKS}</strong>' * bool(found.works) + figures
    figures += f'<span class="sample muted">{sample_of(found.sample)}</span>' if found.sample else ""
    return (
        '<section class="mbtsad strip" aria-label="Status"><span class="brand">MBTSAD</span><span class="who"><b>'
        f'{escape(session.suspect.name)}</b><span class="muted">{about}</span></span>'
        f'{figures}<span class="job {_kind(found)}"><i aria-hidden="true"></i>{escape(job_words(found))}</span>'
        "</section>"
    )


HELP = {
    "CACC": "Share of clean test texts that are answered right",
    "ASR": "Attack success rate: share of triggered texts of the other classes that go to the target class",
    "floor": "Share of the same texts that go to the target class without the trigger",
}


def _arrow(before: Rate | None, now: Rate | None, good: bool) -> str:
    if before is None and now is None:
        return '<span class="muted">not measured</span>'
    first = percent(before.share) if before else "?"
    if now is None:
        return first
    return (
        f'{first} <span class="muted" aria-label="now">→</span> <strong{" class=purified" * good}>'
        f"{percent(now.share)}</strong>"
    )


def _kind(found: RunStatus) -> str:
    if found.works:
        return "works"
    return found.status.state.value if found.status else "none"


def job_words(found: RunStatus) -> str:
    """The run in a few words."""
    status = found.status
    if found.gone:
        return "run not found"
    if status is None:
        return "no run yet"
    match status.state:
        case State.QUEUED:
            return "starts next" if status.position == 1 else f"queued, position {status.position}"
        case State.RUNNING:
            if status.stage == "distil" and status.step == status.total:
                return "measuring the result"
            left = f", {duration(status.seconds_left)} left" if status.seconds_left is not None else ""
            share = f" {status.step} of {status.total}" if status.total else ""
            return f"{stage_of(status).short}{share}{left}"
        case State.CANCELLING:
            return "stopping"
        case State.CANCELLED:
            return "stopped"
        case _:
            return str(status.state.value)


def panel_html(site: Site, session: Session, found: RunStatus) -> str:
    """State, stage, step, time left, device and precision of the run."""
    status = found.status
    if found.gone:
        return _panel("Run not found", found.gone + " Start a new run, or open the link again.", ())
    stays = "It works in the background, and goes on when you close this page."
    if not site.runner.detached:
        stays = (
            "This host has no background jobs: keep the page open. Closed, the run waits at its last checkpoint, "
            "and goes on when you open its link."
        )
    if status is None:
        chosen = (("clean texts", session.clean.name), ("trigger measured", found.measured or "none"))
        return _panel("No run yet", stays, chosen, note=_notes(site, session, found))
    rows: list[tuple[str, str]] = []
    if status.state is State.RUNNING:
        over = status.stage == "distil" and status.step == status.total
        rows.append(("stage", "measuring the result" if over else stage_of(status).words))
        rows.append(("step", f"{status.step} of {status.total}" if status.total else "the models are being loaded"))
        name = "time left" if status.stage in TRAINING else "left of this stage"
        rows.append(
            (name, f"about {duration(status.seconds_left)}" if status.seconds_left is not None else "known in a moment")
        )
    job = site.runner.job(session.job)
    if status.state is State.DONE and job.result:
        settings = job.result["settings"]
        rows.append(("took", duration(job.result["seconds"])))
        rows.append(("machine", f"{settings['device']}, {settings['precision']}"))
        rows.append(("clean texts", str(settings["clean_texts"])))
    elif status.state in MOVING:
        rows.append(("machine", site.machine(session)))
    if found.measured:
        rows += [("trigger measured", found.measured), ("sends texts to", found.target or "not named")]
    if found.awaited:
        rows.append(("measured next", found.awaited))
    if found.floor:
        rows.append(("ASR floor", f"{percent(found.floor.share)} ({found.floor.hits} of {found.floor.n})"))
    if job.attempts > 1 and status.state in MOVING:
        rows.append(("started", f"{job.attempts} times: its process was lost, and it went on from the last checkpoint"))
    head, text = _headline(status, stays)
    note = (
        f'<p class="note" role="status">{escape(in_the_pages_words(status.message))}</p>'
        if status.message and status.state is not State.FAILED
        else ""
    )
    note += _notes(site, session, found)
    first = f'<p class="works" role="status">{escape(found.works)}</p>' if found.works else ""
    return _panel(head, text, tuple(rows), _bar(status), note, _kind(found), first)


def _notes(site: Site, session: Session, found: RunStatus) -> str:
    """What was chosen for the visitor, and what he is to know of his texts: of the finished run, of the one that goes
    on, or of the one that he would start."""
    if found.status is None:
        inputs = site.known(session.request(site.runtime))
        return notes_html(inputs.notes) if inputs else ""
    job = site.runner.job(session.job)
    if job.result:
        return notes_html(job.result["notes"])
    inputs = site.known(Request.from_dict(job.request)) if job.request else None
    return notes_html(inputs.notes) if inputs else ""


def _headline(status: Status, stays: str) -> tuple[str, str]:
    match status.state:
        case State.QUEUED:
            ahead = (status.position or 1) - 1
            return (
                f"Queued, position {status.position}",
                "It starts next." if not ahead else f"{ahead} run{'s' if ahead > 1 else ''} ahead of yours.",
            )
        case State.RUNNING:
            return "Running", f"{stays} The link below brings you back to it."
        case State.CANCELLING:
            return "Stopping", "It ends after the step that it is in."
        case State.DONE:
            return "Done", "See what changed in steps 5 and 6; take the model home in step 7."
        case State.CANCELLED:
            return "Stopped", "Nothing was purified. Start again when you like."
        case State.FAILED:
            return "Failed", in_the_pages_words(status.message)
        case _:
            return "Expired", "The results of this run were kept for a limited time and are gone. Start a new run."


def _bar(status: Status) -> str:
    """Progress over both stages; the scan, and what follows where it finds a pair of words, count as the start of the
    first."""
    if status.state is not State.RUNNING or not status.total:
        return ""
    stage = stage_of(status)
    share = 100 * (stage.start + (stage.end - stage.start) * status.step / status.total)
    return (
        f'<div class="progress" role="progressbar" aria-label="Progress of the run" aria-valuenow="{share:.0f}" '
        'aria-valuemin="0" aria-valuemax="100">'
        f'<i style="width:{share:.1f}%"></i></div>'
    )


def _panel(
    head: str,
    text: str,
    rows: tuple[tuple[str, str], ...],
    bar: str = "",
    note: str = "",
    state: str = "none",
    first: str = "",
) -> str:
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return (
        f'<section class="mbtsad job-panel {state}">{first}<h3>{escape(head)}</h3><p>{escape(text)}</p>'
        f"{bar}{note}<dl>{listed}</dl></section>"
    )
