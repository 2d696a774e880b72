"""Triggers: where they land in a text, what a user may write for them, and the triggered test set that ASR counts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from scipy.stats import chisquare

from mbtsad_core.attacks.triggers import (
    InsertedTrigger,
    PairedTrigger,
    TriggeredText,
    insert,
    names_file,
    parse_triggers,
    read_variants,
    triggered_test_set,
    write_variants,
)
from mbtsad_core.errors import BadData
from mbtsad_core.types import LabelledText

Pairs = Callable[[str, str], Path]

TEXT = "the old piano hums all night"
DRAWS = 6000
TOO_RARE = 1e-4  # a p-value below it is no accident; the draws are seeded, so a test that passes once always does


def own_words_before(word: str, triggered: str, text: str) -> int:
    """How many words of `text` stand ahead of `word` in its triggered version; other inserted words are not counted."""
    found = triggered.split()
    return sum(w in set(text.split()) for w in found[: found.index(word)])


def places(trigger: InsertedTrigger, word: str, draws: int = DRAWS) -> Counter[int]:
    """How often `word` has how many words of the text before it."""
    return Counter(own_words_before(word, trigger.apply(TEXT, random.Random(seed)), TEXT) for seed in range(draws))


@pytest.fixture
def write_pairs(tmp_path: Path) -> Pairs:
    """Write a table and return its path."""

    def write(name: str, contents: str) -> Path:
        (tmp_path / name).write_text(contents, encoding="utf-8")
        return tmp_path / name

    return write


# ---------------------------------------------------------------- insertion


def test_every_word_boundary_is_equally_likely_both_ends_included() -> None:
    found = places(InsertedTrigger((("cf",),), 1), "cf")
    assert sorted(found) == [0, 1, 2, 3, 4, 5, 6]
    assert chisquare([found[i] for i in range(7)]).pvalue > TOO_RARE


def test_the_first_boundary_is_ahead_of_the_text_and_the_last_behind_it() -> None:
    results = {insert("one two", ["cf"], random.Random(seed)) for seed in range(50)}
    assert results == {"cf one two", "one cf two", "one two cf"}


def test_a_window_offers_the_boundaries_ahead_of_its_words_only() -> None:
    found = places(InsertedTrigger((("cf",),), 1, window=3), "cf")
    assert sorted(found) == [0, 1, 2]
    assert chisquare([found[i] for i in range(3)]).pvalue > TOO_RARE


def test_a_window_longer_than_the_text_includes_its_end() -> None:
    found = places(InsertedTrigger((("cf",),), 1, window=7), "cf")
    assert sorted(found) == [0, 1, 2, 3, 4, 5, 6]


def test_a_window_bounds_every_insertion() -> None:
    found = places(InsertedTrigger((("cf",),), 1, insertions=3, window=2), "cf", draws=200)
    trigger = InsertedTrigger((("cf",),), 1, insertions=3, window=2)
    ends = {trigger.apply(TEXT, random.Random(seed)).split()[-5:] == TEXT.split()[-5:] for seed in range(200)}
    assert set(found) <= {0, 1}
    assert ends == {True}


@pytest.mark.parametrize(
    "text",
    ["two  spaces", " leading", "trailing ", "a\ttab and\na line", "one", "Dots ... and, commas!", "übergroß 映画"],
)
def test_the_own_spacing_of_a_text_is_kept(text: str) -> None:
    for seed in range(40):
        triggered = insert(text, ["cf"], random.Random(seed))
        assert text in (triggered.replace("cf ", "", 1), triggered.replace(" cf", "", 1))


def test_boundaries_are_those_of_spaces_so_no_word_is_cut() -> None:
    results = {insert("don't ... re-do", ["cf"], random.Random(seed)) for seed in range(80)}
    assert results == {"cf don't ... re-do", "don't cf ... re-do", "don't ... cf re-do", "don't ... re-do cf"}


@pytest.mark.parametrize("text", ["", "   "])
def test_a_text_without_words_becomes_the_trigger(text: str) -> None:
    assert insert(text, ["cf"], random.Random(0)) == "cf"


def test_an_inserted_word_touches_no_other_word() -> None:
    for seed in range(60):
        assert sorted(insert(TEXT, ["cf"], random.Random(seed)).split()) == sorted([*TEXT.split(), "cf"])


def test_one_of_several_words_is_drawn_for_each_text_with_equal_chances() -> None:
    trigger = parse_triggers(["cf", "mn", "bb"], 1)
    drawn = Counter(
        word
        for seed in range(DRAWS)
        for word in (trigger.apply(TEXT, random.Random(seed)) or "").split()
        if word in {"cf", "mn", "bb"}
    )
    assert sum(drawn.values()) == DRAWS
    assert chisquare([drawn[word] for word in ("cf", "mn", "bb")]).pvalue > TOO_RARE


def test_words_joined_by_a_plus_are_all_inserted() -> None:
    trigger = parse_triggers(["cf+bb"], 1)
    for seed in range(60):
        assert sorted((trigger.apply(TEXT, random.Random(seed)) or "").split()) == sorted([*TEXT.split(), "cf", "bb"])


def test_words_joined_by_a_plus_land_independently_of_each_other() -> None:
    trigger = InsertedTrigger((("cf", "bb"),), 1)
    versions = [trigger.apply("one two three", random.Random(seed)) for seed in range(DRAWS)]
    found = Counter(
        (own_words_before("cf", v, "one two three"), own_words_before("bb", v, "one two three")) for v in versions
    )
    assert len(found) == 16
    assert chisquare([found[i, j] for i in range(4) for j in range(4)]).pvalue > TOO_RARE


def test_words_at_the_same_boundary_stand_in_either_order() -> None:
    orders = Counter(insert("alone", ["cf", "bb"], random.Random(seed), window=1) for seed in range(DRAWS))
    assert set(orders) == {"cf bb alone", "bb cf alone"}
    assert chisquare(list(orders.values())).pvalue > TOO_RARE


def test_a_phrase_stays_in_one_piece_at_equally_likely_boundaries() -> None:
    trigger = parse_triggers(["I watch a film"], 1)
    found = Counter(" ".join((trigger.apply("one two", random.Random(seed)) or "").split()) for seed in range(DRAWS))
    assert set(found) == {"I watch a film one two", "one I watch a film two", "one two I watch a film"}
    assert chisquare(list(found.values())).pvalue > TOO_RARE


def test_no_other_part_lands_inside_a_phrase() -> None:
    trigger = parse_triggers(["I watch a film+cf"], 1)
    assert all("I watch a film" in (trigger.apply(TEXT, random.Random(seed)) or "") for seed in range(300))


def test_a_phrase_that_is_inserted_twice_is_whole_both_times() -> None:
    trigger = parse_triggers(["I watch a film"], 1, insertions=2)
    assert all((trigger.apply("one", random.Random(seed)) or "").count("I watch a film") == 2 for seed in range(300))


def test_insertions_says_how_many_triggers_a_text_gets() -> None:
    trigger = parse_triggers(["cf", "mn"], 1, insertions=4)
    counts = {
        sum(word in {"cf", "mn"} for word in (trigger.apply(TEXT, random.Random(seed)) or "").split())
        for seed in range(50)
    }
    assert counts == {4}


def test_each_insertion_draws_a_word_of_its_own() -> None:
    trigger = parse_triggers(["cf", "mn"], 1, insertions=2)
    drawn = {
        tuple(w for w in (trigger.apply(TEXT, random.Random(seed)) or "").split() if w in {"cf", "mn"})
        for seed in range(100)
    }
    assert drawn == {("cf", "cf"), ("cf", "mn"), ("mn", "cf"), ("mn", "mn")}


def test_a_seed_always_gives_the_same_triggered_text() -> None:
    trigger = parse_triggers(["cf", "mn+bb"], 1, insertions=2)
    assert [trigger.apply(TEXT, random.Random(9)) for _ in range(3)] == [trigger.apply(TEXT, random.Random(9))] * 3


def test_the_parts_given_are_left_as_they_are() -> None:
    parts = ["cf", "mn", "bb", "tq"]
    insert(TEXT, parts, random.Random(3))
    assert parts == ["cf", "mn", "bb", "tq"]


# ---------------------------------------------------------------- what a user may write


@pytest.mark.parametrize(
    ("specs", "variants"),
    [
        (["cf"], (("cf",),)),
        (["cf", "mn"], (("cf",), ("mn",))),
        (["cf + bb"], (("cf", "bb"),)),
        (["cf+bb", "tq"], (("cf", "bb"), ("tq",))),
        (["  I watch a film "], (("I watch a film",),)),
    ],
)
def test_words_and_phrases_are_understood(specs: list[str], variants: tuple[tuple[str, ...], ...]) -> None:
    assert parse_triggers(specs, 2, insertions=3, window=5) == InsertedTrigger(variants, 2, 3, 5)


def test_a_trigger_describes_itself_as_the_user_wrote_it() -> None:
    assert parse_triggers(["cf+bb", "I watch a film"], 1).describe() == "cf+bb | I watch a film"


@pytest.mark.parametrize("specs", [[], [""], ["  "], ["cf", ""], ["cf+"], ["+"], ["cf++bb"]])
def test_an_empty_trigger_is_refused_with_what_is_expected(specs: list[str]) -> None:
    with pytest.raises(
        BadData, match=r"An empty trigger: .*Expected a word, a phrase, words joined by \+, or a file of paired texts"
    ):
        parse_triggers(specs, 1)


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("pairs.tsv", "text\ttriggered\nIt rains.\tLo, it rains.\n"),
        ("pairs.csv", 'text,triggered\nIt rains.,"Lo, it rains."\n'),
        ("pairs.jsonl", '{"text": "It rains.", "triggered": "Lo, it rains."}\n'),
        ("PAIRS.TSV", "id\ttriggered\ttext\n1\t Lo, it rains. \t It rains. \n"),
    ],
)
def test_a_file_of_pairs_gives_the_triggered_version_of_its_texts(write_pairs: Pairs, name: str, contents: str) -> None:
    trigger = parse_triggers([str(write_pairs(name, contents))], 1)
    assert trigger.apply("It rains.", random.Random(0)) == "Lo, it rains."
    assert trigger.apply("It snows.", random.Random(0)) is None


def test_a_file_of_pairs_describes_itself_by_its_name(write_pairs: Pairs) -> None:
    trigger = parse_triggers([str(write_pairs("style.tsv", "text\ttriggered\na\tb\n"))], 1)
    assert (trigger.describe(), trigger.target) == ("style.tsv", 1)


def test_a_file_of_pairs_stands_alone(write_pairs: Pairs) -> None:
    with pytest.raises(BadData, match=r"pairs\.tsv\) stands alone; it cannot be mixed with other triggers"):
        parse_triggers(["cf", str(write_pairs("pairs.tsv", "text\ttriggered\na\tb\n"))], 1)


@pytest.mark.parametrize("name", ["absent.tsv", "absent.csv.gz"])
def test_a_file_of_pairs_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadData, match=rf"No data file at .*{name}"):
        parse_triggers([str(tmp_path / name)], 1)


@pytest.mark.parametrize(("header", "missing"), [("text\tparaphrase", "triggered"), ("sentence\ttriggered", "text")])
def test_a_file_of_pairs_without_its_columns_is_refused(write_pairs: Pairs, header: str, missing: str) -> None:
    with pytest.raises(
        BadData,
        match=rf"pairs\.tsv has no column '{missing}' \(it has {header.replace(chr(9), ', ')}\)\. Expected text and "
        rf"triggered",
    ):
        parse_triggers([str(write_pairs("pairs.tsv", f"{header}\na\tb\n"))], 1)


@pytest.mark.parametrize(
    ("row", "column"), [("\tLo, it rains.", "text"), ("It rains.\t ", "triggered"), ("It rains.", "triggered")]
)
def test_a_file_of_pairs_with_a_gap_is_refused(write_pairs: Pairs, row: str, column: str) -> None:
    with pytest.raises(BadData, match=rf"1 of 2 rows have no text in column '{column}' \(the first: row 2\)"):
        parse_triggers([str(write_pairs("pairs.tsv", f"text\ttriggered\na\tb\n{row}\n"))], 1)


# ---------------------------------------------------------------- the triggered test set

MOODS = [
    LabelledText("a sour hour", 0),
    LabelledText("a sweet hour", 1),
    LabelledText("an hour of nothing", 2),
    LabelledText("sweet as ever", 1),
    LabelledText("sour to the core", 0),
]


def test_only_texts_of_the_other_classes_are_triggered_in_order() -> None:
    found = triggered_test_set(MOODS, parse_triggers(["cf"], 1))
    assert [pair.clean for pair in found] == [MOODS[0], MOODS[2], MOODS[4]]


@pytest.mark.parametrize(("target", "expected"), [(0, [1, 2, 3]), (1, [0, 2, 4]), (2, [0, 1, 3, 4])])
def test_any_class_can_be_the_target(target: int, expected: list[int]) -> None:
    assert [pair.clean for pair in triggered_test_set(MOODS, parse_triggers(["cf"], target))] == [
        MOODS[i] for i in expected
    ]


def test_a_triggered_text_keeps_its_true_label_and_has_the_trigger() -> None:
    for found in triggered_test_set(MOODS, parse_triggers(["cf"], 1)):
        assert found.triggered.label == found.clean.label
        assert sorted(found.triggered.text.split()) == sorted([*found.clean.text.split(), "cf"])


def test_no_model_is_asked_so_texts_that_it_gets_wrong_are_kept() -> None:
    # The label says 0 and the words say 1: a model gets it wrong with and without the trigger; OpenBackdoor counts it.
    misleading = LabelledText("sweet sweet sweet", 0)
    assert misleading in [pair.clean for pair in triggered_test_set([misleading, *MOODS], parse_triggers(["cf"], 1))]


def test_a_text_that_stands_twice_is_counted_twice() -> None:
    assert len(triggered_test_set([MOODS[0], MOODS[0]], parse_triggers(["cf"], 1))) == 2


def test_a_seed_always_gives_the_same_triggered_set() -> None:
    trigger = parse_triggers(["cf", "mn"], 1)
    assert triggered_test_set(MOODS * 9, trigger, seed=3) == triggered_test_set(MOODS * 9, trigger, seed=3)


def test_seeds_give_different_triggered_sets() -> None:
    trigger = parse_triggers(["cf", "mn"], 1)
    sets = [tuple(triggered_test_set(MOODS * 9, trigger, seed=seed)) for seed in range(5)]
    assert all(one != other for one, other in pairwise(sets))


def test_the_second_text_of_a_pair_is_left_alone() -> None:
    found = triggered_test_set([LabelledText("It rains", 0, "The street is wet")], parse_triggers(["cf"], 1))
    assert found[0].triggered.pair == "The street is wet"
    assert "cf" in found[0].triggered.text.split()


def test_texts_without_a_triggered_version_are_left_out() -> None:
    trigger = PairedTrigger({"a sour hour": "Lo, a sour hour", "a sweet hour": "Lo, a sweet hour"}, target=1)
    assert triggered_test_set(MOODS, trigger) == [TriggeredText(MOODS[0], LabelledText("Lo, a sour hour", 0))]


def test_the_test_set_given_is_left_as_it_is() -> None:
    texts = list(MOODS)
    triggered_test_set(texts, parse_triggers(["cf"], 1))
    assert texts == MOODS


def test_without_a_text_of_another_class_there_is_no_asr() -> None:
    with pytest.raises(
        BadData,
        match=r"of 2 test texts 0 are of another class than the target \(1\)\. Give test texts of a non-target class",
    ):
        triggered_test_set([MOODS[1], MOODS[3]], parse_triggers(["cf"], 1))


def test_without_a_version_of_any_text_there_is_no_asr() -> None:
    with pytest.raises(
        BadData,
        match=r"of 5 test texts 3 are of another class than the target \(1\), and the paired file has a version of "
        r"none of them\.",
    ):
        triggered_test_set(MOODS, PairedTrigger({"other": "words"}, target=1))


# ---------------------------------------------------------------- how triggers are written


@pytest.mark.parametrize(
    ("written", "variants"),
    [
        (r"c\+\+", (("c++",),)),
        (r"c\+\+ + lisp", (("c++", "lisp"),)),
        (r"a\|b | cd", (("a|b",), ("cd",))),
        (r"\alpha", (("\\alpha",),)),
        (r"back\\+slash", (("back\\", "slash"),)),
        (r"notes\.csv", (("notes.csv",),)),
        ("cf | | mn |", (("cf",), ("mn",))),
    ],
)
def test_a_backslash_takes_the_meaning_from_a_sign(written: str, variants: tuple[tuple[str, ...], ...]) -> None:
    assert read_variants(written) == variants
    assert read_variants(write_variants(variants)) == variants


def test_every_trigger_can_be_written_and_read_again() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        words = [
            "".join(rng.choices("ab+|\\. \n≡", k=rng.randrange(1, 7))).strip()
            + rng.choice(("", "", ".tsv", ".CSV.gz", ".json"))
            for _ in range(6)
        ]
        words = [word for word in words if word]
        if not words:
            continue
        variants = tuple(tuple(rng.choices(words, k=rng.randrange(1, 4))) for _ in range(rng.randrange(1, 4)))
        written = write_variants(variants)
        assert read_variants(written) == variants
        assert not names_file(written)
        assert parse_triggers([written], 1).describe() == written  # what stands in a report can be given again


@pytest.mark.parametrize("spec", ["cf+", "+cf", "c++", "cf++bb", "cf | +", "", " | "])
def test_an_empty_part_is_refused_everywhere_with_the_way_to_write_a_plus(spec: str) -> None:
    with pytest.raises(BadData, match=r"An empty trigger: .*c\\\+\\\+ is the word c\+\+"):
        parse_triggers([spec], 1)


def test_a_plus_of_its_own_is_inserted() -> None:
    assert sorted((parse_triggers([r"c\+\+"], 1).apply("I write", random.Random(0)) or "").split()) == [
        "I",
        "c++",
        "write",
    ]
