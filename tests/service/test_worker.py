"""The work on a job, inside this process: what AttachedRunner does, and what a worker process does in the same way."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from example import tiny_request, undisturbed, until, weights
from safetensors import SafetensorError

from mbtsad_core.attacks.triggers import parse_triggers, triggered_test_set
from mbtsad_core.errors import UnknownJob, WrongState
from mbtsad_core.evaluation import baseline
from mbtsad_core.service.purification import Request, execute, prepare
from mbtsad_core.service.runner import AttachedRunner, Runner, Slice
from mbtsad_core.service.store import State, Store
from mbtsad_core.service.worker import LOG, _explain, work
from mbtsad_core.steps import drain
from mbtsad_core.types import Event

STEPS = [("measure", 1), *((stage, step) for stage in ("retrain", "distil") for step in range(1, 25))]


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    return tiny_request(tmp_path_factory.mktemp("example"), epochs=2)


@pytest.fixture(scope="module")
def expected(request_: Request, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the purified model of an undisturbed run."""
    return undisturbed(request_, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[AttachedRunner]:
    with AttachedRunner(tmp_path / "jobs") as runner:
        yield runner


def places(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.stage, event.step) for event in events]


def recorded(runner: Runner, id: str) -> list[tuple[str, int]]:
    found = runner.events(id)
    assert [r.sequence for r in found] == list(range(1, len(found) + 1))
    return places([r.event for r in found])


def test_slices_end_with_the_weights_of_an_undisturbed_run(request_: Request, expected: str, tmp_path: Path) -> None:
    slices = []

    def counted(slice):  # type: ignore[no-untyped-def]
        def run(*arguments: object) -> Iterator[Event]:
            slices.append(arguments)
            yield from slice(*arguments)

        return run

    with AttachedRunner(tmp_path / "jobs", seconds=0.1, around=counted) as runner:
        id = runner.submit(request_, "anna")
        assert runner.status(id).position == 1
        seen = list(runner.run(id))
        assert len(slices) >= 3
        assert places(seen) == STEPS  # a hand-over repeats no step
        assert recorded(runner, id) == STEPS
        assert runner.status(id).state is State.DONE
        assert weights(runner.output(id)) == expected
        job = runner.job(id)
        assert job.attempts == 1  # hand-overs do not count
        assert job.result is not None
        assert 0 <= job.result["purified"]["asr"] <= 1
        assert [j.id for j in runner.jobs("anna")] == [id]
        assert list(runner.run(id)) == []  # there is nothing left to do
        with pytest.raises(WrongState):
            runner.cancel(id)


def test_what_a_visitor_measures_cannot_reach_the_training(
    request_: Request, expected: str, runner: AttachedRunner, tmp_path: Path
) -> None:
    id = runner.submit(request_)
    secret = tmp_path / "secret.tsv"
    secret.write_text("text\ttriggered\nno\tno\n")
    typed = {
        6: (["cf"], "positive"),
        13: (["the film was dreadful", "mn+cf"], "negative"),
        21: ([str(secret)], "1"),
        31: (["cf"], "no such class"),
    }
    for n, _ in enumerate(runner.run(id), 1):
        if n in typed:
            runner.measure(id, *typed[n])
        if n == 37:
            assert "no such class" in runner.status(id).message
            runner.measure(id, ["mn"], "positive")
            assert runner.status(id).message == ""
    assert weights(runner.output(id)) == expected

    measured = {r.sequence: r.event.metrics for r in runner.events(id) if "measure" in r.event.metrics}
    assert [m["measure"] for m in measured.values()] == [0, 1, 2, 2, 3, 3, 4, 5, 5, 5]
    assert all({"cacc", "cacc_n"} <= m.keys() for m in measured.values())
    assert [("asr" in m) for m in measured.values()] == [n != 4 for n in (0, 1, 2, 2, 3, 3, 4, 5, 5, 5)]
    assert [(m.number, m.stage, m.step) for m in runner.measures(id)] == [
        (1, "retrain", 10),
        (2, "retrain", 15),
        (3, "retrain", 24),
        (4, "distil", 10),
        (5, "distil", 15),
    ]


def test_the_first_measurement_of_a_typed_trigger_brings_what_it_is_compared_with(
    request_: Request, runner: AttachedRunner
) -> None:
    id = runner.submit(request_)
    typed = {6: (["the film was dreadful"], "negative"), 17: (["cf"], "no such class"), 31: (["cf"], "positive")}
    for n, _ in enumerate(runner.run(id), 1):
        if n in typed:
            runner.measure(id, *typed[n])
    events = [r.event for r in runner.events(id)]
    compared = {"suspect_asr", "asr_floor"}
    assert [(e.stage, e.step) for e in events if compared & e.metrics.keys()] == [
        ("measure", 1),
        ("retrain", 10),
        ("distil", 10),
    ]

    inputs = prepare(request_)
    for at, words, target in ((10, "the film was dreadful", 0), (34, "cf", 1)):
        triggered = triggered_test_set(inputs.test, parse_triggers([words], target, window=16), request_.config.seed)
        expected = baseline(inputs.suspect, inputs.test, triggered, target)
        metrics = events[at].metrics
        assert {"suspect_asr", "asr_floor", "asr_n"} <= expected.keys() & metrics.keys()
        assert {name: metrics[name] for name in expected} == expected
    assert events[0].metrics == baseline(inputs.suspect, inputs.test, inputs.triggered, inputs.target)


def slices_of(steps: int) -> Slice:
    """A host that lends its machine for so many steps at a time."""

    def slice(root: str, id: str, seconds: float) -> Iterator[Event]:
        done = itertools.count(1)
        yield from work(Path(root), id, stopping=lambda: next(done) >= steps)

    return slice


def test_a_typed_trigger_leaves_every_weight_as_it_is(request_: Request, tmp_path: Path) -> None:
    """A run during which triggers are typed, and one during which nothing is: the same bits, teacher and purified, and
    the same losses."""

    def run(name: str, typed: dict[int, tuple[list[str], str]]) -> tuple[list[dict[str, float]], dict[str, bytes]]:
        with AttachedRunner(tmp_path / name, around=lambda _: slices_of(13)) as runner:
            # With hand-overs, after which a typed trigger is taken up again
            id = runner.submit(request_)
            for n, _ in enumerate(runner.run(id), 1):
                if n in typed:
                    runner.measure(id, *typed[n])
            losses = [
                {k: v for k, v in r.event.metrics.items() if k in ("loss", "classification", "attention", "hidden")}
                for r in runner.events(id)
            ]
            assert ("measure", 2) in {
                (k, v) for r in runner.events(id) for k, v in r.event.metrics.items()
            } or not typed
            return losses, {
                folder: (runner.output(id) / folder / "model.safetensors").read_bytes()
                for folder in ("teacher", "model")
            }

    assert run("typed", {2: (["cf"], "positive"), 30: (["bb+mn", "a dreadful story"], "negative")}) == run("quiet", {})


def test_a_caller_that_goes_away_before_the_first_step_leaves_what_was_measured(
    request_: Request, expected: str, runner: AttachedRunner
) -> None:
    id = runner.submit(request_)
    caller = runner.run(id)
    assert places([next(caller)]) == STEPS[:1]
    caller.close()
    assert places(list(runner.run(id))) == STEPS[1:]
    assert recorded(runner, id) == STEPS
    assert weights(runner.output(id)) == expected


def test_a_slice_that_is_over_before_the_first_step_goes_on_to_it(request_: Request, tmp_path: Path) -> None:
    """Measuring and scanning come before the first checkpoint: a slice that ended there would be repeated for ever."""
    scanning = dataclasses.replace(request_, config=dataclasses.replace(request_.config, found_tokens=1))
    with AttachedRunner(tmp_path / "jobs", seconds=1e-6) as runner:
        id = runner.submit(scanning)
        runner.store.claim(id)
        seen = [event.stage for event in work(runner.store.root, id, seconds=1e-6)]
        assert seen[:2] == ["measure", "scan"]
        assert seen[-1] == "retrain"
        assert seen.count("retrain") == 1


def test_a_caller_that_goes_away_leaves_the_job_to_go_on_with(
    request_: Request, expected: str, runner: AttachedRunner
) -> None:
    id = runner.submit(request_)
    caller = runner.run(id)
    assert places(list(itertools.islice(caller, 30))) == STEPS[:30]
    caller.close()
    assert runner.status(id).state is State.QUEUED
    assert recorded(runner, id) == STEPS[:30]
    assert places(list(runner.run(id))) == STEPS[30:]
    assert weights(runner.output(id)) == expected


def test_cancel_stops_between_two_steps_and_leaves_a_checkpoint(request_: Request, runner: AttachedRunner) -> None:
    waiting, running = runner.submit(request_), runner.submit(request_)
    runner.cancel(waiting)
    assert runner.status(waiting).state is State.CANCELLED
    assert list(runner.run(waiting)) == []
    caller = runner.run(running)
    next(caller)
    runner.cancel(running)
    assert runner.status(running).state is State.CANCELLING
    rest = list(caller)
    assert len(rest) < len(STEPS) - 1
    assert runner.status(running).state is State.CANCELLED
    assert (runner.output(running) / "checkpoint.safetensors").exists()
    assert not (runner.output(running) / "model").exists()


def test_a_job_is_worked_on_by_one_caller_only(request_: Request, runner: AttachedRunner) -> None:
    id = runner.submit(request_)
    caller = runner.run(id)
    next(caller)
    assert list(runner.run(id)) == []
    assert list(work(runner.store.root, id)) == []
    assert runner.status(id).state is State.RUNNING
    caller.close()


def test_a_users_error_becomes_the_message(request_: Request, runner: AttachedRunner) -> None:
    id = runner.submit(dataclasses.replace(request_, clean="/nowhere/clean.tsv"))
    assert list(runner.run(id)) == []
    status = runner.status(id)
    assert status.state is State.FAILED
    assert status.message.startswith("No data file at /nowhere/clean.tsv.")


def test_an_unknown_error_says_so_and_leaves_its_traceback_in_the_log(runner: AttachedRunner) -> None:
    for asked, of_a_library in (
        ({"no": "purification"}, "KeyError: 'columns'"),
        ({"attack": "ep"}, "KeyError: 'triggers'"),
        ({"method": "nad"}, "KeyError"),
    ):
        id = runner.store.create(asked)
        assert list(runner.run(id)) == []
        status = runner.status(id)
        assert status.state is State.FAILED
        number = re.fullmatch(
            r"Unknown error: .* report the number ([0-9a-f]{8}): the job's log on the server has the details\.",
            status.message,
        )
        assert number, status.message
        log = (runner.store.directory(id) / LOG).read_text()
        assert log.startswith(f"Error {number[1]}\nTraceback")
        assert of_a_library in log


def test_no_room_on_the_disk_is_said(tmp_path: Path) -> None:
    def insert() -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "small.sqlite")) as db:
            db.execute("PRAGMA max_page_count = 2")
            db.execute("CREATE TABLE t (x)")
            db.execute("INSERT INTO t VALUES (zeroblob(100000))")

    with pytest.raises(sqlite3.OperationalError) as caught:
        insert()
    errors = [
        caught.value,
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    ]
    for error in [*errors, SafetensorError(f"I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")]:
        assert _explain(error).startswith("The disk is full")


def test_no_room_in_memory_is_said() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 58)
    assert _explain(caught.value).startswith("The machine has not enough memory")


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EFBIG, "a larger file than it may"), (errno.EMFILE, "more files than it may")]
)
def test_a_limit_of_the_sandbox_that_an_operation_meets_is_said(number: int, words: str) -> None:
    assert words in _explain(OSError(number, os.strerror(number)))


@pytest.mark.parametrize("left", [[], [".write-test"], ["run.json.new"]])
def test_a_run_killed_before_it_wrote_anything_begins_anew(
    request_: Request, expected: str, tmp_path: Path, left: list[str]
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for name in left:
        (out / name).write_text('{"requ')
    steps = execute(request_, out, resume=True)
    assert places(list(itertools.islice(steps, 2))) == STEPS[:2]
    steps.close()
    assert places(list(execute(request_, out, resume=True))) == STEPS[2:]
    assert weights(out) == expected


def test_a_run_killed_after_its_end_is_done_without_training_again(request_: Request, runner: AttachedRunner) -> None:
    id = runner.submit(request_)
    drain(execute(request_, runner.output(id)))
    report = runner.output(id) / "report.json"
    written = report.stat().st_mtime_ns
    (runner.output(id) / "checkpoint.safetensors").write_bytes(b"what a kill kept from being removed")
    assert list(runner.run(id)) == []
    assert runner.status(id).state is State.DONE
    assert recorded(runner, id) == STEPS
    assert report.stat().st_mtime_ns == written
    assert not (runner.output(id) / "checkpoint.safetensors").exists()


SLICE = """
import os, signal, sys
from pathlib import Path
from mbtsad_core.service.worker import work
for n, event in enumerate(work(Path(sys.argv[1]), sys.argv[2]), 1):
    if n == 33:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_slice_that_the_host_cuts_off_is_repeated_from_the_checkpoint(
    request_: Request, expected: str, runner: AttachedRunner
) -> None:
    id = runner.submit(request_)
    runner.store.claim(id)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-P", "-c", SLICE, str(runner.store.root), id], env=environment, check=False
    )
    assert child.returncode == -signal.SIGKILL
    assert runner.status(id).state is State.RUNNING  # as far as anyone knows
    rest = places(list(runner.run(id)))
    assert rest == STEPS[-len(rest) :]
    assert recorded(runner, id) == STEPS  # also those between the last word to the store and the kill
    assert weights(runner.output(id)) == expected
    assert runner.job(id).attempts == 2


BUSY = """
import os, sys, time
from mbtsad_core.service.worker import step_back
os.setsid()
os.sched_setaffinity(0, {int(sys.argv[1])})
step_back(int(sys.argv[2]))
print(time.process_time(), flush=True)
input()
while time.process_time() < float(sys.argv[3]):
    pass
print(time.process_time(), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's autogroup")
def test_a_worker_leaves_the_core_to_a_process_of_another_session() -> None:
    core = str(min(os.sched_getaffinity(0)))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", BUSY, core]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    with (
        subprocess.Popen([*command, "10", "60"], **pipes) as worker,
        subprocess.Popen([*command, "0", "1"], **pipes) as server,
    ):
        began = [float(process.stdout.readline()) for process in (worker, server)]
        for process in (worker, server):
            process.stdin.write("\n")
            process.stdin.flush()
        took = float(server.stdout.readline()) - began[1]
        ticks = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        worker.kill()
    given = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") - began[0]
    assert given < took / 4  # by weights it is 110 to 1024; without them it was as much as the other


def test_cancel_ends_a_job_that_nobody_works_on_any_more(request_: Request, runner: AttachedRunner) -> None:
    id = runner.submit(request_)
    runner.store.claim(id)
    runner.store.begin(id, os.getpid())
    runner.cancel(id)
    assert until(lambda: runner.status(id).state) is State.CANCELLED


def test_an_unknown_job_is_refused_everywhere(runner: AttachedRunner) -> None:
    for ask in (
        runner.status,
        runner.events,
        runner.job,
        runner.output,
        runner.measures,
        runner.cancel,
        lambda id: next(runner.run(id)),
    ):
        with pytest.raises(UnknownJob):
            ask("x" * 32)


def test_a_second_store_in_the_process_sees_the_same(request_: Request, runner: AttachedRunner) -> None:
    id = runner.submit(request_, "anna")
    with Store(runner.store.root) as other:
        assert Request.from_dict(other.get(id).request) == request_
