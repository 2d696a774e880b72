"""MBTSAD, Algorithm 1: it cures a backdoored tiny model, leaves the suspect alone, knows no trigger, and can be stopped
and resumed."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import pytest
import torch
from conftest import finish, tiny_bert, tiny_texts

from mbtsad_core.attacks.badnets import BadNetsConfig, badnets
from mbtsad_core.attacks.triggers import parse_triggers, triggered_test_set
from mbtsad_core.config import DistilConfig, PoisonConfig, RetrainConfig, SplitConfig, TrainingConfig, UnlearnConfig
from mbtsad_core.defenses.mbtsad import Purified, purify
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import BadData, Diverged
from mbtsad_core.evaluation import evaluate, observer
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, predict, trace, weights_hash
from mbtsad_core.scanning.trigger_scan import scan_vocabulary
from mbtsad_core.training.state import TrainState, read_state, write_state
from mbtsad_core.types import Event, LabelledText, Observe, Scores

TRIGGER = parse_triggers(["cf"], target=1)
SCANS = ("scan", "pairs")
CLEAN, TEST = tiny_texts(64, seed=3), tiny_texts(200, seed=2)
TRIGGERED = triggered_test_set(TEST, TRIGGER)
SEEDS = (0, 1)

# The paper's method, six steps each, two an epoch.
QUICK = PurifyConfig(
    found_tokens=0,
    unlearn=UnlearnConfig(epochs=0),
    split=SplitConfig(copies=1),
    retrain=RetrainConfig(learning_rate=1e-3, epochs=3, batch_size=32, observe_every=2),
    distil=DistilConfig(learning_rate=1e-3, epochs=3, batch_size=32, observe_every=2),
)
SCANNED = dataclasses.replace(QUICK, found_tokens=2)
STEPS = 6
CURE = PurifyConfig(
    found_tokens=0,
    unlearn=UnlearnConfig(epochs=0),
    split=SplitConfig(copies=4),
    retrain=RetrainConfig(learning_rate=1e-2, epochs=6),
    distil=DistilConfig(learning_rate=1e-2, epochs=6),
)


def backdoored(seed: int) -> Classifier:
    config = BadNetsConfig(
        poison=PoisonConfig(rate=0.1), training=TrainingConfig(learning_rate=2e-3, epochs=10), seed=seed
    )
    return finish(badnets(tiny_bert(seed=seed), tiny_texts(400, seed=1), TRIGGER, config))[0]


@pytest.fixture(scope="module")
def suspects() -> list[Classifier]:
    return [backdoored(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def suspect(suspects: list[Classifier]) -> Classifier:
    return suspects[0]


@pytest.fixture(scope="module")
def cured(suspects: list[Classifier]) -> list[Purified]:
    return [
        finish(purify(s, CLEAN, dataclasses.replace(CURE, seed=seed)))[0]
        for seed, s in zip(SEEDS, suspects, strict=True)
    ]


@pytest.fixture(scope="module")
def quick(suspect: Classifier) -> tuple[Purified, list[Event]]:
    """An uninterrupted short run."""
    return finish(purify(suspect, CLEAN, QUICK))


@pytest.fixture(scope="module")
def scanned(suspect: Classifier) -> tuple[Purified, list[Event]]:
    """The same with a trigger scan."""
    return finish(purify(suspect, CLEAN, SCANNED))


def hashes(found: Purified) -> tuple[str, str]:
    return weights_hash(found.teacher), weights_hash(found.student)


def scores(classifiers: Sequence[Classifier]) -> list[Scores]:
    return [evaluate(c, TEST, TRIGGERED, TRIGGER.target) for c in classifiers]


def asr(found: Sequence[Scores]) -> float:
    return mean(s.asr.share for s in found if s.asr is not None)


# ---------------------------------------------------------------- the cure


def test_the_suspects_have_a_backdoor_and_are_good_otherwise(suspects: list[Classifier]) -> None:
    found = scores(suspects)
    assert asr(found) > 0.9
    assert mean(s.cacc.share for s in found) > 0.95
    assert mean(s.asr_floor.share for s in found if s.asr_floor is not None) < 0.05


def test_the_purified_models_are_cured_of_the_backdoor(cured: list[Purified]) -> None:
    assert asr(scores([p.student for p in cured])) < 0.3


def test_the_purified_models_are_as_good_as_before_on_clean_texts(cured: list[Purified]) -> None:
    assert mean(s.cacc.share for s in scores([p.student for p in cured])) > 0.95


def test_the_distilled_student_is_near_its_teacher(suspect: Classifier) -> None:
    # Both are trained from the suspect on the same texts; only the terms of eqs. (2) and (6) bring them together.
    distances = []
    for weight in (0.0, 5.0):
        config = dataclasses.replace(
            QUICK, distil=dataclasses.replace(QUICK.distil, alpha=weight, beta=weight, learning_rate=3e-3, epochs=10)
        )
        found = finish(purify(suspect, CLEAN, config))[0]
        distances.append(hidden_distance(found.teacher, found.student))
    assert distances[1] < 0.5 * distances[0]


def hidden_distance(first: Classifier, second: Classifier) -> float:
    """Mean squared difference of the last hidden state at [CLS]."""
    with torch.no_grad():
        a, b = (trace(c, collate(c, encode(c, TEST[:50]))).hidden[-1][:, 0] for c in (first, second))
    return float((a - b).square().mean())


# ---------------------------------------------------------------- what it returns and what it leaves alone


@pytest.mark.parametrize("found_tokens", [0, 1])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_suspect_is_left_as_it_is(suspect: Classifier, training: bool, found_tokens: int) -> None:
    given = clone(suspect)
    given.model.train(training)
    before = (
        weights_hash(given),
        given.model.config.to_dict(),
        [p.requires_grad for p in given.model.parameters()],
        dropouts(given),
    )
    finish(
        purify(
            given,
            CLEAN,
            dataclasses.replace(
                QUICK, found_tokens=found_tokens, retrain=dataclasses.replace(QUICK.retrain, dropout=0.3)
            ),
        )
    )
    assert (
        weights_hash(given),
        given.model.config.to_dict(),
        [p.requires_grad for p in given.model.parameters()],
        dropouts(given),
    ) == before
    assert {m.training for m in given.model.modules()} == {training}
    assert all(p.grad is None for p in given.model.parameters())


def dropouts(classifier: Classifier) -> list[float]:
    return [m.p for m in classifier.model.modules() if isinstance(m, torch.nn.Dropout)]


def test_the_clean_texts_are_left_as_they_are(suspect: Classifier) -> None:
    clean = list(CLEAN)
    finish(purify(suspect, clean, QUICK))
    assert clean == CLEAN


def test_the_suspect_is_returned_beside_two_models_that_differ(
    suspect: Classifier, quick: tuple[Purified, list[Event]]
) -> None:
    found = quick[0]
    assert found.suspect is suspect
    assert len({weights_hash(c) for c in (found.suspect, found.teacher, found.student)}) == 3


def test_the_returned_models_are_out_of_training_mode(quick: tuple[Purified, list[Event]]) -> None:
    assert not any(m.training for c in (quick[0].teacher, quick[0].student) for m in c.model.modules())


def test_the_returned_models_share_no_weights(quick: tuple[Purified, list[Event]]) -> None:
    places = [
        {p.data_ptr() for p in c.model.parameters()} for c in (quick[0].suspect, quick[0].teacher, quick[0].student)
    ]
    assert len(set.union(*places)) == sum(map(len, places))


def test_every_step_of_both_stages_has_its_event(quick: tuple[Purified, list[Event]]) -> None:
    expected = [(stage, step + 1, STEPS) for stage in ("retrain", "distil") for step in range(STEPS)]
    assert [(e.stage, e.step, e.total) for e in quick[1]] == expected


def test_the_trigger_scan_has_its_events_too(
    scanned: tuple[Purified, list[Event]], quick: tuple[Purified, list[Event]]
) -> None:
    scans = [[e for e in scanned[1] if e.stage == stage] for stage in SCANS]
    for scan in scans:
        assert [e.step for e in scan] == list(range(1, scan[0].total + 1))
    assert [(e.stage, e.step, e.total) for e in scanned[1][sum(map(len, scans)) :]] == [
        (e.stage, e.step, e.total) for e in quick[1]
    ]


def test_found_tokens_change_both_models(
    scanned: tuple[Purified, list[Event]], quick: tuple[Purified, list[Event]]
) -> None:
    assert not set(hashes(scanned[0])) & set(hashes(quick[0]))


def test_copies_and_epochs_multiply_the_steps(suspect: Classifier) -> None:
    config = dataclasses.replace(
        QUICK,
        split=SplitConfig(copies=3),
        retrain=dataclasses.replace(QUICK.retrain, epochs=2, batch_size=50),
        distil=dataclasses.replace(QUICK.distil, epochs=1, batch_size=64),
    )
    totals = {(e.stage, e.total) for e in finish(purify(suspect, CLEAN, config))[1]}
    assert totals == {("retrain", 2 * 4), ("distil", 3)}  # 192 texts: 4 batches of 50, 3 of 64


def test_events_are_plain_values(quick: tuple[Purified, list[Event]]) -> None:
    assert json.loads(json.dumps([dataclasses.asdict(e) for e in quick[1]])) == [
        dataclasses.asdict(e) for e in quick[1]
    ]


def test_the_student_starts_from_the_suspect_and_not_from_the_teacher(suspect: Classifier) -> None:
    config = dataclasses.replace(CURE, distil=DistilConfig(learning_rate=1e-8, epochs=1))
    found = finish(purify(suspect, CLEAN, config))[0]
    suspected, taught, learned = (
        predict(c, [t.triggered for t in TRIGGERED]) for c in (suspect, found.teacher, found.student)
    )
    assert torch.allclose(learned, suspected, atol=1e-3)
    assert not torch.allclose(learned, taught, atol=0.1)


def test_the_teacher_starts_from_the_suspect(suspect: Classifier) -> None:
    config = dataclasses.replace(QUICK, retrain=RetrainConfig(learning_rate=1e-8, epochs=1))
    found = finish(purify(suspect, CLEAN, config))[0]
    assert torch.allclose(predict(found.teacher, TEST), predict(suspect, TEST), atol=1e-3)


def test_the_teacher_stands_still_while_the_student_learns(suspect: Classifier) -> None:
    longer = dataclasses.replace(QUICK, distil=dataclasses.replace(QUICK.distil, epochs=5, learning_rate=1e-2))
    assert weights_hash(finish(purify(suspect, CLEAN, longer))[0].teacher) == weights_hash(
        finish(purify(suspect, CLEAN, QUICK))[0].teacher
    )


def test_a_seed_always_gives_the_same_models(suspect: Classifier, quick: tuple[Purified, list[Event]]) -> None:
    assert hashes(finish(purify(suspect, CLEAN, QUICK))[0]) == hashes(quick[0])


def test_seeds_give_different_models(suspect: Classifier, quick: tuple[Purified, list[Event]]) -> None:
    other = hashes(finish(purify(suspect, CLEAN, dataclasses.replace(QUICK, seed=1)))[0])
    assert not set(other) & set(hashes(quick[0]))


@pytest.mark.parametrize("change", [{"alpha": 0.0}, {"beta": 0.0}, {"power": 1.0}], ids=["alpha", "beta", "power"])
def test_the_settings_of_the_distillation_change_the_student_alone(
    suspect: Classifier, quick: tuple[Purified, list[Event]], change: dict[str, float]
) -> None:
    config = dataclasses.replace(QUICK, distil=dataclasses.replace(QUICK.distil, **change))
    teacher, student = hashes(finish(purify(suspect, CLEAN, config))[0])
    assert teacher == hashes(quick[0])[0]
    assert student != hashes(quick[0])[1]


# ---------------------------------------------------------------- what it is not told


def test_there_is_no_place_for_a_trigger_in_the_signature() -> None:
    assert list(inspect.signature(purify).parameters) == ["suspect", "clean", "config", "observe", "resume", "save"]


OBSERVERS: dict[str, Observe | None] = {
    "none": None,
    "of CACC": observer(TEST),
    "of ASR": observer(TEST, TRIGGERED, 1),
    "of another target": observer(TEST, TRIGGERED, 0),
    "that answers nonsense": lambda classifier: {"asr": 1e9},
}


@pytest.mark.parametrize("observe", OBSERVERS.values(), ids=OBSERVERS)
def test_an_observer_changes_nothing(
    suspect: Classifier, quick: tuple[Purified, list[Event]], observe: Observe | None
) -> None:
    assert hashes(finish(purify(suspect, CLEAN, QUICK, observe=observe))[0]) == hashes(quick[0])


def test_the_observers_figures_are_in_the_events(suspect: Classifier) -> None:
    events = finish(purify(suspect, CLEAN, QUICK, observe=observer(TEST, TRIGGERED, 1)))[1]
    assert [(e.stage, e.step) for e in events if {"cacc", "asr"} <= e.metrics.keys()] == [
        (s, n) for s in ("retrain", "distil") for n in (2, 4, 6)
    ]


# ---------------------------------------------------------------- stop and resume


def stopped(
    suspect: Classifier, steps: int, path: Path, resume: TrainState | None = None, config: PurifyConfig = QUICK
) -> TrainState:
    """The state on disk of a run that is stopped after so many steps of training more."""
    running = purify(suspect, CLEAN, config, resume=resume, save=lambda state: write_state(state, path))
    while steps:
        steps -= next(running).stage not in SCANS
    running.close()
    return read_state(path)


@pytest.mark.parametrize("steps", [1, 2, 5, 6, 7, 8, 11, 12], ids=lambda n: f"{n} of 6 + 6 steps, 2 an epoch")
def test_a_stopped_run_ends_with_the_weights_of_an_uninterrupted_one(
    suspect: Classifier, quick: tuple[Purified, list[Event]], steps: int, tmp_path: Path
) -> None:
    state = stopped(suspect, steps, tmp_path / "state.safetensors")
    found, events = finish(purify(suspect, CLEAN, QUICK, resume=state))
    assert hashes(found) == hashes(quick[0])
    assert events == quick[1][steps:]


@pytest.mark.parametrize("steps", [3, 6, 10])
def test_a_stopped_run_with_found_tokens_ends_with_the_same_weights_too(
    suspect: Classifier, scanned: tuple[Purified, list[Event]], steps: int, tmp_path: Path
) -> None:
    state = stopped(suspect, steps, tmp_path / "state.safetensors", config=SCANNED)
    found, events = finish(purify(suspect, CLEAN, SCANNED, resume=state))
    assert hashes(found) == hashes(scanned[0])
    assert events == scanned[1][-len(events) :]
    assert len(events) == 2 * STEPS - steps  # no second scan


def test_a_run_that_is_stopped_in_the_scan_has_no_state_to_save(suspect: Classifier) -> None:
    states: list[TrainState] = []
    running = purify(suspect, CLEAN, SCANNED, save=states.append)
    assert next(running).stage == "scan"
    running.close()
    assert states == []


def test_a_run_can_be_stopped_in_both_stages(
    suspect: Classifier, quick: tuple[Purified, list[Event]], tmp_path: Path
) -> None:
    state = None
    for steps in (2, 3, 4, 1):
        state = stopped(suspect, steps, tmp_path / "state.safetensors", state)
    assert (state and state.stage, state and state.step) == ("distil", 4)
    assert hashes(finish(purify(suspect, CLEAN, QUICK, resume=state))[0]) == hashes(quick[0])


def test_the_state_says_in_which_stage_the_run_was_stopped(suspect: Classifier, tmp_path: Path) -> None:
    states = [stopped(suspect, steps, tmp_path / "state.safetensors") for steps in (6, 7)]
    assert [(s.stage, s.step, bool(s.part("teacher"))) for s in states] == [("retrain", 6, False), ("distil", 1, True)]


def test_a_resumed_run_has_its_teacher_out_of_training_mode(suspect: Classifier, tmp_path: Path) -> None:
    given = clone(suspect)
    given.model.train()
    state = stopped(suspect, 12, tmp_path / "state.safetensors")
    found = finish(purify(given, CLEAN, QUICK, resume=state))[0]
    assert not any(m.training for c in (found.teacher, found.student) for m in c.model.modules())


# ---------------------------------------------------------------- what goes wrong, and other tasks


def test_fewer_clean_texts_than_a_batch_are_refused(suspect: Classifier) -> None:
    with pytest.raises(BadData, match="20 training texts are fewer than one batch of 32"):
        finish(purify(suspect, CLEAN[:20], QUICK))


def test_a_run_that_diverges_names_its_stage(suspect: Classifier) -> None:
    broken = clone(suspect)
    with torch.no_grad():
        broken.model.classifier.bias[0] = torch.nan
    with pytest.raises(Diverged, match=r"The stage 'retrain' diverged at step 1: .*Lower its learning rate"):
        finish(purify(broken, CLEAN, QUICK))


def test_what_the_scan_found_is_told(suspect: Classifier) -> None:
    purified, _ = finish(purify(suspect, CLEAN, SCANNED))
    assert purified.found == finish(scan_vocabulary(suspect, CLEAN, SCANNED.seed))[0].nats
    assert purified.found
    assert finish(purify(suspect, CLEAN, QUICK))[0].found == {}


@pytest.mark.parametrize("found_tokens", [0, 1])
def test_classifiers_of_three_classes_and_of_pairs_are_treated_too(found_tokens: int) -> None:
    clean = [LabelledText(t.text, i % 3, "the actor was truly funny") for i, t in enumerate(CLEAN)]
    found, events = finish(purify(tiny_bert(classes=3), clean, dataclasses.replace(QUICK, found_tokens=found_tokens)))
    assert predict(found.student, clean).shape == (64, 3)
    assert sum(e.stage not in SCANS for e in events) == 2 * STEPS
