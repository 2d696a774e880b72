"""What all visitors of one server share: the jobs' runner, the loaded models, the visitors' uploads, and what was
measured."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mbtsad_core.config import JobsConfig, RuntimeConfig, SandboxConfig, UploadConfig, VettingConfig
from mbtsad_core.errors import BadData, MBTSADError, WrongState
from mbtsad_core.evaluation.embeddings import Projection, Vectors, digest, project
from mbtsad_core.models.classifier import Classifier, check_suitable
from mbtsad_core.page.session import Session
from mbtsad_core.service import preflight, sandbox
from mbtsad_core.service.comparison import Comparison, subject
from mbtsad_core.service.planting import MODEL, TRIGGERED, Planting, check_planting
from mbtsad_core.service.projection import project_apart
from mbtsad_core.service.purification import Inputs, Request, named, prepare, read_model
from mbtsad_core.service.runner import Runner
from mbtsad_core.service.runtime_estimate import (
    Expected,
    expected,
    forward_passes,
    of_runs,
    over_told,
    perhaps_passes,
    settled,
    steady,
    timings,
)
from mbtsad_core.service.scan_job import ScanJob
from mbtsad_core.service.store import ACTIVE, Job, Recorded, State
from mbtsad_core.sources import Source
from mbtsad_core.types import Event, LabelledText, Scores
from mbtsad_core.vetting import uploads as plain
from mbtsad_core.vetting.hub import fetch_model
from mbtsad_core.vetting.uploads import PolicyReport

T = TypeVar("T")

MODEL_BYTES = 4 << 30  # of loaded models, together; the one used longest ago goes first
RESULTS = 256  # measurements and vectors that are remembered
EVENTS = 500_000  # of runs that are looked at, remembered so that each is read once
UPLOADS = "uploads"
ATTACHED = (
    "This host lends its machine for less than a minute at a time, and these methods cannot be cut into such pieces. "
    "Run them in the terminal."
)


class Kept:
    """Values by key, the least recently used forgotten first; a value that two callers want is made once."""

    def __init__(self, most: float, size: Callable[[Any], float] = lambda value: 1.0) -> None:
        self._most, self._size = most, size
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock, self._making = threading.Lock(), dict[Hashable, threading.Event]()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value; an error of `make` is its caller's alone: whoever waited tries it again."""
        while True:
            with self._lock:
                if key in self._values:
                    self._values.move_to_end(key)
                    return self._values[key]  # type: ignore[no-any-return]
                if (others := self._making.get(key)) is None:
                    ended = self._making[key] = threading.Event()
                    break
            others.wait()
        try:
            value = make()
            with self._lock:
                self._values[key] = value
                while len(self._values) > 1 and sum(map(self._size, self._values.values())) > self._most:
                    self._values.popitem(last=False)
            return value
        finally:
            with self._lock:
                del self._making[key]
            ended.set()

    def peek(self, key: Hashable) -> Any:
        """The value, where it has been made; else None."""
        with self._lock:
            return self._values.get(key)

    def forget(self, chosen: Callable[[Hashable], bool]) -> None:
        with self._lock:
            for key in [key for key in self._values if chosen(key)]:
                del self._values[key]


def _bytes(classifier: Classifier) -> float:
    return float(sum(p.numel() * p.element_size() for p in classifier.model.parameters()))


class Site:
    """One server. Its methods are called from many threads.

    root     directory of the jobs and uploads
    runtime  where jobs run, and the page's own questions are answered where the GPU is the server's own
    check    the limits of the process that a visitor's model is first read in
    """

    def __init__(
        self,
        root: Path,
        runner: Runner,
        config: JobsConfig = JobsConfig(),
        runtime: RuntimeConfig = RuntimeConfig(),
        uploads: UploadConfig = UploadConfig(),
        check: SandboxConfig = SandboxConfig(),
    ) -> None:
        self.root, self.runner, self.config = root.absolute(), runner, config
        self.demo = ""  # the job that cures the demo for all visitors, where there is one
        self.runtime, self.uploads, self._check = runtime, uploads, check
        # As float32, of files in float16; for models of the Hub, which are no uploads
        self._limits = VettingConfig(megabytes=2 * uploads.megabytes)
        # A GPU that is lent to calls is none for the page
        self.own_runtime = runtime if runner.detached else replace(runtime, device="cpu")
        self._models = Kept(MODEL_BYTES, _bytes)
        self._results, self._scores, self._descriptions = Kept(RESULTS), Kept(RESULTS), Kept(RESULTS)
        self._inputs = Kept(16)
        self._timed = Kept(RESULTS)  # lists of timings, by suspect and clean texts
        self._taking = threading.Lock()
        self._told: dict[str, float] = {}  # of each run, the seconds that timings told before it began
        self._read = Kept(EVENTS, len)
        self._reading = threading.Lock()
        # Held by what takes seconds of all cores, so that such things come one after the other
        self.busy = threading.Lock()
        (self.root / UPLOADS).mkdir(mode=0o700, parents=True, exist_ok=True)

    # ------------------------------------------------------------ models

    def model(self, source: str, max_length: int | None = None) -> Classifier:
        """The classifier at a folder, `hub:...`, or "demo"; loaded once."""

        def load() -> Classifier:
            place = self._tried(Source(source))
            classifier = read_model(place, "suspect", max_length, self.own_runtime, limits=self._limits)
            check_suitable(classifier)
            return classifier

        return self._models.get((source, max_length), load)

    def _is_strangers(self, source: Source) -> bool:
        """Whether a model is a visitor's upload, or of the Hub, and not the demo or one that this server made."""
        return source.is_hub or Path(source).is_relative_to(self.root / UPLOADS)

    def project(self, session: Session, before: Vectors, after: Vectors, method: str) -> Projection:
        """The [CLS] vectors of the session's models in one plane; a stranger's are drawn in a sandbox, where the host
        has one."""
        if not (self.runner.detached and self._is_strangers(session.suspect.source)):
            return project(before, after, method)
        key = ("projection", method, digest(before, after))
        return self.remembered(key, lambda: project_apart(before, after, method, self.root / UPLOADS, self._check))

    def _tried(self, source: Source) -> Source:
        """Where a model is that may be loaded here: a visitor's has been read, loaded and asked in a sandbox before.
        Raises what was wrong with it.

        A model of the Hub is then named by its commit, so that what is loaded is what was tried.
        """
        strangers = self._is_strangers(source)
        if source.is_hub:
            source = source.at(fetch_model(source, self._limits).commit)
        if self.runner.detached and strangers:
            self.remembered(
                ("tried", source), lambda: preflight.attempt(source, self.root / UPLOADS, self._limits, self._check)
            )
        return source

    def receive(self, sources: Sequence[tuple[str, Path]], directory: Path) -> PolicyReport:
        """Vet an upload and keep what is accepted in `directory`, all of it in a sandbox where the host has one.
        Raises UnsuitableModel."""
        if not self.runner.detached:
            return plain.receive(sources, directory, self.uploads)
        limits = replace(self._limits, json_megabytes=self.uploads.json_megabytes)
        report = preflight.receive(sources, directory, self.uploads, limits, self._check)
        if report.accepted:
            self.needs_no_preflight(directory)
        return report

    def needs_no_preflight(self, directory: Path) -> None:
        """Load what is in this folder without a sandbox: it has been in one, or this server wrote it itself."""
        self.remembered(("tried", str(directory)), lambda: None)

    def sandbox_words(self) -> str:
        """What is not to be had here of the sandbox that a visitor's model is first opened in; "" where nothing
        lacks."""
        if not self.runner.detached:
            return (
                "This host allows no processes of its own, so a model is checked here by the same rules and then "
                "opened in the page’s own process, without a sandbox."
            )
        if lacking := sandbox.missing():
            return (
                "A model is first opened in a sandbox, a process of its own. On this system the sandbox lacks "
                f"{'; '.join(lacking)}."
            )
        return ""

    def suspect(self, session: Session) -> Classifier:
        """The session's suspect, its classes called as the visitor named them."""
        found = named(self.model(session.suspect.source, session.config.max_length), session.names)
        self._descriptions.get((session.suspect.source, session.config.max_length), found.describe)
        return found

    def described(self, session: Session) -> Session:
        """The session with what its suspect says of itself, where it has been loaded."""
        description = self._descriptions.peek((session.suspect.source, session.config.max_length))
        return session.having(suspect=replace(session.suspect, description=description)) if description else session

    def measured(self, session: Session, measure: Callable[[], Scores]) -> Scores:
        """The scores of the session's suspect on its texts, before any run; measured once."""
        return self._scores.get(subject(session.request(self.runtime)), measure)

    def scores(self, session: Session) -> Scores | None:
        """The same, where it has been measured."""
        return self._scores.peek(subject(session.request(self.runtime)))  # type: ignore[no-any-return]

    def machine(self, session: Session) -> str:
        """Device and precision of a run, in words."""
        if not self.runner.detached:
            return "a GPU that is lent for less than a minute at a time"
        try:
            suspect = self.suspect(session)
        except MBTSADError:  # it cannot be loaded any more
            return self.runtime.device
        return f"{suspect.device.type}, {suspect.precision}"

    def models(self, session: Session) -> dict[str, Classifier]:
        """The suspect and, once the run is done, the teacher and the purified model, in this order."""
        found = {"suspect": self.suspect(session)}
        if self.done(session):
            out = self.runner.output(session.job)
            for name, folder in (("teacher", "teacher"), ("purified", "model")):
                found[name] = named(self.model(str(out / folder), session.config.max_length), session.names)
        return found

    def done(self, session: Session) -> bool:
        return bool(session.job) and self.runner.status(session.job).state is State.DONE

    # ------------------------------------------------------------ data

    def inputs(self, session: Session) -> Inputs:
        """The texts that the visitor's run uses, checked as the run checks them; read once."""
        if not session.clean.source:
            raise BadData("There are no clean texts yet. Choose labeled texts of the suspect's task in step 2.")
        return self.check(session.request(self.runtime), self.suspect(session))

    def check(self, request: Request, suspect: Classifier) -> Inputs:
        """What a request would run on; raises what is wrong with it now, and not a minute after it was queued."""
        return self._inputs.get(repr(request), lambda: prepare(request, suspect))

    def known(self, request: Request) -> Inputs | None:
        """The same, where it has been read before: cheap."""
        return self._inputs.peek(repr(request))  # type: ignore[no-any-return]

    def remembered(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was measured before under this key, else made now."""
        return self._results.get(key, make)

    def expected(self, session: Session, clean: Sequence[LabelledText], n: int) -> Expected:
        """How long the session's run would take here with n of its clean texts. Timings are taken until they agree, at
        moments when no run trains."""
        classifier, jobs = self.suspect(session), self.runner.unexpired()
        passes, timed = forward_passes(n, session.config, classifier), self._timings_of(session)
        if not timed or (not settled(timed) and not any(job.state in ACTIVE for job in jobs)):
            with self.busy:
                timed += timings(classifier, clean)
        own = of_runs(jobs, session.suspect.source, session.clean.source, classifier)
        perhaps = perhaps_passes(session.config, classifier)
        return expected(passes, timed, own, over_told(jobs, self._told), perhaps)

    def _timings_of(self, session: Session) -> list[float]:
        return self._timed.get((session.suspect.source, session.clean.source), list)

    # ------------------------------------------------------------ the visitors' files

    def new_folder(self) -> Path:
        """A place for a visitor's upload that cannot be guessed; removed some time after its last use."""
        self.expire()
        folder = self.root / UPLOADS / secrets.token_urlsafe(24)
        folder.mkdir(mode=0o700)
        return folder

    @contextlib.contextmanager
    def upload(self) -> Iterator[Path]:
        """A new folder that goes again where an error comes in between."""
        folder = self.new_folder()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def expire(self) -> int:
        """Remove uploads that are older than results are kept and that no job of the store names. Returns how many."""
        known = [str(job.request) for job in self.runner.unexpired()]
        gone = 0
        for folder in (self.root / UPLOADS).iterdir():
            try:
                old = time.time() - folder.stat().st_mtime > 3600 * self.config.keep
            except FileNotFoundError:
                continue
            if old and not any(folder.name in request for request in known):
                shutil.rmtree(folder, ignore_errors=True)
                self._models.forget(lambda key, name=folder.name: name in str(key))  # type: ignore[misc]
                gone += 1
        return gone

    # ------------------------------------------------------------ jobs

    def events(self, id: str) -> list[Event]:
        """All events of a run, however many: those that were read before are not read again, but where the run went on
        from an earlier checkpoint."""
        with self._reading:
            read: list[Recorded] = self._read.get(id, list)
            if read and self.runner.events(id, after=read[-1].sequence - 1)[:1] != read[-1:]:
                read.clear()
            while new := self.runner.events(id, after=read[-1].sequence if read else 0):
                read += new
            return [recorded.event for recorded in read]

    def is_shared(self, session: Session) -> bool:
        """Whether the session shows the run that is all visitors', so that nobody may stop or change it."""
        return bool(self.demo) and session.job == self.demo

    def cancel(self, id: str) -> None:
        """Stop a job; raises WrongState for the one that is all visitors'."""
        if self.demo and id == self.demo:
            raise WrongState("This run is the server's own, and all visitors look at it. Start one of your own.")
        self.runner.cancel(id)

    def submit(self, session: Session) -> Session:
        """Check what would be run and put it in the queue; the session then has the job."""
        inputs = self.inputs(session)
        self.expire()
        id = self.runner.submit(session.request(self.runtime), session.visitor)
        if timed := self._timings_of(session):
            self._told[id] = steady(timed) * forward_passes(len(inputs.clean), session.config, inputs.suspect)
        return session.having(job=id)

    def plant(self, session: Session, attack: str, triggers: tuple[str, ...], target: str) -> Session:
        """Put the planting of a backdoor in the queue; the session then waits for it. Raises BadData as
        `check_planting` does, and QueueFull."""
        check_planting(attack, triggers)
        self.expire()
        return session.having(
            planting=self.runner.submit(Planting(attack, triggers, target, self.own_runtime), session.visitor)
        )

    def planted_folder(self, id: str) -> str:
        """Where the planted suspect of a job is kept once it was taken: among the uploads, so as long as it is used or
        a run names it."""
        return str(self.root / UPLOADS / id)

    def is_taken(self, id: str) -> bool:
        return Path(self.planted_folder(id)).exists()

    def take_planted(self, session: Session, job: Job, name: str) -> Session:
        """The session with the suspect of a planting that is done, and the trigger that it was planted with."""
        folder = Path(self.planted_folder(job.id))
        with self._taking:
            if not folder.exists():
                self.runner.output(job.id).rename(folder)
            os.utime(folder)
        source = Source(folder / MODEL)
        self.needs_no_preflight(folder / MODEL)
        triggered = folder / TRIGGERED
        triggers = (str(triggered),) if triggered.exists() else tuple(job.request["triggers"])
        return Session(session.visitor).with_suspect(source, name, self.model(source), triggers, job.request["target"])

    def scan(self, job: ScanJob, visitor: str) -> str:
        """Put a scan in the queue; the suspect is opened by its worker alone. Returns the job's id."""
        if not job.request.clean:
            raise BadData("There are no clean texts yet. Choose labeled texts of the suspect's task in step 2.")
        self.expire()
        return self.runner.submit(job, visitor)

    def compare(self, session: Session, method: str, pretrained: str | None = None) -> str:
        """Put another method in the queue, on what the session's run uses; returns the job's id. Raises BadData where
        jobs run in slices, which a method without checkpoints would never come to the end of."""
        if not self.runner.detached:
            raise BadData(ATTACHED)
        self.inputs(session)
        self.expire()
        request = replace(subject(session.request(self.runtime)), runtime=self.runtime)
        return self.runner.submit(Comparison(request, method, pretrained), session.visitor)
