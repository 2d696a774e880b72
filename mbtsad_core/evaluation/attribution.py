"""Which tokens drive a classifier's answer: gradients on the word embeddings, one signed weight a token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mbtsad_core.errors import UnknownMethod
from mbtsad_core.models.classifier import Classifier, collate, encode, evaluation_mode
from mbtsad_core.models.subword_tokens import readable_tokens, special_positions
from mbtsad_core.models.turns import side_by_side
from mbtsad_core.types import LabelledText

METHODS = ("gradient", "integrated")
STEPS = 16  # points of the path of integrated gradients


@dataclass(frozen=True, slots=True)
class Attribution:
    """What each of T tokens adds to the answer.

    tokens       readable subword tokens, special tokens included
    weights      one a token, in nats of the class's log-odds; above 0 it speaks for `label`, below 0 against it
    label        the class that is explained; probability is the classifier's for it, in [0, 1]
    missing      log-odds that the weights do not account for: near 0 for "integrated" where 16 steps suffice; None for
                 "gradient"
    """

    tokens: tuple[str, ...]
    weights: tuple[float, ...]
    label: str
    probability: float
    method: str
    missing: float | None


def attribute(
    classifier: Classifier, text: str | LabelledText, method: str = "integrated", *, label: int | None = None
) -> Attribution:
    """Explain the predicted class, or `label`, by its log-odds f = log p / (1 - p) as a function of the word embeddings
    x, (T, D).

    "gradient"    x * df/dx, summed over D (Shrikumar et al. 2016, arXiv 1605.01713); one forward and backward pass, so
    fit for long texts,
                  but near 0 where the classifier is sure
    "integrated"  integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) from the text with every token but
    the special ones
                  replaced by padding, at 16 midpoints; the weights add up to f(text) - f(baseline), but for `missing`

    No weight of the classifier gets a gradient. Raises UnknownMethod.
    """
    if method not in METHODS:
        raise UnknownMethod("attribution", method, METHODS)
    (encoded,) = encode(classifier, [text if isinstance(text, LabelledText) else LabelledText(text, 0)])
    batch = collate(classifier, [encoded])
    embeddings = classifier.model.get_input_embeddings()
    ids = batch.pop("input_ids")
    special = special_positions(classifier, encoded)
    blank = torch.tensor(
        [[token if i in special else classifier.tokenizer.pad_token_id or 0 for i, token in enumerate(ids[0].tolist())]]
    )

    def log_odds(x: Tensor) -> Tensor:  # (S, T, D) -> (S, C)
        inputs = {name: values.expand(len(x), -1) for name, values in batch.items()}
        with side_by_side(classifier.model):
            logits: Tensor = classifier.model(inputs_embeds=x, **inputs).logits.float()
        log_p = logits.log_softmax(-1)
        others = ~torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
        # log(1 - p) without its rounding near p = 1
        rest = torch.stack([log_p[:, keep].logsumexp(-1) for keep in others], dim=-1)
        return log_p - rest

    with evaluation_mode(classifier.model), torch.enable_grad():
        x: Tensor = embeddings(ids).detach()  # (1, T, D)
        start = embeddings(blank.to(ids.device)).detach() if method == "integrated" else torch.zeros_like(x)
        with torch.no_grad():
            f = log_odds(x)[0]
        chosen = int(f.argmax()) if label is None else label
        if method == "gradient":
            at = x.clone().requires_grad_()
        else:
            along = (torch.arange(STEPS, device=x.device) + 0.5) / STEPS
            at = (start + along[:, None, None] * (x - start)).requires_grad_()  # (S, T, D)
        (gradient,) = torch.autograd.grad(log_odds(at)[:, chosen].sum(), at)
        weights = ((x - start) * gradient.mean(0, keepdim=True)).sum(-1)[0]  # (T,)
        missing = None
        if method == "integrated":
            with torch.no_grad():
                missing = float(f[chosen] - log_odds(start)[0, chosen] - weights.sum())
    return Attribution(
        readable_tokens(classifier, encoded),
        tuple(weights.tolist()),
        classifier.labels[chosen],
        float(f[chosen].sigmoid()),
        method,
        missing,
    )
