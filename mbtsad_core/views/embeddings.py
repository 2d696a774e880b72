"""The [CLS] projections before and after, in one basis and on the same axes, and the out-of-distribution scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mbtsad_core.evaluation.embeddings import Outlying, Projection, Vectors
from mbtsad_core.views.curves import CLEAN, GREY, SPLIT, SUSPECT
from mbtsad_core.views.document import TEMPLATES, document, render, script_json

COLOURS = {"clean": CLEAN, "triggered": SUSPECT, "token-split": SPLIT}
# Okabe-Ito's remaining colors; the models' own purple and green are not for sets
OTHERS = ("#56B4E9", "#F0E442", "#8C6D31", GREY)
SHAPES = ("circle", "x", "triangle-up", "square", "diamond", "cross", "star", "hexagon")
METHODS = {"umap": "UMAP", "pca": "PCA", "tsne": "t-SNE"}
FINE = 10_000  # steps of an axis: more than a screen has pixels
LONGEST = 200  # characters of a text that are sent to be read at its point

PROJECTION_STYLE = (TEMPLATES / "projection.css").read_text("utf-8")
PROJECTION_SCRIPT = (TEMPLATES / "projection.js").read_text("utf-8")
"""Defines `drawProjection(element, view)`, which replaces what is in `element` by what `projection_view` gives.

It dispatches two bubbling events with detail {index}, of a text: "mbtsad-point" where a text is opened, and
"mbtsad-lab" where it is sent to the trigger lab.
"""


@dataclass(frozen=True, slots=True)
class Points:
    """What the N points of a projection are: text, set ("clean", "triggered", "token-split", an augmenter's name) and
    class of each."""

    texts: tuple[str, ...]
    sets: tuple[str, ...]
    classes: tuple[str, ...]


def set_colors(names: Sequence[str]) -> dict[str, str]:
    """One color a set, the same in every view."""
    others = [name for name in names if name not in COLOURS]
    return {name: COLOURS.get(name) or OTHERS[min(others.index(name), len(OTHERS) - 1)] for name in names}


def projection_view(
    projection: Projection, points: Points, *, names: Sequence[str] = ("suspect", "purified"), about: str = ""
) -> dict[str, Any]:
    """What the page draws: before and after side by side, or before alone where there is one name. JSON-safe.

    Sets go by color and classes by shape; a place is two whole numbers in 0 ... FINE, the same axes in all panels.
    about  the sentence that says the same to who cannot see it
    """
    planes = (projection.before, projection.after)[: len(names)]
    sets, classes = (list(dict.fromkeys(kinds)) for kinds in (points.sets, points.classes))
    sets.sort(key=lambda name: (name != "clean") + (name == "triggered"))  # clean below, triggered on top
    basis = "one basis for both, " if len(names) > 1 else ""
    axes = [f"{METHODS.get(projection.method, projection.method)} {i}, without a unit" for i in (1, 2)]
    if projection.explained:
        axes = [f"component {i} ({100 * s:.0f} % of the variance)" for i, s in enumerate(projection.explained, 1)]
    return {
        "title": f"{METHODS.get(projection.method, projection.method)}: {basis}trustworthiness "
        f"{projection.trustworthiness:.2f}",
        "names": list(names),
        "axes": axes,
        "sets": [{"name": name, "color": color} for name, color in set_colors(sets).items()],
        "classes": [{"name": name, "shape": SHAPES[i % len(SHAPES)]} for i, name in enumerate(classes)],
        "planes": _on_one_scale(planes),
        "of_set": [sets.index(name) for name in points.sets],
        "of_class": [classes.index(name) for name in points.classes],
        "texts": [text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…" for text in points.texts],
        "about": about,
    }


def _on_one_scale(planes: Sequence[Vectors]) -> list[list[list[int]]]:
    """Each (N, 2) plane as its x and its y in 0 ... FINE, from the least to the largest of all planes."""
    low, high = np.min([plane.min(0) for plane in planes], 0), np.max([plane.max(0) for plane in planes], 0)
    reach = np.where(high > low, high - low, 1.0)
    whole: list[list[list[int]]] = [np.rint((plane - low) / reach * FINE).astype(int).T.tolist() for plane in planes]
    return whole


def projection_document(view: Mapping[str, Any], title: str = "Where texts lie") -> str:
    """A page that stands alone with what `projection_view` gives."""
    script = (
        f"{PROJECTION_SCRIPT}\nconst here = document.getElementById('view');\n"
        f"drawProjection(here, {script_json(view)});\n"
    )
    return document(title, '<main class="mbtsad" id="view"></main>', style=PROJECTION_STYLE, script=script)


def outlying_html(models: Mapping[str, Sequence[Outlying]]) -> str:
    """The out-of-distribution scores as a table: a row a set, for each model the share outside and the median distance.
    Needs STYLE."""
    sets = list(dict.fromkeys(score.name for scores in models.values() for score in scores))
    found = {(model, score.name): score for model, scores in models.items() for score in scores}
    return render("outlying.html", models=list(models), sets=set_colors(sets), found=found)
