"""`mbtsad report`"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mbtsad_core.cli.prints import write_sarif
from mbtsad_core.errors import BadData
from mbtsad_core.terminal import DONE, version_here


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run, as `purify --out` made it")
    parser.add_argument(
        "--compare",
        metavar="FILE",
        nargs="+",
        default=[],
        help="other methods on the same suspect, texts and trigger, to stand beside MBTSAD: what `mbtsad defend METHOD "
        "--json` and `mbtsad detect METHOD --json` printed; report.json keeps them",
    )
    parser.add_argument(
        "--scan",
        metavar="FILE",
        help="a scan of the same suspect, to stand in the report: what `mbtsad scan MODEL --json` printed; report.json "
        "keeps it",
    )
    parser.add_argument("--sarif", metavar="FILE", help="write what vetting and the scan found as SARIF 2.1.0 too")


def run(args: argparse.Namespace) -> int:
    """Make report.html of a finished run again, from its report.json, run.json and events.jsonl. No model is loaded."""
    from mbtsad_core.service.run_folder import write_json, write_whole
    from mbtsad_core.service.saved_result import REPORT, read_result, with_compared, with_scanned
    from mbtsad_core.views.report import report_html
    from mbtsad_core.views.report_sarif import report_sarif

    result = read_result(args.run)
    if others := _read("--compare", args.compare):
        result = with_compared(result, others)
    if args.scan:
        result = with_scanned(result, *_read("--scan", [args.scan]))
    if others or args.scan:
        write_json(args.run / REPORT, result.to_dict())
    write_whole(args.run / "report.html", report_html(result))
    if args.sarif:
        write_sarif(args.sarif, report_sarif(result.to_dict(), version_here()))
    print(args.run / "report.html")
    return DONE


def _read(flag: str, files: Sequence[str]) -> list[dict[str, Any]]:
    try:
        return [json.loads(Path(file).read_text("utf-8")) for file in files]
    except (OSError, ValueError) as error:
        raise BadData(f"{flag}: expected a file of JSON, as --json prints it. ({error})") from error
