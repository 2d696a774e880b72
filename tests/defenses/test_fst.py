"""FST: the drawn head, its norm, the penalty by hand, and that the head turns away from the suspect's."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import adding_bert, finish, tiny_bert, tiny_texts
from families import FAMILIES, tiny_model
from torch.nn.functional import cosine_similarity

from mbtsad_core.config import TrainingConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.encoder_layers import classification_head
from mbtsad_core.defenses.fst import held_at_norm, redraw
from mbtsad_core.defenses.fst_method import FSTConfig
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, logits_of, predict

CLEAN = tiny_texts(64)
CONFIG = FSTConfig(training=TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=16))


def likeness(made: Classifier, suspect: Classifier) -> float:
    heads = [classification_head(c).weight.detach().flatten() for c in (made, suspect)]
    return float(cosine_similarity(*heads, dim=0))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_is_what_gives_the_classes(family: str) -> None:
    classifier = tiny_model(family)
    head = classification_head(classifier)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([1.0, -1.0]))
        logits = logits_of(classifier, collate(classifier, encode(classifier, CLEAN[:2])))
    assert logits.tolist() == [[1.0, -1.0]] * 2


def test_a_drawn_head_is_even_within_one_over_the_root_of_its_width() -> None:
    head = torch.nn.Linear(400, 50)
    redraw(head, 0)
    drawn = head.weight.detach() * 20  # within [-1, 1]
    assert float(drawn.abs().max()) <= 1
    assert float(drawn.std()) == pytest.approx(3**-0.5, abs=0.01)
    assert float(head.bias.detach().abs().max()) <= 0.05
    first = head.weight.detach().clone()
    redraw(head, 1)
    assert not torch.equal(first, head.weight)


def test_the_norm_holds_whenever_the_head_is_used_in_training_and_at_the_end() -> None:
    head = torch.nn.Linear(3, 2)
    with held_at_norm(head, 5.0):
        assert float(head.weight.detach().norm()) == pytest.approx(5.0)
        with torch.no_grad():
            head.weight.copy_(torch.tensor([[3.0, 0, 0], [0, 4.0, 0]]) * 7)
        head(torch.zeros(1, 3))
        assert head.weight.flatten().tolist() == pytest.approx([3.0, 0, 0, 0, 4.0, 0])
        with torch.no_grad():
            head.weight.mul_(2)
        head.eval()(torch.zeros(1, 3))
        assert head.weight.flatten().tolist() == pytest.approx([6.0, 0, 0, 0, 8.0, 0])  # to measure changes nothing
    assert float(head.weight.detach().norm()) == pytest.approx(5.0)
    with torch.no_grad():
        head.weight.mul_(2)
    head(torch.zeros(1, 3))
    assert float(head.weight.detach().norm()) == pytest.approx(10.0)


def test_the_first_loss_is_cross_entropy_and_alpha_times_the_inner_product() -> None:
    suspect = adding_bert()
    config = dataclasses.replace(
        CONFIG, alpha=0.7, training=dataclasses.replace(CONFIG.training, batch_size=64, dropout=0.0)
    )
    events = finish(DEFENSES["fst"].run(suspect, CLEAN, config))[1]
    by_hand = clone(suspect)
    redraw(classification_head(by_hand), 0)
    w, w_0 = classification_head(by_hand).weight.detach(), classification_head(suspect).weight.detach()
    w *= w_0.norm() / w.norm()
    product = float((w * w_0).sum())
    entropy = float(-predict(by_hand, CLEAN)[range(64), [text.label for text in CLEAN]].log().mean())
    found = events[0].metrics
    assert found["likeness"] == pytest.approx(product, rel=1e-5)
    assert found["classification"] == pytest.approx(entropy, rel=1e-4)
    assert found["loss"] == pytest.approx(entropy + 0.7 * product, rel=1e-4)


def test_the_head_keeps_its_norm_and_turns_away_the_more_alpha_asks_for_it() -> None:
    suspect = tiny_bert()
    made = [
        finish(DEFENSES["fst"].run(suspect, CLEAN, dataclasses.replace(CONFIG, alpha=alpha)))[0] for alpha in (0, 50)
    ]
    norm = float(classification_head(suspect).weight.detach().norm())
    assert [float(classification_head(m).weight.detach().norm()) for m in made] == pytest.approx([norm] * 2)
    assert likeness(made[1], suspect) < likeness(made[0], suspect) - 0.05
    assert not any(module._forward_pre_hooks for m in made for module in m.model.modules())
