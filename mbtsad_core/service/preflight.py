"""The first look at a stranger's model: it is judged, loaded and asked once, in a sandbox, before the server's own
process opens it.

`receive` does that with an upload, `attempt` with a folder or a model of the Hub; `vet` gives the verdict of `mbtsad
vet` from there. The sandboxed process is this module's `main`: it reads what is asked from standard input and answers
in JSON. The answer is a stranger's too: what is taken from it are words, which are shown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from mbtsad_core import errors
from mbtsad_core.config import SandboxConfig, UploadConfig, VettingConfig, from_dict, to_dict
from mbtsad_core.errors import CouldNotTell, MBTSADError, UnsafeModel, UnsuitableModel
from mbtsad_core.service.keeper import megabytes
from mbtsad_core.service.sandbox import OFFLINE, Ended, caches, environment, run, said
from mbtsad_core.sources import Source
from mbtsad_core.vetting import judgment
from mbtsad_core.vetting.file_policy import FileVerdict, Verdict, printable
from mbtsad_core.vetting.hub import fetch_model
from mbtsad_core.vetting.uploads import PolicyReport

logger = logging.getLogger(__name__)

MODEL = "upload"  # where a sandboxed process puts the files of an upload; sentences name it
RAISED = ("UnsafeModel", "CouldNotTell", "UnsuitableModel", "BadConfig")  # that a sandboxed process may report
VERDICTS = get_args(Verdict)
TAKEN = PolicyReport(())


def receive(
    sources: Sequence[tuple[str, Path]],
    directory: Path,
    uploads: UploadConfig = UploadConfig(),
    limits: VettingConfig = VettingConfig(),
    sandbox: SandboxConfig = SandboxConfig(),
) -> PolicyReport:
    """`models.uploads.receive` in a sandbox, where what was taken is also loaded and asked once; `directory` is there
    only where all of it went well.

    Raises UnsuitableModel where the files are sound, and the model is none that the method can treat.
    """
    asked = {
        "sources": [(name, str(path.absolute())) for name, path in sources],
        "uploads": to_dict(uploads),
        "limits": to_dict(limits),
    }
    with _folder(directory.parent) as folder:
        try:
            report = _ask(asked, folder, sandbox)
        except UnsafeModel as error:  # of a model that was accepted by its files
            return PolicyReport((), str(error), error.rule, isinstance(error, CouldNotTell))
        if report.accepted:
            _take(folder / MODEL, directory)
        return report


def attempt(
    source: str | Path, folder: Path, limits: VettingConfig = VettingConfig(), sandbox: SandboxConfig = SandboxConfig()
) -> None:
    """Judge, load and ask a model once, in a sandbox that has its folder within `folder`; raises as `load_classifier`
    and `check_suitable` do.

    source  a folder, or `hub:OWNER/NAME@COMMIT` of a model that was fetched before: the sandbox does not ask the Hub
    """
    with _folder(folder) as own:
        _ask({"source": _anywhere(source), "limits": to_dict(limits)}, own, sandbox)


def vet(source: str, limits: VettingConfig = VettingConfig(), sandbox: SandboxConfig = SandboxConfig()) -> PolicyReport:
    """`models.judgment.vet` in a sandbox, where a whole model that is clean is also loaded and asked once: one that
    ends the process, or reaches a limit, is inconclusive. Whether the method can treat it is no part of the verdict."""
    asked: dict[str, Any] = {"judge": _anywhere(source), "limits": to_dict(limits)}
    if Source(source).is_hub:
        try:
            asked["judge"] = Source(source).at(fetch_model(source, limits).commit)
        except (UnsafeModel, UnsuitableModel):  # nothing came that could be read
            return judgment.vet(source, limits=limits)
    with tempfile.TemporaryDirectory(prefix="mbtsad-sandbox-", ignore_cleanup_errors=True) as folder:
        try:
            return _ask(asked, Path(folder), sandbox)
        except UnsafeModel as error:
            undecided = isinstance(error, CouldNotTell)
            verdict = FileVerdict(error.file, "inconclusive" if undecided else "refused", str(error), error.rule)
            return PolicyReport((verdict,), str(error), error.rule, undecided)


def _anywhere(source: str | Path) -> str:
    """The source as a process with another working folder reads it."""
    return str(source) if Source(source).is_hub else os.path.abspath(source)


@contextlib.contextmanager
def _folder(within: Path) -> Iterator[Path]:
    """A folder for one sandbox, on the same disk as what it makes, which goes with it."""
    own = Path(tempfile.mkdtemp(prefix="sandbox-", dir=within))
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _ask(asked: dict[str, Any], folder: Path, sandbox: SandboxConfig) -> PolicyReport:
    """The sandboxed process's report; raises what it found."""
    more = OFFLINE | caches() | {"CUDA_VISIBLE_DEVICES": ""}
    program = [sys.executable, "-P", "-m", "mbtsad_core.service.preflight"]
    ended = run(program, folder, sandbox, environment(folder, more=more), json.dumps(asked).encode())
    try:
        if ended.limit or ended.code:
            raise ValueError("it did not end as it should")
        report, error = _read(json.loads(ended.out))
    except (ValueError, TypeError, KeyError, RecursionError) as nothing:
        logger.warning(
            "A sandboxed process gave no answer: %s. It wrote: %s",
            ended.limit or ended.code,
            printable(ended.err[-2000:].decode("utf-8", "replace"), 2000),
        )
        raise CouldNotTell(_why(ended, sandbox), "vet.cage") from nothing
    if error:
        raise error
    return report


def _read(answer: Any) -> tuple[PolicyReport, MBTSADError | None]:
    """The report and the error that a sandboxed process tells. Raises ValueError, TypeError or KeyError where it is not
    as `main` writes it."""
    files = tuple(FileVerdict(str(f["name"]), f["verdict"], str(f["reason"]), str(f["rule"])) for f in answer["files"])
    if any(file.verdict not in VERDICTS for file in files):
        raise ValueError("a verdict that there is not")
    report = PolicyReport(files, str(answer["problem"]), str(answer["rule"]), bool(answer["undecided"]))
    return report, _raised(answer["error"]) if answer["error"] else None


def _take(made: Path, directory: Path) -> None:
    """Put the folder that a sandboxed process made where it is kept."""
    if made.is_symlink() or not made.is_dir():
        raise CouldNotTell(
            "The upload could not be judged: the process that judged it left no model. Upload it again.", "vet.cage"
        )
    made.rename(directory)


def _raised(error: dict[str, Any]) -> MBTSADError:
    """The error that a sandboxed process reports, as one of ours."""
    name, text = str(error["kind"]), printable(str(error["message"]), 1000)
    if name not in RAISED:
        return MBTSADError(text)
    kind: type[MBTSADError] = getattr(errors, name)
    return kind(text, str(error["rule"]), str(error["file"])) if issubclass(kind, UnsafeModel) else kind(text)


def _why(ended: Ended, sandbox: SandboxConfig) -> str:
    """Why a sandboxed process gave no answer, for who gave the model."""
    whole = "The model could not be judged: it is first read, loaded and asked in a process of its own with"
    remedy = (
        "Give a smaller model, or one saved anew with save_pretrained; a higher limit is for whoever runs this "
        "program to set."
    )
    if ended.limit:
        return f"{whole} {said(ended.limit, sandbox)}, and it took more. {remedy}"
    most = (
        f"{megabytes(sandbox)} megabytes of memory, {sandbox.file_megabytes} of a file, {sandbox.open_files} open files"
    )
    how = f"signal {-ended.code} ended it" if ended.code < 0 else f"it ended with status {ended.code}"
    return f"{whole} limits ({most}), and {how}. {remedy}"


# ---------------------------------------------------------------- the sandboxed process


def main() -> int:
    asked = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    report, error = TAKEN, None
    try:
        report = _look(asked)
    except UnsafeModel as found:
        error = dict(kind=type(found).__name__, message=str(found), rule=found.rule, file=found.file)
    except MBTSADError as found:
        error = dict(kind=type(found).__name__, message=str(found), rule="", file="")
        if _lacked_memory(found):
            error = _no_memory()
    except Exception as found:  # of a library
        if not _lacked_memory(found):
            raise
        error = _no_memory()
    files = [dataclasses.asdict(file) for file in report.files]
    json.dump(
        dict(files=files, problem=report.problem, rule=report.rule, undecided=report.undecided, error=error), answer
    )
    answer.close()
    return 0


def _look(asked: dict[str, Any]) -> PolicyReport:
    from mbtsad_core.models.classifier import check_suitable, load_classifier
    from mbtsad_core.vetting import uploads

    limits, report, source = from_dict(VettingConfig, asked["limits"]), TAKEN, asked.get("source")
    if "judge" in asked:
        source = Source(asked["judge"])
        report = judgment.vet(source, limits=limits)
        if report.accepted and (source.is_hub or Path(source).is_dir() or source.lower().endswith(".zip")):
            with contextlib.suppress(UnsuitableModel):
                check_suitable(load_classifier(source, limits=limits))
        return report
    if source is None:
        sources = [(name, Path(path)) for name, path in asked["sources"]]
        report = uploads.receive(sources, Path(MODEL), from_dict(UploadConfig, asked["uploads"]), limits)
        source = MODEL
    if report.accepted:
        check_suitable(load_classifier(source, limits=limits))
    return report


def _lacked_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is a want of memory: Python's, or in PyTorch's and the system's
    words."""
    while error:
        if isinstance(error, MemoryError) or any(
            words in str(error).lower() for words in ("allocate memory", "bad alloc", "bad_alloc")
        ):
            return True
        error = error.__cause__
    return False


def _no_memory() -> dict[str, str]:
    import resource

    most = resource.getrlimit(resource.RLIMIT_DATA)[0] >> 20
    message = (
        f"The model could not be judged: it may take {most} megabytes of memory here, and it took more. "
        "Give a smaller model; a higher limit is for whoever runs this program to set."
    )
    return dict(kind="CouldNotTell", message=message, rule="vet.memory", file="")


if __name__ == "__main__":
    sys.exit(main())
