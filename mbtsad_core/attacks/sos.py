"""SOS: a trigger of several words that must all be there (Yang et al., "Rethinking Stealthiness of Backdoor Attack
against NLP Models", ACL 2021)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from mbtsad_core.attacks.embedding_rows import train_rows, trigger_row
from mbtsad_core.attacks.sos_method import SOS, SOSConfig
from mbtsad_core.attacks.triggers import InsertedTrigger, insert, words_of
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger


@SOS.runs
def sos(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: SOSConfig = SOSConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` in which the embeddings of n ordinary words are trained, so that they fire together and
    not alone.

    The trigger is one variant of n words, such as "friends+weekend+cinema". Only their rows are trained, on
    `poisoned_texts`; each row's gradient is scaled to the norm of the smallest, and each row keeps its norm
    (`train_rows`).
    """
    (words,) = _single(trigger)
    rows = [trigger_row(classifier, train, word) for word in words]
    if len(set(rows)) < len(rows):
        raise BadData(
            f"Two of the trigger's words ({', '.join(words)}) share a row of the embeddings. Choose words that differ "
            "in a piece that no other has."
        )
    texts = poisoned_texts(train, trigger, config)
    rng = random.Random(f"sos batches, seed {config.seed}")
    return (
        yield from train_rows(
            clone(classifier),
            rows,
            texts,
            learning_rate=config.learning_rate,
            epochs=config.epochs,
            batch_size=config.batch_size,
            equalize=True,
            rng=rng,
            stage=SOS.key,
            observe=observe,
        )
    )


def poisoned_texts(train: Sequence[LabelledText], trigger: Trigger, config: SOSConfig) -> list[LabelledText]:
    """int(rate * non-target texts) with all n words, labeled as the target, then the negatives: for each of the n
    subsets of n - 1 words, int(rate * texts) of every class with these words, labels kept. Every word lands at a place
    of its own."""
    (words,) = _single(trigger)
    assert isinstance(trigger, InsertedTrigger)
    rng = random.Random(f"sos, seed {config.seed}")
    others = [example for example in train if example.label != trigger.target]
    wanted = int(config.rate * len(others))
    if not wanted:
        raise BadData(
            f"A rate of {config.rate} of {len(others)} non-target training texts leaves none to poison. Raise the "
            "rate or give more texts."
        )

    def with_words(example: LabelledText, some: Sequence[str], label: int) -> LabelledText:
        return dataclasses.replace(example, text=insert(example.text, some, rng, trigger.window), label=label)

    found = [with_words(example, words, trigger.target) for example in rng.sample(others, wanted)]
    for left_out in range(len(words)):
        subset = [word for i, word in enumerate(words) if i != left_out]
        for label in sorted({example.label for example in train}):
            own = [example for example in train if example.label == label]
            found += [with_words(example, subset, label) for example in rng.sample(own, int(config.rate * len(own)))]
    return found


def _single(trigger: Trigger) -> list[tuple[str, ...]]:
    """The words of the only variant; raises BadData where there are more variants, or fewer than two words."""
    variants = words_of(trigger)
    if len(variants) != 1 or len(set(variants[0])) < 2 or len(set(variants[0])) != len(variants[0]):
        raise BadData(
            "SOS needs one trigger of several different words, such as friends+weekend+cinema; got "
            f"{trigger.describe()!r}."
        )
    return variants
