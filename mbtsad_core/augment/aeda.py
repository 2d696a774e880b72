"""AEDA (Karimi, Rossi and Prati, Findings of EMNLP 2021): random punctuation marks between the words of a text."""

from __future__ import annotations

import random
import re

MARKS = ".,!?;:"
SHARE = 0.3


def aeda(text: str, rng: random.Random, count: int | None = None) -> str:
    """A random one of the six marks, as a word of its own, before each of q words; q is uniform over 1 ... floor(0.3 n
    + 1), n the words.

    With `count` q is that, or n where it is less. The q words are drawn without replacement, so nothing is ever put
    behind the last one. A text without words comes back unchanged.
    Deviation: words are what stands between any white space, not single spaces, and the text keeps its own spacing.
    """
    starts = [m.start() for m in re.finditer(r"\S+", text)]
    if not starts:
        return text
    q = rng.randint(1, int(SHARE * len(starts) + 1)) if count is None else min(count, len(starts))
    chosen = sorted(rng.sample(starts, q))
    parts = [text[a:b] for a, b in zip([0, *chosen], [*chosen, len(text)], strict=True)]
    return parts[0] + "".join(f"{rng.choice(MARKS)} {part}" for part in parts[1:])
