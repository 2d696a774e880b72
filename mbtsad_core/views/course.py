"""The course of ASR and CACC as a drawing that needs no script: for the report, on paper too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from mbtsad_core.types import Event
from mbtsad_core.views.curves import LOSSES, STAGES, SUSPECT, WINDOW, Before, Course, Reading, Whole, read_course
from mbtsad_core.views.document import render

WIDTH, HEIGHT, LEFT, TOP, GAP = 720, 150, 44, 20, 34  # of a plot, and around it, in pixels


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    color: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


def course_svg(events: Sequence[Event], whole: Whole) -> str:
    """ASR and CACC in %, and losses, over the step of the run: a line a stage, the suspect's level, the floor; "" where
    nothing was measured."""
    course = read_course(events, whole)
    if not course.readings:
        return ""
    before = course.before.get(0, Before(None, None, None))
    plots = [
        ("ASR, %", _lines(course, "asr", before.asr, before.floor)),
        ("CACC, %", _lines(course, "cacc", course.suspect_cacc)),
    ]
    shown = [
        (name, lines, 1.0) for name, lines in plots if any(line.name not in ("suspect", "floor") for line in lines)
    ]
    if losses := _losses(events, course.starts):
        shown.append(("losses", losses, max(share for line in losses for _, share in line.points)))
    size: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "top": TOP, "gap": GAP}
    return render("course.svg", plots=shown, starts=course.starts, now=max(course.now, 1), **size)


def _lines(course: Course, name: str, suspect: float | None, floor: float | None = None) -> list[Line]:
    levels = [("suspect", SUSPECT, suspect, False), ("floor", "#6B7280", floor, True)]
    lines = [
        Line(label, color, ((0, share), (course.now, share)), dashed)
        for label, color, share, dashed in levels
        if share is not None
    ]
    for stage, start in course.starts.items():
        label, color = STAGES.get(stage, (stage, "#6B7280"))
        begun = [suspect, *([getattr(course.reset, name)] if course.reset else [])]
        points = [(start, share) for share in begun if share is not None]
        points += [(r.x, share) for r in _of(course, stage) if (share := getattr(r, name)) is not None]
        if any(x > start for x, _ in points):
            lines.append(Line(label, color, tuple(points)))
    return lines


def _losses(events: Sequence[Event], starts: Mapping[str, int]) -> list[Line]:
    """Each loss of each stage, as means over the last WINDOW steps."""
    lines = []
    for stage, start in starts.items():
        for key, (name, color) in LOSSES.items():
            found = [(e.step, e.metrics[key]) for e in events if e.stage == stage and key in e.metrics]
            values = [value for _, value in found]
            means = (mean(values[max(0, i - WINDOW + 1) : i + 1]) for i in range(len(values)))
            if found:
                points = tuple((start + step, value) for (step, _), value in zip(found, means, strict=True))
                lines.append(Line(f"loss: {name}", color, points))
    return lines


def _of(course: Course, stage: str) -> list[Reading]:
    return [reading for reading in course.readings if reading.stage == stage and reading.trigger == 0]
