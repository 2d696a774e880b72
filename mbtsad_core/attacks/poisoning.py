"""Poisoned training sets: some texts get the trigger and the target label."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mbtsad_core.config import PoisonConfig
from mbtsad_core.errors import BadData
from mbtsad_core.types import LabelledText, Trigger


def eligible(train: Sequence[LabelledText], target: int, mode: str) -> list[int]:
    """The training texts that a mode may choose."""
    return [i for i, example in enumerate(train) if mode == "mixed" or (example.label == target) == (mode == "clean")]


def poison(train: Sequence[LabelledText], trigger: Trigger, config: PoisonConfig, seed: int) -> list[LabelledText]:
    """The training set with int(rate * texts) of them replaced by triggered ones with the target label.

    dirty  texts of other classes are chosen, their label is flipped
    clean  texts of the target class are chosen, so that every label stays true
    mixed  any text is chosen
    """
    choice = eligible(train, trigger.target, config.mode)
    wanted = int(config.rate * len(train))
    if wanted > len(choice):
        raise BadData(
            f"A poison rate of {config.rate} needs {wanted} texts, but {config.mode} poisoning has {len(choice)} to "
            "choose from. Lower the rate."
        )
    rng = random.Random(f"poison, seed {seed}")
    poisoned = list(train)
    for i in rng.sample(choice, wanted):
        text = trigger.apply(train[i].text, rng)
        if text is None:
            raise BadData(
                f"The trigger ({trigger.describe()}) has no version of a training text; it can measure, but not poison."
            )
        poisoned[i] = LabelledText(text, trigger.target, train[i].pair)
    return poisoned
