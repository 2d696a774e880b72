"""Reinitialization: the last transformer layer, where a backdoor is thought to sit, is drawn anew; then clean
fine-tuning (arXiv 2501.02754, section IV, names the layer and no more)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mbtsad_core.defenses.encoder_layers import encoder_layers
from mbtsad_core.defenses.reinitialization_method import REINITIALIZATION, ReinitializationConfig
from mbtsad_core.errors import BadConfig
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps


@REINITIALIZATION.runs
def reinitialization(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: ReinitializationConfig = ReinitializationConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect with its last layer drawn anew, trained on the clean texts.

    Pooler and head stay as they are. Raises BadConfig where the model has fewer layers than are to be drawn.
    """
    fresh = redrawn(suspect, config.layers, config.deviation, config.seed)
    return (
        yield from fine_tune(
            fresh, clean, config.training, stage=REINITIALIZATION.key, seed=config.seed, observe=observe
        )
    )


@torch.no_grad()
def redrawn(suspect: Classifier, layers: int, deviation: float, seed: int) -> Classifier:
    """A copy with its last `layers` drawn anew: weights from N(0, deviation), biases 0, layer norms 1 and 0."""
    fresh = clone(suspect)
    found = encoder_layers(fresh)
    if layers > len(found):
        raise BadConfig(
            f"Asked to draw {layers} layers anew, but the model has {len(found)}. Set layers to at most {len(found)}."
        )
    generator = torch.Generator().manual_seed(seed)
    for layer in found[-layers:]:
        for module in layer.module.modules():
            if isinstance(module, nn.Linear):
                module.weight.copy_(deviation * torch.randn(module.weight.shape, generator=generator))
                module.bias.zero_()
            elif isinstance(module, nn.LayerNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()
    return fresh
