"""What became of an uploaded model, file by file."""

from __future__ import annotations

from html import escape

from mbtsad_core.models.uploads import FileVerdict, PolicyReport, printable

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
MARKS = {"refused": "✗", "accepted": "✓", "ignored": "○"}


def policy_html(report: PolicyReport) -> str:
    """A sentence on the whole upload, then file | verdict | reason, what is refused first. Needs STYLE and POLICY_STYLE.

    A verdict is a word and a mark, whatever its colour. All text is escaped, and what cannot be seen in a name is shown as an escape.
    """
    order = list(MARKS)
    rows = "".join(map(_row, sorted(report.files, key=lambda file: order.index(file.verdict))))
    head = '<thead><tr><th scope="col">file</th><th scope="col">verdict</th><th scope="col">reason</th></tr></thead>'
    table = f'<table class="figures">{head}<tbody>{rows}</tbody></table>' if rows else ""
    return f'<section class="mbtsad policy" aria-label="What became of the upload">{_outcome(report)}{table}</section>'


def _outcome(report: PolicyReport) -> str:
    if report.accepted:
        counts = {verdict: sum(file.verdict == verdict for file in report.files) for verdict in MARKS}
        ignored = f", {counts['ignored']} ignored" if counts["ignored"] else ""
        files = "file" if counts["accepted"] == 1 else "files"
        said = f"Upload taken: {counts['accepted']} {files} kept{ignored}. No code that comes with a model is run."
        return f'<p class="outcome">{_mark("accepted")}{said}</p>'
    return f'<p class="outcome refused" role="alert">{_mark("refused")}{_shown(report.problem, 1000)} Nothing of the upload was kept.</p>'


def _row(file: FileVerdict) -> str:
    return (
        f'<tr><th scope="row" class="file">{_shown(file.name)}</th>'
        f'<td class="verdict {file.verdict}">{_mark(file.verdict)}{file.verdict}</td><td>{_shown(file.reason, 1000)}</td></tr>'
    )


def _mark(verdict: str) -> str:
    return f'<span class="mark" aria-hidden="true">{MARKS[verdict]}</span>'


def _shown(text: str, longest: int = 120) -> str:
    return escape(printable(text, longest))
