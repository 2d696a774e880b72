"""Layers of the five families are found, what is held at zero stays there, and reinitialization draws the last layer
alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import finish, tiny_bert, tiny_texts
from families import FAMILIES, tiny_model
from transformers import AlbertConfig, AlbertForSequenceClassification

from mbtsad_core.config import TrainingConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.clean_fine_tuning import CleanFineTuningConfig
from mbtsad_core.defenses.encoder_layers import Zeros, encoder_layers, held_at_zero
from mbtsad_core.defenses.reinitialization import redrawn
from mbtsad_core.defenses.reinitialization_method import ReinitializationConfig
from mbtsad_core.errors import BadConfig, UnsuitableModel
from mbtsad_core.models.classifier import clone, collate, encode, trace, weights_hash
from mbtsad_core.training.fine_tuning import fine_tune

CLEAN = tiny_texts(64)
TRAINING = TrainingConfig(learning_rate=1e-2, epochs=2, batch_size=16, weight_decay=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_maps_of_a_layer_are_what_they_are_called(family: str) -> None:
    classifier = tiny_model(family)
    layers = encoder_layers(classifier)
    assert [(la.heads.weight.shape, la.inner.weight.shape, la.outer.weight.shape) for la in layers] == [
        ((32, 32), (64, 32), (32, 64))
    ] * 2

    batch = collate(classifier, encode(classifier, CLEAN[:3]))
    seen: dict[str, torch.Tensor] = {}
    layers[1].heads.register_forward_pre_hook(lambda module, inputs: seen.update(context=inputs[0]))
    layers[1].outer.register_forward_pre_hook(lambda module, inputs: seen.update(inner=inputs[0]))
    layers[1].inner.register_forward_hook(lambda module, inputs, output: seen.update(before=output))
    with torch.no_grad():
        found = trace(classifier, batch)
        value = [m for m in layers[1].module.modules() if isinstance(m, torch.nn.Linear)][2](found.hidden[1])
    # Head h of the second layer is its map of attention times its own columns of the values.
    by_hand = torch.einsum("bhqk,bkhd->bqhd", found.attention[1], value.unflatten(-1, (4, 8))).flatten(2)
    assert torch.allclose(seen["context"], by_hand, atol=1e-5)
    assert torch.allclose(seen["inner"], torch.nn.functional.gelu(seen["before"]), atol=1e-5)


def test_an_architecture_of_another_build_is_refused() -> None:
    shared = AlbertForSequenceClassification(
        AlbertConfig(vocab_size=60, embedding_size=16, hidden_size=32, num_attention_heads=4, intermediate_size=64)
    )
    with pytest.raises(
        UnsuitableModel,
        match=r"'albert' has no transformer layers of the kind that can be pruned or drawn anew\. Expected an encoder",
    ):
        encoder_layers(dataclasses.replace(tiny_bert(), model=shared))


def test_what_is_held_at_zero_is_zero_after_a_training_and_all_else_has_moved() -> None:
    classifier = tiny_bert()
    weight = encoder_layers(classifier)[0].outer.weight
    where = torch.zeros(1, 64, dtype=torch.bool)
    where[0, :40] = True
    before = weight.detach().clone()
    with held_at_zero([Zeros(weight, where)]):
        finish(fine_tune(classifier, CLEAN, TRAINING))
    assert weight[:, :40].count_nonzero() == 0
    assert (weight[:, 40:] != before[:, 40:]).all()
    finish(fine_tune(classifier, CLEAN, TRAINING))  # no longer held
    assert weight[:, :40].count_nonzero() > 0


# ---------------------------------------------------------------- reinitialization


def test_the_last_layer_is_drawn_anew_and_nothing_else_changes() -> None:
    suspect = tiny_bert()
    with torch.no_grad():  # weights that no initialisation would give
        for parameter in suspect.model.parameters():
            parameter.add_(1.0)
    fresh = redrawn(suspect, 1, 0.02, seed=0)
    for (name, old), new in zip(suspect.model.named_parameters(), fresh.model.parameters(), strict=True):
        if not name.startswith("bert.encoder.layer.1."):
            assert torch.equal(old, new), name
        elif name.endswith("LayerNorm.weight"):
            assert (new == 1).all()
        elif name.endswith("bias"):
            assert (new == 0).all()
        else:
            assert abs(float(new.detach().mean())) < 0.004
            assert float(new.detach().std()) == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_of_the_last_layer_of_every_family_is_drawn_anew(family: str) -> None:
    suspect = tiny_model(family)
    fresh = redrawn(suspect, 2, 0.5, seed=0)
    linear = [
        (a.weight, b.weight)
        for a, b in zip(suspect.model.modules(), fresh.model.modules(), strict=True)
        if isinstance(a, torch.nn.Linear)
    ]
    assert sum(not torch.equal(a, b) for a, b in linear) == 12  # six a layer; embeddings and head have their own


def test_reinitialization_is_clean_fine_tuning_of_the_redrawn_model() -> None:
    made = finish(DEFENSES["reinitialization"].run(tiny_bert(), CLEAN, ReinitializationConfig(training=TRAINING)))[0]
    by_hand = finish(DEFENSES["cft"].run(redrawn(tiny_bert(), 1, 0.02, 0), CLEAN, CleanFineTuningConfig(TRAINING)))[0]
    assert weights_hash(made) == weights_hash(by_hand)


def test_more_layers_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(BadConfig, match=r"Asked to draw 3 layers anew, but the model has 2\. Set layers to at most 2"):
        finish(DEFENSES["reinitialization"].run(tiny_bert(), CLEAN, ReinitializationConfig(layers=3)))


def test_a_seed_decides_the_draw() -> None:
    hashes = [weights_hash(redrawn(clone(tiny_bert()), 1, 0.02, seed)) for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]
