"""Headers: what is accepted here, the library reads, to the same bytes; what the library refuses is refused here."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import CouldNotTell, UnsafeModel
from mbtsad_core.vetting.safetensors_header import check_values, read_header

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor(3.5),
    "c": torch.ones(5, dtype=torch.float16),
    "d": torch.arange(4),
    "e": torch.ones(2, 2, dtype=torch.bfloat16),
}


def write(path: Path, header: Any, body: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def one(path: Path, values: np.ndarray[Any, Any], dtype: str) -> Path:
    data = values.tobytes()
    return write(path, {"w": {"dtype": dtype, "shape": list(values.shape), "data_offsets": [0, len(data)]}}, data)


def test_names_shapes_types_and_places_are_those_of_the_library(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = read_header(tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    assert {name: t.shape for name, t in found.items()} == {name: tuple(t.shape) for name, t in TENSORS.items()}
    assert {name: t.dtype for name, t in found.items()} == {"a": "F32", "b": "F32", "c": "F16", "d": "I64", "e": "BF16"}
    for name, tensor in TENSORS.items():
        assert (
            data[found[name].begin : found[name].end]
            == tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )


def test_what_is_accepted_the_library_reads(tmp_path: Path) -> None:
    """Random changes to a header: never is one accepted here that the library refuses, or read otherwise."""
    save_file(TENSORS, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    rng = random.Random(0)
    numbers = [0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 28, 32, 100, 1000, -1]
    accepted = refused = 0
    for _ in range(1500):
        changed = json.loads(json.dumps(header))
        for _ in range(rng.randint(0, 2)):
            entry = changed[rng.choice("abcde")]
            key = rng.choice(["shape", "data_offsets", "dtype"])
            if key == "dtype":
                entry[key] = rng.choice(["F32", "F16", "U8", "I64", "BOOL", "F64", "F8_E5M2"])
            elif entry[key] and rng.random() < 0.8:
                entry[key][rng.randrange(len(entry[key]))] = rng.choice(numbers)
            else:
                entry[key] = rng.sample(numbers, rng.randint(0, 3))
        path = write(
            tmp_path / "y.safetensors", changed, body if rng.random() < 0.8 else body[: rng.randrange(len(body))]
        )
        try:
            found = read_header(path)
        except UnsafeModel:
            refused += 1
            continue
        accepted += 1
        with safe_open(path, "pt") as opened:
            assert {name: list(t.shape) for name, t in found.items()} == {
                name: list(opened.get_tensor(name).shape)
                for name in opened.keys()  # noqa: SIM118
            }
    assert accepted > 100
    assert refused > 500


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 50, -1])
def test_what_the_library_cannot_open_is_refused(tmp_path: Path, keep: int) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:keep])
    with pytest.raises(SafetensorError), safe_open(tmp_path / "y.safetensors", "pt"):
        pass
    with pytest.raises(UnsafeModel):
        read_header(tmp_path / "y.safetensors")


@pytest.mark.parametrize(("text", "begin"), [('"\\ud800"', "0"), ("1e400", "0"), ('"x"', "-0")])
def test_a_header_that_python_would_read_and_the_library_would_not_is_refused(
    tmp_path: Path, text: str, begin: str
) -> None:
    """The first and the last were found by fuzzing."""
    header = (
        f'{{"__metadata__": {{"a": {text}}}, "w": {{"dtype": "U8", "shape": [1], "data_offsets": [{begin}, 1]}}}}'
    ).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(SafetensorError), safe_open(tmp_path / "x.safetensors", "pt"):
        pass
    with pytest.raises(UnsafeModel) as refused:
        read_header(tmp_path / "x.safetensors")
    assert refused.value.rule == "json.malformed"


def test_a_file_that_is_not_there_is_not_judged(tmp_path: Path) -> None:
    with pytest.raises(CouldNotTell) as found:
        read_header(tmp_path / "x.safetensors")
    assert found.value.rule == "vet.unreadable"


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["F16", "F32", "F64", "BF16"])
@pytest.mark.parametrize("at", [0, 3_000_000, 4_199_999])
def test_one_value_that_is_not_finite_is_found_wherever_it_stands(
    tmp_path: Path, bad: float, kind: str, at: int
) -> None:
    """4.2 million values: more than are in memory at a time."""
    if kind == "BF16":
        values: Any = np.full(4_200_000, 0x3F80, np.uint16)  # 1.0
        values[at] = {"nan": 0x7FC0, "inf": 0x7F80, "-inf": 0xFF80}[str(bad)]
    else:
        values = np.ones(4_200_000, {"F16": np.float16, "F32": np.float32, "F64": np.float64}[kind])
        values[at] = bad
    path = one(tmp_path / "x.safetensors", values, kind)
    with pytest.raises(UnsafeModel, match=r"'w' of x\.safetensors holds NaN or infinity") as refused:
        check_values(path, read_header(path))
    assert refused.value.rule == "weights.finite"


@pytest.mark.parametrize(
    ("values", "sound"),
    [
        ([9e4], False),
        ([999.0] * 4, True),
        ([1001.0] * 4, False),
        ([1e5] + [0.0] * 99_999, True),
        ([1.1e5] + [0.0] * 99_999, False),
        ([-1.1e5] + [0.0] * 99_999, False),
    ],
    ids=["one large", "rms below", "rms above", "an outlier", "an outlier above", "a negative one"],
)
@pytest.mark.parametrize("kind", ["F32", "F64"])
def test_absurd_values_are_refused_by_magnitude_and_by_root_mean_square(
    tmp_path: Path, values: list[float], sound: bool, kind: str
) -> None:
    path = one(tmp_path / "x.safetensors", np.array(values, {"F32": np.float32, "F64": np.float64}[kind]), kind)
    if sound:
        check_values(path, read_header(path))
        return
    with pytest.raises(UnsafeModel) as refused:
        check_values(path, read_header(path))
    assert refused.value.rule == "weights.norm"


def test_whole_numbers_are_no_weights_and_not_looked_at(tmp_path: Path) -> None:
    path = one(tmp_path / "x.safetensors", np.array([1 << 62]), "I64")
    check_values(path, read_header(path), VettingConfig(largest=1.0))


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(("count", "sound"), [(100, True), (101, False)])
def test_tensors_are_counted(tmp_path: Path, count: int, sound: bool) -> None:
    """Headers of very many cost minutes and gigabytes."""
    header = {
        f"bert.encoder.layer.{i}.weight": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
        for i in range(count)
    }
    path = write(tmp_path / "x.safetensors", header, bytes(4 * count))
    if sound:
        assert len(read_header(path, VettingConfig(tensors=100))) == count
        return
    with pytest.raises(UnsafeModel, match="holds 101 tensors; 100 are allowed") as refused:
        read_header(path, VettingConfig(tensors=100))
    assert refused.value.rule == "weights.count"
