"""`mbtsad vet`. Exit codes: 0 clean, 1 refused, 2 could not tell."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from typing import TYPE_CHECKING

from mbtsad_core.cli.prints import check_sarif, write_sarif
from mbtsad_core.config import SandboxConfig, VettingConfig
from mbtsad_core.flags import add_settings, read_settings
from mbtsad_core.terminal import version_here

if TYPE_CHECKING:
    from mbtsad_core.vetting.uploads import PolicyReport

CODES = {"refused": 1, "inconclusive": 2, "clean": 0}  # the worst first


def add(parser: argparse.ArgumentParser) -> None:
    kinds = "a folder, a .zip, a file of a model, or hub:OWNER/NAME[@REVISION]; several are judged one by one"
    parser.add_argument("paths", metavar="PATH", nargs="+", help=kinds)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for each PATH")
    parser.add_argument("--sarif", metavar="FILE", help="write the findings as SARIF 2.1.0 too")
    parser.add_argument(
        "--sandbox",
        action="store_true",
        help="judge it in a process with limits, and load it and ask it once there if it is clean",
    )
    parser.add_argument("--cage", dest="sandbox", action="store_true", help=argparse.SUPPRESS)  # its earlier name
    add_settings(parser, VettingConfig(), "limits of a model")
    add_settings(parser, SandboxConfig(), "limits of the sandbox")


def run(args: argparse.Namespace) -> int:
    """Judge models by the rules of docs/vetting.md, as the page and every load do; nothing of them is loaded or
    changed. Exit codes: 0 clean, 1 refused (malformed, cut off and incomplete models too), 2 could not tell, which is
    never clean; of several models the worst, 1 before 2. A clean model may have a backdoor."""
    from mbtsad_core.views.policy import policy_dict, policy_sarif, policy_text

    limits, sandbox = read_settings(args, VettingConfig()), read_settings(args, SandboxConfig())
    check_sarif(args.sarif)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names and marks that the terminal has no letters for
    reports: list[PolicyReport] = []
    for path in args.paths:
        reports.append(_judge(path, limits, sandbox if args.sandbox else None))
        with contextlib.suppress(BrokenPipeError):  # who read standard output has left; the verdict stands
            print(json.dumps(policy_dict(reports[-1])) if args.json else policy_text(reports[-1], path), flush=True)
    if args.sarif:
        write_sarif(args.sarif, policy_sarif(reports, version_here()))
    return next(code for verdict, code in CODES.items() if any(report.verdict == verdict for report in reports))


def _judge(path: str, limits: VettingConfig, sandbox: SandboxConfig | None) -> PolicyReport:
    """The verdict on `path`, in a sandbox where there are limits of one."""
    from mbtsad_core.vetting.judgment import vet
    from mbtsad_core.vetting.uploads import PolicyReport

    try:
        if sandbox is None:
            return vet(path, limits=limits)
        from mbtsad_core.service import preflight

        return preflight.vet(path, limits, sandbox)
    except Exception as error:  # a defect of ours: said as one, since an exit code of 1 would call the model refused
        from mbtsad_core.service.faults import fault_words, keep

        told = f"The model could not be judged. {fault_words(error, keep(error, 'mbtsad vet'))}"
        return PolicyReport((), told, "vet.failure", True)
