"""Attacks: they plant a backdoor in a copy of a clean classifier, so that a cure can be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mbtsad_core.attacks.badnets import badnets
from mbtsad_core.attacks.cara import cara
from mbtsad_core.attacks.embedding_poisoning import embedding_poisoning
from mbtsad_core.attacks.layer_wise import layer_wise
from mbtsad_core.attacks.lws import lws
from mbtsad_core.attacks.neuba import neuba
from mbtsad_core.attacks.ripple import ripple
from mbtsad_core.attacks.sentence import sentence
from mbtsad_core.attacks.sos import sos
from mbtsad_core.attacks.syntactic import syntactic

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier
    from mbtsad_core.types import Steps

ATTACKS: dict[str, Callable[..., Steps[Classifier]]] = {
    "badnets": badnets,
    "lwp": layer_wise,
    "ep": embedding_poisoning,
    "ripple": ripple,
    "sos": sos,
    "sentence": sentence,
    "syntactic": syntactic,
    "neuba": neuba,
    "lws": lws,
    "cara": cara,
}

__all__ = ["ATTACKS", "badnets", "embedding_poisoning"]
