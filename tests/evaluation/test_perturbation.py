"""Eq. (9) and token splits as the suspect reads them."""

from __future__ import annotations

import math
import random
import statistics

import pytest
import torch
from torch.nn.functional import cross_entropy

from mbtsad_core.augment.token_splitting import token_splitting
from mbtsad_core.config import SplitConfig
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation.perturbation import hardest, perturbations, split_rows
from mbtsad_core.models.classifier import Classifier, collate, encode, weights_hash
from mbtsad_core.types import LabelledText


def no_change(text: str, rng: random.Random) -> str:
    return text


def test_mean_and_error_agree_with_torch(tiny: Classifier, texts: list[LabelledText]) -> None:
    found = perturbations(tiny, texts[:20], {"same": no_change})
    with torch.no_grad():
        logits = tiny.model(**collate(tiny, encode(tiny, texts[:20]))).logits
    losses = cross_entropy(logits, torch.tensor([t.label for t in texts[:20]]), reduction="none")
    for name in ("original", "same"):
        assert found[name].loss == pytest.approx(losses.tolist(), abs=1e-5)
        assert found[name].mean == pytest.approx(float(losses.mean()), abs=1e-5)
        assert found[name].error == pytest.approx(float(losses.std()) / math.sqrt(20), abs=1e-5)
        assert found[name].probability == pytest.approx([math.exp(-x) for x in losses.tolist()], abs=1e-5)


def test_more_draws_are_averaged_for_each_text_before_the_error(tiny: Classifier, texts: list[LabelledText]) -> None:
    found = perturbations(tiny, texts[:10], {"ts": token_splitting}, draws=3)["ts"]
    assert len(found.texts) == len(found.loss) == 30
    of_text = [statistics.mean(found.loss[i::10]) for i in range(10)]
    assert found.mean == pytest.approx(statistics.mean(of_text))
    assert found.error == pytest.approx(statistics.stdev(of_text) / math.sqrt(10))


def test_draws_depend_on_the_seed_and_the_name_alone(tiny: Classifier, texts: list[LabelledText]) -> None:
    alone = perturbations(tiny, texts[:6], {"ts": token_splitting}, seed=3)["ts"]
    beside = perturbations(tiny, texts[:6], {"same": no_change, "ts": token_splitting}, seed=3)["ts"]
    assert alone == beside
    assert perturbations(tiny, texts[:6], {"ts": token_splitting}, seed=4)["ts"].texts != alone.texts


def test_the_hardest_is_an_augmenter_never_the_original(tiny: Classifier, texts: list[LabelledText]) -> None:
    found = perturbations(tiny, texts[:6], {"ts": token_splitting, "same": no_change})
    assert list(found) == ["original", "ts", "same"]
    assert hardest(found) == max(("ts", "same"), key=lambda name: found[name].mean)


def test_both_parts_of_a_pair_are_changed(tiny: Classifier) -> None:
    found = perturbations(tiny, [LabelledText("a film", 0, "the plot")], {"up": lambda text, rng: text.upper()})
    assert found["up"].texts == (LabelledText("A FILM", 0, "THE PLOT"),)
    assert math.isnan(found["up"].error)


def test_no_texts_are_refused(tiny: Classifier) -> None:
    with pytest.raises(BadData, match="at least one"):
        perturbations(tiny, [], {})


def test_split_rows_show_what_the_suspect_reads(tiny: Classifier, texts: list[LabelledText]) -> None:
    before = weights_hash(tiny)
    row, *others = split_rows(tiny, [LabelledText("a lovely film .", 1), *texts[:3]], SplitConfig(min_char=4))
    assert len(others) == 3
    assert row.label == "positive"
    assert row.original.parts[0].text == "a lovely film ." == row.split.parts[0].original
    assert row.original.parts[0].cuts == ()
    assert row.split.parts[0].cuts
    assert row.original.pieces == ("a", "lovely", "film", ".")
    kept = [p for i, p in enumerate(row.split.pieces) if i not in row.split.changed]
    assert kept == [p for i, p in enumerate(row.original.pieces) if i not in row.original.changed]
    assert row.original.loss == pytest.approx(-math.log(row.original.probability))
    assert row.original.answer in tiny.labels
    assert weights_hash(tiny) == before


def test_a_row_does_not_depend_on_its_company(tiny: Classifier, texts: list[LabelledText]) -> None:
    alone, together = split_rows(tiny, texts[:1])[0], split_rows(tiny, texts[:9])[0]
    assert alone.split.parts == together.split.parts
    assert alone.split.probability == pytest.approx(together.split.probability, abs=1e-6)


def test_rows_of_pairs_split_both_parts(tiny: Classifier) -> None:
    (row,) = split_rows(tiny, [LabelledText("a brilliant story", 1, "the dreadful music")])
    assert [part.original for part in row.split.parts] == ["a brilliant story", "the dreadful music"]
    assert row.original.pieces == ("a", "brilliant", "story", "the", "dreadful", "music")


def test_no_texts_make_no_rows(tiny: Classifier) -> None:
    assert split_rows(tiny, []) == []
