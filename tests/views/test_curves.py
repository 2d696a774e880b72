"""The curves of a run: which points are drawn, and where."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from mbtsad_core.evaluation import wilson
from mbtsad_core.types import Event
from mbtsad_core.views.curves import Whole, curves_text, offsets, training_curves

SUSPECT = Whole(suspect=(wilson(170, 200), wilson(190, 200)))


def run() -> list[Event]:
    """Twelve steps of retraining and twenty of distillation; figures at every fourth step, losses at all."""
    events = [Event("retrain", i, 12, {"loss": 1.0, "classification": 1.0} | measured(i, 0.5)) for i in range(1, 13)]
    losses = {"loss": 6.0, "classification": 3.0, "attention": 2.0, "hidden": 1.0}
    return events + [Event("distil", i, 20, losses | measured(i, 0.25)) for i in range(1, 21)]


def measured(step: int, asr: float) -> dict[str, float]:
    return {"cacc": 0.8, "asr": asr} if step % 4 == 0 else {}


def panel(figure: Any, axis: str) -> dict[str, Any]:
    """The traces of a panel, by name; axes y, y2 and y3 are ASR, CACC and losses. Of several with one name, the
    first."""
    return {trace.name: trace for trace in reversed(figure.data) if trace.yaxis == axis}


def drawn(figure: Any, name: str, axis: str = "y") -> list[tuple[list[float], list[float]]]:
    """x and y of all traces of that name in a panel."""
    return [(list(trace.x), list(trace.y)) for trace in figure.data if trace.name == name and trace.yaxis == axis]


BASELINE = {"suspect_cacc": 0.85, "cacc_n": 200, "suspect_asr": 0.95, "asr_floor": 0.125, "asr_n": 200}


def reading(step: int, asr: float | None, trigger: int = 0, stage: str = "retrain", **more: float) -> Event:
    """A step of a stage of twelve at which 200 texts were measured, as a worker records it."""
    found = {"loss": 1.0, "classification": 1.0, "cacc": 0.88, "cacc_n": 200, "measure": trigger}
    return Event(stage, step, 12, found | ({"asr": asr, "asr_n": 200} if asr is not None else {}) | more)


def typed() -> list[Event]:
    """A baseline; two measurements of the request's trigger, two of a typed one, and one of that in the
    distillation."""
    before = {"suspect_asr": 0.4, "asr_floor": 0.25}
    return [
        Event("measure", 1, 1, BASELINE),
        reading(2, 0.9),
        reading(4, 0.5),
        reading(6, 0.3, 1, **before),
        reading(8, 0.2, 1),
        reading(12, 0.2, 1),
        reading(4, 0.1, 1, "distil"),
    ]


@pytest.fixture(scope="module")
def figure() -> Any:
    return training_curves(run(), whole=replace(SUSPECT, floor=wilson(25, 200)))


def test_a_stage_begins_where_the_one_before_it_ends() -> None:
    assert offsets(run()) == {"retrain": 0, "distil": 12}


def test_a_run_that_has_not_begun_has_no_stages() -> None:
    assert offsets([]) == {}


def test_a_stage_that_is_not_over_still_takes_all_its_steps() -> None:
    assert offsets([Event("a", 1, 10), Event("b", 1, 5), Event("c", 1, 2)]) == {"a": 0, "b": 10, "c": 15}


def test_a_step_of_the_scan_that_tells_the_threads_has_no_place_in_the_curves() -> None:
    told = Event("scan", 1, 3, {"threads": 1.0})
    assert training_curves([told, *run()]).to_dict() == training_curves(run()).to_dict()


def test_asr_has_a_point_for_each_measurement_and_one_for_the_suspect(figure: Any) -> None:
    asr = panel(figure, "y")
    assert list(asr["retraining"].x) == [0, 4, 8, 12]
    assert list(asr["retraining"].y) == [95.0, 50.0, 50.0, 50.0]


def test_the_distillation_starts_from_the_suspect_again_behind_the_retraining(figure: Any) -> None:
    asr = panel(figure, "y")
    assert list(asr["distillation"].x) == [12, 16, 20, 24, 28, 32]
    assert list(asr["distillation"].y) == [95.0, 25.0, 25.0, 25.0, 25.0, 25.0]


def test_cacc_is_drawn_in_a_panel_of_its_own_in_percent(figure: Any) -> None:
    assert list(panel(figure, "y2")["retraining"].y) == [85.0, 80.0, 80.0, 80.0]


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
    loss = panel(training_curves(events), "y3")["loss: classification"]
    assert list(loss.y) == [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0]


def rules(figure: Any, dash: str | None = None) -> list[Any]:
    return [shape for shape in figure.layout.shapes if shape.line.dash == dash]


def words(figure: Any) -> list[str]:
    return [annotation.text.strip() for annotation in figure.layout.annotations]


def test_a_rule_with_names_stands_where_one_stage_ends_and_the_next_begins(figure: Any) -> None:
    assert {(rule.x0, rule.x1) for rule in rules(figure)} == {(12, 12)}
    assert {rule.xref for rule in rules(figure)} == {"x", "x2", "x3"}
    named = {a.text.strip(): (a.x, a.xanchor) for a in figure.layout.annotations if a.yref == "paper"}
    assert named == {"retraining": (12, "right"), "distillation": (12, "left")}


def test_the_floor_is_a_dashed_line_in_the_asr_panel(figure: Any) -> None:
    assert drawn(figure, "floor") == [([0, 32], [12.5, 12.5])]
    assert panel(figure, "y")["floor"].line.dash == "dash"
    assert "floor 12.5 %" in words(figure)


def test_without_a_floor_there_is_no_floor_line() -> None:
    assert drawn(training_curves(run(), whole=SUSPECT), "floor") == []


def test_one_stage_has_no_rule() -> None:
    assert training_curves(run()[:5], whole=SUSPECT).layout.shapes == ()


# ---------------------------------------------------------------- what the events say themselves


def test_baseline_and_floor_come_from_the_events() -> None:
    figure = training_curves([Event("measure", 1, 1, BASELINE), *run()])
    assert drawn(figure, "suspect") == [([0, 32], [95.0, 95.0])]
    assert drawn(figure, "suspect", "y2") == [([0, 32], [85.0, 85.0])]
    assert drawn(figure, "floor") == [([0, 32], [12.5, 12.5])]
    assert drawn(figure, "retraining") == [([0, 4, 8, 12], [95.0, 50.0, 50.0, 50.0])]


def test_what_is_given_overrules_what_the_events_say() -> None:
    figure = training_curves(
        [Event("measure", 1, 1, BASELINE), *run()],
        whole=Whole((wilson(300, 600), wilson(75, 100)), floor=wilson(25, 100)),
    )
    assert drawn(figure, "suspect") == [([0, 32], [75.0, 75.0])]
    assert drawn(figure, "suspect", "y2") == [([0, 32], [50.0, 50.0])]
    assert drawn(figure, "floor") == [([0, 32], [25.0, 25.0])]


def test_measuring_the_suspect_and_scanning_take_no_room_on_the_axis() -> None:
    events = [Event("measure", 1, 1, BASELINE), *(Event("scan", i, 9) for i in range(1, 10)), *run()]
    assert drawn(training_curves(events), "distillation") == drawn(
        training_curves(run(), whole=SUSPECT), "distillation"
    )


def test_asr_has_its_wilson_interval_as_a_band() -> None:
    figure = training_curves([Event("measure", 1, 1, BASELINE), reading(4, 0.5), reading(8, 0.31)])
    ((x, y),) = drawn(figure, "retraining, 95 % interval")
    counts = [(0, 190), (4, 100), (8, 62)]
    assert x == [0, 4, 8, 8, 4, 0]
    assert y == pytest.approx(
        [100 * wilson(hits, 200).high for _, hits in counts]
        + [100 * wilson(hits, 200).low for _, hits in reversed(counts)]
    )


def test_without_the_number_of_texts_there_is_no_interval(figure: Any) -> None:
    assert [trace for trace in figure.data if "interval" in (trace.name or "")] == []


def test_the_asr_axis_goes_from_0_to_100_whatever_is_measured() -> None:
    for asr in (0.0, 0.4, 1.0):
        axis = training_curves([reading(4, asr)]).layout.yaxis
        assert list(axis.tickvals) == [0, 25, 50, 75, 100]
        assert axis.range[0] < 0 < 100 < axis.range[1]
        assert axis.range[1] - axis.range[0] < 106


@pytest.mark.parametrize("shares", [(0.0, 0.01), (0.5, 0.9), (0.87, 0.88), (0.99, 1.0), (0.3, 0.3)])
def test_the_cacc_axis_is_tight_about_what_is_drawn(shares: tuple[float, float]) -> None:
    figure = training_curves([reading(4, 0.5, cacc=shares[0]), reading(8, 0.5, cacc=shares[1])])
    low, high = figure.layout.yaxis2.range
    assert low <= 100 * shares[0]
    assert 100 * shares[1] <= high
    assert -1 <= low < high <= 101
    assert 9 < high - low < 100 * (shares[1] - shares[0]) + 21


# ---------------------------------------------------------------- triggers that are typed in between


def test_where_a_typed_trigger_comes_in_the_line_breaks() -> None:
    figure = training_curves(typed())
    assert drawn(figure, "retraining") == [([0, 2, 4], [95.0, 90.0, 50.0]), ([6, 8, 12], [30.0, 20.0, 20.0])]
    assert drawn(figure, "distillation") == [([12, 16], [40.0, 10.0])]  # from what the suspect does with this trigger


def test_where_a_typed_trigger_comes_in_its_own_baseline_and_floor_hold() -> None:
    figure = training_curves(typed())
    assert drawn(figure, "suspect") == [([0, 6], [95.0, 95.0]), ([6, 16], [40.0, 40.0])]
    assert drawn(figure, "floor") == [([0, 6], [12.5, 12.5]), ([6, 16], [25.0, 25.0])]


def test_a_typed_trigger_has_a_dotted_rule_with_its_name_in_the_asr_panel() -> None:
    figure = training_curves(typed(), measures={1: "zephyr"})
    assert [(rule.x0, rule.xref) for rule in rules(figure, "dot")] == [(6, "x")]
    assert [(a.x, a.text) for a in figure.layout.annotations if "zephyr" in a.text] == [(6, "<i>zephyr</i>")]
    assert "trigger zephyr" in [t for t in figure.data if t.name == "retraining"][1].hovertemplate


def test_a_typed_trigger_without_a_name_is_numbered() -> None:
    assert "<i>trigger 1</i>" in words(training_curves(typed()))


def test_a_trigger_that_is_measured_from_the_start_of_a_stage_holds_for_all_of_it() -> None:
    events = [
        Event("measure", 1, 1, BASELINE),
        reading(12, 0.5),
        reading(4, 0.1, 1, "distil", suspect_asr=0.4, asr_floor=0.25),
    ]
    figure = training_curves(events)
    assert drawn(figure, "distillation") == [([12, 16], [40.0, 10.0])]
    assert drawn(figure, "floor") == [([0, 12], [12.5, 12.5]), ([12, 16], [25.0, 25.0])]
    assert rules(figure, "dot") == []  # the stage's own rule stands there


def test_a_typed_trigger_that_cannot_be_measured_has_neither_line_nor_floor() -> None:
    figure = training_curves(
        [Event("measure", 1, 1, BASELINE), reading(4, 0.5), reading(8, None, 1), reading(12, None, 1)]
    )
    assert drawn(figure, "retraining") == [([0, 4], [95.0, 50.0])]
    assert drawn(figure, "floor") == [([0, 8], [12.5, 12.5])]
    assert drawn(figure, "retraining", "y2")[0][0] == [0, 4, 8, 12]
    assert figure.layout.title.text == "CACC 88.0 %"


def test_names_of_triggers_never_overlap() -> None:
    names = dict.fromkeys(range(1, 13), "a rather long sentence as a trigger")
    figure = training_curves([reading(n, 0.5, n) for n in range(1, 13)], measures=names)
    rows: dict[float, list[tuple[float, float]]] = {}
    for a in figure.layout.annotations:
        if a.text.startswith("<i>"):
            rows.setdefault(a.yshift, []).append(
                (a.x - 12 * 0.4, a.x) if a.xanchor == "right" else (a.x, a.x + 12 * 0.4)
            )
    assert rows
    for spans in rows.values():
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(sorted(spans)))


def test_a_name_that_a_visitor_typed_becomes_no_markup() -> None:
    evil = '<a href="javascript:alert(1)">x</a>'
    figure = training_curves(typed(), measures={1: evil}).to_json()
    assert "<a href" not in figure.replace("\\u003c", "<")
    assert "&lt;a href=" in figure


# ---------------------------------------------------------------- long runs


@pytest.mark.parametrize("steps", [1, 299, 301, 5000])
def test_a_loss_has_some_hundred_points_evenly_and_the_last(steps: int) -> None:
    events = [Event("retrain", i, steps, {"loss": 0.0, "classification": float(i)}) for i in range(1, steps + 1)]
    x = list(panel(training_curves(events), "y3")["loss: classification"].x)
    assert min(steps, 150) <= len(x) <= 301
    assert x[-1] == steps
    assert len({b - a for a, b in itertools.pairwise(x)}) <= 1


def test_a_thinned_loss_is_still_the_mean_of_all_its_steps() -> None:
    events = [Event("retrain", i, 3000, {"loss": 0.0, "classification": float(i)}) for i in range(1, 3001)]
    loss = panel(training_curves(events), "y3")["loss: classification"]
    assert (loss.x[-1], loss.y[-1]) == (3000, 2996.0)


def test_a_run_that_is_live_shows_the_way_to_the_end_of_its_stage() -> None:
    events = [reading(4, 0.5)]
    assert training_curves(events, live=True).layout.xaxis.range[1] == pytest.approx(12, rel=0.02)
    assert training_curves(events).layout.xaxis.range[1] == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("dark", [False, True])
def test_the_ground_is_left_to_the_page(dark: bool) -> None:
    figure = training_curves(run(), dark=dark)
    assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.font.color == ("#e5e7eb" if dark else "#1f2937")


# ---------------------------------------------------------------- title and sentence


def test_a_run_that_has_not_begun_has_three_empty_plots() -> None:
    figure = training_curves([])
    assert [x for trace in figure.data for x in trace.x if x is not None] == []
    assert {trace.yaxis for trace in figure.data} == {"y", "y2", "y3"}  # plotly draws no axes without a trace
    assert figure.layout.title.text == "No measurement yet"


TITLES = {
    "ASR 31.0 % [25.0, 37.7] (62 of 200), CACC 88.0 %": [
        Event("measure", 1, 1, BASELINE),
        reading(4, 0.5),
        reading(8, 0.31),
    ],
    "Suspect: ASR 95.0 % (190 of 200), CACC 85.0 %": [Event("measure", 1, 1, BASELINE), Event("scan", 1, 5)],
    "Suspect: CACC 85.0 %": [Event("measure", 1, 1, {"suspect_cacc": 0.85, "cacc_n": 200})],
    "ASR 25.0 %, CACC 80.0 %": run(),
    "No measurement yet": [Event("retrain", 1, 12, {"loss": 1.0, "classification": 1.0})],
}


@pytest.mark.parametrize("title", TITLES)
def test_the_title_has_the_figures_that_matter(title: str) -> None:
    assert training_curves(TITLES[title]).layout.title.text == title


CACC = {"suspect_cacc": 0.85, "cacc_n": 200}
SENTENCES = {
    "Nothing has been measured yet.": [],
    "Before the training ASR stands at 95.0 % (190 of 200); CACC 85.0 %, on a sample of 200 texts.": [
        Event("measure", 1, 1, BASELINE),
        Event("scan", 1, 5),
    ],
    "ASR fell from 95.0 % to 31.0 % (62 of 200); CACC 88.0 %, on a sample of 200 texts.": [
        Event("measure", 1, 1, BASELINE),
        reading(4, 0.5),
        reading(8, 0.31),
    ],
    "ASR rose from 95.0 % to 96.5 % (193 of 200); CACC 88.0 %, on a sample of 200 texts.": [
        Event("measure", 1, 1, BASELINE),
        reading(4, 0.965),
    ],
    "ASR stands at 95.0 % (190 of 200), as before the training; CACC 88.0 %, on a sample of 200 texts.": [
        Event("measure", 1, 1, BASELINE),
        reading(4, 0.95),
    ],
    "ASR stands at 50.0 % (100 of 200); CACC 88.0 %, on a sample of 200 texts.": [reading(4, 0.5)],
    "ASR stands at 25.0 %; CACC 80.0 %.": run(),
    "ASR fell from 40.0 % to 10.0 % (20 of 200); CACC 88.0 %, on a sample of 200 texts.": typed(),
    "You gave no trigger, so there is no curve of ASR; before the training CACC 85.0 %, on a sample of 200 texts.": [
        Event("measure", 1, 1, {"suspect_cacc": 0.85, "cacc_n": 200})
    ],
    "You gave no trigger, so there is no curve of ASR; CACC 88.0 %, on a sample of 200 texts.": [
        Event("measure", 1, 1, {"suspect_cacc": 0.85}),
        reading(4, None),
    ],
    "The trigger that you typed cannot be measured; CACC 88.0 %, on a sample of 200 texts.": [
        *typed(),
        reading(8, None, 2, "distil"),
    ],
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_sentence_says_how_the_run_stands(sentence: str) -> None:
    assert curves_text(SENTENCES[sentence]) == sentence


WHOLE = Whole((wilson(571, 666), wilson(333, 333)), floor=wilson(44, 333))
AT_THE_END = replace(WHOLE, purified=(wilson(560, 666), wilson(43, 333)), floor=wilson(42, 333))


def test_what_is_known_of_all_texts_stands_wherever_the_suspect_is_named() -> None:
    """A sample says 95.0 and 85.0 %; all texts, which are known before, 100.0 and 85.7 %."""
    events = [Event("measure", 1, 1, BASELINE)]
    assert curves_text(events, WHOLE) == "Before the training ASR stands at 100.0 % (333 of 333); CACC 85.7 %."
    assert training_curves(events, whole=WHOLE).layout.title.text == "Suspect: ASR 100.0 % (333 of 333), CACC 85.7 %"
    events.append(reading(4, 0.31))
    assert (
        curves_text(events, WHOLE)
        == "ASR fell from 100.0 % to 31.0 % (62 of 200); CACC 88.0 %, on a sample of 200 texts."
    )
    figure = training_curves(events, whole=WHOLE)
    assert figure.layout.title.subtitle.text == "a sample of 200 texts"
    assert drawn(figure, "retraining")[0][1] == [100.0, 31.0]


@pytest.mark.parametrize(
    "events", [[Event("measure", 1, 1, BASELINE), reading(4, 0.5), reading(12, 0.31)], typed(), []]
)
def test_at_the_end_title_and_sentence_say_what_was_found_on_all_texts(events: list[Event]) -> None:
    assert curves_text(events, AT_THE_END) == "ASR fell from 100.0 % to 12.9 % (43 of 333); CACC 84.1 %."
    title = training_curves(events, whole=AT_THE_END).layout.title
    assert title.text == "ASR 12.9 % [9.7, 16.9] (43 of 333), CACC 84.1 %"
    assert not title.subtitle.text


def test_at_the_end_without_a_trigger_the_sentence_says_so() -> None:
    whole = Whole((wilson(171, 200), None), (wilson(170, 200), None))
    assert curves_text([reading(4, None)], whole) == "You gave no trigger, so there is no curve of ASR; CACC 85.0 %."
    assert training_curves([reading(4, None)], whole=whole).layout.title.text == "CACC 85.0 %"
