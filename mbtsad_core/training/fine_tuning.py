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
from mbtsad_core.models.classifier import Batch, Classifier, autocast, clone, collate, encode
from mbtsad_core.training.batching import batches
from mbtsad_core.training.state import TrainState, capture, restore
from mbtsad_core.types import Event, LabelledText, Observe, Steps

Loss = Callable[[Classifier, Batch, Tensor], dict[str, Tensor]]
"""(classifier, batch, labels (B,)) -> scalar terms; "loss" is minimised, "classification" watched for divergence."""

Epochs = Callable[[int], Sequence[LabelledText]]
"""The training texts of an epoch; the same number in each."""

Save = Callable[[TrainState], None]

WINDOW = 20  # steps over which the loss is averaged when divergence is judged


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
            f"{per_epoch} training texts are fewer than one batch of {config.batch_size}. "
            f"Give more clean texts, more copies of each, or a smaller batch size."
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
    watch, saved = DivergenceWatch(classifier), time.monotonic()
    try:
        for epoch in range(step // steps_per_epoch, config.epochs):
            texts_now = epoch_texts(epoch)
            encoded = encode(classifier, texts_now)
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
                if observe is not None and (step % config.observe_every == 0 or step == total):
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


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at `step` (0 ... total - 1): linear up over the warm-up, then linear down to zero."""
    rise = warmup * total
    return (step + 1) / (rise + 1) if step < rise else (total - step) / (total - rise)


class DivergenceWatch:
    """Keeps the weights of the lowest mean loss, and raises Diverged when training has gone astray.

    Astray is a loss that is not finite, or a classification loss that began better than guessing (ln C) and, over the
    last steps, is no longer.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.guessing = math.log(len(classifier.labels))
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.first: float | None = None
        self.best: tuple[float, dict[str, Tensor]] | None = None

    def check(self, metrics: dict[str, float], step: int) -> None:
        if not math.isfinite(metrics["loss"]):
            raise Diverged(f"Training diverged at step {step}: the loss is {metrics['loss']}. Lower the learning rate.", self.best_classifier())
        self.recent.append(metrics["classification"])
        if len(self.recent) < WINDOW:
            return
        now = mean(self.recent)
        self.first = now if self.first is None else self.first
        if self.first < 0.8 * self.guessing and now > 0.97 * self.guessing:
            raise Diverged(
                f"Training diverged at step {step}: the mean classification loss rose from {self.first:.3f} to {now:.3f}, "
                f"no better than guessing ({self.guessing:.3f}). Lower the learning rate.",
                self.best_classifier(),
            )
        if step % WINDOW == 0 and (self.best is None or now < self.best[0]):
            self.best = (now, {k: v.detach().clone() for k, v in self.classifier.model.state_dict().items()})

    def best_classifier(self) -> Classifier | None:
        if self.best is None:
            return None
        kept = clone(self.classifier)
        kept.model.load_state_dict(self.best[1])
        kept.model.eval()
        return kept
