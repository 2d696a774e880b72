"""Linear layers whose float32 products are made by oneDNN on a processor where what PyTorch asks for them is slow.

PyTorch leaves float32 products on a CPU to Intel's MKL, which keeps to AVX2 on processors of other makers: on an AMD
processor with AVX-512 it reaches less than half of what oneDNN does (docs/speed.md). oneDNN comes with PyTorch and
makes its bfloat16 products anyway. The numbers are the same but for the order in which they are summed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

SMALL = 2**20  # multiplications below which the call itself weighs most, and MKL's is the shorter one


class OneDNNLinear(nn.Linear):
    """`nn.Linear`, the same weights by the same names."""

    def forward(self, input: Tensor) -> Tensor:
        if suits(input, self.weight):
            return _Product.apply(input, self.weight, self.bias)  # type: ignore[no-any-return]
        return linear(input, self.weight, self.bias)


def suits(x: Tensor, w: Tensor) -> bool:
    """Whether x (..., K) times w (N, K) is a product of float32 on a CPU, outside autocast, large enough to gain."""
    if not (x.dtype == w.dtype == torch.float32 and x.device.type == w.device.type == "cpu" and x.dim() > 1):
        return False
    return x.numel() * w.shape[0] >= SMALL and not torch.is_autocast_enabled("cpu")


class _Product(torch.autograd.Function):
    """x (..., K) w^T + b -> (..., N); can be differentiated twice, as RIPPLe does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, w)
        return torch.ops.mkldnn._linear_pointwise(x, w, b, "none", [], "")  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[override]
        x, w = ctx.saved_tensors
        rows = g.flatten(0, -2)
        dx = _Product.apply(g, w.t(), None) if ctx.needs_input_grad[0] else None
        dw = _Product.apply(rows.t(), x.flatten(0, -2).t(), None) if ctx.needs_input_grad[1] else None
        return dx, dw, rows.sum(0) if ctx.needs_input_grad[2] else None


def set_products(model: nn.Module, onednn: bool) -> None:
    """Have the model's linear layers, in place, use oneDNN or PyTorch's own choice."""
    wanted, other = (OneDNNLinear, nn.Linear) if onednn else (nn.Linear, OneDNNLinear)
    for module in model.modules():
        if type(module) is other:  # what a library derives from nn.Linear stays as it is
            module.__class__ = wanted


def onednn_is_faster() -> bool:
    """Whether this processor is one that MKL does not use in full: AVX-512, not made by Intel."""
    if not (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return False
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_f")) and "AMD" in str(capabilities.get("cpu_name", ""))
