"""Attention maps of up to three classifiers and their difference: what is sent to the page, and the script that draws
it.

A map of 512 tokens has 262,144 values. One head, or the head-summed map, is sent at a time, each value as one byte (six
bits where that would pass 1 MB); the page asks for another head when its cell in the overview is clicked.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbtsad_core.errors import BadData
from mbtsad_core.evaluation.attention import AttentionMaps, Map, one_map
from mbtsad_core.views.curves import GREY, PURIFIED, SUSPECT, TEACHER
from mbtsad_core.views.document import TEMPLATES, document, script_json
from mbtsad_core.views.words import percent

LARGEST = 1_000_000  # bytes of a view as JSON
FOR_WORDS = 130_000  # of which at most these are for tokens and the overview: 512 tokens of 40 escaped letters
# Base64's; a six-bit value is one of its letters
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
COLOURS = {"suspect": SUSPECT, "teacher": TEACHER, "purified": PURIFIED}

ATTENTION_STYLE = (TEMPLATES / "attention.css").read_text("utf-8")
ATTENTION_SCRIPT = (TEMPLATES / "attention.js").read_text("utf-8")
"""Defines `drawAttention(element, payload)`; the page puts it into js_on_load and calls it with
`AttentionView.to_json()`.

It replaces what is in `element`, and dispatches two bubbling events on it: "mbtsad-head" with detail {layer, head} when
a cell of the overview is chosen (head is null for the sum over heads), and "mbtsad-cell" with detail {query, key} when
a pair of tokens is.
"""


@dataclass(frozen=True, slots=True)
class Quantised:
    """A (T, T) map as whole numbers q in 0 ... levels, finer near zero, where most attention is.

    value = high * u |u|, with u = q / levels, or u = 2 q / levels - 1 in a signed map (-high ... high, zero is exact).
    With h half a step of u, a value is off by at most high * (2 |u| h + h^2): by 0.4 % of `high` at the top with 8
    bits, by 0.0004 % near zero. data is base64 of the bytes for `bits` 8, and one letter of base64's alphabet a value
    for 6.
    """

    data: str
    high: float
    signed: bool
    levels: int
    bits: int


@dataclass(frozen=True, slots=True)
class Panel:
    """One classifier's map; `map` None, which saves room in a long text, means: the first panel's plus the
    difference."""

    name: str
    color: str
    answer: str
    map: Quantised | None


@dataclass(frozen=True, slots=True)
class Overview:
    """What the grid of layers x heads shows: `values` (L rows of H) in [0, 1], and what they measure."""

    name: str
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class AttentionView:
    """One text, one layer, one head (None: the sum over heads) under one to three classifiers. JSON-safe, under 1 MB up
    to 512 tokens."""

    tokens: tuple[str, ...]
    marked: tuple[int, ...]
    layer: int
    head: int | None
    layers: int
    heads: int
    panels: tuple[Panel, ...]
    difference: Quantised | None
    difference_name: str
    overview: Overview | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def quantize(values: Map, high: float, *, signed: bool = False, bits: int = 8) -> Quantised:
    """Round the values, in 0 ... high or in -high ... high if `signed`, to what `bits` bits hold."""
    levels = 2**bits - (2 if signed else 1)  # an even number of steps has zero in its middle
    share = values.astype(np.float64) / (high or 1.0)
    u = np.sign(share) * np.sqrt(np.abs(share))
    q = np.rint((u + 1) / 2 * levels if signed else u * levels).clip(0, levels).astype(np.uint8)
    return Quantised(_packed(q, bits), high or 1.0, signed, levels, bits)


def dequantise(found: Quantised, length: int) -> NDArray[np.float64]:
    """(T, T): what the script reads from a quantized map of T = `length` tokens."""
    six = np.array([ALPHABET.index(c) for c in found.data]) if found.bits == 6 else None
    q = np.frombuffer(base64.b64decode(found.data), np.uint8) if six is None else six
    u = q.reshape(length, length) / found.levels
    u = 2 * u - 1 if found.signed else u
    return found.high * u * np.abs(u)


def _packed(q: NDArray[np.uint8], bits: int) -> str:
    if bits == 6:
        return np.frombuffer(ALPHABET.encode(), np.uint8)[q].tobytes().decode()
    return base64.b64encode(q.tobytes()).decode()


def attention_view(
    found: Mapping[str, AttentionMaps],
    layer: int,
    head: int | None = None,
    *,
    power: float = 2.0,
    marked: Collection[int] = (),
    overview: tuple[str, Map] | None = None,
) -> AttentionView:
    """The maps of one text under the classifiers of `found`, such as "suspect", "teacher", "purified", and last minus
    first.

    power     p of eq. (3), for the head-summed map
    marked    positions of the trigger's tokens: their rows and columns are marked
    overview  what the (L, H) grid measures, and its values: of `moved` or `moved_by_trigger`

    All panels share one scale from 0 to their largest value; the difference has one that is symmetric about 0. To stay
    under 1 MB, texts beyond about 400 tokens have the last map left out, which is the first plus the difference, and
    beyond about 460 six bits a value. Raises BadData where the classifiers read different tokens.
    """
    names, all_maps = list(found), list(found.values())
    first = all_maps[0]
    if any(m.ids != first.ids for m in all_maps):
        raise BadData("The classifiers read this text as different tokens, so their attention maps cannot be compared.")
    layers, heads, length, _ = first.maps.shape
    if not 0 <= layer < layers or not (head is None or 0 <= head < heads):
        raise BadData(
            f"There is no layer {layer + 1}, head {'sum' if head is None else head + 1}: the model has {layers} "
            f"layers of {heads} heads."
        )
    maps = [one_map(m, layer, head, power) for m in all_maps]
    compared = len(maps) > 1
    choices = [(8, False), (8, compared), (6, compared)]  # bits, and whether the last map is left out
    room = (LARGEST - FOR_WORDS) / length**2
    bits, derived = next((c for c in choices if (len(maps) + compared - c[1]) * c[0] / 6 <= room), choices[-1])
    high = max(float(m.max()) for m in maps)
    difference = None
    if compared:
        signed = maps[-1] - maps[0]
        reach = float(np.abs(signed).max()) or 1e-6
        difference = quantize(signed, reach, signed=True, bits=bits)
    panels = tuple(
        Panel(
            name,
            COLOURS.get(name, GREY),
            f"{m.answer} {percent(m.probability)}",
            None if derived and i == len(maps) - 1 else quantize(values, high, bits=bits),
        )
        for i, (name, m, values) in enumerate(zip(names, all_maps, maps, strict=True))
    )
    grid = None
    if overview:
        what, shares = overview
        grid = Overview(what, tuple(tuple(round(float(v), 4) for v in row) for row in shares))
    marks = tuple(sorted(i for i in set(marked) if 0 <= i < length))
    signed_name = f"{names[-1]} − {names[0]}"  # noqa: RUF001 (a minus sign)
    return AttentionView(first.tokens, marks, layer, head, layers, heads, panels, difference, signed_name, grid)


def attention_document(views: Sequence[AttentionView], title: str = "Attention") -> str:
    """A page that stands alone: the first of `views` is drawn; clicking a head of the overview draws it if it is among
    them."""
    payload = [view.to_json() for view in views]
    body = '<main class="mbtsad"><div id="view"></div><p id="missing" class="muted" role="status"></p></main>'
    script = f"""{ATTENTION_SCRIPT}
const views = {script_json(payload)}, view = document.getElementById("view");
const missing = document.getElementById("missing");
view.addEventListener("mbtsad-head", ({{detail}}) => {{
  const wanted = views.find((v) => v.layer === detail.layer && v.head === detail.head);
  missing.textContent = wanted ? "" : "This file does not hold that head.";
  if (wanted) drawAttention(view, wanted);
}});
drawAttention(view, views[0]);
"""
    return document(title, body, style=ATTENTION_STYLE, script=script)


def payload_bytes(view: AttentionView) -> int:
    """What the view weighs on its way to the page."""
    return len(json.dumps(view.to_json()).encode())
