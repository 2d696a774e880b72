"""What all HTML views share: their colours and words in light and dark, and a page that stands alone."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Gradio puts `dark` on the body; a page that stands alone follows the reader's system.
_DARK = (
    "--ink:#e5e7eb; --muted:#9ca3af; --line:#374151; --ground:#0b0f19; --panel:#1a2231; --accent:#38bdf8; "
    "--split:#E69F00; --warn:#ff9a57;"
)
STYLE = f"""
.mbtsad {{ --ink:#1f2937; --muted:#5b6472; --line:#d9dde3; --ground:#ffffff; --panel:#f5f6f8; --accent:#0072B2; --split:#E69F00; --warn:#a84300;
  color: var(--ink); font: 14px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; font-variant-numeric: tabular-nums; }}
.dark .mbtsad {{ {_DARK} }}
@media (prefers-color-scheme: dark) {{ .standalone .mbtsad {{ {_DARK} }} .standalone {{ background: #0b0f19; }} }}
.mbtsad *, .mbtsad *::before {{ box-sizing: border-box; }}
.mbtsad .muted {{ color: var(--muted); }} .mbtsad .number {{ text-align: right; white-space: nowrap; }}
.mbtsad .scroll {{ overflow-x: auto; }} .mbtsad .wide {{ min-width: 720px; }} /* a plot that needs room scrolls in its own box */
.mbtsad table.figures {{ border-collapse: collapse; }}
.mbtsad table.figures th, .mbtsad table.figures td {{ white-space: nowrap; padding: 4px 16px 4px 0; border-bottom: 1px solid var(--line); text-align: left; }}
.mbtsad table.figures .number {{ text-align: right; }}
.mbtsad table.figures thead th {{ color: var(--muted); font-weight: 500; vertical-align: bottom; }}
"""

CONFINED = (
    """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; """
    """form-action 'none'">"""
)
"""In the head of a page that stands alone: it may load nothing, and send nothing anywhere."""

# Plotly's own default offers a button that sends the chart, and with it the texts of its points, to a cloud; without an
# address nothing could either.
PLOT_CONTROLS: dict[str, Any] = {
    "displaylogo": False,
    "responsive": True,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A page that needs nothing else and may load nothing else. `title` is escaped; `body`, `style` and `script` are
    taken as they are."""
    scripts = f"<script>{script}</script>" if script else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
{CONFINED}
<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>
<style>{STYLE}.standalone {{ margin: 16px; }}{style}</style></head><body class="standalone">
{body}
{scripts}</body></html>
"""


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element: no character of it can end the element or open a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII only: U+2028 and U+2029 are escaped too
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def themed(figure: go.Figure, dark: bool) -> go.Figure:
    """The figure with the colours of the light or the dark page, its ground left to the page. Changes and returns
    `figure`."""
    ink, line = ("#e5e7eb", "#374151") if dark else ("#1f2937", "#d9dde3")
    figure.update_layout(
        template="plotly_dark" if dark else "plotly_white",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 13, "color": ink, "family": "system-ui, sans-serif"},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(gridcolor=line, zerolinecolor=line, linecolor=line)
    figure.update_yaxes(gridcolor=line, zerolinecolor=line, linecolor=line)
    return figure


def plain(text: str, longest: int = 0) -> str:
    """A text of a user or a model for a plotly figure, which reads a little HTML: escaped, and cut at `longest`
    characters if that is given."""
    # It does not know &quot;
    return escape(text if not longest or len(text) <= longest else text[: longest - 1] + "…", quote=False)
