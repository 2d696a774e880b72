"""The trigger of an attack, before and after: how it is made from what a user names, and with what ASR is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mbtsad_core.attacks.syntactic import read_paraphrases
from mbtsad_core.attacks.triggers import InsertedTrigger, parse_triggers
from mbtsad_core.config import settings
from mbtsad_core.errors import BadData
from mbtsad_core.methods import Attack, C, Need, load
from mbtsad_core.models.classifier import Classifier
from mbtsad_core.types import LabelledText, Steps, Trigger


def make_trigger(
    attack: Attack[C],
    classifier: Classifier,
    train: Sequence[LabelledText],
    target: int,
    specs: Sequence[str],
    config: C | None = None,
    *,
    test: Sequence[LabelledText] = (),
    window: int | None = None,
) -> Steps[Trigger]:
    """The trigger that an attack plants.

    specs   what the user named; where that is nothing, what the attack learns or has of its own
    test    texts that ASR will be measured on
    window  see InsertedTrigger
    """
    config = config or attack.config
    if not specs and attack.learns:
        return (yield from load(attack.learns)(classifier, train, target, config))
    specs = specs or attack.triggers
    if not specs:
        raise BadData("Name the trigger to plant: `trigger`.")
    if attack.needs is Need.PARAPHRASES:
        return read_paraphrases(specs, [texts for texts in (train, test) if texts], target)
    insertions = next((s.default for s in settings(config) if s.path[-1] == "insertions"), 1)
    return parse_triggers(specs, target, insertions=insertions, window=window)


def measured_trigger(attack: Attack[C], suspect: Classifier, trigger: Trigger) -> Trigger:
    """The trigger that ASR is measured with: inserted words go in once, however often they stood in a training text,
    and of NeuBA's symbols those that hit the target."""
    if attack.measures:
        found: Trigger = load(attack.measures)(suspect, trigger)
        return found
    return dataclasses.replace(trigger, insertions=1) if isinstance(trigger, InsertedTrigger) else trigger
