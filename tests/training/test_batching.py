"""Batches: every text once an epoch, texts of like length together, and no more order than that."""

from __future__ import annotations

import math
import random

import pytest

from mbtsad_core.training.batching import batches

SIZES = [(1, 1), (5, 8), (8, 8), (9, 8), (100, 32), (512, 32), (513, 32), (1000, 7)]


def lengths(n: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randint(4, 128) for _ in range(n)]


def padding(found: list[list[int]], tokens: list[int]) -> int:
    """Padding tokens of all batches together."""
    return sum(max(tokens[i] for i in batch) * len(batch) - sum(tokens[i] for i in batch) for batch in found)


@pytest.mark.parametrize(("texts", "size"), SIZES)
def test_every_text_is_in_one_batch(texts: int, size: int) -> None:
    assert sorted(i for batch in batches(lengths(texts), size, random.Random(0)) for i in batch) == list(range(texts))


@pytest.mark.parametrize(("texts", "size"), SIZES)
def test_all_batches_but_one_are_full(texts: int, size: int) -> None:
    sizes = sorted(len(batch) for batch in batches(lengths(texts), size, random.Random(0)))
    assert sizes == sorted([texts % size] * (texts % size > 0) + [size] * (texts // size))


@pytest.mark.parametrize(("texts", "size"), SIZES)
def test_there_are_as_few_batches_as_can_be(texts: int, size: int) -> None:
    assert len(batches(lengths(texts), size, random.Random(0))) == math.ceil(texts / size)


def test_texts_of_like_length_are_together() -> None:
    tokens = lengths(2048)
    shuffled = random.Random(1).sample(range(2048), 2048)
    by_chance = [shuffled[i : i + 32] for i in range(0, 2048, 32)]
    assert padding(batches(tokens, 32, random.Random(0)), tokens) < 0.15 * padding(by_chance, tokens)


def test_batches_of_short_and_long_texts_come_in_random_order() -> None:
    tokens = lengths(512)
    orders = [
        [max(tokens[i] for i in batch) for batch in batches(tokens, 32, random.Random(seed))] for seed in range(20)
    ]
    assert all(order != sorted(order) for order in orders)
    assert len({order.index(max(order)) for order in orders}) > 5


def test_a_seed_always_gives_the_same_batches() -> None:
    assert batches(lengths(300), 16, random.Random(4)) == batches(lengths(300), 16, random.Random(4))


def test_who_is_together_differs_from_epoch_to_epoch() -> None:
    rng = random.Random(0)
    first, second = ({frozenset(batch) for batch in batches(lengths(1024), 16, rng)} for _ in range(2))
    assert len(first & second) <= 1


def test_texts_of_one_length_are_shuffled_too() -> None:
    assert batches([9] * 64, 16, random.Random(0)) != batches([9] * 64, 16, random.Random(1))


def test_no_texts_make_no_batches() -> None:
    assert batches([], 8, random.Random(0)) == []
