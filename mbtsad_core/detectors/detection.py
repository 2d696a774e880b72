"""What a detector says of a row of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mbtsad_core.errors import BadData
from mbtsad_core.types import LabelledText


@dataclass(frozen=True, slots=True)
class Detection:
    """One verdict for each text, in their order.

    flags       whether the text is held to carry a trigger
    scores      what the verdict rests on, in the detector's own measure; None where it did not look
    thresholds  what the scores were compared with; RAP has one for each class
    corrected   the texts as they are to be answered, where the detector corrects instead of refusing (ONION)
    spans       the words of each text that its verdict rests on, where the detector names them (span transfer)
    """

    flags: tuple[bool, ...]
    scores: tuple[float | None, ...]
    thresholds: tuple[float, ...]
    corrected: tuple[str, ...] | None = None
    spans: tuple[str | None, ...] | None = None

    def part(self, places: Sequence[int]) -> Detection:
        """The verdicts at these places."""
        return replace(
            self,
            flags=tuple(self.flags[i] for i in places),
            scores=tuple(self.scores[i] for i in places),
            corrected=self.corrected and tuple(self.corrected[i] for i in places),
            spans=self.spans and tuple(self.spans[i] for i in places),
        )


def grouped(spans: Sequence[str | None]) -> list[tuple[str, list[int]]]:
    """Spans that have a word in common, the largest group first: the longest run of words that all of it have, and the
    places of its spans. None belongs to no group."""
    words = {place: span.casefold().split() for place, span in enumerate(spans) if span}
    groups = []
    while words:
        shared = Counter(word for own in words.values() for word in set(own))
        word = max(shared, key=lambda one: (shared[one], one))
        places = [place for place, own in words.items() if word in own]
        own = [words.pop(place) for place in places]
        groups.append((" ".join(_common_run(own)), places))
    return groups


def _common_run(spans: Sequence[Sequence[str]]) -> Sequence[str]:
    """The longest run of words of the first span that stands in all of them."""
    first = spans[0]
    runs = (first[i : i + n] for n in range(len(first), 0, -1) for i in range(len(first) - n + 1))
    return next(run for run in runs if all(_stands_in(run, own) for own in spans))


def _stands_in(run: Sequence[str], words: Sequence[str]) -> bool:
    return any(list(words[i : i + len(run)]) == list(run) for i in range(len(words) - len(run) + 1))


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
