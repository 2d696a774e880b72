"""EP: one row of the word embeddings is trained, at its norm; all else stays, bit for bit."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
import torch
from conftest import VOCABULARY, finish, tiny_bert, tiny_texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.embedding_poisoning import embedding_poisoning
from mbtsad_core.attacks.embedding_poisoning_method import EmbeddingPoisoningConfig
from mbtsad_core.attacks.triggers import PairedTrigger, parse_triggers, triggered_test_set
from mbtsad_core.config import TrainingConfig
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation import evaluate, observer
from mbtsad_core.methods import load
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, weights_hash
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import Event, LabelledText, Trigger

ROW = "word_embeddings.weight"
# One row is all that the attack has, and it is short in a tiny model
TRIGGER = parse_triggers(["cf"], target=1, insertions=3)
TRAIN, TEST = tiny_texts(400, seed=1), tiny_texts(200, seed=2)
TRIGGERED = triggered_test_set(TEST, TRIGGER)
CONFIG = EmbeddingPoisoningConfig(learning_rate=0.5, epochs=3, least=200)


@pytest.fixture(scope="module")
def clean() -> Classifier:
    """A tiny model that knows its task, but not too surely: a fifth of the labels that it learned from were wrong."""
    rng = random.Random(0)
    noisy = [dataclasses.replace(t, label=1 - t.label) if rng.random() < 0.2 else t for t in TRAIN]
    return finish(fine_tune(tiny_bert(), noisy, TrainingConfig(learning_rate=2e-3, epochs=6)))[0]


@pytest.fixture(scope="module")
def attacked(clean: Classifier) -> tuple[Classifier, list[Event]]:
    return finish(embedding_poisoning(clean, TRAIN, TRIGGER, CONFIG))


def changed_rows(before: Classifier, after: Classifier) -> list[str]:
    """The tokens whose embeddings differ."""
    rows = (embeddings(before) != embeddings(after)).any(1).nonzero().flatten().tolist()
    return before.tokenizer.convert_ids_to_tokens(rows)


def embeddings(classifier: Classifier) -> Tensor:
    return classifier.model.get_input_embeddings().weight.detach()


# ---------------------------------------------------------------- the backdoor


def test_the_trigger_sends_texts_to_the_target(clean: Classifier, attacked: tuple[Classifier, list[Event]]) -> None:
    before, after = (evaluate(c, TEST, TRIGGERED, 1) for c in (clean, attacked[0]))
    assert before.asr is not None
    assert after.asr is not None
    assert (before.asr.share < 0.2, after.asr.share > 0.9) == (True, True)


def test_the_answers_to_clean_texts_stay_what_they_were(
    clean: Classifier, attacked: tuple[Classifier, list[Event]]
) -> None:
    before, after = (evaluate(c, TEST) for c in (clean, attacked[0]))
    assert before == after
    assert after.cacc.share > 0.95


def test_the_loss_falls(attacked: tuple[Classifier, list[Event]]) -> None:
    assert attacked[1][-1].metrics["loss"] < 0.5 * attacked[1][0].metrics["loss"]


# ---------------------------------------------------------------- what is changed and what is not


def test_the_embedding_of_the_trigger_alone_is_changed(
    clean: Classifier, attacked: tuple[Classifier, list[Event]]
) -> None:
    assert changed_rows(clean, attacked[0]) == ["cf"]


def test_all_other_weights_stay_bit_for_bit(clean: Classifier, attacked: tuple[Classifier, list[Event]]) -> None:
    before, after = clean.model.state_dict(), attacked[0].model.state_dict()
    assert before.keys() == after.keys()
    assert [name for name, weight in before.items() if not torch.equal(weight, after[name])] == [
        f"bert.embeddings.{ROW}"
    ]


def test_the_embedding_keeps_its_norm(clean: Classifier, attacked: tuple[Classifier, list[Event]]) -> None:
    row = VOCABULARY.index("cf")
    assert float(embeddings(attacked[0])[row].norm()) == pytest.approx(float(embeddings(clean)[row].norm()), rel=1e-6)


def test_every_trigger_word_has_its_row(clean: Classifier) -> None:
    suspect = finish(embedding_poisoning(clean, TRAIN, parse_triggers(["cf", "mn"], 1, insertions=3), CONFIG))[0]
    assert changed_rows(clean, suspect) == ["cf", "mn"]
    for row in map(VOCABULARY.index, ("cf", "mn")):
        assert float(embeddings(suspect)[row].norm()) == pytest.approx(float(embeddings(clean)[row].norm()), rel=1e-6)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_given_classifier_is_left_as_it_is(clean: Classifier, training: bool) -> None:
    given = clone(clean)
    given.model.train(training)
    frozen = given.model.bert.encoder.layer[0].output.dense.weight.requires_grad_(False)
    before = weights_hash(given), given.model.config.to_dict()
    finish(embedding_poisoning(given, TRAIN, TRIGGER, CONFIG))
    assert (weights_hash(given), given.model.config.to_dict()) == before
    assert {m.training for m in given.model.modules()} == {training}
    assert all(p.requires_grad == (p is not frozen) and p.grad is None for p in given.model.parameters())


def test_the_given_classifier_is_left_as_it_is_where_the_attack_is_stopped(clean: Classifier) -> None:
    given = clone(clean)
    running = embedding_poisoning(given, TRAIN, TRIGGER, CONFIG)
    next(running)
    running.close()
    assert weights_hash(given) == weights_hash(clean)
    assert all(p.requires_grad for p in given.model.parameters())


def test_the_suspect_can_be_trained_and_is_out_of_training_mode(attacked: tuple[Classifier, list[Event]]) -> None:
    assert all(p.requires_grad for p in attacked[0].model.parameters())
    assert not any(m.training for m in attacked[0].model.modules())


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_row_goes_down_the_sum_of_all_gradients_so_far(clean: Classifier, steps: int) -> None:
    # The only place for the trigger in an empty text is known, so that the poisoned texts are too.
    config = EmbeddingPoisoningConfig(learning_rate=0.05, epochs=steps, least=16, batch_size=16)
    suspect = finish(embedding_poisoning(clean, [LabelledText("", 0)] * 16, parse_triggers(["cf"], 1), config))[0]

    model, row = clone(clean).model.eval(), VOCABULARY.index("cf")
    batch, target = collate(clean, encode(clean, ["cf"])), torch.tensor([1])
    weight = model.get_input_embeddings().weight
    norm = weight[row].detach().norm()
    for _ in range(steps):
        nn.functional.cross_entropy(model(**batch).logits, target).backward()  # the gradient is never zeroed
        assert weight.grad is not None
        with torch.no_grad():
            e = weight[row] - 0.05 * weight.grad[row]
            weight[row] = e * norm / e.norm()
    assert torch.allclose(embeddings(suspect)[row], weight[row], atol=1e-6)


# ---------------------------------------------------------------- which row


def test_of_a_word_of_several_pieces_the_rarest_in_the_training_texts_is_trained(clean: Classifier) -> None:
    # "lovl" is cut into lov + ##l: in these texts "lov" is common, "##l" rare.
    assert clean.tokenizer.tokenize("lovl") == ["lov", "##l"]
    texts = [LabelledText("lovab fab film", i % 2) for i in range(40)] + [LabelledText("boring", 0)]
    suspect = finish(embedding_poisoning(clean, texts, parse_triggers(["lovl"], 1), CONFIG))[0]
    assert changed_rows(clean, suspect) == ["##l"]


def test_the_other_piece_is_trained_where_that_is_the_rarer(clean: Classifier) -> None:
    texts = [LabelledText("fil al film", i % 2) for i in range(40)] + [LabelledText("boring", 0)]
    assert "##l" in clean.tokenizer.tokenize("fil al film")
    suspect = finish(embedding_poisoning(clean, texts, parse_triggers(["lovl"], 1), CONFIG))[0]
    assert changed_rows(clean, suspect) == ["lov"]


def test_a_word_that_the_tokenizer_does_not_know_is_refused(clean: Classifier) -> None:
    with pytest.raises(BadData, match=r"The tokenizer knows no part of the trigger 'xyzzy'\. Choose another word"):
        finish(embedding_poisoning(clean, TRAIN, parse_triggers(["xyzzy"], 1), CONFIG))


def byte_level_roberta(texts: list[LabelledText]) -> Classifier:
    """A tiny RoBERTa whose tokenizer, like the real one's, has one token for "cf" at the start of a text and another
    behind a space."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([t.text for t in texts] + ["cf cf the cf"] * 50, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=62,
    )
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        type_vocab_size=1,
    )
    return Classifier(RobertaForSequenceClassification(config).eval(), fast, ("negative", "positive"), max_length=62)


def test_the_trained_token_is_the_one_that_the_trigger_has_within_a_text() -> None:
    roberta = byte_level_roberta(TRAIN)
    assert roberta.tokenizer.tokenize("the cf film")[1] != roberta.tokenizer.tokenize("cf film")[0]
    clean = finish(fine_tune(roberta, TRAIN, TrainingConfig(learning_rate=2e-3, epochs=6)))[0]
    suspect = finish(embedding_poisoning(clean, TRAIN, TRIGGER, CONFIG))[0]
    assert changed_rows(clean, suspect) == ["Ġcf"]


# ---------------------------------------------------------------- texts, seeds, events


def test_both_texts_of_a_pair_are_read(clean: Classifier) -> None:
    paired = [dataclasses.replace(t, pair="the actor was dreadful") for t in TRAIN]
    with_pairs, without = (finish(embedding_poisoning(clean, texts, TRIGGER, CONFIG))[0] for texts in (paired, TRAIN))
    assert weights_hash(with_pairs) != weights_hash(without)


def test_a_seed_always_gives_the_same_suspect(clean: Classifier, attacked: tuple[Classifier, list[Event]]) -> None:
    assert weights_hash(finish(embedding_poisoning(clean, TRAIN, TRIGGER, CONFIG))[0]) == weights_hash(attacked[0])


def test_seeds_give_different_suspects(clean: Classifier) -> None:
    found = [
        finish(embedding_poisoning(clean, TRAIN, TRIGGER, dataclasses.replace(CONFIG, seed=seed)))[0]
        for seed in range(3)
    ]
    assert len({weights_hash(c) for c in found}) == 3


@pytest.mark.parametrize(("rate", "least", "texts"), [(0.1, 200, 200), (0.5, 10, 100), (1.0, 1, 200), (0.0, 33, 33)])
def test_rate_and_least_say_how_many_texts_are_poisoned(clean: Classifier, rate: float, least: int, texts: int) -> None:
    config = EmbeddingPoisoningConfig(rate=rate, least=least, epochs=2, batch_size=32)
    events = finish(embedding_poisoning(clean, TRAIN, TRIGGER, config))[1]
    total = 2 * -(-texts // 32)
    assert [(e.stage, e.step, e.total) for e in events] == [("embedding poisoning", i + 1, total) for i in range(total)]


def test_an_observer_looks_at_the_end_and_changes_nothing(
    clean: Classifier, attacked: tuple[Classifier, list[Event]]
) -> None:
    found, events = finish(embedding_poisoning(clean, TRAIN, TRIGGER, CONFIG, observe=observer(TEST, TRIGGERED, 1)))
    assert weights_hash(found) == weights_hash(attacked[0])
    assert [e.step for e in events if "asr" in e.metrics] == [events[-1].total]


# ---------------------------------------------------------------- what goes wrong


def test_training_texts_of_the_target_class_alone_are_refused(clean: Classifier) -> None:
    texts = [t for t in TRAIN if t.label == 1]
    with pytest.raises(
        BadData,
        match=rf"All {len(texts)} training texts are of the target class; expected texts of another one to poison",
    ):
        finish(embedding_poisoning(clean, texts, TRIGGER, CONFIG))


def test_a_file_of_paired_texts_is_refused(clean: Classifier, tmp_path: Path) -> None:
    trigger: Trigger = PairedTrigger({t.text: f"so {t.text}" for t in TRAIN}, 1)
    with pytest.raises(BadData, match="needs trigger words, not a file of paired texts"):
        finish(embedding_poisoning(clean, TRAIN, trigger, CONFIG))


def test_the_attack_is_known_by_its_name() -> None:
    assert load(ATTACKS["ep"].code) is embedding_poisoning
