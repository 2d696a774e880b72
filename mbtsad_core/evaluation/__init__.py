"""Evaluation: CACC, ASR with its floor and interval."""

from mbtsad_core.evaluation.scores import baseline, evaluate, observer, wilson

__all__ = ["baseline", "evaluate", "observer", "wilson"]
