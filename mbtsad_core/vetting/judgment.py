"""The verdict on a folder, a zip, a single file or a model of the Hub, for `mbtsad vet`: by the same code as the page
and every load."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import UnsafeModel, UnsuitableModel
from mbtsad_core.sources import Source
from mbtsad_core.vetting.config_policy import vet_config
from mbtsad_core.vetting.file_policy import classify, printable, what_to_do
from mbtsad_core.vetting.hub import MODEL_ID, fetch_model
from mbtsad_core.vetting.model_folder import home_of, judge_folder, read_index, snapshot_of
from mbtsad_core.vetting.safetensors_header import check_values, read_header
from mbtsad_core.vetting.strict_json import read_object
from mbtsad_core.vetting.tokenizer_policy import vet_files
from mbtsad_core.vetting.uploads import unpack
from mbtsad_core.vetting.verdicts import PolicyReport, faulted, undecided, weigh


def vet(source: str, limits: VettingConfig = VettingConfig()) -> PolicyReport:
    """The verdict on `source`: a folder, a .zip, a file of a model, or `hub:OWNER/NAME[@REVISION]`.

    Whatever stands there ends in a report; nothing of it is changed, loaded or kept. Of a file alone, the file is
    judged; of all others, whether they are a whole model.
    """
    if Source(source).is_hub:
        return _judge_hub(source, limits)
    path = Path(source)
    try:
        if path.is_dir():
            return _judge_directory(path, limits)
        if not path.exists():
            return undecided(source, f"There is nothing at {printable(source)}.", "vet.nothing")
        if path.suffix.lower() == ".zip":
            with tempfile.TemporaryDirectory(prefix="mbtsad-vet-") as folder:
                return unpack(path, Path(folder) / "model", limits)
        return _judge_file(path, limits)
    except OSError as error:
        return undecided(
            source,
            f"{printable(source)} could not be read ({error.strerror or type(error).__name__}).",
            "vet.unreadable",
        )


def _judge_directory(directory: Path, limits: VettingConfig) -> PolicyReport:
    try:
        directory = snapshot_of(directory)
        files = judge_folder(directory, limits)
    except UnsafeModel as error:
        return faulted([], error)
    return weigh(files, directory / home_of(files), limits, str(directory))


def _judge_hub(source: str, limits: VettingConfig) -> PolicyReport:
    try:
        fetched = fetch_model(source, limits)
    except UnsafeModel as error:
        return faulted([], error)
    except UnsuitableModel as error:
        return undecided(source, str(error), "vet.fetch" if MODEL_ID.fullmatch(source) else "hub.id")
    files = fetched.files or tuple(classify(name, "file") for name in fetched.names)
    return weigh(files, fetched.directory, limits, source, fetched.names)


def _judge_file(path: Path, limits: VettingConfig) -> PolicyReport:
    """The verdict on a file by itself: its format, and its content where it is one that is read."""
    verdict, name = classify(path.name, "file"), path.name
    if verdict.verdict == "refused":
        remedy = f" {what_to_do(name, '')}" if verdict.rule in ("format.pickle", "format.other") else ""
        return faulted([], UnsafeModel(f"Refused: {verdict.reason}{remedy}", verdict.rule, name))
    if verdict.verdict == "ignored":
        return undecided(
            name,
            f"{printable(name)} is none of the files that are read of a model, so it was not judged.",
            "vet.nothing",
        )
    try:
        if name.endswith(".safetensors"):
            check_values(path, read_header(path, limits), limits)
        elif name.endswith(".safetensors.index.json"):
            read_index(path)
        elif name == "config.json":
            vet_config(read_object(path), limits)
        else:
            vet_files(path.parent, [name], None, limits)
    except UnsafeModel as error:
        return faulted([verdict], error)
    return PolicyReport((verdict,))
