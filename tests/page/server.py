"""The page's server as a real process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from conftest import ROOT

T = TypeVar("T")
DEMO_RUN = ("--no-demo-run",)  # so that no two minutes of two cores go into each of the tests' servers
AT_ONCE = ("--nice", "0")  # a test waits for its runs, and gains nothing where they step back for other tests
MEGABYTES = 32  # of an upload, where little is allowed


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def log_of(root: Path) -> Path:
    """Where a server whose jobs stand in `root` writes what it prints."""
    return root.with_name(root.name + ".log")


@contextlib.contextmanager
def serving(root: Path, *flags: str, seconds: float = 120.0) -> Iterator[str]:
    """Start `python app.py --jobs root *flags`, wait until it answers, yield its address, which ends in "/", and stop
    it with SIGTERM.

    What it prints goes into `log_of(root)`. Raises AssertionError where it does not answer within `seconds`, or does
    not stop.
    """
    port = free_port()
    command = [
        sys.executable,
        "app.py",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--jobs",
        str(root),
        *DEMO_RUN,
        *AT_ONCE,
        *flags,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_")} | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    with open(log_of(root), "ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}/"
        _answering(process, url, root, seconds)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("the server did not stop within a minute of SIGTERM") from None


def _answering(process: subprocess.Popen[bytes], url: str, root: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}config", timeout=10) as answer:
                if answer.status == 200:
                    return
        except urllib.error.HTTPError as error:
            if error.code == 401:  # it asks who one is
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(
        f"the server does not answer: {log_of(root).read_text(encoding='utf-8', errors='replace')[-3000:]}"
    )


def until(condition: Callable[[], T], seconds: float = 180.0) -> T:
    """The first true value of the condition, asked ten times a second; fails after a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} seconds in vain")


def in_a_thread(asking: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns; a thread of its own runs it, for that of the tests may have Playwright's event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, asking).result()
