"""What is left of ASR after a cure, as it is estimated from clean texts alone. No planted trigger is known for it, and
nothing is proved by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mbtsad_core.config import ScanConfig
from mbtsad_core.data import stratified_subset
from mbtsad_core.scanning.findings import ScanReport
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.scanning.model_scan import scan
from mbtsad_core.types import Event, LabelledText, Steps

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier

ASKED = 600  # texts at most


def residual_asr(
    purified: Classifier, texts: Sequence[LabelledText], known: Sequence[Insertion], seed: int
) -> Steps[dict[str, Any]]:
    """A scan of a purified model on clean texts that it was not trained on, which is asked too what the triggers do
    that were found in the suspect: its verdict, what that rests on, and the estimate, None where there is nothing to
    estimate by."""
    some = stratified_subset(texts, ASKED, seed) if len(texts) > ASKED else texts
    steps = scan(purified, some, ScanConfig(seed=seed), known=known)
    try:
        while True:
            event = next(steps)
            yield Event("residual", event.step, event.total)
    except StopIteration as done:
        report: ScanReport = done.value
    return {"verdict": report.verdict, "reason": report.reason, "estimated_asr": estimate_dict(report)}


def estimate_dict(report: ScanReport) -> dict[str, Any] | None:
    """ASR as it is estimated from clean texts alone; None where nothing counts as a trigger or was known before."""
    one = report.estimated_asr
    if one is None:
        return None
    flips = one.flips
    figures = {"share": flips.share, "hits": flips.hits, "n": flips.n, "interval": [flips.low, flips.high]}
    about = {"text": one.text, "tokens": list(one.tokens), "place": one.place, "label": one.label, "target": one.target}
    return figures | about | {"residual": bool(report.known)}
