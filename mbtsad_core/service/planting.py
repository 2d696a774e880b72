"""A backdoor of a visitor's own in the demo's clean classifier, as a job: in the queue, with his quota, in a worker's
process.

In the job's directory: run/model, the suspect; run/triggered.jsonl, test texts with its trigger, where that cannot be
typed; run/report.json. PyTorch is loaded only where something is planted.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.augment.wordnet import find_wordnet
from mbtsad_core.config import RuntimeConfig, from_dict
from mbtsad_core.errors import BadData
from mbtsad_core.methods import Need
from mbtsad_core.sources import DEMO
from mbtsad_core.types import LabelledText, Steps

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier

MODEL, TRIGGERED = "model", "triggered.jsonl"


@dataclass(frozen=True)
class Planting:
    """An attack, by its key of ATTACKS, on the demo's clean classifier.

    triggers  as they were typed: words, never the name of a file; none for an attack that learns its own
    target    name of the class that they send texts to
    """

    attack: str
    triggers: tuple[str, ...]
    target: str
    runtime: RuntimeConfig = RuntimeConfig()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Planting:
        return cls(
            values["attack"], tuple(values["triggers"]), values["target"], from_dict(RuntimeConfig, values["runtime"])
        )


def is_planting(values: Mapping[str, Any]) -> bool:
    """Whether a job plants a backdoor, and does not cure or measure one."""
    return "attack" in values


def lacking() -> dict[str, str]:
    """The attacks that cannot be planted here, and what each lacks; looked up anew each time."""
    missing = {
        Need.PARAPHRASES: "ready paraphrases of the demo's training texts, which nobody has made (“mbtsad attack” "
        "takes those of other texts)"
    }
    if not find_wordnet():
        missing[Need.WORDNET] = "WordNet's files on this server"
    return {key: missing[attack.needs] for key, attack in ATTACKS.items() if attack.needs in missing}


def check_planting(attack: str, specs: Sequence[str]) -> None:
    """Raise BadData where the trigger is missing, where one is named for an attack that learns its own, or where the
    attack cannot be run here."""
    if missing := lacking().get(attack):
        raise BadData(f"This attack cannot be planted here: it lacks {missing}. Choose another.")
    typed = bool(ATTACKS[attack].typed)
    if typed and not specs:
        raise BadData("Type the trigger to plant: a word of your choice.")
    if specs and not typed:
        raise BadData("This attack learns its trigger: leave the field empty.")


def plant(
    attack: str,
    classifier: Classifier,
    train: Sequence[LabelledText],
    test: Sequence[LabelledText],
    target: int,
    specs: Sequence[str],
) -> Steps[tuple[Classifier, list[dict[str, str]]]]:
    """The suspect, and the test texts with its trigger, {"text", "triggered"}, where what it does to them cannot be
    typed. Raises as `check_planting` does, and BadData for a trigger that the attack does not take."""
    from mbtsad_core.attacks.planting import make_trigger, measured_trigger
    from mbtsad_core.attacks.triggers import PLACES, triggered_test_set

    check_planting(attack, specs)
    method = ATTACKS[attack]
    trigger = yield from make_trigger(method, classifier, train, target, specs, window=PLACES)
    suspect = yield from method.run(classifier, train, trigger, method.config)
    if not method.rewrites:
        return suspect, []
    triggered = triggered_test_set(test, measured_trigger(method, suspect, trigger))
    return suspect, [{"text": t.clean.text, "triggered": t.triggered.text} for t in triggered]


def plant_suspect(planting: Planting, out: Path) -> Steps[dict[str, Any]]:
    """Plant it; yields an Event a step, writes to `out`, the report last, and returns what that holds. There is no
    checkpoint: one that was stopped or killed before is begun anew."""
    from mbtsad_core.data import Columns, class_index
    from mbtsad_core.models.classifier import save_classifier
    from mbtsad_core.service.purification import read_model, read_texts
    from mbtsad_core.service.run_folder import write_json

    started = time.monotonic()
    classifier = read_model(DEMO, "clean", None, planting.runtime)
    train, test = (read_texts(DEMO, part, classifier.labels, Columns()).texts for part in ("clean", "test"))
    suspect, pairs = yield from plant(
        planting.attack, classifier, train, test, class_index(planting.target, classifier.labels), planting.triggers
    )
    shutil.rmtree(out, ignore_errors=True)  # what a killed attempt left
    out.mkdir(parents=True)
    save_classifier(suspect, out / MODEL, precision="float32")
    if pairs:
        (out / TRIGGERED).write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8")
    report: dict[str, Any] = {
        "kind": "planting",
        "attack": planting.attack,
        "triggers": list(planting.triggers),
        "target": planting.target,
    }
    report |= {"rewrites": bool(pairs), "seconds": round(time.monotonic() - started, 1)}
    write_json(out / "report.json", report)
    return report
