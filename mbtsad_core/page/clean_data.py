"""Step 2: the clean sample. The demo's texts, a table of the visitor's with its columns picked, or a Hub data set."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from mbtsad_core.config import SplitConfig
from mbtsad_core.data import Columns
from mbtsad_core.data.columns import guess_columns
from mbtsad_core.data.labels import nameless
from mbtsad_core.data.tables import FORMATS, read_table
from mbtsad_core.errors import BadData, MBTSADError
from mbtsad_core.page.components import html
from mbtsad_core.page.handlers import PRIVATE, QUIET, refusal, told, words
from mbtsad_core.page.parts import Parts, leads_to, lede, notes_html, refused
from mbtsad_core.page.session import CleanData, Session, read_hub_id
from mbtsad_core.page.site import Site
from mbtsad_core.service.purification import Inputs
from mbtsad_core.sources import Source
from mbtsad_core.views.words import duration

SHOWN = 8  # rows of a preview
# What the visitor's file, its preview, the pickers of its columns and what was wrong with it are where there is none.
NOTHING_PICKED: tuple[Any, ...] = (
    "",
    *(gr.update(visible=False),) * 2,
    *(gr.skip(),) * 4,
    gr.update(visible=False),
    ("", ""),
)


def clean_step(parts: Parts) -> None:
    site = parts.site
    lede(
        "Texts with the right labels that you trust, of the task that the suspect was made for; some hundreds are "
        "enough. They are all that the cure learns from."
    )
    with gr.Tabs(elem_id="clean-sources", selected="demo"):
        with gr.Tab("Demo texts", id="demo"):
            html(
                '<p class="mbtsad">Film-review sentences of two classes, half of them for the cure and half to '
                "measure it; written for this project, CC0.</p>"
            )
            choose_demo = gr.Button("Use the demo texts", size="sm", elem_classes="narrow", elem_id="use-demo-texts")
        with gr.Tab("Upload", id="upload"):
            html(
                '<p class="mbtsad">A table with a text column and a label column: TSV, CSV, JSON, JSONL or Parquet. '
                "Labels are class names, or numbers from 0.</p>"
            )
            with gr.Row():
                file = gr.File(label="Clean texts", file_types=[*FORMATS, ".gz"], elem_id="clean-file", height=120)
                test_file = gr.File(
                    label="Texts to measure on (optional)",
                    file_types=[*FORMATS, ".gz"],
                    elem_id="test-file",
                    height=120,
                )
            html(
                '<p class="mbtsad muted">Without texts to measure on, a fifth of the clean texts is held out for '
                "that.</p>"
            )
            preview = gr.Dataframe(
                label="First rows", interactive=False, visible=False, elem_id="preview", wrap=True, max_height=260
            )
            with gr.Row(visible=False) as pickers:
                text = gr.Dropdown([], label="Text", elem_id="text-column")
                label = gr.Dropdown([], label="Label", elem_id="label-column")
                pair = gr.Dropdown([], label="Second text (pairs only)", elem_id="pair-column")
            names = gr.Textbox(
                label="Class names, in the model's order",
                info="Only where the labels are names and the model calls its classes LABEL_0, LABEL_1: negative, "
                "positive",
                visible=False,
                elem_id="class-names",
            )
            use_file = gr.Button(
                "Check and use", variant="primary", elem_classes="narrow", visible=False, elem_id="use-file"
            )
        with gr.Tab("Hugging Face Hub", id="hub"):
            hub = gr.Textbox(
                label="Data set", placeholder="owner/name, owner/name:config, owner/name@split", elem_id="hub-data"
            )
            fetch = gr.Button("Fetch and check", variant="primary", elem_classes="narrow", elem_id="hub-data-fetch")
    with gr.Accordion("Labels that need a word", open=False, elem_id="label-options"), gr.Row():
        meaning = gr.Textbox(
            label="What the labels mean",
            info="Where their names do not say it: 1=negative, 2=positive",
            elem_id="label-map",
        )
        start = gr.Dropdown(
            [("", None), ("0", 0), ("1", 1)], value=None, label="The labels are numbers from", elem_id="labels-start-at"
        )
        skip = gr.Checkbox(label="Leave out rows without a label", elem_id="skip-unlabeled")
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
    leads_to(parts, "Next: see the splits", "splits")
    picked = gr.State("")  # the visitor's file, in a folder of his own
    problem = gr.State(("", ""))  # what he gave last and why it was refused, until he gives something else

    @told
    def show(session: Session, problem: tuple[str, str]) -> tuple[str, Any, str]:
        """The check report of what is chosen, or why what was to be chosen is not; the slider's range, and what it
        costs."""
        if problem[0]:
            still = f"Still in use: {session.clean.name}." if session.clean.source else "There are no clean texts yet."
            return refused(*problem, still), gr.skip(), gr.skip()
        if not session.clean.source:
            return _problem("No clean texts yet. Upload a table, or name a data set."), gr.skip(), ""
        try:
            inputs = site.inputs(session)
            whole = site.inputs(session.having(clean=_all_of(session.clean)))
        except MBTSADError as error:
            return _problem(words(error)), gr.skip(), ""
        n = len(whole.clean)
        slider = gr.Slider(minimum=min(32, n), maximum=n, value=len(inputs.clean))
        return _report(session, whole), slider, price(session, len(inputs.clean))

    def price(session: Session, n: int) -> str:
        """What so many texts cost in time."""
        time = expected_time(site, session, int(n))
        return (
            ""
            if time is None
            else (
                f'<p class="mbtsad muted" role="status">{int(n)} clean texts, each {in_words(session.config.split)} a '
                f"pass: {time}.</p>"
            )
        )

    def chosen_from(
        session: Session, name: str, clean: Callable[[], CleanData], names: tuple[str, ...] = ()
    ) -> tuple[Session, tuple[str, str]]:
        """The session with these clean texts, once they are checked; else as it was, and why."""
        try:
            found = session.having(clean=clean(), names=names, scores=None, job="")
            site.inputs(found)
        except Exception as error:
            return session, (name, refusal(error))
        return found, ("", "")

    @told
    def demo_texts(session: Session) -> tuple[Session, tuple[str, str]]:
        return session.having(clean=CleanData(), scores=None, job=""), ("", "")

    @told
    def pick(session: Session, uploaded: str | None) -> tuple[Any, ...]:
        """Keep the file, show its first rows and guess its columns."""
        if not uploaded:
            return NOTHING_PICKED
        try:
            return preview_of(session, uploaded)
        except Exception as error:
            return *NOTHING_PICKED[:-1], (Path(uploaded).name, refusal(error))

    def preview_of(session: Session, uploaded: str) -> tuple[Any, ...]:
        with site.upload() as folder:
            kept = folder / Path(uploaded).name
            shutil.move(uploaded, kept)
            table = read_table(kept).frame
            columns = [str(c) for c in table.columns]
            try:
                guessed = guess_columns(table, Columns(), kept.name)
            except MBTSADError:
                guessed = Columns()
        rows = table.head(SHOWN).map(_shown)
        return (
            str(kept),
            gr.Dataframe(pd.DataFrame(rows), visible=True),
            gr.Row(visible=True),
            gr.Dropdown(columns, value=guessed.text),
            gr.Dropdown(columns, value=guessed.label),
            gr.Dropdown(["", *columns], value=guessed.pair or ""),
            gr.Textbox(visible=nameless(session.suspect.labels)),
            gr.Button(visible=True),
            ("", ""),
        )

    @told
    def use(
        session: Session,
        kept: str,
        tested: str | None,
        text: str | None,
        label: str | None,
        pair: str | None,
        called: str | None,
        *said: Any,
    ) -> tuple[Session, tuple[str, str]]:
        if not kept:
            raise BadData("Upload a table of clean texts first.")

        def clean() -> CleanData:
            test = None
            if tested:
                place = Path(kept).with_name("test-" + Path(tested).name)
                shutil.copyfile(tested, place)
                test = Source(place)
            named = Columns(text or None, label or None, pair or None, **_labels(*said))
            return CleanData(Source(kept), Path(kept).name, named, test)

        own = tuple(name.strip() for name in (called or "").split(",") if name.strip())
        return chosen_from(session, Path(kept).name, clean, own)

    @told
    def use_hub(session: Session, id: str, *said: Any) -> tuple[Session, tuple[str, str]]:
        id = read_hub_id(id, "datasets/")
        if not id:
            raise BadData("Type the id of a data set on the Hub, such as owner/name@train.")
        return chosen_from(
            session, id, lambda: CleanData(Source(f"hub:{id}"), id, Columns(**_labels(*said)), None), session.names
        )

    @told
    def set_amount(session: Session, n: int) -> Session:
        whole = len(site.inputs(session.having(clean=_all_of(session.clean))).clean)
        chosen = None if n >= whole else int(n)
        clean = CleanData(session.clean.source, session.clean.name, session.clean.columns, session.clean.test, chosen)
        if clean == session.clean:
            return session
        # Another part is held out to measure on
        return session.having(clean=clean, scores=session.scores if clean.test else None)

    options = [meaning, start, skip]
    shown = dict(inputs=[parts.session, problem], outputs=[check, amount, cost])
    events = [
        choose_demo.click(demo_texts, parts.session, [parts.session, problem], **PRIVATE),
        use_file.click(
            use,
            [parts.session, picked, test_file, text, label, pair, names, *options],
            [parts.session, problem],
            **PRIVATE,
        ),
        fetch.click(use_hub, [parts.session, hub, *options], [parts.session, problem], **PRIVATE),
    ]
    picking = dict(
        inputs=[parts.session, file], outputs=[picked, preview, pickers, text, label, pair, names, use_file, problem]
    )
    for event in (
        file.upload(pick, **picking, **PRIVATE),
        file.clear(lambda: NOTHING_PICKED, None, picking["outputs"], **QUIET),
    ):
        event.success(show, **shown, **QUIET)
    for event in events:
        parts.refresh_on(event.success(show, **shown, **PRIVATE))
    chosen = amount.release(set_amount, [parts.session, amount], parts.session, **QUIET)
    chosen.success(told(price), [parts.session, amount], cost, **QUIET)  # takes seconds, so it must not write a session
    parts.opened["clean"] = [(show, shown["inputs"], shown["outputs"])]


def _shown(cell: Any) -> str:
    """A cell of the preview; nothing where there is none."""
    text = "" if pd.api.types.is_scalar(cell) and pd.isna(cell) else str(cell)
    return text if len(text) <= 200 else text[:199] + "…"


def _labels(meaning: str | None, start: int | None, skip: bool) -> dict[str, Any]:
    """What the visitor says of the labels of his table, as Columns takes it; raises BadData where he says it twice."""
    if meaning and meaning.strip() and start is not None:
        raise BadData("“What the labels mean” and “the labels are numbers from” say the same. Leave one of them empty.")
    return {"label_map": (meaning or "").strip() or None, "labels_start_at": start, "skip_unlabeled": bool(skip)}


def _all_of(clean: CleanData) -> CleanData:
    return CleanData(clean.source, clean.name, clean.columns, clean.test)


def expected_time(site: Site, session: Session, n: int) -> str | None:
    """How long a run with n clean texts would take here, in words; None where the texts do not fit the suspect."""
    try:
        inputs = site.inputs(session.having(clean=_all_of(session.clean)))
    except MBTSADError:
        return None
    found = site.expected(session, inputs.clean, n)
    time = f"about {duration(found.seconds)}" if found.sure else f"{duration(found.low)} to {duration(found.high)}"
    return f"{time} on this machine, judged by {'runs that it has seen' if found.seen else 'how fast it reads a text'}"


def in_words(split: SplitConfig) -> str:
    """How often a clean text is trained on in a pass."""
    return f"token-split {split.copies} ×" + (f" and as it is {split.keep_originals} ×" if split.keep_originals else "")


def _report(session: Session, inputs: Inputs) -> str:
    labels = inputs.suspect.labels
    counts = Counter(t.label for t in inputs.clean)
    classes = "".join(
        f"<tr><th>{escape(name)}</th><td class='number'>{counts[i]}</td><td class='number'>"
        f"{100 * counts[i] / len(inputs.clean):.1f} %</td></tr>"
        for i, name in enumerate(labels)
    )
    lengths = sorted(len(t.text.split()) for t in inputs.clean)
    twice = len(inputs.clean) - len({t.text for t in inputs.clean})
    notes = [str(note) for note in inputs.notes if note.code != "no_trigger"]
    if twice:
        notes.append(f"{twice} of the clean texts stand in it more than once.")
    if min(counts.values()) * 10 < max(counts.values()):
        notes.append("The classes are far from balanced: the purified model may lose accuracy on the rare ones.")
    said = notes_html(notes)
    return (
        f'<section class="mbtsad card" aria-label="Check report" role="status"><h3>✓ {escape(session.clean.name)}: '
        f"{len(inputs.clean)} clean texts, {len(inputs.test)} to measure on</h3>"
        '<div class="scroll"><table class="figures"><thead><tr><th>class</th><th class="number">clean texts</th><th '
        f'class="number">share</th></tr></thead><tbody>{classes}</tbody></table></div>'
        f'<p class="muted">Words a text: median {lengths[len(lengths) // 2]}, longest {lengths[-1]}.</p>'
        f"{said}</section>"
    )


def _problem(text: str) -> str:
    return (
        '<section class="mbtsad card" aria-label="Check report" role="status"><h3>Not yet usable</h3><p '
        f'class="note">{escape(text)}</p></section>'
    )
