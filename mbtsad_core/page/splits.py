"""Step 4: token splits side by side with their originals, and how hard the suspect finds them beside the other
augmenters."""

from __future__ import annotations

import random
from html import escape
from typing import Any

import gradio as gr

from mbtsad_core.attacks.triggers import TriggeredText, places, triggered_test_set, typed_trigger
from mbtsad_core.augment import AUGMENTER_NAMES, available, lacking_words
from mbtsad_core.augment.token_splitting import split_tokens
from mbtsad_core.config import SplitConfig, replace, settings
from mbtsad_core.errors import MBTSADError
from mbtsad_core.evaluation.perturbation import perturbations, split_rows, turned_when_split
from mbtsad_core.evaluation.trigger_trials import turned_to
from mbtsad_core.page.components import drawing, figure, html
from mbtsad_core.page.handlers import LAST, PRIVATE, QUIET, told, words
from mbtsad_core.page.parts import HEAVY, Call, Parts, card, empty, heading, hint, leads_to, lede, notes_html
from mbtsad_core.page.purify import found_trigger
from mbtsad_core.page.session import Session
from mbtsad_core.page.site import Site
from mbtsad_core.types import Rate
from mbtsad_core.views.token_splits import loss_bars, split_rows_html, turned_html

A_PAGE = 5  # texts shown at a time
COMPARED = 96  # texts that the augmenters are compared on
SHORT = 30  # words, at most, of a text that is shown with its trigger, where there are such
NO_TRIGGER = (
    "No trigger is known yet, so it cannot be tried on split texts. Type one in step 5, or run the purification there: "
    "its scan looks for one."
)

SLIDERS = {  # a setting of SplitConfig: from, to, step; label and id
    "aug_p": ((0.0, 1.0, 0.05), "Share of tokens", "split-share"),
    "aug_max": ((1, 30, 1), "At most", "split-cap"),
    "min_char": ((3, 12, 1), "Shortest word", "split-min-length"),
}


def splits_step(parts: Parts) -> None:
    site, session = parts.site, parts.session
    lede(
        "Cut random words in two. People still read them; to the suspect they are new. The purification trains on such "
        "texts, so that a copy learns the task anew, and not the shortcut from trigger to label."
    )
    with gr.Row():
        sliders = make_sliders()
    effect = html(elem_id="split-effect")
    heading("Texts with the trigger, whole and split")
    turned = html(elem_id="split-turned")
    heading("Clean texts and their splits")
    rows = html(elem_id="split-rows")
    with gr.Row(elem_classes="pager"):
        before = gr.Button("← Previous texts", size="sm")
        again = gr.Button("Draw again", size="sm", elem_id="draw-again")
        after = gr.Button("Next texts →", size="sm", elem_id="next-texts")
    heading("How hard the suspect finds changed texts")
    hint(
        "Mean cross-entropy of the answers (eq. 9 of the paper), the hardest on top: the further texts lie from "
        "those that the suspect was trained on, the larger it is. Token splitting came first in the paper; another "
        "suspect may order them otherwise."
    )
    bars = figure(
        "Mean cross-entropy by augmenter", elem_id="loss-bars", height=300, empty="The augmenters are being compared …"
    )
    if absent := lacking_words():
        hint(f"Not on this server: {escape(absent)}.", "augmenters-lacking")
    leads_to(parts, "Next: purify", "purify")
    page, seed = gr.State(0), gr.State(0)
    redrawing: Call = (told(draw, site), [session, page, seed, *sliders.values()], rows)
    telling: Call = (told(tell, site), session, effect)
    turning: Call = (told(turn, site), session, turned)
    comparing: Call = (told(compare, site), session, bars)
    for button, state, by in ((before, page, -1), (after, page, 1), (again, seed, 1)):
        button.click(lambda n, by=by: max(0, n + by), state, state, **QUIET).then(*redrawing, **QUIET)
    drawn = gr.on([slider.release for slider in sliders.values()], *redrawing, **QUIET, **LAST)
    kept = drawn.then(told(keep), [session, *sliders.values()], session, **QUIET, **LAST)
    counted = kept.then(*telling, **QUIET, **LAST).then(*turning, **QUIET, **LAST)
    counted.then(*comparing, **PRIVATE, **HEAVY, **LAST)
    showing: Call = (told(show_sliders, sliders), session, list(sliders.values()))
    parts.opened["splits"] = [showing, telling, turning, redrawing, comparing]


def make_sliders() -> dict[str, gr.Slider]:
    """A slider for each of these settings, by its name."""
    about = {s.path[0]: s for s in settings(SplitConfig())}
    return {
        name: gr.Slider(
            low, high, value=about[name].default, step=step, label=label, info=about[name].help, elem_id=elem_id
        )
        for name, ((low, high, step), label, elem_id) in SLIDERS.items()
    }


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


def turn(site: Site, session: Session) -> str:
    """Texts with the trigger, whole beside split, and how often the suspect's answer goes to the target then."""
    try:
        triggered, target = with_trigger(site, session)
    except MBTSADError as error:
        return empty(words(error))
    if target is None:
        return empty(NO_TRIGGER)
    suspect, split = site.suspect(session), session.config.split

    def measure() -> dict[str, Rate]:
        with site.busy:
            return turned_when_split(suspect, triggered, target, split)

    found = site.remembered(("turned", session.suspect.source, session.clean, session.names, triggered, split), measure)
    texts = [t.triggered for t in triggered]
    short = [t for t in texts if len(t.text.split()) <= SHORT] or texts
    rows = split_rows_html(split_rows(suspect, short[:2], split), "Triggered texts and their token splits")
    return turned_html(found, suspect.labels[target]) + rows


def with_trigger(site: Site, session: Session) -> tuple[tuple[TriggeredText, ...], int | None]:
    """The test texts with the session's trigger, else with what the scan of its run found; and their target."""
    inputs = site.inputs(session)
    ways = () if inputs.triggered else found_trigger(site, session)
    if not ways:
        return inputs.triggered, inputs.target
    target = turned_to(site.suspect(session), inputs.clean, ways)
    trigger = typed_trigger(ways, target, window=places(session.config.max_length))
    return tuple(triggered_test_set(inputs.test, trigger, session.config.seed)), target


def keep(session: Session, share: float, cap: float, shortest: float) -> Session:
    """The sliders hold for the run too."""
    changes = {"aug_p": share, "aug_max": int(cap), "min_char": int(shortest)}
    return session.having(config=replace(session.config, {("split", name): value for name, value in changes.items()}))


def compare(site: Site, session: Session) -> str:
    """The suspect's loss on texts that each augmenter changed, as bars."""
    split = session.config.split
    augmenters = {**available(), "ts": lambda text, rng: split_tokens(text, rng, split).text}

    def measure() -> Any:
        texts = list(site.inputs(session).clean)
        some = random.Random("texts to compare augmenters on").sample(texts, min(COMPARED, len(texts)))
        with site.busy:
            return perturbations(site.suspect(session), some, augmenters)

    found = site.remembered(("perturbations", session.suspect.source, session.clean, split), measure)
    order = sorted(found, key=lambda name: -found[name].mean)
    said = "; ".join(f"{AUGMENTER_NAMES.get(name, name)} {found[name].mean:.2f}" for name in order)
    return drawing(loss_bars(found, names=AUGMENTER_NAMES), f"Mean cross-entropy in nats under the suspect: {said}.")


def show_sliders(sliders: dict[str, gr.Slider], session: Session) -> dict[Any, Any]:
    return {slider: getattr(session.config.split, name) for name, slider in sliders.items()}
