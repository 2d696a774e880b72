"""Models of the Hugging Face Hub: what of a repository is fetched, decided from its metadata before a byte of it comes.

No token is sent: what a visitor names is read as by a stranger, never with the rights of who runs the server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import MBTSADError, UnsafeModel, UnsuitableModel
from mbtsad_core.vetting.file_policy import READ, FileVerdict, judge_names
from mbtsad_core.vetting.model_folder import INDEX, SINGLE

MODEL_ID = re.compile(
    r"hub:(?P<id>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>"
    r"[0-9a-f]{40}|[A-Za-z0-9][\w.-]{0,200}))?",
    re.ASCII,
)
COMMIT = re.compile("[0-9a-f]{40}")
SHARD = re.compile(r"model-[0-9]{5}-of-[0-9]{5}\.safetensors")
SECONDS = 20  # for the Hub to answer


@dataclass(frozen=True)
class Fetched:
    """A model in the local cache.

    directory  the snapshot, in which files may stand that others fetched
    names      of the files that are read
    files      what becomes of each file of the repository; none where the Hub was not asked
    """

    directory: Path
    names: list[str]
    files: tuple[FileVerdict, ...] = ()

    @property
    def commit(self) -> str:
        """The commit of the repository that the snapshot is of."""
        return self.directory.name


def fetch_model(source: str, limits: VettingConfig = VettingConfig()) -> Fetched:
    """Fetch what is read of `hub:OWNER/NAME[@REVISION]`, at the commit that it was listed at.

    Raises UnsuitableModel where the source names no model or cannot be fetched, UnsafeModel where its list of files is
    refused. Where the Hub is not to be asked, or not reached, what was fetched before is taken.
    """
    match = MODEL_ID.fullmatch(source)
    if not match or ".." in source or "--" in match["id"]:
        raise UnsuitableModel(f"{source[:300]!r} names no Hub model. Expected hub:OWNER/NAME[@REVISION].")
    from huggingface_hub import snapshot_download

    try:
        commit, names, files = _list(match["id"], match["revision"], limits)
        if names:
            directory = Path(snapshot_download(match["id"], revision=commit, allow_patterns=names, token=False))
            return Fetched(directory, names, files)
        directory = Path(snapshot_download(match["id"], revision=commit, local_files_only=True))
        return Fetched(directory, _wanted([p.name for p in directory.iterdir()]))
    except MBTSADError:
        raise
    except Exception as error:  # the network's errors and the Hub's
        reason = _reason(error)
        raise UnsuitableModel(
            f"The Hub model {match['id']!r} could not be fetched: {reason}. Check the id, the revision and the "
            "network. A private model is not fetched here: download it with `hf download` and give its folder."
        ) from error


def _reason(error: Exception) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):  # what it says is for programmers
        why = (
            "the Hub is switched off here (HF_HUB_OFFLINE is set)"
            if constants.HF_HUB_OFFLINE
            else "the Hub was not reached"
        )
        return f"{why}, and this machine has no copy from before"
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _list(
    id: str, revision: str | None, limits: VettingConfig
) -> tuple[str | None, list[str], tuple[FileVerdict, ...]]:
    """The commit of a model, the names of its files that are read, and a verdict on each; no names where the Hub is not
    reached."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return revision, [], ()
    try:
        found = HfApi(token=False).model_info(id, revision=revision, files_metadata=True, timeout=SECONDS)
    except Exception as error:
        if getattr(error, "response", None) is not None:  # the Hub answered
            raise
        return revision, [], ()
    sizes = {file.rfilename: file.size for file in found.siblings or ()}
    if len(sizes) > limits.files:
        raise UnsafeModel(f"Refused: {id!r} has more than {limits.files} files.", "folder.entries")
    verdicts = [verdict for verdict in judge_names([(name, None) for name in sizes], "file") if verdict]
    for verdict in verdicts:
        if verdict.rule == "format.code":
            raise UnsafeModel(f"Refused: {verdict.reason}", verdict.rule, verdict.name)
    wanted = _wanted([v.name for v in verdicts if "/" not in v.name])
    for lacking, rule in (("config.json", "config.missing"), (SINGLE, "weights.missing")):
        if lacking not in wanted and not (lacking == SINGLE and INDEX in wanted):
            for verdict in verdicts:
                if lacking == SINGLE and verdict.rule in ("format.pickle", "format.other"):
                    raise UnsafeModel(f"Refused: {verdict.reason}", verdict.rule, verdict.name)
            raise UnsafeModel(
                f"The Hub model {id!r} holds no {lacking}. Expected what save_pretrained writes.", rule, lacking
            )
    if unsized := [name for name in wanted if sizes[name] is None]:
        raise UnsuitableModel(f"The Hub does not say how large {unsized[0]} of {id!r} is, so it is not fetched.")
    total = sum(sizes[name] or 0 for name in wanted)
    if total > limits.megabytes << 20:
        raise UnsafeModel(
            f"Refused: {id!r} is of {total >> 20} megabytes; {limits.megabytes} are allowed. Give a smaller model.",
            "size.total",
            SINGLE,
        )
    return found.sha, wanted, tuple(_left_there(v, v.name in wanted) for v in verdicts)


def _wanted(names: list[str]) -> list[str]:
    """The names that are read. As the library does, the single file of weights is taken where both that and an index
    are there."""
    whole = SINGLE in names
    return sorted(
        name
        for name in names
        if name in READ or name == SINGLE or (not whole and (name == INDEX or SHARD.fullmatch(name)))
    )


def _left_there(verdict: FileVerdict, wanted: bool) -> FileVerdict:
    if wanted or verdict.verdict == "ignored":
        return verdict
    return replace(verdict, verdict="ignored", reason="Not fetched: nothing of it is read.", rule="ignore.format")
