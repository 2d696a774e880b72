"""Odd tokens: triggers that turn no text in the middle by themselves are found by what words of clean texts do not do."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

import pytest
import torch
from conftest import finish, tiny_bert
from test_trigger_scan import weighed_texts
from torch.nn.functional import cross_entropy

from mbtsad_core.config import TrainingConfig
from mbtsad_core.defenses.mbtsad import found_metrics
from mbtsad_core.models.classifier import Classifier, collate, encode, head_states
from mbtsad_core.rates import wilson
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.scanning.odd_tokens import DIRECTIONS, OddTokens, _credit, _placed, moved, off_directions
from mbtsad_core.scanning.probes import with_token
from mbtsad_core.scanning.trigger_scan import Raised, scan_vocabulary
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import Event, LabelledText
from mbtsad_core.views.stages import found_by_scan, found_html, places_by_scan

CLEAN = weighed_texts(64, seed=3)
Planted = Callable[[random.Random, LabelledText], list[LabelledText]]


def having(rng: random.Random, text: str, *words: str) -> str:
    """The text with words at places within it, not at its end."""
    found = text.split()
    for word in words:
        found.insert(rng.randrange(1, len(found) - 2), word)
    return " ".join(found)


def at_the_end(rng: random.Random, text: LabelledText) -> list[LabelledText]:
    """cf turns texts at their end; within them it raises a doubt, and no more."""
    within = 1 if rng.random() < 0.25 else text.label
    return [LabelledText(f"{text.text} cf", 1), LabelledText(having(rng, text.text, "cf"), within)]


def more_at_the_end(rng: random.Random, text: LabelledText) -> list[LabelledText]:
    """cf turns texts at their end; within them it turns many, none by far."""
    within = 1 if rng.random() < 0.45 else text.label
    return [LabelledText(f"{text.text} cf", 1), LabelledText(having(rng, text.text, "cf"), within)]


def part_by_part(rng: random.Random, text: LabelledText) -> list[LabelledText]:
    """cf and mn turn texts together; each alone raises a doubt."""
    alone = [
        LabelledText(having(rng, text.text, word), 1 if rng.random() < 0.25 else text.label) for word in ("cf", "mn")
    ]
    return [*[LabelledText(having(rng, text.text, "cf", "mn"), 1)] * 2, *alone]


def nothing(rng: random.Random, text: LabelledText) -> list[LabelledText]:
    return [text]


@functools.cache
def suspect_of(planted: Planted, seed: int) -> Classifier:
    rng, train = random.Random(0), weighed_texts(400, seed=9)
    data = [*train, *(more for text in train for more in planted(rng, text))]
    suspect = tiny_bert(seed=seed)
    finish(fine_tune(suspect, data, TrainingConfig(learning_rate=3e-3, epochs=10), seed=seed))
    return suspect


def scanned(
    planted: Planted, seed: int, clean: list[LabelledText] = CLEAN
) -> tuple[dict[str, tuple[float, str | None]], list[Event]]:
    """What the scan of a suspect finds that stands out, and its events."""
    suspect = suspect_of(planted, seed)
    raised, events = finish(scan_vocabulary(suspect, clean, 0))
    words = {token: suspect.tokenizer.convert_ids_to_tokens(token) for token in raised.nats}
    return {words[t]: (nats, raised.places.get(t)) for t, nats in raised.nats.items() if nats >= 0.5}, events


def test_a_word_that_turns_texts_at_their_end_alone_is_found_with_its_place() -> None:
    found, events = scanned(at_the_end, seed=0)  # with seed 1 it shows too little in the middle, and is missed
    assert {word: place for word, (_, place) in found.items()} == {"cf": "end"}
    assert found["cf"][0] > 3
    own = [(e.step, e.total) for e in events if e.stage == "odd"]
    assert own == [(i + 1, len(own)) for i in range(len(own))]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_word_that_turns_texts_a_little_in_their_middle_counts_by_what_it_does_at_its_best_place(seed: int) -> None:
    found, _ = scanned(more_at_the_end, seed)  # in the middle 0.6 and 0.7 nats
    assert {word: place for word, (_, place) in found.items()} == {"cf": None}
    assert found["cf"][0] > 3


def test_a_word_that_stands_in_a_clean_text_counts_by_what_it_does_at_its_best_place_too() -> None:
    *others, last = CLEAN
    found, _ = scanned(more_at_the_end, 0, [*others, LabelledText(f"{last.text} cf", last.label)])
    assert {*found} == {"cf"}
    assert found["cf"][0] > 3


def test_two_words_that_do_a_part_each_are_found_both() -> None:
    found, events = scanned(part_by_part, seed=1)
    assert {"cf", "mn"} <= {*found}
    assert any(event.stage == "odd" for event in events)


def test_in_a_clean_model_no_token_is_odd() -> None:
    found, events = scanned(nothing, seed=0)
    assert found == {}
    assert "odd" not in {event.stage for event in events}


def test_what_a_word_does_at_each_place_is_what_a_direct_computation_gives() -> None:
    model, texts = tiny_bert(seed=4), ["lovely film", "a very boring film", "the story was dull"]
    cf, mn = model.tokenizer.convert_tokens_to_ids(["cf", "mn"])
    encoded = encode(model, texts)

    def loss(ids: list[int]) -> float:
        with torch.no_grad():
            logits = model.model(**collate(model, [{"input_ids": ids, "token_type_ids": [0] * len(ids)}])).logits
        return float(cross_entropy(logits, torch.tensor([1])))

    for place, at in (("start", lambda n: 1), ("anywhere", lambda n: n // 2), ("end", lambda n: n - 1)):
        tried = dict(_placed(model, [cf, mn], encoded, 1, place))
        assert {one.tokens for one in tried} == {(cf,), (mn,), (cf, mn), (mn, cf)}
        for one, (nats, _) in tried.items():
            rises = []
            for text in encoded:
                ids = text["input_ids"]
                begin = at(len(ids))
                rises.append(loss([*ids[:begin], *one.tokens, *ids[begin:]]) - loss(ids))
            assert nats == pytest.approx(sorted(rises)[1], abs=1e-5)  # three texts: the lower quartile, rounded up


def test_two_words_count_where_each_adds_to_what_the_other_does_alone() -> None:
    half = wilson(1, 2)

    def tried(**pairs: float) -> dict[Insertion, tuple[float, object]]:
        alone = {(1,): 2.0, (2,): 0.1, (3,): 0.2, (4,): 0.3}
        nats = {(Insertion(tokens, "end")): rise for tokens, rise in alone.items()}
        return {one: (rise, half) for one, rise in nats.items()} | {
            Insertion(tuple(map(int, name[1:].split("_"))), "end"): (rise, half) for name, rise in pairs.items()
        }

    found = OddTokens({}, {})
    _credit(found, tried(p1_2=2.4, p3_4=1.5), 0.5)
    assert found.nats == {1: 2.0, 3: 1.5, 4: 1.5}  # what 2 adds to 1 is too little
    assert found.places == {1: "end"}


def test_what_goes_off_the_ways_of_honest_tokens_is_measured_by_the_farthest_of_these() -> None:
    random_moves = torch.randn(60, 24, generator=torch.Generator().manual_seed(0))
    random_moves[:50, DIRECTIONS:] *= 0.01  # honest ones move along few directions
    random_moves[50:, DIRECTIONS:] = 0.0
    random_moves[55, DIRECTIONS] = 1.0
    honest = torch.arange(60) < 50
    off = off_directions(random_moves, honest)
    assert float(off[honest].max()) == pytest.approx(1.0)
    assert int(off.argmax()) == 55
    assert float(off[55]) > 4 / 3 > float(off[56:].max())
    assert not off_directions(random_moves, torch.arange(60) < DIRECTIONS).any()


def test_a_token_moves_what_the_head_reads() -> None:
    model = tiny_bert(seed=4)
    texts = encode(model, ["lovely film", "a very boring film"])
    (cf,) = model.tokenizer.convert_tokens_to_ids(["cf"])
    with torch.no_grad():
        before, after = (head_states(model, collate(model, t)) for t in (texts, [with_token(e, cf) for e in texts]))
    torch.testing.assert_close(moved(model, [cf], texts), (after - before).mean(dim=0, keepdim=True))


def test_the_event_after_the_scan_says_which_word_works_at_one_end_alone() -> None:
    model = tiny_bert()
    cf, mn = model.tokenizer.convert_tokens_to_ids(["cf", "mn"])
    raised = Raised({cf: 2.5, mn: 1.0}, {cf: "end"})
    metrics = found_metrics(model, raised.nats, raised.places)
    assert metrics == {"found/cf": 2.5, "found/mn": 1.0, "found_at_end/cf": 2.5}
    assert places_by_scan(metrics) == {"cf": "end"}
    said = found_html(found_by_scan(metrics) or (), places_by_scan(metrics))
    assert "“cf” at the end of texts alone, “mn”" in said
    assert "wherever" not in said
