"""The named endpoints for `gradio_client` and for MCP. Their names and fields are frozen: programs depend on them.

Nothing here takes a path from a caller. Callers name what is theirs by a secret: "job:ID" for a run, "upload:SECRET"
for an upload.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect as signatures
import os
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import get_blocks_context
from gradio.utils import get_upload_folder

from mbtsad_core.attacks.triggers import PLACES, triggered_test_set, typed_trigger
from mbtsad_core.augment.token_splitting import split_tokens
from mbtsad_core.config import ScanConfig, SplitConfig, replace
from mbtsad_core.config import settings as settings_of
from mbtsad_core.data import Columns, class_index
from mbtsad_core.data.columns import guess_columns
from mbtsad_core.data.tables import FORMATS, read_table
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import BadConfig, BadData, named
from mbtsad_core.evaluation import evaluate as evaluate_scores
from mbtsad_core.evaluation import label_doubt
from mbtsad_core.page.handlers import without_folders, words
from mbtsad_core.page.parts import HEAVY
from mbtsad_core.page.session import CleanData, read_trigger
from mbtsad_core.page.site import UPLOADS, Site
from mbtsad_core.page.take_away import FILES, JOBS_ROUTE
from mbtsad_core.service.purification import Request, read_texts, scores_to_dict
from mbtsad_core.service.scan_job import ScanJob, is_scan
from mbtsad_core.service.scanning import ScanRequest
from mbtsad_core.service.store import Job, State
from mbtsad_core.sources import DEMO, Source
from mbtsad_core.vetting.uploads import printable

MOST_TEXTS = 1000  # of one call
MOST_CHARACTERS = 1_000_000  # of one call
UPLOAD, JOB = "upload:", "job:"
MODEL, TEXTS = "model", "texts"  # what stands in the folder of an upload
KINDS: dict[Any, tuple[type | tuple[type, ...], str]] = {
    str: (str, "a string"),
    int: (int, "an integer"),
    float: ((int, float), "a number"),
    bool: (bool, "true or false"),
}
NAMES = {
    "aug_p": "share",
    "aug_max": "cap",
    "min_char": "min_length",
    "text_column": 'a header "text"',
    "label_column": 'a header "label"',
    "pair_column": 'a header "pair"',
    "test": "a test set, which the page takes,",
}

PARAMETERS = {
    "suspect": '"demo", "hub:OWNER/NAME[@REVISION]", "upload:..." that upload_model returned, or "job:ID" for the '
    "purified model of a finished run (not for purify_start).",
    "texts": "at most 1000 texts, of a million characters together.",
    "share": "share of a text's tokens that are split, 0 to 1.",
    "cap": "words split in a text, at most.",
    "min_length": "letters that a word needs to be split.",
    "seed": "another seed draws other splits; of a scan, other texts that are held out.",
    "test": 'labeled texts: "demo", "hub:OWNER/NAME[:CONFIG][@SPLIT]", or "upload:..." that upload_texts returned.',
    "clean": 'the clean labeled sample: "demo", "hub:OWNER/NAME[:CONFIG][@SPLIT]", or "upload:..." that upload_texts '
    "returned.",
    "trigger": 'a word, a phrase, "cf+bb" for both words, "cf | mn" for one of them; empty for CACC alone. It is only '
    "measured.",
    "target": "the class that the trigger sends texts to.",
    "clean_amount": "how many of the clean texts to use; 0 for all.",
    "settings": 'settings of MBTSAD by dotted name, such as {"seed": 1, "retrain.epochs": 2}.',
    "labeled": "whether to read the labels of the texts; else the model's own answers stand for them.",
    "budget": "seconds after which what was found so far has the last word; 0 for as long as it takes.",
    "id": "what purify_start or scan_start returned.",
    "files": "each as gradio_client.handle_file(PATH).",
    "file": "the table, as gradio_client.handle_file(PATH).",
}


def plain(site: Site, endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint of this site, what it is given checked against its type hints, its errors told to a program:
    unescaped, without flags and places of this machine. Its docstring has every parameter's description, for MCP."""
    signature = signatures.signature(endpoint, eval_str=True)
    signature = signature.replace(parameters=list(signature.parameters.values())[1:])

    @functools.wraps(endpoint)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs)
            for name, value in given.arguments.items():
                _check(name, value, signature.parameters[name].annotation)
            return endpoint(site, *given.args, **given.kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise gr.Error(words(error, told_to_programs), print_exception=False, title="This did not work") from error

    about, _, returns = (endpoint.__doc__ or "").partition("Returns:")
    listed = [f"    {name}: {PARAMETERS[name]}" for name in signature.parameters if name in PARAMETERS]
    called.__doc__ = "\n".join([about, "Args:", *listed, "Returns:" + returns])
    called.__signature__ = signature  # type: ignore[attr-defined]  # types in place of their names, which Gradio publishes
    return called


def told_to_programs(text: str) -> str:
    """A message with its settings called as the parameters are, and each file by its last name."""
    return named(without_folders(text), NAMES)


def _check(name: str, value: Any, kind: Any) -> None:
    """Raises BadData where a value is of another kind than its parameter."""
    if kind in KINDS and not _is(value, kind):
        raise BadData(f"{name}: expected {KINDS[kind][1]}, got {_short(value)}.")
    if kind == list[str] and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise BadData(f"{name}: expected a list of strings, got {_short(value)}.")


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, KINDS[kind][0]) and (kind is bool or not isinstance(value, bool))


def _short(value: Any) -> str:
    return printable(repr(value), 80)


def read_settings(given: Any) -> PurifyConfig:
    """MBTSAD's settings from {"retrain.epochs": 2}; raises BadConfig on unknown ones and on values of another kind or
    out of range."""
    if not isinstance(given or {}, Mapping):
        raise BadConfig(f'settings: expected names and values, such as {{"retrain.epochs": 2}}, got {_short(given)}.')
    kinds = {".".join(s.path): s.type for s in settings_of(PurifyConfig())}
    for name, value in (given or {}).items():
        if name in kinds and not _is(value, kinds[name]):
            raise BadConfig(f"{name}: expected {KINDS[kinds[name]][1]}, got {_short(value)}.")
    return replace(PurifyConfig(), {tuple(name.split(".")): value for name, value in (given or {}).items()})


def received(file: Any) -> tuple[str, Path]:
    """The caller's own name for a file that they sent, and where it arrived; raises BadData on all else, such as a path
    of this machine."""
    if isinstance(file, dict) and isinstance(path := file.get("path"), str) and "\0" not in path:
        place, name = Path(path).resolve(), file.get("orig_name")
        if Path(get_upload_folder()).resolve() in place.parents and place.is_file():
            return (name if isinstance(name, str) and name else place.name), place
    raise BadData("Expected files of yours. Send each with gradio_client.handle_file(PATH).")


def _uploaded(site: Site, handle: str, name: str) -> Path | None:
    """What a handle stands for: the model or the texts in the folder of an upload."""
    secret = handle.removeprefix(UPLOAD)
    if not re.fullmatch(r"[A-Za-z0-9_-]{32}", secret):  # token_urlsafe(24); so it is never any other path
        return None
    folder = site.root / UPLOADS / secret
    found = next((path for path in folder.glob(f"{name}*") if path.name.partition(".")[0] == name), None)
    if found:
        os.utime(folder)  # it is in use, so it is kept longer
    return found


def _model(site: Site, suspect: str) -> Source:
    """Where a model is; the caller gives "demo", "hub:...", "job:ID" or "upload:SECRET", never a path of this
    machine."""
    if (named := Source(suspect)).is_demo or named.is_hub:
        return named
    if suspect.startswith(JOB):
        id = suspect.removeprefix(JOB)
        if is_scan(site.runner.job(id).request):
            raise BadData("That is a scan, which has no model of its own. Name what it scanned.")
        if site.runner.status(id).state is not State.DONE:
            raise BadData("That run is not done, so it has no purified model yet. Ask purify_status when it is.")
        return Source(site.runner.output(id) / "model")
    if suspect.startswith(UPLOAD) and (found := _uploaded(site, suspect, MODEL)):
        return Source(found)
    raise BadData(
        f'There is no model {_short(suspect)}. Give "demo", "hub:OWNER/NAME[@REVISION]", "job:ID" of a finished '
        "run, or what upload_model returned."
    )


def _texts(site: Site, texts: str) -> Source:
    if (named := Source(texts)).is_demo or named.is_hub:
        return named
    if texts.startswith(UPLOAD) and (found := _uploaded(site, texts, TEXTS)):
        return Source(found)
    raise BadData(
        f'There are no texts {_short(texts)}. Give "demo", "hub:OWNER/NAME[:CONFIG][@SPLIT]", or what '
        "upload_texts returned."
    )


def inspect(site: Site, suspect: str = "demo") -> dict[str, Any]:
    """Load a text classifier, without running any code of its own, and describe it.

    Returns:
        description, labels, layers, heads, parameters.
    """
    classifier = site.model(_model(site, suspect))
    config = classifier.model.config
    return {
        "description": classifier.describe(),
        "labels": list(classifier.labels),
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "parameters": sum(p.numel() for p in classifier.model.parameters()),
    }


def split(
    site: Site, texts: list[str], share: float = 0.3, cap: int = 10, min_length: int = 4, seed: int = 0
) -> list[dict[str, Any]]:
    """Token-split texts: random words cut in two, as the retraining of MBTSAD sees them.

    Returns:
        for each text: text, the split text, and cuts, the positions of the spaces that were put in.
    """
    if len(texts) > MOST_TEXTS:
        raise BadData(f"{len(texts)} texts are more than the {MOST_TEXTS} that one call takes.")
    if (characters := sum(map(len, texts))) > MOST_CHARACTERS:
        raise BadData(f"{characters} characters are more than the {MOST_CHARACTERS} that one call takes.")
    config = SplitConfig(aug_p=share, aug_max=cap, min_char=min_length)
    rng = random.Random(f"api split, seed {seed}")
    return [dataclasses.asdict(split_tokens(text, rng, config)) for text in texts]


def evaluate(
    site: Site, suspect: str = "demo", test: str = "demo", trigger: str = "cf | mn | bb | tq", target: str = "positive"
) -> dict[str, Any]:
    """Measure a classifier: CACC and, with a trigger, ASR with its floor, counts and 95 % intervals.

    Returns:
        cacc, asr, asr_floor in [0, 1], each with _hits, _n and _interval; confusion; notes, what is to be known of
        labels and table.
    """
    classifier = site.model(_model(site, suspect))
    given = read_texts(_texts(site, test), "test", classifier.labels, CleanData().columns)
    specs, index = read_trigger(trigger), None
    with site.busy:
        if specs:
            index = class_index(target, classifier.labels)
            triggered = triggered_test_set(given.texts, typed_trigger(specs, index, window=PLACES))
        scores = evaluate_scores(classifier, given.texts, triggered if specs else (), index)
    doubt = label_doubt(scores, classifier.labels)
    return scores_to_dict(scores) | {"notes": [*filter(None, [doubt]), *given.notes]}


def purify_start(
    site: Site,
    request: gr.Request,
    suspect: str = "demo",
    clean: str = "demo",
    trigger: str = "cf | mn | bb | tq",
    target: str = "positive",
    clean_amount: int = 0,
    settings: dict[str, int | float | str | bool] | None = None,  # flat: in anything deeper a caller could hide a file
) -> dict[str, Any]:
    """Start a purification in the background.

    Returns:
        id: the secret by which the run is found; state.
    """
    if suspect.startswith(JOB):
        raise BadData(
            "A run does not start from another's result. Download its model.zip and send it with upload_model."
        )
    specs = read_trigger(trigger)
    asked = Request(
        suspect=_model(site, suspect),
        clean=_texts(site, clean),
        test=DEMO if Source(clean).is_demo else None,
        triggers=specs,
        target=target if specs else None,
        clean_amount=clean_amount or None,
        config=read_settings(settings),
        runtime=site.runtime,
    )
    classifier = site.model(asked.suspect, asked.config.max_length)
    asked = asked.pinned(classifier)
    site.check(asked, classifier)
    id = site.runner.submit(asked, _caller(request))
    return {"id": id, "state": str(site.runner.status(id).state)}


def _caller(request: gr.Request) -> str:
    """Programs of one address share a visitor's quota, so that none of them fills the queue."""
    return f"api:{request.client.host if request.client else ''}"


def purify_status(site: Site, id: str) -> dict[str, Any]:
    """How a run stands.

    Returns:
        state (queued, running, cancelling, done, cancelled, failed, expired), stage, step, total, position in the
        queue, seconds_left, the latest metrics, message.
    """
    status = scan_status(site, id)
    del status["leading"]
    return status


def purify_cancel(site: Site, id: str) -> dict[str, Any]:
    """Stop a run; a scan ends with what it found so far.

    Returns:
        state.
    """
    site.cancel(id)
    return {"state": str(site.runner.status(id).state)}


def report(site: Site, id: str) -> dict[str, Any]:
    """The result of a finished run.

    Returns:
        every figure and setting, and files: the addresses, on this server, of the purified model as a zip and of
        the report.
    """
    job = _done(site, id, "a report comes with one that is done")
    if is_scan(job.request):
        raise BadData("This is a scan. Ask scan_result what it found.")
    return {**(job.result or {}), "files": {name: JOBS_ROUTE.format(id=id, name=name) for name in FILES}}


def _done(site: Site, id: str, why: str) -> Job:
    job = site.runner.job(id)
    if job.state is not State.DONE or job.result is None:
        raise BadData(f"This run is {job.state}; {why}.")
    return job


def scan_start(
    site: Site,
    request: gr.Request,
    suspect: str = "demo",
    clean: str = "demo",
    labeled: bool = True,
    clean_amount: int = 0,
    budget: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Scan a classifier in the background for what turns its answers on clean texts.

    Returns:
        id: the secret by which the scan is found; state.
    """
    config = ScanConfig(budget=budget or None, seed=seed)
    asked = ScanRequest(_texts(site, clean), Columns(), None, labeled, clean_amount or None, config, site.own_runtime)
    id = site.scan(ScanJob(_model(site, suspect), asked), _caller(request))
    return {"id": id, "state": str(site.runner.status(id).state)}


def scan_status(site: Site, id: str) -> dict[str, Any]:
    """How a scan stands.

    Returns:
        state, stage, step, total, position, seconds_left of the stage, metrics and message as purify_status; leading,
        the candidates in the lead, each with text, place, label of the texts, nats, and flips: hits, n, low and high,
        the share of the texts it was tried on that it turned.
    """
    status = dataclasses.asdict(site.runner.status(id))
    return {**status, "state": str(status["state"]), "message": told_to_programs(status["message"])}


def scan_result(site: Site, id: str) -> dict[str, Any]:
    """What a finished scan says.

    Returns:
        the record of docs/scan.schema.json: verdict, reason, triggers with text, place, classes, flip rate, interval
        and examples, what was not looked at, and what it was made of.
    """
    job = _done(site, id, "a result comes with one that is done")
    if not is_scan(job.request):
        raise BadData("This is no scan. Ask report for the result of a purification.")
    return job.result or {}


def upload_model(site: Site, files: list[gr.FileData]) -> dict[str, Any]:
    """Upload a model: a zip, or the separate files, as save_pretrained wrote them; safetensors only. No code that
    comes with it is run.

    Returns:
        handle: "upload:...", the secret by which it is found; report: what became of each file, and why.
    """
    sent = [received(file) for file in (files if isinstance(files, list) else [files])]
    site.expire()
    with site.upload() as folder:
        found = site.receive(sent, folder / MODEL)
        for _, path in sent:  # Gradio's copies: what is kept stands in our folder
            path.unlink(missing_ok=True)
        if not found.accepted:
            refused = [v.reason for v in found.files if v.verdict == "refused" and v.reason not in found.problem]
            raise BadData(" ".join([found.problem, *refused]))
        site.model(str(folder / MODEL))  # raises what is wrong with it
    return {
        "handle": UPLOAD + folder.name,
        "report": [dataclasses.asdict(v) | {"name": printable(v.name)} for v in found.files],
    }


def upload_texts(site: Site, file: gr.FileData) -> dict[str, Any]:
    """Upload labeled texts: a TSV, CSV, JSONL or Parquet table with a text column and a label column.

    Returns:
        handle: "upload:...", the secret by which they are found; rows; the columns taken as text, label and pair.
    """
    name, path = received(file)
    packed = ".gz" if name.lower().endswith(".gz") else ""
    kind = next((kind for kind in FORMATS if name.lower().endswith(kind + packed)), None)
    if not kind:
        raise BadData(
            f"{printable(name)}: unknown kind of file. Expected one of {', '.join(FORMATS)} (text formats also .gz)."
        )
    site.expire()
    with site.upload() as folder:
        kept = folder / f"{TEXTS}{kind}{packed}"
        shutil.move(path, kept)
        table = read_table(kept).frame
        columns = guess_columns(table, Columns(), kept.name)
    return {"handle": UPLOAD + folder.name, "rows": len(table), "columns": dataclasses.asdict(columns)}


def add_api(site: Site) -> None:
    """Publish the endpoints on the page that is being built."""
    heavy = (inspect, evaluate, purify_start)
    purification = (purify_start, purify_status, purify_cancel, report)
    for function in (inspect, split, evaluate, *purification, scan_start, scan_status, scan_result):
        _publish(site, function, **(HEAVY if function in heavy else {"concurrency_limit": 8}))
    # Not shown to MCP, which cannot send files, and whose bridge would fetch those of this machine by their names.
    for upload in (upload_model, upload_texts):
        _publish(site, upload, **HEAVY, api_visibility="undocumented")


def _publish(site: Site, function: Callable[..., Any], **how: Any) -> None:
    """Make an endpoint of a function, each parameter with its description."""
    called = plain(site, function)
    endpoint = gr.api(called, api_name=function.__name__, **how)
    names = [name for name in signatures.signature(called).parameters if name != "request"]
    for name, component in zip(names, get_blocks_context().fns[endpoint["id"]].inputs, strict=True):
        component._api_info["additional_description"] = PARAMETERS[name]
