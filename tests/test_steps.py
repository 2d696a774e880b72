"""Long work, run to its end."""

from __future__ import annotations

import pytest

from mbtsad_core import Event, drain
from mbtsad_core.types import Steps

EVENTS = [Event("count", step, 3) for step in (1, 2, 3)]


def counting(said: list[str]) -> Steps[int]:
    try:
        yield from EVENTS
        return 7
    finally:
        said.append("closed")


def test_every_event_is_told_in_order_and_the_result_comes_back() -> None:
    told: list[Event] = []
    assert drain(counting([]), told.append) == 7
    assert told == EVENTS
    assert drain(counting([])) == 7


def test_what_a_listener_raises_closes_the_work_first() -> None:
    said: list[str] = []

    def stop(event: Event) -> None:
        if event.step == 2:
            said.append("stop")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drain(counting(said), stop)
    assert said == ["stop", "closed"]


def test_a_listeners_own_stop_iteration_is_no_end() -> None:
    def stop(event: Event) -> None:
        raise StopIteration

    with pytest.raises(StopIteration):
        drain(counting([]), stop)
