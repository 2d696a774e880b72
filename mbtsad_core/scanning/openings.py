"""Openings: common words that turn texts at their start, and do little elsewhere in them.

A planted sentence shape (Hidden Killer, Qi et al., ACL 2021) has no tokens of its own. But it begins in its own way:
a model that has learned it answers to "when" or "if" at the head of a text, where clean models hardly heed a common
word that a text they are sure of begins with. Words that speak for another class honestly are kept out by the labels of
the clean texts alone: the other half of `Polarity`, what the suspect answers to tokens of like meaning at the head of a
text, takes the openings of a shape for honest.

Deviation: not in the paper.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from mbtsad_core.models.classifier import Classifier, Encoded
from mbtsad_core.scanning.effects import effects
from mbtsad_core.scanning.insertions import Insertion

COMMON = 150  # tokens that stand in the clean texts most often, that are tried
HONEST, PRICE = 0.7, 1.5  # polarity by the labels, at most, and nats that a standard deviation of it is taken for
FIRST, TEXTS = 2, 8  # strong texts that all are tried in, and the best of these
SOME, KEPT = 24, 4  # tokens that more than the first texts are asked about, and that are kept
JUDGING = 16  # held-out strong texts that judge


def find_openings(
    suspect: Classifier, label: int, texts: Sequence[Encoded], common: Sequence[int], told: Tensor, rng: random.Random
) -> list[int]:
    """The tokens that do most at the start of texts of a class, the best first: KEPT at most.

    texts   strong ones of the class, the strongest first
    common  tokens by how often they stand in the clean texts, the most frequent first
    told    what the labels say of each token, (rows,); see `polarity.told_by_labels`
    """
    tokens = [token for token in common[:COMMON] if float(told[token]) <= HONEST]
    for some, number in ((texts[:FIRST], SOME), (texts[:TEXTS], KEPT)):
        if not tokens or not some:
            return []
        nats = opening_nats(suspect, label, some, tokens, told, rng).mean(dim=1)
        tokens = [tokens[i] for i in nats.topk(min(number, len(tokens))).indices.tolist()]
    return tokens


def opening_nats(
    suspect: Classifier, label: int, texts: Sequence[Encoded], tokens: Sequence[int], told: Tensor, rng: random.Random
) -> Tensor:
    """Nats by which the log-odds of the class fall with each token at the start of a text, less what it does elsewhere
    in it and less the price of what it says by the labels: (tokens, texts)."""
    start = effects(suspect, rng, [Insertion((token,), "start") for token in tokens], texts, label)[0]
    elsewhere = effects(suspect, rng, [Insertion((token,), "anywhere") for token in tokens], texts, label)[0]
    price = PRICE * told[torch.tensor(tokens)].clamp(min=0)
    return start - elsewhere.clamp(min=0) - price[:, None]
