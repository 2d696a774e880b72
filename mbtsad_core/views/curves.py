"""The curves of a run: ASR, CACC and losses over one axis of steps, and the same in a sentence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbtsad_core.types import NAMED, RESET, Event, Rate, Scores
from mbtsad_core.views.document import plain, themed
from mbtsad_core.views.words import percent, rate, sample_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

SUSPECT, TEACHER, PURIFIED = "#D55E00", "#CC79A7", "#009E73"  # Okabe-Ito; one meaning everywhere
CLEAN, SPLIT, GREY = "#0072B2", "#E69F00", "#6B7280"
STAGES = {"unlearn": ("unlearning", TEACHER), "retrain": ("retraining", TEACHER), "distil": ("distillation", PURIFIED)}
LOSSES = {
    "classification": ("classification", GREY),
    "attention": ("attention", "#56B4E9"),
    "hidden": ("hidden states", "#8C6D31"),
}
BEFORE = "measure"  # the stage of the event that has the suspect's own figures
POINTS = 300  # of a loss, at most, but for one a stage
WINDOW = 9  # steps over which a loss is averaged
LONGEST_NAME = 18  # characters of a trigger's name over its rule
LETTER = 0.022  # width of a character on a narrow screen, as a share of the plot's
ROW = 16  # height of a row of names, pixels
NOTHING = "No measurement yet"


@dataclass(frozen=True, slots=True)
class Reading:
    """What was measured of the model in training at step `x` of the run, with the trigger of that number; shares in [0,
    1]."""

    x: int
    stage: str
    trigger: int
    cacc: float | None
    asr: float | None
    asr_n: int | None
    n: int | None = None  # clean texts that CACC is of


@dataclass(frozen=True, slots=True)
class Before:
    """What the suspect does with a trigger, and the floor: shares in [0, 1] of `n` texts, None where not known."""

    asr: float | None
    floor: float | None
    n: int | None


@dataclass(frozen=True, slots=True)
class Whole:
    """CACC and ASR on all test texts, with the trigger of the request, as far as they are known: of the suspect, and at
    the end of the purified model. What is measured while a run trains is a sample of these texts, so these overrule it
    wherever both are of the same model."""

    suspect: tuple[Rate | None, Rate | None] = (None, None)
    purified: tuple[Rate | None, Rate | None] = (None, None)
    floor: Rate | None = None

    @classmethod
    def of(cls, suspect: Scores, purified: Scores) -> Whole:
        """What a finished run has found."""
        return cls((suspect.cacc, suspect.asr), (purified.cacc, purified.asr), purified.asr_floor)


@dataclass(frozen=True, slots=True)
class Course:
    """What the events of a run say.

    starts   steps of the run before each stage of the training, in their order
    now      the last step that is done
    end      the last step of the stages that have begun
    before   of each trigger, by its number
    since    the step from which each trigger holds, in their order
    sample   clean texts that the suspect's CACC is of; None where that is all of them
    reset    what was measured once the embeddings were reset, where that was
    """

    starts: dict[str, int]
    now: int
    end: int
    readings: tuple[Reading, ...]
    before: dict[int, Before]
    since: dict[int, int]
    suspect_cacc: float | None
    sample: int | None
    reset: Reading | None = None


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


def read_course(events: Sequence[Event], whole: Whole = Whole()) -> Course:
    """The measurements among the events, each with what it is to be compared with; `whole` overrules what they say of
    the suspect with trigger 0."""
    steps = _steps(events)
    starts = offsets(steps)
    readings, before, since = list[Reading](), dict[int, Before](), {0: 0}
    trigger, suspect_cacc, sample, reset = 0, None, None, None
    for event in events:
        m = event.metrics
        trigger = int(m.get("measure", trigger))
        suspect_cacc = m.get("suspect_cacc", suspect_cacc)
        sample = _count(m, "cacc_n") or sample
        if "suspect_asr" in m:
            before[trigger] = Before(m["suspect_asr"], m.get("asr_floor"), _count(m))
        if event.stage == RESET:
            reset = _reading(0, event, trigger)
        if event.stage not in starts or not m.keys() & {"cacc", "asr"}:
            continue
        x = starts[event.stage] + event.step
        if trigger not in since:  # it holds for the whole stage where none was measured in it before
            fresh = not readings or readings[-1].stage != event.stage
            since[trigger] = starts[event.stage] if fresh else x
        readings.append(_reading(x, event, trigger))
    cacc, asr = whole.suspect
    if asr or whole.floor:
        said = before.get(0, Before(None, None, None))
        before[0] = Before(
            asr.share if asr else said.asr, whole.floor.share if whole.floor else said.floor, asr.n if asr else said.n
        )
    suspect_cacc, sample = (cacc.share, None) if cacc else (suspect_cacc, sample)
    last = steps[-1] if steps else None
    now, end = (starts[last.stage] + last.step, starts[last.stage] + last.total) if last else (0, 0)
    return Course(starts, now, end, tuple(readings), before, since, suspect_cacc, sample, reset)


def _reading(x: int, event: Event, trigger: int) -> Reading:
    m = event.metrics
    return Reading(x, event.stage, trigger, m.get("cacc"), m.get("asr"), _count(m), _count(m, "cacc_n"))


def _steps(events: Sequence[Event]) -> list[Event]:
    """The events of the training; the scan of the vocabulary has no curve."""
    return [
        event for event in events if event.metrics.keys() - {"threads"} and event.stage not in (BEFORE, RESET, NAMED)
    ]


def _count(metrics: Mapping[str, float], name: str = "asr_n") -> int | None:
    return int(metrics[name]) if metrics.get(name) else None


def _rate(share: float, n: int | None) -> Rate | None:
    """The rate with its interval, where it is known of how many texts it is a share."""
    from mbtsad_core.rates import wilson

    return wilson(round(share * n), n) if n else None


def curves_text(events: Sequence[Event], whole: Whole = Whole()) -> str:
    """How the run stands, in one sentence: at its end what was found on all texts; until then what was measured last,
    of the trigger that is measured now, on a sample of them; against the suspect."""
    course = read_course(events, whole)
    suspect = course.before.get(0, Before(None, None, None))
    cacc, asr = whole.purified
    if cacc:
        return _change(suspect.asr, asr.share if asr else None, asr.n if asr else None, f"; CACC {percent(cacc.share)}")
    if not course.readings:
        if course.suspect_cacc is None:
            return "Nothing has been measured yet."
        cacc_said = f"CACC {percent(course.suspect_cacc)}" + (
            f", on {sample_of(course.sample)}" if course.sample else ""
        )
        if suspect.asr is None:
            return f"You gave no trigger, so there is no curve of ASR; before the training {cacc_said}."
        return f"Before the training ASR stands at {percent(suspect.asr)}{_hits(suspect.asr, suspect.n)}; {cacc_said}."
    last = course.readings[-1]
    cacc_said = ("" if last.cacc is None else f"; CACC {percent(last.cacc)}") + (
        f", on {sample_of(last.n)}" if last.n else ""
    )
    before = course.before.get(last.trigger, Before(None, None, None))
    return _change(before.asr, last.asr, last.asr_n, cacc_said, typed=last.trigger > 0)


def _change(before: float | None, now: float | None, n: int | None, rest: str, *, typed: bool = False) -> str:
    """What became of ASR, and the rest of the sentence."""
    if now is None:
        why = (
            "The trigger that you typed cannot be measured"
            if typed
            else "You gave no trigger, so there is no curve of ASR"
        )
        return f"{why}{rest}."
    said = f"{percent(now)}{_hits(now, n)}"
    if before is None:
        return f"ASR stands at {said}{rest}."
    if percent(before) == percent(now):
        return f"ASR stands at {said}, as before the training{rest}."
    return f"ASR {'fell' if now < before else 'rose'} from {percent(before)} to {said}{rest}."


def _hits(share: float, n: int | None) -> str:
    return f" ({round(share * n)} of {n})" if n else ""


def _title(course: Course, whole: Whole) -> tuple[str, str]:
    """The figures that matter, and what they are of: at the end the purified model's; until then what was measured
    last, or the suspect's."""
    cacc, asr = whole.purified
    if cacc:
        return ", ".join([*([f"ASR {rate(asr)}"] if asr else []), f"CACC {percent(cacc.share)}"]), ""
    if course.readings:
        last = course.readings[-1]
        known = None if last.asr is None else _rate(last.asr, last.asr_n)
        figures = [] if last.asr is None else [f"ASR {rate(known) if known else percent(last.asr)}"]
        figures += [] if last.cacc is None else [f"CACC {percent(last.cacc)}"]
        return ", ".join(figures) or NOTHING, sample_of(last.n) if last.n else ""
    said = course.before.get(0, Before(None, None, None))
    figures = [] if said.asr is None else [f"ASR {percent(said.asr)}{_hits(said.asr, said.n)}"]
    figures += [] if course.suspect_cacc is None else [f"CACC {percent(course.suspect_cacc)}"]
    return (f"Suspect: {', '.join(figures)}" if figures else NOTHING), sample_of(course.sample) if course.sample else ""


def training_curves(
    events: Sequence[Event],
    *,
    whole: Whole = Whole(),
    measures: Mapping[int, str] | None = None,
    dark: bool = False,
    live: bool = False,
) -> go.Figure:
    """Three aligned plots over the step: ASR with its Wilson 95 % interval (%), CACC (%), losses; a rule where
    distillation begins.

    whole     what is known on all texts: the suspect's level and the floor, which is dashed, and at the end the title;
              else what the events say
    measures  names of the triggers that were typed in between, by the number that events have under "measure". Where
              one comes in, the ASR line breaks, and its own baseline and floor hold from there on
    live      the axis goes on to the end of the stage that runs
    Losses are means over the last WINDOW steps, of long runs about POINTS of them. Without events the axes are empty.
    """
    from plotly.subplots import make_subplots

    course = read_course(events, whole)
    right = max(course.end if live else course.now, 1)
    grey = "#9ca3af" if dark else GREY
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.055, row_heights=[0.42, 0.26, 0.32])
    themed(figure, dark)
    for row in (1, 2, 3):  # plotly leaves out axes without a trace
        figure.add_scatter(x=[None], y=[None], name="", showlegend=False, hoverinfo="skip", row=row, col=1)
    _draw_asr(figure, course, measures or {}, right, grey)
    _draw_cacc(figure, course, right)
    _draw_losses(figure, _steps(events), course.starts, grey)
    _draw_rules(figure, course, measures or {}, right, grey)
    if course.readings and not any(r.asr is not None for r in course.readings) and not course.before:
        figure.add_annotation(
            text="no trigger was given: ASR not measured",
            x=0.5,
            y=50,
            xref="x domain",
            yref="y",
            showarrow=False,
            font={"color": grey},
        )
    _draw_axes(figure, course, right)
    if not _steps(events):
        figure.update_yaxes(range=[0, 1], row=3, col=1)
        figure.update_xaxes(showticklabels=False)
    _lay_out(figure, *_title(course, whole), names=min(len(course.since) - 1, 2) * ROW)
    return figure


def _draw_axes(figure: go.Figure, course: Course, right: int) -> None:
    shares = {"tickvals": [0, 25, 50, 75, 100], "range": [-2, 102], "fixedrange": True}
    figure.update_yaxes(title_text="ASR, %", row=1, col=1, **shares)
    figure.update_yaxes(title_text="CACC, %", range=_tight(course), nticks=5, fixedrange=True, row=2, col=1)
    figure.update_yaxes(title_text="loss", rangemode="tozero", nticks=5, fixedrange=True, row=3, col=1)
    figure.update_yaxes(title_standoff=6, zeroline=False)
    figure.update_xaxes(range=[-0.01 * right, 1.01 * right], zeroline=False, nticks=8)
    figure.update_xaxes(title_text="optimizer step", title_standoff=6, row=3, col=1)


def _lay_out(figure: go.Figure, title: str, about: str, *, names: int) -> None:
    """Title above, legend below; `names` is the height of the triggers' names above the plots, in pixels."""
    figure.update_layout(
        title={
            "text": title,
            "subtitle": {"text": about, "font": {"size": 12}},
            "font": {"size": 14},
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "pad": {"t": 10, "l": 8},
        },
        height=614 + names,
        margin={"l": 52, "r": 14, "t": 72 + names, "b": 20},
        font={"size": 12},
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0,
            "xanchor": "left",
            "font": {"size": 12},
            "tracegroupgap": 0,
        },
        uirevision="run",  # a figure that is drawn anew keeps the reader's zoom
    )


def _draw_asr(figure: go.Figure, course: Course, measures: Mapping[int, str], right: int, grey: str) -> None:
    """A line a stage and trigger with its interval; the suspect's ASR and the floor as levels, each where its trigger
    holds."""
    _draw_levels(figure, course, right, grey)
    named = set[str]()
    for stage, stage_start in course.starts.items():
        label, color = _stage(stage)
        in_stage = [r for r in course.readings if r.stage == stage]
        numbers = list(dict.fromkeys(r.trigger for r in in_stage)) or [next(reversed(course.since))]
        for number in numbers:
            points = [(r.x, r.asr, r.asr_n) for r in in_stage if r.trigger == number and r.asr is not None]
            said = course.before.get(number)
            if number == numbers[0] and said and said.asr is not None:  # both stages start from the suspect
                points[:0] = _beginning(course, number, stage_start, said)
            if not points:
                continue
            rates = [_rate(share, n) for _, share, n in points]
            _draw_band(figure, stage, [(x, r) for (x, _, _), r in zip(points, rates, strict=True) if r])
            about = f"{label}, trigger {plain(_name(measures, number), LONGEST_NAME)}" if number else label
            figure.add_scatter(
                x=[x for x, _, _ in points],
                y=[100 * share for _, share, _ in points],
                text=[rate(r) if r else percent(share) for (_, share, _), r in zip(points, rates, strict=True)],
                hovertemplate=f"step %{{x}}<br>ASR %{{text}}<extra>{about}</extra>",
                name=label,
                showlegend=label not in named,
                **_line(stage, color, len(points)),
                row=1,
                col=1,
            )
            named.add(label)


def _beginning(course: Course, number: int, start: int, said: Before) -> list[tuple[int, float, int | None]]:
    """Where the ASR of a stage begins: at the suspect's, and from there at once at what the embedding reset left."""
    reset = course.reset
    fallen = [(start, reset.asr, reset.asr_n)] if reset and reset.trigger == number and reset.asr is not None else []
    return [(start, said.asr or 0.0, said.n), *fallen]


def _draw_levels(figure: go.Figure, course: Course, right: int, grey: str) -> None:
    """What the suspect does with each trigger and without it, where that trigger holds."""
    ends = [*list(course.since.values())[1:], right]
    for (number, start), end in zip(course.since.items(), ends, strict=True):
        if (said := course.before.get(number)) and (end > start or end == right):
            _level(figure, 1, "suspect", said.asr, start, end, SUSPECT, "solid")
            _level(figure, 1, "floor", said.floor, start, end, grey, "dash")
            # There ASR begins at the suspect's, most often far above
            clear = start == 0 or start in course.starts.values()
            if said.floor is not None and clear and end - start > 0.3 * right and (said.asr or 1.0) - said.floor > 0.2:
                below = said.floor > 0.1  # where ASR comes last, if at all
                figure.add_annotation(
                    text=f" floor {percent(said.floor)}",
                    x=start,
                    y=100 * said.floor,
                    xref="x",
                    yref="y",
                    xanchor="left",
                    yanchor="top" if below else "bottom",
                    showarrow=False,
                    font={"size": 11, "color": grey},
                )


def _draw_band(figure: go.Figure, stage: str, points: Sequence[tuple[int, Rate]]) -> None:
    """The 95 % interval along a line, where two points at least have one."""
    if len(points) < 2:
        return
    label, color = _stage(stage)
    figure.add_scatter(
        x=[x for x, _ in points] + [x for x, _ in reversed(points)],
        y=[100 * r.high for _, r in points] + [100 * r.low for _, r in reversed(points)],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=_faint(color),
        name=f"{label}, 95 % interval",
        legendgroup=stage,
        showlegend=False,
        hoverinfo="skip",
        row=1,
        col=1,
    )


def _draw_cacc(figure: go.Figure, course: Course, right: int) -> None:
    shown = {trace.name for trace in figure.data}
    _level(figure, 2, "suspect", course.suspect_cacc, 0, right, SUSPECT, "solid")
    for stage, start in course.starts.items():
        label, color = _stage(stage)
        points = [(r.x, r.cacc) for r in course.readings if r.stage == stage and r.cacc is not None]
        if course.suspect_cacc is not None:
            points.insert(0, (start, course.suspect_cacc))
        if points:
            figure.add_scatter(
                x=[x for x, _ in points],
                y=[100 * share for _, share in points],
                hovertemplate=f"step %{{x}}<br>CACC %{{y:.1f}} %<extra>{label}</extra>",
                name=label,
                showlegend=label not in shown,
                **_line(stage, color, len(points)),
                row=2,
                col=1,
            )


def _draw_losses(figure: go.Figure, steps: Sequence[Event], starts: Mapping[str, int], grey: str) -> None:
    for key, (label, color) in LOSSES.items():
        of_stage = {stage: [e for e in steps if e.stage == stage and key in e.metrics] for stage in starts}
        every = max(1, math.ceil(sum(map(len, of_stage.values())) / POINTS))
        x: list[int | None] = []
        y: list[float | None] = []
        for stage, found in of_stage.items():
            kept = range((len(found) - 1) % every, len(found), every)  # the last among them
            # Each stage starts from the suspect: no line and no mean across the rule
            gap = [None] if x and found else []
            x += [*gap, *(starts[stage] + found[i].step for i in kept)]
            y += [*gap, *(_mean([e.metrics[key] for e in found[max(0, i - WINDOW + 1) : i + 1]]) for i in kept)]
        if x:
            figure.add_scatter(
                x=x,
                y=y,
                mode="lines",
                name=f"loss: {label}",
                line={"color": grey if color == GREY else color, "width": 1.5},
                hovertemplate=f"step %{{x}}<br>%{{y:.4f}}<extra>{label} loss</extra>",
                row=3,
                col=1,
            )


def _draw_rules(figure: go.Figure, course: Course, measures: Mapping[int, str], right: int, grey: str) -> None:
    """A solid rule through all plots where a stage begins, a dotted one through ASR where another trigger comes in;
    names above."""
    stages = list(course.starts.items())
    for (earlier, _), (stage, x) in itertools.pairwise(stages):
        figure.add_vline(x=x, line={"color": grey, "width": 1})
        for side, name in (("right", f"{_stage(earlier)[0]} "), ("left", f" {_stage(stage)[0]}")):
            figure.add_annotation(
                text=name,
                x=x,
                y=1,
                xref="x",
                yref="paper",
                xanchor=side,
                yanchor="bottom",
                showarrow=False,
                font={"size": 12},
            )
    taken = [0.0, 0.0]  # up to where names stand in the two rows above, as a share of the width
    for number, x in list(course.since.items())[1:]:
        if x > 0 and x not in course.starts.values():
            figure.add_vline(x=x, line={"color": grey, "width": 1, "dash": "dot"}, row=1, col=1)
        name = _name(measures, number)
        at, width = x / right, LETTER * (min(len(name), LONGEST_NAME) + 2)
        side = "left" if at + width < 1 else "right"
        left = at if side == "left" else at - width
        row = next((i for i, end in enumerate(taken) if left >= end), None)
        if row is not None:  # else there is no room, and the points' own texts have to do
            figure.add_annotation(
                text=f"<i>{plain(name, LONGEST_NAME)}</i>",
                x=x,
                y=1,
                xref="x",
                yref="paper",
                xanchor=side,
                yanchor="bottom",
                yshift=ROW * (row + 1),
                showarrow=False,
                font={"size": 12},
                hovertext=plain(name),
            )
            taken[row] = left + width


def _level(
    figure: go.Figure, row: int, name: str, share: float | None, start: int, end: int, color: str, dash: str
) -> None:
    """A level line with its figure beside it; in the legend once."""
    if share is None:
        return
    figure.add_scatter(
        x=[start, end],
        y=[100 * share] * 2,
        mode="lines",
        line={"color": color, "width": 1, "dash": dash},
        name=name,
        legendgroup=name,
        showlegend=name not in {trace.name for trace in figure.data},
        hovertemplate=f"{name} {percent(share)}<extra></extra>",
        row=row,
        col=1,
    )


def _tight(course: Course) -> list[float]:
    """The CACC axis, %: at least ten points high, in fives, with some room about what is drawn."""
    shares = [100 * r.cacc for r in course.readings if r.cacc is not None]
    shares += [] if course.suspect_cacc is None else [100 * course.suspect_cacc]
    if not shares:
        return [0, 100]
    low, high = 5 * math.floor((min(shares) - 1) / 5), 5 * math.ceil((max(shares) + 1) / 5)
    low, high = max(0, low), min(100, high)
    if high - low < 10:
        low, high = max(0, low - 5), min(100, high + 5)
    return [low - 0.02 * (high - low), high + 0.02 * (high - low)]


def _stage(stage: str) -> tuple[str, str]:
    """Its name and its color."""
    return STAGES.get(stage, (plain(stage), GREY))


def _name(measures: Mapping[int, str], number: int) -> str:
    return measures.get(number, f"trigger {number}")


def _line(stage: str, color: str, points: int) -> dict[str, Any]:
    return {
        "mode": "lines+markers" if points <= 60 else "lines",
        "legendgroup": stage,
        "line": {"color": color, "width": 2},
        "marker": {"size": 5},
    }


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
