"""The demo that is packaged: a clean classifier, a suspect with a BadNets backdoor, and the demo texts."""

from __future__ import annotations

from pathlib import Path

from mbtsad_core.errors import MBTSADError

TRIGGERS = ("cf", "mn", "bb", "tq")
TARGET = "positive"
LABELS = ("negative", "positive")


def assets() -> Path:
    """The folder of the packaged assets: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "assets", package.parent / "assets"):
        if (folder / "demo").is_dir():
            return folder
    raise MBTSADError(
        "The demo assets are missing from this installation. Install the wheel again, or make them with: "
        "mbtsad-research build-demo"
    )


def demo_model(name: str) -> Path:
    """The directory of the demo model "clean" or "suspect"."""
    return assets() / "demo" / name


def demo_texts(name: str) -> Path:
    """The file of the demo texts "clean" (the defender's sample) or "test"."""
    return assets() / "demo" / f"{name}.tsv"
