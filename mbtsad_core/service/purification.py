"""One purification, from the sources that a user names to the files that they take home (`run_folder`).

It can be stopped and resumed. The command line and the page drive the same generator.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mbtsad_core import config as configs
from mbtsad_core.attacks.triggers import TriggeredText, parse_triggers, places, triggered_test_set
from mbtsad_core.augment.split_effect import SplitEffect, split_effect
from mbtsad_core.augment.token_splitting import augment
from mbtsad_core.config import RuntimeConfig, SplitConfig, VettingConfig
from mbtsad_core.data import (
    Columns,
    Dataset,
    class_index,
    read_dataset,
    shared_texts,
    stratified_split,
    stratified_subset,
)
from mbtsad_core.defenses.mbtsad import Purified, purify
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.defenses.sequence_pools import flip_rate
from mbtsad_core.errors import BadData, BadOutput, Diverged, MBTSADError
from mbtsad_core.evaluation import baseline, evaluate, label_doubt, observer, still_works
from mbtsad_core.models import demo
from mbtsad_core.models.classifier import (
    Classifier,
    as_saved,
    check_suitable,
    load_classifier,
    read_source,
    weights_hash,
)
from mbtsad_core.models.lengths import cut_notes
from mbtsad_core.models.subword_tokens import readable_sequence, readable_token
from mbtsad_core.rates import rates_to_dict
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.service.evidence import evidence_of
from mbtsad_core.service.provenance import about_data, about_model, about_trigger, made_of
from mbtsad_core.service.residual import residual_asr
from mbtsad_core.service.run_folder import (
    CHECKPOINT,
    EVENTS,
    RUN,
    event_line,
    killed_before_start,
    new_output,
    read_events,
    remove_checkpoint,
    save_whole,
    saver,
    write_json,
    write_whole,
)
from mbtsad_core.sources import DEMO, Source
from mbtsad_core.training.attention_map import choose
from mbtsad_core.training.contention import Threads
from mbtsad_core.training.several_processes import in_any, join, of_first, this_of_all
from mbtsad_core.training.state import TrainState, read_state
from mbtsad_core.types import Event, LabelledText, Note, Observe, Scores, Steps

HELD_OUT = 0.2  # share of the clean sample that measures CACC where no test set is given


@dataclass(frozen=True)
class Request:
    """What a user asks for; the three sources may be given as plain words."""

    suspect: Source = DEMO
    clean: Source = DEMO
    test: Source | None = DEMO
    triggers: tuple[str, ...] = demo.TRIGGERS
    target: str | None = demo.TARGET
    columns: Columns = Columns()
    labels: tuple[str, ...] | None = None
    clean_amount: float | None = None
    config: PurifyConfig = PurifyConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    def __post_init__(self) -> None:
        for name in ("suspect", "clean", "test"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, Source(given))

    def pinned(self, suspect: Classifier) -> Request:
        """The request for this suspect: of a model of the Hub, at the commit that was loaded."""
        if suspect.origin is None or not self.suspect.is_hub:
            return self
        return dataclasses.replace(self, suspect=suspect.origin.pinned)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Request:
        given = dict(values)
        given["columns"] = Columns(**given["columns"])
        # Runs of before: without unlearning, or with it whatever the trigger scan found
        unlearn = {"epochs": 0, "always": True} | given["config"].get("unlearn", {})
        given["config"] = configs.from_dict(PurifyConfig, given["config"] | {"unlearn": unlearn})
        given["runtime"] = configs.from_dict(RuntimeConfig, given["runtime"])
        given["triggers"] = tuple(given["triggers"])
        given["labels"] = tuple(given["labels"]) if given["labels"] else None
        return cls(**given)


@dataclass(frozen=True)
class Inputs:
    """What a request names, loaded and checked. The trigger is for measuring only: `purify` never gets it.

    splits  what token splitting does to the clean texts; None where the method splits none
    used    what is told of suspect, clean texts, texts to measure on and trigger (`provenance`)
    """

    suspect: Classifier
    clean: tuple[LabelledText, ...]
    test: tuple[LabelledText, ...]
    triggered: tuple[TriggeredText, ...]
    target: int | None
    notes: tuple[Note, ...]
    splits: SplitEffect | None = None
    used: Mapping[str, Any] = field(default_factory=dict)


STANDS_OUT = 0.5  # nats
NAMED = 8  # tokens, and sequences, at most


@dataclass(frozen=True, slots=True)
class TurningSequence:
    """A sequence that the trigger scan found, as a person reads it, and what became of it.

    place            where it stands in a text: start, end, anywhere, or its tokens scattered
    label, target    the class of the texts, and the one that it sends them to
    before, after    share of clean texts of the class, answered right without it, that it turns: in the suspect, and in
                     the purified model
    counts           whether it counts as a trigger; else it was suspicious: it turned some texts, and nothing said that
                     it did so honestly
    """

    tokens: str
    place: str
    label: str
    target: str
    before: float
    after: float
    counts: bool = True


@dataclass(frozen=True)
class Result:
    """Scores of the three models, what was used, and how it went.

    attention how the attention loss was computed: plain, checkpointed or fused
    splits    what token splitting did to the clean texts
    evidence  what the report shows beside the scores, as plain values (`evidence`); nothing where no report is written
    compared  other methods on the same suspect and texts, as `comparison.compare` tells of them
    scanned   the record of a scan of the same suspect (docs/scan.schema.json), where there was one
    used      what it was made of: the inputs' own, versions, the time of its end; the purified model's digest once that
              is saved
    found     subword tokens that raise the suspect's loss in three of four longer clean texts of a class, with by how
              many nats at least; the most first. A trigger does that, and few other words do
    found_at  where in a text such a token stood, of those that work there alone: start or end
    sequences of tokens that were unlearned: those that count as a trigger in the suspect, the worst first, and behind
              them suspicious ones
    residual  what a scan of the purified model says of the ASR that is left (`residual_asr`); None where not asked for
    """

    suspect: Scores
    teacher: Scores
    purified: Scores
    request: Request
    description: str
    labels: tuple[str, ...]
    device: str
    precision: str
    attention: str
    clean_texts: int
    seconds: float
    notes: tuple[Note, ...]
    events: tuple[Event, ...] = field(repr=False)
    found: tuple[tuple[str, float], ...] = ()
    found_at: Mapping[str, str] = field(default_factory=dict)
    sequences: tuple[TurningSequence, ...] = ()
    splits: SplitEffect | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    compared: tuple[Mapping[str, Any], ...] = ()
    scanned: Mapping[str, Any] | None = None
    used: Mapping[str, Any] = field(default_factory=dict)
    residual: Mapping[str, Any] | None = None
    models: Purified | None = field(repr=False, default=None)

    @property
    def phrases(self) -> list[str]:
        """The sequences that count as a trigger, as a person reads them."""
        return [one.tokens for one in self.sequences if one.counts]

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command line and of report.json; rates in [0, 1]."""
        settings = configs.to_dict(self.request.config) | {
            "device": self.device,
            "precision": self.precision,
            "attention_loss": self.attention,
            "clean_texts": self.clean_texts,
            "triggers": list(self.request.triggers),
            "target": self.request.target,
        }
        scores: dict[str, Any] = {
            name: scores_to_dict(getattr(self, name)) for name in ("suspect", "teacher", "purified")
        }
        scores["trigger_still_works"] = (
            None if self.purified.asr is None else still_works(self.purified.asr, self.purified.asr_floor)
        )
        about: dict[str, Any] = {"model": self.description, "labels": list(self.labels), "settings": settings}
        about["splits"] = self.splits and dataclasses.asdict(self.splits)
        found = [list(token) for token in self.found]
        about |= {
            "found": found,
            "stumbled": found,
            "sequences": [dataclasses.asdict(sequence) for sequence in self.sequences],
            "seconds": round(self.seconds, 1),
            "notes": [str(note) for note in self.notes],
        }
        found_at = {"found_at": dict(self.found_at)} if self.found_at else {}
        compared = {"compared": list(self.compared)} if self.compared else {}
        scanned = {"scanned": dict(self.scanned)} if self.scanned else {}
        residual = {"residual": dict(self.residual)} if self.residual else {}
        return scores | about | found_at | dict(self.used) | residual | compared | scanned | dict(self.evidence)


def scores_to_dict(scores: Scores) -> dict[str, Any]:
    """Scores as plain values."""
    rates = {"cacc": scores.cacc, "asr": scores.asr, "asr_floor": scores.asr_floor}
    return rates_to_dict(rates) | {"confusion": [list(row) for row in scores.confusion]}


def read_texts(source: str, demo_name: str, labels: Sequence[str] | None, columns: Columns) -> Dataset:
    """The data set that a source names, with the classes in the order of `labels`; of the demo, the one called
    `demo_name`."""
    if not Source(source).is_demo:
        return read_dataset(source, columns, labels)
    try:
        return read_dataset(demo.demo_texts(demo_name), Columns(), labels or demo.LABELS, dict(enumerate(demo.LABELS)))
    except BadData as error:
        raise BadData(
            f"The demo's texts are film reviews of the classes {', '.join(demo.LABELS)}; the model's classes are "
            f"{', '.join(labels or ())}. Give labeled texts of the model's own task, or, where these are the same "
            "classes, their names in the model's order with `labels`."
        ) from error


def read_model(
    source: str,
    demo_name: str,
    max_length: int | None,
    runtime: RuntimeConfig,
    labels: tuple[str, ...] | None = None,
    limits: VettingConfig = VettingConfig(),
) -> Classifier:
    """The classifier that a source names, its classes called `labels` where given; of the demo, the one called
    `demo_name`."""
    place = demo.demo_model(demo_name) if Source(source).is_demo else source
    return named(load_classifier(place, max_length=max_length, runtime=runtime, limits=limits), labels)


def named(classifier: Classifier, labels: tuple[str, ...] | None) -> Classifier:
    """The classifier with its classes called `labels`, where given; raises BadData unless there is one for each."""
    if labels and len(labels) != len(classifier.labels):
        raise BadData(
            f"`labels` names {len(labels)} classes ({', '.join(labels)}), but the model has {len(classifier.labels)} "
            f"({', '.join(classifier.labels)}). Give one name for each, in this order."
        )
    return dataclasses.replace(classifier, labels=labels or classifier.labels)


def measured_target(triggers: Sequence[str], target: str | None, labels: Sequence[str]) -> int | None:
    """The class that the triggers to be measured send texts to; None where there are no triggers."""
    if not triggers:
        return None
    if target is None:
        raise BadData(f"A trigger was given without its target class. Name it with `target` ({', '.join(labels)}).")
    return class_index(target, labels)


def prepare(request: Request, suspect: Classifier | None = None) -> Inputs:
    """Load and check all that a request names, or all but the `suspect` where it is given; raises before any training
    starts."""
    config = request.config
    suspect = suspect or read_model(request.suspect, "suspect", config.max_length, request.runtime, request.labels)
    check_suitable(suspect)
    return gather(
        suspect, request, check=lambda clean, besides: check_clean(clean, suspect, config, besides), split=config.split
    )


def gather(
    suspect: Classifier,
    request: Request,
    *,
    check: Callable[[Sequence[LabelledText], str], None],
    split: SplitConfig | None = None,
    held_out_to: str = "measure CACC",
) -> Inputs:
    """The texts of a request that go with its suspect, loaded and checked; of the settings, `max_length` and `seed`
    count.

    check  (clean texts, what is besides them) -> raises BadData where a method cannot use them
    split  how the method splits texts, if it does
    Raises BadData where it splits, and no text has a word to split.
    """
    seed = request.config.seed
    target = measured_target(request.triggers, request.target, suspect.labels)
    notes = [Note("model", text) for text in suspect.notes]
    given = measured = read_texts(request.clean, "clean", suspect.labels, request.columns)
    clean = list(_noted(given, notes))
    if request.clean_amount is not None:
        try:
            clean = stratified_subset(clean, request.clean_amount, seed)
        except BadData as error:
            raise BadData(f"`clean_amount`: {error}") from error
    check(clean, "")
    besides = ""
    if request.test is None:
        test, clean = _hold_out(clean, seed)
        besides = f" besides the {len(test)} that are held out to measure CACC (`test` spares them)"
        check(clean, besides)
        notes.append(
            Note("held_out", f"No test set was given: {len(test)} of the clean texts were held out to {held_out_to}.")
        )
    else:
        measured = read_texts(request.test, "test", suspect.labels, request.columns)
        test = list(_noted(measured, notes))
    used = {"suspect": about_model(suspect, request.suspect), "clean": about_data(given, request.clean, len(clean))}
    used["test"] = about_data(measured, request.test or request.clean, len(test)) | {"held_out": request.test is None}
    used["trigger"] = about_trigger(request.triggers, request.target)
    notes += cut_notes(suspect, request.config.max_length, {"clean texts": clean, "texts to measure on": test})
    effect = _effect(suspect, clean, split, seed, besides) if split else None
    notes += effect.notes(split) if effect and split else ()
    notes += _shared_notes(clean, test)
    triggered: Sequence[TriggeredText] = ()
    if target is None:
        notes.append(Note("no_trigger", "No trigger was given to measure with."))
    else:
        trigger = parse_triggers(request.triggers, target, window=places(request.config.max_length))
        triggered = triggered_test_set(test, trigger, seed)
    return Inputs(suspect, tuple(clean), tuple(test), tuple(triggered), target, tuple(notes), effect, used)


def _shared_notes(clean: Sequence[LabelledText], test: Sequence[LabelledText]) -> list[Note]:
    """A sentence where texts to measure on are among those to purify with."""
    shared = shared_texts(clean, test)
    stand = "1 text stands" if len(shared) == 1 else f"{len(shared)} texts stand"
    text = f"{stand} in both the clean sample and the test set, so CACC may be too high"
    return [Note("shared", text, quoted=shared[0][:60])] if shared else []


def _noted(data: Dataset, notes: list[Note]) -> tuple[LabelledText, ...]:
    """The texts of a data set, its own notes added to `notes`, each once."""
    notes += [Note("table", text) for text in data.notes if Note("table", text) not in notes]
    return data.texts


def _effect(
    suspect: Classifier, clean: Sequence[LabelledText], split: SplitConfig, seed: int, besides: str
) -> SplitEffect:
    """What splitting does to the clean texts; raises BadData where that is nothing at all."""
    effect = split_effect(suspect, clean, split, seed)
    if not effect.cuts:
        raise BadData(
            f"Nothing to split: none of the {len(clean)} clean texts{besides} has a word of {split.min_char} letters "
            "or more. Give longer texts, or lower `split.min_char`."
        )
    return effect


def _hold_out(clean: Sequence[LabelledText], seed: int) -> tuple[list[LabelledText], list[LabelledText]]:
    """The share of the clean texts that is measured on, and the rest."""
    classes, share = len({example.label for example in clean}), round(HELD_OUT * len(clean))
    if share < classes:
        raise BadData(
            f"No test set was given, so a fifth of the {len(clean)} clean texts would be held out to measure on: "
            f"{share}, which cannot hold one of each of the {classes} classes. Give texts to measure on with `test`, "
            f"or at least {round(classes / HELD_OUT)} clean texts."
        )
    return stratified_split(clean, HELD_OUT, seed)


def check_classes(clean: Sequence[LabelledText], suspect: Classifier, besides: str = "") -> None:
    """Raise BadData unless there is a clean text of every class."""
    classes = {example.label for example in clean}
    if absent := [name for i, name in enumerate(suspect.labels) if i not in classes]:
        raise BadData(
            f"None of the {len(clean)} clean texts{besides} is of class {absent[0]!r}. The model has "
            f"{len(suspect.labels)} classes ({', '.join(suspect.labels)}); give clean texts of each, or the purified "
            "model would forget the others."
        )


def check_clean(clean: Sequence[LabelledText], suspect: Classifier, config: PurifyConfig, besides: str = "") -> None:
    """Raise BadData unless there is a text of every class, and a full batch."""
    check_classes(clean, suspect, besides)
    largest = max(config.retrain.batch_size, config.distil.batch_size)
    if (trained_on := len(clean) * config.split.texts) < largest:
        # What `fine_tune` would say, before anything is trained
        raise BadData(
            f"{len(clean)} clean texts{besides} make {trained_on} training texts ({config.split.texts} of each), fewer "
            f"than one batch of {largest}. Give more clean texts, more `split.copies`, or a smaller "
            "`retrain.batch_size` and `distil.batch_size`."
        )


def execute(
    request: Request,
    out: Path | None = None,
    *,
    resume: bool = False,
    keep_models: bool = False,
    keep_teacher: bool = False,
    residual: bool = False,
    observe: Callable[[Inputs], Observe] | None = None,
    told: Callable[[Inputs], None] | None = None,
) -> Steps[Result]:
    """Run a purification; yields an Event a step, writes to `out`, and returns the result.

    The first event, of stage "measure", has the suspect's own figures on the texts that are measured while it trains
    (`baseline`).

    Closing the generator leaves a checkpoint in `out`, from which `resume=True` goes on: on the same machine with the
    same number of threads it ends with the same weights. A run that was killed before it wrote anything begins anew.
    `observe` makes what is measured while it trains, in place of CACC and ASR against the request's trigger.
    `told` is given what the request names before anything is trained, its notes with it.
    `keep_models` returns the three models, `keep_teacher` writes the teacher to `out`/teacher; `residual` scans the
    purified model too, for an estimate of the ASR that is left.
    Of several processes all run this to its end, and close it after the same event, if at all; process 0 alone writes.
    The others read from `out`, so it lies where all of them see it.
    """
    started = time.monotonic()
    join(cpu=request.runtime.device == "cpu")
    first = this_of_all()[0] == 0
    if out is not None and resume and of_first(first and killed_before_start(out)):
        resume = False
    with new_output(out) if out is not None and first and not resume else contextlib.nullcontext():
        inputs = prepare(request)
        request = request.pinned(inputs.suspect)
        suspect_hash = weights_hash(inputs.suspect)
        if out is not None and first and not resume:
            write_json(out / RUN, {"request": request.to_dict(), "suspect_sha256": suspect_hash})
    state, events, before = _resume(out, suspect_hash) if out is not None and resume else (None, [], 0.0)
    in_any(False)  # wait: all have read what is written anew below
    out = out if first else None

    if told is not None:
        told(inputs)
    measure = observe(inputs) if observe else observer(inputs.test, inputs.triggered, inputs.target)
    adapts = request.runtime.threads is None and inputs.suspect.device.type == "cpu"
    with contextlib.closing(Threads(torch.get_num_threads() if adapts else 1)) as threads:
        models = yield from _trained(request.config, inputs, measure, state, events, out, started - before, threads)
    result = _measured(request, inputs, models, events, started - before)
    if residual:
        known = _known(models)
        left = yield from residual_asr(models.student, inputs.test, known, request.config.seed)
        result = dataclasses.replace(result, residual=left)
    if out is not None:
        result = dataclasses.replace(result, evidence=evidence_of(models, inputs, result))
        result = write_results(result, models.student, out, models.teacher if keep_teacher else None)
    return dataclasses.replace(result, models=models) if keep_models else result


def _trained(
    config: PurifyConfig,
    inputs: Inputs,
    measure: Observe,
    state: TrainState | None,
    events: list[Event],
    out: Path | None,
    started: float,
    threads: Threads,
) -> Steps[Purified]:
    """The three models, as they are saved; its events are added to `events` and, as they come, to the file in `out`."""
    save = None if out is None else saver(out, started)
    steps = purify(inputs.suspect, inputs.clean, config, observe=measure, resume=state, save=save)
    steps = steps if events else _after_baseline(inputs, steps)
    try:
        with contextlib.ExitStack() as opened:
            record = None
            if out is not None:
                # Whole before it is added to: a kill in between loses none of the events before the checkpoint
                write_whole(out / EVENTS, "".join(map(event_line, events)))
                record = opened.enter_context(open(out / EVENTS, "a", encoding="utf-8"))
            models = yield from _record(steps, events, record, threads)
    except Diverged as error:
        raise _diverged(error, out) from error
    # What is measured is what is taken home
    return dataclasses.replace(models, teacher=as_saved(models.teacher), student=as_saved(models.student))


def _measured(request: Request, inputs: Inputs, models: Purified, events: Sequence[Event], started: float) -> Result:
    """The report's value: the three models on all texts, and all that a reader is to know beside it."""
    config, suspect, processes = request.config, inputs.suspect, this_of_all()[1]
    trained_on = augment(inputs.clean, config.split, config.seed)
    alone, teacher, purified = (
        evaluate(model, inputs.test, inputs.triggered, inputs.target)
        for model in (models.suspect, models.teacher, models.student)
    )
    return Result(
        suspect=alone,
        teacher=teacher,
        purified=purified,
        request=request,
        description=suspect.describe(),
        labels=suspect.labels,
        device=str(suspect.device),
        precision=suspect.precision,
        attention=choose(suspect, config.distil, trained_on).name,
        clean_texts=len(inputs.clean),
        seconds=round(time.monotonic() - started, 1),
        notes=(
            *label_notes(alone, suspect.labels),
            *inputs.notes,
            *precision_notes(suspect),
            *([Note("processes", f"Each batch was divided among {processes} processes.")] if processes > 1 else []),
            *memory_notes(events),
            *thread_notes(events),
        ),
        events=tuple(events),
        found=_found_tokens(models),
        found_at=_found_places(models),
        sequences=_sequences(models, inputs.clean, config.seed),
        splits=inputs.splits,
        used={"run": secrets.token_hex(6), **made_of(inputs.used)},  # the name opens nothing
    )


def _known(models: Purified) -> list[Insertion]:
    """The triggers that the scan of the suspect found: tokens that stand out, and sequences that count as one."""
    alone = [Insertion((token,), models.places.get(token, "anywhere")) for _, token in _standing_out(models)]
    return [*alone, *(found.insertion for found in models.sequences[:NAMED] if found.counts)]


def _found_tokens(models: Purified) -> tuple[tuple[str, float], ...]:
    """The tokens that stand out, as they are read, the worst first."""
    return tuple((readable_token(models.suspect, token), round(nats, 2)) for nats, token in _standing_out(models))


def _found_places(models: Purified) -> dict[str, str]:
    """Where those of them stood, as they are read, that work at one end of a text alone."""
    standing_out = [token for _, token in _standing_out(models) if token in models.places]
    return {readable_token(models.suspect, token): models.places[token] for token in standing_out}


def _standing_out(models: Purified) -> list[tuple[float, int]]:
    """The nats and ids of these tokens, the worst first."""
    return sorted(((nats, token) for token, nats in models.found.items() if nats >= STANDS_OUT), reverse=True)[:NAMED]


def _sequences(models: Purified, clean: Sequence[LabelledText], seed: int) -> tuple[TurningSequence, ...]:
    """The worst sequences, as they are read, with what they do in the purified model."""
    suspect = models.suspect
    return tuple(
        TurningSequence(
            readable_sequence(suspect, found.insertion.tokens),
            found.insertion.place,
            suspect.labels[found.label],
            suspect.labels[found.target],
            flip_rate(suspect, clean, found.insertion, found.label, seed),
            flip_rate(models.student, clean, found.insertion, found.label, seed),
            found.counts,
        )
        for found in models.sequences[:NAMED]
    )


def label_notes(suspect: Scores, labels: Sequence[str]) -> tuple[Note, ...]:
    """A sentence where the figures say that the labels are not the model's."""
    doubt = label_doubt(suspect, labels)
    return (Note("labels", doubt),) if doubt else ()


def precision_notes(suspect: Classifier) -> tuple[Note, ...]:
    """A sentence where the weights are rounded as they are saved."""
    if not suspect.written.rounds:
        return ()
    kept = suspect.written.precision
    text = (
        f"The suspect's weights are stored as {kept}, so the purified model's are too; its figures are those of "
        "the rounded weights."
    )
    return (Note("precision", text),)


def memory_notes(events: Sequence[Event]) -> tuple[Note, ...]:
    """A sentence for each stage whose batches the memory did not hold."""
    fewest = {event.stage: int(event.metrics["texts_at_once"]) for event in events if "texts_at_once" in event.metrics}
    return tuple(
        Note(
            "memory",
            f"The memory did not hold a batch of the stage {stage!r}, so its steps were taken {n} "
            f"{'text' if n == 1 else 'texts'} at a time. Each has the same mean gradient; where there is dropout, its "
            "random masks differ.",
        )
        for stage, n in fewest.items()
    )


def thread_notes(events: Sequence[Event]) -> tuple[Note, ...]:
    """A sentence where other programs left a run fewer threads than it could have had."""
    now, taken = 0, list[int]()
    for event in events:
        taken.append(now := int(event.metrics.get("threads", now)))
    fewer = sum(0 < number < max(taken) for number in taken)
    if not fewer:
        return ()
    text = (
        f"Other programs took the cores, so {fewer} of {len(taken)} steps had fewer than {max(taken)} threads. Weights "
        "are those of another run up to rounding; `threads` holds their number."
    )
    return (Note("threads", text),)


def _after_baseline(inputs: Inputs, steps: Steps[Purified]) -> Steps[Purified]:
    """The steps, after an event with the suspect's figures."""
    yield Event("measure", 1, 1, baseline(inputs.suspect, inputs.test, inputs.triggered, inputs.target))
    return (yield from steps)


def _record(steps: Steps[Purified], events: list[Event], record: Any, threads: Threads) -> Steps[Purified]:
    """Pass the events on, and keep them; in between, the number of threads is looked at."""
    try:
        while True:
            try:
                event = next(steps)
            except StopIteration as done:
                return done.value
            if number := threads.look():
                event.metrics["threads"] = number
            events.append(event)
            if record:
                record.write(event_line(event))
                record.flush()
            yield event
    finally:
        steps.close()


def _resume(out: Path, suspect_hash: str) -> tuple[TrainState | None, list[Event], float]:
    """The saved state, the events up to it, and the seconds spent."""
    about = read_run(out)
    if about["suspect_sha256"] != suspect_hash:
        raise BadOutput(
            f"The suspect's weights are not those that the run in {out} began with. Give the same model, or start a "
            "new run."
        )
    recorded = read_events(out)
    if not (out / CHECKPOINT).exists():
        # Stopped before the first checkpoint: what was measured before any training still holds
        return None, [e for e in recorded[:1] if e.stage == "measure"], 0.0
    state = read_state(out / CHECKPOINT)
    last = next(
        (i for i, e in enumerate(recorded) if (e.stage, e.step) == (state.stage, state.step)), len(recorded) - 1
    )
    return state, recorded[: last + 1], state.numbers.get("seconds", 0.0)


def read_run(out: Path) -> dict[str, Any]:
    """The run.json of a run that can be resumed."""
    if (out / "report.json").exists():
        raise BadOutput(
            f"The run in {out} is done; its figures are in {out / 'report.json'}. There is nothing to resume."
        )
    try:
        about = json.loads((out / RUN).read_text(encoding="utf-8"))
        Request.from_dict(about["request"])
        return {"request": about["request"], "suspect_sha256": about["suspect_sha256"]}
    except (OSError, ValueError, KeyError, TypeError, MBTSADError) as error:
        raise BadOutput(
            f"There is no run to resume in {out}: expected the `out` directory of a run that was stopped. ({error})"
        ) from error


def write_results(result: Result, purified: Classifier, out: Path, teacher: Classifier | None = None) -> Result:
    """The model with its card, the teacher if given, report.html and, last, report.json: where that stands, the run is
    done.

    Returns the result with the digest of what was written of the model.
    """
    from mbtsad_core.views.model_card import model_card
    from mbtsad_core.views.report import report_html

    save_whole(purified, out / "model", model_card(result))
    if teacher is not None:
        save_whole(teacher, out / "teacher")
    result = dataclasses.replace(result, used={**result.used, "model_sha256": read_source(out / "model")[2].sha256})
    write_whole(out / "report.html", report_html(result))
    write_json(out / "report.json", result.to_dict())
    remove_checkpoint(out)
    return result


def _diverged(error: Diverged, out: Path | None) -> Diverged:
    """Keep the best model so far, and say where it is."""
    if error.best is None:
        return Diverged(f"{error} There is no earlier state worth keeping.")
    if out is None:
        return Diverged(f"{error} With `out` the best model so far would have been kept.", error.best)
    save_whole(error.best, out / "best")
    return Diverged(f"{error} The model with the lowest loss before that is kept in {out / 'best'}.", error.best)
