"""How time and memory of a purification grow: with the number of texts, their length, the size of the model and K, one
at a time.

It is the paper's method (no trigger scan) on models of random weights. Each run has a process of its own, whose peak
memory counts, and becomes a line of scaling.jsonl as soon as it is done; what stands there is not run again. The
estimate is what the page would have said before the run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbtsad_core.config import RuntimeConfig, from_dict, replace, to_dict
from mbtsad_core.defenses.mbtsad_method import RECIPES, PurifyConfig
from mbtsad_core.errors import MBTSADError
from mbtsad_core.research.benchmark import (
    BERT_BASE,
    MINILM,
    OURS,
    Shape,
    Workload,
    clock,
    peak_memory,
    suspect_of,
    texts_of,
)
from mbtsad_core.research.grid import read_results
from mbtsad_core.research.picture import plotting, write
from mbtsad_core.service.json_lines import add_line
from mbtsad_core.steps import drain

RESULTS, PICTURE = "scaling.jsonl", "scaling.svg"
COLOUR = "#0072B2"  # Okabe and Ito's


@dataclass(frozen=True)
class Run:
    """One purification: so many clean texts of so many tokens each, K copies of them, and a model."""

    texts: int = 64
    tokens: int = 32
    copies: int = 1
    shape: Shape = MINILM

    @property
    def parameters(self) -> float:
        """Millions of weights that are multiplied, the word embeddings not among them."""
        return self.shape.layers * (4 * self.shape.width**2 + 2 * self.shape.width * self.shape.inner) / 1e6


BASE = Run()
AXES: dict[str, tuple[Callable[[Run], float], tuple[Run, ...]]] = {
    "clean texts": (lambda run: run.texts, tuple(dataclasses.replace(BASE, texts=n) for n in (32, 64, 128, 256))),
    "tokens of a text": (lambda run: run.tokens, tuple(dataclasses.replace(BASE, tokens=n) for n in (16, 32, 64, 128))),
    "weights of the layers, millions": (
        lambda run: run.parameters,
        tuple(
            dataclasses.replace(BASE, shape=shape)
            for shape in (Shape(2, 128, 2, 512), Shape(4, 256, 4, 1024), MINILM, BERT_BASE)
        ),
    ),
    "K, copies of a text": (lambda run: run.copies, tuple(dataclasses.replace(BASE, copies=n) for n in (1, 2, 3, 5))),
}
"""What is turned: the place of a run on the axis, and the runs; BASE is in each."""

RUNS = tuple(dict.fromkeys(run for _, runs in AXES.values() for run in runs))


def key_of(run: Run, runtime: RuntimeConfig) -> str:
    """What a line of the results is known by: another device, precision or number of threads is another run."""
    return json.dumps([dataclasses.asdict(run), to_dict(runtime)], sort_keys=True)


def measure(
    folder: Path, runtime: RuntimeConfig, say: Callable[[str], None], runs: Sequence[Run] = RUNS
) -> list[dict[str, Any]]:
    """Run what is not yet in the folder's scaling.jsonl, draw scaling.svg beside it, and return the rows, those of
    `run_once` with a "key" and the load."""
    plotting()  # told before the runs, and not after them, where it is not there
    results = folder / RESULTS
    for run in runs:
        if key_of(run, runtime) not in read_results(results):
            row = {"key": key_of(run, runtime)} | _in_a_process(run, runtime) | {"load": round(os.getloadavg()[0], 2)}
            add_line(results, row)
            say(
                f"{words(run)}: {row['seconds']:.1f} s, {row['memory'] / 2**20:.0f} MB, estimated "
                f"{row['estimate']:.1f} s  (load {row['load']:.1f})"
            )
    rows = read_results(results)
    found = [rows[key_of(run, runtime)] for run in runs]
    draw(folder / PICTURE, found)
    return found


def _in_a_process(run: Run, runtime: RuntimeConfig) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "mbtsad_core.research.scaling",
        json.dumps(dataclasses.asdict(run)),
        json.dumps(to_dict(runtime)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise MBTSADError(f"The process of the run with {words(run)} ended with code {done.returncode}: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def config_of(run: Run) -> PurifyConfig:
    return replace(RECIPES["paper"], {("split", "copies"): run.copies, ("max_length",): run.tokens})


def run_once(run: Run, runtime: RuntimeConfig) -> dict[str, Any]:
    """One purification in this process.

    seconds, cpu       by the clock, and of a core
    estimate           seconds that the page would have told
    memory, at_first   bytes: the peak, of a GPU's memory in use, on a CPU of the process; and what of it the process
                       had with the model alone
    device, precision, threads
    """
    import torch

    from mbtsad_core.defenses.mbtsad import purify
    from mbtsad_core.service.runtime_estimate import estimate, seconds_a_text

    config = config_of(run)
    texts = texts_of(Workload("", long=True), 8 * run.texts)
    # Each has all the tokens that are read
    texts = [t for t in texts if len(t.text.split()) >= run.tokens][: run.texts]
    suspect = suspect_of(Workload("", ways=(OURS,), shape=run.shape, length=run.tokens), runtime)
    at_first = torch.cuda.memory_allocated() if suspect.device.type == "cuda" else peak_memory()
    expected = estimate(len(texts), config, seconds_a_text(suspect, texts), suspect)

    found = clock(lambda: drain(purify(suspect, texts, config)), suspect.device)
    about = {
        "precision": suspect.precision,
        "threads": torch.get_num_threads(),
        "at_first": at_first,
        "run": dataclasses.asdict(run),
    }
    return found | about | {"estimate": expected}


def words(run: Run) -> str:
    return f"{run.texts} texts of {run.tokens} tokens, K = {run.copies}, {run.shape.layers} x {run.shape.width}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people, Markdown; off: the estimate to what the run took."""
    lines = [
        "| run | seconds | estimated | off | core-seconds | peak memory, MB | load |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        run = Run(**r["run"] | {"shape": Shape(**r["run"]["shape"])})
        figures = [
            f"{r['seconds']:.1f}",
            f"{r['estimate']:.1f}",
            f"x {r['estimate'] / r['seconds']:.2f}",
            f"{r['cpu']:.1f}",
            f"{r['memory'] / 2**20:.0f}",
        ]
        lines.append(f"| {' | '.join([words(run), *figures, str(r['load'])])} |")
    return "\n".join(lines)


def draw(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the picture as SVG: above seconds, with the page's estimate dashed; below memory. Raises BadConfig without
    matplotlib."""
    by_run = {json.dumps(row["run"], sort_keys=True): row for row in rows}
    figure, axes = plotting().subplots(2, len(AXES), figsize=(3 * len(AXES), 5), sharey="row", layout="constrained")
    for (name, (place, runs)), (time, memory) in zip(AXES.items(), axes.T, strict=True):
        found = [
            (place(run), by_run[key])
            for run in runs
            if (key := json.dumps(dataclasses.asdict(run), sort_keys=True)) in by_run
        ]
        places = [x for x, _ in found]
        time.plot(places, [row["seconds"] for _, row in found], "o-", color=COLOUR, markersize=4, label="measured")
        time.plot(
            places, [row["estimate"] for _, row in found], "--", color=COLOUR, linewidth=1, label="told beforehand"
        )
        memory.plot(places, [row["memory"] / 2**20 for _, row in found], "o-", color=COLOUR, markersize=4)
        memory.set_xlabel(name)
        for axis in (time, memory):
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_xticks(places, [f"{x:.3g}" for x in places] if axis is memory else [])
            axis.minorticks_off()
    for axis, values, label in (
        (axes[0, 0], [r["seconds"] for r in rows], "seconds"),
        (axes[1, 0], [r["memory"] / 2**20 for r in rows], "peak memory, MB"),
    ):
        axis.set_ylabel(label)
        ticks = [
            t for t in (m * 10.0**e for e in range(-2, 6) for m in (1, 2, 5)) if min(values) / 2 < t < 2 * max(values)
        ]
        axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes[0, 0].legend(frameon=False, fontsize=8)
    write(figure, path)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    given["shape"] = Shape(**given["shape"])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    print(json.dumps(run_once(Run(**given), from_dict(RuntimeConfig, json.loads(sys.argv[2])))), file=out, flush=True)
