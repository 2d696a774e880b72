"""Figures as words, by hand."""

from __future__ import annotations

import pytest

from mbtsad_core.types import Rate
from mbtsad_core.views.words import duration, percent, rarity, rate


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "0.0 %"), (0.1306, "13.1 %"), (0.99951, "100.0 %"), (1.0, "100.0 %"), (None, "not measured")],
)
def test_a_share_is_shown_in_percent_with_one_digit(share: float | None, words: str) -> None:
    assert percent(share) == words


def test_a_rate_is_shown_with_its_interval_and_its_counts() -> None:
    assert rate(Rate(119, 912, 0.10914, 0.15405)) == "13.0 % [10.9, 15.4] (119 of 912)"


def test_a_rate_that_was_not_measured_says_so() -> None:
    assert rate(None) == "not measured"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (47.6, "48 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("chance", "words"),
    [(1.0, "most"), (0.51, "most"), (0.5, "1 of 2"), (0.0021, "1 of 476"), (0.001, "1 of 1,000")]
    + [(chance, "fewer than 1 of 1,000") for chance in (0.0009, 0.0)],
)
def test_a_share_of_models_is_said_as_one_of_so_many(chance: float, words: str) -> None:
    assert rarity(chance) == words
