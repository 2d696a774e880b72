"""Long work, run to its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from mbtsad_core.types import Event, Steps, T


def drain(steps: Steps[T], on_event: Callable[[Event], object] | None = None) -> T:
    """Run long work to its end and return its result; `on_event` is told every step.

    What `on_event` raises stops the work at that step: it is closed first, so that what it saves is whole.
    """
    with closing(steps):
        while True:
            try:
                event = next(steps)
            except StopIteration as done:
                result: T = done.value
                return result
            if on_event:
                on_event(event)
