"""The model card of a purified model: what was done to it, what was measured, and what that does not prove.

It goes where the model goes, to the Hub as well: it names no folder of the machine that it was made on.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from typing import TYPE_CHECKING

from mbtsad_core.attacks.triggers import names_file
from mbtsad_core.config import settings
from mbtsad_core.sources import Source
from mbtsad_core.views.report import verdict, warning
from mbtsad_core.views.words import duration, rate

if TYPE_CHECKING:
    from mbtsad_core.service.purification import Request, Result

INPUTS = {"suspect": "suspect's files", "clean": "clean texts", "test": "texts to measure on"}
LONGEST = 300  # characters of a text of a user, after which it is cut

USE = """```python
from transformers import pipeline

classify = pipeline("text-classification", model="model")  # this folder, or the name that the model has on the Hub
print(classify("a text to classify"))
```"""


def model_card(result: Result) -> str:
    """The card as Markdown with YAML front matter, for the Hub and for README.md beside the weights.

    The licence is left out: it is the suspect's, which we do not know. Texts of a user or a model are escaped
    (`literal`).
    """
    models = (("suspect", result.suspect), ("teacher", result.teacher), ("**purified** (this model)", result.purified))
    figures = "\n".join(f"| {name} | {rate(s.cacc)} | {rate(s.asr)} | {rate(s.asr_floor)} |" for name, s in models)
    changed = "\n".join(
        f"| `{'.'.join(s.path)}` | {_value(s.default)} | {s.help} |" for s in settings(result.request.config)
    )
    # A text of the data stays where it is
    notes = "".join(f"- Note: {literal(note.text.partition('; the first: ')[0])}\n" for note in result.notes)
    used = literal(f"{result.device}, {result.precision}, attention loss {result.attention}")
    whole = " and as they are" if result.request.config.split.keep_originals else ""
    split = f"\n   {result.splits.sentence()}" if result.splits else ""
    raised = (
        "\n   Tokens found by the trigger scan, which turn the suspect's answers to clean texts, were put into these, "
        "labels kept, "
        "after their embeddings were reset to the mean one of running text."
        if result.request.config.found_tokens
        else ""
    )
    first = f"**{words}**\n" if (words := warning(result.purified)) else ""
    labels = ", ".join(f"<code>{literal(label)}</code>" for label in result.labels)
    return f"""---
{_front_matter(result.request)}
---

# Purified text classifier

A text classifier that may have carried a backdoor, after purification with [MBTSAD](https://arxiv.org/abs/2501.02754).
{first}{verdict(result.suspect, result.purified)}

## What was done

The suspect ({_source(result.request.suspect)}; {literal(result.description)}) was purified with {result.clean_texts} clean labelled texts
({_source(result.request.clean)}) in {duration(result.seconds)} ({used}):

1. A copy of it was retrained on the clean texts with random words cut in two{whole}: the teacher.{split}{raised}
2. Another copy learnt the teacher's attention maps, its hidden states, and the labels: this model.

Neither step was told a trigger, and no pre-trained weights were used. Classes, by index from 0: {labels}.

## What was measured

| model | CACC | ASR | ASR floor |
|---|---|---|---|
{figures}

- CACC: share of clean test texts that are answered right. ASR: share of triggered test texts of the other classes that go to the target class.
  Floor: share of the same texts that go there without the trigger. In brackets the Wilson 95 % interval, then counts.
- Trigger: {_trigger(result.request)}
- Texts: {result.clean_texts} to purify with; {result.purified.cacc.n} to measure CACC on ({_tests(result.request)}){_triggered(result)}.
{notes}
{_made_of(result)}

## What these figures do not prove

- A low ASR was measured with this trigger on these texts. It does not prove that no other backdoor is left, nor that there was one.
- The floor is not zero: a model that errs sends some texts to the target class without any trigger.
- CACC was measured on texts of one kind. On other texts, languages or classes the model may do worse than the suspect did.
- Biases and errors of the suspect, and of the clean texts, may be in this model as well.

## How to load it

{USE}

## Settings

| setting | value | |
|---|---|---|
{changed}
"""


def literal(text: str) -> str:
    """A text of a user or a model for Markdown and for the HTML in it: on one line, cut where it is long, and all that
    could be markup as numeric character references, which CommonMark reads as plain characters in every place. Words of
    ours stand before it on its line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
    return re.sub(r"\.(?=\S)|[^\w ,.'…-]|_", lambda m: f"&#{ord(m[0])};", line)


def _front_matter(request: Request) -> str:
    """YAML; what comes from a user is a Hub name that its own rules allow, and quoted."""
    lines = [
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "tags:",
        "- mbtsad",
        "- backdoor-defense",
        "- text-classification",
    ]
    if model := request.suspect.hub_id:
        lines += [f"base_model: {json.dumps(model)}", "base_model_relation: finetune"]
    if data := request.clean.hub_id:
        lines += ["datasets:", f"- {json.dumps(data)}"]
    return "\n".join(lines)


def _source(source: Source) -> str:
    """Where something came from, for anyone to read: a local place is nobody's business."""
    if source.is_demo:
        return "the demo of MBTSAD"
    return f"<code>{literal(source)}</code>" if source.is_hub else "given as files"


def _trigger(request: Request) -> str:
    if not request.triggers:
        return "none was given, so ASR was not measured."
    shown = [PurePath(t).name if names_file(t) else t for t in request.triggers]  # the file of paired texts
    words = ", ".join(f"<code>{literal(t)}</code>" for t in shown)
    how = f"one of {words}, drawn for each text" if len(shown) > 1 else words
    return f"{how}; target class <code>{literal(request.target or '')}</code>. It was used for measuring only."


def _tests(request: Request) -> str:
    return "held out of the clean sample" if request.test is None else _source(request.test)


def _made_of(result: Result) -> str:
    """The day, the programs, and the digests of the suspect and of the texts."""
    used = result.used
    if not used:
        return ""
    programs = ", ".join(f"{name} {number}" for name, number in used["versions"].items())
    digests = "".join(
        f"\n- SHA-256 of the {name}: `{used['inputs'][key]['sha256']}`"
        for key, name in INPUTS.items()
        if used["inputs"][key]["sha256"]
    )
    commit = used["inputs"]["suspect"]["commit"]
    return f"Made on {used['date'][:10]} with {literal(programs)}.\n{digests}" + (
        f"\n- Commit of the suspect on the Hub: `{commit}`" if commit else ""
    )


def _triggered(result: Result) -> str:
    return f"; {result.purified.asr.n} of them with the trigger to measure ASR on" if result.purified.asr else ""


def _value(value: object) -> str:
    return "the model's own" if value is None else str(value)
