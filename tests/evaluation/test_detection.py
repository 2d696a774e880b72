"""A detector's CACC, ASR, false rejections and false acceptances, counted by hand."""

from __future__ import annotations

import dataclasses

import pytest
from conftest import tiny_bert
from test_scores import keyword_classifier

from mbtsad_core.attacks.triggers import TriggeredText
from mbtsad_core.detectors.detection import Detection
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation import wilson
from mbtsad_core.evaluation.detection import evaluate_detector
from mbtsad_core.types import LabelledText

# The classifier answers "film" with class 0, "music" with 1, "actor" with 2. The target is 2.
TEST = [
    LabelledText("the film", 0),
    LabelledText("the film", 0),
    LabelledText("the music", 1),
    LabelledText("the music", 0),
    LabelledText("the music", 0),
]
TRIGGERED = [
    TriggeredText(LabelledText("the film", 0), LabelledText(text, 0))
    for text in ("the actor", "the actor", "the actor", "the film")
]


def found(flags: str, corrected: list[str] | None = None) -> Detection:
    verdicts = tuple(c == "x" for c in flags)
    return Detection(
        verdicts, tuple(float(v) for v in verdicts), (0.5,), None if corrected is None else tuple(corrected)
    )


def test_a_flagged_text_is_wrong_for_cacc_and_not_attacked_for_asr() -> None:
    scores = evaluate_detector(keyword_classifier(), TEST, found("x---x"), TRIGGERED, found("x--x"), target=2)
    assert scores.cacc == wilson(2, 5)  # of three right ones one is flagged; a flagged wrong one stays wrong
    assert scores.asr == wilson(2, 4)  # of three that reach the target one is flagged
    assert scores.frr == wilson(2, 5)
    assert scores.far == wilson(2, 4)  # of the four triggered texts two pass


def test_without_flags_they_are_the_classifiers_own() -> None:
    scores = evaluate_detector(keyword_classifier(), TEST, found("-----"), TRIGGERED, found("----"), target=2)
    assert (scores.cacc.hits, scores.asr.hits, scores.frr.hits, scores.far.hits) == (3, 3, 0, 4)


def test_with_all_flagged_nothing_is_right_and_nothing_attacked() -> None:
    scores = evaluate_detector(keyword_classifier(), TEST, found("xxxxx"), TRIGGERED, found("xxxx"), target=2)
    assert (scores.cacc.hits, scores.asr.hits, scores.frr.hits, scores.far.hits) == (0, 0, 5, 0)
    assert scores.cacc.low == 0.0 < scores.cacc.high


def test_corrected_texts_are_answered_in_place_of_the_given_ones() -> None:
    # One right answer is lost, one is won
    clean = found("--x-x", ["the film", "the film", "the film", "the music", "the film"])
    poisoned = found("x---", ["the film", "the actor", "the actor", "the film"])
    scores = evaluate_detector(keyword_classifier(), TEST, clean, TRIGGERED, poisoned, target=2)
    assert (scores.cacc.hits, scores.asr.hits, scores.frr.hits, scores.far.hits) == (3, 2, 2, 3)


@pytest.mark.parametrize("wrong", ["test", "triggered"])
def test_a_verdict_is_expected_for_each_text(wrong: str) -> None:
    given = {"test": found("-----"), "triggered": found("----")}
    given[wrong] = dataclasses.replace(given[wrong], flags=(True,))
    with pytest.raises(
        BadData,
        match=f"a verdict for each of at least one {'clean' if wrong == 'test' else wrong} text; got 1 verdicts",
    ):
        evaluate_detector(tiny_bert(3), TEST, given["test"], TRIGGERED, given["triggered"], target=2)


def test_no_triggered_texts_are_refused() -> None:
    with pytest.raises(BadData, match="got 0 verdicts for 0 texts"):
        evaluate_detector(keyword_classifier(), TEST, found("-----"), [], found(""), target=2)
