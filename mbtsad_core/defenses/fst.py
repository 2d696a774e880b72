"""FST: "Towards Stable Backdoor Purification through Feature Shift Tuning" (Min et al., NeurIPS 2023).

A head that points away from the suspect's cannot use the features that the suspect's used: in fine-tuning they shift,
and clean ones part from the backdoor's. Symbols: w, the head's weights (C, D); w_0, those of the suspect.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mbtsad_core.defenses.encoder_layers import classification_head
from mbtsad_core.defenses.fst_method import FST, FSTConfig
from mbtsad_core.models.classifier import Batch, Classifier, clone, logits_of, quicker_attention
from mbtsad_core.training.batch_gradient import by_texts
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps


@FST.runs
def fst(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: FSTConfig = FSTConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect with a head drawn anew, trained on the clean texts with eq. (1) of FST: the least of
    cross-entropy + alpha <w, w_0> where |w| = |w_0|.

    Deviation: AdamW, as for the other defenses, where the authors have SGD; and the norm is put right before the first
    step already, where theirs is after it.
    """
    shifted = clone(suspect)
    head, w_0 = classification_head(shifted), classification_head(suspect).weight.detach().clone()
    redraw(head, config.seed)

    def loss(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        with quicker_attention(classifier):
            classification = cross_entropy(logits_of(classifier, batch), labels)
        likeness = (head.weight * w_0).sum()
        return {
            "loss": classification + config.alpha * likeness,
            "classification": classification,
            "likeness": likeness,
        }

    with held_at_norm(head, float(w_0.norm())):
        yield from fine_tune(
            shifted, clean, config.training, loss=loss, share=by_texts, stage=FST.key, seed=config.seed, observe=observe
        )
    return shifted


@torch.no_grad()
def redraw(head: nn.Linear, seed: int) -> None:
    """Draw weights and biases from [-1 / sqrt(D), 1 / sqrt(D)], in place, as the authors do."""
    generator = torch.Generator().manual_seed(seed)
    bound = 1 / math.sqrt(head.in_features)
    for drawn in head.parameters():
        drawn.copy_((2 * torch.rand(drawn.shape, generator=generator) - 1) * bound)


@contextlib.contextmanager
def held_at_norm(head: nn.Linear, norm: float) -> Iterator[None]:
    """Put the head's weights to this norm: now, whenever it is used in training, and at the end. Who measures in
    between changes nothing."""
    scale(head.weight, norm)
    handle = head.register_forward_pre_hook(lambda *_: scale(head.weight, norm) if head.training else None)
    try:
        yield
    finally:
        handle.remove()
        scale(head.weight, norm)


@torch.no_grad()
def scale(weights: Tensor, norm: float) -> None:
    """Put the weights to this norm, in place."""
    weights.mul_(norm / weights.norm())
