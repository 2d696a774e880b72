"""What a file is by its first bytes: real files of each kind, written by the library or tool that writes them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save

from mbtsad_core.vetting.first_bytes import HEAD, content_of, content_of_file, in_bytes

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n"


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def zipped(name: str) -> bytes:
    def write(out: io.BytesIO) -> None:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(name, "text")

    return written(write)


def tarred(out: io.BytesIO) -> None:
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))


FILES = {
    "lfs": [POINTER % (b"a" * 64, 12), POINTER.replace(b"\n", b"\r\n") % (b"a" * 64, 12)],
    "html": [b"\n<!DOCTYPE html><html>", b"\xef\xbb\xbf<html lang='en'>", b"<!doctype HTML PUBLIC>", b"<head>"],
    "answer": [b"Entry not found", b"404: Not Found\n"],
    "xml": [b"<?xml version='1.0'?><Error/>"],
    "array": [b'[{"text": "a"}]', b'\n [\n  "a"]', b"[[1, 2]]", b"[]"],
    "zip": [zipped("model/config.json"), written(lambda out: zipfile.ZipFile(out, "w").close())],
    "office": [zipped("[Content_Types].xml"), zipped("xl/workbook.xml"), zipped("mimetype")],
    "pickle": [pickle.dumps({"a": 1}, protocol) for protocol in range(2, 6)]
    + [written(lambda out: torch.save({"a": torch.ones(2)}, out))],
    "numpy": [written(lambda out: np.save(out, np.ones(2))), written(lambda out: np.savez(out, a=np.ones(2)))],
    "gzip": [gzip.compress(b"text", mtime=0)],
    "bzip2": [bz2.compress(b"text")],
    "xz": [lzma.compress(b"text")],
    "tar": [written(tarred)],
    "parquet": [written(lambda out: pd.DataFrame({"text": ["a"]}).to_parquet(out))],
    "utf-16": ["text,label".encode("utf-16")],
    "pdf": [b"%PDF-1.7\n"],
    "safetensors": [save({"w": torch.ones(2)}), (0x280).to_bytes(8, "little") + b"{" + b" " * 700],
}
PLAIN = [
    b"",
    b"text,label\nthe film was great,1\n",
    b'{"model_type": "bert"}',
    b"[CLS] the film\t1\n",
    b"<3 this film\t1",
    b"\x80",
    b"version 2 of it\t1",
    b"PK\t1",
]


@pytest.mark.parametrize(("kind", "data"), [(kind, data) for kind, files in FILES.items() for data in files])
def test_a_kind_of_file_is_known_by_its_first_bytes(kind: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    found, of_file = content_of(data[:HEAD]), content_of_file(tmp_path / "file")
    assert found is not None
    assert found.kind == kind
    assert found == of_file


@pytest.mark.parametrize("data", PLAIN)
def test_plain_text_is_nothing_else(data: bytes) -> None:
    assert content_of(data) is None


@pytest.mark.parametrize(
    ("size", "told"), [(1_430_000_000, "1.43 GB"), (436_358_732, "436 MB"), (2_500, "2.5 kB"), (12, "12 bytes")]
)
def test_a_pointer_tells_the_size_of_what_it_stands_for(size: int, told: str) -> None:
    found = content_of(POINTER % (b"0" * 64, size))
    assert found is not None
    assert f"({told})" in found.what
    assert "git lfs pull" in found.remedy
    assert in_bytes(size) == told
