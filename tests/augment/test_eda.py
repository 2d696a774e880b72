"""EDA: what each operation does, how often, and on which words."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from scipy.stats import chisquare

from mbtsad_core.augment.eda import OPERATIONS, drop_words, eda, insert_words, replace_words, swap_words
from mbtsad_core.augment.wordnet import synonyms
from mbtsad_core.errors import BadData

pytestmark = pytest.mark.usefixtures("wordnet")

TEXT = "the film was boring and the music was truly lovely in every scene of it the actor and the story"  # 19 words
WORDS = TEXT.split()
LONG = [*WORDS, *WORDS[:11]]  # 30: three times
TOO_RARE = 1e-4


def draws(operation, words: list[str], amount: float, n: int = 300) -> list[list[str]]:
    return [operation(list(words), random.Random(seed), amount) for seed in range(n)]


@pytest.mark.parametrize(
    ("n", "count", "times"),
    [(1, None, 1), (9, None, 1), (19, None, 1), (20, None, 2), (30, None, 3), (99, None, 9), (9, 4, 4), (99, 2, 2)],
)
def test_a_tenth_of_the_words_is_inserted_rounded_down_and_one_at_least_or_the_count_given(
    n: int, count: int | None, times: int
) -> None:
    lengths = {len(eda(" ".join(["story"] * n), random.Random(seed), count).split()) for seed in range(40)}
    assert {length - n for length in lengths if length > n} == {times}


@pytest.mark.parametrize("n", [20, 40])
def test_a_count_is_how_many_words_go_on_average(n: int) -> None:
    # Nothing to replace or insert
    lengths = [len(eda(" ".join(["music"] * n), random.Random(seed), 6).split()) for seed in range(1000)]
    # One draw in four drops words
    assert sum(n - length for length in lengths) / 1000 == pytest.approx(6 / 4, abs=0.35)


# ---------------------------------------------------------------- replacement


def test_replacement_puts_a_synonym_for_as_many_different_words_wherever_they_stand() -> None:
    for found in draws(replace_words, LONG, 3):
        changed = {(old, new) for old, new in zip(LONG, found, strict=True) if old != new}
        assert len(changed) == 3
        assert all(new in synonyms(old) for old, new in changed)
        assert all(new not in [old for old, _ in changed] for new in found)  # nowhere the old word


def test_replacement_leaves_stop_words_and_words_without_synonyms() -> None:
    replaced = {
        old
        for found in draws(replace_words, WORDS, 1, 400)
        for old, new in zip(WORDS, found, strict=True)
        if old != new
    }
    assert replaced == {"film", "boring", "lovely", "scene", "actor", "story", "truly"}


def test_every_synonym_is_as_likely() -> None:
    found = Counter(" ".join(words) for words in draws(replace_words, ["film"], 1, 4000))
    assert set(found) == set(synonyms("film"))
    assert chisquare(list(found.values())).pvalue > TOO_RARE


def test_where_fewer_words_have_synonyms_fewer_are_replaced() -> None:
    assert replace_words(["music"] * 30, random.Random(0), 3) == ["music"] * 30


# ---------------------------------------------------------------- insertion, swap, deletion


def test_insertion_adds_synonyms_of_words_of_the_text_and_nothing_else() -> None:
    for found in draws(insert_words, LONG, 3):
        new = list((Counter(found) - Counter(LONG)).elements())
        assert len(new) <= 3  # fewer where ten draws found words without synonyms alone
        rest = iter(found)
        assert all(word in rest for word in LONG)  # the old ones in their order
    assert Counter(len(" ".join(found).split()) > len(LONG) for found in draws(insert_words, LONG, 3))[True] > 290


def test_insertion_gives_up_where_no_word_has_a_synonym() -> None:
    assert insert_words(["music"] * 30, random.Random(0), 3) == ["music"] * 30


def test_a_swap_exchanges_two_words_at_different_places() -> None:
    numbered = [str(i) for i in range(12)]
    for found in draws(swap_words, numbered, 1):
        moved = [i for i in range(12) if found[i] != numbered[i]]
        assert len(moved) == 2
        i, j = moved
        assert (found[i], found[j]) == (numbered[j], numbered[i])


def test_swaps_are_as_many_as_asked_for() -> None:
    numbered = [str(i) for i in range(30)]
    moved = [sum(a != b for a, b in zip(numbered, found, strict=True)) for found in draws(swap_words, numbered, 3)]
    assert max(moved) == 6
    assert Counter(moved)[6] > 150  # three times two, unless a place is drawn twice


def test_a_word_alone_is_not_swapped() -> None:
    assert swap_words(["film"], random.Random(0), 1) == ["film"]


def test_each_word_is_dropped_with_chance_a_tenth() -> None:
    lengths = [len(found) for found in draws(drop_words, [str(i) for i in range(50)], 0.1, 2000)]
    assert sum(lengths) / 2000 == pytest.approx(45, abs=4 * (50 * 0.09 / 2000) ** 0.5)


def test_the_last_word_is_never_dropped() -> None:
    assert {tuple(drop_words(["film"], random.Random(seed), 0.5)) for seed in range(100)} == {("film",)}


# ---------------------------------------------------------------- the augmenter


def test_one_operation_is_drawn_with_equal_chances() -> None:
    text = "a b c d e f g h i j"
    kinds = Counter[str]()
    for seed in range(2000):
        found = eda(text, random.Random(seed)).split()
        kinds["swap" if sorted(found) == sorted(text.split()) and found != text.split() else "other"] += 1
    assert len(OPERATIONS) == 4
    assert chisquare([kinds["swap"], kinds["other"]], [500, 1500]).pvalue > TOO_RARE


def test_the_text_comes_in_small_letters_alone() -> None:
    for seed in range(60):
        found = eda("It's a STIRRING re-imagining, of 1930s horror!", random.Random(seed))
        assert found == found.lower()
        assert set(found) <= set("abcdefghijklmnopqrstuvwxyz ")


def test_an_apostrophe_goes_and_a_hyphen_parts_words() -> None:
    found = {tuple(sorted(eda("It's re-done", random.Random(seed)).split())) for seed in range(60)}
    assert ("done", "its", "re") in found


@pytest.mark.parametrize("text", ["", "  ", "1930 !", "映画"])
def test_a_text_without_letters_comes_back_unchanged(text: str) -> None:
    assert eda(text, random.Random(0)) == text


def test_without_wordnet_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    with pytest.raises(BadData, match="apt-get install wordnet-base"):
        replace_words(WORDS, random.Random(0), 1)
