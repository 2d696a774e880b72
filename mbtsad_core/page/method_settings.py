"""The settings of the method on the page: what each is called, its control, and what is typed into it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from mbtsad_core.config import Setting, replace, settings
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import BadConfig
from mbtsad_core.page.components import html

SYMBOLS = {"eta_1": "η₁", "eta_2": "η₂", "alpha": "α", "beta": "β"}
TITLES = {
    "split": "Token splitting",
    "": "Whole run",
    "retrain": "Step 1: retraining",
    "distil": "Step 2: distillation",
    "unlearn": "Unlearning of found sequences",
}
WHERE = {"unlearn": " of the unlearning", "retrain": " of step 1", "distil": " of step 2"}
LABELS = {
    "copies": "Copies of each text",
    "aug_p": "Share of tokens split",
    "aug_min": "Words split, at least",
    "aug_max": "Words split, at most",
    "min_char": "Shortest word to split",
    "fresh": "New splits each epoch",
    "always": "Look for sequences always",
    "found_tokens": "Tokens from the trigger scan",
    "nats": "What counts as a trigger, nats",
    "tries": "Sequences tried in a text",
    "thinning": "Share of tokens left out",
    "split": "Share of texts split",
    "clip": "Gradient clipping",
    "observe_every": "Steps between measurements",
    "observe_early": "Steps between early measurements",
    "save_every": "Seconds between checkpoints",
    "alpha": "Weight of the attention loss",
    "beta": "Weight of the hidden-state loss",
    "power": "Power of the attention maps",
    "attention": "How attention is compared",
    "max_length": "Longest text",
}  # others by their names: "Learning rate"


def label(s: Setting) -> str:
    return LABELS.get(s.path[-1], s.path[-1].replace("_", " ").capitalize())


def in_words(s: Setting) -> str:
    """How a sentence names it: “Batch size” of step 1."""
    return f"“{label(s)}”{WHERE.get(s.path[0], '')}"


def controls() -> list[Any]:
    """A control for each setting, as the command line has a flag for each, in the order of `settings`."""
    every, made = settings(PurifyConfig()), dict[tuple[str, ...], Any]()
    for group, title in TITLES.items():
        html(f'<h4 class="mbtsad">{title}</h4>')
        own = [s for s in every if (s.path[0] if len(s.path) > 1 else "") == group]
        fields, boxes = ([s for s in own if (s.type is bool) == box] for box in (False, True))
        for some in filter(None, (fields, boxes)):  # a box among fields has no width of its own
            with gr.Row():
                made |= {s.path: _control(s) for s in some}
    return [made[s.path] for s in every]


def _control(s: Setting) -> Any:
    name = label(s) + (f" ({SYMBOLS.get(s.symbol, s.symbol)})" if s.symbol else "")
    if s.type is bool:
        return gr.Checkbox(value=s.default, label=name, info=s.help, min_width=180)
    bounds = f" ({s.bounds})" if s.bounds else ""
    return gr.Textbox(value=written(s.default), label=name, info=s.help + bounds, min_width=180, max_lines=1)


def written(value: Any) -> Any:
    """A setting's value as its control shows it."""
    if isinstance(value, bool):
        return value
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def read(values: tuple[Any, ...]) -> PurifyConfig:
    """What the controls hold; raises BadConfig."""
    every = settings(PurifyConfig())
    return replace(PurifyConfig(), {s.path: _value(s, value) for s, value in zip(every, values, strict=True)})


def _value(s: Setting, value: Any) -> Any:
    if s.type is bool:
        return bool(value)
    text = str(value).strip()
    if not text and s.default is None:
        return None
    try:
        return s.type(text)
    except ValueError:
        kind = "a whole number" if s.type is int else "a number"
        raise BadConfig(f"`{'.'.join(s.path)}`: expected {kind}, got {text!r}.") from None
