"""CACC and ASR, with counts, floor and intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mbtsad_core.attacks.triggers import TriggeredText
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, predict
from mbtsad_core.types import LabelledText, Observe, Rate, Scores

Z = 1.959963984540054  # the normal quantile of a 95 % interval


def wilson(hits: int, n: int, z: float = Z) -> Rate:
    """A rate with Wilson's score interval (Wilson, 1927)."""
    p, zz = hits / n, z * z / n
    centre = (p + zz / 2) / (1 + zz)
    half = z / (1 + zz) * math.sqrt(p * (1 - p) / n + zz / (4 * n))
    return Rate(hits, n, max(0.0, centre - half), min(1.0, centre + half))


def evaluate(classifier: Classifier, test: Sequence[LabelledText], triggered: Sequence[TriggeredText] = (), target: int | None = None) -> Scores:
    """Scores on a clean test set and, where there is a trigger, on its triggered texts (`triggered_test_set`).

    ASR counts triggered texts of non-target classes that go to `target`; its floor counts the same texts without trigger.
    """
    if not test:
        raise BadData("The test set is empty; expected at least one labelled text.")
    classes = len(classifier.labels)
    predicted = predict(classifier, test).argmax(-1).tolist()
    confusion = [[0] * classes for _ in range(classes)]
    for example, label in zip(test, predicted, strict=True):
        confusion[example.label][label] += 1
    cacc = wilson(sum(confusion[c][c] for c in range(classes)), len(test))
    if not triggered or target is None:
        return Scores(cacc, None, None, tuple(map(tuple, confusion)))
    asr = wilson(int((predict(classifier, [t.triggered for t in triggered]).argmax(-1) == target).sum()), len(triggered))
    floor = wilson(int((predict(classifier, [t.clean for t in triggered]).argmax(-1) == target).sum()), len(triggered))
    return Scores(cacc, asr, floor, tuple(map(tuple, confusion)))


def observer(test: Sequence[LabelledText], triggered: Sequence[TriggeredText] = (), target: int | None = None, texts: int = 200) -> Observe:
    """An Observe that measures CACC and ASR on evenly spaced parts of the test sets of at most `texts` each."""

    def spaced(all_of: Sequence) -> list:  # type: ignore[type-arg]
        n = min(texts, len(all_of))
        return [all_of[i * len(all_of) // n] for i in range(n)]

    some_test, some_triggered = spaced(test), spaced(triggered)

    def observe(classifier: Classifier) -> dict[str, float]:
        right = predict(classifier, some_test).argmax(-1).tolist()
        measured = {"cacc": sum(p == t.label for p, t in zip(right, some_test, strict=True)) / len(some_test)}
        if some_triggered and target is not None:
            hit = predict(classifier, [t.triggered for t in some_triggered]).argmax(-1) == target
            measured["asr"] = float(hit.float().mean())
        return measured

    return observe
