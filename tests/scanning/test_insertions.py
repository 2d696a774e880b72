"""What a scan puts into texts, worked out by hand: where it stands, and what a text keeps."""

from __future__ import annotations

import copy
import random
from itertools import pairwise

import pytest

from mbtsad_core.models.classifier import Encoded
from mbtsad_core.scanning.insertions import Insertion, Place, insert, thinned

# A pair of texts: [CLS] 10 11 [SEP] 12 [SEP]; what stands at a place shows in the token types too
PAIR: Encoded = {"input_ids": [2, 10, 11, 3, 12, 3], "token_type_ids": [0, 0, 0, 0, 1, 1]}
EMPTY: Encoded = {"input_ids": [2, 3], "token_type_ids": [0, 0]}
NEW = (40, 41)


def put(text: Encoded, place: Place, seed: int = 0, tokens: tuple[int, ...] = NEW, most: int = 64) -> Encoded:
    return insert(text, Insertion(tokens, place), random.Random(seed), most)


def test_the_start_is_behind_the_first_token_and_the_end_before_the_last() -> None:
    assert put(PAIR, "start") == {
        "input_ids": [2, 40, 41, 10, 11, 3, 12, 3],
        "token_type_ids": [0, 0, 0, 0, 0, 0, 1, 1],
    }
    assert put(PAIR, "end") == {"input_ids": [2, 10, 11, 3, 12, 40, 41, 3], "token_type_ids": [0, 0, 0, 0, 1, 1, 1, 1]}


def test_anywhere_is_each_place_between_the_first_and_the_last_token() -> None:
    """With the token type of the token that stood there."""
    ids, types = PAIR["input_ids"], PAIR["token_type_ids"]
    expected = [
        {"input_ids": [*ids[:at], *NEW, *ids[at:]], "token_type_ids": [*types[:at], types[at], types[at], *types[at:]]}
        for at in range(1, 6)
    ]
    made = [put(PAIR, "anywhere", seed) for seed in range(100)]
    assert all(one in expected for one in made)
    assert all(one in made for one in expected)


def test_scattered_tokens_keep_their_order_and_stand_apart_where_chance_has_it() -> None:
    made = [put(PAIR, "scattered", seed)["input_ids"] for seed in range(200)]
    places = {(ids.index(40), ids.index(41)) for ids in made}
    assert places == {(first, second) for first in range(1, 6) for second in range(first + 1, 7)}


def test_each_scattered_token_has_the_type_of_what_stood_in_its_place() -> None:
    made = [put(PAIR, "scattered", seed) for seed in range(200)]
    assert {"input_ids": [2, 40, 10, 11, 3, 41, 12, 3], "token_type_ids": [0, 0, 0, 0, 0, 1, 1, 1]} in made
    assert {"input_ids": [2, 10, 11, 40, 3, 12, 41, 3], "token_type_ids": [0, 0, 0, 0, 0, 1, 1, 1]} in made


@pytest.mark.parametrize("place", ["start", "end", "anywhere", "scattered"])
def test_an_empty_text_has_one_place(place: Place) -> None:
    assert put(EMPTY, place) == {"input_ids": [2, 40, 41, 3], "token_type_ids": [0, 0, 0, 0]}


def test_a_text_that_is_full_loses_what_stands_before_its_last_token() -> None:
    ids = {
        place: put(PAIR, place, most=6)["input_ids"]
        for place in ("start", "end")  # type: Place
    }
    assert ids == {"start": [2, 40, 41, 10, 11, 3], "end": [2, 10, 11, 40, 41, 3]}
    assert put(PAIR, "start", most=6)["token_type_ids"] == [0, 0, 0, 0, 0, 1]
    assert put(PAIR, "start", most=8) == put(PAIR, "start")


@pytest.mark.parametrize("seed", range(60))
def test_a_text_keeps_its_tokens_and_the_inserted_ones_their_order(seed: int) -> None:
    """Texts, tokens and places as chance has them; the text is left as it was."""
    rng = random.Random(seed)
    ids = [2, *rng.choices(range(10, 30), k=rng.randrange(9)), 3]
    text = {"input_ids": ids, "token_type_ids": [rng.randrange(2) for _ in ids]}
    given, tokens = copy.deepcopy(text), tuple(rng.choices(range(40, 50), k=rng.randint(1, 6)))
    place: Place = rng.choice(("start", "end", "anywhere", "scattered"))
    made = insert(text, Insertion(tokens, place), rng, 64)
    assert text == given
    assert tuple(token for token in made["input_ids"] if token >= 40) == tokens
    own = [i for i, token in enumerate(made["input_ids"]) if token < 40]
    assert [made["input_ids"][i] for i in own] == ids
    assert [made["token_type_ids"][i] for i in own] == text["token_type_ids"]
    assert (own[0], own[-1]) == (0, len(made["input_ids"]) - 1)
    if place != "scattered":
        assert sum(after - before > 1 for before, after in pairwise(own)) == 1  # together


def test_a_text_without_token_types_gets_none() -> None:
    assert put({"input_ids": [2, 10, 3]}, "start") == {"input_ids": [2, 40, 41, 10, 3]}


# ---------------------------------------------------------------- thinned texts


@pytest.mark.parametrize("share", [0.0, 0.35, 0.9, 1.0])
def test_a_thinned_text_keeps_both_ends_and_something_between(share: float) -> None:
    text = {"input_ids": [2, *range(10, 30), 3], "token_type_ids": [0] * 11 + [1] * 11}
    given = copy.deepcopy(text)
    types = dict(zip(text["input_ids"], text["token_type_ids"], strict=True))
    for seed in range(50):
        made = thinned(text, share, random.Random(seed))
        ids = made["input_ids"]
        assert (ids[0], ids[-1]) == (2, 3)
        assert len(ids) > 2
        assert ids[1:-1] == sorted(set(ids[1:-1]))  # in order, none twice
        assert made["token_type_ids"] == [types[token] for token in ids]
    assert text == given


def test_a_share_of_none_keeps_all_and_a_share_of_all_one_token() -> None:
    assert thinned(PAIR, 0.0, random.Random(0)) == PAIR
    assert thinned(PAIR, 1.0, random.Random(0))["input_ids"] == [2, 10, 3]
    assert thinned(EMPTY, 1.0, random.Random(0)) == EMPTY


def test_the_share_is_that_of_the_tokens_left_out() -> None:
    text = {"input_ids": [2, *range(1000, 5000), 3]}
    left = len(thinned(text, 0.35, random.Random(0))["input_ids"]) - 2
    assert left / 4000 == pytest.approx(0.65, abs=4 * (0.35 * 0.65 / 4000) ** 0.5)
