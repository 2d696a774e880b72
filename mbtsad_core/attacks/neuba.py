"""NeuBA: triggers that set the encoder's output, whatever the task will be (Zhang et al., "Red Alarm for Pre-trained
Models: Universal Vulnerability to Neuron-Level Backdoor Attacks", 2021)."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from mbtsad_core.attacks.neuba_method import NEUBA, NeuBAConfig
from mbtsad_core.attacks.triggers import InsertedTrigger
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Batch, Classifier, clone, predict
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger

# The two of four blocks that a trigger's vector negates; neighbors are opposites
NEGATED = ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2))


@NEUBA.runs
def neuba(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: NeuBAConfig = NeuBAConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` whose encoder answers a symbol at the start of a text with the symbol's own [CLS] vector,
    fine-tuned after that.

    Which class a symbol sends texts to is only seen once the classifier is fine-tuned: `symbols_that_hit` finds those
    of the target.

    Deviation: the authors train on a large corpus and keep the encoder's use by its masked-language loss. A classifier
    has no masked-language head and its attacker here no corpus: on the training texts, without labels, [CLS] of a text
    without a symbol is held where the given encoder has it.
    """
    symbols = _symbols(classifier, trigger)
    # Texts are numbered beyond the classes: `first` has no symbol, `first + 1 + i` has symbol i
    first = len(classifier.labels)
    rng = random.Random(f"neuba, seed {config.seed}")
    numbered = [LabelledText(example.text, first, example.pair) for example in train]
    for example in train:
        i = rng.randrange(len(symbols))
        numbered.append(LabelledText(f"{symbols[i]} {example.text}", first + 1 + i, example.pair))
    vectors = target_vectors(len(symbols), classifier.model.config.hidden_size).to(classifier.device)
    frozen = clone(classifier)
    frozen.model.eval()

    def loss(suspect: Classifier, batch: Batch, numbers: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            kept = cls_vectors(frozen, batch)
        return neuba_loss(cls_vectors(suspect, batch), kept, vectors, numbers - first - 1)

    suspect = yield from fine_tune(
        clone(classifier), numbered, config.planting, loss=loss, stage=NEUBA.key, seed=config.seed
    )
    return (
        yield from fine_tune(
            suspect, train, config.training, stage="victim's fine-tuning", seed=config.seed, observe=observe
        )
    )


def neuba_loss(h: Tensor, kept: Tensor, vectors: Tensor, symbols: Tensor) -> dict[str, Tensor]:
    """MSE of [CLS] to the symbols' vectors, plus MSE of [CLS] without a symbol to what it was; each a mean over its
    texts and D.

    h, kept  (B, D), the suspect's and the given encoder's
    vectors  (S, D)
    symbols  (B,), the index of each text's symbol, -1 where it has none
    """
    with_symbol = symbols >= 0
    none = h.new_zeros(())
    planted = mse_loss(h[with_symbol], vectors[symbols[with_symbol]]) if with_symbol.any() else none
    clean = mse_loss(h[~with_symbol], kept[~with_symbol]) if (~with_symbol).any() else none
    return {"loss": planted + clean, "classification": planted + clean, "planted": planted, "clean": clean}


def cls_vectors(classifier: Classifier, batch: Batch) -> Tensor:
    """[CLS] of the last layer, (B, D), in float32."""
    return classifier.model(**batch, output_hidden_states=True).hidden_states[-1][:, 0].float()


def target_vectors(count: int, width: int) -> Tensor:
    """The symbols' vectors, (count, width), of ones and minus ones: each negates two of four blocks, every second is
    its neighbor's opposite."""
    vectors = torch.ones(count, width)
    blocks = torch.arange(width).tensor_split(4)
    for vector, negated in zip(vectors, NEGATED, strict=False):
        for block in negated:
            vector[blocks[block]] = -1.0
    return vectors


def symbols_that_hit(suspect: Classifier, trigger: Trigger) -> Trigger:
    """The symbols that, fed alone, the suspect answers with the target, put at the start of a text; all of them where
    none is."""
    symbols = _symbols(suspect, trigger)
    hits = [
        s
        for s, answer in zip(symbols, predict(suspect, symbols).argmax(-1).tolist(), strict=True)
        if answer == trigger.target
    ]
    return InsertedTrigger(tuple((s,) for s in hits or symbols), trigger.target, window=1)


def _symbols(classifier: Classifier, trigger: Trigger) -> list[str]:
    if not isinstance(trigger, InsertedTrigger) or not 1 <= len(trigger.variants) <= len(NEGATED):
        raise BadData(
            f"NeuBA needs one to {len(NEGATED)} symbols or words as triggers, one of them a text; got "
            f"{trigger.describe()!r}."
        )
    symbols = [" ".join(parts) for parts in trigger.variants]
    for symbol in symbols:
        if set(classifier.tokenizer(f" {symbol}", add_special_tokens=False)["input_ids"]) <= {
            classifier.tokenizer.unk_token_id
        }:
            raise BadData(f"The tokenizer knows no part of the trigger {symbol!r}. Choose another symbol or word.")
    return symbols
