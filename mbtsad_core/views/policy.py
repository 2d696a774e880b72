"""What became of an uploaded model, file by file: for the page, for a terminal, as JSON and as SARIF."""

from __future__ import annotations

from html import escape
from typing import Any
from urllib.parse import quote

from mbtsad_core.vetting.rules import RULES
from mbtsad_core.vetting.uploads import FileVerdict, PolicyReport, printable

POLICY_STYLE = """
.policy .outcome { margin: 0 0 12px; padding: 8px 12px; border-left: 4px solid var(--accent); background: var(--panel); overflow-wrap: anywhere; }
.policy .outcome.refused { border-left-color: var(--warn); }
.policy table.figures { width: 100%; }
.policy table.figures th, .policy table.figures td { white-space: normal; vertical-align: baseline; overflow-wrap: anywhere; }
.policy table.figures .file { font: 13px/1.45 ui-monospace, monospace; min-width: 26ch; max-width: 40ch; }
.policy table.figures .verdict { white-space: nowrap; }
.policy .verdict.refused { color: var(--warn); font-weight: 600; } .policy .verdict.ignored { color: var(--muted); }
.policy .mark { display: inline-block; width: 1.3em; }
@media (max-width: 600px) { .policy thead { position: absolute; clip-path: inset(50%); }
  .policy table.figures, .policy tbody { display: block; } .policy tr { display: block; padding: 8px 0; border-bottom: 1px solid var(--line); }
  .policy table.figures tbody .file, .policy table.figures td { display: block; border: 0; padding: 0; min-width: 0; max-width: none; } }
"""
MARKS = {"refused": "✗", "inconclusive": "?", "accepted": "✓", "ignored": "○"}
SAID = {
    "clean": "nothing of it asks for code to run, and what is read of it is sound. This says nothing of a backdoor.",
    "refused": "it must not be loaded.",
    "inconclusive": "it could not be judged, which is no better than refused.",
}
LEVELS = {"refused": "error", "inconclusive": "warning", "ignored": "note"}  # of SARIF
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def policy_html(report: PolicyReport) -> str:
    """A sentence on the whole upload, then file | verdict | reason, what is refused first. Needs STYLE and
    POLICY_STYLE.

    A verdict is a word and a mark, whatever its colour. All text is escaped, and what cannot be seen in a name is shown
    as an escape.
    """
    order = list(MARKS)
    rows = "".join(map(_row, sorted(report.files, key=lambda file: order.index(file.verdict))))
    head = '<thead><tr><th scope="col">file</th><th scope="col">verdict</th><th scope="col">reason</th></tr></thead>'
    table = f'<table class="figures">{head}<tbody>{rows}</tbody></table>' if rows else ""
    return f'<section class="mbtsad policy" aria-label="What became of the upload">{_outcome(report)}{table}</section>'


def policy_text(report: PolicyReport, source: str) -> str:
    """The verdict on `source` and a line a file, what is refused first. Nothing in it can steer a terminal."""
    lines = [f"{report.verdict}: {printable(source, 300)}: {SAID[report.verdict]}"]
    if report.problem and not any(
        file.reason in report.problem for file in report.files if file.verdict in ("refused", "inconclusive")
    ):
        lines.append(f"  {printable(report.problem, 1000)}")
    order = list(MARKS)
    for file in sorted(report.files, key=lambda file: order.index(file.verdict)):
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


def policy_sarif(report: PolicyReport, version: str) -> dict[str, Any]:
    """The report as SARIF 2.1.0, the format that code hosts show findings by: a result for each file that is not
    accepted."""
    names = list(RULES)
    rules = [
        dict(
            id=name,
            shortDescription=dict(text=rule.what),
            fullDescription=dict(text=rule.why),
            help=dict(text=rule.advisory or rule.why),
        )
        for name, rule in RULES.items()
    ]
    results = []
    for file in policy_dict(report)["files"]:
        if file["verdict"] in LEVELS:
            place = (
                [dict(physicalLocation=dict(artifactLocation=dict(uri=quote(file["name"]))))] if file["name"] else []
            )
            result = dict(
                ruleId=file["rule"], level=LEVELS[file["verdict"]], message=dict(text=file["reason"]), locations=place
            )
            results.append(result | (dict(ruleIndex=names.index(file["rule"])) if file["rule"] in RULES else {}))
    run = dict(
        tool=dict(driver=dict(name="mbtsad vet", version=version, rules=rules)),
        invocations=[dict(executionSuccessful=not report.undecided)],
        results=results,
    )
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _outcome(report: PolicyReport) -> str:
    if report.accepted:
        counts = {verdict: sum(file.verdict == verdict for file in report.files) for verdict in MARKS}
        ignored = f", {counts['ignored']} ignored" if counts["ignored"] else ""
        files = "file" if counts["accepted"] == 1 else "files"
        said = f"Upload taken: {counts['accepted']} {files} kept{ignored}. No code that comes with a model is run."
        return f'<p class="outcome">{_mark("accepted")}{said}</p>'
    return (
        f'<p class="outcome refused" role="alert">{_mark("refused")}{_shown(report.problem, 1000)} Nothing of the '
        "upload was kept.</p>"
    )


def _row(file: FileVerdict) -> str:
    look = "refused" if file.verdict == "inconclusive" else file.verdict  # it is no better
    return (
        f'<tr><th scope="row" class="file">{_shown(file.name)}</th>'
        f'<td class="verdict {look}">{_mark(file.verdict)}{file.verdict}</td><td>{_shown(file.reason, 1000)}</td></tr>'
    )


def _mark(verdict: str) -> str:
    return f'<span class="mark" aria-hidden="true">{MARKS[verdict]}</span>'


def _shown(text: str, longest: int = 120) -> str:
    return escape(printable(text, longest))
