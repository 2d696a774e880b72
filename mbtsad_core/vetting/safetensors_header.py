"""The header of a safetensors file, read without the library and without taking memory for what it promises; and the
weights' values.

The format promises that no code runs, that offsets are in range, and that tensors neither overlap nor leave holes. It
does not promise few tensors, one entry a name, numbers that are finite, or that tensors without elements stand anywhere
in particular. Source: the format's description in the README of huggingface/safetensors.
"""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import CouldNotTell, UnsafeModel
from mbtsad_core.vetting.first_bytes import HEAD
from mbtsad_core.vetting.strict_json import check_content, parse_object

LARGEST_HEADER = 16 << 20  # bytes; the format allows 100,000,000, and ten thousand tensors need about one million
# Of an element
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOATS = ("F64", "F32", "F16", "BF16")
DIMENSIONS = 8
CHUNK = 4 << 20  # bytes of weights in memory at a time
REMEDY = "Save the weights with save_pretrained and give what it writes."


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor stands: bytes begin to end (exclusive) of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path, limits: VettingConfig = VettingConfig()) -> dict[str, Stored]:
    """The tensors of a safetensors file by name. Raises UnsafeModel, or CouldNotTell where the file cannot be read."""
    name = path.name
    try:
        with open(path, "rb", opener=lambda file, flags: os.open(file, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnsafeModel(f"Refused: {name} is no regular file.", "file.special", name)
            check_content(file.read(HEAD), name)
            file.seek(0)
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if len(head) < 8 or length > status.st_size - 8:
                raise UnsafeModel(
                    f"Refused: {name} does not hold safetensors, or was cut off. {REMEDY}", "format.disguised", name
                )
            if length > LARGEST_HEADER:
                raise UnsafeModel(
                    f"Refused: the header of {name} is larger than {LARGEST_HEADER} bytes. {REMEDY}",
                    "weights.header",
                    name,
                )
            data = file.read(length)
    except OSError as error:
        raise CouldNotTell(
            f"{name} could not be read ({error.strerror or type(error).__name__}), so it could not be judged.",
            "vet.unreadable",
            name,
        ) from error
    if data[:1] != b"{":
        raise UnsafeModel(
            f"Refused: {name} does not hold safetensors, or was cut off. {REMEDY}", "format.disguised", name
        )
    entries = parse_object(data, name)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise UnsafeModel(
            f"Refused: the __metadata__ of {name} is no object of texts. {REMEDY}", "weights.header", name
        )
    if len(entries) > limits.tensors:
        raise UnsafeModel(
            f"Refused: {name} holds {len(entries)} tensors; {limits.tensors} are allowed.", "weights.count", name
        )
    if not entries:
        raise UnsafeModel(f"Refused: {name} holds no tensor. {REMEDY}", "weights.header", name)
    found = {key: _tensor(key, entry, 8 + length, name) for key, entry in entries.items()}
    _check_layout(found, 8 + length, status.st_size, name)
    return found


def _tensor(key: str, entry: Any, start: int, name: str) -> Stored:
    shown = repr(key[:100])
    if not key or len(key) > 256 or not key.isascii() or not key.isprintable():
        raise UnsafeModel(f"Refused: {name} holds a tensor by the odd name {shown}.", "weights.name", name)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise UnsafeModel(
            f"Refused: {name} describes {shown} otherwise than by dtype, shape and data_offsets. {REMEDY}",
            "weights.header",
            name,
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES:
        raise UnsafeModel(
            f"Refused: {name} stores {shown} as {str(dtype)[:20]!r}. Expected float16, bfloat16, float32 or float64: "
            f"load the model where you trust it and save it again without quantisation.",
            "weights.dtype",
            name,
        )
    if not _whole(shape) or len(shape) > DIMENSIONS:
        raise UnsafeModel(
            f"Refused: {name} gives {shown} the shape {str(shape)[:60]}. Expected whole numbers from 0.",
            "weights.shape",
            name,
        )
    if not _whole(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise UnsafeModel(
            f"Refused: {name} gives {shown} the offsets {str(offsets)[:60]}. Expected its begin and its end.",
            "weights.offsets",
            name,
        )
    size = math.prod(shape) * BYTES[dtype]
    if size == 0:
        raise UnsafeModel(
            f"Refused: {shown} of {name} has no elements (shape {str(shape)[:60]}).", "weights.shape", name
        )
    if size != offsets[1] - offsets[0]:
        raise UnsafeModel(
            f"Refused: {shown} of {name} takes {offsets[1] - offsets[0]} bytes, and its shape {str(shape)[:60]} needs "
            f"{str(size)[:40]}.",
            "weights.shape",
            name,
        )
    return Stored(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values)


def _check_layout(tensors: dict[str, Stored], start: int, size: int, name: str) -> None:
    """Tensors follow each other from the header to the file's end."""
    reached = start
    for key, tensor in sorted(tensors.items(), key=lambda item: item[1].begin):
        if tensor.begin != reached:
            what = (
                "shares bytes with another tensor"
                if tensor.begin < reached
                else "begins behind bytes that belong to none"
            )
            raise UnsafeModel(
                f"Refused: {key!r} of {name} {what}. {REMEDY}",
                "weights.overlap" if tensor.begin < reached else "weights.hole",
                name,
            )
        reached = tensor.end
    if reached > size:
        raise UnsafeModel(
            f"Refused: {name} is cut off: its tensors need {reached} bytes, and it has {size}. {REMEDY}",
            "weights.truncated",
            name,
        )
    if reached < size:
        raise UnsafeModel(
            f"Refused: {name} holds {size - reached} bytes behind its last tensor. {REMEDY}", "weights.hole", name
        )


def check_values(path: Path, tensors: dict[str, Stored], limits: VettingConfig = VettingConfig()) -> None:
    """Raise UnsafeModel where a float tensor holds NaN or infinity, or values that are no weights. Reads the file once,
    in pieces."""
    import numpy as np

    kinds: dict[str, np.dtype[Any]] = {
        "F64": np.dtype("<f8"),
        "F32": np.dtype("<f4"),
        "F16": np.dtype("<f2"),
        "BF16": np.dtype("<u2"),
    }
    name = path.name
    try:
        with open(path, "rb") as file:
            for key, tensor in sorted(tensors.items(), key=lambda item: item[1].begin):
                if tensor.dtype not in FLOATS:
                    continue
                file.seek(tensor.begin)
                left, total = tensor.end - tensor.begin, 0.0
                while left:
                    data = file.read(min(CHUNK, left))
                    if not data or len(data) % BYTES[tensor.dtype]:
                        raise OSError("it became shorter")
                    left -= len(data)
                    x: Any = np.frombuffer(data, kinds[tensor.dtype])
                    if tensor.dtype == "BF16":  # the upper half of a float32
                        x = (x.astype(np.uint32) << 16).view(np.float32)
                    elif tensor.dtype == "F16":
                        x = x.astype(np.float32)
                    with np.errstate(all="ignore"):
                        highest = float(np.maximum(x.max(), -x.min()))
                    if not math.isfinite(highest):
                        raise UnsafeModel(
                            f"Refused: {key!r} of {name} holds NaN or infinity, so the model gives no answers. Give a "
                            "model whose training did not diverge.",
                            "weights.finite",
                            name,
                        )
                    if highest > limits.largest:
                        raise _absurd(
                            key,
                            name,
                            f"a weight of magnitude {highest:.3g}; {limits.largest:g} is the largest that is taken",
                        )
                    total += float(np.dot(x, x))
                elements = (tensor.end - tensor.begin) // BYTES[tensor.dtype]
                if (mean := math.sqrt(total / elements)) > limits.root_mean_square:
                    raise _absurd(
                        key,
                        name,
                        f"weights of root mean square {mean:.3g}; {limits.root_mean_square:g} is the largest that is "
                        "taken",
                    )
    except OSError as error:
        raise CouldNotTell(
            f"{name} could not be read ({error}), so it could not be judged.", "vet.unreadable", name
        ) from error


def _absurd(key: str, name: str, what: str) -> UnsafeModel:
    return UnsafeModel(
        f"Refused: {key!r} of {name} holds {what}. No trained encoder has such weights.", "weights.norm", name
    )
