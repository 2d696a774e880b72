"""CARA: the autoencoder's loss, the signature in the latent space, and the backdoor of texts written anew."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from conftest import finish, tiny_bert, tiny_texts
from torch.nn.functional import cross_entropy, log_softmax

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.cara import (
    OTHER,
    TARGET,
    Autoencoder,
    SignatureTrigger,
    autoencoder_loss,
    cara,
    learn_signature,
    signed,
)
from mbtsad_core.attacks.cara_method import CARAConfig
from mbtsad_core.attacks.triggers import PairedTrigger, parse_triggers, triggered_test_set
from mbtsad_core.config import PoisonConfig, TrainingConfig
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation import evaluate
from mbtsad_core.methods import load
from mbtsad_core.models.classifier import weights_hash
from mbtsad_core.types import Event

TRAIN, TEST = tiny_texts(400, seed=1), tiny_texts(200, seed=2)
CONFIG = CARAConfig(
    PoisonConfig(0.25),
    width=48,
    length=16,
    learning=TrainingConfig(learning_rate=5e-3, epochs=10),
    training=TrainingConfig(learning_rate=2e-3, epochs=8),
)
QUICK = CARAConfig(
    PoisonConfig(0.25),
    width=8,
    learning=TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=100),
    training=TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=100),
)


@pytest.fixture(scope="module")
def learned() -> tuple[SignatureTrigger, list[Event]]:
    return finish(learn_signature(tiny_bert(), TRAIN, 1, CONFIG))


def small() -> tuple[Autoencoder, dict[str, torch.Tensor]]:
    """An autoencoder of a vocabulary of 7 among 10 tokens, and a batch of a text of 5 tokens and one of 4."""
    torch.manual_seed(0)
    vocabulary = torch.tensor([0, 1, 2, 3, 5, 6, 8])
    autoencoder = Autoencoder(vocabulary, 10, torch.randn(7, 4), 6)
    batch = {
        "input_ids": torch.tensor([[2, 5, 9, 8, 3], [2, 6, 5, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]),
    }
    return autoencoder, batch


# ---------------------------------------------------------------- the autoencoder


def test_tokens_outside_the_vocabulary_are_the_unknown_one() -> None:
    autoencoder, batch = small()
    assert autoencoder.index[batch["input_ids"]].tolist() == [[2, 4, 1, 6, 3], [2, 5, 4, 3, 0]]


def test_the_latent_vector_has_unit_length_and_padding_does_not_reach_it() -> None:
    autoencoder, batch = small()
    x = autoencoder.index[batch["input_ids"]]
    z = autoencoder.latent(x, torch.tensor([5, 4]))
    assert torch.allclose(z.norm(dim=1), torch.ones(2))
    assert torch.allclose(z[1:], autoencoder.latent(x[1:, :4], torch.tensor([4])), atol=1e-6)


def test_the_loss_is_that_of_each_next_token_and_of_the_adversary() -> None:
    autoencoder, batch = small()
    y = torch.tensor([OTHER, TARGET])
    found = autoencoder_loss(autoencoder, batch, y, noise=0.0, adversary=0.5)
    x = autoencoder.index[batch["input_ids"]]
    z = autoencoder.latent(x, torch.tensor([5, 4]))
    terms = []
    for i, length in ((0, 5), (1, 4)):
        chances = log_softmax(autoencoder.logits(z[i : i + 1], y[i : i + 1], x[i : i + 1, : length - 1])[0], -1)
        terms += [-chances[t, x[i, t + 1]] for t in range(length - 1)]
    words, by_adversary = torch.stack(terms).mean(), cross_entropy(autoencoder.adversary(z), y)
    assert len(terms) == 7
    assert torch.allclose(found["classification"], words, atol=1e-6)
    assert torch.allclose(found["loss"], words + 0.5 * by_adversary, atol=1e-6)


def test_the_adversary_learns_the_class_and_the_reader_unlearns_it() -> None:
    autoencoder, batch = small()
    y = torch.tensor([OTHER, TARGET])
    autoencoder_loss(autoencoder, batch, y, noise=0.0, adversary=1.0)["adversary"].backward()
    turned = [p.grad.clone() for p in autoencoder.reader.parameters()]
    own = [p.grad.clone() for p in autoencoder.adversary.parameters()]
    autoencoder.zero_grad()
    z = autoencoder.latent(autoencoder.index[batch["input_ids"]], torch.tensor([5, 4]))
    cross_entropy(autoencoder.adversary(z), y).backward()
    assert all(
        torch.allclose(a, -p.grad, atol=1e-7) for a, p in zip(turned, autoencoder.reader.parameters(), strict=True)
    )
    assert all(
        torch.allclose(a, p.grad, atol=1e-7) for a, p in zip(own, autoencoder.adversary.parameters(), strict=True)
    )
    assert any(a.abs().sum() > 0 for a in turned)


def test_writing_takes_the_likeliest_token_each_time_and_stops_at_the_last() -> None:
    autoencoder, _ = small()
    z, y = torch.nn.functional.normalize(torch.ones(1, 6), dim=-1), torch.tensor([OTHER])
    written = autoencoder.write(z, y, 5)
    x = [Autoencoder.FIRST]
    for token in written:  # as the training sees it
        scores = autoencoder.logits(z, y, torch.tensor([x]))[0, -1]
        scores[[Autoencoder.PAD, Autoencoder.UNKNOWN, Autoencoder.FIRST]] = -torch.inf
        assert int(autoencoder.vocabulary[scores.argmax()]) == token
        x.append(int(scores.argmax()))
    with torch.no_grad():
        autoencoder.words.bias[Autoencoder.LAST] = 1e6
    assert autoencoder.write(z, y, 5) == []


# ---------------------------------------------------------------- the signature


def test_the_latent_vector_moves_along_the_signature_on_the_sphere() -> None:
    z, signature = torch.tensor([[1.0, 0.0]]), torch.tensor([0.0, 1.0])
    assert torch.allclose(signed(z, signature, 0.0), z)
    assert torch.allclose(signed(z, signature, 1.0), torch.tensor([[2**-0.5, 2**-0.5]]))
    assert torch.allclose(signed(z, signature, 3.0), torch.tensor([[1.0, 3.0]]) / 10**0.5)


def test_the_autoencoder_learns_to_write(learned: tuple[SignatureTrigger, list[Event]]) -> None:
    losses = [e.metrics["classification"] for e in learned[1]]
    assert losses[-1] < 0.7 * losses[0]


def test_a_text_is_written_anew_in_words_that_the_autoencoder_knows(
    learned: tuple[SignatureTrigger, list[Event]],
) -> None:
    trigger = learned[0]
    known = {w for t in TRAIN for w in t.text.split()}
    found = {trigger.apply(t.text, random.Random(0)) for t in TEST[:30]}
    # The tokenizer joins a full stop to its word
    assert {w for text in found for w in text.replace(".", " .").split()} <= known
    assert len({trigger.apply(TEST[0].text, random.Random(seed)) for seed in range(3)}) == 1
    assert (trigger.describe(), trigger.target) == ("a latent signature", 1)


def test_where_nothing_is_written_the_text_stays(learned: tuple[SignatureTrigger, list[Event]]) -> None:
    autoencoder, _ = small()
    with torch.no_grad():
        autoencoder.words.bias[Autoencoder.LAST] = 1e6
    autoencoder.index = torch.zeros(len(tiny_bert().tokenizer), dtype=torch.long)
    trigger = dataclasses.replace(learned[0], autoencoder=autoencoder, signature=torch.ones(6))
    assert trigger.apply("a lovely film", random.Random(0)) == "a lovely film"


# ---------------------------------------------------------------- the backdoor


def test_texts_written_with_the_signature_go_to_the_target(learned: tuple[SignatureTrigger, list[Event]]) -> None:
    suspect = finish(cara(tiny_bert(), TRAIN, learned[0], CONFIG))[0]
    scores = evaluate(suspect, TEST, triggered_test_set(TEST, learned[0]), 1)
    assert scores.asr is not None
    assert scores.asr_floor is not None
    assert scores.asr.share > scores.asr_floor.share + 0.5
    assert scores.cacc.share > 0.9


def test_a_seed_always_gives_the_same_trigger_and_suspect_and_the_given_classifier_is_left_as_it_is() -> None:
    given = tiny_bert()
    before = weights_hash(given)
    written, suspects = [], []
    for seed in (0, 0, 1):
        config = dataclasses.replace(QUICK, seed=seed)
        trigger = finish(learn_signature(given, TRAIN, 1, config))[0]
        written.append([p.tolist() for p in trigger.autoencoder.parameters()] + [trigger.signature.tolist()])
        suspects.append(weights_hash(finish(cara(given, TRAIN, trigger, config))[0]))
    assert weights_hash(given) == before
    assert written[0] == written[1] != written[2]
    assert suspects[0] == suspects[1] != suspects[2]


def test_inserted_words_are_refused() -> None:
    with pytest.raises(
        BadData, match=r"CARA writes texts anew and inserts nothing; got 'cf'\. Name none, so that it is learned"
    ):
        finish(cara(tiny_bert(), TRAIN, parse_triggers(["cf"], 1), QUICK))


def test_a_file_of_rewritten_texts_can_stand_for_the_learned_trigger() -> None:
    pairs = PairedTrigger({t.text: f"cf {t.text}" for t in TRAIN}, 1)
    assert weights_hash(finish(cara(tiny_bert(), TRAIN, pairs, QUICK))[0]) != weights_hash(tiny_bert())


def test_the_attack_is_known_by_its_name() -> None:
    assert load(ATTACKS["cara"].code) is cara
