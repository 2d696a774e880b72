"""PURE: "Defense against Backdoor Attack on Pre-trained Language Models via Head Pruning and Attention Normalization"
(Zhao et al., ICML 2024).

A head through which a trigger speaks looks from [CLS] past clean words to nothing in particular: on clean texts its
attention is even. Heads of even attention are pruned; then the others are tuned to be of no stronger opinion than the
labels ask for. Symbols: a_lh, the [CLS] row of head h in layer l, a distribution over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mbtsad_core.defenses.encoder_layers import Zeros, encoder_layers, held_at_zero, zero
from mbtsad_core.defenses.held_out import accuracy, hold_out
from mbtsad_core.defenses.pure_method import PURE, PUREConfig
from mbtsad_core.models.classifier import Batch, Classifier, clone, collate, encode, evaluation_mode, trace
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import Event, LabelledText, Observe, Steps


@PURE.runs
def pure(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: PUREConfig = PUREConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect without its evenest heads, trained on all clean texts with eq. (3) of PURE.

    Which heads go, and the weights of the layers, are found on a clean-fine-tuned copy and held-out clean texts.
    Deviation: its authors start from a poisoned encoder with a new head; the suspect is a classifier, and its head
    stays.
    """
    rest, held_out = hold_out(clean, config.held_out, config.seed)
    judged = yield from fine_tune(
        clone(suspect), rest, config.judging, stage="judge heads", seed=config.seed, observe=observe
    )
    pruned = yield from heads_to_prune(judged, held_out, head_variance(judged, held_out), config)
    zero(zeros(judged, pruned))
    coefficients = layer_coefficients(head_variance(judged, held_out), pruned).to(suspect.device)
    kept = ~pruned.to(suspect.device)

    def loss(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:  # eq. (3) of PURE
        seen = trace(classifier, batch)
        classification = cross_entropy(seen.logits.float(), labels)
        attention = attention_norm(seen.attention, kept, coefficients)
        return {
            "loss": classification + config.penalty * attention,
            "classification": classification,
            "attention": attention,
        }

    tuned = clone(suspect)
    with held_at_zero(zeros(tuned, pruned)):
        yield from fine_tune(
            tuned, clean, config.training, loss=loss, stage=PURE.key, seed=config.seed, observe=observe
        )
    return tuned


def cls_variance(A: Tensor, mask: Tensor) -> Tensor:
    """The variance, unbiased, of each head's [CLS] row over the real tokens: (B, H, T, T), (B, T) -> (B, H).

    Deviation: the authors' rows are padded to 128 tokens and counted with the padding; there a score follows the
    padding.
    """
    real = mask[:, None, :].float()
    n = real.sum(-1)
    row = A[:, :, 0].float()
    mean = (row * real).sum(-1) / n
    return ((row - mean[:, :, None]).square() * real).sum(-1) / (n - 1)


@torch.inference_mode()
def head_variance(classifier: Classifier, texts: Sequence[LabelledText], *, batch_size: int = 64) -> Tensor:
    """`cls_variance`, averaged over the texts: (L, H), on the CPU."""
    encoded = sorted(encode(classifier, texts), key=lambda e: len(e["input_ids"]))
    sums: list[Tensor] = []
    with evaluation_mode(classifier.model):
        for start in range(0, len(encoded), batch_size):
            seen = trace(classifier, collate(classifier, encoded[start : start + batch_size]))
            sums.append(torch.stack([cls_variance(A, seen.mask).sum(0) for A in seen.attention]).cpu())
    return torch.stack(sums).sum(0) / len(encoded)


def heads_to_prune(
    classifier: Classifier, held_out: Sequence[LabelledText], variance: Tensor, config: PUREConfig
) -> Steps[Tensor]:
    """Which heads go, (L, H): those of the least variance, a group at a time, as long as the held-out accuracy is
    enough.

    Of the group with which it is not, heads come back, the one of the largest variance first, until it is. The head of
    the largest variance of a layer always stays.
    """
    order = [divmod(i, variance.shape[1]) for i in variance.flatten().argsort(stable=True).tolist()]
    last = variance.argmax(dim=1).tolist()
    pruned = torch.zeros_like(variance, dtype=torch.bool)

    def reached() -> float:
        cut = clone(classifier)
        zero(zeros(cut, pruned))
        return accuracy(cut, held_out)

    for start in range(0, len(order), config.group):
        group = [(layer, head) for layer, head in order[start : start + config.group] if head != last[layer]]
        for place in group:
            pruned[place] = True
        now = full = reached()
        while group and now < config.least_accuracy:
            pruned[group.pop()] = False
            now = reached()
        yield Event(
            "prune",
            min(start + config.group, len(order)),
            len(order),
            {"heads": float(pruned.sum()), "held_out_accuracy": now},
        )
        if full < config.least_accuracy:
            break
    return pruned


def layer_coefficients(variance: Tensor, pruned: Tensor) -> Tensor:
    """The layers' weights in the norm, (L, H), (L, H) -> (L,): 1 where the mean variance of the heads left is smallest,
    0 where it is largest.

    As its authors do: the softmax of -log of the mean variance, spread over [0, 1]. All are 1 where they do not differ.
    """
    left = ~pruned
    even = (-((variance * left).sum(1) / left.sum(1)).log()).softmax(0)
    span = even.max() - even.min()
    return (even - even.min()) / span if span > 0 else torch.ones_like(even)


def attention_norm(attention: Sequence[Tensor], kept: Tensor, coefficients: Tensor) -> Tensor:
    """sum_l c_l sum_h ||a_lh||_2 over the heads kept, the norm taken over tokens and batch together, as its authors do.

    attention  L x (B, H, T, T); kept (L, H); coefficients (L,); a scalar comes out. Padding has no attention, so it
               adds nothing.
    """
    # (L, H)
    norms = torch.stack([A[:, :, 0].float().square().sum(dim=(0, 2)).clamp(min=1e-12).sqrt() for A in attention])
    return (coefficients * (norms * kept).sum(1)).sum()


def zeros(classifier: Classifier, pruned: Tensor) -> list[Zeros]:
    """What is zero once these heads, (L, H), are pruned: the columns of attention's output map that read them."""
    found = []
    for layer, gone in zip(encoder_layers(classifier), pruned.to(classifier.device), strict=True):
        found.append(Zeros(layer.heads.weight, gone.repeat_interleave(layer.heads.in_features // len(gone))[None, :]))
    return found
