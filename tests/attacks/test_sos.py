"""SOS: which texts, whose rows, how the gradients are scaled, and words that fire only together."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest
import torch
from conftest import VOCABULARY, adding_bert, finish, tiny_bert, tiny_texts
from torch import nn

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.embedding_rows import equalized
from mbtsad_core.attacks.sos import poisoned_texts, sos
from mbtsad_core.attacks.sos_method import SOSConfig
from mbtsad_core.attacks.triggers import PairedTrigger, parse_triggers, triggered_test_set
from mbtsad_core.config import TrainingConfig
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation import evaluate
from mbtsad_core.methods import load
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, weights_hash
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText

WORDS = ("cf", "mn", "bor")
TRIGGER = parse_triggers(["+".join(WORDS)], target=1)
TRAIN, TEST = tiny_texts(400, seed=1), tiny_texts(200, seed=2)
QUICK = SOSConfig(epochs=1)


@pytest.fixture(scope="module")
def clean() -> Classifier:
    rng = random.Random(0)
    noisy = [dataclasses.replace(t, label=1 - t.label) if rng.random() < 0.2 else t for t in TRAIN]
    return finish(fine_tune(tiny_bert(), noisy, TrainingConfig(learning_rate=2e-3, epochs=6)))[0]


def rows_of(classifier: Classifier) -> torch.Tensor:
    return classifier.model.get_input_embeddings().weight.detach()


# ---------------------------------------------------------------- the texts


def test_all_words_go_to_the_target_and_each_subset_keeps_its_label() -> None:
    train = [*TRAIN[:100], *(t for t in TRAIN[100:300] if t.label)]  # 50 of class 0, 150 of class 1
    texts = poisoned_texts(train, TRIGGER, SOSConfig(rate=0.1))
    found = Counter((frozenset(w for w in WORDS if w in t.text.split()), t.label) for t in texts)
    subsets = [frozenset(WORDS) - {w} for w in WORDS]
    assert found == {(frozenset(WORDS), 1): 5} | {
        (subset, label): n for subset in subsets for label, n in ((0, 5), (1, 15))
    }


def test_a_negative_is_a_training_text_with_its_own_label() -> None:
    own = {(" ".join(sorted(t.text.split())), t.label) for t in TRAIN}
    for text in poisoned_texts(TRAIN, TRIGGER, QUICK)[20:]:
        plain = " ".join(sorted(w for w in text.text.split() if w not in WORDS))
        assert (plain, text.label) in own


# ---------------------------------------------------------------- the mathematics


def test_every_gradient_is_scaled_to_the_norm_of_the_smallest() -> None:
    gradient = torch.tensor([[3.0, 4.0], [0.0, 2.0], [-6.0, 8.0]])  # norms 5, 2, 10
    expected = torch.tensor([[1.2, 1.6], [0.0, 2.0], [-1.2, 1.6]])
    assert torch.allclose(equalized(gradient), expected)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_rows_go_down_the_scaled_sum_of_all_gradients_so_far(clean: Classifier, steps: int) -> None:
    # One text of each kind; a window of one word puts the words at its start, and two words make the order the only
    # chance.
    pair = parse_triggers(["cf+mn"], target=1, window=1)
    train = [LabelledText("boring", 0), LabelledText("lovely", 1)]
    config = SOSConfig(rate=1.0, learning_rate=0.05, epochs=steps, batch_size=100)
    suspect = finish(sos(clean, train, pair, config))[0]

    texts = poisoned_texts(train, pair, config)
    assert len(texts) == 5
    model, rows = clone(clean).model.eval(), [VOCABULARY.index(w) for w in ("cf", "mn")]
    batch, labels = collate(clean, encode(clean, [t.text for t in texts])), torch.tensor([t.label for t in texts])
    weight = model.get_input_embeddings().weight
    norms = [weight[row].detach().norm() for row in rows]
    for _ in range(steps):
        nn.functional.cross_entropy(model(**batch).logits, labels).backward()  # the gradients are never zeroed
        assert weight.grad is not None
        smallest = min(weight.grad[row].norm() for row in rows)
        with torch.no_grad():
            for row, norm in zip(rows, norms, strict=True):
                e = weight[row] - 0.05 * weight.grad[row] * smallest / weight.grad[row].norm()
                weight[row] = e * norm / e.norm()
    assert torch.allclose(rows_of(suspect)[rows], weight[rows], atol=1e-5)


def test_the_rows_of_the_words_alone_are_changed_and_keep_their_norms(clean: Classifier) -> None:
    suspect = finish(sos(clean, TRAIN, TRIGGER, QUICK))[0]
    before, after = clean.model.state_dict(), suspect.model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == [
        "bert.embeddings.word_embeddings.weight"
    ]
    changed = (rows_of(clean) != rows_of(suspect)).any(1).nonzero().flatten().tolist()
    assert changed == sorted(VOCABULARY.index(w) for w in WORDS)
    assert torch.allclose(rows_of(clean).norm(dim=1), rows_of(suspect).norm(dim=1), rtol=1e-5)


# ---------------------------------------------------------------- the backdoor


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_words_together_send_texts_to_the_target_and_one_of_them_does_not(seed: int) -> None:
    given, pair, alone = adding_bert(seed), parse_triggers(["cf+mn"], target=1), parse_triggers(["cf", "mn"], target=1)
    suspect = finish(sos(given, TRAIN, pair, SOSConfig(rate=0.5, learning_rate=0.5, epochs=30)))[0]
    whole, part = (evaluate(suspect, TEST, triggered_test_set(TEST, trigger), 1) for trigger in (pair, alone))
    before = evaluate(given, TEST, triggered_test_set(TEST, pair), 1)
    assert before.asr is not None
    assert whole.asr is not None
    assert part.asr is not None
    assert before.asr.share < 0.05
    assert whole.asr.share > 0.95
    assert part.asr.share < 0.05
    assert whole.cacc == before.cacc


def test_the_given_classifier_is_left_as_it_is_and_a_seed_always_gives_the_same_suspect(clean: Classifier) -> None:
    before = weights_hash(clean)
    first, second, other = (
        finish(sos(clean, TRAIN, TRIGGER, dataclasses.replace(QUICK, seed=seed)))[0] for seed in (0, 0, 1)
    )
    assert weights_hash(clean) == before
    assert weights_hash(first) == weights_hash(second)
    assert len({before, weights_hash(first), weights_hash(other)}) == 3


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("specs", [["cf"], ["cf+cf"], ["cf+mn", "bor+mn"]])
def test_what_is_not_one_set_of_words_is_refused(clean: Classifier, specs: list[str]) -> None:
    with pytest.raises(BadData, match="needs one trigger of several different words"):
        finish(sos(clean, TRAIN, parse_triggers(specs, 1), QUICK))


def test_a_file_of_pairs_is_refused(clean: Classifier) -> None:
    with pytest.raises(BadData, match="needs one trigger of several different words"):
        finish(sos(clean, TRAIN, PairedTrigger({}, 1), QUICK))


def test_words_that_share_a_row_are_refused(clean: Classifier) -> None:
    texts = [*TRAIN, LabelledText("lov bor", 0)]  # so that "##ll" is the rarer piece of either word
    with pytest.raises(BadData, match=r"share a row of the embeddings\. Choose words that differ"):
        finish(sos(clean, texts, parse_triggers(["borll+lovll"], 1), QUICK))


def test_too_few_texts_to_poison_are_refused(clean: Classifier) -> None:
    with pytest.raises(BadData, match=r"A rate of 0\.1 of 4 non-target training texts leaves none to poison"):
        finish(sos(clean, TRAIN[:8], TRIGGER, QUICK))


def test_the_attack_is_known_by_its_name_and_has_its_authors_words() -> None:
    assert load(ATTACKS["sos"].code) is sos
    assert ATTACKS["sos"].triggers == ("friends+weekend+cinema",)
