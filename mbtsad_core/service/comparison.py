"""Another method on what a purification was asked for, to stand beside MBTSAD: any defense of DEFENSES, any detector of
DETECTORS.

`mbtsad defend`, `mbtsad detect` and the page measure by the same functions. As a job it is like a purification:
`compare` in a worker's process.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbtsad_core.config import Config, RuntimeConfig, SplitConfig, to_dict
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.detectors.detection import Detection
from mbtsad_core.errors import BadData, UnknownMethod
from mbtsad_core.evaluation import DetectorScores, evaluate, evaluate_detector, still_works
from mbtsad_core.methods import Need
from mbtsad_core.models.classifier import Classifier, as_saved, check_suitable
from mbtsad_core.models.pretrained import load_pretrained
from mbtsad_core.rates import rates_to_dict
from mbtsad_core.service.provenance import made_of
from mbtsad_core.service.purification import (
    Inputs,
    Request,
    check_classes,
    check_clean,
    gather,
    label_notes,
    read_model,
    scores_to_dict,
)
from mbtsad_core.service.run_folder import write_json
from mbtsad_core.types import Observe, Rate, Scores, Steps


@dataclass(frozen=True)
class Comparison:
    """A method, by its key of DEFENSES or DETECTORS, with its default settings, on what `request` names; of its
    settings only `max_length` and `seed` count, which choose and cut the texts.

    pretrained  a directory or `hub:OWNER/NAME`, for those that need it
    Raises UnknownMethod.
    """

    request: Request
    method: str
    pretrained: str | None = None

    def __post_init__(self) -> None:
        if self.method not in {*DEFENSES, *DETECTORS}:
            raise UnknownMethod("method", self.method, (*DEFENSES, *DETECTORS))

    def to_dict(self) -> dict[str, Any]:
        return self.request.to_dict() | {"method": self.method, "pretrained": self.pretrained}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        request = {name: value for name, value in values.items() if name not in ("method", "pretrained")}
        return cls(Request.from_dict(request), values["method"], values["pretrained"])


def is_comparison(values: Mapping[str, Any]) -> bool:
    """Whether a job asks for another method, and not for a purification."""
    return "method" in values


def subject(request: Request) -> Request:
    """The request without what its figures do not hang on: those of equal subjects can be set side by side."""
    config = PurifyConfig(max_length=request.config.max_length, seed=request.config.seed)
    return dataclasses.replace(request, config=config, runtime=RuntimeConfig())


def compare(comparison: Comparison, out: Path) -> Steps[dict[str, Any]]:
    """Run the method; yields an Event a step, writes `out`/report.json and returns what it holds. No model is kept.

    There is no checkpoint: a run that was stopped or killed before its report stood is begun anew.
    """
    started = time.monotonic()
    name = comparison.method
    config = (DEFENSES.get(name) or DETECTORS[name]).config
    inputs = read_inputs(comparison.request, split_of(config))
    out.mkdir(parents=True, exist_ok=True)
    if name in DEFENSES:
        defended = yield from run_defense(name, inputs, config, comparison.pretrained)
        works = still_works(defended.after.asr, defended.after.asr_floor) if defended.after.asr else None
        alone = defended.before
        figures = {
            "kind": "defense",
            "trigger_still_works": works,
            "suspect": scores_to_dict(defended.before),
            "result": scores_to_dict(defended.after),
        }
    else:
        detected = yield from run_detector(name, inputs, config)
        behind = rates_to_dict(detected.rates() | {"asr_floor": floor_behind(detected, inputs)})
        alone = detected.alone
        figures = {"kind": "detector", "suspect": scores_to_dict(detected.alone), "result": behind}
    report = figures | about_run(name, config, inputs, alone) | {"seconds": round(time.monotonic() - started, 1)}
    write_json(out / "report.json", report)
    return report


COMPARED = ("method", "kind", "result", "seconds")  # what a report of MBTSAD tells of another method
FIGURES = ("result", "purified", "behind_detector")  # where its figures stand: of `compare`, and of the command line


def beside(report: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What the report of a run of MBTSAD tells of another method's: by `compare`, or as `mbtsad defend --json` and
    `mbtsad detect --json` print it. Raises BadData where it is not of the same suspect, texts and trigger."""
    place = next((name for name in FIGURES if name in other), None)
    if other.get("method") not in {*DEFENSES, *DETECTORS} or place is None:
        raise BadData("Expected what `mbtsad defend METHOD --json` or `mbtsad detect METHOD --json` prints.")
    ours, theirs = (_digests(one) for one in (report, other))
    if differing := [name for name in ours if ours[name] != theirs[name]]:
        raise BadData(
            f"{other['method']} was measured with another {differing[0]} than the run, so their figures cannot stand "
            "side by side. Give both the same suspect, clean texts, test texts and trigger."
        )
    kind = "detector" if other["method"] in DETECTORS else "defense"
    return {name: value for name, value in {**other, "kind": kind, "result": other[place]}.items() if name in COMPARED}


def _digests(report: Mapping[str, Any]) -> dict[str, Any]:
    inputs = report.get("inputs", {})
    texts = {
        name: (inputs.get(name, {}).get("sha256"), inputs.get(name, {}).get("texts")) for name in ("clean", "test")
    }
    trigger = inputs.get("trigger", {})
    named = {"suspect": inputs.get("suspect", {}).get("sha256"), "clean sample": texts["clean"]}
    return named | {"test set": texts["test"], "trigger": (trigger.get("texts"), trigger.get("target"))}


def split_of(config: Config) -> SplitConfig | None:
    """How the method with these settings splits texts, if it does."""
    return getattr(config, "split", None)


def read_inputs(request: Request, split: SplitConfig | None = None) -> Inputs:
    """What a request names, loaded and checked for a method that splits texts like this: a text of every class is all
    that all of them need."""
    suspect = read_model(request.suspect, "suspect", request.config.max_length, request.runtime, request.labels)
    return gather(
        suspect,
        request,
        check=lambda clean, besides: check_classes(clean, suspect, besides),
        split=split,
        held_out_to="measure on",
    )


@dataclass(frozen=True)
class Defended:
    """What a defense did to the figures; `seconds` are those of the defense alone."""

    before: Scores
    after: Scores
    purified: Classifier
    seconds: float


def run_defense(
    name: str, inputs: Inputs, config: Config, pretrained: str | None = None, *, observe: Observe | None = None
) -> Steps[Defended]:
    """The suspect before and after a defense, which gets the clean texts and never the trigger. `pretrained` is for
    those that need it."""
    suspect, measured = inputs.suspect, (inputs.test, inputs.triggered, inputs.target)
    if isinstance(config, PurifyConfig):
        check_suitable(suspect)  # else the lack of attention maps shows after the first stage
        check_clean(inputs.clean, suspect, config)
    asked = pretrained if DEFENSES[name].needs is Need.PRETRAINED else None
    encoder = load_pretrained(asked) if asked is not None else None
    before = evaluate(suspect, *measured)  # before the training: test texts that cannot be used cost no time
    started = time.monotonic()
    purified = as_saved((yield from DEFENSES[name].run(suspect, inputs.clean, config, encoder, observe=observe)))
    seconds = time.monotonic() - started
    return Defended(before, evaluate(purified, *measured), purified, seconds)


@dataclass(frozen=True)
class Detected:
    """The suspect alone, and behind a detector."""

    alone: Scores
    behind: DetectorScores
    found: Detection  # of the test texts, then of the triggered ones

    def rates(self) -> dict[str, Rate | None]:
        return {"cacc": self.behind.cacc, "asr": self.behind.asr, "frr": self.behind.frr, "far": self.behind.far}


def run_detector(name: str, inputs: Inputs, config: Config) -> Steps[Detected]:
    """The suspect alone and behind a detector, which gets the clean texts and the texts to judge, and is not told which
    are triggered."""
    model, test, triggered = inputs.suspect, inputs.test, inputs.triggered
    if any(t.pair is not None for t in test):
        raise BadData(
            f"{name} judges single texts, and the test texts are pairs. Give single texts, or run a defense instead: "
            "mbtsad defend."
        )
    alone = evaluate(model, test, triggered, inputs.target)
    # In one go: what is learned of the clean texts is learned once
    texts = [*(t.text for t in test), *(t.triggered.text for t in triggered)]
    found = yield from DETECTORS[name].run(model, inputs.clean, texts, config)
    on_test, on_triggered = found.part(range(len(test))), found.part(range(len(test), len(texts)))
    behind = evaluate_detector(model, test, on_test, triggered or None, on_triggered, inputs.target)
    return Detected(alone, behind, found)


def floor_behind(detected: Detected, inputs: Inputs) -> Rate | None:
    """The share of the triggered texts that pass the detector and go to the target without their trigger; None where
    there are none."""
    place = {id(example): i for i, example in enumerate(inputs.test)}  # equal texts have verdicts of their own
    without = [dataclasses.replace(t, triggered=t.clean) for t in inputs.triggered]
    on_test = detected.found.part(range(len(inputs.test)))
    on_without = detected.found.part([place[id(t.clean)] for t in inputs.triggered])
    return evaluate_detector(inputs.suspect, inputs.test, on_test, without or None, on_without, inputs.target).asr


def about_run(name: str, config: Config, inputs: Inputs, alone: Scores) -> dict[str, Any]:
    """What is told beside the figures; `alone` are those of the suspect."""
    model = inputs.suspect
    about: dict[str, Any] = {
        "method": name,
        "model": model.describe(),
        "labels": list(model.labels),
        "settings": to_dict(config),
    }
    about |= {"clean_texts": len(inputs.clean), "splits": inputs.splits and dataclasses.asdict(inputs.splits)}
    about |= made_of(inputs.used)
    return about | {"notes": [str(note) for note in (*label_notes(alone, model.labels), *inputs.notes)]}
