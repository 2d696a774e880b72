"""Whatever the library loads without code, and can be read here, is read: with the library's own ids and logits, and
with a note where something was chosen. What its files say of tokenizer and task is honored, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import VOCABULARY, mbtsad, tiny_bert, write_tsv
from safetensors.torch import load_file, save_file
from test_families import FAMILIES, TEXTS, write
from transformers import (
    AddedToken,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizer,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from mbtsad_core.errors import UnsafeModel, UnsuitableModel
from mbtsad_core.models.classifier import (
    as_saved,
    collate,
    encode,
    load_classifier,
    logits_of,
    save_classifier,
    weights_hash,
)
from mbtsad_core.types import LabelledText
from mbtsad_core.vetting.model_folder import check_model_files, vet_model

WEIGHTS = "model.safetensors"


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def change_weights(folder: Path, make: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(make(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


@torch.no_grad()
def check_against_the_library(folder: Path, texts: list[str] = TEXTS, pairs: list[str] | None = None) -> None:
    """The ids are those of AutoTokenizer and the logits those of AutoModelForSequenceClassification, to 1e-5."""
    loaded = load_classifier(folder, max_length=60)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval(),
    )
    examples = [LabelledText(text, 0, pairs[i] if pairs else None) for i, text in enumerate(texts)]
    encoded = encode(loaded, examples)
    theirs = tokenizer(texts, pairs, padding=True, truncation=True, max_length=60, return_tensors="pt")
    assert [e["input_ids"] for e in encoded] == [
        ids[mask.bool()].tolist() for ids, mask in zip(theirs["input_ids"], theirs["attention_mask"], strict=True)
    ]
    assert torch.allclose(logits_of(loaded, collate(loaded, encoded)), model(**theirs).logits, atol=1e-5)


# ---------------------------------------------------------------- the families


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_librarys_to_1e_5(family: str, tmp_path: Path) -> None:
    write(family, tmp_path)
    check_against_the_library(tmp_path)
    check_against_the_library(
        tmp_path, ["the lovely film", "a", "the the the"], ["was boring", "", "the film . the film"]
    )


# ---------------------------------------------------------------- the tokenizer that the files ask for


def roberta_of_words(folder: Path, **settings: Any) -> None:
    """A RoBERTa whose words are read by BERT's tokenizer, of which tokenizer_config.json says nothing."""
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        max_position_embeddings=66,
        type_vocab_size=1,
        initializer_range=0.3,
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(VOCABULARY)}).backend_tokenizer.save(
        str(folder / "tokenizer.json")
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "model_max_length": 60} | settings)
    )


@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "wanted",
    ["BertTokenizer", "BertTokenizerFast", "ElectraTokenizer", "PreTrainedTokenizerFast", "HerbertTokenizerFast"],
)
def test_the_class_that_either_file_asks_for_reads_the_texts(where: str, wanted: str, tmp_path: Path) -> None:
    if wanted.startswith("Herbert"):
        write("Roberta", tmp_path)  # it builds its own part from a vocabulary and merges
    else:
        roberta_of_words(tmp_path, pad_token="[PAD]")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings.pop("tokenizer_class", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    change(tmp_path / where, tokenizer_class=wanted)
    check_against_the_library(tmp_path)
    assert type(load_classifier(tmp_path).tokenizer).__name__ == type(AutoTokenizer.from_pretrained(tmp_path)).__name__


@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "wanted",
    [
        "BertJapaneseTokenizer",
        "BertweetTokenizer",
        "PhobertTokenizer",
        "XLMTokenizer",
        "CanineTokenizer",
        "KoBertTokenizer",
    ],
)
def test_a_class_that_is_not_ours_to_run_is_refused_by_name(where: str, wanted: str, saved_tiny: Path) -> None:
    change(saved_tiny / where, tokenizer_class=wanted)
    with pytest.raises(
        UnsafeModel, match=rf"{where} asks for a tokenizer '{wanted}'.*Expected one of BertTokenizer"
    ) as refused:
        check_model_files(saved_tiny)
    assert refused.value.rule == "tokenizer.class"


def test_the_class_in_config_json_is_saved_again(tmp_path: Path) -> None:
    roberta_of_words(tmp_path / "model")
    change(tmp_path / "model" / "config.json", tokenizer_class="BertTokenizer")
    loaded = load_classifier(tmp_path / "model")
    save_classifier(loaded, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["tokenizer_class"] == "BertTokenizer"
    assert encode(load_classifier(tmp_path / "again"), TEXTS) == encode(loaded, TEXTS)


# ---------------------------------------------------------------- the task


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(problem_type="multi_label_classification"), "is a multi-label classifier"),
        (dict(problem_type="regression"), "gives 2 numbers for a text and no class"),
        (
            dict(problem_type="regression", id2label=None, label2id=None, num_labels=2),
            "gives 2 numbers for a text and no class",
        ),
    ],
)
def test_another_task_is_refused_before_the_data_is_read(
    changes: dict[str, Any], words: str, saved_tiny: Path, tmp_path: Path
) -> None:
    change(saved_tiny / "config.json", **changes)
    check_model_files(saved_tiny)  # which is no matter of safety
    with pytest.raises(UnsuitableModel, match=words):
        load_classifier(saved_tiny)
    bad_table = tmp_path / "texts.csv"
    bad_table.write_text("neither texts nor labels")
    for command in (
        ("evaluate", "--model", saved_tiny, "--test", bad_table),
        ("purify", "--suspect", saved_tiny, "--clean", bad_table, "--out", tmp_path / "o"),
    ):
        done = mbtsad(*command)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_one_output_is_refused(tmp_path: Path) -> None:
    save_classifier(tiny_bert(classes=1), tmp_path)
    with pytest.raises(
        UnsuitableModel,
        match=r"gives a number for a text and no class \(one output in config.json\).*Give a classifier of two "
        r"classes or more",
    ):
        load_classifier(tmp_path)


# ---------------------------------------------------------------- names of the weights


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "base_model.model.", "model.", "module._orig_mod.", "net.encoder_classifier."]
)
@pytest.mark.parametrize("family", ["Bert", "DistilBert", "DebertaV2"])
def test_what_wraps_a_model_is_taken_off_its_names(prefix: str, family: str, tmp_path: Path) -> None:
    write(family, tmp_path)
    before = weights_hash(load_classifier(tmp_path))
    change_weights(
        tmp_path,
        lambda weights: {prefix + name: tensor for name, tensor in weights.items()} | {"loss.weight": torch.ones(2)},
    )
    loaded = load_classifier(tmp_path)
    assert weights_hash(loaded) == before
    assert f"{prefix.replace('module._orig_mod.', '_orig_mod.')!r}" in loaded.notes[0]


def test_a_part_that_was_compiled_is_read(saved_tiny: Path) -> None:
    before = weights_hash(load_classifier(saved_tiny))
    change_weights(
        saved_tiny,
        lambda weights: {name.replace("bert.encoder.", "bert.encoder._orig_mod."): t for name, t in weights.items()},
    )
    assert weights_hash(load_classifier(saved_tiny)) == before


def test_two_models_in_one_file_are_refused(saved_tiny: Path) -> None:
    change_weights(
        saved_tiny,
        lambda weights: {f"{who}.{name}": t.clone() for name, t in weights.items() for who in ("teacher", "student")},
    )
    with pytest.raises(UnsafeModel, match="belongs to other weights") as refused:
        check_model_files(saved_tiny)
    assert refused.value.rule == "weights.unknown"


BESIDE = {
    "loss_fct.weight": torch.ones(2),
    "criterion.pos_weight": torch.ones(2),
    "class_weights": torch.tensor([1, 3]),
    "sop_classifier.classifier.weight": torch.ones(2, 32),
    "qa_outputs.bias": torch.ones(2),
    "bert.embeddings.position_ids": torch.arange(64)[None],
    "bert.pooler.dense_2.weight": torch.ones(2),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_the_model_is_left_out_and_told(name: str, saved_tiny: Path) -> None:
    before = weights_hash(load_classifier(saved_tiny))
    change_weights(saved_tiny, lambda weights: weights | {name: BESIDE[name]})
    assert vet_model(saved_tiny).left_out[WEIGHTS] == [name]
    loaded = load_classifier(saved_tiny)
    assert weights_hash(loaded) == before
    assert [name in note for note in loaded.notes] == (
        [True] if name in ("loss_fct.weight", "criterion.pos_weight", "class_weights") else []
    )


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.2.output.dense.weight",
        "bert.encoder.layer.0.attention.self.query.lora_A.default.weight",
        "classifier.1.weight",
    ],
)
def test_a_tensor_within_the_model_that_it_has_not_is_of_another_one(name: str, saved_tiny: Path) -> None:
    change_weights(saved_tiny, lambda weights: weights | {name: torch.ones(2, 2)})
    remedy = "merge that into the model" if "lora" in name else "Give the config.json that was saved with these weights"
    with pytest.raises(UnsafeModel, match=remedy) as refused:
        check_model_files(saved_tiny)
    assert refused.value.rule == "weights.unknown"


# ---------------------------------------------------------------- names of the classes


@pytest.mark.parametrize(
    ("names", "labels", "told"),
    [
        ({"0": 3, "1": 7}, ("3", "7"), "a number"),
        ({"0": 0.5, "1": 1.0}, ("0.5", "1.0"), "a number"),
        ({"0": True, "1": False}, ("True", "False"), "true or false"),
        ({"0": None, "1": "good"}, ("LABEL_0", "good"), "null"),
        ({"0": "bad\n", "1": "very  good "}, ("bad", "very good"), "spaces or signs that cannot be seen"),
        (
            {"0": "\ufeffbad", "1": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"},
            ("bad", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
            "spaces or signs that cannot be seen",
        ),
        ({"1": "good", "0": "bad"}, ("bad", "good"), ""),
        ({"00": "bad", "01": "good"}, ("bad", "good"), ""),
    ],
)
def test_names_of_classes_are_read_as_the_library_reads_them(
    names: dict[str, Any], labels: tuple[str, ...], told: str, saved_tiny: Path
) -> None:
    change(saved_tiny / "config.json", id2label=names, label2id={})
    loaded = load_classifier(saved_tiny)
    assert loaded.labels == labels
    assert [told in note for note in loaded.notes] == ([True] if told else [])
    check_against_the_library(saved_tiny)
    listed = mbtsad("vet", saved_tiny).stdout
    assert not told or loaded.notes[0] in listed


def test_a_number_of_classes_that_is_not_that_of_the_names_is_told(saved_tiny: Path) -> None:
    change(saved_tiny / "config.json", num_labels=5)
    assert "says num_labels 5 and names 2 classes" in load_classifier(saved_tiny).notes[0]


def test_names_that_contradict_each_other_are_told(saved_tiny: Path) -> None:
    change(saved_tiny / "config.json", label2id={"negative": 1, "positive": 0})
    loaded = load_classifier(saved_tiny)
    assert loaded.labels == ("negative", "positive")
    assert "label2id numbers 'negative' otherwise" in loaded.notes[0]


@pytest.mark.parametrize("command", ["evaluate", "purify"])
def test_what_was_chosen_is_told_beside_the_figures(command: str, saved_tiny: Path, tmp_path: Path) -> None:
    change(saved_tiny / "config.json", id2label={"0": 0, "1": 1}, label2id={})
    table = write_tsv(
        tmp_path / "texts.tsv",
        [LabelledText(f"{word} film", i % 2) for i, word in enumerate(["lovely", "boring"] * 12)],
    )
    if command == "evaluate":
        done = mbtsad("evaluate", "--model", saved_tiny, "--test", table, "--json")
    else:
        small = (
            "--retrain-epochs",
            "1",
            "--distil-epochs",
            "1",
            "--retrain-batch-size",
            "4",
            "--distil-batch-size",
            "4",
        )
        done = mbtsad(
            "purify",
            "--suspect",
            saved_tiny,
            "--clean",
            table,
            "--test",
            table,
            "--out",
            tmp_path / "out",
            *small,
            "--json",
        )
    assert "calls class 0 0, which is a number" in done.stdout, done.stderr


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("token", ["\n", "\t", "<br/>", "\u200d", "\u202e", "caf\u0065\u0301", " x "])
@pytest.mark.parametrize("family", ["Bert", "Roberta", "XLMRoberta"])
def test_a_token_of_any_character_may_be_added(token: str, family: str, tmp_path: Path) -> None:
    write(family, tmp_path)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(tmp_path),
        AutoModelForSequenceClassification.from_pretrained(tmp_path),
    )
    tokenizer.add_tokens([AddedToken(token, normalized=family != "Bert" or token.isprintable() or token.isspace())])
    model.resize_token_embeddings(max(tokenizer.get_vocab().values()) + 1)
    tokenizer.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    check_against_the_library(tmp_path, [*TEXTS, f"the{token}film", f"a {token} the", token])


@pytest.mark.parametrize("content", ["\u200b", "\u00ad\u2060"])
def test_a_token_that_the_tokenizers_own_normalizer_takes_away_is_refused_before_it_is_used(
    content: str, saved_tiny: Path
) -> None:
    tokenizer = json.loads((saved_tiny / "tokenizer.json").read_text())
    token = tokenizer["added_tokens"][0] | {
        "id": len(VOCABULARY) - 1,
        "content": content,
        "special": False,
        "normalized": True,
    }
    change(saved_tiny / "tokenizer.json", added_tokens=[*tokenizer["added_tokens"], token])
    with pytest.raises(
        UnsafeModel, match=r"takes away whole, so that it is no part of any text\. Add it with normalized=False"
    ) as refused:
        check_model_files(saved_tiny)
    assert refused.value.rule == "tokenizer.vocabulary"
    # The remedy
    change(saved_tiny / "tokenizer.json", added_tokens=[*tokenizer["added_tokens"], token | {"normalized": False}])
    check_against_the_library(saved_tiny)


@pytest.mark.parametrize("direction", ["Left", "Right"])
@pytest.mark.parametrize("family", ["Bert", "Roberta"])
def test_a_text_is_cut_at_the_side_that_the_tokenizer_says(family: str, direction: str, tmp_path: Path) -> None:
    write(family, tmp_path)
    change(
        tmp_path / "tokenizer.json",
        truncation={"direction": direction, "max_length": 20, "strategy": "LongestFirst", "stride": 0},
    )
    check_against_the_library(tmp_path, [*TEXTS, "the film " * 80 + "was boring"])


# ---------------------------------------------------------------- pairs


@pytest.mark.parametrize("types", [1, 2])
@pytest.mark.parametrize("wanted", ["BertTokenizer", "ElectraTokenizer"])
def test_token_types_that_the_model_has_not_are_not_given_to_it(wanted: str, types: int, tmp_path: Path) -> None:
    roberta_of_words(tmp_path, tokenizer_class=wanted)
    if types == 2:
        change(tmp_path / "config.json", type_vocab_size=2)
        change_weights(
            tmp_path,
            lambda weights: (
                weights
                | {(n := "roberta.embeddings.token_type_embeddings.weight"): torch.randn(2, 32).mul(0.3)}
                | {n: torch.ones(2, 32)}
            ),
        )
    loaded = load_classifier(tmp_path)
    (found,) = encode(loaded, [LabelledText("the film", 0, "a plot")])
    assert ("token_type_ids" in found) == (types == 2)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        given = {key: torch.tensor([found[key]]) for key in found}
        assert torch.allclose(logits_of(loaded, collate(loaded, [found])), model(**given).logits, atol=1e-5)


@pytest.mark.parametrize("family", ["DistilBert", "MPNet"])
def test_pairs_are_read_by_a_family_without_token_types_whose_tokenizer_gives_them(family: str, tmp_path: Path) -> None:
    write(family, tmp_path)
    change(tmp_path / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    loaded = load_classifier(tmp_path)
    encoded = encode(loaded, [LabelledText("the lovely film", 0, "was boring"), LabelledText("a", 0)])
    assert all(set(e) == {"input_ids"} for e in encoded)
    assert torch.isfinite(logits_of(loaded, collate(loaded, encoded[:1]))).all()


# ---------------------------------------------------------------- saved as it came


LENGTHS = {
    "none": {},
    "truncation": {"truncation": {"direction": "Right", "max_length": 40, "strategy": "LongestFirst", "stride": 0}},
    "both": {
        "truncation": {"direction": "Right", "max_length": 50, "strategy": "OnlyFirst", "stride": 2},
        "padding": {
            "strategy": {"Fixed": 50},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
    },
}


@pytest.mark.parametrize("lengths", LENGTHS)
def test_a_model_that_was_used_is_saved_with_the_tokenizer_that_came(
    lengths: str, saved_tiny: Path, tmp_path: Path
) -> None:
    change(saved_tiny / "tokenizer.json", truncation=None, padding=None)
    change(saved_tiny / "tokenizer.json", **LENGTHS[lengths])
    loaded = load_classifier(saved_tiny, max_length=12)
    encode(loaded, ["the lovely film " * 20])
    save_classifier(loaded, tmp_path / "again")
    before, after = (json.loads((folder / "tokenizer.json").read_text()) for folder in (saved_tiny, tmp_path / "again"))
    assert before == after
    assert len(encode(loaded, ["the lovely film " * 20])[0]["input_ids"]) == 12  # saving leaves it as it was


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_are_saved_in_the_precision_that_they_came_in(dtype: torch.dtype, tmp_path: Path) -> None:
    write("Bert", tmp_path / "model")
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").to(dtype).save_pretrained(tmp_path / "model")
    loaded = load_classifier(tmp_path / "model")
    with torch.no_grad():  # as training changes it
        loaded.model.classifier.weight.add_(1e-4)
    save_classifier(loaded, tmp_path / "again")
    assert {tensor.dtype for tensor in load_file(tmp_path / "again" / WEIGHTS).values()} == {dtype}
    assert weights_hash(load_classifier(tmp_path / "again")) == weights_hash(as_saved(loaded))
    assert (as_saved(loaded) is loaded) == (dtype in (torch.float32, torch.float64))


def test_weights_of_several_precisions_are_saved_in_one_that_holds_all(saved_tiny: Path, tmp_path: Path) -> None:
    change_weights(
        saved_tiny, lambda weights: {name: t.half() if "dense" in name else t.bfloat16() for name, t in weights.items()}
    )
    save_classifier(load_classifier(saved_tiny), tmp_path / "again")
    assert weights_hash(load_classifier(tmp_path / "again")) == weights_hash(load_classifier(saved_tiny))


# ---------------------------------------------------------------- settings that make no difference, or are the
# library's own


@pytest.mark.parametrize(
    "changes",
    [
        {"torch_dtype": "float16"},
        {"dtype": "bfloat16", "torch_dtype": None},
        {"chunk_size_feed_forward": 1},
        {"architectures": ["My_BERT"]},
        {"architectures": None},
        {"hidden_act": "gelu_10"},
        {"hidden_act": "relu2"},
        {"label2id": {"LABEL_0": 0, "LABEL_1": 1}, "id2label": None},
        {
            "_num_labels": 2,
            "finetuning_task": "sst2",
            "output_past": True,
            "directionality": "bidi",
            "pooler_fc_size": 768,
        },
        {"tokenizer_class": None},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_a_setting_that_the_library_takes_is_taken(changes: dict[str, Any], saved_tiny: Path) -> None:
    change(saved_tiny / "config.json", **changes)
    check_against_the_library(saved_tiny)


def test_the_oldest_names_of_weights_are_read(saved_tiny: Path) -> None:
    before = weights_hash(load_classifier(saved_tiny))
    change_weights(
        saved_tiny,
        lambda w: {
            n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
            for n, t in w.items()
        },
    )
    assert weights_hash(load_classifier(saved_tiny)) == before
