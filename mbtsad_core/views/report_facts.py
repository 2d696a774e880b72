"""What a report says beside its figures: the words that it uses, which run it is of, and every setting with what it
means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core import config as configs
from mbtsad_core.sources import DEMO, Source
from mbtsad_core.views.words import HELP, duration

if TYPE_CHECKING:
    from mbtsad_core.service.purification import Result

GLOSSARY = {
    "suspect": "The model as it came. It may have a backdoor: a trigger that makes it answer what an attacker wants.",
    "trigger": "Words put into a text that make the suspect answer the attacker's class, the target.",
    "teacher": (
        "A copy of the suspect. The embeddings of what the scan found, if anything, are reset in it; then it is "
        "retrained on clean texts some of whose words are cut in two."
    ),
    "purified": "The model to take home: another copy of the suspect, which learned from the teacher.",
    "CACC": f"Accuracy on clean texts. {HELP['CACC']}. High is good.",
    "ASR": f"{HELP['ASR']}. Down at its floor is good.",
    "ASR floor": f"{HELP['floor']}. At its floor the trigger does nothing.",
    "interval": "In brackets, Wilson's 95 % interval: where the true share most likely lies, by the number of texts.",
}
OURS = {  # what a run was made of, by its place in report.json
    "run": "name of this run; it opens nothing",
    "date": "when the run ended",
    "model_sha256": "digest of what sha256sum prints of the purified model's files, by name",
    "inputs.suspect.source": "the suspect, as it was named",
    "inputs.suspect.commit": "its commit on the Hugging Face Hub",
    "inputs.suspect.sha256": "digest of what sha256sum prints of those of the suspect's files that were read, by name",
    "inputs.suspect.max_length": "tokens of a text that it reads, at most",
    "inputs.suspect.notes": "what was chosen where its files leave a choice",
    "inputs.trigger.texts": "the trigger that was measured; one of several is drawn for each text",
    "inputs.trigger.target": "the class that it sends texts to",
    "inputs.trigger.sha256": "digest of the file of paired texts",
    "inputs.test.held_out": "whether these texts were taken out of the clean texts",
}
OF_TEXTS = {
    "source": "where {} came from",
    "sha256": "digest of their file",
    "columns.text": "column that holds the text",
    "columns.pair": "column that holds the second text of a pair",
    "columns.label": "column that holds the class",
    "texts": "how many of them were used",
}
MADE_OF = OURS | {
    f"inputs.{key}.{name}": about.format(texts)
    for key, texts in (("clean", "the clean texts"), ("test", "the texts to measure on"))
    for name, about in OF_TEXTS.items()
}
MEASURED_WITH = {
    "device": "where the models ran",
    "precision": "of the numbers in training; measurements are in float32",
    "attention_loss": "how the attention loss was computed",
    "clean_texts": "texts that the suspect was purified with",
    "triggers": "what was measured; scan and training are not told it",
    "target": "the class that the trigger sends texts to",
}


def suspect_name(source: str) -> str:
    """The suspect in a heading. A report is shown around: where a machine keeps its files is not in it."""
    if Source(source).is_demo:
        return "the demo suspect"
    return source if Source(source).is_hub else f"“{Source(source).shown if Path(source).is_absolute() else source}”"


def data_words(result: Result) -> str:
    """Which texts the suspect was purified with, and which it was measured on, in a sentence."""
    inputs = result.used.get("inputs", {})
    clean, test = (inputs.get(name, {}) for name in ("clean", "test"))
    said = f"Purified with {result.clean_texts} clean texts{_from(clean, 'clean')}, in {duration(result.seconds)}"
    held = ", held out of the clean texts" if test.get("held_out") else _from(test, "test")
    return f"{said}; measured on {result.suspect.cacc.n} texts{held}."


def _from(about: Mapping[str, Any], name: str) -> str:
    if "source" not in about:
        return ""
    return f" (the demo's {name} film reviews)" if about["source"] == DEMO else f" ({about['source']})"


def facts(result: Result) -> list[tuple[str, str]]:
    """What tells this run from any other: its id, the day, versions, and the digests of what went in and came out."""
    used, inputs = result.used, result.used.get("inputs", {})
    found = {
        "run": used.get("run"),
        "date": used.get("date") and day(used["date"]),
        "versions": ", ".join(f"{name} {version}" for name, version in used.get("versions", {}).items()),
        "suspect": f"{result.description}: {', '.join(result.labels)}",
        "SHA-256 of the suspect": inputs.get("suspect", {}).get("sha256"),
        "SHA-256 of the purified model": used.get("model_sha256"),
        "SHA-256 of the clean texts": inputs.get("clean", {}).get("sha256"),
        "SHA-256 of the texts to measure on": inputs.get("test", {}).get("sha256"),
    }
    return [(name, value) for name, value in found.items() if value]


def day(written: str) -> str:
    """A time as a person reads it: 2026-03-01 12:00:00 UTC."""
    found = datetime.fromisoformat(written)
    return f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if found.tzinfo else written


def changed(result: Result) -> list[tuple[str, str, str, str]]:
    """The settings that are not the defaults: name, value, default, what it is."""
    config = result.request.config
    default = {one.path: one.default for one in configs.settings(type(config)())}
    return [
        (".".join(one.path), shown(one.default), shown(default[one.path]), one.help)
        for one in configs.settings(config)
        if one.default != default[one.path]
    ]


def all_settings(result: Result, report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Every setting: name, value, what it is."""
    about = MEASURED_WITH | {".".join(one.path): one.help for one in configs.settings(result.request.config)}
    return [(name, value, about.get(name, "")) for name, value in flat(report["settings"])]


def made_of(result: Result) -> list[tuple[str, str, str]]:
    """What the run was made of: name as in report.json, value, what it is."""
    return [(name, value, MADE_OF.get(name, "")) for name, value in flat(result.used)]


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", shown(value)


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == []:
        return "none" if value == [] else "not given"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
