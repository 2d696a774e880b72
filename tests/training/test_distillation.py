"""Attention distillation: every equation against a float64 reference and a case computed by hand; padding; what is
trained and what is not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from conftest import finish, tiny_bert, tiny_texts
from torch import Tensor
from torch.nn.functional import pad

from mbtsad_core.config import DistilConfig
from mbtsad_core.models.classifier import Batch, Classifier, collate, encode, predict, trace, weights_hash
from mbtsad_core.training.distillation import (
    attention_energy,
    attention_transfer,
    distil,
    distillation_loss,
    hidden_state_loss,
)
from mbtsad_core.types import Trace

TERMS = ("loss", "attention", "hidden", "classification")
TEXTS = ["the lovely film", "a dreadful and boring story with a clumsy plot .", "music", "very funny , truly charming"]
LABELS = torch.tensor([1, 0, 0, 1])


def random_trace(
    seed: int, lengths: Sequence[int], layers: int = 3, heads: int = 4, width: int = 5, classes: int = 3
) -> Trace:
    """A made-up trace of texts of these lengths: attention spread over real tokens only, and noise wherever there is
    padding."""
    g = torch.Generator().manual_seed(seed)
    batch, longest = len(lengths), max(lengths)
    mask = torch.tensor([[1] * n + [0] * (longest - n) for n in lengths])
    attention = []
    for _ in range(layers):
        scores = 2 * torch.randn(batch, heads, longest, longest, generator=g)
        attention.append(scores.masked_fill(mask[:, None, None, :] == 0, -torch.inf).softmax(-1))
    hidden = [torch.randn(batch, longest, width, generator=g) for _ in range(layers + 1)]
    return Trace(torch.randn(batch, classes, generator=g), tuple(hidden), tuple(attention), mask)


def reference(teacher: Trace, student: Trace, labels: Sequence[int], config: DistilConfig) -> dict[str, float]:
    """Eqs. (1)-(7) in float64, text by text, on the real tokens alone."""
    lengths = teacher.mask.sum(1).tolist()

    def energy(A: np.ndarray) -> np.ndarray:  # (3)
        return sum(np.abs(head) ** config.power for head in A)

    def transfer(AE_T: np.ndarray, AE_S: np.ndarray) -> float:  # (4)
        difference = AE_T / np.sqrt((AE_T**2).sum()) - AE_S / np.sqrt((AE_S**2).sum())
        return math.sqrt((difference**2).sum())

    attention = hidden = classification = 0.0
    for A_T, A_S in zip(teacher.attention, student.attention, strict=True):  # (2)
        for i, n in enumerate(lengths):
            attention += transfer(*(energy(A[i, :, :n, :n].double().numpy()) for A in (A_T, A_S))) / len(lengths)
    for H_T, H_S in zip(teacher.hidden, student.hidden, strict=True):  # (5), (6)
        squared = [((H_T[i, :n] - H_S[i, :n]).double().numpy() ** 2).ravel() for i, n in enumerate(lengths)]
        hidden += float(np.concatenate(squared).mean())
    for logits, label in zip(student.logits.double().numpy(), labels, strict=True):  # (7)
        classification += (np.log(np.exp(logits).sum()) - logits[label]) / len(labels)
    return dict(
        loss=config.alpha * attention + config.beta * hidden + classification,
        attention=attention,
        hidden=hidden,
        classification=classification,
    )


def losses(teacher: Trace, student: Trace, labels: Tensor, config: DistilConfig = DistilConfig()) -> dict[str, float]:
    return {name: float(term) for name, term in distillation_loss(teacher, student, labels, config).items()}


def pointed_bert(seed: int) -> Classifier:
    """A tiny BERT whose attention is far from uniform, so that two of them differ by more than rounding."""
    classifier = tiny_bert(seed=seed)
    with torch.no_grad():
        for name, weight in classifier.model.named_parameters():
            if name.endswith(("query.weight", "key.weight")):
                weight *= 40
    return classifier


def padded(batch: Batch, columns: int) -> Batch:
    """The batch with as many more columns of padding."""
    return {name: pad(values, (0, columns)) for name, values in batch.items()}


def model_losses(texts: Sequence[str], labels: Tensor, columns: int = 0) -> dict[str, float]:
    """The losses between two different models on a batch that is padded by so many columns."""
    teacher, student = pointed_bert(1), pointed_bert(2)
    batch = padded(collate(teacher, encode(teacher, texts)), columns)
    with torch.no_grad():
        return losses(trace(teacher, batch), trace(student, batch), labels)


# ---------------------------------------------------------------- computed by hand

IDENTITY, UNIFORM = torch.eye(2)[None, None], torch.full((1, 1, 2, 2), 0.5)  # (B=1, H=1, T=2, T=2)
BOTH = torch.ones(1, 2)
TWO_HEADS = torch.tensor([[[[0.6, 0.4], [0.2, 0.8]], [[1.0, 0.0], [0.5, 0.5]]]])


@pytest.mark.parametrize(
    ("power", "energy"),
    [(1.0, [[1.6, 0.4], [0.7, 1.3]]), (2.0, [[1.36, 0.16], [0.29, 0.89]]), (3.0, [[1.216, 0.064], [0.133, 0.637]])],
)
def test_attention_energy_sums_powers_over_heads(power: float, energy: list[list[float]]) -> None:
    assert torch.allclose(attention_energy(TWO_HEADS, BOTH, power), torch.tensor([energy]))


def test_attention_energy_of_padding_is_zero() -> None:
    assert attention_energy(TWO_HEADS, torch.tensor([[1, 0]]), 2.0).tolist() == [
        [[pytest.approx(1.36), 0.0], [0.0, 0.0]]
    ]


def test_attention_transfer_between_the_identity_and_uniform_attention() -> None:
    # I / sqrt 2 and a map of halves are unit vectors at 45 degrees: their distance is 2 sin(22.5 degrees).
    distance = attention_transfer(attention_energy(IDENTITY, BOTH, 2.0), attention_energy(UNIFORM, BOTH, 2.0))
    assert distance.tolist() == [pytest.approx(2 * math.sin(math.radians(22.5)), rel=1e-6)]


def test_attention_transfer_does_not_see_the_scale_of_a_map() -> None:
    energy = attention_energy(TWO_HEADS, BOTH, 2.0)
    assert float(attention_transfer(energy, 7 * energy)) == pytest.approx(0.0, abs=1e-6)


def test_hidden_state_loss_is_the_mean_square_over_tokens_and_dimensions() -> None:
    H_T, H_S = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[0.0, 2.0], [3.0, 2.0]]])
    assert float(hidden_state_loss(H_T, H_S, BOTH)) == (1 + 0 + 0 + 4) / 4


def test_hidden_state_loss_leaves_padding_out_of_the_sum_and_of_the_count() -> None:
    H_T, H_S = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[0.0, 2.0], [3.0, 2.0]]])
    assert float(hidden_state_loss(H_T, H_S, torch.tensor([[1, 0]]))) == (1 + 0) / 2


def test_the_whole_loss_of_one_text() -> None:
    H_T, H_S = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[0.0, 2.0], [3.0, 2.0]]])
    teacher = Trace(torch.tensor([[5.0, -5.0]]), (H_T, H_T), (IDENTITY,), BOTH)
    student = Trace(torch.tensor([[math.log(3), 0.0]]), (H_S, H_T), (UNIFORM,), BOTH)
    found = losses(teacher, student, torch.tensor([1]), DistilConfig(alpha=2.0, beta=3.0))
    assert found["attention"] == pytest.approx(0.7653669)
    assert found["hidden"] == pytest.approx(1.25 + 0.0)
    assert found["classification"] == pytest.approx(math.log(4))  # the true class has probability 1/4
    assert found["loss"] == pytest.approx(2 * 0.7653669 + 3 * 1.25 + math.log(4))


# ---------------------------------------------------------------- against the reference


@pytest.mark.parametrize("lengths", [[6], [4, 4], [7, 1, 3, 5]])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_every_term_agrees_with_the_reference(lengths: list[int], power: float) -> None:
    teacher, student = random_trace(0, lengths), random_trace(1, lengths)
    config, labels = DistilConfig(alpha=0.7, beta=3.0, power=power), [i % 3 for i in range(len(lengths))]
    assert losses(teacher, student, torch.tensor(labels), config) == pytest.approx(
        reference(teacher, student, labels, config), rel=1e-5
    )


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (100.0, 0.01)])
def test_alpha_and_beta_weigh_the_terms(alpha: float, beta: float) -> None:
    found = losses(
        random_trace(0, [5, 3]), random_trace(1, [5, 3]), torch.tensor([0, 2]), DistilConfig(alpha=alpha, beta=beta)
    )
    assert found["loss"] == pytest.approx(alpha * found["attention"] + beta * found["hidden"] + found["classification"])


def test_alpha_and_beta_leave_the_terms_themselves_alone() -> None:
    found = [
        losses(
            random_trace(0, [5, 3]), random_trace(1, [5, 3]), torch.tensor([0, 2]), DistilConfig(alpha=alpha, beta=beta)
        )
        for alpha, beta in ((1.0, 1.0), (50.0, 0.0))
    ]
    assert [found[0][name] for name in TERMS[1:]] == [found[1][name] for name in TERMS[1:]]


def test_every_layer_counts_in_both_sums() -> None:
    teacher, student = random_trace(0, [5, 3]), random_trace(1, [5, 3])
    whole = losses(teacher, student, torch.tensor([0, 2]))
    for layer in range(3):
        nearer = dataclasses.replace(
            student, attention=tuple(teacher.attention[i] if i == layer else A for i, A in enumerate(student.attention))
        )
        assert losses(teacher, nearer, torch.tensor([0, 2]))["attention"] < whole["attention"] - 0.01
    for layer in range(4):
        nearer = dataclasses.replace(
            student, hidden=tuple(teacher.hidden[i] if i == layer else H for i, H in enumerate(student.hidden))
        )
        assert losses(teacher, nearer, torch.tensor([0, 2]))["hidden"] < whole["hidden"] - 0.01


def test_the_labels_are_the_given_ones_and_not_the_teachers_answers() -> None:
    teacher, student = random_trace(0, [5, 3]), random_trace(1, [5, 3])
    other = dataclasses.replace(teacher, logits=-10 * teacher.logits)
    assert losses(teacher, student, torch.tensor([0, 2])) == losses(other, student, torch.tensor([0, 2]))


# ---------------------------------------------------------------- range, gradients, precision


def test_attention_transfer_is_at_most_the_root_of_two() -> None:
    g = torch.Generator().manual_seed(0)
    maps = [torch.rand(500, 6, 6, generator=g) ** 8 for _ in range(2)]
    apart = torch.zeros(2, 1, 4, 4)
    apart[0, :, :2], apart[1, :, 2:] = 1, 1
    distances = torch.cat([attention_transfer(*maps), attention_transfer(apart[0], apart[1])])
    assert 0 <= float(distances.min()) <= float(distances.max()) <= math.sqrt(2) * (1 + 1e-6)
    assert float(distances[-1]) == pytest.approx(math.sqrt(2))


def test_attention_transfer_of_equal_maps_is_exactly_zero() -> None:
    energy = attention_energy(random_trace(0, [7, 4]).attention[0], torch.ones(2, 7), 2.0)
    assert attention_transfer(energy, energy.clone()).tolist() == [0.0, 0.0]


def test_the_gradient_at_equal_maps_is_zero_and_not_a_nan() -> None:
    energy = torch.rand(2, 3, 3, requires_grad=True)
    attention_transfer(energy.detach().clone(), energy).sum().backward()
    assert energy.grad is not None
    assert energy.grad.abs().max() == 0


def test_the_gradient_of_attention_transfer_is_right() -> None:
    g = torch.Generator().manual_seed(0)
    AE_T, AE_S = (torch.rand(2, 3, 3, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(attention_transfer, (AE_T, AE_S))


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_the_gradient_of_attention_energy_is_right(power: float) -> None:
    # No entry near the kink of |A| at 0
    A = (0.1 + 0.6 * random_trace(0, [4, 4]).attention[0].double()).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    # The energy is computed in float32, hence the wide step.
    assert torch.autograd.gradcheck(lambda A: attention_energy(A, mask, power).double(), (A,), eps=1e-3, atol=2e-3)


def test_energies_are_computed_in_float32_where_the_model_runs_in_bfloat16() -> None:
    A = random_trace(0, [6, 3]).attention[0].bfloat16()
    assert torch.equal(attention_energy(A, torch.ones(2, 6), 2.0), attention_energy(A.float(), torch.ones(2, 6), 2.0))


def test_the_highest_power_of_the_even_attention_of_a_long_text_does_not_vanish() -> None:
    length = 512
    even, mask = torch.full((1, 2, length, length), 1 / length), torch.ones(1, length)
    uneven = even.clone()
    uneven[:, :, :, : length // 2] *= 0.5
    uneven[:, :, :, length // 2 :] *= 1.5
    maps = [A[0].double().numpy() ** 4 for A in (even, uneven)]
    a, b = (m.sum(0) / np.linalg.norm(m.sum(0)) for m in maps)
    found = attention_transfer(attention_energy(even, mask, 4.0), attention_energy(uneven, mask, 4.0))
    assert float(found) == pytest.approx(float(np.linalg.norm(a - b)), rel=1e-3)


# ---------------------------------------------------------------- padding


def test_noise_in_the_padding_of_a_trace_changes_nothing() -> None:
    def noisy(t: Trace) -> Trace:
        columns = t.mask[:, None, None, :] * t.mask[:, None, :, None] == 0
        attention = tuple(torch.where(columns, torch.rand_like(A), A) for A in t.attention)
        return dataclasses.replace(
            t, attention=attention, hidden=tuple(torch.where(t.mask[..., None] == 0, 99.0, H) for H in t.hidden)
        )

    teacher, student, labels = random_trace(0, [7, 1, 3]), random_trace(1, [7, 1, 3]), torch.tensor([0, 1, 2])
    assert losses(noisy(teacher), noisy(student), labels) == losses(teacher, student, labels)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_has_the_same_losses_alone_and_with_padding(text: str) -> None:
    alone, wide = (model_losses([text], torch.tensor([1]), columns) for columns in (0, 20))
    assert alone["attention"] > 0.05  # so that there is something to compare
    assert wide == pytest.approx(alone, rel=1e-5)


def test_a_batch_has_the_same_losses_with_more_padding() -> None:
    assert model_losses(TEXTS, LABELS, 20) == pytest.approx(model_losses(TEXTS, LABELS), rel=1e-5)


def test_the_losses_of_a_batch_follow_from_those_of_its_texts() -> None:
    single = [model_losses([text], LABELS[i : i + 1]) for i, text in enumerate(TEXTS)]
    tokens = [len(e["input_ids"]) for e in encode(tiny_bert(), TEXTS)]
    found = model_losses(TEXTS, LABELS)
    assert found["attention"] == pytest.approx(np.mean([s["attention"] for s in single]), rel=1e-5)
    assert found["classification"] == pytest.approx(np.mean([s["classification"] for s in single]), rel=1e-5)
    # A mean over tokens
    assert found["hidden"] == pytest.approx(np.average([s["hidden"] for s in single], weights=tokens), rel=1e-5)


# ---------------------------------------------------------------- training

QUICK = DistilConfig(learning_rate=3e-3, epochs=4, batch_size=16, dropout=0.0)


def test_distillation_leaves_the_teacher_as_it_is() -> None:
    teacher = tiny_bert(seed=1)
    before = weights_hash(teacher)
    finish(distil(tiny_bert(seed=2), teacher, tiny_texts(32), QUICK))
    assert weights_hash(teacher) == before


def test_the_teacher_gets_no_gradients() -> None:
    teacher = tiny_bert(seed=1)
    finish(distil(tiny_bert(seed=2), teacher, tiny_texts(32), QUICK))
    assert [p.grad for p in teacher.model.parameters()] == [None] * len(list(teacher.model.parameters()))


def test_the_teacher_answers_without_dropout() -> None:
    teachers = tiny_bert(seed=1), tiny_bert(seed=1)
    teachers[0].model.train()
    students = [finish(distil(tiny_bert(seed=2), teacher, tiny_texts(32), QUICK))[0] for teacher in teachers]
    assert weights_hash(students[0]) == weights_hash(students[1])


def test_the_student_is_trained_in_place() -> None:
    student = tiny_bert(seed=2)
    before = weights_hash(student)
    assert finish(distil(student, tiny_bert(seed=1), tiny_texts(32), QUICK))[0] is student
    assert weights_hash(student) != before


def test_the_student_comes_nearer_to_the_teacher() -> None:
    config = dataclasses.replace(QUICK, epochs=12, alpha=1.0, beta=1.0)
    events = finish(distil(pointed_bert(2), pointed_bert(1), tiny_texts(32), config))[1]
    assert events[-1].metrics["attention"] < 0.8 * events[0].metrics["attention"]
    assert events[-1].metrics["hidden"] < 0.5 * events[0].metrics["hidden"]


def test_a_student_that_is_the_teacher_has_nothing_to_learn_of_it_at_first() -> None:
    first = finish(distil(tiny_bert(seed=1), tiny_bert(seed=1), tiny_texts(32), QUICK))[1][0].metrics
    assert (first["attention"], first["hidden"]) == (0.0, 0.0)
    assert first["loss"] == first["classification"] > 0


def test_the_student_learns_the_labels_where_the_teacher_says_otherwise() -> None:
    right = tiny_texts(64)
    wrong = [dataclasses.replace(t, label=1 - t.label) for t in right]
    config = dataclasses.replace(QUICK, epochs=12, alpha=0.0, beta=0.0)
    teacher = finish(distil(tiny_bert(seed=1), tiny_bert(seed=3), right, config))[0]
    student = finish(distil(tiny_bert(seed=2), teacher, wrong, config))[0]
    answers = [predict(c, right).argmax(-1).tolist() for c in (teacher, student)]
    assert answers == [[t.label for t in right], [t.label for t in wrong]]


def test_every_step_reports_the_terms_of_the_loss() -> None:
    config = dataclasses.replace(QUICK, alpha=0.5, beta=2.0)
    events = finish(distil(tiny_bert(seed=2), tiny_bert(seed=1), tiny_texts(32), config))[1]
    assert [(e.stage, e.step, e.total, tuple(e.metrics)) for e in events] == [
        ("distil", i + 1, 8, TERMS) for i in range(8)
    ]
    for e in events:
        assert e.metrics["loss"] == pytest.approx(
            0.5 * e.metrics["attention"] + 2 * e.metrics["hidden"] + e.metrics["classification"], rel=1e-5
        )
