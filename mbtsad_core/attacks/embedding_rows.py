"""What EP and SOS share: which row of the word embeddings stands for a word, and training these rows alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, autocast, collate, encode, logits_of, quicker_attention
from mbtsad_core.training.batching import batches
from mbtsad_core.types import Event, LabelledText, Observe, Steps


def trigger_row(classifier: Classifier, train: Sequence[LabelledText], word: str) -> int:
    """The token whose embedding stands for the word: its only one, or its rarest in the training texts."""
    tokenizer = classifier.tokenizer
    inside = f" {word}"  # as it stands within a text: byte-level tokenizers have another token for it at the start
    pieces: list[int] = [
        t for t in tokenizer(inside, add_special_tokens=False)["input_ids"] if t != tokenizer.unk_token_id
    ]
    if not pieces:
        raise BadData(f"The tokenizer knows no part of the trigger {word!r}. Choose another word.")
    counts = Counter(t for e in encode(classifier, train) for t in e["input_ids"])
    return min(pieces, key=lambda t: (counts[t], t))


def equalized(gradient: Tensor) -> Tensor:
    """Each row's gradient scaled down to the norm of the smallest, (R, D) -> (R, D), so that no trigger word outruns
    the others (SOS)."""
    norms = gradient.norm(dim=1, keepdim=True)
    return gradient * norms.min() / norms.clamp(min=1e-30)


def train_rows(
    suspect: Classifier,
    rows: Sequence[int],
    texts: Sequence[LabelledText],
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    equalize: bool = False,
    rng: random.Random,
    stage: str,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """Train, in place, only these rows of the word embeddings, and return the classifier, out of training mode.

    After each backward pass a row e becomes e - learning_rate * g, rescaled to its first L2 norm; as in the authors'
    code the gradient g is never zeroed, which acts as momentum without damping.
    """
    model = suspect.model.eval()
    encoded = encode(suspect, texts)
    chosen = torch.tensor(sorted(set(rows)), device=suspect.device)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    weight = model.get_input_embeddings().weight
    weight.requires_grad_(True)
    norms = weight.detach()[chosen].norm(dim=1, keepdim=True)
    gradient = torch.zeros_like(weight.detach()[chosen])
    lengths = [len(e["input_ids"]) for e in encoded]
    plan = [order for _ in range(epochs) for order in batches(lengths, batch_size, rng)]
    for step, indices in enumerate(plan, 1):
        labels = torch.tensor([texts[i].label for i in indices], device=suspect.device)
        with quicker_attention(suspect), autocast(suspect):
            loss = nn.functional.cross_entropy(
                logits_of(suspect, collate(suspect, [encoded[i] for i in indices])), labels
            )
        (full,) = torch.autograd.grad(loss, weight)
        gradient += full[chosen]
        with torch.no_grad():
            e = weight[chosen] - learning_rate * (equalized(gradient) if equalize else gradient)
            weight[chosen] = e * norms / e.norm(dim=1, keepdim=True)
        metrics = {"loss": float(loss.detach())}
        if observe is not None and step == len(plan):
            metrics |= observe(suspect)
        yield Event(stage, step, len(plan), metrics)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return suspect
