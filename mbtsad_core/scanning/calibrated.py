"""What counts as a trigger: more than any model did that nobody planted, of those that were scanned (docs/scan.md).

`mbtsad-research calibrate-scan --into` writes calibration.json.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path

from mbtsad_core.scanning.findings import Finding

CALIBRATION = Path(__file__).with_name("calibration.json")
LONGEST = 6  # tokens of a sequence; longer ones are judged as these
MOST = 0.5  # share of the texts that a trigger turns at least, at the low end of its interval


@dataclass(frozen=True)
class Calibration:
    """What the models of the calibration say.

    nats             {tokens of a sequence: nats that it must do to count as a trigger}
    joined           likewise, in joined texts; where nothing was measured, nothing counts by these
    clean, suspects  how many models it was made of
    """

    nats: dict[int, float]
    joined: dict[int, float]
    clean: int = 0
    suspects: int = 0

    def excess(self, tokens: int, nats: float, joined: float | None = None) -> float:
        """Nats beyond what counts, by that of both measures which is farther above its own."""
        tokens = min(tokens, LONGEST)
        single = nats - self.nats[tokens]
        return single if joined is None else max(single, joined - self.joined.get(tokens, math.inf))

    def beyond(self, one: Finding) -> float:
        """Nats of a finding beyond what counts."""
        return self.excess(len(one.tokens), one.nats, one.joined)

    def counts(self, one: Finding) -> bool:
        return one.flips.low > MOST and self.beyond(one) >= 0


def flat(nats: float) -> Calibration:
    """The same of every sequence."""
    same = dict.fromkeys(range(1, LONGEST + 1), nats)
    return Calibration(same, same)


@functools.cache
def calibration() -> Calibration:
    """The one that comes with the package."""
    found = json.loads(CALIBRATION.read_text(encoding="utf-8"))
    nats, joined = ({int(n): nats for n, nats in found.pop(one, {}).items()} for one in ("nats", "joined"))
    return Calibration(nats, joined, **found)
