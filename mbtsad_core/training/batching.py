"""Which texts make a batch: shuffled by a seed, texts of like length together, every text once an epoch."""

from __future__ import annotations

import random
from collections.abc import Sequence

POOL = 16  # batches that are shuffled together and then sorted by length


def batches(lengths: Sequence[int], batch_size: int, rng: random.Random) -> list[list[int]]:
    """Indices of the texts of each batch, in random order.

    lengths  tokens of each text
    Texts are shuffled, and sorted by length only within pools of 16 batches: little padding, yet the batches
    differ from epoch to epoch. All batches are full but the last of the shuffled order.
    """
    order = list(range(len(lengths)))
    rng.shuffle(order)
    pool = POOL * batch_size
    found = []
    for start in range(0, len(order), pool):
        chosen = sorted(order[start : start + pool], key=lambda i: lengths[i])
        found += [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    rng.shuffle(found)
    return found
