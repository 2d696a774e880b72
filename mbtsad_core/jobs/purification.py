"""One purification, from the sources that a user names to the files that he takes home; it can be stopped and resumed.

The command line and the page drive the same generator. In the output directory:

    run.json                what was asked for, and the hash of the suspect
    events.jsonl            the progress so far, one event a line
    checkpoint.safetensors  the last saved state; gone once the run is done
    model/                  the purified model and its tokenizer
    best/                   in its place where the run diverged: the model with the lowest loss before
    report.json, report.html
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbtsad_core import config as configs
from mbtsad_core.attacks.triggers import TriggeredText, parse_triggers, triggered_test_set
from mbtsad_core.config import PurifyConfig, RuntimeConfig
from mbtsad_core.data import Columns, Dataset, read_dataset, shared_texts, stratified_split, stratified_subset
from mbtsad_core.defenses.mbtsad import Purified, purify
from mbtsad_core.errors import BadData, BadOutput, Diverged
from mbtsad_core.evaluation import evaluate, observer
from mbtsad_core.models import demo
from mbtsad_core.models.classifier import Classifier, check_suitable, load_classifier, save_classifier, weights_hash
from mbtsad_core.training.state import TrainState, read_state, write_state
from mbtsad_core.types import Event, LabelledText, Observe, Scores, Steps

HELD_OUT = 0.2  # share of the clean sample that measures CACC where no test set is given
CHECKPOINT, EVENTS, RUN = "checkpoint.safetensors", "events.jsonl", "run.json"


@dataclass(frozen=True)
class Request:
    """What a user asks for. Sources are paths, `hub:...`, or "demo"."""

    suspect: str = "demo"
    clean: str = "demo"
    test: str | None = "demo"
    triggers: tuple[str, ...] = demo.TRIGGERS
    target: str | None = demo.TARGET
    columns: Columns = Columns()
    labels: tuple[str, ...] | None = None
    clean_amount: float | None = None
    config: PurifyConfig = PurifyConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Request:
        given = dict(values)
        given["columns"] = Columns(**given["columns"])
        given["config"] = configs.from_dict(PurifyConfig, given["config"])
        given["runtime"] = configs.from_dict(RuntimeConfig, given["runtime"])
        given["triggers"] = tuple(given["triggers"])
        given["labels"] = tuple(given["labels"]) if given["labels"] else None
        return cls(**given)


@dataclass(frozen=True)
class Inputs:
    """What a request names, loaded and checked. The trigger is for measuring only: `purify` never gets it."""

    suspect: Classifier
    clean: tuple[LabelledText, ...]
    test: tuple[LabelledText, ...]
    triggered: tuple[TriggeredText, ...]
    target: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """Scores of the three models, what was used, and how it went."""

    suspect: Scores
    teacher: Scores
    purified: Scores
    request: Request
    description: str
    labels: tuple[str, ...]
    device: str
    precision: str
    clean_texts: int
    seconds: float
    notes: tuple[str, ...]
    events: tuple[Event, ...] = field(repr=False)
    models: Purified | None = field(repr=False, default=None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command line and of report.json; rates in [0, 1]."""
        settings = configs.to_dict(self.request.config) | {
            "device": self.device,
            "precision": self.precision,
            "clean_texts": self.clean_texts,
            "triggers": list(self.request.triggers),
            "target": self.request.target,
        }
        scores = {name: scores_to_dict(getattr(self, name)) for name in ("suspect", "teacher", "purified")}
        return scores | {"model": self.description, "labels": list(self.labels), "settings": settings, "seconds": round(self.seconds, 1), "notes": list(self.notes)}


def scores_to_dict(scores: Scores) -> dict[str, Any]:
    """Scores as plain values: shares in [0, 1], with hits, numbers and 95 % intervals."""
    out: dict[str, Any] = {}
    for name, rate in (("cacc", scores.cacc), ("asr", scores.asr), ("asr_floor", scores.asr_floor)):
        out[name] = rate.share if rate else None
        if rate:
            out |= {f"{name}_hits": rate.hits, f"{name}_n": rate.n, f"{name}_interval": [rate.low, rate.high]}
    return out | {"confusion": [list(row) for row in scores.confusion]}


def read_texts(source: str, demo_name: str, labels: Sequence[str] | None, columns: Columns) -> Dataset:
    """The data set that a source names; "demo" is the packaged one of that name."""
    if source == "demo":
        return read_dataset(demo.demo_texts(demo_name), labels=demo.LABELS)
    return read_dataset(source, columns, labels)


def read_model(source: str, demo_name: str, max_length: int, runtime: RuntimeConfig) -> Classifier:
    """The classifier that a source names; "demo" is the packaged one of that name."""
    return load_classifier(demo.demo_model(demo_name) if source == "demo" else source, max_length=max_length, runtime=runtime)


def class_index(name: str, labels: Sequence[str]) -> int:
    """The class that a name or an index means."""
    folded = [label.casefold() for label in labels]
    if name.casefold() in folded:
        return folded.index(name.casefold())
    if name.isdigit() and int(name) < len(labels):
        return int(name)
    raise BadData(f"There is no class {name!r}. The model's classes: {', '.join(f'{i} = {label}' for i, label in enumerate(labels))}.")


def prepare(request: Request) -> Inputs:
    """Load and check all that a request names; raises before any training starts."""
    config, notes = request.config, []
    suspect = read_model(request.suspect, "suspect", config.max_length, request.runtime)
    check_suitable(suspect)
    if request.labels and len(request.labels) != len(suspect.labels):
        raise BadData(f"{len(request.labels)} label names were given, but the model has {len(suspect.labels)} classes.")
    suspect = dataclasses.replace(suspect, labels=request.labels or suspect.labels)
    clean = list(read_texts(request.clean, "clean", suspect.labels, request.columns).texts)
    if request.clean_amount is not None:
        clean = stratified_subset(clean, request.clean_amount, config.seed)
    if request.test is None:
        test, clean = stratified_split(clean, HELD_OUT, config.seed)
        notes.append(f"No test set was given: {len(test)} of the clean texts were held out to measure CACC.")
    else:
        test = list(read_texts(request.test, "test", suspect.labels, request.columns).texts)
    _check_clean(clean, suspect, config)
    if shared := shared_texts(clean, test):
        notes.append(f"{len(shared)} texts stand in both the clean sample and the test set, so CACC may be too high; the first: {shared[0][:60]!r}.")
    if not request.triggers:
        notes.append("No trigger was given, so ASR cannot be measured; CACC only.")
        return Inputs(suspect, tuple(clean), tuple(test), (), None, tuple(notes))
    if request.target is None:
        raise BadData(f"A trigger was given without its target class. Name it with --target ({', '.join(suspect.labels)}).")
    target = class_index(request.target, suspect.labels)
    trigger = parse_triggers(request.triggers, target, window=config.max_length // 2)
    triggered = triggered_test_set(test, trigger, config.seed)
    return Inputs(suspect, tuple(clean), tuple(test), tuple(triggered), target, tuple(notes))


def _check_clean(clean: Sequence[LabelledText], suspect: Classifier, config: PurifyConfig) -> None:
    from mbtsad_core.augment.token_splitting import augment

    classes = {example.label for example in clean}
    if len(classes) < 2:
        raise BadData(f"All {len(clean)} clean texts are of one class ({suspect.labels[clean[0].label]}). Expected texts of every class.")
    largest = max(config.retrain.batch_size, config.distil.batch_size)
    if len(clean) < largest:
        raise BadData(f"{len(clean)} clean texts are fewer than one batch of {largest}. Give more clean texts, or a smaller --retrain-batch-size and --distil-batch-size.")
    once = dataclasses.replace(config.split, copies=1)
    if all(a.text == b.text and a.pair == b.pair for a, b in zip(clean, augment(clean, once, config.seed), strict=True)):
        raise BadData(
            f"Nothing to split: no clean text has a word of {config.split.min_length} letters or more that is split. "
            f"Give longer texts, or lower --split-min-length."
        )


def execute(
    request: Request,
    out: Path | None = None,
    *,
    resume: bool = False,
    keep_models: bool = False,
    observe: Callable[[Inputs], Observe] | None = None,
) -> Steps[Result]:
    """Run a purification; yields an Event a step, writes to `out`, and returns the result.

    Closing the generator leaves a checkpoint in `out`, from which `resume=True` goes on: on the same machine with the same
    number of threads it ends with the same weights. A run that was killed before it wrote anything begins anew.
    `observe` makes what is measured while it trains, in place of CACC and ASR against the request's trigger.
    """
    started = time.monotonic()
    if out is not None and resume and _killed_before_start(out):
        resume = False
    if out is not None and not resume:
        create_output(out)
    inputs = prepare(request)
    suspect_hash = weights_hash(inputs.suspect)
    state, events, before = None, [], 0.0
    if out is not None and resume:
        state, events, before = _resume(out, suspect_hash)
    elif out is not None:
        write_json(out / RUN, {"request": request.to_dict(), "suspect_sha256": suspect_hash})

    measure = observe(inputs) if observe else observer(inputs.test, inputs.triggered, inputs.target)
    save = None if out is None else _saver(out, started - before)
    if out is not None:  # written whole before it is added to: a kill in between loses none of the events before the checkpoint
        write_text(out / EVENTS, "".join(map(_line, events)))
    record = open(out / EVENTS, "a", encoding="utf-8") if out else None
    try:
        steps = purify(inputs.suspect, inputs.clean, request.config, observe=measure, resume=state, save=save)
        models = yield from _record(steps, events, record)
    except Diverged as error:
        raise _diverged(error, out) from error
    finally:
        if record:
            record.close()

    result = Result(
        *(evaluate(c, inputs.test, inputs.triggered, inputs.target) for c in (models.suspect, models.teacher, models.student)),
        request=request,
        description=inputs.suspect.describe(),
        labels=inputs.suspect.labels,
        device=str(inputs.suspect.device),
        precision=inputs.suspect.precision,
        clean_texts=len(inputs.clean),
        seconds=before + time.monotonic() - started,
        notes=inputs.notes,
        events=tuple(events),
        models=models if keep_models else None,
    )
    if out is not None:
        write_results(result, models.student, out)
    return result


def _record(steps: Steps[Purified], events: list[Event], record: Any) -> Steps[Purified]:
    """Pass the events on, and keep them."""
    try:
        while True:
            try:
                event = next(steps)
            except StopIteration as done:
                return done.value
            events.append(event)
            if record:
                record.write(_line(event))
                record.flush()
            yield event
    finally:
        steps.close()


def _line(event: Event) -> str:
    return json.dumps(dataclasses.asdict(event)) + "\n"


def _saver(out: Path, started: float) -> Callable[[TrainState], None]:
    def save(state: TrainState) -> None:
        with open(out / EVENTS, "rb") as events:
            os.fsync(events.fileno())  # no checkpoint without the events before it
        write_state(dataclasses.replace(state, numbers=state.numbers | {"seconds": time.monotonic() - started}), out / CHECKPOINT)

    return save


def _resume(out: Path, suspect_hash: str) -> tuple[TrainState | None, list[Event], float]:
    """The saved state, the events up to it, and the seconds spent."""
    about = read_run(out)
    if about["suspect_sha256"] != suspect_hash:
        raise BadOutput(f"The suspect's weights are not those that the run in {out} began with. Give the same model, or start a new run.")
    if not (out / CHECKPOINT).exists():  # stopped before the first checkpoint
        return None, [], 0.0
    state = read_state(out / CHECKPOINT)
    recorded = read_events(out)
    last = next((i for i, e in enumerate(recorded) if (e.stage, e.step) == (state.stage, state.step)), len(recorded) - 1)
    return state, recorded[: last + 1], state.numbers.get("seconds", 0.0)


def read_events(out: Path) -> list[Event]:
    """The events that a run has written so far; a line that a kill left unfinished is not among them."""
    lines = (out / EVENTS).read_text(encoding="utf-8").split("\n") if (out / EVENTS).exists() else []
    return [Event(**json.loads(line)) for line in lines if line.endswith("}}")]


def _killed_before_start(out: Path) -> bool:
    """Whether a run ended here before its run.json was written; takes away what it left."""
    unfinished = {".write-test", RUN + ".new"}
    if not out.exists():
        return True
    if not out.is_dir() or any(p.name not in unfinished for p in out.iterdir()):
        return False
    for name in unfinished:
        (out / name).unlink(missing_ok=True)
    return True


def read_run(out: Path) -> dict[str, Any]:
    """The run.json of a run that can be resumed."""
    if (out / "report.json").exists():
        raise BadOutput(f"The run in {out} is done; its figures are in {out / 'report.json'}. There is nothing to resume.")
    try:
        about = json.loads((out / RUN).read_text(encoding="utf-8"))
        return {"request": about["request"], "suspect_sha256": about["suspect_sha256"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadOutput(f"There is no run to resume in {out}: expected the --out directory of a run that was stopped. ({error})") from error


def create_output(out: Path) -> None:
    """Make the output directory, or accept an empty one; raises BadOutput otherwise."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadOutput(f"{out} exists and is not an empty directory. Give a new --out, or go on with a stopped run by --resume {out}.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadOutput(f"{out} cannot be written to: {error.strerror}. Give a directory that you may write to.") from error


def write_json(path: Path, value: Any) -> None:
    """Write so that `path` never holds half a file."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write so that `path` holds the old text or the new one, whole, even where the power fails."""
    new = path.with_name(path.name + ".new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def write_results(result: Result, purified: Classifier, out: Path) -> None:
    """The model, report.html and, last, report.json: where that stands, the run is done."""
    from mbtsad_core.views.report import report_html

    unfinished = out / "model.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    save_classifier(purified, unfinished)
    shutil.rmtree(out / "model", ignore_errors=True)
    os.replace(unfinished, out / "model")
    (out / "report.html").write_text(report_html(result), encoding="utf-8")
    write_json(out / "report.json", result.to_dict())
    (out / CHECKPOINT).unlink(missing_ok=True)


def _diverged(error: Diverged, out: Path | None) -> Diverged:
    """Keep the best model so far, and say where it is."""
    if error.best is None:
        return Diverged(f"{error} There is no earlier state worth keeping.")
    if out is None:
        return Diverged(f"{error} With --out the best model so far would have been kept.", error.best)
    save_classifier(error.best, out / "best")
    return Diverged(f"{error} The model with the lowest loss before that is kept in {out / 'best'}.", error.best)
