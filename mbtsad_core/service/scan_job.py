"""The scan of a visitor's suspect, as a job: in the queue, with his quota, in a worker's process.

In the job's directory: run/report.json, the record of docs/scan.schema.json. PyTorch is loaded only where something is
scanned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.errors import UnsuitableModel
from mbtsad_core.sources import Source
from mbtsad_core.types import Steps

if TYPE_CHECKING:
    from mbtsad_core.service.scanning import ScanRequest


@dataclass(frozen=True)
class ScanJob:
    """The scan of a model, "demo", a folder or `hub:...`, as it is asked for."""

    suspect: Source
    request: ScanRequest

    def to_dict(self) -> dict[str, Any]:
        return {"scanned": self.suspect} | dataclasses.asdict(self.request)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScanJob:
        from mbtsad_core.config import RuntimeConfig, ScanConfig, from_dict
        from mbtsad_core.data import Columns
        from mbtsad_core.scanning.insertions import Insertion
        from mbtsad_core.service.scanning import ScanRequest

        given = {name: value for name, value in values.items() if name != "scanned"}
        given |= {"clean": Source(given["clean"]), "columns": Columns(**given["columns"])}
        given |= {"labels": tuple(given["labels"]) if given["labels"] else None}
        given |= {"config": from_dict(ScanConfig, given["config"])}
        given |= {"runtime": from_dict(RuntimeConfig, given["runtime"])}
        known = (Insertion(tuple(one["tokens"]), one["place"]) for one in given.get("known", ()))
        given |= {"known": tuple(known)}
        return cls(Source(values["scanned"]), ScanRequest(**given))


def is_scan(values: Mapping[str, Any]) -> bool:
    """Whether a job scans a model, and does not cure, measure or plant anything."""
    return "scanned" in values


def scan_suspect(job: ScanJob, out: Path, stopped: Callable[[], bool]) -> Steps[dict[str, Any]]:
    """Scan it; yields an event a step, writes `out`/report.json, and returns what that holds. Once `stopped`, what was
    found so far has the last word. There is no checkpoint: a scan that was killed is begun anew.

    Raises UnsuitableModel for a model that is refused.
    """
    from mbtsad_core.service.run_folder import write_json
    from mbtsad_core.service.scanning import REFUSED, scan_source

    record = yield from scan_source(job.suspect, job.request, stopped)
    if record["verdict"] == REFUSED:
        raise UnsuitableModel(record["reason"])
    record["model"] = job.suspect.shown
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "report.json", record)
    return record
