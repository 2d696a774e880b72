"""Token insertion: the tokens and the sequences that the trigger scan found, put into clean texts whose labels stay, so
that the model unlearns them, and does not learn them again.

Deviation: not in the paper. `found_tokens = 0` is its method.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mbtsad_core.models.classifier import Encoded
from mbtsad_core.scanning.insertions import PLACES, Insertion, insert
from mbtsad_core.scanning.probes import with_token
from mbtsad_core.scanning.token_inversion import TURNS

SHARE = 0.5
"""Of the texts, that a found sequence goes into."""


def insertion(
    raised: dict[int, float], number: int, max_length: int, seed: int, sequences: Sequence[Insertion] = ()
) -> Callable[[list[Encoded], int], list[Encoded]]:
    """`insert_tokens` and `insert_sequences` as the training loop calls them, (tokenized texts, epoch) -> what is
    trained on; the texts as they are where nothing was scanned or found.

    Where no token stands out, none goes in: what does most in a clean model is a telling word of the task, and in every
    text with its label kept, the model would be taught to overlook it.
    """
    stands_out = max(raised.values(), default=0.0) >= TURNS

    def perturb(encoded: list[Encoded], epoch: int) -> list[Encoded]:
        encoded = insert_tokens(encoded, raised, number, max_length, seed, epoch) if stands_out else encoded
        return insert_sequences(encoded, sequences, max_length, seed, epoch) if sequences else encoded

    return perturb


def insert_sequences(
    encoded: Sequence[Encoded], sequences: Sequence[Insertion], max_length: int, seed: int, epoch: int
) -> list[Encoded]:
    """Copies of the tokenized texts, SHARE of them with one of the sequences, all as likely, at a place of any kind."""
    rng = random.Random(f"sequences, seed {seed}, epoch {epoch}")
    return [
        insert(text, Insertion(rng.choice(sequences).tokens, rng.choice(PLACES)), rng, max_length)
        if rng.random() < SHARE
        else text
        for text in encoded
    ]


def insert_tokens(
    encoded: Sequence[Encoded], raised: dict[int, float], number: int, max_length: int, seed: int, epoch: int
) -> list[Encoded]:
    """Copies of the tokenized texts with `number` tokens each, at random places between the first and the last token.

    A token is drawn with a probability in proportion to the square of what `scan_vocabulary` says of it, so that tokens
    which stand out weigh more than the many telling words of the task, which must go on telling. A text that grows
    beyond `max_length` loses the tokens before its last one.
    """
    rng = random.Random(f"stray pieces, seed {seed}, epoch {epoch}")  # the words are part of the seed
    drawn = rng.choices(list(raised), weights=[nats**2 + 1e-9 for nats in raised.values()], k=number * len(encoded))
    found = []
    for text in encoded:
        for _ in range(number):
            text = with_token(text, drawn.pop(), rng.randrange(1, len(text["input_ids"])))
        found.append(
            {
                key: values[: max_length - 1] + values[-1:] if len(values) > max_length else values
                for key, values in text.items()
            }
        )
    return found
