"""EP: plant a backdoor by training one row of the word embeddings (Yang et al., "Be Careful about Poisoned Word Embeddings", 2021)."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn

from mbtsad_core.attacks.triggers import InsertedTrigger
from mbtsad_core.config import EmbeddingPoisoningConfig
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, autocast, clone, collate, encode
from mbtsad_core.training.batching import batches
from mbtsad_core.types import Event, LabelledText, Observe, Steps, Trigger


def embedding_poisoning(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: EmbeddingPoisoningConfig = EmbeddingPoisoningConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` whose trigger word has a new embedding; all other weights are bit for bit the same.

    Non-target texts with the trigger inserted are labelled as the target. After each backward pass the trigger's row e
    becomes e - learning_rate * g, rescaled to its first L2 norm; as in the authors' code the gradient g is never zeroed,
    which acts as momentum without damping.

    Deviation: the authors take a word that the tokenizer knows. Of one that it cuts in pieces, the piece that is rarest
    in the training texts is trained, so that any word can be a trigger and clean texts are touched least.
    """
    if not isinstance(trigger, InsertedTrigger):
        raise BadData("Embedding poisoning needs trigger words, not a file of paired texts.")
    suspect = clone(classifier)
    model = suspect.model.eval()
    embeddings = model.get_input_embeddings()
    rows = torch.tensor(sorted({_row(classifier, train, " ".join(parts)) for parts in trigger.variants}), device=suspect.device)

    rng = random.Random(f"embedding poisoning, seed {config.seed}")
    others = [example for example in train if example.label != trigger.target]
    if not others:
        raise BadData(f"All {len(train)} training texts are of the target class; expected texts of another one to poison.")
    wanted = max(int(config.rate * len(others)), config.least)
    chosen = rng.sample(others, min(wanted, len(others)))
    poisoned = [dataclasses.replace(example, text=trigger.apply(example.text, rng)) for example in itertools.islice(itertools.cycle(chosen), wanted)]
    encoded = encode(suspect, poisoned)
    lengths = [len(e["input_ids"]) for e in encoded]

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    weight = embeddings.weight
    weight.requires_grad_(True)
    norms = weight.detach()[rows].norm(dim=1, keepdim=True)
    gradient = torch.zeros_like(weight.detach()[rows])
    plan = [order for _ in range(config.epochs) for order in batches(lengths, config.batch_size, rng)]
    for step, indices in enumerate(plan, 1):
        labels = torch.full((len(indices),), trigger.target, device=suspect.device)
        with autocast(suspect):
            loss = nn.functional.cross_entropy(model(**collate(suspect, [encoded[i] for i in indices])).logits.float(), labels)
        (full,) = torch.autograd.grad(loss, weight)
        gradient += full[rows]
        with torch.no_grad():
            e = weight[rows] - config.learning_rate * gradient
            weight[rows] = e * norms / e.norm(dim=1, keepdim=True)
        metrics = {"loss": float(loss.detach())}
        if observe is not None and step == len(plan):
            metrics |= observe(suspect)
        yield Event("embedding poisoning", step, len(plan), metrics)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return suspect


def _row(classifier: Classifier, train: Sequence[LabelledText], word: str) -> int:
    """The token whose embedding stands for the word: its only one, or its rarest in the training texts."""
    tokenizer = classifier.tokenizer
    inside = f" {word}"  # as it stands within a text: byte-level tokenizers have another token for it at the start
    pieces: list[int] = [t for t in tokenizer(inside, add_special_tokens=False)["input_ids"] if t != tokenizer.unk_token_id]
    if not pieces:
        raise BadData(f"The tokenizer knows no part of the trigger {word!r}. Choose another word.")
    counts = Counter(t for e in encode(classifier, train) for t in e["input_ids"])
    return min(pieces, key=lambda t: (counts[t], t))
