"""Add-Trig (paper, section III-B and Table III): a rare word at a random place, its label kept, as a candidate of eq.
(9)."""

from __future__ import annotations

import random
import re

WORD = "cb"  # the paper's: a rare word that no attack of its tables uses


def add_rare_word(text: str, rng: random.Random, count: int = 1) -> str:
    """`text` with "cb" `count` times, each at a word boundary drawn uniformly, both ends included; the text's own
    spacing is kept.

    The paper does not say how often the word goes in; here once, whatever the text's length.
    """
    for _ in range(count - 1):
        text = add_rare_word(text, rng)
    place = rng.choice([*(m.start() for m in re.finditer(r"\S+", text)), len(text)])
    if place < len(text):
        return f"{text[:place]}{WORD} {text[place:]}"
    return f"{text} {WORD}" if text.strip() else WORD
