"""`mbtsad detect`"""

from __future__ import annotations

import argparse

from mbtsad_core.cli.inputs import DEMO_SUSPECT, MEASUREMENT, add_run, add_texts, read_inputs
from mbtsad_core.cli.prints import print_inputs, print_json, print_notes, print_rates, print_scores, tell
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.flags import read_settings
from mbtsad_core.terminal import DONE, follow


def add(parser: argparse.ArgumentParser) -> None:
    methods = parser.add_subparsers(dest="detector", required=True, metavar="METHOD")
    for name, detector in DETECTORS.items():
        p = methods.add_parser(name, help=detector.sentence, description=detector.sentence)
        p.add_argument("--model", **DEMO_SUSPECT)
        add_texts(p)
        add_run(p, MEASUREMENT | {f"settings of {name}": detector.config})


def run(args: argparse.Namespace) -> int:
    """Measure a model alone and behind a detector, which flags or corrects single texts and leaves the model as it is.
    CACC counts a flagged text as wrong, ASR as not attacked; FRR is the share of clean texts that are flagged, FAR the
    share of triggered ones that are not. The trigger is for measuring only. Without a model: on the demo."""
    from mbtsad_core.evaluation import label_doubt
    from mbtsad_core.service.comparison import about_run, run_detector
    from mbtsad_core.service.purification import rates_to_dict, scores_to_dict

    name = args.detector
    config = read_settings(args, DETECTORS[name].config)
    inputs = read_inputs(args, config)
    if not args.json:
        tell(inputs)
    detected = follow(run_detector(name, inputs, config), quiet=args.json)
    if args.json:
        figures = {"alone": scores_to_dict(detected.alone), "behind_detector": rates_to_dict(detected.rates())}
        thresholds = {"thresholds": list(detected.found.thresholds)}
        print_json(figures, about_run(name, config, inputs, detected.alone), thresholds)
        return DONE
    print_notes(filter(None, [label_doubt(detected.alone, inputs.suspect.labels)]))
    print_scores(detected.alone, inputs.suspect.labels, "the model alone")
    print_rates(detected.rates(), f"behind {name}")
    print_inputs(inputs)
    return DONE
