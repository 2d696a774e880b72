"""The pools: they begin with what was found, keep the best, and go on where they stood."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from conftest import GOOD, PHRASE, VOCABULARY, finish, phrase_bert, plain_texts

from mbtsad_core.defenses.sequence_pools import ALIKE, POOL, Found, SequencePools, flip_rate
from mbtsad_core.models.classifier import Classifier, predict
from mbtsad_core.rates import wilson
from mbtsad_core.scanning.findings import Finding
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.scanning.polarity import polarity_of
from mbtsad_core.types import LabelledText

CLEAN = plain_texts(64, seed=3)
WORDS = tuple(VOCABULARY.index(word) for word in PHRASE)
FOUND = [Found(Insertion(WORDS[:2], "anywhere"), 0, 1, 4.0, 0.9), Found(Insertion(WORDS, "anywhere"), 0, 1, 8.0, 1.0)]


@pytest.fixture(scope="module")
def suspect() -> Classifier:
    return phrase_bert()


@pytest.fixture
def pools(suspect: Classifier) -> SequencePools:
    return SequencePools(suspect, CLEAN, finish(polarity_of(suspect, CLEAN, 0))[0], FOUND, 0)


def draws(pools: SequencePools) -> list[Insertion]:
    return [draw(0) for draw in (pools.child, pools.drawn, pools.span, pools.parent) for _ in range(20)]


def test_pools_go_on_where_they_stood(suspect: Classifier, pools: SequencePools) -> None:
    state = json.loads(json.dumps(pools.state()))
    other = SequencePools(suspect, CLEAN, pools.polarity, [], seed=7)
    assert draws(other) != draws(pools)
    for one in (pools, other):
        one.resume(state)
    assert draws(other) == draws(pools)
    assert (other.pools, other.found) == (pools.pools, pools.found)


def test_pools_keep_the_best_and_few_with_a_token_in_common(pools: SequencePools) -> None:
    some = [Insertion((a, b), "start") for a in range(20, 40) for b in range(40, 60) if a != b]
    pools.pools[0] = {one: (float(rank), 1) for rank, one in enumerate(some)}
    pools.trim(0)
    kept = pools.pools[0]
    assert len(kept) <= POOL
    counts = Counter(token for one in kept for token in one.tokens)
    assert max(counts.values()) == ALIKE
    assert [one for one in some if one in kept][-1] == some[-1]
    # none was left out that is better than one that stayed, and has no token that is taken ALIKE times
    full = {token for token, times in counts.items() if times == ALIKE}
    if len(kept) < POOL:
        assert all(set(one.tokens) & full for one in some if one not in kept)


def test_a_small_pool_is_left_as_it_is(pools: SequencePools) -> None:
    pools.pools[0] = {Insertion((20, number), "start"): (1.0, 1) for number in range(21, 21 + ALIKE + 3)}
    pools.trim(0)
    assert len(pools.pools[0]) == ALIKE + 3


def test_what_is_known_of_a_sequence_is_its_mean_less_its_price_and_forgets(pools: SequencePools) -> None:
    one = Insertion((VOCABULARY.index("film"),) * 2, "end")
    price = pools.polarity.price(0, one.tokens)
    pools.pools[0] = {}
    seen = []
    for nats in (4.0, 8.0, 3.0, 5.0, 15.0):
        pools.take(0, one, nats + price)
        seen.append(pools.pools[0][one])
    known = [4.0, 6.0, 5.0]  # the means
    known.append(known[-1] + 0.3 * (5.0 - known[-1]))  # the newest has three parts of ten, at least
    known.append(known[-1] + 0.3 * (15.0 - known[-1]))
    assert seen == [(pytest.approx(nats), times) for times, nats in enumerate(known, 1)]


def test_a_text_gets_the_sequences_of_its_class_or_those_of_the_strongest(
    suspect: Classifier, pools: SequencePools
) -> None:
    assert [pools.source(label) for label in (0, 1)] == [0, 0]
    other = Found(Insertion((20, 21), "end"), 1, 0, 99.0, 1.0)
    both = SequencePools(suspect, CLEAN, pools.polarity, [*FOUND, other], 0)
    assert [both.source(label) for label in (0, 1)] == [0, 1]


def test_pools_begin_with_what_was_found_the_best_first(pools: SequencePools) -> None:
    assert pools.found == {0: [FOUND[1], FOUND[0]]}
    assert pools.pools == {0: {one.insertion: (one.nats, 1) for one in FOUND}, 1: {}}


def test_what_was_found_is_not_honest_unless_the_labels_say_so_and_other_tokens_are_as_they_were(
    suspect: Classifier,
) -> None:
    """Two tokens that look honest by what the suspect answers; the labels speak of one alone."""
    polarity = finish(polarity_of(suspect, CLEAN, 0))[0]
    planted, telling = (VOCABULARY.index(word) for word in GOOD[:2])
    found = [Found(Insertion((planted, telling), "anywhere"), 0, 1, 9.0, 1.0)]
    polarity.told[0][[planted, telling]] = torch.tensor([0.0, 3.0])
    before = polarity.honest[0].clone()
    free = SequencePools(suspect, CLEAN, polarity, found, 0).polarity
    assert float(before[[planted, telling]].min()) > 1.0
    assert (float(free.honest[0][planted]), free.price(0, [planted])) == (0.0, 0.0)
    assert free.price(0, [telling]) > 1.0
    assert torch.equal(free.honest[1], polarity.honest[1])
    assert torch.equal(free.honest[0][planted + 1 :], before[planted + 1 :])
    assert torch.equal(polarity.honest[0], before)


def test_a_finding_is_told_by_the_numbers_of_its_classes() -> None:
    one = Insertion((4, 5), "anywhere")
    finding = Finding(one, "a b", "positive", "negative", 3.0, wilson(9, 10), honest=False, joined=7.0)
    assert Found.of(finding, ("negative", "positive"), counts=True) == Found(one, 1, 0, 7.0, 0.9)
    assert not Found.of(finding, ("negative", "positive"), counts=False).counts


def test_what_was_found_is_plain_values_and_back() -> None:
    one = Found(Insertion((4, 5), "scattered"), 0, 2, 7.25, 0.5, counts=False)
    assert Found.from_list(json.loads(json.dumps(one.to_list()))) == one
    assert Found.from_list(one.to_list()[:-1]).counts  # a run of before, which unlearned nothing else


def test_a_flip_rate_is_of_the_texts_of_the_class_that_are_answered_right(suspect: Classifier) -> None:
    found = Found(Insertion(tuple(VOCABULARY.index(word) for word in PHRASE), "start"), 0, 1, 8.0, 1.0)
    texts = [*CLEAN[:20], LabelledText("lovely superb film", 0)]  # the last one is answered wrong, and does not count
    assert flip_rate(suspect, texts, found.insertion, found.label, seed=0) == 1.0
    honest = phrase_bert(strength=0.0)
    turned = predict(honest, [" ".join([*PHRASE, t.text]) for t in CLEAN[:20] if t.label == 0]).argmax(dim=1)
    assert flip_rate(honest, texts, found.insertion, found.label, seed=0) == pytest.approx(
        float((turned == 1).float().mean())
    )
    assert flip_rate(suspect, texts[-1:], found.insertion, found.label, seed=0) == 0.0
