"""A process that has imported PyTorch, transformers and the core, and forks sandboxes: a program that needs them starts
in some tenths of a second instead of three seconds or more.

    server -- fork server -- keeper -- program            (keeper.py has the last two)

It imports, forks, tells how a fork has ended, and does nothing else: it opens nothing of a visitor's, has none of the
server's secrets, and ends with the server. A fork closes every file but its three before all else, and gets the
environment, the folder and the limits that it would be started with. Where libraries would read another environment as
they are imported, another fork server is used; where a GPU is seen, which no fork may share, none is.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from typing import Any, NoReturn

from mbtsad_core.service.keeper import END, FAILED_TO_START, keep, sees_gpu

IMPORTED = (
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "mbtsad_core.service.purification",
)
PROGRAMS = ("mbtsad_core.service.preflight", "mbtsad_core.service.worker")
PYTHON = (sys.executable, "-P", "-m")
# What no library reads as it is imported
OWN = ("HOME", "TMPDIR", "CUDA_VISIBLE_DEVICES", "MBTSAD_NICE", "MBTSAD_CAUSAL_LM", "WNSEARCHDIR")
MESSAGE = 1 << 20  # bytes of what is asked, at most
READY = 60.0  # seconds for the imports, at most
LOOK = 0.1  # seconds between two looks whether it is still wanted

_servers: dict[frozenset[tuple[str, str]], socket.socket] = {}
_lock = threading.Lock()


class Unwanted(Exception):
    """Nobody wants the program any more that was to be started."""


class Forked:
    """A keeper that was forked: of subprocess.Popen, what is used of a keeper."""

    def __init__(self, told: socket.socket, unwanted: Callable[[], bool]) -> None:
        told.settimeout(LOOK)
        self._told, self._lock = told, threading.Lock()
        weakref.finalize(self, told.close)
        deadline = time.monotonic() + READY
        while not wait([told], LOOK) and time.monotonic() < deadline:
            if unwanted():
                told.shutdown(socket.SHUT_RDWR)  # a fork that was not told of by now never is, and ends at once
                if pid := told.recv(20):
                    os.kill(int(pid), END)
                raise Unwanted
        self.pid = int(told.recv(20))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not wait([self._told], timeout):
            raise subprocess.TimeoutExpired(f"the keeper {self.pid}", timeout or 0)
        with self._lock:
            if self.returncode is None:  # nothing is said where the fork server was killed
                self.returncode = int(self._told.recv(20) or -signal.SIGKILL)
            return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork(
    asked: Mapping[str, Any], env: Mapping[str, str], files: Sequence[int], unwanted: Callable[[], bool]
) -> Forked | None:
    """The keeper of a program, forked, with these three files; None where it is to be started anew. `asked` is what
    `keep` takes, and the folder. Raises Unwanted where it is `unwanted` before the fork server has imported all."""
    program = asked["program"]
    if tuple(program[:3]) != PYTHON or program[3] not in PROGRAMS or sys.platform != "linux" or sees_gpu(env):
        return None
    read = {name: value for name, value in env.items() if name not in OWN}
    message = json.dumps({**asked, "env": dict(env)}).encode()
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with its:
            socket.send_fds(_server(read), [message], [*files, its.fileno()])
        return Forked(ours, unwanted)
    except (OSError, ValueError):  # it was killed
        ours.close()
        with _lock:
            _servers.pop(frozenset(read.items()), None)
        return None


def _server(read: dict[str, str]) -> socket.socket:
    """The fork server whose libraries have read this environment, started where there is none."""
    key = frozenset(read.items())
    with _lock:
        if key not in _servers:
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            nothing = subprocess.DEVNULL
            with its:
                process = subprocess.Popen(
                    [*PYTHON, "mbtsad_core.service.forkserver", str(its.fileno())],
                    cwd="/",
                    env=read | {"CUDA_VISIBLE_DEVICES": ""},
                    pass_fds=[its.fileno()],
                    stdin=nothing,
                    stdout=nothing,
                    stderr=nothing,
                    start_new_session=True,
                )
            atexit.register(_end, process, ours)
            _servers[key] = ours
        return _servers[key]


def _end(process: subprocess.Popen[bytes], ours: socket.socket) -> None:
    ours.close()
    process.kill()
    process.wait()


# ---------------------------------------------------------------- the fork server


def main(arguments: Sequence[str]) -> NoReturn:
    server = socket.socket(fileno=int(arguments[0]))
    gc.disable()  # which would look through what is imported again and again
    for module in IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # so that no fork writes to what all share
    gc.enable()
    ended, waker = os.pipe()
    for fd in (ended, waker):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    forked: dict[int, int] = {}  # the processes, and where to tell of each
    while True:
        ready = wait([server, ended])
        if ended in ready:
            os.read(ended, 4096)
            _tell(forked)
        if server in ready:
            message, fds, *_ = socket.recv_fds(server, MESSAGE, 4)
            if not message:  # the server has ended
                os._exit(0)
            if wait([told := fds.pop()], 0):  # nobody waits for it any more
                fds.append(told)
            elif pid := os.fork():
                forked[pid] = told
                try:
                    os.write(told, b"%d" % pid)
                except OSError:  # unwanted since a moment ago
                    os.kill(pid, signal.SIGKILL)
            else:
                server.detach()
                _become(json.loads(message), fds)
            for fd in fds:
                os.close(fd)


def _tell(forked: dict[int, int]) -> None:
    """Let go of the forks that have ended, and tell how they did."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            told = forked.pop(found[0])
            with contextlib.suppress(OSError):  # nobody waits for it
                os.write(told, b"%d" % os.waitstatus_to_exitcode(found[1]))
            os.close(told)


def _become(asked: dict[str, Any], fds: Sequence[int]) -> NoReturn:
    """In the fork: the keeper of a program, and in its own fork the program."""
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        for fd, place in zip(fds[:3], range(3), strict=True):
            os.dup2(fd, place)
        _close_files()
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["env"])
        keep(asked, _run)
    finally:  # never back into the loop
        os._exit(FAILED_TO_START)


def _close_files() -> None:
    """All but standard input, output and error."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


def _run(program: list[str]) -> NoReturn:
    """The program, in this process: what `python -P -m` would do."""
    _close_files()
    code: Any = 1
    try:
        sys.argv = program[3:]
        runpy.run_module(program[3], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
