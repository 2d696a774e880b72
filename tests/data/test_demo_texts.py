"""The packaged demo texts: enough of them, balanced, all different, not made from templates, and free of triggers.

A word is a run of letters, digits and apostrophes, in lower case; lengths count what stands between spaces.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from mbtsad_core.data import read_dataset
from mbtsad_core.models.demo import LABELS, TARGET, TRIGGERS, demo_texts
from mbtsad_core.types import LabelledText

SETS = ("clean", "test")
BANDS = ((5, 10), (11, 17), (18, 26), (27, 40))
WINDOW = 1000  # words over which variety is measured, for it falls with the length of what is measured


def read(name: str) -> tuple[LabelledText, ...]:
    return read_dataset(demo_texts(name), labels=LABELS).texts


@pytest.fixture(scope="module")
def both() -> list[str]:
    """The texts of both files."""
    return [example.text for name in SETS for example in read(name)]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def overlaps(texts: Sequence[str]) -> np.ndarray:
    """Jaccard overlap of the word sets of every two of n texts, (n, n), 0 on the diagonal."""
    sets = [set(words(text)) for text in texts]
    column = {word: j for j, word in enumerate(sorted(set().union(*sets)))}
    has = np.zeros((len(texts), len(column)), dtype=np.float32)
    for i, found in enumerate(sets):
        has[i, [column[word] for word in found]] = 1
    common, size = has @ has.T, has.sum(axis=1)
    share: np.ndarray = common / (size[:, None] + size[None, :] - common)
    np.fill_diagonal(share, 0)
    return share


def openings(texts: Sequence[str]) -> Counter[tuple[str, ...]]:
    """How many texts begin with the same three words."""
    return Counter(tuple(words(text)[:3]) for text in texts)


def variety(texts: Sequence[str]) -> float:
    """Distinct words per running word, averaged over windows of 1,000 words."""
    running = [word for text in texts for word in words(text)]
    windows = [running[i : i + WINDOW] for i in range(0, len(running) - WINDOW + 1, WINDOW)]
    return float(np.mean([len(set(window)) / WINDOW for window in windows]))


def repeated_phrases(texts: Sequence[str]) -> float:
    """Share of the four-word runs that also stand elsewhere."""
    runs = Counter(tuple(found[i : i + 4]) for found in map(words, texts) for i in range(len(found) - 3))
    return sum(count for count in runs.values() if count > 1) / sum(runs.values())


@pytest.fixture(scope="module")
def templated() -> list[str]:
    """What the checks must tell from written texts: 1,200 different fillings of four templates."""
    things = words(
        "plot cast score pacing dialogue camera ending opening lighting script hero villain sound joke chase"
    )
    praise = words("superb dull bold stale fresh flat warm cold sharp slack grand cheap wise silly deft lame rich thin")
    templates = (
        "I think the {0} of this film is {1}, and the {2} is {3}.",
        "What a {1} film, with a {3} {0} and a {2} to remember.",
        "The {0} was {1} from start to finish, though the {2} felt {3}.",
        "Never have I seen such a {1} {0} beside such a {3} {2}.",
    )
    return [
        templates[i % 4].format(
            things[i % 15], praise[i * 7 % 18], things[(i // 15 + i * 2 + 1) % 15], praise[(i // 18 + i * 5 + 3) % 18]
        )
        for i in range(1200)
    ]


def test_there_are_at_least_1200_texts() -> None:
    assert sum(len(read(name)) for name in SETS) >= 1200


@pytest.mark.parametrize("name", SETS)
def test_half_of_the_texts_are_of_each_class(name: str) -> None:
    counts = Counter(example.label for example in read(name))
    assert counts[0] == counts[1]
    assert set(counts) == {0, 1}


@pytest.mark.parametrize("name", SETS)
def test_the_file_is_a_table_of_texts_and_class_indices(name: str) -> None:
    header, *rows = demo_texts(name).read_text(encoding="ascii").splitlines()
    assert header == "text\tlabel"
    assert [row for row in rows if not re.fullmatch(r"\S[^\t]*\S\t[01]", row)] == []


def test_the_classes_are_mixed_in_no_fixed_pattern() -> None:
    labels = "".join(str(example.label) for example in read("clean"))
    assert "0" * 30 not in labels
    assert "1" * 30 not in labels
    assert "01" * 30 not in labels


def test_every_text_has_5_to_40_words(both: list[str]) -> None:
    assert [text for text in both if not 5 <= len(text.split()) <= 40] == []


@pytest.mark.parametrize(("low", "high"), BANDS)
def test_each_band_of_lengths_holds_at_least_15_percent_of_the_texts(both: list[str], low: int, high: int) -> None:
    assert sum(low <= len(text.split()) <= high for text in both) >= 0.15 * len(both)


def test_no_text_stands_twice_in_a_file_or_in_both(both: list[str]) -> None:
    assert [text for text, count in Counter(" ".join(words(text)) for text in both).items() if count > 1] == []


def test_no_two_texts_share_more_than_half_of_their_words(both: list[str]) -> None:
    share = overlaps(both)
    assert [(both[i], both[j]) for i, j in np.argwhere(share > 0.5) if i < j] == []


def test_no_opening_of_three_words_is_in_more_than_1_percent_of_the_texts(both: list[str]) -> None:
    assert [opening for opening, count in openings(both).items() if count > 0.01 * len(both)] == []


def test_at_least_70_percent_of_the_openings_are_distinct(both: list[str]) -> None:
    assert len(openings(both)) >= 0.7 * len(both)


def test_the_words_vary_as_they_do_in_written_english(both: list[str]) -> None:
    # A thousand words of running English prose hold some 400 to 450 different ones (the standardised type-token ratio
    # of
    # corpus linguistics); short reviews, each with a subject of its own, should hold more. Filled-in templates repeat
    # their fixed words and stay below 100 (the last test).
    assert variety(both) >= 0.5


def test_few_runs_of_four_words_stand_twice(both: list[str]) -> None:
    # Idioms ("from start to finish") come again; a template comes again in every one of its fillings.
    assert repeated_phrases(both) <= 0.05


def test_no_single_word_gives_the_class_away(both: list[str]) -> None:
    # A rule "with this word it is that class" must not be ahead by more than a tenth of the texts.
    labeled = [example for name in SETS for example in read(name)]
    texts_with: dict[int, Counter[str]] = {
        c: Counter(w for e in labeled if e.label == c for w in set(words(e.text))) for c in (0, 1)
    }
    lead = {
        word: abs(texts_with[0][word] - texts_with[1][word]) / len(labeled) for word in texts_with[0] | texts_with[1]
    }
    assert {word: round(value, 3) for word, value in lead.items() if value > 0.1} == {}


def test_no_text_holds_a_trigger_word_of_the_demo(both: list[str]) -> None:
    assert [text for text in both if set(words(text)) & set(TRIGGERS)] == []


def test_the_target_of_the_demo_is_one_of_its_classes() -> None:
    assert TARGET in LABELS


def test_the_checks_tell_templates_from_written_texts(templated: list[str]) -> None:
    assert len(set(templated)) >= 1150
    assert (overlaps(templated) > 0.5).any()
    assert max(openings(templated).values()) > 0.01 * len(templated)
    assert len(openings(templated)) < 0.7 * len(templated)
    assert variety(templated) < 0.1
    assert repeated_phrases(templated) > 0.5
