"""Token splitting: the distribution of nlpaug's SplitAug, and the properties that nlpaug does not have."""

from __future__ import annotations

import itertools
import math
import random
import re
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import regex
from nlpaug.augmenter.word import SplitAug
from scipy.stats import chi2_contingency, chisquare

from mbtsad_core.augment.token_splitting import TOKEN, SplitText, augment, split_tokens, token_splitting
from mbtsad_core.config import SplitConfig
from mbtsad_core.types import LabelledText

TEXTS = {
    "plain words": "a gorgeous , witty , seductive movie",
    "punctuation at words": "Well... what a film! (It's long; too long?) See: 'Jaws', 1975.",
    "apostrophes": "you don't need what wouldn't couldn't shouldn't happen, y'all",
    "hyphens": "a well-made state-of-the-art re-imagining, semi-successful",
    "digits": "12345 people paid 1234567 dollars 4th 2001 on 12/12/1999",
    "underscores": "snake_case __init__ _ ____ some_thing a_b",
    "letters beyond ASCII": "élégance naïve façade Übermensch ñandú straße 映画はとても良い фильм",
    "uneven spacing": "  two  spaces\tand a tab\nand a line \u00a0 and more\u3000wide  ",
    "the cap of ten": " ".join(f"word{i}" for i in range(40)),
    "just under the cap": " ".join(["word"] * 30),
    "just over the cap": " ".join(["word"] * 34),
    "long words few": "a b c d e f g h i j k l longest",
    "no candidate": "a to be or not ... 123 it's so",
    "one token": "splendid",
    "one short token": "bad",
    "one punctuation mark": "!",
    "only blanks": " \t ",
}
ALPHABETS = [
    "abcdefghij",
    "ABCxyz",
    "0123456789",
    "_",
    ".,;:!?'\"-()",
    "éüñßø",
    "фильм",
    "映画",
    "²½①",
    "🙂👍",
    " ",
    " ",
    " \t\n\u00a0",
]
CUT = "\x00"  # joins nlpaug's tokens, so that its detokeniser cannot hide where it cut


def nlpaug_cuts(text: str, augmenter: SplitAug) -> dict[int, int]:
    """The words that nlpaug cuts in one draw, by their number among the tokens, and the length of their first part."""
    given = [t for t in re.split(r"(\W)", text) if t.strip()]
    drawn = augmenter.augment(text)
    if not drawn or CUT not in drawn[0]:
        return {}
    pieces: Iterator[str] = iter(drawn[0].split(CUT))
    cuts = {}
    for i, token in enumerate(given):
        piece = next(pieces)
        if piece != token:
            assert piece + next(pieces) == token
            cuts[i] = len(piece)
    assert next(pieces, None) is None
    return cuts


def our_cuts(text: str, rng: random.Random) -> dict[int, int]:
    """The same of one draw of ours."""
    split = split_tokens(text, rng)
    places = [cut - i for i, cut in enumerate(split.cuts)]  # in the original
    tokens = [m.span() for m in re.finditer(r"\w+|[^\w\s]", text)]
    return {i: place - a for i, (a, b) in enumerate(tokens) for place in places if a < place < b}


@pytest.fixture
def oracle() -> SplitAug:
    """nlpaug with its defaults; it draws from two global generators."""
    random.seed(7)
    np.random.seed(7)
    return SplitAug(reverse_tokenizer=CUT.join)


def random_text(rng: random.Random) -> str:
    """Up to 60 runs of letters, digits, marks, symbols and blanks."""
    return "".join("".join(rng.choices(rng.choice(ALPHABETS), k=rng.randint(1, 9))) for _ in range(rng.randint(0, 60)))


def random_texts(n: int) -> list[str]:
    rng = random.Random(20)
    return [random_text(rng) for _ in range(n)]


def whole(split: SplitText) -> str:
    """The split text without the characters at its cuts."""
    return "".join(c for i, c in enumerate(split.text) if i not in split.cuts)


# ---------------------------------------------------------------- nlpaug as the oracle


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_as_many_words_are_cut_as_nlpaug_cuts(text: str, oracle: SplitAug) -> None:
    rng = random.Random(0)
    assert {len(our_cuts(text, rng)) for _ in range(20)} == {len(nlpaug_cuts(text, oracle)) for _ in range(20)}


def test_as_many_words_of_a_random_text_are_cut_as_nlpaug_cuts(oracle: SplitAug) -> None:
    rng, texts = random.Random(0), random_texts(300)
    assert [len(our_cuts(t, rng)) for t in texts] == [len(nlpaug_cuts(t, oracle)) for t in texts]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_words_that_are_ever_cut_are_those_that_nlpaug_cuts(text: str, oracle: SplitAug) -> None:
    rng = random.Random(0)
    ours, theirs = (
        {i for _ in range(400) for i in draw()}
        for draw in (lambda: our_cuts(text, rng), lambda: nlpaug_cuts(text, oracle))
    )
    assert ours == theirs


def test_every_word_is_cut_as_often_as_nlpaug_cuts_it(oracle: SplitAug) -> None:
    rng, text = random.Random(1), "funny brilliant film with actors , who never over play ; splendid music"
    ours, theirs = (
        Counter(i for _ in range(3000) for i in draw())
        for draw in (lambda: our_cuts(text, rng), lambda: nlpaug_cuts(text, oracle))
    )
    assert chi2_contingency([[c[i] for i in sorted(theirs)] for c in (ours, theirs)]).pvalue > 1e-3


@pytest.mark.parametrize("length", [4, 5, 7, 12, 20])
def test_a_word_is_cut_where_nlpaug_cuts_it(length: int, oracle: SplitAug) -> None:
    rng, word = random.Random(2), "w" * length
    ours, theirs = (
        Counter(draw()[0] for _ in range(3000))
        for draw in (lambda: our_cuts(word, rng), lambda: nlpaug_cuts(word, oracle))
    )
    places = sorted(ours | theirs)
    assert places == list(range(1, length - 1))
    assert chi2_contingency([[c[i] for i in places] for c in (ours, theirs)]).pvalue > 1e-3


@pytest.mark.parametrize("length", [4, 5, 7, 12, 20])
def test_the_place_of_a_cut_is_uniform(length: int) -> None:
    rng = random.Random(3)
    drawn = Counter(our_cuts("w" * length, rng)[0] for _ in range(5000))
    assert sorted(drawn) == list(range(1, length - 1))
    assert chisquare(list(drawn.values())).pvalue > 1e-3


def test_the_cuts_of_two_words_are_independent() -> None:
    rng, config = random.Random(4), SplitConfig(aug_p=1.0)
    pairs = Counter(split_tokens("abcdef ghijkl", rng, config).cuts for _ in range(4000))
    assert len(pairs) == 16
    assert chisquare(list(pairs.values())).pvalue > 1e-3


# ---------------------------------------------------------------- what a split text is


def test_taking_out_the_inserted_spaces_gives_the_text_back() -> None:
    rng = random.Random(0)
    assert [whole(split_tokens(t, rng)) for t in random_texts(500)] == random_texts(500)


def test_the_original_of_a_split_text_is_the_text() -> None:
    rng = random.Random(0)
    assert [split_tokens(t, rng).original for t in random_texts(500)] == random_texts(500)


def test_every_cut_is_the_place_of_a_space() -> None:
    rng = random.Random(0)
    splits = [split_tokens(t, rng) for t in random_texts(500)]
    assert {s.text[cut] for s in splits for cut in s.cuts} == {" "}


def test_cuts_ascend() -> None:
    rng = random.Random(0)
    assert all(list(s.cuts) == sorted(set(s.cuts)) for s in (split_tokens(t, rng) for t in random_texts(500)))


def test_a_cut_leaves_one_letter_before_it_and_two_behind_it() -> None:
    rng = random.Random(0)
    splits = [split_tokens(t, rng) for t in random_texts(500)]
    assert all(re.fullmatch(r"\w \w\w", s.text[cut - 1 : cut + 3]) for s in splits for cut in s.cuts)


def test_no_word_is_cut_twice() -> None:
    split = split_tokens("extraordinary " * 8, random.Random(0), SplitConfig(aug_p=1.0))
    assert len(split.cuts) == 8
    assert all(len(word.split(" ")) == 1 for word in split.original.split())
    assert len(split.text.split()) == 16


def test_a_known_cut() -> None:
    assert SplitText("fu nny fi lm", (2, 9)).original == "funny film"


def test_an_empty_text_stays_empty() -> None:
    assert split_tokens("", random.Random(0)) == SplitText("", ())


def test_a_text_without_long_words_is_unchanged() -> None:
    assert split_tokens("a to be , or not", random.Random(0)) == SplitText("a to be , or not", ())


def test_the_augmenter_gives_the_text_of_a_split() -> None:
    assert token_splitting(TEXTS["hyphens"], random.Random(5)) == split_tokens(TEXTS["hyphens"], random.Random(5)).text


# ---------------------------------------------------------------- letters with marks

MARKED = {  # the words that can be cut, of four letters or more with their signs of vowels
    "Hindi": ("कहानी बहुत कमजोर थी और अभिनय फीका", {"कहानी", "बहुत", "कमजोर", "अभिनय", "फीका"}),
    "Tamil": ("இந்த படம் மிகவும் அருமையாக இருந்தது", {"இந்த", "படம்", "மிகவும்", "அருமையாக", "இருந்தது"}),
    "Bengali": ("গল্পটি খুব সুন্দর ছিল", {"গল্পটি", "সুন্দর"}),
    "Telugu with joiners": ("సినిమా\u200cలు బాగున్నాయి", {"సినిమా\u200cలు", "బాగున్నాయి"}),
    "Arabic with vowels": ("كَانَ الفِيلْمُ رَائِعًا", {"كَانَ", "الفِيلْمُ", "رَائِعًا"}),
    "Hebrew with points": ("הַסֶּרֶט הָיָה נֶהֱדָר", {"הַסֶּרֶט", "הָיָה", "נֶהֱדָר"}),
    "decomposed French": (
        "cafe\u0301 de\u0301ja\u0300 vu, nai\u0308vete\u0301",
        {"cafe\u0301", "de\u0301ja\u0300", "nai\u0308vete\u0301"},
    ),
}


@pytest.mark.parametrize(("text", "words"), MARKED.values(), ids=MARKED)
def test_a_letter_keeps_its_marks_wherever_its_word_is_cut(text: str, words: set[str]) -> None:
    rng, config, cut = random.Random(0), SplitConfig(aug_p=1.0), set()
    for _ in range(60):
        split = split_tokens(text, rng, config)
        assert split.original == text
        parts = split.text.split(" ")
        assert [c for part in parts for c in regex.findall(r"\X", part)] == [
            c for word in text.split(" ") for c in regex.findall(r"\X", word)
        ]
        cut |= {a + b for a, b in itertools.pairwise(parts) if a + b in words}
        assert len(split.cuts) == len(words)
    assert {word.strip(",") for word in cut} == words


def test_a_word_that_is_one_character_with_its_marks_is_not_cut() -> None:
    text = "e\u0301\u0302\u0303\u0304 स्त्री"
    assert split_tokens(text, random.Random(0), SplitConfig(aug_p=1.0)) == SplitText(text, ())


@pytest.mark.parametrize("text", ["1️⃣ 2345️⃣ ok", "out\u200d♂️ ❤️ ☝🏽", "_\u0301_\u0301_\u0301", "\u0301abc"])
def test_marks_that_follow_no_letter_are_punctuation_as_before(text: str) -> None:
    tokens = re.findall(r"\w+|[^\w\s]", text)
    assert [m.group() for m in TOKEN.finditer(text)] == tokens


def test_of_texts_without_marks_the_tokens_are_those_of_pythons_own_expression() -> None:
    every = [
        chr(i) for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i))[0] not in "MC" or chr(i).isspace()
    ]
    text = "".join(f"a{c}b " for c in every)
    assert [m.group() for m in TOKEN.finditer(text)] == re.findall(r"\w+|[^\w\s]", text)


# ---------------------------------------------------------------- seeds and settings


def test_a_seed_always_gives_the_same_splits() -> None:
    first, second = ([split_tokens(t, rng) for t in random_texts(100)] for rng in (random.Random(8), random.Random(8)))
    assert first == second


def test_seeds_give_different_splits() -> None:
    assert len({split_tokens(TEXTS["the cap of ten"], random.Random(seed)) for seed in range(20)}) == 20


def test_splitting_leaves_the_global_generators_alone() -> None:
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    split_tokens(TEXTS["plain words"], random.Random(0))
    augment([LabelledText("funny film", 0)], SplitConfig(), seed=0)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize("tokens", [1, 3, 4, 10, 11, 33, 34, 60])
@pytest.mark.parametrize(
    ("share", "least", "cap"), [(0.3, 1, 10), (0.0, 0, 10), (0.0, 2, 10), (1.0, 0, 1000), (0.5, 1, 4), (0.1, 7, 5)]
)
def test_the_number_of_cuts_follows_share_least_and_cap(tokens: int, share: float, least: int, cap: int) -> None:
    split = split_tokens(
        " ".join(["word"] * tokens), random.Random(0), SplitConfig(aug_p=share, aug_min=least, aug_max=cap)
    )
    assert len(split.cuts) == min(tokens, cap, max(least, math.ceil(share * tokens)))


def test_punctuation_counts_towards_the_share() -> None:
    assert len(split_tokens("word word word word . , ; : ! ?", random.Random(0)).cuts) == 3


@pytest.mark.parametrize("min_length", [3, 4, 6, 9])
def test_only_words_of_the_least_length_are_cut(min_length: int) -> None:
    words = ["x" * n for n in range(1, 13)]
    split = split_tokens(" ".join(words), random.Random(0), SplitConfig(aug_p=1.0, aug_max=100, min_char=min_length))
    assert [word for word in split.text.split() if word in words and len(word) < min_length][: min_length - 1] == words[
        : min_length - 1
    ]
    assert len(split.cuts) == 12 - min_length + 1


# ---------------------------------------------------------------- the augmented set

CLEAN = [
    LabelledText("a truly lovely film", 1),
    LabelledText("boring  and tedious plot", 0, "another scene here"),
    LabelledText("so so", 2),
]


def unspaced(texts: list[LabelledText]) -> list[tuple[str, int, str | None]]:
    return [(t.text.replace(" ", ""), t.label, t.pair and t.pair.replace(" ", "")) for t in texts]


@pytest.mark.parametrize("copies", [1, 3, 7])
def test_every_clean_text_has_its_copies_with_its_label_and_pair(copies: int) -> None:
    found = augment(CLEAN, SplitConfig(copies=copies), seed=0)
    assert Counter(unspaced(found)) == Counter(unspaced(CLEAN * copies))


def test_both_texts_of_a_pair_are_split() -> None:
    (found,) = augment([LabelledText("lovely film", 0, "boring film")], SplitConfig(copies=1), seed=0)
    assert found.pair is not None
    assert (len(found.text), len(found.pair)) == (len("lovely film") + 1, len("boring film") + 1)


def test_the_clean_texts_are_left_as_they_are() -> None:
    clean = list(CLEAN)
    augment(clean, SplitConfig(copies=3), seed=0)
    assert clean == [
        LabelledText("a truly lovely film", 1),
        LabelledText("boring  and tedious plot", 0, "another scene here"),
        LabelledText("so so", 2),
    ]


def test_the_originals_are_not_among_the_augmented() -> None:
    assert not set(CLEAN[:2]) & set(augment(CLEAN, SplitConfig(copies=20), seed=0))


def test_originals_come_beside_the_copies_where_asked_for() -> None:
    split, whole = (
        augment(CLEAN, SplitConfig(copies=2), seed=5),
        augment(CLEAN, SplitConfig(copies=2, keep_originals=2), seed=5),
    )
    assert whole == [*split, *CLEAN, *CLEAN]


def test_the_copies_of_a_text_differ() -> None:
    long = [LabelledText(TEXTS["the cap of ten"], 0)]
    assert len(set(augment(long, SplitConfig(copies=6), seed=0))) == 6


def test_the_augmented_set_depends_on_its_arguments_alone() -> None:
    assert augment(CLEAN, SplitConfig(), seed=3, epoch=2) == augment(CLEAN, SplitConfig(), seed=3, epoch=2)


def test_seeds_give_different_augmented_sets() -> None:
    long = [LabelledText(TEXTS["the cap of ten"], 0)]
    assert len({tuple(augment(long, SplitConfig(), seed)) for seed in range(10)}) == 10


def test_every_epoch_has_fresh_splits() -> None:
    long = [LabelledText(TEXTS["the cap of ten"], 0)]
    assert len({tuple(augment(long, SplitConfig(), 0, epoch)) for epoch in range(10)}) == 10


def test_without_fresh_splits_every_epoch_has_the_same() -> None:
    assert len({tuple(augment(CLEAN, SplitConfig(fresh=False), 0, epoch)) for epoch in range(5)}) == 1


@pytest.mark.slow
def test_five_thousand_reviews_a_second_are_split() -> None:
    rng = random.Random(0)
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.choice([1, 2, 3, 3, 4, 5, 6, 7, 9])))
        for _ in range(2000)
    ]
    reviews = [" ".join(rng.choices(words, k=19)) for _ in range(5000)]
    seconds = []
    for _ in range(3):
        started = time.process_time()
        for review in reviews:
            split_tokens(review, rng)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 1.0
