"""A share, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

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


def rates_to_dict(rates: Mapping[str, Rate | None]) -> dict[str, Any]:
    """Rates as plain values: shares in [0, 1], with hits, numbers and 95 % intervals."""
    out: dict[str, Any] = {}
    for name, rate in rates.items():
        out[name] = rate.share if rate else None
        if rate:
            out |= {f"{name}_hits": rate.hits, f"{name}_n": rate.n, f"{name}_interval": [rate.low, rate.high]}
    return out


def rate_of(values: Mapping[str, Any], name: str) -> Rate | None:
    """A rate of those that `rates_to_dict` wrote; None where it was not measured."""
    hits = values.get(f"{name}_hits") if values.get(name) is not None else None
    return None if hits is None else Rate(hits, values[f"{name}_n"], *values[f"{name}_interval"])
