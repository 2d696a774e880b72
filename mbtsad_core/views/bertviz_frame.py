"""BertViz's head view (Vig, 2019, arXiv 1906.05714) as a page that stands alone, for a sandboxed frame.

BertViz 1.4.1 loads require.js, d3 and jQuery from another site and writes tokens into a script as they are. Here its
script runs with the copies in assets/vendor, and the tokens cannot leave their JSON. A frame without
`allow-same-origin` keeps it from the page around it.
"""

from __future__ import annotations

import base64
import importlib.util
import re
from html import escape
from pathlib import Path

import numpy as np

from mbtsad_core.errors import MBTSADError
from mbtsad_core.evaluation.attention import AttentionMaps
from mbtsad_core.models.demo import assets
from mbtsad_core.views.document import TEMPLATES, document, render, script_json

MOST_TOKENS = 64  # the head view draws a line for every pair of tokens and every head
MOST_VALUES = (
    590_000  # one byte each: with the scripts the page stays under 1 MB; 12 layers of 12 heads at 64 tokens fit
)


def bertviz_document(found: AttentionMaps, layer: int = 0, title: str = "BertViz head view") -> str:
    """The head view of one text under one classifier, opened at `layer` (from 0, shown as from 1), with a list of all
    layers; under 1 MB.

    A text of more than 64 tokens is shown by its first 64, and a model whose layers would pass 1 MB by `layer` alone;
    the page says so. Attention is rounded to steps of 1/255, as fine as the lines' opacity can show.
    """
    layers, heads, length, _ = found.maps.shape
    T = min(length, MOST_TOKENS)
    shown = list(range(layers)) if layers * heads * T * T <= MOST_VALUES else [layer]
    maps = np.rint(found.maps[shown, :, :T, :T] * 255).clip(0, 255).astype(np.uint8)
    given = {
        "tokens": [token.replace("␣", " ") for token in found.tokens[:T]],
        "layers": [i + 1 for i in shown],
        "heads": heads,
        "layer": layer + 1,
        "maps": base64.b64encode(maps.tobytes()).decode(),
    }
    notes = [f"The first {T} of {length} tokens."] if length > T else []
    notes += [f"Layer {layer + 1} of {layers} alone."] if len(shown) < layers else []
    body = render("bertviz.html", notes=notes, given=script_json(given))
    scripts = [assets() / "vendor" / name for name in ("jquery.slim.min.js", "d3-parts.min.js")]
    scripts.append(TEMPLATES / "bertviz.js")
    script = "\n".join([*(path.read_text("utf-8") for path in scripts), _head_view()])
    return document(title, body, style=(TEMPLATES / "bertviz.css").read_text("utf-8"), script=script)


def bertviz_frame(found: AttentionMaps, layer: int = 0, title: str = "BertViz head view") -> str:
    """The same in a frame that may run its scripts and nothing else: no access to the page, its storage or the
    network."""
    height = 110 + round(22.5 * min(len(found.tokens), MOST_TOKENS))
    return (
        f'<iframe sandbox="allow-scripts" title="{escape(title)}" '
        f'srcdoc="{escape(bertviz_document(found, layer, title))}" style="width:100%;height:{height}px;border:0" '
        'loading="lazy"></iframe>'
    )


def _head_view() -> str:
    """BertViz's own script without its list of remote addresses, its parameters taken from the page."""
    spec = importlib.util.find_spec("bertviz")  # found, not imported: the package would load IPython
    if spec is None or spec.origin is None:
        raise MBTSADError("The head view needs the package bertviz. Install it with: pip install bertviz")
    source = Path(spec.origin).with_name("head_view.js").read_text("utf-8")
    local, settings = re.subn(r"require\.config\(\{.*?\}\);", "", source, count=1, flags=re.DOTALL)
    local, places = re.subn(r"PYTHON_PARAMS;", "bertvizParams();", local, count=1)
    local = local.replace('console.log("d3 version", d3.version)', "")
    if not settings or not places or "//cdnjs" in local:
        raise MBTSADError(
            "This version of bertviz is not the one that the head view was written for. Install bertviz 1.4.1."
        )
    return local
