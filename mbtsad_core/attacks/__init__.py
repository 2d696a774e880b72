"""Attacks: they plant a backdoor in a copy of a clean classifier, so that a cure can be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mbtsad_core.attacks.badnets import badnets
from mbtsad_core.attacks.embedding_poisoning import embedding_poisoning

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier
    from mbtsad_core.types import Steps

ATTACKS: dict[str, Callable[..., Steps[Classifier]]] = {"badnets": badnets, "ep": embedding_poisoning}

__all__ = ["ATTACKS", "badnets", "embedding_poisoning"]
