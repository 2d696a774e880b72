"""The ablations of MBTSAD (arXiv 2501.02754, Table IV): its distillation without one term of eq. (1), or without
both."""

from __future__ import annotations

from collections.abc import Sequence

from mbtsad_core.config import PurifyConfig, replace
from mbtsad_core.defenses.mbtsad import mbtsad_student
from mbtsad_core.models.classifier import Classifier
from mbtsad_core.types import LabelledText, Observe, Steps


def mbtsad_no_att(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: PurifyConfig = PurifyConfig(),
    pretrained: Classifier | None = None,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """MBTSAD without attention transfer: alpha is 0, whatever `config` says. `pretrained` is not needed."""
    return (yield from mbtsad_student(suspect, clean, replace(config, {("distil", "alpha"): 0.0}), observe=observe))


def mbtsad_no_hid(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: PurifyConfig = PurifyConfig(),
    pretrained: Classifier | None = None,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """MBTSAD without the hidden-state loss: beta is 0, whatever `config` says. `pretrained` is not needed."""
    return (yield from mbtsad_student(suspect, clean, replace(config, {("distil", "beta"): 0.0}), observe=observe))


def cd(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: PurifyConfig = PurifyConfig(),
    pretrained: Classifier | None = None,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """CD: the classification loss alone, from the same start and on the same texts; alpha and beta are 0. `pretrained`
    is not needed."""
    return (
        yield from mbtsad_student(
            suspect, clean, replace(config, {("distil", "alpha"): 0.0, ("distil", "beta"): 0.0}), observe=observe
        )
    )
