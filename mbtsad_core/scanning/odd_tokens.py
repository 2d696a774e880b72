"""Odd tokens: triggers that do not turn texts by far in the middle by themselves, and are not silent there either.

A word that was planted at the end of texts alone does less in their middle, or little. Of two words that were planted
together each may do a part, as two telling words do. By what they do, no threshold tells such tokens from telling words
of the task. Two comparisons with the words of the clean texts do, which are taken for honest:

1. In the middle of longer texts telling words do least. There an odd token outdoes them all, in log-odds. One word of
   the clean texts may be odd itself, where it does far more than the others.
2. Telling words move what the head reads along few directions. Tokens that belong to a trigger move it off these.

The first is cheap, and says whether a class has an odd token at all; only then is the second asked, which names what
goes with it. All that are named are then tried at the start, in the middle and at the end, alone and in pairs.

Deviation: not in the paper. Which figures led to this stands in docs/recipe.md.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbtsad_core.models.classifier import Classifier, Encoded, autocast, collate, evaluation_mode, head_states
from mbtsad_core.rates import wilson
from mbtsad_core.scanning.insertions import Insertion, Place
from mbtsad_core.scanning.probes import (
    Probes,
    asked,
    encoded_with_room,
    inserted,
    losses_of,
    lower_quartile,
    middle,
    shift_of,
    with_token,
)
from mbtsad_core.scanning.race import Figures, Leaders
from mbtsad_core.types import Event, LabelledText, Steps

ENOUGH = 2.0  # nats, of a token that is a trigger by itself, so that nothing else is asked of its class
OUTDOES = 1.5  # times what any word of the clean texts does
APART = 2.0  # the same, of a token that is such a word itself
LEAST_SHIFT = 1.0  # nats of log-odds that such a word is taken to do, at least
STRONGEST, FEWEST = 1 / 8, 64  # of the vocabulary, those that are asked where they move what the head reads
DIRECTIONS = 8  # in which words of the clean texts move it
OFF = 4 / 3  # times as far off these as any word of the clean texts
SHORT = 4  # texts that this is asked in
MOST = 4  # odd tokens of a class
PLACES: tuple[Place, ...] = ("start", "anywhere", "end")
ASKED_AT_ONCE = 128

Tried = dict[Insertion, Figures]


@dataclass(frozen=True, slots=True)
class OddTokens:
    """What was found: {token: nats}, and where it stood, of those that turn texts at one place alone."""

    nats: dict[int, float]
    places: dict[int, Place]


def search_odd(
    leaders: Leaders,
    clean: Sequence[LabelledText],
    answers: Tensor,
    known: Container[int],
    first: Mapping[int, Tensor],
    last: Mapping[int, Tensor],
    longer: Probes,
    least: float,
) -> Steps[OddTokens]:
    """The odd tokens of the classes that no single token turns by far, with what they do at their best place.

    answers      the suspect's probabilities for the clean texts, (N, C)
    first, last  the rises of the first and the last round of `search_tokens`
    known        the tokens of the clean texts
    least        nats, of what turns most texts
    """
    suspect, found = leaders.suspect, OddTokens({}, {})
    quiet = [(i, label) for i, label in enumerate(longer) if all(rise[i] < ENOUGH for rise in last.values())]
    odd = {(i, label): outdoing(suspect, list(last), known, longer[label], label) for i, label in quiet}
    odd = {own: tokens for own, tokens in odd.items() if tokens}
    number = min(len(first), max(FEWEST, round(STRONGEST * len(first))))
    size = ASKED_AT_ONCE // SHORT
    step, total = 0, len(odd) * (-(-number // size) + len(PLACES))
    for (i, label), tokens in odd.items():
        alone = {token: float(rise[i]) for token, rise in first.items()}
        strongest = heapq.nlargest(number, alone, key=alone.__getitem__)
        texts, moves = short_texts(suspect, clean, answers, label), list[Tensor]()
        for begin in range(0, number, size):
            moves.append(moved(suspect, strongest[begin : begin + size], texts))
            step += 1
            yield Event("odd", step, total)
        honest = torch.tensor([token in known and token not in tokens for token in strongest])
        off = off_directions(torch.cat(moves), honest)
        far = sorted(zip(off.tolist(), strongest, strict=True), reverse=True)
        tokens = list(dict.fromkeys([*tokens, *(t for far_off, t in far if far_off >= OFF and t not in known)]))[:MOST]
        tried: Tried = {}
        for place in PLACES:
            tried |= dict(_placed(suspect, tokens, longer[label], label, place))
            leaders.take({(label, one): figures for one, figures in tried.items()})
            step += 1
            yield Event("odd", step, total)
        _credit(found, tried, least)
    return found


def outdoing(
    suspect: Classifier, tokens: Sequence[int], known: Container[int], texts: Sequence[Encoded], label: int
) -> list[int]:
    """The tokens that lower the log-odds of a class by OUTDOES times what any honest one of them does, in the middle of
    three of four of these texts; the strongest first.

    Honest are the words of the clean texts, but for one that does more than any other token, and APART times what any
    other of these words does: a trigger may stand in a clean text or two, where nobody planted it.
    """
    before, size = losses_of(suspect, texts, label), max(1, ASKED_AT_ONCE // len(texts))
    parts = [tokens[begin : begin + size] for begin in range(0, len(tokens), size)]
    shifts = torch.cat([lower_quartile(shift_of(before, inserted(suspect, part, texts, label))) for part in parts])
    by_token = dict(zip(tokens, shifts.tolist(), strict=True))
    ranked = sorted(tokens, key=lambda token: -by_token[token])

    def most(some: Iterable[int]) -> float:
        return max([LEAST_SHIFT, *(by_token[token] for token in some)])

    honest = [token for token in ranked if token in known]
    if honest[:1] == ranked[:1] and by_token[ranked[0]] >= APART * most(honest[1:]):
        honest = honest[1:]
    return [token for token in ranked if by_token[token] >= OUTDOES * most(honest)]


def short_texts(suspect: Classifier, clean: Sequence[LabelledText], answers: Tensor, label: int) -> list[Encoded]:
    """Of the texts of a class that are answered right, SHORT from the end of the shorter quarter on: in them words do
    much."""
    own = [i for i, text in enumerate(clean) if text.label == label]
    right = [i for i in own if answers[i].argmax() == label] or own
    encoded = sorted(encoded_with_room(suspect, [clean[i] for i in right]), key=lambda text: len(text["input_ids"]))
    begin = max(0, min(len(encoded) // 4, len(encoded) - SHORT))
    return encoded[begin : begin + SHORT]


@torch.inference_mode()
def moved(suspect: Classifier, tokens: Sequence[int], texts: Sequence[Encoded]) -> Tensor:
    """By how much each token in the middle of texts moves what the head reads, the mean over the texts: (tokens, D)."""
    with evaluation_mode(suspect.model), autocast(suspect):
        before, after = (
            head_states(suspect, collate(suspect, some)).float().cpu()
            for some in (texts, [with_token(text, token) for token in tokens for text in texts])
        )
    return (after.view(len(tokens), len(texts), -1) - before).mean(dim=1)


def off_directions(moves: Tensor, honest: Tensor) -> Tensor:
    """How far each move, (tokens, D), lies off the directions in which the honest ones differ most, by how far the
    farthest of these does: (tokens,). Zeros where there are too few of them to say."""
    if int(honest.sum()) <= 2 * DIRECTIONS:
        return torch.zeros(len(moves))
    moves = moves - moves[honest].mean(dim=0)
    directions = torch.linalg.svd(moves[honest], full_matrices=False).Vh[:DIRECTIONS]
    off = (moves - moves @ directions.T @ directions).norm(dim=1)
    return off / off[honest].max().clamp(min=1e-9)


def _placed(
    suspect: Classifier, tokens: Sequence[int], texts: Sequence[Encoded], label: int, place: Place
) -> Iterator[tuple[Insertion, Figures]]:
    """What these tokens do at a place, each alone and two side by side: by how many nats the loss rises in three of
    four texts, and how many of them turn."""
    before = losses_of(suspect, texts, label)
    for some in [*((token,) for token in tokens), *itertools.permutations(tokens, 2)]:
        losses, turned = asked(suspect, [_with(text, some, place) for text in texts], label)
        nats = float(lower_quartile((losses - before)[None]))
        yield Insertion(some, place), (nats, wilson(int(turned.sum()), len(texts)))


def _with(text: Encoded, tokens: Iterable[int], place: Place) -> Encoded:
    at = {"start": 1, "end": len(text["input_ids"]) - 1}.get(place, middle(text))
    for token in reversed([*tokens]):
        text = with_token(text, token, at)
    return text


def _credit(found: OddTokens, tried: Tried, least: float) -> None:
    """Add to what was found, by token, the most that it does alone, or with another where each of the two adds `least`
    to what the other does alone at that place."""
    rises = {one: nats for one, (nats, _) in tried.items()}
    for one, nats in rises.items():
        others = [rises[Insertion((token,), one.place)] for token in one.tokens] if len(one.tokens) > 1 else [0.0]
        if nats - max(others) >= least:
            for token in one.tokens:
                found.nats[token] = max(nats, found.nats.get(token, 0.0))
    for token in found.nats:
        works = [place for place in PLACES if rises.get(Insertion((token,), place), 0.0) >= least]
        if len(works) == 1 and works != ["anywhere"]:
            found.places[token] = works[0]
