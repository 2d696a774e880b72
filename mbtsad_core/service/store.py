"""The jobs of all visitors, in one SQLite file: what was asked, how far it is, what came of it.

Server and workers share the file; each change of a job is one transaction, and legal from certain states only:

    queued ──claim──> running ──finish, fail──> done, failed
      │  ^               │ │
      │  └─release, lost─┘ └─request_cancel──> cancelling ──release, lost──> cancelled
      └─request_cancel──> cancelled
    done, failed, cancelled ──expire──> expired

`postpone` is a `lost` with another message: the disk is full, and the job waits for a time and for room before it is
claimed again. A job whose process is lost goes back to the queue, or fails for good. Whoever works on a job holds the
lock of its directory (`hold`), which the system takes from it when it dies in whatever way: a job that is running and
whose lock is free is lost. A job is found by its id only: the id is the secret in the visitor's link.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mbtsad_core.errors import BadData, BadOutput, QueueFull, UnknownJob, WrongState
from mbtsad_core.types import Event

ID_BYTES = 24  # 192 bits of chance
# Seconds that an expired job's id is known, so that its link says "expired" and not "unknown"
TOMBSTONES = 30 * 86_400.0
LONGEST_TRIGGER, MOST_TRIGGERS = 1000, 1000  # characters of a typed trigger; triggers typed during one run
VERSION = 3

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order in which they came
    id         TEXT NOT NULL UNIQUE,
    owner      TEXT NOT NULL,
    request    TEXT NOT NULL,
    state      TEXT NOT NULL,
    stage      TEXT NOT NULL DEFAULT '',
    step       INTEGER NOT NULL DEFAULT 0,
    total      INTEGER NOT NULL DEFAULT 0,
    metrics    TEXT NOT NULL DEFAULT '{}',         -- the latest value of each
    message    TEXT NOT NULL DEFAULT '',           -- for the visitor
    pid        INTEGER,                            -- of the process that works on it, once that holds its lock
    heartbeat  REAL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    cancel_at  REAL,                               -- when its visitor asked for it to stop
    paced_at   REAL,                               -- since when, and from which step on, this process is in this stage
    paced_step INTEGER NOT NULL DEFAULT 0,
    created    REAL NOT NULL,
    updated    REAL NOT NULL,
    keep       REAL NOT NULL,                      -- seconds from its end to `expires`
    expires    REAL NOT NULL,
    result     TEXT,
    wait_until REAL,                               -- of a job that was postponed: before then it is not claimed
    leading    TEXT NOT NULL DEFAULT '[]'          -- the candidates that are in the lead of a scan
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
CREATE INDEX IF NOT EXISTS jobs_by_owner ON jobs (owner, number);
CREATE TABLE IF NOT EXISTS events (
    job        INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    sequence   INTEGER NOT NULL,
    stage      TEXT NOT NULL,
    step       INTEGER NOT NULL,
    total      INTEGER NOT NULL,
    metrics    TEXT NOT NULL,
    PRIMARY KEY (job, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS measures (
    job        INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    number     INTEGER NOT NULL,
    triggers   TEXT NOT NULL,
    target     TEXT NOT NULL,
    created    REAL NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
"""


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"
    EXPIRED = "expired"


ACTIVE = (State.RUNNING, State.CANCELLING)
BACKGROUND = "the server"
"""Owner of jobs that give way to those of all others."""
ENDED = (State.DONE, State.CANCELLED, State.FAILED)


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stands. Times are seconds since 1970."""

    id: str
    number: int
    owner: str
    request: dict[str, Any]
    state: State
    stage: str
    step: int
    total: int
    metrics: dict[str, float]
    message: str
    pid: int | None
    heartbeat: float | None
    attempts: int
    cancel_at: float | None
    paced_at: float | None
    paced_step: int
    created: float
    updated: float
    expires: float
    result: dict[str, Any] | None
    leading: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event of a job and its place among them, counted from 1."""

    sequence: int
    event: Event


@dataclass(frozen=True, slots=True)
class Measure:
    """The trigger that a visitor wants measured, the `number`th that he typed for this job.

    stage, step  the first event that measured it; None as long as there is none
    Events say in their metrics under "measure" which one they measured; 0 is the trigger of the request.
    """

    number: int
    triggers: tuple[str, ...]
    target: str
    stage: str | None = None
    step: int | None = None


class Store:
    """The jobs under `root`: root/jobs.sqlite, and the directory root/ID/ of each. For any number of threads and
    processes, each process with a Store of its own: none is carried across a fork, and a fork waits until no thread
    uses one (`_before_fork`)."""

    def __init__(self, root: Path) -> None:
        self.root = root = root.absolute()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.RLock()
        _stores.add(self)
        (root / "jobs.sqlite").touch(mode=0o600)
        with self._lock:
            self._db = sqlite3.connect(root / "jobs.sqlite", timeout=30, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # what was promised to a visitor outlasts a power cut
            self._db.execute("PRAGMA foreign_keys = ON")
            with self._write() as db:
                version = db.execute("PRAGMA user_version").fetchone()[0]
                if version not in range(VERSION + 1):
                    raise BadOutput(
                        f"{root / 'jobs.sqlite'} was written by another version of mbtsad ({version}, expected "
                        f"{VERSION}). Give another directory."
                    )
                if version == 0:
                    for statement in SCHEMA.split(";\n"):
                        db.execute(statement)
                if version == 1:
                    db.execute("ALTER TABLE jobs ADD COLUMN wait_until REAL")
                if version in (1, 2):
                    db.execute("ALTER TABLE jobs ADD COLUMN leading TEXT NOT NULL DEFAULT '[]'")
                db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction; an error inside undoes it."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # where the disk is full, SQLite has undone it itself
                    self._db.execute("ROLLBACK")
                raise

    def _read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # ------------------------------------------------------------ asking

    def directory(self, id: str) -> Path:
        """Where a job keeps its files, made if need be; raises UnknownJob, so that an id is never any other path."""
        job = self.get(id)
        directory = self.root / job.id
        if job.state is not State.EXPIRED and not directory.exists():
            directory.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self.root, os.O_RDONLY)
            try:
                # Results that were promised are not to be lost with the directory that they are in
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return directory

    def get(self, id: str) -> Job:
        """The job with this id; raises UnknownJob."""
        if rows := self._read("SELECT * FROM jobs WHERE id = ?", id):
            return _job(rows[0])
        raise UnknownJob("There is no such job. Check the link; the results of a run are kept for a limited time.")

    def of_owner(self, owner: str) -> list[Job]:
        """The jobs of a visitor, the newest first. Jobs without owner are nobody's."""
        return [
            _job(row)
            for row in self._read("SELECT * FROM jobs WHERE owner = ? AND owner != '' ORDER BY number DESC", owner)
        ]

    def kept_bytes(self, owner: str) -> int:
        """The bytes of all files that are kept of a visitor's jobs; none of those without owner."""
        found = 0
        for job in self.of_owner(owner):
            for folder, _, names in os.walk(self.root / job.id):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):  # a worker has just put it in another's place
                        found += os.lstat(os.path.join(folder, name)).st_size
        return found

    def in_state(self, *states: State) -> list[Job]:
        """The jobs in any of these states, in the order in which they came."""
        marks = ", ".join("?" * len(states))
        return [
            _job(row) for row in self._read(f"SELECT * FROM jobs WHERE state IN ({marks}) ORDER BY number", *states)
        ]

    def position(self, job: Job) -> int | None:
        """The place in the queue, 1 for the next; None for a job that does not wait."""
        if job.state is not State.QUEUED:
            return None
        ahead: int = self._read(
            "SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND (owner = ?, number) < (?, ?)",
            BACKGROUND,
            job.owner == BACKGROUND,
            job.number,
        )[0][0]
        return ahead + 1

    def is_awaited(self) -> bool:
        """Whether a visitor's job waits for a worker and for nothing else."""
        query = """SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND owner != ?
            AND (wait_until IS NULL OR wait_until <= ?)"""
        return bool(self._read(query, BACKGROUND, time.time())[0][0])

    def events(self, id: str, after: int = 0, most: int = 10_000) -> list[Recorded]:
        """The events after the `after`th, at most `most`.

        A run that went on from a checkpoint repeats steps under the same places, so that no place comes twice for a
        reader.
        """
        query = "SELECT * FROM events WHERE job = ? AND sequence > ? ORDER BY sequence LIMIT ?"
        rows = self._read(query, self.get(id).number, after, most)
        return [
            Recorded(r["sequence"], Event(r["stage"], r["step"], r["total"], json.loads(r["metrics"]))) for r in rows
        ]

    def measures(self, id: str) -> list[Measure]:
        """All triggers that the visitor typed for this job, the oldest first."""
        query = """
            SELECT measures.*, stage, step FROM measures LEFT JOIN (
                SELECT json_extract(metrics, '$.measure') AS measured, MIN(sequence), stage, step
                FROM events WHERE job = ? GROUP BY measured
            ) ON measured = measures.number WHERE job = ? ORDER BY measures.number"""
        job = self.get(id).number
        return [
            Measure(r["number"], tuple(json.loads(r["triggers"])), r["target"], r["stage"], r["step"])
            for r in self._read(query, job, job)
        ]

    def measure(self, id: str) -> Measure | None:
        """The trigger to measure now; None for the one of the request."""
        query = (
            "SELECT measures.* FROM measures JOIN jobs ON job = jobs.number WHERE id = ? ORDER BY measures.number "
            "DESC LIMIT 1"
        )
        rows = self._read(query, id)
        return Measure(rows[0]["number"], tuple(json.loads(rows[0]["triggers"])), rows[0]["target"]) if rows else None

    # ------------------------------------------------------------ the visitor's changes

    def create(
        self,
        request: Mapping[str, Any],
        owner: str = "",
        *,
        queue_size: int = 20,
        quota: int = 3,
        most_bytes: int | None = None,
        keep: float = 86_400.0,
        id: str = "",
    ) -> str:
        """Put a job at the end of the queue and return its id, a new secret unless one is given. An owner has at most
        `quota` jobs that wait or run, and gets another as long as fewer than `most_bytes` of his are kept; without an
        owner only the queue's bound holds. Raises QueueFull."""
        id, now = id or secrets.token_urlsafe(ID_BYTES), time.time()
        if owner and most_bytes is not None and (kept := self.kept_bytes(owner)) >= most_bytes:
            raise QueueFull(
                f"Your runs take {kept / 2**20:.0f} MB here, and one visitor may keep {most_bytes / 2**20:.0f}. "
                f"Download what you need; {self._room_comes(owner)}, and you can start another."
            )
        with _full_is_told(), self._write() as db:
            waiting = db.execute("SELECT COUNT(*) FROM jobs WHERE state = 'queued'").fetchone()[0]
            if waiting >= queue_size:
                raise QueueFull(f"The queue is full: {waiting} runs are waiting. Try again in a few minutes.")
            query = (
                "SELECT COUNT(*) FROM jobs WHERE owner = ? AND owner != '' AND state IN ('queued', 'running', "
                "'cancelling')"
            )
            own = db.execute(query, (owner,)).fetchone()[0]
            if own >= quota:
                raise QueueFull(
                    f"You have {own} runs that wait or train, as many as one visitor may have. Wait for one to end, "
                    "or stop one."
                )
            db.execute(
                "INSERT INTO jobs (id, owner, request, state, created, updated, keep, expires) VALUES (?, ?, ?, "
                "'queued', ?, ?, ?, ?)",
                (id, owner, json.dumps(dict(request)), now, now, keep, now + keep),
            )
        return id

    def _room_comes(self, owner: str) -> str:
        """When the first of a visitor's results goes, in words."""
        ends = [job.expires for job in self.of_owner(owner) if job.state in ENDED]
        if not ends:
            return "once a run has ended and its time is up, its files are removed"
        hours = max(0.0, min(ends) - time.time()) / 3600
        return (
            f"in {hours:.0f} hours the oldest results are removed"
            if hours >= 1.5
            else "in about an hour the oldest results are removed"
        )

    def request_cancel(self, id: str) -> State:
        """Stop a job: at once where it waits, as soon as its worker hears of it where it runs. Returns the state it is
        in now."""
        with self._write() as db:
            job = self._expect(id, "be stopped", State.QUEUED, *ACTIVE)
            if job.state is State.QUEUED:
                return self._move(db, job, State.CANCELLED)
            if job.state is State.RUNNING:
                return self._move(db, job, State.CANCELLING, cancel_at=time.time())
            return job.state

    def set_measure(self, id: str, triggers: Sequence[str], target: str) -> int:
        """From the next measurement on, measure this trigger; returns its number. Raises BadData for an empty or too
        long one."""
        specs = [spec.strip() for spec in triggers]
        if not specs or not all(specs) or not target.strip():
            raise BadData("A trigger to measure needs a word or a sentence, and the class that it sends texts to.")
        if (length := sum(map(len, specs)) + len(target)) > LONGEST_TRIGGER:
            raise BadData(f"The trigger has {length} characters; at most {LONGEST_TRIGGER} are taken.")
        with self._write() as db:
            job = self._expect(id, "take another trigger", State.QUEUED, *ACTIVE)
            number: int = db.execute(
                "SELECT COALESCE(MAX(number), 0) + 1 FROM measures WHERE job = ?", (job.number,)
            ).fetchone()[0]
            if number > MOST_TRIGGERS:
                raise BadData(f"{MOST_TRIGGERS} triggers were measured during this run; no more are taken.")
            db.execute(
                "INSERT INTO measures VALUES (?, ?, ?, ?, ?)",
                (job.number, number, json.dumps(specs), target.strip(), time.time()),
            )
            db.execute("UPDATE jobs SET message = '' WHERE number = ?", (job.number,))
        return number

    # ------------------------------------------------------------ the worker's and the supervisor's changes

    def claim(self, id: str | None = None, *, room: bool = True) -> Job | None:
        """Take the visitor's job that waited longest, else one of the server's own, or the one with this id, for a
        worker that is about to start; None where none waits.

        room  whether the disk has some: without it, jobs that were postponed stay where they are
        """
        with self._write() as db:
            now = time.time()
            query = """SELECT * FROM jobs WHERE state = 'queued' AND (? IS NULL OR id = ?)
                AND (wait_until IS NULL OR (? AND wait_until <= ?))
                ORDER BY owner = ?, number LIMIT 1"""
            if not (rows := db.execute(query, (id, id, room, now, BACKGROUND)).fetchall()):
                return None
            job = _job(rows[0])
            self._move(
                db, job, State.RUNNING, attempts=job.attempts + 1, pid=None, heartbeat=now, wait_until=None, message=""
            )
        return self.get(job.id)

    def begin(self, id: str, pid: int) -> Job:
        """The worker that was started for a claimed job, and holds its lock, sets out."""
        with self._write() as db:
            job = self._expect(id, "be worked on", *ACTIVE)
            self._move(db, job, job.state, pid=pid, heartbeat=time.time(), paced_at=None)
        return self.get(id)

    def beat(self, id: str) -> None:
        """A sign of life."""
        with self._write() as db:
            db.execute("UPDATE jobs SET heartbeat = ? WHERE id = ?", (time.time(), id))

    def append(self, id: str, events: Sequence[Event], *, replace: bool = False) -> State:
        """Add events, or with `replace` put them in the place of all before, in one transaction. Returns the job's
        state: whether to stop."""
        with self._write() as db:
            job = self._expect(id, "make progress", *ACTIVE)
            if replace:
                db.execute("DELETE FROM events WHERE job = ?", (job.number,))
            last = db.execute("SELECT COALESCE(MAX(sequence), 0) FROM events WHERE job = ?", (job.number,)).fetchone()[
                0
            ]
            rows = [
                (job.number, i, e.stage, e.step, e.total, json.dumps(e.metrics)) for i, e in enumerate(events, last + 1)
            ]
            db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
            now = time.time()
            if not events:
                return self._move(db, job, job.state, heartbeat=now)
            latest, metrics = events[-1], {} if replace else dict(job.metrics)
            for event in events:
                metrics |= event.metrics
            pace = (
                {"paced_at": now, "paced_step": latest.step}
                if job.paced_at is None or job.stage != latest.stage
                else {}
            )
            now_at = {"stage": latest.stage, "step": latest.step, "total": latest.total, "metrics": json.dumps(metrics)}
            now_at["leading"] = json.dumps([asdict(one) for one in getattr(latest, "leading", ())])
            return self._move(db, job, job.state, heartbeat=now, **now_at, **pace)

    def note(self, id: str, message: str) -> None:
        """Tell the visitor something about a job that goes on."""
        with self._write() as db:
            job = self._expect(id, "be noted on", *ACTIVE)
            self._move(db, job, job.state, message=message)

    def finish(self, id: str, result: Mapping[str, Any]) -> None:
        """The run is done. A wish to stop that came too late is moot."""
        with self._write() as db:
            self._move(
                db, self._expect(id, "be done", *ACTIVE), State.DONE, result=json.dumps(dict(result)), message=""
            )

    def fail(self, id: str, message: str) -> None:
        """The run cannot go on; `message` tells the visitor why."""
        with self._write() as db:
            self._move(db, self._expect(id, "fail", *ACTIVE), State.FAILED, message=message)

    def release(self, id: str) -> State:
        """The worker stopped in good order and left a checkpoint: back to the queue, or cancelled where that was asked
        for."""
        with self._write() as db:
            job = self._expect(id, "be handed over", *ACTIVE)
            if job.state is State.CANCELLING:
                return self._move(db, job, State.CANCELLED)
            return self._move(db, job, State.QUEUED, attempts=job.attempts - 1, pid=None)

    def lost(self, id: str, *, attempts: int, why: str) -> State:
        """The worker is gone without a word: back to the queue, failed after so many attempts, or cancelled where that
        was asked for."""
        with self._write() as db:
            job = self._expect(id, "lose its worker", *ACTIVE)
            if job.state is State.CANCELLING:
                return self._move(db, job, State.CANCELLED)
            if job.attempts >= attempts:
                return self._move(
                    db,
                    job,
                    State.FAILED,
                    message=f"The run was started {job.attempts} times, and each time its process was lost: {why}",
                )
            return self._move(db, job, State.QUEUED, pid=None)

    def postpone(self, id: str, message: str, given_up: str, *, attempts: int, seconds: float) -> State:
        """The worker stopped because the disk is full: back to the queue for so many seconds at least, failed after so
        many attempts, or cancelled where that was asked for. `message`, or in the end `given_up`, tells the visitor
        why."""
        with self._write() as db:
            job = self._expect(id, "be postponed", *ACTIVE)
            if job.state is State.CANCELLING:
                return self._move(db, job, State.CANCELLED)
            if job.attempts >= attempts:
                return self._move(db, job, State.FAILED, message=given_up)
            return self._move(db, job, State.QUEUED, pid=None, message=message, wait_until=time.time() + seconds)

    def expire(self, *, waiting: bool = False) -> int:
        """Forget the jobs whose time is up, and with `waiting` also those that waited so long: what they asked, their
        results and their files. Returns how many. Their ids are known for some weeks more."""
        now = time.time()
        states = (*ENDED, State.QUEUED) if waiting else ENDED
        with self._write() as db:
            gone = db.execute(
                f"""UPDATE jobs SET state = 'expired', owner = '', request = '{{}}', metrics = '{{}}',
                message = '', result = NULL, leading = '[]'
                WHERE state IN ({", ".join("?" * len(states))}) AND expires <= ?""",
                (*states, now),
            ).rowcount
            for table in ("events", "measures"):
                db.execute(f"DELETE FROM {table} WHERE job IN (SELECT number FROM jobs WHERE state = 'expired')")
        for row in self._read("SELECT id FROM jobs WHERE state = 'expired'"):
            # All: a kill may have kept us from it the last time
            if (self.root / row["id"]).exists():
                shutil.rmtree(self.root / row["id"], ignore_errors=True)
        with self._write() as db:
            db.execute("DELETE FROM jobs WHERE state = 'expired' AND expires <= ?", (now - TOMBSTONES,))
        return gone

    def outdate(self, ids: Sequence[str]) -> None:
        """Let these jobs expire now, or as soon as they end."""
        with self._write() as db:
            now = time.time()
            db.executemany("UPDATE jobs SET keep = 0, expires = ? WHERE id = ?", [(now, id) for id in ids])

    def _expect(self, id: str, what: str, *states: State) -> Job:
        """The job, if it is in one of these states; raises WrongState. Inside a transaction."""
        job = self.get(id)
        if job.state not in states:
            raise WrongState(
                f"This run cannot {what}: it is {job.state}. Only a run that is {' or '.join(states)} can."
            )
        return job

    def _move(self, db: sqlite3.Connection, job: Job, state: State, **columns: Any) -> State:
        """Set the state and other columns; an end starts the time after which the job expires."""
        now = time.time()
        columns |= {"state": state, "updated": now}
        sets = ", ".join(f"{name} = ?" for name in columns)
        if state in ENDED:
            sets += f", pid = NULL, expires = keep + {now}"
        db.execute(f"UPDATE jobs SET {sets} WHERE number = ?", (*columns.values(), job.number))
        return state


# SQLite's own locks are copied by a fork as they stand: one that another thread holds just then is never let go in the
# child, and its Store would wait for ever. So a fork takes the lock of every Store first.
_stores: weakref.WeakSet[Store] = weakref.WeakSet()
_forking: list[Store] = []
_fork = threading.RLock()  # one at a time


def _before_fork() -> None:
    _fork.acquire()
    _forking[:] = sorted(_stores, key=id)
    for store in _forking:
        store._lock.acquire()


def _after_fork() -> None:
    for store in _forking:
        store._lock.release()
    _forking.clear()
    _fork.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


@contextlib.contextmanager
def _full_is_told() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise QueueFull(
            "The disk of this site is full, so no run can be taken. Ask whoever runs it to make room, and try again."
        ) from error


def _job(row: sqlite3.Row) -> Job:
    values = {name: row[name] for name in Job.__dataclass_fields__}
    loaded = {
        name: json.loads(row[name]) if row[name] else None for name in ("request", "metrics", "result", "leading")
    }
    return Job(**values | loaded | {"state": State(row["state"])})


@contextlib.contextmanager
def hold(directory: Path, patience: float = 0.0) -> Iterator[bool]:
    """Hold the lock of a job's directory, and yield whether it was to be had within `patience` seconds."""
    with open(directory / "lock", "ab") as file:
        deadline = time.monotonic() + patience
        while not (held := _try_lock(file.fileno())) and time.monotonic() < deadline:
            time.sleep(0.02)
        try:
            yield held
        finally:
            fcntl.flock(file.fileno(), fcntl.LOCK_UN)  # also for a copy that a fork of this process has got


def is_held(directory: Path) -> bool:
    """Whether a living process, or another thread of this one, works in this job's directory."""
    with hold(directory) as free:
        return not free


def _try_lock(descriptor: int) -> bool:
    try:
        # Goes with the last copy of this descriptor, so with the process
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
