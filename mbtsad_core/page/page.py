"""The whole page: header, strip, seven steps, the tour; what happens as a visitor comes in, and as time goes on."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import gradio as gr

from mbtsad_core.errors import MBTSADError
from mbtsad_core.page.api import add_api
from mbtsad_core.page.clean_data import clean_step
from mbtsad_core.page.components import html
from mbtsad_core.page.handlers import LIGHT, PRIVATE, QUIET, told, words
from mbtsad_core.page.inside import inside_step
from mbtsad_core.page.parts import STEPS, Parts
from mbtsad_core.page.planting import Planted, waited_for
from mbtsad_core.page.purify import Purify, attend, job_of_link, purify_step, update
from mbtsad_core.page.run_status import RunStatus, strip_html
from mbtsad_core.page.session import Session, of_request
from mbtsad_core.page.site import Site
from mbtsad_core.page.splits import splits_step
from mbtsad_core.page.suspect import suspect_step
from mbtsad_core.page.take_away import take_step
from mbtsad_core.page.tour import STOPS, tour_html
from mbtsad_core.page.triggers import triggers_step
from mbtsad_core.service.comparison import is_comparison
from mbtsad_core.service.planting import is_planting
from mbtsad_core.service.purification import Request

TITLE = "MBTSAD: see a backdoor, watch it fall"
SECONDS_BETWEEN_LOOKS = 1.0
VISITOR_BYTES = 18


def build_page(site: Site) -> gr.Blocks:
    """The page of a site; `launch` it with ui.launch."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86_400), fill_width=True) as page:
        session = gr.State(Session())
        visitor = gr.BrowserState("", storage_key="mbtsad-visitor", secret="mbtsad")
        timer = gr.Timer(SECONDS_BETWEEN_LOOKS, active=False)
        with gr.Row(elem_id="top"):
            strip = html(strip_html(Session(), RunStatus()), elem_id="strip")
            with gr.Row(elem_id="top-buttons"):
                start_tour = gr.Button("Guided tour", size="sm", elem_id="start-tour", min_width=60)
                dark = gr.Button("Light / dark", size="sm", elem_id="dark", min_width=60)
        with gr.Row(visible=False, elem_id="tour") as tour:
            told_so_far = html(elem_id="tour-text")
            with gr.Column(scale=0, min_width=120):
                tour_next = gr.Button("Next stop", variant="primary", size="sm", elem_id="tour-next")
                tour_leave = gr.Button("Leave the tour", size="sm", elem_id="tour-leave")
        stop = gr.State(-1)  # of the tour; -1 outside it
        with gr.Tabs(elem_id="steps", overflow_behavior="wrap", selected="suspect") as tabs:
            parts = Parts(site, session, tabs)
            opened: dict[str, gr.Tab] = {}
            shown: Purify | None = None
            planted: Planted | None = None
            for step, build in BUILDERS.items():
                with gr.Tab(STEPS[step], id=step, elem_id=f"step-{step}") as tab:
                    made = build(parts)
                    shown = made if isinstance(made, Purify) else shown
                    planted = made if isinstance(made, Planted) else planted
                opened[step] = tab
        assert shown is not None
        assert planted is not None
        updated = [
            strip,
            shown.panel,
            shown.curves,
            shown.sentence,
            shown.link,
            shown.start,
            shown.stop,
            shown.drawn,
            *shown.compare.shown,
            *planted.shown,
            timer,
        ]

        @told
        def look(session: Session, drawn: Any, method: str, table: str) -> tuple[Any, ...]:
            return update(site, session, drawn, method, table)

        looking = dict(inputs=[session, shown.drawn, shown.compare.method, shown.compare.sent], outputs=updated)

        @told
        def narrate(session: Session, stop: int) -> Any:
            return tour_html(site, session, stop) if stop >= 0 else gr.skip()

        timer.tick(look, **looking, **LIGHT, trigger_mode="once").then(narrate, [session, stop], told_so_far, **LIGHT)

        @told
        def work(session: Session) -> Iterator[None]:
            yield from attend(site, session)

        # A session that names its job only, for the address bar: the session itself stays on the server.
        job = gr.Textbox(visible=False, elem_id="job-id")
        for event, runs in parts.events:
            event = event.success(look, **looking, **QUIET).then(lambda s: s.planting or s.job, session, job, **LIGHT)
            event = event.then(None, job, None, js=KEEP_LINK)
            if runs and not site.runner.detached:
                event.then(work, session, None, **QUIET, concurrency_id="gpu", concurrency_limit=1).then(
                    look, **looking, **QUIET
                )

        @told
        def come_in(visitor: str, request: gr.Request) -> tuple[Session, str, Any]:
            """A new session, or the one of the job in the link."""
            visitor = visitor or secrets.token_urlsafe(VISITOR_BYTES)
            id = job_of_link(site, dict(request.query_params).get("job", ""))
            if not id:
                return Session(visitor, planting=waited_for(site, visitor)), visitor, gr.Tabs(selected="suspect")
            try:
                if is_planting(site.runner.job(id).request):
                    return Session(visitor, planting=id), visitor, gr.Tabs(selected="suspect")
                if is_comparison(wanted := site.runner.job(id).request):  # no run, and it is found by its visitor
                    return Session(visitor), visitor, gr.Tabs(selected="suspect")
                asked = Request.from_dict(wanted)
            except (MBTSADError, KeyError):  # unknown, or expired: what it asked for is gone
                return Session(visitor, job=id), visitor, gr.Tabs(selected="purify")
            found = of_request(asked, visitor, id)
            try:
                found = found.with_description(site.suspect(found))
            except MBTSADError as error:
                gr.Warning(words(error))
            return found, visitor, gr.Tabs(selected="purify")

        coming = page.load(come_in, visitor, [session, visitor, tabs], **PRIVATE).success(look, **looking, **QUIET)
        if not site.runner.detached:
            coming.then(work, session, None, **QUIET, concurrency_id="gpu", concurrency_limit=1).then(
                look, **looking, **QUIET
            )
        for handler, inputs, outputs in parts.on_load:
            coming = coming.success(handler, inputs, outputs, **QUIET)
        coming.success(look, **looking, **QUIET)

        for step, todo in parts.opened.items():
            after: Any = None
            for handler, inputs, outputs in todo:
                listen = after.success if after else opened[step].select
                after = listen(handler, inputs, outputs, **QUIET)

        @told
        def go(session: Session, stop: int) -> tuple[Any, ...]:
            """The next stop of the tour; after the last it ends."""
            stop += 1
            if stop >= len(STOPS):
                return -1, gr.Row(visible=False), "", gr.skip(), gr.Button("Next stop")
            last = stop == len(STOPS) - 1
            return (
                stop,
                gr.Row(visible=True),
                tour_html(site, session, stop),
                gr.Tabs(selected=STOPS[stop][0]),
                gr.Button("End of the tour" if last else "Next stop"),
            )

        touring = [stop, tour, told_so_far, tabs, tour_next]
        start_tour.click(lambda session: go(session, -1), session, touring, **LIGHT)
        tour_next.click(go, [session, stop], touring, **LIGHT)
        tour_leave.click(lambda: (-1, gr.Row(visible=False), ""), None, [stop, tour, told_so_far], **LIGHT)
        dark.click(None, None, None, js="() => { document.body.classList.toggle('dark'); }")
        add_api(site)
    return page


KEEP_LINK = """(job) => {
  const url = new URL(window.location.href);
  if (job) url.searchParams.set("job", job); else url.searchParams.delete("job");
  window.history.replaceState(null, "", url);
}"""

BUILDERS = {
    "suspect": suspect_step,
    "clean": clean_step,
    "splits": splits_step,
    "purify": purify_step,
    "inside": inside_step,
    "triggers": triggers_step,
    "take": take_step,
}
