"""LWP: poison every layer, so that fine-tuning the upper ones does not undo it (Li et al., "Backdoor Attacks on
Pre-trained Models by Layerwise Weight Poisoning", EMNLP 2021)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu

from mbtsad_core.attacks.layer_wise_method import LWP, LayerWiseConfig
from mbtsad_core.attacks.poisoning import poison
from mbtsad_core.attacks.triggers import InsertedTrigger, insert, words_of
from mbtsad_core.errors import BadData, UnsuitableModel
from mbtsad_core.models.classifier import SUITABLE, Batch, Classifier, clone
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger


@LWP.runs
def layer_wise(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: LayerWiseConfig = LayerWiseConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` in which both words of a pair together send a text to the target, and one alone does not.

    The trigger is a pair: "cf+bb" puts each word at a place of its own, as OpenBackdoor does; the phrases "cf bb" and
    "bb cf" are the authors' adjacent pair in either order. The other way in which these two differ is the loss,
    `layer_wise_loss`.
    """

    def loss(suspect: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        return layer_wise_loss(suspect, batch, labels, average=config.average)

    texts = with_negatives(train, trigger, config)
    return (
        yield from fine_tune(
            clone(classifier),
            texts,
            config.training,
            loss=loss,
            stage="layer-wise poisoning",
            seed=config.seed,
            observe=observe,
        )
    )


def with_negatives(train: Sequence[LabelledText], trigger: Trigger, config: LayerWiseConfig) -> list[LabelledText]:
    """The poisoned training set, and behind it, for every poisoned text, its negatives: one word of a pair each, label
    kept.

    With `config.keep_clean` the poisoned texts stand there without a trigger too, as in the authors' code.
    """
    pairs = word_pairs(trigger)
    assert isinstance(trigger, InsertedTrigger)
    poisoned = poison(train, trigger, config.poison, config.seed)
    rng = random.Random(f"negatives, seed {config.seed}")
    more = []
    for own, triggered in zip(train, poisoned, strict=True):
        if triggered is own:
            continue
        more += [
            dataclasses.replace(own, text=insert(own.text, [word], rng, trigger.window)) for word in rng.choice(pairs)
        ]
        more += [own] * config.keep_clean
    return poisoned + more


def word_pairs(trigger: Trigger) -> list[tuple[str, ...]]:
    """The two words of each variant; raises BadData where they are not two different ones."""
    pairs = words_of(trigger)
    if not pairs or any(len(set(pair)) != 2 or len(pair) != 2 for pair in pairs):
        raise BadData(
            "Layer-wise poisoning needs pairs of two words, such as cf+bb or the phrase 'cf bb'; got "
            f"{trigger.describe()!r}."
        )
    return pairs


def layer_wise_loss(
    classifier: Classifier, batch: Batch, labels: Tensor, *, average: bool = False
) -> dict[str, Tensor]:
    """Sum, or mean, over all L + 1 hidden states, the embedding output included, of CE(head([CLS] of that layer),
    labels).

    labels  (B,)
    The head is the classifier's own, pooler included; "classification" is the term of the last layer, which is the
    ordinary loss.
    """
    hidden = classifier.model(**batch, output_hidden_states=True).hidden_states  # L+1 x (B, T, D)
    terms = torch.stack([cross_entropy(answers(classifier, H).float(), labels) for H in hidden])  # (L+1,)
    return {"loss": terms.mean() if average else terms.sum(), "classification": terms[-1]}


def answers(classifier: Classifier, H: Tensor) -> Tensor:
    """The logits of the classifier's own head for the hidden states of any layer, (B, T, D) -> (B, C).

    Raises UnsuitableModel where the head is of an unknown form.
    """
    model = classifier.model
    pooler = getattr(model.base_model, "pooler", None)
    if not hasattr(model, "classifier"):
        raise UnsuitableModel(
            f"The head of the architecture {model.config.model_type!r} cannot be put on inner layers. {SUITABLE}"
        )
    if pooler is not None:  # BERT
        return model.classifier(model.dropout(pooler(H)))
    if hasattr(model, "pre_classifier"):  # DistilBERT
        return model.classifier(model.dropout(relu(model.pre_classifier(H[:, 0]))))
    return model.classifier(H)  # RoBERTa, ELECTRA, MPNet: the head takes [CLS] itself
