"""What a scan of models says: in a terminal, a model by itself or a table of many; as SARIF; on the page, as it goes
and at its end. It is made of records (docs/scan.schema.json)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mbtsad_core.types import Rate
from mbtsad_core.vetting.file_policy import printable
from mbtsad_core.views.document import TEMPLATES, render
from mbtsad_core.views.sarif import result_of, rule_of, run_of, sarif
from mbtsad_core.views.words import duration, percent, rarity

SCAN_STYLE = (TEMPLATES / "scan.css").read_text("utf-8")
WHERE = {"start": "at the start", "end": "at the end", "anywhere": "anywhere", "scattered": "its tokens scattered"}
MEANING = {
    "nothing found": "this is no proof that there is nothing",
    "a trigger exists": "purify the model, or do not use it: mbtsad purify",
    "inconclusive": "the scan says neither",
    "refused": "the model was not loaded: mbtsad vet",
}
RULES = (
    rule_of(
        "scan.trigger",
        "Tokens that turn the answers on clean texts",
        "Whoever knows these tokens decides what the model answers.",
        "Purify the model (mbtsad purify), or do not use it.",
    ),
    rule_of(
        "scan.inconclusive",
        "The scan came to no verdict",
        "The model may have a backdoor or none.",
        "Give more clean texts of the model's task, or more time.",
    ),
    rule_of("scan.refused", "The model was not loaded", "Its files break a rule of docs/vetting.md, or fit no method."),
)


def scan_text(record: Mapping[str, Any]) -> str:
    """The verdict on a model, and what it rests on. Nothing in it can steer a terminal."""
    verdict, name = record["verdict"], printable(record["model"], 300)
    lines = [f"{verdict}: {name}: {MEANING[verdict]}.", f"  {printable(record['reason'], 1000)}"]
    for number, one in enumerate(record.get("triggers", ()), 1):
        lines += _trigger(f"{number}.", one)
    if strongest := record.get("strongest"):
        lines += _trigger("What turns most, and does not count as a trigger:", strongest)
    if estimate := record.get("estimated_asr"):
        lines.append(f"  {estimate_words(estimate)}")
    return "\n".join([*lines, *_about(record)])


def estimate_words(one: Mapping[str, Any]) -> str:
    """ASR as it is estimated from clean texts alone, in a sentence or two. Nothing in it can steer a terminal."""
    low, high = (100 * share for share in one["interval"])
    return (
        f"Estimated {'residual ' if one['residual'] else ''}ASR: {percent(one['share'])} [{low:.1f}, {high:.1f}], by "
        f"{printable(one['text'])!r}, which sends {one['hits']} of {one['n']} held-out clean texts of "
        f"{printable(one['label'])} to another class. This is an estimate, no proof: a trigger that no scan found is "
        "not in it."
    )


def _trigger(head: str, one: Mapping[str, Any]) -> list[str]:
    low, high = (100 * share for share in one["interval"])
    if (more := one.get("opening_nats")) is not None:
        strength = f"{more:.1f} nats more than elsewhere in them"
    else:
        joined = f", {nats:.1f} in joined texts" if (nats := one.get("joined_nats")) is not None else ""
        strength = f"{one['nats']:.1f} nats{joined}"
    rare = f"; as much in {rarity(one['chance'])} clean models" if "chance" in one else ""
    said = [
        f"  {head} {printable(one['text'])!r}, {one['place']}, in texts of {printable(one['label'])}: "
        f"{percent(one['flip_rate'])} [{low:.1f}, {high:.1f}] go to another class ({one['flips']} of {one['n']}"
        f"{', ' + printable(one['target']) if one['flips'] else ''}); {strength}{rare}"
    ]
    if more is not None:
        said.append("     A sentence shape that begins so may be the trigger.")
    if one["looks_honest"]:
        said.append("     It looks honest: tokens of like meaning do the same.")
    if one["alike"]:
        shown = ", ".join(repr(printable(text)) for text in one["alike"][:5])
        said.append(f"     Likewise: {shown}")
    for example in one["examples"]:
        said += [f"     - {printable(example['before'], 160)}", f"       {printable(example['after'], 160)}"]
    return said


def _about(record: Mapping[str, Any]) -> list[str]:
    if "rows" not in record:
        return []
    labels = "with labels" if record["labeled"] else "without labels: the model's own answers stand for them"
    accuracy = record["accuracy"]
    right = f", {percent(accuracy['share'])} answered right" if accuracy else ""
    said = [
        f"  {record['rows_walked']:,} of {record['rows']:,} rows of the word embeddings were tried. "
        f"{record['clean_texts']} clean texts, {labels}{right}; {record['held_out_texts']} held out. "
        f"{duration(record['seconds'])}."
    ]
    if known := record["calibrated_on"]:
        said.append(
            f"  What counts as a trigger rests on {known['clean']} clean and {known['suspects']} planted models: see "
            "docs/scan.md for how often it is right."
        )
    if record["not_looked_at"]:
        said.append(f"  Not looked at: {printable('; '.join(record['not_looked_at']), 1000)}.")
    return said + [f"  Note: {printable(note, 1000)}" for note in record["notes"]]


def scan_table(records: Sequence[Mapping[str, Any]]) -> str:
    """A line a model and, below, why there is no verdict on some."""
    rows = [("model", "verdict", "strongest", "turns", "seconds"), *map(_row, records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lacking = [record for record in records if record["verdict"] in ("inconclusive", "refused")]
    return "\n".join(lines + [f"{printable(one['model'], 60)}: {printable(one['reason'], 1000)}" for one in lacking])


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    best = next(iter(record.get("triggers", ())), None) or record.get("strongest")
    told = (repr(printable(best["text"], 40)), f"{best['flips']} of {best['n']}") if best else ("", "")
    return (
        printable(record["model"], 60),
        record["verdict"],
        *told,
        f"{record['seconds']:.0f}" if "seconds" in record else "",
    )


def scan_sarif(records: Sequence[Mapping[str, Any]], version: str) -> dict[str, Any]:
    """A result for each trigger, and for each model without a verdict."""
    return sarif([scan_run(records, version)])


def scan_run(records: Sequence[Mapping[str, Any]], version: str) -> dict[str, Any]:
    """The run of that log."""
    results = [result for record in records for result in _results(record)]
    successful = all(record["verdict"] != "inconclusive" for record in records)
    return run_of("mbtsad scan", version, RULES, results, successful=successful)


def _results(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    place, reason = printable(record["model"], 255), printable(record["reason"], 1000)
    if record["verdict"] == "refused":
        return [result_of("scan.refused", "error", reason, place)]
    if record["verdict"] == "inconclusive":
        return [result_of("scan.inconclusive", "warning", reason, place)]
    return [
        result_of("scan.trigger", "warning" if one["looks_honest"] else "error", _message(one), place)
        for one in record["triggers"]
    ]


def _message(one: Mapping[str, Any]) -> str:
    return (
        f"{printable(one['text'])!r} ({one['place']}) sends {one['flips']} of {one['n']} held-out texts of "
        f"{printable(one['label'])} to {printable(one['target'])}."
    )


def race_html(leading: Sequence[Mapping[str, Any]]) -> str:
    """Who is in the lead of a scan that goes on, from the fields of each `Candidate`; "" where nobody is. Needs STYLE
    and SCAN_STYLE."""
    rows = [(one, Rate(**one["flips"]) if one["flips"] else None) for one in leading]
    return render("race.html", leading=rows, where=WHERE) if rows else ""


def listed(record: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    """What stands in rows at the end of a scan: what counts as a trigger, else what turns most."""
    result = record or {}
    return result.get("triggers") or [one for one in [result.get("strongest")] if one]


def record_html(record: Mapping[str, Any], lab: bool = True) -> str:
    """The rows of a record, as `findings_html` has them."""
    title = "What was found" if record["triggers"] else "What turns most, and does not count as a trigger"
    return findings_html(listed(record), title, lab)


def findings_html(found: Sequence[Mapping[str, Any]], title: str, lab: bool = True) -> str:
    """What a scan found, a row each; "" for nothing. With the `lab` each has a button whose data-trial is its place,
    and its texts wait for a click. Needs STYLE and SCAN_STYLE."""
    rows = [(one, Rate(one["flips"], one["n"], *one["interval"]), _examples(one)) for one in found]
    return render("findings.html", found=rows, where=WHERE, title=title, lab=lab) if rows else ""


def _examples(one: Mapping[str, Any]) -> list[tuple[Mapping[str, str], list[tuple[str, bool]]]]:
    """Each example, and its text afterwards in pieces, with which of them the sequence is."""
    found = []
    for example in one["examples"]:
        before, there, after = example["after"].partition(one["text"])
        found.append((example, [(before, False), (there, True), (after, False)]))
    return found
