"""Attention in parts against PyTorch's own in double precision; the last layer's is made for the first token alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mbtsad_core.models.attention import attending, in_parts, suits
from mbtsad_core.models.classifier import load_classifier
from mbtsad_core.models.demo import demo_model

LENGTHS = torch.tensor([7, 3, 1, 7, 5])


def drawn(dtype: torch.dtype, queries: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(5, 2, n, 8, generator=generator).to(dtype) for n in (queries, 7, 7))
    return query, key, value


@pytest.mark.parametrize("at_once", [1, 2 * 7 * 7, 2 * 2 * 7 * 7, 10**6])  # a text, one, two with a rest, all
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("queries", [7, 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_parts_give_what_the_whole_gives(dtype: torch.dtype, queries: int, padded: bool, at_once: int) -> None:
    query, key, value = drawn(dtype, queries)
    real = (torch.arange(7) < LENGTHS[:, None])[:, None, None].expand(5, 1, queries, 7) if padded else None
    found = in_parts(query, key, value, real, 0.3, at_once)
    exact = scaled_dot_product_attention(query.double(), key.double(), value.double(), attn_mask=real, scale=0.3)
    assert found.dtype == dtype
    bound = 3e-2 if dtype == torch.bfloat16 else 1e-6  # weights are made in float32
    torch.testing.assert_close(found.double(), exact.transpose(1, 2), rtol=0, atol=bound)


def test_what_cannot_be_seen_changes_nothing() -> None:
    query, key, value = drawn(torch.bfloat16)
    real = (torch.arange(7) < LENGTHS[:, None])[:, None, None].expand(5, 1, 7, 7)
    before = in_parts(query, key, value, real, 1.0)
    hidden = ~real[:, :, 0, :, None].expand_as(value)
    other = in_parts(query, key.masked_fill(hidden, 9.0), value.masked_fill(hidden, -9.0), real, 1.0)
    assert torch.equal(before, other)


def test_parts_are_for_bfloat16_without_gradients_alone() -> None:
    query, *_ = drawn(torch.bfloat16)
    assert not suits(query)  # gradients are on
    with torch.no_grad():
        assert not suits(query.float())


@torch.inference_mode()
def test_the_last_attention_gives_nothing_for_the_other_tokens() -> None:
    model = load_classifier(demo_model("suspect")).model
    heard: dict[int, torch.Tensor] = {}
    layers = [layer.attention.self for layer in model.bert.encoder.layer]
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda _m, _in, out, number=number: heard.update({number: out[0]}))
    batch = {"input_ids": torch.tensor([[2, 30, 40, 50, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    model(**batch)
    whole = dict(heard)
    with attending(model, layers[-1]):
        model(**batch)
    *others, last = sorted(heard)
    for number in others:
        torch.testing.assert_close(heard[number], whole[number])
    torch.testing.assert_close(heard[last][:, 0], whole[last][:, 0])
    assert whole[last][:, 1:].abs().max() > 0
    assert heard[last][:, 1:].abs().max() == 0
    model(**batch)
    torch.testing.assert_close(heard[last], whole[last])  # the model is left as it was
