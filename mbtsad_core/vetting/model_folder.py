"""What a model directory must be before anything is loaded from it, and what is kept of it.

Cheap questions come first, and each is answered before the next may take memory: names, then config.json, then the
headers of the weights, then the tokenizer, then whether headers and config agree, then the weights' values. No weight
is loaded here. What is kept is what `load_classifier` builds from: the files' own config and tokenizer never reach the
library.

The rules are named in `mbtsad_core.vetting.rules`, and docs/vetting.md lists them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import CouldNotTell, UnsafeModel
from mbtsad_core.vetting.blueprint import Weight, blueprint, build_config, build_tokenizer, match
from mbtsad_core.vetting.config_policy import notes_on, vet_config
from mbtsad_core.vetting.file_policy import FileVerdict, Flaw, base_name, folder_of, judge_names, printable
from mbtsad_core.vetting.safetensors_header import Stored, check_values, read_header
from mbtsad_core.vetting.strict_json import LARGEST_CONFIG, read_bytes, read_object
from mbtsad_core.vetting.tokenizer_policy import FILES, vet_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "LARGEST_CONFIG",
    "Vetted",
    "check_model_files",
    "digest",
    "home_of",
    "judge_folder",
    "read_index",
    "snapshot_of",
    "vet_model",
    "vet_named",
]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LARGEST_INDEX = 16 << 20  # bytes


@dataclass(frozen=True)
class Vetted:
    """What is kept of a model directory.

    config     the architecture's configuration, built from what is kept of config.json
    tokenizer  built from what is kept of its files
    weights    where they stand, by the name that the library's model gives them
    directory  that the files stand in, the given one or one within it
    names      of the files that are read, sorted
    left_out   by file name: keys and tensors that are not read
    notes      by file name: what was chosen where the file leaves a choice, a sentence each
    """

    config: Any
    tokenizer: PreTrainedTokenizerBase
    weights: dict[str, Weight]
    directory: Path
    names: tuple[str, ...]
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


def check_model_files(directory: Path, limits: VettingConfig = VettingConfig()) -> None:
    """Raise UnsafeModel unless the directory holds a sound model: safetensors weights, a config.json and a tokenizer
    that fit them, and nothing that asks for code to run. CouldNotTell, which is an UnsafeModel, where it cannot be
    judged."""
    vet_model(directory, limits)


def vet_model(directory: Path, limits: VettingConfig = VettingConfig(), names: Collection[str] | None = None) -> Vetted:
    """What is kept of a model directory. Raises UnsafeModel, or CouldNotTell, with the rule and the file.

    names  of the files of the directory that belong to the model, where others put it together (a cache of the Hub);
           else all that is in the directory is judged.
    """
    if names is not None:
        return vet_named(directory, names, limits, str(directory), names)
    cache, directory = directory, snapshot_of(directory)
    verdicts = judge_folder(directory, limits)
    for verdict in sorted((v for v in verdicts if v.verdict == "refused"), key=lambda v: v.name):
        raise UnsafeModel(f"Refused: {verdict.reason}", verdict.rule, verdict.name)
    home = home_of(verdicts)
    read = [base_name(v.name) for v in verdicts if v.verdict == "accepted"]
    vetted = vet_named(directory / home, read, limits, str(directory), [v.name for v in verdicts if "/" not in v.name])
    if directory != cache:
        vetted.notes["config.json"].append(
            f"{cache} is the Hub's cache of a model; its snapshot {directory.name} was read."
        )
    return vetted


def vet_named(
    directory: Path, names: Collection[str], limits: VettingConfig, called: str, found: Collection[str]
) -> Vetted:
    """What is kept of a model whose files in `directory` are judged by their names. Raises as `vet_model` does.

    called  what the whole is called in sentences
    found   names that are told where a file is missing
    """
    seen = printable(", ".join(sorted(found)[:6]), 400) or "nothing"
    if "config.json" not in names and "adapter_config.json" in found:
        raise UnsafeModel(
            f"{called} holds an adapter alone (found: {seen}), and no model. Merge it into its model where you trust "
            "both (merge_and_unload of PEFT), and give the folder that save_pretrained then writes.",
            "config.missing",
            "config.json",
        )
    if "config.json" not in names:
        raise UnsafeModel(
            f"{called} holds no config.json (found: {seen}). Give the folder that save_pretrained wrote.",
            "config.missing",
            "config.json",
        )
    if not any(name.endswith(".safetensors") for name in names):
        raise UnsafeModel(
            f"{called} holds no weights (found: {seen}). Expected model.safetensors.", "weights.missing", SINGLE
        )
    try:
        values = read_object(directory / "config.json")
        kept, unread = vet_config(values, limits)
        files = _weights(directory, names, limits)
        texts, unused = vet_tokenizer(directory, [name for name in FILES if name in names], _rows(files), limits)
        config = build_config(kept)
        matched = match(blueprint(config, kept), files, kept, limits)
        tokenizer = build_tokenizer(texts, config)
        for path, tensors in files.items():
            check_values(path, tensors, limits)
    except MemoryError as error:
        raise CouldNotTell(
            "There was not enough memory to judge the model. Try it on a larger machine.", "vet.memory"
        ) from error
    weights = next(iter(files)).name
    left_out = unused | {name: left for name, left in (("config.json", unread), (weights, matched.left_out)) if left}
    notes = {"config.json": notes_on(values, limits), weights: matched.notes}
    return Vetted(config, tokenizer, matched.weights, directory, tuple(sorted(names)), left_out, notes)


def digest(directory: Path, names: Collection[str]) -> str:
    """SHA-256 of what `sha256sum NAMES` prints of these files of a directory, by name: one figure for all that is read
    of a model."""
    lines = []
    for name in sorted(names):
        with open(directory / name, "rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# ---------------------------------------------------------------- names


def snapshot_of(directory: Path) -> Path:
    """The model's folder in a folder of the Hub's cache (models--OWNER--NAME): the snapshot that refs/main names, or
    the only one. Any other folder is itself. Raises UnsafeModel where it is not clear which snapshot is meant."""
    root = directory.parent if directory.name == "snapshots" else directory
    if (
        (directory / "config.json").exists()
        or not (root / "snapshots").is_dir()
        or not ((root / "refs").is_dir() or (root / "blobs").is_dir())
    ):
        return directory
    found = sorted(path.name for path in (root / "snapshots").iterdir() if path.is_dir())
    main = (
        read_bytes(root / "refs" / "main", 256).decode("utf-8", "replace").strip()
        if (root / "refs" / "main").is_file()
        else ""
    )
    if main in found or len(found) == 1:
        return root / "snapshots" / (main if main in found else found[0])
    which = (
        f"Give one of them: {printable(', '.join(str(root / 'snapshots' / name) for name in found[:3]), 600)}"
        if found
        else "Download the model again"
    )
    raise UnsafeModel(
        f"{directory} is the Hub's cache of a model, with {len(found)} snapshots, and no refs/main that names one. "
        f"{which}.",
        "config.missing",
        "config.json",
    )


def home_of(verdicts: Sequence[FileVerdict]) -> str:
    """The folder, within the whole, that the model's files stand in: "" at the top."""
    return next((folder_of(v.name) for v in verdicts if v.verdict == "accepted"), "")


def judge_folder(directory: Path, limits: VettingConfig = VettingConfig()) -> list[FileVerdict]:
    """A verdict on each file of a folder by its name and kind. Raises UnsafeModel where there is none or too many,
    CouldNotTell where a folder cannot be read."""
    if not directory.is_dir():
        raise UnsafeModel(
            f"No model directory at {directory}{', which is a file' if directory.is_file() else ''}. Expected a folder "
            "with config.json, model.safetensors and the tokenizer's files, a .zip of one, or hub:OWNER/NAME.",
            "folder.missing",
        )
    return [
        verdict
        for verdict in judge_names([_outside(path, directory) for path in _walk(directory, limits)], "file")
        if verdict
    ]


def _outside(path: Path, directory: Path) -> tuple[str, Flaw | None]:
    """The name of a file or folder within a directory, and what is wrong with it from outside."""
    name = path.relative_to(directory).as_posix()
    try:
        kind = path.stat().st_mode  # of what a link leads to
    except OSError:
        return name, Flaw("file.link", f"{printable(name)} is a link that leads nowhere. Put the file in its place.")
    if stat.S_ISDIR(kind):
        return f"{name}/", None
    if not stat.S_ISREG(kind):
        return name, Flaw("file.special", f"{printable(name)} is a device or a pipe and no file. Remove it.")
    if path.is_symlink() and not _stays(path, directory):
        return name, Flaw(
            "file.link", f"{printable(name)} is a link out of the model's folder. Put the file in its place."
        )
    return name, None


def _walk(directory: Path, limits: VettingConfig) -> Iterator[Path]:
    """All files and folders within a directory, without going into .git or through links."""
    waiting, count = [directory], 0
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise CouldNotTell(
                f"{folder} could not be read ({error.strerror}), so it could not be judged.", "vet.unreadable"
            ) from error
        for entry in entries:
            count += 1
            if count > limits.files:
                raise UnsafeModel(
                    f"Refused: {directory} holds more than {limits.files} files. Give the folder that save_pretrained "
                    "wrote.",
                    "folder.entries",
                )
            yield Path(entry.path)
            if entry.is_dir(follow_symlinks=False) and entry.name != ".git":
                waiting.append(Path(entry.path))


def _stays(link: Path, directory: Path) -> bool:
    """Whether a link leads to a file of the same folder, or, in the cache of huggingface_hub, to one of the
    repository's blobs."""
    target, home = link.resolve(), directory.resolve()
    return target.is_relative_to(home) or (
        home.parent.name == "snapshots" and target.is_relative_to(home.parents[1] / "blobs")
    )


# ---------------------------------------------------------------- weights


def _weights(directory: Path, names: Collection[str], limits: VettingConfig) -> dict[Path, dict[str, Stored]]:
    """The headers of the files that the weights stand in."""
    stored = sorted(name for name in names if name.endswith(".safetensors"))
    indexes = sorted(name for name in names if name.endswith(".safetensors.index.json"))
    maps = {name: read_index(directory / name) for name in indexes}
    if SINGLE in stored and INDEX in maps:
        raise UnsafeModel(
            f"Refused: both {SINGLE} and {INDEX} are there, and only one can be meant. Remove the other.",
            "weights.ambiguous",
            INDEX,
        )
    wanted = sorted(set(maps[INDEX].values())) if INDEX in maps else [SINGLE]
    if absent := [name for name in wanted if name not in stored]:
        raise UnsafeModel(
            f"Refused: the weights' file {absent[0]} is missing. Give all files that save_pretrained wrote.",
            "weights.missing",
            absent[0],
        )
    if stray := [name for name in (*stored, *maps) if name not in (*wanted, INDEX)]:
        raise UnsafeModel(
            f"Refused: {stray[0]} is no part of the model: only {SINGLE}, or what {INDEX} names, is read. Remove it.",
            "weights.stray",
            stray[0],
        )
    files = {directory / name: read_header(directory / name, limits) for name in wanted}
    if INDEX in maps:
        placed = {tensor: path.name for path, tensors in files.items() for tensor in tensors}
        if sum(map(len, files.values())) != len(placed):
            raise UnsafeModel("Refused: a tensor stands in two of the weights' files.", "weights.duplicate", INDEX)
        if placed != maps[INDEX]:
            odd = next(iter(placed.items() ^ maps[INDEX].items()))[0]
            raise UnsafeModel(
                f"Refused: {INDEX} and the weights' files do not agree on {printable(odd)!r}.", "weights.index", INDEX
            )
    return files


def read_index(path: Path) -> dict[str, str]:
    """Which tensor stands in which file of the same folder, as an index says."""
    shards = read_object(path, LARGEST_INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UnsafeModel(
            f"{path.name} holds no weight_map. Expected the file that save_pretrained wrote.",
            "weights.index",
            path.name,
        )
    for shard in shards.values():
        if (
            not isinstance(shard, str)
            or "/" in shard
            or "\\" in shard
            or "\0" in shard
            or not shard.endswith(".safetensors")
        ):
            raise UnsafeModel(
                f"Refused: {path.name} names {shard!r}. Expected names of .safetensors files of the same folder.",
                "weights.index",
                path.name,
            )
    return shards


def _rows(files: Mapping[Path, Mapping[str, Stored]]) -> int | None:
    """How many word embeddings there are."""
    shapes = (
        tensor.shape
        for tensors in files.values()
        for name, tensor in tensors.items()
        if name.endswith("word_embeddings.weight")
    )
    return next((shape[0] for shape in shapes if shape), None)
