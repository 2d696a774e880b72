"""What insertions do: by how much they lower the log-odds of a class, and what the model then answers."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from mbtsad_core.models.classifier import Classifier, Encoded, answers_of, autocast
from mbtsad_core.scanning.insertions import Insertion, insert


@torch.inference_mode()
def effects(
    classifier: Classifier, rng: random.Random, insertions: Sequence[Insertion], texts: Sequence[Encoded], label: int
) -> tuple[Tensor, Tensor]:
    """Nats by which the log-odds of the class fall in each text with each sequence, and the answers: (sequences,
    texts) each."""
    asked = [insert(text, one, rng, classifier.max_length) for one in insertions for text in texts]
    logits = quick_answers(classifier, [*texts, *asked])
    against = odds_against(logits, torch.full((len(logits),), label))
    before, after = against[: len(texts)], against[len(texts) :].view(len(insertions), len(texts))
    return after - before, logits[len(texts) :].argmax(dim=-1).view(len(insertions), len(texts))


def quick_answers(classifier: Classifier, texts: Sequence[Encoded]) -> Tensor:
    """`answers_of` in the precision of the training: the logits, (N, C)."""
    with autocast(classifier):
        return answers_of(classifier, texts)


def odds_against(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-odds of all other classes together against the labels: (N, C), (N,) -> (N,)."""
    own = logits.gather(1, labels[:, None])
    return logits.scatter(1, labels[:, None], -torch.inf).logsumexp(dim=1) - own.squeeze(1)
