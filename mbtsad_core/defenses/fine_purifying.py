"""Fine-Purifying (Zhang et al., "Diffusion Theory as a Scalpel", Findings of ACL 2023): weights that drifted far where
clean texts hardly care are put back to what they were before fine-tuning.

Re-implemented from descriptions of it, for its code is not public. The rule by which rho is chosen is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mbtsad_core.defenses.held_out import hold_out
from mbtsad_core.defenses.reserve_method import FINE_PURIFYING, FinePurifyingConfig
from mbtsad_core.defenses.reserve_ratio import check_pretrained, encoder_weights, tune_with_least_reserve
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, logits_of
from mbtsad_core.types import Event, LabelledText, Observe, Steps

LEAST_FISHER = (
    1e-12  # added to a weight's Fisher information, so that what clean texts never touch has some; as it is passed on
)


@FINE_PURIFYING.runs
def fine_purifying(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: FinePurifyingConfig = FinePurifyingConfig(),
    pretrained: Classifier | None = None,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """The suspect with its most suspicious weights as they were, trained on the clean texts; where rho is to be found,
    on all but the held-out ones.

    pretrained  of the suspect's architecture and vocabulary; its head is not read
    Raises UnsuitableModel without it, and where it does not fit.
    """
    pretrained = check_pretrained(suspect, pretrained, "Fine-Purifying")
    texts, held_out = (list(clean), []) if config.rho is not None else hold_out(clean, config.held_out, config.seed)
    H = yield from fisher_information(suspect, texts)
    theirs = encoder_weights(pretrained)
    r = {
        name: indicator(weight.detach() - theirs[name].detach().to(weight.device), H[name])
        for name, weight in encoder_weights(suspect).items()
    }

    def purified(rho: float) -> Classifier:
        return put_back(suspect, pretrained, r, rho)

    return (
        yield from tune_with_least_reserve(
            suspect, purified, texts, held_out, config, stage="fine-purifying", observe=observe
        )
    )


def fisher_information(suspect: Classifier, texts: Sequence[LabelledText]) -> Steps[dict[str, Tensor]]:
    """The diagonal of the empirical Fisher information of the encoder's weights: the mean, over the texts, of each
    one's squared gradient."""
    copied = clone(suspect)
    copied.model.eval()
    weights = {name: weight for name, weight in copied.model.named_parameters() if name in encoder_weights(suspect)}
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for i, (encoded, example) in enumerate(zip(encode(suspect, texts), texts, strict=True), 1):
        logits = logits_of(copied, collate(copied, [encoded]))
        loss = cross_entropy(logits, torch.tensor([example.label], device=logits.device))
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                squares[name].addcmul_(gradient, gradient)
        yield Event("fisher", i, len(texts))
    return {name: square / len(texts) for name, square in squares.items()}


def indicator(drift: Tensor, fisher: Tensor) -> Tensor:
    """r = delta^2 / (H + 1e-12), of any shape: the larger, the more suspicious."""
    return drift.float().square() / (fisher.float() + LEAST_FISHER)


@torch.no_grad()
def put_back(suspect: Classifier, pretrained: Classifier, r: dict[str, Tensor], rho: float) -> Classifier:
    """A copy of the suspect in which the share 1 - rho of the encoder's weights that have the largest r are the
    pre-trained ones."""
    purified, theirs = clone(suspect), encoder_weights(pretrained)
    every = torch.cat([r[name].flatten() for name in theirs])
    kept = round(rho * len(every))
    bound = every.kthvalue(kept).values if kept else every.new_tensor(-torch.inf)  # the largest r that stays
    for name, weight in encoder_weights(purified).items():
        weight.copy_(torch.where(r[name] > bound, theirs[name].to(weight.device), weight))
    return purified
