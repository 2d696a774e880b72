"""Step 3: token splits side by side with their originals, and how hard the suspect finds them beside the other
augmenters."""

from __future__ import annotations

import random
from html import escape
from typing import Any

import gradio as gr

from mbtsad_core.augment import AUGMENTER_NAMES, available, lacking_words
from mbtsad_core.augment.token_splitting import split_tokens
from mbtsad_core.config import SplitConfig, replace, settings
from mbtsad_core.errors import MBTSADError
from mbtsad_core.evaluation.perturbation import perturbations, split_rows
from mbtsad_core.page.components import drawing, figure, html
from mbtsad_core.page.handlers import PRIVATE, QUIET, told, words
from mbtsad_core.page.parts import HEAVY, Parts, card, leads_to, lede, notes_html
from mbtsad_core.page.session import Session
from mbtsad_core.views.token_splits import loss_bars, split_rows_html

A_PAGE = 5  # texts shown at a time
COMPARED = 96  # texts that the augmenters are compared on


def splits_step(parts: Parts) -> None:
    site = parts.site
    lede(
        "Random words cut in two: people still read them, but the suspect has hardly seen such texts, so the short "
        "cut from trigger to label does not hold on them."
    )
    about = {s.path[0]: s for s in settings(SplitConfig())}
    with gr.Row():
        share = gr.Slider(
            0.0,
            1.0,
            value=about["aug_p"].default,
            step=0.05,
            label="Share of tokens",
            info=about["aug_p"].help,
            elem_id="split-share",
        )
        cap = gr.Slider(
            1,
            30,
            value=about["aug_max"].default,
            step=1,
            label="At most",
            info=about["aug_max"].help,
            elem_id="split-cap",
        )
        shortest = gr.Slider(
            3,
            12,
            value=about["min_char"].default,
            step=1,
            label="Shortest word",
            info=about["min_char"].help,
            elem_id="split-min-length",
        )
    effect = html(elem_id="split-effect")
    rows = html(elem_id="split-rows")
    with gr.Row(elem_classes="pager"):
        before = gr.Button("← Previous texts", size="sm")
        again = gr.Button("Draw again", size="sm", elem_id="draw-again")
        after = gr.Button("Next texts →", size="sm", elem_id="next-texts")
    html(
        '<h3 class="mbtsad">How hard the suspect finds changed texts</h3><p class="mbtsad muted">Mean cross-entropy '
        "of its answers (eq. 9 of the paper): the larger, the further such texts lie from what it was trained on.</p>"
    )
    bars = figure(
        "Mean cross-entropy by augmenter", elem_id="loss-bars", height=300, empty="The augmenters are being compared …"
    )
    if absent := lacking_words():
        html(f'<p class="mbtsad muted" id="augmenters-lacking">Not on this server: {escape(absent)}.</p>')
    leads_to(parts, "Next: purify", "purify")
    page, seed = gr.State(0), gr.State(0)

    def chosen(share: float, cap: float, shortest: float) -> SplitConfig:
        return SplitConfig(aug_p=share, aug_max=int(cap), min_char=int(shortest))

    @told
    def draw(session: Session, page: int, seed: int, share: float, cap: float, shortest: float) -> str:
        texts = site.inputs(session).clean
        start = page * A_PAGE % max(1, len(texts))
        found = split_rows(
            site.suspect(session), texts[start : start + A_PAGE], chosen(share, cap, shortest), seed=seed
        )
        return split_rows_html(found)

    @told
    def tell(session: Session) -> str:
        """What splitting does to all of the clean texts: how many can be split, and how much of it reaches the
        suspect."""
        try:
            inputs = site.inputs(session)
        except MBTSADError as error:
            return card(notes_html([words(error)]))
        if inputs.splits is None:
            return ""
        return card(
            f"<p>{escape(inputs.splits.sentence())}</p>"
            + notes_html(note for note in inputs.notes if note.code == "splits")
        )

    @told
    def keep(session: Session, share: float, cap: float, shortest: float) -> Session:
        """The sliders hold for the run too."""
        return session.having(
            config=replace(
                session.config,
                {("split", "aug_p"): share, ("split", "aug_max"): int(cap), ("split", "min_char"): int(shortest)},
            )
        )

    @told
    def compare(session: Session) -> dict[str, Any]:
        split = session.config.split
        augmenters = {**available(), "ts": lambda text, rng: split_tokens(text, rng, split).text}

        def measure() -> Any:
            texts = list(site.inputs(session).clean)
            some = random.Random("texts to compare augmenters on").sample(texts, min(COMPARED, len(texts)))
            with site.busy:
                return perturbations(site.suspect(session), some, augmenters)

        found = site.remembered(("perturbations", session.suspect, session.clean, split), measure)
        order = sorted(found, key=lambda name: -found[name].mean)
        said = "; ".join(f"{AUGMENTER_NAMES.get(name, name)} {found[name].mean:.2f}" for name in order)
        return drawing(
            loss_bars(found, names=AUGMENTER_NAMES), f"Mean cross-entropy in nats under the suspect: {said}."
        )

    @told
    def show_sliders(session: Session) -> tuple[float, int, int]:
        return session.config.split.aug_p, session.config.split.aug_max, session.config.split.min_char

    inputs = [parts.session, page, seed, share, cap, shortest]
    for button, state, by in ((before, page, -1), (after, page, 1), (again, seed, 1)):
        button.click(lambda n, by=by: max(0, n + by), state, state, **QUIET).then(draw, inputs, rows, **QUIET)
    for slider in (share, cap, shortest):
        slider.release(draw, inputs, rows, **QUIET).then(
            keep, [parts.session, share, cap, shortest], parts.session, **QUIET
        ).then(tell, parts.session, effect, **QUIET).then(compare, parts.session, bars, **PRIVATE, **HEAVY)
    parts.opened["splits"] = [
        (show_sliders, parts.session, [share, cap, shortest]),
        (tell, parts.session, effect),
        (draw, inputs, rows),
        (compare, parts.session, bars),
    ]
