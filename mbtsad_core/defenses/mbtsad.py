"""MBTSAD: mitigating backdoors by token splitting and attention distillation (arXiv 2501.02754), Algorithm 1."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mbtsad_core.augment.token_splitting import augment, split_some
from mbtsad_core.config import ScanConfig
from mbtsad_core.defenses.embedding_reset import reset_embeddings
from mbtsad_core.defenses.mbtsad_method import MBTSAD, PurifyConfig
from mbtsad_core.defenses.sequence_pools import Found, SequencePools, flip_rate
from mbtsad_core.defenses.token_insertion import insertion
from mbtsad_core.defenses.unlearning import read_pools, unlearn
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.models.subword_tokens import readable_sequence, readable_token
from mbtsad_core.scanning.insertions import Insertion, Place
from mbtsad_core.scanning.model_scan import scan_sequences
from mbtsad_core.scanning.odd_tokens import ENOUGH
from mbtsad_core.scanning.trigger_scan import scan_vocabulary
from mbtsad_core.training.distillation import distil
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.training.stages import Stage, run_stages
from mbtsad_core.training.state import Save, TrainState
from mbtsad_core.types import AT_PREFIX, FOUND_PREFIX, NAMED, RESET, Event, LabelledText, Observe, Steps


@dataclass
class Purified:
    """The suspect as it was, the token-split retrained teacher, and the distilled student: the purified model.

    found      what the trigger scan said of the suspect: nats by token id; empty where found_tokens = 0
    places     where a found token stood that turns texts at one end alone
    sequences  of tokens that were unlearned: those that count as a trigger in the suspect, the best first, and behind
               them suspicious ones; empty where there is none, and where none was sought
    """

    suspect: Classifier
    teacher: Classifier
    student: Classifier
    found: dict[int, float] = field(default_factory=dict)
    places: dict[int, Place] = field(default_factory=dict)
    sequences: Sequence[Found] = ()


@dataclass
class Purification(Purified):
    """What the stages of `purify` work on: the three models, the clean texts, and the settings."""

    clean: Sequence[LabelledText] = ()
    config: PurifyConfig = PurifyConfig()
    observe: Observe | None = None

    def augmented(self, epoch: int) -> list[LabelledText]:
        """D_aug: token splitting, K copies of each text."""
        return augment(self.clean, self.config.split, self.config.seed, epoch)

    def settings(self) -> dict[str, Any]:
        """What both trainings are given."""
        inserted = insertion(
            self.found,
            self.config.found_tokens,
            self.suspect.max_length,
            self.config.seed,
            [found.insertion for found in self.sequences],
        )
        return {"perturb": inserted, "seed": self.config.seed, "observe": self.observe}

    def use(self, found: dict[int, float], places: dict[int, Place]) -> None:
        """Take what the trigger scan found, and reset its embeddings in both copies."""
        self.found, self.places = found, places
        for copy in (self.teacher, self.student):
            reset_embeddings(copy, self.clean, found)

    def begin_with(self, weights: dict[str, Tensor]) -> None:
        """Take what the unlearning left, in both copies."""
        for copy in (self.teacher, self.student):
            copy.model.load_state_dict(weights)


MOST_FOUND = 8  # tokens in the event after the embedding reset, and sequences in that after their scan
WHOLE = 0.95  # share of the texts of a class that a token turns which is the whole trigger


def found_metrics(
    suspect: Classifier, found: Mapping[int, float], places: Mapping[int, Place] | None = None
) -> dict[str, float]:
    """What the scan found as metrics of an event: nats by "found/TOKEN", the worst first; and by "found_at_end/TOKEN"
    of those that work there alone."""
    worst = sorted(found, key=lambda token: (-found[token], token))[:MOST_FOUND]
    metrics = {FOUND_PREFIX + readable_token(suspect, token): round(found[token], 2) for token in worst}
    placed = {token: place for token, place in (places or {}).items() if token in worst}
    return metrics | {
        AT_PREFIX[place] + readable_token(suspect, token): round(found[token], 2) for token, place in placed.items()
    }


def named_metrics(suspect: Classifier, found: Sequence[Found]) -> dict[str, float]:
    """The sequences found as metrics of an event, the best first: the share of texts of a class that each turns, by
    itself, its place, the names of that class and of the one that they go to, and whether it counts as a trigger, as a
    list in JSON."""
    return {
        json.dumps(
            [
                readable_sequence(suspect, one.insertion.tokens),
                one.insertion.place,
                suspect.labels[one.label],
                suspect.labels[one.target],
                one.counts,
            ]
        ): one.flip_rate
        for one in found[:MOST_FOUND]
    }


def best_first(found: Found) -> tuple[bool, float]:
    """What counts as a trigger before what is suspicious."""
    return not found.counts, -found.nats


def scan_stage(on: Purification, resume: TrainState | None, save: Save | None) -> Steps[None]:
    """Trigger scan and embedding reset. Deviation: not in the paper; found_tokens = 0 leaves them out."""
    if on.config.found_tokens:
        raised = yield from scan_vocabulary(on.suspect, on.clean, on.config.seed)
        on.use(raised.nats, raised.places)
        if on.observe is not None:
            yield Event(RESET, 1, 1, found_metrics(on.suspect, on.found, on.places) | on.observe(on.student))


def unlearn_stage(on: Purification, resume: TrainState | None, save: Save | None) -> Steps[None]:
    """Scan for sequences of ordinary tokens, and unlearn what counts as a trigger, and what is suspicious: a planted
    phrase may be named by a weak part. Where the trigger scan found a token that turns the suspect by itself, or was
    left out, only if `always`: an easy suspect does not pay for a hard one.
    Deviation: not in the paper; unlearn.epochs = 0 leaves it out."""
    config, seed = on.config.unlearn, on.config.seed
    if resume is None:
        if not config.epochs or not (config.always or (on.config.found_tokens and not explained(on))):
            return
        scanned = yield from scan_sequences(on.suspect, on.clean, ScanConfig(config.nats, seed=seed))
        counting = [Found.of(one, on.suspect.labels, counts=True) for one in scanned.counting]
        suspicious = [Found.of(one, on.suspect.labels, counts=False) for one in scanned.suspicious]
        found = sorted([*counting, *suspicious], key=best_first)
        if not found:
            return
        yield Event(NAMED, 1, 1, named_metrics(on.suspect, found))
        pools = SequencePools(on.student, on.clean, scanned.polarity, found, seed)
    else:
        pools = read_pools(on.student, on.clean, resume)
    on.sequences = tuple(sorted(itertools.chain(*pools.found.values()), key=best_first))
    texts = functools.partial(split_some, on.clean, config.split, on.config.split, seed)
    trained = clone(on.teacher)  # whose dropout is not that of what follows
    yield from unlearn(trained, pools, texts, config, seed=seed, observe=on.observe, resume=resume, save=save)
    on.begin_with(trained.model.state_dict())


def explained(on: Purification) -> bool:
    """Whether a token that the trigger scan found is the whole trigger: it turns nearly all texts of a class by itself,
    wherever it stands. A word of a phrase turns many."""
    strong = sorted((token for token, nats in on.found.items() if nats >= ENOUGH), key=lambda token: -on.found[token])
    return any(
        flip_rate(on.suspect, on.clean, Insertion((token,), "anywhere"), label, on.config.seed) >= WHOLE
        for token in strong
        for label in range(len(on.suspect.labels))
    )


def retrain_stage(on: Purification, resume: TrainState | None, save: Save | None) -> Steps[None]:
    """Step 1: cross-entropy on D_aug."""
    yield from fine_tune(
        on.teacher, on.augmented, on.config.retrain, stage="retrain", resume=resume, save=save, **on.settings()
    )


def distil_stage(on: Purification, resume: TrainState | None, save: Save | None) -> Steps[None]:
    """Step 2: eq. (1) on D_aug."""
    yield from distil(on.student, on.teacher, on.augmented, on.config.distil, resume=resume, save=save, **on.settings())


def keep_found(on: Purification, state: TrainState) -> TrainState:
    found = {"raised": list(on.found.items())} | ({"places": list(on.places.items())} if on.places else {})
    return dataclasses.replace(state, numbers=state.numbers | found)


def keep_unlearned(on: Purification, state: TrainState) -> TrainState:
    """Where something was unlearned: what it was, and both copies as that left them."""
    if not on.sequences:
        return state
    numbers = state.numbers | {"sequences": [found.to_list() for found in on.sequences]}
    return dataclasses.replace(state, numbers=numbers).having("unlearned", on.student.model)


def take_unlearned(on: Purification, state: TrainState) -> None:
    on.sequences = tuple(Found.from_list(values) for values in state.numbers.get("sequences", ()))
    if on.sequences:
        on.begin_with(state.part("unlearned"))


STAGES = (
    Stage(
        "scan",
        scan_stage,
        keep=keep_found,
        take=lambda on, state: on.use(dict(state.numbers["raised"]), dict(state.numbers.get("places", ()))),
    ),
    Stage("unlearn", unlearn_stage, keep=keep_unlearned, take=take_unlearned),
    Stage(
        "retrain",
        retrain_stage,
        keep=lambda on, state: state.having("teacher", on.teacher.model),
        take=lambda on, state: on.teacher.model.load_state_dict(state.part("teacher")),
    ),
    Stage("distil", distil_stage, keep=lambda on, state: state, take=lambda on, state: None),
)


def purify(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: PurifyConfig = PurifyConfig(),
    *,
    observe: Observe | None = None,
    resume: TrainState | None = None,
    save: Save | None = None,
) -> Steps[Purified]:
    """MBTSAD, Algorithm 1: needs a little clean data, no pre-trained weights, and knows nothing of the trigger."""
    on = Purification(suspect, clone(suspect), clone(suspect), clean=clean, config=config, observe=observe)
    on = yield from run_stages(STAGES, on, resume, save)
    return Purified(suspect, on.teacher, on.student, on.found, on.places, on.sequences)


@MBTSAD.runs
def mbtsad_student(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: PurifyConfig = PurifyConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """`purify` as the other defenses are called: the student alone."""
    return (yield from purify(suspect, clean, config, observe=observe)).student
