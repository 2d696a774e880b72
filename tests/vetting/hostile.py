"""Hostile models, each made from a valid one by a change of one thing, with the rule that it breaks.

    python tests/vetting/hostile.py FOLDER     writes all of them, and valid/, with the rules in rules.json

Each breaks its rule in the most harmless way: nothing here crashes, stops or fools other software. What the real thing
does is told beside it, with the number of the advisory where there is one; what is large or deep is only so beside the
small limits that it is judged with.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import pickle
import stat
import struct
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbtsad_core.config import UploadConfig, VettingConfig

Files = dict[str, bytes]
EXAMPLE = "example"  # where a file could name code to fetch or run: this names nothing that there is
# The rule goes by the name; of what loading others calls, see CVE-2025-32434 and CVE-2024-3568
PICKLE = pickle.dumps({"weight": [1.0]})
PLAIN = {
    "Regex": "a"
    # An expression that no known family has; others are matched by backtracking and never end (CVE-2025-3933,
    # CVE-2025-5197)
}


@dataclass(frozen=True)
class Hostile:
    """An upload: `files` by name, or the bytes of a zip.

    rule      that it breaks
    harmless  it is taken, and what is hostile of it is not read: `rule` stands at a file that is ignored, or accepted
              with a note
    uploads   limits that it is received with, of the upload and of the model
    """

    name: str
    rule: str
    files: Files | None = None
    zip: bytes | None = None
    harmless: bool = False
    uploads: UploadConfig = UploadConfig()
    limits: VettingConfig = VettingConfig()


def zipped(files: Files, folder: str = "") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(folder + name, data)
    return out.getvalue()


def with_entry(files: Files, info: zipfile.ZipInfo | str, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of the files and of one entry more."""
    out = io.BytesIO(zipped(files))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(info, data, compress_type=method)
    return out.getvalue()


def marked(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def split_weights(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors' bytes of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_weights(header: dict[str, Any] | bytes, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def all_hostile(valid: Files) -> Iterator[Hostile]:
    """Every hostile upload, from the files of a valid tiny BERT as save_pretrained writes them."""
    yield from formats(valid)
    yield from names(valid)
    yield from zips(valid)
    yield from configs(valid)
    yield from json_texts(valid)
    yield from weights(valid)
    yield from tokenizers(valid)
    yield from harmless(valid)


# ---------------------------------------------------------------- formats


def formats(valid: Files) -> Iterator[Hostile]:
    code = b"pass\n"
    torch_file = zipped({"archive/data.pkl": PICKLE, "archive/version": b"3\n"})
    for name in (
        *(
            "pytorch_model.bin",
            "model.pt",
            "model.pth",
            "last.ckpt",
            "weights.pkl",
            "weights.pickle",
            "model.joblib",
            "model.dill",
        ),
        *(
            "embeddings.npy",
            "arrays.npz",
            "training_args.bin",
            "optimizer.pt",
            "scheduler.pt",
            "rng_state.pth",
            "PYTORCH_MODEL.BIN",
        ),
        *("pytorch_model.bin.", "README.pkl", "model.safetensors.bin"),
    ):
        yield Hostile(
            f"pickle {name}",
            "format.pickle",
            valid | {name: torch_file if name.endswith(("bin", "pt", "pth")) else PICKLE},
        )
    for name in (
        "model.gguf",
        "model.onnx",
        "model.ort",
        "tf_model.h5",
        "model.keras",
        "flax_model.msgpack",
        "rust_model.ot",
        "saved_model.pb",
        "m.tflite",
    ):
        yield Hostile(f"format {name}", "format.other", valid | {name: b"GGUF" + bytes(60)})
    for name in (
        "modeling_tiny.py",
        "tokenization_tiny.py",
        "setup.py",
        "run.sh",
        "kernel.so",
        "kernel.dll",
        "notes.ipynb",
        "a.pyc",
        "example.js",
        "x.bat",
    ):
        yield Hostile(f"code {name}", "format.code", valid | {name: code})
    for name, data in {
        "pickle": PICKLE,
        "torch file": torch_file,
        "page": b"<!doctype html><p>Not found</p>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        "nothing": b"",
        "gguf": b"GGUF" + bytes(60),
        "header longer than the file": struct.pack("<Q", 3) + b"{}",
        "header cut": struct.pack("<Q", 100) + b"{}",
        "list": join_weights(b"[]", b""),
    }.items():
        yield Hostile(f"disguised {name}", "format.disguised", valid | {"model.safetensors": data})


def names(valid: Files) -> Iterator[Hostile]:
    for name in ("/x.txt", "../x.txt", "a/../../x.txt", "..\\x.txt", "C:/x.txt", "a//x.txt", "./x.txt"):
        yield Hostile(f"path {name}", "file.path", valid | {name: b"x"})
        yield Hostile(f"zip path {name}", "zip.path", zip=zipped(valid | {name: b"x"}))
    for name in ("a\nb.txt", "a\x1b[2Jb.txt", "txt.\u202eexe", "a\u200bb.txt", "n" * 300 + ".txt"):
        yield Hostile(f"name {ascii(name)[:24]}", "file.name", valid | {name: b"x"})
        yield Hostile(f"zip name {ascii(name)[:24]}", "zip.name", zip=zipped(valid | {name: b"x"}))
    yield Hostile(
        "name weights with a space", "file.name", valid | {"model (1).safetensors": valid["model.safetensors"]}
    )
    yield Hostile("case", "file.case", valid | {"Config.json": valid["config.json"]})
    yield Hostile("archive", "file.nested", valid | {"more.tar.gz": b"\x1f\x8b" + bytes(20)})
    yield Hostile(
        "two folders",
        "file.folder",
        {(f"a/{n}" if n == "config.json" else f"b/{n}"): data for n, data in valid.items()},
    )


# ---------------------------------------------------------------- zips


def zips(valid: Files) -> Iterator[Hostile]:
    whole = zipped(valid)
    yield Hostile("zip cut off", "zip.malformed", zip=whole[: len(whole) // 2])
    yield Hostile("zip of nothing", "zip.malformed", zip=b"")
    yield Hostile("zip that is a page", "zip.malformed", zip=b"<!doctype html>")
    yield Hostile(
        "zip link", "zip.link", zip=with_entry(valid, marked("vocab.txt", stat.S_IFLNK | 0o777), b"elsewhere.txt")
    )
    for kind, mode in (
        ("pipe", stat.S_IFIFO),
        ("device", stat.S_IFCHR),
        ("disk", stat.S_IFBLK),
        ("socket", stat.S_IFSOCK),
    ):
        yield Hostile(f"zip {kind}", "zip.special", zip=with_entry(valid, marked("vocab.txt", mode | 0o644), b""))
    yield Hostile("zip case", "zip.case", zip=with_entry(valid, "CONFIG.json", valid["config.json"]))
    yield Hostile("zip nested", "zip.nested", zip=with_entry(valid, "inner.zip", whole))
    yield Hostile("zip pickle", "format.pickle", zip=with_entry(valid, "pytorch_model.bin", PICKLE))
    yield Hostile("zip code", "format.code", zip=with_entry(valid, "modeling_tiny.py", b"pass\n"))
    yield Hostile("zip bzip2", "zip.method", zip=with_entry(valid, "vocab.txt", b"a\n", zipfile.ZIP_BZIP2))
    yield Hostile("zip LZMA", "zip.method", zip=with_entry(valid, "vocab.txt", b"a\n", zipfile.ZIP_LZMA))
    # A zip bomb grows a thousand times and fills the disk; two megabytes that grow more than twice stand for it.
    yield Hostile(
        "zip that grows",
        "zip.ratio",
        zip=with_entry(valid, "vocab.txt", b"a\n" * (1 << 20)),
        uploads=UploadConfig(ratio=2),
    )
    yield Hostile(
        "zip that grows where nobody reads",
        "zip.ratio",
        zip=with_entry(valid, "x.dat", bytes(2 << 20)),
        uploads=UploadConfig(ratio=2),
    )
    yield Hostile(
        "zip of more bytes than allowed",
        "size.total",
        zip=with_entry(valid, "x.dat", bytes(2 << 20)),
        uploads=UploadConfig(megabytes=1),
    )
    notes = {f"note{i}.md": b"" for i in range(10)}
    yield Hostile("zip of many entries", "zip.entries", zip=zipped(valid | notes), uploads=UploadConfig(entries=10))
    yield Hostile(
        "zip folders",
        "zip.folder",
        zip=zipped({(f"a/{n}" if n == "config.json" else f"b/{n}"): data for n, data in valid.items()}),
    )
    encrypted = bytearray(with_entry(valid, "vocab.txt", b"a\n"))
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        encrypted[encrypted.rindex(mark) + offset] |= 1
    yield Hostile("zip encrypted", "zip.encrypted", zip=bytes(encrypted))
    renamed = whole.replace(b"tokenizer.json", b"tokenizer.jsno", 1)
    yield Hostile("zip entry by another name in the list", "zip.damaged", zip=renamed)
    flipped = bytearray(whole)
    flipped[whole.index(b"model.safetensors") + 400] ^= 255
    yield Hostile("zip with a flipped byte", "zip.damaged", zip=bytes(flipped))


# ---------------------------------------------------------------- config.json


def configs(valid: Files) -> Iterator[Hostile]:
    config = json.loads(valid["config.json"])

    def changed(name: str, rule: str, limits: VettingConfig = VettingConfig(), /, **changes: Any) -> Hostile:
        return Hostile(
            f"config {name}", rule, valid | {"config.json": json.dumps(config | changes).encode()}, limits=limits
        )

    # Classes of the model's own, which other software fetches and runs; of trust_remote_code within a config see
    # CVE-2026-5241.
    for key in (
        "auto_map",
        "trust_remote_code",
        "custom_pipelines",
        "custom_generate",
        "quantization_config",
        "code_revision",
    ):
        yield changed(key, "config.code", **{key: EXAMPLE})
        yield changed(f"{key} in an object", "config.code", text_config={key: {EXAMPLE: EXAMPLE}})
        yield changed(f"{key} in a list", "config.code", heads=[{"x": [{key: [EXAMPLE]}]}])
    # A name of a repository there is fetched and its code run, whatever trust_remote_code says: CVE-2026-4372.
    for key in ("_attn_implementation_internal", "_experts_implementation_internal", "use_kernels", "kernel_config"):
        yield changed(key, "config.kernel", **{key: EXAMPLE})
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"):
        yield changed(key, "config.kernel", **{key: EXAMPLE})
    yield changed(
        "attn_implementation by part", "config.kernel", attn_implementation={"": "sdpa", "text_config": EXAMPLE}
    )
    yield changed("attn_implementation in a list", "config.kernel", parts=[{"attn_implementation": [EXAMPLE]}])
    for kind in ("no-such-model", "gptj", "", None, 3, ["bert"]):
        yield changed(f"model_type {kind!r}", "config.architecture", model_type=kind)
    for what, small in {
        "layers": dict(layers=1),
        "width": dict(hidden=31),
        "heads": dict(heads=3),
        "words": dict(vocabulary=50),
    }.items():
        yield changed(f"{what} more than allowed", "config.value", VettingConfig(**small))  # type: ignore[arg-type]
    yield changed("positions more than allowed", "config.value", VettingConfig(positions=63))
    yield changed("classes more than allowed", "config.labels", VettingConfig(labels=1))
    for key, value in {
        "num_hidden_layers": 0,
        "hidden_size": "32",
        "num_attention_heads": 0,
        "intermediate_size": -1,
        "vocab_size": 0,
        "max_position_embeddings": 0,
        "type_vocab_size": 65,
        "hidden_dropout_prob": 2.0,
        "attention_probs_dropout_prob": "0.1",
        "layer_norm_eps": 0,
        "initializer_range": 101,
        "hidden_act": EXAMPLE,
        "pad_token_id": -5,
        "bos_token_id": -1,
        "architectures": ["not a name"],
        "problem_type": EXAMPLE,
        "is_decoder": True,
        "add_cross_attention": True,
        "is_encoder_decoder": True,
        "tie_word_embeddings": "yes",
        "use_cache": [],
        "dtype": "float8_e4m3fn",
        "torch_dtype": EXAMPLE,
        "pruned_heads": {"0": [0]},
        "chunk_size_feed_forward": -1,
        "position_embedding_type": "relative_key",
        "classifier_dropout": True,
        "num_labels": 0,
    }.items():
        yield changed(f"{key} {str(value)[:20]}", "config.value", **{key: value})
    yield changed("heads that do not divide the width", "config.value", num_attention_heads=5)
    yield changed("pad_token_id beyond the embeddings", "config.value", pad_token_id=config["vocab_size"])
    for name, labels in {
        "of a class -1": {"-1": "negative", "1": "positive"},
        "of a class beyond those allowed": {"0": "negative", "1000": "positive"},
        "with an escape": {"0": "negative", "1": "\x1b[2Jpositive"},
        "written backwards": {"0": "negative", "1": "\u202eevitisop"},
        "with a NUL": {"0": "negative", "1": "positive\0"},
        "too long": {"0": "negative", "1": "p" * 257},
        "that is a list": {"0": "negative", "1": ["positive"]},
        "empty": {"0": "negative", "1": ""},
        "too many": {str(i): f"c{i}" for i in range(1001)},
    }.items():
        yield changed(f"label {name}", "config.labels", id2label=labels)
    yield changed("labels as a list", "config.value", id2label=["negative", "positive"])
    yield changed("positions too few", "config.value", max_position_embeddings=4)
    yield changed("width other than the weights", "weights.mismatch", intermediate_size=128)
    yield changed(
        "classes other than the weights",
        "weights.mismatch",
        id2label={"0": "a", "1": "b", "2": "c"},
        label2id={"a": 0, "b": 1, "c": 2},
    )
    yield changed("layers more than the weights", "weights.missing", num_hidden_layers=3)
    yield changed("layers fewer than the weights", "weights.unknown", num_hidden_layers=1)
    yield changed("another architecture", "weights.unknown", model_type="roberta")
    yield changed(
        "a model of two megabytes where one is allowed", "size.memory", VettingConfig(megabytes=1), vocab_size=16_000
    )
    yield Hostile("config missing", "config.missing", {n: data for n, data in valid.items() if n != "config.json"})


def json_texts(valid: Files) -> Iterator[Hostile]:
    """Texts that JSON's readers differ in, or break on, in each file that is read."""
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        sound = valid[name].decode()
        inside = sound.strip().removeprefix("{")
        for what, rule, text in (
            ("deep", "json.depth", '{"a":' * 65 + "1" + "}" * 65),
            ("deep lists", "json.depth", '{"a":' + "[" * 64 + "]" * 64 + "}"),
            ("deep inside", "json.depth", '{"zzz": ' + "[" * 64 + "]" * 64 + ", " + inside),
            ("open", "json.malformed", sound.rstrip()[:-1]),
            ("more behind", "json.malformed", sound + "{}"),
            ("NaN", "json.malformed", '{"zzz": NaN, ' + inside),
            ("Infinity", "json.malformed", '{"zzz": -Infinity, ' + inside),
            ("long number", "json.malformed", '{"zzz": ' + "9" * 5000 + ", " + inside),
            ("list", "json.malformed", f"[{sound}]"),
            ("comment", "json.malformed", "// sound\n" + sound),
            ("key twice", "json.duplicate", '{"zzz": 1, "zzz": 2, ' + inside),
        ):
            yield Hostile(f"json {name} {what}", rule, valid | {name: text.encode()})
        yield Hostile(f"json {name} latin", "json.malformed", valid | {name: b'{"zzz": "\xe9", ' + inside.encode()})
        yield Hostile(f"json {name} utf-16", "json.malformed", valid | {name: sound.encode("utf-16")})
    large = b" " * (1 << 20)
    yield Hostile("json config.json large", "size.json", valid | {"config.json": large + valid["config.json"]})
    yield Hostile(
        "json tokenizer.json large",
        "size.json",
        valid | {"tokenizer.json": large + valid["tokenizer.json"]},
        uploads=UploadConfig(json_megabytes=1),
    )


# ---------------------------------------------------------------- weights


def weights(valid: Files) -> Iterator[Hostile]:
    header, body = split_weights(valid["model.safetensors"])
    first = min((k for k in header if k != "__metadata__"), key=lambda k: header[k]["data_offsets"])
    last = max((k for k in header if k != "__metadata__"), key=lambda k: header[k]["data_offsets"])
    size = len(body)

    def put(name: str, rule: str, data: bytes) -> Hostile:
        return Hostile(f"weights {name}", rule, valid | {"model.safetensors": data})

    def changed(name: str, rule: str, key: str, **changes: Any) -> Hostile:
        return put(name, rule, join_weights({**header, key: {**header[key], **changes}}, body))

    yield Hostile("weights more tensors than allowed", "weights.count", valid, limits=VettingConfig(tensors=10))
    yield changed(
        "shape larger than its bytes",
        "weights.shape",
        first,
        shape=[header[first]["shape"][0] + 1, *header[first]["shape"][1:]],
    )
    yield changed("shape smaller than its bytes", "weights.shape", first, shape=[1])
    yield changed("shape negative", "weights.shape", first, shape=[-1])
    yield changed("shape of fractions", "weights.shape", first, shape=[1.5])
    yield changed("shape of truth", "weights.shape", first, shape=[True])
    yield changed("shape of a text", "weights.shape", first, shape="32")
    yield changed("shape of nine dimensions", "weights.shape", first, shape=[1] * 9)
    yield changed("shape empty", "weights.shape", first, shape=[0], data_offsets=[0, 0])
    yield changed("dtype quantized", "weights.dtype", first, dtype="F8_E4M3")
    yield changed("dtype unknown", "weights.dtype", first, dtype="EXAMPLE")
    yield changed("dtype a list", "weights.dtype", first, dtype=["F32"])
    yield changed("dtype of whole numbers", "weights.dtype", first, dtype="I32")
    yield changed("offsets backwards", "weights.offsets", first, data_offsets=header[first]["data_offsets"][::-1])
    yield changed("offsets negative", "weights.offsets", first, data_offsets=[-4, header[first]["data_offsets"][1] - 4])
    yield changed("offsets of three", "weights.offsets", first, data_offsets=[*header[first]["data_offsets"], 8])
    begin, end = header[last]["data_offsets"]
    yield changed("offsets beyond the file", "weights.hole", last, data_offsets=[begin + 1000, end + 1000])
    yield changed("offsets that overlap", "weights.overlap", last, data_offsets=[begin - 4, end - 4])
    yield changed("offsets of another tensor", "weights.overlap", last, data_offsets=[0, end - begin])
    yield changed("keys too many", "weights.header", first, code=EXAMPLE)
    yield put("entry a list", "weights.header", join_weights({**header, first: []}, body))
    yield put("metadata of numbers", "weights.header", join_weights({**header, "__metadata__": {"format": 1}}, body))
    yield put("metadata a list", "weights.header", join_weights({**header, "__metadata__": ["pt"]}, body))
    yield put("no tensors", "weights.header", join_weights({"__metadata__": {"format": "pt"}}, b""))
    moved = copy.deepcopy(header)
    moved[last]["data_offsets"] = [begin + 8, end + 8]
    yield put("hole", "weights.hole", join_weights(moved, body[:begin] + bytes(8) + body[begin:]))
    yield put("bytes behind the last tensor", "weights.hole", valid["model.safetensors"] + b"a note")
    yield put("one byte cut off", "weights.truncated", valid["model.safetensors"][:-1])
    yield put(
        "half cut off", "weights.truncated", valid["model.safetensors"][: len(valid["model.safetensors"]) - size // 2]
    )
    yield put(
        "key twice",
        "json.duplicate",
        join_weights(json.dumps(header)[:-1].encode() + b", " + json.dumps({first: header[first]})[1:].encode(), body),
    )
    yield put("header deep", "json.depth", join_weights(b'{"a":' * 65 + b"1" + b"}" * 65, body))
    yield put("header no JSON", "json.malformed", join_weights(b"{" + b"x" * 100, body))
    yield put(
        "name with an escape",
        "weights.name",
        join_weights({**{k: v for k, v in header.items() if k != first}, "\x1b[2J": header[first]}, body),
    )
    yield put(
        "name too long",
        "weights.name",
        join_weights({**{k: v for k, v in header.items() if k != first}, "n" * 1001: header[first]}, body),
    )
    more = {**header, "hidden.payload": {"dtype": "U8", "shape": [64], "data_offsets": [size, size + 64]}}
    yield put("tensor that no model has", "weights.unknown", join_weights(more, body + bytes(64)))
    again = {
        **header,
        "bert.embeddings.LayerNorm.gamma": {"dtype": "F32", "shape": [32], "data_offsets": [size, size + 128]},
    }
    yield put("tensor by its old name too", "weights.duplicate", join_weights(again, body + bytes(128)))
    for what, value, rule in (
        ("NaN", float("nan"), "weights.finite"),
        ("infinity", float("inf"), "weights.finite"),
        ("minus infinity", float("-inf"), "weights.finite"),
        ("10^38", 1e38, "weights.norm"),
    ):
        yield put(f"value {what}", rule, valid["model.safetensors"][:-4] + struct.pack("<f", value))
    begin, end = header[first]["data_offsets"]
    loud = struct.pack("<f", 9e4) * ((end - begin) // 4)
    yield put("values all large", "weights.norm", join_weights(header, body[:begin] + loud + body[end:]))
    for what, bits in (("float16", b"\x00\x7e"), ("bfloat16", b"\xc0\x7f")):
        halved = {**header, last: {**header[last], "dtype": {"float16": "F16", "bfloat16": "BF16"}[what]}}
        start, stop = header[last]["data_offsets"]
        halved[last]["data_offsets"] = [start, start + (stop - start) // 2]
        yield put(
            f"value NaN of {what}", "weights.finite", join_weights(halved, body[:start] + bits * ((stop - start) // 4))
        )
    without = {k: v for k, v in header.items() if k != last}
    yield put("weight missing", "weights.missing", join_weights(without, body[: header[last]["data_offsets"][0]]))
    yield Hostile(
        "weights missing", "weights.missing", {n: data for n, data in valid.items() if n != "model.safetensors"}
    )
    yield Hostile("weights stray", "weights.stray", valid | {"adapter_model.safetensors": valid["model.safetensors"]})
    names = [k for k in header if k != "__metadata__"]
    for what, rule, shard in (
        ("to a pickle", "weights.index", "pytorch_model.bin"),
        ("above", "weights.index", "../model.safetensors"),
        ("to the root", "weights.index", "/model.safetensors"),
        ("backslash", "weights.index", "..\\model.safetensors"),
        ("with a NUL", "weights.index", "x\0.safetensors"),
        ("to a number", "weights.index", 3),
        ("beside the single file", "weights.ambiguous", "model.safetensors"),
    ):
        index = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, shard)}).encode()
        yield Hostile(f"index {what}", rule, valid | {"model.safetensors.index.json": index})
    others = {n: data for n, data in valid.items() if n != "model.safetensors"}
    part = "model-00001-of-00001.safetensors"
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, part)}
    yield Hostile(
        "index to a missing file",
        "weights.missing",
        others
        | {"model.safetensors.index.json": json.dumps(index).encode(), "other.safetensors": valid["model.safetensors"]},
    )
    odd = {"metadata": {}, "weight_map": dict.fromkeys(names[1:], part)}
    yield Hostile(
        "index that forgets a tensor",
        "weights.index",
        others | {"model.safetensors.index.json": json.dumps(odd).encode(), part: valid["model.safetensors"]},
    )
    yield Hostile(
        "index without a map", "weights.index", valid | {"model.safetensors.index.json": b'{"weight_map": []}'}
    )


# ---------------------------------------------------------------- tokenizers


def tokenizers(valid: Files) -> Iterator[Hostile]:
    tokenizer = json.loads(valid["tokenizer.json"])
    settings = json.loads(valid["tokenizer_config.json"])

    def changed(name: str, rule: str, **changes: Any) -> Hostile:
        return Hostile(f"tokenizer {name}", rule, valid | {"tokenizer.json": json.dumps(tokenizer | changes).encode()})

    def set_to(name: str, rule: str, **changes: Any) -> Hostile:
        return Hostile(
            f"settings {name}", rule, valid | {"tokenizer_config.json": json.dumps(settings | changes).encode()}
        )

    def model(**changes: Any) -> dict[str, Any]:
        return {"model": tokenizer["model"] | changes}

    split = {"type": "Split", "pattern": PLAIN, "behavior": "Removed", "invert": False}
    replace = {"type": "Replace", "pattern": PLAIN, "content": ""}
    yield changed("split by an expression", "tokenizer.regex", pre_tokenizer=split)
    yield changed(
        "split by an expression, in a sequence",
        "tokenizer.regex",
        pre_tokenizer={"type": "Sequence", "pretokenizers": [split]},
    )
    yield changed("replacement of an expression", "tokenizer.regex", normalizer=replace)
    yield changed(
        "replacement of an expression, in a sequence",
        "tokenizer.regex",
        normalizer={"type": "Sequence", "normalizers": [replace]},
    )
    yield changed("decoder with an expression", "tokenizer.regex", decoder=replace)
    yield changed(
        "regex of a family with one letter more",
        "tokenizer.regex",
        normalizer={"type": "Replace", "pattern": {"Regex": " {2,}a"}, "content": " "},
    )
    # Eight of these, each by a hundred letters, make a text 10^16 times longer; this one doubles an "a".
    yield changed(
        "replacement that grows",
        "tokenizer.component",
        normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "aa"},
    )
    yield changed(
        "replacement by one letter",
        "tokenizer.component",
        normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
    )
    yield changed("component unknown", "tokenizer.component", normalizer={"type": "Example"})
    yield changed("component without type", "tokenizer.component", pre_tokenizer={})
    yield changed("component a text", "tokenizer.component", pre_tokenizer="Whitespace")
    yield changed("setting unknown", "tokenizer.component", normalizer=tokenizer["normalizer"] | {"code": EXAMPLE})
    deep: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(2):
        deep = {"type": "Sequence", "normalizers": [deep]}
    yield changed("sequences in sequences", "tokenizer.component", normalizer=deep)
    yield changed(
        "sequence of 17", "tokenizer.component", normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}] * 17}
    )
    # Tables that lead a reader out of them end the process that reads on; these are none, which every reader says.
    for what, charsmap in {
        "nothing": "",
        "one byte": base64.b64encode(b"\x01").decode(),
        "no base64": "§",
        "a number": 3,
    }.items():
        yield changed(
            f"charsmap {what}",
            "tokenizer.component",
            normalizer={"type": "Precompiled", "precompiled_charsmap": charsmap},
        )
    template = tokenizer["post_processor"]
    typed = [{"Sequence": {"id": "A", "type_id": 7}}]
    yield changed(
        "template that repeats the text",
        "tokenizer.component",
        post_processor=template | {"single": template["single"][1:2] * 2},
    )
    yield changed(
        "template of 17 pieces",
        "tokenizer.component",
        post_processor=template | {"single": template["single"][:1] * 17},
    )
    yield changed(
        "template without its tokens", "tokenizer.component", post_processor=template | {"special_tokens": {}}
    )
    far = {
        "[CLS]": {"id": "[CLS]", "ids": [1000], "tokens": ["[CLS]"]},
        "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
    }
    yield changed(
        "template beyond the embeddings", "tokenizer.vocabulary", post_processor=template | {"special_tokens": far}
    )
    yield changed(
        "template of a type that the model has not", "tokenizer.component", post_processor=template | {"single": typed}
    )
    roberta = {
        "type": "RobertaProcessing",
        "sep": ["</s>", 1000],
        "cls": ["<s>", 0],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
    yield changed("separator beyond the embeddings", "tokenizer.vocabulary", post_processor=roberta)
    yield changed("model unknown", "tokenizer.component", **model(type="Example"))
    yield changed("model gone", "tokenizer.malformed", model=None)
    yield changed("part unknown", "tokenizer.component", example=EXAMPLE)
    yield changed("words of 1001 letters", "tokenizer.component", **model(max_input_chars_per_word=1001))
    yield changed("vocabulary empty", "tokenizer.malformed", **model(vocab={}))
    yield changed("vocabulary a list", "tokenizer.malformed", **model(vocab=[]))
    yield changed(
        "token beyond the embeddings",
        "tokenizer.vocabulary",
        **model(vocab=tokenizer["model"]["vocab"] | {"example": 1000}),
    )
    yield changed(
        "token of a negative number",
        "tokenizer.vocabulary",
        **model(vocab=tokenizer["model"]["vocab"] | {"example": -1}),
    )
    yield changed(
        "token of a fraction", "tokenizer.vocabulary", **model(vocab=tokenizer["model"]["vocab"] | {"example": 1.5})
    )
    yield changed(
        "token of 1001 letters", "tokenizer.vocabulary", **model(vocab=tokenizer["model"]["vocab"] | {"e" * 1001: 9})
    )
    most = VettingConfig(vocabulary=len(tokenizer["model"]["vocab"]) + 1)
    more = {f"t{i}": 9 for i in range(most.vocabulary)}
    yield dataclasses.replace(
        changed(
            "vocabulary larger than allowed", "tokenizer.vocabulary", **model(vocab=tokenizer["model"]["vocab"] | more)
        ),
        limits=most,
    )
    added = tokenizer["added_tokens"][0]
    yield changed("added token beyond the embeddings", "tokenizer.vocabulary", added_tokens=[added | {"id": 1000}])
    yield changed("added token of nothing", "tokenizer.vocabulary", added_tokens=[added | {"content": ""}])
    yield changed(
        "added tokens, 20,001",
        "tokenizer.vocabulary",
        added_tokens=[{"content": f"t{i}", "id": 9} for i in range(20_001)],
    )
    yield changed("added tokens a text", "tokenizer.vocabulary", added_tokens=EXAMPLE)
    vocabulary = {"a": 0, "b": 1, "ab": 2}
    bpe = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
    }
    yield changed(
        "merge of unknown tokens", "tokenizer.malformed", model=bpe | {"vocab": vocabulary, "merges": [["x", "y"]]}
    )
    yield changed(
        "merge of three", "tokenizer.malformed", model=bpe | {"vocab": vocabulary, "merges": [["a", "b", "c"]]}
    )
    yield changed(
        "dropout", "tokenizer.component", model=bpe | {"dropout": 0.5, "vocab": vocabulary, "merges": [["a", "b"]]}
    )
    yield changed(
        "unknown token beyond the vocabulary",
        "tokenizer.vocabulary",
        model={"type": "Unigram", "unk_id": 9, "vocab": [["a", -1.0]]},
    )
    yield changed(
        "score far out", "tokenizer.vocabulary", model={"type": "Unigram", "unk_id": 0, "vocab": [["a", -2e9]]}
    )
    yield set_to("auto_map", "config.code", auto_map={EXAMPLE: [EXAMPLE, None]})
    yield set_to("trust_remote_code", "config.code", trust_remote_code=EXAMPLE)
    for kind in ("ExampleTokenizer", "example", 3):
        yield set_to(f"tokenizer_class {kind}", "tokenizer.class", tokenizer_class=kind)
    for key, value in {
        "model_max_length": -1,
        "do_lower_case": "yes",
        "unk_token": {"content": "[UNK]", "code": EXAMPLE},
        "cls_token": 7,
        "pad_token": "p" * 1001,
        "additional_special_tokens": EXAMPLE,
        "added_tokens_decoder": {EXAMPLE: {"content": "x"}},
        "model_input_names": ["pixel_values"],
        "padding_side": "up",
        "errors": EXAMPLE,
        "backend": EXAMPLE,
        "never_split": [1],
    }.items():
        yield set_to(f"{key} {str(value)[:16]}", "tokenizer.settings", **{key: value})
    yield set_to("unknown token that is unknown", "tokenizer.malformed", unk_token="<nowhere>")
    decoded = {"1000": {"content": EXAMPLE, "special": True}}
    yield set_to("token far beyond the embeddings", "tokenizer.vocabulary", added_tokens_decoder=decoded)
    yield set_to(
        "tokens that the model has not", "tokenizer.vocabulary", additional_special_tokens=["<example>", "<more>"]
    )
    yield Hostile(
        "special_tokens_map",
        "tokenizer.settings",
        valid | {"special_tokens_map.json": b'{"mask_token": {"example": 1}}'},
    )
    yield Hostile("added_tokens", "tokenizer.vocabulary", valid | {"added_tokens.json": b'{"example": 1000}'})
    plain = {n: data for n, data in valid.items() if n != "tokenizer.json"}
    yield Hostile("tokenizer missing", "tokenizer.missing", plain)
    yield Hostile(
        "vocab.txt too long for the embeddings",
        "tokenizer.vocabulary",
        plain | {"vocab.txt": b"[UNK]\n" + b"a\n" * 100},
    )
    yield Hostile("vocab.txt of bytes", "tokenizer.malformed", plain | {"vocab.txt": b"[UNK]\n\xff\xfe\n"})
    yield Hostile("vocab.txt of one line", "tokenizer.vocabulary", plain | {"vocab.txt": b"a" * 1001})
    yield Hostile(
        "merges.txt of no pairs", "tokenizer.malformed", plain | {"vocab.json": b'{"a": 0}', "merges.txt": b"a b c\n"}
    )


# ---------------------------------------------------------------- what is taken, without its sting


def harmless(valid: Files) -> Iterator[Hostile]:
    config, settings, tokenizer = (
        json.loads(valid[n]) for n in ("config.json", "tokenizer_config.json", "tokenizer.json")
    )
    # A language with loops and calls: templates of others have run code (CVE-2024-34359) and never ended
    jinja = "{{ messages }}"

    def taken(name: str, rule: str, **files: bytes) -> Hostile:
        return Hostile(
            f"harmless {name}", rule, valid | {n.replace("__", "."): data for n, data in files.items()}, harmless=True
        )

    labels = {"0": "<b>negative</b>", "1": '"><i>positive'}
    yield taken("HTML in labels", "accept.escaped", config__json=json.dumps(config | {"id2label": labels}).encode())
    yield taken(
        "name of a Hub model", "accept.settings", config__json=json.dumps(config | {"_name_or_path": EXAMPLE}).encode()
    )
    yield taken(
        "backbone to fetch",
        "accept.settings",
        config__json=json.dumps(config | {"backbone": EXAMPLE, "use_timm_backbone": EXAMPLE}).encode(),
    )
    yield taken(
        "chat_template",
        "accept.settings",
        tokenizer_config__json=json.dumps(settings | {"chat_template": jinja}).encode(),
    )
    paths = {"tokenizer_file": EXAMPLE, "vocab_file": EXAMPLE, "gguf_file": EXAMPLE}
    yield taken("files of the machine", "accept.settings", tokenizer_config__json=json.dumps(settings | paths).encode())
    # Of a fixed length of many millions, each text would take gigabytes; and a cut whose steps are longer than its
    # parts never moves on.
    padding = {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    yield taken(
        "padding to a length", "accept.settings", tokenizer__json=json.dumps(tokenizer | {"padding": padding}).encode()
    )
    stride = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    yield taken(
        "truncation to four tokens",
        "accept.settings",
        tokenizer__json=json.dumps(tokenizer | {"truncation": stride}).encode(),
    )
    vocabulary = {("</b>" if word == "cf" else word): number for word, number in tokenizer["model"]["vocab"].items()}
    model = {"model": tokenizer["model"] | {"vocab": vocabulary}}
    yield taken("HTML in the vocabulary", "accept.settings", tokenizer__json=json.dumps(tokenizer | model).encode())
    yield taken("template file", "ignore.text", chat_template__jinja=jinja.encode())
    yield taken("card with a script", "ignore.text", README__md=b"<b>A card</b>")
    yield taken("state of a trainer", "ignore.log", trainer_state__json=b'{"auto_map": "example"}')
    yield taken(
        "settings of an adapter",
        "ignore.unknown",
        adapter_config__json=b'{"base_model_name_or_path": "example", "auto_mapping": {"x": "y"}}',
    )
    yield taken("index of pickles", "ignore.unknown", custom_index__json=b'{"weight_map": {"w": "pytorch_model.bin"}}')


def main(folder: Path) -> None:
    from conftest import tiny_bert

    from mbtsad_core.models.classifier import save_classifier

    save_classifier(tiny_bert(), folder / "valid")
    valid = {p.name: p.read_bytes() for p in sorted((folder / "valid").iterdir())}
    rules = {}
    for number, case in enumerate(all_hostile(valid)):
        limits = {"uploads": dataclasses.asdict(case.uploads), "limits": dataclasses.asdict(case.limits)}
        rules[f"{number:03}.zip"] = {"name": case.name, "rule": case.rule, "harmless": case.harmless, **limits}
        data = (
            case.zip
            if case.zip is not None
            else zipped({n.encode("utf-8", "replace").decode(): d for n, d in (case.files or {}).items()})
        )
        (folder / f"{number:03}.zip").write_bytes(data)
    (folder / "rules.json").write_text(json.dumps(rules, indent=1), encoding="utf-8")
    print(f"{len(rules)} hostile uploads in {folder}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(Path(sys.argv[1]))
