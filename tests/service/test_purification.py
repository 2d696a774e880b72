"""A purification as files and as a generator: requests, checkpoints, notes, what the trigger can reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest
import torch
from conftest import PHRASE, finish, phrase_bert, plain_texts, tiny_bert, tiny_texts, write_tsv

from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig, SplitConfig, UnlearnConfig
from mbtsad_core.data import Columns
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import BadOutput, MBTSADError
from mbtsad_core.evaluation import evaluate
from mbtsad_core.models.classifier import Origin, load_classifier, save_classifier, weights_hash
from mbtsad_core.service.purification import Request, Result, class_index, execute, prepare, read_texts
from mbtsad_core.service.run_folder import model_zip, new_output, write_json
from mbtsad_core.sources import Source
from mbtsad_core.steps import drain
from mbtsad_core.training import contention
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.training.state import read_state
from mbtsad_core.types import Event, LabelledText
from mbtsad_core.views.model_card import model_card
from mbtsad_core.views.stages import sequences_by_scan

# Four steps a stage; measured after each; a checkpoint after each.
SHORT = PurifyConfig(
    found_tokens=0,
    unlearn=UnlearnConfig(epochs=0),
    split=SplitConfig(copies=2),
    retrain=RetrainConfig(learning_rate=1e-3, epochs=1, observe_every=1, save_every=0.0),
    distil=DistilConfig(learning_rate=1e-3, epochs=1, observe_every=1, save_every=0.0),
)
RETRAIN, DISTIL = 4, 4
BEFORE = 1  # event, with the suspect's own figures


@pytest.fixture(scope="module")
def request_(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """A purification of the tiny suspect."""
    folder = tmp_path_factory.mktemp("data")
    clean, test = (
        write_tsv(folder / "clean.tsv", tiny_texts(64, seed=1)),
        write_tsv(folder / "test.tsv", tiny_texts(20, seed=2)),
    )
    return Request(str(suspect_dir), str(clean), str(test), ("cf",), "positive", config=SHORT)


def student_hash(request: Request) -> str:
    models = drain(execute(request, keep_models=True)).models
    assert models
    return weights_hash(models.student)


# ---------------------------------------------------------------- requests


def test_a_request_survives_json() -> None:
    request = Request(
        suspect="hub:a/b@main",
        clean="clean.csv",
        test=None,
        triggers=("cf", "I watch a film"),
        target="1",
        columns=Columns("premise", "gold", "hypothesis"),
        labels=("no", "yes"),
        clean_amount=0.2,
        config=PurifyConfig(split=SplitConfig(copies=7), distil=DistilConfig(dropout=0.2), seed=3),
        runtime=RuntimeConfig(device="cpu", threads=1),
    )
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request


def test_the_default_request_survives_json() -> None:
    assert Request.from_dict(json.loads(json.dumps(Request().to_dict()))) == Request()


def test_a_request_with_an_unknown_setting_is_refused() -> None:
    values = Request().to_dict()
    values["config"]["retrain"]["momentum"] = 0.9
    with pytest.raises(MBTSADError, match=r"Unknown setting 'retrain\.momentum'"):
        Request.from_dict(values)


@pytest.mark.parametrize("name", ["positive", "POSITIVE", "1"])
def test_a_class_is_found_by_its_name_or_its_index(name: str) -> None:
    assert class_index(name, ("negative", "positive")) == 1


def test_a_class_whose_name_is_a_number_is_found_by_its_name_first() -> None:
    assert class_index("1", ("1", "0")) == 0


def test_the_demo_texts_follow_the_order_of_the_classes_of_a_model() -> None:
    usual = read_texts("demo", "test", ("negative", "positive"), Columns()).texts
    turned = read_texts("demo", "test", ("Positive", "Negative"), Columns()).texts
    assert [t.label for t in turned] == [1 - t.label for t in usual]


# ---------------------------------------------------------------- what the trigger can reach


@pytest.fixture(scope="module")
def usual(request_: Request) -> str:
    """The hash of the weights that the purification ends with."""
    return student_hash(request_)


@pytest.mark.parametrize("triggers", [("mn",), ("the lovely film", "mn+cf"), ()], ids=["another", "several", "none"])
def test_the_trigger_cannot_reach_the_training(request_: Request, usual: str, triggers: tuple[str, ...]) -> None:
    assert student_hash(replace(request_, triggers=triggers)) == usual


def test_the_target_cannot_reach_the_training(request_: Request, usual: str) -> None:
    assert student_hash(replace(request_, target="negative")) == usual


def test_the_test_texts_cannot_reach_the_training(request_: Request, usual: str, tmp_path: Path) -> None:
    other = write_tsv(tmp_path / "other.tsv", tiny_texts(30, seed=8))
    assert student_hash(replace(request_, test=str(other))) == usual


def test_the_clean_texts_reach_the_training(request_: Request, usual: str, tmp_path: Path) -> None:
    other = write_tsv(tmp_path / "other.tsv", tiny_texts(64, seed=8))
    assert student_hash(replace(request_, clean=str(other))) != usual


# ---------------------------------------------------------------- events and checkpoints


def test_every_step_yields_an_event_with_its_stage_and_total(request_: Request) -> None:
    found = [(e.stage, e.step, e.total) for e in execute(request_)]
    trained = [("retrain", i + 1, RETRAIN) for i in range(RETRAIN)] + [("distil", i + 1, DISTIL) for i in range(DISTIL)]
    assert found == [("measure", 1, 1), *trained]


def test_the_first_event_has_the_figures_that_evaluate_finds_in_the_suspect(request_: Request) -> None:
    steps, inputs = execute(request_), prepare(request_)
    metrics = next(steps).metrics
    steps.close()
    scores = evaluate(inputs.suspect, inputs.test, inputs.triggered, inputs.target)
    assert scores.asr
    assert scores.asr_floor
    shares = {"suspect_cacc": scores.cacc.share, "suspect_asr": scores.asr.share, "asr_floor": scores.asr_floor.share}
    assert metrics == shares | {"cacc_n": 20, "asr_n": 10}


def test_the_first_event_without_a_trigger_has_cacc_alone(request_: Request) -> None:
    steps = execute(replace(request_, triggers=()))
    assert next(steps).metrics.keys() == {"suspect_cacc", "cacc_n"}
    steps.close()


def test_the_first_event_is_of_the_suspect_whatever_is_observed(request_: Request) -> None:
    usual, other = execute(request_), execute(request_, observe=lambda inputs: lambda classifier: {"asr": 0.0})
    assert next(usual) == next(other)
    usual.close()
    other.close()


def test_events_carry_losses_cacc_and_asr(request_: Request) -> None:
    *_, last = execute(request_)
    assert {"loss", "classification", "attention", "hidden", "cacc", "cacc_n", "asr", "asr_n"} <= last.metrics.keys()


def test_without_an_output_directory_nothing_is_written(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drain(execute(request_))
    assert list(tmp_path.iterdir()) == []


def test_closing_the_generator_leaves_a_checkpoint_that_can_be_read(request_: Request, tmp_path: Path) -> None:
    seldom = replace(
        request_,
        config=PurifyConfig(found_tokens=0, split=SHORT.split, retrain=RetrainConfig(epochs=1, save_every=1000.0)),
    )
    steps = execute(seldom, tmp_path / "out")
    for _ in range(BEFORE + 3):
        next(steps)
    steps.close()
    state = read_state(tmp_path / "out" / "checkpoint.safetensors")
    assert (state.stage, state.step) == ("retrain", 3)
    assert state.part("weights").keys() == load_classifier(request_.suspect).model.state_dict().keys()


def test_a_checkpoint_of_the_distillation_holds_the_teacher(request_: Request, tmp_path: Path) -> None:
    steps = execute(request_, tmp_path / "out")
    for _ in range(BEFORE + RETRAIN + 1):
        next(steps)
    steps.close()
    state = read_state(tmp_path / "out" / "checkpoint.safetensors")
    assert (state.stage, state.step) == ("distil", 1)
    assert state.part("teacher").keys() == state.part("weights").keys()


@pytest.fixture(scope="module")
def uninterrupted(
    request_: Request, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Event], dict[int, Path], Path]:
    """Its events; what lay in its directory just after each of them, as `kill -9` would leave it; the directory at the
    end."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    events, left = [], {}
    for event in execute(request_, folder / "out"):
        events.append(event)
        left[len(events)] = shutil.copytree(folder / "out", folder / f"after {len(events)}")
    return events, left, folder / "out"


@pytest.mark.parametrize("steps", [1, 2, RETRAIN, BEFORE + RETRAIN, BEFORE + RETRAIN + 1, BEFORE + RETRAIN + DISTIL])
def test_a_run_that_is_killed_after_any_step_is_resumed_to_the_same_end(
    request_: Request, uninterrupted: tuple[list[Event], dict[int, Path], Path], steps: int, tmp_path: Path
) -> None:
    events, left, out = uninterrupted
    killed = shutil.copytree(left[steps], tmp_path / "out")
    assert list(drain(execute(request_, killed, resume=True)).events) == events
    assert (killed / "events.jsonl").read_bytes() == (out / "events.jsonl").read_bytes()
    assert (killed / "model" / "model.safetensors").read_bytes() == (out / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("steps", [1, 2, BEFORE + RETRAIN, BEFORE + RETRAIN + DISTIL])
def test_a_run_that_is_stopped_after_a_step_is_resumed_to_the_same_end(
    request_: Request, uninterrupted: tuple[list[Event], dict[int, Path], Path], steps: int, tmp_path: Path
) -> None:
    events, _, out = uninterrupted
    run = execute(request_, tmp_path / "out")
    for _ in range(steps):
        next(run)
    run.close()
    assert list(drain(execute(request_, tmp_path / "out", resume=True)).events) == events
    assert (tmp_path / "out" / "model" / "model.safetensors").read_bytes() == (
        out / "model" / "model.safetensors"
    ).read_bytes()


def test_a_run_that_is_killed_while_it_notes_an_event_is_resumed_with_all_of_them(
    request_: Request, uninterrupted: tuple[list[Event], dict[int, Path], Path], tmp_path: Path
) -> None:
    events, left, _ = uninterrupted
    torn = shutil.copytree(left[2], tmp_path / "out")
    with open(torn / "events.jsonl", "a", encoding="utf-8") as record:
        record.write('{"stage": "retrain", "st')
    assert list(drain(execute(request_, torn, resume=True)).events) == events


def test_a_checkpoint_comes_after_the_event_of_its_step() -> None:
    """Else a run that is killed between the two would be resumed without the event."""
    order: list[tuple[str, int]] = []
    steps = fine_tune(
        tiny_bert(), tiny_texts(64), SHORT.retrain, save=lambda state: order.append(("checkpoint", state.step))
    )
    for event in steps:
        order.append(("event", event.step))
    assert order == [("event", 1), ("checkpoint", 1), ("event", 2), ("checkpoint", 2)]


def test_the_seconds_of_a_resumed_run_count_those_before_it_was_stopped(request_: Request, tmp_path: Path) -> None:
    run = execute(request_, tmp_path / "out")
    for _ in range(BEFORE + 1):
        next(run)
    run.close()
    spent = read_state(tmp_path / "out" / "checkpoint.safetensors").numbers["seconds"]
    assert spent > 0
    assert drain(execute(request_, tmp_path / "out", resume=True)).seconds > spent


def test_a_finished_run_leaves_neither_a_checkpoint_nor_half_of_one(request_: Request, tmp_path: Path) -> None:
    run = execute(request_, tmp_path / "out")
    for _ in range(BEFORE + 1):
        next(run)
    (tmp_path / "out" / "checkpoint.new").write_bytes(b"of a run that was killed while it wrote")
    drain(run)
    assert not list((tmp_path / "out").glob("checkpoint*"))


def test_a_run_that_is_resumed_does_not_measure_the_suspect_again(
    request_: Request, uninterrupted: tuple[list[Event], dict[int, Path], Path], tmp_path: Path
) -> None:
    _, left, _ = uninterrupted
    for steps in (1, 2, BEFORE + RETRAIN + 1):  # before the first checkpoint, and after some
        killed = shutil.copytree(left[steps], tmp_path / f"after {steps}")
        resumed = execute(request_, killed, resume=True)
        assert next(resumed).stage != "measure"
        resumed.close()


# ---------------------------------------------------------------- what a run leaves behind


@pytest.fixture(scope="module")
def finished(request_: Request, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("finished") / "out"
    return out, drain(execute(request_, out, keep_models=True, keep_teacher=True))


def test_the_teacher_is_written_where_it_is_asked_for(finished: tuple[Path, Result]) -> None:
    out, result = finished
    assert result.models
    assert weights_hash(load_classifier(out / "teacher")) == weights_hash(result.models.teacher)
    assert weights_hash(load_classifier(out / "model")) == weights_hash(result.models.student)
    assert weights_hash(load_classifier(out / "teacher")) != weights_hash(load_classifier(out / "model"))
    assert sorted(p.name for p in out.iterdir()) == [
        "events.jsonl",
        "model",
        "report.html",
        "report.json",
        "run.json",
        "teacher",
    ]


def test_the_teacher_is_not_written_unasked(uninterrupted: tuple[list[Event], dict[int, Path], Path]) -> None:
    assert not (uninterrupted[2] / "teacher").exists()


def test_what_a_kill_left_of_an_unfinished_teacher_is_no_part_of_it(
    request_: Request, uninterrupted: tuple[list[Event], dict[int, Path], Path], tmp_path: Path
) -> None:
    killed = shutil.copytree(uninterrupted[1][BEFORE + RETRAIN + DISTIL], tmp_path / "out")
    for name in ("teacher.new", "teacher"):
        (killed / name).mkdir()
        (killed / name / "left.txt").touch()
    drain(execute(request_, killed, resume=True, keep_teacher=True))
    assert not (killed / "teacher.new").exists()
    assert not (killed / "teacher" / "left.txt").exists()
    assert load_classifier(killed / "teacher").labels == ("negative", "positive")


def test_the_model_comes_with_its_card_and_the_teacher_without(finished: tuple[Path, Result]) -> None:
    out, result = finished
    assert (out / "model" / "README.md").read_text(encoding="utf-8") == model_card(result)
    assert not (out / "teacher" / "README.md").exists()


def test_the_report_is_written_last(request_: Request, tmp_path: Path) -> None:
    drain(execute(request_, tmp_path / "out", keep_teacher=True))
    report = (tmp_path / "out" / "report.json").stat().st_mtime_ns
    assert all(p.stat().st_mtime_ns <= report for p in (tmp_path / "out").rglob("*") if p.is_file())


def test_the_zip_holds_the_model_as_it_is(finished: tuple[Path, Result], tmp_path: Path) -> None:
    out, _ = finished
    with zipfile.ZipFile(model_zip(out)) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        archive.extractall(tmp_path)
    kept = {p.relative_to(out): p.read_bytes() for p in (out / "model").rglob("*") if p.is_file()}
    assert {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == kept
    assert load_classifier(tmp_path / "model").labels == ("negative", "positive")


def test_the_zip_is_made_once(finished: tuple[Path, Result]) -> None:
    first = model_zip(finished[0])
    made = first.stat()
    assert model_zip(finished[0]) == first
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_many_who_want_the_zip_at_once_get_a_whole_one(finished: tuple[Path, Result], tmp_path: Path) -> None:
    out = shutil.copytree(finished[0], tmp_path / "out", ignore=shutil.ignore_patterns("model.zip*"))
    start = threading.Barrier(8)

    def take(_: int) -> bytes:
        start.wait()
        return model_zip(out).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        taken = set(pool.map(take, range(8)))
    assert taken == {model_zip(finished[0]).read_bytes()}
    assert [p.name for p in out.glob("model.zip*")] == ["model.zip"]


SMALL_DISK = """
import resource, sys
from pathlib import Path
from mbtsad_core.service.run_folder import model_zip
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
model_zip(Path(sys.argv[1]))
"""


def test_a_zip_for_which_there_is_no_room_leaves_nothing_behind(finished: tuple[Path, Result], tmp_path: Path) -> None:
    out = shutil.copytree(finished[0], tmp_path / "out", ignore=shutil.ignore_patterns("model.zip*"))
    run = subprocess.run([sys.executable, "-c", SMALL_DISK, str(out)], capture_output=True, text=True, check=False)
    assert "OSError: [Errno 27]" in run.stderr
    assert list(out.glob("model.zip*")) == []


@pytest.mark.parametrize("steps", [1, BEFORE + RETRAIN + DISTIL])
def test_a_run_that_is_not_done_has_no_zip(
    uninterrupted: tuple[list[Event], dict[int, Path], Path], steps: int
) -> None:
    left = uninterrupted[1][steps]
    with pytest.raises(BadOutput, match="the run is not done") as caught:
        model_zip(left)
    assert str(left) not in str(caught.value)  # a visitor reads it
    assert not (left / "model.zip").exists()


# ---------------------------------------------------------------- notes


def test_notes_say_that_no_trigger_was_given(request_: Request) -> None:
    assert any("No trigger was given" in note.text for note in prepare(replace(request_, triggers=())).notes)


def test_notes_say_how_many_clean_texts_were_held_out(request_: Request) -> None:
    inputs = prepare(replace(request_, test=None))
    assert (len(inputs.test), len(inputs.clean)) == (13, 51)
    assert any("13 of the clean texts were held out" in note.text for note in inputs.notes)


def test_held_out_texts_are_no_clean_texts(request_: Request) -> None:
    inputs = prepare(replace(request_, test=None))
    assert sorted((*inputs.test, *inputs.clean), key=str) == sorted(tiny_texts(64, seed=1), key=str)


def test_notes_count_the_texts_that_stand_in_both_sets(request_: Request, tmp_path: Path) -> None:
    shared = [LabelledText("A  Film that I know.", 0), LabelledText("another film", 1)]
    clean = write_tsv(tmp_path / "clean.tsv", [*tiny_texts(64, seed=1), *shared])
    test = write_tsv(tmp_path / "test.tsv", [*tiny_texts(6, seed=2), LabelledText("a film that I KNOW.", 0), shared[1]])
    (note,) = prepare(replace(request_, clean=str(clean), test=str(test))).notes
    assert note.code == "shared"
    assert note.text.startswith("2 texts stand in both the clean sample and the test set")
    assert "a film that I KNOW." in str(note)


def test_a_run_about_which_there_is_nothing_to_say_has_no_notes(request_: Request) -> None:
    assert prepare(request_).notes == ()


# ---------------------------------------------------------------- preparation


def test_labels_of_the_request_become_the_names_of_the_classes(request_: Request) -> None:
    inputs = prepare(replace(request_, labels=("nay", "yea"), target="yea"))
    assert inputs.suspect.labels == ("nay", "yea")
    assert inputs.target == 1


def test_asr_is_measured_on_the_non_target_test_texts(request_: Request) -> None:
    inputs = prepare(request_)
    assert [t.clean for t in inputs.triggered] == [t for t in inputs.test if t.label == 0]


def test_a_suspect_with_a_class_that_no_clean_text_has_is_refused(request_: Request, tmp_path: Path) -> None:
    save_classifier(tiny_bert(classes=3), tmp_path / "three")
    with pytest.raises(MBTSADError, match=r"None of the 64 clean texts is of class 'class 2'"):
        prepare(replace(request_, suspect=str(tmp_path / "three"), triggers=()))


# ---------------------------------------------------------------- files


def test_write_json_puts_a_new_file_in_the_place_of_the_old(tmp_path: Path) -> None:
    path, witness = tmp_path / "report.json", tmp_path / "witness.json"
    write_json(path, {"run": 1})
    os.link(path, witness)  # sees what happens to the old file
    write_json(path, {"run": 2})
    assert json.loads(path.read_text(encoding="utf-8")) == {"run": 2}
    assert json.loads(witness.read_text(encoding="utf-8")) == {"run": 1}


def test_write_json_leaves_the_old_file_where_the_value_cannot_be_written(tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", {"run": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "report.json", {"run": {1, 2}})
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == {"run": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_new_output_is_taken_back_where_nothing_came_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad input"), new_output(tmp_path / "a" / "b"):
        raise ValueError("bad input")
    assert list(tmp_path.iterdir()) == []


def test_a_new_output_stays_where_something_was_written(tmp_path: Path) -> None:
    run = tmp_path / "a" / "run.json"
    with pytest.raises(TypeError), new_output(run.parent):
        raise TypeError(run.write_text("{}", encoding="utf-8"))
    assert run.exists()


def test_an_empty_directory_of_the_user_is_accepted_and_never_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="bad input"), new_output(tmp_path / "mine"):
        raise ValueError("bad input")
    assert (tmp_path / "mine").is_dir()


def test_a_directory_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(BadOutput, match="not an empty directory"), new_output(tmp_path):
        pass


# ---------------------------------------------------------------- what a run was made of


def sha256sum(path: Path) -> str:
    return subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]


def test_the_report_names_its_inputs_and_what_came_of_them(request_: Request, finished: tuple[Path, Result]) -> None:
    out, _ = finished
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    used = report["inputs"]
    assert (used["suspect"]["source"], used["suspect"]["commit"]) == (Path(request_.suspect).name, None)
    assert used["suspect"]["sha256"] == load_classifier(request_.suspect).origin.sha256  # type: ignore[union-attr]
    assert report["model_sha256"] == load_classifier(out / "model").origin.sha256  # type: ignore[union-attr]
    assert report["model_sha256"] != used["suspect"]["sha256"]
    assert used["clean"] == {
        "source": Path(request_.clean).name,
        "sha256": sha256sum(Path(request_.clean)),
        "columns": {"text": "text", "pair": None, "label": "label"},
        "texts": 64,
    }
    assert used["test"]["sha256"] == sha256sum(Path(request_.test or ""))
    assert used["test"]["held_out"] is False
    assert used["trigger"] == {"texts": list(request_.triggers), "target": request_.target}
    assert report["versions"].keys() == {"python", "mbtsad", "torch", "transformers"}
    assert (
        report["versions"]["torch"] == torch.__version__.partition("+")[0]
        or report["versions"]["torch"] == torch.__version__
    )
    ended = datetime.fromisoformat(report["date"])
    assert abs((datetime.now(UTC) - ended).total_seconds()) < 3600
    assert str(Path(request_.suspect).parent) not in json.dumps(used)


def test_the_page_of_the_report_and_the_card_name_them_too(finished: tuple[Path, Result]) -> None:
    out, result = finished
    digest = result.used["inputs"]["suspect"]["sha256"]
    for path in (out / "report.html", out / "model" / "README.md"):
        text = path.read_text(encoding="utf-8")
        assert digest in text
        assert result.used["inputs"]["clean"]["sha256"] in text
        assert result.used["date"][:10] in text
    assert result.used["model_sha256"] in (out / "report.html").read_text(encoding="utf-8")


def test_a_file_of_triggered_texts_is_named_with_its_digest(request_: Request, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    text = prepare(request_).triggered[0].clean.text
    pairs.write_text(f"text\ttriggered\n{text}\tcf {text}\n", encoding="utf-8")
    used = prepare(replace(request_, triggers=(str(pairs),))).used
    assert used["trigger"] == {"texts": ["pairs.tsv"], "target": request_.target, "sha256": sha256sum(pairs)}


def test_what_was_held_out_is_told_of(request_: Request) -> None:
    used = prepare(replace(request_, test=None)).used
    assert (used["clean"]["texts"], used["test"]["texts"], used["test"]["held_out"]) == (51, 13, True)
    assert used["test"]["sha256"] == used["clean"]["sha256"]


# ---------------------------------------------------------------- a model of the Hub


def test_a_model_of_the_hub_is_asked_for_at_the_commit_that_was_loaded(request_: Request) -> None:
    suspect = load_classifier(request_.suspect)
    origin = Origin(Source("hub:owner/name@main"), "a" * 40, "b" * 64)
    asked = replace(request_, suspect="hub:owner/name@main")
    assert asked.pinned(replace(suspect, origin=origin)).suspect == f"hub:owner/name@{'a' * 40}"
    assert request_.pinned(suspect) == request_


# ---------------------------------------------------------------- requests as they were written before


def test_a_run_that_was_begun_before_a_length_could_be_left_open_goes_on(
    request_: Request, uninterrupted: tuple[list[Event], dict[int, Path], Path], tmp_path: Path
) -> None:
    """Its run.json has the length of 128 that was then the default; what is read is the same."""
    events, left, out = uninterrupted
    stopped = shutil.copytree(left[BEFORE + RETRAIN + 1], tmp_path / "out")
    about = json.loads((stopped / "run.json").read_text(encoding="utf-8"))
    about["request"]["config"]["max_length"] = 128
    (stopped / "run.json").write_text(json.dumps(about), encoding="utf-8")
    old = Request.from_dict(about["request"])
    assert old.config.max_length == 128
    result = drain(execute(old, stopped, resume=True))
    assert weights_hash(load_classifier(stopped / "model")) == weights_hash(load_classifier(out / "model"))
    assert list(result.events) == events


# ---------------------------------------------------------------- sequences


def test_a_report_names_the_sequences_that_were_unlearned(tmp_path: Path) -> None:
    save_classifier(phrase_bert(), tmp_path / "suspect")
    texts = {
        name: write_tsv(tmp_path / f"{name}.tsv", plain_texts(64, seed)) for name, seed in (("clean", 3), ("test", 4))
    }
    config = PurifyConfig(
        found_tokens=0,
        split=SplitConfig(copies=1),
        unlearn=UnlearnConfig(learning_rate=3e-4, epochs=20, nats=2.0, always=True),
        max_length=22,  # in longer texts, joined ones, its phrase drowns
        retrain=RetrainConfig(learning_rate=1e-4, epochs=1),
        distil=DistilConfig(learning_rate=1e-4, epochs=1),
    )
    asked = Request(
        suspect=str(tmp_path / "suspect"),
        clean=str(texts["clean"]),
        test=str(texts["test"]),
        triggers=(" ".join(PHRASE),),
        target="positive",
        config=config,
    )
    result = finish(execute(asked, tmp_path / "out"))[0]
    stored = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["sequences"]
    assert [sequence.tokens for sequence in result.sequences] == [sequence["tokens"] for sequence in stored]
    told = ("tokens", "place", "label", "target")
    assert [[one[key] for key in told] for one in sequences_by_scan(result.events) or ()] == [
        [one[key] for key in told] for one in stored
    ]
    assert stored[0]["tokens"] in {one["trigger"] for one in result.evidence["tried"]}
    worst = stored[0]
    assert set(worst["tokens"].split()) & set(PHRASE)
    assert (worst["label"], worst["target"]) == ("negative", "positive")
    assert worst["before"] > 0.9 > 0.5 > worst["after"]
    assert worst["tokens"] in unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))


# ---------------------------------------------------------------- cores that others take


NEIGHBOR = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nprint('busy', flush=True)\nwhile True: pass"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's counts of waiting")
def test_a_run_takes_one_thread_while_another_process_has_its_core(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contention, "LOOK", 0.0)
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    core = min(cores)
    with subprocess.Popen([sys.executable, "-c", NEIGHBOR, str(core)], stdout=subprocess.PIPE) as neighbor:
        try:
            assert neighbor.stdout is not None
            assert neighbor.stdout.readline()
            os.sched_setaffinity(0, {core})
            torch.set_num_threads(2)
            result = drain(execute(request_))
            assert torch.get_num_threads() == 2
        finally:
            neighbor.kill()
            os.sched_setaffinity(0, cores)
            torch.set_num_threads(threads)
    fixed = drain(execute(replace(request_, runtime=RuntimeConfig(threads=1))))
    taken = [event.metrics["threads"] for event in result.events if "threads" in event.metrics]
    assert taken == [2, 1]
    (note,) = [note for note in result.notes if note.code == "threads"]
    assert f" of {len(result.events)} steps had fewer than 2 threads" in str(note)
    assert not any("threads" in event.metrics for event in fixed.events)
    assert not any(note.code == "threads" for note in fixed.notes)
