"""Models, texts and triggers on the command line: the flags that several commands have, and what they name."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mbtsad_core.config import Config, EvaluateConfig, RuntimeConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import BadConfig, BadData
from mbtsad_core.flags import MODEL_HELP, TEXTS_HELP, add_groups, read_settings
from mbtsad_core.sources import DEMO, Source

if TYPE_CHECKING:
    from mbtsad_core.data import Columns
    from mbtsad_core.service.purification import Inputs, Request

MODEL: dict[str, Any] = dict(metavar="MODEL", type=Source)
TEXTS: dict[str, Any] = dict(metavar="TEXTS", type=Source)
DEMO_SUSPECT: dict[str, Any] = MODEL | dict(default=DEMO, help=f"{MODEL_HELP}, the demo suspect (default)")
MEASUREMENT = {"settings of the measurement": EvaluateConfig()}


# ---------------------------------------------------------------- flags


def add_texts(parser: argparse.ArgumentParser) -> None:
    """The defender's texts, and what is measured on."""
    parser.add_argument("--clean", **TEXTS, help=f"the clean labeled sample: {TEXTS_HELP}")
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


def add_trigger(
    parser: argparse.ArgumentParser, default: Sequence[str] = (), use: str = "Used to measure ASR, never to purify"
) -> None:
    parser.add_argument(
        "--trigger",
        action="append",
        metavar="TRIGGER",
        help='a word, a "phrase", words+joined that all go in (a + of its own is written \\+), or a file of paired '
        f"texts (columns text, triggered); repeat it for one of several, drawn for each text. {use}"
        + (f" (default: {' | '.join(default)})" if default else ""),
    )
    parser.add_argument("--target", metavar="CLASS", help="the class that the trigger sends texts to, by name or index")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")


def add_run(parser: argparse.ArgumentParser, configs: Mapping[str, Config]) -> None:
    """What every run takes beside its inputs: --json, the columns of its tables, the machine, and these settings by
    their title."""
    add_json(parser)
    add_columns(parser)
    add_groups(parser, {"machine": RuntimeConfig(), **configs})


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


# ---------------------------------------------------------------- what they name


def read_columns(args: argparse.Namespace) -> tuple[Columns, tuple[str, ...] | None]:
    """Where a table has its texts and labels, and the names of the classes where they were given."""
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


def read_trigger(args: argparse.Namespace, is_demo: bool) -> tuple[tuple[str, ...], str | None]:
    """The triggers to measure, and the class that they send texts to. The demo's go with the demo suspect."""
    if args.target is not None and not args.trigger and not is_demo:
        raise BadData(
            "--target names the class that a trigger sends texts to, and no trigger was given. Name it with --trigger "
            "WORD, or leave --target out."
        )
    from mbtsad_core.models import demo

    return tuple(args.trigger or (demo.TRIGGERS if is_demo else ())), args.target or (demo.TARGET if is_demo else None)


def read_request(args: argparse.Namespace, suspect: Source | None, config: PurifyConfig, lacking: str) -> Request:
    """What a run on a suspect is asked for. The demo's triggers go with the demo suspect, its texts with its clean
    sample. Raises BadData, with what is `lacking`, where a suspect of the user's has no clean sample."""
    from mbtsad_core.service.purification import Request

    columns, labels = read_columns(args)
    suspect = suspect or DEMO
    if not suspect.is_demo and args.clean is None:
        raise BadData(f"{lacking}: --clean FILE (or --clean demo for the demo's film reviews).")
    test = args.test or (DEMO if (args.clean or DEMO).is_demo else None)
    given = dict(columns=columns, labels=labels, clean_amount=args.clean_amount)
    runtime = read_settings(args, RuntimeConfig())
    triggers, target = read_trigger(args, suspect.is_demo)
    return Request(suspect, args.clean or DEMO, test, triggers, target, config=config, runtime=runtime, **given)


def read_inputs(args: argparse.Namespace, config: Config) -> Inputs:
    """What `mbtsad defend` or `mbtsad detect` names, loaded and checked; raises before anything is trained."""
    from mbtsad_core.service import comparison

    measurement = read_settings(args, EvaluateConfig())
    measured = PurifyConfig(max_length=measurement.max_length, seed=measurement.seed)
    lacking = "A clean labeled sample of the model's task is needed"
    return comparison.read_inputs(read_request(args, args.model, measured, lacking), comparison.split_of(config))
