"""The page's own components: plotly figures that can be clicked, the attention view, and HTML whose buttons tell which
one was pressed.

They are gr.HTML with a script each. Plotly's comes from the plotly package that made the figures, so that the two fit;
the app serves it, nothing is loaded from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mbtsad_core.views import document
from mbtsad_core.views.attention import ATTENTION_SCRIPT
from mbtsad_core.views.document import PLOT_CONTROLS
from mbtsad_core.views.embeddings import PROJECTION_SCRIPT

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLOTLY_ROUTE = "/mbtsad/plotly.min.js"
TEMPLATES = Path(__file__).with_name("templates")
FIGURE_SCRIPT = (
    Path(__file__)
    .with_name("figure.js")
    .read_text("utf-8")
    .replace("PLOTLY_ROUTE", PLOTLY_ROUTE)
    .replace("PLOT_CONTROLS", json.dumps(PLOT_CONTROLS))
)
FIRST_LOOK_SCRIPT = Path(__file__).with_name("first_look.js").read_text("utf-8")
DRAWN_HERE = """
const here = element.querySelector(".here");
function show() {
  const value = JSON.parse(props.value);
  here.classList.toggle("empty", "empty" in value);
  if ("empty" in value) here.textContent = value.empty; else DRAW(here, value);
}
for (const [name, told] of Object.entries(EVENTS)) here.addEventListener(name, (event) => trigger(told, event.detail));
watch("value", show);
show();
"""
PICKED = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-trial]");
  if (button) trigger("pick", {...button.dataset});
});
let places = new Map();
new MutationObserver(() => {
  const before = places, still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  places = new Map([...element.querySelectorAll("[data-key]")].map((row) => [row.dataset.key, row.offsetTop]));
  for (const row of still ? [] : element.querySelectorAll("[data-key]")) {
    const by = (before.get(row.dataset.key) ?? row.offsetTop) - row.offsetTop;
    if (by) row.animate([{transform: `translateY(${by}px)`}, {}], {duration: 400, easing: "ease-out"});
  }
}).observe(element, {childList: true, subtree: true});
"""


def render(template: str, **values: Any) -> str:
    """One of the page's own templates."""
    return document.render(template, TEMPLATES, **values)


def html(value: str = "", *, elem_id: str | None = None) -> gr.HTML:
    """HTML of the views, with their looks and without Gradio's."""
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False, js_on_load=None)


def figure(name: str, *, elem_id: str, height: int = 300, wide: bool = False, empty: str = "") -> gr.HTML:
    """A plotly figure; its value is made by `drawing` or `nothing`. The event "click" carries {"index": the first of
    the point's customdata}."""
    box = (
        '<div class="scroll"><div class="wide"><div class="plot"></div></div></div>'
        if wide
        else '<div class="plot"></div>'
    )
    template = (
        f'<figure class="mbtsad figure" style="min-height:{height}px" aria-label="{name}">{box}<figcaption>'
        "</figcaption></figure>"
    )
    return gr.HTML(
        nothing(empty), html_template=template, js_on_load=FIGURE_SCRIPT, elem_id=elem_id, apply_default_css=False
    )


def drawing(figure: go.Figure, text: str) -> str:
    """The figure as it is sent to the page, with the sentence that says the same to who cannot see it."""
    return _sent(f'{{"figure": {figure.to_json()}, "text": {json.dumps(text)}}}')


def view(value: Mapping[str, Any]) -> str:
    """An attention view or a projection as it is sent to the page."""
    return _sent(json.dumps(value))


def nothing(why: str) -> str:
    """An empty figure, attention view or projection, and why it is empty."""
    return view({"empty": why})


def _sent(value: str) -> str:
    """JSON, as text: Gradio would follow and copy every number of an object at each look of the page. No tag is in
    it."""
    return value.replace("<", "\\u003c")


def _drawn(script: str, draw: str, events: dict[str, str], *, elem_id: str, empty: str) -> gr.HTML:
    """A view that a script of views/ draws by its function `draw`; its value is made by `view`, of what that takes, or
    by `nothing`.

    events  what the script dispatches, and the event of the page that it becomes
    """
    here = DRAWN_HERE.replace("DRAW", draw).replace("EVENTS", json.dumps(events))
    return gr.HTML(
        nothing(empty),
        html_template='<div class="mbtsad here"></div>',
        js_on_load=script + here,
        elem_id=elem_id,
        apply_default_css=False,
    )


def attention(*, elem_id: str, empty: str) -> gr.HTML:
    """The attention view of views/attention.py. The event "cell" carries {"layer", "head"} of the head that was chosen
    in the overview; head is None for the sum over heads."""
    return _drawn(ATTENTION_SCRIPT, "drawAttention", {"mbtsad-head": "cell"}, elem_id=elem_id, empty=empty)


def projection(*, elem_id: str, empty: str) -> gr.HTML:
    """The projection of views/embeddings.py. The events "point" and "lab" carry {"index"} of the text that was
    chosen."""
    events = {"mbtsad-point": "point", "mbtsad-lab": "lab"}
    return _drawn(PROJECTION_SCRIPT, "drawProjection", events, elem_id=elem_id, empty=empty)


def choices(value: str, *, elem_id: str) -> gr.HTML:
    """HTML with buttons; the event "pick" carries {"trial": "2"} of one with data-trial="2". Rows with a data-key move
    to their new places."""
    return gr.HTML(value, js_on_load=PICKED, elem_id=elem_id, apply_default_css=False)
