"""Defenses: a suspect and a clean sample in, a purified classifier out; none is told the trigger."""

from __future__ import annotations

from typing import Any

from mbtsad_core.defenses.badacts_method import BADACTS
from mbtsad_core.defenses.beear_method import BEEAR
from mbtsad_core.defenses.clean_fine_tuning import CFT
from mbtsad_core.defenses.fine_pruning_method import FINE_PRUNING
from mbtsad_core.defenses.fst_method import FST
from mbtsad_core.defenses.ft_sam_method import FT_SAM
from mbtsad_core.defenses.mbtsad_method import CD, MBTSAD, NO_ATT, NO_HID
from mbtsad_core.defenses.nad_method import NAD
from mbtsad_core.defenses.pure_method import PURE
from mbtsad_core.defenses.reinitialization_method import REINITIALIZATION
from mbtsad_core.defenses.reserve_method import FINE_MIXING, FINE_PURIFYING
from mbtsad_core.defenses.seam import SEAM
from mbtsad_core.defenses.token_split_fine_tuning import TS_FT
from mbtsad_core.methods import Defense

DEFENSES: dict[str, Defense[Any]] = {
    method.key: method
    for method in (
        MBTSAD,
        TS_FT,
        CFT,
        REINITIALIZATION,
        FINE_PRUNING,
        PURE,
        NAD,
        BEEAR,
        FST,
        BADACTS,
        SEAM,
        FT_SAM,
        FINE_MIXING,
        FINE_PURIFYING,
        CD,
        NO_ATT,
        NO_HID,
    )
}
