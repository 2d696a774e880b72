"""--config FILE: settings by dotted or nested name, as reports and runs hold them; flags win, unknown names are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import mbtsad, tiny_texts, write_tsv

from mbtsad_core.config import from_dict, to_dict
from mbtsad_core.defenses.mbtsad_method import RECIPES, PurifyConfig

QUICK = {
    "found_tokens": 0,
    "split": {"copies": 1, "keep_originals": 0},
    "retrain": {"epochs": 1, "batch_size": 16},
    "distil.epochs": 1,
    "distil.batch_size": 16,
    "threads": 1,
    "seed": 3,
}
YAML = """
# what the tiny suspect needs
found_tokens: 0
split: {copies: 1, keep_originals: 0}
retrain:
  epochs: 1
  batch_size: 16
  learning_rate: 3e-4
distil.epochs: 1
distil.batch_size: 16
threads: 1
"""


@pytest.fixture
def given(suspect_dir: Path, tmp_path: Path) -> list[str | Path]:
    clean = write_tsv(tmp_path / "clean.tsv", tiny_texts(32, seed=1))
    test = write_tsv(tmp_path / "test.tsv", tiny_texts(20, seed=2))
    return ["--suspect", suspect_dir, "--clean", clean, "--test", test]


def write(path: Path, settings: dict[str, Any] | str) -> Path:
    path.write_text(settings if isinstance(settings, str) else json.dumps(settings), encoding="utf-8")
    return path


def ran(*argv: str | Path) -> dict[str, Any]:
    """The JSON that a command printed."""
    run = mbtsad(*argv, "--json")
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_a_file_sets_what_it_names_and_flags_beside_it_win(given: list[str | Path], tmp_path: Path) -> None:
    file = write(tmp_path / "settings.json", QUICK)
    found = ran("purify", "--retrain-batch-size", "8", *given, "--config", file, "--seed", "4")["settings"]
    expected = {
        "found_tokens": 0,
        "split": {"copies": 1, "keep_originals": 0},
        "distil": {"epochs": 1, "batch_size": 16},
    }
    expected |= {"retrain": {"epochs": 1, "batch_size": 8}, "seed": 4}
    for name, value in expected.items():
        got = {key: found[name][key] for key in value} if isinstance(value, dict) else found[name]
        assert got == value, name
    assert found["distil"]["learning_rate"] == PurifyConfig().distil.learning_rate


def test_what_a_report_holds_runs_it_again(given: list[str | Path], tmp_path: Path) -> None:
    """The settings of report.json, and those of run.json's request, are read as they are written."""
    first = ran("purify", *given, "--config", write(tmp_path / "settings.yaml", YAML), "--out", tmp_path / "out")
    assert first["settings"]["retrain"]["learning_rate"] == 3e-4
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    again = ran("purify", *given, "--config", write(tmp_path / "again.json", report["settings"]))
    assert (again["settings"], again["purified"]) == (first["settings"], first["purified"])
    request = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["request"]
    third = ran("purify", *given, "--threads", "1", "--config", write(tmp_path / "third.json", request["config"]))
    assert (third["settings"], third["purified"]) == (first["settings"], first["purified"])


def test_earlier_names_are_read_and_a_recipe_is_where_it_starts(given: list[str | Path], tmp_path: Path) -> None:
    old = QUICK | {"strays": 0, "split": {"copies": 1, "originals": 0, "share": 0.5}}
    del old["found_tokens"]
    found = ran("purify", *given, "--recipe", "paper", "--config", write(tmp_path / "old.yml", json.dumps(old)))
    settings = from_dict(PurifyConfig, {k: found["settings"][k] for k in to_dict(PurifyConfig())})
    assert (settings.split.aug_p, settings.split.keep_originals, settings.found_tokens) == (0.5, 0, 0)
    assert (
        settings.retrain.learning_rate == RECIPES["paper"].retrain.learning_rate != PurifyConfig().retrain.learning_rate
    )


def test_null_is_nothing_as_a_report_writes_it(given: list[str | Path], tmp_path: Path) -> None:
    file = write(tmp_path / "settings.json", QUICK | {"distil.dropout": None, "max_length": None})
    assert PurifyConfig().distil.dropout is not None
    assert ran("purify", *given, "--config", file)["settings"]["distil"]["dropout"] is None


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        (["defend", "cft"], {"training": {"epochs": 1}, "seed": 5}),
        (["attack", "badnets", "--trigger", "cf", "--target", "positive"], {"training.epochs": 1, "poison.rate": 0.2}),
        (["detect", "strip"], {"copies": 2, "max_length": 32}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_other_commands_read_a_file_too(
    command: list[str], settings: dict[str, Any], given: list[str | Path], suspect_dir: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "settings.json", settings | {"threads": 1})
    inputs = dict(zip(given[::2], given[1::2], strict=True))
    named = {"attack": {"--model": suspect_dir, "--train": inputs["--clean"], "--test": inputs["--test"]}}
    named |= {
        "defend": inputs,
        "detect": {"--model": suspect_dir, "--clean": inputs["--clean"], "--test": inputs["--test"]},
    }
    flags = [part for pair in named[command[0]].items() for part in pair]
    out = [] if command[0] == "detect" else ["--out", tmp_path / "made"]
    found = ran(*command, *flags, *out, "--config", file)
    if command[0] == "attack":  # tells no settings: a wrong one shows that the file is read
        wrong = mbtsad(*command, *flags, *out, "--config", write(tmp_path / "wrong.json", {"poison.rate": 2}))
        assert "--config: poison.rate: rate must be at most 1.0; got 2" in wrong.stderr
        return
    for name, value in settings.items():
        if name != "max_length":
            got = found["settings"][name]
            assert {key: got[key] for key in value} == value if isinstance(value, dict) else got == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ({"retrain": {"epoch": 2}}, ("retrain.epoch", "retrain.epochs")),
        ({"recipe": "paper"}, ("recipe", "Known: device, distil.alpha")),
        ({"retrain.epochs": 0}, ("--config: retrain.epochs: epochs must be at least 1; got 0",)),
        ({"retrain.epochs": "two"}, ("--config: retrain.epochs: epochs must be a whole number; got 'two'",)),
        ({"split.fresh": "no"}, ("--config: split.fresh: fresh must be true or false; got 'no'",)),
        ({"retrain": 3}, ("retrain", "retrain.epochs")),
        ("[1, 2]", ("holds no settings", "retrain.epochs: 2")),
        ("", ("is neither YAML nor JSON",)),
        ('{"seed": 1', ("is neither YAML nor JSON", "line 1")),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_file_is_told(text: dict[str, Any] | str, said: tuple[str, ...], tmp_path: Path) -> None:
    run = mbtsad("purify", "--config", write(tmp_path / "settings.json", text))
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("mbtsad: --config: ")
    assert run.stderr.count("\n") == 1
    assert [words for words in said if words not in run.stderr] == [], run.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "is neither YAML nor JSON"),
        ("!!python/object/apply:os.getcwd []", "is neither YAML nor JSON"),
        ("just words", "holds no settings"),
        ("1: 2", "holds no settings"),
        ("retrain: {1: 2}", "sets retrain.1"),
    ],
)
def test_what_is_wrong_in_yaml_is_told(text: str, said: str, tmp_path: Path) -> None:
    run = mbtsad("purify", "--config", write(tmp_path / "settings.yaml", text))
    assert (run.returncode, run.stdout) == (2, "")
    assert said in run.stderr


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    run = mbtsad("purify", "--config", tmp_path / "none.yaml")
    assert run.returncode == 2
    assert "none.yaml cannot be read: No such file or directory. Name a YAML or JSON file." in run.stderr


def test_a_stopped_run_takes_no_file(tmp_path: Path) -> None:
    run = mbtsad("purify", "--resume", tmp_path, "--config", write(tmp_path / "settings.json", QUICK))
    assert run.returncode == 2
    assert "--resume takes everything from the stopped run, but --config was given too" in run.stderr
