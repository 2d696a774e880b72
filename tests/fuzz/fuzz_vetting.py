"""A model's folder: what is taken, loads and answers. The first byte says which file of a sound model is changed, or
put in under which name."""

from __future__ import annotations

import random
import shutil

from fuzzing import change_bytes, change_json, fuzz, place, smallest_model, watched

with watched(__name__):
    from fuzz_safetensors import change as change_weights

    from mbtsad_core.errors import MBTSADError
    from mbtsad_core.models.classifier import load_classifier, predict
    from mbtsad_core.vetting.model_folder import judge_folder, vet_model  # with the policies that they import

FOLDER = place() / "model"
NAMES = (
    *(
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.txt",
    ),
    *(
        "vocab.json",
        "merges.txt",
        "model.safetensors.index.json",
        "README.md",
        "pytorch_model.bin",
        "model-00001-of-00002.safetensors",
    ),
)


def seeds() -> list[bytes]:
    own = [bytes([NAMES.index(name)]) + data for name, data in smallest_model().items() if name in NAMES]
    index = b'{"metadata": {}, "weight_map": {"classifier.bias": "model-00001-of-00002.safetensors"}}'
    return [
        *own,
        bytes([NAMES.index("model.safetensors.index.json")]) + index,
        bytes([NAMES.index("added_tokens.json")]) + b'{"cf": 10}',
        b"\x0a# A card",
    ]


def change(data: bytes, rng: random.Random) -> bytes:
    name = NAMES[data[0] % len(NAMES)] if data else ""
    how = change_json if name.endswith(".json") else change_weights if name.endswith(".safetensors") else change_bytes
    return data[:1] + how(data[1:], rng)


def once(data: bytes) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    name = NAMES[data[0] % len(NAMES)] if data else NAMES[0]
    for known, contents in (smallest_model() | {name: data[1:]}).items():
        (FOLDER / known).write_bytes(contents)
    if name == "model.safetensors.index.json" and data[-1:] == b" ":
        (FOLDER / "model.safetensors").rename(FOLDER / "model-00001-of-00002.safetensors")
    try:
        judge_folder(FOLDER)
        vet_model(FOLDER)
    except MBTSADError:
        return
    try:
        classifier = load_classifier(FOLDER)  # a sound model can be unsuitable still
    except MBTSADError:
        return
    logits = predict(classifier, ["a lovely film, \u6620\u753b"])
    assert logits.shape == (1, len(classifier.labels))


if __name__ == "__main__":
    fuzz(__file__, once, seeds(), change)
