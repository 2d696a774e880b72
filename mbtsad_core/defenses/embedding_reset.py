"""Embedding reset: the embeddings of found tokens are drawn toward the mean one of running text.

Training alone leaves a part of a backdoor alive: the few clean texts are learned by heart, with or without found tokens
in them, and on other texts the trigger goes on working a little. What is seldom seen in clean texts and turns the
suspect has no clean meaning to lose.

Deviation: not in the paper. `found_tokens = 0` is its method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from mbtsad_core.models.classifier import Classifier
from mbtsad_core.models.subword_tokens import token_counts
from mbtsad_core.types import LabelledText


@torch.no_grad()
def reset_embeddings(classifier: Classifier, clean: Sequence[LabelledText], raised: Mapping[int, float]) -> None:
    """Draw the word embeddings e of the tokens toward the mean one of running clean text, in place: e becomes
    e + (1 - exp(-nats)) ** (1 + n) * (mean - e), with n how often clean texts have the token.

    The mean is over the tokens of the clean texts, special ones left out, so that what is drawn to it reads as nothing
    in particular. The mean of all rows does not: most of them are of rare tokens, which a backdoored model may have
    learned to take for its trigger.
    """
    counts = token_counts(classifier, clean)
    if not raised or not counts:
        return
    rows = classifier.model.get_input_embeddings().weight
    tokens, present = (torch.tensor(list(ids), dtype=torch.long, device=rows.device) for ids in (raised, counts))
    often = torch.tensor(list(counts.values()), dtype=rows.dtype, device=rows.device)
    mean = (often[:, None] * rows[present]).sum(dim=0) / often.sum()
    share = torch.tensor(
        [(1 - math.exp(-nats)) ** (1 + counts[token]) for token, nats in raised.items()], device=rows.device
    )
    rows[tokens] += share[:, None] * (mean - rows[tokens])
