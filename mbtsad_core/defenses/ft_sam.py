"""FT-SAM: "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization" (Zhu et al., ICCV 2023).

A backdoor's neurons have large weights, which clean fine-tuning hardly moves. Each step takes its gradient where a
small change of the weights, relative to their size, raises the loss most: so large weights are moved most.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mbtsad_core.defenses.ft_sam_method import FT_SAM, FTSAMConfig
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps


@FT_SAM.runs
def ft_sam(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: FTSAMConfig = FTSAMConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect, fine-tuned on the clean texts by sharpness-aware steps, two gradients each.

    Deviation: AdamW and plain labels, as for the other defenses; the authors have SGD, and smooth the labels by 0.1.
    """
    return (
        yield from fine_tune(
            clone(suspect),
            clean,
            config.training,
            ascend=lambda weights: ascended(weights, config.rho),
            stage=FT_SAM.key,
            seed=config.seed,
            observe=observe,
        )
    )


@contextlib.contextmanager
def ascended(weights: Sequence[nn.Parameter], rho: float) -> Iterator[None]:
    """Within it the weights w, with gradient g, stand at w + rho T² g / |T g|, where T = |w|: of all changes e with
    |e / w| = rho the one that raises the loss most, to first order."""
    moved = [(w, w.grad, w.detach().clone()) for w in weights if w.grad is not None]
    with torch.no_grad():
        length = _norm([w * g for w, g, _ in moved])
        for w, g, _ in moved:
            w.addcmul_(w.square(), g, value=float(rho / length.clamp(min=1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            for w, _, before in moved:
                w.copy_(before)


def _norm(tensors: list[Tensor]) -> Tensor:
    """The norm of all their numbers together."""
    return torch.stack([x.float().norm() for x in tensors]).norm()
