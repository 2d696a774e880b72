"""The [CLS] projections before and after, in one basis and on the same axes, and the out-of-distribution scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbtsad_core.evaluation.embeddings import Outlying, Projection
from mbtsad_core.views.curves import CLEAN, GREY, SPLIT, SUSPECT
from mbtsad_core.views.document import plain, render, themed

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = {"clean": CLEAN, "triggered": SUSPECT, "token-split": SPLIT}
# Okabe-Ito's remaining colors; the models' own purple and green are not for sets
OTHERS = ("#56B4E9", "#F0E442", "#8C6D31", GREY)
SYMBOLS = {
    "circle": "●",
    "x": "✖",
    "triangle-up": "▲",
    "square": "■",
    "diamond": "◆",
    "cross": "✚",
    "star": "★",
    "hexagon": "⬢",
}
METHODS = {"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}


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


def projection_figure(
    projection: Projection,
    points: Points,
    *,
    names: tuple[str, str] = ("suspect", "purified"),
    dark: bool = False,
    height: int = 460,
) -> go.Figure:
    """Before and after side by side; sets by color, classes by symbol, the text on hover. The legend switches a set on
    and off in both. With "" as the second of `names` there is no after yet, and before stands alone.

    Give it 720 px or more: `<div class="scroll"><div class="wide">` where the page may be narrower.

    customdata of each point is (index into `points`, text, class): a click handler finds the text by the index.
    """
    from plotly.subplots import make_subplots

    planes = (projection.before, projection.after)[: 2 if names[1] else 1]
    shown = [plain(name) for name in names if name]
    figure = make_subplots(
        rows=1, cols=len(planes), shared_xaxes="all", shared_yaxes="all", horizontal_spacing=0.03, subplot_titles=shown
    )
    sets, classes = list(dict.fromkeys(points.sets)), list(dict.fromkeys(points.classes))
    sets.sort(key=lambda name: (name != "clean") + (name == "triggered"))  # clean below, triggered on top
    symbols = [list(SYMBOLS)[i % len(SYMBOLS)] for i in range(len(classes))]
    colors = set_colors(sets)
    members: dict[tuple[str, str], list[int]] = {}
    for i, pair in enumerate(zip(points.sets, points.classes, strict=True)):
        members.setdefault(pair, []).append(i)
    for column, plane in enumerate(planes, 1):
        named = set[str]()
        for name, c in ((name, c) for name in sets for c in classes if (name, c) in members):
            mine = members[name, c]
            figure.add_scatter(
                x=plane[mine, 0].tolist(),
                y=plane[mine, 1].tolist(),
                mode="markers",
                name=plain(name, 60),
                legendgroup=name,
                showlegend=column == 1 and name not in named,
                marker={"color": colors[name], "symbol": symbols[classes.index(c)], "size": 7, "opacity": 0.75},
                customdata=[(i, _wrapped(points.texts[i]), plain(f"{name}, {c}", 80)) for i in mine],
                hovertemplate="%{customdata[1]}<br><i>%{customdata[2]}</i><extra></extra>",
                row=1,
                col=column,
            )
            named.add(name)
    themed(figure, dark)
    key = "  ".join(f"{SYMBOLS[symbol]} {plain(c, 30)}" for symbol, c in zip(symbols, classes, strict=True))
    _lay_out(figure, projection, key, height, both=bool(names[1]))
    return figure


def _lay_out(figure: go.Figure, projection: Projection, key: str, height: int, *, both: bool) -> None:
    """Axes, title and legend; `key` says which symbol is which class."""
    axes = ("", "")
    if projection.explained:
        axes = tuple(
            f"component {i} ({100 * share:.0f} % of the variance)" for i, share in enumerate(projection.explained, 1)
        )  # type: ignore[assignment]
    figure.update_xaxes(title_text=axes[0], showticklabels=projection.explained is not None)
    figure.update_yaxes(showticklabels=projection.explained is not None)
    figure.update_yaxes(title_text=axes[1], row=1, col=1)
    basis = "one basis for both; " if both else ""
    title = (
        f"{METHODS.get(projection.method, plain(projection.method))}, {basis}trustworthiness "
        f"{projection.trustworthiness:.2f}"
    )
    figure.update_layout(
        title={
            "text": title,
            "font": {"size": 14},
            "x": 0,
            "xanchor": "left",
            "subtitle": {"text": key, "font": {"size": 12}},
        },
        height=height,
        margin={"l": 50, "r": 10, "t": 90, "b": 100},
        legend={"orientation": "h", "yanchor": "top", "y": -0.16, "x": 0, "itemsizing": "constant"},
    )


def _wrapped(text: str, width: int = 60, lines: int = 4) -> str:
    """Escaped lines of `width` characters, so that a hover label stays on the page."""
    import textwrap

    found = textwrap.wrap(text[: width * lines * 2], width) or [""]
    return "<br>".join(plain(line) for line in found[:lines]) + ("…" if len(found) > lines else "")


def outlying_html(models: Mapping[str, Sequence[Outlying]]) -> str:
    """The out-of-distribution scores as a table: a row a set, for each model the share outside and the median distance.
    Needs STYLE."""
    sets = list(dict.fromkeys(score.name for scores in models.values() for score in scores))
    found = {(model, score.name): score for model, scores in models.items() for score in scores}
    return render("outlying.html", models=list(models), sets=set_colors(sets), found=found)
