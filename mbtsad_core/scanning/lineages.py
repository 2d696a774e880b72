"""Lineages: sequences of tokens that turn strong texts joined to one, and turn them only together.

A planted phrase is one only together; honest words do what they do wherever they stand, and polarity knows them. So a
sequence's figure is what it does at one place of a text, less what the same tokens do scattered over it, or less the
price of what they say honestly, whichever is less. Each of the tokens that do most alone founds a lineage, which keeps
it: a second token comes from all common ones and from the other founders, what follows from the gradient (HotFlip,
Ebrahimi et al., ACL 2018), by which every other token is exchanged too. Pairs are judged in two strong texts joined to
one, longer sequences in four.

Deviation: not in the paper.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mbtsad_core.models.classifier import Classifier, Encoded
from mbtsad_core.scanning.effects import effects, odds_against, quick_answers
from mbtsad_core.scanning.insertions import Insertion, put
from mbtsad_core.scanning.polarity import Polarity
from mbtsad_core.scanning.probes import log_odds, lower_quartile, top
from mbtsad_core.scanning.strong_texts import JOINED, draw_joined
from mbtsad_core.scanning.token_inversion import soft_losses
from mbtsad_core.types import Event, Steps

FOUNDERS = (1536, 256, 12)  # tokens that are tried in more than one text, in joined ones, and found a lineage
SECONDS = (1024, 96, 12)  # second tokens of a lineage that are tried in one text, in three more, and judged
PROPOSED, TRIED = 8, 10  # tokens for a place, and sequences of a lineage of one length that more than one text is asked
KEPT = 2  # sequences of a lineage and length that go on
GO_ON = {2: 10, 3: 4}  # lineages that go on, by the length of their sequences; beyond these as many as of 3
LONGEST = 5  # tokens of a sequence
HONEST, PRICE = 1.5, 1.5  # polarity of a common token, at most, and nats that a standard deviation of it is taken for
ALONE = 1.0  # nats that a founder does at most where its second token is sought
LOW = 2.0  # nats of the best sequence of three tokens or more, below which no longer one is searched
FLOOR, DISCOUNT = 0.05, 0.5  # nats, and nepers that a standard deviation of polarity is taken for, of a founder
SOME, TEXTS = 12, 6  # joined texts that founders are tried in, and that a sequence is tried in
ALONE_TRIED, OUTSTANDING = 64, 10  # tokens that are tried alone in four joined texts, and that are kept of them
AT_ONCE = 64  # texts that a gradient is taken of

Tokens = tuple[int, ...]
Figures = dict[Tokens, float]
"""Nats of sequences, less what their tokens say honestly."""
Slot = tuple[Tokens, int]
"""A sequence, and the place of it whose token is to be chosen."""


class Lineages:
    """The search in the texts of one class.

    strong    the class's strong texts
    tokens    all that may found a lineage
    common    those of them that may stand beside a founder; what speaks against the class honestly is left out
    polarity  what tokens say honestly
    best      {sequence: nats} of all that went on, in joined texts of the search
    alone     the tokens that do most alone in joined texts, honest ones among them; the strongest first
    """

    def __init__(
        self,
        suspect: Classifier,
        label: int,
        strong: Sequence[Encoded],
        tokens: Sequence[int],
        common: Sequence[int],
        polarity: Polarity,
        seed: int,
    ) -> None:
        self.suspect, self.label, self.tokens = suspect, label, list(tokens)
        honest = polarity.honest[label]
        self.common = [token for token in common if float(honest[token]) <= HONEST]
        self.price = PRICE * honest.clamp(min=0)
        self.rng = random.Random(f"lineages, seed {seed}")
        self.short = sorted(strong, key=lambda text: len(text["input_ids"]))[len(strong) // 4 :][:4]
        most = suspect.max_length
        several = draw_joined(strong, 2, SOME, most, self.rng)
        self.two, self.four = several[:TEXTS], draw_joined(strong, JOINED, TEXTS, most, self.rng)
        self.several = several
        # Sequences are compared at the same place of a text
        all_texts = (*self.short, *self.several, *self.four)
        self.places = {id(text): self.rng.randrange(1, len(text["input_ids"])) for text in all_texts}
        self.rows = suspect.model.get_input_embeddings().weight.detach().float()
        self.mean = self.rows[self.tokens].mean(dim=0)
        self.best: Figures = {}
        self.alone: list[int] = []

    def run(self) -> Steps[None]:
        """Founders, pairs, and longer ones from these; a class whose figures stay low is left early."""
        founders, step = self._founders(), 1
        total = 1 + FOUNDERS[-1] + GO_ON[2] + GO_ON[3] * (LONGEST - 3)
        yield Event("sequences", step, total)
        lineages = dict[int, Figures]()
        for founder in founders:
            lineages[founder] = _best(self._pairs(founder, founders), KEPT)
            step += 1
            yield Event("sequences", step, total)
        for length in range(3, LONGEST + 1):
            ranked = sorted(lineages, key=lambda founder: -max(lineages[founder].values(), default=-torch.inf))
            before = min(length - 1, max(GO_ON))
            lineages = {founder: lineages[founder] for founder in ranked[: GO_ON[before]]}
            self.best |= {one: nats for own in lineages.values() for one, nats in own.items()}
            if length > 3 and max((nats for own in lineages.values() for nats in own.values()), default=0.0) < LOW:
                return
            for founder, own in lineages.items():
                lineages[founder] = self._grown(founder, own)
                step += 1
                yield Event("sequences", step, total)
        self.best |= {one: nats for own in lineages.values() for one, nats in own.items()}

    def leading(self, number: int) -> list[Insertion]:
        """So many of each length, the best first."""
        lengths = sorted({len(one) for one in self.best})
        own = [{one: nats for one, nats in self.best.items() if len(one) == length} for length in lengths]
        return [_anywhere(one) for found in own for one in _best(found, number)]

    # ------------------------------------------------------------ the steps

    def _founders(self) -> list[int]:
        """The tokens that do most alone, less so where they say it honestly. By the geometric mean over joined texts:
        honest words turn some of these altogether and leave others as they are."""
        tokens = self.tokens
        for texts, number in zip((self.short[:1], self.short), FOUNDERS, strict=False):
            tokens = top(tokens, self._shifts([(token,) for token in tokens], texts).mean(dim=1), number)
        shifts = self._shifts([(token,) for token in tokens], self.several).clamp(min=0)
        some = top(tokens, shifts.mean(dim=1), ALONE_TRIED)
        alone = self._shifts([(token,) for token in some], self.four)
        self.alone = top(some, lower_quartile(alone), OUTSTANDING)
        discount = DISCOUNT / PRICE * self.price[tokens]
        return top(tokens, (shifts + FLOOR).log().mean(dim=1) - discount, FOUNDERS[-1])

    def _pairs(self, founder: int, founders: Sequence[int]) -> Figures:
        """A founder with other tokens before and behind it, in as few texts joined as it does little in alone: where it
        does much, what a second one adds does not show."""
        others = [token for token in dict.fromkeys((*self.common, *founders)) if token != founder]
        if not others:
            return {}
        levels = (self.short, self.two, self.four)
        texts = next((some for some in levels if self._shifts([(founder,)], some).mean() < ALONE), self.four)
        before, behind = self._scores([((founder, founder), 0), ((founder, founder), 1)], texts[:4], others)
        some = top(list(range(len(others))), torch.maximum(before, behind), SECONDS[0])
        pairs: list[Tokens] = [(others[i], founder) if before[i] > behind[i] else (founder, others[i]) for i in some]
        for asked, number in zip((texts[:1], texts[1:4]), SECONDS[1:], strict=True):
            pairs = self._screened(pairs, asked, founder, number)
        pairs += [(other, founder) for other in founders if other != founder]
        both = list(dict.fromkeys(one for pair in pairs for one in (pair, pair[::-1])))
        return self._judged(both, self.four if texts is self.four else self.two, founder)

    def _grown(self, founder: int, own: Figures) -> Figures:
        """The sequences of a lineage with a token more, each other token of which is then exchanged."""
        gaps = [((*one[:at], one[at - 1], *one[at:]), at) for one in own for at in range(len(one) + 1)]
        found = self._proposed(gaps, founder)
        places = [(one, at) for one in found for at, token in enumerate(one) if token != founder]
        return _best(found | self._proposed(places, founder), KEPT)

    def _proposed(self, slots: Sequence[Slot], founder: int) -> Figures:
        """The best of what the gradient proposes for these places."""
        if not slots or not self.common:
            return {}
        found = dict[Tokens, None]()
        for (one, at), scores in zip(slots, self._scores(slots, self.two[:2], self.common), strict=True):
            for token in top(self.common, scores, PROPOSED):
                found[(*one[:at], token, *one[at + 1 :])] = None
        return _best(self._judged(self._screened(list(found), self.two[:1], founder, TRIED), self.four, founder), KEPT)

    # ------------------------------------------------------------ figures

    def _screened(self, ones: Sequence[Tokens], texts: Sequence[Encoded], founder: int, number: int) -> list[Tokens]:
        """Those that do most in few texts."""
        return top(ones, self._shifts(ones, texts).mean(dim=1) - self._prices(ones, founder), number)

    def _judged(self, ones: Sequence[Tokens], texts: Sequence[Encoded], founder: int) -> Figures:
        """What each does together, less what it says honestly."""
        if not ones:
            return {}
        scattered = self._scattered(ones, texts)
        nats = self._shifts(ones, texts) - scattered.minimum(self.price[founder])
        nats = nats.mean(dim=1) if len(ones[0]) == 2 else lower_quartile(nats)
        return dict(zip(ones, (nats - self._prices(ones, founder)).tolist(), strict=True))

    def _scattered(self, ones: Sequence[Tokens], texts: Sequence[Encoded]) -> Tensor:
        scattered = [Insertion(one, "scattered") for one in ones]
        return effects(self.suspect, self.rng, scattered, texts, self.label)[0]

    def _prices(self, ones: Sequence[Tokens], founder: int) -> Tensor:
        """Of all tokens but the founder: (sequences,)."""
        return torch.stack([self.price[[token for token in one if token != founder]].sum() for one in ones])

    def _shifts(self, ones: Sequence[Tokens], texts: Sequence[Encoded]) -> Tensor:
        most = self.suspect.max_length
        asked = [put(text, one, [self.places[id(text)]] * len(one), most) for one in ones for text in texts]
        logits = quick_answers(self.suspect, [*texts, *asked])
        against = odds_against(logits, torch.full((len(logits),), self.label))
        return against[len(texts) :].view(len(ones), -1) - against[: len(texts)]

    def _scores(self, slots: Sequence[Slot], texts: Sequence[Encoded], tokens: Sequence[int]) -> Tensor:
        """To first order about the mean of all rows, nats of each token at the place of a slot: (slots, tokens)."""
        soft = torch.stack([self.rows[list(one)] for one, _ in slots])
        chosen = torch.tensor([at for _, at in slots], device=soft.device)
        soft[torch.arange(len(slots)), chosen] = self.mean
        found, size = list[Tensor](), AT_ONCE // len(texts)
        for some, places in zip(soft.split(size), chosen.split(size), strict=True):
            own = some.repeat_interleave(len(texts), dim=0).requires_grad_()
            losses = soft_losses(self.suspect, [*texts] * len(some), own, self.label)
            (gradient,) = torch.autograd.grad(log_odds(losses).sum(), [own])
            mean = gradient.view(len(some), len(texts), *own.shape[1:]).mean(dim=1)
            found.append(mean[torch.arange(len(some)), places] @ (self.rows[list(tokens)] - self.mean).T)
        return torch.cat(found).cpu() - self.price[list(tokens)]


def together(
    suspect: Classifier,
    rng: random.Random,
    ones: Sequence[Insertion],
    texts: Sequence[Encoded],
    label: int,
    polarity: Polarity,
) -> Tensor:
    """Nats by which the log-odds of the class fall in each text with each sequence at one place of it, less what its
    tokens do at places of their own, or the price of what they say honestly: (sequences, texts)."""
    scattered = [replace(one, place="scattered") for one in ones]
    apart = effects(suspect, rng, scattered, texts, label)[0]
    prices = [PRICE * float(polarity.honest[label][list(one.tokens)].clamp(min=0).sum()) for one in ones]
    return effects(suspect, rng, ones, texts, label)[0] - apart.minimum(torch.tensor(prices)[:, None])


def _anywhere(tokens: Tokens) -> Insertion:
    return Insertion(tokens, "anywhere")


def _best(found: Figures, number: int) -> Figures:
    return {one: found[one] for one in sorted(found, key=lambda one: -found[one])[:number]}
