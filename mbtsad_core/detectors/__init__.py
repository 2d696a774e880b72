"""Detectors: they flag or correct single texts at the time of use, and leave the classifier as it is; none is told the
trigger."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mbtsad_core.detectors.detection import Detection
from mbtsad_core.detectors.onion import onion
from mbtsad_core.detectors.rap import rap
from mbtsad_core.detectors.strip import strip

if TYPE_CHECKING:
    from mbtsad_core.types import Steps

DETECTORS: dict[str, Callable[..., Steps[Detection]]] = {"strip": strip, "rap": rap, "onion": onion}
"""(classifier, clean labelled texts, texts, config) -> a Detection of the texts; thresholds come from the clean texts
alone."""

__all__ = ["DETECTORS", "Detection"]
