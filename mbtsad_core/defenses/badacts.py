"""BadActs: "A Universal Backdoor Defense in the Activation Space" (Yi et al., Findings of ACL 2024), made permanent.

A triggered text drives neurons beyond what clean texts do. Where they are drawn back into the interval of clean texts,
the trigger is lost and the content stays. Symbols: H_i, the output of layer i of L; d, one of its D neurons.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor

from mbtsad_core.defenses.badacts_method import BADACTS, BadActsConfig
from mbtsad_core.defenses.encoder_layers import changed_outputs, encoder_layers, layer_outputs
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.training.distillation import distil
from mbtsad_core.types import LabelledText, Observe, Steps


@BADACTS.runs
def badacts(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: BadActsConfig = BadActsConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect, distilled on the clean texts towards the suspect whose activations are clipped.

    Deviation: the authors clip at the time of use, and only texts that a detector flags; what is cured here is weights
    alone. Their intervals are learned, as narrow as the answers on clean texts allow; here they are mean ± k standard
    deviations, as in their detector.
    """
    low, high = intervals(suspect, clean, config.width)
    teacher = clone(suspect)
    with clipped(teacher, low, high):
        return (
            yield from distil(
                clone(suspect), teacher, clean, config.distil, stage=BADACTS.key, seed=config.seed, observe=observe
            )
        )


def intervals(classifier: Classifier, clean: Sequence[LabelledText], width: float) -> tuple[Tensor, Tensor]:
    """Mean - and + `width` standard deviations of each neuron over the real tokens of the texts: (L, D) each."""
    total, squares, tokens = torch.zeros(()), torch.zeros(()), 0
    for outputs in layer_outputs(classifier, clean):
        H = torch.stack(outputs).double()  # (L, tokens, D)
        total, squares, tokens = total + H.sum(1).cpu(), squares + H.square().sum(1).cpu(), tokens + H.shape[1]
    mean = total / tokens
    spread = width * (squares / tokens - mean.square()).clamp(min=0).sqrt()
    return (mean - spread).float().to(classifier.device), (mean + spread).float().to(classifier.device)


def clipped(classifier: Classifier, low: Tensor, high: Tensor) -> contextlib.AbstractContextManager[None]:
    """Within it, the outputs of the classifier's layers stay within these bounds, (L, D) each."""
    layers = [layer.module for layer in encoder_layers(classifier)]
    return changed_outputs(layers, lambda i, H: H.clamp(low[i].to(H.dtype), high[i].to(H.dtype)))
