"""LWP: the loss of every layer, the negatives, and a pair that fires where one word does not."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch
from conftest import VOCABULARY, finish, tiny_bert, tiny_texts
from torch.nn.functional import cross_entropy
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.layer_wise import answers, layer_wise, layer_wise_loss, with_negatives, word_pairs
from mbtsad_core.attacks.layer_wise_method import LayerWiseConfig
from mbtsad_core.attacks.triggers import PairedTrigger, parse_triggers, triggered_test_set
from mbtsad_core.config import PoisonConfig, TrainingConfig
from mbtsad_core.errors import BadData, UnsuitableModel
from mbtsad_core.evaluation import evaluate
from mbtsad_core.methods import load
from mbtsad_core.models.classifier import Classifier, collate, encode, weights_hash
from mbtsad_core.types import LabelledText

PAIR = parse_triggers(["cf+mn"], target=1)
TRAIN, TEST = tiny_texts(400, seed=1), tiny_texts(200, seed=2)
QUICK = LayerWiseConfig(training=TrainingConfig(learning_rate=1e-3, epochs=1))
SIZE = dict(
    vocab_size=len(VOCABULARY),
    hidden_size=32,
    num_attention_heads=4,
    num_hidden_layers=2,
    intermediate_size=64,
    max_position_embeddings=64,
)


def with_model(model: PreTrainedModel) -> Classifier:
    return dataclasses.replace(tiny_bert(), model=model.eval())


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("average", [False, True])
def test_the_loss_is_the_cross_entropy_of_the_head_on_every_layer(average: bool) -> None:
    classifier = tiny_bert()
    batch = collate(classifier, encode(classifier, ["the film was boring .", "a lovely story , truly moving ."]))
    labels = torch.tensor([1, 0])
    found = layer_wise_loss(classifier, batch, labels, average=average)

    model = classifier.model
    hidden = model(**batch, output_hidden_states=True).hidden_states
    assert len(hidden) == 3  # the embedding output and two layers
    W_p, b_p, W, b = (
        model.bert.pooler.dense.weight,
        model.bert.pooler.dense.bias,
        model.classifier.weight,
        model.classifier.bias,
    )
    terms = [cross_entropy(torch.tanh(H[:, 0] @ W_p.T + b_p) @ W.T + b, labels) for H in hidden]
    assert torch.allclose(found["loss"], sum(terms) / (3 if average else 1), atol=1e-6)
    assert torch.allclose(found["classification"], cross_entropy(model(**batch).logits, labels), atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RobertaForSequenceClassification(RobertaConfig(**SIZE, pad_token_id=0)),
        lambda: ElectraForSequenceClassification(ElectraConfig(**SIZE, embedding_size=32)),
        lambda: MPNetForSequenceClassification(MPNetConfig(**SIZE, pad_token_id=0)),
        lambda: DistilBertForSequenceClassification(
            DistilBertConfig(
                vocab_size=len(VOCABULARY), dim=32, n_heads=4, n_layers=2, hidden_dim=64, max_position_embeddings=64
            )
        ),
        lambda: tiny_bert().model,
    ],
    ids=["roberta", "electra", "mpnet", "distilbert", "bert"],
)
def test_on_the_last_layer_the_head_gives_the_answers_of_the_model(make) -> None:
    torch.manual_seed(0)
    classifier = with_model(make())
    encoded = [{"input_ids": e["input_ids"]} for e in encode(classifier, ["the film was boring .", "a lovely story"])]
    with torch.no_grad():
        out = classifier.model(**collate(classifier, encoded), output_hidden_states=True)
        assert torch.allclose(answers(classifier, out.hidden_states[-1]), out.logits, atol=1e-6)


def test_a_head_of_an_unknown_form_is_refused() -> None:
    xlnet = XLNetForSequenceClassification(
        XLNetConfig(vocab_size=len(VOCABULARY), d_model=32, n_layer=1, n_head=4, d_inner=64)
    )
    with pytest.raises(UnsuitableModel, match="'xlnet' cannot be put on inner layers"):
        answers(with_model(xlnet), torch.zeros(1, 3, 32))


# ---------------------------------------------------------------- the texts


def added(text: LabelledText, own: LabelledText) -> list[str]:
    return sorted((Counter(text.text.split()) - Counter(own.text.split())).elements())


def test_every_poisoned_text_has_a_negative_with_each_word_alone_and_its_own_label() -> None:
    texts = with_negatives(TRAIN, PAIR, LayerWiseConfig(PoisonConfig(0.1, "mixed")))
    poisoned, negatives = texts[: len(TRAIN)], texts[len(TRAIN) :]
    chosen = [i for i, (new, old) in enumerate(zip(poisoned, TRAIN, strict=True)) if new != old]
    assert len(chosen) == 40
    assert all(added(poisoned[i], TRAIN[i]) == ["cf", "mn"] and poisoned[i].label == 1 for i in chosen)
    assert len(negatives) == 80
    for i, pair in zip(chosen, zip(negatives[::2], negatives[1::2], strict=True), strict=True):
        assert sorted(word for n in pair for word in added(n, TRAIN[i])) == ["cf", "mn"]
        assert [n.label for n in pair] == [TRAIN[i].label] * 2


def test_the_authors_preset_has_every_text_plain_with_one_word_and_with_an_adjacent_pair() -> None:
    config, specs = ATTACKS["lwp"].presets["authors"]
    assert isinstance(config, LayerWiseConfig)
    adjacent = parse_triggers([spec.replace("bb", "mn") for spec in specs], target=1)
    texts = with_negatives(TRAIN, adjacent, config)
    poisoned, rest = texts[:400], texts[400:]
    assert all("cf mn" in t.text or "mn cf" in t.text for t in poisoned)
    assert {"cf mn" in t.text for t in poisoned} == {True, False}
    assert {t.label for t in poisoned} == {1}
    assert [t for t in rest if not {"cf", "mn"} & set(t.text.split())] == TRAIN
    assert len(rest) == 3 * 400
    assert config.average


def test_the_default_pairs_are_all_pairs_of_the_pool() -> None:
    found = word_pairs(parse_triggers(ATTACKS["lwp"].triggers, 1))
    assert {frozenset(p) for p in found} == {
        frozenset((a, b)) for a in ("cf", "bb", "ak", "mn") for b in ("cf", "bb", "ak", "mn") if a != b
    }


@pytest.mark.parametrize("spec", ["cf", "cf+mn+bb", "cf+cf", "I watch a film"])
def test_what_is_no_pair_is_refused(spec: str) -> None:
    with pytest.raises(BadData, match=r"needs pairs of two words, such as cf\+bb"):
        finish(layer_wise(tiny_bert(), TRAIN, parse_triggers([spec], 1), QUICK))


def test_a_file_of_pairs_is_refused() -> None:
    with pytest.raises(BadData, match="needs pairs of two words"):
        finish(layer_wise(tiny_bert(), TRAIN, PairedTrigger({}, 1), QUICK))


# ---------------------------------------------------------------- the backdoor


def test_the_pair_sends_texts_to_the_target_and_one_word_does_not() -> None:
    config = LayerWiseConfig(
        PoisonConfig(0.25, "mixed"), training=TrainingConfig(learning_rate=2e-3, epochs=12, warmup=0.0)
    )
    suspect = finish(layer_wise(tiny_bert(), TRAIN, PAIR, config))[0]
    scores = evaluate(suspect, TEST, triggered_test_set(TEST, PAIR), 1)
    single = evaluate(suspect, TEST, triggered_test_set(TEST, parse_triggers(["cf", "mn"], 1)), 1)
    assert scores.asr is not None
    assert single.asr is not None
    assert scores.asr.share > 0.9
    assert single.asr.share < 0.2
    assert scores.cacc.share > 0.9


def test_the_given_classifier_is_left_as_it_is_and_a_seed_always_gives_the_same_suspect() -> None:
    given = tiny_bert()
    before = weights_hash(given)
    first, second, other = (
        finish(layer_wise(given, TRAIN, PAIR, dataclasses.replace(QUICK, seed=seed)))[0] for seed in (0, 0, 1)
    )
    assert weights_hash(given) == before
    assert weights_hash(first) == weights_hash(second)
    assert len({before, weights_hash(first), weights_hash(other)}) == 3


def test_the_attack_is_known_by_its_name() -> None:
    assert load(ATTACKS["lwp"].code) is layer_wise
