"""Works on one job: `work` drives the purification, or what else was asked for, and tells the store;
`python -m mbtsad_core.service.worker STORE JOB_ID` is a process for it.

In the job's directory: run/, where the results are written, worker.log, and the lock of whoever works on it.
PyTorch is loaded only once the job is begun, so that a process that starts is seen at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mbtsad_core.errors import MBTSADError, WrongState
from mbtsad_core.service.faults import number_of
from mbtsad_core.service.scan_job import is_scan
from mbtsad_core.service.store import Job, State, Store, hold
from mbtsad_core.steps import drain
from mbtsad_core.types import Event, Observe, Steps

if TYPE_CHECKING:
    from mbtsad_core.defenses.mbtsad_method import PurifyConfig
    from mbtsad_core.models.classifier import Classifier
    from mbtsad_core.service.planting import Planting
    from mbtsad_core.service.purification import Inputs, Request
    from mbtsad_core.service.scanning import ScanRequest

Asked = TypeVar("Asked", "Request", "Planting", "ScanRequest")
RUN, LOG = "run", "worker.log"
BATCH = 0.3  # seconds between two writes of events, at most where steps are short
BEAT = 1.0  # seconds between two signs of life
# Stages before the first checkpoint: who stops there for lack of time gets no further the next time either.
NOT_KEPT = (
    "measure",
    "scan",
    "odd",
    "pairs",
    "companions",
    "reset",
    "responses",
    "openings",
    "sequences",
    "judging",
    "named",
)
RESERVE = "reserve"  # a file of RESERVED bytes, given up where the disk is full, so that this can be written down
RESERVED = 1 << 18
WAIT = 60.0  # seconds before a run that found the disk full is tried again, at least
ATTEMPTS = 3  # of a run that finds the disk full although there was room again
PATIENCE = 1.0  # seconds to wait for the lock: a supervisor that looks whether it is held, holds it for a moment


def work(
    root: Path, id: str, *, seconds: float | None = None, stopping: Callable[[], bool] = lambda: False
) -> Steps[State]:
    """Go on with a claimed job, yield its events as they come, and return the state that it was left in.

    After `seconds`, or once `stopping`, the job stops between two steps, a checkpoint is written, and it is queued
    again; so it is where the caller closes the generator. A step at least is done. Errors become the job's message and
    are not raised.
    """
    with Store(root) as store, hold(store.directory(id), PATIENCE) as held:
        if not held:  # another works on it
            return store.get(id).state
        try:
            job = store.begin(id, os.getpid())
        except WrongState:  # stopped in the meantime
            return store.get(id).state
        with _heart(store, id):
            try:
                _write_reserve(store.directory(id))
                return (yield from _go_on(store, job, seconds, stopping))
            except GeneratorExit:
                store.release(id)
                raise
            except Exception as error:
                # A user's; or of a library, of the machine, or ours: the visitor is told, the log has the rest
                (store.directory(id) / RESERVE).unlink(missing_ok=True)
                if lacks_room(error):
                    return store.postpone(id, NO_ROOM, STILL_NO_ROOM, attempts=ATTEMPTS, seconds=WAIT)
                if isinstance(error, MBTSADError):
                    store.fail(id, str(error))
                else:
                    with open(store.directory(id) / LOG, "a", encoding="utf-8") as log:
                        log.write(f"Error {number_of(error)}\n{traceback.format_exc()}")
                    store.fail(id, _explain(error))
            finally:
                (store.directory(id) / RESERVE).unlink(missing_ok=True)
        return store.get(id).state


def _go_on(
    store: Store, job: Job, seconds: float | None, stopping: Callable[[], bool]
) -> Generator[Event, None, State]:
    from mbtsad_core.service.comparison import is_comparison
    from mbtsad_core.service.planting import is_planting
    from mbtsad_core.service.purification import memory_notes
    from mbtsad_core.service.run_folder import read_events

    out = store.directory(job.id) / RUN
    # Without checkpoints no attempt goes on from the one before, and slices would never come to the end.
    scans = is_scan(job.request)
    anew = scans or is_comparison(job.request) or is_planting(job.request)
    if job.state is State.CANCELLING:
        return store.release(job.id)
    if (out / "report.json").exists():
        return _was_done(store, job, out)

    started = time.monotonic()
    last_word = threading.Event()  # of a scan that its visitor stops
    steps = _asked_for(store, job, out, last_word.is_set)
    pending: list[Event] = []
    in_parts: dict[str, float] = {}  # stages whose batches the memory did not hold, as the visitor was told
    # Whether the store has all events before the pending ones: not where a kill has come before they were written
    known = False

    def flush() -> State:
        nonlocal known
        state = store.append(job.id, pending if known or anew else read_events(out), replace=not known)
        pending.clear()
        known = True
        return state

    with contextlib.closing(steps):
        flushed = -BATCH
        while True:
            try:
                event = next(steps)
            except StopIteration as done:
                flush()
                store.finish(job.id, done.value)
                return State.DONE
            pending.append(event)
            if (texts := event.metrics.get("texts_at_once")) is not None and in_parts.get(event.stage) != texts:
                in_parts[event.stage] = texts
                store.note(job.id, *map(str, memory_notes([event])))
            now = time.monotonic()
            spent = 0.0 if seconds is None or anew or event.stage in NOT_KEPT else (now - started) / max(seconds, 1e-9)
            # What follows a stage's end may be long and cannot be cut
            over = spent >= 1 or (spent >= 0.5 and event.step == event.total)
            over = over or stopping()
            if over or now - flushed >= BATCH:
                flushed = now
                if flush() is State.CANCELLING:
                    last_word.set()
                    over = over or not scans
            try:
                yield event
            except GeneratorExit:
                flush()
                raise
            if over:
                break
    return store.release(job.id)


def _was_done(store: Store, job: Job, out: Path) -> State:
    """A run that was killed between its end and its word to the store."""
    from mbtsad_core.service.run_folder import read_events, remove_checkpoint

    remove_checkpoint(out)
    store.append(job.id, read_events(out), replace=True)
    store.finish(job.id, json.loads((out / "report.json").read_text(encoding="utf-8")))
    return State.DONE


def _asked_for(store: Store, job: Job, out: Path, stopped: Callable[[], bool]) -> Steps[dict[str, Any]]:
    """The work that a job asks for, and the figures that come of it; `stopped` is asked by a scan."""
    from mbtsad_core.service.comparison import Comparison, compare, is_comparison
    from mbtsad_core.service.planting import Planting, is_planting, plant_suspect
    from mbtsad_core.service.purification import Request, execute
    from mbtsad_core.service.scan_job import ScanJob, scan_suspect

    if is_scan(job.request):
        scan = ScanJob.from_dict(job.request)
        return (yield from scan_suspect(dataclasses.replace(scan, request=_within_threads(scan.request)), out, stopped))
    if is_planting(job.request):
        return (yield from plant_suspect(_within_threads(Planting.from_dict(job.request)), out))
    if is_comparison(job.request):
        comparison = Comparison.from_dict(job.request)
        return (yield from compare(dataclasses.replace(comparison, request=_within_threads(comparison.request)), out))
    request = _within_threads(Request.from_dict(job.request))
    result = yield from execute(
        request,
        out,
        resume=True,
        keep_teacher=True,
        observe=lambda inputs: _observe_trigger(store, job.id, inputs, request.config),
    )
    return result.to_dict()


def _within_threads(request: Asked) -> Asked:
    """The request with no more threads than this process was given."""
    import torch

    most = torch.get_num_threads()
    return dataclasses.replace(
        request, runtime=dataclasses.replace(request.runtime, threads=min(request.runtime.threads or most, most))
    )


def _observe_trigger(store: Store, id: str, inputs: Inputs, config: PurifyConfig) -> Observe:
    """Measures the trigger that the visitor typed last, and until he types one, the request's.

    The first measurement of a typed trigger brings the suspect's figures and the floor with it (`baseline`).
    It gets the classifier to read and gives numbers back: what a visitor types cannot reach the training.
    """
    from mbtsad_core.attacks.triggers import places, triggered_test_set, typed_trigger
    from mbtsad_core.data import class_index
    from mbtsad_core.evaluation import baseline, observer

    number, measure = 0, observer(inputs.test, inputs.triggered, inputs.target)

    def observe(classifier: Classifier) -> dict[str, float]:
        nonlocal number, measure
        wanted, before = store.measure(id), dict[str, float]()
        if wanted is not None and wanted.number != number:
            number, measure = wanted.number, observer(inputs.test)
            try:
                target = class_index(wanted.target, inputs.suspect.labels)
                trigger = typed_trigger(wanted.triggers, target, window=places(config.max_length))
                triggered = triggered_test_set(inputs.test, trigger, config.seed)
                measure, before = (
                    observer(inputs.test, triggered, target),
                    baseline(inputs.suspect, inputs.test, triggered, target),
                )
            except MBTSADError as error:  # CACC goes on; no ASR is left that was of another trigger
                store.note(id, str(error))
                before = {"asr_n": 0}
        return measure(classifier) | before | {"measure": number}

    return observe


@contextlib.contextmanager
def _heart(store: Store, id: str) -> Iterator[None]:
    """Signs of life from a thread: one step, or measuring the result, may take minutes."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(Exception):  # a full disk, say: the next may be written
                store.beat(id)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


NO_ROOM = (
    "The disk is full, so the run could not be kept. What it had saved is safe: it goes on from there by itself once "
    "there is room. Ask whoever runs this site to make some."
)
STILL_NO_ROOM = (
    "The disk was full each time that the run was tried. Start it again once whoever runs this site has made room."
)


def lacks_room(error: BaseException) -> bool:
    """Whether this says that the disk, or the user's share of it, is full: in Python's and safetensors' words, in
    SQLite's, in the system's."""
    return any(words in str(error) for words in ("No space left", "disk is full", "quota exceeded"))


def _write_reserve(directory: Path) -> None:
    with open(directory / RESERVE, "wb") as file:
        file.write(bytes(RESERVED))


def _explain(error: Exception) -> str:
    """What a visitor is told of an error that is not his; one that was not foreseen has its number in the log, and no
    word of a library's."""
    from mbtsad_core.training.batch_gradient import lacks_memory

    reason = str(error)
    if lacks_memory(error):
        return "The machine has not enough memory for this run. Use a smaller batch size or a smaller maximal length."
    if lacks_room(error):
        return NO_ROOM
    if "File too large" in reason:  # the sandbox's limit on a file
        return (
            "The run would write a larger file than it may here, so it was stopped. Use a smaller model, or ask "
            "whoever runs this site for a higher limit."
        )
    if "Too many open files" in reason:
        return (
            "The run would open more files than it may here, so it was stopped. Ask whoever runs this site for a "
            "higher limit."
        )
    return (
        "Unknown error: the run stopped for a reason that was not foreseen. Start it again, and if it stays, "
        f"report the number {number_of(error)}: the job's log on the server has the details."
    )


def step_back(nice: int) -> None:
    """Leave the cores to other processes, by a priority from 0 to 19. Where the kernel shares them among sessions first
    (autogroup of Linux), and this process leads one, the session steps back too: within it nobody else would notice."""
    os.nice(nice)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # a kernel without autogroup
            Path("/proc/self/autogroup").write_text(str(nice))


def main(arguments: list[str]) -> int:
    """The child process; the number of threads comes with OMP_NUM_THREADS, the priority with MBTSAD_NICE."""
    root, id = arguments
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda signum, frame: stopping.set())
    step_back(int(os.environ.get("MBTSAD_NICE", "0")))
    if drain(work(Path(root), id, stopping=stopping.is_set)) is State.DONE:
        _keep_space(Path(root), id)
    return 0


def _keep_space(root: Path, id: str) -> None:
    """Where the texts of a purification lie, for who opens it later. The run is done, whatever becomes of this."""
    from mbtsad_core.service import run_folder, space

    with Store(root) as store:
        out = store.directory(id) / RUN
    if (out / run_folder.RUN).exists():  # no other method, and no planting
        with contextlib.suppress(MBTSADError):  # vectors that are all alike, say: the page tells it
            space.keep_space(out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
