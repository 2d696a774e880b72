"""Step 8: the purified model, the report, and the figures, to take home."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from mbtsad_core.page.compare import compared
from mbtsad_core.page.components import html, render
from mbtsad_core.page.handlers import told
from mbtsad_core.page.parts import Parts, empty, lede
from mbtsad_core.page.run_status import run_status
from mbtsad_core.page.scan import scan_of
from mbtsad_core.page.session import Session
from mbtsad_core.page.site import Site
from mbtsad_core.service.purification import Request
from mbtsad_core.service.saved_result import read_result, same_suspect, with_compared, with_scanned
from mbtsad_core.service.store import State
from mbtsad_core.terminal import version_here
from mbtsad_core.views.report import report_html
from mbtsad_core.views.report_sarif import report_sarif

FILES = ("model.zip", "report.html", "report.json", "report.sarif")
NO_RUN = "There is nothing to take away yet. The purified model comes with a finished run: see step 5."
NOTHING = {
    State.QUEUED: "The run waits for its turn. Its files appear here when it is done.",
    State.RUNNING: "The run is not done yet. Its files appear here when it is.",
    State.CANCELLING: "The run is being stopped, so it will leave nothing to take away.",
    State.CANCELLED: "The run was stopped, so there is nothing to take away. Start again in step 5.",
    State.FAILED: "The run failed, so there is nothing to take away. Step 5 says why.",
    State.EXPIRED: "This run has expired and its files are gone. Start a new one in step 5.",
}
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
        job = site.runner.job(session.job)
        beside = compared(site, session, Request.from_dict(job.request)).values()
        done = [other.id for other in beside if other.state is State.DONE]
        result, scan = job.result or {}, scan_of(site, session)
        scanned = scan.id if scan and scan.result and same_suspect(result, scan.result) else ""
        return _box(session, result, keep, found.works, _asked(compared=",".join(done), scan=scanned))
    return empty(found.gone or (NOTHING[state] if state else NO_RUN))


def _asked(**ids: str) -> str:
    """The query of a file's address: what is to stand in it beside the run."""
    given = {name: id for name, id in ids.items() if id}
    return f"?{urlencode(given, safe=',')}" if given else ""


def report_file(site: Site, out: Path, name: str, ids: Sequence[str], scan: str = "") -> str | None:
    """A file of the report with the comparisons of these jobs in it, and the scan of that job; None where it is what
    stands in `out`. Raises MBTSADError for a job that is no comparison on the same suspect and texts, no scan of the
    same suspect, or not done."""
    if not ids and not scan and name != "report.sarif":
        return None
    others = [site.runner.job(id).result or {} for id in ids]
    result = with_compared(read_result(out), others)
    result = with_scanned(result, site.runner.job(scan).result or {}) if scan else result
    if name == "report.html":
        return report_html(result)
    found = report_sarif(result.to_dict(), version_here()) if name == "report.sarif" else result.to_dict()
    return json.dumps(found, indent=2) + "\n"


def _box(session: Session, result: dict[str, Any], keep: float | None, works: str, asked: str) -> str:
    return render(
        "take_away.html",
        **{name: result[name] for name in ("suspect", "purified", "settings", "seconds")},
        name=session.suspect.name,
        job=session.job,
        tokens=result.get("found", result.get("stumbled", ())),
        works=works,
        keep=keep,
        route=JOBS_ROUTE,
        asked=asked,
    )
