"""A projection outside this process: the vectors are a stranger's model's, and the libraries that draw them are not
made for every one.

The sandboxed process is this module's `main`: it reads both sets of vectors from standard input and writes the points
to standard output.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mbtsad_core.config import SandboxConfig
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation.embeddings import Projection, Vectors, check_vectors, project
from mbtsad_core.service.sandbox import OFFLINE, Ended, environment, run, said
from mbtsad_core.vetting.file_policy import printable

logger = logging.getLogger(__name__)


def project_apart(
    before: Vectors, after: Vectors, method: str, folder: Path, sandbox: SandboxConfig = SandboxConfig()
) -> Projection:
    """`project` in a sandbox that has its own folder within `folder`. Raises as `project` does, and BadData where the
    sandbox gave no points."""
    check_vectors(before, after, method)
    given = io.BytesIO()
    np.savez(given, before=before, after=after)
    with tempfile.TemporaryDirectory(prefix="sandbox-", dir=folder, ignore_cleanup_errors=True) as own:
        program = [sys.executable, "-P", "-m", "mbtsad_core.service.projection", method]
        ended = run(
            program,
            Path(own),
            sandbox,
            environment(Path(own), more=OFFLINE | {"CUDA_VISIBLE_DEVICES": ""}),
            given.getvalue(),
        )
    try:
        if ended.limit or ended.code:
            raise ValueError("it did not end as it should")
        return _read(ended.out, method, len(before))
    except (ValueError, KeyError, OSError, EOFError) as nothing:
        wrote = printable(ended.err[-2000:].decode("utf-8", "replace"), 2000)
        logger.warning("A sandboxed projection gave no points: %s. It wrote: %s", ended.limit or ended.code, wrote)
        raise BadData(_why(ended, method, sandbox)) from nothing


def _read(written: bytes, method: str, texts: int) -> Projection:
    """The points that a sandboxed process wrote. Raises ValueError, KeyError, OSError or EOFError where they are not as
    `main` writes them."""
    with np.load(io.BytesIO(written), allow_pickle=False) as found:
        before, after = (np.asarray(found[name], np.float32) for name in ("before", "after"))
        explained = [float(share) for share in found["explained"]]
        trustworthiness = float(found["trustworthiness"])
    if (
        before.shape != (texts, 2)
        or after.shape != (texts, 2)
        or not np.isfinite([*before.flat, *after.flat, *explained, trustworthiness]).all()
    ):
        raise ValueError("points that are none")
    return Projection(
        method, before, after, trustworthiness, (explained[0], explained[1]) if len(explained) == 2 else None
    )


def _why(ended: Ended, method: str, sandbox: SandboxConfig) -> str:
    remedy = "Choose another projection, or fewer sets of texts."
    if ended.limit:
        return (
            f"The projection by {method} could not be drawn: it may take {said(ended.limit, sandbox)}, and it took "
            f"more. {remedy}"
        )
    how = f"signal {-ended.code} ended its process" if ended.code < 0 else f"its process ended with status {ended.code}"
    return f"The projection by {method} could not be drawn: {how}. {remedy}"


def main(arguments: list[str]) -> int:
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as given:
        found = project(given["before"], given["after"], arguments[0])
    points: dict[str, Any] = {"before": found.before, "after": found.after, "explained": found.explained or ()}
    np.savez(answer, trustworthiness=found.trustworthiness, **points)
    answer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
