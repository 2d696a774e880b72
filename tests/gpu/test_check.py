"""The check of a GPU machine, on the CPU in tiny sizes: its own faults are to be found before there is a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).with_name("check.sh")
STEPS = ("tests", "numbers", "cure", "long")


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check", SCRIPT.with_suffix(".py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wrong_number_and_a_step_that_is_missing_fail_the_table(
    check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in STEPS:
        (tmp_path / f"{step}.json").write_text(json.dumps({"logit_error, own attention": 1e-4}))
    assert check.table(tmp_path) == 0
    (tmp_path / "numbers.json").write_text(json.dumps({"logit_error, own attention": 1e-2}))
    assert check.table(tmp_path) == 1
    assert "| logit_error, own attention | 0.01 | missed: at most 0.001 |" in capsys.readouterr().out
    (tmp_path / "numbers.json").unlink()
    assert check.table(tmp_path) == 1
    assert "| numbers | not done | |" in capsys.readouterr().out


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu_and_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    (tmp_path / "tests.json").write_text(json.dumps({"gpu_tests": "as they were"}))
    for allowed in (600, 60):
        done = subprocess.run(
            [SCRIPT, tmp_path], env=environment, capture_output=True, text=True, check=True, timeout=allowed
        )
        assert "| gpu_tests | as they were | |" in done.stdout.replace("  ", " ")
        assert "missed" not in done.stdout
        assert {file.stem for file in tmp_path.glob("*.json")} == set(STEPS)
