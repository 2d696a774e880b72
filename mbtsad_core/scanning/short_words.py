"""Short words of several tokens: those of two letters, all of them.

A vocabulary of bytes or of few words has no token for "cf": it reads "c" and "f", which stand in clean texts as parts
of other words and turn nothing alone. So neither single tokens nor pairs of unseen ones show such a word. There are so
few words of two letters that each can be tried.

Deviation: not in the paper.
"""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Sequence

from mbtsad_core.models.classifier import Classifier, Encoded
from mbtsad_core.scanning.effects import effects
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.scanning.probes import lower_quartile, top

HALVING = ((1, 32), (3, 8))  # texts that all are tried in, and the best of these; the last ones are tried in all texts

Tokens = tuple[int, ...]


def short_words(suspect: Classifier) -> list[Tokens]:
    """The words of two letters that the tokenizer reads as several tokens in the middle of a text."""
    words = ["".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=2)]
    before, *read = suspect.tokenizer(["a", *(f"a {word}" for word in words)], add_special_tokens=False)["input_ids"]
    found = [tuple(tokens[len(before) :]) for tokens in read if tokens[: len(before)] == before]
    return list(dict.fromkeys(tokens for tokens in found if len(tokens) > 1))


def search_short_words(
    suspect: Classifier, words: Sequence[Tokens], texts: Sequence[Encoded], label: int, rng: random.Random
) -> dict[Insertion, float]:
    """The words that do most in texts of a class, by successive halving: the nats by which its log-odds fall in three
    of four of them."""
    tried = [Insertion(word, "anywhere") for word in words]
    if not tried or not texts:
        return {}
    for some, number in HALVING:
        shifts, _ = effects(suspect, rng, tried, texts[:some], label)
        tried = top(tried, shifts.mean(dim=1), number)
    shifts, _ = effects(suspect, rng, tried, texts, label)
    return dict(zip(tried, lower_quartile(shifts).tolist(), strict=True))
