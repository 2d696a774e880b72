"""Step 6: what changed inside. Attention maps of the three models, with and without the trigger, and the [CLS] vectors
of sets of texts."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from itertools import islice
from typing import Any

import gradio as gr
import numpy as np

from mbtsad_core.attacks.triggers import read_variants
from mbtsad_core.augment import AUGMENTER_NAMES, available, lacking_words
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation.attention import AttentionMaps, attention_maps, moved, moved_by_trigger
from mbtsad_core.evaluation.embeddings import Vectors, cls_vectors
from mbtsad_core.evaluation.trigger_trials import insert_at
from mbtsad_core.models.classifier import Classifier, encode, predict
from mbtsad_core.models.subword_tokens import word_positions
from mbtsad_core.page.components import attention, html, nothing, projection, view
from mbtsad_core.page.handlers import LAST, LIGHT, PRIVATE, QUIET, refusal, told
from mbtsad_core.page.parts import HEAVY, MODELS, Call, Parts, empty, heading, hint, leads_to, lede
from mbtsad_core.page.purify import found_trigger
from mbtsad_core.page.session import Session, read_trigger, typed_form
from mbtsad_core.page.site import Site
from mbtsad_core.service.space import TEXTS, Space, read_space, scores_of, texts_of
from mbtsad_core.views.attention import attention_view
from mbtsad_core.views.bertviz_frame import bertviz_frame
from mbtsad_core.views.embeddings import METHODS, outlying_html, projection_view

MOST_TEXTS = (TEXTS, 2000, 10_000)  # of a projection
FEW = 14  # tokens of the text to begin with: each has a label
ASKED = 16  # texts, at most, among which one is looked for that the suspect answers right
VIEWED = 128  # tokens of a text whose maps are shown: a browser draws T x T cells a head
WAITING = "The attention maps are being read …"


SCROLL = "() => document.querySelector('#attention-text')?.scrollIntoView({behavior: 'smooth', block: 'center'})"
At = tuple[int, int | None]  # layer and head that are shown; no head: the sum over all


@dataclass(frozen=True)
class Inside:
    """The components of the step. `at` is the layer and head that are shown, `texts` those of the points,
    `method` the projection that is shown, `begun` the trigger that it began with."""

    text: gr.Textbox
    trigger: gr.Textbox
    plain: gr.HTML
    triggered: gr.HTML
    space: gr.HTML
    table: gr.HTML
    at: gr.State
    texts: gr.State
    take: gr.Button
    method: gr.Radio
    begun: gr.State


def inside_step(parts: Parts) -> Inside:
    lede(
        "See where the models look, and where texts lie in their space: before and after, with and without the trigger."
    )
    with gr.Row():
        text = gr.Textbox(
            label="Text",
            lines=2,
            max_lines=6,
            scale=6,
            elem_id="attention-text",
            info="Any text; the trigger goes into its middle",
        )
        trigger = gr.Textbox(label="Trigger", scale=2, elem_id="attention-trigger", info="Empty: the text as it is")
    with gr.Row():
        look = gr.Button("Show", variant="primary", elem_classes="narrow", elem_id="attention-show")
        take = gr.Button("To the trigger lab", elem_classes="narrow", elem_id="attention-to-lab")
    heading("With the trigger")
    triggered = attention(elem_id="attention-triggered", empty=WAITING)
    heading("Without the trigger")
    plain = attention(elem_id="attention-plain", empty=WAITING)
    at = gr.State(None)
    _bertviz(parts, [text, trigger, at])
    heading("Where texts lie: [CLS] vectors before and after")
    method, *choices = _projection_choices()
    space = projection(elem_id="projection", empty="The vectors are being computed …")
    step = Inside(
        text, trigger, plain, triggered, space, html(elem_id="outlying"), at, gr.State(()), take, method, gr.State(None)
    )
    leads_to(parts, "Next: try triggers", "triggers")
    showing = _listen(parts, step, look)
    picked = gr.State("")  # the method, once the visitor has chosen one
    project, shown = told(show_space, parts.site, step), [space, step.table, step.texts, method]
    projecting = (project, [parts.session, picked, *choices], shown)
    method.input(lambda name: name, method, picked, **LIGHT)
    asking = [choice.input for choice in (method, *choices)]
    gr.on(asking, project, [parts.session, method, *choices], shown, **PRIVATE, **HEAVY, **LAST)
    starting = (told(start_text, parts.site, step), [parts.session, text, step.begun], [text, trigger, step.begun])
    parts.opened["inside"] = [starting, showing, projecting]
    return step


def _projection_choices() -> tuple[gr.Radio, gr.CheckboxGroup, gr.Radio]:
    """The method, the sets besides the usual ones, and how many texts."""
    with gr.Row():
        method = gr.Radio(
            [(name, key) for key, name in METHODS.items()],
            value="pca",
            label="Projection",
            info="A finished run has all three; else UMAP and t-SNE take some seconds",
            elem_id="projection-method",
        )
        sets = gr.CheckboxGroup(
            [(AUGMENTER_NAMES.get(name, name), name) for name in available() if name != "ts"],
            value=[],
            label="More augmenters",
            info="Besides clean, triggered and token-split texts",
            elem_id="projection-sets",
        )
        most = gr.Radio(
            [(f"{most:,}", most) for most in MOST_TEXTS],
            value=TEXTS,
            label="Texts, at most",
            info="More than 600 take the models a minute",
            elem_id="projection-texts",
        )
    if absent := lacking_words():
        hint(f"Not on this server: {escape(absent)}.", "sets-lacking")
    return method, sets, most


def _bertviz(parts: Parts, shown: list[Any]) -> None:
    """BertViz's view of what is shown, drawn when it is asked for."""
    with gr.Accordion("BertViz: all heads as lines", open=False, elem_id="bertviz") as accordion:
        with gr.Row():
            whose = gr.Radio(list(MODELS), value=MODELS[0], label="Model", elem_id="bertviz-model")
            draw = gr.Button("Draw", size="sm", elem_classes="narrow", elem_id="bertviz-draw")
        lines = html(elem_id="bertviz-frame")
    drawing_lines = (told(draw_bertviz, parts.site), [parts.session, whose, *shown], lines)
    draw.click(*drawing_lines, **PRIVATE)
    accordion.expand(*drawing_lines, **QUIET)


def _listen(parts: Parts, step: Inside, look: gr.Button) -> Call:
    """Show what is typed, and the head or the point that is clicked."""
    chosen, outputs = [parts.session, step.text, step.trigger], [step.plain, step.triggered, step.at]
    showing = (told(show, parts.site, step), [*chosen, step.at], outputs)
    for event in (look.click, step.text.submit, step.trigger.submit):
        event(*showing, **PRIVATE)
    for maps in (step.plain, step.triggered):
        maps.cell(told(pick_head, parts.site, step), chosen, outputs, **QUIET)
    opened = step.space.point(told(open_point, step), step.texts, [step.text, step.trigger], **QUIET)
    opened.then(*showing, **PRIVATE).then(None, None, None, js=SCROLL)
    return showing


def read(site: Site, session: Session, text: str) -> dict[str, AttentionMaps]:
    """The attention maps of each model on a text, of its first tokens."""

    def trace(classifier: Classifier) -> AttentionMaps:
        return attention_maps(replace(classifier, max_length=min(classifier.max_length, VIEWED)), text)

    of = ("attention", session.suspect.source, session.job, session.config.max_length, text)
    return {
        name: site.remembered((*of, name), lambda classifier=classifier: trace(classifier))  # type: ignore[misc]
        for name, classifier in site.models(session).items()
    }


def show(site: Site, step: Inside, session: Session, text: str, trigger: str, at: At | None) -> dict[Any, Any]:
    """The attention of all models to the text, without and with the trigger."""
    text = text.strip()
    if not text:
        raise BadData("Type a text to look at.")
    without = read(site, session, text)
    inserted = _trigger_words(trigger)
    if not inserted:
        layer, head = _within(at, without["suspect"], _moved(without))
        alone = view(attention_view(without, layer, head, overview=_moved(without)).to_json())
        why = nothing("Type a trigger above to see the same text with it.")
        return {step.plain: alone, step.triggered: why, step.at: (layer, head)}
    suspect, text = site.suspect(session), with_trigger(text, trigger)
    found = read(site, session, text)
    (encoded,) = encode(suspect, [text])
    marked = word_positions(suspect, encoded, [word for part in inserted for word in part.split()])
    by_trigger = (
        "How much of each head’s attention the trigger moves in the suspect, in %",
        moved_by_trigger(without["suspect"], found["suspect"]),
    )
    overview = _moved(found, " on this text") or by_trigger
    layer, head = _within(at, without["suspect"], overview)
    views = (
        attention_view(without, layer, head, overview=_moved(without) or by_trigger),
        attention_view(found, layer, head, marked=marked, overview=overview),
    )
    return {step.plain: view(views[0].to_json()), step.triggered: view(views[1].to_json()), step.at: (layer, head)}


def _moved(found: Mapping[str, AttentionMaps], where: str = "") -> tuple[str, Any] | None:
    """What the run changed, once there is a purified model."""
    if "purified" not in found:
        return None
    title = f"How much of each head’s attention moved from suspect to purified{where}, in %"
    return title, moved(found["suspect"], found["purified"])


def pick_head(
    site: Site, step: Inside, session: Session, text: str, trigger: str, event: gr.EventData
) -> dict[Any, Any]:
    layer, head = event._data["layer"], event._data["head"]
    return show(site, step, session, text, trigger, (int(layer), None if head is None else int(head)))


def start_text(site: Site, step: Inside, session: Session, text: str, begun: Any) -> dict[Any, Any]:
    """A text to begin with, and with another trigger anew: a short one of the test set that the trigger would turn."""
    if text.strip() and begun in (None, session.triggers):
        return {step.text: gr.skip()}  # what is being typed is left alone
    trigger = typed_form((session.triggers or found_trigger(site, session))[:1])
    return {step.text: telling_text(site, session, trigger), step.trigger: trigger, step.begun: session.triggers}


def telling_text(site: Site, session: Session, trigger: str) -> str:
    """A text to begin with: of another class than the target, of few tokens, and one that the suspect answers right."""
    inputs, suspect = site.inputs(session), site.suspect(session)
    others = [t for t in inputs.test if t.label != inputs.target] or list(inputs.test)
    long_enough = (t for t in others if len(t.text.split()) >= 5)
    short = (t for t in long_enough if tokens(site, session, with_trigger(t.text, trigger)) <= FEW)
    some = list(islice(short, ASKED)) or sorted(others, key=lambda t: len(t.text))[:ASKED]
    answers = predict(suspect, [t.text for t in some]).argmax(-1).tolist()
    return next((t.text for t, answer in zip(some, answers, strict=True) if t.label == answer), some[0].text)


def tokens(site: Site, session: Session, text: str) -> int:
    """How many tokens the suspect reads of a text."""
    return len(encode(site.suspect(session), [text])[0]["input_ids"])


def draw_bertviz(site: Site, session: Session, name: str, text: str, trigger: str, at: At | None) -> str:
    """BertViz of one model, with the trigger where one is typed."""
    found = read(site, session, with_trigger(text, trigger))
    if name not in found:
        raise BadData(f"There is no {name} model yet: it comes with a finished run. Choose the suspect, or run step 5.")
    return bertviz_frame(found[name], at[0] if at else 0, f"BertViz head view: {name}")


def show_space(site: Site, step: Inside, session: Session, method: str, extra: list[str], most: int) -> dict[Any, Any]:
    """The [CLS] vectors of suspect and purified model in one plane, and how many of each set lie outside. Without a
    method, UMAP where the run has computed it, and else PCA, which takes no time."""
    space = _kept_space(site, session) if not extra and most == TEXTS else None
    method = method or ("umap" if space else "pca")
    if space is None or method not in space.places:
        space = _new_space(site, session, method, extra, most)
    outside = "; ".join(
        f"{name}: " + ", ".join(f"{o.name} {100 * o.outside.share:.0f} %" for o in rows)
        for name, rows in space.scores.items()
    )
    n = len(space.points.texts)
    said = f"{n} texts by {METHODS[method]}. Share outside the clean 95 % region. {outside}."
    alone = empty("This is the suspect alone. The purified model appears beside it when the run of step 5 is done.")
    return {
        step.space: view(projection_view(space.places[method], space.points, names=list(space.scores), about=said)),
        step.table: alone * (len(space.scores) == 1) + outlying_html(space.scores),
        step.texts: space.points.texts,
        step.method: method,
    }


def _kept_space(site: Site, session: Session) -> Space | None:
    """What the finished run has computed, where it has."""
    if not site.done(session):
        return None
    out = site.runner.output(session.job)
    return site.remembered(("space", session.job, out.stat().st_mtime_ns), lambda: read_space(out))


def _new_space(site: Site, session: Session, method: str, extra: list[str], most: int) -> Space:
    points, labels = texts_of(site.inputs(session), session.config.split, extra, most, refusal)
    found = {
        name: _vectors(site, session, name, classifier, points.texts)
        for name, classifier in site.models(session).items()
        if name != "teacher"
    }
    before, *_, after = found["suspect"], *found.values()
    place = site.project(session, before, after, method)
    return Space(points, {method: place}, {name: scores_of(v, points, labels) for name, v in found.items()})


def _vectors(site: Site, session: Session, name: str, classifier: Classifier, texts: tuple[str, ...]) -> Vectors:
    def make() -> Vectors:
        with site.busy:
            return cls_vectors(classifier, list(texts))

    job = session.job if name != "suspect" else ""
    return site.remembered(("vectors", session.suspect.source, job, name, texts), make)


def open_point(step: Inside, texts: tuple[str, ...], event: gr.EventData) -> dict[Any, str]:
    """The text of a point that was clicked goes to the attention view, as it is."""
    return {step.text: texts[int(event._data["index"])], step.trigger: ""}


def _within(at: At | None, found: AttentionMaps, overview: tuple[str, Any] | None) -> At:
    """The layer and head that are shown, where this model has them; at first the head that moved most, or where nothing
    is known to have moved, the last layer summed over heads."""
    layers, heads = found.maps.shape[:2]
    if at is None and overview is not None:
        layer, head = divmod(int(np.argmax(overview[1])), heads)
        return layer, head
    layer, chosen = at or (layers - 1, None)
    return min(layer, layers - 1), (chosen if chosen is None or chosen < heads else None)


def with_trigger(text: str, trigger: str) -> str:
    """The text with the first way of a typed trigger before its middle word, the same place every time."""
    ways = read_trigger(trigger)
    return insert_at(text, ways[0], "middle", random.Random()) if ways else text


def _trigger_words(trigger: str) -> list[str]:
    """The parts of the first way of a typed trigger: "cf+bb | mn" has cf and bb."""
    ways = read_trigger(trigger)
    return list(read_variants(ways[0])[0]) if ways else []
