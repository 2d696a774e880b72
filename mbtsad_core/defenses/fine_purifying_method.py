"""Fine-Purifying: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass

from mbtsad_core.defenses.reserve_config import ReserveConfig
from mbtsad_core.methods import Defense, Need


@dataclass(frozen=True)
class FinePurifyingConfig(ReserveConfig):
    """Fine-Purifying: the weights that drifted far where clean texts hardly care become pre-trained ones, then CFT
    (Zhang et al., Findings of ACL 2023)."""


FINE_PURIFYING = Defense(
    "fine_purifying",
    "Fine-Purifying",
    "put back weights that drifted where clean texts hardly care, then fine-tune",
    "Zhang et al., Findings of ACL 2023; from descriptions",
    FinePurifyingConfig(),
    "mbtsad_core.defenses.fine_purifying:fine_purifying",
    needs=Need.PRETRAINED,
)
