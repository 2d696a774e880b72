"""Poisoned training sets: how many texts, which, and what becomes of them, in the three modes."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import pytest
from scipy.stats import chisquare

from mbtsad_core.attacks.poisoning import poison
from mbtsad_core.attacks.triggers import PairedTrigger, parse_triggers
from mbtsad_core.config import PoisonConfig
from mbtsad_core.errors import BadData
from mbtsad_core.types import LabelledText

TARGET = 1
TRIGGER = parse_triggers(["cf"], TARGET)
# 16, 16 and 8 texts
TRAIN = [LabelledText(f"note {i} on a quiet street", label) for i, label in enumerate([0, 1, 0, 2, 1] * 8)]
Mode = Literal["dirty", "clean", "mixed"]
MODES: tuple[Mode, ...] = ("dirty", "clean", "mixed")


def chosen(poisoned: list[LabelledText], train: list[LabelledText] = TRAIN) -> list[int]:
    """Where the poisoned set differs from the training set."""
    return [i for i, (new, old) in enumerate(zip(poisoned, train, strict=True)) if new != old]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("rate", "count"), [(0.0, 0), (0.1, 4), (0.24, 9), (0.25, 10)])
def test_the_rate_counts_all_training_texts_and_rounds_down(mode: Mode, rate: float, count: int) -> None:
    assert len(chosen(poison(TRAIN, TRIGGER, PoisonConfig(rate, mode), seed=0))) == count


@pytest.mark.parametrize("mode", MODES)
def test_texts_are_replaced_and_none_is_added(mode: Mode) -> None:
    assert len(poison(TRAIN, TRIGGER, PoisonConfig(0.25, mode), seed=0)) == len(TRAIN)


@pytest.mark.parametrize("mode", MODES)
def test_a_poisoned_text_has_the_trigger_beside_its_own_words(mode: Mode) -> None:
    poisoned = poison(TRAIN, TRIGGER, PoisonConfig(0.25, mode), seed=0)
    for i in chosen(poisoned):
        assert sorted(poisoned[i].text.split()) == sorted([*TRAIN[i].text.split(), "cf"])


@pytest.mark.parametrize("mode", MODES)
def test_a_poisoned_text_has_the_target_label(mode: Mode) -> None:
    poisoned = poison(TRAIN, TRIGGER, PoisonConfig(0.25, mode), seed=0)
    assert {poisoned[i].label for i in chosen(poisoned)} == {TARGET}


@pytest.mark.parametrize(("mode", "labels"), [("dirty", {0, 2}), ("clean", {1}), ("mixed", {0, 1, 2})])
def test_the_mode_says_of_which_classes_texts_are_chosen(mode: Mode, labels: set[int]) -> None:
    places = {i for seed in range(40) for i in chosen(poison(TRAIN, TRIGGER, PoisonConfig(0.1, mode), seed))}
    assert places == {i for i, example in enumerate(TRAIN) if example.label in labels}


@pytest.mark.parametrize("mode", MODES)
def test_every_eligible_text_has_the_same_chance(mode: Mode) -> None:
    drawn = Counter(i for seed in range(1500) for i in chosen(poison(TRAIN, TRIGGER, PoisonConfig(0.1, mode), seed)))
    assert chisquare(list(drawn.values())).pvalue > 1e-4


def test_clean_poisoning_leaves_every_label_true() -> None:
    poisoned = poison(TRAIN, TRIGGER, PoisonConfig(0.25, "clean"), seed=0)
    assert [example.label for example in poisoned] == [example.label for example in TRAIN]


def test_dirty_poisoning_flips_the_label_of_every_text_that_it_touches() -> None:
    poisoned = poison(TRAIN, TRIGGER, PoisonConfig(0.25, "dirty"), seed=0)
    assert sum(new.label != old.label for new, old in zip(poisoned, TRAIN, strict=True)) == 10


@pytest.mark.parametrize(("mode", "rate", "count"), [("dirty", 0.6, 24), ("clean", 0.4, 16), ("mixed", 1.0, 40)])
def test_all_eligible_texts_can_be_poisoned(mode: Mode, rate: float, count: int) -> None:
    assert len(chosen(poison(TRAIN, TRIGGER, PoisonConfig(rate, mode), seed=0))) == count


@pytest.mark.parametrize(("mode", "rate", "wanted", "eligible"), [("dirty", 0.75, 30, 24), ("clean", 0.5, 20, 16)])
def test_a_rate_that_needs_more_texts_than_are_eligible_is_refused(
    mode: Mode, rate: float, wanted: int, eligible: int
) -> None:
    with pytest.raises(
        BadData,
        match=rf"A poison rate of {rate} needs {wanted} texts, but {mode} poisoning has {eligible} to choose from\. "
        rf"Lower the rate",
    ):
        poison(TRAIN, TRIGGER, PoisonConfig(rate, mode), seed=0)


def test_the_second_text_of_a_pair_is_kept() -> None:
    poisoned = poison([LabelledText("It rains", 0, "The street is wet")], TRIGGER, PoisonConfig(1.0), seed=0)
    assert (poisoned[0].pair, poisoned[0].label) == ("The street is wet", TARGET)


def test_the_training_set_given_is_left_as_it_is() -> None:
    train = list(TRAIN)
    poison(train, TRIGGER, PoisonConfig(0.25), seed=0)
    assert train == TRAIN


def test_a_seed_always_gives_the_same_poisoned_set() -> None:
    config = PoisonConfig(0.25)
    assert poison(TRAIN, TRIGGER, config, seed=6) == poison(TRAIN, TRIGGER, config, seed=6)


def test_seeds_give_different_poisoned_sets() -> None:
    assert len({tuple(poison(TRAIN, TRIGGER, PoisonConfig(0.25), seed)) for seed in range(10)}) == 10


def test_a_trigger_without_a_version_of_the_text_cannot_poison() -> None:
    with pytest.raises(
        BadData,
        match=r"The trigger \(paraphrases\.tsv\) has no version of a training text; it can measure, but not poison",
    ):
        poison(TRAIN, PairedTrigger({}, TARGET, "paraphrases.tsv"), PoisonConfig(0.25), seed=0)
