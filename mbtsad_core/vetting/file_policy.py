"""What becomes of the files of a model by their names alone: what is read, what could run code, what a model works
without.

A folder, a zip, files by themselves and a repository of the Hub are lists of names, and `judge_names` judges them all.

A name decides what is read, never what is believed: what is read is judged by its content too. Lists of bad names are
tripwires; what protects is that nothing but the allow-list is ever opened.
"""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

from mbtsad_core.vetting.checks import shows, visible

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
TORCH = (".bin", ".pt", ".pth", ".ckpt")
PICKLES = (*TORCH, ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz")
GGUF = (".gguf", ".ggml")
ONNX = (".onnx", ".ort")
OTHER_FORMATS = (
    *GGUF,
    *ONNX,
    ".h5",
    ".hdf5",
    ".keras",
    ".msgpack",
    ".tflite",
    ".pb",
    ".mlmodel",
    ".ot",
    ".nemo",
    ".mar",
)
CODE = (
    *(
        ".py",
        ".pyc",
        ".pyd",
        ".pyx",
        ".pyw",
        ".pyz",
        ".ipynb",
        ".whl",
        ".egg",
        ".so",
        ".dll",
        ".dylib",
        ".exe",
        ".com",
        ".msi",
        ".wasm",
        ".class",
        ".jar",
    ),
    *(".sh", ".bash", ".zsh", ".bat", ".cmd", ".ps1", ".vbs", ".js", ".mjs", ".rb", ".pl", ".php", ".lua", ".desktop"),
)
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".lz4")
# Of a training; no weights
LEFT_OVER = ("training_args.bin", "optimizer.*", "scheduler.*", "scaler.*", "rng_state*", "random_states*")
SETFIT_HEADS = ("model_head.pkl", "model_head.joblib")
SYSTEM = (".ds_store", "._*", ".git*", "thumbs.db", "desktop.ini")
FOR_READERS = (
    "readme*",
    "license*",
    "licence*",
    "notice*",
    "*.md",
    "*.jinja",
    "*.png",
    "*.jpg",
    "*.jpeg",
    "*.svg",
    "*.pdf",
    "*.html",
)
LOGS = (
    "events.out.tfevents*",
    "*.log",
    "*.csv",
    "*_results.*",
    "trainer_state.json",
    "training_args.*",
    "generation_config.json",
)
WEIGHTS = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
LONGEST_NAME, LONGEST_PATH = 255, 1024  # bytes

Kind = Literal["zip", "file"]
Verdict = Literal["accepted", "refused", "ignored", "inconclusive"]


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """What becomes of one file of a model.

    name     as it came: to be shown through `printable`, and escaped
    verdict  "ignored": the model works without it, it is not read; "inconclusive": it could not be judged
    reason   for people; of a refused file it says what to do
    rule     short and stable, a key of `mbtsad_core.vetting.rules.RULES`: "format.pickle", "zip.path", "zip.ratio"
    """

    name: str
    verdict: Verdict
    reason: str
    rule: str


class Flaw(NamedTuple):
    """Why a file is refused."""

    rule: str
    reason: str


def printable(text: str, longest: int = 120) -> str:
    """Text of a visitor as it can be shown: control, direction and broken characters as escapes; beyond `longest`
    characters its middle is left out. HTML is not escaped."""
    if len(text) > longest:
        text = f"{text[: longest - 41]}…{text[-40:]}"
    return "".join(c if shows(c) else f"\\u{ord(c):04x}" for c in text)


def judge_names(files: Sequence[tuple[str, Flaw | None]], kind: Kind) -> list[FileVerdict | None]:
    """A verdict on each file of a model by the names of all; None for a sound folder.

    files  (name, with "/" between folders and behind a folder's own; what is wrong with the file from outside)

    What is accepted stands in one folder, the model's: the highest with a config.json, or, where none has one, with any
    file that is read. What stands in folders within that one is not read; what could run code is refused wherever it
    stands.
    """
    seen: dict[str, str] = {}
    found: list[FileVerdict | None] = []
    for name, outer in files:
        flaw = _name_flaw(name, kind) or _clash(name, seen, kind) or outer or _folder_flaw(name, kind)
        if flaw:
            found.append(FileVerdict(name.removesuffix("/"), "refused", flaw.reason, flaw.rule))
        else:
            found.append(None if name.endswith("/") else classify(name, kind))
    read = [v.name for v in found if v and v.verdict == "accepted"]
    homes = _homes(read)
    weights = next(
        (base_name(v.name) for v in found if v and v.rule == "accept.weights" and folder_of(v.name) in homes), ""
    )
    return [v and _placed(v, homes, kind, weights) for v in found]


def _placed(verdict: FileVerdict, homes: Sequence[str], kind: Kind, weights: str) -> FileVerdict:
    """The verdict on a file once it is known in which folders the model can stand, and which file holds its weights."""
    if verdict.rule in ("format.pickle", "format.other"):
        return replace(verdict, reason=f"{verdict.reason} {what_to_do(base_name(verdict.name), weights)}")
    if verdict.verdict != "accepted" or homes == [folder_of(verdict.name)]:
        return verdict
    if len(homes) == 1 and (not homes[0] or verdict.name.startswith(f"{homes[0]}/")):
        return replace(
            verdict,
            verdict="ignored",
            reason="Not read: it stands in a folder within the model's.",
            rule="ignore.folder",
        )
    where = " or ".join(printable(home) for home in homes[:3])
    reason = (
        f"{printable(verdict.name)} stands where another model could be meant than the one in {where}. Give the "
        "files of one model, in one folder."
    )
    return replace(verdict, verdict="refused", reason=reason, rule=f"{kind}.folder")


def _homes(names: Sequence[str]) -> list[str]:
    """The folders that a model can stand in, of the names of files that are read: one, where it is clear which is
    meant."""
    holders = {folder_of(name) for name in names if base_name(name) == "config.json"} or {
        folder_of(name) for name in names
    }
    highest = min((_depth(folder) for folder in holders), default=0)
    found = sorted(folder for folder in holders if _depth(folder) == highest)
    with_weights = [
        folder for folder in found if any(folder_of(name) == folder and name.endswith(".safetensors") for name in names)
    ]
    return with_weights or found


def _depth(folder: str) -> int:
    return len(folder.split("/")) if folder else 0


def _name_flaw(name: str, kind: Kind) -> Flaw | None:
    shown = printable(name)
    steps = name.removesuffix("/").split("/")
    sizes = [len(step.encode("utf-8", "surrogatepass")) for step in steps]
    if max(sizes) > LONGEST_NAME or sum(sizes) > LONGEST_PATH:
        most = f"{LONGEST_NAME} bytes" if max(sizes) > LONGEST_NAME else f"{LONGEST_PATH} bytes, its folders' included"
        return Flaw(
            f"{kind}.name", f"The name {shown} is longer than {most}. Give it the name that save_pretrained wrote."
        )
    if not visible(name):
        return Flaw(
            f"{kind}.name",
            f"The name {shown} holds characters that cannot be seen. Give it the name that save_pretrained wrote.",
        )
    if "\\" in name or re.match("[A-Za-z]:", name) or not {"", ".", ".."}.isdisjoint(steps):
        reason = (
            f"{shown or 'A file'} is no plain name (an absolute path, a drive, a backslash, '.' or '..' are not "
            "taken). Give the model's folder itself."
        )
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
    return Flaw(
        f"{kind}.case",
        f"{printable(name)} and {printable(seen[key])} differ in case alone. Keep the right one and remove the other.",
    )


def _folder_flaw(name: str, kind: Kind) -> Flaw | None:
    if name.endswith("/") and classify(name.removesuffix("/"), kind).verdict == "accepted":
        return Flaw(f"{kind}.special", f"{printable(name)} is a folder. Expected a file.")
    return None


def classify(path: str, kind: Kind) -> FileVerdict:
    """The verdict on a file by its name; `path` has "/" between folders. `kind`: where it came in."""
    base = base_name(path)
    low, shown = base.lower().rstrip(" ."), printable(base)
    say = partial(FileVerdict, path)
    if not {"__MACOSX", ".git"}.isdisjoint(path.split("/")[:-1]) or like(low, SYSTEM):
        return say("ignored", "A file of the operating system or of git.", "ignore.system")
    if low.endswith(PICKLES):
        is_one = "can hold a pickle" if low.endswith((".npy", ".npz")) else "is a pickle"
        return say("refused", f"{shown} {is_one} and could run code.", "format.pickle")
    if low.endswith(OTHER_FORMATS):
        return say("refused", f"{shown} is in another format than safetensors.", "format.other")
    if low.endswith(CODE):
        return say(
            "refused",
            f"{shown} is code that came with the model. Remove it, and any auto_map in config.json; code is never run.",
            "format.code",
        )
    if low.endswith(ARCHIVES):
        remedy = (
            "Unpack it, and zip the model's files alone."
            if kind == "zip"
            else "Upload the model's files, or one .zip of them and nothing else."
        )
        return say("refused", f"{shown} is an archive within the upload. {remedy}", f"{kind}.nested")
    if base.endswith((".safetensors", ".safetensors.index.json")):
        if not re.fullmatch(WEIGHTS, base):
            return say(
                "refused",
                f"{shown} is no name of weights that is read. Rename it, to model.safetensors if it is the only one.",
                f"{kind}.name",
            )
        if base.endswith(".json"):
            return say("accepted", "Says which weights stand in which file.", "accept.index")
        return say("accepted", "Weights.", "accept.weights")
    if base in READ:
        return say("accepted", READ[base], "accept.settings")
    if like(low, FOR_READERS):
        return say("ignored", "A text for readers; the model works without it.", "ignore.text")
    if like(low, LOGS):
        return say("ignored", "A trace of the training; the model works without it.", "ignore.log")
    if low.endswith(".model"):
        writes = "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes it"
        return say(
            "ignored", f"A sentencepiece model is not read; tokenizer.json is, and {writes}.", "ignore.sentencepiece"
        )
    return say(
        "ignored", "Nothing that is read goes by this name. Rename it if it is part of the model.", "ignore.unknown"
    )


def what_to_do(base: str, weights: str) -> str:
    """What to do with a file of a refused format, where the model's weights are `weights` ("": none are there)."""
    low = base.lower().rstrip(" .")
    if like(low, LEFT_OVER):
        return "Remove it: it is left over from training."
    if low in SETFIT_HEADS:
        return (
            "It is the classifier of a SetFit model: what stands beside it is an encoder alone, and without the pickle "
            "there is no classifier, so such a model cannot be read here. Give one of a class "
            "...ForSequenceClassification, as its save_pretrained writes it."
        )
    if weights:
        return f"Remove it: {weights} is all that is read of weights."
    apart = "where you trust it, in a container without network and secrets, for loading it can run code"
    if low.endswith(GGUF):
        return (
            "Give the model that it was made from: GGUF is for text generation, and is quantized. If there is none, "
            f"convert it {apart}: from_pretrained(folder, gguf_file=...) of transformers, then save_pretrained, and "
            "give model.safetensors."
        )
    if low.endswith(ONNX):
        return (
            "An ONNX graph is no model that can be trained: give the model that it was exported from, "
            "saved with model.save_pretrained, which writes model.safetensors."
        )
    if low.endswith((".h5", ".hdf5", ".keras", ".msgpack")):
        return (
            f"Convert it {apart}, with transformers 4: from_pretrained(folder, from_tf=True or from_flax=True), then "
            "save_pretrained, and give model.safetensors."
        )
    if low.endswith(TORCH):
        return (
            f"Convert it {apart}, with PyTorch 2.10 or later: "
            "AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(new, "
            "safe_serialization=True), and give model.safetensors."
        )
    return f"Convert it with model.save_pretrained {apart}, and give model.safetensors."


def base_name(path: str) -> str:
    return path.rpartition("/")[2]


def folder_of(path: str) -> str:
    """The folder that a file stands in: "" at the top."""
    return path.rpartition("/")[0]


def like(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
