"""Attacks: they plant a backdoor in a copy of a clean classifier, so that a cure can be measured."""

from __future__ import annotations

from typing import Any

from mbtsad_core.attacks.badnets import BADNETS
from mbtsad_core.attacks.cara_method import CARA
from mbtsad_core.attacks.embedding_poisoning_method import EP
from mbtsad_core.attacks.layer_wise_method import LWP
from mbtsad_core.attacks.lws_method import LWS
from mbtsad_core.attacks.neuba_method import NEUBA
from mbtsad_core.attacks.ripple_method import RIPPLE
from mbtsad_core.attacks.sentence import SENTENCE
from mbtsad_core.attacks.sos_method import SOS
from mbtsad_core.attacks.syntactic_method import SYNTACTIC
from mbtsad_core.methods import Attack

ATTACKS: dict[str, Attack[Any]] = {
    method.key: method for method in (BADNETS, LWP, EP, RIPPLE, SOS, SENTENCE, SYNTACTIC, NEUBA, LWS, CARA)
}
