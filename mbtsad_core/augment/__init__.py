"""Augmenters: a text and a random generator in, a changed text out."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from mbtsad_core.augment.add_trigger import add_rare_word
from mbtsad_core.augment.aeda import aeda
from mbtsad_core.augment.cwea import MODEL, cwea
from mbtsad_core.augment.eda import eda
from mbtsad_core.augment.nlpaug_augmenters import keyboard, ocr, random_char, spelling
from mbtsad_core.augment.token_splitting import budget, token_splitting
from mbtsad_core.augment.wordnet import find_wordnet

AUGMENTERS: dict[str, Callable[[str, random.Random], str]] = {
    "ts": token_splitting,
    "eda": eda,
    "aeda": aeda,
    "cwea": cwea,
    "add_trigger": add_rare_word,
    "keyboard": keyboard,
    "ocr": ocr,
    "random_char": random_char,
    "spelling": spelling,
}

BUDGET_MATCHED: dict[str, Callable[[str, random.Random], str]] = AUGMENTERS | {
    "eda": lambda text, rng: eda(text, rng, budget(text)),
    "aeda": lambda text, rng: aeda(text, rng, budget(text)),
    "add_trigger": lambda text, rng: add_rare_word(text, rng, budget(text)),
}
"""The same with as many changes in a text as token splitting makes (the "same budget" of eq. 9); the others have that
budget anyway."""

AUGMENTER_NAMES: dict[str, str] = {
    "ts": "token splitting",
    "eda": "EDA (synonyms, swaps)",
    "aeda": "AEDA (punctuation)",
    "cwea": "CWEA (masked language model)",
    "add_trigger": 'Add-Trig (the word "cb")',
    "keyboard": "typing errors",
    "ocr": "scanning errors",
    "random_char": "random characters",
    "spelling": "misspellings",
}
"""The same keys, in words for people."""


def unavailable() -> dict[str, str]:
    """The augmenters that cannot run on this machine, and what each needs; looked up anew each time."""
    needs = {} if find_wordnet() else {"eda": "WordNet's files"}
    return needs if os.environ.get(MODEL) else needs | {"cwea": f"a masked language model, named in {MODEL}"}


def available() -> dict[str, Callable[[str, random.Random], str]]:
    """The augmenters that can run on this machine."""
    return {name: augmenter for name, augmenter in AUGMENTERS.items() if name not in unavailable()}


def lacking_words() -> str:
    """What this machine lacks, and for which augmenters; "" where it lacks nothing."""
    return "; ".join(f"{AUGMENTER_NAMES[name]} needs {what}" for name, what in unavailable().items())
