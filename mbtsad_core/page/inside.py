"""Step 5: what changed inside. Attention maps of the three models, with and without the trigger, and the [CLS] vectors
of sets of texts."""

from __future__ import annotations

import random
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from mbtsad_core.attacks.triggers import read_variants
from mbtsad_core.augment import AUGMENTER_NAMES, AUGMENTERS, available, lacking_words
from mbtsad_core.augment.token_splitting import split_tokens
from mbtsad_core.errors import BadData, MBTSADError
from mbtsad_core.evaluation.attention import AttentionMaps, attention_maps, moved, moved_by_trigger
from mbtsad_core.evaluation.embeddings import Vectors, cls_vectors, outlying
from mbtsad_core.models.classifier import encode
from mbtsad_core.models.subword_tokens import word_positions
from mbtsad_core.page.components import attention, drawing, figure, html, maps, nothing
from mbtsad_core.page.handlers import PRIVATE, QUIET, refusal, told
from mbtsad_core.page.parts import HEAVY, Parts, empty, leads_to, lede
from mbtsad_core.page.session import Session, read_trigger, typed_form
from mbtsad_core.page.site import Site
from mbtsad_core.types import LabelledText
from mbtsad_core.views.attention import attention_view
from mbtsad_core.views.bertviz_frame import bertviz_frame
from mbtsad_core.views.embeddings import METHODS, Points, outlying_html, projection_figure

CLEAN_TEXTS, OTHER_TEXTS = 300, 150  # texts of each set in the projection
SETS = ("clean", "triggered", "token-split")
VIEWED = 128  # tokens of a text whose maps are shown: a browser draws T x T cells a head
LAST = 10**6  # a layer that no model has: the last one that it has
WAITING = "The attention maps are being read …"


def inside_step(parts: Parts) -> None:
    site = parts.site
    lede(
        "Where do the models look, and where do texts lie in their space? The same text before and after, with and "
        "without the trigger."
    )
    with gr.Row():
        text = gr.Textbox(
            label="Text",
            lines=2,
            max_lines=6,
            scale=6,
            elem_id="attention-text",
            info="Any text; the trigger goes in at its middle",
        )
        trigger = gr.Textbox(label="Trigger", scale=2, elem_id="attention-trigger", info="Empty: the text as it is")
        look = gr.Button("Show", variant="primary", scale=1, elem_id="attention-show")
    at = gr.State((LAST, None))  # layer and head that are shown
    html('<h3 class="mbtsad">Without the trigger</h3>')
    plain = attention(elem_id="attention-plain", empty=WAITING)
    html('<h3 class="mbtsad">With the trigger</h3>')
    triggered = attention(elem_id="attention-triggered", empty=WAITING)
    with gr.Accordion("BertViz: all heads as lines", open=False, elem_id="bertviz") as bertviz:
        with gr.Row():
            whose = gr.Radio(
                ["suspect", "teacher", "purified"], value="suspect", label="Model", elem_id="bertviz-model"
            )
            draw_lines = gr.Button("Draw", size="sm", elem_classes="narrow", elem_id="bertviz-draw")
        lines = html(elem_id="bertviz-frame")
    html('<h3 class="mbtsad">Where texts lie: [CLS] vectors before and after</h3>')
    with gr.Row():
        method = gr.Radio(
            [(name, key) for key, name in METHODS.items()],
            value="pca",
            label="Projection",
            info="PCA at once; UMAP and t-SNE take some seconds",
            elem_id="projection-method",
        )
        sets = gr.CheckboxGroup(
            [(AUGMENTER_NAMES.get(name, name), name) for name in available() if name != "ts"],
            value=[],
            label="More augmenters",
            info="Besides clean, triggered and token-split texts",
            elem_id="projection-sets",
        )
    if absent := lacking_words():
        html(f'<p class="mbtsad muted" id="sets-lacking">Not on this server: {escape(absent)}.</p>')
    space = figure(
        "[CLS] vectors, before and after",
        elem_id="projection",
        height=460,
        wide=True,
        empty="The vectors are being computed …",
    )
    html(
        '<p class="mbtsad muted">Hover a point for its text; click it to open the text in the attention view above.</p>'
    )
    table = html(elem_id="outlying")
    leads_to(parts, "Next: try triggers", "triggers")
    texts = gr.State(())  # of the points that are drawn

    def read(session: Session, text: str) -> dict[str, AttentionMaps]:
        found = {}
        for name, classifier in site.models(session).items():

            def trace(classifier: Any = classifier) -> AttentionMaps:
                with site.tracing:
                    return attention_maps(replace(classifier, max_length=min(classifier.max_length, VIEWED)), text)

            found[name] = site.remembered(
                ("attention", session.suspect, session.job, name, session.config.max_length, text), trace
            )
        return found

    def views(session: Session, text: str, trigger: str, at: tuple[int, int | None]) -> tuple[Any, Any, Any]:
        text = text.strip()
        if not text:
            raise BadData("Type a text to look at.")
        without = read(session, text)
        layer, head = _within(at, next(iter(without.values())))
        first, *_, last = [*without.values(), next(reversed(without.values()))]
        overview = (
            ("How much of each head’s attention moved from suspect to purified, in %", moved(first, last))
            if len(without) > 1
            else None
        )
        parts_of = _trigger_words(trigger)
        if not parts_of:
            plain_view = attention_view(without, layer, head, overview=overview)
            return maps(plain_view), nothing("Type a trigger above to see the same text with it."), (layer, head)
        suspect = site.suspect(session)
        with_it = _inserted(text, parts_of)
        found = read(session, with_it)
        (encoded,) = encode(suspect, [with_it])
        marked = word_positions(suspect, encoded, [word for part in parts_of for word in part.split()])
        if overview is None:
            overview = (
                "How much of each head’s attention the trigger moves in the suspect, in %",
                moved_by_trigger(first, found["suspect"]),
            )
            own = overview
        else:
            own = (
                "How much of each head’s attention moved from suspect to purified on this text, in %",
                moved(found["suspect"], list(found.values())[-1]),
            )
        return (
            maps(attention_view(without, layer, head, overview=overview)),
            maps(attention_view(found, layer, head, marked=marked, overview=own)),
            (layer, head),
        )

    shown = [plain, triggered, at]

    @told
    def show(session: Session, text: str, trigger: str, at: tuple[int, int | None]) -> tuple[Any, Any, Any]:
        return views(session, text, trigger, at)

    @told
    def pick_head(session: Session, text: str, trigger: str, event: gr.EventData) -> tuple[Any, Any, Any]:
        layer, head = event._data["layer"], event._data["head"]
        return views(session, text, trigger, (int(layer), None if head is None else int(head)))

    @told
    def start_text(session: Session, text: str, trigger: str) -> tuple[str, str]:
        """A text to begin with: a short one of the test set that the trigger would turn."""
        if text.strip():
            return text, trigger
        inputs = site.inputs(session)
        others = [t.text for t in inputs.test if t.label != inputs.target]
        short = [t for t in others if 6 <= len(t.split()) <= 14] or others
        return short[0], typed_form(session.triggers[:1])

    @told
    def draw_bertviz(session: Session, text: str, trigger: str, name: str, at: tuple[int, int | None]) -> str:
        shown_text = _inserted(text, _trigger_words(trigger)) if _trigger_words(trigger) else text
        found = read(session, shown_text)
        if name not in found:
            raise BadData(
                f"There is no {name} model yet: it comes with a finished run. Choose the suspect, or run step 4."
            )
        return bertviz_frame(found[name], at[0], f"BertViz head view: {name}")

    @told
    def show_space(session: Session, method: str, extra: list[str]) -> tuple[Any, str, Any]:
        points, labels = _points(site, session, tuple(extra))
        models = site.models(session)
        names = list(models)
        before_name, after_name = names[0], names[-1]

        def vectors(name: str) -> Vectors:
            def make() -> Vectors:
                with site.busy:
                    return cls_vectors(models[name], list(points.texts))

            return site.remembered(
                ("vectors", session.suspect, session.job if name != "suspect" else "", name, points.texts), make
            )

        before = vectors(before_name)
        after = vectors(after_name) if len(names) > 1 else before
        projection = site.project(session, before, after, method)
        scores = {name: _outlying(v, points, labels) for name, v in {before_name: before, after_name: after}.items()}
        shown_names = (before_name, after_name if len(names) > 1 else "")
        outside = "; ".join(
            f"{name}: " + ", ".join(f"{o.name} {100 * o.outside.share:.0f} %" for o in found)
            for name, found in scores.items()
        )
        said = f"{len(points.texts)} texts by {METHODS[method]}. Share outside the clean 95 % region. {outside}."
        note = (
            ""
            if len(names) > 1
            else empty(
                "This is the suspect alone; the purified model appears beside it when the run of step 4 is done."
            )
        )
        return (
            drawing(projection_figure(projection, points, names=shown_names), said),
            note + outlying_html(scores),
            points.texts,
        )

    @told
    def open_point(texts: tuple[str, ...], event: gr.EventData) -> tuple[str, str]:
        index = event._data["index"]
        return texts[int(index)], ""

    inputs = [parts.session, text, trigger, at]
    look.click(show, inputs, shown, **PRIVATE)
    text.submit(show, inputs, shown, **PRIVATE)
    trigger.submit(show, inputs, shown, **PRIVATE)
    for view in (plain, triggered):
        view.cell(pick_head, inputs[:3], shown, **QUIET)
    draw_lines.click(draw_bertviz, [parts.session, text, trigger, whose, at], lines, **PRIVATE)
    bertviz.expand(draw_bertviz, [parts.session, text, trigger, whose, at], lines, **QUIET)
    space_inputs, space_outputs = [parts.session, method, sets], [space, table, texts]
    method.input(show_space, space_inputs, space_outputs, **PRIVATE, **HEAVY)
    sets.input(show_space, space_inputs, space_outputs, **PRIVATE, **HEAVY)
    space.click(open_point, texts, [text, trigger], **QUIET).then(show, inputs, shown, **PRIVATE).then(
        None,
        None,
        None,
        js="() => document.querySelector('#attention-text')?.scrollIntoView({behavior: 'smooth', block: 'center'})",
    )
    parts.opened["inside"] = [
        (start_text, [parts.session, text, trigger], [text, trigger]),
        (show, inputs, shown),
        (show_space, space_inputs, space_outputs),
    ]


def _within(at: tuple[int, int | None], found: AttentionMaps) -> tuple[int, int | None]:
    """The layer and head that are shown, where this model has them; at first the last layer, summed over heads."""
    layers, heads = found.maps.shape[:2]
    layer, head = at
    return min(layer, layers - 1), (head if head is None or head < heads else None)


def _trigger_words(trigger: str) -> list[str]:
    """The parts of the first way of a typed trigger: "cf+bb | mn" has cf and bb."""
    ways = read_trigger(trigger)
    return list(read_variants(ways[0])[0]) if ways else []


def _inserted(text: str, trigger: list[str]) -> str:
    """The text with the trigger's parts before its middle word, the same place every time."""
    words = text.split()
    half = len(words) // 2
    return " ".join([*words[:half], *trigger, *words[half:]])


def _points(site: Site, session: Session, extra: tuple[str, ...]) -> tuple[Points, list[int]]:
    """The texts of the projection, and the class index of each."""
    inputs = site.inputs(session)
    rng = random.Random("texts of the projection")

    def some(texts: list[LabelledText], most: int) -> list[LabelledText]:
        return texts if len(texts) <= most else rng.sample(texts, most)

    clean = some(list(inputs.clean), CLEAN_TEXTS)
    sets = {"clean": clean}
    if inputs.triggered:
        sets["triggered"] = some([t.triggered for t in inputs.triggered], OTHER_TEXTS)
    split = session.config.split
    sets["token-split"] = [
        LabelledText(split_tokens(t.text, rng, split).text, t.label, t.pair) for t in clean[:OTHER_TEXTS]
    ]
    for name in extra:
        try:
            sets[AUGMENTER_NAMES[name]] = [
                LabelledText(AUGMENTERS[name](t.text, rng), t.label, t.pair) for t in clean[:OTHER_TEXTS]
            ]
        except (
            MBTSADError
        ) as error:  # what it needs has gone since it was offered: the other sets are drawn all the same
            refusal(error)
    named = [(t, name) for name, texts in sets.items() for t in texts]
    labels = inputs.suspect.labels
    return Points(
        tuple(t.text for t, _ in named), tuple(name for _, name in named), tuple(labels[t.label] for t, _ in named)
    ), [t.label for t, _ in named]


def _outlying(vectors: Vectors, points: Points, labels: list[int]) -> Any:
    names = list(dict.fromkeys(points.sets))
    where = {name: np.flatnonzero([s == name for s in points.sets]) for name in names}
    clean = where["clean"]
    return outlying(
        vectors[clean], [labels[i] for i in clean], {name: vectors[where[name]] for name in names if name != "clean"}
    )
