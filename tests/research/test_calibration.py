"""The calibration of `mbtsad scan`: thresholds, cross-validation and AUC by hand; a model is made and scanned once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from conftest import mbtsad

from mbtsad_core.research.calibration import CLEAN, MODELS, Made, Sample, auc, excess, judged, page, thresholds, write
from mbtsad_core.scanning.calibrated import Calibration, calibration, flat

MADE = {CLEAN: Made(CLEAN), "word": Made("word", "cf", 0.1)}


def row(kind: str, nats: Sequence[float], hits: int = 90, asr: float | None = 1.0, seed: int = 0) -> dict[str, Any]:
    """A line of a model whose strongest sequence of n tokens does nats[n - 1]."""
    by_length = [{"tokens": n, "nats": value, "hits": hits, "n": 100} for n, value in enumerate(nats, 1)]
    made = asdict(MADE[kind]) | {"seed": seed}
    scores = {"cacc": 0.9, "asr": None if kind == CLEAN else asr}
    key = f"{kind}-{seed}"
    lines = {"by_length": by_length, "joined": [{**one, "joined": one["nats"] / 2} for one in by_length[1:]]}
    return {"key": key, "made": made, "sample": asdict(Sample()), "scores": scores} | lines


def test_thresholds_lie_above_all_that_clean_models_did_with_as_few_tokens() -> None:
    rows = [row(CLEAN, [1.0, 5.0, 4.0]), row(CLEAN, [2.0, 3.0]), row("word", [20.0, 30.0])]
    assert thresholds(rows) == {1: 4.0, 2: 7.0, 3: 7.0, 4: 7.0, 5: 7.0, 6: 7.0}
    assert thresholds([{"made": {"kind": CLEAN}, "by_length": []}], "joined") == {}  # not asked
    assert thresholds(rows, "joined") == {1: 2.0, 2: 4.5, 3: 4.5, 4: 4.5, 5: 4.5, 6: 4.5}


def test_excess_is_that_of_the_best_sequence_that_turns_most_texts() -> None:
    known = Calibration({n: 3.0 * n for n in range(1, 7)}, dict.fromkeys(range(1, 7), 9.0))
    assert excess(row("word", [4.0, 5.0, 12.5]), known) == 3.5
    assert excess(row("word", [4.0, 5.0, 12.5], hits=50), known) == -99.0  # the interval of 50 of 100 begins at 40 %
    assert excess(row("word", [4.0, 5.0, 30.0]), Calibration(known.joined | {3: 99.0}, known.joined)) == 15.0 - 9.0


def test_a_clean_model_is_judged_by_the_others() -> None:
    rows = [row(CLEAN, [1.0], seed=1), row(CLEAN, [6.0], seed=2), row("word", [7.0], seed=3)]
    assert judged(rows) == [(CLEAN, 1.0 - 8.0), (CLEAN, 6.0 - 3.0), ("word", 7.0 - 8.0)]


def test_area_by_hand_and_its_interval() -> None:
    area, low, high = auc([("word", 3.0), ("word", 1.0), (CLEAN, 2.0), (CLEAN, 0.0)])
    assert area == 0.75
    assert 0.0 <= low <= area <= high <= 1.0
    assert auc([("word", 1.0), (CLEAN, 1.0)]) == (0.5, 0.5, 0.5)


def test_what_is_printed_and_written_leaves_out_suspects_whose_backdoor_did_not_take(tmp_path: Path) -> None:
    rows = [row(CLEAN, [1.0], seed=1), row(CLEAN, [2.0], seed=2), row("word", [9.0], seed=3)]
    rows += [row("word", [0.0], asr=0.3, seed=4)]
    results = tmp_path / "other.jsonl"
    results.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    assert (
        page(results).count("AUC 1.000 [1.000, 1.000] of 1 suspects and 2 clean models.") == 2
    )  # with joined texts too
    write(results, tmp_path / "calibration.json")
    written = json.loads((tmp_path / "calibration.json").read_text(encoding="utf-8"))
    nats, joined = ({str(n): value for n in range(1, 7)} for value in (4.0, 2.0))
    assert written == {"nats": nats, "joined": joined, "clean": 2, "suspects": 1}
    printed = mbtsad("calibrate-scan", "--results", results)
    assert (printed.returncode, printed.stdout) == (0, page(results))


def test_the_packaged_calibration_is_of_models_and_rises_with_the_tokens() -> None:
    known = calibration()
    assert known.clean >= 1
    assert sorted(known.nats) == [1, 2, 3, 4, 5, 6]
    assert list(known.nats.values()) == sorted(known.nats.values())
    assert flat(6.0).excess(9, 7.5) == 1.5


def test_models_have_names_of_their_own_and_the_first_are_of_all_kinds() -> None:
    assert len({made.name for made in MODELS}) == len(MODELS)
    kinds = {made.kind for made in MODELS}
    assert {made.kind for made in MODELS[:16]} == kinds
    assert sum(made.kind == CLEAN for made in MODELS) >= 15
    assert sum(made.kind != CLEAN for made in MODELS) >= 30


@pytest.mark.parametrize("made", [made for made in MODELS if made.kind not in (CLEAN, "syntax", "style")])
def test_what_is_planted_has_words(made: Made) -> None:
    assert made.words
    assert 0.005 <= made.rate <= 0.2
    assert 1 <= made.epochs <= 8
