"""Evaluation: CACC, ASR with its floor and interval."""

from mbtsad_core.evaluation.scores import evaluate, observer, wilson

__all__ = ["evaluate", "observer", "wilson"]
