"""Attention distillation: the student learns the teacher's attention maps, its hidden states, and the labels.

Equations (1)-(7) of MBTSAD (arXiv 2501.02754, section III-C). Symbols: i layer of N, j head, l tokens, A attention maps after
softmax, H hidden states, T teacher, S student. Padding never enters a term: a text has the same loss in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mbtsad_core.config import DistilConfig
from mbtsad_core.models.classifier import Batch, Classifier, trace
from mbtsad_core.training.fine_tuning import Epochs, Perturb, Save, fine_tune
from mbtsad_core.training.state import TrainState
from mbtsad_core.types import LabelledText, Observe, Steps, Trace


def distillation_loss(teacher: Trace, student: Trace, labels: Tensor, config: DistilConfig) -> dict[str, Tensor]:
    """Eq. (1): L_AD = alpha * L_att + beta * L_hid + L_cls. All terms are scalars; labels is (B,)."""
    AE_T, AE_S = ([attention_energy(A, t.mask, config.power) for A in t.attention] for t in (teacher, student))  # eq. (3), a layer
    attention = torch.stack([attention_transfer(a_T, a_S).mean() for a_T, a_S in zip(AE_T, AE_S, strict=True)]).sum()  # eq. (2)
    pairs = zip(teacher.hidden, student.hidden, strict=True)  # H_0 ... H_N, eq. (5)
    hidden = torch.stack([hidden_state_loss(H_T, H_S, student.mask) for H_T, H_S in pairs]).sum()  # eq. (6)
    classification = cross_entropy(student.logits.float(), labels)  # eq. (7): the true labels, not the teacher's answers
    loss = config.alpha * attention + config.beta * hidden + classification
    return {"loss": loss, "attention": attention, "hidden": hidden, "classification": classification}


def attention_energy(A: Tensor, mask: Tensor, p: float) -> Tensor:
    """Eq. (3): AE(A)_qk = sum over heads of |A_jqk|^p, (B, H, T, T) -> (B, T, T); rows and columns of padding are zero.

    The maps come out of a softmax, so |A| is A.
    """
    real = mask.float()
    return A.float().pow(p).sum(dim=1) * real[:, :, None] * real[:, None, :]


def attention_transfer(AE_T: Tensor, AE_S: Tensor) -> Tensor:
    """Eq. (4): the L2 distance of the two maps, each scaled to unit Frobenius norm; (B, T, T) x 2 -> (B,), in [0, sqrt 2]."""
    unit_T, unit_S = (AE.flatten(1) / AE.flatten(1).norm(dim=1, keepdim=True) for AE in (AE_T, AE_S))
    return torch.linalg.vector_norm(unit_T - unit_S, dim=1)


def hidden_state_loss(H_T: Tensor, H_S: Tensor, mask: Tensor) -> Tensor:
    """One term of eq. (6): mean squared difference over the real tokens and all D dimensions; (B, T, D) x 2 -> scalar."""
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

    def loss(student: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            target = trace(teacher, batch)
        return distillation_loss(target, trace(student, batch), labels, config)

    def share(terms: dict[str, Tensor], texts: float, tokens: float) -> dict[str, Tensor]:  # eq. (6) is a mean over tokens, the others over texts
        attention, hidden, classification = terms["attention"] * texts, terms["hidden"] * tokens, terms["classification"] * texts
        loss = config.alpha * attention + config.beta * hidden + classification
        return {"loss": loss, "attention": attention, "hidden": hidden, "classification": classification}

    steps = fine_tune(student, texts, config, loss=loss, share=share, perturb=perturb, stage=stage, seed=seed, observe=observe, resume=resume, save=save)
    return (yield from steps)
