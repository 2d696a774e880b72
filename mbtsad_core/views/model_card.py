"""The model card of a purified model: what was done to it, what was measured, and what that does not prove.

It goes where the model goes, to the Hub as well: it names no folder of the machine that it was made on.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from mbtsad_core.attacks.triggers import names_file
from mbtsad_core.config import settings
from mbtsad_core.sources import Source
from mbtsad_core.views.document import render
from mbtsad_core.views.report import Asked, asked_of, verdict, warning

if TYPE_CHECKING:
    from mbtsad_core.service.purification import Request, Result

INPUTS = {"suspect": "suspect's files", "clean": "clean texts", "test": "texts to measure on"}
LONGEST = 300  # characters of a text of a user, after which it is cut


def model_card(result: Result) -> str:
    """The card as Markdown with YAML front matter, for the Hub and for README.md beside the weights.

    The license is left out: it is the suspect's, which we do not know. Texts of a user or a model are escaped
    (`literal`).
    """
    request, used = result.request, result.used
    inputs = used["inputs"] if used else {}
    asked = asked_of(result)
    return render(
        "model_card.md",
        result=result,
        request=request,
        front_matter=_front_matter(request),
        warning=warning(result.purified),
        verdict=verdict(replace(asked, trigger=literal(asked.trigger))),
        source=_source,
        machine=f"{result.device}, {result.precision}, attention loss {result.attention}",
        models=(
            ("suspect", result.suspect),
            ("teacher", result.teacher),
            ("**purified** (this model)", result.purified),
        ),
        trigger=_trigger(request, asked),
        used=used,
        programs=", ".join(f"{name} {number}" for name, number in used["versions"].items()) if used else "",
        digests=[(name, inputs[key]["sha256"]) for key, name in INPUTS.items() if used and inputs[key]["sha256"]],
        settings=settings(request.config),
        literal=literal,
    )


def literal(text: str) -> str:
    """A text of a user or a model for Markdown and for the HTML in it: on one line, cut where it is long, and all that
    could be markup as numeric character references, which CommonMark reads as plain characters in every place. Words of
    ours stand before it on its line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
    return re.sub(r"\.(?=\S)|[^\w ,.'…-]|_", lambda m: f"&#{ord(m[0])};", line)


def _front_matter(request: Request) -> str:
    """YAML; what comes from a user is a Hub name that its own rules allow."""
    from huggingface_hub import ModelCardData

    model, data = request.suspect.hub_id, request.clean.hub_id
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["mbtsad", "backdoor-defense", "text-classification"],
        base_model=model,
        base_model_relation="finetune" if model else None,
        datasets=[data] if data else None,
    ).to_yaml()


def _source(source: Source) -> str:
    """Where something came from, for anyone to read: a local place is nobody's business."""
    if source.is_demo:
        return "the demo of MBTSAD"
    return f"<code>{literal(source)}</code>" if source.is_hub else "given as files"


def _trigger(request: Request, asked: Asked) -> str:
    if asked.found:
        return f"none was given; the scan found <code>{literal(asked.trigger)}</code>."
    if not request.triggers:
        return "none was given, so ASR was not measured."
    shown = [PurePath(t).name if names_file(t) else t for t in request.triggers]  # the file of paired texts
    words = ", ".join(f"<code>{literal(t)}</code>" for t in shown)
    how = f"one of {words}, drawn for each text" if len(shown) > 1 else words
    return f"{how}; target class <code>{literal(request.target or '')}</code>. It was used for measuring only."
