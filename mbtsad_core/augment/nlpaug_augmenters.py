"""nlpaug's own augmenters that need no model and no network (Ma, 2019; version 1.1.11), with nlpaug's defaults.

nlpaug draws from Python's and numpy's global generators. Here a copy of its augmenter draws from the generator that is
given, and the global ones are neither read nor changed, so that a result depends on the arguments alone and threads do
not disturb each other. As in nlpaug, a text is re-joined with a space between all its tokens ("don't" -> "don ' t").
"""

from __future__ import annotations

import copy
import functools
import random
from typing import Any


def keyboard(text: str, rng: random.Random) -> str:
    """Typing errors: characters of words of four letters or more, in 30 % of the words, at most ten, become their
    neighbors on a keyboard."""
    return _augmented(_keyboard(), text, rng)


def ocr(text: str, rng: random.Random) -> str:
    """Reading errors of scanned pages: "l" for "1", "o" for "0" and their like, in 30 % of the words, at most ten."""
    return _augmented(_ocr(), text, rng)


def random_char(text: str, rng: random.Random) -> str:
    """Characters of words of four letters or more, in 30 % of the words, at most ten, become random letters, digits or
    marks."""
    return _augmented(_random_char(), text, rng)


def spelling(text: str, rng: random.Random) -> str:
    """30 % of the words, at most ten, become misspellings that people made, from the list that comes with nlpaug."""
    return _augmented(_spelling(), text, rng)


@functools.cache
def _keyboard() -> Any:
    from nlpaug.augmenter.char import KeyboardAug  # type: ignore[import-untyped]

    return KeyboardAug()


@functools.cache
def _ocr() -> Any:
    from nlpaug.augmenter.char import OcrAug

    return OcrAug()


@functools.cache
def _random_char() -> Any:
    from nlpaug.augmenter.char import RandomCharAug

    return RandomCharAug()


@functools.cache
def _spelling() -> Any:
    from nlpaug.augmenter.word import SpellingAug  # type: ignore[import-untyped]

    augmenter = SpellingAug()
    augmenter.model = copy.copy(augmenter.model)  # nlpaug keeps one for all
    # Its lists passed through sets, whose order differs from one process to the next.
    augmenter.model.dict = {word: sorted(found) for word, found in augmenter.model.dict.items()}
    return augmenter


def _augmented(augmenter: Any, text: str, rng: random.Random) -> str:
    if not text.strip():
        return text
    own = copy.copy(augmenter)
    own.sample = rng.sample  # all that these augmenters draw; nlpaug's own is random.sample for lists
    return str(own.augment(text)[0])
