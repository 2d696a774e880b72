"""`mbtsad report`"""

from __future__ import annotations

import argparse
from pathlib import Path

from mbtsad_core.terminal import DONE


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run, as `purify --out` made it")


def run(args: argparse.Namespace) -> int:
    """Make report.html of a finished run again, from its report.json, run.json and events.jsonl. No model is loaded."""
    from mbtsad_core.service.run_folder import write_whole
    from mbtsad_core.service.saved_result import read_result
    from mbtsad_core.views.report import report_html

    write_whole(args.run / "report.html", report_html(read_result(args.run)))
    print(args.run / "report.html")
    return DONE
