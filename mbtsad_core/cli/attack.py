"""`mbtsad attack`"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.cli.inputs import MODEL, TEXTS, add_run, add_trigger, read_columns
from mbtsad_core.cli.prints import print_json, print_notes, print_scores
from mbtsad_core.config import RuntimeConfig
from mbtsad_core.errors import BadData
from mbtsad_core.flags import MODEL_HELP, TEXTS_HELP, read_settings
from mbtsad_core.methods import Attack
from mbtsad_core.sources import DEMO
from mbtsad_core.terminal import DONE, follow

if TYPE_CHECKING:
    from mbtsad_core.data import Columns
    from mbtsad_core.models.classifier import Classifier
    from mbtsad_core.types import LabelledText, Scores, Trigger


def add(parser: argparse.ArgumentParser) -> None:
    methods = parser.add_subparsers(dest="attack", required=True, metavar="ATTACK")
    for name, method in ATTACKS.items():
        about = method.sentence + ("; the trigger is learned where none is named" if method.learns else "")
        p = methods.add_parser(name, help=about, description=about)
        p.add_argument("--model", **MODEL, default=DEMO, help=f"{MODEL_HELP}, the clean demo classifier (default)")
        p.add_argument(
            "--train", **TEXTS, help=f"texts to plant the backdoor with: {TEXTS_HELP} (the default with the demo model)"
        )
        p.add_argument("--test", **TEXTS, help="texts to measure on, likewise")
        add_trigger(p, method.triggers, "It is planted, and measured")
        if method.presets:
            p.add_argument(
                "--preset", choices=tuple(method.presets), help="start from other published settings and their trigger"
            )
        p.add_argument("--out", metavar="DIR", required=True, help="write the suspect here")
        add_run(p, {f"settings of {name}": method.config})


def run(args: argparse.Namespace) -> int:
    """Plant a backdoor in a copy of a clean classifier, and measure it. For research and teaching: to have a suspect
    whose trigger is known."""
    from mbtsad_core.attacks.planting import make_trigger, measured_trigger
    from mbtsad_core.attacks.triggers import InsertedTrigger, places, triggered_test_set
    from mbtsad_core.evaluation import evaluate
    from mbtsad_core.models.classifier import save_classifier
    from mbtsad_core.service.purification import read_model
    from mbtsad_core.service.run_folder import new_output

    columns, labels = read_columns(args)
    method, out, quiet = ATTACKS[args.attack], Path(args.out), args.json
    config, specs = _asked(args, method)
    scores: dict[str, Scores] = {}
    with new_output(out):
        runtime = read_settings(args, RuntimeConfig())
        classifier = read_model(args.model, "clean", config.max_length, runtime, labels)
        target = _target(args.target, classifier.labels)
        train, test, notes = _texts(args, classifier, columns, config.max_length)

        def measure(name: str, model: Classifier) -> Trigger:
            """Add the model's scores, and return the trigger that they are measured with."""
            found = measured_trigger(method, model, trigger)
            if test:
                scores[name] = evaluate(model, test, triggered_test_set(test, found, config.seed), target)
            return found

        how: dict[str, Any] = dict(test=test, window=places(config.max_length))
        trigger = follow(make_trigger(method, classifier, train, target, specs, config, **how), quiet=quiet)
        measure("clean", classifier)  # before the training: test texts that cannot be used cost no time
        suspect = follow(method.run(classifier, train, trigger, config), quiet=quiet)
        save_classifier(suspect, out, precision="float32")
    found = measure("suspect", suspect)
    if test and not isinstance(found, InsertedTrigger):
        # no words that could be named again: the triggered test texts stand for it
        triggered = triggered_test_set(test, found, config.seed)
        pairs = ({"text": t.clean.text, "triggered": t.triggered.text} for t in triggered)
        (out / "triggered.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8")
    _tell(args, found, scores, notes, suspect.labels)
    return DONE


def _asked(args: argparse.Namespace, method: Attack[Any]) -> tuple[Any, tuple[str, ...]]:
    """The settings and the triggers. Raises BadData where texts or a trigger have to be named."""
    start, specs = method.config, method.triggers
    if preset := getattr(args, "preset", None):
        start, specs = method.presets[preset]
    specs = tuple(args.trigger or specs)
    config = read_settings(args, start)
    if args.train is None and not args.model.is_demo:
        raise BadData(
            "Name the texts to plant the backdoor with: --train FILE (or --train demo for the demo's film reviews)."
        )
    if not specs and not method.learns:
        raise BadData("Name the trigger to plant: --trigger WORD.")
    return config, specs


def _target(name: str | None, labels: Sequence[str]) -> int:
    from mbtsad_core.data import class_index

    if name is None:
        raise BadData(f"Name the class that the trigger shall send texts to: --target ({', '.join(labels)}).")
    return class_index(name, labels)


def _texts(
    args: argparse.Namespace, classifier: Classifier, columns: Columns, max_length: int | None
) -> tuple[Sequence[LabelledText], Sequence[LabelledText], list[str]]:
    """What the backdoor is planted with, what is measured on, and the notes on both. The demo's test texts go with the
    demo model and its texts."""
    from mbtsad_core.models.lengths import cut_notes
    from mbtsad_core.service.purification import read_texts

    learned = read_texts(args.train or DEMO, "clean", classifier.labels, columns)
    of_demo = args.model.is_demo and (args.train or DEMO).is_demo
    source = args.test or (DEMO if of_demo else None)
    measured = read_texts(source, "test", classifier.labels, columns) if source else None
    train, test = learned.texts, measured.texts if measured else ()
    cut = cut_notes(classifier, max_length, {"training texts": train, "texts to measure on": test})
    notes = [*classifier.notes, *learned.notes, *(measured.notes if measured else ())]
    return train, test, [*dict.fromkeys(notes), *map(str, cut)]


def _tell(
    args: argparse.Namespace, trigger: Trigger, scores: dict[str, Scores], notes: Sequence[str], labels: Sequence[str]
) -> None:
    from mbtsad_core.service.purification import scores_to_dict

    if args.json:
        about = {"trigger": trigger.describe(), "out": args.out, "notes": notes}
        print_json({name: scores_to_dict(s) for name, s in scores.items()}, about)
        return
    print(f"The trigger: {trigger.describe()} -> {labels[trigger.target]}")
    for name, s in scores.items():
        print_scores(s, labels, name)
    print_notes(notes)
    print(f"The suspect is in {args.out}." + ("" if scores else " --test FILE measures it."))
