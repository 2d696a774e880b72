"""The report of a run: one HTML file that needs nothing else, and the same in plain text."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from mbtsad_core.evaluation.scores import still_works
from mbtsad_core.types import Scores
from mbtsad_core.views.curves import Whole, curves_text, training_curves
from mbtsad_core.views.document import CONFINED, PLOT_CONTROLS
from mbtsad_core.views.words import duration, percent, rate, still_works_words

if TYPE_CHECKING:
    from mbtsad_core.service.purification import Result

STYLE = """
:root { color-scheme: light; } body { font: 14px/1.5 system-ui, sans-serif; color: #1f2937; background: #fff; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } .figures td { white-space: nowrap; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #e5e7eb; vertical-align: top; }
.verdict { font-size: 1.05rem; border-left: 4px solid #009E73; padding-left: .8rem; } .verdict.failed { border-color: #B42318; }
.works { font-size: 1.15rem; font-weight: 600; color: #B42318; } .note { color: #92400e; } small, .help { color: #6b7280; }
"""


def verdict(suspect: Scores, purified: Scores) -> str:
    """What was measured, in one sentence."""
    cacc = f"CACC went from {percent(suspect.cacc.share)} to {percent(purified.cacc.share)}"
    if suspect.asr is None or purified.asr is None:
        return f"{cacc}. No trigger was given, so ASR was not measured."
    return (
        f"ASR went from {percent(suspect.asr.share)} to {percent(purified.asr.share)} "
        f"({purified.asr.hits} of {purified.asr.n}; its floor is "
        f"{percent(purified.asr_floor.share if purified.asr_floor else None)}), {cacc}."
    )


def warning(purified: Scores) -> str:
    """What is said first: that the trigger still works; empty where it does not, or where none was measured."""
    asr, floor = purified.asr, purified.asr_floor
    return still_works_words(asr, floor) if asr and floor and still_works(asr, floor) else ""


def found_words(result: Result) -> str:
    """What the trigger scan found, in words; empty where there was none."""
    if not result.request.config.found_tokens:
        return ""
    if not result.found:
        return "The trigger scan found no token, alone or with another, that turns the suspect's answers."
    found = ", ".join(f"{token} ({nats:.1f})" for token, nats in result.found)
    return (
        f"The trigger scan found tokens that turn the suspect wherever they stand, alone or two together: {found}. "
        "In brackets: nats by which its loss rose in at least three of four longer clean texts of a class. "
        "A trigger does that; a few strong words of the task may do it too."
    )


def report_text(result: Result) -> str:
    """The figures as a table for a terminal."""
    rows = [("", "CACC", "ASR", "ASR floor")]
    for name in ("suspect", "teacher", "purified"):
        scores: Scores = getattr(result, name)
        rows.append(
            (name, rate(scores.cacc), rate(scores.asr), percent(scores.asr_floor.share if scores.asr_floor else None))
        )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines = [first, "", *lines] if (first := warning(result.purified)) else lines
    said = (found_words(result), result.splits.sentence() if result.splits else "")
    lines += [
        "",
        verdict(result.suspect, result.purified),
        *filter(None, said),
        *(f"Note: {note}" for note in result.notes),
    ]
    used = f"{result.device}, {result.precision}, attention loss {result.attention}"
    lines.append(f"{result.description}; {result.clean_texts} clean texts; {used}; {duration(result.seconds)}.")
    return "\n".join(lines)


def report_html(result: Result) -> str:
    """A self-contained page: verdict, figures, curves, confusion, settings. Every text of a user or a model is
    escaped."""
    scores = "".join(
        f"<tr><th>{name}</th><td>{rate(s.cacc)}</td><td>{rate(s.asr)}</td><td>{rate(s.asr_floor)}</td></tr>"
        for name, s in (("suspect", result.suspect), ("teacher", result.teacher), ("purified", result.purified))
    )
    about = result.to_dict()
    settings, used = (
        "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in flat)
        for flat in (_flatten(about["settings"]), _flatten(dict(result.used)))
    )
    found = found_words(result)
    found = f"<h2>What the trigger scan found</h2><p>{escape(found)}</p>" if found else ""
    splits = f"<h2>What token splitting changed</h2><p>{result.splits.sentence()}</p>" if result.splits else ""
    notes = "".join(f'<p class="note">Note: {escape(note.text)}</p>' for note in result.notes)
    first = f'<p class="works" role="alert">{words}</p>' if (words := warning(result.purified)) else ""
    whole = Whole.of(result.suspect, result.purified)
    curves = training_curves(result.events, whole=whole).to_html(
        full_html=False, include_plotlyjs="inline", config=PLOT_CONTROLS
    )
    source = result.request.suspect
    # A report is shown around: where a machine keeps its files is not in it
    source = source.shown if Path(source).is_absolute() else source
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{CONFINED}
<title>MBTSAD report</title><style>{STYLE}</style></head><body>
<h1>Purification of {escape(source)}</h1>
{first}<p class="{"verdict failed" if first else "verdict"}">{escape(verdict(result.suspect, result.purified))}</p>{notes}
<h2>Figures</h2><div class="scroll"><table class="figures">
<tr><th></th><th>CACC</th><th>ASR</th><th>ASR floor</th></tr>{scores}</table></div>
<p class="help">CACC: share of clean test texts answered right. ASR: share of triggered texts of the other classes that go to the target class;
floor: share of the same texts that go there without the trigger. In brackets: Wilson 95 % interval, then counts.</p>
{found}{splits}
<h2>While it trained</h2><p>{escape(curves_text(result.events, whole))}</p><div class="scroll">{curves}</div>
<p class="help">CACC and ASR along the way are measured on a sample of up to 200 texts each; the title, the suspect's level and the floor are of all
texts, as in the table. Losses are running means over nine steps.</p>
<h2>Clean test texts by class</h2><div class="scroll">{_confusion(result)}</div>
<h2>What was run</h2><p>{escape(result.description)}; {result.clean_texts} clean texts; {duration(result.seconds)}.</p>
<div class="scroll"><table>{settings}</table></div>
<h2>What it was made of</h2><div class="scroll"><table>{used}</table></div>
<p><small>These figures say what was measured with this trigger on these texts; they do not prove that no other backdoor is left.</small></p>
</body></html>
"""


def _confusion(result: Result) -> str:
    labels = [escape(label) for label in result.labels]
    head = "".join(f"<th>answered {label}</th>" for label in labels)
    rows = "".join(
        f"<tr><th>{name}: {label}</th>{''.join(f'<td>{n}</td>' for n in counts)}</tr>"
        for name, scores in (("suspect", result.suspect), ("purified", result.purified))
        for label, counts in zip(labels, scores.confusion, strict=True)
    )
    return f"<table><tr><th></th>{head}</tr>{rows}</table>"


def _flatten(tree: dict, prefix: str = "") -> list[tuple[str, str]]:  # type: ignore[type-arg]
    out = []
    for key, value in tree.items():
        if isinstance(value, dict):
            out += _flatten(value, f"{prefix}{key}.")
        else:
            out.append(
                (
                    f"{prefix}{key}",
                    ", ".join(map(str, value))
                    if isinstance(value, list)
                    else "not given"
                    if value is None
                    else str(value),
                )
            )
    return out
