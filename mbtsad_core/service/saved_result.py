"""The result of a finished run, read back from its folder: what its report is made of, without any model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbtsad_core.augment.split_effect import SplitEffect
from mbtsad_core.errors import BadOutput, MBTSADError
from mbtsad_core.service.purification import Request, Result, TurningSequence
from mbtsad_core.service.run_folder import RUN, read_events
from mbtsad_core.types import Note, Rate, Scores

REPORT = "report.json"
USED = ("run", "inputs", "versions", "date", "model_sha256")


def rate_of(scores: Mapping[str, Any], name: str) -> Rate | None:
    """A rate of a report; None where it was not measured."""
    hits = scores.get(f"{name}_hits") if scores.get(name) is not None else None
    return None if hits is None else Rate(hits, scores[f"{name}_n"], *scores[f"{name}_interval"])


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
        used={name: report[name] for name in USED if name in report},
    )


def _scores(values: Mapping[str, Any]) -> Scores:
    cacc, asr, floor = (rate_of(values, name) for name in ("cacc", "asr", "asr_floor"))
    if cacc is None:
        raise KeyError("cacc")
    return Scores(cacc, asr, floor, tuple(tuple(row) for row in values["confusion"]))
