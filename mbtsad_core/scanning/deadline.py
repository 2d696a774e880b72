"""The end of a scan that has so many seconds, looked at before each forward pass: it holds inside long steps."""

from __future__ import annotations

import math
import time
from typing import Any

from torch import nn


class OutOfTime(Exception):
    """What is being done has to end now; what was found so far stands."""


class Deadline:
    """Raises OutOfTime before a forward pass of a model once the seconds that were given are over.

    tokens, seconds  that the model has read, padding included, and how long that took
    """

    def __init__(self, model: nn.Module, began: float, budget: float | None) -> None:
        self.end = math.inf if budget is None else began + budget
        self.budget = math.inf if budget is None else budget
        self.until = self.end
        self.tokens, self.seconds, self._entered = 0, 0.0, 0.0
        model.register_forward_pre_hook(self._enter)
        model.register_forward_hook(self._leave, with_kwargs=True)

    def keep(self, seconds: float, share: float) -> None:
        """From here on so many seconds are kept for later, but no more than this share of all."""
        self.until = self.end - min(seconds, share * self.budget) if self.budget < math.inf else math.inf

    def look(self) -> None:
        if time.monotonic() > self.until:
            raise OutOfTime

    def takes(self, tokens: float) -> float:
        """Seconds to read so many tokens, by what it took so far."""
        return tokens * self.seconds / max(1, self.tokens)

    def _enter(self, *_: object) -> None:
        self.look()
        self._entered = time.monotonic()

    def _leave(self, module: nn.Module, args: object, given: dict[str, Any], found: object) -> None:
        self.tokens += given["attention_mask"].numel()
        self.seconds += time.monotonic() - self._entered
