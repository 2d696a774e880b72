"""BEEAR: "Embedding-based Adversarial Removal of Safety Backdoors in Instruction-tuned Language Models" (Zeng et al.,
EMNLP 2024), carried over to text classifiers.

Whatever a trigger looks like, it makes hidden states drift in about the same direction. The inner level finds a vector
that acts as such a drift; the outer level trains the model to answer right with the vector added, and without.
Symbols: delta_c, the drift towards class c of C, a vector of D numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mbtsad_core.defenses.beear_method import BEEAR, BEEARConfig
from mbtsad_core.defenses.encoder_layers import changed_outputs, encoder_layers, layer_outputs
from mbtsad_core.models.classifier import Batch, Classifier, clone, logits_of, quicker_attention
from mbtsad_core.training.batch_gradient import by_texts
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps


@BEEAR.runs
def beear(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: BEEARConfig = BEEARConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect, trained on the clean texts with drifts that are found anew for each step, from the last.

    Deviation: the authors know what is unwanted, and seek one drift towards it; here there is one towards each class,
    since the target is not known. Theirs has a vector for each of the last tokens and no bound; here one vector is
    added to all tokens, and bounded.
    """
    purified = clone(suspect)
    drifts = Drifts(purified, clean, config)

    def loss(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        wrong = wrong_classes(labels, len(classifier.labels))
        with quicker_attention(classifier):
            for _ in range(config.inner_steps):
                drifts.step(classifier, batch, wrong)
            drifted = cross_entropy(drifts.logits(classifier, batch, wrong), labels)
            classification = cross_entropy(logits_of(classifier, batch), labels)
        return {"loss": classification + config.weight * drifted, "classification": classification, "drifted": drifted}

    return (
        yield from fine_tune(
            purified,
            clean,
            config.training,
            loss=loss,
            share=by_texts,
            stage=BEEAR.key,
            seed=config.seed,
            observe=observe,
        )
    )


def wrong_classes(labels: Tensor, classes: int) -> Tensor:
    """A class for each text, (B,), that is not its own, all others as likely; drawn from PyTorch's random state."""
    return (labels + torch.randint(1, classes, labels.shape).to(labels.device)) % classes


class Drifts:
    """A drift towards each class, which is added to the output of one layer at every token.

    delta  (C, D), from zero
    bound  the largest norm of a row
    """

    def __init__(self, classifier: Classifier, clean: Sequence[LabelledText], config: BEEARConfig) -> None:
        layers = encoder_layers(classifier)
        number = max(1, round(config.depth * len(layers)))
        self.layer: nn.Module = layers[number - 1].module
        outputs = [found[number - 1] for found in layer_outputs(classifier, clean)]
        self.bound = config.bound * fmean(torch.cat(outputs).norm(dim=-1).tolist())
        self.rate = config.inner_rate * self.bound
        self.delta = torch.zeros(len(classifier.labels), outputs[0].shape[-1], device=classifier.device)

    def logits(self, classifier: Classifier, batch: Batch, towards: Tensor, *, inner: bool = False) -> Tensor:
        """The logits, (B, C), with each text's drift added; `towards` is (B,). The inner level needs no gradient below
        the layer."""
        added = self.delta[towards][:, None]
        with changed_outputs([self.layer], lambda _, H: (H.detach() if inner else H) + added.to(H.dtype)):
            return logits_of(classifier, batch)

    def step(self, classifier: Classifier, batch: Batch, wrong: Tensor) -> None:
        """The inner level: each drift takes a step down the cross-entropy of the wrong classes, (B,)."""
        self.delta = self.delta.detach().requires_grad_()
        loss = cross_entropy(self.logits(classifier, batch, wrong, inner=True), wrong)
        (slope,) = torch.autograd.grad(loss, self.delta)
        self.delta = stepped(self.delta.detach(), slope, self.rate, self.bound)


def stepped(delta: Tensor, slope: Tensor, rate: float, bound: float) -> Tensor:
    """Each row `rate` down its slope, then put back to a norm of at most `bound`; (C, D), (C, D) -> (C, D). A row
    without a slope stays."""
    moved = delta - rate * normalize(slope, dim=-1)
    return moved * (bound / moved.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
