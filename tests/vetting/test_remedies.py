"""What a refusal tells people to do is done here, to its end: the model is then read, with the answers that it had."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import mbtsad, tiny_bert
from safetensors.torch import load_file, save_file
from test_families import write
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
)

from mbtsad_core.errors import MBTSADError
from mbtsad_core.models.classifier import load_classifier, predict, save_classifier

TEXTS = ["the lovely film", "a boring story .", "the actor"]
WEIGHTS = "model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1430000000\n"


def change(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; those set to ... are taken away."""
    values = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}), encoding="utf-8")


def refusal(folder: Path) -> str:
    """The words that loading is refused with, which `mbtsad vet` says too where it is a matter of the files."""
    with pytest.raises(MBTSADError) as refused:
        load_classifier(folder)
    return str(refused.value)


def rename_weights(folder: Path, make: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(make(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model and its answers, which every remedy must bring back."""
    save_classifier(tiny_bert(), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def answers(model: Path) -> torch.Tensor:
    return predict(load_classifier(model), TEXTS)


# ---------------------------------------------------------------- config.json


@pytest.mark.parametrize(
    "said", [{"architectures": ["BertForSequenceClassification"]}, {"architectures": ...}, {"architectures": None}]
)
def test_a_config_without_model_type_is_given_the_one_that_is_named(
    said: dict[str, Any], model: Path, answers: torch.Tensor
) -> None:
    change(model / "config.json", model_type=..., **said)
    assert 'does not say of which architecture the model is. Add "model_type": "bert" to it' in refusal(model)
    change(model / "config.json", model_type="bert")
    assert torch.equal(predict(load_classifier(model), TEXTS), answers)


@pytest.mark.parametrize("family", ["DistilBert", "Albert", "MPNet", "Electra", "DebertaV2"])
def test_the_architecture_that_is_named_is_the_models(family: str, tmp_path: Path) -> None:
    write(family, tmp_path)
    before = predict(load_classifier(tmp_path), TEXTS)
    change(tmp_path / "config.json", model_type=..., architectures=...)
    named = refusal(tmp_path).partition('Add "model_type": "')[2].partition('"')[0]
    change(tmp_path / "config.json", model_type=named)
    assert torch.equal(predict(load_classifier(tmp_path), TEXTS), before)


@pytest.mark.parametrize(
    "names", [{"0": "a", "1": ["b"]}, {"-1": "a", "1": "b"}, {"0": "a", "x": "b"}, {"0": "a", "1": ""}]
)
def test_names_of_classes_that_cannot_be_read_are_mended_or_removed(
    names: dict[str, Any], model: Path, answers: torch.Tensor
) -> None:
    change(model / "config.json", id2label=names)
    assert "Mend id2label, or remove it and label2id, and give their number as num_labels" in refusal(model)
    change(model / "config.json", id2label=..., label2id=..., num_labels=2)
    removed = load_classifier(model)
    assert removed.labels == ("LABEL_0", "LABEL_1")
    assert torch.equal(predict(removed, TEXTS), answers)
    change(model / "config.json", id2label={"0": "a", "1": "b"}, num_labels=...)
    assert load_classifier(model).labels == ("a", "b")


@pytest.mark.parametrize("names", [{"1": "a", "2": "b"}, {"0": "a", "5": "b"}])
def test_names_that_leave_a_class_out_are_counted_from_0(
    names: dict[str, str], model: Path, answers: torch.Tensor
) -> None:
    change(model / "config.json", id2label=names)
    assert "Expected id2label with a name for each of the 2 classes, counted from 0, or no id2label at all" in refusal(
        model
    )
    change(model / "config.json", id2label=..., label2id=...)
    assert torch.equal(predict(load_classifier(model), TEXTS), answers)
    change(model / "config.json", id2label={"0": "a", "1": "b"})
    assert load_classifier(model).labels == ("a", "b")


def test_a_multi_label_model_whose_texts_have_one_class_is_called_so(model: Path, answers: torch.Tensor) -> None:
    change(model / "config.json", problem_type="multi_label_classification")
    assert (
        "If each of its texts has one class all the same, set problem_type to single_label_classification."
        in refusal(model)
    )
    change(model / "config.json", problem_type="single_label_classification")
    assert torch.equal(predict(load_classifier(model), TEXTS), answers)


@pytest.mark.parametrize(
    "key", ["auto_map", "trust_remote_code", "custom_pipelines", "use_kernels", "attn_implementation"]
)
def test_a_key_that_asks_for_code_is_removed(key: str, model: Path, answers: torch.Tensor) -> None:
    change(model / "config.json", **{key: "an/example"})
    assert "Remove the key if the model works without it." in refusal(model)
    change(model / "config.json", **{key: ...})
    assert torch.equal(predict(load_classifier(model), TEXTS), answers)


@pytest.mark.parametrize(
    "changes",
    [{"num_hidden_layers": 1}, {"intermediate_size": 128}, {"model_type": "roberta"}, {"num_hidden_layers": 3}],
)
def test_the_config_that_was_saved_with_the_weights_is_given(
    changes: dict[str, Any], model: Path, answers: torch.Tensor
) -> None:
    right = (model / "config.json").read_text()
    change(model / "config.json", **changes)
    words = refusal(model)
    assert (
        "config.json that was saved with these weights" in words
        or "config.json belongs to another model. Give all files" in words
    )
    (model / "config.json").write_text(right)
    assert torch.equal(predict(load_classifier(model), TEXTS), answers)


# ---------------------------------------------------------------- weights


def test_a_model_of_pytorchs_format_is_converted_as_is_said(model: Path, answers: torch.Tensor, tmp_path: Path) -> None:
    torch.save(load_file(model / WEIGHTS), model / "pytorch_model.bin")
    (model / WEIGHTS).unlink()
    words = refusal(model)
    command = words.partition("with PyTorch 2.10 or later: ")[2].partition(", and give model.safetensors")[0]
    assert command.startswith("AutoModelForSequenceClassification.from_pretrained(folder)")
    given = {
        "AutoModelForSequenceClassification": AutoModelForSequenceClassification,
        "folder": model,
        "new": tmp_path / "new",
    }
    exec(command, given)
    (model / "pytorch_model.bin").unlink()
    shutil.copy(tmp_path / "new" / WEIGHTS, model / WEIGHTS)
    assert torch.equal(predict(load_classifier(model), TEXTS), answers)


@pytest.mark.parametrize("name", ["optimizer.pt", "training_args.bin", "pytorch_model.bin"])
def test_a_pickle_beside_the_weights_is_removed(name: str, model: Path, answers: torch.Tensor) -> None:
    (model / name).write_bytes(b"not read")
    assert "Remove it: " in refusal(model)
    (model / name).unlink()
    assert torch.equal(predict(load_classifier(model), TEXTS), answers)


@pytest.mark.parametrize("head", ["model_head.pkl", "model_head.joblib"])
def test_a_setfit_model_is_called_one_before_its_classifier_is_thrown_away(head: str, model: Path) -> None:
    loaded = load_classifier(model)
    BertModel(loaded.model.config).save_pretrained(model)
    (model / head).write_bytes(b"not read")
    words = refusal(model)
    assert "It is the classifier of a SetFit model" in words
    assert "Remove it" not in words
    save_classifier(loaded, model)  # one of a class ...ForSequenceClassification
    (model / head).unlink()
    assert load_classifier(model).labels == ("negative", "positive")


@pytest.mark.parametrize("stray", ["model-00001-of-00002.safetensors", "adapter_model.safetensors"])
def test_weights_that_are_no_part_of_the_model_are_removed(stray: str, model: Path, answers: torch.Tensor) -> None:
    shutil.copy(model / WEIGHTS, model / stray)
    assert f"{stray} is no part of the model" in refusal(model)
    (model / stray).unlink()
    assert torch.equal(predict(load_classifier(model), TEXTS), answers)


def test_a_model_with_an_index_too_is_given_with_one_of_them(model: Path, answers: torch.Tensor) -> None:
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(load_file(model / WEIGHTS), "model.safetensors")}))
    assert "only one can be meant. Remove the other." in refusal(model)
    index.unlink()
    assert torch.equal(predict(load_classifier(model), TEXTS), answers)


@pytest.mark.parametrize("with_adapter", ["within the model", "alone"])
def test_an_adapter_is_merged_into_its_model(with_adapter: str, model: Path) -> None:
    plain = load_file(model / WEIGHTS)
    target, scale = "bert.encoder.layer.0.attention.self.query", 2.0
    a, b = torch.randn(2, 32), torch.randn(32, 2)
    if with_adapter == "alone":
        kept = {path.name: path.read_bytes() for path in model.iterdir()}
        for name in kept:
            (model / name).unlink()
        (model / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
        save_file(
            {f"base_model.model.{target}.lora_A.weight": a, f"base_model.model.{target}.lora_B.weight": b},
            model / "adapter_model.safetensors",
        )
        assert (
            "holds an adapter alone (found: adapter_config.json, adapter_model.safetensors), and no model. Merge it "
            "into its model" in refusal(model)
        )
        for path in model.iterdir():
            path.unlink()
        for name, data in kept.items():
            (model / name).write_bytes(data)
    else:
        wrapped = {f"base_model.model.{n.replace(target, f'{target}.base_layer')}": t for n, t in plain.items()}
        adapter = {
            f"base_model.model.{target}.lora_A.default.weight": a,
            f"base_model.model.{target}.lora_B.default.weight": b,
        }
        save_file(wrapped | adapter, model / WEIGHTS, metadata={"format": "pt"})
        assert "It is part of an adapter: merge that into the model" in refusal(model)
    # What merge_and_unload makes of it
    merged = plain | {f"{target}.weight": plain[f"{target}.weight"] + scale * b @ a}
    save_file(merged, model / WEIGHTS, metadata={"format": "pt"})
    library = AutoModelForSequenceClassification.from_pretrained(model).eval()
    ids = AutoTokenizer.from_pretrained(model)(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(predict(load_classifier(model), TEXTS[:1]), library(**ids).logits.softmax(-1), atol=1e-5)


def test_a_quantized_model_is_given_as_it_was_before(model: Path, answers: torch.Tensor) -> None:
    right, config = (model / WEIGHTS).read_bytes(), (model / "config.json").read_text()
    rename_weights(
        model, lambda weights: {name: t.to(torch.int8) if "query.weight" in name else t for name, t in weights.items()}
    )
    assert "as it was before it was quantized" in refusal(model)
    change(model / "config.json", quantization_config={"an": "example"})
    assert "Give the model in float16, bfloat16 or float32, as it was before." in refusal(model)
    (model / WEIGHTS).write_bytes(right)
    (model / "config.json").write_text(config)
    assert torch.equal(predict(load_classifier(model), TEXTS), answers)


# ---------------------------------------------------------------- something else under the right name


OTHER = {
    "a pointer of Git LFS, not the file itself (1.43 GB). Run `git lfs pull`": POINTER.format("0" * 64).encode(),
    "a web page (HTML). Download the file itself": b"<!DOCTYPE html>\n<html lang='en'><title>a model</title></html>",
    "the answer of a server that did not give the file. Download it again": b"Entry not found",
    "a gzip archive. Unpack it": gzip.compress(b"{}"),
    "an XML document. Give the file that save_pretrained wrote": b"<?xml version='1.0'?><Error/>",
}


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS])
@pytest.mark.parametrize("what", OTHER)
def test_a_file_is_called_what_it_is_and_the_file_itself_is_read(
    what: str, name: str, model: Path, answers: torch.Tensor, tmp_path: Path
) -> None:
    right = (model / name).read_bytes()
    (model / name).write_bytes(OTHER[what])
    assert f"{name} is {what}" in refusal(model)
    archive = shutil.make_archive(str(tmp_path / "model"), "zip", model)
    alone = model / name
    for source in (model, archive, alone):  # one verdict, whatever it came in
        vetted = json.loads(mbtsad("vet", source, "--json").stdout)
        judged = {file["name"]: file["rule"] for file in vetted["files"] if file["verdict"] == "refused"}
        assert (vetted["verdict"], judged) == ("refused", {name: "format.disguised"}), source
    (model / name).write_bytes(right)
    assert torch.equal(predict(load_classifier(model), TEXTS), answers)


def test_every_pointer_of_a_clone_is_named(model: Path) -> None:
    for path in model.iterdir():
        path.write_text(POINTER.format("0" * 64))
    vetted = json.loads(mbtsad("vet", model, "--json").stdout)
    assert {(file["verdict"], file["rule"]) for file in vetted["files"]} == {("refused", "format.disguised")}
    assert len(vetted["files"]) == 4


@pytest.mark.parametrize("kind", ["pickle", "torch", "array"])
def test_weights_or_settings_of_another_format_are_told_by_what_they_are(kind: str, model: Path) -> None:
    out = io.BytesIO()
    if kind == "array":
        (model / "config.json").write_text(f"[{(model / 'config.json').read_text()}]")
        assert (
            "config.json does not hold a JSON object, but a list. Give the file that save_pretrained wrote"
            in refusal(model)
        )
        return
    torch.save({"a": torch.ones(2)}, out, _use_new_zipfile_serialization=kind == "torch")
    (model / WEIGHTS).write_bytes(out.getvalue())
    words = refusal(model)
    assert ("checkpoint of PyTorch, a zip that holds a pickle" if kind == "torch" else "is a Python pickle") in words
    assert "Convert it where you trust it" in words


# ---------------------------------------------------------------- the Hub's cache


def cache(model: Path, root: Path, commits: list[str], main: str = "") -> Path:
    (root / "blobs").mkdir(parents=True)
    for commit in commits:
        (root / "snapshots" / commit).mkdir(parents=True)
        for path in model.iterdir():
            shutil.copy(path, root / "blobs" / path.name)
            (root / "snapshots" / commit / path.name).symlink_to(f"../../blobs/{path.name}")
    if main:
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text(main)
    return root


@pytest.mark.parametrize(
    ("commits", "main", "taken"),
    [
        (["a" * 40], "a" * 40, "a" * 40),
        (["a" * 40, "b" * 40], "b" * 40 + "\n", "b" * 40),
        (["c" * 40], "", "c" * 40),
        (["d" * 40], "e" * 40, "d" * 40),
    ],
)
@pytest.mark.parametrize("given", ["", "snapshots"])
def test_of_the_hubs_cache_the_snapshot_is_read(
    commits: list[str], main: str, taken: str, given: str, model: Path, answers: torch.Tensor, tmp_path: Path
) -> None:
    root = cache(model, tmp_path / "models--owner--name", commits, main)
    loaded = load_classifier(root / given)
    assert loaded.origin is not None
    assert (loaded.origin.commit, f"its snapshot {taken} was read" in loaded.notes[0]) == (taken, True)
    assert torch.equal(predict(loaded, TEXTS), answers)
    vetted = json.loads(mbtsad("vet", root / given, "--json").stdout)
    assert (vetted["verdict"], sorted(file["name"] for file in vetted["files"])) == (
        "clean",
        sorted(path.name for path in model.iterdir()),
    )


def test_where_no_snapshot_is_meant_one_of_them_is_given(model: Path, answers: torch.Tensor, tmp_path: Path) -> None:
    root = cache(model, tmp_path / "models--owner--name", ["a" * 40, "b" * 40], main="c" * 40)
    words = refusal(root)
    assert "with 2 snapshots, and no refs/main that names one. Give one of them: " in words
    named = words.partition("Give one of them: ")[2].partition(",")[0]
    assert torch.equal(predict(load_classifier(named), TEXTS), answers)
    assert mbtsad("vet", root).returncode == 1


def test_an_empty_cache_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "models--owner--name" / "snapshots").mkdir(parents=True)
    (tmp_path / "models--owner--name" / "blobs").mkdir()
    assert "with 0 snapshots, and no refs/main that names one. Download the model again." in refusal(
        tmp_path / "models--owner--name"
    )


# ---------------------------------------------------------------- tokenizers


@pytest.mark.parametrize("family", ["XLMRoberta", "Roberta", "DebertaV2"])
@pytest.mark.parametrize("tokens", [["<url>"], ["<url>", "<user>", "<number>"]])
def test_tokens_beyond_the_embeddings_get_some_or_are_removed(family: str, tokens: list[str], tmp_path: Path) -> None:
    write(family, tmp_path)
    before, files = predict(load_classifier(tmp_path), TEXTS), {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rows = max(tokenizer.get_vocab().values()) + 1
    tokenizer.add_tokens(tokens)
    tokenizer.save_pretrained(tmp_path)
    words = refusal(tmp_path)
    assert f"the model has {rows} word embeddings (0 to {rows - 1})" in words
    assert all(repr(token) in words for token in tokens)
    asked = int(words.partition("resize_token_embeddings(")[2].partition(")")[0])
    assert asked == rows + len(tokens)
    added = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    resized = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    resized.resize_token_embeddings(asked)
    resized.save_pretrained(tmp_path)
    assert torch.allclose(predict(load_classifier(tmp_path), TEXTS), before, atol=1e-6)

    for name, data in (added | {WEIGHTS: files[WEIGHTS], "config.json": files["config.json"]}).items():
        (tmp_path / name).write_bytes(data)
    settings = json.loads((tmp_path / "tokenizer.json").read_text())
    change(
        tmp_path / "tokenizer.json",
        added_tokens=[token for token in settings["added_tokens"] if token["content"] not in tokens],
    )
    assert torch.equal(predict(load_classifier(tmp_path), TEXTS), before)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("sentencepiece", "google"))),
    reason="sentencepiece and protobuf are not installed",
)
@pytest.mark.parametrize("name", ["spm.model"])
def test_of_a_sentencepiece_model_the_library_writes_the_tokenizer(name: str, tmp_path: Path) -> None:
    import sentencepiece

    out = io.BytesIO()
    texts = iter(["the lovely film was boring", "a story of the actor ."] * 20)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts,
        model_writer=out,
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=5,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
    )
    torch.manual_seed(0)
    sizes = dict(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        type_vocab_size=0,
    )
    DebertaV2ForSequenceClassification(DebertaV2Config(**sizes)).save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(out.getvalue())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "DebertaV2Tokenizer", "split_by_punct": False})
    )
    words = refusal(tmp_path)
    assert f"{name} is a sentencepiece model, which is not read" in words
    assert "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)" in words
    assert "sentencepiece model is not read; tokenizer.json is" in mbtsad("vet", tmp_path).stdout
    exec(
        "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        {"AutoTokenizer": AutoTokenizer, "folder": tmp_path},
    )
    loaded = load_classifier(tmp_path)
    assert loaded.tokenizer("the film")["input_ids"] == AutoTokenizer.from_pretrained(tmp_path)("the film")["input_ids"]
    assert len(set(loaded.tokenizer("the lovely film")["input_ids"])) > 3


def test_without_a_tokenizer_the_one_it_was_trained_from_is_saved_beside_it(
    model: Path, answers: torch.Tensor, tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "trained from")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    assert (
        "AutoTokenizer.from_pretrained(the model that it was trained from).save_pretrained(folder) writes them."
        in refusal(model)
    )
    AutoTokenizer.from_pretrained(tmp_path / "trained from").save_pretrained(model)
    assert torch.equal(predict(load_classifier(model), TEXTS), answers)
