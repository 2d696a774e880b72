"""Divergence: when a training has left the range where it makes sense, and the best weights before it did."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Sequence
from statistics import mean

import torch
from torch import Tensor, nn

from mbtsad_core.errors import Diverged
from mbtsad_core.models.classifier import Classifier, autocast, clone, predict
from mbtsad_core.training.several_processes import of_first
from mbtsad_core.training.state import TrainState
from mbtsad_core.types import LabelledText

WINDOW = 20  # steps over which the loss is averaged when divergence is judged
PROBED = 32  # texts, at most, on which the loss before the first step is measured
ANSWERED = 128  # texts, at most, whose answers decide whether a high loss is guessing


def mean_loss(classifier: Classifier, texts: Sequence[LabelledText]) -> float:
    """Mean cross-entropy of the texts' classes, in the precision of the training; infinite where their labels are none
    (an objective may number its texts instead)."""
    labels = torch.tensor([example.label for example in texts])
    if int(labels.max()) >= len(classifier.labels):
        return math.inf
    with autocast(classifier):
        probabilities = predict(classifier, texts)
    return float(nn.functional.nll_loss(probabilities.clamp(min=1e-9).log(), labels))


def balanced_accuracy(classifier: Classifier, texts: Sequence[LabelledText]) -> float:
    """Mean over the classes that the texts have of the share that is answered right: 1 / C where all are given the same
    answer."""
    with autocast(classifier):
        answers = predict(classifier, texts).argmax(dim=-1).tolist()
    right: dict[int, list[bool]] = {}
    for example, answer in zip(texts, answers, strict=True):
        right.setdefault(example.label, []).append(answer == example.label)
    return mean(sum(found) / len(found) for found in right.values())


class DivergenceWatch:
    """Keeps the best weights, and raises Diverged when training has gone astray.

    The best are those that the lowest mean loss over WINDOW steps came after: a mean over the steps before them would
    be as low at weights that the last of these steps has just ruined.

    Astray is a loss that is not finite, or a classification loss that was better than guessing (ln C) on some of the
    texts before the first step, and over the last WINDOW steps (all, where there are fewer) is no longer. The second is
    judged after a quarter of the steps: a high rate shakes a model at first, and most recover. It is not enough by
    itself: a few errors that a model is sure of cost as much as guessing. So the model answers `texts`, and is given
    another WINDOW of steps where that is clearly better than guessing.
    """

    def __init__(self, classifier: Classifier, stage: str, total: int, texts: Sequence[LabelledText]) -> None:
        self.classifier, self.stage, self.texts = classifier, stage, texts
        self.guessing = math.log(len(classifier.labels))
        self.better_than_guessing = 0.25 + 0.75 / len(classifier.labels)  # a quarter of the way from 1 / C to 1
        self.window = min(WINDOW, total)
        self.quarter = total / 4
        self.first = math.inf  # the loss before the first step
        self.recent: deque[float] = deque(maxlen=self.window)
        self.candidate: dict[str, Tensor] | None = None
        self.best: tuple[float, dict[str, Tensor]] | None = None

    def kept(self, state: TrainState) -> TrainState:
        """The state with what is watched here, so that a run that goes on judges, and keeps, as if nothing had
        happened."""
        best, weights = self.best or (None, {})
        numbers = {"first": self.first, "recent": list(self.recent), "best": best}
        kept = {f"candidate/{k}": v for k, v in (self.candidate or {}).items()} | {
            f"best/{k}": v for k, v in weights.items()
        }
        tensors = {k: v.cpu().contiguous() for k, v in kept.items()}  # never written to, so no copy is needed
        return dataclasses.replace(state, tensors=state.tensors | tensors, numbers=state.numbers | {"watch": numbers})

    def resume(self, state: TrainState) -> bool:
        """Take up what was watched; returns whether the state has it."""
        numbers = state.numbers.get("watch")
        if numbers is None:
            return False
        self.first = numbers["first"]
        self.recent.extend(numbers["recent"])
        self.candidate = state.part("candidate") or None
        self.best = None if numbers["best"] is None else (numbers["best"], state.part("best"))
        return True

    def check(self, metrics: dict[str, float], step: int) -> None:
        if not math.isfinite(metrics["loss"]):
            raise Diverged(
                f"The stage {self.stage!r} diverged at step {step}: the loss is {metrics['loss']}. Lower its learning "
                "rate.",
                self.best_classifier(),
            )
        self.recent.append(metrics["classification"])
        if len(self.recent) < self.window:
            return
        now = mean(self.recent)
        if step > self.quarter and self.first < 0.8 * self.guessing and now > 0.97 * self.guessing:
            if of_first(balanced_accuracy(self.classifier, self.texts)) > self.better_than_guessing:
                self.recent.clear()
                return
            raise Diverged(
                f"The stage {self.stage!r} diverged at step {step}: the classification loss rose from {self.first:.3f} "
                f"to a mean of {now:.3f}, no better than guessing ({self.guessing:.3f}). Lower its learning rate.",
                self.best_classifier(),
            )
        if step % WINDOW == 0:
            if self.candidate is not None and (self.best is None or now < self.best[0]):
                self.best = (now, self.candidate)
            self.candidate = {k: v.detach().clone() for k, v in self.classifier.model.state_dict().items()}

    def best_classifier(self) -> Classifier | None:
        if self.best is None:
            return None
        kept = clone(self.classifier)
        kept.model.load_state_dict(self.best[1])
        kept.model.eval()
        return kept
