"""A power cut between any two writes: what the disk may hold afterwards is either done and whole, or can be gone on
with.

A run is made once, and every sync, rename and removal in it is noted. From what was synced by then follows what a disk
may hold after a power cut at that moment: what was not synced may be there, or be lost, or be there in part, and so may
each change of a directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_bert, tiny_texts, write_tsv

from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig, SplitConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.service.purification import Request, execute
from mbtsad_core.service.run_folder import CHECKPOINT, EVENTS, RUN, model_zip, read_events, write_whole
from mbtsad_core.steps import drain
from mbtsad_core.training.state import TrainState, read_state

# Four steps; a checkpoint after each
STAGE: dict[str, Any] = {"learning_rate": 1e-3, "epochs": 1, "observe_every": 2, "save_every": 0.0}
World = dict[str, bytes | None]
"""What a disk holds: bytes by path; None for a directory."""


class Disk:
    """What is in a directory, and what of it is sure to outlast a power cut."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.contents: dict[int, bytes] = {}  # synced, by inode
        self.entries: dict[int, dict[str, int]] = {root.stat().st_ino: {}}  # synced, by inode of the directory
        self.held: dict[int, int] = {}  # a descriptor of every inode ever seen, so that none is used again
        self.worlds: dict[str, World] = {}
        self.moments: list[set[str]] = []  # which of them may be found after each cut

    def close(self) -> None:
        for descriptor in self.held.values():
            os.close(descriptor)

    def _hold(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self.held:
            self.held[inode] = os.open(path, os.O_RDONLY)
        return inode

    def _read(self, inode: int) -> bytes:
        descriptor = self.held[inode]
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)

    def _now(self) -> dict[int, dict[str, int]]:
        """The entries of every directory as they are."""
        found = {}
        for directory in (self.root, *(p for p in self.root.rglob("*") if p.is_dir())):
            found[self._hold(directory)] = {p.name: self._hold(p) for p in directory.iterdir()}
        return found

    def _world(self, entries: dict[int, dict[str, int]], content: Callable[[int], bytes]) -> World:
        world: World = {}

        def walk(inode: int, at: str) -> None:
            for name, child in entries.get(inode, {}).items():
                if child in self.held and os.path.isdir(f"/proc/self/fd/{self.held[child]}"):
                    world[at + name] = None
                    walk(child, f"{at}{name}/")
                else:
                    world[at + name] = content(child)

        walk(self.root.stat().st_ino, "")
        return world

    def cut(self) -> None:
        """Note what may be found if the power fails now."""
        now = self._now()
        lost: Callable[[int], bytes] = lambda inode: self.contents.get(inode, b"")  # noqa: E731

        def torn(inode: int) -> bytes:
            synced, all_of_it = self.contents.get(inode, b""), self._read(inode)
            return all_of_it[: (len(synced) + len(all_of_it)) // 2] if all_of_it.startswith(synced) else synced

        either = {**now, **self.entries}  # a directory that was never synced has what it has, if it is there at all
        found = [self._world(entries, content) for entries in (now, either) for content in (lost, torn, self._read)]
        for directory, synced in self.entries.items():  # one change of a directory without the others
            for name in synced.keys() | now.get(directory, {}).keys():
                changed = dict(synced)
                changed.pop(name, None)
                if name in now.get(directory, {}):
                    changed[name] = now[directory][name]
                if changed != synced:
                    found += [self._world({**either, directory: changed}, content) for content in (lost, self._read)]
        self.moments.append(set())
        for world in found:
            digest = hashlib.sha256(
                repr(sorted((k, v and hashlib.sha256(v).digest()) for k, v in world.items())).encode()
            )
            self.worlds.setdefault(digest.hexdigest(), world)
            self.moments[-1].add(digest.hexdigest())

    def synced(self, descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        now = self._now()
        if inode in now:
            self.entries[inode] = now[inode]
        elif inode in self.held:
            self.contents[inode] = self._read(inode)


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk on which every sync, rename and removal of a file is noted."""
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk")

    def noting(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            disk.cut()
            found = real(*args, **kwargs)
            if name == "fsync":
                disk.synced(args[0])
            return found

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "replace", "rename", "unlink"):
        noting(name)
    yield disk
    disk.close()


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("example")
    save_classifier(tiny_bert(), folder / "suspect")
    clean, test = (
        write_tsv(folder / "clean.tsv", tiny_texts(64)),
        write_tsv(folder / "test.tsv", tiny_texts(20, seed=2)),
    )
    config = PurifyConfig(
        found_tokens=0, split=SplitConfig(copies=2), retrain=RetrainConfig(**STAGE), distil=DistilConfig(**STAGE)
    )
    return Request(
        str(folder / "suspect"),
        str(clean),
        str(test),
        ("cf",),
        "positive",
        config=config,
        runtime=RuntimeConfig(device="cpu", threads=1),
    )


def put(world: World, root: Path) -> Path:
    """Lay a world out as files."""
    root.mkdir()
    for path, content in sorted(world.items()):
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)
    return root


def model_bytes(out: Path) -> list[bytes]:
    return [(out / folder / "model.safetensors").read_bytes() for folder in ("model", "teacher")]


def inspect(out: Path, expected: list[bytes], events: list[Any]) -> str:
    """What a run is after a power cut; fails where it can neither be shown nor gone on with."""
    if (out / "report.json").exists():
        assert json.loads((out / "report.json").read_text())["purified"]["cacc_n"] == 20
        assert model_bytes(out) == expected
        assert (out / "model" / "README.md").stat().st_size > 100
        for folder in ("model", "teacher"):
            json.loads((out / folder / "config.json").read_bytes())
            json.loads((out / folder / "tokenizer.json").read_bytes())
        assert (out / "report.html").read_text().endswith("</html>\n")
        assert read_events(out) == events
        return "done"
    if not (out / RUN).exists():
        return "not begun"
    json.loads((out / RUN).read_text())
    found = read_events(out)
    assert found == events[: len(found)]
    if not (out / CHECKPOINT).exists():
        return "begun"
    state = read_state(out / CHECKPOINT)  # whole
    assert (state.stage, state.step) in [(e.stage, e.step) for e in found]
    return f"{state.stage} {state.step}"


ORDER = ["not begun", "begun", *(f"{stage} {step}" for stage in ("retrain", "distil") for step in range(1, 5)), "done"]


@pytest.mark.parametrize(
    "each", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some go on", "each goes on"]
)
def test_a_run_outlasts_a_power_cut_at_any_moment(request_: Request, watch: Disk, tmp_path: Path, each: bool) -> None:
    events = list(execute(request_, watch.root / "run", keep_teacher=True))
    watch.cut()
    expected = model_bytes(watch.root / "run")
    outs = {digest: put(world, tmp_path / digest) / "run" for digest, world in watch.worlds.items()}
    found = {digest: inspect(out, expected, events) for digest, out in outs.items()}
    numbers = {kind: list(found.values()).count(kind) for kind in ORDER}
    print(f"\n{len(watch.moments)} moments, {len(outs)} states of the disk: {numbers}")
    assert all(numbers.values())

    least = [min(ORDER.index(found[digest]) for digest in moment) for moment in watch.moments]
    assert least == sorted(least)  # what was reached once, no later power cut takes back
    assert {found[digest] for digest in watch.moments[-1]} == {"done"}

    unfinished = [digest for digest in outs if found[digest] != "done"]
    for digest in unfinished if each else random.Random(0).sample(unfinished, 6):
        drain(execute(request_, outs[digest], resume=True, keep_teacher=True))
        assert inspect(outs[digest], expected, events) == "done", found[digest]


def test_a_zip_outlasts_a_power_cut_at_any_moment(request_: Request, watch: Disk, tmp_path: Path) -> None:
    drain(execute(request_, watch.root / "run"))
    watch.worlds.clear()
    whole = model_zip(watch.root / "run").read_bytes()
    watch.cut()
    zips = [world["run/model.zip"] for world in watch.worlds.values() if "run/model.zip" in world]
    assert zips
    assert set(zips) == {whole}


def test_a_file_that_is_renamed_before_it_is_synced_would_be_noticed(watch: Disk) -> None:
    """The same disk under a writer without care: the name is there before the bytes are."""
    path = watch.root / "report.json"
    (watch.root / "report.new").write_text("all of it")
    os.replace(watch.root / "report.new", path)
    watch.cut()
    assert {world["report.json"] for world in watch.worlds.values() if "report.json" in world} == {
        b"",
        b"all ",
        b"all of it",
    }


def test_a_file_that_is_written_whole_is_the_old_or_the_new_one(watch: Disk) -> None:
    path = watch.root / "report.json"
    write_whole(path, "the old one")
    watch.worlds.clear()
    write_whole(path, "the new one")
    assert {world["report.json"] for world in watch.worlds.values()} == {b"the old one", b"the new one"}
    watch.worlds.clear()
    watch.cut()
    assert {world["report.json"] for world in watch.worlds.values()} == {b"the new one"}  # promised is promised


def test_a_run_whose_last_events_a_power_cut_damaged_goes_on(request_: Request, tmp_path: Path) -> None:
    out = tmp_path / "run"
    steps = execute(request_, out)
    events = [next(steps) for _ in range(4)]
    steps.close()
    assert isinstance(read_state(out / CHECKPOINT), TrainState)
    with open(out / EVENTS, "ab") as file:
        file.write(b"\0" * 90 + b'"metrics": {}}\n' + b'{"stage": "retrain", "step": 9, "total": 4, "metrics": {}}\n')
    assert read_events(out) == events
    rest = list(execute(request_, out, resume=True))
    assert read_events(out) == events + rest
