"""The one training loop; an objective is a loss, not a trainer of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import mean

import torch
from torch import Tensor, nn

from mbtsad_core.config import TrainingConfig
from mbtsad_core.errors import BadConfig, BadData, Diverged
from mbtsad_core.models.classifier import (
    Batch,
    Classifier,
    Encoded,
    autocast,
    clone,
    collate,
    encode,
    logits_of,
    predict,
    quicker_attention,
)
from mbtsad_core.training.batching import batches
from mbtsad_core.training.dropout import quick_dropout
from mbtsad_core.training.several_processes import (
    add_up,
    in_any,
    of_first,
    own_draws,
    part_of,
    share_weights,
    this_of_all,
)
from mbtsad_core.training.state import TrainState, capture, generators, restore, set_generators
from mbtsad_core.types import Event, LabelledText, Observe, Steps

Loss = Callable[[Classifier, Batch, Tensor], dict[str, Tensor]]
"""(classifier, batch, labels (B,)) -> scalar terms; "loss" is minimised, "classification" watched for divergence."""

Share = Callable[[dict[str, Tensor], float, float], dict[str, Tensor]]
"""(terms of a part of a batch, its share of the batch's texts, of its real tokens) -> what the part adds to the terms
of the whole batch."""

Epochs = Callable[[int], Sequence[LabelledText]]
"""The training texts of an epoch; the same number in each."""

Perturb = Callable[[list[Encoded], int], list[Encoded]]
"""(tokenised texts, epoch) -> what is trained on in their place."""

Save = Callable[[TrainState], None]

WINDOW = 20  # steps over which the loss is averaged when divergence is judged
PROBED = 32  # texts, at most, on which the loss before the first step is measured
ANSWERED = 128  # texts, at most, whose answers decide whether a high loss is guessing


def classification_loss(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of the labels."""
    with quicker_attention(classifier):
        loss = nn.functional.cross_entropy(logits_of(classifier, batch), labels)
    return {"loss": loss, "classification": loss}


def by_texts(terms: dict[str, Tensor], texts: float, tokens: float) -> dict[str, Tensor]:
    """The `Share` of terms that are means over the texts of a batch."""
    return {name: term * texts for name, term in terms.items()}


def fine_tune(
    classifier: Classifier,
    texts: Sequence[LabelledText] | Epochs,
    config: TrainingConfig,
    *,
    loss: Loss = classification_loss,
    share: Share | None = None,
    perturb: Perturb | None = None,
    stage: str = "fine-tune",
    seed: int = 0,
    observe: Observe | None = None,
    resume: TrainState | None = None,
    save: Save | None = None,
) -> Steps[Classifier]:
    """Train all weights of `classifier`, in place, and return it: AdamW, linear warm-up, linear decay.

    An Event follows every step. `save` gets the state every `config.save_every` seconds, and when the caller closes the
    generator; from such a state, `resume` goes on to the same weights as an uninterrupted run. Writing them takes a
    tenth of the time, at most: where it is slow, they are further apart.

    Where the memory does not hold a batch, the step is done again in parts of half as many texts, and so are those that
    follow; events say so as metric "texts_at_once". The gradient is the same mean, `share` sees to that; with dropout
    the masks differ. Without one (any `loss` but the default brings its own) what cannot be held cannot be trained.

    Several processes divide each batch likewise, see `several_processes`, or leave it to process 0 where the loss has
    no `share`. All must call this with the same arguments, and close it after the same event, if at all; process 0
    alone calls `save`.

    Raises Diverged, with the best classifier so far, once the loss is not finite or no better than guessing; BadConfig
    where the memory does not hold one text; BadData where `resume` was saved while training on other texts.
    """
    epoch_texts: Epochs = texts if callable(texts) else (lambda epoch: texts)
    first_texts = epoch_texts(0)
    per_epoch = len(first_texts)
    if per_epoch < config.batch_size:
        raise BadData(
            f"{per_epoch} training texts are fewer than one batch of {config.batch_size}. Give more clean texts, more "
            "copies of each, or a smaller batch size."
        )
    steps_per_epoch = math.ceil(per_epoch / config.batch_size)
    total = config.epochs * steps_per_epoch

    model = classifier.model
    save = save if this_of_all()[0] == 0 else None
    share_weights(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    torch.manual_seed(seed)
    step, at_once, trained_on = 0, config.batch_size, texts_hash(first_texts)
    share = by_texts if loss is classification_loss else share
    # Drawn, not every n-th: copies of a text stand beside each other, and classes may alternate.
    drawn_texts = random.Random(f"probed, seed {seed}").sample(range(per_epoch), min(ANSWERED, per_epoch))
    watch = DivergenceWatch(classifier, stage, total, [first_texts[i] for i in drawn_texts])
    if resume is not None:
        if resume.numbers.get("texts_sha256", trained_on) != trained_on:
            raise BadData(
                f"The run cannot go on from step {resume.step} of the stage {stage!r}: its checkpoint was saved while "
                "training on other texts. "
                f"Give the clean texts, the seed and the settings that it began with, or start a new run."
            )
        restore(resume, model, optimizer)
        step, at_once = resume.step, min(resume.numbers.get("texts_at_once", at_once), at_once)
    if resume is None or not watch.resume(resume):
        watch.first = of_first(mean_loss(classifier, watch.texts[:PROBED]))
    if config.dropout is not None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
    model.train()

    def state() -> TrainState:
        numbers = {"texts_sha256": trained_on, "texts_at_once": at_once}
        return watch.kept(dataclasses.replace(capture(stage, step, model, optimizer), numbers=numbers))

    saved, saving = time.monotonic(), 0.0
    try:
        for epoch in range(step // steps_per_epoch, config.epochs):
            texts_now = epoch_texts(epoch)
            encoded = encode(classifier, texts_now)
            encoded = perturb(encoded, epoch) if perturb else encoded
            order = batches(
                [len(e["input_ids"]) for e in encoded],
                config.batch_size,
                random.Random(f"batches, seed {seed}, epoch {epoch}"),
            )
            texts_now, encoded, order = of_first((texts_now, encoded, order))
            for chosen in order[step % steps_per_epoch if epoch == step // steps_per_epoch else 0 :]:
                batch = [encoded[i] for i in chosen]
                labels = torch.tensor([texts_now[i].label for i in chosen], device=classifier.device)
                own_draws(seed, step)
                drawn = generators(model)
                while (
                    terms := gradient(classifier, batch, labels, loss, share, at_once)
                ) is None:  # the memory does not hold so many
                    largest = len(part_of(len(batch), parted=share is not None, process=0))
                    at_once = _fewer(min(at_once, largest), batch, stage, step + 1, share)
                    set_generators(drawn, model)
                nn.utils.clip_grad_norm_(model.parameters(), config.clip)
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * schedule(step, total, config.warmup)
                optimizer.step()
                step += 1
                metrics = {name: float(term.detach()) for name, term in terms.items()}
                if at_once < config.batch_size:
                    metrics["texts_at_once"] = at_once
                watch.check(metrics, step)
                if observe is not None and _is_due(step, total, config):
                    model.eval()
                    metrics |= observe(classifier)
                    model.train()
                yield Event(stage, step, total, metrics)
                now = time.monotonic()
                if save is not None and now - saved >= (
                    max(config.save_every, 9 * saving) if config.save_every else 0.0
                ):
                    save(state())  # after the event: who resumes here has it
                    saved = time.monotonic()
                    saving = saved - now
    except GeneratorExit:  # the caller stops here, between two steps
        if save is not None:
            save(state())
        raise
    model.eval()
    return classifier


def gradient(
    classifier: Classifier, batch: Sequence[Encoded], labels: Tensor, loss: Loss, share: Share | None, at_once: int
) -> dict[str, Tensor] | None:
    """Put the gradient of the batch's loss, `at_once` texts at a time, in the place of the weights' old one; labels is
    (B,).

    Returns the terms of the whole batch, without gradients, or None where the memory (of any process) does not hold
    them.
    """
    model, tokens = classifier.model, sum(len(e["input_ids"]) for e in batch)
    terms, totals, held = dict[str, Tensor](), dict[str, Tensor](), True
    mine = part_of(len(batch), parted=share is not None)
    model.zero_grad(set_to_none=True)
    try:
        for start in range(mine.start, mine.stop, at_once):
            end = min(start + at_once, mine.stop)
            part = batch[start:end]
            with autocast(classifier), quick_dropout(classifier):
                terms = loss(classifier, collate(classifier, part), labels[start:end])
                if len(part) < len(batch):
                    assert share is not None, "what has no shares is never parted"
                    terms = share(terms, len(part) / len(batch), sum(len(e["input_ids"]) for e in part) / tokens)
            terms["loss"].backward()
            totals = {
                name: totals[name] + term.detach() if name in totals else term.detach() for name, term in terms.items()
            }
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        held = False
    if not in_any(not held):
        return add_up(model, totals)
    terms.clear()  # out here: for as long as the error lives, so does all that filled the memory
    model.zero_grad(set_to_none=True)
    if classifier.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def lacks_memory(error: BaseException) -> bool:
    """Whether this is PyTorch's, or Python's, way to say that the memory is full."""
    onednn = "could not create a primitive"  # all that oneDNN says where there is no room for its code or its tensors
    words = ("can't allocate memory", "not enough memory", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", onednn)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(w in str(error) for w in words)


def _fewer(at_once: int, batch: Sequence[Encoded], stage: str, step: int, share: Share | None) -> int:
    """Half as many texts; raises BadConfig where there is no half."""
    longest = max(len(e["input_ids"]) for e in batch)
    where = (
        f"The memory does not hold step {step} of the stage {stage!r}: {at_once} "
        f"{'text' if at_once == 1 else 'texts'} of up to {longest} tokens"
    )
    if at_once == 1:
        raise BadConfig(
            f"{where}, and fewer there cannot be. Lower --max-length, give a smaller model, or use a machine with "
            "more memory."
        )
    if share is None:
        raise BadConfig(
            f"{where}, and its loss cannot be taken in parts. Use a smaller batch size or a smaller --max-length."
        )
    return (at_once + 1) // 2


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
                f"The stage {self.stage!r} diverged at step {step}: the classification loss rose from "
                f"{self.first:.3f} to a mean of {now:.3f}, "
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
