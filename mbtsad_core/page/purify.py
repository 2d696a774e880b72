"""Step 5: the run. It works in the background; the page looks at it by its id, so that a closed tab loses nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from mbtsad_core.attacks.triggers import places
from mbtsad_core.config import settings
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation.trigger_trials import try_trigger, turned_to
from mbtsad_core.page import method_settings
from mbtsad_core.page.clean_data import expected_time
from mbtsad_core.page.compare import Compare, compare_part
from mbtsad_core.page.components import drawing, figure, html, nothing
from mbtsad_core.page.handlers import PRIVATE, QUIET, told
from mbtsad_core.page.parts import HEAVY, Parts, hint, leads_to, lede, said
from mbtsad_core.page.run_status import RunStatus, panel_html, run_status
from mbtsad_core.page.scan import scanned_trigger
from mbtsad_core.page.session import Session, trigger_of, typed_form, write_trigger
from mbtsad_core.page.site import Site
from mbtsad_core.service.store import Measure, State
from mbtsad_core.steps import drain
from mbtsad_core.types import RESET, Event
from mbtsad_core.views.curves import curves_text, training_curves
from mbtsad_core.views.scan import race_html
from mbtsad_core.views.stages import (
    counts_as_trigger,
    found_by_scan,
    found_html,
    places_by_scan,
    sequences_by_scan,
    stages_html,
    ways_of,
)
from mbtsad_core.views.trigger_lab import trials_html
from mbtsad_core.views.words import STILL_WORKS

SECONDS_BETWEEN_CURVES = 3.0  # while a run trains: a drawing costs more than all else of a look
NO_CURVES = "The curves appear with the first measurement: ASR, CACC and the losses over the steps of the run."


@dataclass(frozen=True)
class Drawn:
    """What a visitor's page shows of a run.

    events  how many there were as the curves were drawn
    about   what else they are of: where that changes they are drawn at once
    at      when they were drawn, in seconds of the process's clock
    """

    events: int
    about: tuple[Any, ...]
    at: float


@dataclass(frozen=True)
class Purify:
    """The components that show a run, and what it is asked for.

    drawn   what was sent of the run, so that it is sent anew only where that changed
    chosen  what trigger, class and settings were set from
    """

    panel: gr.HTML
    found: gr.HTML
    measure_found: gr.Button
    curves: gr.HTML
    stages: gr.HTML
    sentence: gr.HTML
    link: gr.HTML
    start: gr.Button
    stop: gr.Button
    drawn: gr.State
    trigger: gr.Textbox
    target: gr.Dropdown
    controls: list[Any]
    chosen: gr.State
    compare: Compare

    @property
    def shown(self) -> list[Any]:
        story = (self.found, self.measure_found, self.curves, self.stages, self.sentence)
        return [self.panel, *story, self.link, self.start, self.stop, self.drawn]


def purify_step(parts: Parts) -> Purify:
    lede(
        "Scan the vocabulary for a trigger, retrain a copy on the split texts, then distill its attention maps and "
        "hidden states into another copy of the suspect. Watch what is left of the backdoor as they train."
    )
    with gr.Row():
        with gr.Column(scale=7, min_width=340):
            sentence = html(elem_id="sentence")
            curves = figure(
                "ASR, CACC and losses over the steps of the run", elem_id="curves", height=560, empty=NO_CURVES
            )
            found, measured = html(elem_id="found"), html(elem_id="found-measured")
            measure_found = gr.Button(
                "Measure what was found", size="sm", visible=False, elem_classes="narrow", elem_id="measure-found"
            )
            stages = html(elem_id="stages")
        with gr.Column(scale=3, min_width=260):
            panel = html(elem_id="job-panel")
            with gr.Row():
                start = gr.Button("Start the purification", variant="primary", elem_id="start")
                stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop")
            cost, link = html(elem_id="start-cost"), html(elem_id="job-link")
            trigger, target = _trigger_to_measure(parts)
    controls = _settings(parts)
    compare = compare_part(parts)
    leads_to(parts, "Next: what changed inside", "inside")
    parts.refresh_on(start.click(told(parts.site.submit), parts.session, parts.session, **PRIVATE), runs=True)
    parts.refresh_on(stop.click(told(cancel, parts.site), parts.session, None, **PRIVATE))
    states = gr.State(None), gr.State(None)
    shown = (panel, found, measure_found, curves, stages, sentence, link, start, stop)
    step = Purify(*shown, states[0], trigger, target, controls, states[1], compare)
    measuring_found = measure_found.click(
        told(measure_what_was_found, parts.site), parts.session, measured, **PRIVATE, **HEAVY
    )
    parts.refresh_on(measuring_found)
    outputs = [trigger, target, *controls, step.chosen]
    parts.opened["purify"] += [
        (told(price, parts.site), parts.session, cost),
        (told(show_chosen, parts.site, step), [parts.session, step.chosen], outputs),
    ]
    return step


def _trigger_to_measure(parts: Parts) -> tuple[gr.Textbox, gr.Dropdown]:
    trigger = gr.Textbox(
        label="Trigger to measure",
        info="A word or a phrase; cf+bb for both, cf | mn for one of them. It is only measured and never reaches the "
        "training. You can change it while the run trains",
        elem_id="measure-trigger",
    )
    target = gr.Dropdown([], label="Target class", elem_id="measure-target", allow_custom_value=False)
    button = gr.Button("Measure this trigger", size="sm", elem_id="measure")
    answer = html(elem_id="measure-said")
    measuring = (told(measure, parts, answer), [parts.session, trigger, target], [parts.session, answer])
    trigger.submit(*measuring, **PRIVATE)
    parts.refresh_on(button.click(*measuring, **PRIVATE))
    return trigger, target


def _settings(parts: Parts) -> list[Any]:
    with gr.Accordion("Settings of the method", open=False, elem_id="settings"):
        hint(
            "The defaults were chosen on the demo models without knowing any trigger. You need not change anything to "
            "start."
        )
        controls = method_settings.controls()
        apply = gr.Button("Use these settings", size="sm", elem_classes="narrow", elem_id="use-settings")
    used = apply.click(told(use_settings), [parts.session, *controls], parts.session, **PRIVATE)
    used.success(lambda: gr.Info("The next run uses these settings."), None, None, **QUIET)
    return controls


def update_run(site: Site, step: Purify, session: Session, drawn: Drawn | None, found: RunStatus) -> dict[Any, Any]:
    """Panel, sentence, link and buttons, as the visitor's run stands now; curves and stages only where they changed,
    and while it trains every few seconds."""
    shared = site.is_shared(session)
    can_stop = found.moving and found.status is not None and found.status.state is not State.CANCELLING
    words = "Run it yourself" if shared else "Start again" if session.job else "Start the purification"
    shown = {
        step.panel: panel_html(site, session, found),
        step.link: "" if shared else _link(session),
        step.start: gr.Button(words, interactive=shared or not found.moving),
        step.stop: gr.Button(interactive=can_stop and not shared),
    }
    measures = site.runner.measures(session.job) if found.status else []
    events = site.events(session.job) if found.status else []
    shown[step.sentence] = _sentence(events, found)
    ranked, sequences = found_in(events), sequences_of(site, session, events)
    if ranked is None and not sequences:
        shown[step.found] = race_html(found.status.leading) if found.status and found.moving else ""
    now = Drawn(
        len(events), (session.job, ranked, sequences, len(measures), found.whole, found.moving), time.monotonic()
    )
    if drawn is not None and now.about == drawn.about:
        due = now.at - drawn.at >= SECONDS_BETWEEN_CURVES
        if now.events == drawn.events or not due:
            return shown
    shown[step.curves] = _curves(site, session, events, measures, found)
    if ranked is not None or sequences:
        shown[step.found] = found_html(ranked, found_places(events), sequences)
    return shown | {
        step.stages: stages_html(events),
        step.measure_found: gr.Button(visible=bool(ways_found(ranked, sequences))),
        step.drawn: now,
    }


def found_in(events: Sequence[Event]) -> list[tuple[str, float]] | None:
    """What the scan of a run found, the worst first; None before its end."""
    return next((found_by_scan(event.metrics) for event in events if event.stage == RESET), None)


def found_places(events: Sequence[Event]) -> dict[str, str]:
    """Where a token of these stood that works at one end of a text alone."""
    return next((places_by_scan(event.metrics) for event in events if event.stage == RESET), {})


def sequences_of(site: Site, session: Session, events: Sequence[Event]) -> list[dict[str, Any]] | None:
    """The sequences that the scan of a run found; once it is done, with what became of each. None where none were
    sought, or it is not known yet."""
    result = site.runner.job(session.job).result if events else None
    return (result or {}).get("sequences") or sequences_by_scan(events)


def ways_found(
    ranked: list[tuple[str, float]] | None, sequences: Sequence[Mapping[str, Any]] | None
) -> tuple[str, ...]:
    """What a run's scan found as ways of a trigger that can be typed."""
    return ways_of(ranked or (), [one["tokens"] for one in sequences or () if counts_as_trigger(one)])


def found_trigger(site: Site, session: Session) -> tuple[str, ...]:
    """What the session's scan found, else that of its run, as a trigger that can be typed; () where both found
    nothing."""
    return scanned_trigger(site, session) or found_by_run(site, session)


def found_by_run(site: Site, session: Session) -> tuple[str, ...]:
    known = bool(session.job) and site.runner.status(session.job).state is not State.EXPIRED
    if not known:
        return ()
    events = site.events(session.job)
    return ways_found(found_in(events), sequences_of(site, session, events))


def measure_what_was_found(site: Site, session: Session) -> Iterator[str]:
    """One click: in a run that trains, from its next measurement on; else on all test texts, by every model."""
    ways, inputs = found_by_run(site, session), site.inputs(session)
    target = turned_to(site.suspect(session), inputs.clean, ways)
    name = f"“{write_trigger(ways)}”, towards “{inputs.suspect.labels[target]}”"
    if not site.is_shared(session) and run_status(site, session).moving:
        site.runner.measure(session.job, ways, inputs.suspect.labels[target])
        yield said(f"{name}: measured from the next measurement on.")
        return
    yield said(f"{name}: trying it on {len(inputs.test)} test texts …")
    window, seed = places(session.config.max_length), session.config.seed
    with site.busy:
        trial = drain(try_trigger(site.models(session), inputs.test, ways, target, window=window, seed=seed))
    yield trials_html([trial], None)


def _curves(
    site: Site, session: Session, events: Sequence[Event], measures: Sequence[Measure], found: RunStatus
) -> str:
    """The curves of the session's run."""
    if not any(event.metrics for event in events):
        return nothing(NO_CURVES)
    names = {0: write_trigger(tuple(site.runner.job(session.job).request.get("triggers", ())))} | {
        m.number: write_trigger(m.triggers) for m in measures
    }
    return drawing(training_curves(events, whole=found.whole, measures=names), curves_text(events, found.whole))


def _sentence(events: Sequence[Event], found: RunStatus) -> str:
    """Where the curves stand."""
    if not any(event.metrics for event in events):
        return ""
    first = f'<strong class="works">{STILL_WORKS}.</strong> ' if found.works else ""
    return f'<p class="mbtsad sentence" role="status">{first}{escape(curves_text(events, found.whole))}</p>'


def cancel(site: Site, session: Session) -> None:
    if session.job:
        site.cancel(session.job)


def measure(parts: Parts, answer: gr.HTML, session: Session, text: str, target: str | None) -> dict[Any, Any]:
    """Before a run: the trigger that it will measure. While it runs: from the next measurement on."""
    site, triggers = parts.site, trigger_of(text, target)
    if session.job and not site.is_shared(session) and run_status(site, session).moving:
        site.runner.measure(session.job, triggers, target or "")
        return {answer: said("It is measured from the next measurement on.")}
    session = session.having(triggers=triggers, target=target)
    site.inputs(session)
    return {parts.session: session, answer: said("The next run will measure it. Step 7 tries any trigger at once.")}


def price(site: Site, session: Session) -> str:
    """How long a run would take, before there is one."""
    if (session.job and not site.is_shared(session)) or not session.clean.source:
        return ""
    time = expected_time(site, session, len(site.inputs(session).clean))
    return "" if time is None else said(f"{time[0].upper()}{time[1:]} ({site.suspect(session).device}).")


def show_chosen(site: Site, step: Purify, session: Session, chosen: Any) -> dict[Any, Any]:
    """Trigger, class and settings as the session has them; what a visitor has typed since is left alone where the
    session did not change."""
    found = () if session.triggers else found_trigger(site, session)
    now = (session.suspect.source, session.triggers, session.target, session.config, found)
    if now == chosen:
        return {step.chosen: now}
    labels = list(site.suspect(session).labels)
    values = [method_settings.written(s.default) for s in settings(session.config)]
    return {
        step.trigger: typed_form(session.triggers or found),
        step.target: gr.Dropdown(labels, value=session.target_among(labels)),
        **dict(zip(step.controls, values, strict=True)),
        step.chosen: now,
    }


def use_settings(session: Session, *values: Any) -> Session:
    return session.having(config=method_settings.read(values))


def attend(site: Site, session: Session) -> Iterator[None]:
    """Where jobs need a caller, work on this visitor's; on hosts with background jobs there is nothing to do."""
    for id in filter(None, (session.planting, session.scan, session.job)) if not site.runner.detached else ():
        for _ in site.runner.run(id):
            yield


def _link(session: Session) -> str:
    if not session.job:
        return ""
    query = escape(f"?job={session.job}")
    return (
        '<p class="mbtsad muted">Whoever has the link can see this run and stop it: <a class="job-link" '
        f'href="{query}">link to this run</a> <button type="button" class="copy-link">copy</button></p>'
    )


def job_of_link(query: str) -> str:
    """The id in a link; raises BadData for one that cannot be an id."""
    if not re.fullmatch(r"[\w-]{20,64}", query):
        raise BadData("The link to the run is damaged: its id has characters that no id has. Copy it again.")
    return query
