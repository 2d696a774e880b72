"""What a model directory must be before anything is loaded from it."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, tiny_bert

from mbtsad_core.errors import UnsafeModel
from mbtsad_core.models.classifier import load_classifier, save_classifier, weights_hash
from mbtsad_core.vetting.model_folder import LARGEST_CONFIG, check_model_files

PICKLE = pickle.dumps({"weight": [1.0]})
EXAMPLE = "example"  # asks for nothing that there is


def change_config(directory: Path, **changes: Any) -> None:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


def test_a_saved_model_passes(saved_tiny: Path) -> None:
    check_model_files(saved_tiny)


@pytest.mark.parametrize("load", [check_model_files, load_classifier])
def test_a_missing_directory_is_refused(tmp_path: Path, load: Callable[[Path], Any]) -> None:
    with pytest.raises(
        UnsafeModel,
        match=r"No model directory at .*nowhere\. Expected a folder with config\.json, model\.safetensors and the "
        r"tokenizer's files, a \.zip of one, or hub:OWNER/NAME\.",
    ):
        load(tmp_path / "nowhere")


def test_a_file_is_no_model_directory(saved_tiny: Path) -> None:
    with pytest.raises(UnsafeModel, match=r"No model directory at .*model\.safetensors, which is a file\. Expected "):
        check_model_files(saved_tiny / "model.safetensors")


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UnsafeModel, match=r"holds no config\.json \(found: nothing\)\. Give the folder that save_pretrained wrote"
    ):
        check_model_files(tmp_path)


def test_a_directory_without_config_is_refused_with_what_is_there(saved_tiny: Path) -> None:
    (saved_tiny / "config.json").unlink()
    with pytest.raises(
        UnsafeModel,
        match=r"holds no config\.json \(found: model\.safetensors, tokenizer\.json, tokenizer_config\.json\)",
    ):
        check_model_files(saved_tiny)


def test_a_directory_without_weights_is_refused(saved_tiny: Path) -> None:
    (saved_tiny / "model.safetensors").unlink()
    with pytest.raises(UnsafeModel, match=r"holds no weights \(found: .*\)\. Expected model\.safetensors"):
        check_model_files(saved_tiny)


CONVERT = {
    "pytorch_model.bin": r"is a pickle and could run code\. Convert it where you trust it, .* PyTorch 2\.10 "
    r".*save_pretrained.* give model\.safetensors",
    "model.pt": r"is a pickle .* PyTorch 2\.10 or later: .* give model\.safetensors",
    "last.ckpt": r"is a pickle .* PyTorch 2\.10 or later: .* give model\.safetensors",
    "weights.pkl": r"is a pickle .* Convert it with model\.save_pretrained where you trust it, .* give "
    r"model\.safetensors",
    "tf_model.h5": r"is in another format than safetensors\. Convert it where you trust it, .*from_tf=True.* give "
    r"model\.safetensors",
    "flax_model.msgpack": r"is in another format .*from_flax=True.* give model\.safetensors",
    "model.gguf": r"is in another format .* Give the model that it was made from: .*gguf_file=.* give "
    r"model\.safetensors",
    "model.onnx": r"is in another format .* give the model that it was exported from, saved with "
    r"model\.save_pretrained, which writes model\.safetensors",
}


@pytest.mark.parametrize("name", CONVERT)
def test_weights_of_other_formats_are_refused_with_the_way_to_convert_them(saved_tiny: Path, name: str) -> None:
    (saved_tiny / "model.safetensors").rename(saved_tiny / name)
    with pytest.raises(UnsafeModel, match=rf"Refused: {re.escape(name)} {CONVERT[name]}") as refused:
        check_model_files(saved_tiny)
    assert refused.value.rule == ("format.pickle" if "pickle" in CONVERT[name] else "format.other")


READ = """
import pathlib, sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
from mbtsad_core.errors import UnsafeModel
from mbtsad_core.models.classifier import load_classifier
for folder in sys.argv[1:]:
    try:
        load_classifier(pathlib.Path(folder))
    except UnsafeModel as error:
        print(error.rule, [name for name in opened if name.startswith(folder)])
"""


def test_a_pickle_is_refused_and_no_file_of_the_model_is_opened(saved_tiny: Path, tmp_path: Path) -> None:
    folders = []
    for place in ("pytorch_model.bin", "checkpoint-500/optimizer.pt", "a/b/weights.pkl"):
        for beside in (True, False):
            folder = shutil.copytree(saved_tiny, tmp_path / f"model{len(folders)}")
            if not beside:
                (folder / "model.safetensors").unlink()
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_bytes(PICKLE)
            folders.append(str(folder))
    done = subprocess.run(
        [sys.executable, "-c", READ, *folders], capture_output=True, text=True, cwd=ROOT, timeout=120, check=True
    )
    assert done.stdout == 6 * "format.pickle []\n"


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "../elsewhere.safetensors", "/tmp/elsewhere.safetensors", 3])
def test_an_index_that_points_to_anything_but_safetensors_of_the_directory_is_refused(
    saved_tiny: Path, shard: Any
) -> None:
    state = tiny_bert().model.state_dict()
    (saved_tiny / "model.safetensors").rename(saved_tiny / "decoy.safetensors")
    (saved_tiny / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(state, shard)})
    )
    with pytest.raises(
        UnsafeModel,
        match=r"model\.safetensors\.index\.json names .*Expected names of \.safetensors files of the same folder",
    ):
        load_classifier(saved_tiny)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": []}', '{"metadata": {}}'])
def test_a_broken_index_is_refused(saved_tiny: Path, text: str) -> None:
    (saved_tiny / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UnsafeModel, match=r"model\.safetensors\.index\.json"):
        check_model_files(saved_tiny)


def test_a_model_in_several_files_is_loaded(saved_tiny: Path, tmp_path: Path) -> None:
    tiny = tiny_bert()
    tiny.model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    tiny.tokenizer.save_pretrained(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert weights_hash(load_classifier(tmp_path / "sharded")) == weights_hash(tiny)


@pytest.mark.parametrize("name", ["modeling_tiny.py", "setup.py"])
def test_code_beside_a_model_is_refused(saved_tiny: Path, name: str) -> None:
    (saved_tiny / name).write_text("raise SystemExit")
    with pytest.raises(
        UnsafeModel,
        match=rf"Refused: {name} is code that came with the model\. Remove it, and any auto_map in config\.json",
    ):
        check_model_files(saved_tiny)


def test_a_quantized_model_is_refused_as_one(saved_tiny: Path) -> None:
    """Without the key its weights would be read wrongly, so that is not what the refusal says."""
    change_config(saved_tiny, quantization_config={EXAMPLE: EXAMPLE})
    with pytest.raises(
        UnsafeModel, match=r"the weights are quantized.*Give the model in float16, bfloat16 or float32"
    ) as refused:
        check_model_files(saved_tiny)
    assert refused.value.rule == "config.code"


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {EXAMPLE: EXAMPLE}},
        {"trust_remote_code": EXAMPLE},
        {"custom_pipelines": {EXAMPLE: {EXAMPLE: EXAMPLE}}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_config_that_asks_for_code_is_refused(saved_tiny: Path, changes: dict[str, Any]) -> None:
    change_config(saved_tiny, **changes)
    with pytest.raises(
        UnsafeModel, match=rf"Refused: config\.json sets '{next(iter(changes))}', which asks for code .*Remove the key"
    ):
        check_model_files(saved_tiny)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
@pytest.mark.parametrize("value", [EXAMPLE, {"": EXAMPLE}, [EXAMPLE], 3])
def test_a_config_that_asks_for_a_kernel_from_the_hub_is_refused(saved_tiny: Path, key: str, value: Any) -> None:
    """Other versions of the library fetch and run the code of the repository that is named there (CVE-2026-4372)."""
    change_config(saved_tiny, **{key: value})
    with pytest.raises(UnsafeModel, match=rf"Refused: config\.json sets '{key}', which asks for code"):
        load_classifier(saved_tiny)


def test_a_kernel_that_a_part_of_the_config_asks_for_is_refused(saved_tiny: Path) -> None:
    change_config(saved_tiny, text_config={"model_type": "bert", "attn_implementation": EXAMPLE})
    with pytest.raises(UnsafeModel, match="asks for code"):
        load_classifier(saved_tiny)


@pytest.mark.parametrize("value", ["eager", "sdpa", None])
def test_a_config_may_name_an_attention_of_pytorchs(saved_tiny: Path, value: str | None) -> None:
    change_config(saved_tiny, attn_implementation=value)
    assert weights_hash(load_classifier(saved_tiny)) == weights_hash(tiny_bert())


@pytest.mark.parametrize(
    "text", ["{", "", "\x00\x01", '{"a": 1} more', "[" * 65], ids=["open", "empty", "binary", "trailing", "deep"]
)
def test_a_config_that_is_no_json_is_refused(saved_tiny: Path, text: str) -> None:
    (saved_tiny / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(UnsafeModel, match=r"config\.json is not valid JSON"):
        check_model_files(saved_tiny)


def test_a_config_that_is_no_text_is_refused(saved_tiny: Path) -> None:
    (saved_tiny / "config.json").write_bytes(b"\xff\xfe{\x00}\x00")
    with pytest.raises(UnsafeModel, match=r"config\.json is not valid JSON"):
        check_model_files(saved_tiny)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"bert"'])
def test_a_config_that_is_no_object_is_refused(saved_tiny: Path, text: str) -> None:
    (saved_tiny / "config.json").write_text(text)
    with pytest.raises(UnsafeModel, match=r"config\.json does not hold a JSON object"):
        check_model_files(saved_tiny)


def test_a_large_config_is_refused_unread(saved_tiny: Path) -> None:
    change_config(saved_tiny, filler="x" * LARGEST_CONFIG)
    with pytest.raises(UnsafeModel, match=r"config\.json is larger than 1048576 bytes"):
        check_model_files(saved_tiny)


def test_a_directory_in_the_place_of_the_config_is_refused(saved_tiny: Path) -> None:
    (saved_tiny / "config.json").unlink()
    (saved_tiny / "config.json").mkdir()
    with pytest.raises(UnsafeModel, match=r"config\.json"):
        check_model_files(saved_tiny)


def test_vetting_reads_and_changes_nothing(saved_tiny: Path) -> None:
    before = {p.name: p.read_bytes() for p in saved_tiny.iterdir()}
    check_model_files(saved_tiny)
    assert {p.name: p.read_bytes() for p in saved_tiny.iterdir()} == before


def test_a_model_that_was_loaded_and_saved_passes_again(saved_tiny: Path, tmp_path: Path) -> None:
    save_classifier(load_classifier(saved_tiny), tmp_path / "again")
    check_model_files(tmp_path / "again")
