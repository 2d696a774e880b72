"""The store: real SQLite files, and no PyTorch."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from example import until

from mbtsad_core.errors import BadData, BadOutput, QueueFull, UnknownJob, WrongState
from mbtsad_core.service.store import Job, State, Store, hold, is_held
from mbtsad_core.types import Event


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "jobs") as store:
        yield store


def events(first: int, last: int, stage: str = "retrain", **metrics: float) -> list[Event]:
    return [Event(stage, step, 100, {"loss": 1 / step} | metrics) for step in range(first, last + 1)]


def claimed(store: Store) -> Job:
    store.create({"suspect": "demo"})
    job = store.claim()
    assert job is not None
    return store.begin(job.id, os.getpid())


def taken(store: Store, id: str | None = None, *, room: bool = True) -> str:
    """The id of the job that is claimed."""
    job = store.claim(id, room=room)
    assert job is not None
    return job.id


# ---------------------------------------------------------------- ids and owners


def test_ids_cannot_be_guessed(store: Store) -> None:
    ids = {store.create({}, queue_size=1000) for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", id) for id in ids)  # 32 letters of 6 bits: 192 bits
    for place in range(32):  # no letter is fixed, or counts up
        assert len({id[place] for id in ids}) > 30


@pytest.mark.parametrize("id", ["", "../../etc", "x" * 32, "%", "' OR 1=1 --", "\0"])
def test_an_unknown_id_finds_nothing(store: Store, id: str) -> None:
    store.create({})
    asking: list[Callable[[str], object]] = [
        store.get,
        store.directory,
        store.events,
        store.measures,
        store.request_cancel,
    ]
    for ask in asking:
        with pytest.raises(UnknownJob):
            ask(id)
    with pytest.raises(UnknownJob):
        store.set_measure(id, ["cf"], "positive")
    assert [p.name for p in store.root.iterdir() if p.is_dir()] == []


def test_a_visitor_sees_his_own_jobs_only(store: Store) -> None:
    first, other, second = (store.create({}, owner) for owner in ("anna", "ben", "anna"))
    store.create({})
    assert [job.id for job in store.of_owner("anna")] == [second, first]
    assert [job.id for job in store.of_owner("ben")] == [other]
    assert store.of_owner("") == []  # jobs without owner are nobody's


def test_files_are_the_owners_of_the_process_only(store: Store) -> None:
    directory = store.directory(store.create({}))
    assert directory.stat().st_mode & 0o077 == 0
    assert store.root.stat().st_mode & 0o077 == 0
    assert (store.root / "jobs.sqlite").stat().st_mode & 0o077 == 0


# ---------------------------------------------------------------- the queue


def test_the_queue_keeps_its_order_and_tells_the_position(store: Store) -> None:
    ids = [store.create({"n": n}) for n in range(3)]
    assert [store.position(store.get(id)) for id in ids] == [1, 2, 3]
    first = store.claim()
    assert first is not None
    assert (first.id, first.state, first.attempts) == (ids[0], State.RUNNING, 1)
    assert [store.position(store.get(id)) for id in ids] == [None, 1, 2]
    store.request_cancel(ids[1])
    assert store.position(store.get(ids[2])) == 1
    store.lost(ids[0], attempts=3, why="")
    assert [store.position(store.get(id)) for id in ids] == [1, None, 2]  # back to its old place
    assert [job.id for job in (store.claim(), store.claim()) if job] == [ids[0], ids[2]]
    assert store.claim() is None


def test_a_claim_for_one_job_takes_no_other(store: Store) -> None:
    first, second = store.create({}), store.create({})
    job = store.claim(second)
    assert job is not None
    assert job.id == second
    assert store.claim(second) is None
    assert store.get(first).state is State.QUEUED


def test_the_queue_is_bounded(store: Store) -> None:
    first = store.create({}, queue_size=2)
    store.create({}, queue_size=2)
    with pytest.raises(QueueFull, match="2 runs are waiting"):
        store.create({}, queue_size=2)
    store.claim(first)
    store.create({}, queue_size=2)  # who trains does not wait


def test_a_visitor_has_a_quota_and_the_nameless_have_none(store: Store) -> None:
    first = store.create({}, "anna", quota=2)
    store.create({}, "anna", quota=2)
    store.claim(first)
    with pytest.raises(QueueFull, match="You have 2 runs"):
        store.create({}, "anna", quota=2)
    store.create({}, "ben", quota=2)
    for _ in range(3):
        store.create({}, quota=2)
    store.finish(first, {})
    store.create({}, "anna", quota=2)


def test_a_visitor_has_a_budget_of_bytes_and_others_have_theirs(store: Store) -> None:
    id = store.create({}, "anna", most_bytes=1000)
    (store.directory(id) / "run" / "model").mkdir(parents=True)
    (store.directory(id) / "run" / "model" / "weights").write_bytes(bytes(600))
    (store.directory(id) / "worker.log").write_bytes(bytes(399))
    assert store.kept_bytes("anna") == 999
    other = store.create({}, "anna", most_bytes=1000)  # one byte is left
    (store.directory(other) / "report").write_bytes(bytes(1))
    with pytest.raises(QueueFull, match=r"one visitor may keep 0.* once a run has ended and its time is up"):
        store.create({}, "anna", most_bytes=1000)
    store.request_cancel(id)
    with pytest.raises(QueueFull, match=r"Your runs take 0 MB here.* in 24 hours the oldest results are removed"):
        store.create({}, "anna", most_bytes=1000)
    assert store.create({}, "bert", most_bytes=1000)
    assert store.create({}, most_bytes=0)  # the nameless have none
    assert len(store.of_owner("anna")) == 2


def test_what_has_expired_no_longer_counts(store: Store) -> None:
    id = store.create({}, "anna", keep=0)
    (store.directory(id) / "model").write_bytes(bytes(5000))
    store.request_cancel(id)
    assert store.kept_bytes("anna") == 5000
    store.expire()
    assert store.kept_bytes("anna") == 0
    assert store.create({}, "anna", most_bytes=1000)


def test_a_full_disk_is_told_and_costs_nothing_that_was_written(store: Store) -> None:
    """SQLite's own bound on its file says the same as a full disk."""
    id = store.create({})
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(QueueFull, match=r"The disk of this site is full.* make room"):
        store.create({"text": "x" * 100_000})
    store._db.execute("PRAGMA max_page_count = 100000")
    assert store.create({"text": "x" * 100_000})
    assert taken(store) == id


def test_a_job_is_claimed_once_by_many(store: Store) -> None:
    ids = [store.create({}) for _ in range(20)]
    taken: list[str] = []

    def take() -> None:
        with Store(store.root) as own:
            while job := own.claim():
                taken.append(job.id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)


# ---------------------------------------------------------------- transitions

PATHS: dict[State, tuple[str, ...]] = {
    State.QUEUED: (),
    State.RUNNING: ("claim",),
    State.CANCELLING: ("claim", "request_cancel"),
    State.DONE: ("claim", "finish"),
    State.CANCELLED: ("request_cancel",),
    State.FAILED: ("claim", "fail"),
    State.EXPIRED: ("request_cancel", "expire"),
}
ACTIONS: dict[str, Callable[[Store, str], object]] = {
    "claim": lambda store, id: store.claim(id),
    "begin": lambda store, id: store.begin(id, 1),
    "append": lambda store, id: store.append(id, events(1, 1)),
    "note": lambda store, id: store.note(id, "hm"),
    "finish": lambda store, id: store.finish(id, {"ok": True}),
    "fail": lambda store, id: store.fail(id, "no"),
    "release": lambda store, id: store.release(id),
    "lost": lambda store, id: store.lost(id, attempts=3, why="gone"),
    "postpone": lambda store, id: store.postpone(id, "full", "still full", attempts=3, seconds=60),
    "request_cancel": lambda store, id: store.request_cancel(id),
    "set_measure": lambda store, id: store.set_measure(id, ["cf"], "positive"),
    "expire": lambda store, id: store.expire(),
}
LEADS_TO: dict[State, dict[str, State]] = {
    State.QUEUED: {"claim": State.RUNNING, "request_cancel": State.CANCELLED, "set_measure": State.QUEUED},
    State.RUNNING: {
        **dict.fromkeys(("begin", "append", "note", "set_measure"), State.RUNNING),
        "finish": State.DONE,
        "fail": State.FAILED,
        "release": State.QUEUED,
        "lost": State.QUEUED,
        "postpone": State.QUEUED,
        "request_cancel": State.CANCELLING,
    },
    State.CANCELLING: {
        **dict.fromkeys(("begin", "append", "note", "set_measure", "request_cancel"), State.CANCELLING),
        "finish": State.DONE,
        "fail": State.FAILED,
        "release": State.CANCELLED,
        "lost": State.CANCELLED,
        "postpone": State.CANCELLED,
    },
    State.DONE: {"expire": State.EXPIRED},
    State.CANCELLED: {"expire": State.EXPIRED},
    State.FAILED: {"expire": State.EXPIRED},
    State.EXPIRED: {},
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", State)
def test_every_transition_is_legal_from_the_right_states_only(store: Store, state: State, action: str) -> None:
    id = store.create({}, keep=0)
    for step in PATHS[state]:
        ACTIONS[step](store, id)
    before = store.get(id)
    assert before.state is state
    if action in LEADS_TO[state]:
        ACTIONS[action](store, id)
        assert store.get(id).state is LEADS_TO[state][action]
    elif action in ("claim", "expire"):  # these look for jobs, and find none
        ACTIONS[action](store, id)
        assert store.get(id) == before
    else:
        with pytest.raises(WrongState, match=f"it is {state}"):
            ACTIONS[action](store, id)
        assert store.get(id) == before


def test_a_postponed_job_waits_for_its_time_and_for_room(store: Store) -> None:
    first, second = store.create({}), store.create({})
    store.claim()
    assert store.postpone(first, "full", "still full", attempts=3, seconds=3600) is State.QUEUED
    assert (store.get(first).message, store.get(first).pid) == ("full", None)
    assert taken(store) == second  # others do not wait for it
    assert store.claim() is None
    store.release(second)
    assert taken(store, second, room=False) == second  # nor for room, before they have found out
    assert store.postpone(second, "full", "still full", attempts=3, seconds=0) is State.QUEUED
    assert store.claim(second, room=False) is None
    job = store.claim(second, room=True)
    assert job is not None
    assert (job.id, job.state, job.message) == (second, State.RUNNING, "")
    store.postpone(second, "full", "still full", attempts=3, seconds=0)
    store.claim(second)
    assert store.postpone(second, "full", "still full", attempts=3, seconds=0) is State.FAILED
    assert store.get(second).message == "still full"


def test_attempts_are_counted_and_end(store: Store) -> None:
    id = store.create({})
    for attempt in (1, 2):
        store.claim()
        assert store.get(id).attempts == attempt
        assert store.lost(id, attempts=3, why="it was killed.") is State.QUEUED
    store.claim()
    assert store.release(id) is State.QUEUED  # in good order: does not count
    store.claim()
    assert store.lost(id, attempts=3, why="it was killed.") is State.FAILED
    assert store.get(id).message == "The run was started 3 times, and each time its process was lost: it was killed."


# ---------------------------------------------------------------- events and measures


def test_events_come_in_pages(store: Store) -> None:
    id = claimed(store).id
    store.append(id, events(1, 3))
    store.append(id, events(4, 7, asr=0.5))
    assert [r.sequence for r in store.events(id)] == [1, 2, 3, 4, 5, 6, 7]
    assert [r.event for r in store.events(id, after=3)] == events(4, 7, asr=0.5)
    assert [r.sequence for r in store.events(id, after=2, most=2)] == [3, 4]
    assert store.events(id, after=7) == []
    job = store.get(id)
    assert (job.stage, job.step, job.total) == ("retrain", 7, 100)


def test_the_latest_of_each_metric_is_kept(store: Store) -> None:
    id = claimed(store).id
    store.append(id, events(1, 1, asr=0.9))
    store.append(id, events(2, 2))
    assert store.get(id).metrics == {"loss": 0.5, "asr": 0.9}


def test_repeated_steps_take_the_places_of_the_first(store: Store) -> None:
    id = claimed(store).id
    store.append(id, events(1, 9))
    store.append(id, events(1, 5), replace=True)
    store.append(id, events(6, 6))
    assert [(r.sequence, r.event.step) for r in store.events(id)] == [(n, n) for n in range(1, 7)]
    assert store.get(id).step == 6


def test_the_trigger_to_measure_has_a_history(store: Store) -> None:
    id = claimed(store).id
    assert store.measure(id) is None
    assert store.set_measure(id, [" cf "], "positive") == 1
    store.append(id, [*events(1, 4, measure=0), *events(5, 8, measure=1)])
    assert store.set_measure(id, ["I watch a film", "mn"], "negative") == 2
    latest = store.measure(id)
    assert latest is not None
    assert (latest.number, latest.triggers, latest.target) == (2, ("I watch a film", "mn"), "negative")
    assert [(m.number, m.triggers, m.stage, m.step) for m in store.measures(id)] == [
        (1, ("cf",), "retrain", 5),
        (2, ("I watch a film", "mn"), None, None),
    ]


@pytest.mark.parametrize(
    ("triggers", "target"), [([], "positive"), (["  "], "positive"), (["cf"], " "), (["x" * 1001], "positive")]
)
def test_a_trigger_that_is_none_is_refused(store: Store, triggers: list[str], target: str) -> None:
    id = store.create({})
    with pytest.raises(BadData):
        store.set_measure(id, triggers, target)
    assert store.measures(id) == []


# ---------------------------------------------------------------- expiry


def test_expiry_removes_row_contents_and_files_of_ended_jobs_only(store: Store) -> None:
    waiting, running, done, fresh = (
        store.create({"secret": "text"}, "anna", quota=9, keep=keep) for keep in (0, 0, 0, 3600)
    )
    for id in (running, done, fresh):
        store.claim(id)
        store.append(id, events(1, 3))
        store.set_measure(id, ["cf"], "positive")
    for id in (waiting, running, done, fresh):
        (store.directory(id) / "model").mkdir()
        (store.directory(id) / "model" / "weights").write_text("many")
    store.finish(done, {"asr": 0.1})
    store.finish(fresh, {"asr": 0.1})
    assert store.expire() == 1
    assert [store.get(id).state for id in (waiting, running, done, fresh)] == [
        State.QUEUED,
        State.RUNNING,
        State.EXPIRED,
        State.DONE,
    ]
    assert [(store.root / id).exists() for id in (waiting, running, done, fresh)] == [True, True, False, True]
    gone = store.get(done)
    assert (gone.request, gone.result, gone.owner, gone.metrics) == ({}, None, "", {})
    assert store.events(done) == []
    assert store.measures(done) == []
    assert len(store.events(fresh)) == 3
    assert store.expire(waiting=True) == 1
    assert store.get(waiting).state is State.EXPIRED


def test_expiry_that_was_cut_short_is_finished_later(store: Store) -> None:
    id = store.create({}, keep=0)
    store.request_cancel(id)
    store.expire()
    (store.root / id).mkdir()  # as if the server had been killed before it removed the files
    assert store.expire() == 0
    assert not (store.root / id).exists()


def test_an_expired_id_is_forgotten_in_the_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    id = store.create({}, keep=0)
    store.request_cancel(id)
    store.expire()
    assert store.get(id).state is State.EXPIRED
    monkeypatch.setattr("mbtsad_core.service.store.TOMBSTONES", 0.0)
    store.expire()
    with pytest.raises(UnknownJob):
        store.get(id)


# ---------------------------------------------------------------- locks, files, kills


def test_a_lock_is_held_by_one_and_goes_with_its_process(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with hold(tmp_path) as mine, hold(tmp_path) as other:
        assert (mine, other) == (True, False)
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from mbtsad_core.service.store import hold\n"
        "with hold(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-P", "-c", code, str(tmp_path)], stdout=subprocess.PIPE, env=ENVIRONMENT)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"held\n"
        assert is_held(tmp_path)
        child.kill()
        child.wait()
    assert not is_held(tmp_path)


@pytest.mark.parametrize(("version", "lacking"), [(1, ("wait_until", "leading")), (2, ("leading",))])
def test_a_store_of_an_earlier_version_is_taken_over(tmp_path: Path, version: int, lacking: tuple[str, ...]) -> None:
    with Store(tmp_path / "jobs") as store:
        id = store.create({"suspect": "demo"}, "anna")
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite")) as db:
        for column in lacking:
            db.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
    for _ in range(2):
        with Store(tmp_path / "jobs") as store:
            assert [job.id for job in store.of_owner("anna")] == [id]
    with Store(tmp_path / "jobs") as store:
        assert taken(store) == id


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(BadOutput, match="another version"):
        Store(tmp_path)


def test_what_was_written_is_there_for_the_next_process(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        id = store.create({"texts": "ä\u2028"}, "anna")
    with Store(tmp_path) as store:
        assert store.get(id).request == {"texts": "ä\u2028"}


WRITER = """
import sys
from pathlib import Path
from mbtsad_core.service.store import Store
from mbtsad_core.types import Event
with Store(Path(sys.argv[1])) as store:
    while True:
        store.append(sys.argv[2], [Event("retrain", step, 10, {"loss": 0.5}) for step in range(10)])
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def test_a_kill_in_the_middle_of_writing_leaves_whole_batches(store: Store) -> None:
    id = claimed(store).id
    seen = 0
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-P", "-c", WRITER, str(store.root), id], env=ENVIRONMENT)
        until(lambda: len(store.events(id, after=seen, most=50)) == 50)  # noqa: B023 (called at once)
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        now = len(store.events(id, most=1_000_000))
        assert now >= seen + 50
        assert now % 10 == 0  # a batch is there as a whole or not at all
        seen = now
    store.append(id, events(1, 1))  # and writing goes on
    assert len(store.events(id, most=1_000_000)) == seen + 1
    with sqlite3.connect(store.root / "jobs.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_a_poll_is_cheap_while_others_write(store: Store) -> None:
    id = claimed(store).id
    child = subprocess.Popen([sys.executable, "-P", "-c", WRITER, str(store.root), id], env=ENVIRONMENT)
    try:
        until(lambda: store.events(id, most=1))
        before = time.thread_time()
        for _ in range(500):
            store.position(store.get(id))
        assert time.thread_time() - before < 0.5  # 1 ms of work a poll, on a busy machine too
    finally:
        child.kill()
        child.wait()


def test_the_store_knows_neither_torch_nor_gradio() -> None:
    code = (
        "import sys, mbtsad_core.service.runner; sys.exit(any(name in sys.modules for name in ('torch', "
        "'transformers', 'gradio', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], env=ENVIRONMENT, check=False).returncode == 0
