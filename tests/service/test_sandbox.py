"""The sandbox: real processes that take too much, leave others behind, look for secrets, or never end."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ROOT

from mbtsad_core.config import SandboxConfig
from mbtsad_core.service import sandbox
from mbtsad_core.service.keeper import ENDS, FAILED_TO_START
from mbtsad_core.service.sandbox import Ended, end, environment, missing, run, said, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the sandbox lacks what `missing` says")

LIMITS = SandboxConfig(memory=256, cpu_seconds=60, seconds=60.0, file_megabytes=1, open_files=64, processes=8)


def python(code: str) -> Sequence[str]:
    return [sys.executable, "-S", "-c", code]


def sandboxed(code: str, folder: Path, limits: SandboxConfig = LIMITS, given: bytes = b"") -> Ended:
    return run(python(code), folder, limits, environment(folder), given)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# ---------------------------------------------------------------- limits


def test_a_program_within_its_limits_reads_answers_and_ends_as_it_wants(tmp_path: Path) -> None:
    ended = sandboxed(
        "import sys; print(sys.stdin.read().upper()); print('note', file=sys.stderr); sys.exit(7)",
        tmp_path,
        given=b"given",
    )
    assert ended == Ended(7, None, b"GIVEN\n", b"note\n")


def test_memory_that_is_not_to_be_had_is_refused_to_the_program(tmp_path: Path) -> None:
    ended = sandboxed("print('began', flush=True)\nhog = bytearray(300 << 20)", tmp_path)
    assert (ended.code, ended.out) == (1, b"began\n")
    assert b"MemoryError" in ended.err
    assert sandboxed("hog = bytearray(200 << 20)", tmp_path).code == 0


HOGS = """
import os, signal
reading, writing = os.pipe()
for _ in range(3):
    if os.fork() == 0:
        hog = bytearray(b"x") * (120 << 20)
        os.write(writing, b"x")
        signal.pause()
while True:
    os.read(reading, 1)
"""


def test_memory_of_all_processes_together_is_limited(tmp_path: Path) -> None:
    """Three of 120 megabytes, of which each is allowed 256."""
    assert sandboxed(HOGS, tmp_path).limit == "memory"


SHARED = """
import mmap, signal
hog = mmap.mmap(-1, 300 << 20)  # shared, so that no limit on data counts it
for at in range(0, len(hog), 4096):
    hog[at] = 1
signal.pause()
"""


def test_shared_memory_counts(tmp_path: Path) -> None:
    assert sandboxed(SHARED, tmp_path).limit == "memory"


def test_reserved_addresses_are_limited_too(tmp_path: Path) -> None:
    code = "import mmap; mmap.mmap(-1, {} << 30)"
    assert sandboxed(code.format(8), tmp_path).code == 0
    ended = sandboxed(code.format(20), tmp_path)
    assert (ended.code, b"Cannot allocate memory" in ended.err) == (1, True)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_program_that_spins_is_ended_at_its_cpu_limit(tmp_path: Path, deaf: bool) -> None:
    code = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n" * deaf + "while True: pass"
    assert sandboxed(code, tmp_path, SandboxConfig(cpu_seconds=1)).limit == "cpu_seconds"


def test_a_program_that_sleeps_is_ended_at_its_time(tmp_path: Path) -> None:
    began = time.monotonic()
    ended = sandboxed("import signal; print('waits', flush=True); signal.pause()", tmp_path, SandboxConfig(seconds=1.0))
    assert (ended.limit, ended.out) == ("seconds", b"waits\n")
    assert 1.0 <= time.monotonic() - began < 30


def test_a_program_that_ignores_every_signal_is_ended_at_its_time(tmp_path: Path) -> None:
    code = (
        "import signal\nfor n in set(signal.Signals) - {9, 19}: signal.signal(n, signal.SIG_IGN)\nwhile True: "
        "signal.pause()"
    )
    assert sandboxed(code, tmp_path, SandboxConfig(seconds=0.5)).limit == "seconds"


WRITER = """
with open("large", "wb", buffering=0) as file:
    file.write(bytes(1 << 20))
    try:
        file.write(b"x")
    except OSError as error:
        print(error.strerror)
"""


def test_a_file_grows_to_its_limit_and_no_further(tmp_path: Path) -> None:
    assert sandboxed(WRITER, tmp_path).out == b"File too large\n"
    assert (tmp_path / "large").stat().st_size == 1 << 20  # in its own folder
    assert sandboxed("import os\nwhile True: os.write(1, bytes(1 << 16))", tmp_path).code == 1  # its output too


def test_open_files_are_limited(tmp_path: Path) -> None:
    code = (
        "kept = []\ntry:\n    while True: kept.append(open('/dev/null'))\nexcept OSError as error:\n    n = "
        "len(kept); kept.clear(); print(n, error.strerror)"
    )
    assert sandboxed(code, tmp_path).out == b"61 Too many open files\n"  # besides the three that it comes with


def test_no_core_is_left(tmp_path: Path) -> None:
    ended = sandboxed("import os; os.abort()", tmp_path)
    assert (ended.code, ended.limit, list(tmp_path.iterdir())) == (-signal.SIGABRT, None, [])


BOMB = """
import os, signal, sys
for _ in range(40):
    if os.fork() == 0:
        os.setsid()
        os.write(1, b"%d " % os.getpid())
        signal.pause()
signal.pause()
"""


def test_a_program_that_multiplies_is_ended_with_all_that_came_of_it(tmp_path: Path) -> None:
    ended = sandboxed(BOMB, tmp_path)
    assert ended.limit == "processes"
    assert all(is_gone(int(pid)) for pid in ended.out.split())


def test_every_limit_is_named_in_words() -> None:
    assert [said(limit, LIMITS) for limit in ENDS.values()] == [
        "at most 60 seconds of CPU time",
        "at most 60 seconds",
        "at most 256 megabytes of memory",
        "at most 8 processes at a time",
    ]
    assert said("processes", SandboxConfig(processes=1)) == "at most 1 process at a time"
    assert said("cpu_seconds", SandboxConfig(cpu_seconds=1)) == "at most 1 second of CPU time"
    assert (
        said("memory", SandboxConfig(memory=None))
        == f"at most {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 20} megabytes of memory"
    )
    assert missing() == ()


# ---------------------------------------------------------------- killed whole

LEAVER = """
import os, signal
reading, writing = os.pipe()
if os.fork() == 0:
    {leave}
    if os.fork() == 0:
        os.write(writing, str(os.getpid()).encode())
        signal.pause()
    os._exit(0)
print(os.read(reading, 20).decode(), flush=True)
{then}
"""


@pytest.mark.parametrize("leave", ["pass", "os.setsid()"], ids=["in its group", "out of its group"])
@pytest.mark.parametrize("then", ["", "os.kill(os.getpid(), 9)", "signal.pause()"], ids=["ends", "is killed", "stays"])
def test_what_a_program_leaves_behind_goes_with_it(tmp_path: Path, leave: str, then: str) -> None:
    ended = sandboxed(LEAVER.format(leave=leave, then=then), tmp_path, SandboxConfig(seconds=2.0))
    assert (ended.code, ended.limit) == {
        "": (0, None),
        "os.kill(os.getpid(), 9)": (-9, None),
        "signal.pause()": (-signal.SIGALRM, "seconds"),
    }[then]
    assert is_gone(int(ended.out))


def started(code: str, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A sandboxed program that outlives us, once it has said the number of a process."""
    reading, writing = os.pipe()
    keeper = start(python(code), folder, LIMITS, environment(folder), outlives=True, stdout=writing)
    os.close(writing)
    with os.fdopen(reading) as said:
        return keeper, int(said.readline())  # the whole line: a program whose reader has gone does not go on


def test_a_sandboxed_program_can_be_ended_from_outside_with_what_it_started(tmp_path: Path) -> None:
    keeper, pid = started(LEAVER.format(leave="os.setsid()", then="signal.pause()"), tmp_path)
    assert not is_gone(pid)
    end(keeper)
    assert is_gone(pid)


def test_a_polite_end_reaches_the_program(tmp_path: Path) -> None:
    code = (
        "from signal import *; import os; pthread_sigmask(SIG_BLOCK, [SIGTERM]); print(os.getpid(), flush=True); "
        "sigwait([SIGTERM]); os._exit(5)"
    )
    keeper, pid = started(code, tmp_path)
    assert os.getsid(pid) == os.getpgid(pid) == pid != keeper.pid
    keeper.terminate()
    assert keeper.wait(60) == 5


SERVER = """
import os, sys
from pathlib import Path
from mbtsad_core.config import SandboxConfig
from mbtsad_core.service.sandbox import environment, start
folder = Path(sys.argv[1])
code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
start([sys.executable, "-S", "-c", code], folder, SandboxConfig(), environment(folder), outlives=sys.argv[2] == "True", stdout=1)
sys.stdin.read()
os._exit(0)
"""


@pytest.mark.parametrize("outlives", [True, False])
def test_a_sandboxed_program_ends_with_its_server_unless_it_shall_outlive_it(tmp_path: Path, outlives: bool) -> None:
    command = [sys.executable, "-P", "-c", SERVER, str(tmp_path), str(outlives)]
    server = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin
    assert server.stdout
    with server.stdin, server.stdout:
        pid = int(server.stdout.readline())
        watched = os.pidfd_open(pid)
        server.kill()
        server.wait()
        ended = bool(select.select([watched], [], [], 0.0 if outlives else 60.0)[0])
        os.close(watched)
        assert ended != outlives
        if outlives:
            os.kill(pid, signal.SIGKILL)


# ---------------------------------------------------------------- what it sees


def test_a_program_sees_nothing_of_the_servers_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "GRADIO_SERVER_NAME",
        "MBTSAD_JOBS",
        "SSH_AUTH_SOCK",
        "LD_PRELOAD",
        "PYTHONSTARTUP",
    ):
        monkeypatch.setenv(name, "" if name == "LD_PRELOAD" else "a secret")
    code = "import json, os; print(json.dumps([dict(os.environ), os.getcwd(), sorted(os.listdir('/proc/self/fd'))]))"
    names, place, files = json.loads(sandboxed(code, tmp_path).out)
    assert place == names["HOME"] == names["TMPDIR"] == str(tmp_path)
    assert "a secret" not in names.values()
    allowed = {
        *sandbox.PASSED_ON,
        *sandbox.THREADS,
        "HOME",
        "TMPDIR",
        "PYTHONPATH",
        "PYTHONUSERBASE",
        "PYTHONUNBUFFERED",
    }
    assert names.keys() <= allowed | {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_DISABLE_TELEMETRY"}
    assert files[:3] == ["0", "1", "2"]
    assert len(files) == 4  # and the one that lists them


def test_the_keepers_environment_has_no_secret_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a secret")
    ended = sandboxed("import os; print(open(f'/proc/{os.getppid()}/environ').read())", tmp_path)
    assert ended.out.startswith(b"PATH=")
    assert b"a secret" not in ended.out


def test_no_program_that_it_starts_has_more_rights(tmp_path: Path) -> None:
    assert b"NoNewPrivs:\t1" in sandboxed("print(open('/proc/self/status').read())", tmp_path).out


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    ended = run(["/nowhere/python"], tmp_path, LIMITS, environment(tmp_path))
    assert ended.code == FAILED_TO_START
    assert b"/nowhere/python could not be started in a sandbox" in ended.err
