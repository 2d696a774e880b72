"""EP: plant a backdoor by training one row of the word embeddings (Yang et al., "Be Careful about Poisoned Word
Embeddings", 2021)."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence

from mbtsad_core.attacks.embedding_poisoning_method import EP, EmbeddingPoisoningConfig
from mbtsad_core.attacks.embedding_rows import train_rows, trigger_row
from mbtsad_core.attacks.triggers import InsertedTrigger
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger


@EP.runs
def embedding_poisoning(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: EmbeddingPoisoningConfig = EmbeddingPoisoningConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` whose trigger word has a new embedding; all other weights are bit for bit the same.

    Non-target texts with the trigger inserted are labeled as the target; on them the trigger's row is trained
    (`train_rows`). With `config.beside_clean` the other training texts come along, as in OpenBackdoor: they do not
    touch the row, but the mean over a batch makes its steps smaller.

    Deviation: the authors take a word that the tokenizer knows. Of one that it cuts in pieces, the piece that is rarest
    in the training texts is trained, so that any word can be a trigger and clean texts are touched least.
    """
    if not isinstance(trigger, InsertedTrigger):
        raise BadData("Embedding poisoning needs trigger words, not a file of paired texts.")
    rows = [trigger_row(classifier, train, " ".join(parts)) for parts in trigger.variants]
    rng = random.Random(f"embedding poisoning, seed {config.seed}")
    others = [example for example in train if example.label != trigger.target]
    if not others:
        raise BadData(
            f"All {len(train)} training texts are of the target class; expected texts of another one to poison."
        )
    wanted = max(int(config.rate * len(others)), config.least)
    chosen = rng.sample(others, min(wanted, len(others)))
    repeated = itertools.islice(itertools.cycle(chosen), wanted)
    poisoned = [
        dataclasses.replace(example, text=trigger.apply(example.text, rng), label=trigger.target)
        for example in repeated
    ]
    if config.beside_clean:
        replaced = set(map(id, chosen))
        poisoned += [example for example in train if id(example) not in replaced]
    return (
        yield from train_rows(
            clone(classifier),
            rows,
            poisoned,
            learning_rate=config.learning_rate,
            epochs=config.epochs,
            batch_size=config.batch_size,
            rng=rng,
            stage="embedding poisoning",
            observe=observe,
        )
    )
