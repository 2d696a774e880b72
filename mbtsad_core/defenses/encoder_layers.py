"""The transformer layers of a classifier, the matrices in them and what they put out, found in the same way in BERT,
RoBERTa, DistilBERT, ELECTRA and MPNet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mbtsad_core.errors import UnsuitableModel
from mbtsad_core.models.classifier import SUITABLE, Classifier, collate, encode, evaluation_mode
from mbtsad_core.types import LabelledText


@dataclass(frozen=True)
class EncoderLayer:
    """One transformer layer of width D with H heads of D / H columns each, and the linear maps that a pruning cuts.

    heads     attention's output map, (D, D): the columns h D / H ... (h + 1) D / H - 1 are what it takes from head h
    inner     the feed-forward block's first map, D -> I: a row and a bias for each of the I inner neurons
    outer     its second map, I -> D: a column for each inner neuron; it reads their activations
    """

    module: nn.Module
    heads: nn.Linear
    inner: nn.Linear
    outer: nn.Linear


def encoder_layers(classifier: Classifier) -> list[EncoderLayer]:
    """The layers, first to last. Raises UnsuitableModel where the architecture is built otherwise.

    In each of the families a layer holds six linear maps, in this order: query, key, value, attention's output, and the
    feed-forward block's two.
    """
    config = classifier.model.config
    lists = [
        m for m in classifier.model.modules() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers
    ]
    found = []
    for module in lists[0] if lists else []:
        linear = [m for m in module.modules() if isinstance(m, nn.Linear)]
        if (
            len(linear) != 6
            or linear[4].out_features != linear[5].in_features
            or linear[3].in_features % config.num_attention_heads
        ):
            break
        found.append(EncoderLayer(module, linear[3], linear[4], linear[5]))
    if not found or len(found) != config.num_hidden_layers:
        raise UnsuitableModel(
            f"The architecture {config.model_type!r} has no transformer layers of the kind that can be pruned or "
            f"drawn anew. {SUITABLE}"
        )
    return found


@dataclass(frozen=True)
class Zeros:
    """Which entries of a parameter are pruned: `where` is True there, and broadcasts to the parameter's shape."""

    parameter: Tensor
    where: Tensor


@torch.no_grad()
def zero(pruned: list[Zeros]) -> None:
    """Set the entries to zero, in place."""
    for entry in pruned:
        entry.parameter.masked_fill_(entry.where, 0.0)


@contextlib.contextmanager
def held_at_zero(pruned: list[Zeros]) -> Iterator[None]:
    """Set the entries to zero and keep them there through a training: their gradient is zero, and so is what AdamW
    makes of it."""

    zero(pruned)
    handles = [
        entry.parameter.register_hook(lambda gradient, where=entry.where: gradient.masked_fill(where, 0.0))
        for entry in pruned
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def layer_outputs(
    classifier: Classifier, texts: Sequence[LabelledText], *, batch_size: int = 64
) -> Iterator[tuple[Tensor, ...]]:
    """Batch after batch, what each layer puts out at the real tokens: L x (tokens, D). Dropout is off."""
    encoded = sorted(encode(classifier, texts), key=lambda e: len(e["input_ids"]))
    for start in range(0, len(encoded), batch_size):
        batch = collate(classifier, encoded[start : start + batch_size])
        with evaluation_mode(classifier.model):
            hidden = classifier.model(**batch, output_hidden_states=True).hidden_states[1:]
        yield tuple(H[batch["attention_mask"].bool()].float() for H in hidden)


@contextlib.contextmanager
def changed_outputs(layers: Sequence[nn.Module], change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Within it, the output H of layer i of these, (B, T, D), is `change(i, H)`, for the layers that follow and for all
    that look."""

    def hook(i: int) -> Callable[[nn.Module, Any, Any], Any]:
        def changed(_: nn.Module, given: Any, output: Any) -> Any:
            return (change(i, output[0]), *output[1:]) if isinstance(output, tuple) else change(i, output)

        return changed

    handles = [layer.register_forward_hook(hook(i), prepend=True) for i, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def classification_head(classifier: Classifier) -> nn.Linear:
    """The last linear map, D -> C."""
    return [m for m in classifier.model.modules() if isinstance(m, nn.Linear)][-1]
