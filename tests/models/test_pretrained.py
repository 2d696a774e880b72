"""Pre-trained encoders: loaded without a classification head, under the same rules as every model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import tiny_bert
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, ElectraModel, RobertaModel

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import UnsafeModel, UnsuitableModel
from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.models.pretrained import load_pretrained


@pytest.fixture
def base_dir(tmp_path: Path) -> Path:
    base = tiny_bert(seed=7)
    base.model.base_model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_the_encoder_has_the_weights_of_the_file_under_the_names_of_a_classifier(base_dir: Path) -> None:
    found = load_pretrained(base_dir)
    weights = found.model.state_dict()
    stored = load_file(base_dir / "model.safetensors")
    assert {f"bert.{name}" for name in stored} | {"classifier.weight", "classifier.bias"} == set(weights)
    assert all(torch.equal(weights[f"bert.{name}"], tensor) for name, tensor in stored.items())
    assert found.tokenizer.get_vocab() == tiny_bert().tokenizer.get_vocab()
    assert not found.model.training


def test_a_missing_head_is_zeros_whatever_was_drawn_before(base_dir: Path) -> None:
    torch.manual_seed(5)
    head = load_pretrained(base_dir).model.classifier
    assert head.weight.count_nonzero() == head.bias.count_nonzero() == 0


def test_a_classifier_will_do(tmp_path: Path) -> None:
    save_classifier(tiny_bert(seed=7), tmp_path / "whole")
    weights, theirs = load_pretrained(tmp_path / "whole").model.state_dict(), tiny_bert(seed=7).model.state_dict()
    assert all(torch.equal(weights[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("kind", [RobertaModel, ElectraModel])
def test_a_pooler_that_a_classifier_of_the_family_has_not_is_left_out(kind: type, tmp_path: Path) -> None:
    config = kind.config_class(
        vocab_size=80,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        embedding_size=16,
    )
    kind(config).save_pretrained(tmp_path)
    tiny_bert().tokenizer.save_pretrained(tmp_path)
    assert not [name for name in load_pretrained(tmp_path).model.state_dict() if "pooler" in name]


def test_a_language_model_without_the_pooler_of_the_encoder_is_refused(tmp_path: Path) -> None:
    base = tiny_bert()
    BertForMaskedLM(base.model.config).save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UnsuitableModel, match=r"no weights for 'bert\.pooler\.dense\.bias' and 1 more.*saved whole"):
        load_pretrained(tmp_path)


def test_weights_that_are_missing_are_refused(base_dir: Path) -> None:
    weights = load_file(base_dir / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, base_dir / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsafeModel, match=r"no weights for 'bert\.encoder\.layer\.1\.output\.dense\.weight'"):
        load_pretrained(base_dir)


def test_a_model_that_asks_for_code_is_refused(base_dir: Path) -> None:
    config = json.loads((base_dir / "config.json").read_text(encoding="utf-8"))
    (base_dir / "config.json").write_text(json.dumps(config | {"auto_map": {"example": "example"}}), encoding="utf-8")
    with pytest.raises(UnsafeModel, match="auto_map"):
        load_pretrained(base_dir)


def test_the_limits_are_those_that_are_given(base_dir: Path) -> None:
    with pytest.raises(UnsafeModel, match="num_hidden_layers"):
        load_pretrained(base_dir, limits=VettingConfig(layers=1))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeModel, match="No model directory at"):
        load_pretrained(tmp_path / "absent")
