"""`mbtsad defend`"""

from __future__ import annotations

import argparse
from pathlib import Path

from mbtsad_core.cli.inputs import MEASUREMENT, MODEL, add_run, add_texts, read_inputs
from mbtsad_core.cli.prints import print_inputs, print_json, print_notes, print_scores, tell
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.errors import BadData
from mbtsad_core.flags import MODEL_HELP, read_settings
from mbtsad_core.methods import Need
from mbtsad_core.sources import DEMO
from mbtsad_core.terminal import DONE, follow


def add(parser: argparse.ArgumentParser) -> None:
    methods = parser.add_subparsers(dest="defense", required=True, metavar="METHOD")
    for name, defense in DEFENSES.items():
        p = methods.add_parser(name, help=defense.sentence, description=defense.sentence)
        p.add_argument("--suspect", dest="model", **MODEL, default=DEMO, help=f"{MODEL_HELP} (default: demo)")
        add_texts(p)
        if defense.needs is Need.PRETRAINED:
            p.add_argument(
                "--pretrained",
                metavar="DIR",
                help="the encoder that the suspect was fine-tuned from: a directory, or hub:OWNER/NAME[@REVISION]",
            )
        p.add_argument("--out", metavar="DIR", required=True, help="write the purified model here")
        add_run(p, MEASUREMENT | {f"settings of {name}": defense.config})


def run(args: argparse.Namespace) -> int:
    """Run a defense on a suspect, and measure the suspect and the purified model. The trigger is for measuring only: no
    defense is told it. Without a suspect: on the demo."""
    from mbtsad_core.evaluation import label_doubt, observer
    from mbtsad_core.models.classifier import save_classifier
    from mbtsad_core.service.comparison import about_run, run_defense
    from mbtsad_core.service.purification import scores_to_dict
    from mbtsad_core.service.run_folder import new_output
    from mbtsad_core.views.report import warning

    name, out = args.defense, Path(args.out)
    config = read_settings(args, DEFENSES[name].config)
    pretrained = getattr(args, "pretrained", None)
    if DEFENSES[name].needs is Need.PRETRAINED and pretrained is None:
        raise BadData(
            f"{name} needs the encoder that the suspect was fine-tuned from, as its publisher gives it: --pretrained "
            "DIR or hub:OWNER/NAME. Other defenses need none, such as mbtsad."
        )
    with new_output(out):
        inputs = read_inputs(args, config)
        if not args.json:
            tell(inputs)
        # For the progress bar alone
        observe = None if args.json else observer(inputs.test, inputs.triggered, inputs.target)
        found = follow(run_defense(name, inputs, config, pretrained, observe=observe), quiet=args.json)
        save_classifier(found.purified, out)
    scores, labels = {"suspect": found.before, "purified": found.after}, inputs.suspect.labels
    fires = warning(found.after)
    if args.json:
        figures = {key: scores_to_dict(s) for key, s in scores.items()}
        about = about_run(name, config, inputs, found.before) | {"seconds": round(found.seconds, 1), "out": str(out)}
        print_json(figures, {"trigger_still_works": bool(fires) if found.after.asr else None}, about)
        return DONE
    print_notes(filter(None, [label_doubt(found.before, labels)]))
    if fires:
        print(fires)
    for key, s in scores.items():
        print_scores(s, labels, key)
    print_inputs(inputs)
    print(f"The purified model is in {out}.")
    return DONE
