"""The course of ASR and CACC as a drawing that needs no script: for the report, on paper too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from mbtsad_core.types import Event
from mbtsad_core.views.curves import LOSSES, STAGES, SUSPECT, WINDOW, Before, Course, Reading, Whole, read_course
from mbtsad_core.views.document import render
from mbtsad_core.views.stages import begin_words
from mbtsad_core.views.words import percent, sample_of

WIDTH, HEIGHT, LEFT, TOP, GAP = 720, 150, 44, 20, 34  # of a plot, and around it, in pixels
LETTER, SWATCH = 6.2, 22  # width of a letter of a legend, and of the mark before its words


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    color: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


def course_svg(events: Sequence[Event], whole: Whole) -> str:
    """ASR and CACC in %, and losses, over the step of the run: a line a stage, the suspect's level, the floor; "" where
    nothing was measured."""
    course, sample = read_course(events, whole), read_course(events)
    if not course.readings:
        return ""
    before, sampled = (one.before.get(0, Before(None, None, None)) for one in (course, sample))
    plots = [
        ("ASR, %", _lines(course, "asr", sampled.asr, before.asr, before.floor)),
        ("CACC, %", _lines(course, "cacc", sample.suspect_cacc, course.suspect_cacc)),
    ]
    shown = [
        (name, lines, 1.0) for name, lines in plots if any(line.name not in ("suspect", "floor") for line in lines)
    ]
    if losses := _losses(events, course.starts):
        shown.append(("losses", losses, _round(max(share for line in losses for _, share in line.points))))
    size: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "top": TOP, "gap": GAP, "swatch": SWATCH}
    named = [(*plot, _legend(plot[1])) for plot in shown]
    return render("course.svg", plots=named, starts=course.starts, now=max(course.now, 1), **size)


def course_words(events: Sequence[Event]) -> str:
    """Where the lines of the drawing begin, and what they are of."""
    course = read_course(events)
    of = sample_of(course.sample) if course.sample else "a sample of the texts"
    floor = course.before.get(0, Before(None, None, None)).floor
    levels = "is" if floor is None else "and the floor are"
    own = f", on which the suspect's own CACC is {percent(course.suspect_cacc)}" if course.sample else ""
    return (
        f"{begin_words(events)} From their first value on, the lines of CACC and ASR are of {of}{own}. The suspect's "
        f"level {levels} of all texts, as in the table."
    )


def _round(most: float) -> float:
    """The end of an axis whose quarters are read easily: 1, 2, 4 or 8 times a power of ten, at least `most`."""
    power = 10.0 ** math.floor(math.log10(most)) if most > 0 else 1.0
    return next(power * step for step in (1, 2, 4, 8, 10) if power * step >= most)


def _legend(lines: Sequence[Line]) -> list[tuple[Line, float]]:
    """Each line once, with where its name begins, from the right edge of the plot."""
    once = list({line.name: line for line in lines}.values())
    widths = [SWATCH + LETTER * len(line.name) + 12 for line in once]
    return [(line, sum(widths[i:])) for i, line in enumerate(once)]


def _lines(
    course: Course, name: str, begin: float | None, suspect: float | None, floor: float | None = None
) -> list[Line]:
    """`begin` is what the suspect has on the sample that a line is of; `suspect` and `floor` are levels."""
    levels = [("suspect", SUSPECT, suspect, False), ("floor", "#6B7280", floor, True)]
    lines = [
        Line(label, color, ((0, share), (course.now, share)), dashed)
        for label, color, share, dashed in levels
        if share is not None
    ]
    for stage, start in course.starts.items():
        label, color = STAGES.get(stage, (stage, "#6B7280"))
        begun = [begin, *([getattr(course.reset, name)] if course.reset else [])]
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
