"""Receiving an uploaded model: which files are taken, under which names, and why the others are not.

Nothing is loaded here. The rules are those of the policy: weights as safetensors, an allow-list of JSON and text files,
no format that can run code, and zips whose limits are held while they are unpacked, whatever their headers claim.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from mbtsad_core.config import UploadConfig, VettingConfig
from mbtsad_core.vetting.file_policy import FileVerdict, Flaw, Kind, base_name, judge_names, printable
from mbtsad_core.vetting.verdicts import PolicyReport, refused, weigh

__all__ = ["MEGABYTE", "FileVerdict", "PolicyReport", "printable", "receive", "unpack"]

EXPECTED = "Expected config.json, model.safetensors and the tokenizer's files, or one zip of them"
CHUNK = 1 << 16  # bytes of a file in memory at a time
MEGABYTE = 1 << 20
LARGEST_HEADER = 100_000_000  # bytes of a safetensors header: the format's own limit
LOCAL_HEADER = 30  # bytes before an entry's data, at least
ENCRYPTED = 0x1 | 0x40 | 0x2000  # flag bits of an entry: encrypted; strongly so; the list of entries masked
# What zipfile raises
MALFORMED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError, OSError)


@dataclass(frozen=True, slots=True)
class _Part:
    """A file of an upload of which nothing is read yet.

    flaw   what is wrong with it from outside
    size   bytes that the zip claims, which must come true; None for a separate file
    taken  gives the bytes read from the zip so far; None for a separate file
    """

    name: str
    open: Callable[[], IO[bytes]]
    flaw: Flaw | None = None
    size: int | None = None
    taken: Callable[[], int] | None = None


def receive(
    sources: Sequence[tuple[str, Path]],
    directory: Path,
    config: UploadConfig = UploadConfig(),
    limits: VettingConfig | None = None,
) -> PolicyReport:
    """Judge an upload and write what is accepted into `directory`: flat, modes 0700 and 0600, vetted by `vet_model`.

    sources    (name that the visitor gave, where the bytes are): one .zip, or the separate files
    limits     of the model itself; where not given the usual ones, with those of `config` for text
    directory  is made: it must not exist yet and its parent must (OSError). It is removed again unless the report is
               one of acceptance

    Whatever is uploaded ends in a report, and so does a disk that is full.
    """
    directory.mkdir(mode=0o700)
    report = PolicyReport((), "not judged")
    try:
        report = _receive(sources, directory, config, limits or VettingConfig(json_megabytes=config.json_megabytes))
    except OSError as error:  # of writing; what cannot be read is a verdict
        reason = error.strerror or type(error).__name__
        report = PolicyReport(
            (),
            f"The upload could not be stored here ({reason}), and nothing of it was kept. Try a smaller model, or "
            "later.",
            "vet.storage",
            True,
        )
    finally:
        if not report.accepted:
            shutil.rmtree(directory)
    return report


def unpack(path: Path, directory: Path, limits: VettingConfig = VettingConfig()) -> PolicyReport:
    """Judge a zip where it is used itself, as `receive` does, with the limits of the folder that it was made from."""
    config = UploadConfig(megabytes=limits.megabytes, json_megabytes=limits.json_megabytes, entries=limits.files)
    return receive([(path.name, path)], directory, config, limits)


def _receive(
    sources: Sequence[tuple[str, Path]], directory: Path, config: UploadConfig, limits: VettingConfig
) -> PolicyReport:
    if not sources:
        return PolicyReport((), f"No file came. {EXPECTED}.", "file.missing")
    if len(sources) == 1 and sources[0][0].lower().endswith(".zip"):
        return _unpack(*sources[0], directory, config, limits)
    if len(sources) > config.entries:
        return PolicyReport(
            (), f"{len(sources)} files came, and an upload may have {config.entries}. {EXPECTED}.", "file.entries"
        )
    return _take(
        [_Part(name, partial(io.FileIO, path), _absence(name, path)) for name, path in sources],
        directory,
        config,
        limits,
        "file",
    )


def _absence(name: str, path: Path) -> Flaw | None:
    return None if path.is_file() and not name.endswith("/") else _missing(printable(name))


# ---------------------------------------------------------------- bytes


def _take(
    parts: Sequence[_Part], directory: Path, config: UploadConfig, limits: VettingConfig, kind: Kind
) -> PolicyReport:
    """Judge the parts by their names, write those that are accepted, read the others to their ends, and vet what was
    written."""
    judged = zip(parts, judge_names([(part.name, part.flaw) for part in parts], kind), strict=True)
    files = [(part, verdict) for part, verdict in judged if verdict]
    verdicts = [verdict for _, verdict in files]
    if not any(v.verdict == "refused" for v in verdicts):
        total = 0
        for at, (part, verdict) in enumerate(files):
            read = _read(
                part, directory / base_name(part.name) if verdict.verdict == "accepted" else None, total, config
            )
            if isinstance(read, Flaw):
                verdicts[at:] = [
                    FileVerdict(part.name, "refused", read.reason, read.rule),
                    *map(_unread, verdicts[at + 1 :]),
                ]
                break
            total += read
    return weigh(verdicts, directory, limits, "The upload")


def _unread(verdict: FileVerdict) -> FileVerdict:
    if verdict.verdict != "accepted":
        return verdict
    return FileVerdict(verdict.name, "ignored", "Not read: the upload was refused before it.", "ignore.unread")


def _read(part: _Part, path: Path | None, before: int, config: UploadConfig) -> int | Flaw:
    """Read a file to its end and write it under `path`, which is new, or nowhere: its bytes, or why it was given up.
    What nothing reads takes room and time of whoever unpacks it, so it counts too. `before` bytes of the upload are
    read already."""
    shown, start = printable(base_name(part.name)), part.taken() if part.taken else 0
    remedy = "Upload a smaller model." if path else "Leave it out: nothing of it is used."
    too_large = Flaw(
        "size.total", f"With {shown} the upload is larger than {config.megabytes} megabytes, the limit here. {remedy}"
    )
    if before + (part.size or 0) > config.megabytes * MEGABYTE:
        return too_large
    read, head = 0, b""
    with _target(path) as target:
        try:
            for chunk in _chunks(part):
                read += len(chunk)
                head = head or chunk[:9]
                if before + read > config.megabytes * MEGABYTE:
                    return too_large
                if part.taken and read > max(MEGABYTE, config.ratio * (part.taken() - start)):
                    where = "Upload it without a zip." if path else remedy
                    return Flaw(
                        "zip.ratio",
                        f"{shown} grows more than {config.ratio} times when it is unpacked, as zip bombs do. {where}",
                    )
                if path and (flaw := _content_flaw(path, shown, head, read, config)):
                    return flaw
                target.write(chunk)
        except _Unreadable:
            return _damaged(shown) if part.taken else _missing(shown)
    if path and path.suffix == ".safetensors" and (not head or read < 8 + int.from_bytes(head[:8], "little")):
        return _disguised(shown)
    return read


def _target(path: Path | None) -> IO[bytes]:
    return open(path, "xb", opener=partial(os.open, mode=0o600)) if path else open(os.devnull, "wb")


def _content_flaw(path: Path, shown: str, head: bytes, read: int, config: UploadConfig) -> Flaw | None:
    """What is wrong with a file that begins with `head` and of which `read` bytes are read."""
    if path.suffix in (".json", ".txt") and read > config.json_megabytes * MEGABYTE:
        limit = f"{config.json_megabytes} megabytes, the limit of .json and .txt files"
        return Flaw("size.json", f"{shown} is larger than {limit}. Upload the file that save_pretrained wrote.")
    return _disguised(shown) if path.suffix == ".safetensors" and not _begins_as_safetensors(head) else None


def _chunks(part: _Part) -> Iterator[bytes]:
    """The bytes of a part, at most CHUNK at a time. Raises _Unreadable."""
    read = 0
    try:
        with part.open() as source:
            while chunk := source.read(CHUNK):
                read += len(chunk)
                yield chunk
    except MALFORMED as error:
        raise _Unreadable from error
    if part.size is not None and read != part.size:
        raise _Unreadable


class _Unreadable(Exception):
    """The bytes of a file cannot be read, or are not those that were announced."""


def _begins_as_safetensors(head: bytes) -> bool:
    """Whether the first 9 bytes are the length of a header and the brace that it begins with."""
    return len(head) == 9 and int.from_bytes(head[:8], "little") <= LARGEST_HEADER and head[8:] == b"{"


def _disguised(shown: str) -> Flaw:
    return Flaw(
        "format.disguised",
        f"{shown} does not hold safetensors, or was cut off. Save the weights with save_pretrained and upload what it "
        "writes.",
    )


def _damaged(shown: str) -> Flaw:
    return Flaw(
        "zip.damaged", f"{shown} is damaged in the zip or was cut off. Zip the model's folder again and upload it."
    )


def _missing(shown: str) -> Flaw:
    return Flaw("file.missing", f"{shown} did not arrive. Upload it again.")


# ---------------------------------------------------------------- zips


class _Archive(io.FileIO):
    """The bytes of a zip, counted as they are read.

    zipfile reads the list of entries at once and makes an object of each before it can be asked how many there are; a
    list longer than `longest` bytes, that of a zip with as many entries as allowed, raises _ListTooLong.
    """

    def __init__(self, path: Path, longest: int) -> None:
        super().__init__(path, "r")
        self.longest, self.taken = longest, 0

    def read(self, size: int | None = -1, /) -> bytes:
        most = self.longest + 1
        data = super().read(most if size is None or size < 0 else min(size, most)) or b""
        if len(data) > self.longest:
            raise _ListTooLong
        self.taken += len(data)
        return data


class _ListTooLong(Exception):
    pass


def _unpack(name: str, path: Path, directory: Path, config: UploadConfig, limits: VettingConfig) -> PolicyReport:
    """Take the files of a zip."""
    shown = printable(name)
    flaw = _absence(name, path)
    if flaw:
        return refused([FileVerdict(name, "refused", flaw.reason, flaw.rule)])
    with _Archive(path, max(2 * CHUNK, 1024 * config.entries)) as file:
        try:
            archive = zipfile.ZipFile(file)
            entries = archive.infolist()
            if len(entries) > config.entries:
                raise _ListTooLong
        except _ListTooLong:
            reason = (
                f"{shown} has more entries than the {config.entries} that a zip may have. Zip the model's own "
                "files alone."
            )
            return refused([FileVerdict(name, "refused", reason, "zip.entries")])
        except MALFORMED:
            reason = (
                f"{shown} is no zip, or was damaged or cut off on its way. Zip the model's folder again and upload it."
            )
            return refused([FileVerdict(name, "refused", reason, "zip.malformed")])
        overlapping = _overlapping(entries)
        # orig_filename is all of the name: `filename` ends at a NUL
        parts = [
            _Part(
                e.orig_filename, partial(archive.open, e), _entry_flaw(e, overlapping), e.file_size, lambda: file.taken
            )
            for e in entries
        ]
        return _take(parts, directory, config, limits, "zip")


def _entry_flaw(entry: zipfile.ZipInfo, overlapping: set[int]) -> Flaw | None:
    """What is wrong with an entry, whatever its name."""
    shown = printable(entry.orig_filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if stat.S_ISLNK(kind):
        return Flaw("zip.link", f"{shown} is a symbolic link. Zip the file that it leads to in its place.")
    if kind not in (0, stat.S_IFDIR if entry.orig_filename.endswith("/") else stat.S_IFREG):
        return Flaw(
            "zip.special",
            f"{shown} is marked as a device or another thing than a file. Zip the model's own files alone.",
        )
    if entry.flag_bits & ENCRYPTED:
        return Flaw("zip.encrypted", f"{shown} is encrypted. Zip the model's folder without a password.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Bzip2 and LZMA unpack a block at once, however large
        return Flaw(
            "zip.method",
            f"{shown} is packed with another method than deflate. Zip the model's folder with the usual settings.",
        )
    if entry.header_offset in overlapping:
        return Flaw(
            "zip.overlap", f"{shown} shares its bytes with another entry of the zip. Zip the model's folder again."
        )
    return None


def _overlapping(entries: Sequence[zipfile.ZipInfo]) -> set[int]:
    """Offsets of entries that reach into the next one: few bytes, unpacked many times."""
    ordered = sorted(entries, key=lambda e: e.header_offset)
    ends = [e.header_offset + LOCAL_HEADER + e.compress_size for e in ordered]
    return {
        e.header_offset for e, end, after in zip(ordered, ends, ordered[1:], strict=False) if end > after.header_offset
    }
