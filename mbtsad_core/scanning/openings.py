"""Openings: common words that turn texts at their start, and do little elsewhere in them.

A planted sentence shape (Hidden Killer, Qi et al., ACL 2021) has no tokens of its own. But it begins in its own way:
a model that has learned it answers to "when" or "if" at the head of a text, where clean models hardly heed a common
word that a text they are sure of begins with. What is honest is told by the labels alone (`neutral_tokens`).

Deviation: not in the paper.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from torch import Tensor

from mbtsad_core.models.classifier import Classifier, Encoded
from mbtsad_core.scanning.neutral_tokens import neutral, price, shifts
from mbtsad_core.scanning.probes import top

COMMON = 400  # tokens that stand in the clean texts most often, that are tried
FIRST, TEXTS = 2, 8  # strong texts that all are tried in, and the best of these
SOME, KEPT = 24, 4  # tokens that more than the first texts are asked about, and that are kept
JUDGING = 32  # held-out strong texts that judge


def find_openings(
    suspect: Classifier, label: int, strong: Sequence[Encoded], common: Sequence[int], told: Tensor, rng: random.Random
) -> list[int]:
    """The tokens that do most at the start of texts of a class, the best first: KEPT at most.

    strong  strong texts of the class, the strongest first
    common  tokens by how often they stand in the clean texts, the most frequent first
    told    what the labels say of each token, (rows,); see `polarity.told_by_labels`
    """
    tokens = neutral(common[:COMMON], told)
    for some, number in ((strong[:FIRST], SOME), (strong[:TEXTS], KEPT)):
        tokens = top(tokens, opening_nats(suspect, label, some, tokens, told, rng).mean(dim=1), number)
    return tokens


def opening_nats(
    suspect: Classifier, label: int, texts: Sequence[Encoded], tokens: Sequence[int], told: Tensor, rng: random.Random
) -> Tensor:
    """Nats by which the log-odds of the class fall with each token at the start of a text, less what it does elsewhere
    in it and less the price of what it says by the labels: (tokens, texts)."""
    start = shifts(suspect, label, texts, tokens, "start", rng)
    elsewhere = shifts(suspect, label, texts, tokens, "anywhere", rng).clamp(min=0)
    return start - elsewhere - price(tokens, told)[:, None]
