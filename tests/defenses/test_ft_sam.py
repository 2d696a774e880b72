"""FT-SAM: the ascent by hand, and that a step takes its gradient there."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import finish, tiny_bert, tiny_texts
from torch import nn

from mbtsad_core.config import TrainingConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.clean_fine_tuning import CleanFineTuningConfig
from mbtsad_core.defenses.ft_sam import ascended
from mbtsad_core.defenses.ft_sam_method import FTSAMConfig
from mbtsad_core.models.classifier import clone, encode, weights_hash
from mbtsad_core.training.batch_gradient import classification_loss, gradient

CLEAN = tiny_texts(48)
TRAINING = TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=16)


def test_the_ascent_on_a_quadratic_is_what_the_hand_computes() -> None:
    a, b, idle = nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.ones(1))
    # The gradient is (2, -1, 4 / 3); |w| times it is (2, -2, 4), of norm sqrt(24); w squared times it (2, -4, 12)
    (a[0] ** 2 + a[1] ** 2 / 4 + 2 / 9 * b.sum() ** 2).backward()
    with ascended([a, b, idle], rho=0.6):
        scale = 0.6 / 24**0.5
        assert a.tolist() == pytest.approx([1 + 2 * scale, -2 - 4 * scale])
        assert b.tolist() == pytest.approx([3 + 12 * scale])
        relative = torch.cat([(a.detach() - torch.tensor([1.0, -2.0])) / torch.tensor([1.0, -2.0]), b.detach() / 3 - 1])
        assert float(relative.norm()) == pytest.approx(0.6)
    assert (a.tolist(), b.tolist(), idle.tolist()) == ([1.0, -2.0], [3.0], [1.0])


def test_the_weights_are_put_back_where_the_gradient_fails() -> None:
    w = nn.Parameter(torch.tensor([1.5]))
    w.square().sum().backward()
    with pytest.raises(KeyError), ascended([w], rho=1.0):
        raise KeyError
    assert w.tolist() == [1.5]


def test_without_an_ascent_it_is_clean_fine_tuning_to_the_last_bit() -> None:
    made = [
        weights_hash(finish(DEFENSES[name].run(tiny_bert(), CLEAN, config))[0])
        for name, config in (
            ("cft", CleanFineTuningConfig(TRAINING)),
            ("ft_sam", FTSAMConfig(rho=0.0, training=TRAINING)),
            ("ft_sam", FTSAMConfig(training=TRAINING)),
        )
    ]
    assert made[0] == made[1] != made[2]


def test_a_step_follows_the_gradient_at_the_weights_of_the_ascent() -> None:
    """One step of AdamW moves each weight by the learning rate against the sign of its gradient."""
    once = dataclasses.replace(TRAINING, batch_size=48, dropout=0.0, warmup=0.0, clip=1e6)
    suspect = tiny_bert()
    made = finish(DEFENSES["ft_sam"].run(suspect, CLEAN, FTSAMConfig(rho=5.0, training=once)))[0]
    plain, there = clone(suspect), clone(suspect)
    batch, labels = encode(suspect, CLEAN), torch.tensor([text.label for text in CLEAN])
    for classifier in (plain, there):
        gradient(classifier, batch, labels, classification_loss, None, 48)
    with ascended(list(there.model.parameters()), 5.0):
        gradient(there, batch, labels, classification_loss, None, 48)

    def agreeing(classifier: object) -> float:
        triples = zip(made.model.parameters(), suspect.model.parameters(), classifier.model.parameters(), strict=True)  # type: ignore[attr-defined]
        same = [(new - old).sign().eq(-w.grad.sign())[w.grad.abs() > 1e-6] for new, old, w in triples]
        return float(torch.cat(same).float().mean())

    assert agreeing(there) > 0.999 > agreeing(plain)
