"""Step 4: the run. It works in the background; the page looks at it by its id, so that a closed tab loses nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from mbtsad_core.config import Setting, replace, settings
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import BadConfig, BadData
from mbtsad_core.page.clean_data import expected_time
from mbtsad_core.page.compare import Compare, compare_part, update_compared
from mbtsad_core.page.components import drawing, figure, html, nothing
from mbtsad_core.page.handlers import PRIVATE, QUIET, told
from mbtsad_core.page.parts import Parts, leads_to, lede, said
from mbtsad_core.page.planting import update_planted
from mbtsad_core.page.run_status import RunStatus, panel_html, run_status, strip_html
from mbtsad_core.page.session import Session, trigger_of, typed_form, write_trigger
from mbtsad_core.page.site import Site
from mbtsad_core.service.store import Measure, State
from mbtsad_core.types import Event
from mbtsad_core.views.curves import curves_text, training_curves
from mbtsad_core.views.words import STILL_WORKS

NO_CURVES = "The curves appear with the first measurement: ASR, CACC and the losses over the steps of the run."


@dataclass(frozen=True)
class Purify:
    """The components that show a run."""

    panel: gr.HTML
    curves: gr.HTML
    sentence: gr.HTML
    link: gr.HTML
    start: gr.Button
    stop: gr.Button
    drawn: gr.State  # what the curves show, so that they are sent anew only where that changed
    compare: Compare


def update(site: Site, session: Session, drawn: Any, method: str, table: str) -> tuple[Any, ...]:
    """Strip, panel, curves, sentence, link, buttons, comparisons, planting and timer, as the visitor's jobs stand now;
    only what has changed is sent."""
    found = run_status(site, session)
    measures = site.runner.measures(session.job) if found.status else []
    events = site.events(session.job) if found.status else []
    now = (session.job, len(events), len(measures), found.whole)
    curves, sentence = (gr.skip(), gr.skip()) if now == drawn else _course(site, session, events, measures, found)
    compared, comparing = update_compared(site, session, method, table)
    planted, planting = update_planted(site, session)
    can_stop = found.moving and found.status is not None and found.status.state is not State.CANCELLING
    return (
        strip_html(session, found),
        panel_html(site, session, found),
        curves,
        sentence,
        _link(session),
        gr.Button("Start again" if session.job else "Start the purification", interactive=not found.moving),
        gr.Button(interactive=can_stop),
        now,
        *compared,
        *planted,
        gr.Timer(active=found.moving or comparing or planting),
    )


def _course(
    site: Site, session: Session, events: Sequence[Event], measures: Sequence[Measure], found: RunStatus
) -> tuple[Any, str]:
    """The curves of the session's run, and the sentence that says where they stand."""
    if not any(event.metrics for event in events):
        return nothing(NO_CURVES), ""
    names = {0: write_trigger(tuple(site.runner.job(session.job).request.get("triggers", ())))} | {
        m.number: write_trigger(m.triggers) for m in measures
    }
    text = curves_text(events, found.whole)
    first = f'<strong class="works">{STILL_WORKS}.</strong> ' if found.works else ""
    return drawing(
        training_curves(events, whole=found.whole, measures=names), text
    ), f'<p class="mbtsad sentence" role="status">{first}{escape(text)}</p>'


def purify_step(parts: Parts) -> Purify:
    site = parts.site
    lede(
        "Retrain a copy on the split texts, then distil its attention maps and hidden states into another copy of the "
        "suspect. Watch the backdoor fall while it trains."
    )
    with gr.Row():
        with gr.Column(scale=7, min_width=340):
            sentence = html(elem_id="sentence")
            curves = figure(
                "ASR, CACC and losses over the steps of the run", elem_id="curves", height=560, empty=NO_CURVES
            )
        with gr.Column(scale=3, min_width=260):
            panel = html(elem_id="job-panel")
            with gr.Row():
                start = gr.Button("Start the purification", variant="primary", elem_id="start")
                stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop")
            cost = html(elem_id="start-cost")
            link = html(elem_id="job-link")
            trigger = gr.Textbox(
                label="Trigger to measure",
                info="A word, a phrase, cf+bb for both, cf | mn for one of them. It is measured only and never "
                "reaches the training; change it while it runs",
                elem_id="measure-trigger",
            )
            target = gr.Dropdown(
                [], label="Class that it sends texts to", elem_id="measure-target", allow_custom_value=False
            )
            measure = gr.Button("Measure this trigger", size="sm", elem_id="measure")
            answer = html(elem_id="measure-said")
    with gr.Accordion("Settings of the method", open=False, elem_id="settings"):
        html(
            '<p class="mbtsad muted">The defaults were chosen without knowing any trigger, on the demo models; '
            "nothing here needs a change to start.</p>"
        )
        controls = _controls(PurifyConfig())
        apply = gr.Button("Use these settings", size="sm", elem_classes="narrow", elem_id="use-settings")
    compare = compare_part(parts)
    leads_to(parts, "Next: what changed inside", "inside")
    drawn = gr.State(None)
    chosen = gr.State(None)  # what trigger, class and settings were set from
    shown = Purify(panel, curves, sentence, link, start, stop, drawn, compare)

    @told
    def begin(session: Session) -> Session:
        return site.submit(session)

    @told
    def end(session: Session) -> None:
        if session.job:
            site.runner.cancel(session.job)

    @told
    def measure_typed(session: Session, text: str, target_name: str | None) -> tuple[Session, str]:
        """Before a run: the trigger that it will measure. While it runs: from the next measurement on."""
        triggers = trigger_of(text, target_name)
        if session.job and run_status(site, session).moving:
            site.runner.measure(session.job, triggers, target_name or "")
            return session, said("It is measured from the next measurement on.")
        session = session.having(triggers=triggers, target=target_name, scores=None)
        site.inputs(session)
        return session, said("The next run will measure it. Step 6 tries any trigger at once.")

    @told
    def price(session: Session) -> str:
        """How long a run would take, before there is one."""
        if session.job or not session.clean.source:
            return ""
        time = expected_time(site, session, len(site.inputs(session).clean))
        return "" if time is None else said(f"{time[0].upper()}{time[1:]} ({site.suspect(session).device}).")

    @told
    def show_chosen(session: Session, chosen: Any) -> tuple[Any, ...]:
        """Trigger, class and settings as the session has them; what a visitor has typed since is left alone where the
        session did not change."""
        now = (session.suspect.source, session.triggers, session.target, session.config)
        if now == chosen:
            return (gr.skip(),) * (2 + len(controls)) + (now,)
        labels = list(site.suspect(session).labels)
        name = next(
            (label for label in labels if session.target and label.casefold() == session.target.casefold()), labels[-1]
        )
        return (
            typed_form(session.triggers),
            gr.Dropdown(labels, value=name),
            *(_written(s.default) for s in settings(session.config)),
            now,
        )

    @told
    def use_settings(session: Session, *values: Any) -> Session:
        changes = {s.path: _read(s, value) for s, value in zip(settings(PurifyConfig()), values, strict=True)}
        config = replace(PurifyConfig(), changes)
        # These choose and cut the texts that are measured on
        same = (config.max_length, config.seed) == (session.config.max_length, session.config.seed)
        return session.having(config=config, scores=session.scores if same else None)

    parts.refresh_on(start.click(begin, parts.session, parts.session, **PRIVATE), runs=True)
    parts.refresh_on(stop.click(end, parts.session, None, **PRIVATE))
    typed = measure.click(measure_typed, [parts.session, trigger, target], [parts.session, answer], **PRIVATE)
    trigger.submit(measure_typed, [parts.session, trigger, target], [parts.session, answer], **PRIVATE)
    parts.refresh_on(typed)
    apply.click(use_settings, [parts.session, *controls], parts.session, **PRIVATE).success(
        lambda: gr.Info("The next run uses these settings."), None, None, **QUIET
    )
    parts.opened["purify"] += [
        (price, parts.session, cost),
        (show_chosen, [parts.session, chosen], [trigger, target, *controls, chosen]),
    ]
    return shown


def attend(site: Site, session: Session) -> Iterator[None]:
    """Where jobs need a caller, work on this visitor's; on hosts with background jobs there is nothing to do."""
    if (id := session.planting or session.job) and not site.runner.detached:
        for _ in site.runner.run(id):
            yield


def _controls(config: PurifyConfig) -> list[Any]:
    """A control for each setting, as the command line has a flag for each."""
    titles = {"split": "Token splitting", "retrain": "Step 1: retraining", "distil": "Step 2: distillation", "": "Both"}
    every = settings(config)
    groups = dict.fromkeys(s.path[0] if len(s.path) > 1 else "" for s in every)
    made: dict[tuple[str, ...], Any] = {}
    for group in groups:
        html(f'<h4 class="mbtsad">{escape(titles.get(group, group))}</h4>')
        with gr.Row():
            for s in every:
                if (s.path[0] if len(s.path) > 1 else "") == group:
                    made[s.path] = _control(s)
    return [made[s.path] for s in every]


def _control(s: Setting) -> Any:
    name = s.path[-1].replace("_", " ") + (f" ({s.symbol})" if s.symbol else "")
    if s.type is bool:
        return gr.Checkbox(value=s.default, label=name, info=s.help, min_width=180)
    bounds = f" ({s.low:g} to {s.high:g})" if s.low is not None and s.high is not None else ""
    return gr.Textbox(value=_written(s.default), label=name, info=s.help + bounds, min_width=180, max_lines=1)


def _written(value: Any) -> Any:
    return (
        value
        if isinstance(value, bool)
        else ""
        if value is None
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _read(s: Setting, value: Any) -> Any:
    """What a visitor typed for a setting; raises BadConfig."""
    if s.type is bool:
        return bool(value)
    text = str(value).strip()
    if not text and s.default is None:
        return None
    try:
        return s.type(text)
    except ValueError:
        raise BadConfig(
            f"{'.'.join(s.path).replace('_', ' ')}: expected {'a whole number' if s.type is int else 'a number'}, got "
            f"{text!r}."
        ) from None


def _link(session: Session) -> str:
    if not session.job:
        return ""
    query = escape(f"?job={session.job}")
    return (
        '<p class="mbtsad muted">Whoever has the link can see this run, and stop it: <a class="job-link" '
        f'href="{query}">link to this run</a> '
        f'<button type="button" class="copy-link">copy</button></p>'
    )


def job_of_link(site: Site, query: str) -> str:
    """The id in a link, "" where there is none; raises BadData for one that cannot be an id."""
    if query and not re.fullmatch(r"[\w-]{20,64}", query):
        raise BadData("The link to the run is damaged: its id has characters that no id has. Copy it again.")
    return query
