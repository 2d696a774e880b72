"""What each stage of a run took off the ASR, as bars; and what its scan found, ranked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mbtsad_core.rates import wilson
from mbtsad_core.types import AT_PREFIX, FOUND_PREFIX, NAMED, RESET, Event, Rate
from mbtsad_core.views.curves import GREY, PURIFIED, SUSPECT, TEACHER, read_course
from mbtsad_core.views.document import TEMPLATES, render
from mbtsad_core.views.scan import WHERE

STAGES_STYLE = (TEMPLATES / "stages.css").read_text("utf-8")
LEAST = 0.5  # nats from which a token stands out
SEQUENCE = ("tokens", "place", "label", "target", "counts")  # what the name of a metric says of it, in that order


@dataclass(frozen=True, slots=True)
class Left:
    """The ASR that a stage left of the trigger of the request, and how the bar of it looks; `off` is what it took off
    that of the model it began with, in points."""

    name: str
    asr: Rate
    off: float | None
    color: str


def left_by_stages(events: Sequence[Event]) -> tuple[list[Left], Rate | None]:
    """What was left of ASR at the end of each stage, all on the same sample; and the floor there. Retraining and
    distillation both begin with the copy whose embeddings were reset."""
    course = read_course(events)
    before = course.before.get(0)
    if before is None or before.asr is None or not before.n:
        return [], None
    ends = {reading.stage: reading for reading in course.readings if reading.trigger == 0}
    found = [Left("suspect", wilson(round(before.asr * before.n), before.n), None, SUSPECT)]
    for reading, name, color in (
        (course.reset, "scan and embedding reset", GREY),
        (ends.get("unlearn"), "unlearning of sequences", GREY),
        (ends.get("retrain"), "token-split retraining: the teacher", TEACHER),
        (ends.get("distil"), "attention distillation: the purified model", PURIFIED),
    ):
        if reading and reading.trigger == 0 and reading.asr is not None and reading.asr_n:
            start = (
                found[-1] if color == GREY else next(left for left in reversed(found) if left.color in (SUSPECT, GREY))
            )
            asr = wilson(round(reading.asr * reading.asr_n), reading.asr_n)
            found.append(Left(name, asr, 100 * (start.asr.share - asr.share), color))
    floor = None if before.floor is None else wilson(round(before.floor * before.n), before.n)
    return found, floor


def begin_words(events: Sequence[Event]) -> str:
    """What retraining and distillation begin with, in a sentence."""
    stages = {event.stage for event in events}
    done = ["the embeddings of what the scan found are reset"] if RESET in stages else []
    done += ["the sequences that it found are unlearned"] if "unlearn" in stages else []
    once = f", once {' and '.join(done)}" if done else ""
    return f"Retraining and distillation both begin with the suspect{once}."


def stages_html(events: Sequence[Event]) -> str:
    """A bar a stage; "" where ASR was not measured after one. Needs STYLE and STAGES_STYLE."""
    left, floor = left_by_stages(events)
    return render("stages.html", left=left, floor=floor, begin=begin_words(events)) if len(left) > 1 else ""


def found_by_scan(metrics: Mapping[str, float]) -> list[tuple[str, float]] | None:
    """The tokens that the metrics of a run say the scan found, with their nats, the worst first; None before its
    end."""
    named = {name: nats for name, nats in metrics.items() if name.startswith(FOUND_PREFIX)}
    found = [(name.removeprefix(FOUND_PREFIX), nats) for name, nats in named.items()]
    return sorted(found, key=lambda one: -one[1]) if found else None


def places_by_scan(metrics: Mapping[str, float]) -> dict[str, str]:
    """Where the tokens stood that the metrics of a run say work at one end of a text alone."""
    return {
        name.removeprefix(prefix): place
        for place, prefix in AT_PREFIX.items()
        for name in metrics
        if name.startswith(prefix)
    }


def ways_of(found: Sequence[tuple[str, float]], sequences: Sequence[str] = ()) -> tuple[str, ...]:
    """Those that stand out, as ways of a trigger that can be typed: whole words only, the worst first; before them the
    sequences of such words that count as a trigger."""
    words = [token.strip("␣") for token, nats in found if nats >= LEAST]
    phrases = [tokens for tokens in sequences if all(word.isalnum() for word in tokens.split())]
    return (*phrases, *(word for word in words if word.isalnum()))


def sequences_by_scan(events: Sequence[Event]) -> list[dict[str, Any]] | None:
    """The sequences that the events of a run say the scan found, the best first, as report.json has them, but for what
    became of them; None where the scan for them was not made, or has not ended."""
    for event in events:
        if event.stage == NAMED:
            return [
                told | {"counts": counts_as_trigger(told), "before": share}
                for one, share in event.metrics.items()
                for told in [dict(zip(SEQUENCE, json.loads(one), strict=False))]
            ]
    stages = [event.stage for event in events]
    return [] if "judging" in stages and stages[-1] != "judging" else None


def counts_as_trigger(sequence: Mapping[str, Any]) -> bool:
    """Whether a sequence, as report.json has it, counts as a trigger, or was suspicious. Runs of before, which do not
    say it, unlearned no others."""
    return bool(sequence.get("counts", True))


def found_html(
    found: Sequence[tuple[str, float]] | None,
    places: Mapping[str, str] | None = None,
    sequences: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """The ranked tokens as bars, and in a sentence what that means, None where they were not sought; `places` as
    `places_by_scan`. Below them the sequences, as `sequences_by_scan`, with what they do in the purified model
    ("after") where that is known. Needs STYLE and STAGES_STYLE."""
    return render(
        "found.html",
        found=found,
        turning=[token for token, nats in found or () if nats >= LEAST],
        most=max([LEAST, *(nats for _, nats in found or ())]),
        least=LEAST,
        places=places or {},
        sequences=sequences,
        counting=[one for one in sequences or () if counts_as_trigger(one)],
        suspicious=[one for one in sequences or () if not counts_as_trigger(one)],
        where=WHERE,
    )
