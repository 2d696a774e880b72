"""MBTSAD: cure backdoored transformer text classifiers with a small clean sample.

    from mbtsad_core import Classifier, PurifyConfig, load_classifier, purify, read_dataset

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbtsad_core.attacks import ATTACKS
    from mbtsad_core.attacks.badnets import badnets
    from mbtsad_core.attacks.embedding_poisoning import embedding_poisoning
    from mbtsad_core.attacks.triggers import parse_triggers, triggered_test_set
    from mbtsad_core.augment import AUGMENTERS
    from mbtsad_core.augment.token_splitting import split_tokens
    from mbtsad_core.config import RuntimeConfig, ScanConfig
    from mbtsad_core.data import read_dataset, stratified_split, stratified_subset
    from mbtsad_core.defenses import DEFENSES
    from mbtsad_core.defenses.mbtsad import Purified, purify
    from mbtsad_core.defenses.mbtsad_method import PurifyConfig
    from mbtsad_core.detectors import DETECTORS
    from mbtsad_core.errors import MBTSADError
    from mbtsad_core.evaluation import evaluate
    from mbtsad_core.models.classifier import Classifier, load_classifier, predict, save_classifier
    from mbtsad_core.scanning.findings import ScanReport
    from mbtsad_core.scanning.model_scan import scan
    from mbtsad_core.steps import drain
    from mbtsad_core.types import Event, LabelledText, Rate, Scores
    from mbtsad_core.vetting.judgment import vet

_HOMES = {
    "mbtsad_core.attacks": ("ATTACKS",),
    "mbtsad_core.augment": ("AUGMENTERS",),
    "mbtsad_core.defenses": ("DEFENSES",),
    "mbtsad_core.detectors": ("DETECTORS",),
    "mbtsad_core.vetting.judgment": ("vet",),
    "mbtsad_core.attacks.badnets": ("badnets",),
    "mbtsad_core.attacks.embedding_poisoning": ("embedding_poisoning",),
    "mbtsad_core.attacks.triggers": ("parse_triggers", "triggered_test_set"),
    "mbtsad_core.augment.token_splitting": ("split_tokens",),
    "mbtsad_core.config": ("RuntimeConfig", "ScanConfig"),
    "mbtsad_core.defenses.mbtsad_method": ("PurifyConfig",),
    "mbtsad_core.data": ("read_dataset", "stratified_split", "stratified_subset"),
    "mbtsad_core.defenses.mbtsad": ("Purified", "purify"),
    "mbtsad_core.errors": ("MBTSADError",),
    "mbtsad_core.evaluation": ("evaluate",),
    "mbtsad_core.models.classifier": ("Classifier", "load_classifier", "predict", "save_classifier"),
    "mbtsad_core.scanning.findings": ("ScanReport",),
    "mbtsad_core.scanning.model_scan": ("scan",),
    "mbtsad_core.steps": ("drain",),
    "mbtsad_core.types": ("Event", "LabelledText", "Rate", "Scores"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 (by topic)
    "Classifier", "load_classifier", "predict", "save_classifier",
    "LabelledText", "read_dataset", "stratified_split", "stratified_subset",
    "split_tokens",
    "purify", "Purified", "PurifyConfig", "RuntimeConfig", "Event", "drain",
    "badnets", "embedding_poisoning", "parse_triggers", "triggered_test_set",
    "evaluate", "Rate", "Scores", "vet", "scan", "ScanConfig", "ScanReport",
    "ATTACKS", "AUGMENTERS", "DEFENSES", "DETECTORS",
    "MBTSADError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mbtsad_core' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
