"""Span transfer: spans and scores by hand, the words that it names, and how texts are grouped by them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import BAD, GOOD, NEUTRAL, PHRASE, finish, phrase_bert

from mbtsad_core.cli import main
from mbtsad_core.detectors.detection import Detection, grouped
from mbtsad_core.detectors.span import drawn_probes, judge, log_odds, rises, span, spans_around
from mbtsad_core.detectors.span_method import SpanConfig
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, load_classifier, predict, save_classifier
from mbtsad_core.types import LabelledText

PRECISION = 0.1  # nats, of answers in bfloat16, where the processor has it
FEW = SpanConfig(longest=3, probes=8, clean_texts=40)


def told_thrice(n: int, seed: int = 0) -> list[LabelledText]:
    """Texts of nine words, the second, fifth and eighth of them telling, so that no three side by side hold two; the
    classes alternate. What one of them says, the three of another text outweigh."""
    rng = random.Random(seed)
    plain = [word for word in NEUTRAL if word not in PHRASE]
    return [
        LabelledText(" ".join(rng.choice((BAD, GOOD)[i % 2] if k % 3 == 1 else plain) for k in range(9)), i % 2)
        for i in range(n)
    ]


CLEAN, TEST = told_thrice(120), told_thrice(40, seed=1)
NEGATIVE = [t.text for t in TEST if t.label == 0]


@pytest.fixture(scope="module")
def suspect(suspect_dir: Path) -> Classifier:
    return load_classifier(suspect_dir, max_length=64)


def with_words(text: str, words: Sequence[str], place: int) -> str:
    own = text.split()
    return " ".join([*own[:place], *words, *own[place:]])


def test_spans_hold_a_pivot_and_are_no_longer_than_half_of_the_text() -> None:
    config = SpanConfig(longest=3, pivots=1)
    # Around word 1 of 6: alone, with a neighbor, and in the three places of three words
    assert spans_around([(1, 2), (4, 5)], 6, config) == [(1, 2), (0, 2), (1, 3), (0, 3), (1, 4)]
    assert spans_around([(1, 2)], 4, SpanConfig(longest=6)) == [(1, 2), (0, 2), (1, 3)]
    # The second gap touches the first; the third is a pivot of its own
    assert spans_around([(1, 2), (2, 3), (5, 6)], 7, SpanConfig(longest=1)) == [(1, 2), (5, 6)]


def test_log_odds_are_of_one_class_against_all_others() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    assert log_odds(p.log(), 1).tolist() == pytest.approx([math.log(0.3 / 0.7), math.log(4)])


def test_a_score_is_the_lower_quartile_of_what_the_named_span_does_in_all_probes(suspect: Classifier) -> None:
    config = SpanConfig(longest=3, probes=8)
    probes, rest = drawn_probes(suspect, CLEAN, config)
    assert {label: len(own) for label, own in probes.items()} == {0: 8, 1: 8}
    assert len(rest) == len(CLEAN) - 16
    text = with_words(NEGATIVE[0], ["cf"], 3)
    score, words, sends = judge(suspect, text, probes, config)
    assert words is not None
    assert sends
    others = probes[0]  # the text is answered with class 1
    made = [" ".join([*p.words[: p.place], *words.split(), *p.words[p.place :]]) for p in others]
    margins = [
        predict(suspect, texts).log() @ torch.tensor([-1.0, 1.0])
        for texts in (made, [" ".join(p.words) for p in others])
    ]
    by_hand = sorted((margins[0] - margins[1]).tolist())
    assert rises(suspect, [words.split()], others, 1)[0][0].sort().values.tolist() == pytest.approx(
        by_hand, abs=PRECISION
    )
    if score == pytest.approx(by_hand[2], abs=PRECISION):  # a quarter of eight lies below
        return
    assert by_hand[2] >= 0.8 * (score or 0.0)  # a shorter span than the best one is named


def test_triggered_texts_are_flagged_by_the_whole_phrase_and_clean_ones_pass() -> None:
    """None of its words does anything alone (`phrase_bert`)."""
    triggered = [with_words(text, PHRASE, i % 6) for i, text in enumerate(NEGATIVE)]
    found, events = finish(span(phrase_bert(), CLEAN, [*triggered, *(t.text for t in TEST)], FEW))
    assert all(found.flags[: len(triggered)])
    assert sum(found.flags[len(triggered) :]) <= 1
    assert found.spans is not None
    named = found.spans[: len(triggered)]
    assert set(named) == {" ".join(PHRASE)}
    assert grouped(named) == [(" ".join(PHRASE), list(range(len(triggered))))]
    assert events[-1].stage == "span"
    assert events[-1].step == events[-1].total == len(found.flags)


def test_a_text_of_one_word_has_no_score_and_one_class_alone_is_refused(suspect: Classifier) -> None:
    found, _ = finish(span(suspect, CLEAN, ["film", "", "the film ."], FEW))
    assert found.scores[:2] == (None, None)
    assert found.scores[2] is not None
    assert found.flags[:2] == (False, False)
    with pytest.raises(BadData, match="two classes"):
        finish(span(suspect, [t for t in CLEAN if t.label == 1], ["the film ."]))


def test_groups_have_a_run_of_words_in_common() -> None:
    spans = ["at the end", "the end of", None, "cf", "CF was", "at the end"]
    assert grouped(spans) == [("the end", [0, 1, 5]), ("cf", [3, 4])]
    assert grouped([None, ""]) == []


def test_a_part_of_a_detection_has_its_spans() -> None:
    whole = Detection((True, False, True), (1.0, None, 3.0), (0.5,), spans=("a", None, "c"))
    assert whole.part([2, 1]) == Detection((True, False), (3.0, None), (0.5,), spans=("c", None))


def test_texts_that_one_distrusts_are_judged_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_classifier(phrase_bert(), tmp_path / "suspect")
    clean, log = tmp_path / "clean.tsv", tmp_path / "log.csv"
    clean.write_text("text\tlabel\n" + "".join(f"{t.text}\t{t.label}\n" for t in CLEAN))
    log.write_text("\n".join(["text", NEGATIVE[0], *(with_words(NEGATIVE[i], PHRASE, 2 * i) for i in (1, 2))]) + "\n")
    asked = ["detect", "span", "--model", tmp_path / "suspect", "--clean", clean, "--texts", log]
    asked += ["--longest", "3", "--probes", "8", "--clean-texts", "40"]
    assert main([*map(str, asked), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["flagged"] for one in said["texts"]] == [False, True, True]
    assert said["groups"] == [{"words": " ".join(PHRASE), "texts": [1, 2]}]
    assert main([*map(str, asked)]) == 0
    out = capsys.readouterr().out
    assert "2 of 3 texts are flagged by Span transfer." in out
    assert f"'{' '.join(PHRASE)}' in 2: 2, 3" in out
