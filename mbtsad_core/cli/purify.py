"""`mbtsad purify`"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mbtsad_core.cli.inputs import MODEL, add_run, add_texts, read_request
from mbtsad_core.cli.prints import tell
from mbtsad_core.config import RuntimeConfig, settings
from mbtsad_core.defenses.mbtsad_method import RECIPES, PurifyConfig
from mbtsad_core.errors import BadConfig
from mbtsad_core.flags import MODEL_HELP, read_settings, with_flags
from mbtsad_core.terminal import DONE, follow, is_first

if TYPE_CHECKING:
    from mbtsad_core.service.purification import Request


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suspect", **MODEL, help=f"{MODEL_HELP} (default: demo)")
    add_texts(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="write model/, report.json and report.html here; Ctrl-C then leaves a checkpoint"
    )
    parser.add_argument("--resume", metavar="DIR", help="go on with a stopped run")
    parser.add_argument(
        "--residual",
        action="store_true",
        default=None,
        help="scan the purified model too, and estimate the ASR that is left from clean texts alone (minutes)",
    )
    parser.add_argument(
        "--recipe",
        type=lambda name: {"strays": "scan"}.get(name, name),
        choices=tuple(RECIPES),
        help="settings to start from: default: a trigger scan first and, where no token turns the suspect by itself, "
        "a scan for sequences of ordinary tokens, such as a phrase or a sentence, which are unlearned; scan: without "
        "the second; unlearn: with the second always; paper: the paper's method, tuned",
    )
    add_run(parser, {"settings of MBTSAD": PurifyConfig()})


def run(args: argparse.Namespace) -> int:
    """Run MBTSAD: scan for a trigger, retrain a copy of the suspect on token-split clean texts, then distill its
    attention maps, hidden states and labels into another copy. Without arguments: the demo, some minutes on two
    cores."""
    from mbtsad_core.service.purification import execute
    from mbtsad_core.views.report import report_text

    place = args.resume or args.out
    out = Path(place) if place else None
    request = _resumed(args) if args.resume else _asked(args)
    go_on = f"Go on with: mbtsad purify --resume {shlex.quote(str(out))}"
    told = None if args.json else tell
    steps = execute(request, out, resume=bool(args.resume), residual=bool(args.residual), told=told)
    advice = go_on if out else "Nothing was kept; --out DIR keeps a checkpoint."
    result = follow(steps, quiet=args.json, advice=advice)
    if not is_first():
        return DONE
    if args.json:
        print(json.dumps(result.to_dict()))
        return DONE
    print(with_flags(report_text(result)))
    kept = f"Written to {out}: model/, report.html, report.json."
    print(kept if out else "Nothing was kept; --out DIR keeps the purified model and a report.")
    return DONE


def _asked(args: argparse.Namespace) -> Request:
    config = read_settings(args, RECIPES[args.recipe or "default"])
    return read_request(args, args.suspect, config, "A suspect needs a clean labeled sample of its task")


def _resumed(args: argparse.Namespace) -> Request:
    """What the stopped run was asked for, on the machine that is asked for now."""
    from mbtsad_core.service.purification import Request, read_run

    free = {"command", "resume", "residual", "json", *("/".join(s.path) for s in settings(RuntimeConfig()))}
    if given := [name for name, value in vars(args).items() if value is not None and name not in free]:
        flag = "--" + given[0].replace("/", "-").replace("_", "-")
        raise BadConfig(
            f"--resume takes everything from the stopped run, but {flag} was given too. Leave it out, or start a new "
            "run with --out."
        )
    request = Request.from_dict(read_run(Path(args.resume))["request"])
    return dataclasses.replace(request, runtime=read_settings(args, request.runtime))
