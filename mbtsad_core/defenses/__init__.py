"""Defenses: a suspect and a clean sample in, a purified classifier out; none is told the trigger."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mbtsad_core.defenses.ablations import cd, mbtsad_no_att, mbtsad_no_hid
from mbtsad_core.defenses.clean_fine_tuning import clean_fine_tuning
from mbtsad_core.defenses.fine_mixing import fine_mixing
from mbtsad_core.defenses.fine_pruning import fine_pruning
from mbtsad_core.defenses.fine_purifying import fine_purifying
from mbtsad_core.defenses.mbtsad import mbtsad_student
from mbtsad_core.defenses.nad import nad
from mbtsad_core.defenses.pure import pure
from mbtsad_core.defenses.reinitialization import reinitialization
from mbtsad_core.defenses.token_split_fine_tuning import token_split_fine_tuning

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier
    from mbtsad_core.types import Steps

DEFENSES: dict[str, Callable[..., Steps[Classifier]]] = {
    "mbtsad": mbtsad_student,
    "mbtsad_no_att": mbtsad_no_att,
    "mbtsad_no_hid": mbtsad_no_hid,
    "cd": cd,
    "ts_ft": token_split_fine_tuning,
    "cft": clean_fine_tuning,
    "reinitialization": reinitialization,
    "fine_pruning": fine_pruning,
    "fine_mixing": fine_mixing,
    "fine_purifying": fine_purifying,
    "nad": nad,
    "pure": pure,
}
"""(suspect, clean texts, config, pre-trained classifier or None) -> the purified classifier; the suspect is never
modified."""

NEED_PRETRAINED = ("fine_mixing", "fine_purifying")
"""Those that ask for the weights that the suspect was fine-tuned from; the others do not read them."""

__all__ = ["DEFENSES", "NEED_PRETRAINED", "clean_fine_tuning", "mbtsad_student", "token_split_fine_tuning"]
