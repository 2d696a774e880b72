"""Seeded stratified subsets and splits, and texts that two sets share."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence

from mbtsad_core.errors import BadData
from mbtsad_core.types import LabelledText


def stratified_subset(texts: Sequence[LabelledText], amount: float, seed: int) -> list[LabelledText]:
    """A share (0 < amount < 1) or a number (amount >= 1) of the texts, every class by its share, in the old order.

    The counts a class are the largest-remainder rounding of its share, and a class never vanishes.
    """
    chosen = _choose(texts, amount, seed)
    return [t for i, t in enumerate(texts) if i in chosen]


def stratified_split(
    texts: Sequence[LabelledText], amount: float, seed: int
) -> tuple[list[LabelledText], list[LabelledText]]:
    """The stratified subset and the rest."""
    chosen = _choose(texts, amount, seed)
    return [t for i, t in enumerate(texts) if i in chosen], [t for i, t in enumerate(texts) if i not in chosen]


def _choose(texts: Sequence[LabelledText], amount: float, seed: int) -> set[int]:
    if not 0 < amount < math.inf:
        raise BadData(f"Expected a share between 0 and 1 or a number of texts from 1; got {amount}.")
    wanted = round(amount * len(texts)) if amount < 1 else int(amount)
    if wanted > len(texts):
        raise BadData(f"Asked for {wanted} texts, but there are {len(texts)}.")
    by_class: dict[int, list[int]] = defaultdict(list)
    for i, example in enumerate(texts):
        by_class[example.label].append(i)
    if wanted < len(by_class):
        raise BadData(f"Asked for {wanted} texts of {len(by_class)} classes; at least one of each is needed.")
    exact = {c: wanted * len(members) / len(texts) for c, members in by_class.items()}
    counts = {c: max(1, int(x)) for c, x in exact.items()}
    for c in sorted(exact, key=lambda c: (counts[c] - exact[c], c)):  # largest remainder first
        if sum(counts.values()) < wanted and counts[c] < len(by_class[c]):
            counts[c] += 1
    while sum(counts.values()) > wanted:  # single texts kept for tiny classes are paid for by the largest class
        counts[max(counts, key=lambda c: (counts[c], c))] -= 1
    rng = random.Random(f"stratified subset, seed {seed}")
    return {i for c in sorted(by_class) for i in rng.sample(by_class[c], counts[c])}


def shared_texts(clean: Sequence[LabelledText], test: Sequence[LabelledText]) -> list[str]:
    """Texts of `test` that also stand in `clean`, but for case and spacing, in order and without repeats."""

    def key(example: LabelledText) -> tuple[str, ...]:
        return tuple(" ".join(text.casefold().split()) for text in (example.text, example.pair or ""))

    known = {key(example) for example in clean}
    return list(dict.fromkeys(example.text for example in test if key(example) in known))
