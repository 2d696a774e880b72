"""BadActs: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.config import Config, DistilConfig, setting
from mbtsad_core.methods import Defense


@dataclass(frozen=True)
class BadActsConfig(Config):
    """BadActs made permanent: the suspect whose activations are held to those of clean texts teaches its copy (Yi et
    al., Findings of ACL 2024)."""

    width: float = setting(
        2.0,
        "standard deviations on either side of a neuron's mean; those that its authors detect with",
        low=0.0,
        high=100.0,
        symbol="k",
    )
    distil: DistilConfig = DistilConfig()
    seed: int = setting(0, "seed of batches and dropout", low=0, high=2**32 - 1)


BADACTS = Defense(
    "badacts",
    "BadActs",
    "hold each neuron to the interval of clean texts, and distill the model so clipped into weights",
    "Yi et al., Findings of ACL 2024, distilled",
    BadActsConfig(),
    "mbtsad_core.defenses.badacts:badacts",
)
