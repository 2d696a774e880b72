"""Defenses: a suspect and a clean sample in, a purified classifier out; none is told the trigger."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mbtsad_core.defenses.clean_fine_tuning import clean_fine_tuning
from mbtsad_core.defenses.mbtsad import mbtsad_student
from mbtsad_core.defenses.token_split_fine_tuning import token_split_fine_tuning

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier
    from mbtsad_core.types import Steps

DEFENSES: dict[str, Callable[..., Steps[Classifier]]] = {"mbtsad": mbtsad_student, "ts_ft": token_split_fine_tuning, "cft": clean_fine_tuning}
"""(suspect, clean texts, config, pre-trained classifier or None) -> the purified classifier; the suspect is never modified."""

__all__ = ["DEFENSES", "clean_fine_tuning", "mbtsad_student", "token_split_fine_tuning"]
