"""What all HTML views share: their colors and words in light and dark, and a page that stands alone."""

from __future__ import annotations

import functools
import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.rates import rate_of
from mbtsad_core.vetting.file_policy import printable
from mbtsad_core.views.words import duration, percent, rarity, rate

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")
STYLE = (TEMPLATES / "document.css").read_text("utf-8")
"""Gradio puts `dark` on the body; a page that stands alone follows the reader's system."""

# Plotly's own default offers a button that sends the chart, and with it the texts of its points, to a cloud; without an
# address nothing could either.
PLOT_CONTROLS: dict[str, Any] = {
    "displaylogo": False,
    "responsive": True,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}


@functools.cache
def _environment(folder: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    found = Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(["html", "svg"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "duration": duration,
        "percent": percent,
        "printable": printable,
        "rate": rate,
        "rarity": rarity,
        "rate_of": rate_of,
        "visible": visible,
    }
    return found


def render(template: str, folder: Path = TEMPLATES, **values: Any) -> str:
    """A template of the folder with these values; what is put into HTML is escaped."""
    return _environment(folder).get_template(template).render(values)


def visible(text: str) -> str:
    """A text with its invisible characters (zero-width spaces, marks of writing direction) as their code points."""
    return "".join(c if c.isprintable() else f"‹U+{ord(c):04X}›" for c in text)  # noqa: RUF001 (angle quotes)


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A page that needs nothing else and may load nothing else. `title` is escaped; `body`, `style` and `script` are
    taken as they are."""
    return render("document.html", title=title, body=body, style=style, script=script)


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element: no character of it can end the element or open a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII only: U+2028 and U+2029 are escaped too
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def themed(figure: go.Figure, dark: bool) -> go.Figure:
    """The figure with the colors of the light or the dark page, its ground left to the page. Changes and returns
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
