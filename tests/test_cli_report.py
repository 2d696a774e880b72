"""`mbtsad report`: the same report again from a run's folder, whose figures are those of report.json, which fits its
published schema."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import jsonschema
import pytest
from conftest import ROOT, mbtsad, tiny_texts, write_tsv

from mbtsad_core.service.saved_result import rate_of
from mbtsad_core.views.words import rate

SCHEMA = json.loads((ROOT / "docs" / "report.schema.json").read_text("utf-8"))
QUICK = ("--retrain-epochs", "1", "--distil-epochs", "1", "--split-copies", "1", "--retrain-batch-size", "16")


@pytest.fixture(scope="module", params=[("cf",), ()], ids=["trigger", "no trigger"])
def run(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("report")
    data = (str(write_tsv(folder / f"{name}.tsv", tiny_texts(64, seed))) for name, seed in (("clean", 1), ("test", 2)))
    trigger = [flag for word in request.param for flag in ("--trigger", word, "--target", "positive")]
    flags = zip(("--clean", "--test"), data, strict=True)
    done = mbtsad(
        "purify", "--suspect", str(suspect_dir), *(part for flag in flags for part in flag), *trigger, *QUICK,
        "--distil-batch-size", "16", "--found-tokens", "4", "--device", "cpu", "--out", str(folder / "run"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_the_report_is_made_again_as_it_was(run: Path) -> None:
    before = (run / "report.html").read_text("utf-8")
    (run / "report.html").unlink()
    again = mbtsad("report", str(run))
    assert (again.returncode, again.stdout.strip()) == (0, str(run / "report.html"))
    assert (run / "report.html").read_text("utf-8") == before
    assert len(before) < 1_500_000


def test_every_figure_of_the_report_is_that_of_the_json(run: Path) -> None:
    page, report = unescape((run / "report.html").read_text("utf-8")), json.loads((run / "report.json").read_text())
    for model in ("suspect", "teacher", "purified"):
        cells = "".join(f"<td>{rate(rate_of(report[model], name))}</td>" for name in ("cacc", "asr", "asr_floor"))
        assert f"<tr><th>{model}</th>{cells}</tr>" in page
    for token, nats in report["found"]:
        assert f"{token} ({nats:.1f})" in page
    assert report["found"][0][0] == "cf"  # whether it was named or not
    assert report["run"] in page


def test_the_json_fits_the_published_schema(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    checker = jsonschema.Draft202012Validator(SCHEMA)
    checker.check_schema(SCHEMA)
    checker.validate(report)
    assert set(report) <= set(SCHEMA["properties"])
    for broken in ({**report, "seconds": -1}, {**report, "suspect": {**report["suspect"], "cacc": 85.7}}):
        with pytest.raises(jsonschema.ValidationError):
            checker.validate(broken)


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    refused = mbtsad("report", str(tmp_path / "nothing"))
    assert refused.returncode == 2
    assert "There is no finished run in" in refused.stderr
