"""What the stages took off the ASR, and what the scan found, as they are shown."""

from __future__ import annotations

import json

import pytest

from mbtsad_core.rates import wilson
from mbtsad_core.types import Event
from mbtsad_core.views.curves import curves_text, training_curves
from mbtsad_core.views.stages import found_by_scan, found_html, left_by_stages, sequences_by_scan, stages_html, ways_of

BEFORE = Event(
    "measure", 1, 1, {"suspect_cacc": 0.8, "cacc_n": 100, "suspect_asr": 1.0, "asr_n": 200, "asr_floor": 0.1}
)
FOUND = {"found/cf": 8.7, "found/##ing": 3.0, "found/dull": 0.2}


def measured(stage: str, step: int, asr: float, **more: float) -> Event:
    return Event(stage, step, 20, {"loss": 1.0, "cacc": 0.8, "cacc_n": 100, "asr": asr, "asr_n": 200, **more})


RUN = [
    BEFORE,
    Event("scan", 1, 1),
    Event("reset", 1, 1, {"cacc": 0.8, "cacc_n": 100, "asr": 0.3, "asr_n": 200, **FOUND}),
    measured("retrain", 10, 0.25),
    measured("retrain", 20, 0.2),
    measured("distil", 10, 0.15),
    measured("distil", 20, 0.12),
]


def test_each_stage_is_compared_with_what_it_began_with() -> None:
    left, floor = left_by_stages(RUN)
    assert [(one.asr.hits, one.asr.n) for one in left] == [(200, 200), (60, 200), (40, 200), (24, 200)]
    assert [one.off and round(one.off, 6) for one in left] == [None, 70.0, 10.0, 18.0]  # both from what the reset left
    assert floor == wilson(20, 200)


def test_a_run_without_a_scan_or_without_a_trigger() -> None:
    left, _ = left_by_stages([e for e in RUN if e.stage != "reset"])
    assert [one.off and round(one.off, 6) for one in left] == [None, 80.0, 88.0]
    assert left_by_stages([Event("measure", 1, 1, {"suspect_cacc": 0.8, "cacc_n": 100})]) == ([], None)
    assert stages_html(RUN[:2]) == ""


def test_what_was_measured_of_a_typed_trigger_is_no_part_of_it() -> None:
    left, _ = left_by_stages([*RUN[:-1], measured("distil", 20, 0.9, measure=1)])
    assert left[-1].asr.hits == 30  # the last reading of the trigger of the request


def test_the_bars_say_what_was_left_and_what_was_taken_off() -> None:
    said = stages_html(RUN)
    minus = chr(0x2212)
    for words in (
        "(60 of 200)",
        f"{minus}70.0",
        f"{minus}18.0",
        "the suspect's floor, 10.0 %",
        "a sample of 200 triggered texts",
    ):
        assert words in said


def test_the_fall_at_the_reset_is_drawn_where_training_begins() -> None:
    (line,) = [t for t in training_curves(RUN).data if t.name == "retraining" and t.yaxis == "y"]
    assert list(line.x) == [0, 0, 10, 20]
    assert list(line.y) == pytest.approx([100.0, 30.0, 25.0, 20.0])
    assert all(trace.x[0] in (None, 0, 1, 10, 20, 21, 30) for trace in training_curves(RUN).data if len(trace.x or ()))


def test_the_found_tokens_are_ranked_and_typed_as_words() -> None:
    ranked = found_by_scan(FOUND)
    assert ranked == [("cf", 8.7), ("##ing", 3.0), ("dull", 0.2)]
    assert ways_of(ranked) == ("cf",)
    assert ways_of(ranked, ["told the", "##ld so"]) == ("told the", "cf")
    assert found_by_scan({"cacc": 0.8}) is None
    said = found_html(ranked)
    assert "“cf”, “##ing”" in said
    assert "“dull”" not in said


PHRASE = ["told the / ##ld", "start", "not / good", "good", True]
NAMED = Event("named", 1, 1, {json.dumps(PHRASE): 0.97})


def test_found_sequences_are_read_from_the_events_once_their_scan_has_ended() -> None:
    sought = [*RUN[:3], Event("sequences", 9, 9), Event("judging", 1, 1)]
    assert sequences_by_scan(RUN) is None
    assert sequences_by_scan(sought) is None  # what it found may come next
    assert sequences_by_scan([*sought, *RUN[3:]]) == []
    named = dict(zip(("tokens", "place", "label", "target", "counts"), PHRASE, strict=True)) | {"before": 0.97}
    assert sequences_by_scan([*sought, NAMED, *RUN[3:]]) == [named]
    earlier = Event("named", 1, 1, {json.dumps(PHRASE[:-1]): 0.97})
    assert sequences_by_scan([*sought, earlier, *RUN[3:]]) == [named]
    assert curves_text([*RUN[:3], NAMED]) == curves_text(RUN[:3])


def test_found_sequences_are_shown_with_place_classes_and_what_became_of_them() -> None:
    (named,) = sequences_by_scan([NAMED]) or ()
    said = found_html([("dull", 0.2)], None, [named])
    for words in (
        "No token of the vocabulary",
        "See below",
        "told the / ##ld",
        "at the start, not / good to good",
        "97 %",
    ):
        assert words in said
    assert "purified" not in said
    assert "purified: 4 %" in found_html(None, None, [named | {"after": 0.04}])
    assert "No token" not in found_html(None, None, [named])
    assert "No sequence of ordinary tokens counts" in found_html([("cf", 8.7)], None, [])
    assert "sequence" not in found_html([("cf", 8.7)], None, None)
    assert "<img" not in found_html([], None, [named | {"tokens": "<img src=x>", "label": "<img src=y>"}])


def test_suspicious_sequences_stand_apart_from_what_counts_as_a_trigger() -> None:
    (named,) = sequences_by_scan([NAMED]) or ()
    weak = named | {"tokens": "side another", "counts": False}
    said = found_html([("cf", 8.7)], None, [weak])
    assert "too weak to count as a trigger" in said
    assert "No sequence of ordinary tokens counts as a trigger" in said
    both = found_html([("cf", 8.7)], None, [named, weak])
    assert (
        both.index("counts as a trigger") < both.index("told the") < both.index("too weak") < both.index("side another")
    )
    assert "No sequence" not in both


def test_nothing_found_is_said_with_what_it_means_and_nothing_of_a_model_is_markup() -> None:
    assert "No token of the vocabulary turns the suspect" in found_html([("dull", 0.2)])
    assert "<img" not in found_html([("<img src=x>", 2.0)])
