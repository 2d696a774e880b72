"""Fine-Pruning: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mbtsad_core.config import Config, TrainingConfig, setting
from mbtsad_core.methods import Defense


@dataclass(frozen=True)
class FinePruningConfig(Config):
    """Fine-Pruning: the neurons that clean texts excite least are zeroed, then CFT (Liu et al., RAID 2018; the paper
    says nothing of its form on BERT)."""

    ranking: Literal["absolute", "signed"] = setting(
        "absolute",
        "absolute: by a neuron's mean |activation|; signed: by its mean activation, which after a ReLU is the same "
        "(Liu et al.)",
        choices=("absolute", "signed"),
    )
    scope: Literal["all_layers", "last_layer"] = setting(
        "all_layers",
        "all_layers: the inner neurons of all feed-forward blocks in one ranking; last_layer: those of the last "
        "block. No source names the neurons",
        choices=("all_layers", "last_layer"),
    )
    stop: Literal["accuracy", "share"] = setting(
        "accuracy",
        "accuracy: prune while the accuracy on held-out clean texts holds (Liu et al.); share: prune the share `most`",
        choices=("accuracy", "share"),
    )
    step: float = setting(
        0.01,
        "share of the neurons that is pruned between two looks at the accuracy (BackdoorBench's)",
        low=0.001,
        high=1.0,
    )
    tolerance: float = setting(
        0.1,
        "fall of the held-out accuracy that is borne, as a share of what it was (BackdoorBench's)",
        low=0.0,
        high=1.0,
    )
    most: float = setting(0.6, "share of the neurons that is pruned, at most; no source gives one", low=0.0, high=1.0)
    held_out: float = setting(
        0.2, "share of the clean texts that the accuracy is measured on; no source gives one", low=0.01, high=0.9
    )
    training: TrainingConfig = TrainingConfig()
    seed: int = setting(0, "seed of the held-out texts, of batches and of dropout", low=0, high=2**32 - 1)


FINE_PRUNING = Defense(
    "fine_pruning",
    "Fine-Pruning",
    "zero the neurons that clean texts excite least, then fine-tune; which neurons on BERT no source says",
    "Liu et al., RAID 2018; BackdoorBench",
    FinePruningConfig(),
    "mbtsad_core.defenses.fine_pruning:fine_pruning",
)
