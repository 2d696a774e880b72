"""Attacks: they plant a backdoor in a copy of a clean classifier, so that a cure can be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mbtsad_core.attacks.badnets import badnets
from mbtsad_core.attacks.embedding_poisoning import embedding_poisoning
from mbtsad_core.attacks.layer_wise import layer_wise
from mbtsad_core.attacks.sentence import sentence
from mbtsad_core.attacks.sos import sos

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier
    from mbtsad_core.types import Steps

ATTACKS: dict[str, Callable[..., Steps[Classifier]]] = {
    "badnets": badnets,
    "lwp": layer_wise,
    "ep": embedding_poisoning,
    "sos": sos,
    "sentence": sentence,
}

__all__ = ["ATTACKS", "badnets", "embedding_poisoning"]
