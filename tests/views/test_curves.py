"""The curves of a run: which points are drawn, and where."""

from __future__ import annotations

from typing import Any

import pytest

from mbtsad_core.types import Event
from mbtsad_core.views.curves import offsets, training_curves

SUSPECT = {"asr": 0.95, "cacc": 0.85}


def run() -> list[Event]:
    """Twelve steps of retraining and twenty of distillation; figures at every fourth step, losses at all."""
    events = [Event("retrain", i, 12, {"loss": 1.0, "classification": 1.0} | measured(i, 0.5)) for i in range(1, 13)]
    losses = {"loss": 6.0, "classification": 3.0, "attention": 2.0, "hidden": 1.0}
    return events + [Event("distil", i, 20, losses | measured(i, 0.25)) for i in range(1, 21)]


def measured(step: int, asr: float) -> dict[str, float]:
    return {"cacc": 0.8, "asr": asr} if step % 4 == 0 else {}


def panel(figure: Any, axis: str) -> dict[str, Any]:
    """The traces of a panel, by name; axes y, y2 and y3 are ASR, CACC and losses."""
    return {trace.name: trace for trace in figure.data if trace.yaxis == axis}


@pytest.fixture(scope="module")
def figure() -> Any:
    return training_curves(run(), suspect=SUSPECT, floor=0.125)


def test_a_stage_begins_where_the_one_before_it_ends() -> None:
    assert offsets(run()) == {"retrain": 0, "distil": 12}


def test_a_run_that_has_not_begun_has_no_stages() -> None:
    assert offsets([]) == {}


def test_a_stage_that_is_not_over_still_takes_all_its_steps() -> None:
    assert offsets([Event("a", 1, 10), Event("b", 1, 5), Event("c", 1, 2)]) == {"a": 0, "b": 10, "c": 15}


def test_asr_has_a_point_for_each_measurement_and_one_for_the_suspect(figure: Any) -> None:
    asr = panel(figure, "y")
    assert list(asr["token-split retraining"].x) == [0, 4, 8, 12]
    assert list(asr["token-split retraining"].y) == [95.0, 50.0, 50.0, 50.0]


def test_the_distillation_starts_from_the_suspect_again_behind_the_retraining(figure: Any) -> None:
    asr = panel(figure, "y")
    assert list(asr["attention distillation"].x) == [12, 16, 20, 24, 28, 32]
    assert list(asr["attention distillation"].y) == [95.0, 25.0, 25.0, 25.0, 25.0, 25.0]


def test_cacc_is_drawn_in_a_panel_of_its_own_in_percent(figure: Any) -> None:
    assert list(panel(figure, "y2")["token-split retraining"].y) == [85.0, 80.0, 80.0, 80.0]


def test_losses_have_a_point_for_each_step(figure: Any) -> None:
    losses = panel(figure, "y3")
    assert list(losses["loss: attention"].x) == list(range(13, 33))
    assert list(losses["loss: hidden states"].y) == [1.0] * 20


def test_the_mean_of_a_loss_does_not_reach_across_the_stages(figure: Any) -> None:
    classification = panel(figure, "y3")["loss: classification"]
    assert list(classification.x) == [*range(1, 13), None, *range(13, 33)]
    assert list(classification.y) == [1.0] * 12 + [None] + [3.0] * 20


def test_losses_are_means_over_the_last_nine_steps() -> None:
    events = [Event("retrain", i, 12, {"loss": 0.0, "classification": float(i)}) for i in range(1, 13)]
    drawn = panel(training_curves(events), "y3")["loss: classification"]
    assert list(drawn.y) == [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0]


def lines(figure: Any, dash: str) -> list[Any]:
    return [shape for shape in figure.layout.shapes if shape.line.dash == dash]


def test_a_rule_stands_where_one_stage_ends_and_the_next_begins(figure: Any) -> None:
    rules = lines(figure, "dot")
    assert {(rule.x0, rule.x1) for rule in rules} == {(12, 12)}
    assert {rule.xref for rule in rules} == {"x", "x2", "x3"}


def test_the_floor_is_a_dashed_line_in_the_asr_panel(figure: Any) -> None:
    (floor,) = lines(figure, "dash")
    assert (floor.y0, floor.y1, floor.yref) == (12.5, 12.5, "y")
    assert "floor 12.5 %" in [a.text for a in figure.layout.annotations]


def test_without_a_floor_there_is_no_floor_line() -> None:
    assert lines(training_curves(run(), suspect=SUSPECT), "dash") == []


def test_one_stage_has_no_rule() -> None:
    assert lines(training_curves(run()[:5], suspect=SUSPECT), "dot") == []


def test_a_run_that_has_not_begun_is_drawn_without_points() -> None:
    assert [trace for trace in training_curves([]).data if len(trace.x or ())] == []
