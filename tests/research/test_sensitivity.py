"""The sensitivity curves are drawn from the results file, and what was not run leaves a gap."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from mbtsad_core.research import sensitivity, tune
from mbtsad_core.research.grid import read_results


def points(sweep: str) -> list[tune.GridPoint]:
    return [
        tune.development_point(tune.SWEPT[0], tune.Try(tune.SWEPT, settings))
        for settings in tune.SWEEPS[sweep].values()
    ]


def write_rows(path: Path, *figures: dict[str, object]) -> Path:
    swept = points("share of tokens split")
    path.write_text(
        "".join(json.dumps({"key": point.key, "figures": f}) + "\n" for point, f in zip(swept, figures, strict=False)),
        encoding="utf-8",
    )
    return path


def test_a_curve_has_the_rates_of_the_rows_in_percent(tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "results.jsonl", {"purified": {"asr": 0.25}}, {"diverged": "The loss is nan.", "seconds": 1.0}
    )
    values = sensitivity.curve(points("share of tokens split"), read_results(rows), "asr")
    assert values[0] == 25.0
    assert all(math.isnan(value) for value in values[1:])


def test_every_sweep_passes_through_the_recipe_and_turns_it() -> None:
    for name, sweep in tune.SWEEPS.items():
        assert list(sweep.values()).count(tune.RECIPE) == 1, name
        assert list(sweep) == sorted(sweep), name
    assert (
        len({json.dumps(settings) for sweep in tune.SWEEPS.values() for settings in sweep.values()})
        == sum(len(s) - 1 for s in tune.SWEEPS.values()) + 1
    )


def test_the_picture_is_the_same_bytes_every_time_and_follows_the_results(tmp_path: Path) -> None:
    none, some = (
        tmp_path / "elsewhere" / "none.jsonl",
        write_rows(tmp_path / "results.jsonl", *3 * [{"purified": {"cacc": 0.8, "asr": 0.2, "asr_floor": 0.1}}]),
    )
    for name, results in (("first", some), ("second", some), ("empty", none)):
        sensitivity.draw(tmp_path / f"{name}.svg", results, published=None)
    first, second, empty = (
        (tmp_path / f"{name}.svg").read_text(encoding="utf-8") for name in ("first", "second", "empty")
    )
    assert first == second != empty
    assert first.startswith("<?xml")
    assert not re.search(r"\d{4}-\d{2}-\d{2}T", first)


@pytest.mark.parametrize("name", list(tune.SWEEPS))
def test_swept_settings_are_of_use(name: str) -> None:
    for point in points(name):
        point.config()
