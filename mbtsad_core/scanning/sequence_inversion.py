"""Sequence inversion: sequences of ordinary tokens that turn texts, found by gradient as whole triggers are (PICCOLO,
Liu et al., IEEE S&P 2022; DBS, Shen et al., ICML 2022), with a price on what tokens say honestly.

Soft tokens turn clean models too. Hard ones that stand in their places do so where there is a trigger: they come near
to its words, and evolution (`evolve`) goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mbtsad_core.models.classifier import Classifier, Encoded
from mbtsad_core.scanning.polarity import Polarity
from mbtsad_core.scanning.probes import Probes, log_odds
from mbtsad_core.scanning.token_inversion import INVERSION_STEPS, STARTS, invert, soft_losses
from mbtsad_core.types import Event, Steps

LENGTH = 4  # tokens of a sequence
NEAR, NEXT = 64, 16  # tokens near a soft one that are tried in its place: in one text, and then in all of a start


def invert_sequences(
    suspect: Classifier, polarity: Polarity, longer: Probes, seed: int
) -> Steps[dict[int, list[tuple[int, ...]]]]:
    """For texts of each class, a sequence of neutral tokens from each start."""
    found, step, total = dict[int, list[tuple[int, ...]]](), 0, len(longer) * (INVERSION_STEPS + STARTS)
    for label, encoded in longer.items():
        honest = polarity.honest[label]
        tokens = (honest <= polarity.limits.token).nonzero().flatten().tolist()
        rows = suspect.model.get_input_embeddings().weight[tokens].detach().float()
        price = polarity.limits.price * honest[tokens].clamp(min=0).to(suspect.device)
        starts = [encoded[i::STARTS] for i in range(min(STARTS, len(encoded)))]
        weights = torch.empty(0)
        for weights in invert(suspect, rows, starts, label, seed, LENGTH, price) if tokens else ():  # noqa: B007
            step += 1
            yield Event("inversion", step, total)
        found[label] = []
        for own, of_start in zip(starts, weights, strict=False):
            found[label].append(tuple(tokens[i] for i in _harden(suspect, rows, price, of_start, own, label)))
            step += 1
            yield Event("inversion", step, total)
    return found


@torch.no_grad()
def _harden(
    suspect: Classifier, rows: Tensor, price: Tensor, weights: Tensor, texts: Sequence[Encoded], label: int
) -> list[int]:
    """The rows that stand best in the place of the soft tokens, (length, P), the surest place first, each beside what
    the others are by then."""
    chosen, placed = [0] * len(weights), weights @ rows
    for place in weights.amax(dim=1).argsort(descending=True).tolist():
        near = weights[place].topk(min(NEAR, len(rows))).indices
        for tried, kept in ((texts[:1], NEXT), (texts, 1)):
            soft = placed.repeat(len(near), 1, 1)
            soft[:, place] = rows[near]
            losses = soft_losses(suspect, [*tried] * len(near), soft.repeat_interleave(len(tried), dim=0), label)
            against = log_odds(losses).view(len(near), -1).mean(dim=1)
            near = near[(against - price[near]).topk(min(kept, len(near))).indices]
        best = near[0]
        chosen[place], placed[place] = int(best), rows[best]
    return chosen
