"""The result of a finished run, read back from its folder: what its report is made of, without any model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mbtsad_core.augment.split_effect import SplitEffect
from mbtsad_core.errors import BadData, BadOutput, MBTSADError
from mbtsad_core.rates import rate_of
from mbtsad_core.service.comparison import beside
from mbtsad_core.service.evidence import EVIDENCE
from mbtsad_core.service.purification import Request, Result, TurningSequence
from mbtsad_core.service.run_folder import RUN, read_events
from mbtsad_core.types import Note, Scores

REPORT = "report.json"
USED = ("run", "inputs", "versions", "date", "model_sha256")


def read_result(out: Path) -> Result:
    """What `write_results` wrote; raises BadOutput where that is no folder of a finished run."""
    try:
        report, asked = (json.loads((out / name).read_text("utf-8")) for name in (REPORT, RUN))
        return _result(report, Request.from_dict(asked["request"]), out)
    except (OSError, ValueError, KeyError, TypeError, MBTSADError) as error:
        raise BadOutput(
            f"There is no finished run in {out}: expected the folder that `purify --out` made, with {REPORT} and "
            f"{RUN}. ({error})"
        ) from error


def with_compared(result: Result, others: Sequence[Mapping[str, Any]]) -> Result:
    """The result with other methods beside it, as `comparison.beside` reads them; of a method that stands there already
    the newer one is kept. Raises BadData."""
    report = result.to_dict()
    found = [beside(report, other) for other in others]
    known = {one["method"]: one for one in (*result.compared, *found)}
    return dataclasses.replace(result, compared=tuple(known.values()))


def same_suspect(report: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether a scan's record is of the suspect of a run's report, by the digest of its files."""
    run, scan = report.get("inputs", {}).get("suspect", {}), record.get("inputs", {}).get("model", {})
    return run.get("sha256") is not None and run["sha256"] == scan.get("sha256")


def with_scanned(result: Result, record: Mapping[str, Any]) -> Result:
    """The result with what a scan says of its suspect, as `mbtsad scan --json` prints it. Raises BadData for one of
    another suspect."""
    if "verdict" not in record:
        raise BadData("Expected what `mbtsad scan MODEL --json` prints.")
    if not same_suspect(result.to_dict(), record):
        raise BadData(
            f"The scan is of another model ({record.get('model')}) than the run, so it says nothing of its suspect."
        )
    return dataclasses.replace(result, scanned=record)


def _result(report: Mapping[str, Any], request: Request, out: Path) -> Result:
    settings = report["settings"]
    return Result(
        suspect=_scores(report["suspect"]),
        teacher=_scores(report["teacher"]),
        purified=_scores(report["purified"]),
        request=request,
        description=report["model"],
        labels=tuple(report["labels"]),
        device=settings["device"],
        precision=settings["precision"],
        attention=settings["attention_loss"],
        clean_texts=settings["clean_texts"],
        seconds=report["seconds"],
        notes=tuple(Note("", text) for text in report["notes"]),
        events=tuple(read_events(out)),
        found=tuple((token, nats) for token, nats in report.get("found", report.get("stumbled", ()))),
        sequences=tuple(TurningSequence(**one) for one in report.get("sequences", ())),
        splits=SplitEffect(**report["splits"]) if report.get("splits") else None,
        evidence={name: report[name] for name in EVIDENCE if name in report},
        compared=tuple(report.get("compared", ())),
        scanned=report.get("scanned"),
        used={name: report[name] for name in USED if name in report},
        residual=report.get("residual"),
    )


def _scores(values: Mapping[str, Any]) -> Scores:
    cacc, asr, floor = (rate_of(values, name) for name in ("cacc", "asr", "asr_floor"))
    if cacc is None:
        raise KeyError("cacc")
    return Scores(cacc, asr, floor, tuple(tuple(row) for row in values["confusion"]))
