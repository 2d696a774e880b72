"""Who is in the lead of a scan, as it goes."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing

from torch import Tensor

from mbtsad_core.models.classifier import Classifier
from mbtsad_core.rates import wilson
from mbtsad_core.scanning.findings import Candidate, Race
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.types import Rate, Steps, T

MOST = 8  # candidates in the lead

Figures = tuple[float, Rate | None]
"""Nats of a candidate, and how many of the texts that it was tried on it turned."""


class Leaders:
    """The best of what was tried: by the low end of the share of texts that it turned, so that who was tried on more of
    them goes first, then by nats.

    pools  {(class of the texts, what goes into them): figures} of what changes from step to step
    """

    def __init__(self, suspect: Classifier) -> None:
        self.suspect = suspect
        self.pools: Callable[[], Mapping[tuple[int, Insertion], Figures]] = dict
        self._best: dict[tuple[int, Insertion], Figures] = {}

    def told(self, rises: Mapping[int, Tensor], turned: Mapping[int, Tensor], beside: tuple[int, ...] = ()) -> None:
        """What `search_tokens` tells of a step, whose tokens stood beside others."""
        found: dict[tuple[int, Insertion], Figures] = {}
        for place, (label, texts) in enumerate(turned.items()):
            tried = zip(texts.sum(dim=1).tolist(), (float(rise[place]) for rise in rises.values()), rises, strict=True)
            for hits, nats, token in heapq.nlargest(MOST, tried):
                found[label, Insertion((token, *beside), "anywhere")] = nats, wilson(hits, texts.shape[1])
        self.take(found)

    def take(self, found: Mapping[tuple[int, Insertion], Figures]) -> None:
        """What was tried, in the place of what was known of it."""
        self._best = _best({**self._best, **found})

    def forget(self) -> None:
        """What the search said counts no more, once held-out texts are asked."""
        self.pools, self._best = dict, {}

    def now(self) -> tuple[Candidate, ...]:
        """The best first."""
        found = _best({**self.pools(), **self._best})
        labels = self.suspect.labels
        return tuple(
            Candidate(self.readable(one.tokens), one.place, labels[label], nats, flips)
            for (label, one), (nats, flips) in found.items()
        )

    def readable(self, tokens: Iterable[int]) -> str:
        """Tokens, as a person reads them."""
        return str(self.suspect.tokenizer.decode(list(tokens))).strip()

    def race(self, steps: Steps[T]) -> Steps[T]:
        """The steps, each with who is in the lead by then."""
        with closing(steps):
            while True:
                try:
                    event = next(steps)
                except StopIteration as done:
                    result: T = done.value
                    return result
                yield Race(event.stage, event.step, event.total, event.metrics, self.now())


def _best(found: Mapping[tuple[int, Insertion], Figures]) -> dict[tuple[int, Insertion], Figures]:
    def rank(key: tuple[int, Insertion]) -> tuple[float, float]:
        nats, flips = found[key]
        return round(flips.low, 3) if flips else 0.0, nats

    return {key: found[key] for key in heapq.nlargest(MOST, found, key=rank)}
