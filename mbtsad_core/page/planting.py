"""The backdoors that a visitor can plant in the demo's clean classifier: every attack, what the menu says of it, and
how its job stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.errors import MBTSADError
from mbtsad_core.methods import Attack
from mbtsad_core.page.components import render
from mbtsad_core.page.handlers import in_the_pages_words
from mbtsad_core.page.run_status import MOVING, ahead_words, left_words
from mbtsad_core.page.session import Session, write_trigger
from mbtsad_core.page.site import Site
from mbtsad_core.service.planting import is_planting, lacking
from mbtsad_core.service.runner import Status
from mbtsad_core.service.store import ACTIVE, Job, State

PACES = ((0.5, "seconds"), (2, "a minute"), (10, "some minutes"))  # a planting of fewer minutes takes so long


def plants() -> dict[str, Attack[Any]]:
    """The attacks, in the order of the menu: the quickest first."""
    return {method.key: method for method in sorted(ATTACKS.values(), key=lambda method: method.minutes)}


def offered() -> list[tuple[str, str]]:
    """The menu: what it shows, and the key of ATTACKS."""
    return [
        (f"{method.title}: {method.about} ({pace(method.minutes)})", key)
        for key, method in plants().items()
        if key not in lacking()
    ]


def pace(minutes: float) -> str:
    return next((words for most, words in PACES if minutes < most), "many minutes")


def suggest(attack: str, typed: str) -> str:
    """The trigger that goes with an attack; what a visitor has typed stays, but where the trigger is learned."""
    own = ATTACKS[attack].typed
    suggested = {method.typed for method in ATTACKS.values()}
    return own if not own or typed in suggested else typed


def planted_name(request: Mapping[str, Any]) -> str:
    """What a planted suspect is called: "EP with “zephyr”"."""
    triggers = tuple(request["triggers"])
    return ATTACKS[request["attack"]].title + (f" with “{write_trigger(triggers)}”" if triggers else "")


# ---------------------------------------------------------------- how it stands


@dataclass(frozen=True)
class Planted:
    """The components that show a planting; `ready` is the id of one that the visitor waited for and that is done. It is
    no State: Gradio does not tell of a State's change by an event that passes its queue by."""

    panel: gr.HTML
    stop: gr.Button
    use: gr.Button
    ready: gr.Textbox

    @property
    def shown(self) -> list[Any]:
        return [self.panel, self.stop, self.use, self.ready]


def newest(site: Site, session: Session) -> Job | None:
    """The planting that the session waits for, else the visitor's newest."""
    if session.planting:
        try:
            return site.runner.job(session.planting)
        except MBTSADError:  # its time is up
            return None
    return next((job for job in site.runner.jobs(session.visitor) if is_planting(job.request)), None)


def waited_for(site: Site, visitor: str) -> str:
    """The id of the newest planting that a visitor who comes back has not taken yet; "" where there is none."""
    job = newest(site, Session(visitor))
    return job.id if job and (job.state in MOVING or (job.state is State.DONE and not site.is_taken(job.id))) else ""


def update_planted(site: Site, planted: Planted, session: Session) -> tuple[dict[Any, Any], bool]:
    """Panel, buttons and what is ready, as the visitor's planting stands now; and whether it waits or runs."""
    job = newest(site, session)
    if job is None or not is_planting(job.request):
        hidden = gr.Button(visible=False)
        return {planted.panel: "", planted.stop: hidden, planted.use: hidden}, False
    moves, done = job.state in MOVING, job.state is State.DONE
    current = done and site.planted_folder(job.id) in session.suspect.source
    shown = {
        planted.panel: planted_html(planted_name(job.request), site.runner.status(job.id), current),
        planted.stop: gr.Button(visible=moves, interactive=job.state is not State.CANCELLING),
        planted.use: gr.Button(visible=done and not current and not session.planting),
    }
    return shown | ({planted.ready: job.id} if done and session.planting else {}), moves


def planted_html(name: str, status: Status, current: bool) -> str:
    """How a planting stands: its place in the queue, or stage, step and time left; or its end."""
    left = f"{left_words(status)} of this stage" if status.seconds_left is not None else ""
    running = f"Planting {name}: {status.stage}, step {status.step} of {status.total}{left}. It goes on when you close "
    texts = {
        State.QUEUED: f"{name}: queued, position {status.position}. {ahead_words(status, 'it')}",
        State.RUNNING: f"{running}this page." if status.total else f"{name}: loading the clean classifier …",
        State.CANCELLING: f"{name}: stopping after the current step.",
        State.CANCELLED: f"{name}: stopped. Nothing was planted.",
        State.FAILED: f"{name} was not planted. {status.message}",
        State.DONE: f"{name}: planted. {'It is the suspect now.' if current else 'It is kept for you.'}",
        State.EXPIRED: f"{name}: its time was up, and it is gone. Plant it again.",
    }
    moves = status.state in (State.QUEUED, *ACTIVE) and status.total
    share = status.step / status.total if moves and status.total else float(status.state is State.DONE)
    text = texts[status.state]
    message = f" {status.message}" if status.message and status.state is State.QUEUED else ""
    said = escape(in_the_pages_words(text + message))
    bar = render("progress.html", label="Progress", share=100 * share)
    return f'<section class="mbtsad job-panel" role="status"><p>{said}</p>{bar}</section>'
