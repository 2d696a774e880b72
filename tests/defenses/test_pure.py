"""PURE: its variance, its norm and the layers' weights by hand, which heads go, and that they stay away."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import finish, tiny_bert, tiny_texts
from families import FAMILIES, tiny_model

from mbtsad_core.config import TrainingConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.encoder_layers import encoder_layers, zero
from mbtsad_core.defenses.held_out import accuracy, hold_out
from mbtsad_core.defenses.pure import (
    attention_norm,
    cls_variance,
    head_variance,
    heads_to_prune,
    layer_coefficients,
    zeros,
)
from mbtsad_core.defenses.pure_method import PUREConfig
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, predict, trace
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText

CLEAN = tiny_texts(60)
QUICK = TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=16, warmup=0.0)
CONFIG = PUREConfig(group=3, judging=QUICK, training=QUICK)
FAKE = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.5, 0.8, 0.7, 0.6]])


@pytest.fixture(scope="module")
def suspect() -> Classifier:
    return finish(fine_tune(tiny_bert(), tiny_texts(200, seed=5), TrainingConfig(learning_rate=5e-3, epochs=6)))[0]


def pruned_in(classifier: Classifier) -> list[list[int]]:
    """The heads of each layer that nothing leads out of."""
    return [
        [h for h in range(4) if layer.heads.weight[:, 8 * h : 8 * h + 8].count_nonzero() == 0]
        for layer in encoder_layers(classifier)
    ]


# ---------------------------------------------------------------- equations


def test_the_variance_is_that_of_the_cls_row_over_real_tokens() -> None:
    A = torch.zeros(2, 1, 4, 4)
    A[0, 0, 0] = torch.tensor([0.7, 0.1, 0.1, 0.1])
    A[1, 0, 0] = torch.tensor([0.5, 0.3, 0.2, 0.0])  # the last token is padding
    A[:, :, 1:] = 9.0  # rows of other tokens do not count
    found = cls_variance(A, torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]))
    assert found.flatten().tolist() == pytest.approx(
        [np.var([0.7, 0.1, 0.1, 0.1], ddof=1), np.var([0.5, 0.3, 0.2], ddof=1)]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_heads_variance_is_its_mean_over_the_texts_whatever_the_padding(family: str) -> None:
    classifier = tiny_model(family)
    texts = [*CLEAN[:5], LabelledText("a film", 0), LabelledText("the story was truly moving , very", 1)]
    found = head_variance(classifier, texts, batch_size=4)
    by_hand = torch.zeros(2, 4)
    for text in texts:
        with torch.no_grad():
            seen = trace(classifier, collate(classifier, encode(classifier, [text])))
        by_hand += torch.stack([A[0, :, 0].var(dim=-1) for A in seen.attention]) / len(texts)
    assert torch.allclose(found, by_hand, atol=1e-7)


def test_the_layers_weights_are_spread_from_the_evenest_layer_to_the_least_even() -> None:
    variance = torch.tensor([[0.1, 0.3, 9.0], [0.1, 0.1, 0.1], [0.4, 0.4, 0.4]])
    pruned = torch.tensor([[False, False, True], [False, True, False], [False, False, False]])
    # Means over the heads left: 0.2, 0.1, 0.4; the softmax of -log is in proportion to 1 / mean: 5, 10, 2.5.
    assert layer_coefficients(variance, pruned).tolist() == pytest.approx([(5 - 2.5) / (10 - 2.5), 1.0, 0.0])
    assert layer_coefficients(torch.full((3, 2), 0.5), torch.zeros(3, 2, dtype=torch.bool)).tolist() == [1.0, 1.0, 1.0]


def test_the_norm_is_taken_over_tokens_and_batch_of_the_heads_left() -> None:
    A = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))  # (B, H, T, T)
    B = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    kept = torch.tensor([[True, False, True], [False, True, False]])
    found = attention_norm([A, B], kept, torch.tensor([1.0, 0.5]))
    heads = [
        math.sqrt(sum(float(M[b, h, 0, t]) ** 2 for b in range(2) for t in range(4)))
        for M, h in ((A, 0), (A, 2), (B, 1))
    ]
    assert float(found) == pytest.approx(heads[0] + heads[1] + 0.5 * heads[2], rel=1e-5)


# ---------------------------------------------------------------- which heads go


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_head_is_as_if_it_looked_at_nothing(family: str) -> None:
    classifier = tiny_model(family)
    cut, muted = clone(classifier), clone(classifier)
    gone = torch.tensor([[True, False, False, True], [False, True, False, False]])
    zero(zeros(cut, gone))
    for layer, out in zip(encoder_layers(muted), gone, strict=True):
        layer.heads.register_forward_pre_hook(
            lambda module, inputs, out=out: ((inputs[0].unflatten(-1, (4, 8)) * ~out[:, None]).flatten(-2),)
        )
    assert torch.allclose(predict(cut, CLEAN), predict(muted, CLEAN), atol=1e-6)
    assert pruned_in(cut) == [[0, 3], [1]]


def test_heads_go_in_the_order_of_their_variance_and_each_layer_keeps_one(suspect: Classifier) -> None:
    pruned, events = finish(heads_to_prune(suspect, CLEAN, FAKE, dataclasses.replace(CONFIG, least_accuracy=0.0)))
    assert (~pruned).nonzero().tolist() == [[0, 0], [1, 1]]  # the largest variance of either layer
    # 0.1, 0.2, 0.3 of the first layer go; its 0.4 stays, 0.5 and 0.6 of the second go; 0.7 goes, its 0.8 stays.
    assert [e.metrics["heads"] for e in events] == [3, 5, 6]


def needing_one_head(suspect: Classifier, layer: int, head: int) -> Classifier:
    """The same model, but every text gets one answer without this head: it adds what a large bias takes away again.

    Its values are the same for all tokens, so that it does not matter where it looks.
    """
    made = clone(suspect)
    attention = encoder_layers(made)[layer]
    value = [m for m in attention.module.modules() if isinstance(m, torch.nn.Linear)][2]
    away = torch.linspace(-1.0, 1.0, 32) * 1000.0
    columns = slice(8 * head, 8 * head + 8)
    with torch.no_grad():
        value.weight[columns] = 0.0
        value.bias[columns] = 1.0
        attention.heads.weight[:, columns] = away[:, None] / 8
        attention.heads.bias -= away
    return made


@pytest.mark.parametrize("needed", [(0, 3), (0, 2), (1, 0), (1, 3)])
def test_of_the_group_with_which_the_accuracy_falls_heads_come_back_one_by_one(
    suspect: Classifier, needed: tuple[int, int]
) -> None:
    # By FAKE the order is (0, 1), (0, 3), (0, 2), then (1, 0), (1, 3), then (1, 2).
    needy = needing_one_head(suspect, *needed)
    pruned, events = finish(heads_to_prune(needy, CLEAN, FAKE, dataclasses.replace(CONFIG, least_accuracy=0.85)))
    assert not pruned[needed]
    order = [(0, 1), (0, 3), (0, 2), (1, 0), (1, 3), (1, 2)]
    assert [place for place in order if pruned[place]] == order[: order.index(needed)]
    assert len(events) == (1 if needed[0] == 0 else 2)  # nothing is tried after that group
    assert events[-1].metrics == {"heads": order.index(needed), "held_out_accuracy": accuracy(needy, CLEAN)}


def test_no_head_goes_where_the_accuracy_is_too_low_from_the_start(suspect: Classifier) -> None:
    pruned, events = finish(heads_to_prune(tiny_bert(), CLEAN, FAKE, CONFIG))
    assert not pruned.any()
    assert len(events) == 1


# ---------------------------------------------------------------- the whole


def test_pure_prunes_what_the_tuned_copy_says_and_keeps_it_pruned(suspect: Classifier) -> None:
    made, events = finish(DEFENSES["pure"].run(suspect, CLEAN, CONFIG))
    rest, held_out = hold_out(CLEAN, CONFIG.held_out, CONFIG.seed)
    judged = finish(fine_tune(clone(suspect), rest, QUICK))[0]
    expected = finish(heads_to_prune(judged, held_out, head_variance(judged, held_out), CONFIG))[0]
    assert expected.any()
    assert pruned_in(made) == [row.nonzero().flatten().tolist() for row in expected]
    assert list(dict.fromkeys(e.stage for e in events)) == ["judge heads", "prune", "pure"]
    assert all(
        e.metrics["loss"] == pytest.approx(e.metrics["classification"] + 0.15 * e.metrics["attention"], rel=1e-5)
        for e in events
        if e.stage == "pure"
    )


def test_the_penalty_makes_attention_even(suspect: Classifier) -> None:
    longer = dataclasses.replace(QUICK, epochs=6)
    found = []
    for penalty in (0.0, 3.0):
        made = finish(
            DEFENSES["pure"].run(
                suspect,
                CLEAN,
                dataclasses.replace(CONFIG, penalty=penalty, training=longer, group=1, least_accuracy=1.0),
            )
        )[0]
        kept = torch.ones(2, 4, dtype=torch.bool)
        for layer, heads in enumerate(pruned_in(made)):
            kept[layer, heads] = False
        variance = head_variance(made, CLEAN)
        found.append((variance * kept).sum(1) / kept.sum(1))
    evenest = int(found[0].argmin())  # of the two layers: the one whose weight is 1, while the other's is 0
    assert found[1][evenest] < 0.1 * found[0][evenest]
