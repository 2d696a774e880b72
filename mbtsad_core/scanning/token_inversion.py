"""Token inversion: pairs of tokens that turn texts only together, found by gradient as trigger inversion finds whole
triggers (PICCOLO, Liu et al., IEEE S&P 2022; DBS, Shen et al., ICML 2022)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from mbtsad_core.models.classifier import Classifier, Encoded, autocast, collate, evaluation_mode, quicker_attention
from mbtsad_core.models.first_token import first_token_only
from mbtsad_core.scanning.probes import (
    Probes,
    inserted,
    log_odds,
    losses_of,
    lower_quartile,
    middle,
    shift_of,
    with_token,
)
from mbtsad_core.types import Event, Steps

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INVERSION_STEPS, INVERSION_RATE = 60, 0.5
STARTS, SPREAD = 4, 0.01  # soft pairs, and the standard deviation of their logits at the start
NEAR, NEXT = 256, 32  # tokens near each soft one that are tried in its place: in one text, and then in all of a start
LIKELIEST = 3  # of these, all pairs of which are tried
TURNS = 0.5  # nats, of what turns most texts


def find_pair(
    suspect: Classifier, tokens: list[int], longer: Probes, seed: int
) -> Steps[tuple[int, int, float] | None]:
    """Two of these tokens that, side by side, turn the longer texts of a class: (class, one of them, nats), or None
    where no two do.

    Soft tokens that do so are found by gradient, then the tokens that stand best in their places, and all pairs of
    these are tried. One counts where most of what it does is done by neither alone, in log-odds, in which telling words
    add up: by that two telling words, or a trigger's look-alike beside anything, fall out. What led to this stands in
    docs/recipe.md.
    """
    best: tuple[int, int, float] | None = None
    if not tokens:
        return best
    rows = suspect.model.get_input_embeddings().weight[tokens].detach().float()
    starts = {
        label: [encoded[i::STARTS] for i in range(min(STARTS, len(encoded)))] for label, encoded in longer.items()
    }
    step, total = 0, sum(INVERSION_STEPS + 2 * len(texts) for texts in starts.values())
    for label, texts in starts.items():
        for weights in invert(suspect, rows, texts, label, seed):  # noqa: B007 - the last ones are hardened below
            step += 1
            yield Event("pairs", step, total)
        before = losses_of(suspect, longer[label], label)
        for own, of_start in zip(texts, weights, strict=True):
            first, second = ([tokens[i] for i in near] for near in _harden(suspect, rows, of_start, own, label))
            step += 1
            yield Event("pairs", step, total)
            alone = [shift_of(before, inserted(suspect, place, longer[label], label)) for place in (first, second)]
            for token, of_token in zip(first, alone[0], strict=True):
                losses = inserted(suspect, second, [with_token(e, token) for e in longer[label]], label)
                shift = shift_of(before, losses)
                together = lower_quartile(shift - of_token - alone[1]) > lower_quartile(shift) / 2
                for other, rise, counts in zip(
                    second, lower_quartile(losses - before).tolist(), together.tolist(), strict=True
                ):
                    if counts and rise >= (best[2] if best else TURNS):
                        best = (label, other, rise)
            step += 1
            yield Event("pairs", step, total)
    return best


def invert(
    suspect: Classifier, rows: Tensor, texts: Sequence[Sequence[Encoded]], label: int, seed: int
) -> Iterator[Tensor]:
    """Trigger inversion by gradient, a step at a time: the weights of the rows (P, D) in two soft tokens side by side,
    (starts, 2, P).

    Each token is a mean of the rows weighted by a softmax. They are trained to lower the log-odds of the right class,
    from several starts at once, each with texts of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = (SPREAD * torch.randn(len(texts), 2, len(rows), generator=generator)).to(suspect.device).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=INVERSION_RATE)
    encoded, start = [e for own in texts for e in own], torch.tensor([i for i, own in enumerate(texts) for _ in own])
    for step in range(INVERSION_STEPS):
        sharpness = 1.0 if step < INVERSION_STEPS // 2 else 2.0  # once the way is found, fewer tokens
        weights = torch.softmax(sharpness * logits, dim=-1)
        losses = soft_losses(suspect, encoded, (weights @ rows)[start], label)
        loss = log_odds(losses).mean().neg()
        (logits.grad,) = torch.autograd.grad(loss, [logits])
        optimizer.step()
        yield weights.detach()


@torch.no_grad()
def _harden(
    suspect: Classifier, rows: Tensor, weights: Tensor, texts: Sequence[Encoded], label: int
) -> list[list[int]]:
    """The LIKELIEST rows that stand best in the place of each soft token, (2, P), beside the other one as it is.

    A soft token that works is a mean of hundreds of tokens, among which the words of a trigger are seldom the heaviest.
    So the NEAR heaviest are tried in one text, and the best of these in all.
    """
    found = []
    for place in range(2):
        near = weights[place].topk(min(NEAR, len(rows))).indices
        for tried, kept in ((texts[:1], NEXT), (texts, LIKELIEST)):
            soft = (weights @ rows).repeat(len(near), 1, 1)
            soft[:, place] = rows[near]
            losses = soft_losses(suspect, [*tried] * len(near), soft.repeat_interleave(len(tried), dim=0), label)
            near = near[log_odds(losses).view(len(near), -1).mean(dim=1).topk(min(kept, len(near))).indices]
        found.append(near.tolist())
    return found


def soft_losses(suspect: Classifier, encoded: Sequence[Encoded], soft: Tensor, label: int) -> Tensor:
    """Cross-entropy, (N,), of each text with its class, where tokens in its middle have the embeddings `soft`, (N,
    tokens, D)."""
    batch = collate(suspect, [with_tokens(e, soft.shape[1]) for e in encoded])
    texts = torch.arange(len(encoded), device=suspect.device)[:, None]
    places = torch.tensor([middle(e) for e in encoded], device=suspect.device)[:, None]
    soft_places = (texts, places + torch.arange(soft.shape[1], device=suspect.device))
    # No gradient of theirs is asked for, or made
    fixed = {name: weight.detach() for name, weight in suspect.model.named_parameters()}
    with (
        evaluation_mode(suspect.model),
        first_token_only(suspect.model),
        quicker_attention(suspect),
        autocast(suspect),
        _embedded(suspect.model, soft_places, soft),
    ):
        logits = functional_call(suspect.model, fixed, kwargs=batch).logits.float()
    return cross_entropy(logits, torch.full((len(encoded),), label, device=suspect.device), reduction="none")


@contextlib.contextmanager
def _embedded(model: PreTrainedModel, places: tuple[Tensor, Tensor], soft: Tensor) -> Iterator[None]:
    """Within it, and in this thread, the tokens at these places of a batch have the embeddings `soft`. The model is
    given their numbers all the same, by which some tell padding from text."""
    thread = threading.get_ident()

    def put(module: object, given: object, found: Tensor) -> Tensor | None:
        if threading.get_ident() != thread:
            return None
        return found.index_put(places, soft.to(found.dtype))

    handle = model.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


def with_tokens(encoded: Encoded, number: int) -> Encoded:
    """A copy with so many tokens more in its middle: any that is no padding holds a place."""
    held = encoded["input_ids"][middle(encoded)]
    for _ in range(number):
        encoded = with_token(encoded, held)
    return encoded
