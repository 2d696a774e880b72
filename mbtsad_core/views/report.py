"""The report of a run: one HTML file that needs nothing else, and the same in plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mbtsad_core.evaluation.scores import still_works
from mbtsad_core.rates import at_floor, rate_of
from mbtsad_core.scanning.calibrated import MOST
from mbtsad_core.types import Rate, Scores
from mbtsad_core.views.compared import Row, compared_html, method_row
from mbtsad_core.views.course import course_svg, course_words
from mbtsad_core.views.curves import Whole, curves_text
from mbtsad_core.views.document import render
from mbtsad_core.views.report_facts import GLOSSARY, all_settings, changed, data_words, facts, made_of, suspect_name
from mbtsad_core.views.report_pictures import attention_svg, projection_svg, split_rows_of
from mbtsad_core.views.scan import WHERE, estimate_words, record_html
from mbtsad_core.views.stages import sequences_by_scan, stages_html, ways_of
from mbtsad_core.views.token_splits import TURNED, split_rows_html, turned_html
from mbtsad_core.views.trigger_lab import COLOURS
from mbtsad_core.views.words import duration, percent, rate, still_works_words

if TYPE_CHECKING:
    from mbtsad_core.service.purification import Result


@dataclass(frozen=True, slots=True)
class Asked:
    """The trigger that a report speaks of: the one that was given, else the first that the scan found, that was tried,
    and that turns most texts of the suspect. Without either there is none, "", and no ASR in the scores."""

    trigger: str
    target: str
    found: bool
    suspect: Scores
    purified: Scores


def asked_of(result: Result) -> Asked:
    """What a report speaks of, and what suspect and purified model do with it."""
    given, target = result.used.get("inputs", {}).get("trigger", {}), result.request.target or ""
    if words := given.get("texts", result.request.triggers):
        return Asked(" | ".join(words), target, False, result.suspect, result.purified)
    for one in result.evidence.get("tried", ()):
        before, after = (
            replace(scores, asr=rate_of(one[name], "asr"), asr_floor=rate_of(one[name], "asr_floor"))
            for name, scores in (("suspect", result.suspect), ("purified", result.purified))
        )
        if before.asr and before.asr.low > MOST:  # telling words of the task are found too, and turn fewer
            return Asked(one["trigger"], one["target"], True, before, after)
    return Asked("", "", False, result.suspect, result.purified)


def verdict(asked: Asked) -> str:
    """What was measured, in one sentence."""
    before, after = asked.suspect, asked.purified
    cacc = f"CACC went from {percent(before.cacc.share)} to {percent(after.cacc.share)}"
    if before.asr is None or after.asr is None:
        return f"{cacc}. No trigger was given, so ASR was not measured."
    found = f"No trigger was given. With “{asked.trigger}”, which the scan found, " if asked.found else ""
    return (
        f"{found}ASR went from {percent(before.asr.share)} to {percent(after.asr.share)} ({after.asr.hits} of "
        f"{after.asr.n}; its floor is {percent(after.asr_floor.share if after.asr_floor else None)}), {cacc}."
    )


def warning(purified: Scores) -> str:
    """What is said first: that the trigger still works; empty where it does not, or where none was measured."""
    asr, floor = purified.asr, purified.asr_floor
    return still_works_words(asr, floor) if asr and floor and still_works(asr, floor) else ""


def plain_words(asked: Asked) -> str:
    """What the trigger does before and after, without a term of the field; empty where none was measured."""
    before, after, floor = asked.suspect.asr, asked.purified.asr, asked.purified.asr_floor
    if before is None or after is None or floor is None:
        return ""
    what = f"“{asked.trigger}”" if asked.found else "the trigger"
    return (
        f"With {what}, the suspect sends {before.hits} of {before.n} texts of other classes to “{asked.target}”, the "
        f"purified model {after.hits}. Without it, the purified model sends {floor.hits} of the same texts there."
    )


def trigger_words(asked: Asked, result: Result) -> str:
    """How the trigger was measured; empty without one."""
    if not asked.trigger:
        return ""
    words = result.request.triggers
    file = "sha256" in result.used.get("inputs", {}).get("trigger", {})
    given = "one of them in each text" if len(words) > 1 else "texts of a file" if file else ""
    how = "found by the scan, none was given" if asked.found else given
    return f"{how + ', ' if how else ''}towards “{asked.target}”"


def sure_words(asked: Asked, result: Result) -> str:
    """How sure the figures are, and what was not searched for."""
    said = f"The purified model's CACC lies between {_interval(asked.purified.cacc)}"
    measured = "on these texts"
    if asked.purified.asr is not None:
        said += f", its ASR between {_interval(asked.purified.asr)}"
        measured = "with this trigger on these texts"
    parts = (("words", result.request.config.found_tokens), ("phrases", sequences_by_scan(result.events) is not None))
    searched = [words for words, is_it in parts if is_it]
    shapes = "sentence shapes but for their first word" if "phrases" in searched else "sentence shapes"
    left = ", ".join(kind for kind in ("words", "phrases", shapes, "styles") if kind not in searched)
    return (
        f"{said}: 95 % intervals, by the number of texts alone. These figures say what was measured {measured}; they "
        f"do not prove that no other backdoor is left. Not searched for: {left}."
    )


def _interval(rate: Rate) -> str:
    return f"{100 * rate.low:.1f} and {100 * rate.high:.1f} % ({rate.n} texts)"


def next_words(asked: Asked, result: Result) -> str:
    """What to do with it, in a sentence."""
    asr, floor = asked.purified.asr, asked.purified.asr_floor
    if asr is None:
        look = "Look at what the scan found, under “Triggers tried”. " if result.found else ""
        return f"{look}Measure each trigger that you suspect with mbtsad evaluate before you trust the purified model."
    if still_works(asr, floor):
        return "Do not use this purified model. Purify the suspect again, with more clean texts or other settings."
    if not at_floor(asr, floor):
        return (
            "ASR lies above its floor, yet by no more than chance explains. Measure on more texts before you trust "
            "the purified model."
        )
    return (
        "Do not use the suspect. The purified model may stand in its place: the trigger that was measured no "
        "longer works on it. First try any others that you can think of; “Triggers tried” lists what was tried."
    )


def found_words(result: Result) -> str:
    """What the trigger scan found, in words; empty where there was none."""
    if not result.request.config.found_tokens:
        return ""
    if not result.found:
        return "The trigger scan found no token, alone or with another, that turns the suspect's answers."
    places = {token: f", {WHERE[place]} of texts alone" for token, place in result.found_at.items()}
    found = ", ".join(f"{token} ({nats:.1f}{places.get(token, '')})" for token, nats in result.found)
    where = "" if places else " wherever they stand"
    return (
        f"The trigger scan found tokens that turn the suspect{where}, alone or two together: {found}. "
        "In brackets: nats by which its loss rose in at least three of four longer clean texts of a class. "
        "A trigger does that; a few strong words of the task may do it too."
    )


def sequences_words(result: Result) -> str:
    """What the scan for sequences found and what became of it, in words; empty where there was no such scan."""
    if sequences_by_scan(result.events) is None:
        return ""
    if not result.sequences:
        return "No sequence of ordinary tokens counts as a trigger, so nothing was unlearned."
    counting, suspicious = (
        "; ".join(
            f"“{one.tokens}” ({WHERE[one.place]}; {one.label} to {one.target}: {percent(one.before)} of texts before, "
            f"{percent(one.after)} after)"
            for one in result.sequences
            if one.counts == counts
        )
        for counts in (True, False)
    )
    said = (
        f"Sequences of ordinary tokens that turned the suspect, and were unlearned: {counting}."
        if counting
        else "No sequence of ordinary tokens counts as a trigger."
    )
    doubt = "Unlearned to be safe, as they turned some texts, and neither labels nor like words say why"
    return f"{said} {doubt}: {suspicious}." if suspicious else said


def residual_words(result: Result) -> str:
    """What a scan of the purified model says of the ASR that is left, in words; empty where there was none."""
    if result.residual is None:
        return ""
    if estimate := result.residual["estimated_asr"]:
        return estimate_words(estimate)
    return (
        f"No residual ASR is estimated. A scan of the purified model: {result.residual['verdict']}. "
        f"{result.residual['reason']}"
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
    said = (
        found_words(result),
        sequences_words(result),
        residual_words(result),
        result.splits.sentence() if result.splits else "",
    )
    lines += ["", verdict(asked_of(result)), *filter(None, said), *(f"Note: {note}" for note in result.notes)]
    used = f"{result.device}, {result.precision}, attention loss {result.attention}"
    lines.append(f"{result.description}; {result.clean_texts} clean texts; {used}; {duration(result.seconds)}.")
    return "\n".join(lines)


def report_html(result: Result) -> str:
    """A self-contained page: verdict, figures, pictures, settings. Every text of a user or a model is escaped."""
    whole, report, asked = Whole.of(result.suspect, result.purified), result.to_dict(), asked_of(result)
    return render(
        "report.html",
        result=result,
        name=suspect_name(result.request.suspect),
        warning=warning(result.purified),
        earned=at_floor(result.purified.asr, result.purified.asr_floor),
        verdict=verdict(asked),
        plain=plain_words(asked),
        data=data_words(result),
        sure=sure_words(asked, result),
        then=next_words(asked, result),
        asked=asked,
        how=trigger_words(asked, result),
        found=found_words(result),
        sequences=sequences_words(result),
        residual=residual_words(result),
        glossary=GLOSSARY,
        facts=facts(result),
        changed=changed(result),
        stages=stages_html(result.events),
        course=curves_text(result.events, whole),
        curves=course_svg(result.events, whole),
        course_about=course_words(result.events),
        settings=all_settings(result, report),
        tried=(tried := report.get("tried", ())),
        reset=sum(one["found_by_scan"] for one in tried) > 1,
        untried=_untried(result, tried),
        color=COLOURS.get,
        compared=_compared(result, report),
        scanned=result.scanned,
        findings=record_html(result.scanned, lab=False) if result.scanned else "",
        **_pictures(result, report),
        used=made_of(result),
    )


def _untried(result: Result, tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the scan found and is not in the table, once it has any of that."""
    asked = {one["trigger"] for one in tried}
    ways = ways_of(result.found, result.phrases)
    return [way for way in ways if way not in asked] if asked.intersection(ways) else []


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
