"""Receiving an uploaded model: which files are taken, under which names, and why the others are not.

Nothing is loaded here. The rules are those of the policy: weights as safetensors, an allow-list of JSON and text files, no format that
can run code, and zips whose limits are held while they are unpacked, whatever their headers claim.
"""

from __future__ import annotations

import fnmatch
import io
import os
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Literal, NamedTuple

from mbtsad_core.config import UploadConfig
from mbtsad_core.errors import UnsafeModel
from mbtsad_core.models.vetting import check_model_files

EXPECTED = "Expected config.json, model.safetensors and the tokenizer's files, or one zip of them"
READ = {  # besides *.safetensors and *.safetensors.index.json
    "config.json": "Settings of the model.",
    "tokenizer.json": "The tokenizer.",
    "tokenizer_config.json": "Settings of the tokenizer.",
    "special_tokens_map.json": "Special tokens of the tokenizer.",
    "added_tokens.json": "Further tokens of the tokenizer.",
    "vocab.txt": "Vocabulary of the tokenizer.",
    "vocab.json": "Vocabulary of the tokenizer.",
    "merges.txt": "Merges of the tokenizer.",
}
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz")
OTHER_FORMATS = (".h5", ".hdf5", ".keras", ".msgpack", ".gguf", ".ggml", ".onnx", ".tflite", ".pb", ".mlmodel", ".ot", ".nemo", ".mar")
CODE = (
    *(".py", ".pyc", ".pyd", ".pyx", ".pyw", ".ipynb", ".whl", ".egg", ".so", ".dll", ".dylib", ".exe", ".com", ".msi", ".wasm", ".class", ".jar"),
    *(".sh", ".bash", ".zsh", ".bat", ".cmd", ".ps1", ".vbs", ".js", ".mjs", ".rb", ".pl", ".php", ".lua", ".desktop"),
)
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".lz4")
LEFT_OVER = ("training_args.bin", "optimizer.*", "scheduler.*", "scaler.*", "rng_state*", "random_states*")  # of a training; no weights
SYSTEM = (".ds_store", "._*", ".git*", "thumbs.db", "desktop.ini")
FOR_READERS = ("readme*", "license*", "licence*", "notice*", "*.md", "*.jinja", "*.png", "*.jpg", "*.jpeg", "*.svg", "*.pdf", "*.html")
LOGS = ("events.out.tfevents*", "*.log", "*.csv", "*_results.*", "trainer_state.json", "training_args.*", "generation_config.json")

CHUNK = 1 << 16  # bytes of a file in memory at a time
MEGABYTE = 1 << 20
LONGEST_NAME = 255  # bytes
LARGEST_HEADER = 100_000_000  # bytes of a safetensors header: the format's own limit
LOCAL_HEADER = 30  # bytes before an entry's data, at least
ENCRYPTED = 0x1 | 0x40 | 0x2000  # flag bits of an entry: encrypted; strongly so; the list of entries masked
MALFORMED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError, OSError)  # what zipfile raises

Kind = Literal["zip", "file"]


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """What becomes of one uploaded file.

    name     as uploaded: to be shown through `printable`, and escaped
    verdict  "ignored": the model works without it, it is not kept
    reason   for people; of a refused file it says what to do
    rule     short and stable: "format.pickle", "zip.path", "zip.ratio"
    """

    name: str
    verdict: Literal["accepted", "refused", "ignored"]
    reason: str
    rule: str


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """What became of an upload: a verdict a file, and `problem`: "" where it is taken, else what was expected, what came, what to do."""

    files: tuple[FileVerdict, ...]
    problem: str = ""

    @property
    def accepted(self) -> bool:
        return not self.problem


class Flaw(NamedTuple):
    """Why a file is refused."""

    rule: str
    reason: str


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


def receive(sources: Sequence[tuple[str, Path]], directory: Path, config: UploadConfig = UploadConfig()) -> PolicyReport:
    """Judge an upload and write what is accepted into `directory`: flat, modes 0700 and 0600, vetted by `check_model_files`.

    sources    (name that the visitor gave, where the bytes are): one .zip, or the separate files
    directory  is made: it must not exist yet and its parent must (OSError). It is removed again unless the report is one of acceptance

    Whatever is uploaded ends in a report, and so does a disk that is full.
    """
    directory.mkdir(mode=0o700)
    report = PolicyReport((), "not judged")
    try:
        report = _receive(sources, directory, config)
    except OSError as error:  # of writing; what cannot be read is a verdict
        reason = error.strerror or type(error).__name__
        report = PolicyReport((), f"The upload could not be stored here ({reason}), and nothing of it was kept. Try a smaller model, or later.")
    finally:
        if not report.accepted:
            shutil.rmtree(directory)
    return report


def printable(text: str, longest: int = 120) -> str:
    """Text of a visitor as it can be shown: control, direction and broken characters as escapes; beyond `longest` characters its middle
    is left out. HTML is not escaped."""
    if len(text) > longest:
        text = f"{text[: longest - 41]}…{text[-40:]}"
    return "".join(c if _shows(c) else f"\\u{ord(c):04x}" for c in text)


def _shows(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _receive(sources: Sequence[tuple[str, Path]], directory: Path, config: UploadConfig) -> PolicyReport:
    if not sources:
        return PolicyReport((), f"No file came. {EXPECTED}.")
    if len(sources) == 1 and sources[0][0].lower().endswith(".zip"):
        return _unpack(*sources[0], directory, config)
    if len(sources) > config.entries:
        return PolicyReport((), f"{len(sources)} files came, and an upload may have {config.entries}. {EXPECTED}.")
    return _take([_Part(name, partial(io.FileIO, path), _absence(name, path)) for name, path in sources], directory, config, "file")


def _absence(name: str, path: Path) -> Flaw | None:
    return None if path.is_file() else _missing(printable(name))


# ---------------------------------------------------------------- names


def _judge(parts: Sequence[_Part], kind: Kind) -> list[FileVerdict | None]:
    """A verdict a part from names and outer marks alone; None for a sound folder of a zip."""
    seen: dict[str, str] = {}
    found: list[FileVerdict | None] = []
    for part in parts:
        flaw = _name_flaw(part.name, kind) or _clash(part.name, seen, kind) or part.flaw
        if flaw:
            found.append(FileVerdict(part.name, "refused", flaw.reason, flaw.rule))
        else:
            found.append(None if part.name.endswith("/") else _classify(part.name, kind))
    accepted = [v for v in found if v and v.verdict == "accepted"]
    folders = {v.name.rpartition("/")[0] for v in accepted}
    home = folders.pop() if len(folders) == 1 else ""
    weights = next((_base(v.name) for v in accepted if v.rule == "accept.weights"), "")
    for at, verdict in enumerate(found):
        if verdict and verdict.rule in ("format.pickle", "format.other"):
            found[at] = replace(verdict, reason=f"{verdict.reason} {_what_to_do(_base(verdict.name), weights)}")
        elif verdict and verdict.verdict == "accepted" and (verdict.name.rpartition("/")[0] != home or "/" in home):
            reason = f"{printable(verdict.name)} stands deeper than the other files or in another folder. Put all files of the model into one folder."
            found[at] = FileVerdict(verdict.name, "refused", reason, f"{kind}.folder")
    return found


def _name_flaw(name: str, kind: Kind) -> Flaw | None:
    shown = printable(name)
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        return Flaw(f"{kind}.name", f"The name {shown} is longer than {LONGEST_NAME} bytes. Give it the name that save_pretrained wrote.")
    if not all(map(_shows, name)):
        return Flaw(f"{kind}.name", f"The name {shown} holds characters that cannot be seen. Give it the name that save_pretrained wrote.")
    steps = (name.removesuffix("/") if kind == "zip" else name).split("/")
    if "\\" in name or re.match("[A-Za-z]:", name) or not {"", ".", ".."}.isdisjoint(steps):
        reason = f"{shown or 'A file'} is no plain name (an absolute path, a drive, a backslash, '.' or '..' are not taken). Zip the model's folder itself."
        return Flaw(f"{kind}.path", reason)
    return None


def _clash(name: str, seen: dict[str, str], kind: Kind) -> Flaw | None:
    """A name that comes twice, on some file system at least. Adds it to `seen`."""
    key = unicodedata.normalize("NFC", name.removesuffix("/")).casefold()
    if key not in seen:
        seen[key] = name
        return None
    if seen[key] == name:
        return Flaw(f"{kind}.duplicate", f"{printable(name)} comes twice. Keep the right one and remove the other.")
    return Flaw(f"{kind}.case", f"{printable(name)} and {printable(seen[key])} differ in case alone. Keep the right one and remove the other.")


def _classify(path: str, kind: Kind) -> FileVerdict:
    """By name: what is read, what could run code, what a model works without."""
    base = _base(path)
    low, shown = base.lower().rstrip(" ."), printable(base)
    say = partial(FileVerdict, path)
    if "__MACOSX" in path.split("/")[:-1] or _like(low, SYSTEM):
        return say("ignored", "A file of the operating system or of git.", "ignore.system")
    if low.endswith(PICKLES):
        return say("refused", f"{shown} {'can hold' if low.endswith(('.npy', '.npz')) else 'is'} a pickle and could run code.", "format.pickle")
    if low.endswith(OTHER_FORMATS):
        return say("refused", f"{shown} is in another format than safetensors.", "format.other")
    if low.endswith(CODE):
        return say("refused", f"{shown} is code, and code that comes with a model is never run. Remove it if the model works without it.", "format.code")
    if low.endswith(ARCHIVES):
        remedy = "Unpack it, and zip the model's files alone." if kind == "zip" else "Upload the model's files, or one .zip of them and nothing else."
        return say("refused", f"{shown} is an archive within the upload. {remedy}", f"{kind}.nested")
    if base.endswith((".safetensors", ".safetensors.index.json")):
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", base):
            return say("refused", f"{shown} is no name of weights that is read. Rename it, to model.safetensors if it is the only one.", f"{kind}.name")
        if base.endswith(".json"):
            return say("accepted", "Says which weights stand in which file.", "accept.index")
        return say("accepted", "Weights.", "accept.weights")
    if base in READ:
        return say("accepted", READ[base], "accept.settings")
    if _like(low, FOR_READERS):
        return say("ignored", "A text for readers; the model works without it.", "ignore.text")
    if _like(low, LOGS):
        return say("ignored", "A trace of the training; the model works without it.", "ignore.log")
    if low.endswith(".model"):
        return say("ignored", "A sentencepiece model is not read. tokenizer.save_pretrained writes tokenizer.json: upload that too.", "ignore.sentencepiece")
    return say("ignored", "Nothing that is read goes by this name. Rename it if it is part of the model.", "ignore.unknown")


def _what_to_do(base: str, weights: str) -> str:
    if _like(base.lower(), LEFT_OVER):
        return "Remove it: it is left over from training."
    if weights:
        return f"Remove it: {weights} is all that is read of weights."
    return "Convert it with model.save_pretrained(..., safe_serialization=True) where you trust it and upload model.safetensors."


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _like(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


# ---------------------------------------------------------------- bytes


def _take(parts: Sequence[_Part], directory: Path, config: UploadConfig, kind: Kind) -> PolicyReport:
    """Judge the parts, write those that are accepted, and vet what was written."""
    files = [(part, verdict) for part, verdict in zip(parts, _judge(parts, kind), strict=True) if verdict]
    verdicts = [verdict for _, verdict in files]
    if any(v.verdict == "refused" for v in verdicts):
        return _refused(verdicts)
    total = 0
    for at, (part, verdict) in enumerate(files):
        if verdict.verdict == "accepted":
            written = _store(part, directory / _base(part.name), total, config)
            if isinstance(written, Flaw):
                verdicts[at] = FileVerdict(part.name, "refused", written.reason, written.rule)
                return _refused([*verdicts[: at + 1], *map(_unread, verdicts[at + 1 :])])
            total += written
    try:
        check_model_files(directory)
    except UnsafeModel as error:
        return PolicyReport(tuple(verdicts), printable(str(error).replace(str(directory), "The upload"), 600))
    except RecursionError:  # while it walks a config.json that json could just read
        return PolicyReport(tuple(verdicts), "Refused: config.json is nested too deeply. Give the file that save_pretrained wrote.")
    return PolicyReport(tuple(verdicts))


def _refused(files: Sequence[FileVerdict]) -> PolicyReport:
    reasons = [v.reason for v in files if v.verdict == "refused"]
    more = f" {len(reasons) - 1} more of the files {'is' if len(reasons) == 2 else 'are'} refused." if reasons[1:] else ""
    return PolicyReport(tuple(files), f"Upload refused: {reasons[0]}{more}")


def _unread(verdict: FileVerdict) -> FileVerdict:
    if verdict.verdict != "accepted":
        return verdict
    return FileVerdict(verdict.name, "ignored", "Not read: the upload was refused before it.", "ignore.unread")


def _store(part: _Part, path: Path, before: int, config: UploadConfig) -> int | Flaw:
    """Write a file under `path`, which is new: the bytes written, or why it was given up. `before` bytes of the upload are written already."""
    shown, start = printable(_base(part.name)), part.taken() if part.taken else 0
    weights, is_text = path.suffix == ".safetensors", path.suffix in (".json", ".txt")
    written, head = 0, b""
    with open(path, "xb", opener=partial(os.open, mode=0o600)) as target:
        try:
            for chunk in _chunks(part):
                written += len(chunk)
                head = head or chunk[:9]
                if before + written > config.megabytes * MEGABYTE:
                    return Flaw("size.total", f"With {shown} the upload is larger than {config.megabytes} megabytes, the limit here. Upload a smaller model.")
                if is_text and written > config.json_megabytes * MEGABYTE:
                    limit = f"{config.json_megabytes} megabytes, the limit of .json and .txt files"
                    return Flaw("size.json", f"{shown} is larger than {limit}. Upload the file that save_pretrained wrote.")
                if part.taken and written > max(MEGABYTE, config.ratio * (part.taken() - start)):
                    return Flaw("zip.ratio", f"{shown} grows more than {config.ratio} times when it is unpacked, as zip bombs do. Upload it without a zip.")
                if weights and not _begins_as_safetensors(head):
                    return _disguised(shown)
                target.write(chunk)
        except _Unreadable:
            return (
                Flaw("zip.damaged", f"{shown} is damaged in the zip or was cut off. Zip the model's folder again and upload it.")
                if part.taken
                else _missing(shown)
            )
    if weights and (not head or written < 8 + int.from_bytes(head[:8], "little")):
        return _disguised(shown)
    return written


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
    return Flaw("format.disguised", f"{shown} does not hold safetensors, or was cut off. Save the weights with save_pretrained and upload what it writes.")


def _missing(shown: str) -> Flaw:
    return Flaw("file.missing", f"{shown} did not arrive. Upload it again.")


# ---------------------------------------------------------------- zips


class _Archive(io.FileIO):
    """The bytes of a zip, counted as they are read.

    zipfile reads the list of entries at once and makes an object of each before it can be asked how many there are; a list longer than
    `longest` bytes, that of a zip with as many entries as allowed, raises _ListTooLong.
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


def _unpack(name: str, path: Path, directory: Path, config: UploadConfig) -> PolicyReport:
    """Take the files of a zip."""
    shown = printable(name)
    flaw = _absence(name, path)
    if flaw:
        return _refused([FileVerdict(name, "refused", flaw.reason, flaw.rule)])
    with _Archive(path, max(2 * CHUNK, 1024 * config.entries)) as file:
        try:
            archive = zipfile.ZipFile(file)
            entries = archive.infolist()
            if len(entries) > config.entries:
                raise _ListTooLong
        except _ListTooLong:
            reason = f"{shown} has more entries than the {config.entries} that a zip may have. Zip the model's own files alone."
            return _refused([FileVerdict(name, "refused", reason, "zip.entries")])
        except MALFORMED:
            reason = f"{shown} is no zip, or was damaged or cut off on its way. Zip the model's folder again and upload it."
            return _refused([FileVerdict(name, "refused", reason, "zip.malformed")])
        overlapping = _overlapping(entries)
        # orig_filename is all of the name: `filename` ends at a NUL
        parts = [_Part(e.orig_filename, partial(archive.open, e), _entry_flaw(e, overlapping), e.file_size, lambda: file.taken) for e in entries]
        return _take(parts, directory, config, "zip")


def _entry_flaw(entry: zipfile.ZipInfo, overlapping: set[int]) -> Flaw | None:
    """What is wrong with an entry, whatever its name."""
    shown = printable(entry.orig_filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if stat.S_ISLNK(kind):
        return Flaw("zip.link", f"{shown} is a symbolic link. Zip the file that it leads to in its place.")
    if kind not in (0, stat.S_IFDIR if entry.orig_filename.endswith("/") else stat.S_IFREG):
        return Flaw("zip.special", f"{shown} is marked as a device or another thing than a file. Zip the model's own files alone.")
    if entry.flag_bits & ENCRYPTED:
        return Flaw("zip.encrypted", f"{shown} is encrypted. Zip the model's folder without a password.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # bzip2 and LZMA unpack a block at once, however large
        return Flaw("zip.method", f"{shown} is packed with another method than deflate. Zip the model's folder with the usual settings.")
    if entry.header_offset in overlapping:
        return Flaw("zip.overlap", f"{shown} shares its bytes with another entry of the zip. Zip the model's folder again.")
    return None


def _overlapping(entries: Sequence[zipfile.ZipInfo]) -> set[int]:
    """Offsets of entries that reach into the next one: few bytes, unpacked many times."""
    ordered = sorted(entries, key=lambda e: e.header_offset)
    ends = [e.header_offset + LOCAL_HEADER + e.compress_size for e in ordered]
    return {e.header_offset for e, end, after in zip(ordered, ends, ordered[1:], strict=False) if end > after.header_offset}
