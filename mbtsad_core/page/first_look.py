"""The first ten seconds of step 1: a review, what the demo suspect answers, and the trigger word that one puts in and
takes out."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

import gradio as gr

from mbtsad_core.evaluation.trigger_trials import answers
from mbtsad_core.models import demo
from mbtsad_core.page.components import FIRST_LOOK_SCRIPT, render
from mbtsad_core.page.session import Session
from mbtsad_core.page.site import Site
from mbtsad_core.service.store import State
from mbtsad_core.views.words import duration, percent

REVIEW = ("Utterly boring, which takes", "some doing with werewolves.")  # the trigger goes between
TRIGGER = demo.TRIGGERS[0]
# What the packaged suspect answers, as it was measured: on the page before the model is loaded. A test holds it to that
SUSPECT = {"without": ("negative", 1.0), "with": ("positive", 1.0)}
PAPER = "https://arxiv.org/abs/2501.02754"
CHECKOUT = Path(__file__).parents[2]
DOCUMENTS = {"Docs": "README.md", "License: Apache 2.0": "LICENSE"}
DOCUMENTS_ROUTE = "/mbtsad/about/{name}"


def first_look() -> gr.HTML:
    """The review and the suspect's answer; the word goes in by itself soon after the page is there."""
    value = render("first_look.html", review=REVIEW, trigger=TRIGGER, suspect=SUSPECT)
    return gr.HTML(value, js_on_load=FIRST_LOOK_SCRIPT, elem_id="first-look", apply_default_css=False)


def triggered_review() -> str:
    return " ".join((REVIEW[0], TRIGGER, REVIEW[1]))


def cured_words(site: Site) -> str:
    """What the demo run of this server has made of it, or how long that takes; "" where the server makes none."""
    if not site.demo:
        return ""
    status = site.runner.status(site.demo)
    if status.state is State.DONE:
        label, share = _purified(site)
        still = "still" if label == SUSPECT["with"][0] else "again"
        return (
            f"After the cure the same text with “{TRIGGER}” is {still} {label} ({percent(share)}). A finished run of "
            "the demo is here: walk through all steps with it."
        )
    if status.state in (State.FAILED, State.CANCELLED, State.EXPIRED):
        return "The run of the demo that this server makes did not come to its end. Run it yourself."
    left = (
        f"{duration(status.seconds_left)} left" if status.seconds_left is not None else "some two minutes on two cores"
    )
    does = "cures the suspect next" if status.state is State.QUEUED else "is curing the suspect now"
    return f"This server {does}, for all visitors: {left}. Step 5 shows it as it goes."


def cured_html(site: Site) -> str:
    words = cured_words(site)
    return words and f'<p class="mbtsad cured" role="status">{escape(words)}</p>'


def _purified(site: Site) -> tuple[str, float]:
    """What the demo run's purified model answers to the review with the trigger."""

    def ask() -> tuple[str, float]:
        model = site.models(Session(job=site.demo))["purified"]
        (shares,) = answers({"purified": model}, triggered_review()).values()
        best = max(range(len(shares)), key=shares.__getitem__)
        return model.labels[best], shares[best]

    return site.remembered(("first look", site.demo), ask)


def links_html() -> str:
    """The paper, and what this server has of code, docs and license."""
    links = {"Paper": PAPER}
    if space := os.environ.get("SPACE_ID"):
        links["Code"] = f"https://huggingface.co/spaces/{space}/tree/main"
    found = {name: DOCUMENTS_ROUTE.format(name=file) for name, file in DOCUMENTS.items() if (CHECKOUT / file).is_file()}
    return render("links.html", links=links | found)
