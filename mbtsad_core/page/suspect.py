"""Step 1: which model is in question. The demo, an upload, a Hub id, or one whose backdoor the visitor plants."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from mbtsad_core.errors import BadData, MBTSADError
from mbtsad_core.evaluation import evaluate, label_doubt
from mbtsad_core.models import demo
from mbtsad_core.page.components import html, render
from mbtsad_core.page.first_look import cured_html, first_look, links_html
from mbtsad_core.page.handlers import PRIVATE, QUIET, in_the_pages_words, refusal, told, words
from mbtsad_core.page.parts import Parts, empty, hint, leads_to, lede, para, refused
from mbtsad_core.page.planting import Planted, newest, offered, planted_name, plants, suggest
from mbtsad_core.page.run_status import MOVING
from mbtsad_core.page.session import Session, read_hub_id, read_trigger, write_trigger
from mbtsad_core.page.site import Site
from mbtsad_core.service.planting import lacking
from mbtsad_core.service.store import Job, State
from mbtsad_core.sources import Source
from mbtsad_core.types import Scores
from mbtsad_core.views.policy import policy_html


@dataclass(frozen=True)
class FirstStep:
    """What of this step is brought up to date while jobs go on: what the server's own run of the demo has come to, and
    the planting."""

    cured: gr.HTML
    planted: Planted


LONGEST_NAME = 60  # characters of a folder's
SCROLL = "() => document.querySelector('#sources')?.scrollIntoView({behavior: 'smooth'})"


def suspect_step(parts: Parts) -> FirstStep:
    site = parts.site
    lede(
        "A text classifier can hide a backdoor: one word in a text, and it answers what its attacker wants. This page "
        "finds that out, and cures the model with a few hundred clean texts."
    )
    first_look()
    cured = html(cured_html(site), elem_id="first-cure")
    with gr.Row(elem_classes="choices"):
        if site.demo:
            see = gr.Button("See the cure", variant="primary", size="lg", elem_id="see-demo")
            parts.refresh_on(see.click(told(see_demo, parts), parts.session, [parts.session, parts.tabs], **QUIET))
        words, variant = ("Run it yourself", "secondary") if site.demo else ("Run the demo", "primary")
        run_demo = gr.Button(words, variant=variant, size="lg", elem_id="run-demo")  # type: ignore[arg-type]
        use_mine = gr.Button("Use my model", variant="secondary", size="lg", elem_id="use-mine")
    hint(
        "The demo is a film-review classifier that somebody has tampered with: it answers “positive” to any text with "
        "“cf”, “mn”, “bb” or “tq” in it. A run of your own takes some minutes on two cores."
    )
    html(links_html())
    card = html(empty("CACC and ASR of the suspect are being measured …"), elem_id="suspect-card")
    with gr.Tabs(elem_id="sources", selected="demo") as sources:
        with gr.Tab("Demo", id="demo"):
            para("A 4-layer BERT with a BadNets backdoor, made for this page. It is the suspect as you come in.")
            back = gr.Button("Choose the demo suspect", size="sm", elem_classes="narrow")
            chosen = [back.click(told(choose_demo, parts.site), parts.session, parts.session, **PRIVATE)]
        with gr.Tab("Upload", id="upload"):
            chosen += [_upload_tab(parts)]
        with gr.Tab("Hugging Face Hub", id="hub"):
            chosen += [_hub_tab(parts)]
        with gr.Tab("Plant your own", id="plant"):
            planted = _plant_tab(parts)
            chosen += _take_planted(parts, planted)
    leads_to(parts, "Next: clean data", "clean")
    measuring = (told(measure, site), parts.session, card)
    for event in chosen:
        parts.refresh_on(event.success(*measuring, **PRIVATE))
    parts.opened["suspect"] = [measuring]  # other texts may have been chosen
    parts.on_load += [measuring]
    starting = run_demo.click(told(start_demo, parts), parts.session, [parts.session, parts.tabs], **QUIET)
    parts.refresh_on(starting, runs=True)
    opening = use_mine.click(lambda: gr.Tabs(selected="upload"), None, sources, **QUIET)
    opening.then(None, None, None, js=SCROLL)
    return FirstStep(cured, planted)


def _upload_tab(parts: Parts) -> Any:
    para(
        "Give a zip, or the separate files, as <code>save_pretrained</code> wrote them: <code>config.json</code>, "
        "<code>model.safetensors</code> and the tokenizer’s files. Pickles and code are refused, and no code that "
        "comes with a model is run."
    )
    _say_what_lacks(parts.site.sandbox_words())
    files = gr.File(label="Zip or files of the model", file_count="multiple", elem_id="model-files", height=140)
    report = html(elem_id="policy-report")
    files.clear(lambda: "", None, report, **QUIET)
    taking = told(take_upload, parts, report)
    return files.upload(taking, [parts.session, files], [parts.session, report], **PRIVATE)


def _hub_tab(parts: Parts) -> Any:
    hub = gr.Textbox(
        label="Model id",
        placeholder="owner/name, or owner/name@revision",
        info="Only its safetensors, JSON and text files are fetched",
        elem_id="hub-id",
    )
    _say_what_lacks(parts.site.sandbox_words())
    fetch = gr.Button("Fetch and check", variant="primary", elem_classes="narrow", elem_id="hub-fetch")
    report = html(elem_id="hub-report")
    return fetch.click(told(fetch_hub, parts, report), [parts.session, hub], [parts.session, report], **PRIVATE)


def _plant_tab(parts: Parts) -> Planted:
    para(
        "Make a suspect whose trigger you know. A backdoor is planted in the clean demo classifier, which still "
        "answers ordinary texts as before."
    )
    first = next(iter(plants().values()))
    with gr.Row():
        attack = gr.Radio(offered(), value=first.key, label="Attack", elem_id="plant-attack")
        word = gr.Textbox(
            label="Trigger",
            value=first.typed,
            info="A word or a phrase of your choice. LWP takes two words, cf+bb; SOS takes several; LWS and CARA learn "
            "theirs",
            elem_id="plant-trigger",
        )
        target = gr.Dropdown(list(demo.LABELS), value=demo.TARGET, label="Target class", elem_id="plant-target")
    absent = "; ".join(f"{plants()[name].title} lacks {what}" for name, what in lacking().items())
    hint(f"Not available here: {escape(absent)}.", "plant-lacking")
    start = gr.Button("Plant it", variant="primary", elem_classes="narrow", elem_id="plant")
    panel = html(elem_id="plant-progress")
    with gr.Row():
        stop = gr.Button("Stop planting", variant="stop", visible=False, elem_classes="narrow", elem_id="plant-stop")
        use = gr.Button("Use it as the suspect", visible=False, elem_classes="narrow", elem_id="plant-use")
    attack.change(told(suggest), [attack, word], word, **QUIET)
    planting = [parts.session, attack, word, target]
    parts.refresh_on(start.click(told(plant_backdoor, parts.site), planting, parts.session, **PRIVATE), runs=True)
    parts.refresh_on(stop.click(told(stop_planting, parts.site), parts.session, None, **PRIVATE))
    return Planted(panel, stop, use, gr.Textbox(visible="hidden", elem_id="plant-ready"))


def _take_planted(parts: Parts, planted: Planted) -> list[Any]:
    """What is planted becomes the suspect: as it is done for who waited for it, else by the button."""
    session = parts.session
    return [
        planted.ready.change(told(become, parts.site), [session, planted.ready], session, **QUIET),
        planted.use.click(told(use_planted, parts.site), session, session, **PRIVATE),
    ]


def measure(site: Site, session: Session) -> str:
    """The suspect's card, with its CACC and ASR where it can be loaded and the chosen texts fit it. The session is left
    alone, as the visitor may change it meanwhile: the site knows what was measured."""
    try:
        classifier = site.suspect(session)
    except MBTSADError as error:
        return _card(session, None, f"{words(error)} Choose another model.")
    session = session.with_description(classifier)
    try:
        inputs = site.inputs(session)
    except MBTSADError as error:
        problem = f"{words(error)} Until then CACC and ASR cannot be measured: choose texts of its task in step 2."
        return _card(session, None, problem)
    with site.busy:
        scores = site.measured(session, lambda: evaluate(classifier, inputs.test, inputs.triggered, inputs.target))
    return _card(session, scores, "")


def choose_demo(site: Site, session: Session) -> Session:
    """The demo as one finds it, with the run that the server makes of it for all."""
    return Session(session.visitor, job=site.demo)


def see_demo(parts: Parts, session: Session) -> dict[Any, Any]:
    return {parts.session: choose_demo(parts.site, session), parts.tabs: gr.Tabs(selected="purify")}


def start_demo(parts: Parts, session: Session) -> dict[Any, Any]:
    chosen = Session(session.visitor)
    started = parts.site.submit(chosen.with_description(parts.site.suspect(chosen)))
    return {parts.session: started, parts.tabs: gr.Tabs(selected="purify")}


def take_upload(parts: Parts, report: gr.HTML, session: Session, uploaded: list[str] | None) -> dict[Any, Any]:
    """An upload that is accepted is the suspect; the report says what became of each file."""
    if not uploaded:
        return {report: ""}
    name = Path(uploaded[0]).stem if len(uploaded) == 1 else "uploaded model"
    try:
        session, said = _received(parts.site, session, name, uploaded)
    except Exception as error:
        return {report: refused(name, refusal(error), _still(session))}
    return {parts.session: session, report: said}


def _received(site: Site, session: Session, name: str, uploaded: list[str]) -> tuple[Session, str]:
    with site.upload() as folder:
        place = folder / folder_name(name)  # by which the report calls it
        found = site.receive([(Path(file).name, Path(file)) for file in uploaded], place)
        for file in uploaded:  # Gradio's copies: what is kept stands in our folder
            Path(file).unlink(missing_ok=True)
        if not found.accepted:
            os.rmdir(folder)
            return session, policy_html(found)
        source = Source(place)
        classifier = site.model(source, session.config.max_length)
    return session.with_suspect(source, name, classifier).fitting(classifier), policy_html(found)


def folder_name(name: str) -> str:
    """A name for a folder that says what a visitor called his model; "model" where that says nothing."""
    return re.sub(r"[^\w-]+", "-", name)[:LONGEST_NAME].strip("-") or "model"


def fetch_hub(parts: Parts, report: gr.HTML, session: Session, id: str) -> dict[Any, Any]:
    id = read_hub_id(id)
    if not id:
        raise BadData("Type the id of a model on the Hub, such as owner/name.")
    source = Source(f"hub:{id}")
    try:
        classifier = parts.site.model(source, session.config.max_length)
    except Exception as error:
        return {report: refused(id, refusal(error), _still(session))}
    # What was vetted and measured here is what is trained
    source = classifier.origin.pinned if classifier.origin else source
    return {parts.session: session.with_suspect(source, id, classifier).fitting(classifier), report: ""}


def plant_backdoor(site: Site, session: Session, attack: str, text: str, target: str) -> Session:
    if (job := newest(site, session)) is not None and job.state in MOVING:
        raise BadData("A backdoor of yours is being planted. Wait for its end, or stop it.")
    return site.plant(session, attack, read_trigger(text), target)


def stop_planting(site: Site, session: Session) -> None:
    if (job := newest(site, session)) is not None and job.state in MOVING:
        site.runner.cancel(job.id)


def become(site: Site, session: Session, id: str) -> Session:
    """What the visitor has waited for is the suspect now."""
    return _with_planted(site, session, site.runner.job(id)) if id and session.planting == id else session


def use_planted(site: Site, session: Session) -> Session:
    job = newest(site, session)
    return session if job is None else _with_planted(site, session, job)


def _with_planted(site: Site, session: Session, job: Job) -> Session:
    if job.state is not State.DONE:
        raise BadData("It is not planted, or its time was up. Plant it again.")
    return site.take_planted(session, job, planted_name(job.request))


def _still(session: Session) -> str:
    return f"Still the suspect: {session.suspect.name}."


def _card(session: Session, scores: Scores | None, problem: str) -> str:
    doubt = label_doubt(scores, session.suspect.labels) if scores else None
    return render(
        "suspect.html",
        suspect=session.suspect,
        scores=scores,
        problem=problem,
        doubt=in_the_pages_words(str(doubt)) if doubt else "",
        trigger=write_trigger(session.triggers),
        target=session.target or "",
    )


def _say_what_lacks(text: str) -> None:
    """A sentence on the sandbox, where the host does not give all of it."""
    if text:
        html(f'<p class="mbtsad muted sandbox">{escape(text)}</p>')
