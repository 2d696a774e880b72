"""A stand-in for the package `spaces` on a ZeroGPU host, and a page's process on it. Written after spaces 0.51.3,
zero/wrappers.py.

What it keeps of the original: a function is bound when it is decorated; its calls run in one daemon fork, in a thread
there, which is used again for the next call; arguments and every value that is yielded are pickled; a fork that dies,
or outlasts its `duration` and is killed, raises "GPU task aborted" in the caller; a host that has no GPU raises before
there is a fork. Closing the caller's generator stops the function after its next value.

    REFUSE     number of calls, from the first on, for which there is no GPU
    CUT_AFTER  number of values after which the first call that gets one has its fork killed
"""

from __future__ import annotations

import inspect
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

FORK = multiprocessing.get_context("fork")
calls: list[float] = []  # the duration that each call asked for
forks: list[int] = []  # their process numbers
refuse, cut_after = int(os.environ.get("REFUSE", "0")), int(os.environ.get("CUT_AFTER", "0"))


class Error(Exception):
    """gr.Error in the original."""


def GPU(task: Callable[..., Any] | None = None, *, duration: float = 60) -> Any:
    if task is None:
        return lambda task: GPU(task, duration=duration)
    assert inspect.isgeneratorfunction(task), "only generators are imitated here"
    worker: list[tuple[Any, Any]] = []

    def handler(*args: Any) -> Iterator[Any]:
        global refuse, cut_after
        calls.append(duration)
        if refuse:
            refuse -= 1
            raise Error("You have exceeded your ZeroGPU quota")
        if not worker or not worker[0][0].is_alive():
            here, there = FORK.Pipe()
            process = FORK.Process(target=serve, args=(task, there), daemon=True)
            process.start()
            there.close()
            worker[:] = [(process, here)]
            forks.append(process.pid)
        process, pipe = worker[0]
        limit = threading.Timer(duration, process.kill)
        limit.start()
        try:
            pipe.send(pickle.dumps(args))
            seen = 0
            while True:
                kind, value = pickle.loads(pipe.recv())
                if kind == "end":
                    return
                if kind == "error":
                    raise Error(value)
                try:
                    yield value
                except GeneratorExit:
                    pipe.send(b"stop")
                    while pickle.loads(pipe.recv())[0] == "value":
                        pass
                    raise
                seen += 1
                if seen == cut_after:
                    cut_after = 0
                    os.kill(process.pid, signal.SIGKILL)
                    process.join()
        except (EOFError, ConnectionError):
            process.join()
            raise Error("GPU task aborted") from None
        finally:
            limit.cancel()

    return handler


def serve(task: Callable[..., Any], pipe: Any) -> None:
    def iterate(args: Any) -> None:
        try:
            steps = task(*args)
            for value in steps:
                if pipe.poll() and pipe.recv() == b"stop":
                    steps.close()
                    break
                pipe.send(pickle.dumps(("value", value)))
            pipe.send(pickle.dumps(("end", None)))
        except Exception as error:
            pipe.send(pickle.dumps(("error", type(error).__name__)))

    assert multiprocessing.current_process().daemon, "a daemon, so it may have no children"
    while True:
        try:
            args = pickle.loads(pipe.recv())
        except EOFError:
            return
        with ThreadPoolExecutor(1) as executor:
            executor.submit(iterate, args).result()


def main(root: str, request: str, seconds: str) -> None:
    """Run a purification to its end, as the page does, while another thread looks at it; prints what happened as
    JSON."""
    import json
    import sys
    from pathlib import Path

    import torch

    from mbtsad_core.config import JobsConfig
    from mbtsad_core.page import launch
    from mbtsad_core.service.purification import Request
    from mbtsad_core.service.runner import AttachedRunner
    from mbtsad_core.service.store import State

    spaces = sys.modules["spaces"]
    launch.SLICE = float(seconds)
    torch.set_num_threads(2)
    (torch.ones(700, 700) @ torch.ones(700, 700)).sum()  # the page itself has used all threads before
    runner = launch.make_runner(Path(root), JobsConfig())
    assert isinstance(runner, AttachedRunner)
    id = runner.submit(Request.from_dict(json.loads(Path(request).read_text(encoding="utf-8"))))
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            runner.status(id)
            runner.events(id)
            time.sleep(0.001)

    eyes = threading.Thread(target=look)
    eyes.start()
    refused, places = [], []
    try:
        while runner.status(id).state is State.QUEUED:
            try:
                places += [(event.stage, event.step) for event in runner.run(id)]
            except spaces.Error as error:
                status = runner.status(id)
                refused.append([str(error), status.state, runner.job(id).attempts])
    finally:
        ended.set()
        eyes.join()
    status, job = runner.status(id), runner.job(id)
    found = dict(
        state=status.state,
        message=status.message,
        attempts=job.attempts,
        out=str(runner.output(id)),
        places=places,
        refused=refused,
    )
    recorded = [(r.event.stage, r.event.step) for r in runner.events(id)]
    print(json.dumps(found | dict(recorded=recorded, calls=spaces.calls, forks=spaces.forks)))
    runner.close()


if __name__ == "__main__":
    import sys

    import spaces  # noqa: F401  (as app.py does, before PyTorch)

    main(*sys.argv[1:])
