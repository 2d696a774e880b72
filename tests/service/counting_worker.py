"""A worker that counts where others train: the real one (mbtsad_core/service/worker.py) but for what a job asks for, so
that who starts, watches and ends workers can be tested without PyTorch's seconds.

Its steps are those of a purification, a few milliseconds each. What it has counted stands in a checkpoint, and its
result is a digest of all steps: it is right only where none was left out, done twice, or done in another order.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mbtsad_core.errors import BadData
from mbtsad_core.service import worker
from mbtsad_core.service.store import Job, Store
from mbtsad_core.types import Event, Steps

PROGRAM = (sys.executable, "-P", __file__)
CHECKPOINT, EVERY = "checkpoint.json", 5  # steps
PAUSE = 0.005  # seconds that a step takes
TOTAL = 240  # steps of a stage
PLACES = [("measure", 1, 1), *((stage, i + 1, TOTAL) for stage in ("retrain", "distil") for i in range(TOTAL))]


def digest(steps: int, before: str = "", first: int = 0) -> str:
    """Of the steps from `first` on, given that of those before."""
    for place in PLACES[first:steps]:
        before = hashlib.sha256(f"{before}{place}".encode()).hexdigest()
    return before


def write(path: Path, contents: str) -> None:
    path.with_suffix(".new").write_text(contents, encoding="utf-8")
    os.replace(path.with_suffix(".new"), path)


def count(store: Store, job: Job, out: Path, last_word: Callable[[], bool]) -> Steps[dict[str, Any]]:
    if "suspect" not in job.request:
        raise BadData("There is nothing to count.")
    out.mkdir(exist_ok=True)
    kept = json.loads((out / CHECKPOINT).read_text()) if (out / CHECKPOINT).exists() else {"steps": 0, "digest": ""}
    done, found = kept["steps"], kept["digest"]
    events = [json.dumps({"stage": s, "step": i, "total": n, "metrics": {}}) + "\n" for s, i, n in PLACES]
    (out / "events.jsonl").write_text("".join(events[:done]))
    with open(out / "events.jsonl", "a", buffering=1) as written:
        try:
            while done < len(PLACES):
                time.sleep(PAUSE)
                done += 1
                found = digest(done, found, done - 1)
                written.write(events[done - 1])
                if done % EVERY == 0:
                    write(out / CHECKPOINT, json.dumps({"steps": done, "digest": found}))
                yield Event(*PLACES[done - 1])
        except GeneratorExit:
            write(out / CHECKPOINT, json.dumps({"steps": done, "digest": found}))
            raise
    write(out / "report.json", json.dumps({"digest": found}))
    return {"digest": found}


if __name__ == "__main__":
    worker._asked_for = count
    sys.exit(worker.main(sys.argv[1:]))
