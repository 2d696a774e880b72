"""Kills at random moments: every job ends once, with the weights of an undisturbed run.

A server is a process of its own that submits a job, where none is there yet, and runs it. It, its worker, or both are
killed at the n-th thing that the worker does to its files, n drawn at random, or where it first touches a certain one:
a checkpoint begun, a model renamed, the report written. Then a new server is started on the same store. MBTSAD_KILLS
says how often; MBTSAD_SEED, with which draws.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import ROOT
from example import tiny_request

from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig, SplitConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.service.purification import Request, execute
from mbtsad_core.service.run_folder import read_events
from mbtsad_core.service.store import ACTIVE, ENDED, Job, State, Store
from mbtsad_core.service.worker import RUN

SERVER = """
import json, sys, threading
from pathlib import Path
from mbtsad_core.config import JobsConfig
from mbtsad_core.service.runner import DetachedRunner

with DetachedRunner(Path(sys.argv[1]), JobsConfig(threads=1, attempts=100, nice=0)) as runner:
    if not runner.unexpired():
        runner.store.create(json.loads(sys.argv[2]), "anna")
    threading.Event().wait()
"""
FILES = (  # half of the kills come at one of these, the others anywhere
    "run.json", "checkpoint.new", "checkpoint.safetensors", "model.new", "model.safetensors", "teacher.new", "teacher",
    "report.html", "report.json.new", "report.json",
)  # fmt: skip
VICTIMS = ("worker", "worker", "server", "both")
SECONDS = 600.0  # that a job may take from one kill to the next, or to its end
CHANGES = 0x002 | 0x080 | 0x100 | 0x200  # of a watched directory: a file written to, renamed to, created, removed
FOLDER = 0x4000_0000


class Watch:
    """The changes in directories as the system tells them (inotify), those in directories that are made there
    included."""

    def __init__(self, folder: Path) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.folders: dict[int, Path] = {}
        self.add(folder)

    def add(self, folder: Path) -> None:
        number = self.libc.inotify_add_watch(self.descriptor, os.fsencode(folder), CHANGES)
        if number >= 0:  # it may be gone, or renamed, again
            self.folders[number] = folder
            for child in folder.iterdir() if folder.exists() else ():
                if child.is_dir():
                    self.add(child)

    def changes(self, seconds: float) -> Iterator[Path]:
        """What has changed since the last call; waits so long for something to."""
        if not select.select([self.descriptor], [], [], seconds)[0]:
            return
        told, at = os.read(self.descriptor, 1 << 16), 0
        while at < len(told):
            number, mask, _, length = struct.unpack_from("iIII", told, at)
            name = told[at + 16 : at + 16 + length].rstrip(b"\0").decode()
            at += 16 + length
            if number in self.folders and name:
                path = self.folders[number] / name
                if mask & FOLDER and mask & 0x180:
                    self.add(path)
                yield path

    def close(self) -> None:
        os.close(self.descriptor)


@dataclass
class Served:
    """A store, and the server that runs its jobs just now."""

    root: Path
    request: Request
    kills: list[str] = field(default_factory=list)

    def start(self) -> None:
        asked = json.dumps(self.request.to_dict())
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with open(self.root.with_suffix(".log"), "ab") as log:
            command = [sys.executable, "-P", "-c", SERVER, str(self.root), asked]
            self.server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def kill(self, victim: str, job: Job) -> bool:
        """Returns whether all of the victims were alive."""
        hit = victim == "server" or self.kill_worker(job)
        if victim != "worker":
            self.server.kill()
            self.server.wait()
            self.start()
        return hit

    def kill_worker(self, job: Job) -> bool:
        process = Path(f"/proc/{job.pid}/cmdline")
        if not process.exists() or job.id.encode() not in process.read_bytes():
            # It is dead, and its number another's by now
            return False
        assert job.pid
        os.kill(job.pid, signal.SIGKILL)
        return True


def undisturbed(request: Request, folder: Path) -> tuple[list[bytes], list[tuple[str, int]]]:
    """Purified model and teacher, and the steps, of a run that nothing disturbs."""
    events = [(e.stage, e.step) for e in execute(request, folder / "undisturbed", keep_teacher=True)]
    return model_bytes(folder / "undisturbed"), events


def model_bytes(run: Path) -> list[bytes]:
    return [(run / folder / "model.safetensors").read_bytes() for folder in ("model", "teacher")]


def disturbed(served: Served, rng: random.Random, most: int, changes: int) -> Job:
    """Run one job to its end, with at most so many kills, each after at most so many changes to its files."""
    served.start()
    try:
        with Store(served.root) as store:
            deadline, killed = time.monotonic() + SECONDS, 0
            watch = Watch(served.root)
            while not (jobs := store.in_state(*State)):
                assert served.server.poll() is None, served.root.with_suffix(".log").read_text()
                assert time.monotonic() < deadline, "no job was submitted"
                list(watch.changes(1.0))
            watch.add(store.directory(jobs[0].id))
            n, file = rng.randrange(changes), rng.choice([None, rng.choice(FILES)])
            while (job := store.get(jobs[0].id)).state not in ENDED:
                assert time.monotonic() < deadline, f"{job.state} at {job.stage} {job.step} after {served.kills}"
                for path in watch.changes(1.0):
                    n -= RUN in path.relative_to(served.root).parts
                    if killed < most and job.pid is not None and (n <= 0 if file is None else path.name == file):
                        break
                else:
                    continue
                job = store.get(job.id)
                if job.state in ENDED:
                    break
                victim = rng.choice(VICTIMS)
                if not served.kill(victim, job):
                    continue
                killed += 1
                served.kills.append(f"{victim} at {path.name}")
                deadline, n, file = (
                    time.monotonic() + SECONDS,
                    rng.randrange(changes),
                    rng.choice([None, rng.choice(FILES)]),
                )
            watch.close()
            return job
    finally:
        served.server.kill()
        served.server.wait()
        with Store(served.root) as store:
            for left in store.in_state(*ACTIVE):  # where the test fails
                served.kill_worker(left)


def withstand(request: Request, kills: int, folder: Path, most: int) -> None:
    """Job after job until there were so many kills; prints what happened, and compares every job with the undisturbed
    run."""
    seed = int(os.environ.get("MBTSAD_SEED", "0"))
    expected, steps = undisturbed(request, folder)
    changes = max(2, 2 * len(steps) // most)  # about two for each step, so that the kills of a job are spread over it
    left, number, victims, moments = kills, 0, Counter[str](), Counter[str]()
    print(f"\n{'job':>4} {'state':<8} {'starts':>6} {'seconds':>7}  killed")
    while left > 0:
        served = Served(folder / f"jobs{number}", request)
        served.root.mkdir()
        begun = time.monotonic()
        job = disturbed(served, random.Random(f"kills, seed {seed}, job {number}"), min(most, left), changes)
        print(
            f"{number:>4} {job.state:<8} {job.attempts:>6} {time.monotonic() - begun:>7.1f}  {'; '.join(served.kills)}",
            flush=True,
        )
        left, number = left - len(served.kills), number + 1
        victims.update(kill.partition(" ")[0] for kill in served.kills)
        moments.update(kill.partition(" at ")[2] for kill in served.kills)
        with Store(served.root) as store:
            assert [j.id for j in store.in_state(*State)] == [job.id], "one was asked for"
            run = store.directory(job.id) / RUN
            assert (job.state, job.message) == (State.DONE, "")
            assert model_bytes(run) == expected
            recorded = store.events(job.id)
            assert [(r.event.stage, r.event.step) for r in recorded] == steps
            assert [r.sequence for r in recorded] == list(range(1, len(steps) + 1))
            assert read_events(run) == [r.event for r in recorded]
            assert job.result == json.loads((run / "report.json").read_text())
            assert sorted(p.name for p in run.iterdir()) == [
                "events.jsonl",
                "model",
                "report.html",
                "report.json",
                "run.json",
                "teacher",
            ]
        assert number <= 4 * kills, "the kills come too late"
    print(f"{kills - left} kills {dict(victims)} in {number} jobs; they came at {dict(moments.most_common())}")


@pytest.mark.slow
def test_a_tiny_run_withstands_a_few_kills(tmp_path: Path) -> None:
    withstand(tiny_request(tmp_path, epochs=4), int(os.environ.get("MBTSAD_KILLS", "3")), tmp_path, most=4)


@pytest.mark.slow
def test_a_tiny_run_withstands_a_hundred_kills(tmp_path: Path) -> None:
    withstand(tiny_request(tmp_path, epochs=10), int(os.environ.get("MBTSAD_KILLS", "100")), tmp_path, most=5)


@pytest.mark.slow
def test_a_run_of_the_demo_withstands_five_kills(tmp_path: Path) -> None:
    """The packaged suspect, 64 of its clean texts, with the trigger scan."""
    stage = {"epochs": 1, "batch_size": 16, "save_every": 1.0}
    config = PurifyConfig(split=SplitConfig(copies=2), retrain=RetrainConfig(**stage), distil=DistilConfig(**stage))
    request = Request(clean_amount=64, config=config, runtime=RuntimeConfig(device="cpu", threads=1))
    withstand(request, int(os.environ.get("MBTSAD_KILLS", "5")), tmp_path, most=5)
