"""The keeper: a small process between the server and a sandboxed program, which sets the limits, starts the program in
a session of its own, and stays until all that came of it has ended (sandbox.py says why)."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

from mbtsad_core.config import SandboxConfig, from_dict

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

Limit = Literal["memory", "cpu_seconds", "seconds", "processes"]
"""A limit at whose reach the program is ended; at the others an operation of the program fails."""

MEGABYTE = 1 << 20
LOOK = (0.05, 1.0)  # seconds between two looks of the keeper: at first, and once it has waited long
LIBRARIES = 16 << 30  # bytes of addresses for what is mapped and not taken: PyTorch's code, files of weights
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

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38  # of Linux, linux/prctl.h


def execute(program: list[str]) -> None:
    os.execvpe(program[0], program, os.environ)


def keep(asked: Mapping[str, Any], become: Callable[[list[str]], None] = execute) -> NoReturn:
    """Be the keeper of a program, and end as it does. `become` turns the new process into it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limits = from_dict(SandboxConfig, asked["limits"])
    status, limit = _keep(asked["program"], limits, bool(asked["outlives"]), become)
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


def _keep(
    program: list[str], limits: SandboxConfig, outlives: bool, become: Callable[[list[str]], None]
) -> tuple[int, Limit | None]:
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
        _become(program, limits, become)
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


def _become(program: list[str], limits: SandboxConfig, become: Callable[[list[str]], None]) -> NoReturn:
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
            become(program)
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
    if not sees_gpu(os.environ):
        yield resource.RLIMIT_DATA, megabytes(limits) * MEGABYTE
        yield resource.RLIMIT_AS, megabytes(limits) * MEGABYTE + LIBRARIES


def sees_gpu(env: Mapping[str, str]) -> bool:
    return env.get("CUDA_VISIBLE_DEVICES") != "" and any(
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


def children_file(pid: int) -> Path:
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


def megabytes(limits: SandboxConfig) -> int:
    """The memory that the limits allow."""
    return limits.memory or (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MEGABYTE)


if __name__ == "__main__":
    keep(json.loads(sys.argv[1]))
