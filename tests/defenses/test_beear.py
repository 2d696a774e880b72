"""BEEAR: a drift's step and bound by hand, where it is added, that it turns answers, and that its unlearning holds."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import adding_bert, finish, tiny_bert, tiny_texts
from families import FAMILIES, tiny_model
from torch import Tensor
from torch.nn.functional import cross_entropy

from mbtsad_core.config import TrainingConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.beear import Drifts, stepped, wrong_classes
from mbtsad_core.defenses.beear_method import BEEARConfig
from mbtsad_core.defenses.clean_fine_tuning import CleanFineTuningConfig
from mbtsad_core.models.classifier import Classifier, collate, encode, logits_of, predict, trace, weights_hash

CLEAN = tiny_texts(64)
CONFIG = BEEARConfig(bound=0.5, training=TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=16))
LABELS = torch.tensor([text.label for text in CLEAN])


def turned(classifier: Classifier, config: BEEARConfig, steps: int = 10) -> float:
    """Share of the clean texts whose answer is wrong under drifts that are found for this classifier."""
    drifts, batch = Drifts(classifier, CLEAN, config), collate(classifier, encode(classifier, CLEAN))
    for _ in range(steps):
        drifts.step(classifier, batch, 1 - LABELS)
    with torch.no_grad():
        return float((drifts.logits(classifier, batch, 1 - LABELS).argmax(-1) != LABELS).float().mean())


def test_a_step_goes_down_the_slope_and_no_farther_than_the_bound() -> None:
    delta = torch.tensor([[0.0, 0.0], [0.6, 0.8], [1.0, 1.0]])
    slope = torch.tensor([[3.0, -4.0], [-6.0, -8.0], [0.0, 0.0]])
    found = stepped(delta, slope, rate=0.5, bound=1.2)
    # (0, 0) - 0.5 (0.6, -0.8); then (0.6, 0.8) + 0.5 (0.6, 0.8), of norm 1.5, cut to 1.2; then no slope, cut from sqrt 2
    by_hand = torch.tensor([[-0.3, 0.4], [0.72, 0.96], [1.2 / 2**0.5] * 2])
    assert torch.allclose(found, by_hand, atol=1e-6)


def test_a_wrong_class_is_never_the_texts_own_and_all_others_are_drawn() -> None:
    torch.manual_seed(0)
    labels = torch.arange(4).repeat_interleave(300)
    wrong = wrong_classes(labels, 4)
    counts = torch.zeros(4, 4).index_put_((labels, wrong), torch.ones(1200), accumulate=True)
    assert counts.diagonal().tolist() == [0.0] * 4
    assert float(counts[~torch.eye(4, dtype=torch.bool)].min()) > 60  # 100 are expected
    assert wrong_classes(LABELS, 2).tolist() == (1 - LABELS).tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("depth", "layer"), [(0.0, 1), (0.5, 1), (1.0, 2)])
def test_a_texts_drift_is_added_to_its_tokens_after_the_layer_that_is_asked_for(
    family: str, depth: float, layer: int
) -> None:
    classifier = tiny_model(family)
    drifts = Drifts(classifier, CLEAN, dataclasses.replace(CONFIG, depth=depth, bound=0.25))
    batch = collate(classifier, encode(classifier, CLEAN[:2]))
    with torch.no_grad():
        plain = trace(classifier, batch)
        norms = torch.cat(
            [trace(classifier, collate(classifier, encode(classifier, [t]))).hidden[layer][0] for t in CLEAN]
        )
        assert drifts.bound == pytest.approx(0.25 * float(norms.norm(dim=-1).mean()), rel=1e-4)
        drifts.delta = torch.arange(64.0).view(2, 32) / 64
        seen: dict[str, Tensor] = {}
        watched = drifts.layer.register_forward_hook(
            lambda *given: seen.update(H=given[2][0] if isinstance(given[2], tuple) else given[2])
        )
        logits = drifts.logits(classifier, batch, torch.tensor([1, 0]))
        watched.remove()
        tokens = 1 if layer == 2 else None  # the last layer may make the first token alone
        by_hand = plain.hidden[layer] + drifts.delta[[1, 0]][:, None]
        assert torch.allclose(seen["H"][:, :tokens], by_hand[:, :tokens], atol=1e-5)
        assert not torch.allclose(logits, plain.logits, atol=1e-4)
        assert torch.allclose(logits_of(classifier, batch), plain.logits, atol=1e-6)


def test_the_inner_steps_find_the_direction_that_turns_answers() -> None:
    """In this model, what a hidden state has along (1, -1, 1, ...) is its say for class 1, and nothing else is."""
    classifier = adding_bert()
    drifts, batch = Drifts(classifier, CLEAN, CONFIG), collate(classifier, encode(classifier, CLEAN))
    before = weights_hash(classifier)
    for _ in range(10):
        drifts.step(classifier, batch, 1 - LABELS)
    direction = torch.tensor([1.0, -1.0] * 16) / 32**0.5
    assert drifts.delta.norm(dim=-1).tolist() == pytest.approx([drifts.bound] * 2, rel=1e-4)
    assert [float(d) for d in drifts.delta @ direction / drifts.bound] == pytest.approx([-1.0, 1.0], abs=0.15)
    assert weights_hash(classifier) == before
    assert all(p.grad is None for p in classifier.model.parameters())
    assert float((predict(classifier, CLEAN).argmax(-1) == LABELS).float().mean()) > 0.9
    assert turned(classifier, CONFIG) > 0.9


def test_training_makes_the_answers_stand_under_drifts_and_cft_does_not() -> None:
    config = BEEARConfig(bound=0.5, training=TrainingConfig(learning_rate=3e-3, epochs=8, batch_size=16))
    suspect = adding_bert()
    cured = finish(DEFENSES["beear"].run(suspect, CLEAN, config))[0]
    tuned = finish(DEFENSES["cft"].run(suspect, CLEAN, CleanFineTuningConfig(config.training)))[0]
    assert float((predict(cured, CLEAN).argmax(-1) == LABELS).float().mean()) > 0.95
    assert turned(cured, config) < 0.5 * turned(tuned, config)


def test_the_loss_is_that_on_clean_texts_and_its_share_of_that_under_the_drift() -> None:
    once = dataclasses.replace(CONFIG.training, batch_size=64, dropout=0.0)
    config = dataclasses.replace(CONFIG, weight=0.3, inner_steps=2, training=once)
    suspect = tiny_bert()
    found = finish(DEFENSES["beear"].run(suspect, CLEAN, config))[1][0].metrics
    drifts, batch = Drifts(suspect, CLEAN, config), collate(suspect, encode(suspect, CLEAN))
    for _ in range(2):
        drifts.step(suspect, batch, 1 - LABELS)
    with torch.no_grad():
        drifted = float(cross_entropy(drifts.logits(suspect, batch, 1 - LABELS), LABELS))
        plain = float(cross_entropy(logits_of(suspect, batch), LABELS))
    assert found["drifted"] == pytest.approx(drifted, rel=1e-4)
    assert found["classification"] == pytest.approx(plain, rel=1e-4)
    assert found["loss"] == pytest.approx(plain + 0.3 * drifted, rel=1e-4)
    assert drifted > plain
