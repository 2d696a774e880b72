"""Step 2: the clean sample. The demo's texts, a table of the visitor's with its columns picked, or a Hub data set."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from mbtsad_core.data import Columns
from mbtsad_core.data.columns import guess_columns
from mbtsad_core.data.labels import nameless
from mbtsad_core.data.tables import FORMATS, read_table
from mbtsad_core.errors import BadData, MBTSADError
from mbtsad_core.page.components import html, render
from mbtsad_core.page.handlers import PRIVATE, QUIET, refusal, told, words
from mbtsad_core.page.parts import Call, Parts, hint, leads_to, lede, notes_html, para, refused, said
from mbtsad_core.page.session import CleanData, Session, read_hub_id
from mbtsad_core.page.site import Site
from mbtsad_core.service.purification import Inputs
from mbtsad_core.sources import Source
from mbtsad_core.views.words import duration

SHOWN = 8  # rows of a preview
TABLES = [*FORMATS, ".gz"]


@dataclass(frozen=True)
class Clean:
    """The components of the step.

    picked   the visitor's table, in a folder of their own, until it is used
    problem  what they gave last and why it was refused, until they give something else
    """

    session: gr.State
    preview: gr.Dataframe
    pickers: gr.Row
    text: gr.Dropdown
    label: gr.Dropdown
    pair: gr.Dropdown
    names: gr.Textbox
    use: gr.Button
    check: gr.HTML
    amount: gr.Slider
    cost: gr.HTML
    picked: gr.State
    problem: gr.State


def clean_step(parts: Parts) -> Clean:
    lede(
        "Give texts of the suspect’s task with labels that you trust; some hundreds are enough. The cure learns from "
        "nothing else."
    )
    with gr.Tabs(elem_id="clean-sources", selected="demo"):
        with gr.Tab("Demo texts", id="demo"):
            para(
                "Film-review sentences of two classes: half of them for the cure, half to measure it. Written for "
                "this project, CC0."
            )
            choose_demo = gr.Button("Use the demo texts", size="sm", elem_classes="narrow", elem_id="use-demo-texts")
        with gr.Tab("Upload", id="upload"):
            file, test_file = _files()
            picked = _pickers()
        with gr.Tab("Hugging Face Hub", id="hub"):
            hub = gr.Textbox(
                label="Data set", placeholder="owner/name, owner/name:config, owner/name@split", elem_id="hub-data"
            )
            fetch = gr.Button("Fetch and check", variant="primary", elem_classes="narrow", elem_id="hub-data-fetch")
    options = _label_options()
    check = html(elem_id="clean-check")
    amount = gr.Slider(
        32,
        666,
        value=666,
        step=1,
        label="Clean texts to use",
        info="More texts cure better and take longer",
        elem_id="clean-amount",
    )
    cost = html(elem_id="clean-cost")
    leads_to(parts, "Next: scan the suspect", "scan")
    step = Clean(parts.session, *picked, check, amount, cost, gr.State(""), gr.State(("", "")))
    site, session, chosen = parts.site, parts.session, [parts.session, step.problem]
    showing: Call = (told(show, site, step), chosen, [check, amount, cost])
    pickers = [step.preview, step.pickers, step.text, step.label, step.pair, step.names, step.use]
    outputs = [step.picked, *pickers, step.problem]
    file.upload(told(pick, site, step), [session, file], outputs, **PRIVATE).success(*showing, **QUIET)
    file.clear(lambda: _nothing_picked(step), None, outputs, **QUIET).success(*showing, **QUIET)
    columns = [step.picked, test_file, step.text, step.label, step.pair, step.names]
    for event in (
        choose_demo.click(told(demo_texts, step), session, chosen, **PRIVATE),
        step.use.click(told(use, site, step), [session, *columns, *options], chosen, **PRIVATE),
        fetch.click(told(use_hub, site, step), [session, hub, *options], chosen, **PRIVATE),
    ):
        parts.refresh_on(event.success(*showing, **PRIVATE))
    released = amount.release(told(set_amount, site), [session, amount], session, **QUIET)
    # Takes seconds, so it must not write a session
    released.success(told(price, site), [session, amount], cost, **QUIET)
    parts.opened["clean"] = [showing]
    return step


def _files() -> tuple[gr.File, gr.File]:
    para(
        "Give a table with a text column and a label column: TSV, CSV, JSON, JSONL or Parquet. Labels are class names, "
        "or numbers from 0."
    )
    with gr.Row():
        file = gr.File(label="Clean texts", file_types=TABLES, elem_id="clean-file", height=120)
        test_file = gr.File(label="Texts to measure on (optional)", file_types=TABLES, elem_id="test-file", height=120)
    hint("Without texts to measure on, a fifth of the clean texts is held out for that.")
    return file, test_file


def _pickers() -> tuple[gr.Dataframe, gr.Row, gr.Dropdown, gr.Dropdown, gr.Dropdown, gr.Textbox, gr.Button]:
    """The first rows of a table, and what its columns and the model's classes are; shown once there is a table."""
    preview = gr.Dataframe(
        label="First rows", interactive=False, visible=False, elem_id="preview", wrap=True, max_height=260
    )
    with gr.Row(visible=False) as pickers:
        text = gr.Dropdown([], label="Text", elem_id="text-column")
        label = gr.Dropdown([], label="Label", elem_id="label-column")
        pair = gr.Dropdown([], label="Second text (pairs only)", elem_id="pair-column")
    names = gr.Textbox(
        label="Class names, in the model's order",
        info="Needed only where the labels are names and the model calls its classes LABEL_0, LABEL_1. Example: "
        "negative, positive",
        visible=False,
        elem_id="class-names",
    )
    use = gr.Button("Check and use", variant="primary", elem_classes="narrow", visible=False, elem_id="use-file")
    return preview, pickers, text, label, pair, names, use


def _label_options() -> list[Any]:
    with gr.Accordion("Unusual labels", open=False, elem_id="label-options"), gr.Row():
        meaning = gr.Textbox(
            label="What the labels mean",
            info="Where their names do not say it: 1=negative, 2=positive",
            elem_id="label-map",
        )
        start = gr.Dropdown(
            [("", None), ("0", 0), ("1", 1)], value=None, label="The labels are numbers from", elem_id="labels-start-at"
        )
        skip = gr.Checkbox(label="Leave out rows without a label", elem_id="skip-unlabeled")
    return [meaning, start, skip]


def show(site: Site, step: Clean, session: Session, problem: tuple[str, str]) -> dict[Any, Any]:
    """The check report of what is chosen, or why what was to be chosen is not; the slider's range, and what it
    costs."""
    if problem[0]:
        still = f"Still in use: {session.clean.name}." if session.clean.source else "There are no clean texts yet."
        return {step.check: refused(*problem, still)}
    if not session.clean.source:
        return {step.check: _problem("No clean texts yet. Upload a table, or name a data set."), step.cost: ""}
    try:
        inputs, whole = site.inputs(session), site.inputs(_with_all(session))
    except MBTSADError as error:
        return {step.check: _problem(words(error)), step.cost: ""}
    n = len(whole.clean)
    return {
        step.check: _report(session, whole),
        step.amount: gr.Slider(minimum=min(32, n - 1), maximum=n, value=len(inputs.clean)),
        step.cost: price(site, session, len(inputs.clean)),
    }


def price(site: Site, session: Session, n: int) -> str:
    """What so many texts cost in time."""
    split, time = session.config.split, expected_time(site, session, int(n))
    as_it_is = f" and {split.keep_originals} × as it is" if split.keep_originals else ""
    cost = f"{int(n)} clean texts, each {split.copies} × token-split{as_it_is} in a pass: {time}."
    return "" if time is None else said(cost)


def demo_texts(step: Clean, session: Session) -> dict[Any, Any]:
    return {step.session: session.having(clean=CleanData(), job="", scan=""), step.problem: ("", "")}


def _nothing_picked(step: Clean) -> dict[Any, Any]:
    hidden = (step.preview, step.pickers, step.use)
    return {step.picked: "", **{part: gr.update(visible=False) for part in hidden}, step.problem: ("", "")}


def pick(site: Site, step: Clean, session: Session, uploaded: str | None) -> dict[Any, Any]:
    """Keep the file, show its first rows and guess its columns."""
    if not uploaded:
        return _nothing_picked(step)
    try:
        return _preview(site, step, session, uploaded)
    except Exception as error:
        return _nothing_picked(step) | {step.problem: (Path(uploaded).name, refusal(error))}


def _preview(site: Site, step: Clean, session: Session, uploaded: str) -> dict[Any, Any]:
    with site.upload() as folder:
        kept = folder / Path(uploaded).name
        shutil.move(uploaded, kept)
        table = read_table(kept).frame
        try:
            guessed = guess_columns(table, Columns(), kept.name)
        except MBTSADError:
            guessed = Columns()
    columns = [str(c) for c in table.columns]
    return {
        step.picked: str(kept),
        step.preview: gr.Dataframe(pd.DataFrame(table.head(SHOWN).map(_shown)), visible=True),
        step.pickers: gr.Row(visible=True),
        step.text: gr.Dropdown(columns, value=guessed.text),
        step.label: gr.Dropdown(columns, value=guessed.label),
        step.pair: gr.Dropdown(["", *columns], value=guessed.pair or ""),
        step.names: gr.Textbox(visible=nameless(site.suspect(session).labels)),
        step.use: gr.Button(visible=True),
        step.problem: ("", ""),
    }


def use(
    site: Site,
    step: Clean,
    session: Session,
    kept: str,
    tested: str | None,
    text: str | None,
    label: str | None,
    pair: str | None,
    called: str | None,
    *labels: Any,
) -> dict[Any, Any]:
    """The picked table is the clean sample, where it passes the checks."""
    if not kept:
        raise BadData("Upload a table of clean texts first.")

    def clean() -> CleanData:
        test = Source(Path(kept).with_name("test-" + Path(tested).name)) if tested else None
        if tested and test:
            shutil.copyfile(tested, test)
        columns = Columns(text or None, label or None, pair or None, **_labels(*labels))
        return CleanData(Source(kept), Path(kept).name, columns, test)

    names = tuple(name.strip() for name in (called or "").split(",") if name.strip())
    return _checked(site, step, session, Path(kept).name, clean, names)


def use_hub(site: Site, step: Clean, session: Session, id: str, *labels: Any) -> dict[Any, Any]:
    id = read_hub_id(id, "datasets/")
    if not id:
        raise BadData("Type the id of a data set on the Hub, such as owner/name@train.")

    def clean() -> CleanData:
        return CleanData(Source(f"hub:{id}"), id, Columns(**_labels(*labels)), None)

    return _checked(site, step, session, id, clean, session.names)


def _checked(
    site: Site, step: Clean, session: Session, name: str, clean: Callable[[], CleanData], names: tuple[str, ...]
) -> dict[Any, Any]:
    """The session with these clean texts, once they are checked; else why they are not taken."""
    try:
        found = session.having(clean=clean(), names=names, job="", scan="")
        site.inputs(found)
    except Exception as error:
        return {step.problem: (name, refusal(error))}
    return {step.session: found, step.problem: ("", "")}


def set_amount(site: Site, session: Session, n: int) -> Session:
    whole = len(site.inputs(_with_all(session)).clean)
    clean = dataclasses.replace(session.clean, amount=None if n >= whole else int(n))
    return session if clean == session.clean else session.having(clean=clean)


def _shown(cell: Any) -> str:
    """A cell of the preview; nothing where there is none."""
    text = "" if pd.api.types.is_scalar(cell) and pd.isna(cell) else str(cell)
    return text if len(text) <= 200 else text[:199] + "…"


def _labels(meaning: str | None, start: int | None, skip: bool) -> dict[str, Any]:
    """What the visitor says of their labels, as Columns takes it; raises BadData where they say it twice."""
    if meaning and meaning.strip() and start is not None:
        raise BadData("“What the labels mean” and “the labels are numbers from” say the same. Leave one of them empty.")
    return {"label_map": (meaning or "").strip() or None, "labels_start_at": start, "skip_unlabeled": bool(skip)}


def _with_all(session: Session) -> Session:
    """The session with all of its clean texts."""
    return session.having(clean=dataclasses.replace(session.clean, amount=None))


def expected_time(site: Site, session: Session, n: int) -> str | None:
    """How long a run with n clean texts would take here, in words; None where the texts do not fit the suspect."""
    try:
        inputs = site.inputs(_with_all(session))
    except MBTSADError:
        return None
    found = site.expected(session, inputs.clean, n)
    time = f"about {duration(found.seconds)}" if found.sure else f"{duration(found.low)} to {duration(found.high)}"
    return f"{time} on this machine, estimated from {'earlier runs' if found.seen else 'how fast it reads a text'}"


def _report(session: Session, inputs: Inputs) -> str:
    counts = Counter(t.label for t in inputs.clean)
    twice = len(inputs.clean) - len({t.text for t in inputs.clean})
    notes = [str(note) for note in inputs.notes if note.code != "no_trigger"]
    if twice:
        notes.append(f"{twice} of the clean texts stand in it more than once.")
    if min(counts.values()) * 10 < max(counts.values()):
        notes.append("The classes are far from balanced. The purified model may lose accuracy on the rare ones.")
    return render(
        "clean_check.html",
        name=session.clean.name,
        inputs=inputs,
        counts=counts,
        lengths=sorted(len(t.text.split()) for t in inputs.clean),
        notes=notes_html(notes),
    )


def _problem(text: str) -> str:
    return (
        '<section class="mbtsad card" aria-label="Check report" role="status"><h3>Not yet usable</h3><p '
        f'class="note">{escape(text)}</p></section>'
    )
