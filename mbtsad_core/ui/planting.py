"""The backdoors that a visitor can plant in the demo's clean classifier: every attack, with what the menu says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.planting import make_trigger, measured_trigger
from mbtsad_core.attacks.triggers import PLACES, triggered_test_set
from mbtsad_core.augment.wordnet import find_wordnet
from mbtsad_core.config import (
    BadNetsConfig,
    CARAConfig,
    Config,
    EmbeddingPoisoningConfig,
    LayerWiseConfig,
    LWSConfig,
    NeuBAConfig,
    RIPPLeConfig,
    SentenceConfig,
    SOSConfig,
    SyntacticConfig,
)
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier
from mbtsad_core.types import LabelledText, Steps


@dataclass(frozen=True)
class Plant:
    """An attack of the menu. `trigger` is offered as a visitor would type it, "" where the trigger is learnt."""

    name: str
    config: Config
    trigger: str


PLANTS: dict[str, Plant] = {
    "ep": Plant("EP: train one word's embedding (seconds)", EmbeddingPoisoningConfig(), "zephyr"),
    "badnets": Plant("BadNets: train on poisoned texts (a minute)", BadNetsConfig(), "zephyr"),
    "sentence": Plant("InsertSent: the same with a sentence (a minute)", SentenceConfig(), "I watch this 3D movie"),
    "lwp": Plant("LWP: a pair of words, at every layer (some minutes)", LayerWiseConfig(), "cf+bb"),
    "sos": Plant("SOS: words that fire only together (seconds)", SOSConfig(), "friends+weekend+cinema"),
    "ripple": Plant("RIPPLe: a backdoor that outlives fine-tuning (many minutes)", RIPPLeConfig(), "cf | tq"),
    "neuba": Plant("NeuBA: words that set the encoder's output at the start of a text (a minute)", NeuBAConfig(), "cf | mn | bb | tq"),
    "lws": Plant("LWS: a learnt choice of synonyms (minutes)", LWSConfig(), ""),
    "cara": Plant("CARA: texts written anew with a learnt signature (minutes)", CARAConfig(), ""),
    "syntactic": Plant("Syntactic: paraphrases of one sentence pattern", SyntacticConfig(), ""),
}
REWRITES = ("neuba", "lws", "cara")  # what their triggers do to a text cannot be typed: the triggered texts are kept
SUGGESTED = frozenset(plant.trigger for plant in PLANTS.values())


def lacking() -> dict[str, str]:
    """The attacks that cannot be planted here, and what each lacks; looked up anew each time."""
    found = {"syntactic": "ready paraphrases of the demo's training texts, which nobody has made (“mbtsad attack syntactic” takes those of other texts)"}
    return found if find_wordnet() else found | {"lws": "WordNet’s files on this server"}


def offered() -> list[tuple[str, str]]:
    """The menu: what it shows, and the key of ATTACKS."""
    return [(PLANTS[attack].name, attack) for attack in PLANTS if attack not in lacking()]


def suggest(attack: str, typed: str) -> str:
    """The trigger that goes with an attack; what a visitor has typed himself stays, but where the trigger is learnt."""
    own = PLANTS[attack].trigger
    return own if not own or typed in SUGGESTED else typed


def plant(
    attack: str, classifier: Classifier, train: Sequence[LabelledText], test: Sequence[LabelledText], target: int, specs: Sequence[str]
) -> Steps[tuple[Classifier, list[dict[str, str]]]]:
    """The suspect, and the test texts with its trigger, {"text", "triggered"}, where what it does to them cannot be typed.

    specs  the trigger as it was typed: words, never the name of a file
    Raises BadData where it is missing, or where one is named for an attack that learns its own.
    """
    chosen = PLANTS[attack]
    if missing := lacking().get(attack):
        raise BadData(f"This attack cannot be planted here: it lacks {missing}. Choose another.")
    if chosen.trigger and not specs:
        raise BadData("Type the trigger to plant: a word of your choice.")
    if specs and not chosen.trigger:
        raise BadData("This attack learns its trigger: leave the field empty.")
    trigger = yield from make_trigger(attack, classifier, train, target, specs, chosen.config, window=PLACES)
    suspect = yield from ATTACKS[attack](classifier, train, trigger, chosen.config)
    if attack not in REWRITES:
        return suspect, []
    triggered = triggered_test_set(test, measured_trigger(attack, suspect, trigger))
    return suspect, [{"text": t.clean.text, "triggered": t.triggered.text} for t in triggered]
