"""Fine-Pruning: neurons that sleep on clean texts may be a backdoor's, so they are cut out, and the rest is tuned (Liu
et al., RAID 2018).

The source prunes channels of a convolutional network. What MBTSAD's authors pruned of BERT they do not say; here it is
the inner neurons of the feed-forward blocks, after their activation function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mbtsad_core.defenses.encoder_layers import Zeros, encoder_layers, held_at_zero, zero
from mbtsad_core.defenses.fine_pruning_method import FINE_PRUNING, FinePruningConfig
from mbtsad_core.defenses.held_out import accuracy, hold_out
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, evaluation_mode
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import Event, LabelledText, Observe, Steps


@FINE_PRUNING.runs
def fine_pruning(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: FinePruningConfig = FinePruningConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect without its least active neurons, trained on all clean texts.

    Where held-out clean texts decide how many neurons go, the ranking is made on the others. Pruned neurons stay at
    zero through the training.
    """
    rest, held_out = hold_out(clean, config.held_out, config.seed) if config.stop == "accuracy" else (list(clean), [])
    activations = mean_activations(suspect, rest, absolute=config.ranking == "absolute")
    if config.scope == "last_layer":
        activations[:-1] = torch.inf
    ranked = activations.flatten().argsort(stable=True)[: int(activations.isfinite().sum())]
    count = (
        (yield from _prunable(suspect, ranked, held_out, config))
        if config.stop == "accuracy"
        else round(config.most * len(ranked))
    )

    tuned = clone(suspect)
    with held_at_zero(zeros(tuned, chosen(activations, ranked[:count]))):
        yield from fine_tune(tuned, clean, config.training, stage="fine-pruning", seed=config.seed, observe=observe)
    return tuned


@torch.no_grad()
def mean_activations(
    classifier: Classifier, texts: Sequence[LabelledText], *, absolute: bool = True, batch_size: int = 64
) -> Tensor:
    """Mean activation, or mean |activation|, of every inner neuron over all real tokens of the texts: (L, I), in
    float32, on the CPU."""
    layers = encoder_layers(classifier)
    sums, tokens = torch.zeros(len(layers), layers[0].outer.in_features), 0
    mask = torch.empty(0)  # of the batch that the hooks see, (B, T)

    def add(i: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            active = inputs[0].float().abs() if absolute else inputs[0].float()  # (B, T, I)
            sums[i] += (active * mask[:, :, None]).sum(dim=(0, 1)).cpu()

        return hook

    handles = [layer.outer.register_forward_pre_hook(add(i)) for i, layer in enumerate(layers)]
    try:
        encoded = sorted(encode(classifier, texts), key=lambda e: len(e["input_ids"]))
        with evaluation_mode(classifier.model):
            for start in range(0, len(encoded), batch_size):
                batch = collate(classifier, encoded[start : start + batch_size])
                mask = batch["attention_mask"]
                tokens += int(mask.sum())
                classifier.model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return sums / tokens


def _prunable(
    suspect: Classifier, ranked: Tensor, held_out: Sequence[LabelledText], config: FinePruningConfig
) -> Steps[int]:
    """How many of the ranked neurons can go before the held-out accuracy falls too far: a multiple of the step, or
    `most`."""
    shape = (len(encoder_layers(suspect)), encoder_layers(suspect)[0].outer.in_features)
    least = (1 - config.tolerance) * accuracy(suspect, held_out)
    most, step = round(config.most * len(ranked)), max(1, round(config.step * len(ranked)))
    counts = [*range(step, most, step), *([most] if most else [])]
    pruned, kept = clone(suspect), 0
    for i, count in enumerate(counts, 1):
        zero(zeros(pruned, chosen(torch.empty(shape), ranked[:count])))
        reached = accuracy(pruned, held_out)
        yield Event("prune", i, len(counts), {"pruned": count / len(ranked), "held_out_accuracy": reached})
        if reached < least:
            break
        kept = count
    return kept


def chosen(like: Tensor, flat: Tensor) -> Tensor:
    """(L, I), True at the neurons with these flat indices."""
    mask = torch.zeros(like.numel(), dtype=torch.bool)
    mask[flat] = True
    return mask.view(like.shape)


def zeros(classifier: Classifier, neurons: Tensor) -> list[Zeros]:
    """What is zero once these inner neurons, (L, I), are cut out: the weights and the bias that lead in, and the
    weights that lead out."""
    found = []
    for layer, gone in zip(encoder_layers(classifier), neurons.to(classifier.device), strict=True):
        found += [
            Zeros(layer.inner.weight, gone[:, None]),
            Zeros(layer.inner.bias, gone),
            Zeros(layer.outer.weight, gone[None, :]),
        ]
    return found
