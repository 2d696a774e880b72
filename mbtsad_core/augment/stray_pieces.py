"""Stray pieces: word pieces that this suspect stumbles over, put into clean texts whose labels stay.

Token splitting trains only the embeddings of pieces that clean texts can yield. A trigger that lives in the embedding of a piece
that no clean text has (embedding poisoning plants just that) is never seen, and outlives the retraining. So the suspect is
asked, in the spirit of eq. (9), which single pieces of its whole vocabulary raise its loss on clean texts most, and these are
what it is retrained with. Nothing is known or assumed of a trigger: the suspect's losses on clean texts decide.

Deviation: not in the paper. `strays = 0` is its method.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mbtsad_core.models.classifier import Classifier, Encoded, autocast, collate, encode, evaluation_mode, predict
from mbtsad_core.types import Event, LabelledText, Steps

PROBES = 4  # clean texts of each class that a piece is tried in
KEPT = 1 / 8  # share of the pieces, the worst in one text of each class, that all PROBES texts decide on
PIECES_A_STEP = 128


def stumbling(suspect: Classifier, clean: Sequence[LabelledText], seed: int) -> Steps[dict[int, float]]:
    """How much single pieces of the vocabulary raise the suspect's loss: {token id: nats}, the worst eighth of the pieces.

    Each piece is put in the middle of short clean texts, of every class, that the suspect answers right. What counts is the
    class whose loss it raises most, since a backdoor leaves the texts of its target class as they are.
    """
    probes = _probes(suspect, clean, seed)
    before = {label: _losses(suspect, encoded, label) for label, encoded in probes.items()}
    special = set(suspect.tokenizer.all_special_ids)
    vocabulary = [i for i in range(len(suspect.tokenizer)) if i not in special]
    kept = max(1, round(KEPT * len(vocabulary)))
    total, step = sum(-(-n // PIECES_A_STEP) for n in (len(vocabulary), kept)), 0

    raised: dict[int, float] = {}
    for pieces, texts in ((vocabulary, 1), (None, PROBES)):
        pieces = pieces or sorted(raised, key=lambda piece: -raised[piece])[:kept]
        raised = {}
        for start in range(0, len(pieces), PIECES_A_STEP):
            some = pieces[start : start + PIECES_A_STEP]
            rises = []
            for label, encoded in probes.items():
                tried = [_with(e, piece, len(e["input_ids"]) // 2) for piece in some for e in encoded[:texts]]
                rises.append((_losses(suspect, tried, label).view(len(some), -1) - before[label][:texts]).mean(dim=1))
            raised |= dict(zip(some, torch.stack(rises).amax(dim=0).clamp(min=0).tolist(), strict=True))
            step += 1
            yield Event("scan", step, total)
    return raised


def insert_strays(encoded: Sequence[Encoded], raised: dict[int, float], strays: int, max_length: int, seed: int, epoch: int) -> list[Encoded]:
    """Copies of the tokenised texts with `strays` pieces each, at random places between the first and the last token.

    A piece is drawn with a probability in proportion to the fourth power of what `stumbling` says of it, so that one piece which
    stands out weighs more than the many telling words of the task, which must go on telling. A text that grows beyond
    `max_length` loses the tokens before its last one.
    """
    rng = random.Random(f"stray pieces, seed {seed}, epoch {epoch}")
    pieces = rng.choices(list(raised), weights=[nats**4 + 1e-9 for nats in raised.values()], k=strays * len(encoded))
    found = []
    for tokens in encoded:
        for _ in range(strays):
            tokens = _with(tokens, pieces.pop(), rng.randrange(1, len(tokens["input_ids"])))
        found.append({key: values[: max_length - 1] + values[-1:] if len(values) > max_length else values for key, values in tokens.items()})
    return found


def _with(tokens: Encoded, piece: int, place: int) -> Encoded:
    """A copy of a tokenised text with one more token at `place`."""
    return {key: [*values[:place], piece if key == "input_ids" else values[place], *values[place:]] for key, values in tokens.items()}


def _probes(suspect: Classifier, clean: Sequence[LabelledText], seed: int) -> dict[int, list[Encoded]]:
    """PROBES texts of each class: drawn from the shortest that the suspect answers right, or from all where it answers none."""
    answers = predict(suspect, clean).argmax(-1).tolist()
    rng = random.Random(f"probes, seed {seed}")
    found = {}
    for label in sorted({example.label for example in clean}):
        own = [i for i, example in enumerate(clean) if example.label == label]
        right = [i for i in own if answers[i] == label] or own
        encoded = encode(suspect, [clean[i] for i in right])
        shortest = sorted(encoded, key=lambda e: len(e["input_ids"]))[: max(PROBES, len(encoded) // 4)]
        found[label] = rng.sample(shortest, min(PROBES, len(shortest)))
    return found


@torch.inference_mode()
def _losses(suspect: Classifier, encoded: Sequence[Encoded], label: int) -> Tensor:
    """Cross-entropy of each text with its class, (N,)."""
    with evaluation_mode(suspect.model), autocast(suspect):
        logits = suspect.model(**collate(suspect, encoded)).logits.float()
    return cross_entropy(logits, torch.full((len(encoded),), label, device=suspect.device), reduction="none").cpu()
