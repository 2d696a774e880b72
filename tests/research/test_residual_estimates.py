"""How near estimates of a residual ASR come: correlation, error and table by hand; each cure is of its strength."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import finish, tiny_bert, tiny_texts

from mbtsad_core.augment.token_splitting import augment
from mbtsad_core.config import SplitConfig
from mbtsad_core.defenses.token_split_fine_tuning import TS_FT
from mbtsad_core.research.calibration import CLEAN
from mbtsad_core.research.cli import main
from mbtsad_core.research.residual import CURES, Cure, keys, line_of, page, purify, suspects


def row(key: str, asr: float, share: float | None) -> dict[str, Any]:
    estimate = None if share is None else {"share": share, "text": "cf"}
    cure = {"cure": {}} if " " in key else {}
    return {"key": key, "scores": {"asr": asr, "asr_floor": 0.1}, "estimate": estimate} | cure


def test_figures_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = suspects()
    own, another = list(keys(first)), list(keys(second))
    # Ranks 1, 2, 4, 3 of 1, 2, 3, 4: 1 - 6 * 2 / (4 * 15) = 0.8; off by 10, 0, -20 and 30 points
    figures = [(own[1], 0.1, 0.2), (own[2], 0.3, 0.3), (own[3], 0.9, 0.7), (another[1], 0.5, 0.8)]
    rows = [row(own[0], 1.0, 1.0), *(row(*one) for one in figures), row(another[2], 0.4, None)]
    results = tmp_path / "other.jsonl"
    results.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    said = page(results)
    assert said.startswith(
        "5 purified models, 4 with an estimate: rank correlation with the true ASR 0.80, mean error 15.0 points; the "
        "estimate is 5.0 points above on average."
    )
    assert "| 100 / 10, 100 | 10 / 10, 20 | 30 / 10, 30 | 90 / 10, 70 |  |" in said
    assert "|  | 50 / 10, 80 | 40 / 10, none |  |  |" in said
    assert line_of(rows[-1]).endswith("ASR 40.0% (floor 10.0%), estimated none")
    assert main(["residual", "--results", str(results)]) == 0
    assert capsys.readouterr().out == said


def test_too_few_have_no_figures(tmp_path: Path) -> None:
    assert page(tmp_path / "none.jsonl").startswith("0 purified models have an estimate")


def test_suspects_are_of_all_kinds_that_have_tokens_or_a_shape() -> None:
    found = suspects()
    assert len(found) * len(CURES) >= 30
    assert {made.kind for made in found} >= {"word", "words", "phrase", "sentence", "syntax"}
    assert CLEAN not in {made.kind for made in found}
    assert len({key for made in found for key in keys(made)}) == len(found) * (1 + len(CURES))


@pytest.mark.parametrize("cure", [cure for cure in CURES if cure.epochs], ids=lambda cure: cure.name)
def test_a_cure_trains_for_its_epochs(cure: Cure) -> None:
    (purified, events), suspect = finish(purify(tiny_bert(), cure, tiny_texts(32), seed=0)), tiny_bert()
    (steps,) = {event.total for event in events}
    batches = len(augment(tiny_texts(32), SplitConfig(), seed=0)) // 32 if cure.defense == TS_FT.key else 1
    assert steps == cure.epochs * batches
    changed = (purified.model.classifier.weight - suspect.model.classifier.weight).abs().max()
    assert 0 < float(changed.detach()) <= 1.01 * cure.learning_rate * steps  # what Adam moves at most
