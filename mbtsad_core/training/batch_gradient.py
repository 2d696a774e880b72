"""The gradient of a batch: in parts where the memory, or several processes, ask for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mbtsad_core.errors import BadConfig
from mbtsad_core.models.classifier import Batch, Classifier, Encoded, autocast, collate, logits_of, quicker_attention
from mbtsad_core.training.dropout import quick_dropout
from mbtsad_core.training.several_processes import add_up, in_any, part_of
from mbtsad_core.training.state import generators, set_generators

Loss = Callable[[Classifier, Batch, Tensor], dict[str, Tensor]]
"""(classifier, batch, labels (B,)) -> scalar terms; "loss" is minimized, "classification" watched for divergence."""

Share = Callable[[dict[str, Tensor], float, float], dict[str, Tensor]]
"""(terms of a part of a batch, its share of the batch's texts, of its real tokens) -> what the part adds to the terms
of the whole batch."""


def classification_loss(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of the labels."""
    with quicker_attention(classifier):
        loss = nn.functional.cross_entropy(logits_of(classifier, batch), labels)
    return {"loss": loss, "classification": loss}


def by_texts(terms: dict[str, Tensor], texts: float, tokens: float) -> dict[str, Tensor]:
    """The `Share` of terms that are means over the texts of a batch."""
    return {name: term * texts for name, term in terms.items()}


class BatchGradient:
    """Puts the gradient of a batch in the place of the weights' old one, `at_once` texts at a time.

    Where the memory does not hold so many, the batch is done again in parts of half as many, and so are those that
    follow. `share` adds the parts up to the same mean; without one, what cannot be held cannot be trained.
    """

    def __init__(self, classifier: Classifier, loss: Loss, share: Share | None, at_once: int, stage: str) -> None:
        self.classifier, self.loss, self.at_once, self.stage = classifier, loss, at_once, stage
        self.share = by_texts if loss is classification_loss else share

    def __call__(self, batch: Sequence[Encoded], labels: Tensor, step: int) -> dict[str, Tensor]:
        """The terms of the whole batch, without gradients. Raises BadConfig where the memory does not hold one text."""
        model = self.classifier.model
        drawn = generators(model)
        while (terms := gradient(self.classifier, batch, labels, self.loss, self.share, self.at_once)) is None:
            largest = len(part_of(len(batch), parted=self.share is not None, process=0))
            self.at_once = _fewer(min(self.at_once, largest), batch, self.stage, step, self.share)
            set_generators(drawn, model)
        return terms


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
        f"The memory does not hold step {step} of the stage {stage!r}: {at_once} {'text' if at_once == 1 else 'texts'} "
        f"of up to {longest} tokens"
    )
    if at_once == 1:
        raise BadConfig(
            f"{where}, and fewer there cannot be. Lower `max_length`, give a smaller model, or use a machine with "
            "more memory."
        )
    if share is None:
        raise BadConfig(
            f"{where}, and its loss cannot be taken in parts. Use a smaller batch size or a smaller `max_length`."
        )
    return (at_once + 1) // 2
