"""A purification that is asked for it estimates the ASR that is left, from clean texts alone, beside the measured one."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
from conftest import ROOT, mbtsad, tiny_bert, tiny_texts, with_a_trigger_word, write_tsv

from mbtsad_core.defenses.mbtsad import Purified
from mbtsad_core.defenses.sequence_pools import Found
from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.service.purification import _known
from mbtsad_core.service.saved_result import read_result
from mbtsad_core.views.report import report_text

QUICK = ("--retrain-epochs", "1", "--distil-epochs", "1", "--retrain-batch-size", "16", "--distil-batch-size", "16")
QUICK += ("--retrain-learning-rate", "1e-6", "--distil-learning-rate", "1e-6")  # what is written by hand is steep


def test_what_is_suspicious_is_no_known_trigger() -> None:
    suspect = tiny_bert()
    sure, suspicious = (Found(Insertion((5, n), "anywhere"), 0, 1, 3.0, 0.9, counts=n == 6) for n in (6, 7))
    assert _known(Purified(suspect, suspect, suspect, sequences=(sure, suspicious))) == [sure.insertion]


def test_the_residual_asr_is_estimated_beside_the_measured_one(tmp_path: Path) -> None:
    save_classifier(with_a_trigger_word(16.0), tmp_path / "suspect")
    texts = (write_tsv(tmp_path / f"{name}.tsv", tiny_texts(120, seed)) for seed, name in enumerate(("clean", "test")))
    asked = [word for flag, path in zip(("--clean", "--test"), texts, strict=True) for word in (flag, path)]
    out = tmp_path / "out"
    trigger = ("--trigger", "cf", "--target", "positive", "--device", "cpu", "--threads", "1")
    run = mbtsad("purify", "--suspect", tmp_path / "suspect", *asked, *trigger, "--residual", "--out", out, *QUICK)
    assert run.returncode == 0, run.stderr
    assert "Estimated residual ASR" in run.stdout
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(report)
    estimate, purified = report["residual"]["estimated_asr"], report["purified"]
    assert estimate["residual"]
    assert estimate["interval"][0] <= purified["asr"] <= estimate["interval"][1]
    assert "Estimated residual ASR" in (out / "report.html").read_text(encoding="utf-8")
    assert "an estimate, no proof" in report_text(read_result(out))
