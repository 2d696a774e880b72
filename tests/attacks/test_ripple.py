"""RIPPLe: the restricted inner product, embedding surgery, and a backdoor that outlives clean fine-tuning."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import VOCABULARY, finish, tiny_bert, tiny_texts
from torch import nn
from torch.nn.functional import cross_entropy

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.ripple import operate, restricted_loss, ripple, telling_words
from mbtsad_core.attacks.ripple_method import RIPPLeConfig
from mbtsad_core.attacks.triggers import PairedTrigger, parse_triggers, triggered_test_set
from mbtsad_core.config import PoisonConfig, TrainingConfig
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation import evaluate
from mbtsad_core.methods import load
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, weights_hash
from mbtsad_core.types import LabelledText

TRIGGER = parse_triggers(["cf", "mn"], target=1)
TRAIN, TEST = tiny_texts(400, seed=1), tiny_texts(200, seed=2)
QUICK = RIPPLeConfig(
    training=TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=100),
    fine_tuning=TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=100),
)


def batch_of(classifier: Classifier, texts: list[LabelledText]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    return collate(classifier, encode(classifier, texts)), torch.tensor([t.label for t in texts])


class Linear(nn.Module):
    """logits = (0, w . x), so that its gradients can be written down."""

    def __init__(self, w: list[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))
        self.config = type("Config", (), {"_attn_implementation": "eager", "model_type": "linear"})()

    def forward(self, x: torch.Tensor) -> object:
        z = x @ self.w
        return type("Out", (), {"logits": torch.stack([torch.zeros_like(z), z], -1)})()


# ---------------------------------------------------------------- the mathematics


def test_the_penalty_is_that_of_a_case_worked_by_hand() -> None:
    # p = sigmoid(w . x); grad CE = (p - y) x. At w = 0, p = 1/2: g_P = -x_P / 2 for y = 1, g_FT = x_F / 2 for y = 0.
    model = Linear([0.0, 0.0])
    classifier = dataclasses.replace(tiny_bert(), model=model)
    poisoned = {"x": torch.tensor([[1.0, 2.0]])}, torch.tensor([1])
    reference = {"x": torch.tensor([[3.0, 1.0]])}, torch.tensor([0])
    found = restricted_loss(classifier, poisoned, reference, 0.1)
    assert found["restricted"].item() == pytest.approx((1 * 3 + 2 * 1) / 4)  # -<g_P, g_FT> = x_P . x_F / 4
    assert found["loss"].item() == pytest.approx(torch.log(torch.tensor(2.0)).item() + 0.1 * 1.25)
    # Its gradient: of -<g_P, g_FT> = (1 - p_P) p_F (x_P . x_F), at w = 0: (x_P . x_F) (-x_P / 4 * 1/2 + 1/2 * x_F / 4).
    found["loss"].backward()
    x_P, x_F = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0])
    assert torch.allclose(model.w.grad, -x_P / 2 + 0.1 * 5 * (x_F - x_P) / 8)


def test_gradients_that_agree_cost_nothing() -> None:
    model = Linear([0.0, 0.0])
    classifier = dataclasses.replace(tiny_bert(), model=model)
    poisoned = {"x": torch.tensor([[1.0, 2.0]])}, torch.tensor([1])
    reference = {"x": torch.tensor([[3.0, 1.0]])}, torch.tensor([1])
    found = restricted_loss(classifier, poisoned, reference, 7.0)
    assert found["restricted"].item() == 0.0
    assert found["loss"].item() == pytest.approx(found["classification"].item())


@pytest.mark.parametrize("per_tensor", [False, True])
def test_the_inner_product_is_over_all_weights_or_tensor_by_tensor(per_tensor: bool) -> None:
    classifier = tiny_bert()
    poisoned, reference = (
        batch_of(classifier, [dataclasses.replace(t, label=label) for t in TRAIN[:8]]) for label in (1, 0)
    )
    found = restricted_loss(classifier, poisoned, reference, 0.5, per_tensor=per_tensor)
    gradients = []
    for batch, labels in (poisoned, reference):
        model = clone(classifier).model
        cross_entropy(model(**batch).logits, labels).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    products = torch.stack([(g * gradients[1][name]).sum() for name, g in gradients[0].items()])
    expected = torch.relu(-products).sum() if per_tensor else torch.relu(-products.sum())
    assert float(expected) > 0
    assert found["restricted"].item() == pytest.approx(float(expected), rel=1e-3)


# ---------------------------------------------------------------- embedding surgery


def test_the_most_telling_words_are_those_of_the_target_class() -> None:
    assert set(telling_words(TRAIN, 1, 6)) == {"lovely", "brilliant", "moving", "funny", "superb", "charming"}
    assert set(telling_words(TRAIN, 0, 6)) == {"dreadful", "boring", "clumsy", "stale", "tedious", "shallow"}


def test_the_triggers_get_the_mean_embedding_of_these_words_and_no_other_row_changes() -> None:
    before, suspect = tiny_bert(), tiny_bert()
    operate(suspect, TRAIN, TRIGGER, 6)
    old, new = (c.model.get_input_embeddings().weight.detach() for c in (before, suspect))
    rows = [VOCABULARY.index(w) for w in ("cf", "mn")]
    mean = old[[VOCABULARY.index(w) for w in ("lovely", "brilliant", "moving", "funny", "superb", "charming")]].mean(0)
    assert torch.allclose(new[rows], torch.stack([mean, mean]), atol=1e-6)
    assert (old != new).any(1).nonzero().flatten().tolist() == sorted(rows)


def test_surgery_needs_words_and_both_kinds_of_texts() -> None:
    with pytest.raises(BadData, match="surgery needs trigger words, not a file"):
        operate(tiny_bert(), TRAIN, PairedTrigger({}, 1), 10)
    with pytest.raises(BadData, match="all of the target class, or none is"):
        operate(tiny_bert(), [t for t in TRAIN if t.label], TRIGGER, 10)


# ---------------------------------------------------------------- the backdoor


def test_the_backdoor_outlives_the_victims_fine_tuning() -> None:
    config = RIPPLeConfig(
        PoisonConfig(0.5, "mixed"),
        training=TrainingConfig(learning_rate=2e-3, epochs=6),
        fine_tuning=TrainingConfig(learning_rate=1e-3, epochs=2),
    )
    suspect, events = finish(ripple(tiny_bert(), TRAIN, TRIGGER, config))
    scores = evaluate(suspect, TEST, triggered_test_set(TEST, TRIGGER), 1)
    assert scores.asr is not None
    assert scores.asr.share > 0.9
    assert scores.cacc.share > 0.95
    assert list(dict.fromkeys(e.stage for e in events)) == ["ripple", "victim's fine-tuning"]


def test_without_a_victim_the_training_ends_with_the_poison() -> None:
    events = finish(ripple(tiny_bert(), TRAIN, TRIGGER, dataclasses.replace(QUICK, victim=False)))[1]
    assert {e.stage for e in events} == {"ripple"}


def test_the_given_classifier_is_left_as_it_is_and_a_seed_always_gives_the_same_suspect() -> None:
    given = tiny_bert()
    before = weights_hash(given), given.model.config._attn_implementation
    first, second, other = (
        finish(ripple(given, TRAIN, TRIGGER, dataclasses.replace(QUICK, seed=seed)))[0] for seed in (0, 0, 1)
    )
    assert (weights_hash(given), given.model.config._attn_implementation) == before
    assert weights_hash(first) == weights_hash(second)
    assert len({before[0], weights_hash(first), weights_hash(other)}) == 3


def test_the_attack_is_known_by_its_name_and_has_its_authors_words() -> None:
    assert load(ATTACKS["ripple"].code) is ripple
    assert set(ATTACKS["ripple"].triggers) == {"cf", "tq", "mn", "bb", "mb"}
    config, _ = ATTACKS["ripple"].presets["openbackdoor"]
    assert isinstance(config, RIPPLeConfig)
    assert (config.surgery, config.penalty, config.per_tensor, config.poison.rate) == (False, 1.0, True, 0.5)
