"""Augmenters: a text and a random generator in, a changed text out."""

import random
from collections.abc import Callable

from mbtsad_core.augment.add_trigger import add_rare_word
from mbtsad_core.augment.aeda import aeda
from mbtsad_core.augment.nlpaug_augmenters import keyboard, ocr, random_char, spelling
from mbtsad_core.augment.token_splitting import token_splitting

AUGMENTERS: dict[str, Callable[[str, random.Random], str]] = {
    "ts": token_splitting,
    "aeda": aeda,
    "add_trig": add_rare_word,
    "keyboard": keyboard,
    "ocr": ocr,
    "random_char": random_char,
    "spelling": spelling,
}

AUGMENTER_NAMES: dict[str, str] = {
    "ts": "token splitting",
    "aeda": "AEDA (punctuation)",
    "add_trig": 'Add-Trig (the word "cb")',
    "keyboard": "typing errors",
    "ocr": "scanning errors",
    "random_char": "random characters",
    "spelling": "misspellings",
}
"""The same keys, in words for people."""
