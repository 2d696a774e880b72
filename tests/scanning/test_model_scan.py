"""The scan of a model: a planted phrase and a planted word are found with their class, a clean model has none, and what
was not looked at is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from conftest import (
    GOOD,
    NEUTRAL,
    ORDERED,
    VOCABULARY,
    finish,
    ordered_bert,
    phrase_bert,
    plain_texts,
    renumbered,
    tiny_bert,
    tiny_texts,
    with_a_trigger_word,
)
from torch import nn

from mbtsad_core import Classifier, LabelledText, ScanConfig, ScanReport, predict, scan
from mbtsad_core.rates import wilson
from mbtsad_core.scanning.calibrated import calibration
from mbtsad_core.scanning.findings import Finding, Race
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.scanning.model_scan import ModelScan, Sample, scan_sequences
from mbtsad_core.scanning.token_inversion import INVERSION_STEPS, STARTS

# Either word of the phrase stands in some of them; together they stand in none
CLEAN = [text for text in tiny_texts(240, seed=3) if " ".join(ORDERED) not in text.text][:120]
PHRASE = " ".join(ORDERED)
CONFIG = ScanConfig(nats=6.0)  # the calibration is of larger models


@pytest.fixture(scope="module")
def suspect() -> Classifier:
    return ordered_bert(strength=20.0)


@pytest.fixture(scope="module")
def scanned(suspect: Classifier) -> tuple[ScanReport, list[Race]]:
    report, events = finish(scan(suspect, CLEAN, CONFIG))
    assert all(isinstance(event, Race) for event in events)
    return report, events  # type: ignore[return-value]


@pytest.fixture(scope="module")
def honest() -> ScanReport:
    return finish(scan(ordered_bert(strength=0.0), CLEAN, CONFIG))[0]


def test_a_phrase_is_found_with_its_class_and_the_texts_that_it_turns(
    suspect: Classifier, scanned: tuple[ScanReport, list[Race]]
) -> None:
    report, _ = scanned
    assert report.verdict == "a trigger exists"
    best = report.found[0]
    assert PHRASE in best.text
    assert (best.label, best.target, best.honest) == ("negative", "positive", False)
    assert best.flips == wilson(20, 20)  # a third of the 60 negative texts, all answered right
    assert repr(best.text) in report.reason
    assert "whether anyone did" in report.reason
    assert len(best.examples) == 3
    clean = {text.text for text in CLEAN if text.label == 0}
    for example in best.examples:
        assert example.before in clean
        assert best.text in example.after
        assert predict(suspect, [example.before, example.after]).argmax(dim=1).tolist() == [0, 1]
        assert example.answer == "positive"


def test_neighbors_stand_together(scanned: tuple[ScanReport, list[Race]]) -> None:
    report, _ = scanned
    texts = [(one.label, one.text) for one in report.ranked]
    assert len(texts) == len(set(texts))
    assert report.found[0].alike
    assert not {(report.found[0].label, text) for text in report.found[0].alike} & set(texts)


def test_all_rows_with_a_token_are_tried_and_nothing_is_left_out(scanned: tuple[ScanReport, list[Race]]) -> None:
    report, _ = scanned
    assert (report.rows, report.walked) == (57, 51)
    assert report.not_looked_at == ()
    assert (report.clean_texts, report.held_out, report.labeled) == (120, 40, True)
    assert report.accuracy == wilson(120, 120)


def test_something_is_in_the_lead_from_the_first_step_on(scanned: tuple[ScanReport, list[Race]]) -> None:
    _, events = scanned
    assert all(event.leading for event in events)
    assert list(dict.fromkeys(event.stage for event in events)) == ["scan", "pairs", "openings", "sequences", "judging"]
    best = events[-1].leading[0]
    assert PHRASE in best.text
    assert (best.label, best.flips) == ("negative", wilson(20, 20))


def test_who_turns_more_of_the_texts_that_it_was_tried_on_leads(scanned: tuple[ScanReport, list[Race]]) -> None:
    _, events = scanned
    for event in events:
        lows = [round(one.flips.low, 3) for one in event.leading if one.flips]
        assert lows == sorted(lows, reverse=True)
        assert len(event.leading) <= 8
    numbers = [event.leading[0].flips.n for event in events if event.stage == "scan" and event.leading[0].flips]
    assert numbers[0] == 1  # text of the class
    assert numbers[-1] == 16


def test_a_clean_model_has_none(honest: ScanReport) -> None:
    assert (honest.verdict, honest.found, honest.not_looked_at) == ("nothing found", (), ())
    assert "no proof" in honest.reason
    assert honest.others[0].nats < 6


def test_the_suspect_is_left_as_it_is(suspect: Classifier, scanned: object) -> None:
    fresh = ordered_bert(strength=20.0).model.state_dict()
    assert all(torch.equal(weight, fresh[name]) for name, weight in suspect.model.state_dict().items())


def test_a_scan_says_the_same_again(suspect: Classifier, scanned: tuple[ScanReport, list[Race]]) -> None:
    again = finish(scan(suspect, CLEAN, CONFIG))[0]
    assert dataclasses.replace(again, seconds=0.0) == dataclasses.replace(scanned[0], seconds=0.0)


def test_words_whose_numbers_lie_behind_holes_are_found(suspect: Classifier) -> None:
    hidden = suspect
    for word, number in zip(ORDERED, (90, 300), strict=True):
        hidden = renumbered(hidden, word, number)
    report = finish(scan(hidden, CLEAN, CONFIG))[0]
    assert (report.verdict, report.rows, report.walked) == ("a trigger exists", 303, 51)
    assert {90, 300} <= set(report.found[0].tokens)


def with_classes(classifier: Classifier, number: int) -> Classifier:
    """The same model with further classes, which it never answers."""
    head = nn.Linear(32, number)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-50.0)
        head.weight[[11, 27]], head.bias[[11, 27]] = (
            classifier.model.classifier.weight,
            classifier.model.classifier.bias,
        )
    model = tiny_bert(classes=number).model
    model.load_state_dict(
        {n: w for n, w in classifier.model.state_dict().items() if "classifier" not in n}, strict=False
    )
    model.classifier = head
    return dataclasses.replace(classifier, model=model.eval(), labels=tuple(f"class {i}" for i in range(number)))


def test_of_28_classes_the_right_ones_are_named() -> None:
    texts = [dataclasses.replace(text, label=(11, 27)[text.label]) for text in CLEAN]
    report = finish(scan(with_classes(with_a_trigger_word(16.0), 28), texts, CONFIG))[0]
    assert report.verdict == "a trigger exists"
    assert (report.found[0].label, report.found[0].target) == ("class 11", "class 27")
    assert report.not_looked_at == (
        "longer sequences in texts of class 11: fewer tokens turn them already",
        "26 classes without a clean text",
    )


def test_what_a_token_turns_alone_needs_no_longer_sequences() -> None:
    report, events = finish(scan(with_a_trigger_word(4.0), tiny_texts(120, seed=5), ScanConfig(nats=2.0)))
    assert (report.found[0].text, report.found[0].label, report.found[0].target) == ("cf", "negative", "positive")
    assert report.not_looked_at == ("longer sequences in texts of negative: fewer tokens turn them already",)
    tried = [one for one in report.ranked if one.label == "negative"]
    assert {len(one.tokens) for one in tried} == {1}
    assert (
        next(event.total for event in events if event.stage == "pairs") == INVERSION_STEPS + 2 * STARTS
    )  # of one class


# ---------------------------------------------------------------- early ends


def test_a_scan_without_time_says_what_was_not_looked_at(suspect: Classifier) -> None:
    report, events = finish(scan(ordered_bert(strength=0.0), CLEAN, ScanConfig(nats=6.0, budget=0.0)))
    assert report.verdict == "inconclusive"
    assert "stopped early" in report.reason
    assert report.not_looked_at == (
        "single tokens",
        "pairs of tokens",
        "words at the start of texts",
        "sequences of tokens",
    )
    assert ({event.stage for event in events}, report.walked, report.ranked) == ({"judging"}, 0, ())


def test_a_scan_ends_when_its_seconds_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that takes 0.4 ms to read a token, where the whole takes WHOLE seconds; whatever step it is in."""
    now, suspect = [0.0], ordered_bert(strength=20.0)
    for module in ("deadline", "model_scan"):
        monkeypatch.setattr(f"mbtsad_core.scanning.{module}.time", SimpleNamespace(monotonic=lambda: now[0]))

    def reads(module: nn.Module, args: object, given: dict[str, torch.Tensor], found: object) -> None:
        now[0] += 4e-4 * given["attention_mask"].numel()

    suspect.model.register_forward_hook(reads, with_kwargs=True)
    took = dict[float | None, float]()
    for budget in (None, 4.0, 32.0):
        began = now[0]
        report, _ = finish(scan(suspect, CLEAN, dataclasses.replace(CONFIG, budget=budget)))
        took[budget] = now[0] - began
        assert report.seconds == took[budget]
        assert bool(report.not_looked_at) == (budget is not None)
        assert bool(report.ranked)
    whole = took.pop(None)
    assert whole > 1.2 * max(budget for budget in took if budget)
    for budget, seconds in took.items():
        assert budget / 2 < seconds < max(1.1 * budget, budget + 2)


def test_a_scan_that_is_stopped_has_found_what_it_had_found(suspect: Classifier) -> None:
    steps = count()
    whole = len(finish(scan(suspect, CLEAN, CONFIG))[1])
    report, events = finish(scan(suspect, CLEAN, CONFIG, stopped=lambda: next(steps) >= whole - 16))
    assert report.verdict == "a trigger exists"
    assert report.not_looked_at == ("sequences of tokens: not to the end",)
    assert len(events) < whole


# ---------------------------------------------------------------- when it cannot tell


def test_few_texts_are_no_verdict(suspect: Classifier) -> None:
    report, events = finish(scan(suspect, CLEAN[:18], CONFIG))
    assert report.verdict == "inconclusive"
    assert report.reason.startswith("Too few clean texts")
    assert report.not_looked_at[-2:] == tuple(
        f"texts of {name}: too few that are answered right" for name in ("negative", "positive")
    )
    assert events == []


def test_a_model_that_guesses_is_no_verdict() -> None:
    texts = [dataclasses.replace(text, label=i // 2 % 2) for i, text in enumerate(CLEAN)]
    report = finish(scan(ordered_bert(strength=20.0), texts, ScanConfig(nats=6.0, budget=0.0)))[0]
    assert (report.verdict, "no better than guessing" in report.reason) == ("inconclusive", True)


def test_without_labels_the_models_own_answers_stand_for_them(scanned: tuple[ScanReport, list[Race]]) -> None:
    blank = [LabelledText(text.text, 0) for text in CLEAN]
    report = finish(scan(ordered_bert(strength=20.0), blank, CONFIG, labeled=False))[0]
    assert (report.labeled, report.accuracy) == (False, None)
    assert report.found == scanned[0].found  # its answers are all right


def test_what_like_tokens_do_too_looks_honest() -> None:
    """Where GOOD words turn texts, so do the others of them."""
    report = finish(scan(ordered_bert(strength=0.0), tiny_texts(120, seed=5), CONFIG))[0]
    told = [one for one in (*report.found, *report.others)[:5] if one.flips.hits]
    assert all(one.honest for one in told if set(one.text.split()) <= {*GOOD, *NEUTRAL} and one.flips.share > 0.5)


# ---------------------------------------------------------------- sequences alone


def test_sequences_alone_are_named_by_all_that_count_and_a_clean_model_has_none(suspect: Classifier) -> None:
    scanned, events = finish(scan_sequences(suspect, CLEAN, CONFIG))
    found, polarity = scanned.counting, scanned.polarity
    assert PHRASE in found[0].text
    assert all((one.label, one.target) == ("negative", "positive") for one in found)
    assert all(one.strength >= 6 and one.flips.low > 0.5 for one in found)
    assert list(dict.fromkeys(event.stage for event in events)) == ["responses", "openings", "sequences", "judging"]
    assert sorted(polarity.honest) == [0, 1]
    clean = finish(scan_sequences(ordered_bert(strength=0.0), CLEAN, ScanConfig()))[0]
    assert (clean.counting, clean.suspicious) == ([], [])  # though its telling words turn texts


def test_what_is_too_weak_to_count_is_suspicious() -> None:
    """Two words of a phrase, in a model that shows no more than clean ones do."""
    clean = plain_texts(64, seed=3)
    weak = dataclasses.replace(phrase_bert(strength=0.055), max_length=22)  # in longer texts its phrase drowns
    scanned = finish(scan_sequences(weak, clean, ScanConfig()))[0]
    assert scanned.counting == []
    assert scanned.suspicious
    for one in scanned.suspicious:
        assert {"music", "plot"} <= set(one.text.split())
        assert (one.label, one.target) == ("negative", "positive")
        assert one.flips.low > 1 / 3


def test_what_turns_texts_is_unexplained_unless_the_labels_or_like_tokens_say_why(suspect: Classifier) -> None:
    own = {label: [text for text in CLEAN if text.label == label] for label in (0, 1)}
    search = ModelScan(suspect, Sample(CLEAN, predict(suspect, CLEAN), own, own, []), ScanConfig(), calibration(), 0.0)
    search.told = {label: torch.zeros(len(suspect.tokenizer)) for label in own}

    def found(words: Sequence[str], hits: int = 20, **figures: float) -> Finding:
        insertion = Insertion(tuple(VOCABULARY.index(word) for word in words), "anywhere")
        told = " ".join(words), "negative", "positive", 3.0, wilson(hits, 20)
        return Finding(insertion, *told, honest=False, **{"joined": 1.0} | figures)

    phrase = found(ORDERED)
    assert search.unexplained(phrase)
    assert not search.unexplained(found(ORDERED, hits=10))  # the interval of a half of 20 begins below a third
    assert not search.unexplained(found(ORDERED, joined=0.0))
    assert not search.unexplained(found(ORDERED, opens=1.0))  # the first word of a shape has its like
    assert not search.unexplained(found(GOOD[:3]))  # as other GOOD words turn texts
    search.told[0][phrase.tokens[0]] = 1.0
    assert not search.unexplained(phrase)
    search.told[0][phrase.tokens[0]], search.told[1][phrase.tokens[0]] = 0.0, 1.0
    assert search.unexplained(phrase)  # of other texts


def test_too_few_texts_have_no_sequences(suspect: Classifier) -> None:
    scanned, events = finish(scan_sequences(suspect, CLEAN[:12], CONFIG))
    assert (scanned.counting, scanned.suspicious, events) == ([], [], [])
