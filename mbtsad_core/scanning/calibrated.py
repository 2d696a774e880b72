"""How likely a model was poisoned in which a scan found something: by models that were planted on purpose, and models
that nobody planted (docs/scan.md)."""

from __future__ import annotations

from mbtsad_core.scanning.findings import Finding

NATS = 6.0


def probability_of(one: Finding) -> float | None:
    return None


def counts(one: Finding) -> bool:
    """Whether a finding counts as a trigger."""
    return one.nats >= NATS and one.flips.low > 0.5
