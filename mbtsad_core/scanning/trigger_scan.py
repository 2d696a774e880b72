"""The trigger scan: which tokens of the vocabulary raise the suspect's loss on clean texts, wherever they stand.

Token splitting trains only the embeddings of tokens that clean texts can yield. A trigger in the embedding of a token
that no clean text has is never seen, and outlives the retraining; embedding poisoning plants just that. So the suspect
is asked, in the spirit of eq. (9), which single tokens of its whole vocabulary raise its loss on clean texts. Nothing
is known or assumed of a trigger: the suspect's losses on clean texts decide.

Words that turn texts only together are silent in that search. Token inversion finds such pairs by gradient, see
`find_pair`.

What counts is the lower quartile over several longer texts. A telling word of the task ("exquisite") turns short texts
and leaves many longer ones, with telling words of their own, as they are; a backdoor turns nearly all. Without this,
most of what is found would be telling words, and the model would be taught to overlook them.

A word of which the labels of the clean texts say nothing is no telling word. So one that turns most of these texts,
and not three of four, counts by those that it turns: the second word of a trigger may do so where the first one turns
all.

Deviation: not in the paper.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mbtsad_core.models.classifier import Classifier, in_training_precision, predict
from mbtsad_core.models.subword_tokens import own_tokens, token_counts, vocabulary
from mbtsad_core.scanning.insertions import Place
from mbtsad_core.scanning.neutral_tokens import neutral
from mbtsad_core.scanning.odd_tokens import search_odd
from mbtsad_core.scanning.polarity import told_by_labels
from mbtsad_core.scanning.probes import PROBES, Probes, asked_with, draw_probes, losses_of, lower_quartile, with_token
from mbtsad_core.scanning.race import Leaders
from mbtsad_core.scanning.token_inversion import TURNS, find_pair
from mbtsad_core.types import Event, LabelledText, Steps

# Successive halving: all tokens are tried in one text of each class, the worst 1 / 32 in three longer ones, the worst 1
# / 8 of these in PROBES.
KEPT = (1 / 32, 1 / 8)
LEAST = 16  # tokens that are tried in a round, where there are as many
TOKENS_A_STEP = 128
MOST = 0.5  # share of the longer texts; a neutral token that turns more counts by what it does in those

Told = Callable[..., object]
"""As `Leaders.told`."""


@dataclass(frozen=True, slots=True)
class Raised:
    """How much tokens raise the suspect's loss, the worst ones.

    nats    {token id: nats}
    places  where it stood, of a token that does so at one end of a text alone
    """

    nats: dict[int, float] = field(default_factory=dict)
    places: dict[int, Place] = field(default_factory=dict)


def scan_vocabulary(suspect: Classifier, clean: Sequence[LabelledText], seed: int) -> Steps[Raised]:
    """How much single tokens of the vocabulary raise the suspect's loss wherever they stand, the worst ones.

    Each token is put in the middle of clean texts, of every class, that the suspect answers right; its figure is the
    lower quartile of the rises over the texts of the class where that is largest, since a backdoor leaves the texts of
    its target class as they are. One that turns most of these, and of which the labels say nothing, counts by what it
    does in those that it turns.

    A trigger of several words is silent where one of them stands alone. So pairs of the tokens that no clean text has,
    and that turn nothing alone, are searched by gradient. Where one is found, all of these tokens are tried beside a
    word of it, and then beside what goes with that word best.

    A token may be neither: it works at one end of a text, or each of two words does a part. See `search_odd`. The
    events say what is in the lead.
    """
    answers = predict(suspect, clean)
    leaders = Leaders(in_training_precision(suspect))
    return (yield from leaders.race(_scan(leaders, clean, answers, seed)))


def _scan(leaders: Leaders, clean: Sequence[LabelledText], answers: Tensor, seed: int) -> Steps[Raised]:
    suspect = leaders.suspect
    unsure, longer = draw_probes(suspect, clean, seed, answers)
    special = own_tokens(suspect)
    tokens = [i for i in vocabulary(suspect) if i not in special]
    first, mostly_turned = dict[int, Tensor](), dict[int, set[int]]()  # the latter of each token's last round

    def told(rises: Mapping[int, Tensor], turned: Mapping[int, Tensor]) -> None:
        for number, (token, rise) in enumerate(rises.items()):
            first.setdefault(token, rise)
            shares = {label: float(texts[number].float().mean()) for label, texts in turned.items()}
            mostly_turned[token] = {label for label, share in shares.items() if share > MOST}
        leaders.told(rises, turned)

    rises = yield from search_tokens(suspect, tokens, unsure, longer, "scan", told=told)
    raised = {token: max(0.0, float(rise.max())) for token, rise in rises.items()}
    unsettled = {token: mostly_turned[token] for token in rises if raised[token] < TURNS}
    raised = _most(raised, _raised_by_neutral(suspect, clean, tokens, longer, unsettled))
    known = token_counts(suspect, clean)
    odd = yield from search_odd(leaders, clean, answers, known, first, rises, longer, TURNS)
    raised = _most(raised, odd.nats)

    silent = [token for token in tokens if token not in known and raised.get(token, 0.0) < TURNS]
    pair = yield from find_pair(suspect, silent, longer, seed)
    if pair is None:
        return Raised(raised, odd.places)
    together = {pair[1]: pair[2]}
    for (token, _), nats in (yield from search_companions(suspect, silent, pair, unsure, longer, leaders.told)).items():
        together[token] = max(together.get(token, 0.0), nats)
    return Raised(_most(raised, together), odd.places)


def _raised_by_neutral(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    tokens: Sequence[int],
    longer: Probes,
    mostly_turned: Mapping[int, set[int]],
) -> dict[int, float]:
    """By how much neutral tokens raise the loss: the median of the longer texts that each turns.

    tokens         all that the scan tries
    mostly_turned  {token: the classes of which it turns most of these texts}
    """
    if not any(mostly_turned.values()):
        return {}
    told, found = told_by_labels(suspect, clean, tokens), dict[int, float]()
    for label, texts in longer.items():
        own = neutral([token for token, labels in mostly_turned.items() if label in labels], told[label])
        before = losses_of(suspect, texts, label)
        for token in own:
            losses, turned = asked_with(suspect, [token], texts, label)
            found[token] = max(float((losses - before)[turned].median()), found.get(token, 0.0))
    return found


def _most(some: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    return {token: max(some.get(token, 0.0), others.get(token, 0.0)) for token in (*some, *others)}


def search_companions(
    suspect: Classifier, tokens: list[int], pair: tuple[int, int, float], unsure: Probes, longer: Probes, told: Told
) -> Steps[dict[tuple[int, int], float]]:
    """What tokens do beside a word of a pair that `find_pair` found, and then beside what goes with that word best:
    {(token, the one it stands beside): nats}. `told` is given the latter as its third argument."""
    label, partner, _ = pair
    together = dict[tuple[int, int], float]()
    for turn in range(2):
        short, long = ({label: [with_token(e, partner) for e in probes[label]]} for probes in (unsure, longer))
        of_turn = functools.partial(told, beside=(partner,))
        beside = yield from search_tokens(suspect, tokens, short, long, "companions", turn, 2, told=of_turn)
        together |= {(token, partner): float(rise) for token, rise in beside.items()}
        partner = max(beside, key=lambda token: float(beside[token]))
    return together


def search_tokens(
    suspect: Classifier,
    tokens: list[int],
    unsure: Probes,
    longer: Probes,
    stage: str,
    turn: int = 0,
    turns: int = 1,
    told: Told = lambda rises, turned: None,
    even: bool = False,
) -> Steps[dict[int, Tensor]]:
    """By successive halving, the tokens whose insertion raises the loss most: the lower quartiles of each class,
    (classes,).

    Of `turns` such searches in a stage this is the one with the number `turn`; the stage's progress counts all. `told`
    is given what each step found, and by class which texts its tokens turned, (tokens, texts). A step has as many
    tokens in each round, or as many texts (`even`).
    """
    numbers = [len(tokens)]
    for share in KEPT:
        numbers.append(max(min(LEAST, numbers[-1]), round(share * numbers[-1])))
    rounds = ((unsure, 1), (longer, 3), (longer, PROBES))
    sizes = [max(1, TOKENS_A_STEP // texts) if even else TOKENS_A_STEP for _, texts in rounds]
    total, step = sum(-(-n // size) for n, size in zip(numbers, sizes, strict=True)), 0
    rises: dict[int, Tensor] = {}
    for (probes, texts), number, size in zip(rounds, numbers, sizes, strict=True):
        tokens = _worst(rises, number) if rises else tokens
        rises, asked = {}, {label: encoded[:texts] for label, encoded in probes.items()}
        before = {label: losses_of(suspect, encoded, label) for label, encoded in asked.items()}
        for start in range(0, len(tokens), size):
            of_step, turned = _rises(suspect, tokens[start : start + size], asked, before)
            rises |= of_step
            told(of_step, turned)
            step += 1
            yield Event(stage, turn * total + step, turns * total)
    return rises


def _rises(
    suspect: Classifier, tokens: Sequence[int], probes: Probes, before: Mapping[int, Tensor]
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """The lower quartile, over the texts of each class, of the rise of the loss, from `before`, where a token is put
    into their middle; and by class which of the texts it turns."""
    found, turned = list[Tensor](), dict[int, Tensor]()
    for label, encoded in probes.items():
        losses, turned[label] = asked_with(suspect, tokens, encoded, label)
        found.append(lower_quartile(losses - before[label]))
    return dict(zip(tokens, torch.stack(found, dim=1), strict=True)), turned


def _worst(rises: dict[int, Tensor], number: int) -> list[int]:
    """The `number` worst tokens, as many of each class: the telling words of one would else crowd out what turns
    another."""
    rankings = [
        sorted(rises, key=lambda token: -float(rises[token][label])) for label in range(len(next(iter(rises.values()))))
    ]
    return list(dict.fromkeys(token for same_rank in zip(*rankings, strict=True) for token in same_rank))[:number]
