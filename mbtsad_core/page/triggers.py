"""Step 7: the trigger lab. The three models answer as one types; any trigger is run over the test set, and its history
stays."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import gradio as gr

from mbtsad_core.attacks.triggers import places, read_variants
from mbtsad_core.data import class_index
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation.attribution import attribute
from mbtsad_core.evaluation.trigger_trials import TriggerTrial, answers, insert_at, neutral_phrase, try_trigger
from mbtsad_core.models.classifier import encode
from mbtsad_core.models.subword_tokens import word_positions
from mbtsad_core.page.components import choices, html
from mbtsad_core.page.handlers import LAST, LIGHT, PRIVATE, QUIET, told
from mbtsad_core.page.inside import Inside, telling_text, with_trigger
from mbtsad_core.page.parts import HEAVY, MODELS, Parts, empty, heading, leads_to, lede, said
from mbtsad_core.page.purify import found_trigger
from mbtsad_core.page.session import Session, read_trigger, trigger_of, typed_form, write_trigger
from mbtsad_core.page.site import Site
from mbtsad_core.views.tokens import tokens_html
from mbtsad_core.views.trigger_lab import answers_html, compared_html, flips_html, trials_html

PLACES = {"at the start": "start", "at a random place": "random", "at the end": "end"}
LONGEST = 4000  # characters of a typed sentence that are read
WAYS = {"integrated gradients": "integrated", "gradient × input: quicker": "gradient"}
Begun = tuple[str, tuple[str, ...]]
"""Suspect and trigger that the lab began with."""


@dataclass(frozen=True)
class Lab:
    """The components of the step. `trials` is the history, `begun` the suspect and trigger that it began with, `dice`
    counts the insertions."""

    sentence: gr.Textbox
    trigger: gr.Textbox
    target: gr.Dropdown
    bars: gr.HTML
    whose: gr.Radio
    how: gr.Radio
    tokens: gr.HTML
    progress: gr.HTML
    table: gr.HTML
    flips: gr.HTML
    trials: gr.State
    dice: gr.State
    begun: gr.State

    @property
    def history(self) -> list[Any]:
        """What another suspect, or another trigger, begins anew with."""
        return [self.sentence, self.trigger, self.target, self.trials, self.table, self.flips, self.begun]


def triggers_step(parts: Parts) -> Lab:
    lede("Type any text and see what the models answer. Then try a trigger on all test texts: that measures its ASR.")
    with gr.Row():
        with gr.Column(scale=6, min_width=340):
            sentence = gr.Textbox(
                label="Sentence", lines=2, max_lines=6, elem_id="sentence-box", info="The models answer as you type"
            )
            with gr.Row():
                trigger = gr.Textbox(
                    label="Trigger", elem_id="lab-trigger", scale=3, info="cf+bb: both words; cf | mn: one of them"
                )
                target = gr.Dropdown([], label="Target class", elem_id="lab-target", scale=2)
            with gr.Row(elem_classes="chips"):
                chips = [
                    gr.Button(f"Insert {place}", size="sm", elem_id=f"insert-{key}") for place, key in PLACES.items()
                ]
            with gr.Row(equal_height=True):
                run = gr.Button("Try it on the test texts", variant="primary", elem_id="try-trigger")
                neutral = gr.Button("Compare with a neutral phrase", elem_id="try-neutral")
        with gr.Column(scale=5, min_width=340):
            bars = html(elem_id="answers")
    with gr.Row():
        whose = gr.Radio(
            list(MODELS), value=MODELS[0], label="Which tokens drive the answer of", elem_id="attribution-model"
        )
        how = gr.Radio(list(WAYS.items()), value="integrated", label="By", elem_id="attribution-method")
    tokens = html(elem_id="tokens")
    heading("Triggers tried")
    progress, table = html(elem_id="trial-progress"), choices(trials_html([], None), elem_id="trials")
    flips = html(elem_id="flips")
    leads_to(parts, "Next: take it away", "take")
    states = gr.State(()), gr.State(0), gr.State(("demo", Session().triggers))
    lab = Lab(sentence, trigger, target, bars, whose, how, tokens, progress, table, flips, *states)
    for chip, where in zip(chips, PLACES.values(), strict=True):
        chip.click(told(insert, lab, where), [sentence, trigger, lab.dice], [sentence, lab.dice], **QUIET)
    trying = [parts.session, trigger, target, lab.trials], [lab.trials, table, flips, progress]
    run.click(told(run_trial, parts.site, lab), *trying, **PRIVATE, **HEAVY)
    neutral.click(told(compare_with_neutral, parts.site, lab), *trying, **PRIVATE, **HEAVY)
    _listen(parts, lab)
    return lab


def _listen(parts: Parts, lab: Lab) -> None:
    site, session = parts.site, parts.session
    answering = (told(answer, site), [session, lab.sentence, lab.target], lab.bars)
    weighing = (told(weigh, site), [session, lab.sentence, lab.trigger, lab.whose, lab.how], lab.tokens)
    ready = gr.State(0)  # how often the step was opened
    chosen = (lab.sentence, lab.target, lab.whose, lab.how, ready)
    asked = gr.on([component.change for component in chosen], *answering, **LIGHT, **LAST)
    asked.then(*weighing, **LIGHT, **LAST)  # the answers do not wait for the weights
    lab.table.pick(told(pick, lab), lab.trials, [lab.table, lab.flips], **QUIET)
    beginning = [lab.sentence, lab.trigger, lab.target]
    parts.opened["triggers"] = [
        (told(forget, lab), [session, lab.begun], lab.history),
        (told(begin, site, lab), [session, *beginning], beginning),
        (lambda times: times + 1, ready, ready),
    ]


def take_from_inside(parts: Parts, step: Inside, lab: Lab) -> None:
    """A text of the step before comes into the lab: the one that is looked at, with its trigger, or that of a point."""
    taken = [*lab.history, parts.tabs]
    given = [parts.session, lab.begun, step.text, step.trigger]
    step.take.click(told(take_text, parts, lab), given, taken, **QUIET)
    step.space.lab(told(take_point, parts, lab), [parts.session, lab.begun, step.texts], taken, **QUIET)


def take_text(parts: Parts, lab: Lab, session: Session, begun: Begun, text: str, trigger: str) -> dict[Any, Any]:
    taken = {lab.sentence: with_trigger(text, trigger), parts.tabs: gr.Tabs(selected="triggers")}
    return forget(lab, session, begun) | taken | ({lab.trigger: trigger} if trigger else {})


def take_point(
    parts: Parts, lab: Lab, session: Session, begun: Begun, texts: tuple[str, ...], event: gr.EventData
) -> dict[Any, Any]:
    return take_text(parts, lab, session, begun, texts[int(event._data["index"])], "")


def answer(site: Site, session: Session, text: str, target_name: str | None) -> str:
    """What the models answer, as bars."""
    text = text.strip()[:LONGEST]
    labels = site.suspect(session).labels
    if not text:
        return answers_html({}, labels)
    chosen = class_index(target_name, labels) if target_name else None
    return answers_html(answers(site.models(session), text), labels, chosen)


def weigh(site: Site, session: Session, text: str, trigger: str, name: str, how: str) -> str:
    """The weight of each token in a model's answer; the trigger's tokens are marked."""
    text = text.strip()[:LONGEST]
    models = site.models(session)
    if not text:
        return ""
    if name not in models:
        return empty(f"There is no {name} model yet: it comes with a finished run of step 5.")
    ways = [part for way in read_trigger(trigger) for parts in read_variants(way) for part in parts]
    (encoded,) = encode(models[name], [text])
    marked = word_positions(models[name], encoded, [word for part in ways for word in part.split()])
    return tokens_html(attribute(models[name], text, how), marked=marked)


def insert(lab: Lab, where: Literal["start", "random", "end"], text: str, trigger: str, dice: int) -> dict[Any, Any]:
    """Put the trigger into the sentence."""
    ways = read_trigger(trigger)
    if not ways:
        raise BadData("Type a trigger first. It is what gets inserted.")
    rng = random.Random(f"place of the trigger, {dice}")
    return {lab.sentence: insert_at(text, rng.choice(ways), where, rng), lab.dice: dice + 1}


Told = Iterator[dict[Any, Any]]  # what the page shows, one after the other


def run_trial(
    site: Site, lab: Lab, session: Session, text: str, target_name: str | None, tried: tuple[TriggerTrial, ...]
) -> Told:
    """Measure a trigger on all test texts, a model at a time, and add it to the history."""
    trial = yield from _measured(site, lab, session, text, target_name)
    yield {**_added(lab, (*tried, trial)), lab.progress: ""}


def compare_with_neutral(
    site: Site, lab: Lab, session: Session, text: str, target_name: str | None, tried: tuple[TriggerTrial, ...]
) -> Told:
    """Measure a trigger, unless it was the last one, and then a phrase that says nothing; tell what the two say."""
    specs = trigger_of(text, target_name)
    if not (tried and (tried[-1].trigger, tried[-1].target) == (write_trigger(specs), target_name)):
        tried = (*tried, (yield from _measured(site, lab, session, text, target_name)))
        yield _added(lab, tried)
    phrase = neutral_phrase(site.suspect(session), site.inputs(session).test, specs[0])
    neutral = replace((yield from _measured(site, lab, session, phrase, target_name)), neutral=True)
    yield {**_added(lab, (*tried, neutral), -2), lab.progress: compared_html(tried[-1], neutral)}


def _measured(
    site: Site, lab: Lab, session: Session, text: str, target_name: str | None
) -> Generator[dict[Any, Any], None, TriggerTrial]:
    specs = trigger_of(text, target_name)
    inputs, models = site.inputs(session), site.models(session)
    # Of the texts without a trigger
    known: dict[str, Any] = site.remembered(
        ("answered", session.suspect.source, session.job, len(models), session.clean), dict
    )
    steps = try_trigger(
        models,
        inputs.test,
        specs,
        class_index(target_name or "", inputs.suspect.labels),
        window=places(session.config.max_length),
        seed=session.config.seed,
        answered=known,
    )
    name = f"“{write_trigger(specs)}”"
    yield {lab.progress: said(f"Trying {name} on {len(inputs.test)} test texts …")}
    while True:
        try:
            with site.busy:
                event = next(steps)
        except StopIteration as done:
            trial: TriggerTrial = done.value
            break
        yield {lab.progress: said(f"{name}: {event.step} of {event.total} models measured …")}
    known |= trial.answered
    return trial


def _added(lab: Lab, tried: tuple[TriggerTrial, ...], chosen: int = -1) -> dict[Any, Any]:
    return {lab.trials: tried, **_chosen(lab, tried, len(tried) + chosen)}


def pick(lab: Lab, tried: tuple[TriggerTrial, ...], event: gr.EventData) -> dict[Any, str]:
    """Show which texts a trigger of the history turned."""
    return _chosen(lab, tried, int(event._data["trial"]))


def _chosen(lab: Lab, tried: tuple[TriggerTrial, ...], index: int) -> dict[Any, str]:
    return {lab.table: trials_html(tried, index), lab.flips: flips_html(tried[index])}


def forget(lab: Lab, session: Session, begun: Begun) -> dict[Any, Any]:
    """Another trigger begins with an empty sentence, another suspect without a history too."""
    now = session.suspect.source, session.triggers
    emptied: dict[Any, Any] = {} if begun == now else {lab.sentence: "", lab.trigger: "", lab.target: None}
    if begun[0] != now[0]:
        emptied |= {lab.trials: (), lab.table: trials_html([], None), lab.flips: ""}
    return {**emptied, lab.begun: now}


def begin(site: Site, lab: Lab, session: Session, text: str, trigger: str, target_name: str | None) -> dict[Any, Any]:
    """A sentence and a trigger to begin with, where there are none; what is being typed is left alone."""
    labels = list(site.suspect(session).labels)
    chosen = target_name if target_name in labels else session.target_among(labels)
    answer: dict[Any, Any] = {lab.target: gr.Dropdown(labels, value=chosen)}
    if not text.strip():
        trigger = trigger or typed_form((session.triggers or found_trigger(site, session))[:1])
        answer[lab.sentence] = with_trigger(telling_text(site, session, trigger), trigger)
        answer[lab.trigger] = trigger
    return answer
