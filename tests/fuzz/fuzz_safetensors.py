"""The header of a safetensors file, and the weights' values: what is taken, the library reads as the same names, types
and shapes, all finite."""

from __future__ import annotations

import json
import random
import struct

from fuzzing import change_bytes, change_json, fuzz, place, smallest_model, watched

with watched(__name__):
    from mbtsad_core.errors import UnsafeModel
    from mbtsad_core.vetting.safetensors_header import check_values, read_header

FILE = place() / "model.safetensors"


def join(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def seeds() -> list[bytes]:
    found = [smallest_model()["model.safetensors"]]
    for kind, size in {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1, "BOOL": 1}.items():
        tensors = {
            "a": {"dtype": kind, "shape": [2, 1], "data_offsets": [0, 2 * size]},
            "b": {"dtype": kind, "shape": [], "data_offsets": [2 * size, 3 * size]},
        }
        found.append(join(json.dumps({"__metadata__": {"format": "pt"}} | tensors).encode(), bytes(3 * size)))
    return [*found, join(b"{}", b""), b""]


def change(data: bytes, rng: random.Random) -> bytes:
    """The header changed as JSON, its length kept true; or the bytes behind it."""
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        return change_bytes(data, rng)
    header, body = data[8 : 8 + length], data[8 + length :]
    return join(change_json(header, rng), body) if rng.random() < 0.8 else join(header, change_bytes(body, rng))


def once(data: bytes) -> None:
    import torch
    from safetensors import safe_open

    FILE.write_bytes(data)
    try:
        tensors = read_header(FILE)
        check_values(FILE, tensors)
    except UnsafeModel:
        return
    with safe_open(FILE, framework="pt") as file:
        assert set(file.keys()) == set(tensors)
        for name, stored in tensors.items():
            tensor = file.get_tensor(name)
            assert tuple(tensor.shape) == stored.shape
            assert tensor.element_size() * tensor.numel() == stored.end - stored.begin
            assert not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


if __name__ == "__main__":
    fuzz(__file__, once, seeds(), change)
