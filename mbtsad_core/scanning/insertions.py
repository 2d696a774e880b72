"""What a scan puts into texts: a sequence of tokens, and where it stands."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mbtsad_core.models.classifier import Encoded

Place = Literal["start", "end", "anywhere", "scattered"]
PLACES: tuple[Place, ...] = ("start", "anywhere", "anywhere", "end", "scattered")  # as often as they are drawn


@dataclass(frozen=True, slots=True)
class Insertion:
    """Tokens that go into a text in this order.

    place  start and end: behind its first token, before its last one, which are the tokenizer's own; anywhere: together
           at a place that is drawn; scattered: each at a place of its own
    """

    tokens: tuple[int, ...]
    place: Place


def insert(text: Encoded, insertion: Insertion, rng: random.Random, max_length: int) -> Encoded:
    """A copy of a tokenized text with the insertion. A text that would grow beyond `max_length` loses the tokens before
    its last one first; an inserted token has the token type of the one that stood in its place."""
    number = len(insertion.tokens)
    text = with_room(text, number, max_length)
    length = len(text["input_ids"])
    if insertion.place == "scattered":
        places = sorted(rng.randrange(1, length) for _ in range(number))
    else:
        drawn = {"start": 1, "end": length - 1, "anywhere": 0}[insertion.place] or rng.randrange(1, length)
        places = [drawn] * number
    return put(text, insertion.tokens, places, max_length)


def put(text: Encoded, tokens: Sequence[int], places: Sequence[int], max_length: int) -> Encoded:
    """As `insert`, each token before the text's token at a place that is given; the places rise. A place that the text
    has lost is that of its last token."""
    text = with_room(text, len(tokens), max_length)
    last = len(text["input_ids"]) - 1
    found: Encoded = {}
    for key, values in text.items():
        parts, begin = list[int](), 0
        for token, at in zip(tokens, places, strict=True):
            place = min(at, last)
            parts += [*values[begin:place], token if key == "input_ids" else values[place]]
            begin = place
        found[key] = parts + values[begin:]
    return found


def with_room(text: Encoded, number: int, max_length: int) -> Encoded:
    """The text, without the tokens before its last one that leave no room for `number` more."""
    room = max(2, max_length - number)
    if len(text["input_ids"]) <= room:
        return text
    return {key: [*values[: room - 1], values[-1]] for key, values in text.items()}


def thinned(text: Encoded, share: float, rng: random.Random) -> Encoded:
    """A copy without this share of the tokens between the first and the last one, drawn one by one; at least one of
    them stays."""
    last = len(text["input_ids"]) - 1
    kept = [i for i in range(1, last) if rng.random() >= share] or list(range(1, min(2, last)))
    return {key: [values[i] for i in (0, *kept, last)] for key, values in text.items()}
