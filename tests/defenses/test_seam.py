"""SEAM: labels by chance, forgetting that ends at guessing, and a task that is learned again."""

from __future__ import annotations

from collections import Counter

import pytest
from conftest import finish, tiny_bert, tiny_texts

from mbtsad_core.config import TrainingConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.held_out import accuracy
from mbtsad_core.defenses.seam import SEAMConfig, forget, randomly_labelled
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText

CLEAN = tiny_texts(64)
FAST = TrainingConfig(learning_rate=5e-3, epochs=30, batch_size=16)


@pytest.fixture(scope="module")
def suspect() -> Classifier:
    return finish(fine_tune(tiny_bert(), CLEAN, TrainingConfig(learning_rate=5e-3, epochs=8, batch_size=16)))[0]


def test_labels_are_drawn_from_all_classes_anew_in_each_epoch() -> None:
    texts = [LabelledText(f"text {i}", 2) for i in range(3000)]
    first, second, again = (randomly_labelled(texts, 3, 0, epoch) for epoch in (0, 1, 0))
    assert [t.text for t in first] == [t.text for t in texts]
    counts = Counter(t.label for t in first)
    assert all(abs(counts[label] - 1000) < 4 * (3000 * 2 / 9) ** 0.5 for label in range(3))
    assert first == again != second != randomly_labelled(texts, 3, 1, 1)


def test_forgetting_ends_after_the_first_epoch_that_leaves_guessing(suspect: Classifier) -> None:
    forgetful = clone(suspect)
    events = finish(forget(forgetful, CLEAN, SEAMConfig(margin=0.1, forgetting=FAST), None))[1]
    assert accuracy(suspect, CLEAN) > 0.95
    assert accuracy(forgetful, CLEAN) <= 0.6
    assert len(events) % 4 == 0
    assert 4 < len(events) < events[-1].total == 120
    barely = clone(suspect)
    steps = forget(barely, CLEAN, SEAMConfig(margin=0.0, forgetting=FAST), None)
    for _ in range(len(events) - 4):
        next(steps)
    assert accuracy(barely, CLEAN) > 0.6  # the epoch before did not suffice


def test_a_margin_that_no_model_misses_ends_it_after_one_epoch(suspect: Classifier) -> None:
    events = finish(forget(clone(suspect), CLEAN, SEAMConfig(margin=0.5, forgetting=FAST), None))[1]
    assert len(events) == 4


def test_the_task_is_learned_again(suspect: Classifier) -> None:
    config = SEAMConfig(forgetting=FAST, training=TrainingConfig(learning_rate=5e-3, epochs=10, batch_size=16))
    made, events = finish(DEFENSES["seam"].run(suspect, CLEAN, config))
    assert list(dict.fromkeys(e.stage for e in events)) == ["forget", "seam"]
    assert accuracy(made, tiny_texts(40, seed=1)) > 0.9
