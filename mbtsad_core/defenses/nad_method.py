"""NAD: its settings and its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mbtsad_core.config import setting
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.methods import Defense


@dataclass(frozen=True)
class NADConfig(PurifyConfig):
    """NAD (Li et al., ICLR 2021) carried over to text: MBTSAD's distillation from a teacher that was fine-tuned on the
    clean texts as they are."""

    found_tokens: int = setting(
        0,
        "tokens found by the trigger scan that are put into each of the student's texts; NAD has no scan",
        low=0,
        high=100,
        was="strays",
    )
    student_texts: Literal["split", "clean"] = setting(
        "split",
        "split: the student learns on MBTSAD's texts, so that the two differ in the teacher alone; clean: on the "
        "clean texts as they are, as in NAD",
        choices=("split", "clean"),
    )


NAD = Defense(
    "nad",
    "NAD",
    "MBTSAD's distillation from a teacher that never saw a token split",
    "Li et al., ICLR 2021, carried over to text",
    NADConfig(),
    "mbtsad_core.defenses.nad:nad",
)
