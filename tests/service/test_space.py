"""Where the texts of a run lie, kept in its folder: read back as computed, and for runs with texts enough."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_texts, write_tsv

from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig, SplitConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.evaluation.embeddings import cls_vectors, project
from mbtsad_core.models.classifier import load_classifier
from mbtsad_core.service import space
from mbtsad_core.service.purification import Request, execute, prepare
from mbtsad_core.service.space import SPACE, keep_space, read_space, texts_of
from mbtsad_core.steps import drain


@pytest.fixture(scope="module")
def run(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: 48 clean texts, 24 to measure on, the trigger "cf"."""
    folder = tmp_path_factory.mktemp("space")
    stage = {"epochs": 1, "batch_size": 16, "observe_every": 100}
    request = Request(
        suspect=str(suspect_dir),
        clean=write_tsv(folder / "clean.tsv", tiny_texts(48)),
        test=write_tsv(folder / "test.tsv", tiny_texts(24, seed=1)),
        triggers=("cf",),
        target="positive",
        config=PurifyConfig(
            split=SplitConfig(copies=1),
            retrain=RetrainConfig(**stage),
            distil=DistilConfig(**stage),
            max_length=32,
            found_tokens=0,
        ),
        runtime=RuntimeConfig(device="cpu", precision="float32", threads=1),
    )
    drain(execute(request, folder / "run"))
    return folder / "run"


def test_a_small_run_keeps_nothing(run: Path) -> None:
    keep_space(run)
    assert read_space(run) is None
    assert not (run / SPACE).exists()


def test_what_is_kept_is_what_the_models_say(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "WORTH_KEEPING", 10)
    monkeypatch.setattr(space, "METHODS", {"pca": "PCA"})  # UMAP would be compiled
    keep_space(run)
    found = read_space(run)
    assert found is not None
    texts = list(found.points.texts)
    assert {name: found.points.sets.count(name) for name in found.points.sets} == {
        "clean": 48,
        "triggered": sum(t.label == 0 for t in tiny_texts(24, seed=1)),
        "token-split": 48,
    }
    before, after = (
        cls_vectors(load_classifier(place, max_length=32), texts) for place in (run_suspect(run), run / "model")
    )
    expected = project(before, after, "pca")
    np.testing.assert_allclose(found.places["pca"].before, expected.before, atol=1e-4)
    np.testing.assert_allclose(found.places["pca"].after, expected.after, atol=1e-4)
    assert found.places["pca"].explained == pytest.approx(expected.explained)
    assert {name: [s.name for s in scores] for name, scores in found.scores.items()} == {
        "suspect": ["clean", "triggered", "token-split"],
        "purified": ["clean", "triggered", "token-split"],
    }
    wrong = json.loads((run / SPACE).read_text("utf-8"))
    wrong["places"]["pca"]["after"][0][0] = float("nan")
    for text in ("{}", json.dumps(wrong)):
        (run / SPACE).write_text(text, encoding="utf-8")
        assert read_space(run) is None


def run_suspect(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text("utf-8"))["request"]["suspect"])


def test_more_texts_are_drawn_where_they_are_asked_for(run: Path) -> None:
    request = Request.from_dict(json.loads((run / "run.json").read_text("utf-8"))["request"])
    inputs = prepare(request)
    few, labels = texts_of(inputs, request.config.split, most=16)
    assert [few.sets.count(name) for name in ("clean", "triggered", "token-split")] == [8, 4, 4]
    assert [inputs.suspect.labels[label] for label in labels] == list(few.classes)
    more, _ = texts_of(dataclasses.replace(inputs, triggered=()), request.config.split, ["random_char"], most=64)
    assert set(more.sets) == {"clean", "token-split", "random characters"}
