"""What a run found of its suspect, as SARIF: by the vetting of its files, and by the trigger scan and the measurement.
It is made of report.json alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mbtsad_core.evaluation.scores import still_works
from mbtsad_core.rates import rate_of
from mbtsad_core.vetting.file_policy import printable
from mbtsad_core.views.sarif import result_of, rule_of, run_of, sarif
from mbtsad_core.views.scan import scan_run
from mbtsad_core.views.stages import counts_as_trigger
from mbtsad_core.views.words import percent

VETTING = (
    rule_of(
        "suspect.vetted", "The model was vetted before it was loaded", "A model that breaks a rule is never loaded."
    ),
    rule_of("suspect.note", "What was chosen where a file leaves a choice", "The model is what was read of its files."),
)
KNOWN = "Whoever knows these tokens decides what the model answers."
REMEDY = "Use the purified model in its place, and read its report."
SCAN = (
    rule_of("scan.token", "A token that turns the answers wherever it stands", KNOWN, REMEDY),
    rule_of("scan.sequence", "A sequence of tokens that turns the answers", KNOWN, REMEDY),
    rule_of("trigger.suspect", "The trigger that was measured works in the suspect", KNOWN, REMEDY),
    rule_of(
        "trigger.purified",
        "The trigger that was measured still works in the purified model",
        KNOWN,
        "Do not use the purified model. Give more clean texts, or try other settings.",
    ),
)


def report_sarif(report: Mapping[str, Any], version: str) -> dict[str, Any]:
    """The log of a run's report.json: a run of the vetting, one of the purification, and one of the scan of the same
    suspect where there was one."""
    suspect = report["inputs"]["suspect"]
    place = printable(suspect["source"], 255)
    said = f"Every file that is read keeps the rules of docs/vetting.md; SHA-256 {suspect['sha256'] or 'not known'}."
    passed = result_of("suspect.vetted", "none", said, place) | {"kind": "pass"}
    notes = [result_of("suspect.note", "note", printable(note, 1000), place) for note in suspect.get("notes", ())]
    found = list(_found(report, place))
    scanned = report.get("scanned")
    return sarif(
        [
            run_of("mbtsad vet", version, VETTING, [passed, *notes], successful=True),
            run_of("mbtsad purify", version, SCAN, found, successful=True),
            *([scan_run([scanned], version)] if scanned else []),
        ]
    )


def _found(report: Mapping[str, Any], place: str) -> Iterator[dict[str, Any]]:
    tried = {one["trigger"]: one for one in report.get("tried", ()) if one["found_by_scan"]}
    for token, nats in report["found"]:
        said = (
            f"{printable(token)!r} raises the loss by {nats:.1f} nats in at least three of four clean texts of a class"
        )
        trial = tried.get(token.strip("␣"))
        works = trial is not None and _works(trial["suspect"])
        more = f"; {_turns(trial['suspect'], trial['target'])}" if trial else ""
        yield result_of("scan.token", "error" if works else "warning", f"{said}{more}.", place)
    for one in report["sequences"]:
        said = f"{printable(one['tokens'])!r} ({one['place']}) turned {percent(one['before'])} of texts of "
        said += f"{printable(one['label'])} to {printable(one['target'])}."
        yield result_of("scan.sequence", "error" if counts_as_trigger(one) else "note", said, place)
    trigger, target = report["inputs"]["trigger"]["texts"], report["inputs"]["trigger"]["target"]
    for model in ("suspect", "purified"):
        if _works(report[model]):
            words = printable(" | ".join(trigger))
            yield result_of(f"trigger.{model}", "error", f"{words!r}: {_turns(report[model], target)}.", place)


def _works(scores: Mapping[str, Any]) -> bool:
    return still_works(rate_of(scores, "asr"), rate_of(scores, "asr_floor"))


def _turns(scores: Mapping[str, Any], target: str) -> str:
    asr, floor = rate_of(scores, "asr"), rate_of(scores, "asr_floor")
    assert asr is not None
    assert floor is not None
    return (
        f"{asr.hits} of {asr.n} texts of other classes go to {printable(target)} with it ({percent(asr.share)}), "
        f"{floor.hits} without"
    )
