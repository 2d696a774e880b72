"""MBTSAD as a defense among others, and its ablations (arXiv 2501.02754, Table IV): its distillation without one term
of eq. (1), or without both."""

from __future__ import annotations

import dataclasses

from mbtsad_core.config import PurifyConfig
from mbtsad_core.methods import Defense

MBTSAD = Defense(
    "mbtsad",
    "MBTSAD",
    "retrain on token-split texts, then distill attention: what `mbtsad purify` runs",
    "arXiv 2501.02754",
    PurifyConfig(),
    "mbtsad_core.defenses.mbtsad:mbtsad_student",
)
NO_ATT = dataclasses.replace(
    MBTSAD,
    key="mbtsad_no_att",
    title="no-att",
    about="MBTSAD without the attention term: alpha is 0, whatever is set",
    source="arXiv 2501.02754, Table IV",
    fixed={("distil", "alpha"): 0.0},
)
NO_HID = dataclasses.replace(
    MBTSAD,
    key="mbtsad_no_hid",
    title="no-hid",
    about="MBTSAD without the hidden-state term: beta is 0, whatever is set",
    source="arXiv 2501.02754, Table IV",
    fixed={("distil", "beta"): 0.0},
)
CD = dataclasses.replace(
    MBTSAD,
    key="cd",
    title="CD",
    about="MBTSAD's two stages with the classification loss alone: alpha and beta are 0, whatever is set",
    source="arXiv 2501.02754, Table IV",
    fixed=NO_ATT.fixed | NO_HID.fixed,
)
