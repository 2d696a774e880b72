"""`mbtsad scan`: exit codes, JSON and SARIF by their schemas, several models, early ends."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import (
    ROOT,
    ended,
    mbtsad,
    phrase_bert,
    plain_texts,
    start_mbtsad,
    tiny_texts,
    with_a_trigger_word,
    write_tsv,
)

from mbtsad_core.models.classifier import load_classifier, predict, save_classifier
from mbtsad_core.scanning.calibrated import calibration
from mbtsad_core.views.scan import scan_sarif, scan_table, scan_text

SCHEMA = json.loads((ROOT / "docs" / "scan.schema.json").read_text(encoding="utf-8"))
CPU = ("--nats", "6", "--device", "cpu", "--threads", "1")  # the calibration is of larger models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A poisoned model, a clean one, one that is refused, and clean texts."""
    folder = tmp_path_factory.mktemp("scan")
    save_classifier(with_a_trigger_word(16.0), folder / "poisoned")
    save_classifier(phrase_bert(strength=0.0), folder / "honest")
    (folder / "refused").mkdir()
    (folder / "refused" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    write_tsv(folder / "clean.tsv", plain_texts(120, seed=3))
    return folder


def records_of(run: Any) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in run.stdout.splitlines()]
    for record in found:
        jsonschema.Draft202012Validator(SCHEMA).validate(record)
    return found


@pytest.fixture(scope="module")
def three(folder: Path) -> tuple[Any, list[dict[str, Any]]]:
    models = [folder / name for name in ("honest", "refused", "poisoned")]
    run = mbtsad("scan", *models, "--clean", folder / "clean.tsv", "--json", "--sarif", folder / "all.sarif", *CPU)
    return run, records_of(run)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_what_counts_by_default_and_how_many_models_that_rests_on(folder: Path) -> None:
    asked = ("scan", folder / "honest", "--clean", folder / "clean.tsv", "--device", "cpu", "--threads", "1")
    (record,) = records_of(mbtsad(*asked, "--budget", "0", "--json"))
    known = calibration()
    assert record["calibrated_on"] == {"clean": known.clean, "suspects": known.suspects}
    assert f"rests on {known.clean} clean and {known.suspects} planted models" in scan_text(record)


def test_a_line_of_json_for_each_model_and_the_worst_exit_code(three: tuple[Any, list[dict[str, Any]]]) -> None:
    run, records = three
    assert run.returncode == 3
    assert [r["verdict"] for r in records] == ["nothing found", "refused", "a trigger exists"]
    assert [Path(r["model"]).name for r in records] == ["honest", "refused", "poisoned"]
    honest, refused, poisoned = records
    assert poisoned["calibrated_on"] is None  # --nats says what counts
    assert (honest["triggers"], poisoned["strongest"]) == ([], None)
    assert "pytorch_model.bin" in refused["reason"]
    assert (poisoned["rows"], poisoned["rows_walked"], poisoned["clean_texts"]) == (57, 51, 120)
    assert poisoned["triggers"][0]["target"] == "positive"
    assert poisoned["inputs"]["clean"]["source"] == "clean.tsv"
    assert len(poisoned["inputs"]["model"]["sha256"]) == 64


@pytest.mark.parametrize(("place", "code"), [(0, 0), (1, 1), (2, 3)])
def test_exit_codes_tell_the_verdicts_apart(
    three: tuple[Any, list[dict[str, Any]]], folder: Path, place: int, code: int, tmp_path: Path
) -> None:
    """With what was found kept, nothing is scanned again."""
    _, records = three
    out = tmp_path / "kept.jsonl"
    out.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"model": "cut o', encoding="utf-8")
    before = out.read_bytes()
    run = mbtsad("scan", records[place]["model"], "--clean", folder / "clean.tsv", "--out", out, "--json", *CPU)
    assert (run.returncode, records_of(run)) == (code, [records[place]])
    assert out.read_bytes() == before


def test_sarif_has_a_result_for_each_trigger_and_each_refused_model(
    three: tuple[Any, list[dict[str, Any]]], folder: Path
) -> None:
    _, records = three
    log = json.loads((folder / "all.sarif").read_text(encoding="utf-8"))
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    results = [(one["ruleId"], rules[one["ruleIndex"]], one["level"]) for one in run["results"]]
    triggers = len(records[2]["triggers"])
    assert results == [("scan.refused",) * 2 + ("error",), *[("scan.trigger",) * 2 + ("error",)] * triggers]
    assert run["results"][1]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("poisoned")


@pytest.mark.skipif("SARIF_SCHEMA" not in os.environ, reason="SARIF_SCHEMA names no file: OASIS's sarif-schema-2.1.0")
def test_sarif_is_valid_by_its_schema(three: tuple[Any, list[dict[str, Any]]]) -> None:
    schema = json.loads(Path(os.environ["SARIF_SCHEMA"]).read_text(encoding="utf-8"))
    stopped = {"verdict": "inconclusive", "reason": "r", "model": "hub:a/b c%"}
    jsonschema.Draft7Validator(schema).validate(scan_sarif([*three[1], stopped], "1.0"))


def test_what_is_printed_names_the_trigger_its_class_and_what_was_tried(
    three: tuple[Any, list[dict[str, Any]]],
) -> None:
    honest, refused, poisoned = map(scan_text, three[1])
    trigger = three[1][2]["triggers"][0]["text"]
    assert poisoned.startswith("a trigger exists: ")
    assert f"1. {trigger!r}, " in poisoned
    assert "100.0 % [83.9, 100.0]" in poisoned
    assert "51 of 57 rows" in poisoned
    assert "is no proof" in honest
    assert refused.startswith("refused: ")
    *table, why = scan_table(three[1]).splitlines()
    assert why == f"{three[1][1]['model'][:60]}: {three[1][1]['reason']}"
    assert [line.split("  ")[0].rsplit("/")[-1].strip() for line in table] == ["model", "honest", "refused", "poisoned"]
    assert trigger in table[3]


def test_nothing_in_a_record_steers_a_terminal() -> None:
    record = {"verdict": "refused", "reason": "a\x1b[31mb", "model": "m\x1b]0;x\x07"}
    assert "\x1b" not in scan_text(record) + scan_table([record])


def test_several_at_a_time_say_the_same(three: tuple[Any, list[dict[str, Any]]], folder: Path) -> None:
    models = [folder / name for name in ("refused", "poisoned")]
    run = mbtsad("scan", *models, "--clean", folder / "clean.tsv", "--json", "--jobs", "2", *CPU)
    told = ("verdict", "reason", "triggers", "strongest")
    found = {r["model"]: [r.get(name) for name in told] for r in records_of(run)}
    assert run.returncode == 3
    assert set(found) == {str(model) for model in models}
    assert found == {r["model"]: [r.get(name) for name in told] for r in three[1] if r["model"] in found}


def test_texts_without_labels_are_read_as_such(folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.tsv"
    alone.write_text("text\n" + "".join(f"{text.text}\n" for text in plain_texts(120, seed=3)), encoding="utf-8")
    run = mbtsad("scan", folder / "honest", "--clean", alone, "--json", "--budget", "0", *CPU)
    (record,) = records_of(run)
    assert (run.returncode, record["verdict"], record["labeled"], record["accuracy"]) == (
        4,
        "inconclusive",
        False,
        None,
    )
    assert record["not_looked_at"] == [
        "single tokens",
        "pairs of tokens",
        "words at the start of texts",
        "sequences of tokens",
    ]
    flagged = mbtsad(
        "scan", folder / "honest", "--clean", folder / "clean.tsv", "--unlabeled", "--json", "--budget", "0", *CPU
    )
    assert records_of(flagged)[0]["labeled"] is False


def test_a_scan_that_came_to_no_verdict_is_made_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    for lines in (1, 2):
        run = mbtsad("scan", folder / "honest", "--clean", folder / "clean.tsv", "--out", out, "--budget", "0", *CPU)
        assert run.returncode == 4
        assert len(out.read_text(encoding="utf-8").splitlines()) == lines


def test_ctrl_c_gives_what_was_found_so_far(folder: Path) -> None:
    process = start_mbtsad("scan", folder / "honest", folder / "poisoned", "--clean", folder / "clean.tsv", *CPU)
    assert process.stderr is not None
    process.stderr.readline()  # the first step
    process.send_signal(signal.SIGINT)
    run = ended(process)
    assert run.returncode == 130
    assert "inconclusive" in run.stdout
    assert "Stopped: 1 of 2 models were not scanned." in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "--clean FILE"),
        (("--clean", "demo", "--jobs", "0"), "--jobs"),
        (("--clean", "nothing.tsv"), "nothing.tsv"),
        (("--clean", "demo", "--budget", "-1"), "--budget"),
    ],
)
def test_what_cannot_be_asked_for_ends_with_2(folder: Path, flags: tuple[str, ...], told: str) -> None:
    run = mbtsad("scan", folder / "honest", *flags)
    assert (run.returncode, told in run.stderr) == (2, True)


def test_the_workflow_in_the_docs_asks_for_what_there_is(folder: Path, tmp_path: Path) -> None:
    workflow = yaml.safe_load((ROOT / "docs" / "scan-workflow.yml").read_text(encoding="utf-8"))
    (command,) = [s["run"] for s in workflow["jobs"]["scan"]["steps"] if s.get("run", "").startswith("mbtsad scan")]
    places = {"model": str(folder / "refused"), "clean.tsv": str(folder / "clean.tsv")}
    places |= {"scan.sarif": str(tmp_path / "scan.sarif")}
    asked = [places.get(word, word) for word in shlex.split(command)[1:]]
    assert mbtsad(*asked).returncode == 1
    assert json.loads((tmp_path / "scan.sarif").read_text(encoding="utf-8"))["runs"][0]["results"]


# ---------------------------------------------------------------- after a cure


def turned_by(model: Path, word: str) -> float:
    """Share of other negative texts, all answered right, that the word turns wherever it stands."""
    classifier, rng = load_classifier(model), random.Random(0)
    texts = [text.text.split() for text in tiny_texts(800, seed=8) if text.label == 0]
    triggered = [" ".join([*words[: (at := rng.randrange(len(words)))], word, *words[at:]]) for words in texts]
    return float(predict(classifier, triggered).argmax(dim=1).float().mean())


@pytest.fixture(scope="module")
def cured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suspect, cures of different strength, clean texts, and what a scan of the suspect kept."""
    folder = tmp_path_factory.mktemp("cured")
    for name, strength in {"suspect": 16.0, "hardly": 8.0, "half": 0.5, "whole": 0.0}.items():
        save_classifier(with_a_trigger_word(strength), folder / name)
    write_tsv(folder / "clean.tsv", tiny_texts(200, seed=5))
    asked = ("scan", folder / "suspect", "--clean", folder / "clean.tsv", "--out", folder / "before.jsonl", *CPU)
    run = mbtsad(*asked)
    assert run.returncode == 3
    assert "Estimated ASR: 100.0 %" in run.stdout
    assert "Estimated residual ASR" not in run.stdout  # nothing was cured
    return folder


@pytest.mark.parametrize("name", ["hardly", pytest.param("half", marks=pytest.mark.slow), "whole"])
def test_after_a_cure_the_residual_asr_is_estimated_with_an_interval(cured: Path, name: str) -> None:
    asked = ("scan", cured / name, "--clean", cured / "clean.tsv", "--before", cured / "before.jsonl", "--budget", "20")
    (record,) = records_of(mbtsad(*asked, "--json", *CPU))
    estimate, true = record["estimated_asr"], turned_by(cured / name, "cf")
    assert estimate["residual"]
    assert estimate["interval"][0] <= true <= estimate["interval"][1]
    assert (estimate["text"], estimate["label"]) == ("cf", "negative") or true < 0.1
    said = scan_text(record)
    assert f"Estimated residual ASR: {100 * estimate['share']:.1f} % [" in said
    assert "an estimate, no proof" in said


def test_what_holds_no_triggers_of_before_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    for text in (None, "[]", '{"triggers": [{"tokens": [-1], "place": "start"}]}', '{"triggers": [{"tokens": [5]}]}'):
        if text is not None:
            other.write_text(text + "\n", encoding="utf-8")
        run = mbtsad("scan", folder / "honest", "--clean", folder / "clean.tsv", "--before", other, *CPU)
        assert (run.returncode, str(other) in run.stderr) == (2, True)
    other.write_text('{"triggers": [{"tokens": [999], "place": "start"}]}\n', encoding="utf-8")
    run = mbtsad("scan", folder / "honest", "--clean", folder / "clean.tsv", "--before", other, *CPU)
    assert (run.returncode, "999" in run.stderr) == (2, True)
