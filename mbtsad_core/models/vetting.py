"""What a model directory must be before anything is loaded from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mbtsad_core.errors import UnsafeModel

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".joblib")
ASKS_FOR_CODE = ("auto_map", "trust_remote_code", "_attn_implementation_internal", "custom_pipelines", "quantization_config")
IMPLEMENTATIONS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
OWN_IMPLEMENTATIONS = (None, "eager", "sdpa", "batched_mm", "grouped_mm")  # of PyTorch's; others can be fetched from the Hub and run
LARGEST_CONFIG = 1 << 20  # bytes


def check_model_files(directory: Path) -> None:
    """Raise UnsafeModel unless the directory holds safetensors weights, a sound config.json, and nothing asks for code to run."""
    if not directory.is_dir():
        raise UnsafeModel(f"No model directory at {directory}. Expected a folder with config.json, model.safetensors and the tokenizer's files.")
    names = sorted(p.name for p in directory.iterdir())
    if "config.json" not in names:
        raise UnsafeModel(f"{directory} holds no config.json (found: {', '.join(names[:6]) or 'nothing'}). Give the folder that save_pretrained wrote.")
    if not any(name.endswith(".safetensors") for name in names):
        if pickles := [name for name in names if name.endswith(PICKLES)]:
            raise UnsafeModel(
                f"Refused: {pickles[0]} is a pickle or another format that can run code when it is loaded. "
                f"Convert it where you trust it (model.save_pretrained writes safetensors) and give model.safetensors."
            )
        raise UnsafeModel(f"{directory} holds no weights (found: {', '.join(names[:6])}). Expected model.safetensors.")
    if code := [name for name in names if name.endswith(".py")]:
        raise UnsafeModel(f"Refused: {code[0]} is code that came with the model. Remove it, and any auto_map in config.json; code is never run.")
    for index in sorted(directory.rglob("*.safetensors.index.json")):
        _check_index(index)
    config = _read_json(directory / "config.json")
    asking = [key for key in ASKS_FOR_CODE if config.get(key)]
    asking += [key for key, value in _leaves(config) if key in IMPLEMENTATIONS and value not in OWN_IMPLEMENTATIONS]
    if asking:
        raise UnsafeModel(f"Refused: config.json sets {asking[0]!r}, which asks for code to be fetched or run. Remove the key if the model works without it.")


def _check_index(path: Path) -> None:
    """Raise UnsafeModel where an index of weights in several files names a file of another format or folder."""
    shards = _read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UnsafeModel(f"{path.name} holds no weight_map. Expected the file that save_pretrained wrote.")
    for shard in shards.values():
        if not isinstance(shard, str) or "/" in shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise UnsafeModel(f"Refused: {path.name} names {shard!r}. Expected names of .safetensors files of the same folder.")


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > LARGEST_CONFIG:
        raise UnsafeModel(f"Refused: {path.name} is larger than {LARGEST_CONFIG} bytes.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnsafeModel(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise UnsafeModel(f"{path.name} does not hold a JSON object.")
    return values


def _leaves(tree: dict[str, Any], parent: str = "") -> Iterator[tuple[str, Any]]:
    """All values with their keys. In a dict of implementations, one for each part of a model, each counts under the dict's key."""
    for key, value in tree.items():
        name = parent if parent in IMPLEMENTATIONS else key
        if isinstance(value, dict):
            yield from _leaves(value, name)
        else:
            yield name, value
