"""The stages of a method, in order, with one way to stop and to go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mbtsad_core.training.state import Save, TrainState
from mbtsad_core.types import Steps

W = TypeVar("W")


@dataclass(frozen=True)
class Stage(Generic[W]):
    """A part of a method that works on a `W`, what all of its stages share.

    work  does the stage; goes on from a state of its own where one is given, and saves states where that is asked for
    keep  adds what the finished stage made to a later stage's state
    take  puts that back from there
    """

    name: str
    work: Callable[[W, TrainState | None, Save | None], Steps[None]]
    keep: Callable[[W, TrainState], TrainState]
    take: Callable[[W, TrainState], None]


def run_stages(stages: Sequence[Stage[W]], on: W, resume: TrainState | None, save: Save | None) -> Steps[W]:
    """Run the stages; of a stopped run, from the state that the last of its stages saved. Each state that is saved
    has what the stages before made."""
    finished: list[Stage[W]] = []

    def save_all(state: TrainState) -> None:
        assert save is not None
        for stage in finished:
            state = stage.keep(on, state)
        save(state)

    stopped_at = [stage.name for stage in stages].index(resume.stage) if resume else 0
    for number, stage in enumerate(stages):
        if resume is not None and number < stopped_at:
            stage.take(on, resume)
        else:
            yield from stage.work(on, resume if number == stopped_at else None, save and save_all)
        finished.append(stage)
    return on
