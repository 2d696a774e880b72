"""Time and memory against the size of the work: one setting is turned at a time, a run is done once, and the picture
follows the rows."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import mbtsad

from mbtsad_core.config import RuntimeConfig
from mbtsad_core.errors import MBTSADError
from mbtsad_core.research import scaling
from mbtsad_core.research.benchmark import Shape
from mbtsad_core.research.grid import read_results
from mbtsad_core.research.scaling import AXES, BASE, RUNS, Run, draw, measure, table

CPU = RuntimeConfig(device="cpu", threads=1)
SMALL = Run(texts=32, tokens=16, shape=Shape(1, 32, 2, 64, 6500))


def row(run: Run, seconds: float = 2.0, estimate: float = 3.0) -> dict[str, Any]:
    return {
        "run": dataclasses.asdict(run),
        "seconds": seconds,
        "cpu": seconds,
        "estimate": estimate,
        "memory": 300 * 2**20,
        "load": 1.0,
    }


def test_each_axis_turns_one_setting_of_the_same_run() -> None:
    for place, runs in AXES.values():
        assert BASE in runs
        assert len({place(run) for run in runs}) == len(runs)
        assert [place(run) for run in runs] == sorted(place(run) for run in runs)
        assert (
            len(
                {
                    f.name
                    for run in runs
                    for f in dataclasses.fields(Run)
                    if getattr(run, f.name) != getattr(BASE, f.name)
                }
            )
            == 1
        )
    assert len(RUNS) == sum(len(runs) - 1 for _, runs in AXES.values()) + 1


def test_weights_of_the_layers_are_counted_by_hand() -> None:
    assert dataclasses.replace(BASE, shape=Shape(2, 10, 2, 20)).parameters * 1e6 == 2 * (4 * 100 + 2 * 200)


@pytest.mark.slow
def test_a_run_is_measured_once_and_another_precision_is_another_run(tmp_path: Path) -> None:
    said: list[str] = []
    (first,) = measure(tmp_path, CPU, said.append, [SMALL])
    assert first["seconds"] > 0 < first["estimate"]
    assert 50 * 2**20 < first["at_first"] <= first["memory"]
    assert (first["threads"], first["device"]) == (1, "cpu")
    assert (tmp_path / "scaling.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert measure(tmp_path, CPU, said.append, [SMALL]) == [first]
    assert len(said) == 1
    assert scaling.key_of(SMALL, CPU) != scaling.key_of(SMALL, dataclasses.replace(CPU, precision="bfloat16"))
    assert list(read_results(tmp_path / "scaling.jsonl")) == [first["key"]]


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_leaves_no_row(tmp_path: Path) -> None:
    with pytest.raises(MBTSADError, match=r"ended with code 1: .*no such device"):
        measure(tmp_path, RuntimeConfig(device="no such device"), print, [SMALL])
    assert read_results(tmp_path / "scaling.jsonl") == {}


def test_a_table_tells_how_far_the_estimate_was_off() -> None:
    line = table([row(BASE, 2.0, 3.0)]).splitlines()[2]
    assert line == "| 64 texts of 32 tokens, K = 1, 6 x 384 | 2.0 | 3.0 | x 1.50 | 2.0 | 300 | 1.0 |"


def test_the_picture_is_the_same_bytes_every_time_and_follows_the_rows(tmp_path: Path) -> None:
    rows = [row(run, 1.0 + i) for i, run in enumerate(RUNS)]
    for name, given in (("first", rows), ("second", rows), ("part", rows[:2])):
        draw(tmp_path / f"{name}.svg", given)
    first, second, part = (
        (tmp_path / f"{name}.svg").read_text(encoding="utf-8") for name in ("first", "second", "part")
    )
    assert first == second != part
    assert not re.search(r"\d{4}-\d{2}-\d{2}T", first)


def test_it_is_not_mixed_with_a_workload() -> None:
    done = mbtsad("benchmark", "--scaling", "somewhere", "--workload", "demo")
    assert done.returncode == 2
    assert "--scaling" in done.stderr
