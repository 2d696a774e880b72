"""Jobs on a host that lends a GPU for a call at a time: a stand-in for its package `spaces` (zero_gpu_host.py) forks,
pickles and kills as it does."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from example import tiny_request, undisturbed, weights

from mbtsad_core.config import RuntimeConfig
from mbtsad_core.page import launch
from mbtsad_core.page.session import Session
from mbtsad_core.page.site import Site
from mbtsad_core.service.purification import Request
from mbtsad_core.service.runner import AttachedRunner

HOST = Path(__file__).with_name("zero_gpu_host.py")
STEPS = [["measure", 1], *([stage, step] for stage in ("retrain", "distil") for step in range(1, 25))]
CUT_AFTER = 33  # values: within the second stage


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    return tiny_request(tmp_path_factory.mktemp("example"), epochs=2)


@pytest.fixture(scope="module")
def expected(request_: Request, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the purified model of an undisturbed run."""
    return undisturbed(request_, tmp_path_factory.mktemp("undisturbed"))


def on_host(folder: Path, request: Request, seconds: float, **environment: int) -> dict[str, Any]:
    """Run the request on a host with the stand-in, in slices of so many seconds; what its process printed."""
    (folder / "site").mkdir()
    shutil.copy(HOST, folder / "site" / "spaces.py")
    (folder / "request.json").write_text(json.dumps(request.to_dict()), encoding="utf-8")
    passed = os.environ | {name: str(value) for name, value in environment.items()}
    passed |= {"SPACES_ZERO_GPU": "true", "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(ROOT)])}
    command = [sys.executable, "-P", str(HOST), str(folder / "jobs"), str(folder / "request.json"), str(seconds)]
    run = subprocess.run(command, env=passed, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_run_in_slices_ends_with_the_weights_of_an_undisturbed_one(
    request_: Request, expected: str, tmp_path: Path
) -> None:
    """Which waits while the host has no GPU to lend, and says so."""
    found = on_host(tmp_path, request_, seconds=0.05, REFUSE=4)  # more often than a run may be lost
    assert found["refused"] == [["You have exceeded your ZeroGPU quota", "queued", 0]] * 4
    assert found["state"] == "done", found["message"]
    assert found["places"] == found["recorded"] == STEPS
    assert len(found["calls"]) >= 4 + 3
    assert set(found["calls"]) == {60}  # the most that the host lends at a time
    assert len(found["forks"]) == 1  # the host uses its fork again
    assert found["attempts"] == 1
    assert weights(Path(found["out"])) == expected


@pytest.mark.slow
def test_a_slice_that_the_host_kills_is_repeated_from_its_checkpoint(
    request_: Request, expected: str, tmp_path: Path
) -> None:
    found = on_host(tmp_path, request_, seconds=60, CUT_AFTER=CUT_AFTER)
    assert found["state"] == "done", found["message"]
    assert found["refused"] == []  # it goes on without a word of the visitor
    assert len(found["forks"]) == 2
    assert found["attempts"] == 2
    # Some come twice: those after the checkpoint
    assert list(map(list, dict.fromkeys(map(tuple, found["places"])))) == STEPS
    assert found["recorded"] == STEPS
    assert weights(Path(found["out"])) == expected


FORKS = """
import multiprocessing, os, sys, threading
from pathlib import Path
from mbtsad_core.service.store import Store, is_held

root = Path(sys.argv[1])
store = Store(root)
id = store.create({})
store.claim(id)
ended = threading.Event()

def look():
    while not ended.is_set():
        store.beat(id)
        is_held(store.directory(id))
        looks.append(1)

def slice():
    with Store(root) as own:
        for _ in range(5):
            own.beat(id)
            own.get(id)
    idle.wait()

looks = []
context = multiprocessing.get_context("fork")
idle = context.Event()
threads = [threading.Thread(target=look) for _ in range(4)]
for thread in threads:
    thread.start()
forks = [context.Process(target=slice, daemon=True) for _ in range(40)]
for fork in forks:
    seen = len(looks)
    while len(looks) < seen + 10:
        pass
    fork.start()
ended.set()
for thread in threads:
    thread.join()
assert not is_held(store.directory(id)), "a fork that does nothing has the lock of a job"
idle.set()
for fork in forks:
    fork.join(60 if fork is forks[0] else 1)
print(*(fork.exitcode for fork in forks))
"""


@pytest.mark.slow
def test_a_fork_takes_no_lock_along_that_another_thread_holds_just_then(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", FORKS, str(tmp_path / "jobs")]
    run = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.stdout.split() == ["0"] * 40, run.stderr


def test_the_page_itself_takes_no_gpu_where_they_are_lent_to_calls(tmp_path: Path) -> None:
    with AttachedRunner(tmp_path / "jobs") as runner:
        site = Site(tmp_path / "jobs", runner, runtime=RuntimeConfig(device="cuda"))
        assert {p.device.type for p in site.model("demo").model.parameters()} == {"cpu"}
        planting = site.plant(Session("visitor"), "ep", ("zephyr",), "positive").planting
        assert runner.job(planting).request["runtime"]["device"] == "cpu"  # it is planted beside what is lent
        assert site.runtime.device == "cuda"  # the jobs do


def test_a_slice_leaves_time_for_its_end() -> None:
    assert launch.SLICE <= 55


@pytest.mark.parametrize("value", [None, "", "0", "false"])
def test_elsewhere_there_is_nothing_to_lend(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    else:
        monkeypatch.setenv("SPACES_ZERO_GPU", value)
    assert launch.zero_gpu() is None


@pytest.mark.skipif(
    importlib.util.find_spec("spaces") is None, reason="the package spaces is not installed: pip install spaces"
)
def test_the_original_takes_what_the_stand_in_takes() -> None:
    code = """
import inspect, spaces
from mbtsad_core.service.runner import work_slice
assert "duration" in inspect.signature(spaces.GPU).parameters
assert inspect.isgeneratorfunction(work_slice)
assert spaces.GPU(duration=60)(work_slice) is work_slice  # off ZeroGPU it changes nothing
"""
    environment = {name: value for name, value in os.environ.items() if name != "SPACES_ZERO_GPU"} | {
        "PYTHONPATH": str(ROOT)
    }
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
