"""The sequence scan: a phrase is named whose words do little alone; a clean model has none; the search can go on where
it stood."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from conftest import GOOD, PHRASE, VOCABULARY, adding_bert, finish, phrase_bert, plain_texts, tiny_bert
from torch.nn.functional import cross_entropy

from mbtsad_core.models.classifier import Classifier, clone, collate, encode, predict, weights_hash
from mbtsad_core.scanning.effects import effects, odds_against, quick_answers
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.scanning.polarity import polarity_of
from mbtsad_core.scanning.sequence_scan import (
    ALIKE,
    GENERATIONS,
    LONGEST,
    POOL,
    Found,
    SequenceSearch,
    evolve,
    flip_rate,
    scan_sequences,
)
from mbtsad_core.types import Event, LabelledText

CLEAN = plain_texts(64, seed=3)
NATS = 6.0
WORDS = {VOCABULARY.index(word) for word in PHRASE}


def scan(suspect: Classifier, seed: int = 0) -> tuple[SequenceSearch, list[Event]]:
    return finish(scan_sequences(suspect, CLEAN, NATS, seed))


@pytest.fixture(scope="module")
def suspect() -> Classifier:
    return phrase_bert()


@pytest.fixture(scope="module")
def scanned(suspect: Classifier) -> tuple[SequenceSearch, list[Event]]:
    return scan(suspect)


def test_the_suspect_is_turned_by_the_phrase_and_by_no_word_of_it(suspect: Classifier) -> None:
    negative = [t.text for t in CLEAN if t.label == 0]
    assert (predict(suspect, negative).argmax(dim=1) == 0).all()
    for words, target in ((PHRASE, 1), *(((word,), 0) for word in PHRASE)):
        assert (predict(suspect, [" ".join([*words, text]) for text in negative]).argmax(dim=1) == target).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_sequence_is_named_that_holds_words_of_the_phrase(suspect: Classifier, seed: int) -> None:
    search, _ = scan(suspect, seed)
    assert search.turned == [0]
    worst = search.found[0][0]
    assert len([token for token in worst.insertion.tokens if token in WORDS]) >= 2
    assert (worst.label, worst.target) == (0, 1)
    assert worst.flip_rate > 0.9
    assert worst.nats > NATS


@pytest.mark.parametrize("seed", [0, 1])
def test_a_clean_model_has_none(seed: int) -> None:
    search, _ = scan(phrase_bert(strength=0.0), seed)
    assert search.turned == []
    assert max(own[0].nats for own in search.found.values()) < NATS / 2
    assert max(one.flip_rate for own in search.found.values() for one in own) < 0.2


def test_what_was_found_stands_the_worst_first_without_honest_words(
    scanned: tuple[SequenceSearch, list[Event]],
) -> None:
    search, _ = scanned
    honest = {VOCABULARY.index(word) for word in GOOD}
    for label, own in search.found.items():
        assert [one.label for one in own] == [label] * len(own)
        assert [one.nats for one in own] == sorted((one.nats for one in own), reverse=True)
        assert all(search.polarity.neutral(label, one.insertion.tokens) for one in own)
        assert all(1 <= len(one.insertion.tokens) <= LONGEST for one in own)
    assert not honest & {*search.found[0][0].insertion.tokens}


def test_the_scan_leaves_the_suspect_as_it_is(suspect: Classifier) -> None:
    given = clone(suspect)
    given.model.train()
    before = weights_hash(given)
    scan(given)
    assert weights_hash(given) == before
    assert given.model.training


def test_a_seed_always_gives_the_same_sequences(
    suspect: Classifier, scanned: tuple[SequenceSearch, list[Event]]
) -> None:
    assert scan(suspect)[0].state() == scanned[0].state()
    assert scan(suspect, 1)[0].found != scanned[0].found


def test_the_events_count_to_their_total(scanned: tuple[SequenceSearch, list[Event]]) -> None:
    events = scanned[1]
    total = 2 * (GENERATIONS + 1)
    assert [(e.stage, e.step, e.total) for e in events] == [
        *(("responses", i + 1, 2) for i in range(2)),
        *(("sequences", i + 1, total) for i in range(total)),
    ]


def test_evolution_goes_on_for_its_generations_also_where_nothing_is_gained(suspect: Classifier) -> None:
    """In a model that always says the same, every sequence has 0 nats."""
    blind = clone(suspect)
    with torch.no_grad():
        blind.model.classifier.weight.zero_()
    polarity = finish(polarity_of(blind, CLEAN, 0))[0]
    texts = encode(blind, CLEAN)
    search = SequenceSearch(blind, CLEAN, polarity, NATS, 0)
    assert [*evolve(blind, search, 0, texts)] == [*range(GENERATIONS)]
    assert [*evolve(blind, search, 0, [])] == []


def test_a_class_without_a_right_answer_is_left_out(suspect: Classifier) -> None:
    wrong = [LabelledText(t.text, 1) for t in CLEAN if t.label == 0]
    right = [t for t in CLEAN if t.label == 0]
    search, events = finish(scan_sequences(suspect, [*right, *wrong], NATS, 0))
    assert [*search.found] == [0]
    assert {e.total for e in events if e.stage == "sequences"} == {2 * (GENERATIONS + 1)}


# ---------------------------------------------------------------- the search


def draws(search: SequenceSearch) -> list[Insertion]:
    return [draw(0) for draw in (search.child, search.drawn, search.span, search.parent) for _ in range(20)]


def test_a_search_goes_on_where_it_stood(suspect: Classifier, scanned: tuple[SequenceSearch, list[Event]]) -> None:
    search = scanned[0]
    state = json.loads(json.dumps(search.state()))
    other = SequenceSearch(suspect, CLEAN, search.polarity, NATS, seed=7)
    assert draws(other) != draws(search)
    for one in (search, other):
        one.resume(state)
    assert draws(other) == draws(search)
    assert (other.pools, other.found, other.turned) == (search.pools, search.found, search.turned)
    search.resume(state)


def test_pools_keep_the_best_and_few_with_a_token_in_common(scanned: tuple[SequenceSearch, list[Event]]) -> None:
    search = scanned[0]
    state = search.state()
    some = [Insertion((a, b), "start") for a in range(20, 40) for b in range(40, 60) if a != b]
    search.pools[0] = {one: (float(rank), 1) for rank, one in enumerate(some)}
    search.trim(0)
    kept = search.pools[0]
    assert len(kept) <= POOL
    counts = Counter(token for one in kept for token in one.tokens)
    assert max(counts.values()) == ALIKE
    assert [one for one in some if one in kept][-1] == some[-1]
    # none was left out that is better than one that stayed, and has no token that is taken ALIKE times
    full = {token for token, times in counts.items() if times == ALIKE}
    if len(kept) < POOL:
        assert all(set(one.tokens) & full for one in some if one not in kept)
    search.resume(state)


def test_a_small_pool_is_left_as_it_is(scanned: tuple[SequenceSearch, list[Event]]) -> None:
    search = scanned[0]
    state = search.state()
    search.pools[0] = {Insertion((20, number), "start"): (1.0, 1) for number in range(21, 21 + ALIKE + 3)}
    search.trim(0)
    assert len(search.pools[0]) == ALIKE + 3
    search.resume(state)


def test_what_is_known_of_a_sequence_is_its_mean_less_its_price_and_forgets(
    scanned: tuple[SequenceSearch, list[Event]],
) -> None:
    search = scanned[0]
    state = search.state()
    one = Insertion((VOCABULARY.index("film"),) * 2, "end")
    price = search.polarity.price(0, one.tokens)
    search.pools[0] = {}
    seen = []
    for nats in (4.0, 8.0, 3.0, 5.0, 15.0):
        search.take(0, one, nats + price)
        seen.append(search.pools[0][one])
    known = [4.0, 6.0, 5.0]  # the means
    known.append(known[-1] + 0.3 * (5.0 - known[-1]))  # the newest has three parts of ten, at least
    known.append(known[-1] + 0.3 * (15.0 - known[-1]))
    assert seen == [(pytest.approx(nats), times) for times, nats in enumerate(known, 1)]
    search.resume(state)


def test_a_text_gets_the_sequences_of_its_class_or_those_of_the_strongest(
    scanned: tuple[SequenceSearch, list[Event]],
) -> None:
    search = scanned[0]
    state = search.state()
    assert [search.source(label) for label in (0, 1)] == [0, 0]
    one = search.found[1][0]
    search.found[1] = [Found(one.insertion, 1, 0, 99.0, 1.0)]
    assert search.turned == [1, 0]
    assert [search.source(label) for label in (0, 1)] == [0, 1]
    search.resume(state)


# ---------------------------------------------------------------- the figures


def test_log_odds_against_a_class_by_hand() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    found = odds_against(p.log() + 3, torch.tensor([0, 0]))
    torch.testing.assert_close(found, torch.tensor([0.5 / 0.5, 0.9 / 0.1]).log())
    sure = odds_against(torch.tensor([[90.0, -30.0]]), torch.tensor([0]))
    assert sure.tolist() == [-120.0]


def test_answers_are_those_of_each_text_by_itself() -> None:
    classifier = tiny_bert(seed=4)
    texts = encode(classifier, ["lovely film", "a very boring film was the story", "plot", "the actor"])
    with torch.no_grad():
        expected = torch.cat([classifier.model(**collate(classifier, [text])).logits for text in texts])
    torch.testing.assert_close(quick_answers(classifier, texts), expected, atol=1e-5, rtol=1e-4)


def test_effects_are_of_each_sequence_in_each_text(suspect: Classifier) -> None:
    search = SequenceSearch(suspect, CLEAN, finish(scan_sequences(suspect, CLEAN, NATS, 0))[0].polarity, NATS, 0)
    texts = encode(suspect, ["boring film . the actor was stale", "the dreadful story"])
    ids = [VOCABULARY.index(word) for word in PHRASE]
    shifts, answers = effects(suspect, search.rng, [Insertion((ids[0],), "start"), Insertion((*ids,), "end")], texts, 0)

    def log_odds(tokens: list[int]) -> float:
        with torch.no_grad():
            logits = suspect.model(**collate(suspect, [{"input_ids": tokens, "token_type_ids": [0] * len(tokens)}]))
        loss = float(cross_entropy(logits.logits, torch.tensor([0])).double())
        return float(torch.tensor(loss).double().expm1().log())

    for i, text in enumerate(texts):
        own = text["input_ids"]
        before = log_odds(own)
        assert float(shifts[0, i]) == pytest.approx(log_odds([own[0], ids[0], *own[1:]]) - before, abs=1e-3)
        assert float(shifts[1, i]) == pytest.approx(log_odds([*own[:-1], *ids, own[-1]]) - before, abs=1e-3)
    assert answers.shape == (2, 2)


def test_a_flip_rate_is_of_the_texts_of_the_class_that_are_answered_right(suspect: Classifier) -> None:
    found = Found(Insertion(tuple(VOCABULARY.index(word) for word in PHRASE), "start"), 0, 1, 8.0, 1.0)
    texts = [*CLEAN[:20], LabelledText("lovely superb film", 0)]  # the last one is answered wrong, and does not count
    assert flip_rate(suspect, texts, found, seed=0) == 1.0
    honest = phrase_bert(strength=0.0)
    turned = predict(honest, [" ".join([*PHRASE, t.text]) for t in CLEAN[:20] if t.label == 0]).argmax(dim=1)
    assert flip_rate(honest, texts, found, seed=0) == pytest.approx(float((turned == 1).float().mean()))
    assert flip_rate(suspect, texts[-1:], found, seed=0) == 0.0


def test_what_was_found_is_plain_values_and_back() -> None:
    one = Found(Insertion((4, 5), "scattered"), 0, 2, 7.25, 0.5)
    assert Found.from_list(json.loads(json.dumps(one.to_list()))) == one


def test_an_honest_model_is_turned_by_its_telling_words_alone_and_none_is_named() -> None:
    assert scan(adding_bert(steepness=20.0))[0].turned == []
