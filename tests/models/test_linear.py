"""oneDNN's linear layers: the same numbers and gradients as PyTorch's own, whatever is given, and nothing else of a
model is touched."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from conftest import tiny_bert, tiny_texts
from torch import Tensor, nn

from mbtsad_core.config import RuntimeConfig
from mbtsad_core.models import classifier, linear
from mbtsad_core.models.classifier import Classifier, autocast, clone, collate, encode, place, predict, weights_hash
from mbtsad_core.models.linear import OneDNNLinear, set_products, suits

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this PyTorch is built without oneDNN"
)
TEXTS = tiny_texts(24)


@pytest.fixture(autouse=True)
def _every_product_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "SMALL", 0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(K: int, N: int, bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    """PyTorch's layer and oneDNN's with the same weights."""
    torch.manual_seed(0)
    plain, ours = (nn.Linear(K, N, bias=bias) for _ in range(2))
    ours.load_state_dict(plain.state_dict())
    set_products(ours, True)
    return plain, ours


def quick(seed: int = 0) -> Classifier:
    found = tiny_bert(seed=seed)
    set_products(found.model, True)
    return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "N"), [((7, 33), 5), ((3, 11, 48), 96), ((1, 1, 8), 1), ((2, 3, 4, 16), 8)])
def test_values_and_gradients_are_those_of_float64(shape: tuple[int, ...], N: int, bias: bool) -> None:
    plain, ours = pair(shape[-1], N, bias)
    exact = nn.Linear(shape[-1], N, bias=bias, dtype=torch.float64)
    exact.load_state_dict({k: v.double() for k, v in plain.state_dict().items()})
    x, g = drawn(*shape), drawn(*shape[:-1], N, seed=1)
    found = []
    for layer, dtype in ((ours, torch.float32), (exact, torch.float64)):
        given = x.to(dtype).requires_grad_()
        y = layer(given)
        found.append([y, *torch.autograd.grad(y, [given, *layer.parameters()], g.to(dtype))])
    assert type(found[0][0].grad_fn).__name__ == "_ProductBackward"
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a.double(), b, rtol=1e-5, atol=1e-5 * math.sqrt(shape[-1]))


@pytest.mark.parametrize(
    "view",
    [lambda x: x[:, 0], lambda x: x.transpose(0, 1), lambda x: x[::2, 1:]],
    ids=["first token", "turned", "cut out"],
)
def test_what_lies_scattered_in_memory_is_read_as_it_is_meant(view: object) -> None:
    plain, ours = pair(24, 10)
    x = view(drawn(6, 5, 24))  # type: ignore[operator]
    assert torch.allclose(ours(x), plain(x), atol=1e-5)


def test_gradients_of_gradients_are_the_same() -> None:
    plain, ours = pair(12, 6)
    found = []
    for layer in (plain, ours):
        x = drawn(4, 12).requires_grad_()
        (slope,) = torch.autograd.grad(layer(x).tanh().sum(), layer.weight, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [x, layer.weight]))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*found, strict=True))


def test_a_classifier_answers_the_same_and_learns_the_same_gradient() -> None:
    plain, ours = tiny_bert(), quick()
    assert torch.allclose(predict(ours, TEXTS), predict(plain, TEXTS), atol=1e-6)
    gradients = []
    for c in (plain, ours):
        c.model(**collate(c, encode(c, TEXTS)), labels=torch.tensor([t.label for t in TEXTS])).loss.backward()
        gradients.append([p.grad for p in c.model.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_bfloat16_goes_where_it_went() -> None:
    plain, ours = (dataclasses.replace(c, precision="bfloat16") for c in (tiny_bert(), quick()))
    batch = collate(plain, encode(plain, TEXTS))
    with torch.no_grad(), autocast(plain):
        assert torch.equal(plain.model(**batch).logits, ours.model(**batch).logits)


def test_what_is_small_no_float32_or_a_vector_is_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    w = drawn(8, 4)
    assert suits(drawn(3, 4), w)
    assert not suits(drawn(4), w)
    assert not suits(drawn(3, 4).double(), w.double())
    monkeypatch.setattr(linear, "SMALL", 3 * 4 * 8 + 1)
    assert not suits(drawn(3, 4), w)
    assert pair(4, 8)[1](drawn(4)).shape == (8,)


def test_weights_and_other_layers_stay_and_it_can_be_taken_back() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), Own(3, 3))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    set_products(model, True)
    assert [type(m) for m in model] == [OneDNNLinear, nn.LayerNorm, Own]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    set_products(model, False)
    assert [type(m) for m in model] == [nn.Linear, nn.LayerNorm, Own]


def test_a_clone_is_as_quick_and_hashes_the_same() -> None:
    ours = quick()
    assert weights_hash(clone(ours)) == weights_hash(tiny_bert())
    assert any(isinstance(m, OneDNNLinear) for m in clone(ours).model.modules())


@pytest.mark.parametrize("faster", [True, False])
def test_a_classifier_is_placed_with_what_is_faster_here(faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "onednn_is_faster", lambda: faster)
    placed = place(tiny_bert(), RuntimeConfig(device="cpu"))
    assert any(isinstance(m, OneDNNLinear) for m in placed.model.modules()) == faster


@pytest.mark.parametrize(
    ("name", "avx512", "faster"),
    [("AMD EPYC 9655", True, True), ("AMD EPYC 7763", False, False), ("Intel(R) Xeon(R) 8480", True, False)],
)
def test_the_maker_and_the_instructions_decide(
    name: str, avx512: bool, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name, "avx512_f": avx512}, raising=False)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert linear.onednn_is_faster() == faster
