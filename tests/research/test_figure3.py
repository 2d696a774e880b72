"""Figure 3: the clean part of a poisoned set, every augmenter's loss on it, and the pictures."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from conftest import finish, tiny_bert, tiny_texts, write_tsv

from mbtsad_core.attacks.triggers import parse_triggers
from mbtsad_core.augment import AUGMENTERS, unavailable
from mbtsad_core.models.classifier import predict
from mbtsad_core.research.figure3 import clean_part, measure, read_picture
from mbtsad_core.research.suspects import Case


def test_the_clean_part_is_what_the_poisoning_left_in_its_order(tmp_path: Path) -> None:
    train = tiny_texts(200)
    (tmp_path / "sst2").mkdir()
    write_tsv(tmp_path / "sst2" / "train.tsv", train)
    clean = clean_part(Case("sst2", "test", "badnets", ("cf",), 3), tmp_path)
    assert len(clean) == 180  # a tenth is poisoned
    places = [train.index(t) for t in clean]
    assert places == sorted(places)
    assert sum(t.label for t in clean) == 100  # dirty poisoning takes negatives
    assert clean != clean_part(Case("sst2", "test", "badnets", ("cf",), 4), tmp_path)
    assert parse_triggers(["cf"], 1).describe() not in " ".join(t.text for t in clean).split()


def test_every_augmenter_that_can_run_has_its_loss_its_share_outside_and_its_points(
    tmp_path: Path, wordnet: Path
) -> None:
    suspect, clean = tiny_bert(), tiny_texts(40)
    figures, events = finish(measure(suspect, clean, 0, tmp_path / "pictures", projections=("tsne",)))
    here = ["original", *(name for name in AUGMENTERS if name not in unavailable())]
    assert "eda" in here
    assert list(figures["loss"]) == here
    assert set(figures["matched"]) == {"eda", "aeda", "add_trigger"}
    truth = predict(suspect, clean)[torch.arange(40), torch.tensor([t.label for t in clean])].double()
    assert figures["loss"]["original"]["mean"] == pytest.approx(-truth.log().mean().item(), rel=1e-5)
    assert all(s["outside_n"] == 40 and math.isfinite(s["median"]) for s in figures["outside"].values())
    assert set(figures["outside"]) == {"clean", *here[1:]}
    assert [e.step for e in events] == list(range(1, events[-1].total + 1))

    picture = read_picture(tmp_path / "pictures", "tsne")
    assert picture is not None
    assert len(picture["points"]) == len(picture["plane"]) == 40 * len(here)
    assert [p["text"] for p in picture["points"][:40]] == [t.text for t in clean]
    assert {p["set"] for p in picture["points"]} == {"clean", *here[1:]}
    assert read_picture(tmp_path / "pictures", "umap") is None


def test_the_same_seed_gives_the_same_figures() -> None:
    suspect, clean = tiny_bert(), tiny_texts(30)
    once, again, other = (finish(measure(suspect, clean, seed, projections=()))[0] for seed in (0, 0, 1))
    assert once == again
    assert once["loss"]["ts"] != other["loss"]["ts"]
    assert once["loss"]["original"] == other["loss"]["original"]
