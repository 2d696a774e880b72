"""How long a purification will take: told from forward passes that were timed, and from what real runs took.

Whatever else a machine does makes a timing longer and never shorter, so the fastest of several are the machine's own;
and a run that was seen to its end, or some way, says more than any timing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mbtsad_core.config import from_dict
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.models.classifier import Classifier, autocast, predict
from mbtsad_core.scanning.lineages import FOUNDERS, GO_ON, LONGEST, SECONDS, SOME, TEXTS
from mbtsad_core.scanning.lineages import TRIED as PROPOSALS
from mbtsad_core.scanning.probes import PROBES
from mbtsad_core.scanning.strong_texts import JOINED
from mbtsad_core.scanning.token_inversion import INVERSION_STEPS, LIKELIEST, NEAR, NEXT, STARTS
from mbtsad_core.scanning.trigger_scan import KEPT
from mbtsad_core.service.store import Job, State
from mbtsad_core.types import LabelledText

TRIED = 48  # texts that a timing reads
ROUNDS, MOST = 5, 25  # timings at a time; and of one classifier, at most
ALIKE = 1.25  # timings within this factor of the fastest agree with it
# Forward passes, in the precision of the training, that a text costs in a step; and what the texts that subword tokens
# are tried in cost beside the mean text.
# Judged by runs of the demo on two cores, measurements in between included, and of `mbtsad-research benchmark
# --scaling`.
RETRAIN_COST, DISTIL_COST, INVERSION_COST = 3.5, 3.5, 2.5
SHORT, LONGER = 0.45, 1.0

OFF = (0.65, 1.6)  # what a run took over what was told by timings alone, on machines that were tried
LEARNED_OFF = (0.8, 1.25)  # and where the same suspect's runs were seen
# What other suspects' runs took over what their timings told, at most: beyond, something else was amiss
FACTOR = (0.2, 5.0)
RECENT = 5  # runs that are looked at, the newest
STEPS = 20  # of a stage, before its pace counts
SURE = 1.6  # a range within this factor is told as one figure


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds of a run: the likeliest, and between which they are; `seen` where runs of the same suspect on this
    machine say so."""

    seconds: float
    low: float
    high: float
    seen: bool

    @property
    def sure(self) -> bool:
        return self.high <= SURE * self.low


def timings(
    classifier: Classifier, texts: Sequence[LabelledText], clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds of a forward pass on this machine, a text, in the precision of the training: ROUNDS times, on the first
    TRIED texts."""
    some, found = texts[:TRIED], []
    with autocast(classifier):
        # A first time is another matter: memory is taken, and kernels are made for these lengths
        predict(classifier, some)
        for _ in range(ROUNDS):
            started = clock()
            predict(classifier, some)
            found.append((clock() - started) / max(1, len(some)))
    return found


def steady(timed: Sequence[float]) -> float:
    """The machine's own pace: the median of the ROUNDS fastest timings."""
    return statistics.median(sorted(timed)[:ROUNDS])


def settled(timed: Sequence[float]) -> bool:
    """Whether no more timings are needed: ROUNDS of them agree, or there are MOST."""
    fastest = sorted(timed)[:ROUNDS]
    return len(timed) >= MOST or (len(fastest) == ROUNDS and fastest[-1] <= ALIKE * fastest[0])


def seconds_a_text(classifier: Classifier, texts: Sequence[LabelledText]) -> float:
    """Seconds of a forward pass on this machine, a text, in the precision of the training."""
    return steady(timings(classifier, texts))


def forward_passes(n: int, config: PurifyConfig, classifier: Classifier) -> float:
    """The forward passes of a text that a purification with n clean texts costs as much as. Those of the scan for
    sequences are among them where it is made always."""
    passes = n * config.split.texts * (config.retrain.epochs * RETRAIN_COST + config.distil.epochs * DISTIL_COST)
    # For each class: a short text a subword token, then three and sixteen longer ones for ever fewer pieces; and the
    # search for pairs
    if config.found_tokens:
        search = len(classifier.tokenizer) * (SHORT + LONGER * (3 * KEPT[0] + PROBES * KEPT[0] * KEPT[1]))
        inverted = PROBES * INVERSION_STEPS * INVERSION_COST
        tried = 2 * (STARTS * NEAR + PROBES * NEXT) + PROBES * STARTS * LIKELIEST * (LIKELIEST + 2)
        passes += len(classifier.labels) * (search + LONGER * (inverted + tried))
    return passes + (passes_of_sequences(classifier) if config.unlearn.epochs and config.unlearn.always else 0.0)


def perhaps_passes(config: PurifyConfig, classifier: Classifier) -> float:
    """Those that may come beside these: what the trigger scan finds decides whether sequences are scanned for."""
    open_question = config.unlearn.epochs and config.found_tokens and not config.unlearn.always
    return passes_of_sequences(classifier) if open_question else 0.0


def passes_of_sequences(classifier: Classifier) -> float:
    """Those of the scan for sequences alone: whether there is something to unlearn, it tells."""
    alone = SHORT * (2 * len(classifier.tokenizer) + 4 * FOUNDERS[0]) + LONGER * SOME * FOUNDERS[1]
    judged = 4 * TEXTS * LONGER * (SECONDS[2] + FOUNDERS[2])  # in both orders, together and scattered
    pairs = FOUNDERS[2] * (SHORT * SECONDS[0] + LONGER * 3 * SECONDS[1] + judged)
    grown = (GO_ON[2] + (LONGEST - 3) * GO_ON[3]) * 2 * LONGER * JOINED * TEXTS * PROPOSALS
    return len(classifier.labels) * (alone + pairs + grown)


def estimate(n: int, config: PurifyConfig, seconds_a_text: float, classifier: Classifier) -> float:
    """Seconds of a purification with n clean texts, from the seconds that a forward pass takes a text."""
    return forward_passes(n, config, classifier) * seconds_a_text


def expected(
    passes: float, timed: Sequence[float], own: Sequence[float] = (), others: Sequence[float] = (), perhaps: float = 0.0
) -> Expected:
    """Seconds of a run that costs so many passes.

    timed   `timings` of its suspect
    own     seconds a pass that runs of the same suspect took (`seconds_a_pass`), the newest first
    others  what other suspects' runs took over what their timings told, the newest first
    perhaps passes that a run of this suspect may cost beside these, where none was seen
    """
    if own := own[:RECENT]:
        return Expected(
            passes * statistics.median(own),
            passes * LEARNED_OFF[0] * min(own),
            passes * LEARNED_OFF[1] * max(own),
            True,
        )
    known = [min(max(ratio, FACTOR[0]), FACTOR[1]) for ratio in others[:RECENT]]
    pace = steady(timed) * (statistics.median(known) if known else 1.0)
    doubt = 1.0 if settled(timed) else max(1.0, statistics.median(timed) / steady(timed))
    return Expected(passes * pace, passes * OFF[0] * pace, passes * OFF[1] * doubt * pace + perhaps * pace, False)


def seconds_a_pass(job: Job, classifier: Classifier) -> float | None:
    """What a pass took in a run of this classifier that is done, or has trained for STEPS steps of a stage; None where
    that is not known."""
    config = job.request.get("config", {})
    if job.state is State.DONE and job.result and "clean_texts" in job.result.get("settings", {}):
        return float(job.result["seconds"]) / forward_passes(
            job.result["settings"]["clean_texts"], from_dict(PurifyConfig, config), classifier
        )
    costs = {"retrain": RETRAIN_COST, "distil": DISTIL_COST}
    if (
        job.state is State.RUNNING
        and job.stage in costs
        and job.paced_at is not None
        and (steps := job.step - job.paced_step) >= STEPS
    ):
        return (job.updated - job.paced_at) / (steps * config[job.stage]["batch_size"] * costs[job.stage])
    return None


def of_runs(jobs: Iterable[Job], suspect: str, clean: str, classifier: Classifier) -> list[float]:
    """What a pass took in the runs of one suspect on one set of clean texts, the newest first."""
    runs = [
        job
        for job in jobs
        if "method" not in job.request and (job.request.get("suspect"), job.request.get("clean")) == (suspect, clean)
    ]
    return [
        pace
        for job in sorted(runs, key=lambda job: -job.number)
        if (pace := seconds_a_pass(job, classifier)) is not None
    ]


def over_told(jobs: Iterable[Job], told: Mapping[str, float]) -> list[float]:
    """What runs took over what was told of them (by id, seconds), the newest first."""
    ended = [job for job in jobs if job.state is State.DONE and job.result and told.get(job.id)]
    return [
        float(job.result["seconds"]) / told[job.id] for job in sorted(ended, key=lambda job: -job.number) if job.result
    ]
