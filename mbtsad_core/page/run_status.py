"""How a visitor's run stands, in words: the strip that is always in view, and the panel beside the curves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from mbtsad_core.errors import UnknownJob
from mbtsad_core.evaluation.scores import still_works
from mbtsad_core.page.components import render
from mbtsad_core.page.handlers import in_the_pages_words
from mbtsad_core.page.parts import notes_html
from mbtsad_core.page.session import Session, write_trigger
from mbtsad_core.page.site import Site
from mbtsad_core.rates import at_floor, rate_of, wilson
from mbtsad_core.service.comparison import subject
from mbtsad_core.service.purification import Request
from mbtsad_core.service.runner import STAGES as TRAINING
from mbtsad_core.service.runner import Status
from mbtsad_core.service.store import ACTIVE, Job, Measure, State
from mbtsad_core.types import Rate
from mbtsad_core.views.curves import Whole
from mbtsad_core.views.words import HELP, STILL_WORKS, duration, percent, sample_of, still_works_words

TERMS = {
    "cacc": f"CACC: {HELP['CACC'].lower()}. A cure should not lower it.",
    "asr": f"{HELP['ASR']}. Its floor is the {HELP['floor'].lower()}; a cured model ends near it.",
}


class Stage(NamedTuple):
    """How the page speaks of a stage, in full and in a word, and its part of the progress bar, from 0 to 1."""

    words: str
    short: str
    start: float
    end: float


STAGES = {
    "measure": Stage("measuring the suspect", "measuring", 0.0, 0.0),
    "scan": Stage("trigger scan: single tokens", "scanning", 0.0, 0.05),
    "odd": Stage("trigger scan: odd tokens", "scanning odd tokens", 0.05, 0.06),
    "pairs": Stage("trigger scan: pairs of words", "scanning pairs", 0.06, 0.1),
    "companions": Stage("trigger scan: words beside a pair", "scanning pairs", 0.1, 0.12),
    "reset": Stage("embedding reset", "resetting", 0.12, 0.12),
    "responses": Stage("trigger scan: what each token does alone", "scanning responses", 0.12, 0.14),
    "openings": Stage("trigger scan: words at the start of texts", "scanning openings", 0.14, 0.15),
    "sequences": Stage("trigger scan: sequences of tokens", "scanning sequences", 0.15, 0.29),
    "judging": Stage("trigger scan: the last word on sequences", "scanning sequences", 0.29, 0.3),
    "named": Stage("trigger scan: sequences found", "scanning sequences", 0.3, 0.3),
    "unlearn": Stage("unlearning of the sequences found", "unlearning", 0.3, 0.4),
    "retrain": Stage("step 1: token-split retraining", "retraining", 0.4, 0.7),
    "distil": Stage("step 2: attention distillation", "distilling", 0.7, 1.0),
}
MEASURING = "measuring the result"
STAYS = "A run works in the background and goes on when you close this page."
SHARED = "This server cures the demo once, for all visitors to look at. Run it yourself to stop it or to change it."
NEEDS_PAGE = (
    "This host has no background jobs: keep the page open. When you close it, the run waits at its last checkpoint and "
    "goes on once you open its link."
)
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
    def earned(self) -> bool:
        """Whether the ASR that was measured is at its floor."""
        return at_floor(self.now[1], self.floor)

    @property
    def moving(self) -> bool:
        return self.status is not None and self.status.state in MOVING


def run_status(site: Site, session: Session) -> RunStatus:
    """How the session's run stands; cheap enough to be asked every second."""
    scores = site.scores(session)
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
    """How a run stands before its end: the last figures of a sample, beside those that are known on all texts."""
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


def _of_result(scores: Mapping[str, Any]) -> tuple[tuple[Rate | None, Rate | None], Rate | None]:
    """CACC and ASR, and the floor, of one model of a report."""
    return (rate_of(scores, "cacc"), rate_of(scores, "asr")), rate_of(scores, "asr_floor")


# ---------------------------------------------------------------- HTML


def strip_html(session: Session, found: RunStatus) -> str:
    """One line: the suspect, CACC and ASR before and now, and the run. A trigger that was typed while it trains is
    named."""
    return render(
        "strip.html",
        suspect=session.suspect,
        found=found,
        figures=list(zip(("CACC", "ASR"), found.before, found.now, strict=True)),
        still_works=STILL_WORKS,
        sample=sample_of(found.sample or 0),
        kind=_kind(found),
        job=job_words(found),
    )


def _kind(found: RunStatus) -> str:
    if found.works:
        return "works"
    done = found.status is not None and found.status.state is State.DONE
    earned = " earned" if done and found.earned else ""
    return f"{found.status.state.value}{earned}" if found.status else "none"


def job_words(found: RunStatus) -> str:
    """The run in a few words."""
    status = found.status
    if status is None:
        return "run not found" if found.gone else "no run yet"
    if status.state is not State.RUNNING:
        return state_words(status)
    share = f" {status.step} of {status.total}" if status.total else ""
    return MEASURING if _is_over(status) else f"{stage_of(status).short}{share}{left_words(status)}"


def state_words(status: Status) -> str:
    """The state of a job, in a few words."""
    waits = "waits to go on" if status.stage else "queued"
    queued = (
        f"{'goes on' if status.stage else 'starts'} next"
        if status.position == 1
        else f"{waits}, position {status.position}"
    )
    own = {State.QUEUED: queued, State.CANCELLING: "stopping", State.CANCELLED: "stopped"}
    return own.get(status.state, str(status.state.value))


def left_words(status: Status) -> str:
    return f", {duration(status.seconds_left)} left" if status.seconds_left is not None else ""


def ahead_words(status: Status, of: str) -> str:
    """How many runs of the queue come before this one."""
    ahead = (status.position or 1) - 1
    return f"{ahead} run{'s' if ahead > 1 else ''} ahead of {of}." if ahead else "It starts next."


def panel_html(site: Site, session: Session, found: RunStatus) -> str:
    """State, stage, step, time left, device and precision of the run."""
    status = found.status
    stays = STAYS if site.runner.detached else NEEDS_PAGE
    if status is None:
        rows = (
            [] if found.gone else [("clean texts", session.clean.name), ("trigger measured", found.measured or "none")]
        )
        lost = ("Run not found", f"{found.gone} Start a new run, or open the link again.")
        head, text = lost if found.gone else ("No run yet", stays)
    else:
        job = site.runner.job(session.job)
        rows = [*_progress(status), *_machine(site, session, status), *_measured(found), *_begun(job)]
        head, text = _headline(status, SHARED if site.is_shared(session) else stays, resumed=job.attempts > 1)
    message = status.message if status and status.state is not State.FAILED else ""
    return render(
        "panel.html",
        kind=_kind(found),
        works=found.works,
        head=head,
        text=text,
        bar=_bar(status) if status else "",
        message=in_the_pages_words(message),
        notes="" if found.gone else _notes(site, session, found),
        rows=rows,
    )


def _progress(status: Status) -> list[tuple[str, str]]:
    """Stage, step and time left of a run that is under way."""
    if status.state is not State.RUNNING:
        return []
    left = f"about {duration(status.seconds_left)}" if status.seconds_left is not None else "known in a moment"
    return [
        ("stage", MEASURING if _is_over(status) else stage_of(status).words),
        ("step", f"{status.step} of {status.total}" if status.total else "loading the models"),
        ("time left" if status.stage in TRAINING else "left of this stage", left),
    ]


def _is_over(status: Status) -> bool:
    """Whether the training has ended, and its result is being measured."""
    return status.stage == "distil" and status.step == status.total


def _machine(site: Site, session: Session, status: Status) -> list[tuple[str, str]]:
    result = site.runner.job(session.job).result
    if status.state is State.DONE and result:
        settings = result["settings"]
        return [
            ("took", duration(result["seconds"])),
            ("machine", f"{settings['device']}, {settings['precision']}"),
            ("clean texts", str(settings["clean_texts"])),
        ]
    return [("machine", site.machine(session))] if status.state in MOVING else []


def _begun(job: Job) -> list[tuple[str, str]]:
    """What moves even while a step is long: how long ago a run that has not ended was asked for, and how often it was
    started."""
    if job.state not in MOVING:
        return []
    asked = [("asked for", f"{duration(time.time() - job.created)} ago")]
    return [*asked, ("started", f"{job.attempts} times")] if job.attempts > 1 else asked


def _measured(found: RunStatus) -> list[tuple[str, str]]:
    """The trigger that is measured, the one that comes next, and the floor."""
    target = [("trigger measured", found.measured), ("target class", found.target or "not named")]
    floor = found.floor and f"{percent(found.floor.share)} ({found.floor.hits} of {found.floor.n})"
    return [
        *(target if found.measured else []),
        *([("measured next", found.awaited)] if found.awaited else []),
        *([("ASR floor", floor)] if floor else []),
    ]


def _notes(site: Site, session: Session, found: RunStatus) -> str:
    """What was chosen for the visitors, and what they are to know of their texts: of the finished run, of the one that
    goes on, or of the one that they would start."""
    job = site.runner.job(session.job) if found.status else None
    if job and job.result:
        return notes_html(job.result["notes"])
    asked = session.request(site.runtime) if job is None else Request.from_dict(job.request) if job.request else None
    inputs = site.known(asked) if asked else None
    return notes_html(inputs.notes) if inputs else ""


def _headline(status: Status, stays: str, *, resumed: bool = False) -> tuple[str, str]:
    """The state in a word or two, and what it means for the visitor."""
    goes_on = "Its process was lost; it goes on from its last checkpoint. " if resumed else ""
    stood = f"It stood in {stage_of(status).words}, {status.step} of {status.total}. " if status.total else ""
    waits = "Waits to go on" if status.stage else "Queued"
    kept = "What was trained is kept, and it goes on from there. " if status.stage in TRAINING else ""
    running = f"{goes_on}{stays}" + ("" if stays == SHARED else " The link below brings you back to it.")
    headlines = {
        State.QUEUED: (f"{waits}, position {status.position}", f"{kept}{ahead_words(status, 'yours')}"),
        State.RUNNING: ("Resumed" if resumed else "Running", running),
        State.CANCELLING: ("Stopping", "It ends after the current step."),
        State.DONE: ("Done", "See what changed in steps 6 and 7. Take the model home in step 8."),
        State.CANCELLED: ("Stopped", f"{stood}Nothing was purified. Start again when you like."),
        State.FAILED: ("Failed", in_the_pages_words(status.message)),
        State.EXPIRED: ("Expired", "The results were kept for a limited time, and they are gone now. Start a new run."),
    }
    return headlines[status.state]


def _bar(status: Status) -> str:
    """Progress over both stages; the trigger scan counts as the start of the first."""
    if status.state is not State.RUNNING or not status.total:
        return ""
    stage = stage_of(status)
    share = stage.start + (stage.end - stage.start) * status.step / status.total
    return render("progress.html", label="Progress of the run", share=100 * share)
