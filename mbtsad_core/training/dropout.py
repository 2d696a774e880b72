"""Dropout whose masks are drawn quickly on a CPU.

PyTorch draws them there one number at a time, by one core, with 32 random bits for each. 16 bits are enough to tell
whether a number is kept, and NumPy's SFC64 makes four such draws of one of its own: a mask takes a quarter of the time
(docs/speed.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mbtsad_core.models.classifier import Classifier

DRAWS = 2**16  # p is met to within half of one of so many parts


def dropout(x: Tensor, p: float) -> Tensor:
    """Each number is set to 0 with probability p, in [0, 1), else divided by 1 - p (Srivastava et al., JMLR 2014).

    The mask is decided by PyTorch's random state, which moves on, as with PyTorch's own; it is another mask than that.
    """
    bits = np.random.SFC64(int(torch.randint(2**62, ()))).random_raw(-(-x.numel() // 4)).view(np.int16)
    keep = torch.from_numpy(bits)[: x.numel()].view(x.shape) >= round(p * DRAWS) - DRAWS // 2
    return x * keep.to(x.dtype).mul_(1 / (1 - p))


class QuickDropout(TorchFunctionMode):
    """Within it, and in this thread, PyTorch's dropout of a tensor on the CPU is `dropout`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.dropout:
            return self.replacement(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    @staticmethod
    def replacement(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if input.device.type == "cpu" and training and 0 < p < 1 and not inplace:
            return dropout(input, p)
        return functional.dropout(input, p, training, inplace)


def quick_dropout(classifier: Classifier) -> contextlib.AbstractContextManager[Any]:
    """`QuickDropout` where the classifier is on a CPU; a GPU draws its masks quickly by itself."""
    return QuickDropout() if classifier.device.type == "cpu" else contextlib.nullcontext()
