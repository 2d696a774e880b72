"""What the page talks to: submit a job, follow it by its id, stop it. The work is done in child processes or, where the
host forbids these, in the caller; `worker.work` does it in either case, and the store holds all that is known of it.

Neither PyTorch nor Gradio is loaded here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mbtsad_core.augment.wordnet import find_wordnet
from mbtsad_core.config import JobsConfig, SandboxConfig, SandboxesConfig
from mbtsad_core.errors import WrongState
from mbtsad_core.service.forkserver import Unwanted
from mbtsad_core.service.keeper import END, ENDS, Limit
from mbtsad_core.service.planting import is_planting
from mbtsad_core.service.sandbox import Keeper, caches, end, environment, said, start
from mbtsad_core.service.scan_job import ScanJob, is_scan
from mbtsad_core.service.store import ACTIVE, BACKGROUND, Job, Measure, Recorded, State, Store, is_held
from mbtsad_core.service.worker import LOG, RUN, work
from mbtsad_core.types import Event

if TYPE_CHECKING:
    from mbtsad_core.service.comparison import Comparison
    from mbtsad_core.service.planting import Planting
    from mbtsad_core.service.purification import Request

    Asked = Request | Comparison | Planting | ScanJob

logger = logging.getLogger(__name__)

Slice = Callable[[str, str, float], Iterator[Event]]
"""(root, id, seconds): work on a claimed job for that long."""

LOOK = 0.25  # seconds between two looks at the workers
START = 30.0  # seconds from a claim to the worker's first sign of life, at most
LAST_WORD = 300.0  # seconds that a scan which was stopped may take to judge what it found
EXPIRE = 60.0  # seconds between two searches for expired jobs
REMEDIES: dict[Limit, str] = {
    "memory": "Use a smaller batch size or a smaller maximal length.",
    "cpu_seconds": "Use fewer texts or fewer epochs.",
    "seconds": "Use fewer texts or fewer epochs.",
    "processes": "The job's log on the server may say what started them.",
}
STAGES = ("retrain", "distil")  # of a purification
DISTIL_COST = 1.5  # time of a distillation step over that of a retraining step, until distillation shows its own pace

HOME = "home"  # a worker's own folder, beside RUN

# What a worker gets of the server's environment besides what every sandbox passes on: no tokens, no passwords.
PASSED_ON = (
    "SSL_CERT_FILE", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME", "CUBLAS_WORKSPACE_CONFIG",
    "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "MBTSAD_CAUSAL_LM",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Status:
    """A job as the page shows it.

    position      place in the queue, 1 for the next; None where it does not wait
    seconds_left  estimate to the end of the training; None where there is nothing to go by
    metrics       the latest value of each; shares in [0, 1]
    leading       while a scan goes on, the fields of each Candidate that is in the lead, the best first
    message       why it failed, or what is wrong with the trigger being measured; "" otherwise
    """

    id: str
    state: State
    stage: str
    step: int
    total: int
    position: int | None
    seconds_left: float | None
    metrics: dict[str, float]
    message: str
    leading: list[dict[str, Any]] = field(default_factory=list)


class Runner(Protocol):
    """The same for both kinds of hosting; `detached` says whether jobs go on without anyone calling `run`."""

    detached: bool

    def submit(self, request: Asked, owner: str = "") -> str:
        """Put a purification, another method, the planting of a backdoor, or a scan in the queue; returns its id, the
        secret by which it is found. Raises QueueFull."""
        ...

    def cancel(self, id: str) -> None:
        """Stop a job, leaving a checkpoint where it runs; a scan ends with what it found so far. Raises WrongState
        where it has ended."""
        ...

    def measure(self, id: str, triggers: Sequence[str], target: str) -> int:
        """Measure this trigger from now on; returns its number, which events carry as metric "measure". Raises BadData,
        WrongState."""
        ...

    def measures(self, id: str) -> list[Measure]:
        """The triggers that were typed for this job, each with the step from which it holds."""
        ...

    def status(self, id: str) -> Status:
        """How a job stands; cheap. Raises UnknownJob, as all that take an id."""
        ...

    def events(self, id: str, after: int = 0) -> list[Recorded]:
        """The events after the `after`th."""
        ...

    def job(self, id: str) -> Job:
        """All of a job: its request, and once done its result."""
        ...

    def jobs(self, owner: str) -> list[Job]:
        """The jobs of a visitor, the newest first."""
        ...

    def unexpired(self) -> list[Job]:
        """All jobs whose files are kept."""
        ...

    def output(self, id: str) -> Path:
        """The directory of the results: model/, report.json and report.html once done."""
        ...

    def run(self, id: str) -> Iterator[Event]:
        """Where jobs need a caller, work on this one until it ends and yield its events; else nothing."""
        ...

    def close(self) -> None: ...


def status(store: Store, id: str) -> Status:
    job = store.get(id)
    return Status(
        job.id,
        job.state,
        job.stage,
        job.step,
        job.total,
        store.position(job),
        seconds_left(job),
        job.metrics,
        job.message,
        job.leading,
    )


def seconds_left(job: Job) -> float | None:
    """Seconds to the end of the training, from the pace of the current stage."""
    if job.state is not State.RUNNING or job.paced_at is None or job.step <= job.paced_step:
        return None
    pace = (job.updated - job.paced_at) / (job.step - job.paced_step)
    left = pace * (job.total - job.step)
    if job.stage == STAGES[0]:  # both stages see the same texts, so the steps of the other follow from its settings
        first, second = (job.request["config"][stage] for stage in STAGES)
        steps = job.total * second["epochs"] / first["epochs"] * first["batch_size"] / second["batch_size"]
        left += DISTIL_COST * pace * steps
    return left


def _submit(store: Store, config: JobsConfig, request: Asked, owner: str) -> str:
    most = config.quota_megabytes * 2**20
    return store.create(
        request.to_dict(),
        owner,
        queue_size=config.queue_size,
        quota=config.quota,
        most_bytes=most,
        keep=3600 * config.keep,
    )


def has_room(store: Store, config: JobsConfig) -> bool:
    """Whether the disk has room for a run that found it full before."""
    return shutil.disk_usage(store.root).free >= config.room_megabytes * 2**20


def _give_up_worker(store: Store, job: Job, attempts: int, why: str) -> None:
    """Put back a job that is said to be worked on where nobody works on it any more."""
    if is_held(store.directory(job.id)):
        return
    with contextlib.suppress(WrongState):  # its worker ended it a moment ago
        state = store.lost(job.id, attempts=attempts, why=why)
        logger.warning("The worker of job %d is gone: %s The job is %s now.", job.number, why, state)


def _is_starting(job: Job) -> bool:
    """Whether it was claimed so lately that its worker, whoever's it is, may not have said a word yet."""
    return job.pid is None and job.heartbeat is not None and time.time() - job.heartbeat < START


class _StoreRunner:
    """What a runner answers from the store alone, whoever does the work."""

    store: Store

    def cancel(self, id: str) -> None:
        self.store.request_cancel(id)

    def measure(self, id: str, triggers: Sequence[str], target: str) -> int:
        return self.store.set_measure(id, triggers, target)

    def measures(self, id: str) -> list[Measure]:
        return self.store.measures(id)

    def status(self, id: str) -> Status:
        return status(self.store, id)

    def events(self, id: str, after: int = 0) -> list[Recorded]:
        return self.store.events(id, after)

    def job(self, id: str) -> Job:
        return self.store.get(id)

    def jobs(self, owner: str) -> list[Job]:
        return self.store.of_owner(owner)

    def unexpired(self) -> list[Job]:
        return self.store.in_state(*(state for state in State if state is not State.EXPIRED))

    def output(self, id: str) -> Path:
        return self.store.directory(id) / RUN


WORKER = (sys.executable, "-P", "-m", "mbtsad_core.service.worker")


class DetachedRunner(_StoreRunner):
    """Jobs run in child processes that outlive this one, each of the `program` in a `sandbox`; a thread starts them,
    watches them, and ends them."""

    detached = True

    def __init__(
        self,
        root: Path,
        config: JobsConfig = JobsConfig(),
        sandbox: SandboxConfig = SandboxesConfig().run,
        program: Sequence[str] = WORKER,
    ) -> None:
        self.store, self.config, self.sandbox, self.program = Store(root), config, sandbox, program
        self._children: dict[str, Keeper] = {}
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, request: Asked, owner: str = "") -> str:
        id = _submit(self.store, self.config, request, owner)
        self._wake.set()
        return id

    def run(self, id: str) -> Iterator[Event]:
        return iter(())

    def close(self) -> None:
        """Stop the workers at a checkpoint; the next runner goes on from there."""
        self._closing.set()
        self._wake.set()
        self._thread.join()
        running = self.store.in_state(*ACTIVE)
        for job in running:
            self._signal(job, signal.SIGTERM)
        deadline = time.monotonic() + self.config.grace
        while any(self._alive(job) for job in running) and time.monotonic() < deadline:
            time.sleep(0.05)
        for job in running:
            self._signal(job, signal.SIGKILL)
        for child in self._children.values():
            end(child)
        for job in self.store.in_state(*ACTIVE):  # killed by us, which is not their failure
            if not is_held(self.store.directory(job.id)):
                with contextlib.suppress(WrongState):  # it did so itself a moment ago
                    self.store.release(job.id)
        self.store.close()

    def __enter__(self) -> DetachedRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ the supervisor's thread

    def _supervise(self) -> None:
        expired = -EXPIRE
        while not self._closing.is_set():
            try:
                if time.monotonic() - expired >= EXPIRE:
                    expired = time.monotonic()
                    self.store.expire()
                active = self.store.in_state(*ACTIVE)
                for job in active:
                    self._look_at(job)
                for id in self._children.keys() - {job.id for job in active}:
                    if self._children[id].poll() is not None:
                        del self._children[id]
                while len(self.store.in_state(*ACTIVE)) < self.config.workers and (
                    claimed := self.store.claim(room=has_room(self.store, self.config))
                ):
                    self._start(claimed)
                self._give_way()
            except Exception:  # a full disk, say: it may pass, and this thread must outlast it
                logger.exception("The jobs could not be looked after; trying again.")
            self._wake.wait(LOOK)
            self._wake.clear()

    def _give_way(self) -> None:
        """The server's own run stops at a checkpoint where a visitor's waits for a worker."""
        if self.store.is_awaited():
            for job in self.store.in_state(State.RUNNING):
                if job.owner == BACKGROUND and job.pid is not None:  # before that, it knows of no signal yet
                    self._signal(job, signal.SIGTERM)

    def _start(self, job: Job) -> None:
        """A process in a sandbox: in a session of its own, so that a signal to the server does not reach it, with
        limits and without secrets."""
        home = self.store.directory(job.id) / HOME
        shutil.rmtree(home, ignore_errors=True)  # what an attempt before has left
        home.mkdir(mode=0o700)
        more = (
            {name: os.environ[name] for name in PASSED_ON if name in os.environ}
            | caches()
            | {"MBTSAD_NICE": str(self.config.nice)}
        )
        if wordnet := find_wordnet():  # perhaps in the home that the worker does not have
            more["WNSEARCHDIR"] = str(wordnet.absolute())
        env = environment(home, threads=self.config.threads or max(1, (os.cpu_count() or 2) - 1), more=more)
        command = [*self.program, str(self.store.root), job.id]
        unwanted = self._closing.is_set
        # Unwanted: `close` gives the job back to the queue
        with open(self.store.directory(job.id) / LOG, "ab") as log, contextlib.suppress(Unwanted):
            self._children[job.id] = start(
                command, home, self.sandbox, env, outlives=True, unwanted=unwanted, stdout=log, stderr=log
            )

    def _look_at(self, job: Job) -> None:
        if not self._alive(job):
            child = self._children.get(job.id)
            if (
                child is not None
                and (limit := ENDS.get(-(child.returncode or 0)))
                and job.state is not State.CANCELLING
            ):
                with contextlib.suppress(WrongState):  # it ended a moment before
                    self.store.fail(
                        job.id,
                        f"A run may take {said(limit, self.sandbox)} here, and this one took more. {REMEDIES[limit]}",
                    )
            elif child is not None or not _is_starting(job):
                _give_up_worker(self.store, job, self.config.attempts, _how_it_ended(child))
            return
        now = time.time()
        silent = job.heartbeat is not None and now - job.heartbeat > self.config.silence
        patience = max(self.config.grace, LAST_WORD) if is_scan(job.request) else self.config.grace
        deaf = job.cancel_at is not None and now - job.cancel_at > patience
        if silent or deaf:
            self._signal(job, signal.SIGKILL)

    def _alive(self, job: Job) -> bool:
        """Whether a process works on this job: one that we started, or one that a server before us did."""
        child = self._children.get(job.id)
        return (child is not None and child.poll() is None) or (
            job.pid is not None and is_held(self.store.directory(job.id))
        )

    def _signal(self, job: Job, number: signal.Signals) -> None:
        """SIGTERM to the job's process, or SIGKILL to it and all that it started: through its keeper where we started
        it. A server before us has left its keeper too, which ends the rest once the process is gone. The number is
        still its own: it holds the lock."""
        if not self._alive(job):
            return
        child = self._children.get(job.id)
        with contextlib.suppress(ProcessLookupError):
            if child is not None and child.returncode is None:
                child.send_signal(END if number == signal.SIGKILL else number)
            elif job.pid:
                os.killpg(job.pid, number)


def _how_it_ended(child: Keeper | None) -> str:
    """For the visitor."""
    code = child.returncode if child else None
    if code == -signal.SIGKILL:
        return (
            "it was killed, most often because the machine ran out of memory. Use a smaller batch size or a "
            "smaller maximal length."
        )
    if code is not None and code < 0:
        return f"it was ended by signal {-code}. The job's log on the server may have the details."
    return "it ended without a word. The job's log on the server may have the details."


class AttachedRunner(_StoreRunner):
    """Jobs run in the caller of `run`, in slices of at most `seconds`: for hosts such as ZeroGPU, which lend a GPU to a
    call for a limited time and forbid child processes. Each slice ends at a checkpoint.

    around  wraps the function that does a slice, (root, id, seconds) -> Iterator[Event]; on ZeroGPU
            `spaces.GPU(duration=...)`. It may run in a fork: what it takes and yields can be pickled, and it opens a
            store of its own.
    """

    detached = False

    def __init__(
        self,
        root: Path,
        config: JobsConfig = JobsConfig(),
        *,
        seconds: float = 50.0,
        around: Callable[[Slice], Slice] = lambda f: f,
    ) -> None:
        self.store, self.config, self.seconds = Store(root), config, seconds
        self._slice = around(work_slice)

    def submit(self, request: Asked, owner: str = "") -> str:
        self.store.expire(waiting=True)  # a job whose visitor left waits for nobody
        return _submit(self.store, self.config, request, owner)

    def cancel(self, id: str) -> None:
        super().cancel(id)
        self._mend(id)

    def run(self, id: str) -> Iterator[Event]:
        """Work on the job, slice after slice, until it ends or the caller closes this generator; nothing where another
        call works on it.

        The caller's own queue says who comes first: on ZeroGPU that is Gradio's. Raises the host's error where it lends
        nothing.
        """
        self._mend(id)
        # A backdoor is planted, and a model scanned, without checkpoints, in one piece: here, and not in what the host
        # lends for less than a minute.
        asked = self.store.get(id).request
        slice = work_slice if is_planting(asked) or is_scan(asked) else self._slice
        while self.store.claim(id, room=has_room(self.store, self.config)):
            try:
                yield from slice(str(self.store.root), id, self.seconds)
            except Exception as error:  # the host's: what comes of the work itself is told in the job
                if self._was_refused(id):
                    raise
                logger.warning("The host cut a slice off: %s", error)
            self._mend(id)  # a slice that the host cut off

    def _was_refused(self, id: str) -> bool:
        """Whether the host had nothing to lend, so that the slice did not begin: then the job waits as before."""
        with contextlib.suppress(WrongState):  # it did begin, and has ended since
            if self.store.get(id).pid is None:
                self.store.release(id)
                return True
        return False

    def _mend(self, id: str) -> None:
        job = self.store.get(id)
        if job.state in ACTIVE and not _is_starting(job):
            _give_up_worker(
                self.store, job, self.config.attempts, "the host ended it early. Use fewer texts or smaller batches."
            )

    def close(self) -> None:
        self.store.close()

    def __enter__(self) -> AttachedRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def work_slice(root: str, id: str, seconds: float) -> Iterator[Event]:
    """One slice of a claimed job."""
    yield from work(Path(root), id, seconds=seconds)
