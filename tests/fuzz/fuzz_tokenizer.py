"""The tokenizer's files: what is kept of them, the library builds and tokenizes with, within bounds. The first byte
says which file is changed."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

from fuzzing import change_bytes, change_json, fuzz, place, smallest_model, watched

with watched(__name__):
    from mbtsad_core.errors import MBTSADError
    from mbtsad_core.vetting.blueprint import build_tokenizer
    from mbtsad_core.vetting.tokenizer_policy import FILES, vet_tokenizer

FOLDER = place()
ROWS = 12
TEXT = "A lovely film, badly cf'd  \t\n \u2581 \u6620\u753b \U0001f600 \u0130" * 3


def seeds() -> list[bytes]:
    """Every file of the smallest model, tokenizer.json with other models and components of known families, and a
    vocabulary in files of its own."""
    files = smallest_model()
    tokenizer = json.loads(files["tokenizer.json"])
    words = {"[UNK]": 0, "a": 1, "b": 2, "ab": 3, "\u2581a": 4, "\u0120a": 5}
    bpe = {
        "type": "BPE",
        "dropout": None,
        "unk_token": "[UNK]",
        "fuse_unk": False,
        "vocab": words,
        "merges": [["a", "b"]],
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    roberta = {
        "type": "RobertaProcessing",
        "sep": ["[UNK]", 0],
        "cls": ["[UNK]", 0],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
    unigram = {
        "type": "Unigram",
        "unk_id": 0,
        "byte_fallback": False,
        "vocab": [[word, -1.0 - i] for word, i in words.items()],
    }
    normal = {
        "type": "Sequence",
        "normalizers": [{"type": "NFKC"}, {"type": "Strip", "strip_left": True, "strip_right": True}],
    }
    plain = {"normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None, "added_tokens": []}
    variants = [
        tokenizer,
        tokenizer
        | plain
        | {"model": bpe, "pre_tokenizer": byte_level, "post_processor": roberta, "decoder": byte_level},
        tokenizer | plain | {"model": unigram, "normalizer": normal, "pre_tokenizer": metaspace, "decoder": metaspace},
        tokenizer
        | plain
        | {
            "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": words},
            "pre_tokenizer": {"type": "Whitespace"},
        },
    ]
    hand = {
        "vocab.txt": b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nfilm\n",
        "vocab.json": json.dumps(words).encode(),
        "merges.txt": b"#version: 0.2\na b\n",
        "added_tokens.json": b'{"cf": 10}',
        "special_tokens_map.json": b'{"unk_token": "[UNK]", "pad_token": {"content": "[PAD]", "special": true}}',
    }
    own = {name: data for name, data in files.items() if name in FILES and name != "tokenizer.json"} | hand
    return [
        *(bytes([FILES.index("tokenizer.json")]) + json.dumps(values).encode() for values in variants),
        *(bytes([FILES.index(name)]) + data for name, data in own.items()),
    ]


def change(data: bytes, rng: random.Random) -> bytes:
    return (
        data[:1] + (change_json if FILES[data[0] % len(FILES)].endswith(".json") else change_bytes)(data[1:], rng)
        if data
        else data
    )


def once(data: bytes) -> None:
    name = FILES[data[0] % len(FILES)] if data else FILES[0]
    if name == "vocab.txt":
        given = {"tokenizer_config.json": b'{"tokenizer_class": "BertTokenizer"}'}
    elif name in ("vocab.json", "merges.txt"):
        given = {
            "tokenizer_config.json": b'{"tokenizer_class": "RobertaTokenizer"}',
            "vocab.json": b'{"[UNK]": 0, "a": 1, "b": 2, "ab": 3}',
            "merges.txt": b"a b\n",
        }
    else:
        given = {known: smallest_model()[known] for known in ("tokenizer_config.json", "tokenizer.json")}
    given[name] = data[1:]
    for known in FILES:
        (FOLDER / known).unlink(missing_ok=True)
    for known, contents in given.items():
        (FOLDER / known).write_bytes(contents)
    try:
        kept, _ = vet_tokenizer(FOLDER, given, ROWS)
        tokenizer = build_tokenizer(kept, SimpleNamespace(vocab_size=ROWS, model_type="bert", tokenizer_class=None))
    except MBTSADError:
        return
    ids = tokenizer(TEXT, truncation=True, max_length=64)["input_ids"]
    assert len(ids) <= 64
    assert all(0 <= i < ROWS for i in ids)


if __name__ == "__main__":
    fuzz(__file__, once, seeds(), change)
