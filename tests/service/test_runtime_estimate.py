"""The time that a purification will take: in proportion to what is trained on, and to the vocabulary that is
searched."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from conftest import tiny_bert, tiny_texts

from mbtsad_core.config import DistilConfig, RetrainConfig, SplitConfig, to_dict
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.service.runtime_estimate import (
    DISTIL_COST,
    FACTOR,
    INVERSION_COST,
    LONGER,
    RETRAIN_COST,
    SHORT,
    TRIED,
    estimate,
    expected,
    forward_passes,
    of_runs,
    over_told,
    seconds_a_text,
    settled,
    steady,
    timings,
)
from mbtsad_core.service.store import Job, State

PAPER = PurifyConfig(
    split=SplitConfig(copies=3, keep_originals=1),
    retrain=RetrainConfig(epochs=2),
    distil=DistilConfig(epochs=5),
    found_tokens=0,
)


def test_texts_are_counted_with_their_copies_and_passes() -> None:
    expected = 70 * (3 + 1) * (2 * RETRAIN_COST + 5 * DISTIL_COST) * 0.01
    assert estimate(70, PAPER, 0.01, tiny_bert()) == pytest.approx(expected)
    assert estimate(140, PAPER, 0.02, tiny_bert()) == pytest.approx(4 * expected)


def test_the_vocabulary_is_searched_and_pairs_of_its_pieces_for_each_class() -> None:
    model = tiny_bert()
    pieces, classes = len(model.tokenizer), len(model.labels)
    searched = estimate(70, dataclasses.replace(PAPER, found_tokens=1), 1.0, model) - estimate(70, PAPER, 1.0, model)
    # by successive halving: all pieces in one text, a 32nd in three, a 256th in sixteen
    single = pieces * (SHORT + LONGER * (3 / 32 + 16 / 256))
    # sixty steps on sixteen texts; in both places of each of four starts 256 pieces in one text and 32 in all four,
    # and three pieces in sixteen texts, alone and in nine pairs
    pairs = LONGER * (60 * 16 * INVERSION_COST + 2 * 4 * (256 + 32 * 4) + 4 * 16 * (2 * 3 + 9))
    assert searched == pytest.approx(classes * (single + pairs))


def test_the_pace_is_seconds_for_each_text() -> None:
    texts = tiny_texts(60)
    assert 0 < seconds_a_text(tiny_bert(), texts) < 1
    assert seconds_a_text(tiny_bert(), []) >= 0


def clock_of(*seconds: float) -> Callable[[], float]:
    """A clock by which the things that are timed take so long, one after the other."""
    ticks = itertools.chain.from_iterable((1000.0 * i, 1000.0 * i + s) for i, s in enumerate(seconds))
    return lambda: next(ticks)


def test_timings_are_taken_several_times_and_the_machines_own_pace_is_told() -> None:
    texts = tiny_texts(60)
    taken = timings(tiny_bert(), texts, clock_of(4.8, 5.0, 4.9, 5.1, 52.0))
    assert taken == pytest.approx([s / TRIED for s in (4.8, 5.0, 4.9, 5.1, 52.0)])
    assert steady(taken) == pytest.approx(5.0 / TRIED)


# Seconds a text of the demo's classifier as they came on two cores: idle; while a page loads; while other programs
# train; after a pause of all.
IDLE = [0.00171, 0.00169, 0.00174, 0.00170, 0.00172]
BUSY = [0.0061, 0.0093, 0.0164, 0.0102, 0.0088]
STUTTER = [0.00172, 0.0171, 0.00170, 0.00931, 0.00173]


def test_one_figure_is_told_however_noisy_the_moment_was() -> None:
    quiet = expected(50_000, IDLE)
    assert quiet.seconds == pytest.approx(85.5)
    assert settled(IDLE)
    for noisy in (STUTTER, BUSY, BUSY + BUSY):
        assert not settled(noisy)
        told = expected(50_000, noisy + IDLE)
        assert settled(noisy + IDLE)
        assert told.seconds == pytest.approx(quiet.seconds, rel=0.01)
    assert settled(BUSY * 5)  # a machine that is never idle is asked MOST times and no more


def test_a_range_is_told_while_timings_alone_are_known_and_a_wider_one_while_they_disagree() -> None:
    quiet, noisy = expected(50_000, IDLE), expected(50_000, BUSY)
    assert not quiet.sure
    assert quiet.low < 67 < 105 < quiet.high
    assert noisy.high / noisy.low >= quiet.high / quiet.low
    stutter = expected(50_000, STUTTER + STUTTER)
    assert stutter.high > quiet.high


def test_what_real_runs_of_the_suspect_took_outweighs_every_timing() -> None:
    """A run of 105 seconds, of which the timings told 457 to 1,088."""
    passes = 60_000
    for timed in ([457 / passes] * 5, [1088 / passes] * 5):
        alone, seen = expected(passes, timed), expected(passes, timed, [105 / passes])
        assert alone.seconds > 450
        assert seen.seconds == pytest.approx(105)
        assert seen.sure
        assert seen.low < 105 < seen.high
    # One of the last five was disturbed
    many = expected(passes, IDLE, [s / passes for s in (105, 400, 98, 103, 101, 9000, 9000)])
    assert many.seconds == pytest.approx(103)
    assert not many.sure


def test_other_suspects_runs_say_how_far_timings_are_off_here_within_bounds() -> None:
    plain = expected(50_000, IDLE)
    assert expected(50_000, IDLE, (), [0.5, 0.6, 0.4]).seconds == pytest.approx(0.5 * plain.seconds)
    assert expected(50_000, IDLE, (), [1e-9]).seconds == pytest.approx(FACTOR[0] * plain.seconds)
    assert expected(50_000, IDLE, (), [1e9]).seconds == pytest.approx(FACTOR[1] * plain.seconds)


def job(
    number: int,
    state: State = State.DONE,
    *,
    seconds: float = 100.0,
    texts: int = 70,
    suspect: str = "demo",
    **columns: Any,
) -> Job:
    request = {"suspect": suspect, "clean": "demo", "config": to_dict(PAPER)} | columns.pop("request", {})
    result = {"seconds": seconds, "settings": {"clean_texts": texts}} if state is State.DONE else None
    values: dict[str, Any] = (
        dict.fromkeys(Job.__dataclass_fields__) | {"step": 0, "paced_step": 0, "stage": ""} | columns
    )
    return Job(**values | {"id": f"id{number}", "number": number, "request": request, "state": state, "result": result})


def test_a_pass_is_learned_from_runs_that_are_done_and_from_one_that_trains() -> None:
    model = tiny_bert()
    passes = forward_passes(70, PAPER, model)
    trains = dict(stage="distil", step=130, total=400, paced_at=50.0, paced_step=30, updated=75.0)
    jobs = [
        job(1, seconds=2 * passes),
        job(2, seconds=4 * passes, texts=140),
        job(3, State.RUNNING, **trains),
        job(4, State.RUNNING, **trains | {"step": 31}),  # too few steps
        job(5, State.RUNNING, **trains | {"stage": "scan"}),
        job(6, State.FAILED),
        job(7, suspect="hub:owner/other"),
        job(8, request={"clean": "other texts"}),
        job(9, request={"method": "nad"}),
        job(10, State.QUEUED),
    ]
    step = 25 / 100 / (PAPER.distil.batch_size * DISTIL_COST)
    assert of_runs(jobs, "demo", "demo", model) == pytest.approx([step, 2.0, 2.0])
    assert over_told(jobs, {"id1": passes, "id7": 50.0, "id3": 1.0}) == pytest.approx([2.0, 2.0])
