"""The scan of a model: does anything turn its answers on clean texts that should not, what, and how sure is that?

1. Each token of the vocabulary alone (`search_tokens`), pairs by token inversion (`find_pair`), short words of several
   tokens (`search_short_words`), and sequences of ordinary tokens in strong texts joined to one (`Lineages`); tokens
   that say little by the labels, in such texts (`find_neutral`) and at the start of texts (`find_openings`); on some
   of the clean texts.
2. Held-out clean texts have the last word. Sequences of like tokens are one finding.
3. What turns most of them, and is as strong as hardly any clean model of the calibration has it (`calibrated`), counts
   as a trigger.

Nothing is known or assumed of a trigger. Deviation: not in the paper.
"""

from __future__ import annotations

import functools
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mbtsad_core.config import ScanConfig
from mbtsad_core.models.classifier import Classifier, Encoded, encode, in_training_precision, predict
from mbtsad_core.models.subword_tokens import own_tokens, token_counts, vocabulary
from mbtsad_core.rates import wilson
from mbtsad_core.scanning import neutral_tokens, openings
from mbtsad_core.scanning.calibrated import MOST, Calibration, Figures, calibration
from mbtsad_core.scanning.deadline import Deadline, OutOfTime
from mbtsad_core.scanning.effects import effects, quick_answers
from mbtsad_core.scanning.findings import FOUND, INCONCLUSIVE, NOTHING, Example, Finding, Measure, ScanReport, Verdict
from mbtsad_core.scanning.insertions import Insertion, insert
from mbtsad_core.scanning.lineages import Lineages, together
from mbtsad_core.scanning.neutral_tokens import find_neutral
from mbtsad_core.scanning.openings import find_openings, opening_nats
from mbtsad_core.scanning.polarity import Polarity, polarity_of, short_texts, told_by, told_by_labels
from mbtsad_core.scanning.probes import Probes, draw_probes, encoded_with_room, losses_of, lower_quartile, shift_of
from mbtsad_core.scanning.race import Leaders
from mbtsad_core.scanning.short_words import search_short_words, short_words
from mbtsad_core.scanning.strong_texts import JOINED, draw_joined, strong_texts
from mbtsad_core.scanning.token_inversion import TURNS, find_pair
from mbtsad_core.scanning.trigger_scan import search_companions, search_tokens
from mbtsad_core.types import Event, LabelledText, Rate, Steps

HELD_OUT, MOST_HELD_OUT = 1 / 3, 100  # of the texts of a class that are answered right: share, and number at most
LEAST = 5  # of them, held out and searched each, without which a class is not looked at
SCREENED = 12  # texts that the best sequences are tried on again
TOKENS, PAIRS = 16, 8  # the best of a class, that are tried again
JUDGED = 4  # tokens, and pairs, of a class that held-out texts are asked about
JUDGED_JOINED, JUDGING = 2, 16  # sequences of each length likewise, and joined texts that they are judged in
FIFTH, FLOOR = 5, 0.1  # the token that outstanding ones are compared with, and nats that it is taken to do besides
MOST_JUDGED = 96  # of all classes together
AT_ONCE = 4  # sequences that held-out texts are asked about together
SURE = 0.9  # share of texts that what needs no longer sequences turns
ALIKE = 0.6  # cosine of two tokens, less the mean of all, from which on they count as one
EXAMPLES = 3  # texts of a finding
COMPARED = 5  # findings that are asked whether they look honest
SOME_TURN, LIKE_TURN = (
    1 / 3,
    1 / 4,
)  # share of texts that what is unexplained turns, and of that share, that its like do
LIKE, LIKE_TEXTS = 8, 24  # tokens next to each of a finding, and texts that are asked with them in its place
ANSWERED, ANSWERING = 128, 0.15  # texts whose answers are asked for together, and what share of a budget they may take
LAST_WORD = 4000  # texts of a class that it asks about, about
PARTS = {
    "scan": "single tokens",
    "pairs": "pairs of tokens",
    "openings": "words at the start of texts",
    "sequences": "sequences of tokens",
}

Scored = tuple[int, Insertion]
"""The class of the texts, and what goes into them."""


def scan(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: ScanConfig = ScanConfig(),
    *,
    labeled: bool = True,
    known: Sequence[Insertion] = (),
    stopped: Callable[[], bool] = lambda: False,
) -> Steps[ScanReport]:
    """Scan a suspect for what turns its answers on clean texts.

    labeled   whether the labels of the texts are true; else the suspect's own answers take their place
    known     triggers that are known before, of a model that this one was purified from: what they do here is told too
    stopped   asked between two steps: where it says so, or the budget is spent, what was found so far has the last word
    """
    began = time.monotonic()
    given, until = len(clean), math.inf if config.budget is None else began + ANSWERING * config.budget
    clean, answers = _answered(suspect, clean, until)
    classes = answers.argmax(dim=1).tolist()
    if not labeled:
        clean = [replace(text, label=answer) for text, answer in zip(clean, classes, strict=True)]
    right = [text for text, answer in zip(clean, classes, strict=True) if text.label == answer]
    sample = _divided(clean, answers, config.seed)
    search = ModelScan(suspect, sample, config, calibration(), began)
    if len(sample.labels) > 1:
        yield from search.leaders.race(search.run(stopped))
    findings = yield from search.leaders.race(search.judged())
    accuracy = wilson(len(right), len(clean)) if labeled and clean else None
    shares = [number / len(clean) for number in Counter(text.label for text in clean).values()]
    early = len(search.done) < len(PARTS)
    verdict, reason = _verdict(search, accuracy, sum(share**2 for share in shares), findings, early)
    found = [one for one in findings if search.counts(one)] if verdict == FOUND else []
    return ScanReport(
        verdict,
        reason,
        found=tuple(found),
        others=tuple(one for one in findings if one not in found),
        rows=len(suspect.model.get_input_embeddings().weight),
        walked=len(search.tried),
        clean_texts=len(clean),
        held_out=sum(map(len, sample.held_out.values())),
        labeled=labeled,
        accuracy=accuracy,
        figures=search.figures,
        not_looked_at=(*search.left_out(), *([f"{given - len(clean)} clean texts"] if len(clean) < given else [])),
        seconds=time.monotonic() - began,
        known=tuple(search.still(known)),
    )


@dataclass(frozen=True)
class Sequences:
    """What `scan_sequences` found, the strongest first.

    counting    what counts as a trigger
    suspicious  what is too weak to count, and yet nothing says that it is honest (`ModelScan.unexplained`); none where
                a figure in nats decides
    polarity    what the suspect's tokens say honestly
    """

    counting: Sequence[Finding]
    suspicious: Sequence[Finding]
    polarity: Polarity


def scan_sequences(suspect: Classifier, clean: Sequence[LabelledText], config: ScanConfig) -> Steps[Sequences]:
    """The parts of `scan` about short words, openings and sequences, for a suspect whose single tokens and pairs were
    scanned before; nothing where the texts are too few for a scan."""
    sample = _divided(clean, predict(suspect, clean), config.seed)
    if len(sample.labels) < 2:
        return Sequences([], [], Polarity({}, {}, {}))
    search = ModelScan(suspect, sample, config, calibration(), time.monotonic())
    polarity = yield from search.leaders.race(search.sequences())
    yield from search.leaders.race(search.judging())
    ranked = sorted(search.judged_ones, key=_rank)
    counting = [one for one in ranked if search.counts(one)]
    weak = [one for one in ranked if config.nats is None and one not in counting]
    return Sequences(counting, [one for one in weak if search.unexplained(one)], polarity)


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
    if found := [one for one in findings if search.counts(one)]:
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

    answers  probabilities of the searched ones, (N, C)
    lacking  the classes that have texts, and not enough that are answered right
    """

    searched: list[LabelledText]
    answers: Tensor
    right: dict[int, list[LabelledText]]
    held_out: dict[int, list[LabelledText]]
    lacking: list[int]

    @property
    def labels(self) -> list[int]:
        return list(self.held_out)


def _answered(
    suspect: Classifier, clean: Sequence[LabelledText], until: float
) -> tuple[Sequence[LabelledText], Tensor]:
    """As many of the texts as there is time for, of all parts of the table, and the suspect's probabilities, (N, C)."""
    parts = range(max(1, len(clean) // ANSWERED))
    asked, answers = list[int](), list[Tensor]()
    for part in parts:
        if part and time.monotonic() > until:
            break
        own = range(part, len(clean), len(parts))
        asked += own
        answers.append(predict(suspect, [clean[i] for i in own]))
    order = torch.tensor(asked).argsort()
    return [clean[i] for i in sorted(asked)], torch.cat(answers)[order]


def _divided(clean: Sequence[LabelledText], answers: Tensor, seed: int) -> Sample:
    rng, given = random.Random(f"held out, seed {seed}"), answers.argmax(dim=1).tolist()
    searched, right, held_out, lacking = list[int](), {}, {}, list[int]()
    for label in sorted({text.label for text in clean}):
        own = [i for i, text in enumerate(clean) if text.label == label == given[i]]
        rng.shuffle(own)
        number = min(MOST_HELD_OUT, max(LEAST, int(HELD_OUT * len(own))))
        if len(own) < number + LEAST:
            lacking.append(label)
            continue
        held_out[label], right[label] = ([clean[i] for i in some] for some in (own[:number], own[number:]))
        searched += [i for i, text in enumerate(clean) if text.label == label and i not in own[:number]]
    return Sample([clean[i] for i in searched], answers[searched], right, held_out, lacking)


# ---------------------------------------------------------------- the search


class ModelScan:
    """A scan as it goes: what each of its parts found, and what is in the lead.

    quick    a copy of the suspect in the precision of its training, which the search asks
    end      when what there is of time is over
    found    {(class, what goes into its texts): nats}, as it was last tried
    done     the parts that came to their end
    turned   the classes that need no longer sequences: fewer tokens turn their texts
    opened   {class: the tokens that do most at the start of its texts}
    neutral  {class: the neutral tokens that do most in its joined texts}
    joined   {class: the search in joined texts}
    """

    def __init__(
        self, suspect: Classifier, sample: Sample, config: ScanConfig, known: Calibration, began: float
    ) -> None:
        special, seed = own_tokens(suspect), config.seed
        self.calibration = known
        self.suspect, self.sample, self.seed, self.least = suspect, sample, seed, config.nats
        self.leaders = Leaders(suspect)
        self.quick = in_training_precision(suspect)
        self.end = Deadline(self.quick.model, began, config.budget)
        self.tokens = [token for token in vocabulary(suspect) if token not in special]
        self.tried: dict[int, Tensor] = {}
        self.found: dict[Scored, float] = {}
        self.done: list[str] = []
        self.turned = set[int]()
        self.judged_ones: list[Finding] = []
        self.opened: dict[int, list[int]] = {}
        self.neutral: dict[int, list[int]] = {}
        self.joined: dict[int, Lineages] = {}
        self.polarity: Polarity | None = None
        self.rng = random.Random(f"scan, seed {seed}")

    def run(self, stopped: Callable[[], bool]) -> Steps[None]:
        """All parts, as far as there is time."""
        with closing(self._parts()) as parts, suppress(OutOfTime):
            for event in parts:
                yield event
                if stopped():
                    return
                self.end.keep(self._takes(LAST_WORD * len(self.sample.labels)), 0.4)
                self.end.look()

    def _parts(self) -> Steps[None]:
        shorter = self._shorter()
        texts, answers = [self.sample.searched[i] for i in shorter], self.sample.answers[shorter]
        encoded, longer = encoded_with_room(self.suspect, texts), draw_probes(self.quick, texts, self.seed, answers)[1]
        short = {label: [text] for label, text in short_texts(texts, encoded, answers, self.seed).items()}
        rises = yield from search_tokens(self.quick, self.tokens, short, longer, "scan", told=self._told, even=True)
        self.found.clear()  # what was tried on one text alone
        self._take(rises)
        self.done.append("scan")
        self.polarity = self._polarity(short)
        unturned = self._unturned(longer)
        yield from self._pairs(rises, short, unturned)
        self._short_words(unturned)
        self.done.append("pairs")
        labels = list(self._unturned(longer))
        yield from self._openings(labels)
        self.done.append("openings")
        yield from self._sequences(labels)
        self.done.append("sequences")

    def sequences(self) -> Steps[Polarity]:
        """That part, the openings and short words alone, in texts of all classes; the polarity that the sequences go
        by."""
        shorter = self._shorter()
        texts, answers = [self.sample.searched[i] for i in shorter], self.sample.answers[shorter]
        self._short_words(draw_probes(self.quick, texts, self.seed, answers)[1])
        self.polarity = yield from polarity_of(self.quick, texts, self.seed)
        yield from self._openings(self.sample.labels)
        yield from self._sequences(self.sample.labels)
        return self.polarity

    def _told(self, rises: dict[int, Tensor], turned: dict[int, Tensor]) -> None:
        """What some tokens do; of each the first figure is kept, that of one text."""
        for token, rise in rises.items():
            self.tried.setdefault(token, rise)
        self._take(rises)
        self.leaders.told(rises, turned)

    def _take(self, rises: dict[int, Tensor]) -> None:
        for place, label in enumerate(self.sample.labels):
            best = sorted(rises, key=lambda token: -float(rises[token][place]))[:TOKENS]
            self.found |= {(label, _single(token)): float(rises[token][place]) for token in best}

    def _shorter(self) -> list[int]:
        """The texts to search with: of each class all but the longest quarter, which cost most and tell no more."""
        texts = self.sample.searched
        own = {label: [i for i, text in enumerate(texts) if text.label == label] for label in self.sample.labels}
        for some in own.values():
            some.sort(key=lambda i: len(texts[i].text))
        return sorted(i for some in own.values() for i in some[: -(-3 * len(some) // 4)])

    def _pairs(self, rises: dict[int, Tensor], short: Probes, longer: Probes) -> Steps[None]:
        quick, known = self.quick, token_counts(self.suspect, self.sample.searched)
        silent = [t for t in self.tokens if t not in known and (t not in rises or float(rises[t].max()) < TURNS)]
        pair = yield from find_pair(quick, silent, longer, self.seed)
        if pair is not None:
            beside = yield from search_companions(quick, silent, pair, short, longer, self.leaders.told)
            for one, other in sorted(beside, key=lambda two: -beside[two])[:PAIRS]:
                for tokens in ((one, other), (other, one)):
                    self.found[pair[0], Insertion(tokens, "anywhere")] = beside[one, other]

    def _short_words(self, longer: Probes) -> None:
        words, rng = short_words(self.suspect), random.Random(f"short words, seed {self.seed}")
        for label, texts in longer.items():
            found = search_short_words(self.quick, words, texts, label, rng)
            self.found |= {(label, one): nats for one, nats in found.items()}

    def _polarity(self, short: Probes) -> Polarity:
        """By what each token does in the text that all of them were tried on."""
        alone, responses = torch.stack([self.tried[token] for token in self.tokens]), dict[int, Tensor]()
        for at, (label, text) in enumerate(short.items()):
            before = losses_of(self.quick, text, label)
            responses[label] = shift_of(before, before + alone[:, at])
        return told_by(self.suspect, self.sample.searched, self.tokens, responses)

    def _unturned(self, longer: Probes) -> Probes:
        """The classes whose texts nothing was found to turn for sure. Elsewhere longer sequences would have that in
        them."""
        for label, texts in longer.items():
            tried = [one for own, one in self.found if own == label]
            if tried and label not in self.turned:
                shifts, answers = effects(self.quick, self.rng, tried, texts, label)
                turn = (answers != label).float().mean(dim=1) >= SURE
                for one, nats in zip(tried, lower_quartile(shifts).where(turn, -torch.inf).tolist(), strict=True):
                    figures: Figures = {"single": {len(one.tokens): nats - self._price(label, one.tokens)}}
                    if self.calibration.enough(figures, self.least):
                        self.turned.add(label)
        return {label: texts for label, texts in longer.items() if label not in self.turned}

    def _openings(self, labels: Sequence[int]) -> Steps[None]:
        """Neutral tokens: common ones at the start of texts, and of all those that are judged with the sequences, in
        joined texts as these are."""
        assert self.polarity is not None
        common = [token for token, _ in token_counts(self.suspect, self.sample.searched).most_common()]
        rng = random.Random(f"openings, seed {self.seed}")
        for step, label in enumerate(labels, 1):
            strong = self._strong(self.sample.right[label], label)
            told, response = self.told[label], self.polarity.response[label]
            self.opened[label] = find_openings(self.quick, label, strong, common, told, rng)
            self.neutral[label] = find_neutral(self.quick, label, strong, self.tokens, response, told, rng)
            yield Event("openings", step, len(labels))

    def _strong(self, texts: Sequence[LabelledText], label: int) -> list[Encoded]:
        return strong_texts(self.quick, encoded_with_room(self.suspect, texts), label)

    @functools.cached_property
    def told(self) -> dict[int, Tensor]:
        """What the labels alone say of each token: {class of the texts: (rows,)}."""
        return told_by_labels(self.suspect, self.sample.searched, self.tokens)

    def _sequences(self, labels: Sequence[int]) -> Steps[None]:
        known = token_counts(self.suspect, self.sample.searched)
        common = [token for token in self.tokens if token in known]
        assert self.polarity is not None
        for turn, label in enumerate(labels):
            strong = self._strong(self.sample.right[label], label)
            search = Lineages(self.quick, label, strong, self.tokens, common, self.polarity, self.seed)
            self.joined[label] = search
            for event in search.run():
                yield replace(event, step=turn * event.total + event.step, total=len(labels) * event.total)

    def counts(self, one: Finding) -> bool:
        """Whether a finding counts as a trigger."""
        return self.calibration.counts(one, self.least)

    def left_out(self) -> Iterator[str]:
        """What was not looked at."""
        for part, name in PARTS.items():
            if part not in self.done:
                begun = (part == "scan" and self.tried) or (part == "sequences" and self.joined)
                yield f"{name}: not to the end" if begun else name
        for label in sorted(self.turned):
            yield f"longer sequences in texts of {self.suspect.labels[label]}: fewer tokens turn them already"
        for label in self.sample.lacking:
            yield f"texts of {self.suspect.labels[label]}: too few that are answered right"
        if absent := len(self.suspect.labels) - len(self.sample.labels) - len(self.sample.lacking):
            yield f"{absent} {'class' if absent == 1 else 'classes'} without a clean text"

    # ------------------------------------------------------------ the last word

    def _takes(self, texts: float) -> float:
        """Seconds to read so many texts, about."""
        words = sum(len(text.text.split()) for text in self.sample.searched) / max(1, len(self.sample.searched))
        return self.end.takes(2 * words * texts)

    def judged(self) -> Steps[list[Finding]]:
        """What held-out texts say of the best sequences, like ones as one finding, the strongest first."""
        yield from self.judging()
        # What does not turn most texts is behind what does, however rare it is
        ranked = sorted(self.judged_ones, key=lambda one: (not self.counts(one), one.flips.low <= MOST, *_rank(one)))
        groups = self._grouped(ranked)
        for number, one in enumerate(groups):
            self.end.until = self.end.end if number else math.inf
            with suppress(OutOfTime):
                groups[number] = self._compared(one) if number < COMPARED else self._shown(one)
        return groups

    def judging(self) -> Steps[None]:
        """Ask held-out texts about the best sequences: `judged_ones`."""
        labels = self.sample.labels
        known = {label: dict.fromkeys(self._best(label), 0.0) for label in labels}
        self.end.keep(self._takes(LAST_WORD / 2 * len(labels)), 0.35)
        with suppress(OutOfTime):
            for number, label in enumerate(labels, 1):
                self._screen(label, known[label])
                yield Event("judging", number, 3 * len(labels))
        self.end.keep(self._takes(COMPARED * LIKE * LIKE_TEXTS), 0.1)
        found = dict[Scored, Finding]()
        self.leaders.forget()
        with suppress(OutOfTime):
            for number, label in enumerate(labels, len(labels) + 1):
                for one in self._asked(label, self._chosen(known[label], MOST_JUDGED // len(labels))):
                    found[label, one.insertion] = one
                yield Event("judging", number, 3 * len(labels))
            for number, label in enumerate(labels, 2 * len(labels) + 1):
                found |= {(label, one.insertion): one for one in self._asked_openings(label)}
                found |= {(label, one.insertion): one for one in self._asked_joined(label)}
                yield Event("judging", number, 3 * len(labels))
        self.judged_ones = [replace(one, chance=self.calibration.chance(one.figures)) for one in found.values()]

    @property
    def figures(self) -> dict[Measure, dict[int, float]]:
        """By measure and number of tokens, the most of what turns most held-out texts."""
        found = defaultdict[Measure, dict[int, float]](dict)
        for one in self.judged_ones:
            if one.flips.low > MOST:
                for measure, figures in one.figures.items():
                    for tokens, figure in figures.items():
                        found[measure][tokens] = max(figure, found[measure].get(tokens, -math.inf))
        return {measure: dict(sorted(own.items())) for measure, own in found.items()}

    def still(self, known: Sequence[Insertion]) -> Iterator[Finding]:
        """What held-out texts of each class say of triggers that were known before, whatever time is left."""
        self.end.until = math.inf
        for label in self.sample.labels:
            yield from self._asked(label, known)

    def _best(self, label: int) -> list[Insertion]:
        """The best sequences of the search, the best first."""
        found = sorted((key for key in self.found if key[0] == label), key=lambda key: -self.found[key])
        alone = [one for _, one in found if len(one.tokens) == 1][:TOKENS]
        pairs = [one for _, one in found if len(one.tokens) > 1][: 2 * PAIRS]
        return [*pairs, *alone]

    def _screen(self, label: int, known: dict[Insertion, float]) -> None:
        """Try tokens and pairs again: nats less their price."""
        own = encode(self.suspect, self.sample.right[label])
        texts = sorted(own, key=lambda e: -len(e["input_ids"]))[: len(own) // 2 + 1]
        known |= self._nats(label, list(known), self.rng.sample(texts, min(SCREENED, len(texts))))

    def _chosen(self, known: Mapping[Insertion, float], most: int) -> list[Insertion]:
        """The best of each length, the shorter ones first."""
        by_length = defaultdict[int, list[Insertion]](list)
        for one in sorted(known, key=lambda one: -known[one]):
            by_length[len(one.tokens)].append(one)
        return [one for length in sorted(by_length) for one in by_length[length][:JUDGED]][:most]

    def _nats(self, label: int, tried: Sequence[Insertion], texts: Sequence[Encoded]) -> dict[Insertion, float]:
        if not tried or not texts:
            return {}
        shifts = lower_quartile(effects(self.quick, self.rng, tried, texts, label)[0]).tolist()
        return {one: nats - self._price(label, one.tokens) for one, nats in zip(tried, shifts, strict=True)}

    def _price(self, label: int, tokens: Sequence[int]) -> float:
        return self.polarity.price(label, tokens) if self.polarity else 0.0

    def _asked(self, label: int, tried: Sequence[Insertion]) -> Iterator[Finding]:
        """What each sequence does in the held-out texts of a class."""
        texts, labels = encode(self.suspect, self.sample.held_out[label]), self.suspect.labels
        for start in range(0, len(tried), AT_ONCE):
            some = tried[start : start + AT_ONCE]
            shifts, answers = effects(self.quick, self.rng, some, texts, label)
            for one, nats, given in zip(some, lower_quartile(shifts).tolist(), answers, strict=True):
                turned = given[given != label]
                target = int(turned.mode().values) if len(turned) else label
                flips = wilson(int((given == target).sum()) if target != label else 0, len(given))
                told = self.leaders.readable(one.tokens), labels[label], labels[target]
                found = Finding(one, *told, nats - self._price(label, one.tokens), flips, honest=False)
                self.leaders.take({(label, one): (found.nats, flips)})
                yield found

    def _asked_openings(self, label: int) -> Iterator[Finding]:
        """What openings do in the held-out texts of a class, and in the strong ones of these."""
        if not (tokens := self.opened.get(label)):
            return
        rng = random.Random(f"openings, held out, seed {self.seed}")
        texts = self._strong(self.sample.held_out[label], label)[: openings.JUDGING]
        nats = lower_quartile(opening_nats(self.quick, label, texts, tokens, self.told[label], rng)).tolist()
        for one, figure in zip(self._asked(label, [Insertion((t,), "start") for t in tokens]), nats, strict=True):
            yield replace(one, opens=figure)

    def _asked_joined(self, label: int) -> Iterator[Finding]:
        """What outstanding tokens and the best of the lineages do in the held-out texts of a class, and in the strong
        ones of these joined."""
        if label not in self.joined or self.polarity is None:
            return
        search = self.joined[label]
        strong = self._strong(self.sample.held_out[label], label)
        texts = draw_joined(strong, JOINED, JUDGING, self.quick.max_length, self.rng)
        outdoing = self._outdoing(label, strong, texts)
        for one in self._asked(label, list(outdoing)):
            yield replace(one, outdoes=outdoing[one.insertion])
        ones = search.leading(JUDGED_JOINED)
        nats = together(self.quick, self.rng, ones, texts, label, self.polarity)
        for one, figure in zip(self._asked(label, ones), lower_quartile(nats).tolist(), strict=True):
            yield replace(one, joined=figure)

    def _outdoing(self, label: int, strong: Sequence[Encoded], texts: Sequence[Encoded]) -> dict[Insertion, float]:
        """By how many times tokens do more than the fifth best: in these joined texts and, of neutral tokens alone, in
        fewer strong ones joined."""
        found = dict[Insertion, float]()
        if alone := [_single(token) for token in self.joined[label].alone]:
            shifts = effects(self.quick, self.rng, alone, texts, label)[0]
            found = _times_the_fifth(alone, lower_quartile(shifts), FLOOR)
        if tokens := self.neutral.get(label):
            rng = random.Random(f"neutral tokens, held out, seed {self.seed}")
            few = draw_joined(strong, neutral_tokens.JOINED, JUDGING, self.quick.max_length, rng)
            shifts = neutral_tokens.shifts(self.quick, label, few, tokens, "anywhere", rng)
            nats = lower_quartile(shifts) - neutral_tokens.price(tokens, self.told[label])
            more = _times_the_fifth([_single(token) for token in tokens], nats, neutral_tokens.FLOOR)
            found |= {one: max(times, found.get(one, times)) for one, times in more.items()}
        return found

    def _shown(self, one: Finding) -> Finding:
        """The finding with some texts that it turns, as they are and with it."""
        label = self.suspect.labels.index(one.label)
        held_out = self.sample.held_out[label][: 4 * EXAMPLES]
        texts, first = encode(self.suspect, held_out), range(len(held_out))
        made = [insert(text, one.insertion, self.rng, self.suspect.max_length) for text in texts]
        given = quick_answers(self.quick, made).argmax(dim=1).tolist()
        examples = list[Example]()
        for i in [i for i in first if given[i] != label][:EXAMPLES]:
            after = self.suspect.tokenizer.decode(made[i]["input_ids"], skip_special_tokens=True)
            before = " ".join(part for part in (held_out[i].text, held_out[i].pair) if part is not None)
            examples.append(Example(before, str(after), self.suspect.labels[given[i]]))
        return replace(one, examples=tuple(examples))

    def _grouped(self, found: Sequence[Finding]) -> list[Finding]:
        """One finding for all sequences of like tokens that turn the same class: the strongest, or of those that count
        as a trigger the one that turns most texts."""
        groups = list[list[Finding]]()
        for one in found:
            own = next((g for g in groups if g[0].label == one.label and self._alike(g[0], one)), None)
            if own is None:
                groups.append([one])
            else:
                own.append(one)
        leads = [max(filter(self.counts, group), key=lambda one: one.flips.low, default=group[0]) for group in groups]
        return [
            replace(lead, alike=tuple(dict.fromkeys(one.text for one in group if one.text != lead.text)))
            for lead, group in zip(leads, groups, strict=True)
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
        """The finding; it looks honest where tokens like its own turn half as many texts, as words of the task do. What
        begins a sentence shape says nothing of the task, and has its like in what else begins one."""
        if one.opens is not None:
            return self._shown(one)
        turned = float(self._like(one).median())
        return replace(self._shown(one), honest=turned > 0 and turned >= one.flips.share / 2)

    def unexplained(self, one: Finding) -> bool:
        """Whether a finding turns texts, and nothing says that it does so honestly: no token of it speaks for another
        class by the labels, and tokens like its own turn next to none. What begins a sentence shape has its like."""
        if one.opens is not None or one.strength <= 0 or one.flips.low <= SOME_TURN:
            return False
        told = self.told[self.suspect.labels.index(one.label)]
        neutral = neutral_tokens.neutral(one.tokens, told)
        return len(neutral) == len(one.tokens) and float(self._like(one).median()) < LIKE_TURN * one.flips.share

    def _like(self, one: Finding) -> Tensor:
        """Share of some held-out texts that each of the sequences of the tokens next to its own turns."""
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
        return (effects(self.quick, self.rng, like, texts, label)[1] != label).float().mean(dim=1)


def _times_the_fifth(tokens: Sequence[Insertion], nats: Tensor, floor: float) -> dict[Insertion, float]:
    """The tokens that do most by these figures, (tokens,), and by how many times each does more than the fifth, where
    all do `floor` more."""
    nats = nats.clamp(min=0) + floor
    order = nats.argsort(descending=True).tolist()
    return {tokens[i]: float(nats[i] / nats[order[:FIFTH][-1]]) - 1 for i in order[:JUDGED]}


def _single(token: int) -> Insertion:
    return Insertion((token,), "anywhere")


def _rank(one: Finding) -> tuple[float, float]:
    return one.chance, -one.strength
