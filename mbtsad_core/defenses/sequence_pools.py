"""Pools of sequences of tokens that go on evolving against a model in training, from what the scan found.

A trigger that is a phrase or a sentence is named in part, and once that is unlearned what still turns the model moves
to its neighbors. So of the sequences of a pool the best are joined, cut, and changed in one token, those that the model
errs on stay, and no token stands in more than a few of them, so that one family does not fill the pool.

What speaks for another class honestly costs what it does (`Polarity`), so that the task's own telling words do not
fill it either; of what was found, the tokens of which the labels say so.

Deviation: not in the paper.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mbtsad_core.models.classifier import Classifier, encode
from mbtsad_core.models.subword_tokens import own_tokens
from mbtsad_core.scanning.effects import quick_answers
from mbtsad_core.scanning.findings import Finding
from mbtsad_core.scanning.insertions import PLACES, Insertion, insert
from mbtsad_core.scanning.neutral_tokens import neutral
from mbtsad_core.scanning.polarity import LOOSE, Polarity
from mbtsad_core.types import LabelledText

POOL = 64  # sequences of a class
ALIKE = 6  # of them that may have a token in common
LONGEST = 6  # tokens of a sequence
SPAN = 5  # of a span of a clean text
FORGETS = 0.3  # the least weight of the newest figure of a sequence
BANK = 400  # single tokens that sequences are drawn from
ASKED_ABOUT = 200  # clean texts that are asked what became of a sequence
TRIES = 10  # to draw one that says nothing honest


@dataclass(frozen=True, slots=True)
class Found:
    """A sequence that the scan found, and what it did in held-out clean texts of a class.

    label      the class of the texts
    target     the class that most of them went to
    nats       by which the log-odds of `label` fall, less what the tokens say honestly; see `Finding.strength`
    flip_rate  share of the texts, all answered right, that go to `target` with the sequence
    counts     whether it counts as a trigger; else it is suspicious
    """

    insertion: Insertion
    label: int
    target: int
    nats: float
    flip_rate: float
    counts: bool = True

    @classmethod
    def of(cls, finding: Finding, labels: Sequence[str], counts: bool) -> Found:
        """A finding of the scan."""
        classes = labels.index(finding.label), labels.index(finding.target)
        return cls(finding.insertion, *classes, finding.strength, finding.flips.share, counts)

    def to_list(self) -> list[Any]:
        """As JSON has it."""
        tokens, place = [*self.insertion.tokens], self.insertion.place
        return [tokens, place, self.label, self.target, self.nats, self.flip_rate, self.counts]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Found:
        tokens, place, *figures = values
        return cls(Insertion(tuple(tokens), place), *figures)


class SequencePools:
    """The pools, and how new sequences come to be. All chance is drawn from one generator, so that they go on where
    they stood (`state`, `resume`).

    pools  {class: {sequence: (nats less its price, times that it was tried)}}; the class is that of the texts
    found  {class: what the scan found on the suspect, the best first}; no class without any
    """

    def __init__(
        self, suspect: Classifier, clean: Sequence[LabelledText], polarity: Polarity, found: Sequence[Found], seed: int
    ) -> None:
        special = own_tokens(suspect)
        self.rng = random.Random(f"sequences, seed {seed}")
        self.bodies = [[t for t in text["input_ids"] if t not in special] for text in encode(suspect, clean)]
        honest = {label: figures.clone() for label, figures in polarity.honest.items()}
        for one in found:  # of a trigger the suspect says that it is honest, and the labels do not
            honest[one.label][neutral(one.insertion.tokens, polarity.told[one.label])] = 0.0
        self.polarity = replace(polarity, honest=honest, limits=LOOSE)
        self.pools: dict[int, dict[Insertion, tuple[float, int]]] = {label: {} for label in polarity.response}
        self.banks: dict[int, tuple[list[int], list[float]]] = {}
        self.found: dict[int, list[Found]] = {}
        for one in sorted(found, key=lambda one: -one.nats):
            self.found.setdefault(one.label, []).append(one)
            self.pools[one.label][one.insertion] = one.nats, 1
        for label in polarity.response:
            surplus = self.polarity.surplus(label)
            best = surplus.topk(min(BANK, int(surplus.isfinite().sum())))
            self.banks[label] = best.indices.tolist(), (best.values.clamp(min=0.01) ** 2).cumsum(0).tolist()

    def source(self, label: int) -> int:
        """The class whose sequences go into the texts of a class: its own where the scan found one there, else that of
        the strongest one. In texts of all classes, what turns one of them tells nothing."""
        return label if label in self.found else max(self.found, key=lambda own: self.found[own][0].nats)

    def span(self, label: int) -> Insertion:
        """Some tokens of a clean text as they stand there, that say nothing honest against a class."""
        tokens = list[int]()
        for _ in range(3 * TRIES):
            body, number = self.rng.choice(self.bodies), self.rng.randint(1, SPAN)
            begin = self.rng.randrange(max(1, len(body) - number + 1))
            tokens = body[begin : begin + number]
            if tokens and self.polarity.neutral(label, tokens):
                break
        return Insertion(tuple(tokens), self.rng.choice(PLACES))

    def drawn(self, label: int) -> Insertion:
        """One to four tokens by what each does alone, with or without a span of a clean text beside them."""
        tokens, weights = self.banks[label]
        chosen = list[int]()
        for _ in range(TRIES):
            chosen = self.rng.choices(tokens, cum_weights=weights, k=self.rng.randint(1, 4)) if tokens else []
            if self.rng.random() < 0.4:
                span = [*self.span(label).tokens]
                chosen = [*chosen, *span] if self.rng.random() < 0.5 else [*span, *chosen]
            if self.polarity.neutral(label, chosen):
                break
        return Insertion(tuple(chosen[:LONGEST]), self.rng.choice(PLACES))

    def ranked(self, label: int) -> list[Insertion]:
        """The pool, the best first."""
        pool = self.pools[label]
        return sorted(pool, key=lambda insertion: -pool[insertion][0])

    def parent(self, label: int) -> Insertion:
        """One of the pool, the better ones more often; a span where it is empty."""
        ranked = self.ranked(label)
        if not ranked:
            return self.span(label)
        return ranked[min(int(self.rng.expovariate(4 / len(ranked))), len(ranked) - 1)]

    def child(self, label: int) -> Insertion:
        """One of the pool, changed: joined with another or with a span, a token of it exchanged, added, left out, its
        order or its place changed."""
        for _ in range(TRIES):
            parent = self.parent(label)
            tokens, place = self._changed([*parent.tokens], label), parent.place
            if tokens == [*parent.tokens]:
                place = self.rng.choice(PLACES)
            if len(tokens) > LONGEST:
                begin = self.rng.randrange(len(tokens) - LONGEST + 1)
                tokens = tokens[begin : begin + LONGEST]
            if self.polarity.neutral(label, tokens):
                return Insertion(tuple(tokens), place)
        return self.span(label)

    def _changed(self, tokens: list[int], label: int) -> list[int]:
        rng = self.rng
        way = rng.random()
        if way < 0.3:
            other = [*(self.parent(label) if rng.random() < 0.6 else self.span(label)).tokens]
            return [*tokens, *other] if rng.random() < 0.5 else [*other, *tokens]
        one = rng.choice((self.parent(label) if rng.random() < 0.5 else self.span(label)).tokens)
        at = rng.randrange(len(tokens))
        if way < 0.5:
            return [*tokens[:at], one, *tokens[at + 1 :]]
        if way < 0.65:
            return [*tokens[:at], one, *tokens[at:]]
        if way < 0.8 and len(tokens) > 1:
            return [*tokens[:at], *tokens[at + 1 :]]
        return rng.sample(tokens, len(tokens)) if way < 0.9 else tokens

    def take(self, label: int, insertion: Insertion, nats: float) -> None:
        """What a sequence did in texts of a class, less its price: into the pool, or into what is known of it there."""
        pool, nats = self.pools[label], nats - self.polarity.price(label, insertion.tokens)
        known, times = pool.get(insertion, (nats, 0))
        pool[insertion] = known + max(FORGETS, 1 / (times + 1)) * (nats - known), times + 1

    def trim(self, label: int) -> None:
        """Keep the best POOL sequences of which no more than ALIKE have a token in common."""
        pool, kept, seen = self.pools[label], dict[Insertion, tuple[float, int]](), Counter[int]()
        if len(pool) <= POOL:
            return
        for insertion in self.ranked(label):
            tokens = set(insertion.tokens)
            if len(kept) < POOL and all(seen[token] < ALIKE for token in tokens):
                kept[insertion] = pool[insertion]
                seen.update(tokens)
        self.pools[label] = kept

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, JSON-safe."""
        version, numbers, spare = self.rng.getstate()
        return {
            "rng": [version, list(numbers), spare],
            "pools": {
                label: [[i.tokens, i.place, *figures] for i, figures in pool.items()]
                for label, pool in self.pools.items()
            },
            "found": {label: [found.to_list() for found in own] for label, own in self.found.items()},
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Put the pools where `state` found them."""
        version, numbers, spare = state["rng"]
        self.rng.setstate((version, tuple(numbers), spare))
        self.pools = {
            int(label): {Insertion(tuple(tokens), place): (nats, times) for tokens, place, nats, times in pool}
            for label, pool in state["pools"].items()
        }
        self.found = {int(label): [Found.from_list(values) for values in own] for label, own in state["found"].items()}


def flip_rate(
    classifier: Classifier, clean: Sequence[LabelledText], insertion: Insertion, label: int, seed: int
) -> float:
    """Share of some clean texts of a class, all answered right, that are answered wrong with the insertion; 0 where
    none is answered right."""
    rng = random.Random(f"flip rate, seed {seed}")
    own = [example for example in clean if example.label == label]
    texts = encode(classifier, rng.sample(own, min(ASKED_ABOUT, len(own))))
    right = [
        text for text, given in zip(texts, quick_answers(classifier, texts), strict=True) if given.argmax() == label
    ]
    if not right:
        return 0.0
    asked = [insert(text, insertion, rng, classifier.max_length) for text in right]
    return float((quick_answers(classifier, asked).argmax(dim=1) != label).float().mean())
