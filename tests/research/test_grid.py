"""Grid points of the experiments: computed once, whoever runs them, and said as they are."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import finish, tiny_bert, tiny_texts

from mbtsad_core.config import RuntimeConfig, SplitConfig, TrainingConfig
from mbtsad_core.errors import BadConfig, BadData
from mbtsad_core.models.classifier import save_classifier, weights_hash
from mbtsad_core.research import grid
from mbtsad_core.research.grid import NONE, RETRAINED, GridPoint, finished, read_results, run_all, run_on_ray
from mbtsad_core.research.suspects import Case, measured, read_scores, suspect
from mbtsad_core.service.json_lines import add_line
from mbtsad_core.types import LabelledText

CASE = Case("sst2", "test", "badnets", ("cf",), 0)
QUICK = {
    "split.copies": 1,
    "found_tokens": 0,
    "retrain.epochs": 1,
    "distil.epochs": 1,
    "retrain.batch_size": 16,
    "distil.batch_size": 16,
}
RUNTIME = RuntimeConfig(device="cpu", threads=1)


def write(texts: list[LabelledText], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text\tlabel\n" + "".join(f"{t.text}\t{t.label}\n" for t in texts), encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/sst2 and a tiny encoder in base/."""
    folder = tmp_path_factory.mktemp("experiments")
    write(tiny_texts(320), folder / "data" / "sst2" / "train.tsv")
    write(tiny_texts(60, seed=1), folder / "data" / "sst2" / "test.tsv")
    save_classifier(tiny_bert(), folder / "base")
    return folder


def run(place: Path, points: list[GridPoint], results: Path) -> list[str]:
    said: list[str] = []
    run_all(points, results, place / "data", place / "base", place / "work", RUNTIME, said.append)
    return said


def test_a_point_is_computed_once_and_gives_the_figures_of_student_and_teacher(place: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    points = [GridPoint(CASE, "mbtsad", QUICK, 64, 1), GridPoint(CASE, "cft", {"training.epochs": 1}, 64, 1)]
    assert len(run(place, points, results)) == 2
    assert run(place, points, results) == []
    first, second = (read_results(results)[point.key] for point in points)
    assert set(first["figures"]) == {"purified", "teacher", "seconds"}
    assert set(second["figures"]) == {"purified", "seconds"}
    assert first["figures"]["purified"]["asr_n"] == 30  # negatives of the test set
    assert first["before"] == read_scores(place / "work", CASE)
    assert (first["case"]["words"], first["amount"], first["seed"]) == (["cf"], 64, 1)
    assert QUICK.items() <= first["settings"].items()
    # Named by nobody, and part of what it is
    assert (first["settings"]["split.aug_p"], first["suspect"]["attack.poison.rate"]) == (0.3, 0.1)
    assert first["machine"]


def test_with_found_tokens_there_are_the_figures_of_the_embeddings_reset_and_nothing_trained(
    place: Path, tmp_path: Path
) -> None:
    point = GridPoint(CASE, "mbtsad", QUICK | {"found_tokens": 1}, 64, 1)
    run(place, [point], tmp_path / "results.jsonl")
    figures = read_results(tmp_path / "results.jsonl")[point.key]["figures"]
    assert set(figures) == {"purified", "teacher", "drawn", "seconds"}
    assert figures["drawn"]["cacc_n"] == figures["purified"]["cacc_n"]


def test_a_suspect_is_made_once(place: Path) -> None:
    made = [
        weights_hash(finish(suspect(CASE, place / "data", place / "base", place / "work", RUNTIME))[0])
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert sorted(p.name for p in (place / "work").glob(f"{CASE.name}*")) == [CASE.name, f"{CASE.name}.lock"]
    assert len(measured(CASE, place / "data").triggered) == 30


def test_a_line_that_a_kill_cut_off_is_computed_again(place: Path, tmp_path: Path) -> None:
    results, point = tmp_path / "results.jsonl", GridPoint(CASE, "cft", {"training.epochs": 1}, 64, 2)
    run(place, [point], results)
    whole = results.read_text(encoding="utf-8")
    results.write_text(whole[: len(whole) // 2], encoding="utf-8")
    assert read_results(results) == {}


def test_the_key_is_of_all_that_decides_the_figures_and_of_nothing_else() -> None:
    point = GridPoint(CASE, "mbtsad", {"found_tokens": 0, "split.copies": 2}, 64, 1)
    assert point.key == GridPoint(CASE, "mbtsad", {"split.copies": 2, "found_tokens": 0}, 64, 1).key
    others = [
        dataclasses.replace(point, settings={"found_tokens": 1, "split.copies": 2}),
        dataclasses.replace(point, method="mbtsad_no_att"),
        dataclasses.replace(point, amount=65),
        dataclasses.replace(point, seed=2),
        dataclasses.replace(point, case=dataclasses.replace(CASE, seed=1)),
        dataclasses.replace(point, case=dataclasses.replace(CASE, words=("mn",))),
        dataclasses.replace(point, case=dataclasses.replace(CASE, attack="badnets_clean_label")),
    ]
    assert len({point.key, *(other.key for other in others)}) == 1 + len(others)


@pytest.mark.parametrize("method", ["cft", "mbtsad", "nad", "strip"])
def test_a_default_that_changes_makes_another_point_named_or_not(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = GridPoint(CASE, method, {}, 64, 1)
    key, default = point.key, grid.configs()[method]
    for name, value in point.described()["settings"].items():
        if isinstance(value, float):
            with monkeypatch.context() as changed:
                other = grid.replace(default, {tuple(name.split(".")): value * 1.1 or 0.1})
                family: dict[str, Any] = grid.DETECTORS if method in grid.DETECTORS else grid.DEFENSES
                changed.setitem(family, method, dataclasses.replace(family[method], config=other))
                assert GridPoint(CASE, method, {}, 64, 1).key != key, name
            assert GridPoint(CASE, method, {name: value}, 64, 1).key == key  # the same thing has one row


def test_a_setting_that_came_later_leaves_a_point_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = grid.deciding
    with monkeypatch.context() as before:  # when there was no clip to set, and gradients were clipped to 1 all the same
        before.setattr(
            grid,
            "deciding",
            lambda config: {name: value for name, value in whole(config).items() if name != "training.clip"},
        )
        key = GridPoint(CASE, "cft", {}, 64, 1).key
    assert GridPoint(CASE, "cft", {}, 64, 1).key != key
    for name in ("training.clip", "attack.training.clip"):
        monkeypatch.setitem(grid.SINCE, name, 1.0)
    assert GridPoint(CASE, "cft", {}, 64, 1).key == key != GridPoint(CASE, "cft", {"training.clip": 2.0}, 64, 1).key


def test_figures_of_other_texts_are_not_those_of_these(place: Path, tmp_path: Path) -> None:
    point, results = GridPoint(CASE, "cft", {"training.epochs": 1}, 64, 10), tmp_path / "mine" / "r.jsonl"
    assert len(run(place, [point], results)) == 1
    kept = results.read_text(encoding="utf-8")
    write(tiny_texts(320, seed=5), tmp_path / "data" / "sst2" / "train.tsv")
    write(tiny_texts(60, seed=1), tmp_path / "data" / "sst2" / "test.tsv")
    other = tmp_path / "data"
    assert point.inputs(other, place / "base") | {"train": ""} == point.inputs(place / "data", place / "base") | {
        "train": ""
    }
    with pytest.raises(BadData, match=r"other inputs than those at hand: train differ.*--results"):
        run_all([point], results, other, place / "base", place / "work", RUNTIME, print)
    with pytest.raises(BadData, match=r"made of something else.*inputs differ.*--work"):
        run_all([point], tmp_path / "theirs" / "r.jsonl", other, place / "base", place / "work", RUNTIME, print)
    assert results.read_text(encoding="utf-8") == kept
    said: list[str] = []
    run_all([point], tmp_path / "theirs" / "r.jsonl", other, place / "base", tmp_path / "work", RUNTIME, said.append)
    assert len(said) == 1
    assert finished(results, published=tmp_path / "theirs").keys() == {point.key}
    assert finished(results, published=tmp_path / "theirs")[point.key] == json.loads(kept)
    (tmp_path / "mine" / "theirs.jsonl").write_bytes(
        (tmp_path / "theirs" / "r.jsonl").read_bytes().replace(point.key.encode(), b"another")
    )
    with pytest.raises(BadData, match="of its other lines: train differ"):
        finished(results, published=None)


def test_another_encoder_is_another_input_and_its_readme_is_not(place: Path, tmp_path: Path) -> None:
    point = GridPoint(CASE, "cft", {}, 64, 1)
    found = point.inputs(place / "data", place / "base")
    save_classifier(tiny_bert(), tmp_path / "same")
    (tmp_path / "same" / "README.md").write_text("of use", encoding="utf-8")
    save_classifier(tiny_bert(seed=3), tmp_path / "other")
    assert point.inputs(place / "data", tmp_path / "same") == found
    assert {
        name for name, value in point.inputs(place / "data", tmp_path / "other").items() if value != found[name]
    } == {"encoder"}


@pytest.mark.parametrize(
    ("method", "variable"),
    [("onion", "MBTSAD_CAUSAL_LM"), ("retrain_cwea", "MBTSAD_MASKED_LM"), ("figure3", "MBTSAD_MASKED_LM")],
)
def test_a_language_model_that_a_method_asks_is_an_input(
    method: str, variable: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_classifier(tiny_bert(), tmp_path / "one")
    save_classifier(tiny_bert(seed=3), tmp_path / "two")
    found = []
    for model in ("one", "two"):
        monkeypatch.setenv(variable, str(tmp_path / model))
        found.append(GridPoint(CASE, method, {}, 64, 1).inputs(place / "data", place / "base")[variable])
        assert variable not in GridPoint(CASE, "cft", {}, 64, 1).inputs(place / "data", place / "base")
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("method", "settings"), [("mbtsad", {"split.copy": 2}), ("cft", {"training.epochs": 0}), ("no such", {})]
)
def test_a_wrong_point_is_told_before_anything_is_run(method: str, settings: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(BadConfig):
        run(tmp_path, [GridPoint(CASE, method, settings, 64, 0)], tmp_path / "results.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_setting_goes_to_the_config_of_its_method() -> None:
    config = GridPoint(CASE, "mbtsad", {"retrain.learning_rate": 0.5, "distil.beta": 7.0}, 64, 9).config()
    assert isinstance(config, grid.PurifyConfig)
    assert (config.retrain.learning_rate, config.distil.beta, config.seed) == (0.5, 7.0, 9)


def test_a_row_is_one_line_of_json(place: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    run(place, [GridPoint(CASE, "cft", {"training.epochs": 1}, 64, seed) for seed in (3, 4)], results)
    assert [json.loads(line)["seed"] for line in results.read_text(encoding="utf-8").splitlines()] == [3, 4]


def test_what_another_results_file_beside_it_has_is_not_computed_again(place: Path, tmp_path: Path) -> None:
    point = GridPoint(CASE, "cft", {"training.epochs": 1}, 64, 5)
    (tmp_path / "speed.jsonl").write_text('{"what": "a line of another kind"}\n', encoding="utf-8")
    assert len(run(place, [point], tmp_path / "one.jsonl")) == 1
    assert run(place, [point], tmp_path / "two.jsonl") == []
    assert set(finished(tmp_path / "two.jsonl", published=None)) == {point.key}
    assert read_results(tmp_path / "two.jsonl") == {}


def test_a_row_behind_a_line_that_a_kill_cut_off_is_read(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text('{"key": "a"}\n{"key": "b", "fig', encoding="utf-8")
    add_line(results, {"key": "c"})
    assert set(read_results(results)) == {"a", "c"}


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("fine_mixing", {"rho": 0.5, "training.epochs": 1}),
        ("retrain_aeda", {"training.epochs": 1, "split.copies": 1}),
        ("strip", {"copies": 2}),
        (NONE, {}),
    ],
)
def test_every_kind_of_method_gives_its_figures(
    method: str, settings: dict[str, object], place: Path, tmp_path: Path
) -> None:
    results, point = tmp_path / "results.jsonl", GridPoint(CASE, method, settings, 64, 6)
    assert point.lacks(place / "data") == ""
    assert len(run(place, [point], results)) == 1
    figures = read_results(results)[point.key]["figures"]
    scores = figures["clean" if method == NONE else "purified"]
    assert (scores["cacc_n"], scores["asr_n"]) == (60, 30)
    assert 0 <= scores["asr"] <= 1
    assert ("far" in scores) == (method == "strip")


def test_what_a_method_refuses_is_a_row_too(place: Path, tmp_path: Path) -> None:
    # Fewer texts than a batch
    results, point = (tmp_path / "results.jsonl", GridPoint(CASE, "cft", {"training.epochs": 1}, 4, 0))
    (line,) = run(place, [point], results)
    assert "refused" in line
    assert "fewer than one batch" in read_results(results)[point.key]["figures"]["refused"]


def test_retraining_with_another_augmenter_takes_its_texts_and_new_ones_each_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts, seen = [LabelledText("the film was lovely", 1), LabelledText("the plot was stale", 0)] * 16, list[float]()

    def noting(text: str, rng: random.Random) -> str:
        seen.append(rng.random())
        return text

    monkeypatch.setitem(grid.AUGMENTERS, "noting", noting)
    config = grid.TokenSplitFineTuningConfig(SplitConfig(copies=2), TrainingConfig(epochs=3))
    given = tiny_bert()
    hashed = weights_hash(given)
    made = finish(grid._retrain(given, texts, "noting", config))[0]
    assert len(set(seen)) == 2 * 3 * len(texts)
    assert weights_hash(given) == hashed != weights_hash(made)


def test_what_cannot_be_run_here_says_what_it_needs(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MBTSAD_CAUSAL_LM", raising=False)
    monkeypatch.delenv("MBTSAD_MASKED_LM", raising=False)
    data = place / "data"
    assert "causal language model" in GridPoint(CASE, "onion", {}, 64, 0).lacks(data)
    assert "masked language model" in GridPoint(CASE, "retrain_cwea", {}, 64, 0).lacks(data)
    assert "Hidden Killer" in GridPoint(
        dataclasses.replace(CASE, attack="syntactic", words=()), "cft", {}, 64, 0
    ).lacks(data)
    assert GridPoint(dataclasses.replace(CASE, task="imdb"), "cft", {}, 64, 0).lacks(data) == "the data set imdb"
    monkeypatch.setenv("MBTSAD_CAUSAL_LM", str(tmp_path))
    assert GridPoint(CASE, "onion", {}, 64, 0).lacks(data) == ""


def test_every_method_has_a_config_with_a_seed() -> None:
    assert set(RETRAINED.values()) == set(grid.AUGMENTERS)
    for method in grid.configs():
        assert GridPoint(CASE, method, {}, 64, 7).config().seed == 7  # type: ignore[attr-defined]


def test_without_ray_the_engine_says_how_to_get_it(place: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("ray"):
        pytest.skip("ray is installed here")
    with pytest.raises(BadConfig, match=r"pip install 'mbtsad\[ray\]'"):
        run_on_ray([], tmp_path / "results.jsonl", place / "data", None, tmp_path, RUNTIME, print)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # ray's own
def test_ray_runs_points_in_workers_and_their_rows_are_those_of_one_process(place: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    points = [GridPoint(CASE, "cft", {"training.epochs": 1}, 64, seed) for seed in (7, 8, 9)]
    said: list[str] = []
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        run_on_ray(
            points, tmp_path / "ray" / "r.jsonl", place / "data", place / "base", place / "work", RUNTIME, said.append
        )
        run_on_ray(
            points, tmp_path / "ray" / "r.jsonl", place / "data", place / "base", place / "work", RUNTIME, said.append
        )
    finally:
        ray.shutdown()
    run(place, points, tmp_path / "here" / "r.jsonl")
    by_ray, here = (read_results(tmp_path / name / "r.jsonl") for name in ("ray", "here"))
    assert len(said) == len(by_ray) == 3
    assert {key: row["figures"]["purified"] for key, row in by_ray.items()} == {
        key: row["figures"]["purified"] for key, row in here.items()
    }
