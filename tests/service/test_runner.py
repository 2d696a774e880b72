"""DetachedRunner: real worker processes, real kills. One run trains; where only the processes are looked at, the workers
count (counting_worker.py)."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from counting_worker import CHECKPOINT, PLACES, PROGRAM, digest
from example import tiny_request, undisturbed, until, weights

from mbtsad_core.config import JobsConfig, SandboxConfig, SandboxesConfig
from mbtsad_core.errors import QueueFull, UnknownJob
from mbtsad_core.service import forkserver
from mbtsad_core.service.forkserver import READY
from mbtsad_core.service.purification import Request
from mbtsad_core.service.runner import WORKER, AttachedRunner, DetachedRunner, Runner, seconds_left
from mbtsad_core.service.store import BACKGROUND, State, Store, is_held
from mbtsad_core.service.worker import LOG

CONFIG = JobsConfig(threads=1, nice=3, queue_size=2, grace=20.0)
EPOCHS = 6
STEPS = [("measure", 1), *((stage, step) for stage in ("retrain", "distil") for step in range(1, 12 * EPOCHS + 1))]
MINUTES = 120.0  # seconds that a machine under load may take for what takes it some on others


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    # A second or more: the store hears of a run three times a second
    return tiny_request(tmp_path_factory.mktemp("example"), EPOCHS)


@pytest.fixture(scope="module")
def expected(request_: Request, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the purified model of an undisturbed run."""
    return undisturbed(request_, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., DetachedRunner]]:
    """Runners on one directory, closed in the end."""
    runners = []

    def new(
        sandbox: SandboxConfig = SandboxesConfig().run, program: Sequence[str] = PROGRAM, **changes: object
    ) -> DetachedRunner:
        runners.append(DetachedRunner(tmp_path / "jobs", dataclasses.replace(CONFIG, **changes), sandbox, program))
        return runners[-1]

    yield new
    for runner in runners:
        if not runner._closing.is_set():
            runner.close()


def at_step(runner: Runner, id: str, stage: str, step: int) -> Callable[[], bool]:
    def there() -> bool:
        status = runner.status(id)
        assert status.state in (State.QUEUED, State.RUNNING), status
        return status.stage == stage and status.step >= step

    return there


def pid_of(runner: Runner, id: str, other_than: int | None = None) -> int:
    """The process that works on the job, once there is one."""
    return until(lambda: (pid := runner.job(id).pid) != other_than and pid, MINUTES) or 0


def assert_done(runner: Runner, id: str, steps: list[tuple[str, int]]) -> None:
    assert (
        until(lambda: (state := runner.status(id).state) not in (State.QUEUED, State.RUNNING) and state, MINUTES)
        is State.DONE
    )
    found = runner.events(id)
    assert [r.sequence for r in found] == list(range(1, len(steps) + 1))
    assert [(r.event.stage, r.event.step) for r in found] == steps


def assert_counted(runner: Runner, id: str) -> None:
    """Every step once, and none left out, whoever did it."""
    assert_done(runner, id, [(stage, step) for stage, step, _ in PLACES])
    assert runner.job(id).result == {"digest": digest(len(PLACES))}


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:  # a zombie is gone too, but for its parent
        return stat.read().rpartition(")")[2].split()[0] == "Z"


def test_jobs_run_one_after_the_other_in_clean_processes(
    start: Callable[..., DetachedRunner], request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    runner = start(nice=5)
    first = runner.submit(request_, "anna")
    pid = pid_of(runner, first)
    second, third = runner.submit(request_), runner.submit(request_)
    with pytest.raises(QueueFull):
        runner.submit(request_)
    assert [runner.status(id).position for id in (first, second, third)] == [None, 1, 2]
    runner.cancel(second)
    assert runner.status(second).state is State.CANCELLED
    assert runner.status(third).position == 1
    runner.cancel(third)

    with open(f"/proc/{pid}/environ") as environ:
        environment = environ.read()
    assert "hf_secret" not in environment
    assert "OMP_NUM_THREADS=1\0" in environment
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)

    until(at_step(runner, first, "retrain", 10), MINUTES)
    left = until(lambda: runner.status(first).seconds_left, MINUTES)
    assert left > 0
    assert_counted(runner, first)
    assert runner.job(first).attempts == 1
    assert (runner.store.directory(first) / LOG).read_text() == ""
    until(lambda: not runner._children)  # none is left behind as a zombie


def test_the_servers_own_run_gives_way_and_goes_on_after_all_others(
    start: Callable[..., DetachedRunner], request_: Request
) -> None:
    runner = start()
    own = runner.submit(request_, BACKGROUND)
    until(at_step(runner, own, "retrain", 20), MINUTES)
    first = runner.submit(request_, "anna")
    pid = pid_of(runner, first)
    second = runner.submit(request_, "bert")
    assert runner.status(own).state is State.QUEUED
    assert [runner.status(id).position for id in (second, own)] == [1, 2]
    until(lambda: runner.status(second).state is State.DONE, MINUTES)
    assert runner.status(first).state is State.DONE
    assert is_gone(pid)
    assert_counted(runner, own)
    assert runner.job(own).attempts == 1


def test_a_killed_worker_is_started_again_from_its_checkpoint(
    start: Callable[..., DetachedRunner], request_: Request, expected: str
) -> None:
    """One that trains: its weights are those of a run that nothing disturbed."""
    runner = start(program=WORKER)
    id = runner.submit(request_, "anna")
    until(at_step(runner, id, "retrain", 1), MINUTES)
    assert runner.measure(id, ["mn"], "positive") == 1
    until(at_step(runner, id, "distil", 15), MINUTES)
    pid = pid_of(runner, id)
    os.kill(pid, signal.SIGKILL)
    assert pid_of(runner, id, other_than=pid) != pid
    assert_done(runner, id, STEPS)
    assert weights(runner.output(id)) == expected
    assert runner.job(id).attempts == 2
    assert [m.step is not None for m in runner.measures(id)] == [True]
    assert (runner.job(id).result or {})["purified"]["cacc_n"] == 40
    assert sorted(p.name for p in runner.output(id).iterdir()) == [
        "events.jsonl",
        "model",
        "report.html",
        "report.json",
        "run.json",
        "teacher",
    ]
    assert (runner.store.directory(id) / LOG).read_text() == ""


SERVER = """
import sys, threading
from pathlib import Path
from mbtsad_core.config import JobsConfig
from mbtsad_core.service.runner import DetachedRunner
with DetachedRunner(Path(sys.argv[1]), JobsConfig(threads=1), program=sys.argv[2:]):
    threading.Event().wait()
"""


def test_jobs_outlive_a_killed_server_and_its_worker(
    start: Callable[..., DetachedRunner], request_: Request, tmp_path: Path
) -> None:
    with Store(tmp_path / "jobs") as store:
        id = store.create(request_.to_dict())
        waiting = store.create({"no": "purification"})
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        server = subprocess.Popen([sys.executable, "-P", "-c", SERVER, str(store.root), *PROGRAM], env=environment)
        until(lambda: (job := store.get(id)).stage == "retrain" and job.step >= 10, MINUTES)
        server.kill()
        server.wait()
        pid = store.get(id).pid
        assert pid

        runner = start()
        step = runner.status(id).step
        # The worker goes on, and the new server knows it for its own
        until(at_step(runner, id, "retrain", step + 5), MINUTES)
        assert (runner.job(id).pid, runner.job(id).attempts) == (pid, 1)
        assert runner.status(waiting).position == 1  # so the next one waits
        os.kill(pid, signal.SIGKILL)
        assert pid_of(runner, id, other_than=pid) != pid
        assert_counted(runner, id)
        assert runner.job(id).attempts == 2
        until(lambda: runner.status(waiting).state is State.FAILED, MINUTES)


def test_a_closed_server_stops_its_worker_in_good_order(
    start: Callable[..., DetachedRunner], request_: Request
) -> None:
    runner = start()
    id = runner.submit(request_)
    until(at_step(runner, id, "retrain", 20), MINUTES)
    pid = pid_of(runner, id)
    runner.close()
    assert is_gone(pid)
    runner = start()
    assert pid_of(runner, id, other_than=pid) != pid
    assert_counted(runner, id)
    assert runner.job(id).attempts == 1  # being closed is nobody's failure


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_a_server_that_is_closed_waits_for_no_fork_server(
    start: Callable[..., DetachedRunner], request_: Request
) -> None:
    before = fork_servers()
    runner = start(program=WORKER, threads=3)  # no other test's: a fork server of its own
    id = runner.submit(request_)
    (importing,) = until(lambda: fork_servers() - before)
    os.kill(importing, signal.SIGSTOP)  # its imports take for ever
    until(lambda: runner.status(id).state is State.RUNNING)
    begun = time.monotonic()
    runner.close()
    assert time.monotonic() - begun < READY / 2
    with Store(runner.store.root) as store:
        assert store.get(id).state is State.QUEUED
    os.kill(importing, signal.SIGKILL)


def fork_servers() -> set[int]:
    children = [id for task in Path("/proc/self/task").iterdir() for id in (task / "children").read_text().split()]
    return {int(id) for id in children if forkserver.__name__ in Path(f"/proc/{id}/cmdline").read_text()}


def test_cancel_stops_a_worker_politely(start: Callable[..., DetachedRunner], request_: Request) -> None:
    runner = start(grace=60.0)
    id = runner.submit(request_)
    until(at_step(runner, id, "retrain", 1), MINUTES)
    pid = pid_of(runner, id)
    runner.cancel(id)
    until(lambda: runner.status(id).state is State.CANCELLED, 30)
    assert json.loads((runner.output(id) / CHECKPOINT).read_text())["steps"] >= runner.status(id).step
    until(lambda: is_gone(pid))


def test_a_worker_that_ignores_cancel_is_killed(start: Callable[..., DetachedRunner], request_: Request) -> None:
    runner = start(grace=0.5)
    id = runner.submit(request_)
    pid = pid_of(runner, id)
    os.kill(pid, signal.SIGSTOP)  # deaf to everything but the kill
    runner.cancel(id)
    assert runner.status(id).state is State.CANCELLING
    until(lambda: runner.status(id).state is State.CANCELLED)
    until(lambda: is_gone(pid))
    assert not is_held(runner.store.directory(id))


def test_a_silent_worker_is_killed_and_started_again(start: Callable[..., DetachedRunner], request_: Request) -> None:
    runner = start(silence=3.0, attempts=100, grace=0.0)
    id = runner.submit(request_)
    pid = pid_of(runner, id)
    os.kill(pid, signal.SIGSTOP)
    assert pid_of(runner, id, other_than=pid) != pid
    assert is_gone(pid)
    assert runner.job(id).attempts >= 2


def test_a_job_whose_workers_die_again_and_again_fails(start: Callable[..., DetachedRunner], request_: Request) -> None:
    runner = start(attempts=3)
    id = runner.submit(request_)
    pid = None
    for _ in range(3):
        pid = pid_of(runner, id, other_than=pid)
        os.kill(pid, signal.SIGKILL)
    until(lambda: runner.status(id).state is State.FAILED)
    message = runner.status(id).message
    assert message.startswith("The run was started 3 times, and each time its process was lost: it was killed")
    assert "batch size" in message


@pytest.mark.parametrize(
    ("sandbox", "message"),
    [
        (
            SandboxConfig(seconds=0.5),
            "A run may take at most 0.5 seconds here, and this one took more. Use fewer texts or fewer epochs.",
        ),
        (
            SandboxConfig(cpu_seconds=1),
            "A run may take at most 1 second of CPU time here, and this one took more. Use fewer texts or fewer "
            "epochs.",
        ),
    ],
    ids=["time", "CPU time"],
)
def test_a_run_that_reaches_a_limit_of_its_sandbox_fails_and_is_not_started_again(
    start: Callable[..., DetachedRunner], tmp_path: Path, sandbox: SandboxConfig, message: str
) -> None:
    """One that trains: a worker that counts takes less than a second of CPU time where the machine has no other work."""
    runner = start(sandbox, WORKER)
    id = runner.submit(tiny_request(tmp_path, epochs=1_000))  # minutes, on whatever machine
    assert (
        until(lambda: (state := runner.status(id).state) not in (State.QUEUED, State.RUNNING) and state, MINUTES)
        is State.FAILED
    )
    assert (runner.status(id).message, runner.job(id).attempts) == (message, 1)


def test_a_worker_has_a_home_of_its_own_and_the_servers_cache(
    start: Callable[..., DetachedRunner], request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/secret")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "texts"))
    runner = start()
    pid = pid_of(runner, runner.submit(request_))
    with open(f"/proc/{pid}/environ") as environ, open(f"/proc/{pid}/limits") as limits:
        seen = dict(line.split("=", 1) for line in environ.read().split("\0") if line)
        held = {line[:25].strip(): line[25:].split()[0] for line in limits.read().splitlines()}
    assert not [name for name in seen if name.startswith("GRADIO_")]
    home = seen["HOME"]
    assert Path(home).parent.parent == tmp_path / "jobs"
    assert os.readlink(f"/proc/{pid}/cwd") == seen["TMPDIR"] == home
    assert seen["HF_DATASETS_CACHE"] == str(tmp_path / "texts")
    assert (held["Max cpu time"], held["Max file size"], held["Max open files"], held["Max core file size"]) == (
        "864000",
        str(1 << 36),
        "1024",
        "0",
    )


def test_an_unknown_job_is_refused_everywhere(start: Callable[..., DetachedRunner]) -> None:
    runner = start()
    for ask in (runner.status, runner.events, runner.job, runner.output, runner.measures, runner.cancel):
        with pytest.raises(UnknownJob):
            ask("x" * 32)
    with pytest.raises(UnknownJob):
        runner.measure("x" * 32, ["cf"], "positive")


def test_both_runners_are_runners(start: Callable[..., DetachedRunner], tmp_path: Path) -> None:
    detached: Runner = start()
    assert list(detached.run("x" * 32)) == []
    with AttachedRunner(tmp_path / "other") as attached:
        runners: list[Runner] = [detached, attached]
        assert [runner.detached for runner in runners] == [True, False]


def test_the_time_left_counts_both_stages(request_: Request, tmp_path: Path) -> None:
    with Store(tmp_path / "jobs") as store:
        store.create(request_.to_dict())
        job = store.claim()
        assert job
        assert seconds_left(job) is None
        # 0.1 s a step
        at = dataclasses.replace(job, stage="retrain", step=40, total=96, paced_at=100.0, paced_step=0, updated=104.0)
        assert seconds_left(at) == pytest.approx(5.6 + 1.5 * 9.6)
        assert seconds_left(dataclasses.replace(at, stage="distil")) == pytest.approx(5.6)
        assert seconds_left(dataclasses.replace(at, state=State.DONE)) is None
