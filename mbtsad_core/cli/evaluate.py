"""`mbtsad evaluate`"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mbtsad_core.cli.inputs import DEMO_SUSPECT, MEASUREMENT, TEXTS, add_run, add_trigger, read_columns, read_trigger
from mbtsad_core.cli.prints import print_json, print_notes, print_scores
from mbtsad_core.config import EvaluateConfig, RuntimeConfig
from mbtsad_core.errors import BadData
from mbtsad_core.flags import TEXTS_HELP, read_settings
from mbtsad_core.sources import DEMO
from mbtsad_core.terminal import DONE, follow

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier
    from mbtsad_core.types import LabelledText, Scores, Steps


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", **DEMO_SUSPECT)
    parser.add_argument("--test", **TEXTS, help=TEXTS_HELP)
    add_trigger(parser)
    add_run(parser, MEASUREMENT)


def run(args: argparse.Namespace) -> int:
    """Measure a model: CACC on the test texts and, with --trigger and --target, ASR with its floor."""
    from mbtsad_core.evaluation import label_doubt
    from mbtsad_core.models.lengths import cut_notes
    from mbtsad_core.service.provenance import about_data, about_model, about_trigger, made_of
    from mbtsad_core.service.purification import read_model, read_texts, scores_to_dict

    columns, labels = read_columns(args)
    config, runtime = read_settings(args, EvaluateConfig()), read_settings(args, RuntimeConfig())
    if args.test is None and not args.model.is_demo:
        raise BadData("Name the texts to measure on: --test FILE (or --test demo for the demo's film reviews).")
    triggers, target = read_trigger(args, args.model.is_demo)
    classifier = read_model(args.model, "suspect", config.max_length, runtime, labels)
    data = read_texts(args.test or DEMO, "test", classifier.labels, columns)
    scores = follow(_measuring(classifier, data.texts, triggers, target, config), quiet=args.json)
    cut = cut_notes(classifier, config.max_length, {"texts": data.texts})
    notes = [*filter(None, [label_doubt(scores, classifier.labels)]), *classifier.notes, *data.notes, *map(str, cut)]
    if args.json:
        used = {
            "suspect": about_model(classifier, args.model),
            "test": about_data(data, args.test or DEMO, len(data.texts)),
            "trigger": about_trigger(triggers, target),
        }
        about = {"model": classifier.describe(), **made_of(used), "notes": notes}
        print_json(scores_to_dict(scores), about)
        return DONE
    print_notes(notes)
    print_scores(scores, classifier.labels)
    return DONE


def _measuring(
    classifier: Classifier,
    test: Sequence[LabelledText],
    triggers: Sequence[str],
    target_name: str | None,
    config: EvaluateConfig,
) -> Steps[Scores]:
    from mbtsad_core.attacks.triggers import parse_triggers, places, triggered_test_set
    from mbtsad_core.evaluation import measuring
    from mbtsad_core.service.purification import measured_target

    target = measured_target(triggers, target_name, classifier.labels)
    if target is None:
        return measuring(classifier, test)
    trigger = parse_triggers(triggers, target, window=places(config.max_length))
    return measuring(classifier, test, triggered_test_set(test, trigger, config.seed), target)
