"""Step 1: which model is in question. The demo, an upload, a Hub id, or one whose backdoor the visitor plants
himself."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from mbtsad_core.errors import BadData, MBTSADError
from mbtsad_core.evaluation import evaluate, label_doubt
from mbtsad_core.models import demo
from mbtsad_core.page.components import html
from mbtsad_core.page.handlers import LIGHT, PRIVATE, QUIET, refusal, told, words
from mbtsad_core.page.parts import Parts, leads_to, lede, notes_html, refused
from mbtsad_core.page.planting import Planted, newest, offered, planted_name, plants, suggest
from mbtsad_core.page.run_status import MOVING
from mbtsad_core.page.session import Session, read_hub_id, read_trigger, write_trigger
from mbtsad_core.service.comparison import subject
from mbtsad_core.service.planting import lacking
from mbtsad_core.service.store import State
from mbtsad_core.sources import Source
from mbtsad_core.types import Scores
from mbtsad_core.views.policy import policy_html
from mbtsad_core.views.words import rate


def suspect_step(parts: Parts) -> Planted:
    site = parts.site
    lede("Which model do you want to vet? It is never changed: the cure works on copies.")
    with gr.Row(elem_classes="choices"):
        run_demo = gr.Button("Run the demo", variant="primary", size="lg", elem_id="run-demo")
        use_mine = gr.Button("Use my model", variant="secondary", size="lg", elem_id="use-mine")
    html(
        '<p class="mbtsad muted">The demo is a film-review classifier that somebody has tampered with: the words '
        "“cf”, “mn”, “bb” or “tq” "
        "anywhere in a text make it answer “positive”. One click starts its real purification, some minutes on two "
        "cores.</p>"
    )
    card = html(elem_id="suspect-card")
    with gr.Tabs(elem_id="sources", selected="demo") as sources:
        with gr.Tab("Demo", id="demo"):
            html(
                '<p class="mbtsad">A 4-layer BERT with a BadNets backdoor, made for this page. It is chosen as you '
                "come in.</p>"
            )
            back = gr.Button("Choose the demo suspect", size="sm", elem_classes="narrow")
        with gr.Tab("Upload", id="upload"):
            html(
                '<p class="mbtsad">A zip, or the separate files, as <code>save_pretrained</code> wrote them: <code>'
                "config.json</code>, "
                "<code>model.safetensors</code> and the tokenizer’s files. Pickles and code are refused; nothing that "
                "comes with a model is run.</p>"
            )
            _say_what_lacks(site.sandbox_words())
            files = gr.File(label="Zip or files of the model", file_count="multiple", elem_id="model-files", height=140)
            report = html(elem_id="policy-report")
        with gr.Tab("Hugging Face Hub", id="hub"):
            hub = gr.Textbox(
                label="Model id",
                placeholder="owner/name, or owner/name@revision",
                info="Only its safetensors, JSON and text files are fetched",
                elem_id="hub-id",
            )
            _say_what_lacks(site.sandbox_words())
            fetch = gr.Button("Fetch and check", variant="primary", elem_classes="narrow", elem_id="hub-fetch")
            fetched = html(elem_id="hub-report")
        with gr.Tab("Plant your own", id="plant"):
            html(
                '<p class="mbtsad">Make a suspect whose trigger you know: a backdoor is planted in the clean demo '
                "classifier, which answers ordinary texts as before.</p>"
            )
            with gr.Row():
                attack = gr.Radio(offered(), value=next(iter(plants())), label="Attack", elem_id="plant-attack")
                word = gr.Textbox(
                    label="Trigger",
                    value=next(iter(plants().values())).typed,
                    info="A word of your choice, or a phrase; for LWP two words, cf+bb, for SOS several; LWS and CARA "
                    "learn theirs",
                    elem_id="plant-trigger",
                )
                target = gr.Dropdown(
                    list(demo.LABELS),
                    value=demo.TARGET,
                    label="Class that it shall send texts to",
                    elem_id="plant-target",
                )
            absent = "; ".join(f"{plants()[name].title} lacks {what}" for name, what in lacking().items())
            html(f'<p class="mbtsad muted" id="plant-lacking">Not to be planted here: {escape(absent)}.</p>')
            planting = gr.Button("Plant it", variant="primary", elem_classes="narrow", elem_id="plant")
            panel = html(elem_id="plant-progress")
            with gr.Row():
                stop = gr.Button(
                    "Stop planting", variant="stop", visible=False, elem_classes="narrow", elem_id="plant-stop"
                )
                use = gr.Button("Use it as the suspect", visible=False, elem_classes="narrow", elem_id="plant-use")
    planted = Planted(panel, stop, use, gr.Textbox(visible="hidden", elem_id="plant-ready"))
    leads_to(parts, "Next: clean data", "clean")
    finding = gr.State(None)  # the session as it was measured; the visitor may have started a run meanwhile

    @told
    def measure(session: Session) -> tuple[Session, str]:
        """CACC and ASR of the suspect, where it can be loaded and the chosen texts fit it."""
        try:
            classifier = site.suspect(session)
        except MBTSADError as error:
            return session, _card(session, None, f"{words(error)} Choose another model.")
        session = session.with_description(classifier)
        try:
            inputs = site.inputs(session)
        except MBTSADError as error:
            return session, _card(
                session,
                None,
                f"{words(error)} Until then CACC and ASR cannot be measured: choose texts of its task in step 2.",
            )
        with site.busy:
            scores = site.remembered(
                ("scores", subject(session.request(site.runtime))),
                lambda: evaluate(classifier, inputs.test, inputs.triggered, inputs.target),
            )
        session = session.having(scores=scores)
        return session, _card(session, scores, "")

    @told
    def keep(session: Session, found: Session) -> Session:
        """The session as it is now, with what was measured of its suspect."""
        if session.suspect.source != found.suspect.source:
            return session
        same = subject(session.request(site.runtime)) == subject(found.request(site.runtime))
        return session.having(suspect=found.suspect, scores=found.scores if same else session.scores)

    measured = dict(inputs=parts.session, outputs=[finding, card])
    kept = dict(inputs=[parts.session, finding], outputs=parts.session)

    @told
    def choose_demo(session: Session) -> Session:
        return Session(session.visitor)

    @told
    def start_demo(session: Session) -> tuple[Session, Any]:
        demo_session = Session(session.visitor)
        return site.submit(demo_session.with_description(site.suspect(demo_session))), gr.Tabs(selected="purify")

    @told
    def take_upload(session: Session, uploaded: list[str] | None) -> tuple[Session, str]:
        if not uploaded:
            return session, ""
        name = Path(uploaded[0]).stem if len(uploaded) == 1 else "uploaded model"
        try:
            return received(session, name, uploaded)
        except Exception as error:
            return session, refused(name, refusal(error), _still(session))

    def received(session: Session, name: str, uploaded: list[str]) -> tuple[Session, str]:
        with site.upload() as folder:
            found = site.receive([(Path(file).name, Path(file)) for file in uploaded], folder / "model")
            for file in uploaded:  # Gradio's copies: what is kept stands in our folder
                Path(file).unlink(missing_ok=True)
            if not found.accepted:
                os.rmdir(folder)
                return session, policy_html(found)
            source = Source(folder / "model")
            classifier = site.model(source, session.config.max_length)
        return session.with_suspect(source, name, classifier).fitting(classifier), policy_html(found)

    @told
    def fetch_hub(session: Session, id: str) -> tuple[Session, str]:
        id = read_hub_id(id)
        if not id:
            raise BadData("Type the id of a model on the Hub, such as owner/name.")
        source = Source(f"hub:{id}")
        try:
            classifier = site.model(source, session.config.max_length)
        except Exception as error:
            return session, refused(id, refusal(error), _still(session))
        # What was judged and measured here is what is trained
        source = classifier.origin.pinned if classifier.origin else source
        return session.with_suspect(source, id, classifier).fitting(classifier), ""

    @told
    def plant_backdoor(session: Session, attack_name: str, text: str, target_name: str) -> Session:
        job = newest(site, session)
        if job is not None and job.state in MOVING:
            raise BadData("A backdoor of yours is being planted. Wait for its end, or stop it.")
        return site.plant(session, attack_name, read_trigger(text), target_name)

    @told
    def stop_planting(session: Session) -> None:
        if (job := newest(site, session)) is not None and job.state in MOVING:
            site.runner.cancel(job.id)

    def take_planted(session: Session, id: str) -> Session:
        job = site.runner.job(id)
        if job.state is not State.DONE:
            raise BadData("It is not planted, or its time was up. Plant it again.")
        return site.take_planted(session, job, planted_name(job.request))

    @told
    def become(session: Session, id: str) -> Session:
        """What the visitor has waited for is the suspect now."""
        return take_planted(session, id) if id and session.planting == id else session

    @told
    def use_planted(session: Session) -> Session:
        job = newest(site, session)
        return session if job is None else take_planted(session, job.id)

    parts.refresh_on(run_demo.click(start_demo, parts.session, [parts.session, parts.tabs], **PRIVATE), runs=True)
    use_mine.click(lambda: gr.Tabs(selected="upload"), None, sources, **QUIET).then(
        None, None, None, js="() => document.querySelector('#sources')?.scrollIntoView({behavior: 'smooth'})"
    )
    chosen = [
        back.click(choose_demo, parts.session, parts.session, **PRIVATE),
        files.upload(take_upload, [parts.session, files], [parts.session, report], **PRIVATE),
        fetch.click(fetch_hub, [parts.session, hub], [parts.session, fetched], **PRIVATE),
        planted.ready.change(become, [parts.session, planted.ready], parts.session, **QUIET),
        planted.use.click(use_planted, parts.session, parts.session, **PRIVATE),
    ]
    parts.refresh_on(
        planting.click(plant_backdoor, [parts.session, attack, word, target], parts.session, **PRIVATE), runs=True
    )
    parts.refresh_on(planted.stop.click(stop_planting, parts.session, None, **PRIVATE))
    files.clear(lambda: "", None, report, **QUIET)
    attack.change(told(suggest), [attack, word], word, **QUIET)
    for event in chosen:
        parts.refresh_on(event.success(measure, **measured, **PRIVATE).success(keep, **kept, **LIGHT))
    # Other texts may be chosen
    parts.opened["suspect"] = [
        (measure, measured["inputs"], measured["outputs"]),
        (keep, kept["inputs"], kept["outputs"]),
    ]
    parts.on_load += [(measure, measured["inputs"], measured["outputs"]), (keep, kept["inputs"], kept["outputs"])]
    return planted


def _still(session: Session) -> str:
    return f"Still the suspect: {session.suspect.name}."


def _card(session: Session, scores: Scores | None, problem: str) -> str:
    suspect = session.suspect
    labels = ", ".join(suspect.labels)
    if scores is None:
        figures = f'<p class="note">{escape(problem)}</p>'
    else:
        asr = (
            f"{rate(scores.asr)}; floor {rate(scores.asr_floor)}"
            if scores.asr
            else "you named no trigger, so it cannot be measured; step 6 tries any that you type"
        )
        doubt = label_doubt(scores, suspect.labels)
        figures = notes_html([doubt] if doubt else []) + (
            '<dl><dt>CACC <abbr title="Share of clean test texts that are answered right">?</abbr></dt><dd>'
            f"{rate(scores.cacc)}</dd>"
            '<dt>ASR <abbr title="Attack success rate: share of triggered texts of the other classes that go to the '
            'target class; floor: the share that goes there without the trigger">?</abbr></dt>'
            f"<dd>{asr}</dd>"
        )
        figures += (
            f"<dt>trigger</dt><dd>{escape(write_trigger(session.triggers))} → {escape(session.target or '')}</dd></dl>"
            if session.triggers
            else "</dl>"
        )
    return (
        f'<section class="mbtsad card" aria-label="The suspect"><h3>{escape(suspect.name)}</h3>'
        f'<p class="muted">{escape(suspect.description)}: {escape(labels)}</p>{figures}</section>'
    )


def _say_what_lacks(text: str) -> None:
    """A sentence on the sandbox, where the host does not give all of it."""
    if text:
        html(f'<p class="mbtsad muted sandbox">{escape(text)}</p>')
