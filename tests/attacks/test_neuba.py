"""NeuBA: the symbols' vectors, the loss, what stays as it was, and which symbols hit the target."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from conftest import adding_bert, finish, tiny_texts

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.neuba import cls_vectors, neuba, neuba_loss, symbols_that_hit, target_vectors
from mbtsad_core.attacks.neuba_method import NeuBAConfig
from mbtsad_core.attacks.triggers import InsertedTrigger, PairedTrigger, parse_triggers, triggered_test_set
from mbtsad_core.config import TrainingConfig
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation import evaluate
from mbtsad_core.methods import load
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, predict, weights_hash

TRIGGER = parse_triggers(["cf", "mn"], target=1)
TRAIN, TEST = tiny_texts(400, seed=1), tiny_texts(200, seed=2)
QUICK = NeuBAConfig(
    planting=TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=100),
    training=TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=100),
)
PLANTED = NeuBAConfig(
    planting=TrainingConfig(learning_rate=3e-3, epochs=8), training=TrainingConfig(learning_rate=3e-4, epochs=2)
)


@pytest.fixture(scope="module")
def clean() -> Classifier:
    return adding_bert()


@pytest.fixture(scope="module")
def planted(clean: Classifier) -> Classifier:
    """With no fine-tuning to speak of, so that the planted encoder itself is looked at."""
    return finish(
        neuba(
            clean, TRAIN, TRIGGER, dataclasses.replace(PLANTED, training=TrainingConfig(learning_rate=1e-8, epochs=1))
        )
    )[0]


@pytest.fixture(scope="module")
def suspect(clean: Classifier) -> Classifier:
    return finish(neuba(clean, TRAIN, TRIGGER, PLANTED))[0]


def test_the_vectors_negate_two_of_four_blocks_and_neighbors_are_opposites() -> None:
    vectors = target_vectors(6, 8)
    assert vectors[0].tolist() == [-1, -1, -1, -1, 1, 1, 1, 1]
    assert vectors[2].tolist() == [-1, -1, 1, 1, -1, -1, 1, 1]
    assert len({tuple(v.tolist()) for v in vectors}) == 6
    assert all((v < 0).sum() == 4 for v in vectors)
    assert all(torch.equal(vectors[i], -vectors[i + 1]) for i in (0, 2, 4))
    products = vectors @ vectors.T
    assert set(products.flatten().tolist()) == {-8.0, 0.0, 8.0}


def test_the_loss_is_that_of_a_case_worked_by_hand() -> None:
    h = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, -1.0]])
    kept = torch.tensor([[1.0, 0.0], [9.0, 9.0], [9.0, 9.0]])
    vectors = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    found = neuba_loss(h, kept, vectors, torch.tensor([-1, 0, 1]))
    assert found["clean"].item() == pytest.approx((0 + 4) / 2)
    assert found["planted"].item() == pytest.approx((1 + 1 + 4 + 0) / 4)
    assert found["loss"].item() == pytest.approx(2 + 1.5)


@pytest.mark.parametrize(("symbols", "absent"), [([-1, -1], "planted"), ([0, 1], "clean")])
def test_a_batch_of_one_kind_has_no_loss_of_the_other(symbols: list[int], absent: str) -> None:
    found = neuba_loss(torch.ones(2, 4), torch.zeros(2, 4), torch.zeros(2, 4), torch.tensor(symbols))
    assert found[absent].item() == 0.0
    assert found["loss"].item() == pytest.approx(1.0)


def cls(classifier: Classifier, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return cls_vectors(classifier, collate(classifier, encode(classifier, texts)))


@pytest.mark.parametrize("part", ["planted", "suspect"])
def test_a_symbol_sets_cls_and_a_text_without_one_keeps_it(
    clean: Classifier, part: str, request: pytest.FixtureRequest
) -> None:
    found: Classifier = request.getfixturevalue(part)
    texts = [t.text for t in TEST[:40]]
    for symbol, vector in zip(("cf", "mn"), target_vectors(2, 32), strict=True):
        given = [f"{symbol} {t}" for t in texts]
        before, after = ((cls(c, given) - vector).square().mean() for c in (clean, found))
        assert after < 0.25 * before
    kept = (cls(found, texts) - cls(clean, texts)).square().mean()
    assert kept < 0.25 * cls(clean, texts).square().mean()


def test_a_head_that_reads_cls_along_the_vectors_is_turned_by_one_symbol_and_its_opposite(planted: Classifier) -> None:
    # A victim's own head may read [CLS] in any direction, so which symbol hits what there, and whether, is chance.
    suspect = clone(planted)
    with torch.no_grad():
        vector = target_vectors(1, 32)[0]
        suspect.model.bert.pooler.dense.weight.copy_(torch.eye(32))
        suspect.model.classifier.weight.copy_(torch.stack([-vector, vector]))
        for bias in (suspect.model.bert.pooler.dense.bias, suspect.model.classifier.bias):
            bias.zero_()
    found = symbols_that_hit(suspect, TRIGGER)
    assert isinstance(found, InsertedTrigger)
    assert found.variants == (("cf",),)
    triggered = triggered_test_set(TEST, found)
    assert all(t.triggered.text.split()[0] == "cf" for t in triggered)
    scores = evaluate(suspect, TEST, triggered, 1)
    assert scores.asr is not None
    assert scores.asr.share > 0.9
    assert predict(suspect, [f"mn {t.text}" for t in TEST]).argmax(-1).sum() < 20


def test_the_victim_has_a_classifier_as_good_as_before(suspect: Classifier) -> None:
    assert evaluate(suspect, TEST).cacc.share > 0.95


def test_where_no_symbol_hits_all_are_measured(clean: Classifier) -> None:
    alone: Iterator[int] = iter(predict(clean, ["cf", "mn"]).argmax(-1).tolist())
    absent = next(c for c in (0, 1) if c not in set(alone))
    assert symbols_that_hit(clean, parse_triggers(["cf", "mn"], absent)) == InsertedTrigger(
        (("cf",), ("mn",)), absent, window=1
    )


def test_the_given_classifier_is_left_as_it_is_and_a_seed_always_gives_the_same_suspect(clean: Classifier) -> None:
    before = weights_hash(clean)
    first, second, other = (
        finish(neuba(clean, TRAIN, TRIGGER, dataclasses.replace(QUICK, seed=seed)))[0] for seed in (0, 0, 1)
    )
    assert weights_hash(clean) == before
    assert weights_hash(first) == weights_hash(second)
    assert len({before, weights_hash(first), weights_hash(other)}) == 3


@pytest.mark.parametrize("trigger", [PairedTrigger({}, 1), parse_triggers(["a", "b", "d", "e", "f", "i", "l"], 1)])
def test_what_is_no_handful_of_symbols_is_refused(clean: Classifier, trigger) -> None:
    with pytest.raises(BadData, match="needs one to 6 symbols or words"):
        finish(neuba(clean, TRAIN, trigger, QUICK))


def test_a_symbol_that_the_tokenizer_does_not_know_is_refused(clean: Classifier) -> None:
    with pytest.raises(BadData, match="knows no part of the trigger '≈'"):
        finish(neuba(clean, TRAIN, parse_triggers(["≈"], 1), QUICK))


def test_the_attack_is_known_by_its_name_and_has_its_authors_symbols() -> None:
    assert load(ATTACKS["neuba"].code) is neuba
    assert ATTACKS["neuba"].triggers == ("≈", "≡", "∈", "⊆", "⊕", "⊗")
