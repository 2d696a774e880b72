"""Matplotlib, as the pictures of research take it: SVG of the same bytes every time."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from mbtsad_core.errors import BadConfig

STYLE: dict[Any, Any] = {"svg.hashsalt": "mbtsad", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def plotting() -> Any:
    """`matplotlib.pyplot`, set up. Raises BadConfig where it is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BadConfig(
            "The picture is drawn with matplotlib, which is not installed. Run: pip install 'mbtsad[plots]'."
        )
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= STYLE
    from matplotlib import pyplot

    return pyplot


def write(figure: Any, path: Path) -> None:
    """Save a figure, without a date, and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plotting().close(figure)
