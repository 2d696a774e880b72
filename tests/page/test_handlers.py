"""What a visitor is told of an error."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import Counter
from inspect import isgenerator, signature
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from mbtsad_core.errors import BadData
from mbtsad_core.page.handlers import in_the_pages_words, told, words
from mbtsad_core.page.page import build_page
from mbtsad_core.page.site import Site
from mbtsad_core.service.runner import AttachedRunner


@pytest.mark.parametrize(
    ("core", "page"),
    [
        ("The files in /srv/jobs/uploads/x/model do not load.", "The files in model do not load."),
        (
            "Name the columns with `text_column` and `label_column`.",
            "Name the columns with the column of the text and the column of the label.",
        ),
        ("Give a smaller `retrain.batch_size`.", "Give a smaller “Batch size” of step 1 in the settings."),
        ("held out (`test` spares them)", "held out (a file of texts to measure on spares them)"),
        ("The Hub model 'owner/name' could not be fetched", "The Hub model 'owner/name' could not be fetched"),
        ("good and/or bad, 3/4 of them", "good and/or bad, 3/4 of them"),
    ],
)
def test_the_page_names_no_flag_and_no_folder(core: str, page: str) -> None:
    assert in_the_pages_words(core) == page


def test_a_known_error_is_shown_in_its_own_words_escaped() -> None:
    def handler() -> None:
        raise BadData("label <b> is none of the model's")

    with pytest.raises(gr.Error) as caught:
        told(handler)()
    assert caught.value.message == "label &lt;b&gt; is none of the model&#x27;s"


def test_an_unknown_error_tells_a_number_and_keeps_its_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def steps() -> object:
        yield 1
        raise ZeroDivisionError("a secret of the server")

    running = told(steps)()
    assert next(running) == 1
    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error) as caught:
        next(running)
    message = caught.value.message
    assert "Unknown error" in message
    assert "secret" not in message
    assert any(record.getMessage().split()[1] in message and record.exc_info for record in caplog.records)


def test_every_handler_of_the_page_tells_a_fault_by_its_number(tmp_path: Path) -> None:
    """Called with what no visitor can send, each answers, or raises what the page shows in words; a lambda holds
    nothing that can fail."""
    with AttachedRunner(tmp_path / "jobs") as runner:
        page = build_page(Site(tmp_path / "jobs", runner))
        handlers = [
            (f.fn, len(f.inputs))
            for f in page.fns.values()
            if f.fn and f.fn.__name__ != "<lambda>" and f.api_visibility == "private"
        ]
        assert len(handlers) > 40
        for handler, inputs in handlers:
            given = [object()] * (
                inputs
                + sum(p.annotation in ("gr.Request", "gr.EventData") for p in signature(handler).parameters.values())
            )
            with contextlib.suppress(gr.Error), warnings.catch_warnings(action="ignore"):
                answer = handler(*given)
                if isgenerator(answer):
                    list(answer)


def test_no_listener_keeps_the_browser_busy_with_a_progress_that_is_not_shown(tmp_path: Path) -> None:
    """For each component that shows a listener's progress, Gradio walks through the page at each change of any
    listener's state; for the tabs, through all that is in them."""
    with AttachedRunner(tmp_path / "jobs") as runner:
        listeners = build_page(Site(tmp_path / "jobs", runner)).fns.values()
    for listener in (one for one in listeners if one.api_visibility == "private"):
        shows = listener.outputs if listener.show_progress_on is None else listener.show_progress_on
        assert not shows or listener.show_progress != "hidden", listener.name
        assert not any(isinstance(component, gr.Tabs) for component in shows), listener.name


def test_an_error_of_ours_needs_no_log(caplog: pytest.LogCaptureFixture) -> None:
    assert words(BadData("too few texts")) == "too few texts"
    assert not caplog.records


def test_what_the_page_does_by_itself_leaves_the_session_alone(tmp_path: Path) -> None:
    """What a visitor does meanwhile would be lost: both read the session before either writes it."""
    with AttachedRunner(tmp_path) as runner:
        page = build_page(Site(tmp_path, runner))
    (coming,) = (f for f in page.fns.values() if f.name == "come_in")
    session = coming.outputs[0]
    assert isinstance(session, gr.State)

    writers = {f.name: begins(page, f) for f in page.fns.values() if session in f.outputs}
    assert writers.pop("come_in") == {"load"}  # before it there is none
    assert writers.pop("become") == {"change"}  # what was planted, for who waits for it
    assert {"start_demo", "use_settings", "take"} <= set(writers)
    asked = {"click", "upload", "submit", "input", "release", "pick"}
    assert {name for name, events in writers.items() if not events <= asked} == set()


def test_one_listener_answers_all_that_is_typed_and_set_for_what_it_shows(tmp_path: Path) -> None:
    """Of two the earlier may answer last, and what is shown would belong to nothing that is chosen."""
    with AttachedRunner(tmp_path) as runner:
        page = build_page(Site(tmp_path, runner))
    changing = [f for f in page.fns.values() if begins(page, f) & {"change", "input", "release"}]
    writers = Counter(
        output for f in changing if f.name != "look" for output in f.outputs if not isinstance(output, gr.State)
    )
    assert {output.elem_id for output, listeners in writers.items() if listeners > 1} == set()


def begins(page: gr.Blocks, f: Any) -> set[str]:
    """The events that a listener goes back to."""
    before = page.fns.get(f.trigger_after)
    return begins(page, before) if before else {event for _, event in f.targets}
