"""MBTSAD as a defense among others, and its ablations (arXiv 2501.02754, Table IV): its distillation without one term
of eq. (1), or without both."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mbtsad_core.config import Config, DistilConfig, RetrainConfig, SplitConfig, UnlearnConfig, setting, text_length
from mbtsad_core.methods import Defense


@dataclass(frozen=True)
class PurifyConfig(Config):
    """MBTSAD, Algorithm 1."""

    split: SplitConfig = SplitConfig(copies=2, keep_originals=1)
    found_tokens: int = setting(
        1,
        "tokens found by the trigger scan that are put into each text, their embeddings reset; 0: no scan, the "
        "paper's method",
        low=0,
        high=100,
        was="strays",
    )
    retrain: RetrainConfig = RetrainConfig()
    distil: DistilConfig = DistilConfig()
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of splits, batches and dropout", low=0, high=2**32 - 1)
    unlearn: UnlearnConfig = UnlearnConfig()


RECIPES: dict[str, PurifyConfig] = {
    "default": PurifyConfig(),
    "scan": PurifyConfig(unlearn=UnlearnConfig(epochs=0)),
    "unlearn": PurifyConfig(unlearn=UnlearnConfig(always=True)),
    "paper": PurifyConfig(
        split=SplitConfig(),
        found_tokens=0,
        unlearn=UnlearnConfig(epochs=0),
        retrain=RetrainConfig(learning_rate=3e-4),
        distil=DistilConfig(learning_rate=3e-4),
    ),
}
"""The default: before token splitting and distillation a trigger scan, and where no token turns the suspect, a scan for
sequences of ordinary ones, which are unlearned. The same without sequences, and with them always. The paper's method,
tuned on the same development data (docs/recipe.md)."""

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
