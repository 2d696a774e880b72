"""A disk that is really full, and memory that does not hold a batch: what is told, what is kept, and how a run goes
on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny_texts
from example import tiny_request, undisturbed, weights, write_texts

from mbtsad_core.config import JobsConfig
from mbtsad_core.models.classifier import Classifier
from mbtsad_core.service import purification, worker
from mbtsad_core.service.purification import Request, memory_notes
from mbtsad_core.service.run_folder import CHECKPOINT
from mbtsad_core.service.runner import AttachedRunner
from mbtsad_core.service.store import State
from mbtsad_core.service.worker import NO_ROOM, STILL_NO_ROOM, work
from mbtsad_core.training.state import read_state
from mbtsad_core.types import Event

MEGABYTES = 24


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    return tiny_request(tmp_path_factory.mktemp("example"), epochs=2)


@pytest.fixture(scope="module")
def expected(request_: Request, tmp_path_factory: pytest.TempPathFactory) -> str:
    return undisturbed(request_, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of some megabytes; skips where none may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "none", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "WAIT", 0.0)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill a file system up, but for so many bytes."""
    path = disk / "filling"
    with open(path, "wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - leave))
        file.flush()
    return path


@pytest.mark.parametrize("leave", [0, 100_000], ids=["no byte left", "no room for a checkpoint"])
def test_a_run_that_finds_the_disk_full_goes_on_once_there_is_room(
    request_: Request, expected: str, small_disk: Path, leave: int
) -> None:
    request = replace(
        request_, config=replace(request_.config, retrain=replace(request_.config.retrain, save_every=1e-6))
    )
    with AttachedRunner(small_disk / "jobs", JobsConfig(room_megabytes=8)) as runner:
        id = runner.submit(request, "anna")
        caller = runner.run(id)
        while next(caller).step < 6:
            pass
        checkpoint = runner.output(id) / CHECKPOINT
        assert read_state(checkpoint).step >= 1
        filling = fill(small_disk, leave)
        rest = list(caller)
        assert len(rest) < 40
        assert (runner.status(id).state, runner.status(id).message) == (State.QUEUED, NO_ROOM)
        assert read_state(checkpoint).stage == "retrain"
        assert not (runner.output(id) / "checkpoint.new").exists()
        assert list(runner.run(id)) == []  # it waits for room
        assert runner.job(id).attempts == 1

        filling.unlink()
        list(runner.run(id))
        assert (runner.status(id).state, runner.status(id).message) == (State.DONE, "")
        assert weights(runner.output(id)) == expected
        assert len({(r.event.stage, r.event.step) for r in runner.events(id)}) == len(runner.events(id)) == 49


def test_a_disk_that_stays_full_ends_a_run_in_words(request_: Request, small_disk: Path) -> None:
    """There is no room for the model although there seems to be enough: not tried for ever."""
    with AttachedRunner(small_disk / "jobs", JobsConfig(room_megabytes=0)) as runner:
        id = runner.submit(request_, "anna")
        # For the checkpoints of the retraining, or for the report, which brings its own plots, not
        fill(small_disk, 700_000)
        list(runner.run(id))
        assert (runner.status(id).state, runner.status(id).message) == (State.FAILED, STILL_NO_ROOM)
        assert runner.job(id).attempts == 3
        assert not (runner.output(id) / "report.json").exists()
        assert not list(runner.output(id).glob("*.new"))


def test_a_full_disk_leaves_no_reserve_behind(request_: Request, tmp_path: Path) -> None:
    with AttachedRunner(tmp_path / "jobs") as runner:
        id = runner.submit(request_)
        caller = runner.run(id)
        next(caller)
        assert (tmp_path / "jobs" / id / "reserve").stat().st_size > 100_000
        caller.close()
        assert not (tmp_path / "jobs" / id / "reserve").exists()


def test_memory_that_does_not_hold_a_batch_is_told_while_the_run_goes_on(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suspect, and so its copies, cannot be trained on more than five texts at once."""
    load = purification.load_classifier

    def loaded(*args: object, **kwargs: object) -> Classifier:
        classifier = load(*args, **kwargs)  # type: ignore[arg-type]

        def refuse(model: object, args: object, inputs: dict[str, torch.Tensor]) -> None:
            if torch.is_grad_enabled() and len(inputs["input_ids"]) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        classifier.model.register_forward_pre_hook(refuse, with_kwargs=True)
        return classifier

    monkeypatch.setattr(purification, "load_classifier", loaded)
    clean = write_texts(tiny_texts(32), tmp_path / "clean.tsv")
    with AttachedRunner(tmp_path / "jobs") as runner:
        id = runner.submit(replace(request_, clean=clean))
        told = []
        for event in runner.run(id):
            if event.step == 2:
                told.append(runner.status(id).message)
        assert told[0].startswith(
            "The memory did not hold a batch of the stage 'retrain', so its steps were taken 4 texts at a time."
        )
        assert told[1].startswith(
            "The memory did not hold a batch of the stage 'distil', so its steps were taken 4 texts at a time."
        )
        assert runner.status(id).state is State.DONE
        assert (runner.job(id).result or {})["notes"][-2:] == told
        assert "its steps were taken 4 texts at a time" in (runner.output(id) / "report.html").read_text()
        assert "its steps were taken 4 texts at a time" in (runner.output(id) / "model" / "README.md").read_text()


def test_a_note_says_the_fewest_texts_of_each_stage() -> None:
    events = [
        Event("retrain", 1, 9),
        Event("retrain", 2, 9, {"texts_at_once": 8}),
        Event("retrain", 3, 9, {"texts_at_once": 1}),
    ]
    (note,) = memory_notes(events)
    assert "'retrain', so its steps were taken 1 text at a time." in note.text
    assert memory_notes(events[:1]) == ()


def test_texts_that_were_changed_in_between_are_noticed(request_: Request, tmp_path: Path) -> None:
    clean = write_texts(tiny_texts(96), tmp_path / "clean.tsv")
    with AttachedRunner(tmp_path / "jobs") as runner:
        id = runner.submit(replace(request_, clean=clean))
        caller = runner.run(id)
        while next(caller).step < 3:
            pass
        caller.close()
        write_texts(tiny_texts(96, seed=7), tmp_path / "clean.tsv")
        assert list(runner.run(id)) == []
        assert runner.status(id).state is State.FAILED
        assert "its checkpoint was saved while training on other texts" in runner.status(id).message
        assert list(work(runner.store.root, id)) == []
