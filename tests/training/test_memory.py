"""Too little memory: a batch in parts has the gradient of the whole one, and what is done about it is said."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from conftest import NEUTRAL, ROOT, finish, tiny_bert, tiny_texts
from torch import Tensor

from mbtsad_core.config import DistilConfig, TrainingConfig
from mbtsad_core.errors import BadConfig
from mbtsad_core.models.classifier import Batch, Classifier, clone, encode, weights_hash
from mbtsad_core.training.batch_gradient import by_texts, classification_loss, gradient, lacks_memory
from mbtsad_core.training.distillation import distil
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.training.state import TrainState
from mbtsad_core.types import LabelledText

RNG = random.Random(0)
# Of many lengths
TEXTS = [LabelledText(" ".join([t.text, *RNG.choices(NEUTRAL, k=RNG.randrange(20))]), t.label) for t in tiny_texts(40)]
# 3 steps an epoch, the last of 8 texts
CONFIG = TrainingConfig(learning_rate=1e-3, epochs=3, batch_size=16, dropout=0.0)
DISTIL = DistilConfig(learning_rate=1e-3, epochs=3, batch_size=16, dropout=0.0, alpha=2.0, beta=0.5)


def holding(most: int, classifier: Classifier) -> Classifier:
    """A copy that cannot be trained on more texts at once, and counts in `classifier.model.refused` how often that was
    tried."""
    small = clone(classifier)
    small.model.refused = 0

    def refuse(model: Any, args: Any, inputs: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and len(inputs["input_ids"]) > most:
            model.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    small.model.register_forward_pre_hook(refuse, with_kwargs=True)
    return small


def purifying(student: Classifier, **kwargs: Any) -> Any:
    return distil(student, tiny_bert(seed=5), TEXTS, DISTIL, **kwargs)


def retraining(student: Classifier, **kwargs: Any) -> Any:
    return fine_tune(student, TEXTS, CONFIG, **kwargs)


# ---------------------------------------------------------------- the arithmetic


@pytest.mark.parametrize("at_once", [1, 3, 8, 15])
def test_the_gradient_of_the_parts_is_that_of_the_whole_batch(at_once: int) -> None:
    classifier = tiny_bert()
    batch, labels = encode(classifier, TEXTS[:16]), torch.tensor([t.label for t in TEXTS[:16]])
    whole = gradient(classifier, batch, labels, classification_loss, by_texts, 16)
    expected = {name: p.grad.clone() for name, p in classifier.model.named_parameters() if p.grad is not None}
    parts = gradient(classifier, batch, labels, classification_loss, by_texts, at_once)
    assert whole is not None
    assert parts == {name: pytest.approx(float(term), rel=1e-5) for name, term in whole.items()}
    assert len(expected) > 30
    for name, p in classifier.model.named_parameters():
        if p.grad is not None:
            assert torch.allclose(p.grad, expected[name], rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_a_distillation_in_parts_takes_the_steps_of_one_in_whole_batches(at_once: int) -> None:
    """The hidden-state term is a mean over tokens: parts weighted by their texts would miss it, for these differ in
    length."""
    config = dataclasses.replace(DISTIL, epochs=1)
    _, whole = finish(distil(tiny_bert(), tiny_bert(seed=5), TEXTS, config))
    _, parts = finish(distil(holding(at_once, tiny_bert()), tiny_bert(seed=5), TEXTS, config))
    for before, after in zip(whole, parts, strict=True):
        for name in ("loss", "attention", "hidden", "classification"):
            assert after.metrics[name] == pytest.approx(before.metrics[name], rel=1e-4), (before.step, name)


@pytest.mark.parametrize("train", [retraining, purifying])
def test_too_little_memory_ends_with_the_weights_of_enough(train: Any) -> None:
    enough, _ = finish(train(tiny_bert()))
    little, events = finish(train(holding(5, tiny_bert())))
    assert little.model.refused == 2  # 16 and 8; then it is known
    assert {e.metrics["texts_at_once"] for e in events} == {4}
    for (name, a), b in zip(enough.model.state_dict().items(), little.model.state_dict().values(), strict=True):
        if not name.endswith("key.bias"):
            # Softmax does not see it: its gradient is rounding alone, which Adam scales up to steps
            assert torch.allclose(a, b, atol=2e-4), name


def test_enough_memory_changes_nothing_and_says_nothing() -> None:
    plain, events = finish(retraining(tiny_bert()))
    watched, _ = finish(retraining(holding(16, tiny_bert())))
    assert weights_hash(plain) == weights_hash(watched)
    assert not any("texts_at_once" in e.metrics for e in events)


# ---------------------------------------------------------------- going on


def test_memory_that_runs_out_later_costs_no_step() -> None:
    def loss(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        if len(labels) > next(room):
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                "to allocate 99 bytes."
            )
        return classification_loss(classifier, batch, labels)

    room: Iterator[int] = iter([16, 16, 16, 16] + [7] * 100)
    _, events = finish(fine_tune(tiny_bert(), TEXTS, CONFIG, loss=loss, share=by_texts))
    assert [e.step for e in events] == list(range(1, 10))
    assert [e.metrics.get("texts_at_once") for e in events] == [None] * 4 + [4] * 5


@pytest.mark.parametrize("step", [1, 4, 8])
def test_a_stopped_training_in_parts_goes_on_in_parts(step: int) -> None:
    """With dropout: the masks of the parts are drawn as they were."""
    config = dataclasses.replace(CONFIG, dropout=0.2)
    whole, _ = finish(fine_tune(holding(5, tiny_bert()), TEXTS, config))
    states: list[TrainState] = []
    steps = fine_tune(holding(5, tiny_bert()), TEXTS, config, save=states.append)
    for _ in range(step):
        next(steps)
    steps.close()
    resumed, _ = finish(fine_tune(holding(5, tiny_bert(seed=2)), TEXTS, config, resume=states[-1]))
    assert resumed.model.refused == 0
    assert weights_hash(resumed) == weights_hash(whole)


def test_a_step_that_is_done_again_draws_the_same_masks() -> None:
    """Where the memory fails after half of a step's masks were drawn, and where it is known from the start."""
    config = dataclasses.replace(CONFIG, dropout=0.2)
    states: list[TrainState] = []
    steps = fine_tune(holding(4, tiny_bert()), TEXTS, config, save=states.append)
    next(steps)
    steps.close()

    def late(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        terms = classification_loss(classifier, batch, labels)
        if len(labels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return terms

    first, _ = finish(fine_tune(tiny_bert(), TEXTS, config, loss=late, share=by_texts))
    second, _ = finish(fine_tune(holding(4, tiny_bert(seed=2)), TEXTS, config, resume=states[-1]))
    assert weights_hash(first) == weights_hash(second)


# ---------------------------------------------------------------- what cannot be


def test_a_text_that_the_memory_does_not_hold_is_told() -> None:
    with pytest.raises(
        BadConfig, match=r"does not hold step 1 of the stage 'retrain': 1 text of up to \d+ tokens.* Lower `max_length`"
    ):
        finish(fine_tune(holding(0, tiny_bert()), TEXTS, CONFIG, stage="retrain"))


def test_a_loss_that_has_no_parts_is_told() -> None:
    with pytest.raises(
        BadConfig,
        match=r"16 texts of up to \d+ tokens, and its loss cannot be taken in parts. Use a smaller batch size",
    ):
        finish(fine_tune(holding(5, tiny_bert()), TEXTS, CONFIG, loss=partial(classification_loss)))


def test_another_error_is_no_lack_of_memory() -> None:
    def broken(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        finish(fine_tune(tiny_bert(), TEXTS, CONFIG, loss=broken, share=by_texts))


def test_what_the_processors_memory_says_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 58)
    assert lacks_memory(caught.value)


LIMITED = """
import resource, torch
from conftest import tiny_bert, tiny_texts
from mbtsad_core.config import TrainingConfig
from mbtsad_core.training.fine_tuning import fine_tune

classifier, texts = tiny_bert(), tiny_texts(4000)
for _ in fine_tune(classifier, texts[:32], TrainingConfig(epochs=1, batch_size=32)):  # all libraries are loaded
    pass
used = 4096 * int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + (128 << 20), -1))
events = list(fine_tune(classifier, texts, TrainingConfig(epochs=1, batch_size=4000)))
print(len(events), int(events[-1].metrics["texts_at_once"]))
"""


@pytest.mark.slow
def test_a_process_of_limited_memory_goes_on_in_parts() -> None:
    child = subprocess.run(
        [sys.executable, "-c", LIMITED],
        cwd=ROOT / "tests",
        env={"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    steps, at_once = map(int, child.stdout.split())
    assert steps == 1
    assert 1 < at_once < 4000
