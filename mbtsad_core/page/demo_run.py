"""The run of the demo that every visitor finds: the server makes it once, in the background, and keeps it as long as
suspect, data, settings and version stay the same. It gives way to the runs of visitors."""

from __future__ import annotations

import contextlib
import hashlib
import json
from itertools import count

from mbtsad_core.errors import UnknownJob, WrongState
from mbtsad_core.models import demo
from mbtsad_core.page.session import Session
from mbtsad_core.page.site import Site
from mbtsad_core.service.provenance import versions
from mbtsad_core.service.purification import Request
from mbtsad_core.service.runner import DetachedRunner
from mbtsad_core.service.store import BACKGROUND, State

ALWAYS = 10 * 365 * 86_400.0  # seconds that it is kept, unless another takes its place
LOST = (State.FAILED, State.CANCELLED, State.EXPIRED)


def make_demo_run(site: Site, request: Request | None = None) -> None:
    """Put it in the queue where there is none yet, and let those of other versions go; `site.demo` names it."""
    if not isinstance(site.runner, DetachedRunner):
        return  # there is nobody who would work on it
    request, store = request or Session().request(site.runtime), site.runner.store
    made = digest(request)
    for attempt in count():
        id = f"demo-{made}-{attempt}"
        try:
            if store.get(id).state in LOST:
                continue
        except UnknownJob:
            store.create(request.to_dict(), BACKGROUND, quota=site.config.quota + attempt, keep=ALWAYS, id=id)
        break
    others = [job for job in store.of_owner(BACKGROUND) if job.id != id]
    for job in others:
        with contextlib.suppress(WrongState):  # it has ended
            store.request_cancel(job.id)
    store.outdate([job.id for job in others])
    site.demo = id


def digest(request: Request) -> str:
    """Of all that decides what the run comes to: the demo's files, what is asked, and the versions that do it."""
    found = hashlib.sha256(json.dumps([request.to_dict(), versions()], sort_keys=True).encode())
    for path in sorted(path for path in (demo.assets() / "demo").rglob("*") if path.is_file()):
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:32]
