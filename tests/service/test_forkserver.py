"""What holds of a sandboxed program that is started holds of one that is forked, and the fork server has seen nothing
of either's."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from mbtsad_core.config import SandboxConfig
from mbtsad_core.service import forkserver
from mbtsad_core.service.forkserver import Forked
from mbtsad_core.service.sandbox import Ended, end, environment, run, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")

RUNS_CODE = "tests.service.code_runner"
FORKED = [sys.executable, "-P", "-m", RUNS_CODE]
STARTED = [sys.executable, "-S", "-c"]


@pytest.fixture(autouse=True)
def _runs_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "PROGRAMS", (RUNS_CODE,))


def forked(code: str, folder: Path, limits: SandboxConfig = SandboxConfig(), given: bytes = b"") -> Ended:
    return run([*FORKED, code], folder, limits, environment(folder), given)


SEES = """
import gc, json, os, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
keeper = os.getppid()
fork_server = open(f"/proc/{keeper}/status").read().split("PPid:")[1].split()[0]
print(json.dumps({
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "files": sorted(os.listdir("/proc/self/fd")),
    "keeper's files": sorted(os.listdir(f"/proc/{keeper}/fd")),
    "environ": open("/proc/self/environ").read() + open(f"/proc/{keeper}/environ").read(),
    "new privileges": status["NoNewPrivs"].strip(),
    "session": os.getsid(0) == os.getpid(),
    "imported": "torch" in sys.modules and "transformers" in sys.modules,
    "GPU": sys.modules["torch"].cuda.is_initialized(),
    "threads of the fork server": len(os.listdir(f"/proc/{fork_server}/task")),
    "given": sys.stdin.read(),
    "collects": gc.isenabled(),
    "frozen": gc.get_freeze_count() > 100_000,
    "looked through": gc.get_stats()[2]["collections"],
}))
print("note", file=sys.stderr)
sys.exit(7)
"""


def test_it_sees_its_own_environment_folder_and_files_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a secret")
    ended = forked(SEES, tmp_path, given=b"given")
    assert (ended.code, ended.limit, ended.err) == (7, None, b"note\n")
    seen = json.loads(ended.out)
    assert (seen["imported"], seen["GPU"], seen["threads of the fork server"]) == (True, False, 1)
    assert (seen["collects"], seen["frozen"], seen["looked through"] <= 2) == (True, True, True)  # once by itself
    assert seen["environment"] == environment(tmp_path)
    assert "a secret" not in seen["environ"]
    assert (seen["folder"], seen["given"]) == (str(tmp_path), "given")
    assert seen["files"] == ["0", "1", "2", "3"]  # the last lists them
    assert seen["keeper's files"] == ["0", "1", "2", "3", "4"]  # two by which signals wake it
    assert (seen["new privileges"], seen["session"]) == ("1", True)


HOG = """
import mmap, signal
hog = mmap.mmap(-1, 900 << 20)
for _ in range(900): hog.write(bytes(1 << 20))
signal.pause()  # what memory is used is looked at now and then
"""
ENDS = {
    "pass": (0, None),
    "raise SystemExit('words')": (1, None),
    "1 / 0": (1, None),
    "import os; os.kill(os.getpid(), 11)": (-signal.SIGSEGV, None),
    "bytearray(700 << 20)": (1, None),
    "open('large', 'wb').write(bytes(2 << 20))": (1, None),
    "import signal; signal.pause()": (-signal.SIGALRM, "seconds"),
    "while True: pass": (-signal.SIGXCPU, "cpu_seconds"),
    HOG: (-signal.SIGUSR1, "memory"),
    "import os, signal\nfor _ in range(3): os.fork() or signal.pause()\nsignal.pause()": (-signal.SIGUSR2, "processes"),
}


def test_it_ends_as_it_would_and_at_the_same_limits(tmp_path: Path) -> None:
    for code, (status, limit) in ENDS.items():
        ended = forked(
            code,
            tmp_path,
            SandboxConfig(
                memory=1000,
                file_megabytes=1,
                processes=2,
                cpu_seconds=1 if "while" in code else 60,
                seconds=1.0 if limit == "seconds" else 60.0,
            ),
        )
        assert (ended.code, ended.limit) == (status, limit), (code, ended)


LEAVES = """
import os, signal
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    signal.pause()
signal.pause()
"""


def test_it_is_ended_whole_and_told_politely(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    keeper = start([*FORKED, LEAVES], tmp_path, SandboxConfig(), environment(tmp_path), stdout=writing)
    os.close(writing)
    assert isinstance(keeper, Forked)
    with os.fdopen(reading) as said:
        left = os.pidfd_open(int(said.readline()))
        assert keeper.poll() is None
        end(keeper)
        assert keeper.returncode == keeper.wait() == -signal.SIGKILL
        assert said.read() == ""  # nobody is left who holds its output
    os.close(left)
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(5)); print(flush=True); signal.pause()"
    reading, writing = os.pipe()
    keeper = start([*FORKED, code], tmp_path, SandboxConfig(), environment(tmp_path), stdout=writing)
    os.close(writing)
    with os.fdopen(reading) as said:
        said.readline()
        keeper.terminate()
        assert keeper.wait(60) == 5


def test_a_fork_server_that_was_killed_is_replaced(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getppid(), 'torch' in sys.modules)"
    keeper_of = "import os; print(open(f'/proc/{os.getppid()}/status').read().split('PPid:')[1].split()[0])"
    first = int(forked(keeper_of, tmp_path).out)
    os.kill(first, signal.SIGKILL)
    assert forked(code, tmp_path).out.endswith((b"True\n", b"False\n"))  # whoever started it
    assert int(forked(keeper_of, tmp_path).out) != first


SERVER = """
import os, sys
from pathlib import Path
from mbtsad_core.config import SandboxConfig
from mbtsad_core.service import forkserver
from mbtsad_core.service.sandbox import environment, start
forkserver.PROGRAMS = ("tests.service.code_runner",)
for outlives in (True, False):
    code = f"import os, signal; print({int(outlives)}, os.getppid(), os.getpid(), flush=True); signal.pause()"
    command = [sys.executable, "-P", "-m", "tests.service.code_runner", code]
    start(command, Path(sys.argv[1]), SandboxConfig(), environment(Path(sys.argv[1])), outlives=outlives, stdout=1)
sys.stdin.read()
"""


def test_it_ends_with_the_server_unless_it_shall_outlive_it_and_the_fork_server_does(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-P", "-c", SERVER, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdin
    assert server.stdout
    with server.stdin, server.stdout:
        (_, _, ends), (_, keeper, outlives) = sorted([*map(int, server.stdout.readline().split())] for _ in range(2))
        fork_server = int(Path(f"/proc/{keeper}/status").read_text().split("PPid:")[1].split()[0])
        with contextlib.ExitStack() as closed:
            ending, staying = ([os.pidfd_open(pid) for pid in pids] for pids in ((ends, fork_server), (outlives,)))
            for pidfd in ending + staying:
                closed.callback(os.close, pidfd)
            server.kill()
            server.wait()
            assert all(select.select([pidfd], [], [], 60.0)[0] for pidfd in ending)
            assert not select.select(staying, [], [], 0)[0]
            os.kill(outlives, signal.SIGKILL)


def test_nothing_is_forked_where_a_gpu_is_seen_or_for_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys; print('torch' in sys.modules)"
    assert run([*STARTED, code], tmp_path, SandboxConfig(), environment(tmp_path)).out == b"False\n"
    monkeypatch.setattr("mbtsad_core.service.forkserver.sees_gpu", lambda env: True)
    assert forked(code, tmp_path).out == b"False\n"
