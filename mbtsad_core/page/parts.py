"""What the steps share: the session, the strip, the tabs, and how a step leads on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from html import escape
from typing import Any

import gradio as gr

from mbtsad_core.page.components import html
from mbtsad_core.page.handlers import LIGHT, in_the_pages_words
from mbtsad_core.page.site import Site

STEPS = {
    "suspect": "1 Suspect",
    "clean": "2 Clean data",
    "scan": "3 Scan",
    "splits": "4 Splits",
    "purify": "5 Purify",
    "inside": "6 Inside",
    "triggers": "7 Triggers",
    "take": "8 Take away",
}
Call = tuple[Callable[..., Any], Any, Any]  # a handler, its inputs, its outputs
MODELS = ("suspect", "teacher", "purified")
HEAVY = {"concurrency_id": "heavy", "concurrency_limit": 2}  # what takes a second or more


@dataclass
class Parts:
    """Components that several steps read or write.

    on_load    (handler, inputs, outputs) to run, one after the other, once a visitor's session is known
    opened     step -> (handler, inputs, outputs) to run whenever it is opened
    events     (event, whether it starts a job): after each, the strip and the run's panel are brought up to date
    """

    site: Site
    session: gr.State
    tabs: gr.Tabs
    on_load: list[Call] = field(default_factory=list)
    opened: dict[str, list[Call]] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)

    def refresh_on(self, event: Any, *, runs: bool = False) -> None:
        """After this event has changed the session, bring what shows it up to date; `runs`: it has started a job."""
        self.events.append((event, runs))


def in_turn(event: Callable[..., Any], *calls: Call, **how: Any) -> Any:
    """Listen with one call after the other, each once the one before went well; the last one's event."""
    for call in calls:
        done = event(*call, **how)
        event = done.success
    return done


def lede(text: str) -> None:
    """The one sentence that says what a step is for."""
    html(f'<p class="mbtsad lede">{escape(text)}</p>')


def heading(text: str) -> None:
    html(f'<h3 class="mbtsad">{escape(text)}</h3>')


def para(content: str) -> None:
    """A paragraph of the page's own HTML."""
    html(f'<p class="mbtsad">{content}</p>')


def hint(content: str, elem_id: str | None = None) -> None:
    """The same, in a lighter color."""
    html(f'<p class="mbtsad muted">{content}</p>', elem_id=elem_id)


def leads_to(parts: Parts, words: str, step: str) -> gr.Button:
    """A step's last button, which leads on."""
    button = gr.Button(words, variant="primary", elem_classes="lead-on")
    button.click(lambda: gr.Tabs(selected=step), None, parts.tabs, **LIGHT)
    return button


def empty(text: str) -> str:
    """What stands where there is nothing to show yet."""
    return f'<p class="mbtsad empty">{escape(text)}</p>'


def said(text: str) -> str:
    """A short answer to what the visitor has just done."""
    return f'<p class="mbtsad muted" role="status">{escape(text)}</p>'


def refused(what: str, why: str, still: str) -> str:
    """What stands in the place of a report where a visitor's own was refused, until something else is chosen.

    what  the name of what they gave
    still what holds on, in a sentence
    """
    return (
        f'<section class="mbtsad card refused" role="status"><h3>✗ Not taken: {escape(what)}</h3><p class="note">'
        f"{escape(why)}</p>"
        f'<p class="muted">{escape(still)}</p></section>'
    )


def card(content: str) -> str:
    """HTML that is set apart from what is around it."""
    return f'<section class="mbtsad card" role="status">{content}</section>'


def notes_html(notes: Iterable[object]) -> str:
    """What visitors are to know of their run, a line each."""
    return "".join(f'<p class="note">{escape(in_the_pages_words(str(note)))}</p>' for note in notes)
