"""The page's own components: plotly figures that can be clicked, the attention view, and HTML whose buttons tell which one was pressed.

Plotly's script comes from the plotly package that made the figures, so that the two fit; the app serves it, nothing is loaded from elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mbtsad_core.views.attention import ATTENTION_SCRIPT, AttentionView

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLOTLY_ROUTE = "/mbtsad/plotly.min.js"
FIGURE_SCRIPT = Path(__file__).with_name("figure.js").read_text("utf-8")

from gradio.events import Dependency

class Figure(gr.HTML):
    """A plotly figure; its value is made by `drawing`. The event "click" carries {"index": the first of the point's customdata}."""

    def __init__(self, name: str, *, elem_id: str, height: int = 300, wide: bool = False, empty: str = "") -> None:
        box = '<div class="scroll"><div class="wide"><div class="plot"></div></div></div>' if wide else '<div class="plot"></div>'
        super().__init__(
            value={"empty": empty, "name": name},
            html_template=f'<figure class="mbtsad figure" style="min-height:{height}px" aria-label="{name}">{box}<figcaption></figcaption></figure>',
            js_on_load=FIGURE_SCRIPT.replace("PLOTLY_ROUTE", PLOTLY_ROUTE) + '\n// events: "click"',
            elem_id=elem_id,
            apply_default_css=False,
        )

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


def drawing(figure: go.Figure, text: str) -> dict[str, Any]:
    """The figure as a `Figure` shows it, with the sentence that says the same to who cannot see it."""
    plain = json.loads(figure.to_json())
    return {"data": plain["data"], "layout": plain["layout"], "text": text}


def nothing(why: str) -> dict[str, Any]:
    """An empty figure, and why it is empty."""
    return {"empty": why}


class Attention(gr.HTML):
    """The attention view of views/attention.py. The event "cell" carries {"layer", "head"} of the cell that was chosen."""

    def __init__(self, *, elem_id: str, empty: str) -> None:
        super().__init__(
            value={"empty": empty},
            html_template='<div class="mbtsad attention-here"></div>',
            js_on_load=ATTENTION_SCRIPT
            + """
const here = element.querySelector(".attention-here");
function show() {
  const value = props.value;
  if (!value || !value.tokens) { here.textContent = value && value.empty || ""; here.classList.add("empty"); return; }
  here.classList.remove("empty");
  drawAttention(here, value);
}
here.addEventListener("mbtsad-head", (event) => trigger("cell", event.detail));
watch("value", show);
show();
""",
            elem_id=elem_id,
            apply_default_css=False,
        )

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


def attention(view: AttentionView) -> dict[str, Any]:
    """The view as an `Attention` shows it."""
    return view.to_json()


class Choices(gr.HTML):
    """HTML with buttons; the event "pick" carries their data attributes, such as {"trial": "2"} for one with data-trial."""

    def __init__(self, value: str = "", *, elem_id: str) -> None:
        super().__init__(
            value=value,
            js_on_load="""
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-trial], button[data-step], button[data-text]");
  if (button && element.contains(button)) trigger("pick", {...button.dataset});
});
""",
            elem_id=elem_id,
            apply_default_css=False,
        )
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component