"""The dropout of training on a CPU: which numbers go, what becomes of the others, and where it takes the place of
PyTorch's."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_bert
from torch import Tensor, nn
from torch.nn import functional

from mbtsad_core.models.classifier import collate, encode
from mbtsad_core.training.dropout import QuickDropout, dropout


def drawn(seed: int, p: float = 0.3, shape: tuple[int, ...] = (50, 41, 37)) -> Tensor:
    torch.manual_seed(seed)
    return dropout(torch.ones(shape), p)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_the_share_that_goes_is_p_and_the_others_make_up_for_it(p: float) -> None:
    found = dropout(torch.ones(1000, 1000), p)
    gone = found == 0
    assert gone.double().mean().item() == pytest.approx(p, abs=5 * (p * (1 - p)) ** 0.5 / 1000)
    assert torch.allclose(found[~gone], torch.tensor(1 / (1 - p)), rtol=1e-6)


def test_the_numbers_are_drawn_apart_from_each_other() -> None:
    kept = (dropout(torch.ones(1000, 1000), 0.5) > 0).double().flatten() - 0.5
    for lag in (1, 2, 3, 4, 5, 8, 1000, 4000):  # four of them come of one draw
        correlation = 4 * (kept[lag:] * kept[:-lag]).mean().item()
        assert abs(correlation) < 5e-3, lag  # five standard errors


def test_a_seed_decides_the_mask_and_each_call_draws_another() -> None:
    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    torch.manual_seed(3)
    first, second = (dropout(torch.ones(100), 0.5) for _ in range(2))
    assert not torch.equal(first, second)


def test_the_gradient_is_the_mask() -> None:
    x = torch.randn(20, 30, dtype=torch.float64, requires_grad=True)
    before = x.detach().clone()
    y = dropout(x, 0.4)
    y.sum().backward()
    assert torch.equal(x.detach(), before)
    assert x.grad is not None
    assert torch.equal(y.detach(), before * x.grad)
    assert set(x.grad.unique().tolist()) == {0.0, 1 / 0.6}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 2), (0, 4)])
def test_any_shape_and_precision_stays_as_it_is(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    found = dropout(torch.ones(shape, dtype=dtype), 0.25)
    assert (found.shape, found.dtype) == (shape, dtype)


def test_it_takes_the_place_of_pytorchs_within_the_mode_alone() -> None:
    x, layer = torch.ones(64, 64), nn.Dropout(0.3)
    torch.manual_seed(0)
    own = layer(x)
    torch.manual_seed(0)
    with QuickDropout():
        quick, function = layer(x), functional.dropout(x, 0.3)
    torch.manual_seed(0)
    assert torch.equal(quick, dropout(x, 0.3))
    assert torch.equal(function, dropout(x, 0.3))
    torch.manual_seed(0)
    assert torch.equal(layer(x), own)
    assert not torch.equal(quick, own)


def test_what_drops_nothing_is_left_alone() -> None:
    x = torch.ones(64, 64)
    with QuickDropout():
        assert torch.equal(nn.Dropout(0.3).eval()(x), x)
        assert torch.equal(nn.Dropout(0.0)(x), x)
        assert torch.equal(nn.Dropout(1.0)(x), torch.zeros(64, 64))
        y = x.clone()
        functional.dropout(y, 0.3, inplace=True)
    assert 0 < (y == 0).double().mean() < 1


def test_a_classifier_drops_out_as_often_as_with_pytorchs() -> None:
    """The spread that dropout gives the logits is the same, by whichever the masks are drawn."""
    classifier = tiny_bert()
    batch = collate(classifier, encode(classifier, ["the film was truly lovely", "the story was boring"]))
    classifier.model.train()
    classifier.model.set_attn_implementation("eager")

    def spread() -> Tensor:
        with torch.no_grad():
            return torch.stack([classifier.model(**batch).logits for _ in range(400)]).std(0).mean()

    torch.manual_seed(0)
    with QuickDropout():
        quick = spread()
    assert quick.item() == pytest.approx(spread().item(), rel=0.1)
