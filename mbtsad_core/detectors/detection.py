"""What a detector says of a row of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mbtsad_core.errors import BadData
from mbtsad_core.types import LabelledText


@dataclass(frozen=True, slots=True)
class Detection:
    """One verdict for each text, in their order.

    flags       whether the text is held to carry a trigger
    scores      what the verdict rests on, in the detector's own measure; None where it did not look
    thresholds  what the scores were compared with; RAP has one for each class
    corrected   the texts as they are to be answered, where the detector corrects instead of refusing (ONION)
    """

    flags: tuple[bool, ...]
    scores: tuple[float | None, ...]
    thresholds: tuple[float, ...]
    corrected: tuple[str, ...] | None = None


def check_clean(clean: Sequence[LabelledText], detector: str) -> None:
    """Raise BadData unless there are clean texts, and none is one of a pair."""
    if not clean:
        raise BadData(
            f"{detector} sets its threshold by clean texts, and none were given. Give the defender's clean sample."
        )
    if any(example.pair is not None for example in clean):
        raise BadData(
            f"{detector} judges single texts, and the clean sample holds pairs of texts. Take a defense instead, such "
            "as mbtsad."
        )
