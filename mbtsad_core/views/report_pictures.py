"""The pictures of a report, drawn without a script: a head before and after, and where texts lie. They are made of
report.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mbtsad_core.augment.token_splitting import SplitText
from mbtsad_core.evaluation.perturbation import Reading, SplitRow
from mbtsad_core.views.document import render
from mbtsad_core.views.embeddings import set_colors

VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
PANEL, MOST = 252, 20.0  # pixels of a panel, and of a cell of it at most
SHADES = 9  # of the scale beside the maps
ROOM = 0.94  # of a panel, for its points: the outermost stand off the frame
MODELS = ("suspect", "purified")
MARKS = ("circle", "cross", "triangle", "square")  # of the classes, in their order


def attention_svg(found: Mapping[str, Any]) -> str:
    """The head's maps of suspect and purified model side by side: a row a query, a column a key; the trigger's tokens
    in bold."""
    cell = min(MOST, PANEL / len(found["tokens"]))
    top = max(share for name in MODELS for row in found[name] for share in row)
    panels = [(name, [[_viridis(share / top) for share in row] for row in found[name]]) for name in MODELS]
    scale = [_viridis(step / (SHADES - 1)) for step in range(SHADES)]
    return render("attention.svg", found=found, panels=panels, cell=cell, top=top, scale=scale)


def _viridis(share: float) -> str:
    place = min(share, 0.9999) * (len(VIRIDIS) - 1)
    low, part = int(place), place % 1
    pair = zip(VIRIDIS[low], VIRIDIS[low + 1], strict=True)
    return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in pair)


def projection_svg(found: Mapping[str, Any]) -> str:
    """The points of suspect and purified model side by side, in one plane: sets by color, classes by shape."""
    colors, classes = set_colors(list(dict.fromkeys(found["sets"]))), list(dict.fromkeys(found["classes"]))
    marks = {name: MARKS[i % len(MARKS)] for i, name in enumerate(classes)}
    kinds = list(zip(found["sets"], found["classes"], strict=True))
    half, heights = PANEL / 2, [y for name in MODELS for _, y in found[name]]
    low, high = min(heights), max(heights)
    height = half * (ROOM * (high - low) + 2 * (1 - ROOM))  # as high as the points ask for, on one scale
    panels = [
        (name, [(half * (1 + ROOM * x), half * (1 - ROOM + ROOM * (high - y)), *kind) for (x, y), kind in placed])
        for name in MODELS
        for placed in [zip(found[name], kinds, strict=True)]
    ]
    size = {"width": PANEL, "height": height}
    return render("projection.svg", found=found, panels=panels, colors=colors, marks=marks, **size)


def split_rows_of(found: list[Mapping[str, Any]]) -> list[SplitRow]:
    """The rows of report.json as they were before they were written."""
    return [SplitRow(row["label"], _reading(row["original"]), _reading(row["split"])) for row in found]


def _reading(found: Mapping[str, Any]) -> Reading:
    parts = tuple(SplitText(part["text"], tuple(part["cuts"])) for part in found["parts"])
    return Reading(**{**found, "parts": parts, "pieces": tuple(found["pieces"]), "changed": tuple(found["changed"])})
