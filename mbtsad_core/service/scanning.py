"""`mbtsad scan` from the sources that a user names: one model after the other, or several at a time; one record a
model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbtsad_core.config import RuntimeConfig, ScanConfig, to_dict
from mbtsad_core.data import NO_LABELS, Columns, Dataset, read_unlabeled, stratified_subset
from mbtsad_core.errors import BadData, BadOutput, MBTSADError, UnsafeModel, UnsuitableModel
from mbtsad_core.models import demo
from mbtsad_core.models.classifier import Classifier
from mbtsad_core.scanning.calibrated import calibration
from mbtsad_core.scanning.findings import FOUND, INCONCLUSIVE, NOTHING, Finding, ScanReport
from mbtsad_core.scanning.insertions import PLACES, Insertion
from mbtsad_core.scanning.model_scan import scan
from mbtsad_core.service.json_lines import read_lines
from mbtsad_core.service.provenance import about_data, about_model, made_of
from mbtsad_core.service.purification import read_model, read_texts
from mbtsad_core.service.residual import estimate_dict
from mbtsad_core.sources import DEMO, Source
from mbtsad_core.steps import drain
from mbtsad_core.types import Steps

REFUSED = "refused"
CODES = {NOTHING: 0, REFUSED: 1, FOUND: 3, INCONCLUSIVE: 4}
WORST = (FOUND, REFUSED, INCONCLUSIVE, NOTHING)
BETWEEN_LOOKS = 0.2  # seconds, whether a scan of many models is to stop
SCHEMA = 1  # of docs/scan.schema.json


@dataclass(frozen=True)
class ScanRequest:
    """What models are scanned with.

    labeled  whether the labels of the texts are read; where their table has none, they are not
    known    triggers that were found before a cure, whose effect is asked for
    """

    clean: Source = DEMO
    columns: Columns = Columns()
    labels: tuple[str, ...] | None = None
    labeled: bool = True
    clean_amount: float | None = None
    config: ScanConfig = ScanConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    known: tuple[Insertion, ...] = ()

    @property
    def key(self) -> str:
        """A hash of all that the figures hang on but the model and the content of the texts."""
        asked = dataclasses.asdict(self) | {"config": to_dict(self.config), "runtime": None}
        if not self.known:
            del asked["known"]  # as before there were any
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def scan_source(
    source: str, request: ScanRequest, stopped: Callable[[], bool] = lambda: False
) -> Steps[dict[str, Any]]:
    """Vet, load and scan a model: its record, as docs/scan.schema.json has it. A model that is refused has one too.

    Raises BadData where the clean texts cannot be read, or are not of the model's classes.
    """
    about: dict[str, Any] = {"schema": SCHEMA, "model": str(source), "asked": request.key}
    try:
        suspect = read_model(source, "suspect", request.config.max_length, request.runtime, request.labels)
    except (UnsafeModel, UnsuitableModel) as error:
        return about | {"verdict": REFUSED, "reason": str(error), "rule": error.code}
    _check_known(request.known, suspect)
    data, labeled = _texts(request, suspect.labels)
    clean = list(data.texts)
    if request.clean_amount is not None:
        clean = stratified_subset(clean, request.clean_amount, request.config.seed)
    report = yield from scan(suspect, clean, request.config, labeled=labeled, known=request.known, stopped=stopped)
    known = calibration()
    rests_on = {"clean": known.clean, "suspects": known.suspects} if request.config.nats is None else None
    used = {"model": about_model(suspect, source), "clean": about_data(data, request.clean, len(clean))}
    notes = [*suspect.notes, *data.notes]
    settings = to_dict(request.config)
    more = {"calibrated_on": rests_on, "settings": settings, "notes": notes}
    return about | report_dict(report) | more | made_of(used)


def _check_known(known: Sequence[Insertion], suspect: Classifier) -> None:
    rows = len(suspect.model.get_input_embeddings().weight)
    if beyond := [token for one in known for token in one.tokens if token >= rows]:
        raise BadData(
            f"The triggers that were known before hold a token of number {beyond[0]}, and the model has {rows} rows of "
            "word embeddings. Give what was found in the model that this one was purified from."
        )


def known_triggers(path: Path) -> tuple[Insertion, ...]:
    """The triggers of a file that a scan of a suspect wrote. Raises BadData."""
    try:
        records = read_lines(path)
        found = [one for record in records for one in record.get("triggers", ())]
        triggers = [Insertion(tuple(map(int, one["tokens"])), one["place"]) for one in found]
        sound = all(one.tokens and min(one.tokens) >= 0 and one.place in PLACES for one in triggers)
    except (OSError, ValueError, KeyError, TypeError):
        sound = False
    if not sound or not records:
        raise BadData(f"{path} holds no records of a scan. Give what mbtsad scan wrote with `out`.")
    return tuple(dict.fromkeys(triggers))


def _texts(request: ScanRequest, labels: Sequence[str]) -> tuple[Dataset, bool]:
    """The clean texts, and whether they have labels."""
    if not request.labeled:
        source = demo.demo_texts("clean") if request.clean.is_demo else request.clean
        return read_unlabeled(source, request.columns), False
    try:
        return read_texts(request.clean, "clean", labels, request.columns), True
    except BadData as error:
        if error.code != NO_LABELS or request.columns.label is not None:
            raise
        return read_unlabeled(request.clean, request.columns), False


def report_dict(report: ScanReport) -> dict[str, Any]:
    """A report as plain values."""
    accuracy = report.accuracy
    return {
        "verdict": report.verdict,
        "reason": report.reason,
        "triggers": [finding_dict(one) for one in report.found],
        "strongest": finding_dict(report.others[0]) if report.others and not report.found else None,
        "estimated_asr": estimate_dict(report),
        "rows": report.rows,
        "rows_walked": report.walked,
        "clean_texts": report.clean_texts,
        "held_out_texts": report.held_out,
        "labeled": report.labeled,
        "accuracy": accuracy and {"share": accuracy.share, "hits": accuracy.hits, "n": accuracy.n},
        "not_looked_at": list(report.not_looked_at),
        "seconds": round(report.seconds, 1),
    }


def finding_dict(one: Finding) -> dict[str, Any]:
    flips = one.flips
    return {
        "text": one.text,
        "tokens": list(one.tokens),
        "place": one.place,
        "label": one.label,
        "target": one.target,
        "nats": round(one.nats, 3),
        "joined_nats": None if one.joined is None else round(one.joined, 3),
        "outdoes": None if one.outdoes is None else round(one.outdoes, 3),
        "opening_nats": None if one.opens is None else round(one.opens, 3),
        "chance": round(one.chance, 6),
        "flip_rate": flips.share,
        "flips": flips.hits,
        "n": flips.n,
        "interval": [flips.low, flips.high],
        "looks_honest": one.honest,
        "alike": list(one.alike),
        "examples": [dataclasses.asdict(example) for example in one.examples],
    }


def code_of(records: Sequence[dict[str, Any]]) -> int:
    """The exit code of a scan of some models: that of the worst verdict."""
    verdicts = {record["verdict"] for record in records}
    return CODES[next((one for one in WORST if one in verdicts), INCONCLUSIVE)]


# ---------------------------------------------------------------- many models


def kept_records(out: Path, request: ScanRequest) -> dict[str, dict[str, Any]]:
    """The whole lines of `out` that were asked for in the same way, by model; a scan that was stopped early is to be
    made again."""
    try:
        records = read_lines(out)
    except (OSError, ValueError) as error:
        raise BadOutput(f"{out} holds no records of a scan: {error}. Name another file with `out`.") from error
    whole = [r for r in records if r.get("asked") == request.key and r["verdict"] != INCONCLUSIVE]
    return {record["model"]: record for record in whole}


def scan_many(
    sources: Sequence[str], request: ScanRequest, jobs: int, stopped: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """The record of each model as it comes, `jobs` at a time, each in a process of its own. Once `stopped` says so,
    those that run come to an early end, and no other begins."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    threads = request.runtime.threads or max(1, (os.cpu_count() or 1) // jobs)
    request = dataclasses.replace(request, runtime=dataclasses.replace(request.runtime, threads=threads))
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(stop,)) as pool:
        running = {pool.submit(_scan_here, source, request) for source in sources}
        while running:
            done, running = wait(running, timeout=BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
            if stopped() and not stop.is_set():
                stop.set()
                running = {one for one in running if not one.cancel()}
            yield from (_result(one) for one in done)


def scan_or_say(source: str, request: ScanRequest, stopped: Callable[[], bool]) -> Steps[dict[str, Any]]:
    """As `scan_source`, of a model among others: what else stands in its way is in its record."""
    try:
        return (yield from scan_source(source, request, stopped))
    except MBTSADError as error:
        about = {"schema": SCHEMA, "model": str(source), "asked": request.key}
        return about | {"verdict": INCONCLUSIVE, "reason": str(error)}


_stop: Any = None  # of a process of `scan_many`: whether it is to come to an early end


def _begin(stop: Any) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process tells the others


def _scan_here(source: str, request: ScanRequest) -> dict[str, Any]:
    return drain(scan_or_say(source, request, _stop.is_set))


def _result(done: Future[dict[str, Any]]) -> dict[str, Any]:
    try:
        return done.result()
    except BrokenProcessPool as error:
        raise MBTSADError(
            "A process that scanned a model was ended, perhaps for want of memory. Run the command again with fewer "
            "`jobs`; what stands in `out` is not scanned again."
        ) from error
