"""Span transfer: which few words hold a text's answer up, and do they turn other texts too?

1. Words are left out one by one, and two by two side by side. Those whose loss shakes the answer most are pivots:
   suspicious words are found by deletion in BDDR (Shao et al., Computers & Security 2021) too.
2. Spans around the pivots are put into clean texts of the other classes. A trigger sends these to the text's answer. A
   word that speaks for it honestly turns few of the longer ones.
3. Clean texts, judged alike, set the threshold.

Deviation: not in the paper.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbtsad_core.detectors.detection import Detection, check_clean
from mbtsad_core.detectors.span_method import SPAN, SpanConfig
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, encode
from mbtsad_core.scanning.effects import quick_answers
from mbtsad_core.types import Event, LabelledText, Steps

FEW, KEPT = 3, 4  # probes that all spans of a text are put into first, and spans that are then put into all
ENOUGH = 0.8  # of the best span's score, by which a shorter one is named in its place
MOST = 0.75  # of the probes, that a span is to send to the text's answer
LONGER = 2 / 3  # share of the right answered texts of a class, the longest ones, that probes are drawn from


@dataclass(frozen=True)
class Probe:
    """The words of a clean text, where a span goes into it, and the logits of its classes, (C,)."""

    words: list[str]
    place: int
    before: Tensor

    def with_span(self, span: Sequence[str]) -> str:
        return " ".join([*self.words[: self.place], *span, *self.words[self.place :]])


@SPAN.runs
def span(
    classifier: Classifier, clean: Sequence[LabelledText], texts: Sequence[str], config: SpanConfig = SpanConfig()
) -> Steps[Detection]:
    """Flags the texts with a span that sends three of four clean texts of other classes to their answer, and raises its
    log-odds there by more than the spans of all but `frr` of the clean texts do. Scores are the nats of that in three
    of four of them, at least; None where a text has no word to leave out.

    Raises BadData where fewer than two classes have clean texts that are answered right.
    """
    check_clean(clean, "Span transfer")
    probes, rest = drawn_probes(classifier, clean, config)
    known = rest[: config.clean_texts]
    own = yield from _judged(classifier, [example.text for example in known], probes, config, "span, clean texts")
    scores = torch.tensor([score for score, *_ in own if score is not None])
    if not len(scores):
        raise BadData("Span transfer sets its threshold by clean texts of two words or more, and none was left for it.")
    threshold = float(scores.quantile(1 - config.frr, interpolation="higher"))
    found = yield from _judged(classifier, texts, probes, config, SPAN.key)
    return Detection(
        tuple(score is not None and score > threshold and sends for score, _, sends in found),
        tuple(score for score, *_ in found),
        (threshold,),
        spans=tuple(words for _, words, _ in found),
    )


def drawn_probes(
    classifier: Classifier, clean: Sequence[LabelledText], config: SpanConfig
) -> tuple[dict[int, list[Probe]], list[LabelledText]]:
    """Probes of each class, and the other clean texts in a drawn order."""
    rng = random.Random(f"span, seed {config.seed}")
    answers = answered(classifier, [example.text for example in clean])
    probes, taken = dict[int, list[Probe]](), set[int]()
    for label in sorted({example.label for example in clean}):
        right = [i for i, example in enumerate(clean) if example.label == label == int(answers[i].argmax())]
        right.sort(key=lambda i: -len(clean[i].text))
        longer = right[: math.ceil(LONGER * len(right))]
        chosen = rng.sample(longer, min(config.probes, (len(longer) + 1) // 2))
        taken.update(chosen)
        words = [clean[i].text.split() for i in chosen]
        probes[label] = [Probe(own, rng.randint(0, len(own)), answers[i]) for own, i in zip(words, chosen, strict=True)]
    if sum(map(bool, probes.values())) < 2:
        raise BadData(
            "Span transfer needs clean texts of two classes that the classifier answers right; "
            f"{sum(map(bool, probes.values()))} of {len(classifier.labels)} have some. Give more clean texts."
        )
    rest = [example for i, example in enumerate(clean) if i not in taken]
    rng.shuffle(rest)
    return probes, rest


def _judged(
    classifier: Classifier, texts: Sequence[str], probes: dict[int, list[Probe]], config: SpanConfig, stage: str
) -> Steps[list[tuple[float | None, str | None, bool]]]:
    found = []
    for number, text in enumerate(texts, 1):
        found.append(judge(classifier, text, probes, config))
        yield Event(stage, number, len(texts))
    return found


def judge(
    classifier: Classifier, text: str, probes: dict[int, list[Probe]], config: SpanConfig
) -> tuple[float | None, str | None, bool]:
    """The score of a text, the span that has it, and whether that sends most probes to the text's answer; None, None
    and False where it has fewer than two words, or no other class has a probe."""
    words = text.split()
    gaps = [(i, j) for n in (1, 2) for i in range(len(words) - n + 1) if (j := i + n) - i < len(words)]
    if not gaps:
        return None, None, False
    without = [" ".join([*words[:i], *words[j:]]) for i, j in gaps]
    answers = answered(classifier, [text, *without])
    answer = int(answers[0].argmax())
    others = [probe for label, own in probes.items() if label != answer for probe in own]
    if not others:
        return None, None, False
    falls = log_odds(answers[0], answer) - log_odds(answers[1:], answer)
    spans = spans_around([gaps[i] for i in falls.argsort(descending=True).tolist()], len(words), config)
    tried = [words[i:j] for i, j in spans]
    first = rises(classifier, tried, others[:: math.ceil(len(others) / FEW)], answer)[0].mean(dim=1)
    kept = [tried[i] for i in first.topk(min(KEPT, len(tried))).indices.tolist()]
    rise, sent = rises(classifier, kept, others, answer)
    least = rise.quantile(0.25, dim=1, interpolation="higher")
    best = float(least.max())
    named = min(
        (i for i, score in enumerate(least.tolist()) if score >= ENOUGH * best or score == best),
        key=lambda i: len(kept[i]),
    )
    return best, " ".join(kept[named]), bool(sent[named].float().mean() >= MOST)


def rises(
    classifier: Classifier, spans: Sequence[Sequence[str]], probes: Sequence[Probe], answer: int
) -> tuple[Tensor, Tensor]:
    """By how much the log-odds of the answer rise in each probe with each span, in nats, and whether the probe is
    answered with it then: (spans, probes) each."""
    asked = answered(classifier, [probe.with_span(span) for span in spans for probe in probes])
    before = torch.stack([log_odds(probe.before, answer) for probe in probes])
    shape = len(spans), len(probes)
    return log_odds(asked, answer).view(shape) - before, (asked.argmax(-1) == answer).view(shape)


def spans_around(gaps: Sequence[tuple[int, int]], words: int, config: SpanConfig) -> list[tuple[int, int]]:
    """The spans of up to `longest` words that hold one of the first `pivots` gaps, as (begin, end), the shorter first.

    A gap that touches an earlier one is left out: it has the same spans.
    """
    longest = min(config.longest, max(1, words // 2))
    pivots = list[tuple[int, int]]()
    for i, j in gaps:
        if j - i <= longest and all(j < begin or end < i for begin, end in pivots):
            pivots.append((i, j))
        if len(pivots) == config.pivots:
            break
    spans = {
        (begin, begin + n)
        for i, j in pivots
        for n in range(j - i, longest + 1)
        for begin in range(max(0, j - n), min(i, words - n) + 1)
    }
    return sorted(spans, key=lambda one: (one[1] - one[0], one))


def answered(classifier: Classifier, texts: Sequence[str]) -> Tensor:
    """The logits of texts, (N, C), in the precision of the training: thousands of answers, of which none is shown."""
    return quick_answers(classifier, encode(classifier, texts))


def log_odds(logits: Tensor, label: int) -> Tensor:
    """Log-odds of a class against all others: (..., C) -> (...)."""
    others = [i for i in range(logits.shape[-1]) if i != label]
    return logits[..., label] - logits[..., others].logsumexp(-1)
