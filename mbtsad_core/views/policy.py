"""What became of an uploaded model, file by file: for the page, for a terminal, as JSON and as SARIF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mbtsad_core.vetting.rules import RULES
from mbtsad_core.vetting.uploads import FileVerdict, PolicyReport, printable
from mbtsad_core.views.document import TEMPLATES, render
from mbtsad_core.views.sarif import result_of, rule_of, run_of, sarif

POLICY_STYLE = (TEMPLATES / "policy.css").read_text("utf-8")
MARKS = {"refused": "✗", "inconclusive": "?", "accepted": "✓", "ignored": "○"}
SAID = {
    "clean": "nothing of it asks for code to run, and what is read of it is sound. This says nothing of a backdoor.",
    "refused": "it must not be loaded.",
    "inconclusive": "it could not be judged, which is no better than refused.",
}
LEVELS = {"refused": "error", "inconclusive": "warning", "ignored": "note"}  # of SARIF


def policy_html(report: PolicyReport) -> str:
    """A sentence on the whole upload, then file | verdict | reason, what is refused first. Needs STYLE and
    POLICY_STYLE.

    A verdict is a word and a mark, whatever its color. All text is escaped, and what cannot be seen in a name is shown
    as an escape.
    """
    kept, ignored = (sum(file.verdict == verdict for file in report.files) for verdict in ("accepted", "ignored"))
    files = _worst_first(report)
    return render("policy.html", report=report, files=files, kept=kept, ignored=ignored, marks=MARKS)


def policy_text(report: PolicyReport, source: str) -> str:
    """The verdict on `source` and a line a file, what is refused first. Nothing in it can steer a terminal."""
    lines = [f"{report.verdict}: {printable(source, 300)}: {SAID[report.verdict]}"]
    if report.problem and not any(
        file.reason in report.problem for file in report.files if file.verdict in ("refused", "inconclusive")
    ):
        lines.append(f"  {printable(report.problem, 1000)}")
    for file in _worst_first(report):
        lines.append(
            f"  {MARKS[file.verdict]} {file.verdict:<8} {printable(file.name)}: {printable(file.reason, 1000)} "
            f"[{file.rule}]"
        )
    return "\n".join(lines)


def policy_dict(report: PolicyReport) -> dict[str, Any]:
    """`{"verdict": "clean|refused|inconclusive", "files": [{"name", "verdict", "reason", "rule"}, …]}`: plain values
    for JSON.

    Names and reasons are as `printable` shows them. What is wrong with the whole stands there too, by the name "".
    """
    files = [
        dict(name=printable(f.name, 255), verdict=f.verdict, reason=printable(f.reason, 1000), rule=f.rule)
        for f in report.files
    ]
    if report.problem and not any(f.rule == report.rule for f in report.files):
        whole = "inconclusive" if report.undecided else "refused"
        files.append(dict(name="", verdict=whole, reason=printable(report.problem, 1000), rule=report.rule))
    return {"verdict": report.verdict, "files": files}


def policy_sarif(reports: Sequence[PolicyReport], version: str) -> dict[str, Any]:
    """The reports as SARIF 2.1.0: a run for each, with a result for each file that is not accepted."""
    return sarif([_sarif_run(report, version) for report in reports])


def _sarif_run(report: PolicyReport, version: str) -> dict[str, Any]:
    rules = [rule_of(name, rule.what, rule.why, rule.advisory) for name, rule in RULES.items()]
    results = [
        result_of(file["rule"], LEVELS[file["verdict"]], file["reason"], file["name"])
        for file in policy_dict(report)["files"]
        if file["verdict"] in LEVELS
    ]
    return run_of("mbtsad vet", version, rules, results, successful=not report.undecided)


def _worst_first(report: PolicyReport) -> list[FileVerdict]:
    return sorted(report.files, key=lambda file: list(MARKS).index(file.verdict))
