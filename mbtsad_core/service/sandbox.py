"""A sandbox: a program in a process of its own, with limits, without the server's secrets, in a folder of its own, and
killed whole.

    server -- keeper -- program -- whatever it starts

The keeper (`python -m mbtsad_core.service.sandbox`) is a small process between the server and the program. It sets the
limits, starts the program in a session of its own, and stays: a process whose parent dies becomes the keeper's child
(it is a "subreaper"), also one that has left the program's session. So once the program ends, or a limit is reached,
the keeper ends all that is left.

The kernel holds the limits of each process: CPU time, file size, open files, memory. The keeper looks at what no limit
of a process can hold: the clock, the number of processes, the memory of all of them together.

What the sandbox does not hold stands in docs/vetting.md. Neither PyTorch nor Gradio is loaded here.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NoReturn

from mbtsad_core.config import SandboxConfig, from_dict, to_dict

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

Limit = Literal["memory", "cpu_seconds", "seconds", "processes"]
"""A limit at whose reach the program is ended; at the others an operation of the program fails."""

MEGABYTE = 1 << 20
LOOK = (0.05, 1.0)  # seconds between two looks of the keeper: at first, and once it has waited long
LIBRARIES = 16 << 30  # bytes of addresses for what is mapped and not taken: PyTorch's code, files of weights
ANSWER = 16 * MEGABYTE  # of what a program writes, read at most
PATIENCE = 30.0  # seconds for the keeper to end what it keeps
FAILED_TO_START = 127
# Tells the keeper to end all; SIGTERM is passed on to the program
END = signal.SIGHUP if hasattr(signal, "SIGHUP") else signal.SIGTERM

# How the keeper itself ends where a limit was reached: its parent, which may be another server by then, needs no file
# to be told.
ENDS: dict[int, Limit] = (
    {signal.SIGXCPU: "cpu_seconds", signal.SIGALRM: "seconds", signal.SIGUSR1: "memory", signal.SIGUSR2: "processes"}
    if resource
    else {}
)

# All that a program gets of the server's environment
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38  # of Linux, linux/prctl.h


@dataclass(frozen=True, slots=True)
class Ended:
    """How a sandboxed program ended.

    code   exit status; -N where signal N ended it
    limit  that was reached and for which it was ended, if one was
    out    what it wrote to standard output, and `err` to standard error: the first bytes, up to ANSWER
    """

    code: int
    limit: Limit | None
    out: bytes
    err: bytes


def missing() -> tuple[str, ...]:
    """What of a sandbox is not to be had on this system, in words; nothing on Linux."""
    if resource is None:
        return ("limits on memory, CPU time, file size and open files", "an end of all its processes")
    lacking = []
    if sys.platform != "linux":
        lacking += [
            "a limit on memory",
            "a limit on the number of processes",
            "an end of processes that leave its group",
        ]
    elif not _children_file(os.getpid()).exists():  # a kernel built without it, and some that are imitated
        lacking += ["a limit on the memory of all its processes together and on their number"]
    return tuple(lacking)


def environment(folder: Path, *, threads: int = 1, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a sandboxed program: the few names that are passed on, its folder for home and temporary
    files, `more`; nothing else."""
    found = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    found |= {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONUNBUFFERED": "1",
    }
    if site.ENABLE_USER_SITE:  # packages in the home that the program does not have
        found["PYTHONUSERBASE"] = site.getuserbase()
    found |= dict.fromkeys(THREADS, str(threads)) | {
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return found | dict(more or {})


def caches() -> dict[str, str]:
    """Where this process keeps models and data sets of the Hub, for a program that shall find them: its home, and a
    token in it, are not."""
    from huggingface_hub import constants

    data = os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets"
    return {
        name: str(Path(place).absolute())
        for name, place in (("HF_HUB_CACHE", constants.HF_HUB_CACHE), ("HF_DATASETS_CACHE", data))
    }


def start(
    program: Sequence[str],
    folder: Path,
    limits: SandboxConfig,
    env: Mapping[str, str],
    *,
    outlives: bool = False,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program in a sandbox, in `folder`, which exists. The process that is returned is its keeper: it ends as
    the program does, or by a signal of ENDS where a limit was reached. SIGTERM to it reaches the program, END ends all.

    outlives  goes on when this process ends; else it is ended when the thread that started it does
    """
    asked = json.dumps({"limits": to_dict(limits), "program": list(program), "outlives": outlives})
    command = [sys.executable, "-P", "-m", "mbtsad_core.service.sandbox", asked]
    return subprocess.Popen(
        command, cwd=folder, env=dict(env), stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
    )


def run(
    program: Sequence[str], folder: Path, limits: SandboxConfig, env: Mapping[str, str], given: bytes = b""
) -> Ended:
    """Run a program in a sandbox to its end; it reads `given` from standard input."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        # Files: a pipe may be left open
        source.write(given)
        source.seek(0)
        keeper = start(program, folder, limits, env, stdin=source, stdout=out, stderr=err)
        limit: Limit | None = None
        try:
            keeper.wait(limits.seconds + PATIENCE)
        except subprocess.TimeoutExpired:  # the keeper itself was stopped
            limit = "seconds"
        finally:
            end(keeper)
        out.seek(0)
        err.seek(0)
        return Ended(keeper.returncode, limit or ENDS.get(-keeper.returncode), out.read(ANSWER), err.read(ANSWER))


def end(keeper: subprocess.Popen[bytes]) -> None:
    """End all that a keeper keeps, and wait for it."""
    if keeper.poll() is None:
        keeper.send_signal(END)
    try:
        keeper.wait(PATIENCE)
    except subprocess.TimeoutExpired:  # the program has stopped it: it goes, and the program with it
        keeper.kill()
        keeper.wait()


def said(limit: Limit, limits: SandboxConfig) -> str:
    """What a limit allows, for a message: "at most 300 seconds"."""
    return (
        "at most "
        + {
            "memory": f"{megabytes(limits)} megabytes of memory",
            "cpu_seconds": f"{_seconds(limits.cpu_seconds)} of CPU time",
            "seconds": _seconds(limits.seconds),
            "processes": f"{limits.processes} {'process' if limits.processes == 1 else 'processes'} at a time",
        }[limit]
    )


def _seconds(number: float) -> str:
    return f"{number:g} {'second' if number == 1 else 'seconds'}"


def megabytes(limits: SandboxConfig) -> int:
    """The memory that the limits allow."""
    return limits.memory or (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MEGABYTE)


# ---------------------------------------------------------------- the keeper


def main(arguments: Sequence[str]) -> NoReturn:
    asked = json.loads(arguments[0])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limits = from_dict(SandboxConfig, asked["limits"])
    status, limit = _keep(asked["program"], limits, bool(asked["outlives"]))
    if limit:
        status = next(number for number, name in ENDS.items() if name == limit)
    elif os.WIFSIGNALED(status):
        status = os.WTERMSIG(status)
    else:
        os._exit(os.WEXITSTATUS(status))
    with contextlib.suppress(OSError):  # SIGKILL is always as it was
        signal.signal(status, signal.SIG_DFL)
    os.kill(os.getpid(), status)
    os._exit(128 + status)  # a signal that ends nobody by itself


def _keep(program: list[str], limits: SandboxConfig, outlives: bool) -> tuple[int, Limit | None]:
    """Start the program, wait for its end, and end what it leaves. Returns its wait status, and the limit that it
    reached."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    waking, waker = os.pipe()
    for fd in (waking, waker):
        os.set_blocking(fd, False)
    told: list[int] = []
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, END, signal.SIGCHLD):
        signal.signal(number, lambda number, frame: told.append(number))
    server = os.getppid()
    if not outlives:
        _prctl(PR_SET_PDEATHSIG, END)
        if os.getppid() != server:  # gone before it could be asked for
            told.append(END)
    child = os.fork()
    if child == 0:
        _become(program, limits)
    deadline, limit, look = time.monotonic() + limits.seconds, None, LOOK[0]
    while (ended := _reap(child)) is None:
        if END in told or signal.SIGINT in told:
            break
        if signal.SIGTERM in told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        told.clear()
        if limit := _reached(limits, deadline):
            break
        _wait(waking, min(look, max(0.0, deadline - time.monotonic())))
        look = min(LOOK[1], 1.1 * look)
    rest = _end_all(child)
    if ended is None:
        return (rest if rest is not None else int(signal.SIGKILL)), limit
    status, seconds = ended
    if os.WIFSIGNALED(status) and (
        os.WTERMSIG(status) == signal.SIGXCPU
        or (os.WTERMSIG(status) == signal.SIGKILL and seconds >= limits.cpu_seconds)
    ):
        limit = "cpu_seconds"  # SIGKILL: it did not listen to the first signal
    return status, limit


def _wait(waking: int, seconds: float) -> None:
    """Until a signal comes, or so long."""
    select.select([waking], [], [], seconds)
    with contextlib.suppress(BlockingIOError):
        os.read(waking, 4096)


def _become(program: list[str], limits: SandboxConfig) -> NoReturn:
    """In the new process: the program, within its limits."""
    keeper = os.getppid()
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, END, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # of the keeper's death
        _prctl(PR_SET_NO_NEW_PRIVS, 1)  # no program that it starts has more rights than it
        for which, value in _rlimits(limits):
            hard = resource.getrlimit(which)[1]
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            # At its CPU limit a process is sent SIGXCPU, which it may ignore; a second later it is killed.
            with contextlib.suppress(ValueError, OSError):  # not of this system: `missing` says so
                over = (
                    most + 1
                    if which == resource.RLIMIT_CPU and (hard == resource.RLIM_INFINITY or most < hard)
                    else most
                )
                resource.setrlimit(which, (most, over))
        if os.getppid() == keeper:
            os.execvpe(program[0], program, os.environ)
    except OSError as error:
        os.write(2, f"{program[0]} could not be started in a sandbox: {error}\n".encode())
    os._exit(FAILED_TO_START)


def _rlimits(limits: SandboxConfig) -> Iterator[tuple[int, int]]:
    """The limits that the kernel holds for each process by itself.

    RLIMIT_DATA counts what a process may write to, taken or only asked for; PyTorch takes 0.4 GB of it before any
    weight, and asks for little beyond. RLIMIT_AS counts reserved addresses and mapped files too, 1.4 GB then, so it is
    set far above: it is there for memory that is shared, which the other does not count. CUDA reserves hundreds of
    gigabytes of addresses; where a GPU is seen, neither is set, and the keeper's look at the memory in use is what is
    left. RLIMIT_NPROC is not used: it counts all processes of a user, those of the server and its other visitors too,
    and does not hold for root.
    """
    yield resource.RLIMIT_CORE, 0
    yield resource.RLIMIT_CPU, limits.cpu_seconds
    yield resource.RLIMIT_FSIZE, limits.file_megabytes * MEGABYTE
    yield resource.RLIMIT_NOFILE, limits.open_files
    if not _sees_gpu():
        yield resource.RLIMIT_DATA, megabytes(limits) * MEGABYTE
        yield resource.RLIMIT_AS, megabytes(limits) * MEGABYTE + LIBRARIES


def _sees_gpu() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and any(
        Path(device).exists() for device in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
    )


def _reached(limits: SandboxConfig, deadline: float) -> Limit | None:
    """The limit on the whole that is reached, if one is."""
    if time.monotonic() >= deadline:
        return "seconds"
    found = _descendants(os.getpid())
    if len(found) > limits.processes:
        return "processes"
    return "memory" if sum(map(_resident, found)) > megabytes(limits) * MEGABYTE else None


def _children_file(pid: int) -> Path:
    return Path(f"/proc/{pid}/task/{pid}/children")


def _descendants(pid: int) -> list[int]:
    """The living processes below one, found through every thread that may have started one."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for tasks in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has ended
                below = [int(child) for child in tasks.read_text().split()]
                found += below
                waiting += below
    return found


def _resident(pid: int) -> int:
    """Bytes of memory that a process has; shared memory and the parts of files that it reads count."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _reap(child: int) -> tuple[int, float] | None:
    """The wait status of the program and the seconds of CPU time that it took, once it has ended; what else has ended
    is let go."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.wait4(-1, os.WNOHANG))[0]:
            if found[0] == child:
                return found[1], found[2].ru_utime + found[2].ru_stime
    return None


def _end_all(child: int) -> int | None:
    """Kill the program's session and all else below this process, until nothing is left. Returns the program's status
    where it had not ended."""
    status = None
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # all of a group at once, which no fork outruns
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            ended, how = os.waitpid(-1, 0)  # whoever loses its parent comes here, so at last there is none
        except ChildProcessError:
            return status
        status = how if ended == child else status


def _prctl(what: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(ctypes.c_int(what), *(ctypes.c_ulong(int(v)) for v in (value, 0, 0, 0)))


if __name__ == "__main__":
    main(sys.argv[1:])
