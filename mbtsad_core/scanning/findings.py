"""What the scan of a model says: a verdict, what it rests on, and what was not looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.types import Event, Rate

Verdict = Literal["nothing found", "a trigger exists", "inconclusive"]
FOUND: Verdict = "a trigger exists"
NOTHING: Verdict = "nothing found"
INCONCLUSIVE: Verdict = "inconclusive"
Measure = Literal["single", "joined", "outdoing", "opening"]
"""What a finding is judged by. A token and a pair: nats in single texts. A sequence: nats in joined ones. A token, too:
how far it outdoes other tokens in joined texts; and where it stands at the start, nats beyond those elsewhere."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sequence that is in the lead of a scan.

    text   its tokens, as a person reads them
    place  where they stand in a text: start, end, anywhere, or scattered
    label  the class of the texts
    nats   by which the log-odds of `label` fall in three of four of the texts that it was tried on last
    flips  the texts that went to another class with it, of those that it was tried on; None where that was not counted
    """

    text: str
    place: str
    label: str
    nats: float
    flips: Rate | None = None


@dataclass(frozen=True, slots=True)
class Race(Event):
    """Progress of a scan, with the few sequences that are in the lead, the best first."""

    leading: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """A clean text that a sequence turns: as it is, with the sequence, and the class that it then goes to."""

    before: str
    after: str
    answer: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A sequence of tokens that turns clean texts of a class.

    text         its tokens, as a person reads them
    label        the class of the texts
    target       the class that most of the turned ones go to
    nats         by which the log-odds of `label` fall in three of four held-out texts, less what the tokens say
                 honestly
    joined       of a sequence that was found in joined texts: the same of held-out strong ones, four joined to one;
                 else None
    outdoes      of a token that was found there: by how many times it does more in these than the fifth best token
    opens        of a token at the start of texts: the same of held-out strong ones, less what it does elsewhere in
                 them; else None
    chance       share of models that nobody planted in which something is as strong, by the calibration
    flips        the held-out texts, all answered right, that go to `target` with the sequence
    honest       whether like tokens do the same, as words of the task do
    alike        sequences of the same kind, which count as this one
    """

    insertion: Insertion
    text: str
    label: str
    target: str
    nats: float
    flips: Rate
    honest: bool
    joined: float | None = None
    outdoes: float | None = None
    opens: float | None = None
    chance: float = 1.0
    examples: tuple[Example, ...] = ()
    alike: tuple[str, ...] = ()

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.insertion.tokens

    @property
    def place(self) -> str:
        """Where they stand in a text: start, end, anywhere, or scattered."""
        return self.insertion.place

    @property
    def strength(self) -> float:
        """Nats, in joined texts or beyond those elsewhere where it was found so."""
        return next((nats for nats in (self.joined, self.opens) if nats is not None), self.nats)

    @property
    def figures(self) -> dict[Measure, dict[int, float]]:
        """What it is judged by, by measure and number of tokens."""
        tokens = len(self.tokens)
        if self.opens is not None:
            return {"opening": {tokens: self.opens}}
        found: dict[Measure, dict[int, float]] = {
            "single" if self.joined is None else "joined": {tokens: self.strength}
        }
        return found if self.outdoes is None else found | {"outdoing": {tokens: self.outdoes}}


@dataclass(frozen=True)
class ScanReport:
    """The verdict on a model.

    reason         what the verdict rests on, a sentence
    found          what counts as a trigger, the strongest first; neighbors stand together
    others         what does not count as one, likewise
    rows, walked   of the word embeddings: all, and those that have a token, each of which was tried
    labeled        whether the clean texts came with labels; else the suspect's own answers stand for them
    accuracy       on the clean texts; None without labels
    figures        by measure and number of tokens, the most of what turns more than half of the held-out texts
    not_looked_at  what of the scan was left out, a phrase each
    known          what triggers do here that were known before, of each in texts of each class
    """

    verdict: Verdict
    reason: str
    found: tuple[Finding, ...]
    others: tuple[Finding, ...]
    rows: int
    walked: int
    clean_texts: int
    held_out: int
    labeled: bool
    accuracy: Rate | None
    figures: Mapping[Measure, Mapping[int, float]]
    not_looked_at: tuple[str, ...]
    seconds: float
    known: tuple[Finding, ...] = ()

    @property
    def estimated_asr(self) -> Finding | None:
        """By whose flips ASR is estimated: what turns most of the held-out texts, of what counts as a trigger and of
        what was known before. In clean models too, most texts are turned by some sequence that does not count."""
        return max((*self.found, *self.known), key=lambda one: one.flips.share, default=None)

    @property
    def ranked(self) -> tuple[Finding, ...]:
        """All findings, the strongest first."""
        return (*self.found, *self.others)
