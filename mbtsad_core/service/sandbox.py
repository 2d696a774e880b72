"""A sandbox: a program in a process of its own, with limits, without the server's secrets, in a folder of its own, and
killed whole.

    server -- keeper -- program -- whatever it starts

The keeper (keeper.py) is a small process between the server and the program. It sets the limits, starts the program in
a session of its own, and stays: a process whose parent dies becomes the keeper's child (it is a "subreaper"), also one
that has left the program's session. So once the program ends, or a limit is reached, the keeper ends all that is left.
Keepers of what needs PyTorch are forked from a process that has it (forkserver.py).

The kernel holds the limits of each process: CPU time, file size, open files, memory. The keeper looks at what no limit
of a process can hold: the clock, the number of processes, the memory of all of them together.

What the sandbox does not hold stands in docs/vetting.md. Neither PyTorch nor Gradio is loaded here.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mbtsad_core.config import SandboxConfig, to_dict
from mbtsad_core.service.forkserver import Forked, fork
from mbtsad_core.service.keeper import END, ENDS, MEGABYTE, Limit, children_file, megabytes

Keeper = subprocess.Popen[bytes] | Forked

ANSWER = 16 * MEGABYTE  # of what a program writes, read at most
PATIENCE = 30.0  # seconds for the keeper to end what it keeps
# All that a program gets of the server's environment
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


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
    if not ENDS:
        return ("limits on memory, CPU time, file size and open files", "an end of all its processes")
    lacking = []
    if sys.platform != "linux":
        lacking += [
            "a limit on memory",
            "a limit on the number of processes",
            "an end of processes that leave its group",
        ]
    elif not children_file(os.getpid()).exists():  # a kernel built without it, and some that are imitated
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
    unwanted: Callable[[], bool] = lambda: False,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
) -> Keeper:
    """Start a program in a sandbox, in `folder`, which exists. The process that is returned is its keeper: it ends as
    the program does, or by a signal of ENDS where a limit was reached. SIGTERM to it reaches the program, END ends all.

    outlives  goes on when this process ends; else it is ended when the thread that started it does
    unwanted  asked while it is being started, which may take seconds: Unwanted is raised once it says so
    """
    asked = {"limits": to_dict(limits), "program": list(program), "outlives": outlives, "folder": str(folder)}
    with open(os.devnull, "r+b", buffering=0) as nothing:
        files = [nothing if file == subprocess.DEVNULL else file for file in (stdin, stdout, stderr)]
        if forked := fork(asked, env, [file if isinstance(file, int) else file.fileno() for file in files], unwanted):
            return forked
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "mbtsad_core.service.keeper", json.dumps(asked)],
        cwd=folder,
        env=dict(env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
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
        code = keeper.wait()
        return Ended(code, limit or ENDS.get(-code), out.read(ANSWER), err.read(ANSWER))


def end(keeper: Keeper) -> None:
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
