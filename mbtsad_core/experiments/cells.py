"""Cells: one method with one setting on one suspect. Each is computed once, its figures are one line of a results file, and work
can stop and go on at any time, in as many processes as there are cores."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from filelock import FileLock, Timeout

from mbtsad_core.config import DEFENSE_CONFIGS, Config, PurifyConfig, RuntimeConfig, replace
from mbtsad_core.data import stratified_subset
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.mbtsad import purify
from mbtsad_core.errors import BadConfig, Diverged
from mbtsad_core.evaluation import evaluate
from mbtsad_core.experiments.suspects import Case, Measured, measured, read_scores, suspect, texts
from mbtsad_core.jobs.purification import scores_to_dict
from mbtsad_core.models.classifier import Classifier
from mbtsad_core.types import LabelledText, Steps

T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """What is run.

    method    a key of DEFENSES; "mbtsad" gives the figures of its teacher too
    settings  what differs from an empty config, by dotted name: {"retrain.epochs": 3}; all that matters is named, so that a
              cell means the same whatever the defaults become
    amount    clean texts that the defender has, as a share of the training set or a number
    seed      of the clean subset, the splits, the batches and dropout
    """

    case: Case
    method: str
    settings: dict[str, Any] = field(hash=False)
    amount: float
    seed: int

    @property
    def key(self) -> str:
        """A hash of all that decides the figures but the code."""
        described = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def config(self) -> Config:
        """Raises BadConfig where a setting is unknown or out of range."""
        if self.method not in DEFENSE_CONFIGS:
            raise BadConfig(f"Unknown method {self.method!r}. Known: {', '.join(DEFENSE_CONFIGS)}.")
        return replace(DEFENSE_CONFIGS[self.method], {tuple(name.split(".")): value for name, value in (self.settings | {"seed": self.seed}).items()})


def run(cell: Cell, data: Path, base: Path | None, work: Path, runtime: RuntimeConfig) -> Steps[dict[str, Any]]:
    """The figures of a cell: {"purified": scores, "teacher": scores, "seconds": wall time of the cure, ...}."""
    given = yield from suspect(cell.case, data, base, work, runtime)
    clean = stratified_subset(texts(data, cell.case.task, "train"), cell.amount, cell.seed)
    on = measured(cell.case, data)
    started = time.monotonic()
    try:
        made = yield from _cure(given, clean, cell)
    except Diverged as error:
        return {"diverged": str(error), "seconds": time.monotonic() - started}
    seconds = time.monotonic() - started
    return {name: _figures(classifier, on) for name, classifier in made.items()} | {"seconds": round(seconds, 1)}


def _cure(given: Classifier, clean: Sequence[LabelledText], cell: Cell) -> Steps[dict[str, Classifier]]:
    if cell.method == "mbtsad":
        purified = yield from purify(given, clean, cast(PurifyConfig, cell.config()))
        return {"purified": purified.student, "teacher": purified.teacher}
    return {"purified": (yield from DEFENSES[cell.method](given, clean, cell.config()))}


def _figures(classifier: Classifier, on: Measured) -> dict[str, Any]:
    return scores_to_dict(evaluate(classifier, on.test, on.triggered, on.target))


# ---------------------------------------------------------------- the results file


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a results file by key; a line that a kill left unfinished is not among them."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["key"]: row for row in (json.loads(line) for line in lines if line.endswith("}"))}


def run_all(cells: Iterable[Cell], results: Path, data: Path, base: Path | None, work: Path, runtime: RuntimeConfig, say: Callable[[str], None]) -> None:
    """Run the cells that are not in the results file and that no other process is at, and add their lines."""
    for cell in cells:
        cell.config()  # a wrong setting is told before hours of work
    work.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        try:
            with FileLock(work / f"{cell.key}.lock", timeout=0):  # gone with its process, however that ends
                if cell.key in read_results(results):
                    continue
                figures = _finish(run(cell, data, base, work, runtime))
                row = {
                    "key": cell.key,
                    **dataclasses.asdict(cell),
                    "before": read_scores(work, cell.case),
                    "figures": figures,
                    "machine": machine(),
                    "commit": commit(),
                }
                with open(results, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                say(f"{cell.case.name}  {cell.method} {cell.settings}  {figures}")
        except Timeout:
            continue


def _finish(steps: Steps[T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def machine() -> str:
    """Processor, cores and PyTorch, in a few words."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"


def commit() -> str:
    """The commit of the checkout that runs, with "+" where files differ from it; empty in an installed package."""
    here = Path(__file__).parent
    try:
        name = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "mbtsad_core", ":!mbtsad_core/experiments/results"],
            cwd=here.parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name + ("+" if changed.stdout.strip() else "")
