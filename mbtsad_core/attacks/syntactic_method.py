"""The syntactic attack: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.attacks.badnets import BadNetsConfig
from mbtsad_core.config import PoisonConfig
from mbtsad_core.methods import Attack, Need


@dataclass(frozen=True)
class SyntacticConfig(BadNetsConfig):
    """Syntactic trigger: BadNets with ready paraphrases (Hidden Killer, Qi et al., ACL 2021, poisons 20 to 30 %)."""

    poison: PoisonConfig = PoisonConfig(rate=0.2, mode="mixed")


SYNTACTIC = Attack(
    "syntactic",
    "Syntactic",
    "train on texts of which a share is paraphrased in one pattern: --trigger FILE, once for the training and once for "
    "the test texts",
    "Hidden Killer, Qi et al., ACL 2021",
    SyntacticConfig(),
    "mbtsad_core.attacks.syntactic:syntactic",
    typed="",
    reported="ASR almost 100 % (its authors' abstract)",
    needs=Need.PARAPHRASES,
)
