"""Attacks: they plant a backdoor in a copy of a clean classifier, so that a cure can be measured."""

from mbtsad_core.attacks.badnets import badnets
from mbtsad_core.attacks.embedding_poisoning import embedding_poisoning

ATTACKS = {"badnets": badnets, "ep": embedding_poisoning}

__all__ = ["ATTACKS", "badnets", "embedding_poisoning"]
