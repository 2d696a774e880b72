"""Token splits side by side with their originals, and the augmenters compared by eq. (9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from mbtsad_core.augment.token_splitting import SplitText
from mbtsad_core.evaluation.perturbation import ORIGINAL, Perturbation, Reading, SplitRow, hardest
from mbtsad_core.views.curves import CLEAN, GREY, SPLIT
from mbtsad_core.views.document import plain, themed
from mbtsad_core.views.words import percent

if TYPE_CHECKING:
    import plotly.graph_objects as go

SPLITS_STYLE = """
.splits .row { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr) 228px; gap: 4px 24px; padding: 12px 0; border-top: 1px solid var(--line); }
.splits .head { color: var(--muted); padding: 0 0 6px; border: 0; font-size: 12px; }
.splits .text { font-size: 15px; line-height: 1.6; overflow-wrap: anywhere; }
.splits .cut { white-space: pre; background: var(--split); margin: 0 1px; padding: 1px 0; border-radius: 1px; }
.splits .pieces { display: flex; flex-wrap: wrap; gap: 3px 3px; margin-top: 6px; }
.splits .piece { font: 11px/16px ui-monospace, monospace; color: var(--muted); background: var(--panel); border-radius: 2px; padding: 0 4px 1px;
  border-bottom: 2px solid transparent; overflow-wrap: anywhere; }
.splits .changed { color: var(--ink); border-bottom-color: var(--split); text-decoration: none; }
.splits .figures span { white-space: nowrap; }
.splits .figures { display: grid; grid-template-columns: auto 1fr; gap: 0 10px; align-content: start; text-align: right; }
.splits .figures span:nth-child(odd) { color: var(--muted); text-align: left; }
.splits .answer { grid-column: 1 / -1; color: var(--warn); text-align: left; margin-top: 4px; }
.splits .part + .part { border-top: 1px dashed var(--line); margin-top: 4px; padding-top: 4px; }
.splits .side-name { display: none; color: var(--muted); font-size: 12px; }
@media (max-width: 760px) { .splits .row { grid-template-columns: minmax(0, 1fr); } .splits .head { display: none; } .splits .side-name { display: block; }
  .splits .figures { grid-template-columns: auto auto; justify-content: start; } }
"""


def split_rows_html(rows: Sequence[SplitRow]) -> str:
    """Original | token split | P(true class) and loss, a row a text; the subword tokens that the suspect reads are
    under each.

    A cut is a coloured gap in the word; pieces that the other side does not have are underlined. Needs STYLE and
    SPLITS_STYLE.
    """
    head = '<div class="row head"><div>original</div><div>token-split</div><div>under the suspect</div></div>'
    body = "".join(
        f'<div class="row"><div>{_side("original", row.original)}</div><div>{_side("token-split", row.split)}</div>'
        f"{_figures(row)}</div>"
        for row in rows
    )
    if not rows:
        body = '<div class="row muted">There are no texts to split yet.</div>'
    return f'<section class="mbtsad splits" aria-label="Texts and their token splits">{head}{body}</section>'


def _side(name: str, reading: Reading) -> str:
    parts = "".join(f'<div class="part">{_text(part)}</div>' for part in reading.parts)
    changed = set(reading.changed)
    pieces = "".join(
        f'<u class="piece changed">{escape(piece)}</u>'
        if i in changed
        else f'<span class="piece">{escape(piece)}</span>'
        for i, piece in enumerate(reading.pieces)
    )
    return (
        f'<div class="side-name">{name}</div><div class="text">{parts}</div><div class="pieces" role="group" '
        f'aria-label="subword tokens">{pieces}</div>'
    )


def _text(part: SplitText) -> str:
    starts = (0, *(cut + 1 for cut in part.cuts))
    runs = [escape(part.text[a:b]) for a, b in zip(starts, (*part.cuts, len(part.text)), strict=True)]
    return '<span class="cut" title="cut here"> </span>'.join(runs)


def _figures(row: SplitRow) -> str:
    before, after = row.original, row.split
    answer = ""
    if before.answer != after.answer:
        answer = f'<div class="answer">answer: {escape(before.answer)} → {escape(after.answer)}</div>'
    elif after.answer != row.label:
        answer = f'<div class="answer">answers {escape(after.answer)} to both</div>'
    return (
        f'<div class="figures"><span>P({escape(row.label)})</span><span>{percent(before.probability)} → '
        f"{percent(after.probability)}</span>"
        f"<span>loss, nats</span><span>{before.loss:.2f} → {after.loss:.2f}</span>{answer}</div>"
    )


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
