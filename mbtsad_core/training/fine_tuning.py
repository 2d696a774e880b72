"""The one training loop; an objective is a loss, not a trainer of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from mbtsad_core.config import TrainingConfig
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, Encoded, encode
from mbtsad_core.training.batch_gradient import BatchGradient, Loss, Share, classification_loss
from mbtsad_core.training.batching import batches
from mbtsad_core.training.divergence import ANSWERED, PROBED, DivergenceWatch, mean_loss
from mbtsad_core.training.several_processes import of_first, own_draws, share_weights, this_of_all
from mbtsad_core.training.state import Save, TrainState, capture, generators, restore, set_generators
from mbtsad_core.types import Event, LabelledText, Observe, Steps

Epochs = Callable[[int], Sequence[LabelledText]]
"""The training texts of an epoch; the same number in each."""

Perturb = Callable[[list[Encoded], int], list[Encoded]]
"""(tokenized texts, epoch) -> what is trained on in their place."""

Ascend = Callable[[Sequence[nn.Parameter]], AbstractContextManager[None]]
"""Weights with a batch's gradient -> within which they stand where the step takes its gradient, and are put back."""


def fine_tune(
    classifier: Classifier,
    texts: Sequence[LabelledText] | Epochs,
    config: TrainingConfig,
    *,
    loss: Loss = classification_loss,
    share: Share | None = None,
    perturb: Perturb | None = None,
    ascend: Ascend | None = None,
    stage: str = "fine-tune",
    seed: int = 0,
    observe: Observe | None = None,
    resume: TrainState | None = None,
    save: Save | None = None,
) -> Steps[Classifier]:
    """Train all weights of `classifier`, in place, and return it: AdamW, linear warm-up, linear decay.

    `loss` is the objective, `perturb` changes the tokenized texts, `ascend` the weights at which a gradient is taken.
    An Event follows every step. `save` gets the state every `config.save_every` seconds, and when the caller closes the
    generator; from such a state, `resume` goes on to the same weights as an uninterrupted run. Where the memory does
    not hold a batch, its gradient is taken in parts, see `BatchGradient`; events say so as metric "texts_at_once".

    Several processes divide each batch likewise, see `several_processes`, or leave it to process 0 where the loss has
    no `share`. All must call this with the same arguments, and close it after the same event, if at all.

    Raises Diverged, with the best classifier so far, once the loss is not finite or no better than guessing; BadConfig
    where the memory does not hold one text; BadData where `resume` was saved while training on other texts.
    """
    data = TrainingTexts(classifier, texts if callable(texts) else (lambda epoch: texts), config, perturb, seed)
    training = Training(classifier, data, config, loss, share, ascend, stage)
    training.begin(resume)
    checkpoints = Checkpoints(save, training.state, config.save_every)
    try:
        for batch, labels in data.batches(training.step):
            metrics = training.take_step(batch, labels)
            if observe is not None and _is_due(training.step, data.steps, config):
                metrics |= training.observed(observe)
            yield Event(stage, training.step, data.steps, metrics)
            checkpoints.save_if_due()  # after the event: who resumes here has it
    except GeneratorExit:  # the caller stops here, between two steps
        checkpoints.save()
        raise
    classifier.model.eval()
    return classifier


class Training:
    """A classifier in training: its optimizer, how its gradients are taken, and what is watched."""

    def __init__(
        self,
        classifier: Classifier,
        data: TrainingTexts,
        config: TrainingConfig,
        loss: Loss,
        share: Share | None,
        ascend: Ascend | None,
        stage: str,
    ) -> None:
        self.classifier, self.data, self.config, self.stage, self.step = classifier, data, config, stage, 0
        self.ascend = ascend
        parameters, rate = classifier.model.parameters(), config.learning_rate
        share_weights(classifier.model)
        self.optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=config.weight_decay, fused=True)
        torch.manual_seed(data.seed)
        self.gradient = BatchGradient(classifier, loss, share, config.batch_size, stage)
        self.watch = DivergenceWatch(classifier, stage, data.steps, data.drawn(ANSWERED))

    def begin(self, resume: TrainState | None) -> None:
        """Make ready for the first step, or for the one after a saved state."""
        model = self.classifier.model
        if resume is not None:
            self.data.check_same(resume)
            restore(resume, model, self.optimizer)
            self.step = resume.step
            self.gradient.at_once = min(resume.numbers.get("texts_at_once", math.inf), self.config.batch_size)
        if resume is None or not self.watch.resume(resume):
            self.watch.first = of_first(mean_loss(self.classifier, self.watch.texts[:PROBED]))
        set_dropout(model, self.config.dropout)
        model.train()

    def take_step(self, batch: list[Encoded], labels: Tensor) -> dict[str, float]:
        """One step of the optimizer; the terms of its loss. Raises Diverged."""
        own_draws(self.data.seed, self.step)
        terms = self.take_gradient(batch, labels)
        nn.utils.clip_grad_norm_(self.classifier.model.parameters(), self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * schedule(self.step, self.data.steps, self.config.warmup)
        self.optimizer.step()
        self.step += 1
        metrics = {name: float(term.detach()) for name, term in terms.items()}
        if self.gradient.at_once < self.config.batch_size:
            metrics["texts_at_once"] = self.gradient.at_once
        self.watch.check(metrics, self.step)
        return metrics

    def take_gradient(self, batch: list[Encoded], labels: Tensor) -> dict[str, Tensor]:
        """Put the batch's gradient in place, where `ascend` asks for it at other weights, under the same dropout; the
        terms of the loss at the weights themselves."""
        if self.ascend is None:
            return self.gradient(batch, labels, self.step + 1)
        model = self.classifier.model
        drawn = generators(model)
        terms = self.gradient(batch, labels, self.step + 1)
        set_generators(drawn, model)
        with self.ascend(list(model.parameters())):
            self.gradient(batch, labels, self.step + 1)
        return terms

    def observed(self, observe: Observe) -> dict[str, float]:
        """What `observe` measures, with dropout off."""
        self.classifier.model.eval()
        measured = observe(self.classifier)
        self.classifier.model.train()
        return measured

    def state(self) -> TrainState:
        """All that is needed to go on from here."""
        numbers = {"texts_sha256": self.data.sha256, "texts_at_once": self.gradient.at_once}
        captured = capture(self.stage, self.step, self.classifier.model, self.optimizer)
        return self.watch.kept(dataclasses.replace(captured, numbers=numbers))


class TrainingTexts:
    """The texts of a training, epoch by epoch, as tokenized batches in the order that the seed draws."""

    def __init__(
        self, classifier: Classifier, epochs: Epochs, config: TrainingConfig, perturb: Perturb | None, seed: int
    ) -> None:
        """Raises BadData where the texts are fewer than one batch."""
        self.classifier, self.epochs, self.config, self.perturb, self.seed = classifier, epochs, config, perturb, seed
        self.first = epochs(0)
        if len(self.first) < config.batch_size:
            raise BadData(
                f"{len(self.first)} training texts are fewer than one batch of {config.batch_size}. Give more clean "
                "texts, more copies of each, or a smaller batch size."
            )
        self.sha256 = texts_hash(self.first)
        self.steps_per_epoch = math.ceil(len(self.first) / config.batch_size)
        self.steps = config.epochs * self.steps_per_epoch

    def drawn(self, most: int) -> list[LabelledText]:
        """Some of the texts. Drawn, not every n-th: copies of a text stand beside each other, and classes may
        alternate."""
        n = len(self.first)
        chosen = random.Random(f"probed, seed {self.seed}").sample(range(n), min(most, n))
        return [self.first[i] for i in chosen]

    def check_same(self, state: TrainState) -> None:
        """Raise BadData where a state was saved while training on other texts."""
        if state.numbers.get("texts_sha256", self.sha256) != self.sha256:
            raise BadData(
                f"The run cannot go on from step {state.step} of the stage {state.stage!r}: its checkpoint was saved "
                "while training on other texts. Give the clean texts, the seed and the settings that it began with, or "
                "start a new run."
            )

    def batches(self, done: int) -> Iterator[tuple[list[Encoded], Tensor]]:
        """The batches that follow the first `done` ones, each with its labels (B,)."""
        for epoch in range(done // self.steps_per_epoch, self.config.epochs):
            texts = self.epochs(epoch)
            encoded = encode(self.classifier, texts)
            encoded = self.perturb(encoded, epoch) if self.perturb else encoded
            rng = random.Random(f"batches, seed {self.seed}, epoch {epoch}")
            order = batches([len(e["input_ids"]) for e in encoded], self.config.batch_size, rng)
            texts, encoded, order = of_first((texts, encoded, order))
            for chosen in order[max(0, done - epoch * self.steps_per_epoch) :]:
                labels = torch.tensor([texts[i].label for i in chosen], device=self.classifier.device)
                yield [encoded[i] for i in chosen], labels


class Checkpoints:
    """Saves the state every `every` seconds, and when asked to; process 0 alone. Writing takes a tenth of the time, at
    most: where it is slow, checkpoints are further apart."""

    def __init__(self, save: Save | None, state: Callable[[], TrainState], every: float) -> None:
        self._save, self.state, self.every = save if this_of_all()[0] == 0 else None, state, every
        self.saved, self.saving = time.monotonic(), 0.0

    def save_if_due(self) -> None:
        if time.monotonic() - self.saved >= (max(self.every, 9 * self.saving) if self.every else 0.0):
            self.save()

    def save(self) -> None:
        if self._save is None:
            return
        began = time.monotonic()
        self._save(self.state())
        self.saved = time.monotonic()
        self.saving = self.saved - began


def set_dropout(model: nn.Module, share: float | None) -> None:
    """Let every dropout layer drop this share; the model's own where it is None."""
    for module in model.modules():
        if share is not None and isinstance(module, nn.Dropout):
            module.p = share


def texts_hash(texts: Sequence[LabelledText]) -> str:
    """SHA-256 over texts, second texts and labels, in their order."""
    digest = hashlib.sha256()
    for example in texts:
        digest.update(json.dumps([example.text, example.pair, example.label]).encode())
    return digest.hexdigest()


def _is_due(step: int, total: int, config: TrainingConfig) -> bool:
    """Whether the classifier is measured after this step."""
    early = config.observe_early and step < config.observe_every and step % config.observe_early == 0
    return bool(early) or step % config.observe_every == 0 or step == total


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at `step` (0 ... total - 1): linear up over the warm-up, then linear down to
    zero."""
    rise = warmup * total
    return (step + 1) / (rise + 1) if step < rise else (total - step) / (total - rise)
