"""The command line: `mbtsad purify | evaluate | attack | defend | detect | vet | publish`. Its flags are made from the
config dataclasses.

Exit codes are those of mbtsad_core/terminal.py. `mbtsad vet` has its own: 0 clean, 1 refused, 2 could not tell.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.config import Config, EvaluateConfig, RuntimeConfig, SandboxConfig, VettingConfig, settings
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.mbtsad_method import RECIPES, PurifyConfig
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.errors import BadConfig, BadData, BadOutput
from mbtsad_core.flags import MODEL_HELP, TEXTS_HELP, add_settings, read_settings
from mbtsad_core.methods import Need
from mbtsad_core.research import cli as research
from mbtsad_core.sources import DEMO, Source
from mbtsad_core.terminal import DONE, Command, follow, is_first, run_program, version_here

if TYPE_CHECKING:
    from mbtsad_core.data import Columns
    from mbtsad_core.service.purification import Inputs
    from mbtsad_core.types import Rate, Scores

CLEAN, REFUSED, COULD_NOT_TELL = 0, 1, 2  # of `mbtsad vet`
MODEL: dict[str, Any] = dict(metavar="MODEL", type=Source)
TEXTS: dict[str, Any] = dict(metavar="TEXTS", type=Source)
ABOUT = (
    "Cure a backdoored transformer text classifier with a small clean sample. Research has a command of its own: "
    "mbtsad-research."
)


# ---------------------------------------------------------------- flags


def add_columns(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data columns (guessed where not given)")
    group.add_argument("--text-column", metavar="NAME", help="column of the text")
    group.add_argument(
        "--pair-column", metavar="NAME", help="column of the second text, for classifiers of sentence pairs"
    )
    group.add_argument("--label-column", metavar="NAME", help="column of the label: class names, or integers from 0")
    group.add_argument(
        "--labels", metavar="A,B", help="names of the classes in the model's order, where the model does not say"
    )
    group.add_argument(
        "--label-map",
        metavar="L=C,...",
        help="what the labels of the table mean, where the names do not say: 1=negative,2=positive",
    )
    group.add_argument(
        "--labels-start-at",
        metavar="N",
        type=int,
        choices=(0, 1),
        help="the labels are numbers in the model's order, from 0 or from 1",
    )
    group.add_argument(
        "--skip-unlabeled",
        action="store_true",
        default=None,
        help="leave rows without a label out: an empty cell, -1, - or ?",
    )


def read_columns(args: argparse.Namespace) -> tuple[Columns, tuple[str, ...] | None]:
    from mbtsad_core.data import Columns

    labels = tuple(name.strip() for name in args.labels.split(",")) if args.labels else None
    if labels and (not all(labels) or len({name.casefold() for name in labels}) < len(labels)):
        raise BadConfig(
            f"--labels: expected a different name for each class, separated by commas; got {args.labels!r}."
        )
    if args.label_map is not None and args.labels_start_at is not None:
        raise BadConfig("--label-map and --labels-start-at both say what the labels mean. Leave one of them out.")
    meaning = dict(
        labels_start_at=args.labels_start_at, label_map=args.label_map, skip_unlabeled=bool(args.skip_unlabeled)
    )
    return Columns(args.text_column, args.label_column, args.pair_column, **meaning), labels


def add_purify(p: argparse.ArgumentParser) -> None:
    p.add_argument("--suspect", **MODEL, help=f"{MODEL_HELP} (default: demo)")
    p.add_argument("--clean", **TEXTS, help=f"the clean labelled sample: {TEXTS_HELP}")
    p.add_argument(
        "--clean-amount",
        metavar="X",
        type=float,
        help="use this share (below 1) or number of the clean texts, every class by its share",
    )
    p.add_argument(
        "--test", **TEXTS, help="texts to measure on, likewise; without it a fifth of the clean sample is held out"
    )
    add_trigger(p)
    p.add_argument(
        "--out", metavar="DIR", help="write model/, report.json and report.html here; Ctrl-C then leaves a checkpoint"
    )
    p.add_argument("--resume", metavar="DIR", help="go on with a stopped run")
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    add_columns(p)
    add_settings(p, RuntimeConfig(), "machine")
    p.add_argument(
        "--recipe",
        type=lambda name: {"strays": "scan"}.get(name, name),
        choices=tuple(RECIPES),
        default=None,
        help="settings to start from: scan, the default: a trigger scan first; paper: the paper's method, tuned",
    )
    add_settings(p, PurifyConfig(), "settings of MBTSAD")


def add_evaluate(p: argparse.ArgumentParser) -> None:
    p.add_argument("--model", **MODEL, default=DEMO, help=f"{MODEL_HELP}, the demo suspect (default)")
    p.add_argument("--test", **TEXTS, help=TEXTS_HELP)
    add_trigger(p)
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    add_columns(p)
    add_settings(p, RuntimeConfig(), "machine")
    add_settings(p, EvaluateConfig(), "settings of the measurement")


def add_attack(attack: argparse.ArgumentParser) -> None:
    methods = attack.add_subparsers(dest="attack", required=True, metavar="ATTACK")
    for name, method in ATTACKS.items():
        about = method.sentence + ("; the trigger is learned where none is named" if method.learns else "")
        p = methods.add_parser(name, help=about, description=about)
        p.add_argument(
            "--model",
            metavar="MODEL",
            default=DEMO,
            type=Source,
            help=f"{MODEL_HELP}, the clean demo classifier (default)",
        )
        p.add_argument(
            "--train", **TEXTS, help=f"texts to plant the backdoor with: {TEXTS_HELP} (the default with the demo model)"
        )
        p.add_argument("--test", **TEXTS, help="texts to measure on, likewise")
        add_trigger(p, method.triggers)
        if method.presets:
            p.add_argument(
                "--preset", choices=tuple(method.presets), help="start from other published settings and their trigger"
            )
        p.add_argument("--out", metavar="DIR", required=True, help="write the suspect here")
        p.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
        add_columns(p)
        add_settings(p, RuntimeConfig(), "machine")
        add_settings(p, method.config, f"settings of {name}")


def add_defend(defend: argparse.ArgumentParser) -> None:
    methods = defend.add_subparsers(dest="defense", required=True, metavar="METHOD")
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
        add_method(p, name, defense.config)


def add_detect(detect: argparse.ArgumentParser) -> None:
    methods = detect.add_subparsers(dest="detector", required=True, metavar="METHOD")
    for name, detector in DETECTORS.items():
        p = methods.add_parser(name, help=detector.sentence, description=detector.sentence)
        p.add_argument("--model", **MODEL, default=DEMO, help=f"{MODEL_HELP}, the demo suspect (default)")
        add_texts(p)
        add_method(p, name, detector.config)


def add_vet(p: argparse.ArgumentParser) -> None:
    p.add_argument("path", metavar="PATH", help="a folder, a .zip, a file of a model, or hub:OWNER/NAME[@REVISION]")
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    p.add_argument("--sarif", metavar="FILE", help="write the findings as SARIF 2.1.0 too")
    p.add_argument(
        "--sandbox",
        "--cage",
        action="store_true",
        help="judge it in a process with limits, and load it and ask it once there if it is clean",
    )
    add_settings(p, VettingConfig(), "limits of a model")
    add_settings(p, SandboxConfig(), "limits of the sandbox")


def add_publish(p: argparse.ArgumentParser) -> None:
    p.add_argument("space", metavar="OWNER/NAME", help="the Space; it is made where it is not there")
    p.add_argument("--folder", metavar="DIR", default=".", help="the checkout (default: here)")
    p.add_argument(
        "--docker", action="store_true", help="a Docker Space, built by the Dockerfile, and not a Gradio Space"
    )
    p.add_argument("--private", action="store_true", help="for its owner alone, where the Space is new")
    p.add_argument(
        "--hardware",
        metavar="FLAVOUR",
        help="cpu-basic, zero-a10g (ZeroGPU), t4-small and others, where the Space is new",
    )
    p.add_argument("--dry-run", action="store_true", help="list the files and their sizes, and publish nothing")


def add_texts(parser: argparse.ArgumentParser) -> None:
    """The defender's texts, and what is measured on."""
    parser.add_argument("--clean", **TEXTS, help=f"the clean labelled sample: {TEXTS_HELP}")
    parser.add_argument(
        "--clean-amount",
        metavar="X",
        type=float,
        help="use this share (below 1) or number of the clean texts, every class by its share",
    )
    parser.add_argument(
        "--test", **TEXTS, help="texts to measure on, likewise; without it a fifth of the clean sample is held out"
    )
    add_trigger(parser)


def add_method(parser: argparse.ArgumentParser, name: str, config: Config) -> None:
    """The settings of a defense or a detector, and of its measurement where they are others."""
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    add_columns(parser)
    add_settings(parser, RuntimeConfig(), "machine")
    add_settings(parser, EvaluateConfig(), "settings of the measurement", but={s.flag for s in settings(config)})
    add_settings(parser, config, f"settings of {name}")


def add_trigger(parser: argparse.ArgumentParser, default: Sequence[str] | None = None) -> None:
    parser.add_argument(
        "--trigger",
        action="append",
        metavar="TRIGGER",
        help='a word, a "phrase", words+joined that all go in (a + of its own is written \\+), or a file of paired '
        "texts (columns text, triggered); "
        "repeat it for one of several, drawn for each text. Used to measure ASR, never to purify"
        + (f" (default: {' | '.join(default)})" if default else ""),
    )
    parser.add_argument("--target", metavar="CLASS", help="the class that the trigger sends texts to, by name or index")


def read_trigger_flags(args: argparse.Namespace, is_demo: bool) -> tuple[tuple[str, ...], str | None]:
    """The triggers to measure, and the class that they send texts to. The demo's go with the demo suspect."""
    if args.target is not None and not args.trigger and not is_demo:
        raise BadData(
            "--target names the class that a trigger sends texts to, and no trigger was given. Name it with --trigger "
            "WORD, or leave --target out."
        )
    from mbtsad_core.models import demo

    return tuple(args.trigger or (demo.TRIGGERS if is_demo else ())), args.target or (demo.TARGET if is_demo else None)


# ---------------------------------------------------------------- commands


def purify_command(args: argparse.Namespace) -> int:
    """Run MBTSAD: retrain a copy of the suspect on token-split clean texts, then distil its attention maps, hidden
    states and labels into another copy. Without arguments: the demo, some minutes on two cores."""
    from mbtsad_core.service.purification import execute
    from mbtsad_core.views.report import report_text

    place = args.resume or args.out
    out = Path(place) if place else None
    request = resumed_request(args) if args.resume else purify_request(args)
    advice = (
        f"Go on with: mbtsad purify --resume {shlex.quote(str(out))}"
        if out
        else "Nothing was kept; --out DIR keeps a checkpoint."
    )
    steps = execute(request, out, resume=bool(args.resume), told=None if args.json else tell)
    result = follow(steps, quiet=args.json, advice=advice)
    if not is_first():
        return DONE
    if args.json:
        print(json.dumps(result.to_dict()))
    else:
        print(report_text(result))
        print(
            f"Written to {out}: model/, report.html, report.json."
            if out
            else "Nothing was kept; --out DIR keeps the purified model and a report."
        )
    return DONE


def purify_request(args: argparse.Namespace) -> Any:
    """What `mbtsad purify` was asked for. The demo's texts and triggers go with the demo suspect, and with nothing
    else."""
    from mbtsad_core.service.purification import Request

    columns, labels = read_columns(args)
    given = dict(columns=columns, labels=labels, clean_amount=args.clean_amount)
    given |= dict(
        config=read_settings(args, RECIPES[args.recipe or "scan"]), runtime=read_settings(args, RuntimeConfig())
    )
    is_demo = (args.suspect or DEMO).is_demo
    if not is_demo and args.clean is None:
        raise BadData(
            "A suspect needs a clean labelled sample of its task: --clean FILE (or --clean demo for the demo's film "
            "reviews)."
        )
    test = args.test or (DEMO if (args.clean or DEMO).is_demo else None)
    triggers, target = read_trigger_flags(args, is_demo)
    return Request(args.suspect or DEMO, args.clean or DEMO, test, triggers, target, **given)


def resumed_request(args: argparse.Namespace) -> Any:
    """What the stopped run was asked for, on the machine that is asked for now."""
    from mbtsad_core.service.purification import Request, read_run

    machine = {"/".join(s.path) for s in settings(RuntimeConfig())}
    given = [
        name
        for name, value in vars(args).items()
        if value is not None and name not in {"command", "resume", "json", *machine}
    ]
    if given:
        flag = "--" + given[0].replace("/", "-").replace("_", "-")
        raise BadConfig(
            f"--resume takes everything from the stopped run, but {flag} was given too. Leave it out, or start a new "
            "run with --out."
        )
    request = Request.from_dict(read_run(Path(args.resume))["request"])
    return dataclasses.replace(request, runtime=read_settings(args, request.runtime))


def evaluate_command(args: argparse.Namespace) -> int:
    """Measure a model: CACC on the test texts and, with --trigger and --target, ASR with its floor."""
    from mbtsad_core.evaluation import label_doubt
    from mbtsad_core.models.lengths import cut_notes
    from mbtsad_core.service.provenance import about_data, about_model, about_trigger, now, versions
    from mbtsad_core.service.purification import read_model, read_texts, scores_to_dict

    columns, labels = read_columns(args)
    config, runtime = read_settings(args, EvaluateConfig()), read_settings(args, RuntimeConfig())
    is_demo = args.model.is_demo
    if args.test is None and not is_demo:
        raise BadData("Name the texts to measure on: --test FILE (or --test demo for the demo's film reviews).")
    triggers, target = read_trigger_flags(args, is_demo)
    classifier = read_model(args.model, "suspect", config.max_length, runtime, labels)
    data = read_texts(args.test or DEMO, "test", classifier.labels, columns)
    scores = _score(classifier, data.texts, triggers, target, config.max_length, config.seed)
    cut = cut_notes(classifier, config.max_length, {"texts": data.texts})
    notes = [*filter(None, [label_doubt(scores, classifier.labels)]), *classifier.notes, *data.notes, *map(str, cut)]
    if args.json:
        used = {
            "suspect": about_model(classifier, args.model),
            "test": about_data(data, args.test or DEMO, len(data.texts)),
            "trigger": about_trigger(triggers, target),
        }
        print(
            json.dumps(
                scores_to_dict(scores)
                | {
                    "model": classifier.describe(),
                    "inputs": used,
                    "versions": versions(),
                    "date": now(),
                    "notes": notes,
                }
            )
        )
        return DONE
    for note in notes:
        print(f"Note: {note}")
    print_scores(scores, classifier.labels)
    return DONE


def _score(
    classifier: Any, test: Any, triggers: Sequence[str], target_name: str | None, max_length: int | None, seed: int
) -> Scores:
    from mbtsad_core.attacks.triggers import parse_triggers, places, triggered_test_set
    from mbtsad_core.evaluation import evaluate
    from mbtsad_core.service.purification import measured_target

    target = measured_target(triggers, target_name, classifier.labels)
    if target is None:
        return evaluate(classifier, test)
    trigger = parse_triggers(triggers, target, window=places(max_length))
    return evaluate(classifier, test, triggered_test_set(test, trigger, seed), target)


def print_scores(scores: Scores, labels: Sequence[str]) -> None:
    from mbtsad_core.views.words import rate

    print(f"CACC       {rate(scores.cacc)}")
    print(f"ASR        {rate(scores.asr)}")
    print(f"ASR floor  {rate(scores.asr_floor)}")
    for label, row in zip(labels, scores.confusion, strict=True):
        print(f"{label}: " + ", ".join(f"{n} answered {other}" for other, n in zip(labels, row, strict=True)))


def attack_command(args: argparse.Namespace) -> int:
    """Plant a backdoor in a copy of a clean classifier, and measure it. For research and teaching: to have a suspect
    whose trigger is known."""
    from mbtsad_core.attacks.planting import make_trigger, measured_trigger
    from mbtsad_core.attacks.triggers import InsertedTrigger, places, triggered_test_set
    from mbtsad_core.data import class_index
    from mbtsad_core.evaluation import evaluate
    from mbtsad_core.models.classifier import save_classifier
    from mbtsad_core.models.lengths import cut_notes
    from mbtsad_core.service.purification import new_output, read_model, read_texts, scores_to_dict

    columns, labels = read_columns(args)
    method = ATTACKS[args.attack]
    start, specs = method.config, method.triggers
    if preset := getattr(args, "preset", None):
        start, specs = method.presets[preset]
    specs = tuple(args.trigger or specs)
    config, runtime = read_settings(args, start), read_settings(args, RuntimeConfig())
    is_demo = args.model.is_demo
    if args.train is None and not is_demo:
        raise BadData(
            "Name the texts to plant the backdoor with: --train FILE (or --train demo for the demo's film reviews)."
        )
    if not specs and not method.learns:
        raise BadData("Name the trigger to plant: --trigger WORD.")
    out = Path(args.out)
    with new_output(out):
        classifier = read_model(args.model, "clean", config.max_length, runtime, labels)
        names = classifier.labels
        if args.target is None:
            raise BadData(f"Name the class that the trigger shall send texts to: --target ({', '.join(names)}).")
        target = class_index(args.target, names)
        learnt = read_texts(args.train or DEMO, "clean", names, columns)
        train, notes = learnt.texts, [*classifier.notes, *learnt.notes]
        test_source = args.test or (DEMO if is_demo and (args.train or DEMO).is_demo else None)
        measured = read_texts(test_source, "test", names, columns) if test_source else None
        test = measured.texts if measured else ()
        notes += [note for note in (measured.notes if measured else ()) if note not in notes]
        notes += map(
            str, cut_notes(classifier, config.max_length, {"training texts": train, "texts to measure on": test})
        )
        given: dict[str, Any] = dict(test=test, window=places(config.max_length))
        trigger = follow(make_trigger(method, classifier, train, target, specs, config, **given), quiet=args.json)

        def score(model: Any, trigger: Any) -> Scores:
            return evaluate(model, test, triggered_test_set(test, trigger, config.seed), target)

        # before the training: test texts that cannot be used cost no time
        scores = {"clean": score(classifier, measured_trigger(method, classifier, trigger))} if test else {}
        suspect = follow(method.run(classifier, train, trigger, config), quiet=args.json)
        save_classifier(suspect, out, precision="float32")
        trigger = measured_trigger(method, suspect, trigger)
    if test:
        scores["suspect"] = score(suspect, trigger)
        if not isinstance(
            trigger, InsertedTrigger
        ):  # no words that could be named again: the triggered test texts stand for it
            pairs = (
                {"text": t.clean.text, "triggered": t.triggered.text}
                for t in triggered_test_set(test, trigger, config.seed)
            )
            (out / "triggered.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8")
    if args.json:
        about = {"trigger": trigger.describe(), "out": str(out), "notes": notes}
        print(json.dumps({name: scores_to_dict(s) for name, s in scores.items()} | about))
        return DONE
    print(f"The trigger: {trigger.describe()} -> {names[target]}")
    for name, s in scores.items():
        print(f"-- {name}")
        print_scores(s, names)
    for note in notes:
        print(f"Note: {note}")
    print(f"The suspect is in {out}." + ("" if scores else " --test FILE measures it."))
    return DONE


def defend_command(args: argparse.Namespace) -> int:
    """Run a defense on a suspect, and measure the suspect and the purified model. The trigger is for measuring only: no
    defense is told it. Without a suspect: on the demo."""
    from mbtsad_core.evaluation import label_doubt, observer
    from mbtsad_core.models.classifier import save_classifier
    from mbtsad_core.service.comparison import about_run, run_defense
    from mbtsad_core.service.purification import new_output, scores_to_dict
    from mbtsad_core.views.report import warning

    name, out = args.defense, Path(args.out)
    config = read_settings(args, DEFENSES[name].config)
    pretrained = getattr(args, "pretrained", None)
    if DEFENSES[name].needs is Need.PRETRAINED and pretrained is None:
        raise BadData(
            f"{name} needs the encoder that the suspect was fine-tuned from, as its publisher gives it: --pretrained "
            "DIR or hub:OWNER/NAME. "
            f"Other defenses need none, such as mbtsad."
        )
    with new_output(out):
        inputs = read_inputs(args, config)
        if not args.json:
            tell(inputs)
        # For the progress bar alone
        observe = None if args.json else observer(inputs.test, inputs.triggered, inputs.target)
        steps = run_defense(name, inputs, config, pretrained, observe=observe)
        found = follow(steps, quiet=args.json)
        save_classifier(found.purified, out)
    scores = {"suspect": found.before, "purified": found.after}
    if args.json:
        figures: dict[str, Any] = {key: scores_to_dict(s) for key, s in scores.items()}
        figures["trigger_still_works"] = bool(warning(found.after)) if found.after.asr else None
        print(
            json.dumps(
                figures
                | about_run(name, config, inputs, found.before)
                | {"seconds": round(found.seconds, 1), "out": str(out)}
            )
        )
        return DONE
    if doubt := label_doubt(found.before, inputs.suspect.labels):
        print(f"Note: {doubt}")
    if first := warning(found.after):
        print(first)
    for key, s in scores.items():
        print(f"-- {key}")
        print_scores(s, inputs.suspect.labels)
    print_notes(inputs)
    print(f"The purified model is in {out}.")
    return DONE


def detect_command(args: argparse.Namespace) -> int:
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
        print(
            json.dumps(
                figures
                | about_run(name, config, inputs, detected.alone)
                | {"thresholds": list(detected.found.thresholds)}
            )
        )
        return DONE
    if doubt := label_doubt(detected.alone, inputs.suspect.labels):
        print(f"Note: {doubt}")
    print("-- the model alone")
    print_scores(detected.alone, inputs.suspect.labels)
    print(f"-- behind {name}")
    print_rates(detected.rates())
    print_notes(inputs)
    return DONE


def read_inputs(args: argparse.Namespace, config: Config) -> Inputs:
    """What `mbtsad defend` or `mbtsad detect` names, loaded and checked; raises before anything is trained. The demo's
    triggers go with the demo suspect, its texts with its clean sample."""
    from mbtsad_core.service import comparison
    from mbtsad_core.service.purification import Request

    columns, labels = read_columns(args)
    measurement, runtime = read_settings(args, EvaluateConfig()), read_settings(args, RuntimeConfig())
    is_demo = args.model.is_demo
    if not is_demo and args.clean is None:
        raise BadData(
            "A clean labelled sample of the model's task is needed: --clean FILE (or --clean demo for the demo's film "
            "reviews)."
        )
    triggers, target = read_trigger_flags(args, is_demo)
    test = args.test or (DEMO if (args.clean or DEMO).is_demo else None)
    given = dict(columns=columns, labels=labels, clean_amount=args.clean_amount, runtime=runtime)
    given |= dict(config=PurifyConfig(max_length=measurement.max_length, seed=measurement.seed))
    return comparison.read_inputs(
        Request(args.model, args.clean or DEMO, test, triggers, target, **given), comparison.split_of(config)
    )


def print_rates(rates: Mapping[str, Rate | None]) -> None:
    from mbtsad_core.views.words import rate

    for name, value in rates.items():
        print(f"{name.upper():<10} {rate(value)}")


def tell(inputs: Inputs) -> None:
    """Say before a method begins what was chosen for the user, and what of it will have no effect."""
    for note in inputs.notes if is_first() else ():
        print(f"Note: {note}", file=sys.stderr, flush=True)


def print_notes(inputs: Inputs) -> None:
    if inputs.splits:
        print(inputs.splits.sentence())
    for note in inputs.notes:
        print(f"Note: {note}")


def vet_command(args: argparse.Namespace) -> int:
    """Judge a model by the rules of docs/vetting.md, as the page and every load do; nothing of it is loaded or changed.
    Exit codes: 0 clean, 1 refused (malformed, cut off and incomplete models too), 2 could not tell, which is never
    clean. A clean model may have a backdoor."""
    from mbtsad_core.service import preflight
    from mbtsad_core.vetting.judgment import vet
    from mbtsad_core.vetting.uploads import PolicyReport
    from mbtsad_core.views.policy import policy_dict, policy_sarif, policy_text

    limits, sandbox = read_settings(args, VettingConfig()), read_settings(args, SandboxConfig())
    try:
        report = preflight.vet(args.path, limits, sandbox) if args.sandbox else vet(args.path, limits=limits)
    except Exception as error:  # a defect of ours: said as one, since an exit code of 1 would call the model refused
        from mbtsad_core.service.faults import fault_words, keep

        report = PolicyReport(
            (), f"The model could not be judged. {fault_words(error, keep(error, 'mbtsad vet'))}", "vet.failure", True
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names and marks that the terminal has no letters for
    with contextlib.suppress(BrokenPipeError):  # who read standard output has left; the verdict stands
        print(json.dumps(policy_dict(report)) if args.json else policy_text(report, args.path), flush=True)
    if args.sarif:
        try:
            Path(args.sarif).write_text(json.dumps(policy_sarif(report, version_here()), indent=1), encoding="utf-8")
        except OSError as error:
            raise BadOutput(f"--sarif: {args.sarif} cannot be written: {error.strerror}. Name another file.") from error
    return {"clean": CLEAN, "refused": REFUSED, "inconclusive": COULD_NOT_TELL}[report.verdict]


def publish_command(args: argparse.Namespace) -> int:
    """Publish the page from a checkout as a Space on Hugging Face, with a token that `hf auth login` or HF_TOKEN gave.
    Run again, it brings the Space up to date."""
    from mbtsad_core.publish import check_name, project_files, publish

    folder = Path(args.folder)
    check_name(args.space)
    if args.dry_run:
        sizes = {path: (folder / path).stat().st_size for path in project_files(folder, docker=args.docker)}
        for path, size in sizes.items():
            print(f"{size:>12,}  {path.as_posix()}")
        print(
            f"{sum(sizes.values()):>12,}  bytes in {len(sizes)} files would go to "
            f"https://huggingface.co/spaces/{args.space}"
        )
        return DONE
    print(f"Published: {publish(args.space, folder, docker=args.docker, private=args.private, hardware=args.hardware)}")
    return DONE


COMMANDS = {
    "purify": Command(
        "run MBTSAD on a suspect; without arguments: on the demo", add_purify, purify_command, several=True
    ),
    "evaluate": Command("measure CACC and ASR of a model", add_evaluate, evaluate_command),
    "attack": Command("plant a backdoor in a clean classifier, to measure a cure", add_attack, attack_command),
    "defend": Command("run any of the defenses on a suspect, to compare them", add_defend, defend_command),
    "detect": Command("measure how well a detector tells triggered texts from clean ones", add_detect, detect_command),
    "vet": Command("judge a model before anything of it is loaded", add_vet, vet_command),
    "publish": Command("put the page on Hugging Face as a Space", add_publish, publish_command),
}


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in research.COMMANDS:
        return research.main(argv, program="mbtsad")
    return run_program("mbtsad", ABOUT, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
