"""BadActs: the intervals and the clip by hand, and that the student learns from the clipped suspect."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import finish, tiny_bert, tiny_texts
from families import FAMILIES, tiny_model

from mbtsad_core.config import DistilConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.badacts import clipped, intervals
from mbtsad_core.defenses.badacts_method import BadActsConfig
from mbtsad_core.defenses.encoder_layers import changed_outputs, encoder_layers
from mbtsad_core.models.classifier import clone, collate, encode, predict, trace, weights_hash
from mbtsad_core.training.distillation import distil
from mbtsad_core.types import LabelledText

CLEAN = [*tiny_texts(30), LabelledText("a film", 0), LabelledText("the story was truly moving , very , very", 1)]
CONFIG = BadActsConfig(distil=DistilConfig(learning_rate=1e-3, batch_size=16, epochs=1))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_interval_is_mean_and_deviation_of_a_neuron_over_all_real_tokens(family: str) -> None:
    classifier = tiny_model(family)
    seen: list[list[np.ndarray]] = [[], []]
    for text in CLEAN:  # one by one, so that nothing is padded
        with torch.no_grad():
            hidden = trace(classifier, collate(classifier, encode(classifier, [text]))).hidden
        for layer in range(2):
            seen[layer].append(hidden[layer + 1][0].numpy())
    low, high = intervals(classifier, CLEAN, 1.5)
    for layer in range(2):
        tokens = np.concatenate(seen[layer])
        assert np.allclose(low[layer], tokens.mean(0) - 1.5 * tokens.std(0), atol=1e-4)
        assert np.allclose(high[layer], tokens.mean(0) + 1.5 * tokens.std(0), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_layer_puts_out_is_clipped_for_the_next_and_for_all_that_look(family: str) -> None:
    classifier = tiny_model(family)
    batch = collate(classifier, encode(classifier, CLEAN[:4]))
    with torch.no_grad():
        plain = trace(classifier, batch)  # the library puts its own hooks up here, and leaves them
        with clipped(classifier, torch.full((2, 32), -0.5), torch.full((2, 32), 0.25)):
            found = trace(classifier, batch)
        with changed_outputs([encoder_layers(classifier)[0].module], lambda _, H: H.clamp(-0.5, 0.25)):
            first = trace(classifier, batch)
        after = trace(classifier, batch)
    assert torch.equal(found.hidden[1], plain.hidden[1].clamp(-0.5, 0.25))
    assert torch.equal(found.hidden[2], first.hidden[2].clamp(-0.5, 0.25))  # of the layer that read the clipped output
    assert not torch.allclose(first.hidden[2], plain.hidden[2], atol=1e-3)
    assert not torch.allclose(found.logits, plain.logits, atol=1e-6)
    assert torch.equal(after.logits, plain.logits)


def test_intervals_that_hold_all_clean_texts_change_no_answer() -> None:
    suspect = tiny_bert()
    wide, narrow = (intervals(suspect, CLEAN, width) for width in (100.0, 0.5))
    teacher = clone(suspect)
    with clipped(teacher, *wide):
        assert torch.equal(predict(teacher, CLEAN), predict(suspect, CLEAN))
    with clipped(teacher, *narrow):
        assert not torch.allclose(predict(teacher, CLEAN), predict(suspect, CLEAN), atol=1e-4)


def test_the_student_is_distilled_towards_the_clipped_suspect() -> None:
    suspect = tiny_bert()
    made = weights_hash(finish(DEFENSES["badacts"].run(suspect, CLEAN, CONFIG))[0])
    teacher = clone(suspect)
    with clipped(teacher, *intervals(suspect, CLEAN, 2.0)):
        by_hand = weights_hash(finish(distil(clone(suspect), teacher, CLEAN, CONFIG.distil))[0])
    from_suspect = weights_hash(finish(distil(clone(suspect), clone(suspect), CLEAN, CONFIG.distil))[0])
    wide = weights_hash(finish(DEFENSES["badacts"].run(suspect, CLEAN, dataclasses.replace(CONFIG, width=100.0)))[0])
    assert made == by_hand != from_suspect == wide
