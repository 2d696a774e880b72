"""The command line end to end, on a tiny model: what a user types, what he gets."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import re
import signal
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Any

import pytest
import torch
from conftest import BAD, GOOD, NEUTRAL, ended, finish, mbtsad, start_mbtsad, tiny_bert, tiny_texts, write_tsv

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.config import Config, EvaluateConfig, RuntimeConfig, Setting, TrainingConfig, settings
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText

QUICK = [
    "--retrain-epochs",
    "1",
    "--distil-epochs",
    "1",
    "--split-copies",
    "1",
    "--split-keep-originals",
    "0",
    "--found-tokens",
    "0",
    "--threads",
    "1",
]
# 64 steps of some milliseconds in each stage: time to be stopped in. A checkpoint after every step.
STOPPABLE = ["--split-copies", "2", "--split-keep-originals", "0", "--found-tokens", "0", "--threads", "1"]
STOPPABLE += ["--retrain-epochs", "8", "--retrain-batch-size", "16", "--retrain-save-every", "0"]
STOPPABLE += ["--distil-epochs", "8", "--distil-batch-size", "16", "--distil-save-every", "0"]
STOPPABLE += ["--retrain-learning-rate", "1e-3", "--distil-learning-rate", "1e-3"]
RETRAIN_STEPS = DISTIL_STEPS = 8 * 64 * 2 // 16

Run = CompletedProcess[str]


def mislabeled(examples: list[LabelledText]) -> list[LabelledText]:
    """Every seventh label wrong, so that no accuracy is trivial."""
    return [LabelledText(t.text, t.label if i % 7 else 1 - t.label, t.pair) for i, t in enumerate(examples)]


@pytest.fixture(scope="module")
def inputs(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The flags for the suspect, the clean sample and the test set."""
    folder = tmp_path_factory.mktemp("data")
    clean = write_tsv(folder / "clean.tsv", tiny_texts(64, seed=1))
    test = write_tsv(folder / "test.tsv", mislabeled(tiny_texts(40, seed=2)))
    return ["--suspect", suspect_dir, "--clean", clean, "--test", test]


@pytest.fixture(scope="module")
def test_file(inputs: list[str | Path]) -> Path:
    return Path(inputs[-1])


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def events(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def curves(out: Path) -> dict[str, list[str]]:
    """The points of the lines that the report draws, by their names; the last stage's of each."""
    drawn = re.findall(r'points="([^"]+)"><title>([^<]+)<', (out / "report.html").read_text(encoding="utf-8"))
    return {name: points.split() for points, name in drawn}


def without_seconds(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in figures.items() if k not in ("seconds", "date", "run")}


# ---------------------------------------------------------------- purify, uninterrupted, in a process of its own


@pytest.fixture(scope="module")
def purified(
    inputs: list[str | Path], suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Path, bool]:
    """A finished run, its output directory, and whether the suspect's files are as they were."""
    out = tmp_path_factory.mktemp("purified") / "out"
    before = digests(suspect_dir)
    run = ended(
        start_mbtsad("purify", *inputs, "--trigger", "cf", "--target", "positive", "--out", out, "--json", *STOPPABLE)
    )
    return run, out, digests(suspect_dir) == before


def test_purify_exits_with_0(purified: tuple[Run, Path, bool]) -> None:
    run, _, _ = purified
    assert run.returncode == 0, run.stderr


def test_json_prints_one_object_and_nothing_else(purified: tuple[Run, Path, bool]) -> None:
    run, _, _ = purified
    assert run.stdout.count("\n") == 1
    assert isinstance(json.loads(run.stdout), dict)


@pytest.mark.parametrize("model", ["suspect", "teacher", "purified"])
def test_json_has_the_figures_of_each_model(purified: tuple[Run, Path, bool], model: str) -> None:
    figures = json.loads(purified[0].stdout)[model]
    assert {"cacc", "cacc_hits", "cacc_n", "asr", "asr_hits", "asr_n", "asr_floor"} <= figures.keys()
    assert figures["cacc"] == figures["cacc_hits"] / figures["cacc_n"]
    assert figures["asr"] == figures["asr_hits"] / figures["asr_n"]
    assert (figures["cacc_n"], figures["asr_n"]) == (40, 20)


def test_the_backdoor_of_the_suspect_is_measured_and_accuracy_is_kept(purified: tuple[Run, Path, bool]) -> None:
    figures = json.loads(purified[0].stdout)
    assert figures["suspect"]["asr"] >= 0.9
    assert figures["suspect"]["asr_floor"] <= 0.2
    assert figures["purified"]["cacc"] >= figures["suspect"]["cacc"] - 0.05


def test_json_has_the_settings_that_were_given(purified: tuple[Run, Path, bool]) -> None:
    about = json.loads(purified[0].stdout)
    assert about["settings"]["retrain"]["learning_rate"] == 1e-3
    assert about["settings"]["split"]["copies"] == 2
    assert (about["settings"]["triggers"], about["settings"]["target"]) == (["cf"], "positive")
    assert about["seconds"] > 0


def test_report_json_holds_what_was_printed(purified: tuple[Run, Path, bool]) -> None:
    run, out, _ = purified
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == json.loads(run.stdout)


def test_out_holds_the_model_and_the_reports_and_no_checkpoint(purified: tuple[Run, Path, bool]) -> None:
    _, out, _ = purified
    assert sorted(p.name for p in out.iterdir()) == ["events.jsonl", "model", "report.html", "report.json", "run.json"]
    assert (out / "model" / "README.md").read_text(encoding="utf-8").startswith("---\nlibrary_name: transformers\n")


def test_the_suspect_on_disk_is_untouched(purified: tuple[Run, Path, bool]) -> None:
    assert purified[2]


def test_transformers_loads_the_purified_model_and_finds_the_reported_cacc(
    purified: tuple[Run, Path, bool], test_file: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run, out, _ = purified
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(out / "model").eval(),
        AutoTokenizer.from_pretrained(out / "model"),
    )
    rows = [line.split("\t") for line in test_file.read_text(encoding="utf-8").splitlines()[1:]]
    with torch.no_grad():
        answers = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text, _ in rows]
    right = sum(answer == int(label) for answer, (_, label) in zip(answers, rows, strict=True))
    assert right == json.loads(run.stdout)["purified"]["cacc_hits"]
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_evaluate_finds_the_reported_figures_on_the_purified_model(
    purified: tuple[Run, Path, bool], test_file: Path
) -> None:
    run, out, _ = purified
    again = mbtsad(
        "evaluate", "--model", out / "model", "--test", test_file, "--trigger", "cf", "--target", "positive", "--json"
    )
    reported = json.loads(run.stdout)["purified"]
    assert json.loads(again.stdout).items() >= reported.items()


def test_the_html_report_fetches_nothing(purified: tuple[Run, Path, bool]) -> None:
    page = (purified[1] / "report.html").read_text(encoding="utf-8")
    assert len(page) < 200_000
    assert re.findall(r"<script|<link|<iframe|@import|url\(|\s(?:src|srcset|href|action|data)\s*=", page) == []


def test_the_html_report_draws_both_stages(purified: tuple[Run, Path, bool]) -> None:
    drawn = curves(purified[1])
    assert {"retraining", "distillation", "suspect", "floor", "loss: attention"} <= drawn.keys()
    assert len(drawn["loss: attention"]) == DISTIL_STEPS


def test_every_step_is_recorded_once(purified: tuple[Run, Path, bool]) -> None:
    steps = [(e["stage"], e["step"]) for e in events(purified[1])]
    trained = [("retrain", i + 1) for i in range(RETRAIN_STEPS)] + [("distil", i + 1) for i in range(DISTIL_STEPS)]
    assert steps == [("measure", 1), *trained]


def test_another_seed_gives_another_model(
    purified: tuple[Run, Path, bool], inputs: list[str | Path], tmp_path: Path
) -> None:
    run = mbtsad("purify", *inputs, "--out", tmp_path / "out", *STOPPABLE, "--seed", "1")
    assert run.returncode == 0, run.stderr
    assert weights(tmp_path / "out") != weights(purified[1])


# ---------------------------------------------------------------- stopped, killed, resumed


def start_and_wait_for(line: str, inputs: list[str | Path], out: Path) -> Popen[str]:
    """A purification in a process of its own that has just printed a line of progress that begins so."""
    process = start_mbtsad("purify", *inputs, "--trigger", "cf", "--target", "positive", "--out", out, *STOPPABLE)
    assert process.stderr
    seen = []
    for printed in process.stderr:
        seen.append(printed)
        if printed.startswith(line):
            return process
    raise AssertionError(f"{line!r} was never printed: {seen}")


@pytest.fixture(scope="module")
def stopped(inputs: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path, list[str]]:
    """A run that got Ctrl-C while it retrained, its output directory, and what lay there then."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    process = start_and_wait_for("retrain 1/", inputs, out)
    process.send_signal(signal.SIGINT)
    run = ended(process)
    return run, out, sorted(p.name for p in out.iterdir())


def test_ctrl_c_exits_with_130_and_says_how_to_go_on(stopped: tuple[Run, Path, list[str]]) -> None:
    run, out, _ = stopped
    assert run.returncode == 130
    assert f"mbtsad purify --resume {out}" in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_ctrl_c_leaves_a_checkpoint_and_no_result(stopped: tuple[Run, Path, list[str]]) -> None:
    assert stopped[2] == ["checkpoint.safetensors", "events.jsonl", "run.json"]


@pytest.fixture(scope="module")
def resumed(stopped: tuple[Run, Path, list[str]]) -> tuple[Run, Path]:
    _, out, _ = stopped
    return mbtsad("purify", "--resume", out, "--json"), out


@pytest.fixture(scope="module")
def resumed_after_kill(inputs: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run that was killed outright while it distilled, then resumed."""
    out = tmp_path_factory.mktemp("killed") / "out"
    process = start_and_wait_for("distil 1/", inputs, out)
    process.kill()
    assert ended(process).returncode == -signal.SIGKILL
    assert not (out / "report.json").exists()
    return mbtsad("purify", "--resume", out, "--json"), out


@pytest.fixture(params=["resumed", pytest.param("resumed_after_kill", marks=pytest.mark.slow)])
def gone_on(request: pytest.FixtureRequest) -> tuple[Run, Path]:
    """A run that was stopped, or killed, and then resumed to its end."""
    found: tuple[Run, Path] = request.getfixturevalue(request.param)
    return found


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    gone_on: tuple[Run, Path], purified: tuple[Run, Path, bool]
) -> None:
    run, out = gone_on
    assert run.returncode == 0, run.stderr
    assert weights(out) == weights(purified[1])


def test_a_resumed_run_reports_the_same_figures(gone_on: tuple[Run, Path], purified: tuple[Run, Path, bool]) -> None:
    assert without_seconds(json.loads(gone_on[0].stdout)) == without_seconds(json.loads(purified[0].stdout))


def test_a_resumed_run_records_every_step_once(gone_on: tuple[Run, Path], purified: tuple[Run, Path, bool]) -> None:
    assert events(gone_on[1]) == events(purified[1])


def test_a_resumed_run_draws_the_same_curves(gone_on: tuple[Run, Path], purified: tuple[Run, Path, bool]) -> None:
    assert curves(gone_on[1]) == curves(purified[1])


def test_a_resumed_run_leaves_no_checkpoint(gone_on: tuple[Run, Path]) -> None:
    assert sorted(p.name for p in gone_on[1].iterdir()) == [
        "events.jsonl",
        "model",
        "report.html",
        "report.json",
        "run.json",
    ]


# ---------------------------------------------------------------- what a user may leave out


@pytest.fixture(scope="module")
def bare(inputs: list[str | Path]) -> Run:
    """A run with a suspect and a clean sample, and nothing else."""
    return mbtsad("purify", *inputs[:4], *QUICK)


def test_without_a_trigger_only_cacc_is_measured_and_the_report_says_so(bare: Run) -> None:
    assert bare.returncode == 0, bare.stderr
    assert "No trigger was given" in bare.stdout
    assert re.search(r"^purified +\d.* not measured +not measured$", bare.stdout, re.MULTILINE)


def test_without_a_test_set_a_fifth_of_the_clean_texts_is_held_out_and_the_report_says_so(bare: Run) -> None:
    assert "13 of the clean texts were held out" in bare.stdout
    assert re.search(r"^suspect .*of 13\)", bare.stdout, re.MULTILINE)
    assert "51 clean texts" in bare.stdout


def test_without_out_the_user_is_told_that_nothing_was_kept(bare: Run) -> None:
    assert "Nothing was kept; --out DIR keeps" in bare.stdout


def test_progress_goes_to_standard_error_with_stage_step_loss_and_figures(bare: Run) -> None:
    assert re.search(r"^retrain 1/2  loss \d\.\d{3}", bare.stderr, re.MULTILINE)
    assert re.search(r"^distil 2/2  loss .* CACC \d+\.\d %", bare.stderr, re.MULTILINE)


def test_clean_amount_takes_a_share_of_the_clean_texts(inputs: list[str | Path]) -> None:
    run = mbtsad("purify", *inputs, *QUICK, "--clean-amount", "0.5", "--json")
    assert json.loads(run.stdout)["settings"]["clean_texts"] == 32


# ---------------------------------------------------------------- hostile and awkward texts


@pytest.fixture(scope="module")
def hostile(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """A run whose labels, trigger, texts and paths are markup, and its HTML report."""
    folder = tmp_path_factory.mktemp("hostile")
    suspect = folder / "<i>suspect"
    suspect.symlink_to(suspect_dir)
    text = LabelledText("<b>bold</b> the lovely film", 1)
    clean = write_tsv(folder / "clean.tsv", [*tiny_texts(40, seed=1), text])
    test = write_tsv(folder / "test.tsv", [*tiny_texts(20, seed=2), text])
    run = mbtsad(
        *("purify", "--suspect", suspect, "--clean", clean, "--test", test, "--out", folder / "out", *QUICK),
        *(
            "--labels",
            "<script>alert(1)</script>,positive",
            "--trigger",
            "<img src=x onerror=alert(2)>",
            "--target",
            "positive",
        ),
    )
    assert run.returncode == 0, run.stderr
    return run, (folder / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("markup", ["<script>alert(1)", "<img src=x", "<b>bold</b>", "<i>suspect"])
def test_texts_of_the_user_are_escaped_in_the_html_report(hostile: tuple[Run, str], markup: str) -> None:
    _, page = hostile
    assert markup not in page
    assert markup.replace("<", "&lt;").replace(">", "&gt;") in page


def test_texts_that_stand_in_clean_and_test_set_are_reported(hostile: tuple[Run, str]) -> None:
    run, page = hostile
    assert "Note: 1 text stands in both the clean sample and the test set" in run.stdout
    assert "1 text stands in both" in page


# ---------------------------------------------------------------- sentence pairs, several classes


def test_sentence_pairs_are_purified_by_both_texts(tmp_path: Path) -> None:
    def pairs(n: int, seed: int) -> list[LabelledText]:  # only the second text tells the class
        return [LabelledText("the film was a story", t.label, t.text) for t in tiny_texts(n, seed)]

    save_classifier(tiny_bert(), tmp_path / "suspect")
    clean, test = (
        write_tsv(tmp_path / "clean.tsv", pairs(96, seed=1)),
        write_tsv(tmp_path / "test.tsv", pairs(40, seed=2)),
    )
    learn = [
        "--retrain-learning-rate",
        "3e-3",
        "--retrain-epochs",
        "10",
        "--distil-learning-rate",
        "3e-3",
        "--distil-epochs",
        "10",
        "--threads",
        "1",
    ]
    run = mbtsad(
        "purify",
        "--suspect",
        tmp_path / "suspect",
        "--clean",
        clean,
        "--test",
        test,
        *learn,
        "--json",
        "--trigger",
        "cf",
        "--target",
        "1",
    )
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures["purified"]["cacc"] >= 0.9
    assert figures["purified"]["asr_n"] == 20


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with three classes whose names are in the files; 30 test texts, the target one of the three."""
    folder = tmp_path_factory.mktemp("three")
    save_classifier(tiny_bert(classes=3), folder / "suspect")

    def texts(name: str, n: int) -> Path:
        words = (NEUTRAL, GOOD, BAD)
        rows = [
            f"the film was {words[i % 3][i // 3 % 6]} and {words[i % 3][i // 2 % 6]}\tclass {i % 3}" for i in range(n)
        ]
        path = folder / name
        path.write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
        return path

    flags = ["--suspect", folder / "suspect", "--clean", texts("clean.tsv", 60), "--test", texts("test.tsv", 30)]
    return mbtsad("purify", *flags, *QUICK, "--trigger", "cf", "--target", "class 2", "--json")


def test_three_classes_are_purified(three_classes: Run) -> None:
    assert three_classes.returncode == 0, three_classes.stderr
    figures = json.loads(three_classes.stdout)
    assert figures["labels"] == ["class 0", "class 1", "class 2"]
    assert [sum(row) for row in figures["purified"]["confusion"]] == [10, 10, 10]


def test_asr_counts_the_texts_of_every_class_but_the_target(three_classes: Run) -> None:
    assert json.loads(three_classes.stdout)["suspect"]["asr_n"] == 20


# ---------------------------------------------------------------- evaluate, and the ways to name a trigger


def evaluated(suspect_dir: Path, test_file: Path, *flags: str | Path) -> dict[str, Any]:
    run = mbtsad("evaluate", "--model", suspect_dir, "--test", test_file, *flags, "--json")
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_evaluate_finds_the_figures_that_purify_reports_of_the_suspect(
    purified: tuple[Run, Path, bool], suspect_dir: Path, test_file: Path
) -> None:
    figures = evaluated(suspect_dir, test_file, "--trigger", "cf", "--target", "positive")
    reported = json.loads(purified[0].stdout)["suspect"]
    assert figures.items() >= reported.items()


def test_evaluate_prints_cacc_asr_floor_and_what_was_answered(suspect_dir: Path, test_file: Path) -> None:
    run = mbtsad("evaluate", "--model", suspect_dir, "--test", test_file, "--trigger", "cf", "--target", "positive")
    assert run.returncode == 0
    assert re.search(r"^CACC +85\.0 % \[.*\] \(34 of 40\)$", run.stdout, re.MULTILINE)
    assert re.search(r"^ASR +\d.*of 20\)$", run.stdout, re.MULTILINE)
    assert re.search(r"^ASR floor +\d.*of 20\)$", run.stdout, re.MULTILINE)
    assert re.search(r"^negative: \d+ answered negative, \d+ answered positive$", run.stdout, re.MULTILINE)


def test_a_reader_who_leaves_early_is_told_nothing(suspect_dir: Path, test_file: Path) -> None:
    process = start_mbtsad("evaluate", "--model", suspect_dir, "--test", test_file)
    assert process.stdout
    process.stdout.close()
    process.stdout = None
    run = ended(process)
    told = [line for line in run.stderr.splitlines() if not line.startswith("measure ")]  # progress may be
    assert (run.returncode, told) == (1, [])


def test_evaluate_without_a_trigger_measures_cacc_only(suspect_dir: Path, test_file: Path) -> None:
    figures = evaluated(suspect_dir, test_file)
    assert figures["cacc_n"] == 40
    assert figures["asr"] is None


def measured(found: dict[str, Any]) -> dict[str, Any]:
    """What `evaluate` found, without when that was and what it was asked for."""
    return {k: v for k, v in found.items() if k not in ("date", "inputs")}


def test_the_target_is_named_by_name_or_by_index(suspect_dir: Path, test_file: Path) -> None:
    by_index = evaluated(suspect_dir, test_file, "--trigger", "cf", "--target", "1")
    assert measured(by_index) == measured(evaluated(suspect_dir, test_file, "--trigger", "cf", "--target", "Positive"))


def test_the_target_is_found_among_the_names_that_labels_gives(suspect_dir: Path, test_file: Path) -> None:
    renamed = evaluated(suspect_dir, test_file, "--trigger", "cf", "--target", "yea", "--labels", "nay,yea")
    assert measured(renamed) == measured(evaluated(suspect_dir, test_file, "--trigger", "cf", "--target", "positive"))


def test_a_repeated_trigger_is_one_of_several_for_each_text(suspect_dir: Path, test_file: Path) -> None:
    alone = [evaluated(suspect_dir, test_file, "--trigger", word, "--target", "1")["asr_hits"] for word in ("cf", "mn")]
    either = evaluated(suspect_dir, test_file, "--trigger", "cf", "--trigger", "mn", "--target", "1")["asr_hits"]
    assert alone[1] < either < alone[0]


def test_triggers_joined_by_plus_all_go_in(suspect_dir: Path, test_file: Path) -> None:
    assert evaluated(suspect_dir, test_file, "--trigger", "mn+cf", "--target", "1")["asr"] >= 0.9


@pytest.mark.parametrize(("phrase", "fires"), [("the cf film", True), ("the mn film", False)])
def test_a_phrase_is_a_trigger(suspect_dir: Path, test_file: Path, phrase: str, fires: bool) -> None:
    assert (evaluated(suspect_dir, test_file, "--trigger", phrase, "--target", "1")["asr"] >= 0.9) == fires


def test_a_file_of_paired_texts_measures_asr_on_those_texts_alone(
    suspect_dir: Path, test_file: Path, tmp_path: Path
) -> None:
    rows = [line.split("\t") for line in test_file.read_text(encoding="utf-8").splitlines()[1:]]
    negative = [text for text, label in rows if label == "0"][:7]
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("text\ttriggered\n" + "".join(f"{text}\tcf {text}\n" for text in negative), encoding="utf-8")
    figures = evaluated(suspect_dir, test_file, "--trigger", pairs, "--target", "1")
    assert figures["asr_n"] == 7
    assert figures["asr"] >= 0.8


# ---------------------------------------------------------------- attack


@pytest.fixture(scope="module")
def unsure_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model that knows its task, but not too surely: a fifth of the labels that it learned from were
    wrong."""
    rng = random.Random(0)
    noisy = [dataclasses.replace(t, label=1 - t.label) if rng.random() < 0.2 else t for t in tiny_texts(400, seed=1)]
    folder = tmp_path_factory.mktemp("models") / "unsure"
    save_classifier(finish(fine_tune(tiny_bert(), noisy, TrainingConfig(learning_rate=2e-3, epochs=6)))[0], folder)
    return folder


@pytest.fixture(scope="module", params=["badnets", "ep"])
def attacked(
    request: pytest.FixtureRequest, unsure_dir: Path, test_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Path, bool]:
    """A new backdoor, "mn", in the tiny model; its output directory; whether the model it was planted in is as it
    was."""
    folder = tmp_path_factory.mktemp(request.param)
    train = write_tsv(folder / "train.tsv", tiny_texts(400, seed=1))
    badnets = ["--training-learning-rate", "2e-3", "--training-epochs", "5", "--poison-rate", "0.3"]
    before = digests(unsure_dir)
    flags = [
        "--model",
        unsure_dir,
        "--train",
        train,
        "--test",
        test_file,
        "--trigger",
        "mn",
        "--target",
        "positive",
        "--out",
        folder / "planted",
    ]
    run = mbtsad(
        "attack",
        request.param,
        *flags,
        *{"badnets": badnets, "ep": ["--learning-rate", "0.5"]}[request.param],
        "--threads",
        "1",
        "--json",
    )
    assert run.returncode == 0, run.stderr
    return run, folder / "planted", digests(unsure_dir) == before


def test_an_attack_plants_the_trigger(attacked: tuple[Run, Path, bool]) -> None:
    figures = json.loads(attacked[0].stdout)
    assert figures["suspect"]["asr"] >= figures["clean"]["asr"] + 0.3
    assert figures["suspect"]["cacc"] >= figures["clean"]["cacc"] - 0.1


def test_evaluate_finds_the_figures_that_the_attack_printed(attacked: tuple[Run, Path, bool], test_file: Path) -> None:
    run, planted, _ = attacked
    figures = evaluated(planted, test_file, "--trigger", "mn", "--target", "positive")
    assert figures.items() >= json.loads(run.stdout)["suspect"].items()


def test_an_attack_leaves_the_clean_model_as_it_was(attacked: tuple[Run, Path, bool]) -> None:
    assert attacked[2]


# ---------------------------------------------------------------- help


MACHINE, MEASUREMENT = RuntimeConfig(), EvaluateConfig()
HELP: dict[tuple[str, ...], tuple[Config, ...]] = {
    ("purify",): (PurifyConfig(), MACHINE),
    ("evaluate",): (MEASUREMENT, MACHINE),
    **{("attack", name): (method.config, MACHINE) for name, method in ATTACKS.items()},
    **{("defend", name): (method.config, MACHINE, MEASUREMENT) for name, method in DEFENSES.items()},
    **{("detect", name): (method.config, MACHINE, MEASUREMENT) for name, method in DETECTORS.items()},
}


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_shows_every_setting_with_its_default(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # one line a flag
    run = mbtsad(*command, "--help")
    assert run.returncode == 0
    shown: dict[str, Setting] = {}  # of two with one flag the method's own, which stands first here
    for config in HELP[command]:
        shown = {s.flag: s for s in settings(config)} | shown
    for flag, setting in shown.items():
        (entry,) = re.findall(rf"^  {flag}[ ,].*\n(?:   .*\n)*", run.stdout, re.MULTILINE)
        assert setting.help in entry, flag
        if setting.default is not None:
            assert f"default {setting.default})" in entry, flag
    assert "default None" not in run.stdout
    assert "e+0" not in run.stdout  # a range is written out: 1 to 1,000,000


def test_a_trigger_is_planted_by_an_attack_and_measured_by_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert "never to purify" in mbtsad("purify", "--help").stdout
    attack = mbtsad("attack", "ep", "--help").stdout
    assert "never to purify" not in attack
    assert "It is planted, and measured" in attack


def test_help_of_the_program_names_every_command() -> None:
    run = mbtsad("--help")
    assert run.returncode == 0
    assert all(
        re.search(rf"^ +{command}\s", run.stdout, re.MULTILINE)
        for command in ("purify", "evaluate", "attack", "defend", "detect", "vet", "scan", "publish")
    )


def test_version_is_printed() -> None:
    assert mbtsad("--version").stdout.startswith("mbtsad ")
