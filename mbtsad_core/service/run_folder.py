"""What a run keeps on the disk, so that neither a kill nor a power cut leaves half of anything.

run.json                what was asked for, and the hash of the suspect
events.jsonl            the progress so far, one event a line
checkpoint.safetensors  the last saved state; gone once the run is done
model/                  the purified model, its tokenizer, and its model card
teacher/                the retrained teacher, where it was asked for
model.zip               model/ in one file, once someone wanted it (`model_zip`)
best/                   in its place where the run diverged: the model with the lowest loss before
report.json, report.html
space.json              where its texts lie, for the page, once the run is done (`space`)
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shlex
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mbtsad_core.errors import BadOutput
from mbtsad_core.models.classifier import Classifier, save_classifier
from mbtsad_core.training.state import TrainState, remove_unfinished, sync, write_state
from mbtsad_core.types import Event

CHECKPOINT, EVENTS, RUN = "checkpoint.safetensors", "events.jsonl", "run.json"


def saver(out: Path, started: float) -> Callable[[TrainState], None]:
    def save(state: TrainState) -> None:
        with open(out / EVENTS, "rb") as events:
            os.fsync(events.fileno())  # no checkpoint without the events before it
        write_state(
            dataclasses.replace(state, numbers=state.numbers | {"seconds": time.monotonic() - started}),
            out / CHECKPOINT,
        )

    return save


def event_line(event: Event) -> str:
    kept = {name: getattr(event, name) for name in ("stage", "step", "total", "metrics")}  # not who leads a scan
    return json.dumps(kept) + "\n"


def read_events(out: Path) -> list[Event]:
    """The events that a run has written so far; a line that a kill left unfinished is not among them, nor what follows
    a damaged one."""
    found = []
    with contextlib.suppress(ValueError, TypeError, FileNotFoundError):
        # What comes after a line that a power cut damaged is no older than it
        for line in (out / EVENTS).read_bytes().split(b"\n"):
            if line.endswith(b"}}"):
                found.append(Event(**json.loads(line)))
    return found


def killed_before_start(out: Path) -> bool:
    """Whether a run ended here before its run.json was written; takes away what it left."""
    unfinished = {".write-test", RUN + ".new"}
    if not out.exists():
        return True
    if not out.is_dir() or any(p.name not in unfinished for p in out.iterdir()):
        return False
    for name in unfinished:
        (out / name).unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def new_output(out: Path) -> Iterator[None]:
    """Make the output directory, or accept an empty one; an error inside takes back what was made, unless it was
    written to.

    Raises BadOutput where there is something in it, or nothing can be written.
    """
    made: list[Path] = []
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            stopped = (out / RUN).exists() and not (out / "report.json").exists()
            hint = (
                f", or go on with the stopped run there: mbtsad purify --resume {shlex.quote(str(out))}"
                if stopped
                else ""
            )
            raise BadOutput(f"{out} exists and is not an empty directory. Give a new `out`{hint}.")
        made = [p for p in (out, *out.parents) if not p.exists()]
        out.mkdir(parents=True, exist_ok=True)
        for directory in made:
            sync(directory.parent)
        probe = out / ".write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        _remove_empty(made)
        raise BadOutput(
            f"{out} cannot be written to: {error.strerror}. Give `out` a directory that you may write to."
        ) from error
    try:
        yield
    except BaseException:
        _remove_empty(made)
        raise


def _remove_empty(directories: Sequence[Path]) -> None:
    """Remove these directories, the deepest first, up to one that holds something."""
    with contextlib.suppress(OSError):
        for directory in directories:
            directory.rmdir()


def write_whole(path: Path, text: str) -> None:
    """Write so that `path` holds the old text or the new one, whole, even where the power fails."""
    new = path.with_name(path.name + ".new")
    try:
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; `path` never holds half a file."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def save_whole(classifier: Classifier, directory: Path, card: str | None = None) -> None:
    """Write a model, and its card, so that `directory` never holds a part of it, even where the power fails."""
    unfinished = directory.with_name(directory.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        save_classifier(classifier, unfinished)
        if card is not None:
            (unfinished / "README.md").write_text(card, encoding="utf-8")
        for path in (*unfinished.iterdir(), unfinished):
            sync(path)
        shutil.rmtree(directory, ignore_errors=True)
        os.replace(unfinished, directory)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)  # it takes room that is needed
        raise
    sync(directory.parent)


def remove_checkpoint(out: Path) -> None:
    """Take away what a run that is done needs no longer: its checkpoint, and what a kill left of another."""
    (out / CHECKPOINT).unlink(missing_ok=True)
    remove_unfinished(out / CHECKPOINT)


def model_zip(out: Path) -> Path:
    """`out`/model.zip with the folder model/ of a finished run; made where it is not there yet, whole or not at all.

    Stored, not compressed: weights do not get smaller. Callers at the same time make the same bytes, and the last one's
    stay. Raises BadOutput where the run is not done.
    """
    path, model = out / "model.zip", out / "model"
    if not (out / "report.json").exists() or not model.is_dir():
        raise BadOutput(
            "There is no purified model to take away: the run is not done. Wait for its end, or go on with it where "
            "it was stopped."
        )
    if path.exists():
        return path
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        with zipfile.ZipFile(new, "x", zipfile.ZIP_STORED) as archive:
            for file in sorted(p for p in model.rglob("*") if p.is_file()):
                # Dated 1980, whenever it is made
                entry = zipfile.ZipInfo(f"model/{file.relative_to(model).as_posix()}")
                entry.external_attr = 0o644 << 16
                with open(file, "rb") as source, archive.open(entry, "w", force_zip64=True) as kept:
                    shutil.copyfileobj(source, kept, 1 << 20)
        sync(new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    return path
