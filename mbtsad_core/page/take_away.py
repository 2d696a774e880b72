"""Step 8: the purified model, the report, and the figures, to take home."""

from __future__ import annotations

from typing import Any

from mbtsad_core.page.components import html, render
from mbtsad_core.page.handlers import told
from mbtsad_core.page.parts import Parts, empty, lede
from mbtsad_core.page.run_status import run_status
from mbtsad_core.page.session import Session
from mbtsad_core.page.site import Site
from mbtsad_core.service.store import State

FILES = ("model.zip", "report.html", "report.json")
JOBS_ROUTE = "/mbtsad/jobs/{id}/{name}"


def take_step(parts: Parts) -> None:
    lede(
        "Take the purified model and the evidence home. A low ASR on one trigger does not prove that no other backdoor "
        "is left."
    )
    parts.opened["take"] = [(told(show, parts.site), parts.session, html(elem_id="take-away"))]


def show(site: Site, session: Session) -> str:
    """The files of a finished run, or why there are none."""
    found = run_status(site, session)
    state = found.status.state if found.status else None
    if state is State.DONE:
        keep = None if site.is_shared(session) else site.config.keep
        return _box(session, site.runner.job(session.job).result or {}, keep, found.works)
    if found.moving:
        return empty("The run is not done yet. Its files appear here when it is.")
    if state is State.EXPIRED:
        return empty("This run has expired and its files are gone. Start a new one in step 5.")
    return empty(
        found.gone or "There is nothing to take away yet. The purified model comes with a finished run: see step 5."
    )


def _box(session: Session, result: dict[str, Any], keep: float | None, works: str = "") -> str:
    return render(
        "take_away.html",
        **{name: result[name] for name in ("suspect", "purified", "settings", "seconds")},
        name=session.suspect.name,
        job=session.job,
        tokens=result.get("found", result.get("stumbled", ())),
        works=works,
        keep=keep,
        route=JOBS_ROUTE,
    )
