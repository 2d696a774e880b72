"""Clean texts that a defense keeps back to choose by: the only thing that it may choose by, for it knows no trigger."""

from __future__ import annotations

from collections.abc import Sequence

from mbtsad_core.data.subsets import stratified_split
from mbtsad_core.models.classifier import Classifier, predict
from mbtsad_core.types import LabelledText


def hold_out(clean: Sequence[LabelledText], share: float, seed: int) -> tuple[list[LabelledText], list[LabelledText]]:
    """(the texts to train on, the texts held out): a share of every class, by the seed. Raises BadData where there are
    too few texts."""
    held_out, rest = stratified_split(clean, share, seed)
    return rest, held_out


def accuracy(classifier: Classifier, texts: Sequence[LabelledText]) -> float:
    """Share of the texts that are answered right, in [0, 1]."""
    answers = predict(classifier, texts).argmax(-1).tolist()
    return sum(answer == example.label for answer, example in zip(answers, texts, strict=True)) / len(texts)
