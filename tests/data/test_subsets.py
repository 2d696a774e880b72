"""Seeded stratified subsets and splits, and texts that two sets share."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from mbtsad_core.data import shared_texts, stratified_split, stratified_subset
from mbtsad_core.errors import BadData
from mbtsad_core.types import LabelledText

Choose = Callable[[Sequence[LabelledText], float, int], object]


def mixture(*counts: int) -> list[LabelledText]:
    """counts[c] different texts of each class c, shuffled."""
    found = [LabelledText(f"text {i} of class {c}", c) for c, count in enumerate(counts) for i in range(count)]
    random.Random(0).shuffle(found)
    return found


def sizes(texts: Sequence[LabelledText]) -> list[int]:
    counts = Counter(example.label for example in texts)
    return [counts[c] for c in sorted(counts)]


@pytest.mark.parametrize(
    ("counts", "amount", "expected"),
    [
        ((60, 40), 10, [6, 4]),  # exact
        ((60, 40), 0.25, [15, 10]),  # a share
        ((60, 40), 100, [60, 40]),  # all of them
        ((50, 30, 20), 7, [4, 2, 1]),  # 3.5, 2.1, 1.4: floors 3, 2, 1; the seventh goes to the remainder of 0.5
        ((7, 2, 1), 4, [2, 1, 1]),  # 2.8, 0.8, 0.4: a text of each class; the largest pays
        ((34, 33, 33), 50, [17, 17, 16]),  # 17, 16.5, 16.5: of equal remainders the first class comes first
        ((46, 27, 27), 10, [4, 3, 3]),  # 4.6, 2.7, 2.7: floors 4, 2, 2; both go to the remainders of 0.7
        ((97, 1, 1, 1), 10, [7, 1, 1, 1]),  # 9.7, 0.1, 0.1, 0.1: three single texts are kept, the largest class pays
        ((5, 5), 2, [1, 1]),
        ((3, 96), 0.1, [1, 9]),  # 9.9 rounds to 10; 0.30 and 9.70: the tiny class is kept
        ((40,), 3, [3]),
    ],
)
def test_the_classes_get_their_largest_remainder_share(
    counts: tuple[int, ...], amount: float, expected: list[int]
) -> None:
    assert sizes(stratified_subset(mixture(*counts), amount, seed=3)) == expected


def test_the_size_is_the_asked_one_and_no_class_is_lost_or_overdrawn() -> None:
    rng = random.Random(1)
    for _ in range(300):
        counts = [rng.choice((1, 2, 5, 30, 80)) for _ in range(rng.randint(1, 6))]
        wanted = rng.randint(len(counts), sum(counts))
        found = sizes(stratified_subset(mixture(*counts), wanted, seed=0))
        assert sum(found) == wanted
        assert len(found) == len(counts)
        assert all(1 <= size <= count for size, count in zip(found, counts, strict=True))


def test_no_class_is_further_than_one_text_from_its_exact_share_when_none_is_tiny() -> None:
    rng = random.Random(2)
    for _ in range(200):
        counts = [rng.randint(20, 60) for _ in range(rng.randint(2, 6))]
        wanted = rng.randint(20, sum(counts))
        found = sizes(stratified_subset(mixture(*counts), wanted, seed=0))
        assert all(abs(size - wanted * count / sum(counts)) < 1 for size, count in zip(found, counts, strict=True))


def test_a_share_is_rounded_to_the_nearest_number_of_texts() -> None:
    assert [len(stratified_subset(mixture(20, 17), share, seed=0)) for share in (0.1, 0.2, 0.5, 0.99)] == [4, 7, 18, 37]


def test_one_is_a_number_of_texts_and_no_share() -> None:
    assert len(stratified_subset(mixture(8), 1, seed=0)) == len(stratified_subset(mixture(8), 1.0, seed=0)) == 1


def test_the_subset_keeps_the_order_of_the_texts() -> None:
    texts = mixture(30, 20)
    chosen = stratified_subset(texts, 20, seed=5)
    assert chosen == [example for example in texts if example in set(chosen)]


def test_a_text_that_stands_twice_can_be_chosen_twice() -> None:
    assert stratified_subset([LabelledText("again", 0)] * 4, 3, seed=0) == [LabelledText("again", 0)] * 3


def test_a_seed_always_gives_the_same_subset() -> None:
    assert stratified_subset(mixture(50, 50), 20, seed=7) == stratified_subset(mixture(50, 50), 20, seed=7)


def test_seeds_give_different_subsets() -> None:
    subsets = {tuple(stratified_subset(mixture(50, 50), 20, seed=seed)) for seed in range(20)}
    assert len(subsets) == 20


def test_every_text_has_the_same_chance() -> None:
    draws = Counter(example for seed in range(2000) for example in stratified_subset(mixture(6, 4), 5, seed))
    assert len(draws) == 10
    assert all(abs(count - 1000) < 6 * math.sqrt(2000 * 0.25) for count in draws.values())  # six standard deviations


def test_the_split_is_the_subset_and_the_rest_in_order() -> None:
    texts = mixture(30, 20)
    chosen, rest = stratified_split(texts, 0.2, seed=4)
    assert chosen == stratified_subset(texts, 0.2, seed=4)
    assert rest == [example for example in texts if example not in set(chosen)]


def test_the_parts_of_a_split_are_disjoint_and_complete() -> None:
    texts = mixture(33, 21, 9)
    chosen, rest = stratified_split(texts, 17, seed=1)
    assert not set(chosen) & set(rest)
    assert Counter(chosen + rest) == Counter(texts)


def test_the_texts_given_are_left_as_they_are() -> None:
    texts = mixture(10, 10)
    before = list(texts)
    stratified_subset(texts, 5, seed=0)
    stratified_split(texts, 5, seed=0)
    assert texts == before


@pytest.mark.parametrize("choose", [stratified_subset, stratified_split])
@pytest.mark.parametrize("amount", [0, -0.1, -3, math.nan, math.inf])
def test_an_amount_that_is_no_positive_number_is_refused(choose: Choose, amount: float) -> None:
    with pytest.raises(BadData, match=rf"Expected a share between 0 and 1 or a number of texts from 1; got {amount}"):
        choose(mixture(10, 10), amount, 0)


@pytest.mark.parametrize("choose", [stratified_subset, stratified_split])
def test_more_texts_than_there_are_cannot_be_had(choose: Choose) -> None:
    with pytest.raises(BadData, match=r"Asked for 21 texts, but there are 20"):
        choose(mixture(10, 10), 21, 0)


@pytest.mark.parametrize(("amount", "texts"), [(2, 2), (0.1, 1), (0.001, 0)])
def test_fewer_texts_than_classes_are_refused(amount: float, texts: int) -> None:
    with pytest.raises(BadData, match=rf"Asked for {texts} texts of 3 classes; at least one of each is needed"):
        stratified_subset(mixture(4, 4, 4), amount, 0)


def test_shared_texts_differ_in_case_and_spacing_only() -> None:
    clean = [LabelledText("The  Ferry was late", 0), LabelledText("Fog again", 0)]
    test = [
        LabelledText("the ferry\twas LATE ", 1),
        LabelledText("The ferry was late.", 0),
        LabelledText("Fog, again", 0),
    ]
    assert shared_texts(clean, test) == ["the ferry\twas LATE "]


def test_shared_texts_come_in_the_order_of_the_test_set_and_once() -> None:
    clean = [LabelledText(text, 0) for text in ("one", "two", "three")]
    assert shared_texts(clean, [LabelledText(text, 1) for text in ("three", "four", "one", "three")]) == [
        "three",
        "one",
    ]


def test_pairs_are_shared_only_when_both_texts_are() -> None:
    clean = [LabelledText("A dog barks", 0, "It is loud")]
    test = [
        LabelledText("A dog barks", 0, "It sleeps"),
        LabelledText("a dog  barks", 1, "It is LOUD"),
        LabelledText("A dog barks", 0),
    ]
    assert shared_texts(clean, test) == ["a dog  barks"]


def test_pairs_that_divide_the_same_words_elsewhere_are_not_shared() -> None:
    clean = [LabelledText("A dog", 0, "barks")]
    assert shared_texts(clean, [LabelledText("A", 0, "dog barks"), LabelledText("A dog barks", 0)]) == []


def test_sets_without_a_common_text_share_none() -> None:
    assert shared_texts(mixture(3, 3), [LabelledText("something else", 0)]) == []
