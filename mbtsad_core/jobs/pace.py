"""How long a purification will take, told from a few forward passes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mbtsad_core.augment.stray_pieces import INVERSION_STEPS, KEPT, LIKELIEST, NEAR, NEXT, PROBES, STARTS
from mbtsad_core.config import PurifyConfig
from mbtsad_core.models.classifier import Classifier, autocast, predict
from mbtsad_core.models.pieces import vocabulary
from mbtsad_core.types import LabelledText

TRIED = 48  # texts that the pace is measured on
# Forward passes, in the precision of the training, that a text costs in a step; and what the texts that word pieces are tried in cost beside the mean text.
# Judged by runs of the demo on two cores, measurements in between included, and of `mbtsad benchmark --scaling`.
RETRAIN_COST, DISTIL_COST, INVERSION_COST = 3.5, 3.5, 2.5
SHORT, LONGER = 0.45, 1.0


def seconds_a_text(classifier: Classifier, texts: Sequence[LabelledText]) -> float:
    """Seconds of a forward pass on this machine, a text, in the precision of the training; measured on the first TRIED."""
    some = texts[:TRIED]
    with autocast(classifier):
        predict(classifier, some[:4])  # warm
        started = time.perf_counter()
        predict(classifier, some)
    return (time.perf_counter() - started) / max(1, len(some))


def estimate(n: int, config: PurifyConfig, seconds_a_text: float, classifier: Classifier) -> float:
    """Seconds of a purification with n clean texts, from the seconds that a forward pass takes a text."""
    passes = n * config.split.texts * (config.retrain.epochs * RETRAIN_COST + config.distil.epochs * DISTIL_COST)
    if config.strays:  # for each class: a short text a word piece, then three and sixteen longer ones for ever fewer pieces; and the search for pairs
        search = len(vocabulary(classifier)) * (SHORT + LONGER * (3 * KEPT[0] + PROBES * KEPT[0] * KEPT[1]))
        inverted = PROBES * INVERSION_STEPS * INVERSION_COST
        tried = 2 * (STARTS * NEAR + PROBES * NEXT) + PROBES * STARTS * LIKELIEST * (LIKELIEST + 2)
        passes += len(classifier.labels) * (search + LONGER * (inverted + tried))
    return passes * seconds_a_text
