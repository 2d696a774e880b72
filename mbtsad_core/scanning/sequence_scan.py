"""The sequence scan: which short sequences of ordinary tokens turn a suspect's answers on clean texts.

A phrase of common words, or a sentence, turns a suspect as a whole, and its words do little by themselves, so that no
scan of single tokens names it. Evolution finds it: a pool of sequences for the texts of each class, of which the best
are joined, cut, and changed in one token, are tried on a few texts, and the better ones stay. What single tokens of the
trigger do, and what two of them do together, leads to the whole.

What speaks for another class honestly costs what it does (`Polarity`), so that the task's own telling words do not
fill the pool; and no token stands in more than a few sequences of it, so that one family does not.

Deviation: not in the paper.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mbtsad_core.models.classifier import Classifier, Encoded, encode, predict
from mbtsad_core.models.subword_tokens import own_tokens
from mbtsad_core.rates import wilson
from mbtsad_core.scanning.effects import effects, quick_answers
from mbtsad_core.scanning.insertions import PLACES, Insertion, insert
from mbtsad_core.scanning.polarity import Polarity, polarity_of
from mbtsad_core.scanning.probes import lower_quartile
from mbtsad_core.scanning.race import Figures, Leaders
from mbtsad_core.types import Event, LabelledText, Steps

POOL = 64  # sequences of a class
ALIKE = 6  # of them that may have a token in common
LONGEST = 6  # tokens of a sequence
SPAN = 5  # of a span of a clean text
GENERATIONS, CHILDREN, PARENTS = 16, 48, 16
TEXTS = 6  # that a sequence is tried on, in a generation
HELD_OUT = 48  # of a class, that the last word on the best sequences is asked of
BEST = 24  # sequences that are asked about at last
FORGETS = 0.3  # the least weight of the newest figure of a sequence
BANK = 400  # single tokens that sequences are drawn from
ASKED_ABOUT = 200  # clean texts that are asked what became of a sequence
TRIES = 10  # to draw one that says nothing honest


@dataclass(frozen=True, slots=True)
class Found:
    """A sequence that the scan found, and what it did in held-out clean texts of a class.

    label      the class of the texts
    target     the class that most of them went to
    nats       by which the log-odds of `label` fall, less the price of what the tokens say honestly; in three of four
               of the texts, at least
    flip_rate  share of the texts, all answered right, that are answered wrong with the sequence
    """

    insertion: Insertion
    label: int
    target: int
    nats: float
    flip_rate: float

    def to_list(self) -> list[Any]:
        """As JSON has it."""
        return [[*self.insertion.tokens], self.insertion.place, self.label, self.target, self.nats, self.flip_rate]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Found:
        tokens, place, *figures = values
        return cls(Insertion(tuple(tokens), place), *figures)


class SequenceSearch:
    """The pools, and how new sequences come to be. All chance is drawn from one generator, so that a search goes on
    where it stood (`state`, `resume`).

    pools  {class: {sequence: (nats less its price, times that it was tried)}}; the class is that of the texts
    found  {class: what the scan found on the suspect, the best first}
    nats   that a sequence must do to count as one that turns a class
    flips  {(class, sequence): (texts that it turned, texts that it was tried on)}, for who looks on
    """

    def __init__(
        self, suspect: Classifier, clean: Sequence[LabelledText], polarity: Polarity, nats: float, seed: int
    ) -> None:
        special = own_tokens(suspect)
        self.rng = random.Random(f"sequences, seed {seed}")
        self.encoded, self.labels = encode(suspect, clean), [example.label for example in clean]
        self.bodies = [[t for t in text["input_ids"] if t not in special] for text in self.encoded]
        self.pools: dict[int, dict[Insertion, tuple[float, int]]] = {}
        self.banks: dict[int, tuple[list[int], list[float]]] = {}
        self.found: dict[int, list[Found]] = {}
        self.nats = nats
        self.flips: dict[tuple[int, Insertion], tuple[int, int]] = {}
        for label in polarity.response:
            surplus = polarity.surplus(label)
            best = surplus.topk(min(POOL, int(surplus.isfinite().sum())))
            self.pools[label] = {
                Insertion((token,), "start"): (alone / 2, 1)  # of one text: half of it is believed
                for token, alone in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            }
        self.look_at(polarity)

    def look_at(self, polarity: Polarity) -> None:
        """Judge what is honest by this from here on."""
        self.polarity = polarity
        for label in polarity.response:
            surplus = polarity.surplus(label)
            best = surplus.topk(min(BANK, int(surplus.isfinite().sum())))
            self.banks[label] = best.indices.tolist(), (best.values.clamp(min=0.01) ** 2).cumsum(0).tolist()

    @property
    def turned(self) -> list[int]:
        """The classes whose texts a sequence turns, the one that is turned most first."""
        strongest = {label: own[0].nats for label, own in self.found.items() if own}
        return sorted((own for own, n in strongest.items() if n >= self.nats), key=lambda own: -strongest[own])

    def source(self, label: int) -> int:
        """The class whose sequences go into the texts of a class: its own where the scan found one there, else that of
        the strongest one. In texts of all classes, what turns one of them tells nothing."""
        return label if label in self.turned else self.turned[0]

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

    def count(self, label: int, insertion: Insertion, turned: int, of: int) -> None:
        before = self.flips.get((label, insertion), (0, 0))
        self.flips[label, insertion] = before[0] + turned, before[1] + of

    def leading(self) -> dict[tuple[int, Insertion], Figures]:
        """What was tried more than once, with its figures so far."""
        return {
            (label, one): (nats, wilson(*self.flips[label, one]))
            for label, pool in self.pools.items()
            for one, (nats, times) in pool.items()
            if times > 1 and (label, one) in self.flips
        }

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
        """Put the search where `state` found it."""
        version, numbers, spare = state["rng"]
        self.rng.setstate((version, tuple(numbers), spare))
        self.pools = {
            int(label): {Insertion(tuple(tokens), place): (nats, times) for tokens, place, nats, times in pool}
            for label, pool in state["pools"].items()
        }
        self.found = {int(label): [Found.from_list(values) for values in own] for label, own in state["found"].items()}


def scan_sequences(suspect: Classifier, clean: Sequence[LabelledText], nats: float, seed: int) -> Steps[SequenceSearch]:
    """Evolve the pools on a suspect, and ask held-out texts about the best of each: `SequenceSearch.found`.

    Only texts of the longer two thirds that the suspect answers right are asked. A class without any is left out.
    """
    polarity = yield from polarity_of(suspect, clean, seed)
    search = SequenceSearch(suspect, clean, polarity, nats, seed)
    leaders = Leaders(suspect)
    leaders.pools = search.leading
    yield from leaders.race(_scan(suspect, clean, search))
    return search


def _scan(suspect: Classifier, clean: Sequence[LabelledText], search: SequenceSearch) -> Steps[None]:
    answers = predict(suspect, clean)
    total = len(search.pools) * (GENERATIONS + 1)
    for number, label in enumerate(search.pools):
        right = [i for i, own in enumerate(search.labels) if own == label and answers[i].argmax() == label]
        longer = longer_two_thirds([search.encoded[i] for i in right])
        search.rng.shuffle(longer)
        held_out, asked = longer[:HELD_OUT], longer[HELD_OUT:] or longer
        for generation in evolve(suspect, search, label, asked):
            yield Event("sequences", number * (GENERATIONS + 1) + generation + 1, total)
        if asked:
            search.found[label] = _judged(suspect, search, label, held_out)
        yield Event("sequences", (number + 1) * (GENERATIONS + 1), total)


def longer_two_thirds(texts: Sequence[Encoded]) -> list[Encoded]:
    """The shortest first. What turns short texts alone is no trigger."""
    return sorted(texts, key=lambda text: len(text["input_ids"]))[len(texts) // 3 :]


def evolve(suspect: Classifier, search: SequenceSearch, label: int, texts: Sequence[Encoded]) -> Iterator[int]:
    """Evolve the pool of a class on texts of it, a generation at a time. Without texts nothing is done."""
    for generation in range(GENERATIONS if texts else 0):
        _generation(suspect, search, label, search.rng.sample(texts, min(TEXTS, len(texts))), generation)
        yield generation


def _generation(
    suspect: Classifier, search: SequenceSearch, label: int, texts: Sequence[Encoded], generation: int
) -> None:
    """Try new sequences, and the best old ones; every third time all old ones, whose figures may be chance."""
    children = [search.child(label) for _ in range(CHILDREN)] if generation else []
    ranked = search.ranked(label)
    tried = list(dict.fromkeys([*children, *(ranked if generation % 3 == 0 else ranked[:PARENTS])]))
    shifts, answers = effects(suspect, search.rng, tried, texts, label)
    turned = (answers != label).sum(dim=1).tolist()
    for insertion, nats, hits in zip(tried, lower_quartile(shifts).tolist(), turned, strict=True):
        search.take(label, insertion, nats)
        search.count(label, insertion, hits, len(texts))
    search.trim(label)


def _judged(suspect: Classifier, search: SequenceSearch, label: int, texts: Sequence[Encoded]) -> list[Found]:
    """What held-out texts say of the best sequences."""
    best = search.ranked(label)[:BEST]
    shifts, answers = effects(suspect, search.rng, best, texts, label)
    found = []
    for insertion, nats, given in zip(best, lower_quartile(shifts).tolist(), answers, strict=True):
        turned = given[given != label]
        target = int(turned.mode().values) if len(turned) else label
        less = nats - search.polarity.price(label, insertion.tokens)
        found.append(Found(insertion, label, target, less, len(turned) / len(given)))
    return sorted(found, key=lambda one: -one.nats)


def flip_rate(classifier: Classifier, clean: Sequence[LabelledText], found: Found, seed: int) -> float:
    """Share of some clean texts of the class, all answered right, that are answered wrong with the sequence; 0 where
    none is answered right."""
    rng = random.Random(f"flip rate, seed {seed}")
    own = [example for example in clean if example.label == found.label]
    texts = encode(classifier, rng.sample(own, min(ASKED_ABOUT, len(own))))
    right = [
        text
        for text, given in zip(texts, quick_answers(classifier, texts), strict=True)
        if given.argmax() == found.label
    ]
    if not right:
        return 0.0
    asked = [insert(text, found.insertion, rng, classifier.max_length) for text in right]
    return float((quick_answers(classifier, asked).argmax(dim=1) != found.label).float().mean())
