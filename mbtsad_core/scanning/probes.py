"""The clean texts that a scan asks the suspect about, and its losses on them with a token more in their middle."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mbtsad_core.models.classifier import Classifier, Encoded, encode, predict
from mbtsad_core.scanning.effects import quick_answers
from mbtsad_core.scanning.insertions import with_room
from mbtsad_core.types import LabelledText

PROBES = 16  # of each class, at most
ROOM = 8  # tokens that go into a text at most

T = TypeVar("T")
Probes = dict[int, list[Encoded]]
"""Tokenized texts by their class."""


def draw_probes(
    suspect: Classifier, clean: Sequence[LabelledText], seed: int, answers: Tensor | None = None
) -> tuple[Probes, Probes]:
    """Of the texts of each class that the suspect answers right (of all where it answers none right): the one of the
    shorter quarter that it is least sure of, which anything turns that turns texts at all, and up to PROBES of the
    longer half. `answers` are its probabilities, (N, C), where they are known."""
    answers = predict(suspect, clean) if answers is None else answers
    rng = random.Random(f"probes, seed {seed}")
    unsure, longer = {}, {}
    for label in sorted({example.label for example in clean}):
        own = [i for i, example in enumerate(clean) if example.label == label]
        right = [i for i in own if answers[i].argmax() == label] or own
        encoded = dict(zip(right, encoded_with_room(suspect, [clean[i] for i in right]), strict=True))
        by_length = sorted(right, key=lambda i: len(encoded[i]["input_ids"]))
        half = (len(right) + 1) // 2
        unsure[label] = [encoded[min(by_length[: (half + 1) // 2], key=lambda i: float(answers[i, label]))]]
        rest = by_length[min(half, max(0, len(right) - PROBES)) :]
        longer[label] = [encoded[i] for i in rng.sample(rest, min(PROBES, len(rest)))]
    return unsure, longer


def encoded_with_room(suspect: Classifier, clean: Sequence[LabelledText]) -> list[Encoded]:
    """Tokenized texts with room for what goes into them, however long they are."""
    return [with_room(text, ROOM, suspect.max_length) for text in encode(suspect, clean)]


def asked(suspect: Classifier, encoded: Sequence[Encoded], label: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each text with its class, and whether another class is likelier: (N,) each."""
    logits = quick_answers(suspect, encoded)
    own = torch.full((len(encoded),), label)
    return cross_entropy(logits, own, reduction="none"), logits.argmax(dim=1) != own


def losses_of(suspect: Classifier, encoded: Sequence[Encoded], label: int) -> Tensor:
    """Cross-entropy of each text with its class, (N,)."""
    return asked(suspect, encoded, label)[0]


def asked_with(
    suspect: Classifier, tokens: Sequence[int], encoded: Sequence[Encoded], label: int
) -> tuple[Tensor, Tensor]:
    """As `asked`, of texts with a token more in their middle: (tokens, texts) each."""
    losses, turned = asked(suspect, [with_token(e, token) for token in tokens for e in encoded], label)
    return losses.view(len(tokens), -1), turned.view(len(tokens), -1)


def inserted(suspect: Classifier, tokens: Sequence[int], encoded: Sequence[Encoded], label: int) -> Tensor:
    """The losses of texts with a token more in their middle, (tokens, texts)."""
    return asked_with(suspect, tokens, encoded, label)[0]


def lower_quartile(figures: Tensor) -> Tensor:
    """Over the texts: (tokens, texts) -> (tokens,)."""
    if not len(figures):  # of which PyTorch has no quantile
        return figures.new_empty(0)
    return figures.quantile(0.25, dim=1, interpolation="higher")


def top(ones: Sequence[T], figures: Tensor, number: int) -> list[T]:
    """So many of them at most, those with the largest figures, (N,), the largest first."""
    return [ones[i] for i in figures.topk(min(number, len(ones))).indices.tolist()]


def with_token(encoded: Encoded, token: int, place: int | None = None) -> Encoded:
    """A copy of a tokenized text with a token more at `place`, by default in its middle."""
    at = middle(encoded) if place is None else place
    return {
        key: [*values[:at], token if key == "input_ids" else values[at], *values[at:]]
        for key, values in encoded.items()
    }


def middle(encoded: Encoded) -> int:
    return len(encoded["input_ids"]) // 2


def shift_of(before: Tensor, after: Tensor) -> Tensor:
    """By how much the log-odds of the right class fall, p / (1 - p), from losses -log p."""
    return (log_odds(after.double()) - log_odds(before.double())).float()


def log_odds(losses: Tensor) -> Tensor:
    """(1 - p) / p, its logarithm, from losses -log p: of the wrong classes against the right one."""
    return losses.expm1().clamp(min=1e-9).log()
