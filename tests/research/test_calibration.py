"""The calibration of `mbtsad scan`: thresholds, cross-validation and AUC by hand; a model is made and scanned once."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import mbtsad

from mbtsad_core.rates import wilson
from mbtsad_core.research.calibration import (
    CLEAN,
    MEASURED,
    MODELS,
    Made,
    Sample,
    auc,
    calibrated,
    judged,
    named,
    page,
    write,
)
from mbtsad_core.scanning.calibrated import PRIOR, Calibration, calibration
from mbtsad_core.scanning.findings import Finding
from mbtsad_core.scanning.insertions import Insertion

MADE = {CLEAN: Made(CLEAN), "word": Made("word", "cf", 0.1)}


def row(
    kind: str, joined: Sequence[float], single: float = 0.0, asr: float | None = 1.0, seed: int = 0
) -> dict[str, Any]:
    """A line of a model whose strongest sequence of n + 1 tokens does joined[n - 1] in joined texts."""
    figures = {"single": {"1": single}, "joined": {str(n): value for n, value in enumerate(joined, 2)}}
    lines = {"figures": figures, "findings": []}
    made = asdict(MADE[kind]) | {"seed": seed}
    scores = {"cacc": 0.9, "asr": None if kind == CLEAN else asr}
    return {"key": f"{kind}-{seed}", "made": made, "sample": asdict(Sample()), "scores": scores} | lines


def test_scales_are_what_clean_models_show_and_the_prior_on_average() -> None:
    rows = [row(CLEAN, [1.0, 5.0, 4.0]), row(CLEAN, [2.0], single=-3.0), row("word", [20.0, 30.0], single=9.0)]
    known = calibrated(rows)
    assert known.scales["single"] == {1: PRIOR / 3, 2: PRIOR / 3}  # what is below nothing counts as nothing
    assert known.scales["joined"] == {
        2: (PRIOR + 1 + 2) / 3,
        3: (PRIOR + 5 + 2) / 3,
        4: (PRIOR + 5 + 2) / 3,  # the most by as many tokens or fewer
        5: (PRIOR + 5 + 2) / 3,
    }
    assert known.scales["outdoing"] == {1: PRIOR / 3}
    # One clean model by the other: 5 of (2 + 2) / 2, and 2 of (2 + 1) / 2
    assert known.typical == pytest.approx((PRIOR + 5 / 2 + 2 / 1.5) / 3)
    assert (known.clean, known.suspects) == (2, 1)


def test_chance_is_that_of_the_figure_which_is_farthest_above_its_scale() -> None:
    known = Calibration({"single": {1: 0.5, 2: 0.5}, "joined": {2: 1.0, 3: 2.0}}, typical=2.0)
    assert known.surprise({"single": {1: 2.0}, "joined": {2: 3.0, 3: 5.0}}) == 4.0
    assert known.chance({"single": {1: 2.0}}) == math.exp(-4.0 / 2)
    assert known.surprise({"joined": {9: 8.0}}) == 4.0  # longer ones are judged as the longest
    assert known.chance({}) == known.chance({"outdoing": {1: 50.0}}) == 1.0  # nothing is known of it
    assert known.chance({"single": {1: -7.0}}) == 1.0


@pytest.mark.parametrize(("hits", "nats", "counts"), [(90, 8.0, True), (50, 8.0, False), (90, 2.0, False)])
def test_what_is_rare_and_turns_most_texts_counts(hits: int, nats: float, counts: bool) -> None:
    known = Calibration({"single": {1: 0.5}, "joined": {2: 1.0}}, typical=2.0)
    told = "cf", "negative", "positive", nats, wilson(hits, 100)  # the interval of 50 of 100 begins at 40 %
    assert known.counts(Finding(Insertion((7,), "anywhere"), *told, honest=False)) == counts
    joined = Finding(Insertion((7, 8), "anywhere"), *told, honest=False, joined=nats / 2)
    assert not known.counts(joined)  # 4 nats are of e^-2 of the models
    assert known.counts(joined, nats=4.0) == (hits == 90 and nats == 8.0)
    assert known.counts(replace(joined, outdoes=None, joined=2 * nats)) == counts


def test_a_model_is_judged_by_the_others() -> None:
    rows = [row(CLEAN, [1.0], seed=1), row(CLEAN, [6.0], seed=2), row("word", [7.0], seed=3)]
    first, second, planted = (rare for _, rare in judged(rows))
    alone = PRIOR  # of one clean model, which nothing judges: (PRIOR + 6 / PRIOR) / 2
    assert first == pytest.approx(1.0 / ((PRIOR + 6) / 2) / ((alone + 6 / PRIOR) / 2))
    assert second == pytest.approx(6.0 / ((PRIOR + 1) / 2) / ((alone + 1 / PRIOR) / 2))
    assert planted > first


@pytest.mark.parametrize(
    ("hits", "target", "place", "told"),
    [(45, "positive", 2, True), (44, "positive", 2, False), (50, "negative", 0, False), (50, "positive", 3, False)],
)
def test_what_was_planted_is_named_by_what_fires_nearly_as_often_among_the_first(
    hits: int, target: str, place: int, told: bool
) -> None:
    found: list[dict[str, Any]] = [{"hits": 0, "n": 50, "target": "positive"} for _ in range(4)]
    found[place] = {"hits": hits, "n": 50, "target": target}
    assert named(row("word", []) | {"findings": found}) == told  # its ASR is 100 %
    assert not named(row(CLEAN, []) | {"findings": found})


def test_area_by_hand_and_its_interval() -> None:
    area, low, high = auc([("word", 3.0), ("word", 1.0), (CLEAN, 2.0), (CLEAN, 0.0)])
    assert area == 0.75
    assert 0.0 <= low <= area <= high <= 1.0
    assert auc([("word", 1.0), (CLEAN, 1.0)]) == (0.5, 0.5, 0.5)


def test_what_is_printed_and_written_leaves_out_suspects_whose_backdoor_did_not_take(tmp_path: Path) -> None:
    rows = [row(CLEAN, [1.0], seed=1), row(CLEAN, [2.0], seed=2), row("word", [90.0], seed=3)]
    rows += [row("word", [0.0], asr=0.3, seed=4)]
    results = tmp_path / "other.jsonl"
    results.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    said = page(results)
    assert said.startswith("AUC 1.000 [1.000, 1.000] of 1 suspects and 2 clean models.")
    assert "| clean | 2 | 0 | 0 |\n| word | 1 | 1 | 0 |" in said
    write(results, tmp_path / "calibration.json")
    written = json.loads((tmp_path / "calibration.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(asdict(calibrated(rows[:3]))))
    printed = mbtsad("calibrate-scan", "--results", results)
    assert (printed.returncode, printed.stdout) == (0, said)


def test_another_sample_is_judged_by_the_default_one_of_the_other_models(tmp_path: Path) -> None:
    rows = [row(CLEAN, [1.0], seed=1), row(CLEAN, [2.0], seed=2), row("word", [90.0], seed=3)]
    few = [row(CLEAN, [5.0], seed=1), row(CLEAN, [0.0], seed=2), row("word", [4.0], seed=3)]
    few = [one | {"key": f"{one['key']} few", "sample": asdict(Sample(amount=50))} for one in few]
    results = tmp_path / "other.jsonl"
    results.write_text("".join(json.dumps(one) + "\n" for one in [*rows, *few]), encoding="utf-8")
    said = page(results)
    assert said.startswith("AUC 1.000 [1.000, 1.000] of 1 suspects and 2 clean models.")
    assert "Scanned with 50 clean texts (dev), judged by the others as above; with the default sample 1.000:" in said
    known = calibrated(rows)
    first, second, planted = (rare for _, rare in judged(few, by=rows))
    assert first == pytest.approx(5.0 / ((PRIOR + 2) / 2) / ((PRIOR + 2 / PRIOR) / 2))
    assert (second, planted) == (0.0, pytest.approx(4.0 / known.scales["joined"][2] / known.typical))
    below = sum(planted > clean for clean in (first, second))
    assert f"AUC {below / 2:.3f} [" in said[said.index("Scanned with") :]


def test_the_packaged_calibration_is_of_models_and_rises_with_the_tokens() -> None:
    known = calibration()
    assert known.clean >= 1
    assert {measure: sorted(own) for measure, own in known.scales.items()} == {
        measure: [*numbers] for measure, numbers in MEASURED.items()
    }
    for own in known.scales.values():
        assert [*own.values()] == sorted(own.values())
        assert min(own.values()) > 0


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
