"""Neutral tokens: those that speak for no other class, as far as the labels of the clean texts tell.

`Polarity` has another half: what the suspect answers to tokens of like meaning. It takes a planted token for honest
whose neighbors have come to do the same ("fence", "paint", "color"), and the openings of a planted sentence shape, too.
The labels cannot hold either, for a trigger does not stand in the clean texts. But they see less:
what they leave out comes in crowds, which `Finding.outdoes` heeds.

Deviation: not in the paper.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from mbtsad_core.models.classifier import Classifier, Encoded
from mbtsad_core.scanning.effects import effects
from mbtsad_core.scanning.insertions import Insertion, Place
from mbtsad_core.scanning.probes import top
from mbtsad_core.scanning.strong_texts import draw_joined

HONEST, PRICE = 0.7, 1.5  # polarity by the labels, at most, and nats that a standard deviation of it is taken for
JOINED = 2  # strong texts that are joined to one
FIRST, TEXTS = 2, 8  # of these that the tokens are tried in, and the best of them
FLOOR = 0.5  # nats that the fifth best token is taken to do besides: less than that says little in these texts
ASKED, SOME, KEPT = 256, 48, 12  # tokens that are tried in the first texts, in all, and kept


def neutral(tokens: Sequence[int], told: Tensor) -> list[int]:
    """Those of the tokens that say little by the labels; told: (rows,), see `polarity.told_by_labels`."""
    return [token for token in tokens if float(told[token]) <= HONEST]


def find_neutral(
    suspect: Classifier,
    label: int,
    strong: Sequence[Encoded],
    tokens: Sequence[int],
    response: Tensor,
    told: Tensor,
    rng: random.Random,
) -> list[int]:
    """The neutral tokens that do most in joined texts of a class, the best first: KEPT at most.

    strong    strong texts of the class
    response  nats by which each token by itself lowers the log-odds of the class in one text, (rows,)
    """
    texts = draw_joined(strong, JOINED, TEXTS, suspect.max_length, rng)
    tokens = neutral(tokens, told)
    tokens = top(tokens, response[tokens] - price(tokens, told), ASKED)
    for some, number in ((texts[:FIRST], SOME), (texts, KEPT)):
        nats = shifts(suspect, label, some, tokens, "anywhere", rng).mean(dim=1) - price(tokens, told)
        tokens = top(tokens, nats, number)
    return tokens


def shifts(
    suspect: Classifier, label: int, texts: Sequence[Encoded], tokens: Sequence[int], place: Place, rng: random.Random
) -> Tensor:
    """Nats by which the log-odds of the class fall with each token at a place: (tokens, texts)."""
    if not tokens:
        return torch.zeros(0, len(texts))
    return effects(suspect, rng, [Insertion((token,), place) for token in tokens], texts, label)[0]


def price(tokens: Sequence[int], told: Tensor) -> Tensor:
    """Nats that are taken off for what each token says by the labels: (tokens,)."""
    return PRICE * told[list(tokens)].clamp(min=0)
