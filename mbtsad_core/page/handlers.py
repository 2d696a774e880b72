"""What every handler of the page needs: errors that tell what to do, and listeners that are no part of the public
API."""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from mbtsad_core.config import settings
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import MBTSADError, named
from mbtsad_core.service.faults import number_of

logger = logging.getLogger(__name__)

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
LIGHT: dict[str, Any] = {**QUIET, "queue": False}  # answers in milliseconds, so it need not wait in line


def told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The handler, its errors shown to the visitor: ours in their own words, any other by a number that is in the log
    beside the traceback."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def steps(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from handler(*args, **kwargs)
            except Exception as error:
                raise _shown(error) from error

        return steps

    @functools.wraps(handler)
    def once(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            raise _shown(error) from error

    return once


def _shown(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    return gr.Error(escape(words(error)), duration=15, print_exception=False, title="This did not work")


def refusal(error: Exception) -> str:
    """What is told of an error where the page also keeps it in view: shown as `told` does, and returned for who puts it
    where the visitor looks."""
    text = words(error)
    gr.Warning(escape(text), duration=15, title="This did not work")
    return text


NAMES = {
    ".".join(s.path): f"“{' '.join(s.path).replace('_', ' ')}” in the settings" for s in settings(PurifyConfig())
} | {
    "labels": "the class names in step 2",
    "text_column": "the column of the text",
    "label_column": "the column of the label",
    "pair_column": "the column of the second text",
    "target": "the class that it sends texts to",
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
        "Unknown error: this was not foreseen. Nothing of yours was lost; try again, and if it stays, report the "
        f"number {number}: the server's log has the details."
    )
