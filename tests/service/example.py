"""A purification of the tiny model that takes a few seconds, and how to wait for things that other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from conftest import tiny_bert, tiny_texts

from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig, SplitConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.models.classifier import load_classifier, save_classifier, weights_hash
from mbtsad_core.service.purification import Request, execute
from mbtsad_core.steps import drain
from mbtsad_core.types import LabelledText

T = TypeVar("T")


def write_texts(texts: list[LabelledText], path: Path) -> str:
    path.write_text("text\tlabel\n" + "".join(f"{t.text}\t{t.label}\n" for t in texts), encoding="utf-8")
    return str(path)


def tiny_request(folder: Path, epochs: int = 5) -> Request:
    """12 steps an epoch in either stage; a checkpoint every tenth of a second."""
    save_classifier(tiny_bert(), folder / "suspect")
    stage = {"epochs": epochs, "batch_size": 16, "observe_every": 5, "save_every": 0.1}
    return Request(
        suspect=str(folder / "suspect"),
        clean=write_texts(tiny_texts(96), folder / "clean.tsv"),
        test=write_texts(tiny_texts(40, seed=1), folder / "test.tsv"),
        triggers=("cf",),
        target="positive",
        config=PurifyConfig(
            split=SplitConfig(copies=2),
            retrain=RetrainConfig(**stage),
            distil=DistilConfig(**stage),
            max_length=32,
            seed=3,
            found_tokens=0,
        ),
        runtime=RuntimeConfig(device="cpu", threads=1),
    )


def weights(run: Path) -> str:
    """The hash of the purified model of a run."""
    return weights_hash(load_classifier(run / "model"))


def undisturbed(request: Request, folder: Path) -> str:
    """The hash of the purified model where nothing comes in between."""
    drain(execute(request, folder / "undisturbed"))
    return weights(folder / "undisturbed")


def until(condition: Callable[[], T], seconds: float = 120.0) -> T:
    """The first true value of the condition; fails after a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} seconds in vain")
