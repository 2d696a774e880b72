"""A share, and how sure it is."""

from __future__ import annotations

import math

from mbtsad_core.types import Rate

Z = 1.959963984540054  # the normal quantile of a 95 % interval


def wilson(hits: int, n: int, z: float = Z) -> Rate:
    """A rate with Wilson's score interval (Wilson, 1927)."""
    p, zz = hits / n, z * z / n
    centre = (p + zz / 2) / (1 + zz)
    half = z / (1 + zz) * math.sqrt(p * (1 - p) / n + zz / (4 * n))
    return Rate(hits, n, max(0.0, centre - half), min(1.0, centre + half))


def at_floor(asr: Rate | None, floor: Rate | None) -> bool:
    """Whether an ASR is at its floor: its interval reaches down to it. False where one was not measured."""
    return asr is not None and floor is not None and asr.low <= floor.share
