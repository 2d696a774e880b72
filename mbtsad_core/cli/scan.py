"""`mbtsad scan`. Exit codes: 0 nothing found, 1 refused, 2 bad input, 3 a trigger exists, 4 inconclusive."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.cli.inputs import MODEL, TEXTS, add_run, read_columns
from mbtsad_core.cli.prints import check_sarif, write_sarif
from mbtsad_core.config import RuntimeConfig, ScanConfig
from mbtsad_core.errors import BadConfig, BadData
from mbtsad_core.flags import MODEL_HELP, TEXTS_HELP, read_settings
from mbtsad_core.sources import DEMO, Source
from mbtsad_core.steps import drain
from mbtsad_core.terminal import INTERRUPTED, interruptible, progress, version_here

if TYPE_CHECKING:
    from mbtsad_core.service.scanning import ScanRequest


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", **MODEL, nargs="+", help=f"{MODEL_HELP}; several are scanned one after the other")
    parser.add_argument(
        "--clean", **TEXTS, help=f"clean texts of the model's task, with labels or without: {TEXTS_HELP}"
    )
    parser.add_argument(
        "--clean-amount", metavar="X", type=float, help="use this share (below 1) or number of the clean texts"
    )
    parser.add_argument(
        "--unlabeled",
        action="store_true",
        help="do not read the labels of the texts: the model's own answers stand for them, as they do where the table "
        "has none",
    )
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="models at a time (default: 1)")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="scan on a cluster of Ray, a model a task: the address of a running one, or local for this machine "
        "(pip install 'mbtsad[ray]'). Each machine has the models and texts at the same place",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="add a line of JSON for each model to this file; what stands there is not scanned again",
    )
    parser.add_argument(
        "--before",
        metavar="FILE",
        help="what a scan of the suspect kept by --out, for models that were purified: what its triggers still do "
        "here, and an estimated residual ASR",
    )
    parser.add_argument("--sarif", metavar="FILE", help="write the findings as SARIF 2.1.0 too")
    add_run(parser, {"settings of the scan": ScanConfig()})


def run(args: argparse.Namespace) -> int:
    """Ask whether models have a backdoor, by what, and how sure that is, from clean texts alone: nothing found, a
    trigger exists, or inconclusive. Ctrl-C and --budget end a scan early, with what was found so far. Exit codes: 0
    nothing found, 1 refused, 2 bad input, 3 a trigger exists, 4 inconclusive; of several models the worst: 3, 1, 4,
    0."""
    from mbtsad_core.service.scanning import code_of
    from mbtsad_core.views.scan import scan_sarif, scan_table, scan_text

    request = _request(args)
    check_sarif(args.sarif)
    with interruptible() as stopped:
        records = list(_records(args, request, stopped))
        left = len(dict.fromkeys(args.models)) - len(records)
    if not args.json:
        print(scan_table(records) if len(args.models) > 1 else "\n".join(map(scan_text, records)))
    if left:
        print(f"Stopped: {left} of {len(args.models)} models were not scanned.", file=sys.stderr)
    if args.sarif:
        write_sarif(args.sarif, scan_sarif(records, version_here()))
    return INTERRUPTED if left else code_of(records)


def _request(args: argparse.Namespace) -> ScanRequest:
    from mbtsad_core.service.scanning import ScanRequest, known_triggers

    if args.jobs < 1:
        raise BadConfig(f"--jobs: expected a whole number of at least 1, got {args.jobs}.")
    if args.ray is not None and args.jobs > 1:
        raise BadConfig("--jobs is of this machine, and --ray of a cluster: give one of them.")
    if args.clean is None and not all(model.is_demo for model in args.models):
        raise BadData("A scan needs clean texts of the model's task: --clean FILE (or --clean demo for film reviews).")
    columns, labels = read_columns(args)
    config, runtime = read_settings(args, ScanConfig()), read_settings(args, RuntimeConfig())
    known = known_triggers(Path(args.before)) if args.before else ()
    return ScanRequest(
        args.clean or DEMO, columns, labels, not args.unlabeled, args.clean_amount, config, runtime, known
    )


def _records(args: argparse.Namespace, request: ScanRequest, stopped: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """The record of each model, kept and printed as it comes; those that are kept already come first."""
    from mbtsad_core.service.json_lines import add_line
    from mbtsad_core.service.scanning import kept_records

    out, asked = Path(args.out) if args.out else None, list(dict.fromkeys(args.models))
    kept = kept_records(out, request) if out else {}
    found = [kept[model] for model in asked if model in kept]
    for record in found:
        _print(args, record)
    yield from found
    for record in _scans([model for model in asked if model not in kept], args, request, stopped):
        if out:
            add_line(out, record)
        _print(args, record)
        yield record


def _scans(
    models: Sequence[Source], args: argparse.Namespace, request: ScanRequest, stopped: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    from mbtsad_core.service.scanning import scan_many, scan_or_say, scan_source

    if args.ray is not None:
        from mbtsad_core.service.scanning_on_ray import scan_on_ray

        if models:
            yield from scan_on_ray(models, request, args.ray, stopped)
        return
    if args.jobs > 1 and len(models) > 1:
        yield from scan_many(models, request, args.jobs, stopped)
        return
    one_by_one = scan_source if len(args.models) == 1 else scan_or_say
    for model in models:
        if stopped():
            return
        show = (lambda event: None) if args.json else progress()
        try:
            yield drain(one_by_one(model, request, stopped), show)
        finally:
            show(None)


def _print(args: argparse.Namespace, record: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(record), flush=True)
