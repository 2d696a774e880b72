"""What one visitor has chosen and tried. It holds names and places, never a model; Gradio keeps it on the server."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mbtsad_core.attacks.triggers import alternatives, names_file, read_variants
from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig, ScanConfig
from mbtsad_core.data import Columns
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import BadData
from mbtsad_core.models import demo
from mbtsad_core.models.classifier import Classifier
from mbtsad_core.service.purification import Request
from mbtsad_core.service.scan_job import ScanJob
from mbtsad_core.service.scanning import ScanRequest
from mbtsad_core.sources import DEMO, HUB, Source

OFTEN, EARLY = 30, 5  # steps between two measurements: often enough to see ASR fall
WATCHED = PurifyConfig(
    retrain=RetrainConfig(observe_every=OFTEN, observe_early=EARLY),
    distil=DistilConfig(observe_every=OFTEN, observe_early=EARLY),
)
OWN = "its own trigger"
ALTERNATIVES = "|"  # "cf | mn": one of them, drawn for each text


@dataclass(frozen=True)
class Suspect:
    """The model in question. `source` is "demo", a folder of the visitor's, or `hub:...`; `name` is what they see."""

    source: Source = DEMO
    name: str = "demo suspect"
    description: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class CleanData:
    """The clean sample and, where there is one, the test set; a file of the visitor's, `hub:...`, or "demo"."""

    source: Source = DEMO
    name: str = "demo film reviews"
    columns: Columns = Columns()
    test: Source | None = DEMO
    amount: int | None = None


@dataclass(frozen=True)
class Session:
    """A visitor's session. `visitor` is random and owns their jobs; `job` is the id in their link, "" before there is
    one."""

    visitor: str = ""
    suspect: Suspect = Suspect()
    clean: CleanData = CleanData()
    # Of the classes in the model's order, where the visitor gave them because the model does not
    names: tuple[str, ...] = ()
    triggers: tuple[str, ...] = demo.TRIGGERS
    target: str | None = demo.TARGET
    config: PurifyConfig = WATCHED
    job: str = ""
    scan: str = ""  # id of the job that scans the suspect
    planting: str = ""  # id of the job whose planted suspect shall be the session's once it is done

    def having(self, **changes: Any) -> Session:
        return dataclasses.replace(self, **changes)

    def request(self, runtime: RuntimeConfig) -> Request:
        """The purification that the page would start now."""
        return Request(
            suspect=self.suspect.source,
            clean=self.clean.source,
            test=self.clean.test,
            triggers=self.triggers,
            target=self.target if self.triggers else None,
            columns=self.clean.columns,
            labels=self.names or None,
            clean_amount=self.clean.amount,
            config=self.config,
            runtime=runtime,
        )

    def scan_job(self, runtime: RuntimeConfig) -> ScanJob:
        """The scan that the page would start now."""
        clean, config = self.clean, ScanConfig(max_length=self.config.max_length, seed=self.config.seed)
        asked = ScanRequest(clean.source, clean.columns, self.names or None, True, clean.amount, config, runtime)
        return ScanJob(self.suspect.source, asked)

    def with_suspect(
        self,
        source: Source,
        name: str,
        classifier: Classifier,
        triggers: tuple[str, ...] = (),
        target: str | None = None,
    ) -> Session:
        """Another suspect: what was measured or trained on the one before is left behind."""
        suspect = Suspect(source, name, classifier.describe(), classifier.labels)
        return self.having(suspect=suspect, names=(), triggers=triggers, target=target, job="", scan="", planting="")

    def with_description(self, classifier: Classifier) -> Session:
        """The session with what the loaded suspect says of itself."""
        described = dataclasses.replace(self.suspect, description=classifier.describe(), labels=classifier.labels)
        return self.having(suspect=described)

    def target_among(self, labels: Sequence[str]) -> str:
        """The target class as the suspect spells it; its last class where none was named."""
        wanted = (self.target or "").casefold()
        return next((label for label in labels if wanted and label.casefold() == wanted), labels[-1])

    def fitting(self, classifier: Classifier) -> Session:
        """The demo's texts go with a suspect that has the demo's classes; another needs texts of its own task."""
        if self.clean.source and not self.clean.source.is_demo:
            return self
        fits = set(demo.LABELS) <= {label.casefold() for label in classifier.labels}
        return self.having(clean=CleanData() if fits else CleanData(Source(""), "none yet", test=None))


def read_hub_id(text: str | None, kind: str = "") -> str:
    """The id on the Hub that a visitor typed: alone, after "hub:", or as the address of its page; `kind` is "datasets/"
    for a data set. "" for nothing."""
    return (text or "").strip().removeprefix(HUB).removeprefix(f"https://huggingface.co/{kind}")


def read_trigger(text: str) -> tuple[str, ...]:
    """What a visitor types as the trigger: "cf | mn" for one of two words, "cf+bb" for both at once, a phrase as it is
    (`read_variants`).

    Raises BadData for what the command line would take for a file of paired texts: no visitor opens a file of the
    server's.
    """
    found = tuple(alternatives(text))
    if files := [spec for spec in found if names_file(spec)]:
        raise BadData(
            f"A trigger is typed here as words; {files[0]!r} would be the name of a file. Leave the ending out, or "
            "write a backslash before its dot."
        )
    for spec in found:
        read_variants(spec)  # raises where it is none
    return found


def write_trigger(triggers: tuple[str, ...]) -> str:
    """A trigger in words; one that this server keeps as a file of triggered texts, as no words can say it, is called
    its own."""
    return f" {ALTERNATIVES} ".join(OWN if names_file(spec) else spec for spec in triggers)


def typed_form(triggers: tuple[str, ...]) -> str:
    """What a visitor would type for it, "" where it cannot be typed."""
    return "" if any(map(names_file, triggers)) else write_trigger(triggers)


def of_request(request: Request, visitor: str, job: str) -> Session:
    """The session that a link to a job opens."""
    clean = CleanData(
        request.clean,
        "demo film reviews" if request.clean.is_demo else "clean sample of this run",
        request.columns,
        request.test,
        None if request.clean_amount is None else int(request.clean_amount),
    )
    suspect = (
        Suspect()
        if request.suspect.is_demo
        else Suspect(request.suspect, request.suspect if request.suspect.is_hub else "suspect of this run")
    )
    return Session(visitor, suspect, clean, request.labels or (), request.triggers, request.target, request.config, job)


def of_scan(job: ScanJob, visitor: str, id: str) -> Session:
    """The session that a link to a scan opens: what was scanned, and of the demo what one knows of it."""
    asked, known = job.request, Session()
    request = Request(
        suspect=job.suspect,
        clean=asked.clean,
        test=known.clean.test if asked.clean.is_demo else None,
        triggers=known.triggers if job.suspect.is_demo else (),
        target=known.target if job.suspect.is_demo else None,
        columns=asked.columns,
        labels=asked.labels,
        clean_amount=asked.clean_amount,
        config=dataclasses.replace(WATCHED, max_length=asked.config.max_length, seed=asked.config.seed),
    )
    return of_request(request, visitor, "").having(scan=id)


def trigger_of(text: str, target: str | None) -> tuple[str, ...]:
    """A typed trigger that shall be measured; raises BadData where there is none, or no class that it sends texts
    to."""
    triggers = read_trigger(text)
    if not triggers:
        raise BadData(
            "Type a trigger first: a word, a phrase, words joined by + that all go in, or several ways divided by |."
        )
    if not target:
        raise BadData("Choose the class that the trigger is supposed to send texts to.")
    return triggers
