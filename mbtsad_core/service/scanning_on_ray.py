"""The scan of many models on a cluster of Ray: one model a task. Ray is an extra."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mbtsad_core.errors import BadConfig
from mbtsad_core.scanning.findings import INCONCLUSIVE
from mbtsad_core.service.scanning import BETWEEN_LOOKS, SCHEMA, ScanRequest, scan_or_say
from mbtsad_core.sources import Source
from mbtsad_core.steps import drain

RETRIES = 3  # of a model whose worker was ended


def scan_on_ray(
    sources: Sequence[Source], request: ScanRequest, address: str, stopped: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """The record of each model as it comes, each a task of Ray's on one GPU, or on as many cores as it has threads: one
    by default. A model whose worker is ended is scanned again, RETRIES times at most. Once `stopped` says so, those
    that run are given up.

    address  of a running cluster, or "local" for this machine alone. Each machine has the package, the models and the
             texts at the same place

    Raises BadConfig where Ray is not installed, or does not answer.
    """
    with _connected(address) as ray:
        gpus = request.runtime.device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1
        threads = request.runtime.threads or (None if gpus else 1)
        runtime = dataclasses.replace(request.runtime, threads=threads)
        task = ray.remote(num_cpus=threads or 1, num_gpus=int(gpus), max_retries=RETRIES)(_scan_there)
        there = dataclasses.replace(request, clean=_absolute(request.clean), runtime=runtime)
        running = {task.remote(_absolute(source), there): source for source in sources}
        while running and not stopped():
            done, _ = ray.wait(list(running), num_returns=1, timeout=BETWEEN_LOOKS)
            for one in done:
                source = running.pop(one)
                yield _result(ray, one) | {"model": str(source), "asked": request.key}
        for one in running:
            ray.cancel(one, force=True)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster; one that this process is connected to already stays so."""
    if importlib.util.find_spec("ray") is None:
        raise BadConfig("Ray is not installed. Run: pip install 'mbtsad[ray]', or use --jobs, on this machine alone.")
    import ray

    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise BadConfig(f"No Ray answers at {address!r}: {str(error).splitlines()[0]}") from error
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _absolute(source: Source) -> Source:
    """A file or folder by its whole path: a worker has a folder of its own."""
    return source if source.is_hub or source.is_demo else Source(Path(source).absolute())


def _scan_there(source: Source, request: ScanRequest) -> dict[str, Any]:
    return drain(scan_or_say(source, request, lambda: False))


def _result(ray: Any, done: Any) -> dict[str, Any]:
    try:
        record: dict[str, Any] = ray.get(done)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:  # its worker was ended each time
        reason = f"Its worker was ended {RETRIES + 1} times: {str(error).splitlines()[0]}"
        return {"schema": SCHEMA, "verdict": INCONCLUSIVE, "reason": reason}
    return record
