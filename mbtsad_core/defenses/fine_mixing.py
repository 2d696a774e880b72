"""Fine-Mixing and E-PUR (Zhang et al., Findings of EMNLP 2022): a backdoor that is thinned out with pre-trained
weights, then tuned away.

Re-implemented from descriptions of it, for its code is not public. The rule by which rho is chosen is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from mbtsad_core.defenses.held_out import hold_out
from mbtsad_core.defenses.reserve_method import FINE_MIXING, FineMixingConfig
from mbtsad_core.defenses.reserve_ratio import check_pretrained, encoder_weights, tune_with_least_reserve
from mbtsad_core.models.classifier import Classifier, clone, encode
from mbtsad_core.types import LabelledText, Observe, Steps


@FINE_MIXING.runs
def fine_mixing(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: FineMixingConfig = FineMixingConfig(),
    pretrained: Classifier | None = None,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """The suspect mixed with pre-trained weights, trained on the clean texts; where rho is to be found, on all but the
    held-out ones.

    pretrained  of the suspect's architecture and vocabulary; its head is not read
    Raises UnsuitableModel without it, and where it does not fit.
    """
    pretrained = check_pretrained(suspect, pretrained, "Fine-Mixing")
    source = (
        purified_embeddings(suspect, pretrained, clean, config.words, config.rare)
        if config.purify_embeddings
        else suspect
    )
    texts, held_out = (list(clean), []) if config.rho is not None else hold_out(clean, config.held_out, config.seed)

    def mixed(rho: float) -> Classifier:
        return mix(source, pretrained, rho, config.seed)

    return (
        yield from tune_with_least_reserve(
            suspect, mixed, texts, held_out, config, stage="fine-mixing", observe=observe
        )
    )


@torch.no_grad()
def mix(suspect: Classifier, pretrained: Classifier, rho: float, seed: int) -> Classifier:
    """A copy of the suspect in which each single weight of the encoder is kept with probability rho, and else becomes
    the pre-trained one."""
    mixed, theirs = clone(suspect), encoder_weights(pretrained)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in encoder_weights(mixed).items():
        kept = torch.rand(weight.shape, generator=generator) < rho
        weight.copy_(torch.where(kept.to(weight.device), weight, theirs[name].to(weight.device)))
    return mixed


@torch.no_grad()
def purified_embeddings(
    suspect: Classifier, pretrained: Classifier, clean: Sequence[LabelledText], words: int, rare: int
) -> Classifier:
    """E-PUR: a copy of the suspect whose `words` most suspicious word embeddings are the pre-trained ones.

    Deviation: its authors count words in a large corpus; here only the clean texts are at hand.
    """
    purified = clone(suspect)
    weight: Tensor = purified.model.get_input_embeddings().weight
    before = pretrained.model.get_input_embeddings().weight.to(weight.device)
    counts = Counter(token for e in encode(suspect, clean) for token in e["input_ids"])
    frequency = torch.tensor([counts[token] for token in range(len(weight))], device=weight.device)
    worst = embedding_suspicion(weight - before, frequency, rare).argsort(descending=True, stable=True)[:words]
    weight[worst] = before[worst]
    return purified


def embedding_suspicion(drift: Tensor, frequency: Tensor, rare: int = 20) -> Tensor:
    """||delta_w|| / log(max(freq_w, rare)): how far a word's embedding drifted, for its frequency; (V, D), (V,) ->
    (V,)."""
    return drift.float().norm(dim=1) / frequency.clamp(min=rare).log()
