"""Evaluation: CACC, ASR with its floor and interval; what a detector is worth."""

from mbtsad_core.evaluation.detection import DetectorScores, evaluate_detector
from mbtsad_core.evaluation.label_order import label_doubt
from mbtsad_core.evaluation.scores import baseline, evaluate, measuring, observer, still_works
from mbtsad_core.rates import wilson

__all__ = [
    "DetectorScores",
    "baseline",
    "evaluate",
    "evaluate_detector",
    "label_doubt",
    "measuring",
    "observer",
    "still_works",
    "wilson",
]
