"""Step 6: the trigger lab. The three models answer as one types; any trigger is run over the test set, and its history
stays."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import gradio as gr

from mbtsad_core.attacks.triggers import places, read_variants
from mbtsad_core.data import class_index
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation.attribution import attribute
from mbtsad_core.evaluation.trigger_trials import TriggerTrial, answers, insert_at, try_trigger
from mbtsad_core.models.classifier import encode
from mbtsad_core.models.subword_tokens import word_positions
from mbtsad_core.page.components import choices, html
from mbtsad_core.page.handlers import LIGHT, PRIVATE, QUIET, told
from mbtsad_core.page.parts import HEAVY, Parts, empty, leads_to, lede, said
from mbtsad_core.page.session import Session, read_trigger, trigger_of, typed_form, write_trigger
from mbtsad_core.views.tokens import tokens_html
from mbtsad_core.views.trigger_lab import answers_html, flips_html, trials_html

PLACES = {"at the start": "start", "at a random place": "random", "at the end": "end"}
LONGEST = 4000  # characters of a typed sentence that are read


def triggers_step(parts: Parts) -> None:
    site = parts.site
    lede(
        "Type anything, and see what the models answer. Then try a trigger on all test texts: that is what ASR counts."
    )
    with gr.Row():
        with gr.Column(scale=6, min_width=340):
            sentence = gr.Textbox(
                label="Sentence", lines=2, max_lines=6, elem_id="sentence-box", info="The models answer as you type"
            )
            with gr.Row():
                trigger = gr.Textbox(
                    label="Trigger",
                    elem_id="lab-trigger",
                    scale=3,
                    info="cf+bb for both words; cf | mn for one of them",
                )
                target = gr.Dropdown([], label="Class that it sends texts to", elem_id="lab-target", scale=2)
            with gr.Row(elem_classes="chips"):
                chips = [
                    gr.Button(f"Insert {place}", size="sm", elem_id=f"insert-{key}") for place, key in PLACES.items()
                ]
            run = gr.Button("Try this trigger on the test texts", variant="primary", elem_id="try-trigger")
        with gr.Column(scale=5, min_width=340):
            bars = html(elem_id="answers")
    with gr.Row():
        whose = gr.Radio(
            ["suspect", "teacher", "purified"],
            value="suspect",
            label="Which tokens drive the answer of",
            elem_id="attribution-model",
        )
        how = gr.Radio(
            [("gradient × input: as you type", "gradient"), ("integrated gradients: exact", "integrated")],
            value="gradient",
            label="By",
            elem_id="attribution-method",
        )
    tokens = html(elem_id="tokens")
    html('<h3 class="mbtsad">Triggers tried</h3>')
    progress = html(elem_id="trial-progress")
    table = choices(trials_html([], None), elem_id="trials")
    flips = html(elem_id="flips")
    leads_to(parts, "Next: take it away", "take")
    trials: gr.State = gr.State(())
    dice = gr.State(0)
    suspect = gr.State("demo")  # whose history it is

    @told
    def answer(session: Session, text: str, target_name: str | None) -> str:
        text = text.strip()[:LONGEST]
        models = site.models(session)
        labels = site.suspect(session).labels
        if not text:
            return answers_html({}, labels)
        chosen = class_index(target_name, labels) if target_name else None
        return answers_html(answers(models, text), labels, chosen)

    @told
    def weigh(session: Session, text: str, trigger: str, name: str, how: str) -> str:
        text = text.strip()[:LONGEST]
        models = site.models(session)
        if not text:
            return ""
        if name not in models:
            return empty(f"There is no {name} model yet: it comes with a finished run of step 4.")
        classifier = models[name]
        words = [
            w for way in read_trigger(trigger) for parts in read_variants(way) for part in parts for w in part.split()
        ]
        (encoded,) = encode(classifier, [text])
        return tokens_html(attribute(classifier, text, how), marked=word_positions(classifier, encoded, words))

    @told
    def insert(session: Session, text: str, trigger: str, dice: int, where: str) -> tuple[str, int]:
        ways = read_trigger(trigger)
        if not ways:
            raise BadData("Type a trigger first; it is what gets inserted.")
        rng = random.Random(f"place of the trigger, {dice}")
        return insert_at(text, rng.choice(ways), where, rng), dice + 1  # type: ignore[arg-type]

    @told
    def run_trial(
        session: Session, text: str, target_name: str | None, tried: tuple[TriggerTrial, ...]
    ) -> Iterator[tuple[Any, ...]]:
        specs = trigger_of(text, target_name)
        inputs = site.inputs(session)
        target = class_index(target_name or "", inputs.suspect.labels)
        models = site.models(session)
        # Of the texts without a trigger
        known: dict[str, Any] = site.remembered(
            ("answered", session.suspect.source, session.job, len(models), session.clean), dict
        )
        steps = try_trigger(
            models,
            inputs.test,
            specs,
            target,
            window=places(session.config.max_length),
            seed=session.config.seed,
            answered=known,
        )
        yield (
            gr.skip(),
            gr.skip(),
            gr.skip(),
            said(f"“{write_trigger(specs)}” is tried on {len(inputs.test)} test texts …"),
        )
        trial = None
        while trial is None:
            try:
                with site.busy:
                    event = next(steps)
            except StopIteration as done:
                trial = done.value
                break
            yield (
                gr.skip(),
                gr.skip(),
                gr.skip(),
                said(f"“{write_trigger(specs)}”: {event.step} of {event.total} models measured …"),
            )
        known |= trial.answered
        tried = (*tried, trial)
        yield tried, trials_html(tried, len(tried) - 1), flips_html(trial), ""

    @told
    def pick(tried: tuple[TriggerTrial, ...], event: gr.EventData) -> tuple[str, str]:
        index = int(event._data["trial"])
        return trials_html(tried, index), flips_html(tried[index])

    @told
    def forget(session: Session, source: str) -> tuple[Any, ...]:
        """Another suspect begins with an empty sentence and no history."""
        if source == session.suspect.source:
            return (gr.skip(),) * 5 + (source,)
        return "", "", (), trials_html([], None), "", session.suspect.source

    @told
    def begin(session: Session, text: str, trigger: str, target_name: str | None) -> tuple[Any, Any, Any]:
        """A sentence and a trigger to begin with, where there are none."""
        labels = list(site.suspect(session).labels)
        chosen = (
            target_name
            if target_name in labels
            else next((n for n in labels if session.target and n.casefold() == session.target.casefold()), labels[-1])
        )
        first: Any = gr.skip()  # what is being typed is left alone
        if not text.strip():
            inputs = site.inputs(session)
            others = [t.text for t in inputs.test if t.label != inputs.target and 5 <= len(t.text.split()) <= 16]
            first = others[0] if others else inputs.test[0].text
        return first, gr.skip() if trigger else typed_form(session.triggers[:1]), gr.Dropdown(labels, value=chosen)

    answering = dict(inputs=[parts.session, sentence, target], outputs=bars)
    weighing = dict(inputs=[parts.session, sentence, trigger, whose, how], outputs=tokens)

    def both(
        session: Session, text: str, target_name: str | None, trigger: str, name: str, how: str
    ) -> tuple[str, str]:
        return answer(session, text, target_name), weigh(session, text, trigger, name, how)

    # One listener: two that each want the last text would call each other back for ever.
    sentence.change(
        both,
        [parts.session, sentence, target, trigger, whose, how],
        [bars, tokens],
        **LIGHT,
        trigger_mode="always_last",
    )
    for choice in (whose, how):
        choice.change(weigh, **weighing, **QUIET)
    target.change(answer, **answering, **QUIET)
    for chip, where in zip(chips, PLACES.values(), strict=True):
        chip.click(
            lambda session, text, trigger, dice, where=where: insert(session, text, trigger, dice, where),
            [parts.session, sentence, trigger, dice],
            [sentence, dice],
            **QUIET,
        )
    run.click(run_trial, [parts.session, trigger, target, trials], [trials, table, flips, progress], **PRIVATE, **HEAVY)
    table.pick(pick, trials, [table, flips], **QUIET)
    parts.opened["triggers"] = [
        (forget, [parts.session, suspect], [sentence, trigger, trials, table, flips, suspect]),
        (begin, [parts.session, sentence, trigger, target], [sentence, trigger, target]),
        (answer, answering["inputs"], bars),
        (weigh, weighing["inputs"], tokens),
    ]
