"""How a run stands, in words: its progress never goes back, and each stage has a name that a visitor understands."""

from __future__ import annotations

import re
from itertools import pairwise

from mbtsad_core.jobs.runner import Status
from mbtsad_core.jobs.store import State
from mbtsad_core.jobs.worker import NOT_KEPT
from mbtsad_core.ui.standing import _bar, stage_of


def status(stage: str, step: int, total: int) -> Status:
    return Status("job", State.RUNNING, stage, step, total, None, None, {}, "")


def progress(stage: str, step: int, total: int) -> float:
    found = re.search(r"width:([\d.]+)%", _bar(status(stage, step, total)))
    assert found
    return float(found[1])


def test_progress_goes_from_nothing_to_all_and_never_back() -> None:
    """With a search that finds a pair of words and looks for what goes with it, and the same without."""
    for stages in (("scan", "pairs", "companions", "retrain", "distil"), ("scan", "pairs", "retrain", "distil"), ("retrain", "distil")):
        shown = [progress(stage, step, 10) for stage in stages for step in range(1, 11)]
        assert all(earlier <= later for earlier, later in pairwise(shown))
        assert shown[-1] == 100.0


def test_every_stage_of_a_purification_has_its_words() -> None:
    for stage in (*NOT_KEPT, "retrain", "distil"):
        assert stage_of(status(stage, 1, 2)).words != stage
        assert stage_of(status(stage, 1, 2)).short != stage
