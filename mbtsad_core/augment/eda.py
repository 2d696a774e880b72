"""EDA, "easy data augmentation" (Wei and Zou, EMNLP 2019): synonyms put in place of words or beside them, words
swapped, words dropped."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from mbtsad_core.augment.wordnet import synonyms

SHARE = 0.1  # alpha: of the words that are replaced, inserted or swapped
DROPPED = 0.1  # p: chance of a word to be dropped


def eda(text: str, rng: random.Random, count: int | None = None) -> str:
    """One of the four operations, drawn uniformly, on the text in lower case with everything but letters and spaces
    taken away.

    Each operation is done n = max(1, floor(0.1 * words)) times, or drops each word with chance 0.1; with `count` it is
    n, and the chance such that as many words go on average. The authors make nine texts of
    each, equally many by each operation up to a remainder; K draws are K texts. A text without letters comes back
    unchanged. Raises BadData where WordNet's files are absent.

    Deviation: the stop words, which no synonym replaces, are scikit-learn's; the authors' own list is much the same.
    """
    words = re.sub("[^a-z ]", "", re.sub(r"[-\s]", " ", text.lower())).split()
    if not words:
        return text
    operation = rng.choice(OPERATIONS)
    if operation is drop_words:
        return " ".join(drop_words(words, rng, DROPPED if count is None else count / len(words)))
    return " ".join(operation(words, rng, max(1, int(SHARE * len(words))) if count is None else count))


def replace_words(words: list[str], rng: random.Random, n: int) -> list[str]:
    """Synonym replacement: n different words that are no stop words and have synonyms, wherever they stand in the
    text."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    left, found = n, words
    candidates = [word for word in dict.fromkeys(words) if word not in ENGLISH_STOP_WORDS]
    for word in rng.sample(candidates, len(candidates)):
        if left and (choice := synonyms(word)):
            synonym, left = rng.choice(choice), left - 1
            found = [synonym if w == word else w for w in found]
    return found


def insert_words(words: list[str], rng: random.Random, n: int) -> list[str]:
    """Random insertion: n times, a synonym of a random word ahead of a random one; given up for a text in which ten
    draws find no synonym."""
    found = list(words)
    for _ in range(n):
        for _ in range(10):
            if choice := synonyms(rng.choice(found)):
                found.insert(rng.randrange(len(found)), rng.choice(choice))
                break
    return found


def swap_words(words: list[str], rng: random.Random, n: int) -> list[str]:
    """Random swap: n times, two words at different places change places."""
    found = list(words)
    for _ in range(n if len(words) > 1 else 0):
        i, j = rng.sample(range(len(found)), 2)
        found[i], found[j] = found[j], found[i]
    return found


def drop_words(words: list[str], rng: random.Random, p: float) -> list[str]:
    """Random deletion: each word goes with chance p; one, drawn at random, stays where all would go."""
    return [word for word in words if rng.random() >= p] or [rng.choice(words)]


OPERATIONS: tuple[Callable[..., list[str]], ...] = (replace_words, insert_words, swap_words, drop_words)
