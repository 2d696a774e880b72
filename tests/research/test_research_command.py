"""`mbtsad-research`, and the same commands as `mbtsad` passes them on."""

from __future__ import annotations

import re

import pytest
from conftest import mbtsad

from mbtsad_core.config import Config, LanguageModelConfig, RuntimeConfig, settings
from mbtsad_core.research.cli import COMMANDS, REPRODUCED, main
from mbtsad_core.research.tables import TABLES


def research(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main(argv)
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


def test_help_lists_the_commands_of_research_which_the_users_program_leaves_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    own, users = research(capsys, "--help")[1], mbtsad("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^ +{command}\b", own, re.MULTILINE)
        assert not re.search(rf"^ +{command}\b", users, re.MULTILINE)


@pytest.mark.parametrize(
    "argv",
    [
        ["reproduce", "table1"],
        ["reproduce", "table1", "--seeds", "0"],
        ["reproduce", "table9"],
        ["benchmark", "--workload", "none"],
        *([command, "--help"] for command in COMMANDS),
    ],
    ids=" ".join,
)
def test_mbtsad_passes_the_commands_on(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = research(capsys, *argv)
    run = mbtsad(*argv)
    assert (run.returncode, out or err) != (0, "")
    # Usage lines are broken where the program's name ends
    expected, got = (
        re.sub(r"\s+", " ", text).replace("mbtsad-research", "mbtsad") for text in (out + err, run.stdout + run.stderr)
    )
    assert (run.returncode, got) == (code, expected)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_setting(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = research(capsys, command, "--help")[1]
    configs: list[Config] = [RuntimeConfig()]
    if command == "build-language-model":
        configs.append(LanguageModelConfig())
    assert [s.flag for config in configs for s in settings(config) if s.flag not in shown] == []


def test_every_table_can_be_asked_for() -> None:
    assert REPRODUCED == TABLES


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert research(capsys, "--version")[1].startswith("mbtsad-research ")
