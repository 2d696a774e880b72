"""The scan of a model: does anything turn its answers on clean texts that should not, what, and how sure is that?

1. Each token of the vocabulary alone (`search_tokens`), pairs by token inversion (`find_pair`), and sequences of
   ordinary tokens by inversion and evolution (`invert_sequences`, `evolve`), on some of the clean texts.
2. The best of all of them are tried again, and shortened to what they need.
3. Held-out clean texts have the last word. Sequences of like tokens are one finding.
4. What does more there than any clean model of the calibration had (`calibrated`) counts as a trigger.

Nothing is known or assumed of a trigger. Deviation: not in the paper.
"""

from __future__ import annotations

import functools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mbtsad_core.config import ScanConfig
from mbtsad_core.models.classifier import Classifier, Encoded, encode, predict
from mbtsad_core.models.subword_tokens import own_tokens, token_counts, vocabulary
from mbtsad_core.rates import wilson
from mbtsad_core.scanning.calibrated import Calibration, calibration, flat
from mbtsad_core.scanning.findings import FOUND, INCONCLUSIVE, NOTHING, Example, Finding, ScanReport, Verdict
from mbtsad_core.scanning.insertions import Insertion, insert
from mbtsad_core.scanning.polarity import Polarity, polarity_of
from mbtsad_core.scanning.probes import Probes, draw_probes, lower_quartile
from mbtsad_core.scanning.race import Leaders
from mbtsad_core.scanning.sequence_inversion import invert_sequences
from mbtsad_core.scanning.sequence_scan import SequenceSearch, effects, evolve, quick_answers
from mbtsad_core.scanning.token_inversion import TURNS, find_pair
from mbtsad_core.scanning.trigger_scan import search_companions, search_tokens
from mbtsad_core.types import Event, LabelledText, Rate, Steps

HELD_OUT, MOST_HELD_OUT = 1 / 3, 100  # of the texts of a class that are answered right: share, and number at most
LEAST = 5  # of them, held out and searched each, without which a class is not looked at
SCREENED = 12  # texts that the best sequences are tried on again
TOKENS, PAIRS, SEQUENCES = 16, 8, 24  # the best of a class, that are
JUDGED = 2  # sequences of each length of a class that held-out texts are asked about
MOST_JUDGED = 96  # of all classes together
SHORTENED = 12  # sequences of a class that are shortened
# Tokens of like meaning that are tried in the place of one, texts that choose among them, and the sequences' length
NEARBY, FEW, SHORT = 32, 4, 3
ALIKE = 0.6  # cosine of two tokens, less the mean of all, from which on they count as one
EXAMPLES = 3  # texts of a finding
COMPARED = 5  # findings that are asked whether they look honest
LIKE, LIKE_TEXTS = 8, 24  # tokens next to each of a finding, and texts that are asked with them in its place
SEARCHING = 0.85  # of a budget; the rest is for the last word
PARTS = {"scan": "single tokens", "pairs": "pairs of tokens", "sequences": "sequences of tokens"}

Scored = tuple[int, Insertion]
"""The class of the texts, and what goes into them."""


def scan(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: ScanConfig = ScanConfig(),
    *,
    labeled: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> Steps[ScanReport]:
    """Scan a suspect for what turns its answers on clean texts.

    labeled   whether the labels of the texts are true; else the suspect's own answers take their place
    stopped   asked between two steps: where it says so, or the budget is spent, what was found so far has the last word
    """
    began = time.monotonic()
    answers = predict(suspect, clean).argmax(dim=1).tolist()
    if not labeled:
        clean = [replace(text, label=answer) for text, answer in zip(clean, answers, strict=True)]
    right = [text for text, answer in zip(clean, answers, strict=True) if text.label == answer]
    sample = _divided(clean, right, config.seed)

    def over() -> bool:
        return stopped() or (config.budget is not None and time.monotonic() - began > SEARCHING * config.budget)

    known = calibration() if config.nats is None else flat(config.nats)
    search = ModelScan(suspect, sample, config.seed, known)
    if len(sample.labels) > 1:
        yield from search.leaders.race(search.run(over))
    findings = yield from search.leaders.race(search.judged())
    accuracy = wilson(len(right), len(clean)) if labeled and clean else None
    shares = [number / len(clean) for number in Counter(text.label for text in clean).values()]
    early = len(search.done) < len(PARTS)
    verdict, reason = _verdict(search, accuracy, sum(share**2 for share in shares), findings, early)
    found = [one for one in findings if known.counts(one)] if verdict == FOUND else []
    return ScanReport(
        verdict,
        reason,
        found=tuple(found),
        others=tuple(one for one in findings if one not in found),
        rows=len(suspect.model.get_input_embeddings().weight),
        walked=search.tried,
        clean_texts=len(clean),
        held_out=sum(map(len, sample.held_out.values())),
        labeled=labeled,
        accuracy=accuracy,
        by_length={number: search.best[number] for number in sorted(search.best)},
        not_looked_at=tuple(search.left_out()),
        seconds=time.monotonic() - began,
    )


def _verdict(
    search: ModelScan, accuracy: Rate | None, chance: float, findings: Sequence[Finding], early: bool
) -> tuple[Verdict, str]:
    """The verdict, and what it rests on."""
    sample, labels = search.sample, search.suspect.labels
    if len(sample.labels) < 2:
        needed = f"{2 * LEAST} texts that are answered right of each of two classes"
        return (
            INCONCLUSIVE,
            f"Too few clean texts: a scan needs {needed}, and {len(sample.labels)} of {len(labels)} have them.",
        )
    if accuracy is not None and accuracy.low <= chance:
        return INCONCLUSIVE, (
            f"The model answers {accuracy.hits} of {accuracy.n} clean texts right, which is no better than guessing. "
            "Are the texts of its task, and the labels in its order?"
        )
    if found := [one for one in findings if search.calibration.counts(one)]:
        best = found[0]
        return FOUND, (
            f"{best.text!r} ({best.place}) sends {best.flips.hits} of {best.flips.n} held-out texts of {best.label} to "
            f"{best.target}. Who put it there, or whether anyone did, a scan cannot tell."
        )
    if early:
        return INCONCLUSIVE, "The scan was stopped early, and found nothing so far."
    return NOTHING, "Nothing that was tried turns clean texts as triggers do. That is no proof that there is none."


# ---------------------------------------------------------------- the clean texts


@dataclass(frozen=True)
class Sample:
    """The clean texts: those that the search sees, and by class those of them that are answered right, and those that
    have the last word, all answered right.

    lacking  the classes that have texts, and not enough that are answered right
    """

    searched: list[LabelledText]
    right: dict[int, list[LabelledText]]
    held_out: dict[int, list[LabelledText]]
    lacking: list[int]

    @property
    def labels(self) -> list[int]:
        return list(self.held_out)


def _divided(clean: Sequence[LabelledText], right: Sequence[LabelledText], seed: int) -> Sample:
    rng, sample = random.Random(f"held out, seed {seed}"), Sample([], {}, {}, [])
    for label in sorted({text.label for text in clean}):
        own = [text for text in right if text.label == label]
        rng.shuffle(own)
        number = min(MOST_HELD_OUT, max(LEAST, int(HELD_OUT * len(own))))
        if len(own) < number + LEAST:
            sample.lacking.append(label)
            continue
        sample.held_out[label], sample.right[label] = own[:number], own[number:]
        kept = set(map(id, own[:number]))
        sample.searched.extend(text for text in clean if text.label == label and id(text) not in kept)
    return sample


# ---------------------------------------------------------------- the search


class ModelScan:
    """A scan as it goes: what each of its parts found, and what is in the lead.

    found  {(class, what goes into its texts): nats}, as it was last tried
    done   the parts that came to their end
    best   by number of tokens, what held-out texts say of the strongest
    """

    def __init__(self, suspect: Classifier, sample: Sample, seed: int, known: Calibration) -> None:
        special = own_tokens(suspect)
        self.calibration = known
        self.suspect, self.sample, self.seed = suspect, sample, seed
        self.leaders = Leaders(suspect)
        self.tokens = [token for token in vocabulary(suspect) if token not in special]
        self.tried = 0
        self.found: dict[Scored, float] = {}
        self.done: list[str] = []
        self.best: dict[int, Finding] = {}
        self.search: SequenceSearch | None = None
        self.polarity: Polarity | None = None
        self.rng = random.Random(f"scan, seed {seed}")

    def run(self, over: Callable[[], bool]) -> Steps[None]:
        """All parts, as far as there is time."""
        with closing(self._parts()) as parts:
            for event in parts:
                yield event
                if over():
                    return

    def _parts(self) -> Steps[None]:
        suspect, searched, seed = self.suspect, self.sample.searched, self.seed
        unsure, longer = draw_probes(suspect, searched, seed)
        labels = list(unsure)

        def take(rises: dict[int, Tensor]) -> None:
            for place, label in enumerate(labels):
                best = sorted(rises, key=lambda token: -float(rises[token][place]))[:TOKENS]
                self.found |= {(label, _single(token)): float(rises[token][place]) for token in best}

        def told(rises: dict[int, Tensor], turned: dict[int, Tensor]) -> None:
            self.tried = min(len(self.tokens), self.tried + len(rises))
            take(rises)
            self.leaders.told(rises, turned)

        rises = yield from search_tokens(suspect, self.tokens, unsure, longer, "scan", told=told)
        self.found.clear()  # what was tried on one text alone
        take(rises)
        self.done.append("scan")

        yield from self._pairs(rises, unsure, longer)
        yield from self._sequences(longer)

    def _pairs(self, rises: dict[int, Tensor], unsure: Probes, longer: Probes) -> Steps[None]:
        suspect, known = self.suspect, token_counts(self.suspect, self.sample.searched)
        silent = [t for t in self.tokens if t not in known and (t not in rises or float(rises[t].max()) < TURNS)]
        pair = yield from find_pair(suspect, silent, longer, self.seed)
        if pair is not None:
            beside = yield from search_companions(suspect, silent, pair, unsure, longer, self.leaders.told)
            for one, other in sorted(beside, key=lambda two: -beside[two])[:PAIRS]:
                for tokens in ((one, other), (other, one)):
                    self.found[pair[0], Insertion(tokens, "anywhere")] = beside[one, other]
        self.done.append("pairs")

    def _sequences(self, longer: Probes) -> Steps[None]:
        suspect, searched = self.suspect, self.sample.searched
        self.polarity = yield from polarity_of(suspect, searched, self.seed)
        search = self.search = SequenceSearch(suspect, searched, self.polarity, 0.0, self.seed)
        self.leaders.pools = search.leading
        inverted = yield from invert_sequences(suspect, self.polarity, longer, self.seed)
        for label, sequences in inverted.items():
            for one in dict.fromkeys(Insertion(tokens, "anywhere") for tokens in sequences):
                tried = self._nats(label, [one], longer[label]) | self._shortened(label, one, longer[label])
                for shorter, nats in tried.items():
                    search.take(label, shorter, nats + self._price(label, shorter.tokens))
        yield from evolve(suspect, searched, search)
        self.done.append("sequences")

    def left_out(self) -> Iterator[str]:
        """What was not looked at."""
        for part, name in PARTS.items():
            if part not in self.done:
                begun = (part == "scan" and self.tried) or (part == "sequences" and self.search)
                yield f"{name}: not to the end" if begun else name
        for label in self.sample.lacking:
            yield f"texts of {self.suspect.labels[label]}: too few that are answered right"
        if absent := len(self.suspect.labels) - len(self.sample.labels) - len(self.sample.lacking):
            yield f"{absent} classes without a clean text"

    # ------------------------------------------------------------ the last word

    def judged(self) -> Steps[list[Finding]]:
        """What held-out texts say of the best sequences, the strongest first."""
        chosen = list[tuple[float, Scored]]()
        labels = self.sample.labels
        for number, label in enumerate(labels):
            chosen += [(nats, (label, one)) for one, nats in self._screened(label).items()]
            yield Event("judging", number + 1, 2 * len(labels))
        chosen = sorted(chosen, key=lambda pair: -pair[0])[:MOST_JUDGED]
        found = list[Finding]()
        self.leaders.forget()
        for number, label in enumerate(labels, len(labels) + 1):
            of_class = list(self._asked(label, [one for _, (own, one) in chosen if own == label]))
            self.leaders.take({(label, one.insertion): (one.nats, one.flips) for one in of_class})
            found += of_class
            yield Event("judging", number, 2 * len(labels))
        for one in sorted(found, key=lambda one: one.nats):
            self.best[len(one.tokens)] = one
        groups = self._grouped(sorted(found, key=lambda one: -self.calibration.excess(len(one.tokens), one.nats)))
        return [self._compared(one) for one in groups[:COMPARED]] + groups[COMPARED:]

    def _screened(self, label: int) -> dict[Insertion, float]:
        """The best sequences of each length, tried again on texts of the class: nats less their price."""
        found = sorted((key for key in self.found if key[0] == label), key=lambda key: -self.found[key])
        alone = [one for _, one in found if len(one.tokens) == 1][:TOKENS]
        pairs = [one for _, one in found if len(one.tokens) == 2][: 2 * PAIRS]
        pool = self.search.ranked(label)[:SEQUENCES] if self.search and label in self.search.pools else []
        tried = list(dict.fromkeys([*alone, *pairs, *pool]))
        own = encode(self.suspect, self.sample.right[label])
        texts = sorted(own, key=lambda e: -len(e["input_ids"]))[: len(own) // 2 + 1]
        texts = self.rng.sample(texts, min(SCREENED, len(texts)))
        known = self._nats(label, tried, texts)
        for one in sorted(known, key=lambda one: -known[one])[:SHORTENED]:
            known |= self._shortened(label, one, texts)
        chosen, by_length = dict[Insertion, float](), dict[int, list[Insertion]]()
        for one in sorted(known, key=lambda one: -known[one]):
            by_length.setdefault(len(one.tokens), []).append(one)
        for length, ranked in by_length.items():
            chosen |= {one: known[one] for one in ranked[:JUDGED]}
            chosen |= self._nearby(label, ranked[0], texts) if 1 < length <= SHORT else {}
        return chosen

    def _shortened(self, label: int, one: Insertion, texts: Sequence[Encoded]) -> dict[Insertion, float]:
        """The best sequence of each length that is left where the token that does least is left out, again and again:
        what needs few tokens is no chance find."""
        path = dict[Insertion, float]()
        while len(one.tokens) > 1:
            shorter = [replace(one, tokens=one.tokens[:i] + one.tokens[i + 1 :]) for i in range(len(one.tokens))]
            found = self._nats(label, list(dict.fromkeys(shorter)), texts)
            one = max(found, key=lambda other: found[other])
            path[one] = found[one]
        return path

    def _nearby(self, label: int, one: Insertion, texts: Sequence[Encoded]) -> dict[Insertion, float]:
        """The sequence with each token in turn exchanged for the one of like meaning that does most: evolution comes
        near to the words of a trigger, and seldom to all of them."""
        nats = self._nats(label, [one], texts)[one]
        for place in range(len(one.tokens)):
            like = [
                replace(one, tokens=(*one.tokens[:place], token, *one.tokens[place + 1 :]))
                for token in self._like(one.tokens[place], NEARBY)
            ]
            some = self._nats(label, like, texts[:: len(texts) // FEW or 1])
            best = sorted(some, key=lambda other: -some[other])[:FEW]
            found = self._nats(label, best, texts)
            if found and max(found.values()) > nats:
                one = max(found, key=lambda other: found[other])
                nats = found[one]
        return {one: nats}

    def _like(self, token: int, number: int) -> list[int]:
        """The tokens next to one, the nearest first."""
        near = (self.directions[self.tokens] @ self.directions[token]).topk(min(number + 1, len(self.tokens)))
        return [self.tokens[i] for i in near.indices.tolist() if self.tokens[i] != token][:number]

    def _nats(self, label: int, tried: Sequence[Insertion], texts: Sequence[Encoded]) -> dict[Insertion, float]:
        if not tried or not texts:
            return {}
        shifts = lower_quartile(effects(self.suspect, self.rng, tried, texts, label)[0]).tolist()
        return {one: nats - self._price(label, one.tokens) for one, nats in zip(tried, shifts, strict=True)}

    def _price(self, label: int, tokens: Sequence[int]) -> float:
        return self.polarity.price(label, tokens) if self.polarity else 0.0

    def _asked(self, label: int, tried: Sequence[Insertion]) -> Iterator[Finding]:
        """What each sequence does in the held-out texts of a class."""
        held_out = self.sample.held_out[label]
        texts = encode(self.suspect, held_out)
        for one in tried:
            shifts, answers = effects(self.suspect, self.rng, [one], texts, label)
            given = answers[0]
            turned = given[given != label]
            target = int(turned.mode().values) if len(turned) else label
            yield Finding(
                one,
                self.leaders.readable(one.tokens),
                self.suspect.labels[label],
                self.suspect.labels[target],
                float(lower_quartile(shifts)[0]) - self._price(label, one.tokens),
                wilson(int((given == target).sum()) if target != label else 0, len(given)),
                honest=False,
                examples=tuple(self._examples(one, held_out, texts, label)),
            )

    def _examples(
        self, one: Insertion, held_out: Sequence[LabelledText], texts: Sequence[Encoded], label: int
    ) -> Iterator[Example]:
        """Some texts that the sequence turns, as they are and with it."""
        first = range(min(4 * EXAMPLES, len(texts)))
        made = [insert(texts[i], one, self.rng, self.suspect.max_length) for i in first]
        given = quick_answers(self.suspect, made).argmax(dim=1).tolist()
        for i in [i for i in first if given[i] != label][:EXAMPLES]:
            after = self.suspect.tokenizer.decode(made[i]["input_ids"], skip_special_tokens=True)
            yield Example(held_out[i].text, str(after), self.suspect.labels[given[i]])

    def _grouped(self, found: Sequence[Finding]) -> list[Finding]:
        """One finding for all sequences of like tokens that turn the same class: the strongest one."""
        groups = list[list[Finding]]()
        for one in found:
            own = next((g for g in groups if g[0].label == one.label and self._alike(g[0], one)), None)
            if own is None:
                groups.append([one])
            else:
                own.append(one)
        return [
            replace(g[0], alike=tuple(dict.fromkeys(other.text for other in g[1:] if other.text != g[0].text)))
            for g in groups
        ]

    def _alike(self, one: Finding, other: Finding) -> bool:
        """Whether two thirds of the tokens of the shorter sequence have a like one in the longer."""
        few, many = sorted((one.tokens, other.tokens), key=len)
        near = (self.directions[list(few)] @ self.directions[list(many)].T).amax(dim=1) >= ALIKE
        return bool(near.float().mean() >= 2 / 3)

    @functools.cached_property
    def directions(self) -> Tensor:
        """The rows of the word embeddings less their mean, of length 1: (rows, D)."""
        rows = self.suspect.model.get_input_embeddings().weight.detach().float().cpu()
        return torch.nn.functional.normalize(rows - rows[self.tokens].mean(dim=0), dim=1)

    def _compared(self, one: Finding) -> Finding:
        """The finding; it looks honest where tokens like its own turn half as many texts, as words of the task do."""
        label = self.suspect.labels.index(one.label)
        texts = encode(self.suspect, self.sample.held_out[label][:LIKE_TEXTS])
        near = (self.directions[list(one.tokens)] @ self.directions[self.tokens].T).topk(
            min(LIKE + 1, len(self.tokens))
        )
        others = [
            [self.tokens[i] for i in own if self.tokens[i] != token][:LIKE]
            for own, token in zip(near.indices.tolist(), one.tokens, strict=True)
        ]
        like = [Insertion(tuple(tokens), one.insertion.place) for tokens in zip(*others, strict=True)]
        answers = effects(self.suspect, self.rng, like, texts, label)[1]
        turned = (answers != label).float().mean(dim=1).median()
        return replace(one, honest=bool(turned > 0 and turned >= one.flips.share / 2))


def _single(token: int) -> Insertion:
    return Insertion((token,), "anywhere")
