"""Attention maps of one text under several classifiers, and how far each head moved between two of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mbtsad_core.errors import BadData, UnsuitableModel
from mbtsad_core.models.classifier import Classifier, collate, encode, evaluation_mode, trace
from mbtsad_core.models.subword_tokens import aligned, readable_tokens
from mbtsad_core.training.distillation import attention_energy
from mbtsad_core.types import LabelledText

Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionMaps:
    """One text under one classifier: T tokens, L layers, H heads; there is no padding.

    tokens       T readable subword tokens, special tokens included; ids are their indices
    maps         (L, H, T, T) after softmax: [layer, head, query, key], each row of keys sums to 1. 4 L H T^2 bytes:
                 0.3 MB for the demo's texts, 151 MB for a BERT-base at 512 tokens
    answer       the class that the classifier answers, and its probability in [0, 1]
    """

    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    maps: Map
    answer: str
    probability: float


@torch.inference_mode()
def attention_maps(classifier: Classifier, text: str | LabelledText) -> AttentionMaps:
    """Trace one text. Raises UnsuitableModel where the architecture has no attention maps, or where they are not
    finite."""
    (encoded,) = encode(classifier, [text if isinstance(text, LabelledText) else LabelledText(text, 0)])
    with evaluation_mode(classifier.model):
        found = trace(classifier, collate(classifier, [encoded]))
    maps = torch.cat(found.attention).float().cpu().numpy()  # L x (1, H, T, T) -> (L, H, T, T)
    probabilities = found.logits[0].float().softmax(-1)
    if not np.isfinite(maps).all() or not bool(probabilities.isfinite().all()):
        raise UnsuitableModel(
            "The model's attention maps hold values that are no numbers: its weights are broken or its training "
            "diverged."
        )
    best = int(probabilities.argmax())
    return AttentionMaps(
        readable_tokens(classifier, encoded),
        tuple(encoded["input_ids"]),
        maps,
        classifier.labels[best],
        float(probabilities[best]),
    )


def one_map(found: AttentionMaps, layer: int, head: int | None, power: float = 2.0) -> Map:
    """(T, T): the map of one head, or with `head` None the head-summed map AE of eq. (3), which the distillation
    matches."""
    if head is not None:
        chosen: Map = found.maps[layer, head]
        return chosen
    A = torch.from_numpy(found.maps[layer : layer + 1])  # (1, H, T, T)
    energy: Map = attention_energy(A, torch.ones(1, A.shape[-1]), power)[0].numpy()
    return energy


def moved(before: AttentionMaps, after: AttentionMaps) -> Map:
    """(L, H): the share of each head's attention that lies on other tokens after than before, in [0, 1].

    The total variation distance of the two distributions over keys, 1/2 sum_k |after - before|, averaged over the
    queries: 0 where the head did not change, 1 where it looks at other tokens altogether. Both must have read the same
    tokens.
    """
    if before.ids != after.ids:
        raise BadData(
            "The two classifiers read this text as different tokens, so their attention maps cannot be compared."
        )
    shift: Map = 0.5 * np.abs(after.maps - before.maps).sum(-1).mean(-1)
    return shift


def moved_by_trigger(clean: AttentionMaps, triggered: AttentionMaps) -> Map:
    """(L, H): the share of each head's attention that a trigger moves, in [0, 1]; both texts under one classifier.

    As `moved`, over the queries that the two texts share; a token that only one of them has gets no attention in the
    other. So attention that the trigger's own tokens draw counts as moved. Raises BadData where the texts share no
    token.
    """
    pairs = aligned(clean.ids, triggered.ids)
    if not pairs:
        raise BadData("The two texts share no token, so their attention maps cannot be compared.")
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    A, B = clean.maps[:, :, a], triggered.maps[:, :, b]  # (L, H, shared, T) each, with its own keys
    A_shared, B_shared = A[..., a], B[..., b]
    elsewhere = (A.sum(-1) - A_shared.sum(-1)) + (B.sum(-1) - B_shared.sum(-1))  # on tokens that the other text lacks
    shift: Map = 0.5 * (np.abs(A_shared - B_shared).sum(-1) + elsewhere).mean(-1)
    return shift
