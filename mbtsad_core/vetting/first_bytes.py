"""What a file is by its first bytes, whatever its name says: a pointer of Git LFS, a web page, an archive, a pickle,
...

Models and tables are looked at by the same eyes, so that both name the same thing by the same words. Nothing is opened
beyond its first bytes.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

HEAD = 1024  # bytes that are looked at
LARGEST_HEADER = 100_000_000  # bytes of a safetensors header: the format's own limit

_POINTER = re.compile(rb"version https://(?:git-lfs|hawser)\.github\.com/spec/")
_SIZE = re.compile(rb"^size ([0-9]{1,18})\r?$", re.MULTILINE)
_PAGE = re.compile(rb"<(?:!doctype html|html|head|body)[\s>]|<!doctype html", re.IGNORECASE)
_ARRAY = re.compile(rb'\[\s*[\[{"\]]')
# Where a file was asked for
_ANSWERS = (
    b"entry not found",
    b"not found",
    b"404: not found",
    b"repository not found",
    b"invalid username or password.",
)


@dataclass(frozen=True, slots=True)
class Content:
    """What was recognized.

    kind    short and stable: "lfs", "html", "answer", "xml", "array", "zip", "office", "pickle", "safetensors", "gzip",
            ...
    what    for people, to stand behind "is": "a zip archive"
    remedy  one sentence: what to do to get at what was meant; "" where that is up to who asks
    """

    kind: str
    what: str
    remedy: str = ""


_UNPACK = "Unpack it and give the file that is in it."
_MAGIC: tuple[tuple[int, bytes, Content], ...] = (
    (0, b"\x1f\x8b", Content("gzip", "a gzip archive", _UNPACK)),
    (0, b"BZh", Content("bzip2", "a bzip2 archive", _UNPACK)),
    (0, b"\xfd7zXZ\x00", Content("xz", "an xz archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Content("7z", "a 7z archive", _UNPACK)),
    (0, b"Rar!\x1a\x07", Content("rar", "a rar archive", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Content("zstd", "a Zstandard archive", _UNPACK)),
    (0, b"\x04\x22\x4d\x18", Content("lz4", "an LZ4 archive", _UNPACK)),
    (257, b"ustar", Content("tar", "a tar archive", _UNPACK)),
    (0, b"%PDF-", Content("pdf", "a PDF document")),
    (
        0,
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        Content("office", "an Office document of the old kind (.xls, .doc)", "Save it as CSV in UTF-8."),
    ),
    (0, b"PAR1", Content("parquet", "a Parquet file")),
    (0, b"ARROW1", Content("arrow", "an Arrow file")),
    (0, b"\x89HDF\r\n\x1a\n", Content("hdf5", "an HDF5 file")),
    (0, b"\x93NUMPY", Content("numpy", "a NumPy array")),
    (0, b"SQLite format 3\x00", Content("sqlite", "an SQLite database")),
    (0, b"GGUF", Content("gguf", "a GGUF file")),
    (0, b"\x7fELF", Content("program", "a program")),
    (0, b"MZ\x90\x00", Content("program", "a program")),
    (0, b"\x89PNG\r\n", Content("picture", "a picture (PNG)")),
    (0, b"\xff\xd8\xff", Content("picture", "a picture (JPEG)")),
    (0, b"GIF8", Content("picture", "a picture (GIF)")),
    (0, b"\xff\xfe", Content("utf-16", "text in UTF-16", "Save it as UTF-8.")),
    (0, b"\xfe\xff", Content("utf-16", "text in UTF-16", "Save it as UTF-8.")),
)


def content_of(head: bytes) -> Content | None:
    """What begins with these bytes, HEAD of them or all that there are; None where it is nothing that is known, such as
    plain text."""
    if begins_as_safetensors(head):  # first: a header's length can look like any other beginning
        return Content("safetensors", "weights in safetensors")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(head)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return Content("pickle", "a Python pickle")
    for at, magic, content in _MAGIC:
        if head.startswith(magic, at):
            return content
    return _text(head.removeprefix(b"\xef\xbb\xbf").lstrip())


def content_of_file(path: Path) -> Content | None:
    """What a file is by its first bytes. Raises OSError where it cannot be read."""
    with open(path, "rb", opener=lambda file, flags: os.open(file, flags | os.O_NONBLOCK)) as file:
        # A pipe would never open
        return content_of(file.read(HEAD))


def begins_as_safetensors(head: bytes) -> bool:
    """Whether the first 9 bytes are the length of a header and the brace that it begins with."""
    return len(head) >= 9 and int.from_bytes(head[:8], "little") <= LARGEST_HEADER and head[8:9] == b"{"


def in_bytes(size: int) -> str:
    """A size for people: "436 MB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"


def _zip(head: bytes) -> Content:
    """What kind of zip it is, by the name of its first entry."""
    first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if first.endswith((b"data.pkl", b".data/serialization_id")):
        return Content("pickle", "a checkpoint of PyTorch, a zip that holds a pickle")
    if first.endswith(b".npy"):
        return Content("numpy", "an archive of NumPy arrays")
    if first.startswith((b"[Content_Types].xml", b"_rels/", b"xl/", b"word/", b"docProps/")) or first == b"mimetype":
        return Content("office", "an Office document (.xlsx, .docx, .ods)", "Save it as CSV in UTF-8.")
    return Content("zip", "a zip archive", _UNPACK)


def _text(text: bytes) -> Content | None:
    if _POINTER.match(text):
        size = _SIZE.search(text)
        told = f" ({in_bytes(int(size[1]))})" if size else ""
        return Content(
            "lfs",
            f"a pointer of Git LFS, not the file itself{told}",
            "Run `git lfs pull` in the clone, or download the file itself.",
        )
    if _PAGE.match(text):
        return Content("html", "a web page (HTML)", "Download the file itself, not the page that shows it.")
    if text.startswith(b"<?xml"):
        return Content("xml", "an XML document")
    if text.rstrip().lower() in _ANSWERS:
        return Content(
            "answer",
            "the answer of a server that did not give the file",
            "Download it again, and check the address and your access.",
        )
    if _ARRAY.match(text):
        return Content("array", "a JSON array")
    return None
