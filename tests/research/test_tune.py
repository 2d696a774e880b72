"""How the recipe was found: the printed page says what the results file holds, and the recipe is the default that is
shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ROOT

from mbtsad_core.config import from_dict, settings
from mbtsad_core.defenses.mbtsad_method import RECIPES, PurifyConfig
from mbtsad_core.errors import BadData
from mbtsad_core.research import documents, tune
from mbtsad_core.research.grid import PUBLISHED, read_results

RESERVED = {"cf", "mn", "bb", "tq", "mb", "ak", "cb"}  # for the report alone


def scores(cacc: float, asr: float, floor: float) -> dict[str, float]:
    return {"cacc": cacc, "asr": asr, "asr_floor": floor}


def line(point: tune.GridPoint, **figures: object) -> str:
    return (
        json.dumps(
            {"key": point.key, "case": {"seed": point.case.seed}, "before": scores(0.9, 1.0, 0.1), "figures": figures}
        )
        + "\n"
    )


@pytest.mark.parametrize(("name", "shipped"), [("RECIPE", "scan"), ("PAPER", "paper")])
def test_what_the_points_call_a_recipe_is_what_is_shipped(name: str, shipped: str) -> None:
    values = {".".join(s.path): s.default for s in settings(RECIPES[shipped])}
    assert {key: values[key] for key in getattr(tune, name)} == getattr(tune, name)
    assert RECIPES["default"] == PurifyConfig()
    assert from_dict(PurifyConfig, {"found_tokens": 0}).found_tokens == RECIPES["paper"].found_tokens == 0


def test_no_word_of_the_report_was_used_for_choosing() -> None:
    chosen_with = {word for case in tune.DEVELOPMENT.values() for word in case.words}
    reported_with = {word for words in tune.REPORT_WORDS.values() for word in words}
    assert not chosen_with & RESERVED
    assert reported_with <= RESERVED
    assert all(case.split == "dev" for case in tune.DEVELOPMENT.values())
    assert all(point.case.split == "test" for point in tune.report())


def test_rivals_have_as_many_steps_as_the_recipe_at_its_rate() -> None:
    passes = (tune.RECIPE["split.copies"] + tune.RECIPE["split.keep_originals"]) * (
        tune.RECIPE["retrain.epochs"] + tune.RECIPE["distil.epochs"]
    )
    assert passes == tune.CFT["training.epochs"] == tune.TS_FT["training.epochs"] * tune.TS_FT["split.copies"]
    assert (
        tune.CFT["training.learning_rate"]
        == tune.TS_FT["training.learning_rate"]
        == tune.RECIPE["retrain.learning_rate"]
    )


def test_every_point_has_settings_that_its_method_knows() -> None:
    points = [*tune.development(), *tune.report()]
    assert len({point.key for point in points}) == len(points)
    for point in points:
        point.config()


def test_means_and_spreads_are_those_of_the_rows(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    first, second, _ = (tune._report_point("BadNets", "CFT", seed) for seed in (0, 1, 2))
    results.write_text(
        line(first, purified=scores(0.80, 0.50, 0.10), seconds=100)
        + line(second, purified=scores(0.90, 0.70, 0.20), seconds=300),
        encoding="utf-8",
    )
    page = tune.page(results, None)
    rows = [row for row in page.splitlines() if row.startswith("| | CFT |")]
    assert rows[0] == "| | CFT | 2 | 85.0 ± 7.1 | 60.0 ± 14.1 | 15.0 ± 7.1 | 200 |"
    assert len(rows) == 1
    left = len(tune.METHODS) * len(tune.report_cases(0)) - 1
    assert f"Left out: {left} rows of which nothing is run yet. `mbtsad-research tune --data DIR` runs them." in page


def test_a_sweep_has_a_line_for_each_value_with_the_figures_of_its_points(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    case, others = tune.SWEPT[0], ["-"] * (len(tune.SWEPT) - 1)
    point = tune.development_point(case, tune.Try((case,), tune.RECIPE | {"found_tokens": 2}))
    results.write_text(line(point, purified=scores(0.851, 0.171, 0.168)), encoding="utf-8")
    page = tune.page(results, None).splitlines()
    assert page.count(" | ".join(["| found tokens put into a text | 2", "85.1 / 17.1 / 16.8", *others]) + " |") == 1
    swept = sum(len(values) for values in tune.SWEEPS.values())
    assert sum(line.startswith(f"Left out: {swept - 1} rows") for line in page) == 1


def test_a_point_that_diverged_says_so(tmp_path: Path) -> None:
    results, point = tmp_path / "results.jsonl", tune.development()[0]
    results.write_text(line(point, diverged="The loss is nan.", seconds=3), encoding="utf-8")
    assert "| 90.0 / 100.0 / 10.0 | the recipe | diverged | diverged | diverged |" in tune.page(results, None)


def test_the_document_has_the_tables_of_the_results_file() -> None:
    text = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    between = documents.between(text, tune.MARKED)[1]
    assert between == tune.page(PUBLISHED / "tune.jsonl"), "run: mbtsad-research tune --into docs/recipe.md"
    known = {point.key for point in (*tune.development(), *tune.report())}
    assert set(read_results(PUBLISHED / "tune.jsonl")) <= known  # no figure that no one can compute again


def test_tables_go_between_the_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    first, last = documents.marks(tune.MARKED)
    document.write_text(f"# Head\n\n{first}old\n{last}\n\ntail\n", encoding="utf-8")
    tune.write_into(document, tmp_path / "none.jsonl")
    new = tune.page(tmp_path / "none.jsonl")
    assert document.read_text(encoding="utf-8") == f"# Head\n\n{first}{new}{last}\n\ntail\n"
    document.write_text("no marks", encoding="utf-8")
    with pytest.raises(BadData, match="no place"):
        tune.write_into(document)
