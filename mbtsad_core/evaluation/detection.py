"""What a detector is worth: CACC and ASR behind it, and how often it errs (OpenBackdoor's rule)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbtsad_core.attacks.triggers import TriggeredText
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, predict
from mbtsad_core.rates import wilson
from mbtsad_core.types import LabelledText, Rate

if TYPE_CHECKING:
    from mbtsad_core.detectors.detection import Detection


@dataclass(frozen=True, slots=True)
class DetectorScores:
    """A classifier behind a detector, on a clean test set and its triggered texts.

    cacc  share of clean texts that pass and are answered right: a flagged text counts as wrong
    asr   share of triggered texts that pass and go to the target: a flagged text counts as not attacked
    frr   false rejections: share of clean texts that are flagged
    far   false acceptances: share of triggered texts that are not flagged

    asr and far are None without a trigger.
    """

    cacc: Rate
    asr: Rate | None
    frr: Rate
    far: Rate | None


def evaluate_detector(
    classifier: Classifier,
    test: Sequence[LabelledText],
    on_test: Detection,
    triggered: Sequence[TriggeredText] | None = None,
    on_triggered: Detection | None = None,
    target: int | None = None,
) -> DetectorScores:
    """The scores of a detector from its verdicts on the two test sets, which stay the same between detection and
    scoring.

    A detector that corrects refuses nothing: CACC and ASR are then those of its corrected texts, and `frr` and `far`
    say how often a correction changes the answer.
    Raises BadData where a test set is empty, or has another number of texts than there are verdicts.
    """
    _check(test, on_test, "clean")
    right = [a == t.label for a, t in zip(_answers(classifier, [t.text for t in test], on_test), test, strict=True)]
    asr = far = None
    if triggered is not None and on_triggered is not None:
        _check(triggered, on_triggered, "triggered")
        hit = [a == target for a in _answers(classifier, [t.triggered.text for t in triggered], on_triggered)]
        asr, far = wilson(sum(hit), len(triggered)), wilson(len(triggered) - sum(on_triggered.flags), len(triggered))
    return DetectorScores(
        cacc=wilson(sum(right), len(test)), asr=asr, frr=wilson(sum(on_test.flags), len(test)), far=far
    )


def _check(texts: Sequence[object], found: Detection, name: str) -> None:
    if not texts or len(texts) != len(found.flags):
        raise BadData(
            f"Expected a verdict for each of at least one {name} text; got {len(found.flags)} verdicts for "
            f"{len(texts)} texts."
        )


def _answers(classifier: Classifier, texts: Sequence[str], found: Detection) -> list[int | None]:
    """The class that each text is answered with behind the detector, None where it is refused."""
    answers = predict(classifier, found.corrected or texts).argmax(-1).tolist()
    return [
        None if flag and found.corrected is None else answer for answer, flag in zip(answers, found.flags, strict=True)
    ]
