"""What every handler of the page needs: errors that tell what to do, and listeners that are no part of the public
API."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import gradio as gr

from mbtsad_core.config import settings
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import MBTSADError, named
from mbtsad_core.page.method_settings import in_words
from mbtsad_core.service.faults import number_of

logger = logging.getLogger(__name__)

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "show_progress_on": []}
LIGHT: dict[str, Any] = {**QUIET, "queue": False}  # answers in milliseconds, so it need not wait in line
# Asked again while it answers, it does so once more. One listener for all that an answer hangs on: answers to several
# overtake each other, and what is shown at last would be none of what was chosen at last.
LAST: dict[str, Any] = {"trigger_mode": "always_last"}


def told(handler: Callable[..., Any], *given: Any) -> Callable[..., Any]:
    """The handler as a listener calls it: its first arguments are given, and its errors are shown to the visitor. Ours
    in their own words, any other by a number that is in the log beside the traceback."""
    if inspect.isgeneratorfunction(handler):

        def called(*args: Any) -> Any:
            with _errors_shown():
                yield from handler(*given, *args)
    else:

        def called(*args: Any) -> Any:
            with _errors_shown():
                return handler(*given, *args)

    functools.update_wrapper(called, handler)
    signature = inspect.signature(handler)  # Gradio reads it, for gr.Request and gr.EventData
    called.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=list(signature.parameters.values())[len(given) :]
    )
    return called


@contextlib.contextmanager
def _errors_shown() -> Iterator[None]:
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise gr.Error(escape(words(error)), duration=15, print_exception=False, title="This did not work") from error


def refusal(error: Exception) -> str:
    """What is told of an error where the page also keeps it in view: shown as `told` does, and returned for who puts it
    where the visitor looks."""
    text = words(error)
    gr.Warning(escape(text), duration=15, title="This did not work")
    return text


NAMES = {".".join(s.path): f"{in_words(s)} in the settings" for s in settings(PurifyConfig())} | {
    "labels": "the class names in step 2",
    "text_column": "the column of the text",
    "label_column": "the column of the label",
    "pair_column": "the column of the second text",
    "target": "the target class",
    "clean_amount": "the number of clean texts",
    "label_map": "what the labels mean, in step 2,",
    "labels_start_at": "“the labels are numbers from”, in step 2,",
    "skip_unlabeled": "“leave out rows without a label”, in step 2",
    "test": "a file of texts to measure on",
}


def in_the_pages_words(text: str) -> str:
    """A message of the core as the page says it: its settings as they are called here, and no folder of the server."""
    return named(without_folders(text), NAMES)


def without_folders(text: str) -> str:
    """A message with each file of the server by its last name."""
    return re.sub(r"(?<![\w./:])/(?:[^\s/'\"]+/)+", "", text)


def words(error: Exception, say: Callable[[str], str] = in_the_pages_words) -> str:
    """What is told of an error: ours as `say` puts it, any other by a number in the log."""
    if isinstance(error, MBTSADError):
        return say(str(error))
    number = number_of(error)
    logger.error("Error %s in the page", number, exc_info=error)
    return (
        "Unknown error: this was not foreseen. Nothing of yours was lost. Try again; if it stays, report the number "
        f"{number}, which the server's log explains."
    )
