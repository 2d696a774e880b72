"""Grid points: one method with one setting on one suspect. Each is computed once, its figures are one line of a results
file, and work can stop and go on at any time, in as many processes as there are cores, or on the machines of a Ray
cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import platform
import random
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from mbtsad_core.augment import AUGMENTERS, unavailable
from mbtsad_core.augment.cwea import MODEL as MASKED_MODEL
from mbtsad_core.augment.wordnet import find_wordnet
from mbtsad_core.config import Config, EvaluateConfig, RuntimeConfig, replace, settings
from mbtsad_core.data import stratified_subset
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.embedding_reset import reset_embeddings
from mbtsad_core.defenses.mbtsad import purify
from mbtsad_core.defenses.mbtsad_method import MBTSAD, PurifyConfig
from mbtsad_core.defenses.nad_method import NAD
from mbtsad_core.defenses.token_split_fine_tuning import TS_FT, TokenSplitFineTuningConfig
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.detectors.onion import MODEL as CAUSAL_MODEL
from mbtsad_core.errors import BadConfig, BadData, Diverged
from mbtsad_core.evaluation import evaluate
from mbtsad_core.methods import Need
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.rates import rates_to_dict
from mbtsad_core.research import figure3
from mbtsad_core.research.suspects import (
    TASKS,
    Case,
    Measured,
    clean_classifier,
    deciding,
    folder_digest,
    inputs,
    measured,
    paraphrases,
    plan,
    pretrained,
    read_scores,
    suspect,
    texts,
    wordnet_digest,
)
from mbtsad_core.service.comparison import run_detector
from mbtsad_core.service.json_lines import add_line, read_lines
from mbtsad_core.service.purification import Inputs, scores_to_dict
from mbtsad_core.steps import drain
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import Event, LabelledText, Steps

NONE = "none"  # the suspect as it is, beside the clean classifier
# TS-FT with another augmenter in the place of token splitting
RETRAINED = {f"retrain_{name}": name for name in AUGMENTERS}
FIGURE3 = "figure3"
NAD_UNEVEN = f"{NAD.key}_uneven"
RETIRED = {NAD_UNEVEN: "a form of NAD that no code runs any more"}
"""Methods whose figures are kept and that no code runs any more. NAD's teacher learned each text K times, whatever
originals its student had beside K splits."""
SINCE: dict[str, Any] = {"unlearn.epochs": 0, "unlearn.always": True}
"""Settings, by dotted name, that came when figures stood already, and the value that those were made with: a grid point
that does not name them has this value, and at this value it is what it was."""
PUBLISHED = Path(__file__).parent / "results"
MASKED, SYNONYMS = "retrain_cwea", "retrain_eda"  # of RETRAINED: what reads words from a model, and from WordNet


def configs() -> dict[str, Config]:
    """The settings that each method of a grid point takes, with their defaults."""
    own = {NONE: EvaluateConfig(), FIGURE3: EvaluateConfig(), NAD_UNEVEN: NAD.config}
    return (
        own
        | dict.fromkeys(RETRAINED, TS_FT.config)
        | {key: method.config for key, method in (DEFENSES | DETECTORS).items()}
    )


@dataclass(frozen=True)
class GridPoint:
    """What is run.

    method    a key of DEFENSES or DETECTORS; MBTSAD gives the figures of its teacher too, and those of the suspect
              with embeddings reset and nothing trained; retrain_NAME is TS-FT with an augmenter
              of AUGMENTERS; "none" measures the suspect and, beside it, the clean classifier; "figure3" is that of the
              paper
    settings  what differs from the method's config, by dotted name: {"retrain.epochs": 3}
    amount    clean texts that the defender has, as a share of the training set or a number
    seed      of the clean subset, the splits, the batches and dropout
    """

    case: Case
    method: str
    settings: dict[str, Any] = field(hash=False)
    amount: float
    seed: int

    @functools.cached_property
    def key(self) -> str:
        """A hash of all that decides the figures but the code and the inputs: every setting of the method and of the
        attack counts, named here or not."""
        return hashlib.sha256(json.dumps(self.described(), sort_keys=True).encode()).hexdigest()[:16]

    def described(self) -> dict[str, Any]:
        """What its figures depend on, in full but for settings that came later and have their value of before."""
        attack, config = plan(self.case)
        of_suspect = {"attack": attack.key} | {f"attack.{name}": value for name, value in deciding(config).items()}
        parts = {"settings": deciding(self.config()), "suspect": of_suspect}
        return dataclasses.asdict(self) | {
            part: {name: value for name, value in own.items() if name not in SINCE or value != SINCE[name]}
            for part, own in parts.items()
        }

    def inputs(self, data: Path, base: Path | None) -> dict[str, str | int]:
        """Digests of what it is computed from: those of its suspect, and the files that its method reads beside
        them."""
        found = inputs(self.case, data, base)
        for model, asks in (
            (CAUSAL_MODEL, self.need is Need.LANGUAGE_MODEL),
            (MASKED_MODEL, self.method in (MASKED, FIGURE3)),
        ):
            if asks and (named := os.environ.get(model)):
                found[model] = folder_digest(Path(named)) if Path(named).is_dir() else named
        return found | (wordnet_digest() if self.method in (SYNONYMS, FIGURE3) else {})

    def config(self) -> Config:
        """Raises BadConfig where a setting is unknown or out of range."""
        known = configs()
        if self.method not in known:
            raise BadConfig(f"Unknown method {self.method!r}. Known: {', '.join(known)}.")
        own = {".".join(one.path) for one in settings(known[self.method])}
        named = {name: value for name, value in SINCE.items() if name in own} | self.settings | {"seed": self.seed}
        return replace(known[self.method], {tuple(name.split(".")): value for name, value in named.items()})

    @property
    def need(self) -> Need | None:
        """What its method, or else its attack, takes beside the data set and the encoder."""
        of_method = {SYNONYMS: Need.WORDNET} | {key: method.needs for key, method in (DEFENSES | DETECTORS).items()}
        found = of_method.get(self.method)
        return self.case.method.needs if found in (None, Need.PRETRAINED) else found

    def needs(self) -> str:
        """The same in words; empty where that is nothing."""
        return ({MASKED: "a masked language model"} | RETIRED).get(self.method) or self.need or ""

    def lacks(self, data: Path) -> str:
        """What of that is not there on this machine; empty where it can be run."""
        folder = data / (TASKS[self.case.task].folder or self.case.task)
        if not all(
            any((folder / f"{split}.tsv{packed}").exists() for packed in ("", ".gz"))
            for split in ("train", self.case.split)
        ):
            return f"the data set {folder.name}"
        missing = {
            "code": self.method in RETIRED,
            "language model": self.need is Need.LANGUAGE_MODEL and not os.environ.get(CAUSAL_MODEL),
            "augmenter": RETRAINED.get(self.method) in unavailable(),
            "paraphrases": self.case.method.needs is Need.PARAPHRASES
            and not all(path.exists() for path in paraphrases(self.case, data)),
            "WordNet": self.case.method.needs is Need.WORDNET and find_wordnet() is None,
        }
        return self.needs() if any(missing.values()) else ""


def run(point: GridPoint, data: Path, base: Path | None, work: Path, runtime: RuntimeConfig) -> Steps[dict[str, Any]]:
    """The figures of a point: {"purified": scores, "teacher": scores, "seconds": wall time of the cure, ...}; of a
    detector, those behind it."""
    given = yield from suspect(point.case, data, base, work, runtime)
    clean = stratified_subset(texts(data, point.case.task, "train"), point.amount, point.seed)
    on = measured(point.case, data, work)
    if point.method == NONE:
        before = yield from clean_classifier(point.case.task, point.case.seed, data, base, work, runtime)
        return {"clean": _figures(before, on)}
    started = time.monotonic()
    if point.method == FIGURE3:
        figures = yield from figure3.measure(
            given, figure3.clean_part(point.case, data), point.seed, work / point.case.name / figure3.PICTURES
        )
        return figures | {"seconds": round(time.monotonic() - started, 1)}
    try:
        if point.method in DETECTORS:
            inputs = Inputs(given, tuple(clean), tuple(on.test), tuple(on.triggered), on.target, ())
            detected = yield from run_detector(point.method, inputs, point.config())
            figures = {"purified": rates_to_dict(detected.rates()), "thresholds": list(detected.found.thresholds)}
            return figures | {"seconds": round(time.monotonic() - started, 1)}
        made = yield from _cure(given, clean, point, lambda: pretrained(point.case, base, runtime))
    except Diverged as error:
        return {"diverged": str(error), "seconds": time.monotonic() - started}
    except BadData as error:
        # Of this suspect and this clean sample, each time: RAP has no class to protect where nothing of it is right.
        return {"refused": str(error), "seconds": time.monotonic() - started}
    seconds = time.monotonic() - started
    return {name: _figures(classifier, on) for name, classifier in made.items()} | {"seconds": round(seconds, 1)}


def _cure(
    given: Classifier, clean: Sequence[LabelledText], point: GridPoint, encoder: Callable[[], Classifier]
) -> Steps[dict[str, Classifier]]:
    if point.method == MBTSAD.key:
        config = cast(PurifyConfig, point.config())
        purified = yield from purify(given, clean, config)
        made = {"purified": purified.student, "teacher": purified.teacher}
        if config.found_tokens:
            made["drawn"] = clone(given)
            reset_embeddings(made["drawn"], clean, purified.found)
        return made
    if point.method in RETRAINED:
        return {
            "purified": (
                yield from _retrain(
                    given, clean, RETRAINED[point.method], cast(TokenSplitFineTuningConfig, point.config())
                )
            )
        }
    method = DEFENSES[point.method]
    beside = encoder() if method.needs is Need.PRETRAINED else None
    return {"purified": (yield from method.run(given, clean, point.config(), beside))}


def _retrain(
    given: Classifier, clean: Sequence[LabelledText], augmenter: str, config: TokenSplitFineTuningConfig
) -> Steps[Classifier]:
    """Step 1 of MBTSAD with another augmenter, by its own settings (arXiv 2501.02754, Table III): K copies of each
    text, new ones every epoch."""

    def augmented(epoch: int) -> list[LabelledText]:
        rng = random.Random(f"{augmenter}, seed {config.seed}, epoch {epoch if config.split.fresh else 0}")
        return [
            LabelledText(AUGMENTERS[augmenter](t.text, rng), t.label) for _ in range(config.split.copies) for t in clean
        ]

    return (
        yield from fine_tune(clone(given), augmented, config.training, stage=f"retrain, {augmenter}", seed=config.seed)
    )


def _figures(classifier: Classifier, on: Measured) -> dict[str, Any]:
    return scores_to_dict(evaluate(classifier, on.test, on.triggered, on.target))


# ---------------------------------------------------------------- the results file


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a results file by key; a line that a kill left unfinished is not among them."""
    return {row["key"]: row for row in read_lines(path) if "key" in row}


def finished(
    results: Path, published: Path | None = PUBLISHED, at_hand: tuple[Path, Path | None] | None = None
) -> dict[str, dict[str, Any]]:
    """The lines of a results file, of those beside it and of the published ones, by key: what one table has computed,
    no other computes again.

    All are of the same inputs: of those `at_hand` (data and encoder), else of those that the file's own lines name;
    published lines of others are left out. Raises BadData where the file's own lines are of others.
    """
    own: dict[str, dict[str, Any]] = {}
    for path in (*sorted(results.parent.glob("*.jsonl")), results):
        own |= read_results(path)
    of_task: dict[tuple[str, str], Any] = {}
    for row in own.values():
        for name, value in row.get("inputs", {}).items():
            of_task.setdefault((row["case"]["task"], name), value)

    def differ(row: dict[str, Any]) -> list[str]:
        if "inputs" not in row:
            return []
        expected = (
            _inputs_at_hand(row, *at_hand)
            if at_hand
            else {name: value for (task, name), value in of_task.items() if task == row["case"]["task"]}
        )
        return [name for name, value in row["inputs"].items() if name in expected and expected[name] != value]

    for row in own.values():
        if names := differ(row):
            here = "at hand" if at_hand else "of its other lines"
            raise BadData(
                f"{results.parent} holds figures of {row['case']['task']} that were made from other inputs than those "
                f"{here}: {', '.join(names)} differ. Keep the figures of each data set and encoder in a folder of "
                "their own: --results FOLDER/NAME.jsonl."
            )
    shared = (
        [row for path in sorted(published.glob("*.jsonl")) for row in read_results(path).values()] if published else []
    )
    return {row["key"]: row for row in shared if not differ(row) and ("inputs" in row or not at_hand)} | own


def _inputs_at_hand(row: dict[str, Any], data: Path, base: Path | None) -> dict[str, str | int]:
    """The inputs that a line's grid point would have here; none where they are not there."""
    point = GridPoint(
        Case(**row["case"] | {"words": tuple(row["case"]["words"])}),
        row["method"],
        row["settings"],
        row["amount"],
        row["seed"],
    )
    return {} if point.lacks(data) else point.inputs(data, base)


def row_of(
    point: GridPoint,
    data: Path,
    base: Path | None,
    work: Path,
    runtime: RuntimeConfig,
    watch: Callable[[Event], None] | None = None,
) -> dict[str, Any]:
    """Run a point: its line of the results file. `watch` is told every step."""
    figures = drain(run(point, data, base, work, runtime), watch)
    return {
        "key": point.key,
        **point.described(),
        "inputs": point.inputs(data, base),
        "before": read_scores(work, point.case),
        "figures": figures,
        "machine": machine(),
        "commit": commit(),
    }


def run_all(
    points: Iterable[GridPoint],
    results: Path,
    data: Path,
    base: Path | None,
    work: Path,
    runtime: RuntimeConfig,
    say: Callable[[str], None],
    *,
    watch: Callable[[Event], None] | None = None,
) -> None:
    """Run the grid points that are in no results file and that no other process works on, and add their lines."""
    points = list(points)
    for point in points:
        point.config()  # a wrong setting is told before hours of work
    work.mkdir(parents=True, exist_ok=True)
    for point in points:
        try:
            with FileLock(work / f"{point.key}.lock", timeout=0):  # gone with its process, however that ends
                if point.key in finished(results, at_hand=(data, base)):
                    continue
                row = row_of(point, data, base, work, runtime, watch)
                add_line(results, row)
                say(line_of(row))
        except Timeout:
            continue


def left_out(lacking: Mapping[str, int], command: str) -> str:
    """What is said below a table of the rows that it leaves out, of which nothing is run; "" where it is whole.

    lacking  how many rows lack what: {"": 3, "a causal language model": 1}; "" where nothing but time is lacking
    """
    if not (n := sum(lacking.values())):
        return ""
    needs = "".join(f"; {count} need{'s' if count == 1 else ''} {what}" for what, count in lacking.items() if what)
    return f"Left out: {n} row{'s' if n > 1 else ''} of which nothing is run yet{needs}. `{command}` runs them.\n"


def line_of(row: dict[str, Any]) -> str:
    """A finished grid point in a line."""
    rates = [
        f"{rate.upper()} {100 * found[rate]:.1f}"
        for rate in ("cacc", "asr")
        if (found := row["figures"].get("purified") or row["before"]).get(rate) is not None
    ]
    said = next(
        (f"{name}: {row['figures'][name]}" for name in ("diverged", "refused") if name in row["figures"]),
        ", ".join(rates),
    )
    default = deciding(configs()[row["method"]])
    turned = {name: value for name, value in row["settings"].items() if default.get(name) != value}
    return f"{row['case']['task']}-{row['case']['attack']} seed {row['seed']}  {row['method']} {turned}  {said}"


def run_on_ray(
    points: Iterable[GridPoint],
    results: Path,
    data: Path,
    base: Path | None,
    work: Path,
    runtime: RuntimeConfig,
    say: Callable[[str], None],
    *,
    address: str | None = None,
) -> None:
    """`run_all` with each grid point as a task of Ray's: one GPU each, or one core where there is none.

    address  of a running cluster, as `ray.init` takes it; without one Ray starts on this machine. Each machine has the
             package, `data` and `base` at the same place; suspects are kept in its own `work`, and the lines are
             written here.
    Raises BadConfig where Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise BadConfig("The engine ray is not installed. Run: pip install 'mbtsad[ray]', or take --engine here.")
    import ray

    points = list(points)
    for point in points:
        point.config()
    work.mkdir(parents=True, exist_ok=True)
    ours = not ray.is_initialized()
    if ours:
        ray.init(address=address, include_dashboard=False, log_to_driver=False)
    try:
        have = ray.cluster_resources()
        gpus = runtime.device != "cpu" and have.get("GPU", 0) >= 1
        at_once = max(1, int(have.get("GPU" if gpus else "CPU", 1)))
        alone = runtime if gpus or runtime.threads else dataclasses.replace(runtime, threads=1)
        task = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=2)(_on_machine)
        waiting, running = points[::-1], dict[Any, FileLock]()
        while waiting or running:
            while waiting and len(running) < at_once:
                point = waiting.pop()
                lock = FileLock(work / f"{point.key}.lock", timeout=0)
                with contextlib.suppress(Timeout):
                    lock.acquire()
                    if point.key in finished(results, at_hand=(data, base)):
                        lock.release()
                    else:
                        running[task.remote(point, data, base, work, alone)] = lock
            done, _ = ray.wait(list(running), num_returns=1) if running else ([], [])
            for reference in done:
                row, lock = ray.get(reference), running.pop(reference)
                add_line(results, row)
                lock.release()
                say(line_of(row))
    finally:
        if ours:
            ray.shutdown()


def _on_machine(point: GridPoint, data: Path, base: Path | None, work: Path, runtime: RuntimeConfig) -> dict[str, Any]:
    work.mkdir(parents=True, exist_ok=True)
    return row_of(point, data, base, work, runtime)


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
        name = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "mbtsad_core", ":!mbtsad_core/research/results"],
            cwd=here.parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name + ("+" if changed.stdout.strip() else "")
