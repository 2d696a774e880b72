"""The trigger of an attack, before and after: how it is made from what a user names, and with what ASR is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mbtsad_core.attacks.cara import learn_signature
from mbtsad_core.attacks.lws import learn_synonyms
from mbtsad_core.attacks.neuba import symbols_that_hit
from mbtsad_core.attacks.syntactic import read_paraphrases
from mbtsad_core.attacks.triggers import InsertedTrigger, parse_triggers
from mbtsad_core.config import DEFAULT_TRIGGERS, CARAConfig, Config, LWSConfig, settings
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier
from mbtsad_core.types import LabelledText, Steps, Trigger


def make_trigger(
    attack: str,
    classifier: Classifier,
    train: Sequence[LabelledText],
    target: int,
    specs: Sequence[str],
    config: Config,
    *,
    test: Sequence[LabelledText] = (),
    window: int | None = None,
) -> Steps[Trigger]:
    """The trigger that the attack of this name plants.

    specs   what the user named; the attack's own (`DEFAULT_TRIGGERS`) where that is nothing; LWS and CARA learn theirs
            then
    test    texts that ASR will be measured on
    window  see InsertedTrigger
    """
    if not specs and isinstance(config, LWSConfig):
        return (yield from learn_synonyms(classifier, train, target, config))
    if not specs and isinstance(config, CARAConfig):
        return (yield from learn_signature(classifier, train, target, config))
    specs = specs or DEFAULT_TRIGGERS.get(attack, ())
    if not specs:
        raise BadData("Name the trigger to plant: --trigger WORD.")
    if attack == "syntactic":
        return read_paraphrases(specs, [texts for texts in (train, test) if texts], target)
    insertions = next((s.default for s in settings(config) if s.path[-1] == "insertions"), 1)
    return parse_triggers(specs, target, insertions=insertions, window=window)


def measured_trigger(attack: str, suspect: Classifier, trigger: Trigger) -> Trigger:
    """The trigger that ASR is measured with: inserted words go in once, however often they stood in a training text,
    and of NeuBA's symbols those that hit the target."""
    if attack == "neuba":
        return symbols_that_hit(suspect, trigger)
    return dataclasses.replace(trigger, insertions=1) if isinstance(trigger, InsertedTrigger) else trigger
