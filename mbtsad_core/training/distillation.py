"""Attention distillation: the student learns the teacher's attention maps, its hidden states, and the labels.

Equations (1)-(7) of MBTSAD (arXiv 2501.02754, section III-C). Symbols: i layer of N, j head, l tokens, A attention maps
after softmax, H hidden states, T teacher, S student. Padding never enters a term: a text has the same loss in any
batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mbtsad_core.config import DistilConfig
from mbtsad_core.models.classifier import Batch, Classifier
from mbtsad_core.training.attention_map import (
    Distance,
    Record,
    attention_energy,
    attention_transfer,
    choose,
    distance_of_maps,
)
from mbtsad_core.training.fine_tuning import Epochs, Perturb, fine_tune
from mbtsad_core.training.state import Save, TrainState
from mbtsad_core.types import LabelledText, Observe, Steps, Trace

__all__ = ["attention_energy", "attention_transfer", "distil", "distillation_loss", "hidden_state_loss"]


def distillation_loss(
    teacher: Trace | Record,
    student: Trace | Record,
    labels: Tensor,
    config: DistilConfig,
    distance: Distance = distance_of_maps,
) -> dict[str, Tensor]:
    """Eq. (1): L_AD = alpha * L_att + beta * L_hid + L_cls. All terms are scalars; labels is (B,).

    `distance` is eqs. (3) and (4) of a layer, in the form that suits what teacher and student were looked at with.
    """
    layers = zip(teacher.attention, student.attention, strict=True)
    attention = torch.stack([distance(T, S, student.mask, config.power).mean() for T, S in layers]).sum()  # eq. (2)
    pairs = zip(teacher.hidden, student.hidden, strict=True)  # H_0 ... H_N, eq. (5)
    hidden = torch.stack([hidden_state_loss(H_T, H_S, student.mask) for H_T, H_S in pairs]).sum()  # eq. (6)
    # eq. (7): the true labels, not the teacher's answers
    classification = cross_entropy(student.logits.float(), labels)
    loss = config.alpha * attention + config.beta * hidden + classification
    return {"loss": loss, "attention": attention, "hidden": hidden, "classification": classification}


def hidden_state_loss(H_T: Tensor, H_S: Tensor, mask: Tensor) -> Tensor:
    """One term of eq. (6): mean squared difference over the real tokens and all D dimensions; (B, T, D) x 2 ->
    scalar."""
    squared = (H_T.float() - H_S.float()).square().mean(dim=-1)  # (B, T)
    return (squared * mask).sum() / mask.sum()


def distil(
    student: Classifier,
    teacher: Classifier,
    texts: Sequence[LabelledText] | Epochs,
    config: DistilConfig,
    *,
    perturb: Perturb | None = None,
    stage: str = "distil",
    seed: int = 0,
    observe: Observe | None = None,
    resume: TrainState | None = None,
    save: Save | None = None,
) -> Steps[Classifier]:
    """Train `student`, in place, towards the frozen `teacher` (step 2 of Algorithm 1), and return it."""
    teacher.model.eval()
    form = choose(student, config, texts(0) if callable(texts) else texts).form

    def loss(student: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            target = form.look(teacher, batch)
        return distillation_loss(target, form.look(student, batch), labels, config, form.distance)

    def share(terms: dict[str, Tensor], texts: float, tokens: float) -> dict[str, Tensor]:
        # eq. (6) is a mean over tokens, the others over texts
        attention, hidden, classification = (
            terms["attention"] * texts,
            terms["hidden"] * tokens,
            terms["classification"] * texts,
        )
        loss = config.alpha * attention + config.beta * hidden + classification
        return {"loss": loss, "attention": attention, "hidden": hidden, "classification": classification}

    steps = fine_tune(
        student,
        texts,
        config,
        loss=loss,
        share=share,
        perturb=perturb,
        stage=stage,
        seed=seed,
        observe=observe,
        resume=resume,
        save=save,
    )
    return (yield from steps)
