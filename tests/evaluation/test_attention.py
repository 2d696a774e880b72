"""Attention maps of one text, eq. (3) against numpy, and how far heads moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import tiny_bert

from mbtsad_core.errors import BadData, UnsuitableModel
from mbtsad_core.evaluation.attention import AttentionMaps, attention_maps, moved, moved_by_trigger, one_map
from mbtsad_core.models.classifier import Classifier, collate, encode, trace, weights_hash


def of(ids: list[int], maps: list) -> AttentionMaps:  # type: ignore[type-arg]
    return AttentionMaps(tuple(f"t{i}" for i in ids), tuple(ids), np.array(maps, np.float32), "positive", 0.9)


def test_maps_are_those_of_the_trace_and_rows_sum_to_one(tiny: Classifier) -> None:
    before, mode = weights_hash(tiny), tiny.model.config._attn_implementation
    found = attention_maps(tiny, "a lovely film")
    with torch.no_grad():  # in a padded batch: padding must not matter
        batch = trace(tiny, collate(tiny, encode(tiny, ["a lovely film", "the film was very very truly superb ."])))
    assert found.tokens == ("[CLS]", "a", "lovely", "film", "[SEP]")
    assert found.maps.shape == (2, 4, 5, 5)
    np.testing.assert_allclose(found.maps.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(found.maps, torch.stack(batch.attention)[:, 0, :, :5, :5].numpy(), atol=1e-6)
    assert found.probability == pytest.approx(float(batch.logits[0].softmax(-1).max()), abs=1e-6)
    assert (weights_hash(tiny), tiny.model.config._attn_implementation) == (before, mode)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_the_head_sum_is_equation_3(tiny: Classifier, power: float) -> None:
    found = attention_maps(tiny, "a lovely film was dreadful")
    expected = np.einsum("hqk->qk", np.abs(found.maps[1].astype(np.float64)) ** power)
    np.testing.assert_allclose(one_map(found, 1, None, power), expected, rtol=1e-5)
    np.testing.assert_array_equal(one_map(found, 1, 2, power), found.maps[1, 2])


def test_moved_is_the_share_of_attention_on_other_tokens() -> None:
    before = of([1, 2], [[[[1, 0], [0.5, 0.5]], [[1, 0], [1, 0]]]])
    after = of([1, 2], [[[[0, 1], [0.5, 0.5]], [[0, 1], [0, 1]]]])
    np.testing.assert_allclose(moved(before, after), [[0.5, 1.0]])
    np.testing.assert_allclose(moved(before, before), 0)
    assert before.maps[0, 0, 0, 0] == 1  # inputs are left alone


def test_moved_stays_between_zero_and_one_for_two_models() -> None:
    a, b = (attention_maps(tiny_bert(seed=seed), "a lovely film") for seed in (0, 1))
    assert ((moved(a, b) > 0) & (moved(a, b) < 1)).all()


def test_different_tokens_cannot_be_compared() -> None:
    with pytest.raises(BadData, match="different tokens"):
        moved(of([1], [[[[1]]]]), of([2], [[[[1]]]]))


def test_attention_that_a_trigger_draws_counts_as_moved() -> None:
    clean = of([1, 2], [[[[0.5, 0.5], [0.5, 0.5]]]])
    triggered = of([1, 9, 2], [[[[0.1, 0.8, 0.1], [0.2, 0.6, 0.2], [0.5, 0.0, 0.5]]]])
    # Query 1: 0.8 of its attention went to the trigger. Query 2: nothing moved. The trigger's own row has no partner.
    np.testing.assert_allclose(moved_by_trigger(clean, triggered), [[0.4]], atol=1e-6)
    np.testing.assert_allclose(moved_by_trigger(clean, clean), 0)
    with pytest.raises(BadData, match="share no token"):
        moved_by_trigger(clean, of([7], [[[[1]]]]))


def test_broken_weights_are_named(tiny: Classifier) -> None:
    with torch.no_grad():
        tiny.model.bert.embeddings.word_embeddings.weight.fill_(float("nan"))
    with pytest.raises(UnsuitableModel, match="no numbers"):
        attention_maps(tiny, "a film")
