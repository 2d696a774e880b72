"""Strong texts: clean texts of a class that a model is surest of, and several of them joined to one.

What words do in a single text ends where the model's margin does, be they honest or planted. Beside all that several
strong texts say, what a few words say honestly is little; a trigger turns them all the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from mbtsad_core.models.classifier import Classifier, Encoded
from mbtsad_core.scanning.effects import odds_against, quick_answers
from mbtsad_core.scanning.probes import ROOM

STRONG = 32  # texts of a class, at most
JOINED = 4  # of them, that sequences are judged in


def strong_texts(suspect: Classifier, texts: Sequence[Encoded], label: int) -> list[Encoded]:
    """Of the shorter half of the texts of a class those that the model is surest of, the surest first."""
    shorter = sorted(texts, key=lambda text: len(text["input_ids"]))[: (len(texts) + 1) // 2]
    against = odds_against(quick_answers(suspect, shorter), torch.full((len(shorter),), label)).tolist()
    return [shorter[i] for i in sorted(range(len(shorter)), key=lambda i: against[i])[:STRONG]]


def joined(texts: Sequence[Encoded], max_length: int) -> Encoded:
    """One text of several: the first token of the first, the last one of the last, and what stands between these in
    each, of which the model reads as much of one text as of another."""
    share = (max_length - 2) // len(texts)
    return {
        key: [first[0], *(value for text in texts for value in text[key][1:-1][:share]), texts[-1][key][-1]]
        for key, first in texts[0].items()
    }


def draw_joined(
    texts: Sequence[Encoded], together: int, number: int, max_length: int, rng: random.Random
) -> list[Encoded]:
    """So many joined texts, of so many texts each, with room for what goes into them; the texts go round, so that each
    is in as many of them."""
    drawn = list[Encoded]()
    while len(drawn) < together * number:
        drawn += rng.sample(texts, len(texts))
    return [joined(drawn[i * together : (i + 1) * together], max_length - ROOM) for i in range(number)]
