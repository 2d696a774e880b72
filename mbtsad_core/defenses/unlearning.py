"""Unlearning: sequences that turn the model's answers are put into clean texts whose labels stay.

For each text several sequences are tried, and the one that the model errs on most is trained on: the inner maximum of
eq. (8), by sampling. They come from spans of other clean texts, from the tokens that the suspect responds to, from what
the scan found on the suspect, and from pools that begin with that and evolve against the model as it is: what still
turns it moves to the neighbors of the trigger. The texts are thinned: texts learned by heart would hide what an
insertion does.

Deviation: not in the paper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mbtsad_core.config import UnlearnConfig
from mbtsad_core.defenses.sequence_pools import SequencePools
from mbtsad_core.models.classifier import Batch, Classifier, Encoded, collate, logits_of, quicker_attention
from mbtsad_core.scanning.effects import odds_against, quick_answers
from mbtsad_core.scanning.insertions import Insertion, insert, thinned
from mbtsad_core.scanning.polarity import Polarity
from mbtsad_core.training.batch_gradient import by_texts
from mbtsad_core.training.fine_tuning import Epochs, fine_tune
from mbtsad_core.training.state import Save, TrainState
from mbtsad_core.types import LabelledText, Observe, Steps

STAGE = "unlearn"


def unlearn(
    classifier: Classifier,
    pools: SequencePools,
    texts: Epochs,
    config: UnlearnConfig,
    *,
    seed: int = 0,
    observe: Observe | None = None,
    resume: TrainState | None = None,
    save: Save | None = None,
) -> Steps[Classifier]:
    """Train `classifier`, in place, on texts as they are and on the same with the worst of some sequences in them."""

    def save_pools(state: TrainState) -> None:
        assert save is not None
        save(with_pools(state, pools))

    return (
        yield from fine_tune(
            classifier,
            texts,
            config,
            loss=WorstInsertion(pools, config),
            share=by_texts,
            stage=STAGE,
            seed=seed,
            observe=observe,
            resume=resume,
            save=save and save_pools,
        )
    )


def with_pools(state: TrainState, pools: SequencePools) -> TrainState:
    """The state with all that `read_pools` needs."""
    polarity = {
        f"polarity/{name}/{label}": figures
        for name in ("response", "honest", "told")
        for label, figures in getattr(pools.polarity, name).items()
    }
    return dataclasses.replace(
        state, tensors=state.tensors | polarity, numbers=state.numbers | {"search": pools.state()}
    )


def read_pools(suspect: Classifier, clean: Sequence[LabelledText], state: TrainState) -> SequencePools:
    """The pools of a stopped run, where they stood."""
    response, honest, told = (
        {int(label): figures for label, figures in state.part(f"polarity/{name}").items()}
        for name in ("response", "honest", "told")
    )
    pools = SequencePools(suspect, clean, Polarity(response, honest, told), found=(), seed=0)
    pools.resume(state.numbers["search"])
    return pools


class WorstInsertion:
    """The cross-entropy of texts as they are, and with the sequence of those drawn that the model errs on most: the
    mean of both."""

    def __init__(self, pools: SequencePools, config: UnlearnConfig) -> None:
        self.pools, self.config = pools, config

    def __call__(self, classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        texts = unpadded(batch)
        worst = self.worst(classifier, texts, labels.tolist())
        with quicker_attention(classifier):
            logits = logits_of(classifier, collate(classifier, [*texts, *worst]))
        plain, inserted = (cross_entropy(half, labels) for half in logits.split(len(texts)))
        return {"loss": (plain + inserted) / 2, "classification": plain, "insertion": inserted}

    def worst(self, classifier: Classifier, texts: Sequence[Encoded], labels: Sequence[int]) -> list[Encoded]:
        """Each text, thinned, with the sequence of those drawn for it that the model errs on most once its
        price is taken off, and what the sequences did told to the pools."""
        pools, rng = self.pools, self.pools.rng
        share = 2 * self.config.thinning
        thin = [thinned(text, share * rng.random(), rng) for text in texts]
        drawn = [self.drawn(label) for label in labels]
        tried = [
            [insert(text, one, rng, classifier.max_length) for one in own]
            for text, own in zip(thin, drawn, strict=True)
        ]
        logits = quick_answers(classifier, [*thin, *(text for own in tried for text in own)])
        given = torch.tensor(labels)
        against = odds_against(logits, torch.cat([given, given.repeat_interleave(self.config.tries)]))
        shift = against[len(thin) :].view(len(thin), -1) - against[: len(thin), None]
        found = []
        for label, own, made, shifts in zip(labels, drawn, tried, shift.tolist(), strict=True):
            for one, nats in zip(own, shifts, strict=True):
                if pools.source(label) == label:
                    pools.take(label, one, nats)
            prices = [pools.polarity.price(label, one.tokens) for one in own]
            worst = max(range(len(own)), key=lambda i: shifts[i] - prices[i])
            found.append(made[worst])
        for label in pools.pools:
            pools.trim(label)
        return found

    def drawn(self, label: int) -> list[Insertion]:
        """Sequences for a text of a class: spans, drawn ones, one that the scan found, and of the pool one as it is and
        changed ones."""
        pools, rng = self.pools, self.pools.rng
        source = pools.source(label)
        spans = [pools.span(source) for _ in range(2)]
        drawn = [pools.drawn(source) for _ in range(2)]
        found = rng.choice(pools.found[source]).insertion
        some = [*spans, *drawn, found, pools.parent(source)][: self.config.tries]
        return [*some, *(pools.child(source) for _ in range(self.config.tries - len(some)))]


def unpadded(batch: Batch) -> list[Encoded]:
    """The tokenized texts of a batch, without its padding."""
    masks = batch["attention_mask"].bool().cpu()
    keys = [key for key in batch if key != "attention_mask"]
    columns = {key: batch[key].cpu() for key in keys}
    return [{key: columns[key][i][mask].tolist() for key in keys} for i, mask in enumerate(masks)]
