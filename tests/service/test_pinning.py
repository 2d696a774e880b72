"""A model of the Hub is trained, and gone on with, at the commit that was loaded first, wherever its branch has moved
to since."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import finish, mbtsad, tiny_bert, tiny_texts, write_tsv
from huggingface_hub import constants

from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.models.classifier import load_classifier, save_classifier, weights_hash
from mbtsad_core.service.purification import Request, execute

FIRST, SECOND = "a1" * 20, "b2" * 20
SOURCE = "hub:critics/tiny"
STAGE = {"epochs": 1, "batch_size": 16, "save_every": 0.0}


def publish(cache: Path, commit: str, seed: int) -> None:
    """Put another model under this commit into the Hub's cache, as a download would, and move the branch there."""
    repository = cache / "models--critics--tiny"
    save_classifier(tiny_bert(seed=seed), repository / "snapshots" / commit)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    publish(tmp_path / "cache", FIRST, seed=0)
    return tmp_path / "cache"


@pytest.fixture
def asked(cache: Path, tmp_path: Path) -> Request:
    clean, test = (
        write_tsv(tmp_path / "clean.tsv", tiny_texts(32, seed=1)),
        write_tsv(tmp_path / "test.tsv", tiny_texts(10, seed=2)),
    )
    config = PurifyConfig(found_tokens=0, retrain=RetrainConfig(**STAGE), distil=DistilConfig(**STAGE))
    return Request(
        SOURCE, str(clean), str(test), (), None, config=config, runtime=RuntimeConfig(device="cpu", threads=1)
    )


def test_a_run_that_goes_on_trains_what_it_began_with(asked: Request, cache: Path, tmp_path: Path) -> None:
    finish(execute(asked, tmp_path / "undisturbed"))
    stopped = tmp_path / "stopped"
    run = execute(asked, stopped)
    for _ in range(3):
        next(run)
    run.close()
    assert json.loads((stopped / "run.json").read_text())["request"]["suspect"] == f"{SOURCE}@{FIRST}"
    publish(cache, SECOND, seed=7)
    assert load_classifier(SOURCE).origin.commit == SECOND  # type: ignore[union-attr]  # the branch has moved
    assert mbtsad("purify", "--resume", stopped).returncode == 0
    report = json.loads((stopped / "report.json").read_text())
    assert report["inputs"]["suspect"]["commit"] == FIRST
    assert weights_hash(load_classifier(stopped / "model")) == weights_hash(
        load_classifier(tmp_path / "undisturbed" / "model")
    )


def test_report_and_card_name_the_commit(asked: Request, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result, _ = finish(execute(asked, out))
    assert result.request.suspect == f"{SOURCE}@{FIRST}"
    assert f"Purification of {SOURCE}@{FIRST}" in (out / "report.html").read_text(encoding="utf-8")
    card = (out / "model" / "README.md").read_text(encoding="utf-8")
    assert f"Commit of the suspect on the Hub: `{FIRST}`" in card
    assert "base_model: critics/tiny\n" in card


def test_a_run_of_an_older_version_without_a_commit_is_held_to_the_weights(
    asked: Request, cache: Path, tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped"
    run = execute(asked, stopped)
    for _ in range(3):
        next(run)
    run.close()
    about = json.loads((stopped / "run.json").read_text())
    about["request"]["suspect"] = SOURCE
    (stopped / "run.json").write_text(json.dumps(about))
    shutil.copytree(stopped, tmp_path / "again")
    assert mbtsad("purify", "--resume", stopped).returncode == 0
    publish(cache, SECOND, seed=7)
    refused = mbtsad("purify", "--resume", tmp_path / "again")
    assert refused.returncode == 2
    assert "weights are not those" in refused.stderr


def test_a_revision_that_was_asked_for_becomes_its_commit(asked: Request, tmp_path: Path) -> None:
    result, _ = finish(execute(replace(asked, suspect=f"{SOURCE}@main"), tmp_path / "out"))
    assert result.request.suspect == f"{SOURCE}@{FIRST}"
