"""`mbtsad detect`"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mbtsad_core.cli.inputs import DEMO_SUSPECT, MEASUREMENT, TEXTS, add_run, add_texts, read_columns, read_inputs
from mbtsad_core.cli.prints import print_inputs, print_json, print_notes, print_rates, print_scores, tell
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.flags import read_settings
from mbtsad_core.terminal import DONE, follow

if TYPE_CHECKING:
    from mbtsad_core.config import Config
    from mbtsad_core.service.purification import Inputs

SHOWN = 100  # characters of a text, in a line


def add(parser: argparse.ArgumentParser) -> None:
    methods = parser.add_subparsers(dest="detector", required=True, metavar="METHOD")
    for name, detector in DETECTORS.items():
        p = methods.add_parser(name, help=detector.sentence, description=detector.sentence)
        p.add_argument("--model", **DEMO_SUSPECT)
        p.add_argument(
            "--texts",
            **TEXTS,
            help="judge these texts, with or without labels, one by one, in the place of measuring: texts that you "
            "distrust, such as those of a log",
        )
        add_texts(p)
        add_run(p, MEASUREMENT | {f"settings of {name}": detector.config})


def run(args: argparse.Namespace) -> int:
    """Measure a model alone and behind a detector, which flags or corrects single texts and leaves the model as it is.
    CACC counts a flagged text as wrong, ASR as not attacked; FRR is the share of clean texts that are flagged, FAR the
    share of triggered ones that are not. The trigger is for measuring only. Without a model: on the demo. With --texts:
    say of each of these whether it is flagged, by what score, and which of its words that hangs on, where the detector
    names them."""
    from mbtsad_core.evaluation import label_doubt
    from mbtsad_core.rates import rates_to_dict
    from mbtsad_core.service.comparison import about_run, run_detector
    from mbtsad_core.service.purification import scores_to_dict

    name = args.detector
    config = read_settings(args, DETECTORS[name].config)
    inputs = read_inputs(args, config)
    if not args.json:
        tell(inputs)
    if args.texts is not None:
        return _judge(args, name, config, inputs)
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


def _judge(args: argparse.Namespace, name: str, config: Config, inputs: Inputs) -> int:
    """Judge texts one by one."""
    from mbtsad_core.config import to_dict
    from mbtsad_core.data import read_unlabeled
    from mbtsad_core.detectors.detection import grouped

    texts = [one.text for one in read_unlabeled(args.texts, read_columns(args)[0]).texts]
    found = follow(DETECTORS[name].run(inputs.suspect, inputs.clean, texts, config), quiet=args.json)
    spans = found.spans or (None,) * len(texts)
    flagged = [i for i, flag in enumerate(found.flags) if flag]
    groups = [(words, [flagged[i] for i in own]) for words, own in grouped([spans[i] for i in flagged])]
    if args.json:
        judged = [
            {"text": text, "flagged": flag, "score": score, "words": words}
            for text, flag, score, words in zip(texts, found.flags, found.scores, spans, strict=True)
        ]
        in_common = [{"words": words, "texts": own} for words, own in groups]
        about = {"method": name, "thresholds": list(found.thresholds), "settings": to_dict(config)}
        print_json({"texts": judged, "groups": in_common}, about)
        return DONE
    for i in flagged:
        score = "" if found.scores[i] is None else f" ({found.scores[i]:.2f})"
        print(f"text {i + 1}{score}{f' by {spans[i]!r}' if spans[i] else ''}: {texts[i][:SHOWN]}")
    print(f"{len(flagged)} of {len(texts)} texts are flagged by {DETECTORS[name].title}.")
    for words, own in groups:
        print(f"  {words!r} in {len(own)}: {', '.join(str(i + 1) for i in own)}")
    return DONE
