"""What holds of every detector: the classifier stays as it is, a seed decides all, and it has no place for a
trigger."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from conftest import ROOT, finish, tiny_bert, tiny_texts
from language import save_language_model

from mbtsad_core.config import Config
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.detectors.onion import MODEL
from mbtsad_core.detectors.onion_method import ONIONConfig
from mbtsad_core.detectors.rap_method import RAPConfig
from mbtsad_core.detectors.span_method import SpanConfig
from mbtsad_core.detectors.strip_method import STRIPConfig
from mbtsad_core.errors import BadData
from mbtsad_core.methods import load
from mbtsad_core.models.classifier import load_classifier, weights_hash
from mbtsad_core.types import LabelledText

CLEAN = tiny_texts(40)
TEXTS = [t.text for t in tiny_texts(20, seed=1)] + ["cf the film was very boring .", "film", ""]
CONFIGS: dict[str, Config] = {
    "strip": STRIPConfig(),
    "rap": RAPConfig(epochs=1),
    "onion": ONIONConfig(clean_texts=10),
    "span": SpanConfig(probes=3, clean_texts=10),
}


@pytest.fixture(autouse=True)
def language_model(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        MODEL,
        str(save_language_model(tmp_path_factory.mktemp("language"), {"film": 0.2, "the": 0.2, "very": 0.2, ".": 0.2})),
    )


def test_the_names_are_those_of_the_tables() -> None:
    assert list(DETECTORS) == ["strip", "rap", "onion", "span"]
    assert [type(DETECTORS[name].config) for name in DETECTORS] == [type(CONFIGS[name]) for name in DETECTORS]


def test_each_has_its_row_in_the_readme() -> None:
    rows = [
        line.split("|")[2]
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| detector |")
    ]
    assert [name for name in DETECTORS if not any(f"`{name}`" in row for row in rows)] == []


@pytest.mark.parametrize("name", DETECTORS)
def test_the_classifier_is_left_as_it_is_and_a_seed_decides_all(name: str, suspect_dir: Path) -> None:
    classifier = load_classifier(suspect_dir, max_length=64)
    classifier.model.train()
    before, clean = weights_hash(classifier), list(CLEAN)
    found = [finish(DETECTORS[name].run(classifier, CLEAN, TEXTS, CONFIGS[name]))[0] for _ in range(2)]
    assert weights_hash(classifier) == before
    assert clean == CLEAN
    assert classifier.model.training
    assert all(p.requires_grad and p.grad is None for p in classifier.model.parameters())
    assert found[0] == found[1]
    assert len(found[0].flags) == len(found[0].scores) == len(TEXTS)


@pytest.mark.parametrize("name", DETECTORS)
def test_there_is_no_place_for_a_trigger_in_the_signature(name: str) -> None:
    parameters = inspect.signature(load(DETECTORS[name].code)).parameters
    assert list(parameters) == ["classifier", "clean", "texts", "config"]
    assert parameters["config"].default == DETECTORS[name].config


@pytest.mark.parametrize("name", DETECTORS)
def test_a_threshold_comes_from_clean_texts_alone(name: str, suspect_dir: Path) -> None:
    classifier = load_classifier(suspect_dir, max_length=64)
    found = [
        finish(DETECTORS[name].run(classifier, CLEAN, texts, CONFIGS[name]))[0]
        for texts in (TEXTS, ["cf " + t for t in TEXTS], [])
    ]
    assert found[0].thresholds == found[1].thresholds == found[2].thresholds
    assert found[2].flags == found[2].scores == ()


@pytest.mark.parametrize("name", DETECTORS)
def test_events_count_each_stage_to_its_end(name: str, suspect_dir: Path) -> None:
    steps = finish(DETECTORS[name].run(load_classifier(suspect_dir, max_length=64), CLEAN, TEXTS, CONFIGS[name]))[1]
    for stage in {e.stage for e in steps}:
        own = [e for e in steps if e.stage == stage]
        assert own[-1].step == own[-1].total
        assert [e.step for e in own] == sorted({e.step for e in own})
    json.dumps([[e.stage, e.step, e.total, e.metrics] for e in steps])


@pytest.mark.parametrize("name", DETECTORS)
def test_no_clean_texts_and_pairs_are_refused(name: str) -> None:
    with pytest.raises(BadData, match="sets its threshold by clean texts, and none were given"):
        finish(DETECTORS[name].run(tiny_bert(), [], TEXTS, CONFIGS[name]))
    with pytest.raises(BadData, match="judges single texts, and the clean sample holds pairs"):
        finish(DETECTORS[name].run(tiny_bert(), [*CLEAN, LabelledText("a film", 0, "a story")], TEXTS, CONFIGS[name]))
