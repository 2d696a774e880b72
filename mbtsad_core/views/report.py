"""The report of a run: one HTML file that needs nothing else, and the same in plain text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core import config as configs
from mbtsad_core.evaluation.scores import still_works
from mbtsad_core.rates import at_floor, rate_of
from mbtsad_core.types import Rate, Scores
from mbtsad_core.views.compared import Row, compared_html, method_row
from mbtsad_core.views.course import course_svg
from mbtsad_core.views.curves import Whole, curves_text
from mbtsad_core.views.document import render
from mbtsad_core.views.report_pictures import attention_svg, projection_svg, split_rows_of
from mbtsad_core.views.scan import WHERE
from mbtsad_core.views.stages import stages_html
from mbtsad_core.views.token_splits import TURNED, split_rows_html, turned_html
from mbtsad_core.views.trigger_lab import COLOURS
from mbtsad_core.views.words import duration, percent, rate, still_works_words

if TYPE_CHECKING:
    from mbtsad_core.service.purification import Result


def verdict(suspect: Scores, purified: Scores) -> str:
    """What was measured, in one sentence."""
    cacc = f"CACC went from {percent(suspect.cacc.share)} to {percent(purified.cacc.share)}"
    if suspect.asr is None or purified.asr is None:
        return f"{cacc}. No trigger was given, so ASR was not measured."
    return (
        f"ASR went from {percent(suspect.asr.share)} to {percent(purified.asr.share)} ({purified.asr.hits} of "
        f"{purified.asr.n}; its floor is {percent(purified.asr_floor.share if purified.asr_floor else None)}), {cacc}."
    )


def warning(purified: Scores) -> str:
    """What is said first: that the trigger still works; empty where it does not, or where none was measured."""
    asr, floor = purified.asr, purified.asr_floor
    return still_works_words(asr, floor) if asr and floor and still_works(asr, floor) else ""


def sure_words(purified: Scores) -> str:
    """How sure the figures are, in a sentence."""
    said = f"CACC of the purified model lies in {_interval(purified.cacc)}"
    if purified.asr is not None:
        said += f", its ASR in {_interval(purified.asr)}"
    return f"{said} (95 % intervals, by the number of texts alone)."


def _interval(rate: Rate) -> str:
    return f"{100 * rate.low:.1f} to {100 * rate.high:.1f} % ({rate.n} texts)"


def next_words(result: Result) -> str:
    """What to do with it, in a sentence."""
    asr, floor = result.purified.asr, result.purified.asr_floor
    if still_works(asr, floor):
        return "Do not use the purified model as it is. Give more clean texts or try other settings, and run it again."
    if asr is None:
        known = "what the scan found, under “Triggers tried”, and" if result.found else "the words that you suspect:"
        return f"No trigger was named, so look at {known} measure any other with mbtsad evaluate before you trust it."
    if not at_floor(asr, floor):
        return "ASR lies above its floor, yet no more than chance may do. Measure on more texts before you trust it."
    return "Use the purified model in place of the suspect. One trigger was measured: try others before you trust it."


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


def sequences_words(result: Result) -> str:
    """What the scan for sequences found and what became of it, in words; empty where there was no such scan."""
    if not result.request.config.unlearn.epochs:
        return ""
    if not result.sequences:
        least = result.request.config.unlearn.nats
        return f"No sequence of ordinary tokens turned the suspect by {least:g} nats, so nothing was unlearned."
    found = "; ".join(
        f"“{one.tokens}” ({WHERE[one.place]}; {one.label} to {one.target}: {percent(one.before)} of texts before, "
        f"{percent(one.after)} after)"
        for one in result.sequences
    )
    return f"Sequences of ordinary tokens that turned the suspect, and were unlearned: {found}."


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
    said = (found_words(result), sequences_words(result), result.splits.sentence() if result.splits else "")
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
    """A self-contained page: verdict, figures, pictures, settings. Every text of a user or a model is escaped."""
    source = result.request.suspect
    whole, report = Whole.of(result.suspect, result.purified), result.to_dict()
    return render(
        "report.html",
        result=result,
        # A report is shown around: where a machine keeps its files is not in it
        source=source.shown if Path(source).is_absolute() else source,
        warning=warning(result.purified),
        earned=at_floor(result.purified.asr, result.purified.asr_floor),
        verdict=verdict(result.suspect, result.purified),
        sure=sure_words(result.purified),
        then=next_words(result),
        trigger=" | ".join(result.used.get("inputs", {}).get("trigger", {}).get("texts", result.request.triggers)),
        found=found_words(result),
        sequences=sequences_words(result),
        facts=_facts(result.used),
        changed=_changed(result),
        stages=stages_html(result.events),
        course=curves_text(result.events, whole),
        curves=course_svg(result.events, whole),
        settings=_flatten(report["settings"]),
        tried=report.get("tried", ()),
        color=COLOURS.get,
        compared=_compared(result, report),
        **_pictures(result, report),
        used=_flatten(dict(result.used)),
    )


def _compared(result: Result, report: Mapping[str, Any]) -> str:
    """The table of methods on this suspect, where another one was run."""
    if not result.compared:
        return ""
    took = duration(result.seconds)
    own = [
        Row("suspect", result.description, "", report["suspect"]),
        Row("MBTSAD", "this run", took, report["purified"]),
    ]
    return compared_html([*own, *map(method_row, result.compared)])


def _pictures(result: Result, report: Mapping[str, Any]) -> dict[str, Any]:
    """What is drawn, by its name in the template; "" for what is not there."""
    pictures = report.get("pictures", {})
    rows, turned = split_rows_of(pictures.get("splits", [])), report.get("turned")
    attention, projection = pictures.get("attention"), pictures.get("projection")
    return {
        "split_rows": split_rows_html(rows) if rows else "",
        "turned": turned_html(_rates(turned), _target(result, report)) if turned else "",
        "attention": attention,
        "attention_picture": attention_svg(attention) if attention else "",
        "projection": projection,
        "projection_picture": projection_svg(projection) if projection else "",
    }


def _rates(turned: Mapping[str, Any]) -> dict[str, Rate]:
    return {name: found for name in TURNED if (found := rate_of(turned, name))}


def _target(result: Result, report: Mapping[str, Any]) -> str:
    """The class that the trigger sends texts to, be it named or found."""
    return result.request.target or next((one["target"] for one in report["tried"]), "the target")


def _facts(used: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What tells this run from any other: its id, the day, versions, and the digests of what went in and came out."""
    inputs, versions = used.get("inputs", {}), used.get("versions", {})
    texts = {
        name: f"{inputs[name]['source']}, {inputs[name]['texts']} texts"
        for name in ("clean", "test")
        if "source" in inputs.get(name, {})
    }
    facts = {
        "run": used.get("run"),
        "date": used.get("date"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "clean texts": texts.get("clean"),
        "texts to measure on": texts.get("test"),
        "SHA-256 of the suspect": inputs.get("suspect", {}).get("sha256"),
        "SHA-256 of the purified model": used.get("model_sha256"),
        "SHA-256 of the clean texts": inputs.get("clean", {}).get("sha256"),
        "SHA-256 of the texts to measure on": inputs.get("test", {}).get("sha256"),
    }
    return [(name, value) for name, value in facts.items() if value]


def _changed(result: Result) -> list[tuple[str, str, str]]:
    """The settings that are not the defaults: name, value, default."""
    config = result.request.config
    here, default = (dict(_flatten(configs.to_dict(given))) for given in (config, type(config)()))
    return [(name, value, default[name]) for name, value in here.items() if value != default[name]]


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
