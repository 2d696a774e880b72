"""Token splits side by side with their originals, and the augmenters compared by eq. (9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mbtsad_core.augment.token_splitting import SplitText
from mbtsad_core.evaluation.perturbation import ORIGINAL, Perturbation, SplitRow, hardest
from mbtsad_core.types import Rate
from mbtsad_core.views.curves import CLEAN, GREY, SPLIT, SUSPECT
from mbtsad_core.views.document import TEMPLATES, plain, render, themed

if TYPE_CHECKING:
    import plotly.graph_objects as go

SPLITS_STYLE = (TEMPLATES / "token_splits.css").read_text("utf-8")


def split_rows_html(rows: Sequence[SplitRow], name: str = "Texts and their token splits") -> str:
    """Original | token split | P(true class) and loss, a row a text; the subword tokens that the suspect reads are
    under each.

    A cut is a colored gap in the word; pieces that the other side does not have are underlined. Needs STYLE and
    SPLITS_STYLE.
    """
    return render("token_splits.html", rows=rows, runs=_runs, name=name)


TURNED = {
    "whole": "the text with the trigger",
    "split": "words of the text split",
    "trigger_split": "the trigger itself split",
}


def turned_html(turned: Mapping[str, Rate], target: str) -> str:
    """How often a trigger turns the suspect's answer (`turned_when_split`), as bars. Needs STYLE and SPLITS_STYLE."""
    return render("turned.html", turned=turned, target=target, names=TURNED, colors={"whole": SUSPECT})


def _runs(part: SplitText) -> list[str]:
    """What stands between the cuts."""
    starts = (0, *(cut + 1 for cut in part.cuts))
    return [part.text[a:b] for a, b in zip(starts, (*part.cuts, len(part.text)), strict=True)]


def loss_bars(
    found: Mapping[str, Perturbation], *, names: Mapping[str, str] | None = None, dark: bool = False
) -> go.Figure:
    """Mean cross-entropy under the suspect by augmenter (eq. 9), the hardest on top, with 95 % intervals (1.96 standard
    errors).

    `names` maps an augmenter's key to the words that are shown for it. Original blue, token splitting orange, the
    others grey.
    """
    import plotly.graph_objects as go

    shown = {**{name: name for name in found}, "ts": "token splitting", **(names or {})}
    order = sorted(found, key=lambda name: found[name].mean)
    n = len(found[ORIGINAL].texts) if ORIGINAL in found else 0
    figure = go.Figure(
        go.Bar(
            x=[found[name].mean for name in order],
            y=[plain(shown[name]) for name in order],
            orientation="h",
            width=0.62,
            marker={"color": [{ORIGINAL: CLEAN, "ts": SPLIT}.get(name, GREY) for name in order]},
            error_x={
                "type": "data",
                "array": [1.96 * e if (e := found[name].error) == e else 0 for name in order],
                "thickness": 1.2,
                "width": 4,
            },
            text=[f"{found[name].mean:.2f} " for name in order],
            textposition="inside",
            insidetextanchor="start",
            textfont={"color": ["#000" if name == "ts" else "#fff" for name in order]},
            hovertemplate="%{y}: %{x:.3f} nats<extra></extra>",
        )
    )
    themed(figure, dark)
    title = ""
    if any(name != ORIGINAL for name in found):
        worst = hardest(found)
        title = f"Hardest for the suspect: {plain(shown[worst])}, {found[worst].mean:.2f} nats"
        title += f" (original {found[ORIGINAL].mean:.2f}; {n} texts)" if ORIGINAL in found else ""
    figure.update_layout(
        title={"text": title, "font": {"size": 14}, "x": 0, "xanchor": "left", "automargin": True, "yref": "container"},
        height=96 + 34 * len(order),
        margin={"l": 10, "r": 20, "t": 44, "b": 44},
        showlegend=False,
    )
    figure.update_xaxes(title_text="mean cross-entropy, nats", rangemode="tozero")
    figure.update_yaxes(automargin=True, ticksuffix="  ", showgrid=False)
    return figure
