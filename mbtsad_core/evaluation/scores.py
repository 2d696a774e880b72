"""CACC and ASR, with counts, floor and intervals."""

from __future__ import annotations

from collections.abc import Sequence

from mbtsad_core.attacks.triggers import TriggeredText
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, predict
from mbtsad_core.rates import wilson
from mbtsad_core.steps import drain
from mbtsad_core.types import Event, LabelledText, Observe, Rate, Scores, Steps, T

AT_ONCE = 256  # texts between two events of a measurement
OBSERVED = 200  # texts that a measurement during the training reads, at most, of either test set


def still_works(asr: Rate | None, floor: Rate | None) -> bool:
    """Whether a trigger still sends texts to its target that would not go there without it: the interval of ASR lies
    above that of its floor."""
    return asr is not None and floor is not None and asr.low > floor.high


def evaluate(
    classifier: Classifier,
    test: Sequence[LabelledText],
    triggered: Sequence[TriggeredText] = (),
    target: int | None = None,
) -> Scores:
    """Scores on a clean test set and, where there is a trigger, on its triggered texts (`triggered_test_set`).

    ASR counts triggered texts of non-target classes that go to `target`; its floor counts the same texts without
    trigger.
    """
    return drain(measuring(classifier, test, triggered, target))


def measuring(
    classifier: Classifier,
    test: Sequence[LabelledText],
    triggered: Sequence[TriggeredText] = (),
    target: int | None = None,
) -> Steps[Scores]:
    """`evaluate` as long work: an Event of stage "measure" each 256 texts that were read."""
    if not test:
        raise BadData("The test set is empty; expected at least one labeled text.")
    if target is None:
        triggered = ()
    # The texts of the floor are among the test texts, as a rule
    known = set(test)
    others = [t.clean for t in triggered if t.clean not in known]
    asked = [*test, *(t.triggered for t in triggered), *others]
    answers = list[int]()
    for start in range(0, len(asked), AT_ONCE):
        answers += predict(classifier, asked[start : start + AT_ONCE]).argmax(-1).tolist()
        yield Event("measure", len(answers), len(asked))
    predicted, turned = answers[: len(test)], answers[len(test) : len(test) + len(triggered)]
    classes = len(classifier.labels)
    confusion = [[0] * classes for _ in range(classes)]
    for example, label in zip(test, predicted, strict=True):
        confusion[example.label][label] += 1
    cacc = wilson(sum(confusion[c][c] for c in range(classes)), len(test))
    if not triggered or target is None:
        return Scores(cacc, None, None, tuple(map(tuple, confusion)))
    asr = wilson(turned.count(target), len(triggered))
    untouched = dict(zip([*test, *others], predicted + answers[len(test) + len(triggered) :], strict=True))
    floor = wilson(sum(untouched[t.clean] == target for t in triggered), len(triggered))
    return Scores(cacc, asr, floor, tuple(map(tuple, confusion)))


def observer(
    test: Sequence[LabelledText],
    triggered: Sequence[TriggeredText] = (),
    target: int | None = None,
    texts: int = OBSERVED,
) -> Observe:
    """An Observe that measures CACC and ASR on evenly spaced parts of the test sets of at most `texts` each.

    "cacc" and "asr" are shares in [0, 1], "cacc_n" and "asr_n" the numbers of texts; ASR only where there is a trigger.
    """
    some_test, some_triggered = spaced(test, texts), spaced(triggered, texts)

    def observe(classifier: Classifier) -> dict[str, float]:
        answers = predict(classifier, some_test).argmax(-1).tolist()
        right = sum(answer == t.label for answer, t in zip(answers, some_test, strict=True))
        measured: dict[str, float] = {"cacc": right / len(some_test), "cacc_n": len(some_test)}
        if some_triggered and target is not None:
            measured |= {
                "asr": _share(classifier, [t.triggered for t in some_triggered], target),
                "asr_n": len(some_triggered),
            }
        return measured

    return observe


def baseline(
    suspect: Classifier,
    test: Sequence[LabelledText],
    triggered: Sequence[TriggeredText] = (),
    target: int | None = None,
    texts: int = OBSERVED,
) -> dict[str, float]:
    """What an `observer` with the same arguments is to be compared with: the suspect on the same texts, and the ASR
    floor there.

    "suspect_cacc" and "cacc_n"; with a trigger "suspect_asr", "asr_floor" and "asr_n". Shares in [0, 1].
    """
    measured = observer(test, triggered, target, texts)(suspect)
    found = {name if name.endswith("_n") else f"suspect_{name}": value for name, value in measured.items()}
    if target is not None and "asr" in measured:
        found["asr_floor"] = _share(suspect, [t.clean for t in spaced(triggered, texts)], target)
    return found


def spaced(all_of: Sequence[T], most: int) -> list[T]:
    """Evenly spaced ones, at most so many."""
    n = min(most, len(all_of))
    return [all_of[i * len(all_of) // n] for i in range(n)]


def _share(classifier: Classifier, texts: Sequence[LabelledText], target: int) -> float:
    """The share of the texts that go to the target."""
    return int((predict(classifier, texts).argmax(-1) == target).sum()) / len(texts)
