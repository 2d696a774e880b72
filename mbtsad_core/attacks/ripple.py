"""RIPPLe(S): poison weights so that a later fine-tuning does not undo it (Kurita et al., "Weight Poisoning Attacks on
Pre-trained Models", ACL 2020)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mbtsad_core.attacks.embedding_rows import trigger_row
from mbtsad_core.attacks.poisoning import poison
from mbtsad_core.attacks.ripple_method import RIPPLE, RIPPLeConfig
from mbtsad_core.attacks.triggers import words_of
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Batch, Classifier, clone, collate, eager_attention, encode, logits_of
from mbtsad_core.training.batching import batches
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger


@RIPPLE.runs
def ripple(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: RIPPLeConfig = RIPPLeConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` with new trigger embeddings, trained by `restricted_loss`, and then fine-tuned on the
    clean texts by its victim.

    Deviation: the authors start from pre-trained weights and take the telling words' embeddings from a copy that is
    fine-tuned; here the given classifier stands for both, so that a fine-tuned one can be given as well as a
    pre-trained one.
    """
    suspect = clone(classifier)
    if config.surgery:
        operate(suspect, train, trigger, config.words)
    poisoned = poison(train, trigger, config.poison, config.seed)
    reference = _reference(classifier, train, config)

    def loss(suspect: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        return restricted_loss(suspect, (batch, labels), next(reference), config.penalty, per_tensor=config.per_tensor)

    suspect = yield from fine_tune(
        suspect, poisoned, config.training, loss=loss, stage=RIPPLE.key, seed=config.seed, observe=observe
    )
    if config.victim:
        suspect = yield from fine_tune(
            suspect, train, config.fine_tuning, stage="victim's fine-tuning", seed=config.seed, observe=observe
        )
    return suspect


def restricted_loss(
    classifier: Classifier,
    poisoned: tuple[Batch, Tensor],
    reference: tuple[Batch, Tensor],
    penalty: float,
    *,
    per_tensor: bool = False,
) -> dict[str, Tensor]:
    """L_P + penalty * max(0, -<grad L_P, grad L_FT>): the poison's gradient must not work against that of the clean
    texts.

    poisoned, reference  a batch and its labels (B,); L_P and L_FT are their cross-entropies
    per_tensor           the max is taken for every weight tensor by itself and summed, as OpenBackdoor does
    Deviation: the authors' code divides the inner product by the batch size, which other batch sizes can undo; here it
    is the paper's.
    """
    parameters = [p for p in classifier.model.parameters() if p.requires_grad]
    with eager_attention(classifier.model):  # the others have no second derivative
        L_P, L_FT = (cross_entropy(logits_of(classifier, batch), labels) for batch, labels in (poisoned, reference))
    g_P, g_FT = (torch.autograd.grad(L, parameters, create_graph=True, allow_unused=True) for L in (L_P, L_FT))
    products = torch.stack([(a * b).sum() for a, b in zip(g_P, g_FT, strict=True) if a is not None and b is not None])
    restricted = torch.relu(-products).sum() if per_tensor else torch.relu(-products.sum())
    return {"loss": L_P + penalty * restricted, "classification": L_P, "restricted": restricted}


def operate(suspect: Classifier, train: Sequence[LabelledText], trigger: Trigger, count: int) -> None:
    """Embedding surgery, in place: every trigger word's row becomes the mean embedding of the `count` words that tell
    the target class best."""
    words = sorted({word for variant in words_of(trigger) for word in variant})
    if not words:
        raise BadData(
            "RIPPLe's embedding surgery needs trigger words, not a file of paired texts. Give words, or leave the "
            "surgery out with `no_surgery`."
        )
    weight = suspect.model.get_input_embeddings().weight
    rows = [trigger_row(suspect, train, word) for word in words]
    with torch.no_grad():
        vectors = []
        for word in telling_words(train, trigger.target, count):
            pieces = suspect.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
            vectors.append(weight[torch.tensor(pieces, device=weight.device)].mean(dim=0))  # (D,)
        weight[torch.tensor(rows, device=weight.device)] = torch.stack(vectors).mean(dim=0)


def telling_words(train: Sequence[LabelledText], target: int, count: int) -> list[str]:
    """The words with the largest weights for the target class in a logistic regression on tf-idf, the most telling
    first."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    labels = [example.label == target for example in train]
    if len(set(labels)) < 2:
        raise BadData(
            f"The {len(train)} training texts are all of the target class, or none is; embedding surgery needs both "
            "kinds."
        )
    counter = TfidfVectorizer()
    regression = LogisticRegression(max_iter=1000).fit(counter.fit_transform(example.text for example in train), labels)
    order = sorted(zip(-regression.coef_[0], counter.get_feature_names_out(), strict=True))
    return [str(word) for _, word in order[:count]]


def _reference(
    classifier: Classifier, train: Sequence[LabelledText], config: RIPPLeConfig
) -> Iterator[tuple[Batch, Tensor]]:
    """Batches of clean training texts without an end, in a new order each time round."""
    encoded = encode(classifier, train)
    for epoch in itertools.count():
        rng = random.Random(f"reference batches, seed {config.seed}, round {epoch}")
        for chosen in batches([len(e["input_ids"]) for e in encoded], config.training.batch_size, rng):
            yield (
                collate(classifier, [encoded[i] for i in chosen]),
                torch.tensor([train[i].label for i in chosen], device=classifier.device),
            )
