"""Classifiers: what is saved is what is loaded, padding and company never change an answer, and what cannot be treated
is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import VOCABULARY, tiny_bert, tiny_texts
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel

from mbtsad_core.config import RuntimeConfig
from mbtsad_core.errors import BadConfig, UnsafeModel, UnsuitableModel
from mbtsad_core.models.classifier import (
    Classifier,
    check_suitable,
    clone,
    collate,
    eager_attention,
    encode,
    load_classifier,
    place,
    predict,
    quicker_attention,
    save_classifier,
    trace,
    weights_hash,
)
from mbtsad_core.types import LabelledText

TEXTS = [
    "the lovely film",
    "a",
    "",
    "very funny , truly charming music and a brilliant story .",
    "boring",
    "the the the the the",
    "dreadful plot .",
]
SIZES = dict(
    vocab_size=len(VOCABULARY),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=64,
)
SUITABLE: dict[str, dict[str, Any]] = {
    "Bert": {},
    "DistilBert": dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64),
    "Roberta": dict(pad_token_id=1),
    "XLMRoberta": dict(pad_token_id=1),
    "Electra": dict(embedding_size=32),
    "MPNet": dict(pad_token_id=1),
    "Albert": dict(embedding_size=32),
    "DebertaV2": {},
}


def built(architecture: str, **settings: Any) -> Classifier:
    """An untrained two-layer model of an architecture, with weights large enough for answers to differ."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(
        **SIZES | dict(initializer_range=0.3) | SUITABLE.get(architecture, {}) | settings
    )
    model = getattr(transformers, f"{architecture}ForSequenceClassification")(config).eval()
    return dataclasses.replace(tiny_bert(), model=model, max_length=60)


@pytest.fixture
def lively() -> Classifier:
    """A tiny BERT whose answers differ from text to text."""
    return built("Bert")


def change_config(directory: Path, **changes: Any) -> None:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


# ---------------------------------------------------------------- save and load


@pytest.mark.parametrize("architecture", SUITABLE)
def test_a_saved_model_gives_the_same_answers_when_it_is_loaded(architecture: str, tmp_path: Path) -> None:
    classifier = built(architecture)
    save_classifier(classifier, tmp_path / "model")
    loaded = load_classifier(tmp_path / "model", max_length=60)
    assert type(loaded.model) is type(classifier.model)
    assert torch.equal(predict(loaded, TEXTS), predict(classifier, TEXTS))


def test_all_that_makes_a_classifier_comes_back(tiny: Classifier, tmp_path: Path) -> None:
    save_classifier(tiny, tmp_path)
    loaded = load_classifier(tmp_path, max_length=40)
    assert (weights_hash(loaded), loaded.labels, loaded.max_length, loaded.precision) == (
        weights_hash(tiny),
        ("negative", "positive"),
        40,
        "float32",
    )
    assert loaded.tokenizer.get_vocab() == tiny.tokenizer.get_vocab()
    assert not loaded.model.training


def test_a_loaded_model_says_where_it_came_from_and_what_was_read(saved_tiny: Path) -> None:
    (saved_tiny / "README.md").write_text("Not read.")
    origin = load_classifier(saved_tiny).origin
    assert origin is not None
    names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    # By another's hand
    printed = subprocess.run(["sha256sum", *names], cwd=saved_tiny, capture_output=True, check=True).stdout
    assert (origin.source, origin.commit, origin.sha256) == (str(saved_tiny), None, hashlib.sha256(printed).hexdigest())
    assert origin.pinned == str(saved_tiny)
    (saved_tiny / "tokenizer_config.json").write_text((saved_tiny / "tokenizer_config.json").read_text() + "\n")
    changed = load_classifier(saved_tiny).origin
    assert changed is not None
    assert changed.sha256 != origin.sha256


def test_a_clone_keeps_where_it_came_from(saved_tiny: Path) -> None:
    loaded = load_classifier(saved_tiny)
    assert clone(loaded).origin == loaded.origin


def test_half_precision_gives_nearly_the_same_answers(lively: Classifier, tmp_path: Path) -> None:
    save_classifier(lively, tmp_path, precision="float16")
    loaded = load_classifier(tmp_path)
    assert next(loaded.model.parameters()).dtype == torch.float32
    assert torch.allclose(predict(loaded, TEXTS), predict(lively, TEXTS), atol=0.02)
    assert not torch.equal(predict(loaded, TEXTS), predict(lively, TEXTS))


def test_half_precision_takes_half_the_room(lively: Classifier, tmp_path: Path) -> None:
    for half in (False, True):
        save_classifier(lively, tmp_path / str(half), precision="float16" if half else None)
    whole, halved = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("False", "True"))
    assert halved < 0.6 * whole
    with safe_open(tmp_path / "True" / "model.safetensors", framework="pt") as stored:
        assert {stored.get_tensor(name).dtype for name in stored.keys()} == {torch.float16}  # noqa: SIM118 (no mapping)


def test_a_saved_directory_loads_with_transformers_alone(lively: Classifier, tmp_path: Path) -> None:
    save_classifier(dataclasses.replace(lively, labels=("bad", "good")), tmp_path)
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(tmp_path),
        AutoTokenizer.from_pretrained(tmp_path),
    )
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=60, return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(model(**batch).logits.softmax(-1), predict(lively, TEXTS), atol=1e-5)
    assert (model.config.id2label, model.config.label2id) == ({0: "bad", 1: "good"}, {"bad": 0, "good": 1})


def test_a_saved_directory_holds_no_pickle_and_no_code(saved_tiny: Path) -> None:
    assert {p.name for p in saved_tiny.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_saving_leaves_the_classifier_as_it_is(lively: Classifier, tmp_path: Path) -> None:
    before = weights_hash(lively), lively.model.config.to_dict()
    save_classifier(dataclasses.replace(lively, labels=("bad", "good")), tmp_path, precision="float16")
    assert (weights_hash(lively), lively.model.config.to_dict()) == before


def test_label_names_are_those_of_the_config_in_the_order_of_the_classes(saved_tiny: Path) -> None:
    change_config(saved_tiny, id2label={"1": "b", "0": "a"}, label2id={"b": 1, "a": 0})
    assert load_classifier(saved_tiny).labels == ("a", "b")


def test_as_many_labels_are_read_as_the_model_has_classes(tmp_path: Path) -> None:
    save_classifier(tiny_bert(classes=4), tmp_path)
    assert load_classifier(tmp_path).labels == ("class 0", "class 1", "class 2", "class 3")


def test_loading_says_nothing(saved_tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_classifier(saved_tiny)
    assert capfd.readouterr() == ("", "")


def test_loading_leaves_the_librarys_logging_as_it_was(saved_tiny: Path) -> None:
    log = transformers.utils.logging
    before = log.get_verbosity(), log.is_progress_bar_enabled()
    load_classifier(saved_tiny)
    assert (log.get_verbosity(), log.is_progress_bar_enabled()) == before


def test_a_description_names_architecture_size_and_classes(tiny: Classifier) -> None:
    assert tiny.describe() == "BERT 2x32, 0.0 M parameters, 2 classes"


# ---------------------------------------------------------------- what does not load


@pytest.mark.parametrize("keep", [0.5, 0.99, 0.0])
def test_truncated_weights_are_refused(saved_tiny: Path, keep: float) -> None:
    path = saved_tiny / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(
        UnsafeModel, match=r"Refused: model\.safetensors (does not hold safetensors, or was cut off|is cut off)"
    ):
        load_classifier(saved_tiny)


def test_an_encoder_without_a_classifier_on_top_is_refused(saved_tiny: Path) -> None:
    tiny = tiny_bert()
    BertModel(tiny.model.config).save_pretrained(saved_tiny)
    with pytest.raises(
        UnsuitableModel,
        match=r"has no weights for 'classifier\.bias' and 1 more: .*Expected a fine-tuned sequence-classification "
        r"model with its head",
    ):
        load_classifier(saved_tiny)


def test_weights_of_another_size_than_the_config_says_are_refused(saved_tiny: Path) -> None:
    change_config(saved_tiny, intermediate_size=128)
    with pytest.raises(
        UnsafeModel,
        match=r"has the shape \[64\], and config\.json makes it \[128\]\. Give the config\.json that was saved with "
        r"these weights",
    ):
        load_classifier(saved_tiny)


@pytest.mark.parametrize("changes", [{"model_type": "no-such-model"}, {"model_type": 7}, {"model_type": "vit"}])
def test_a_model_that_is_no_text_classifier_is_refused(saved_tiny: Path, changes: dict[str, Any]) -> None:
    change_config(saved_tiny, **changes)
    with pytest.raises(
        UnsafeModel,
        match=r"The architecture '.*' of config\.json is none of those that are read .*Expected an encoder such as "
        r"BERT",
    ):
        load_classifier(saved_tiny)


def test_names_for_some_of_the_classes_only_are_refused(saved_tiny: Path) -> None:
    change_config(saved_tiny, id2label={"0": "negative", "5": "positive"})
    with pytest.raises(
        UnsuitableModel, match=r"names no class 1 .*Expected id2label with a name for each of the 2 classes"
    ):
        load_classifier(saved_tiny)


@pytest.mark.parametrize("missing", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
@pytest.mark.parametrize("architecture", ["Bert", "Roberta"])
def test_a_model_without_its_tokenizer_is_refused(tmp_path: Path, architecture: str, missing: list[str]) -> None:
    save_classifier(built(architecture), tmp_path)
    for name in missing:
        (tmp_path / name).unlink()
    with pytest.raises(UnsafeModel, match=r"The tokenizer's files are missing: .*Expected tokenizer\.json"):
        load_classifier(tmp_path)


def test_a_broken_tokenizer_is_refused(saved_tiny: Path) -> None:
    (saved_tiny / "tokenizer.json").write_text("{")
    with pytest.raises(UnsafeModel, match=r"tokenizer\.json is not valid JSON"):
        load_classifier(saved_tiny)


@pytest.mark.parametrize("source", ["hub:", "hub:justaname", "hub:a/b/c", "hub:../../etc/passwd", "hub:a/b@c@d"])
def test_a_hub_source_that_names_no_model_is_refused(source: str) -> None:
    with pytest.raises(UnsuitableModel, match=r"names no Hub model\. Expected hub:OWNER/NAME\[@REVISION\]"):
        load_classifier(source)


def test_a_hub_model_that_cannot_be_fetched_is_refused() -> None:
    with pytest.raises(
        UnsuitableModel,
        match=r"The Hub model 'nobody/nothing' could not be fetched: .*Check the id, the revision and the network",
    ):
        load_classifier("hub:nobody/nothing")


def test_a_name_without_hub_is_a_directory() -> None:
    with pytest.raises(UnsafeModel, match="No model directory at nobody/nothing"):
        load_classifier("nobody/nothing")


# ---------------------------------------------------------------- clones and hashes


def test_a_clone_is_independent(tiny: Classifier) -> None:
    before = weights_hash(tiny), tiny.model.config.to_dict()
    copy = clone(tiny)
    with torch.no_grad():
        for p in copy.model.parameters():
            p += 1
    copy.model.config.id2label = {0: "x", 1: "y"}
    copy.model.train()
    assert (weights_hash(tiny), tiny.model.config.to_dict(), tiny.model.training) == (*before, False)


def test_a_clone_has_the_same_weights(tiny: Classifier) -> None:
    assert weights_hash(clone(tiny)) == weights_hash(tiny)


def test_one_changed_bit_changes_the_hash(tiny: Classifier) -> None:
    before = weights_hash(tiny)
    with torch.no_grad():
        tiny.model.classifier.bias[1] = -0.0  # it was 0.0
    assert weights_hash(tiny) != before


def test_weights_of_any_shape_and_type_have_a_hash(tiny: Classifier) -> None:
    before = weights_hash(tiny)
    tiny.model.register_buffer("count", torch.tensor(3))
    tiny.model.register_buffer("none", torch.zeros(0, 2, dtype=torch.bfloat16))
    assert weights_hash(tiny) != before


# ---------------------------------------------------------------- encode and collate


def test_long_texts_are_cut_at_the_length_that_is_read(tiny: Classifier) -> None:
    cut = dataclasses.replace(tiny, max_length=10)
    (found,) = encode(cut, ["lovely " * 50])
    assert cut.tokenizer.convert_ids_to_tokens(found["input_ids"]) == ["[CLS]"] + ["lovely"] * 8 + ["[SEP]"]


def test_the_longer_text_of_a_pair_is_cut_first(tiny: Classifier) -> None:
    cut = dataclasses.replace(tiny, max_length=12)
    (found,) = encode(cut, [LabelledText("lovely " * 50, 0, "boring plot")])
    assert cut.tokenizer.convert_ids_to_tokens(found["input_ids"]) == ["[CLS]"] + ["lovely"] * 7 + [
        "[SEP]",
        "boring",
        "plot",
        "[SEP]",
    ]


def test_the_two_texts_of_a_pair_have_token_types(tiny: Classifier) -> None:
    (found,) = encode(tiny, [LabelledText("lovely film", 0, "boring")])
    assert found["token_type_ids"] == [0, 0, 0, 0, 1, 1]


def test_a_text_is_encoded_alike_beside_pairs_and_without_them(tiny: Classifier) -> None:
    single, paired = LabelledText("lovely film", 0), LabelledText("boring", 1, "plot")
    assert encode(tiny, [single, paired]) == encode(tiny, [single]) + encode(tiny, [paired])


def test_no_texts_are_encoded_to_nothing(tiny: Classifier) -> None:
    assert encode(tiny, []) == []


def test_a_batch_is_padded_to_its_longest_text(tiny: Classifier) -> None:
    batch = collate(tiny, encode(tiny, ["the lovely film", "a"]))
    assert batch["input_ids"][1].tolist() == [*tiny.tokenizer.convert_tokens_to_ids(["[CLS]", "a", "[SEP]"]), 0, 0]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0] * 5] * 2


@pytest.mark.parametrize("architecture", SUITABLE)
def test_as_many_tokens_are_read_as_the_model_has_positions(architecture: str, tmp_path: Path) -> None:
    classifier = built(architecture)
    classifier.tokenizer.model_max_length = 10**30
    save_classifier(classifier, tmp_path)
    loaded = load_classifier(tmp_path, max_length=8192)
    assert 60 <= loaded.max_length <= 64
    assert predict(loaded, ["lovely " * 500]).shape == (1, 2)


def test_no_more_tokens_are_read_than_the_tokenizer_allows(tiny: Classifier, tmp_path: Path) -> None:
    tiny.tokenizer.model_max_length = 17
    save_classifier(tiny, tmp_path)
    assert load_classifier(tmp_path).max_length == 17


# ---------------------------------------------------------------- predict


def test_every_row_is_a_distribution(lively: Classifier) -> None:
    found = predict(lively, TEXTS)
    assert found.shape == (len(TEXTS), 2)
    assert torch.allclose(found.sum(1), torch.ones(len(TEXTS)))
    assert found.std(0).min() > 0.01  # the answers do differ


@pytest.mark.parametrize("architecture", SUITABLE)
def test_an_answer_is_the_same_alone_and_in_company(architecture: str) -> None:
    classifier = built(architecture)
    alone = torch.cat([predict(classifier, [text]) for text in TEXTS])
    assert torch.allclose(predict(classifier, TEXTS), alone, atol=1e-5)
    assert torch.allclose(predict(classifier, [*TEXTS, "the film " * 28])[:-1], alone, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_the_batch_size_changes_no_answer(lively: Classifier, batch_size: int) -> None:
    assert torch.allclose(predict(lively, TEXTS, batch_size=batch_size), predict(lively, TEXTS), atol=1e-5)


def test_answers_come_in_the_order_of_the_texts(lively: Classifier) -> None:
    order = random.Random(0).sample(range(len(TEXTS)), len(TEXTS))
    assert torch.allclose(predict(lively, [TEXTS[i] for i in order]), predict(lively, TEXTS)[order], atol=1e-5)


def test_labeled_texts_are_read_as_their_texts(lively: Classifier) -> None:
    assert torch.equal(predict(lively, [LabelledText(t, 1) for t in TEXTS]), predict(lively, TEXTS))


def test_the_second_text_of_a_pair_counts(lively: Classifier) -> None:
    first, second = (predict(lively, [LabelledText("the film", 0, pair)]) for pair in ("lovely", "boring"))
    assert not torch.allclose(first, second, atol=1e-5)


def test_a_text_has_the_same_answer_beside_pairs(lively: Classifier) -> None:
    single = LabelledText("the film", 0)
    assert torch.allclose(
        predict(lively, [single, LabelledText("a", 0, "lovely")])[0], predict(lively, [single])[0], atol=1e-5
    )


def test_no_texts_have_no_answers(tiny: Classifier) -> None:
    assert predict(tiny, []).shape == (0, 2)


@pytest.mark.parametrize("training", [False, True])
def test_predicting_leaves_the_mode_as_it_was_and_uses_no_dropout(lively: Classifier, training: bool) -> None:
    expected = predict(lively, TEXTS)
    lively.model.train(training)
    assert torch.equal(predict(lively, TEXTS), expected)
    assert {m.training for m in lively.model.modules()} == {training}
    head = lively.model.classifier
    head.train(not training)  # a part may have a mode of its own
    assert torch.equal(predict(lively, TEXTS), expected)
    assert [m for m in lively.model.modules() if m.training != training] == [head]


def test_predicting_leaves_weights_and_random_numbers_alone(lively: Classifier) -> None:
    before, state = weights_hash(lively), torch.get_rng_state()
    predict(lively, TEXTS)
    assert weights_hash(lively) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_bfloat16_is_for_training_and_not_for_answers(lively: Classifier) -> None:
    assert torch.equal(predict(dataclasses.replace(lively, precision="bfloat16"), TEXTS), predict(lively, TEXTS))


# ---------------------------------------------------------------- trace


@pytest.mark.parametrize("architecture", SUITABLE)
def test_a_trace_holds_every_layer(architecture: str) -> None:
    classifier = built(architecture)
    batch = collate(classifier, encode(classifier, TEXTS))
    B, T = batch["input_ids"].shape
    found = trace(classifier, batch)
    assert found.logits.shape == (B, 2)
    assert [h.shape for h in found.hidden] == [(B, T, 32)] * 3
    assert [a.shape for a in found.attention] == [(B, 4, T, T)] * 2
    assert torch.equal(found.mask, batch["attention_mask"])


def test_attention_maps_are_distributions_over_real_tokens(lively: Classifier) -> None:
    found = trace(lively, collate(lively, encode(lively, TEXTS)))
    for A in found.attention:
        assert torch.allclose(A.sum(-1), torch.ones(()), atol=1e-5)
        assert not (A * (1 - found.mask)[:, None, None, :]).any()


@pytest.mark.parametrize("architecture", SUITABLE)
def test_the_traced_logits_are_those_of_the_answers(architecture: str) -> None:
    classifier = built(architecture)
    with torch.no_grad():
        found = trace(classifier, collate(classifier, encode(classifier, TEXTS)))
    assert torch.allclose(found.logits.softmax(-1), predict(classifier, TEXTS), atol=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_attention_implementation_is_set_back(lively: Classifier, implementation: str) -> None:
    lively.model.set_attn_implementation(implementation)
    trace(lively, collate(lively, encode(lively, TEXTS)))
    assert lively.model.config._attn_implementation == implementation


def test_the_attention_implementation_is_set_back_after_an_error(lively: Classifier) -> None:
    lively.model.set_attn_implementation("sdpa")
    with pytest.raises(IndexError):
        trace(lively, {"input_ids": torch.tensor([[10**6]]), "attention_mask": torch.ones(1, 1)})
    assert lively.model.config._attn_implementation == "sdpa"


def test_plain_attention_and_pytorchs_agree(lively: Classifier) -> None:
    lively.model.set_attn_implementation("sdpa")
    fast = predict(lively, TEXTS)
    with eager_attention(lively.model):
        assert lively.model.config._attn_implementation == "eager"
        assert torch.allclose(predict(lively, TEXTS), fast, atol=1e-5)


def test_gradients_flow_through_a_trace(lively: Classifier) -> None:
    found = trace(lively, collate(lively, encode(lively, TEXTS)))
    (found.attention[0].square().sum() + found.hidden[-1].sum()).backward()
    query = lively.model.bert.encoder.layer[0].attention.self.query.weight
    assert query.grad is not None
    assert float(query.grad.abs().sum()) > 0


# ---------------------------------------------------------------- what can be treated


@pytest.mark.parametrize("architecture", SUITABLE)
def test_encoders_with_attention_maps_are_suitable(architecture: str) -> None:
    check_suitable(built(architecture))


def test_checking_changes_nothing(lively: Classifier) -> None:
    lively.model.train()
    before, state = weights_hash(lively), torch.get_rng_state()
    check_suitable(lively)
    assert (weights_hash(lively), lively.model.training, lively.model.config._attn_implementation) == (
        before,
        True,
        "sdpa",
    )
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_with_one_output_is_refused() -> None:
    with pytest.raises(UnsuitableModel, match="The model has 1 output; expected a classifier of two classes or more"):
        check_suitable(tiny_bert(classes=1))


@pytest.mark.parametrize("architecture", ["FNet", "Yoso", "Canine"])
def test_an_architecture_without_attention_maps_is_refused(architecture: str) -> None:
    with pytest.raises(
        UnsuitableModel,
        match=r"returns no token-to-token attention maps, which the distillation needs\. Expected an encoder such as "
        r"BERT",
    ):
        check_suitable(built(architecture))


def test_an_architecture_whose_maps_are_not_softmaxed_is_refused() -> None:
    groups = {f"{part}_groups": 1 for part in ("q", "k", "v", "post_attention", "intermediate", "output")}
    with pytest.raises(
        UnsuitableModel,
        match=r"'squeezebert' returns attention scores that are no distributions.* Expected an encoder such as BERT",
    ):
        check_suitable(built("SqueezeBert", embedding_size=32, **groups))


def test_an_architecture_that_cannot_answer_a_batch_is_refused() -> None:
    small = dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=2, eos_token_id=3)
    with pytest.raises(
        UnsuitableModel,
        match=r"'gpt2' fails on a batch of two texts: Cannot handle batch sizes > 1 .*Expected an encoder such as BERT",
    ):
        check_suitable(built("GPT2", **small))


# ---------------------------------------------------------------- place


def test_a_classifier_can_be_put_on_the_cpu(tiny: Classifier) -> None:
    assert place(tiny, RuntimeConfig(device="cpu")).device.type == "cpu"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_precision_asked_for_is_taken(tiny: Classifier, precision: Any) -> None:
    assert place(tiny, RuntimeConfig(device="cpu", precision=precision)).precision == precision


def test_the_number_of_threads_is_set(tiny: Classifier) -> None:
    before = torch.get_num_threads()
    try:
        place(tiny, RuntimeConfig(device="cpu", threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tiny: Classifier) -> None:
    with pytest.raises(
        BadConfig, match=r"Device 'cuda' was asked for, but PyTorch sees no GPU here\. Use `device` cpu or auto"
    ):
        place(tiny, RuntimeConfig(device="cuda"))


@pytest.mark.parametrize("device", ["gpu", "tpu", "cpu:x", "", "mps; rm"])
def test_a_device_that_does_not_exist_is_refused(tiny: Classifier, device: str) -> None:
    with pytest.raises(BadConfig, match="Unknown device"):
        place(tiny, RuntimeConfig(device=device))


def test_texts_of_the_test_fixture_are_known_to_the_tokenizer(tiny: Classifier) -> None:
    assert not any(tiny.tokenizer.unk_token_id in e["input_ids"] for e in encode(tiny, tiny_texts(50)))


@pytest.mark.parametrize(
    ("precision", "train", "rate", "gradients", "plain"),
    [
        ("float32", False, 0.1, True, False),
        ("float32", True, 0.1, True, True),
        ("float32", True, 0.0, True, False),
        ("bfloat16", False, 0.1, True, True),
        ("bfloat16", False, 0.1, False, False),
        ("bfloat16", True, 0.0, True, True),
    ],
)
def test_on_a_cpu_dropout_and_gradients_in_bfloat16_take_the_plain_attention_and_give_the_models_own_back(
    precision: str, train: bool, rate: float, gradients: bool, plain: bool
) -> None:
    classifier = dataclasses.replace(tiny_bert(), precision=precision)
    own = classifier.model.config._attn_implementation
    assert own != "eager"
    classifier.model.train(train)
    for module in classifier.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
    with torch.set_grad_enabled(gradients), quicker_attention(classifier):
        assert classifier.model.config._attn_implementation == ("eager" if plain else own)
    assert classifier.model.config._attn_implementation == own
