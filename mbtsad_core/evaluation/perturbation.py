"""How hard the suspect finds augmented texts: the inner maximum of eq. (9), and one text read with and without token
splits.

Eq. (9) of MBTSAD (arXiv 2501.02754): a* = argmax over augmenters a of E CE(f(a(x)), y), f the suspect.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mbtsad_core.attacks.triggers import TriggeredText
from mbtsad_core.augment.token_splitting import SplitText, split_tokens
from mbtsad_core.config import SplitConfig
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation.scores import OBSERVED, spaced
from mbtsad_core.models.classifier import Classifier, encode, predict
from mbtsad_core.models.subword_tokens import added, readable_tokens, special_positions
from mbtsad_core.rates import wilson
from mbtsad_core.types import LabelledText, Rate

Augmenter = Callable[[str, random.Random], str]
ORIGINAL = "original"
LEAST = 1e-38  # the least probability that is told from zero, so that a loss is at most 87.5 nats


@dataclass(frozen=True, slots=True)
class Perturbation:
    """What a classifier makes of N texts after one augmenter, drawn D times each.

    texts        D x N augmented texts, all of the first draw first
    probability  of the true class, in [0, 1], one for each of `texts`
    loss         cross-entropy in nats, one for each of `texts`
    mean         the expectation in eq. (9), in nats
    error        standard error of `mean`; the N texts are the sample, their draws are averaged first. Not a number for
                 one text
    """

    texts: tuple[LabelledText, ...]
    probability: tuple[float, ...]
    loss: tuple[float, ...]
    mean: float
    error: float


def perturbations(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    augmenters: Mapping[str, Augmenter],
    *,
    draws: int = 1,
    seed: int = 0,
) -> dict[str, Perturbation]:
    """The expectation of eq. (9) for every augmenter, "original" (no augmenter, one draw) first.

    An augmenter's draws depend on `seed` and its name alone, not on the other augmenters. Raises BadData without texts.
    """
    if not clean:
        raise BadData("There are no texts to perturb; expected at least one labeled text.")
    found = {ORIGINAL: _measure(suspect, list(clean), len(clean))}
    for name, augmenter in augmenters.items():
        rng = random.Random(f"perturbation {name}, seed {seed}")
        texts = [
            LabelledText(augmenter(t.text, rng), t.label, None if t.pair is None else augmenter(t.pair, rng))
            for _ in range(draws)
            for t in clean
        ]
        found[name] = _measure(suspect, texts, len(clean))
    return found


def hardest(found: Mapping[str, Perturbation]) -> str:
    """a* of eq. (9): the augmenter with the largest mean loss."""
    return max((name for name in found if name != ORIGINAL), key=lambda name: found[name].mean)


def _measure(suspect: Classifier, texts: list[LabelledText], n: int) -> Perturbation:
    probability, loss = _true_class(predict(suspect, texts), texts)
    of_text = [sum(loss[i::n]) / len(loss[i::n]) for i in range(n)]
    mean = sum(of_text) / n
    error = math.sqrt(sum((x - mean) ** 2 for x in of_text) / (n - 1) / n) if n > 1 else math.nan
    return Perturbation(tuple(texts), probability, loss, mean, error)


def _true_class(probabilities: Tensor, texts: Sequence[LabelledText]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """P(true class) and -log of it, for each text; probabilities is (N, C)."""
    true = [float(row[t.label]) for row, t in zip(probabilities, texts, strict=True)]
    return tuple(true), tuple(-math.log(max(p, LEAST)) for p in true)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a classifier reads one text.

    parts        the text, and its second part where it is a pair; with the cuts of a token split, without any for the
                 original
    pieces       subword tokens as the classifier reads them, special tokens left out, cut at its maximal length
    changed      positions in `pieces` that the other reading does not have
    probability  of the true class, in [0, 1]; loss in nats; answer is the class with the highest probability
    """

    parts: tuple[SplitText, ...]
    pieces: tuple[str, ...]
    changed: tuple[int, ...]
    probability: float
    loss: float
    answer: str


@dataclass(frozen=True, slots=True)
class SplitRow:
    """A text of the class `label` beside a token split of it."""

    label: str
    original: Reading
    split: Reading


def split_rows(
    suspect: Classifier, clean: Sequence[LabelledText], config: SplitConfig = SplitConfig(), *, seed: int = 0
) -> list[SplitRow]:
    """Each text with one token split drawn for it, as `suspect` reads both; another seed draws again."""
    rng = random.Random(f"token splits shown, seed {seed}")
    whole = [tuple(SplitText(part, ()) for part in (t.text, t.pair) if part is not None) for t in clean]
    split = [tuple(split_tokens(part.text, rng, config) for part in parts) for parts in whole]
    texts = [
        LabelledText(p[0].text, t.label, p[1].text if p[1:] else None)
        for side in (whole, split)
        for p, t in zip(side, clean, strict=True)
    ]
    if not texts:
        return []
    probabilities = predict(suspect, texts)
    probability, loss = _true_class(probabilities, texts)
    answers = [suspect.labels[i] for i in probabilities.argmax(-1).tolist()]
    read = [_pieces_of_text(suspect, t) for t in texts]

    def reading(i: int, other: int, parts: tuple[SplitText, ...]) -> Reading:
        return Reading(parts, read[i], added(read[other], read[i]), probability[i], loss[i], answers[i])

    n = len(clean)
    return [
        SplitRow(suspect.labels[t.label], reading(i, n + i, whole[i]), reading(n + i, i, split[i]))
        for i, t in enumerate(clean)
    ]


def turned_when_split(
    suspect: Classifier, triggered: Sequence[TriggeredText], target: int, config: SplitConfig = SplitConfig()
) -> dict[str, Rate]:
    """Of at most OBSERVED triggered texts, all of other classes, those that go to the target: "whole"; "split", the
    same texts with words cut in two; and "trigger_split", with each word of the trigger cut in its middle instead."""
    rng, some = random.Random("token splits of triggered texts"), spaced(triggered, OBSERVED)
    whole = [t.triggered for t in some]
    split = [dataclasses.replace(t, text=split_tokens(t.text, rng, config).text) for t in whole]
    cut = [dataclasses.replace(t.triggered, text=_trigger_cut(t)) for t in some]
    texts = {"whole": whole, "split": split, "trigger_split": cut}
    hits = {name: int((predict(suspect, side).argmax(-1) == target).sum()) for name, side in texts.items()}
    return {name: wilson(n, len(some)) for name, n in hits.items()}


def _trigger_cut(text: TriggeredText) -> str:
    words = text.triggered.text.split()
    places = added(text.clean.text.split(), words)
    halves = ((word[: len(word) // 2], word[len(word) // 2 :]) for word in words)
    return " ".join(
        " ".join(filter(None, pair)) if i in places else word
        for i, (word, pair) in enumerate(zip(words, halves, strict=True))
    )


def _pieces_of_text(classifier: Classifier, text: LabelledText) -> tuple[str, ...]:
    (encoded,) = encode(classifier, [text])
    special = special_positions(classifier, encoded)
    return tuple(piece for i, piece in enumerate(readable_tokens(classifier, encoded)) if i not in special)
