"""The curves of a run: ASR, CACC and losses over one axis of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mbtsad_core.types import Event

if TYPE_CHECKING:
    import plotly.graph_objects as go

SUSPECT, TEACHER, PURIFIED = "#D55E00", "#CC79A7", "#009E73"  # Okabe-Ito; one meaning everywhere
CLEAN, SPLIT, GREY = "#0072B2", "#E69F00", "#6B7280"
STAGES = {"retrain": ("token-split retraining", TEACHER), "distil": ("attention distillation", PURIFIED)}
LOSSES = {"classification": ("classification", GREY), "attention": ("attention", CLEAN), "hidden": ("hidden states", SPLIT)}


def offsets(events: Sequence[Event]) -> dict[str, int]:
    """Steps of the run that lie before each stage, in the order in which the stages came."""
    found: dict[str, int] = {}
    before, last = 0, None
    for event in events:
        if event.stage not in found:
            before += last.total if last else 0
            found[event.stage] = before
        last = event
    return found


def training_curves(events: Sequence[Event], *, suspect: dict[str, float] | None = None, floor: float | None = None) -> go.Figure:
    """Three aligned plots over the step: ASR (%), CACC (%), losses; a rule where one stage ends and the next begins.

    suspect  the suspect's own "asr" and "cacc", in [0, 1], drawn at step 0
    floor    the ASR floor, in [0, 1], drawn dashed
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    events = [event for event in events if event.metrics]  # training; the scan of the vocabulary has no curve
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.38, 0.28, 0.34])
    starts = offsets(events)
    for row, (key, name) in enumerate({"asr": "ASR", "cacc": "CACC"}.items(), 1):
        for stage, start in starts.items():
            measured = [(start + e.step, 100 * e.metrics[key]) for e in events if e.stage == stage and key in e.metrics]
            if suspect and key in suspect:  # both stages start from the suspect
                measured.insert(0, (start, 100 * suspect[key]))
            label, colour = STAGES.get(stage, (stage, GREY))
            trace = go.Scatter(
                x=[x for x, _ in measured],
                y=[y for _, y in measured],
                mode="lines+markers",
                name=label,
                legendgroup=stage,
                showlegend=row == 1 or "asr" not in (suspect or {}),
                line={"color": colour, "width": 2},
                marker={"size": 5},
                hovertemplate=f"step %{{x}}<br>{name} %{{y:.1f}} %<extra>{label}</extra>",
            )
            figure.add_trace(trace, row=row, col=1)
    if floor is not None:
        figure.add_hline(y=100 * floor, line={"dash": "dash", "color": GREY, "width": 1}, annotation_text=f"floor {100 * floor:.1f} %", row=1, col=1)
    for key, (label, colour) in LOSSES.items():
        x: list[int | None] = []
        y: list[float | None] = []
        for stage, start in starts.items():
            found = [e for e in events if e.stage == stage and key in e.metrics]
            gap = [None] if x and found else []  # each stage starts from the suspect: no line and no mean across the rule
            x += [*gap, *(start + e.step for e in found)]
            y += [*gap, *_smooth([e.metrics[key] for e in found])]
        if x:
            figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name=f"loss: {label}", line={"color": colour, "width": 1.5}), row=3, col=1)
    for stage in list(starts)[1:]:
        figure.add_vline(x=starts[stage], line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_yaxes(title_text="ASR, %", range=[0, 102], row=1, col=1)
    figure.update_yaxes(title_text="CACC, %", row=2, col=1)
    figure.update_yaxes(title_text="loss", rangemode="tozero", row=3, col=1)
    figure.update_xaxes(title_text="optimiser step", row=3, col=1)
    figure.update_layout(
        height=620,
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
        template="plotly_white",
        font={"size": 13},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0},
    )
    return figure


def _smooth(values: Sequence[float], window: int = 9) -> list[float]:
    """Running mean over the last `window` values."""
    return [sum(values[max(0, i - window + 1) : i + 1]) / len(values[max(0, i - window + 1) : i + 1]) for i in range(len(values))]
