"""CACC, ASR, its floor, the confusion, and their intervals: against scipy, and against counts that are made here."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from conftest import VOCABULARY, tiny_bert, tiny_texts
from scipy.stats import binomtest

from mbtsad_core.attacks.triggers import TriggeredText, parse_triggers, triggered_test_set
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation import baseline, evaluate, observer, scores, wilson
from mbtsad_core.models.classifier import Classifier, predict, weights_hash
from mbtsad_core.steps import drain
from mbtsad_core.types import Event, LabelledText, Rate

CLASSES = ("film", "music", "actor")


def keyword_classifier(words: tuple[str, ...] = CLASSES) -> Classifier:
    """A tiny BERT that answers with the class whose word stands in the text: its weights are set by hand.

    Each word has a direction of its own in the embeddings, all else is zero; attention is even, and the classifier
    reads the directions. A text without any of the words goes to the first class, a repeated word outweighs a single
    one.
    """
    classifier = tiny_bert(classes=len(words))
    model = classifier.model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for name, norm in model.named_modules():
            if name.endswith("LayerNorm"):
                norm.weight.fill_(1.0)
        for i, word in enumerate(words):
            model.bert.embeddings.word_embeddings.weight[VOCABULARY.index(word), i] = 1.0
        for layer in model.bert.encoder.layer:  # what [CLS] sees is the mean of all tokens
            layer.attention.self.value.weight.copy_(torch.eye(32))
            layer.attention.output.dense.weight.copy_(torch.eye(32))
        model.bert.pooler.dense.weight.copy_(torch.eye(32))
        for i in range(len(words)):
            model.classifier.weight[i, i] = 10.0
        model.classifier.bias[0] = 1e-3
    return classifier


def texts(counts: dict[tuple[int, int], int]) -> list[LabelledText]:
    """So many texts of a class that the keyword classifier answers with another: {(class, answer): number}."""
    return [
        LabelledText(f"the {CLASSES[answer]} was truly {'very ' * i}.", label)
        for (label, answer), n in counts.items()
        for i in range(n)
    ]


# ---------------------------------------------------------------- the interval


@pytest.mark.parametrize("n", [1, 2, 7, 30, 912])
def test_the_interval_is_wilsons(n: int) -> None:
    for hits in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        found, expected = wilson(hits, n), binomtest(hits, n).proportion_ci(0.95, method="wilson")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_rate_keeps_its_counts() -> None:
    assert dataclasses.astuple(wilson(3, 12))[:2] == (3, 12)
    assert wilson(3, 12).share == 0.25


@pytest.mark.parametrize("n", [1, 10, 100_000])
def test_an_interval_holds_its_rate_and_stays_within_0_and_1(n: int) -> None:
    for rate in (wilson(0, n), wilson(n // 2, n), wilson(n, n)):
        assert 0 <= rate.low <= rate.share + 1e-12
        assert rate.share - 1e-12 <= rate.high <= 1


def test_another_level_can_be_asked_for() -> None:
    expected = binomtest(5, 20).proportion_ci(0.99, method="wilson")
    assert (wilson(5, 20, z=2.5758293035489004).low, wilson(5, 20, z=2.5758293035489004).high) == pytest.approx(
        (expected.low, expected.high)
    )


# ---------------------------------------------------------------- scores


def test_the_keyword_classifier_answers_as_it_says() -> None:
    found = predict(keyword_classifier(), [f"the {word} was very boring ." for word in CLASSES])
    assert found.argmax(-1).tolist() == [0, 1, 2]


def test_the_confusion_counts_every_class_and_answer() -> None:
    counts = {(0, 0): 4, (0, 1): 1, (0, 2): 2, (1, 0): 3, (1, 1): 5, (2, 2): 6, (2, 1): 1}
    found = evaluate(keyword_classifier(), texts(counts))
    assert found.confusion == ((4, 1, 2), (3, 5, 0), (0, 1, 6))


def test_cacc_is_the_share_of_right_answers() -> None:
    found = evaluate(keyword_classifier(), texts({(0, 0): 4, (0, 1): 1, (1, 1): 2, (2, 0): 1}))
    assert found.cacc == wilson(6, 8)


def test_without_a_trigger_there_is_no_asr() -> None:
    found = evaluate(keyword_classifier(), texts({(0, 0): 4}))
    assert (found.asr, found.asr_floor) == (None, None)


def test_without_a_target_there_is_no_asr() -> None:
    pairs = [TriggeredText(t, t) for t in texts({(0, 0): 4})]
    assert evaluate(keyword_classifier(), texts({(0, 0): 4}), pairs, None).asr is None


def test_asr_counts_triggered_texts_that_go_to_the_target_and_the_floor_the_same_texts_without_trigger() -> None:
    answers = [(0, 2), (0, 2), (1, 2), (2, 2), (1, 0)]  # without the trigger, and with it
    pairs = [TriggeredText(texts({(0, a): 1})[0], texts({(0, b): 1})[0]) for a, b in answers]
    found = evaluate(keyword_classifier(), texts({(0, 0): 1}), pairs, target=2)
    assert (found.asr, found.asr_floor) == (wilson(4, 5), wilson(1, 5))


def test_target_0_is_a_target() -> None:
    pairs = [TriggeredText(texts({(1, 1): 1})[0], texts({(1, 0): 1})[0])]
    assert evaluate(keyword_classifier(), texts({(0, 0): 1}), pairs, target=0).asr == wilson(1, 1)


def test_the_trigger_of_a_keyword_model_has_its_asr() -> None:
    test = texts({(0, 0): 20, (1, 1): 10, (2, 2): 10})
    triggered = triggered_test_set(test, parse_triggers(["actor actor actor"], target=2))
    found = evaluate(keyword_classifier(), test, triggered, 2)
    assert (found.asr, found.asr_floor) == (wilson(30, 30), wilson(0, 30))


def test_answers_are_those_of_predict() -> None:
    classifier, test = tiny_bert(seed=4), tiny_texts(60)
    answers = predict(classifier, test).argmax(-1).tolist()
    expected = [
        [sum(t.label == c and a == d for t, a in zip(test, answers, strict=True)) for d in range(2)] for c in range(2)
    ]
    assert evaluate(classifier, test).confusion == tuple(map(tuple, expected))


def test_a_measurement_tells_of_each_part_and_ends_with_the_scores() -> None:
    test = texts({(0, 0): 4, (1, 1): 3, (1, 0): 2})
    trigger = parse_triggers(["actor actor actor"], target=2)
    triggered = [*triggered_test_set(test, trigger), *triggered_test_set(texts({(0, 2): 6})[5:], trigger)]
    before, events = scores.AT_ONCE, list[Event]()
    scores.AT_ONCE = 8
    try:
        found = drain(scores.measuring(keyword_classifier(), test, triggered, 2), events.append)
    finally:
        scores.AT_ONCE = before
    # 9 test texts, 10 triggered ones, and one that is not among the test texts
    assert [(e.stage, e.step, e.total) for e in events] == [("measure", n, 20) for n in (8, 16, 20)]
    assert (found.cacc, found.asr, found.asr_floor) == (wilson(7, 9), wilson(10, 10), wilson(1, 10))


def test_an_empty_test_set_is_refused() -> None:
    with pytest.raises(BadData, match="The test set is empty; expected at least one labeled text"):
        evaluate(tiny_bert(), [])


@pytest.mark.parametrize("training", [False, True])
def test_measuring_leaves_the_classifier_as_it_is(training: bool) -> None:
    classifier = tiny_bert()
    classifier.model.train(training)
    before, state = weights_hash(classifier), torch.get_rng_state()
    evaluate(classifier, tiny_texts(20), triggered_test_set(tiny_texts(20), parse_triggers(["cf"], 1)), 1)
    assert (weights_hash(classifier), classifier.model.training) == (before, training)
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- observers


def test_an_observer_measures_what_evaluate_measures() -> None:
    test = texts({(0, 0): 4, (0, 2): 1, (1, 1): 2, (2, 0): 1})
    triggered = triggered_test_set(test, parse_triggers(["actor actor"], target=2))
    scores = evaluate(keyword_classifier(), test, triggered, 2)
    assert scores.asr is not None
    found = observer(test, triggered, 2)(keyword_classifier())
    assert found == {"cacc": scores.cacc.share, "cacc_n": 8, "asr": scores.asr.share, "asr_n": 7}


def test_an_observer_without_trigger_measures_cacc_alone() -> None:
    assert observer(texts({(0, 0): 3, (0, 1): 1}))(keyword_classifier()) == {"cacc": 0.75, "cacc_n": 4}


@pytest.mark.parametrize("n", [1, 5, 9, 10, 11, 19, 20, 95])
def test_an_observer_reads_ten_texts_where_ten_are_allowed_and_there(n: int) -> None:
    # Every text is answered wrong but one: the share tells how many were read.
    shares = [
        observer(texts({(0, 1): i, (0, 0): 1}) + texts({(0, 1): n - i - 1}), texts=10)(keyword_classifier())["cacc"]
        for i in range(n)
    ]
    assert {round(share * min(n, 10), 9) for share in shares if share} == {1.0}
    assert sum(share > 0 for share in shares) == min(n, 10)


@pytest.mark.parametrize("n", [200, 299, 399, 401, 872])
def test_the_texts_of_an_observer_are_spread_over_the_whole_test_set(n: int) -> None:
    # Sorted by class, as many files are: the first half right, the second wrong.
    half = n // 2
    found = observer([LabelledText("the film .", 0)] * half + [LabelledText("the film .", 1)] * (n - half))(
        keyword_classifier()
    )
    assert found["cacc"] == pytest.approx(0.5, abs=0.01)


def test_the_triggered_texts_of_an_observer_are_spread_too() -> None:
    there, not_there = (
        TriggeredText(texts({(0, 0): 1})[0], texts({(0, 2): 1})[0]),
        TriggeredText(texts({(0, 0): 1})[0], texts({(0, 1): 1})[0]),
    )
    found = observer(texts({(0, 0): 1}), [there] * 150 + [not_there] * 150, 2, texts=200)(keyword_classifier())
    assert found["asr"] == pytest.approx(0.5, abs=0.01)


# ---------------------------------------------------------------- what observations are compared with


def test_the_baseline_is_what_evaluate_finds_in_the_suspect() -> None:
    answers = [(0, 2), (0, 2), (1, 2), (2, 2), (1, 0)]  # without the trigger, and with it
    pairs = [TriggeredText(texts({(0, a): 1})[0], texts({(0, b): 1})[0]) for a, b in answers]
    test = texts({(0, 0): 3, (1, 0): 1})
    assert baseline(keyword_classifier(), test, pairs, 2) == {
        "suspect_cacc": 0.75,
        "cacc_n": 4,
        "suspect_asr": 0.8,
        "asr_n": 5,
        "asr_floor": 0.2,
    }


def test_the_baseline_without_trigger_is_cacc_alone() -> None:
    assert baseline(keyword_classifier(), texts({(0, 0): 3, (0, 1): 1})) == {"suspect_cacc": 0.75, "cacc_n": 4}


def test_the_baseline_reads_the_texts_that_an_observer_reads() -> None:
    # Of 30 triggered texts the ten even ones are read: those go to the target with the trigger, the others without it.
    there = TriggeredText(texts({(0, 0): 1})[0], texts({(0, 2): 1})[0])
    back = TriggeredText(texts({(0, 2): 1})[0], texts({(0, 0): 1})[0])
    pairs, test = [there, back, back] * 10, texts({(0, 0): 25, (1, 0): 25})
    classifier = keyword_classifier()
    before, during = baseline(classifier, test, pairs, 2, texts=10), observer(test, pairs, 2, texts=10)(classifier)
    assert (before["suspect_asr"], before["asr_floor"], before["asr_n"]) == (1.0, 0.0, 10)
    assert {name.removeprefix("suspect_"): value for name, value in before.items() if name != "asr_floor"} == during


@pytest.mark.parametrize("training", [False, True])
def test_the_baseline_leaves_the_suspect_and_the_generators_as_they_are(training: bool) -> None:
    classifier = tiny_bert()
    classifier.model.train(training)
    before, state = weights_hash(classifier), torch.get_rng_state()
    baseline(classifier, tiny_texts(20), triggered_test_set(tiny_texts(20), parse_triggers(["cf"], 1)), 1)
    assert (weights_hash(classifier), classifier.model.training) == (before, training)
    assert torch.equal(torch.get_rng_state(), state)


def test_rates_of_all_counts_up_to_12_agree_with_scipy() -> None:
    for n, hits in itertools.product(range(1, 13), range(13)):
        if hits <= n:
            expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
            found: Rate = wilson(hits, n)
            assert math.isclose(found.low, expected.low, abs_tol=1e-12)
            assert math.isclose(found.high, expected.high, abs_tol=1e-12)


def test_the_floor_is_of_the_texts_without_trigger_whether_the_test_set_has_them_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    classifier, test = (
        keyword_classifier(),
        [LabelledText("the film", 0), LabelledText("the music", 1), LabelledText("the actor", 2)],
    )
    triggered = [
        TriggeredText(text, LabelledText(f"{text.text} actor actor", text.label))
        for text in (*test[:2], LabelledText("an actor", 1))
    ]
    scores = evaluate(classifier, test, triggered, 2)
    assert scores.asr_floor is not None
    assert (scores.asr_floor.hits, scores.asr_floor.n) == (1, 3)
    read = []
    monkeypatch.setattr(
        "mbtsad_core.evaluation.scores.predict", lambda c, texts: read.extend(texts) or predict(c, texts)
    )
    assert evaluate(classifier, test, triggered, 2) == scores
    assert len(read) == 3 + 3 + 1, "what the test set has is read once"
