"""Detectors: they flag or correct single texts at the time of use, and leave the classifier as it is; none is told the
trigger."""

from __future__ import annotations

from typing import Any

from mbtsad_core.detectors.onion_method import ONION
from mbtsad_core.detectors.rap_method import RAP
from mbtsad_core.detectors.span_method import SPAN
from mbtsad_core.detectors.strip_method import STRIP
from mbtsad_core.methods import Detector

DETECTORS: dict[str, Detector[Any]] = {method.key: method for method in (STRIP, RAP, ONION, SPAN)}
