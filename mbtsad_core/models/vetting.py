"""What a model directory must be before anything is loaded from it."""

from __future__ import annotations

import json
from pathlib import Path

from mbtsad_core.errors import UnsafeModel

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".joblib")
ASKS_FOR_CODE = ("auto_map", "trust_remote_code", "_attn_implementation_internal", "custom_pipelines", "quantization_config")
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
    path = directory / "config.json"
    if path.stat().st_size > LARGEST_CONFIG:
        raise UnsafeModel(f"Refused: config.json is larger than {LARGEST_CONFIG} bytes.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnsafeModel(f"config.json is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise UnsafeModel("config.json does not hold a JSON object.")
    if asking := [key for key in ASKS_FOR_CODE if config.get(key)]:
        raise UnsafeModel(f"Refused: config.json sets {asking[0]!r}, which asks for code to be fetched or run. Remove the key if the model works without it.")
