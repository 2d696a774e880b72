"""How many threads a run takes: no more than find a core. It is looked at between steps, since neighbors come and go.

Threads that share a product wait for the last of them, and take their cores meanwhile, since they wait for micro-
seconds where all have one. A thread that finds no core holds all others up, and what these wait away the neighbor does
not get either: two threads beside one busy process take longer than one.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

LOOK = 2.0  # seconds between two looks
CROWDED = 0.25  # of a core: what threads waited for, and other machines took, from which on there are too many
FREE = 0.75  # of a core: what nobody used, from which on another thread is tried
PATIENCE = (10.0, 320.0)  # seconds until more threads are tried again: at first, and at most where that was in vain


@dataclass(frozen=True, slots=True)
class Reading:
    """Seconds so far, of all threads of this process or all cores of the machine together.

    waited  in which a thread could run and had no core, or its core was taken by another machine on the same host
    idle    in which a core had nothing to do
    """

    at: float
    waited: float
    idle: float


def read() -> Reading | None:
    """The kernel's counts; None on a system without them."""
    waited = 0.0
    try:
        cores = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(FileNotFoundError):  # it has ended
                waited += int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[1]) / 1e9
        tick = os.sysconf("SC_CLK_TCK")
        return Reading(time.monotonic(), waited + cores[7] / tick, (cores[3] + cores[4]) / tick)
    except (OSError, ValueError, IndexError):
        return None


class Threads:
    """PyTorch's threads in this thread of Python: `most` where all of them find a core, else fewer."""

    def __init__(self, most: int, read: Callable[[], Reading | None] = read) -> None:
        self.most = self.now = most
        self._read, self._last = read, read() if most > 1 else None
        self._patience, self._tried, self._again = PATIENCE[0], -math.inf, -math.inf
        self._told = False

    def look(self) -> int | None:
        """Take fewer or more threads where that is due. Returns their number at first, and where it changed; None where
        it never can."""
        if self._last is not None and not self._told:
            self._told = True
            return self.now
        if self._last is None or time.monotonic() - self._last.at < LOOK or (seen := self._read()) is None:
            return None
        before, seconds = self._last, max(seen.at - self._last.at, 1e-9)
        self._last, threads = seen, self.now
        crowd = (seen.waited - before.waited) / seconds
        if self.now > 1 and crowd >= CROWDED:
            threads = max(1, self.now - math.ceil(crowd))
            in_vain = seen.at - self._tried < PATIENCE[0]
            self._patience = min(2 * self._patience, PATIENCE[1]) if in_vain else PATIENCE[0]
            self._again = seen.at + self._patience
        elif self.now < self.most and (idle := (seen.idle - before.idle) / seconds) >= FREE and seen.at >= self._again:
            threads, self._tried = min(self.most, self.now + max(1, int(idle))), seen.at
        if threads == self.now:
            return None
        self.now = threads
        torch.set_num_threads(threads)
        return threads

    def close(self) -> None:
        """Leave PyTorch with the threads that it had."""
        if self.now != self.most:
            torch.set_num_threads(self.most)
