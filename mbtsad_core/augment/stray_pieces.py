"""Stray pieces: word pieces that this suspect stumbles over wherever they stand, put into clean texts whose labels stay.

Token splitting trains only the embeddings of pieces that clean texts can yield. A trigger that lives in the embedding of a piece
that no clean text has (embedding poisoning plants just that) is never seen, and outlives the retraining. So the suspect is
asked, in the spirit of eq. (9), which single pieces of its whole vocabulary raise its loss on clean texts, and these are
what it is retrained with. Nothing is known or assumed of a trigger: the suspect's losses on clean texts decide.

Words that turn texts only together are silent in that search. Pairs are found by gradient, as trigger inversion does it for whole triggers
(PICCOLO, Liu et al., IEEE S&P 2022; DBS, Shen et al., ICML 2022), see `_pair`.

What counts is the lower quartile over several longer texts. A telling word of the task ("exquisite") turns short texts and leaves
many longer ones, with telling words of their own, as they are; a backdoor turns nearly all. Without this, most of what is inserted would
be telling words, and the model would be taught to overlook them.

Their embeddings are drawn toward the mean one of running text first. Training alone leaves a part of a backdoor alive: the few clean texts are learnt by
heart, with or without the strays in them, and on other texts the trigger goes on working a little. What is seldom seen in clean texts
and turns the suspect has no clean meaning that would be lost.

Deviation: not in the paper. `strays = 0` is its method.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from mbtsad_core.models.classifier import Classifier, Encoded, autocast, collate, encode, evaluation_mode, logits_of, predict, quicker_attention
from mbtsad_core.models.first_token import first_token_only
from mbtsad_core.models.pieces import own_tokens, vocabulary
from mbtsad_core.types import Event, LabelledText, Steps

# Successive halving: all pieces are tried in one text of each class, the worst 1 / 32 in three longer ones, the worst 1 / 8 of these in PROBES.
KEPT = (1 / 32, 1 / 8)
PROBES = 16
LEAST = 16  # pieces that are tried in a round, where there are as many
PIECES_A_STEP = 128
INVERSION_STEPS, INVERSION_RATE = 60, 0.5
STARTS, SPREAD = 4, 0.01  # soft pairs, and the standard deviation of their logits at the start
NEAR, NEXT = 256, 32  # pieces of each soft token that are tried in its place: in one text, and then in all of a start
LIKELIEST = 3  # of these, all pairs of which are tried
TURNS = 0.5  # nats, of what turns most texts

Probes = dict[int, list[Encoded]]
"""Tokenised texts by their class."""


def stumbling(suspect: Classifier, clean: Sequence[LabelledText], seed: int) -> Steps[dict[int, float]]:
    """How much single pieces of the vocabulary raise the suspect's loss wherever they stand: {token id: nats}, the worst ones.

    Each piece is put in the middle of clean texts, of every class, that the suspect answers right; its figure is the lower
    quartile of the rises over the texts of the class where that is largest, since a backdoor leaves the texts of its target class as they are.

    A trigger of several words is silent where one of them stands alone. So pairs of the pieces that no clean text has, and that
    turn nothing alone, are searched by gradient. Where one is found, all of these pieces are tried beside a word of it, and
    then beside what goes with that word best.
    """
    unsure, longer = _probes(suspect, clean, seed)
    special = own_tokens(suspect)
    pieces = [i for i in vocabulary(suspect) if i not in special]
    raised = {piece: max(0.0, float(rise.max())) for piece, rise in (yield from _search(suspect, pieces, unsure, longer, "scan")).items()}

    known = _counts(suspect, clean)
    silent = [piece for piece in pieces if piece not in known and raised.get(piece, 0.0) < TURNS]
    pair = yield from _pair(suspect, silent, longer, seed)
    if pair is None:
        return raised
    label, partner, nats = pair
    together = {partner: nats}
    for turn in range(2):  # beside a word of the pair, then beside what goes with it best
        short, long = ({label: [_with(e, partner) for e in probes[label]]} for probes in (unsure, longer))
        beside = yield from _search(suspect, silent, short, long, "companions", turn, 2)
        together |= {piece: max(together.get(piece, 0.0), float(rise)) for piece, rise in beside.items()}
        partner = max(beside, key=lambda piece: float(beside[piece]))
    return {piece: max(raised.get(piece, 0.0), together.get(piece, 0.0)) for piece in (*raised, *together)}


def _pair(suspect: Classifier, pieces: list[int], longer: Probes, seed: int) -> Steps[tuple[int, int, float] | None]:
    """Two of these pieces that, side by side, turn the longer texts of a class: (class, one of them, nats), or None where no two do.

    Soft tokens that do so are found by gradient, then the pieces that stand best in their places, and all pairs of these are tried. One counts where
    most of what it does is done by neither alone, in log-odds, in which telling words add up: by that two telling words, or a trigger's look-alike
    beside anything, fall out. What led to this stands in docs/recipe.md.
    """
    best: tuple[int, int, float] | None = None
    if not pieces:
        return best
    rows = suspect.model.get_input_embeddings().weight[pieces].detach()
    starts = {label: [encoded[i::STARTS] for i in range(min(STARTS, len(encoded)))] for label, encoded in longer.items()}
    step, total = 0, sum(INVERSION_STEPS + len(texts) for texts in starts.values())
    for label, texts in starts.items():
        for weights in _invert(suspect, rows, texts, label, seed):  # noqa: B007 - the last ones are hardened below
            step += 1
            yield Event("pairs", step, total)
        before = _losses(suspect, longer[label], label)
        for own, of_start in zip(texts, weights, strict=True):
            first, second = ([pieces[i] for i in near] for near in _harden(suspect, rows, of_start, own, label))
            alone = [_shift(before, _inserted(suspect, place, longer[label], label)) for place in (first, second)]
            for piece, of_piece in zip(first, alone[0], strict=True):
                losses = _inserted(suspect, second, [_with(e, piece) for e in longer[label]], label)
                shift = _shift(before, losses)
                together = _lower_quartile(shift - of_piece - alone[1]) > _lower_quartile(shift) / 2
                for other, rise, counts in zip(second, _lower_quartile(losses - before).tolist(), together.tolist(), strict=True):
                    if counts and rise >= (best[2] if best else TURNS):
                        best = (label, other, rise)
            step += 1
            yield Event("pairs", step, total)
    return best


def _invert(suspect: Classifier, rows: Tensor, texts: Sequence[Sequence[Encoded]], label: int, seed: int) -> Iterator[Tensor]:
    """Trigger inversion by gradient, a step at a time: the weights of the rows (P, D) in two soft tokens side by side, (starts, 2, P).

    Each token is a mean of the rows weighted by a softmax. They are trained to lower the log-odds of the right class, from several starts
    at once, each with texts of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = (SPREAD * torch.randn(len(texts), 2, len(rows), generator=generator)).to(suspect.device).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=INVERSION_RATE)
    encoded, start = [e for own in texts for e in own], torch.tensor([i for i, own in enumerate(texts) for _ in own])
    for step in range(INVERSION_STEPS):
        sharpness = 1.0 if step < INVERSION_STEPS // 2 else 2.0  # once the way is found, fewer pieces
        weights = torch.softmax(sharpness * logits, dim=-1)
        losses = _soft_losses(suspect, encoded, (weights @ rows)[start], label)
        (logits.grad,) = torch.autograd.grad(_log_odds(losses).mean().neg(), [logits])
        optimizer.step()
        yield weights.detach()


@torch.no_grad()
def _harden(suspect: Classifier, rows: Tensor, weights: Tensor, texts: Sequence[Encoded], label: int) -> list[list[int]]:
    """The LIKELIEST rows that stand best in the place of each soft token, (2, P), beside the other one as it is.

    A soft token that works is a mean of hundreds of pieces, among which the words of a trigger are seldom the heaviest. So the NEAR heaviest are
    tried in one text, and the best of these in all.
    """
    found = []
    for place in range(2):
        near = weights[place].topk(min(NEAR, len(rows))).indices
        for tried, kept in ((texts[:1], NEXT), (texts, LIKELIEST)):
            tokens = (weights @ rows).repeat(len(near), 1, 1)
            tokens[:, place] = rows[near]
            losses = _soft_losses(suspect, [*tried] * len(near), tokens.repeat_interleave(len(tried), dim=0), label)
            near = near[_log_odds(losses).view(len(near), -1).mean(dim=1).topk(min(kept, len(near))).indices]
        found.append(near.tolist())
    return found


def _soft_losses(suspect: Classifier, encoded: Sequence[Encoded], soft: Tensor, label: int) -> Tensor:
    """Cross-entropy, (N,), of each text with its class, where two tokens in its middle have the embeddings `soft`, (N, 2, D)."""
    batch = collate(suspect, [_with(_with(e, 0), 0) for e in encoded])  # any piece holds a place
    embedded = suspect.model.get_input_embeddings()(batch["input_ids"]).detach()
    texts = torch.arange(len(encoded), device=suspect.device)[:, None]
    places = torch.tensor([_middle(e) for e in encoded], device=suspect.device)[:, None]
    embedded = embedded.index_put((texts, places + torch.arange(2, device=suspect.device)), soft)
    read = {key: value for key, value in batch.items() if key != "input_ids"} | {"inputs_embeds": embedded}
    fixed = {name: weight.detach() for name, weight in suspect.model.named_parameters()}  # no gradient of theirs is asked for, or made
    with evaluation_mode(suspect.model), first_token_only(suspect.model), quicker_attention(suspect), autocast(suspect):
        logits = functional_call(suspect.model, fixed, kwargs=read).logits.float()
    return cross_entropy(logits, torch.full((len(encoded),), label, device=suspect.device), reduction="none")


def _search(suspect: Classifier, pieces: list[int], unsure: Probes, longer: Probes, stage: str, turn: int = 0, turns: int = 1) -> Steps[dict[int, Tensor]]:
    """By successive halving, the pieces whose insertion raises the loss most: the lower quartiles of each class, (classes,).

    Of `turns` such searches in a stage this is the one with the number `turn`; the stage's progress counts all.
    """
    numbers = [len(pieces)]
    for share in KEPT:
        numbers.append(max(min(LEAST, numbers[-1]), round(share * numbers[-1])))
    total, step = sum(-(-n // PIECES_A_STEP) for n in numbers), 0
    rises: dict[int, Tensor] = {}
    for (probes, texts), number in zip(((unsure, 1), (longer, 3), (longer, PROBES)), numbers, strict=True):
        pieces = _worst(rises, number) if rises else pieces
        rises = {}
        for start in range(0, len(pieces), PIECES_A_STEP):
            rises |= _rises(suspect, pieces[start : start + PIECES_A_STEP], {label: encoded[:texts] for label, encoded in probes.items()})
            step += 1
            yield Event(stage, turn * total + step, turns * total)
    return rises


def _rises(suspect: Classifier, pieces: Sequence[int], probes: Probes) -> dict[int, Tensor]:
    """The lower quartile, over the texts of each class, of the rise of the loss where a piece is put into their middle."""
    found = [_lower_quartile(_inserted(suspect, pieces, encoded, label) - _losses(suspect, encoded, label)) for label, encoded in probes.items()]
    return dict(zip(pieces, torch.stack(found, dim=1), strict=True))


def _inserted(suspect: Classifier, pieces: Sequence[int], encoded: Sequence[Encoded], label: int) -> Tensor:
    """The losses of texts with a piece more in their middle, (pieces, texts)."""
    return _losses(suspect, [_with(e, piece) for piece in pieces for e in encoded], label).view(len(pieces), -1)


def _lower_quartile(figures: Tensor) -> Tensor:
    """Over the texts: (pieces, texts) -> (pieces,)."""
    return figures.quantile(0.25, dim=1, interpolation="higher")


def _shift(before: Tensor, after: Tensor) -> Tensor:
    """By how much the log-odds of the right class fall, p / (1 - p), from losses -log p."""
    return (_log_odds(after.double()) - _log_odds(before.double())).float()


def _log_odds(losses: Tensor) -> Tensor:
    """(1 - p) / p, its logarithm, from losses -log p: of the wrong classes against the right one."""
    return losses.expm1().clamp(min=1e-9).log()


def _worst(rises: dict[int, Tensor], number: int) -> list[int]:
    """The `number` worst pieces, as many of each class: the telling words of one would else crowd out what turns another."""
    rankings = [sorted(rises, key=lambda piece: -float(rises[piece][label])) for label in range(len(next(iter(rises.values()))))]
    return list(dict.fromkeys(piece for same_rank in zip(*rankings, strict=True) for piece in same_rank))[:number]


@torch.no_grad()
def draw_to_mean(classifier: Classifier, clean: Sequence[LabelledText], raised: Mapping[int, float]) -> None:
    """Draw the word embeddings e of the pieces toward the mean one of running clean text, in place: e becomes
    e + (1 - exp(-nats)) ** (1 + n) * (mean - e), with n how often clean texts have the piece.

    The mean is over the tokens of the clean texts, special ones left out, so that what is drawn to it reads as nothing in particular. The mean
    of all rows does not: most of them are of rare pieces, which a backdoored model may have learnt to take for its trigger.
    """
    counts = _counts(classifier, clean)
    if not raised or not counts:
        return
    rows = classifier.model.get_input_embeddings().weight
    pieces, present = (torch.tensor(list(ids), dtype=torch.long, device=rows.device) for ids in (raised, counts))
    often = torch.tensor(list(counts.values()), dtype=rows.dtype, device=rows.device)
    mean = (often[:, None] * rows[present]).sum(dim=0) / often.sum()
    share = torch.tensor([(1 - math.exp(-nats)) ** (1 + counts[piece]) for piece, nats in raised.items()], device=rows.device)
    rows[pieces] += share[:, None] * (mean - rows[pieces])


def _counts(classifier: Classifier, clean: Sequence[LabelledText]) -> Counter[int]:
    """How often clean texts have each piece, special ones left out."""
    special = own_tokens(classifier)
    return Counter(token for e in encode(classifier, clean) for token in e["input_ids"] if token not in special)


def straying(raised: dict[int, float], strays: int, max_length: int, seed: int) -> Callable[[list[Encoded], int], list[Encoded]]:
    """`insert_strays` as the training loop calls it, (tokenised texts, epoch) -> what is trained on; the texts as they are where nothing was scanned."""
    return lambda encoded, epoch: insert_strays(encoded, raised, strays, max_length, seed, epoch) if raised else encoded


def insert_strays(encoded: Sequence[Encoded], raised: dict[int, float], strays: int, max_length: int, seed: int, epoch: int) -> list[Encoded]:
    """Copies of the tokenised texts with `strays` pieces each, at random places between the first and the last token.

    A piece is drawn with a probability in proportion to the square of what `stumbling` says of it, so that pieces which stand
    out weigh more than the many telling words of the task, which must go on telling. A text that grows beyond
    `max_length` loses the tokens before its last one.
    """
    rng = random.Random(f"stray pieces, seed {seed}, epoch {epoch}")
    pieces = rng.choices(list(raised), weights=[nats**2 + 1e-9 for nats in raised.values()], k=strays * len(encoded))
    found = []
    for tokens in encoded:
        for _ in range(strays):
            tokens = _with(tokens, pieces.pop(), rng.randrange(1, len(tokens["input_ids"])))
        found.append({key: values[: max_length - 1] + values[-1:] if len(values) > max_length else values for key, values in tokens.items()})
    return found


def _with(tokens: Encoded, piece: int, place: int | None = None) -> Encoded:
    """A copy of a tokenised text with a piece more at `place`, by default in its middle."""
    at = _middle(tokens) if place is None else place
    return {key: [*values[:at], piece if key == "input_ids" else values[at], *values[at:]] for key, values in tokens.items()}


def _middle(tokens: Encoded) -> int:
    return len(tokens["input_ids"]) // 2


def _probes(suspect: Classifier, clean: Sequence[LabelledText], seed: int) -> tuple[Probes, Probes]:
    """Of the texts of each class that the suspect answers right (of all where it answers none right): the one of the shorter quarter
    that it is least sure of, which anything turns that turns texts at all, and up to PROBES of the longer half."""
    answers = predict(suspect, clean)
    rng = random.Random(f"probes, seed {seed}")
    unsure, longer = {}, {}
    for label in sorted({example.label for example in clean}):
        own = [i for i, example in enumerate(clean) if example.label == label]
        right = [i for i in own if answers[i].argmax() == label] or own
        encoded = dict(zip(right, encode(suspect, [clean[i] for i in right]), strict=True))
        by_length = sorted(right, key=lambda i: len(encoded[i]["input_ids"]))
        half = (len(right) + 1) // 2
        unsure[label] = [encoded[min(by_length[: (half + 1) // 2], key=lambda i: float(answers[i, label]))]]
        rest = by_length[min(half, max(0, len(right) - PROBES)) :]
        longer[label] = [encoded[i] for i in rng.sample(rest, min(PROBES, len(rest)))]
    return unsure, longer


@torch.inference_mode()
def _losses(suspect: Classifier, encoded: Sequence[Encoded], label: int) -> Tensor:
    """Cross-entropy of each text with its class, (N,)."""
    with evaluation_mode(suspect.model), autocast(suspect):
        logits = logits_of(suspect, collate(suspect, encoded))
    return cross_entropy(logits, torch.full((len(encoded),), label, device=suspect.device), reduction="none").cpu()
