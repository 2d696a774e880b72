"""The one training loop; an objective is a loss, not a trainer of its own."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import mean

import torch
from torch import Tensor, nn

from mbtsad_core.config import TrainingConfig
from mbtsad_core.errors import BadData, Diverged
from mbtsad_core.models.classifier import Batch, Classifier, Encoded, autocast, clone, collate, encode, predict
from mbtsad_core.training.batching import batches
from mbtsad_core.training.state import TrainState, capture, restore
from mbtsad_core.types import Event, LabelledText, Observe, Steps

Loss = Callable[[Classifier, Batch, Tensor], dict[str, Tensor]]
"""(classifier, batch, labels (B,)) -> scalar terms; "loss" is minimised, "classification" watched for divergence."""

Epochs = Callable[[int], Sequence[LabelledText]]
"""The training texts of an epoch; the same number in each."""

Perturb = Callable[[list[Encoded], int], list[Encoded]]
"""(tokenised texts, epoch) -> what is trained on in their place."""

Save = Callable[[TrainState], None]

WINDOW = 20  # steps over which the loss is averaged when divergence is judged
PROBED = 64  # texts, about, on which the loss before the first step is measured


def classification_loss(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of the labels."""
    loss = nn.functional.cross_entropy(classifier.model(**batch).logits.float(), labels)
    return {"loss": loss, "classification": loss}


def fine_tune(
    classifier: Classifier,
    texts: Sequence[LabelledText] | Epochs,
    config: TrainingConfig,
    *,
    loss: Loss = classification_loss,
    perturb: Perturb | None = None,
    stage: str = "fine-tune",
    seed: int = 0,
    observe: Observe | None = None,
    resume: TrainState | None = None,
    save: Save | None = None,
) -> Steps[Classifier]:
    """Train all weights of `classifier`, in place, and return it: AdamW, linear warm-up, linear decay.

    An Event follows every step. `save` gets the state every `config.save_every` seconds, and when the caller closes the
    generator; from such a state, `resume` goes on to the same weights as an uninterrupted run.
    Raises Diverged, with the best classifier so far, once the loss is not finite or no better than guessing.
    """
    epoch_texts: Epochs = texts if callable(texts) else (lambda epoch: texts)
    per_epoch = len(epoch_texts(0))
    if per_epoch < config.batch_size:
        raise BadData(
            f"{per_epoch} training texts are fewer than one batch of {config.batch_size}. Give more clean texts, more copies of each, or a smaller batch size."
        )
    steps_per_epoch = math.ceil(per_epoch / config.batch_size)
    total = config.epochs * steps_per_epoch

    model = classifier.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    torch.manual_seed(seed)
    step = 0
    if resume is not None:
        restore(resume, model, optimizer)
        step = resume.step
    if config.dropout is not None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
    model.train()
    watch, saved = DivergenceWatch(classifier, stage, step, total, epoch_texts(0)), time.monotonic()
    try:
        for epoch in range(step // steps_per_epoch, config.epochs):
            texts_now = epoch_texts(epoch)
            encoded = encode(classifier, texts_now)
            encoded = perturb(encoded, epoch) if perturb else encoded
            order = batches([len(e["input_ids"]) for e in encoded], config.batch_size, random.Random(f"batches, seed {seed}, epoch {epoch}"))
            for chosen in order[step % steps_per_epoch if epoch == step // steps_per_epoch else 0 :]:
                batch = collate(classifier, [encoded[i] for i in chosen])
                labels = torch.tensor([texts_now[i].label for i in chosen], device=classifier.device)
                with autocast(classifier):
                    terms = loss(classifier, batch, labels)
                optimizer.zero_grad(set_to_none=True)
                terms["loss"].backward()
                nn.utils.clip_grad_norm_(model.parameters(), config.clip)
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * schedule(step, total, config.warmup)
                optimizer.step()
                step += 1
                metrics = {name: float(term.detach()) for name, term in terms.items()}
                watch.check(metrics, step)
                if observe is not None and _is_due(step, total, config):
                    model.eval()
                    metrics |= observe(classifier)
                    model.train()
                yield Event(stage, step, total, metrics)
                if save is not None and time.monotonic() - saved >= config.save_every:  # after the event: who resumes here has it
                    save(capture(stage, step, model, optimizer))
                    saved = time.monotonic()
    except GeneratorExit:  # the caller stops here, between two steps
        if save is not None:
            save(capture(stage, step, model, optimizer))
        raise
    model.eval()
    return classifier


def _is_due(step: int, total: int, config: TrainingConfig) -> bool:
    """Whether the classifier is measured after this step."""
    early = config.observe_early and step < config.observe_every and step % config.observe_early == 0
    return bool(early) or step % config.observe_every == 0 or step == total


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at `step` (0 ... total - 1): linear up over the warm-up, then linear down to zero."""
    rise = warmup * total
    return (step + 1) / (rise + 1) if step < rise else (total - step) / (total - rise)


def mean_loss(classifier: Classifier, texts: Sequence[LabelledText]) -> float:
    """Mean cross-entropy of the texts' classes; infinite where their labels are none (an objective may number its texts instead)."""
    labels = torch.tensor([example.label for example in texts])
    if int(labels.max()) >= len(classifier.labels):
        return math.inf
    return float(nn.functional.nll_loss(predict(classifier, texts).clamp(min=1e-9).log(), labels))


class DivergenceWatch:
    """Keeps the best weights, and raises Diverged when training has gone astray.

    The best are those that the lowest mean loss over WINDOW steps came after: a mean over the steps before them would be as
    low at weights that the last of these steps has just ruined.

    Astray is a loss that is not finite, or a classification loss that was better than guessing (ln C) on some of the texts
    before the first step, and over the last WINDOW steps (all, where there are fewer) is no longer. The second is judged
    after a quarter of the steps: a high rate shakes a model at first, and most recover.
    """

    def __init__(self, classifier: Classifier, stage: str, step: int, total: int, texts: Sequence[LabelledText]) -> None:
        self.classifier, self.stage = classifier, stage
        self.guessing = math.log(len(classifier.labels))
        self.window = min(WINDOW, total - step)
        self.quarter = total / 4
        self.first = mean_loss(classifier, texts[:: max(1, len(texts) // PROBED)])
        self.recent: deque[float] = deque(maxlen=self.window)
        self.candidate: dict[str, Tensor] | None = None
        self.best: tuple[float, dict[str, Tensor]] | None = None

    def check(self, metrics: dict[str, float], step: int) -> None:
        if not math.isfinite(metrics["loss"]):
            raise Diverged(f"The stage {self.stage!r} diverged at step {step}: the loss is {metrics['loss']}. Lower its learning rate.", self.best_classifier())
        self.recent.append(metrics["classification"])
        if len(self.recent) < self.window:
            return
        now = mean(self.recent)
        if step > self.quarter and self.first < 0.8 * self.guessing and now > 0.97 * self.guessing:
            raise Diverged(
                f"The stage {self.stage!r} diverged at step {step}: the classification loss rose from {self.first:.3f} to a mean of {now:.3f}, "
                f"no better than guessing ({self.guessing:.3f}). Lower its learning rate.",
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
