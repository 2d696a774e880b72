"""Runs that last: from sources to results, with checkpoints on disk."""
