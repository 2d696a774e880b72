"""Polarity: how far a token speaks for a class honestly.

A scan for what turns a suspect's answers finds the telling words of the task first. What keeps them out must not know
the words of a trigger for honest, so it must not be able to hold one. Two regressions on the word embeddings cannot,
for a trigger is a few of tens of thousands of tokens:

- of the suspect's own response to each token of its vocabulary: by how much the token at the head of a text lowers the
  log-odds of the right class, its square root. The smooth part of that is what tokens of like meaning do too.
- of the labels of the clean texts on their mean embeddings: logistic regression.

The hole that this leaves is a trigger made of words which speak for the target anyway.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbtsad_core.models.classifier import Classifier, Encoded, encode, predict
from mbtsad_core.models.subword_tokens import own_tokens, vocabulary
from mbtsad_core.scanning.insertions import Insertion, insert
from mbtsad_core.scanning.probes import losses_of, shift_of
from mbtsad_core.types import Event, LabelledText, Steps


@dataclass(frozen=True)
class Limits:
    """What may be said honestly.

    token     standard deviations of polarity that a token of a sequence has, at most
    sequence  of all its tokens together, those below zero left out
    price     nats of a sequence's effect that a standard deviation is taken for
    """

    token: float
    sequence: float
    price: float


STRICT = Limits(0.8, 1.5, 2.0)
"""Of the scan, whose pools honest words would fill."""
LOOSE = Limits(2.0, 2.5, 1.5)
"""Of the unlearning: a word of the trigger has come to look a little honest, and so have its neighbors."""
RIDGE, LOGISTIC = 300.0, 3e-4  # penalty of the one, inverse penalty of the other
UNSURE = 0.1  # of the texts by how sure the suspect is, from its doubts on, where the text that is asked with stands
SHORT = (7, 12)  # tokens of that text
TOKENS_A_STEP = 512


@dataclass(frozen=True)
class Polarity:
    """For texts of each class, by token: what the token does there, and what it does honestly.

    response  {class: (rows,)} nats by which the token at the head of a text lowers the log-odds of the class
    honest    {class: (rows,)} standard deviations over the vocabulary; large where the token speaks for other classes
    told      {class: (rows,)} the same by the labels alone, which cannot hold a trigger, and leave out much
    Tokens that no text can reach have a response and a polarity that rule them out.
    """

    response: dict[int, Tensor]
    honest: dict[int, Tensor]
    told: dict[int, Tensor]
    limits: Limits = STRICT

    def neutral(self, label: int, tokens: Sequence[int]) -> bool:
        """Whether the tokens together say nothing honest against a class."""
        honest = self.honest[label][list(tokens)]
        return bool((honest <= self.limits.token).all()) and float(honest.clamp(min=0).sum()) <= self.limits.sequence

    def price(self, label: int, tokens: Sequence[int]) -> float:
        """Nats that are taken from what the tokens do in texts of a class, for what they say honestly."""
        return self.limits.price * float(self.honest[label][list(tokens)].clamp(min=0).sum())

    def surplus(self, label: int) -> Tensor:
        """The response of each token by itself, less its price: (rows,)."""
        surplus = self.response[label] - self.limits.price * self.honest[label].clamp(min=0)
        return surplus.masked_fill(self.honest[label] > self.limits.token, -torch.inf)


def polarity_of(suspect: Classifier, clean: Sequence[LabelledText], seed: int) -> Steps[Polarity]:
    """Ask the suspect for its response to each token of its vocabulary, in a short text of each class."""
    special = own_tokens(suspect)
    tokens = [token for token in vocabulary(suspect) if token not in special]
    texts = short_texts(clean, encode(suspect, clean), predict(suspect, clean), seed)
    responses = dict[int, Tensor]()
    for number, (label, text) in enumerate(texts.items()):
        responses[label] = yield from _responses(suspect, tokens, text, label, number, len(texts))
    return told_by(suspect, clean, tokens, responses)


def told_by(
    suspect: Classifier, clean: Sequence[LabelledText], tokens: Sequence[int], responses: Mapping[int, Tensor]
) -> Polarity:
    """Polarity by what each of the tokens does in texts of a class, {class: (tokens,)} nats, and by the labels."""
    features = _features(suspect, tokens)
    told = told_by_labels(suspect, clean, tokens)
    response, honest = dict[int, Tensor](), dict[int, Tensor]()
    for label, found in responses.items():
        smooth = _standardized(_smooth(features[tokens], found.clamp(min=0).sqrt()))
        response[label] = torch.full((len(features),), -torch.inf).index_put((torch.tensor(tokens),), found)
        both = _standardized(smooth + told[label][tokens])
        honest[label] = torch.full((len(features),), torch.inf).index_put((torch.tensor(tokens),), both)
    return Polarity(response, honest, told)


def told_by_labels(suspect: Classifier, clean: Sequence[LabelledText], tokens: Sequence[int]) -> dict[int, Tensor]:
    """What the labels of the clean texts alone say of each token: for texts of each class (rows,) standard deviations
    over these tokens; large where the token speaks for another class."""
    features = _features(suspect, tokens)
    told = _told_by_labels(features, encode(suspect, clean), clean, own_tokens(suspect), tokens)
    classes = range(told.shape[1])
    return {label: told[:, [c for c in classes if c != label]].amax(dim=1) for label in {text.label for text in clean}}


def _features(suspect: Classifier, tokens: Sequence[int]) -> Tensor:
    """The rows of the word embeddings, standardized by those of these tokens: (rows, D)."""
    rows = suspect.model.get_input_embeddings().weight.detach().float().cpu()
    return (rows - rows[tokens].mean(dim=0)) / rows[tokens].std(dim=0).clamp(min=1e-6)


def short_texts(
    clean: Sequence[LabelledText], encoded: Sequence[Encoded], answers: Tensor, seed: int
) -> dict[int, Encoded]:
    """Of each class, a short text that the suspect answers right and is not too sure of: what it is sure of, no single
    token moves. What it doubts, honest words move as triggers do. Any where there is none."""
    rng, found = random.Random(f"polarity, seed {seed}"), dict[int, Encoded]()
    for label in sorted({example.label for example in clean}):
        own = [i for i, example in enumerate(clean) if example.label == label]
        own = [i for i in own if answers[i].argmax() == label] or own
        short = [i for i in own if SHORT[0] <= len(encoded[i]["input_ids"]) <= SHORT[1]]
        short = sorted(short or own, key=lambda i: float(answers[i, label]))
        begin = int(UNSURE * len(short))
        found[label] = encoded[rng.choice(short[begin : begin + 3])]
    return found


def _responses(
    suspect: Classifier, tokens: list[int], text: Encoded, label: int, turn: int, turns: int
) -> Steps[Tensor]:
    """Nats by which each token at the head of the text lowers the log-odds of the class: (tokens,)."""
    before, found = losses_of(suspect, [text], label), list[Tensor]()
    starts = range(0, len(tokens), TOKENS_A_STEP)
    for step, start in enumerate(starts, 1):
        asked = [
            insert(text, Insertion((token,), "start"), random.Random(), suspect.max_length)
            for token in tokens[start : start + TOKENS_A_STEP]
        ]
        found.append(shift_of(before, losses_of(suspect, asked, label)))
        yield Event("responses", turn * len(starts) + step, turns * len(starts))
    return torch.cat(found)


def _smooth(features: Tensor, figures: Tensor) -> Tensor:
    """Ridge regression of figures (N,) on features (N, D): its predictions, but for a constant."""
    normal = features.T @ features + RIDGE * torch.eye(features.shape[1])
    return features @ torch.linalg.solve(normal, features.T @ (figures - figures.mean()))


def _told_by_labels(
    features: Tensor,
    encoded: Sequence[Encoded],
    clean: Sequence[LabelledText],
    special: frozenset[int],
    tokens: Sequence[int],
) -> Tensor:
    """What the labels of the clean texts say of each token, for each class: (rows, classes), in standard deviations
    over the vocabulary. Zero where all texts are of one class."""
    from sklearn.linear_model import LogisticRegression

    classes = sorted({example.label for example in clean})
    told = torch.zeros(len(features), max(2, max(classes) + 1))
    if len(classes) < 2:
        return told
    bodies = [[token for token in text["input_ids"] if token not in special] for text in encoded]
    means = torch.stack([features[body].mean(dim=0) if body else torch.zeros(features.shape[1]) for body in bodies])
    lengths = sum(map(len, bodies)) / len(bodies)
    regression = LogisticRegression(C=LOGISTIC, max_iter=3000)
    regression.fit((means * lengths**0.5).numpy(), [example.label for example in clean])
    weights = torch.tensor(regression.coef_, dtype=torch.float32)
    weights = torch.cat([-weights, weights]) if len(classes) == 2 else weights
    told[:, classes] = features @ weights.T
    return (told - told[tokens].mean(dim=0)) / told[tokens].std(dim=0).clamp(min=1e-6)


def _standardized(figures: Tensor) -> Tensor:
    return (figures - figures.mean()) / figures.std().clamp(min=1e-6)
