"""The command line, one module a command: `mbtsad purify | evaluate | attack | defend | detect | vet | scan |
report | publish`.

Exit codes are those of mbtsad_core/terminal.py. `mbtsad vet` has its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mbtsad_core.cli import attack, defend, detect, evaluate, publish, purify, report, scan, vet
from mbtsad_core.research import cli as research
from mbtsad_core.terminal import Command, run_program

ABOUT = (
    "Cure a backdoored transformer text classifier with a small clean sample. Research has a command of its own: "
    "mbtsad-research."
)
COMMANDS = {
    "purify": Command("run MBTSAD on a suspect; without arguments: on the demo", purify.add, purify.run, several=True),
    "evaluate": Command("measure CACC and ASR of a model", evaluate.add, evaluate.run),
    "attack": Command("plant a backdoor in a clean classifier, to measure a cure", attack.add, attack.run),
    "defend": Command("run any of the defenses on a suspect, to compare them", defend.add, defend.run),
    "detect": Command("measure how well a detector tells triggered texts from clean ones", detect.add, detect.run),
    "vet": Command("judge a model before anything of it is loaded", vet.add, vet.run),
    "scan": Command("ask whether models have a backdoor, and by what", scan.add, scan.run),
    "report": Command("make the report of a finished run again, from its folder", report.add, report.run),
    "publish": Command("put the page on Hugging Face as a Space", publish.add, publish.run),
}


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in research.COMMANDS:
        return research.main(argv, program="mbtsad")
    return run_program("mbtsad", ABOUT, COMMANDS, argv)
