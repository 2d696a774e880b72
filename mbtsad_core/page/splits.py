"""Step 3: token splits side by side with their originals, and how hard the suspect finds them beside the other
augmenters."""

from __future__ import annotations

import random
from dataclasses import dataclass
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
from mbtsad_core.page.parts import HEAVY, Call, Parts, card, heading, hint, leads_to, lede, notes_html
from mbtsad_core.page.session import Session
from mbtsad_core.page.site import Site
from mbtsad_core.views.token_splits import loss_bars, split_rows_html

A_PAGE = 5  # texts shown at a time
COMPARED = 96  # texts that the augmenters are compared on


@dataclass(frozen=True)
class Splits:
    """The components of the step. `page` counts the pages of texts, `seed` the draws."""

    share: gr.Slider
    cap: gr.Slider
    shortest: gr.Slider
    effect: gr.HTML
    rows: gr.HTML
    bars: gr.HTML
    page: gr.State
    seed: gr.State

    @property
    def sliders(self) -> list[gr.Slider]:
        return [self.share, self.cap, self.shortest]


def splits_step(parts: Parts) -> Splits:
    lede(
        "Cut random words in two. People still read them; the suspect has hardly seen such texts, so its shortcut from "
        "trigger to label fails on them."
    )
    with gr.Row():
        share = _slider("aug_p", (0.0, 1.0, 0.05), "Share of tokens", "split-share")
        cap = _slider("aug_max", (1, 30, 1), "At most", "split-cap")
        shortest = _slider("min_char", (3, 12, 1), "Shortest word", "split-min-length")
    effect, rows = html(elem_id="split-effect"), html(elem_id="split-rows")
    with gr.Row(elem_classes="pager"):
        before = gr.Button("← Previous texts", size="sm")
        again = gr.Button("Draw again", size="sm", elem_id="draw-again")
        after = gr.Button("Next texts →", size="sm", elem_id="next-texts")
    heading("How hard the suspect finds changed texts")
    hint(
        "Mean cross-entropy of its answers (eq. 9 of the paper). The larger it is, the further such texts lie from "
        "those that the suspect was trained on."
    )
    bars = figure(
        "Mean cross-entropy by augmenter", elem_id="loss-bars", height=300, empty="The augmenters are being compared …"
    )
    if absent := lacking_words():
        hint(f"Not on this server: {escape(absent)}.", "augmenters-lacking")
    leads_to(parts, "Next: purify", "purify")
    step = Splits(share, cap, shortest, effect, rows, bars, gr.State(0), gr.State(0))
    _listen(parts, step)
    for button, state, by in ((before, step.page, -1), (after, step.page, 1), (again, step.seed, 1)):
        button.click(lambda n, by=by: max(0, n + by), state, state, **QUIET).then(*_drawing(parts, step), **QUIET)
    return step


def _listen(parts: Parts, step: Splits) -> None:
    site, session, drawing_rows = parts.site, parts.session, _drawing(parts, step)
    telling = (told(tell, site), session, step.effect)
    comparing = (told(compare, site), session, step.bars)
    for slider in step.sliders:
        drawn = slider.release(*drawing_rows, **QUIET)
        kept = drawn.then(told(keep), [session, *step.sliders], session, **QUIET)
        kept.then(*telling, **QUIET).then(*comparing, **PRIVATE, **HEAVY)
    parts.opened["splits"] = [(told(show_sliders, step), session, step.sliders), telling, drawing_rows, comparing]


def _drawing(parts: Parts, step: Splits) -> Call:
    return told(draw, parts.site), [parts.session, step.page, step.seed, *step.sliders], step.rows


def _slider(name: str, steps: tuple[float, float, float], label: str, elem_id: str) -> gr.Slider:
    """The slider of a setting of SplitConfig: from, to, step."""
    (about,) = (s for s in settings(SplitConfig()) if s.path == (name,))
    low, high, step = steps
    return gr.Slider(low, high, value=about.default, step=step, label=label, info=about.help, elem_id=elem_id)


def draw(site: Site, session: Session, page: int, seed: int, share: float, cap: float, shortest: float) -> str:
    """A page of clean texts and their splits."""
    texts = site.inputs(session).clean
    start = page * A_PAGE % max(1, len(texts))
    split = SplitConfig(aug_p=share, aug_max=int(cap), min_char=int(shortest))
    return split_rows_html(split_rows(site.suspect(session), texts[start : start + A_PAGE], split, seed=seed))


def tell(site: Site, session: Session) -> str:
    """What splitting does to all of the clean texts: how many can be split, and how much of it reaches the suspect."""
    try:
        inputs = site.inputs(session)
    except MBTSADError as error:
        return card(notes_html([words(error)]))
    if inputs.splits is None:
        return ""
    notes = notes_html(note for note in inputs.notes if note.code == "splits")
    return card(f"<p>{escape(inputs.splits.sentence())}</p>{notes}")


def keep(session: Session, share: float, cap: float, shortest: float) -> Session:
    """The sliders hold for the run too."""
    changes = {"aug_p": share, "aug_max": int(cap), "min_char": int(shortest)}
    return session.having(config=replace(session.config, {("split", name): value for name, value in changes.items()}))


def compare(site: Site, session: Session) -> dict[str, Any]:
    """The suspect's loss on texts that each augmenter changed, as bars."""
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
    return drawing(loss_bars(found, names=AUGMENTER_NAMES), f"Mean cross-entropy in nats under the suspect: {said}.")


def show_sliders(step: Splits, session: Session) -> dict[Any, Any]:
    split = session.config.split
    return {step.share: split.aug_p, step.cap: split.aug_max, step.shortest: split.min_char}
