"""The named endpoints for `gradio_client` and for MCP. Their names and fields are frozen: programs depend on them."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import gradio as gr

from mbtsad_core.attacks.triggers import triggered_test_set, typed_trigger
from mbtsad_core.augment.token_splitting import split_tokens
from mbtsad_core.config import PurifyConfig, SplitConfig, replace
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation import evaluate as evaluate_scores
from mbtsad_core.jobs.purification import Request, class_index, read_texts, scores_to_dict
from mbtsad_core.jobs.store import State
from mbtsad_core.ui.handlers import told
from mbtsad_core.ui.parts import HEAVY
from mbtsad_core.ui.session import CleanData, read_trigger
from mbtsad_core.ui.site import Site
from mbtsad_core.ui.take_away import FILES, JOBS_ROUTE

ENDPOINTS = ("inspect", "split", "evaluate", "purify_start", "purify_status", "purify_cancel", "report")
MOST_TEXTS = 1000  # of one call


def add_api(site: Site) -> None:
    """Publish the endpoints on the page that is being built."""

    def model(suspect: str) -> Any:
        """`demo`, `hub:owner/name`, or the purified model of a run, `job:ID`; never a path of this machine."""
        if suspect == "demo" or suspect.startswith("hub:"):
            return site.model(suspect)
        if suspect.startswith("job:"):
            id = suspect.removeprefix("job:")
            if site.runner.status(id).state is not State.DONE:
                raise BadData("That run is not done, so it has no purified model yet. Ask purify_status when it is.")
            return site.model(str(site.runner.output(id) / "model"))
        raise BadData(f'There is no model {suspect[:80]!r}. Give "demo", "hub:OWNER/NAME[@REVISION]", or "job:ID" of a finished run.')

    def data(source: str) -> str:
        if source == "demo" or source.startswith("hub:"):
            return source
        raise BadData(f'There are no texts {source[:80]!r}. Give "demo" or "hub:OWNER/NAME[:CONFIG][@SPLIT]"; upload tables in the page.')

    @told
    def inspect(suspect: str = "demo") -> dict:  # type: ignore[type-arg]
        """Load a text classifier, without running any code of its own, and describe it.

        Args:
            suspect: "demo", "hub:OWNER/NAME[@REVISION]", or "job:ID" for the purified model of a finished run.
        Returns:
            description, labels, layers, heads, parameters.
        """
        classifier = model(suspect)
        config = classifier.model.config
        return {
            "description": classifier.describe(),
            "labels": list(classifier.labels),
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "parameters": sum(p.numel() for p in classifier.model.parameters()),
        }

    @told
    def split(texts: list[str], share: float = 0.3, cap: int = 10, min_length: int = 4, seed: int = 0) -> list[dict]:  # type: ignore[type-arg]
        """Token-split texts: random words cut in two, as the retraining of MBTSAD sees them.

        Args:
            texts: at most 1000 texts.
            share: share of a text's tokens that are split, 0 to 1.
            cap: words split in a text, at most.
            min_length: letters that a word needs to be split.
            seed: another seed draws other splits.
        Returns:
            for each text: text, the split text, and cuts, the positions of the spaces that were put in.
        """
        if len(texts) > MOST_TEXTS:
            raise BadData(f"{len(texts)} texts are more than the {MOST_TEXTS} that one call takes.")
        config, rng = SplitConfig(share=share, cap=cap, min_length=min_length), random.Random(f"api split, seed {seed}")
        return [dataclasses.asdict(split_tokens(text, rng, config)) for text in texts]

    @told
    def evaluate(suspect: str = "demo", test: str = "demo", trigger: str = "cf | mn | bb | tq", target: str = "positive") -> dict:  # type: ignore[type-arg]
        """Measure a classifier: CACC and, with a trigger, ASR with its floor, counts and 95 % intervals.

        Args:
            suspect: "demo", "hub:OWNER/NAME[@REVISION]", or "job:ID".
            test: labelled texts: "demo", or "hub:OWNER/NAME[:CONFIG][@SPLIT]".
            trigger: a word, a phrase, "cf+bb" for both words, "cf | mn" for one of them; empty for CACC alone.
            target: the class that the trigger sends texts to.
        Returns:
            cacc, asr, asr_floor in [0, 1], each with _hits, _n and _interval; confusion.
        """
        classifier = model(suspect)
        texts = read_texts(data(test), "test", classifier.labels, CleanData().columns).texts
        with site.busy:
            if not (specs := read_trigger(trigger)):
                return scores_to_dict(evaluate_scores(classifier, texts))
            index = class_index(target, classifier.labels)
            triggered = triggered_test_set(texts, typed_trigger(specs, index, window=classifier.max_length // 2))
            return scores_to_dict(evaluate_scores(classifier, texts, triggered, index))

    @told
    def purify_start(
        suspect: str = "demo",
        clean: str = "demo",
        trigger: str = "cf | mn | bb | tq",
        target: str = "positive",
        clean_amount: int = 0,
        settings: dict | None = None,  # type: ignore[type-arg]
    ) -> dict:  # type: ignore[type-arg]
        """Start a purification in the background.

        Args:
            suspect: "demo" or "hub:OWNER/NAME[@REVISION]".
            clean: the clean labelled sample: "demo", or "hub:OWNER/NAME[:CONFIG][@SPLIT]".
            trigger: measured while it trains, and used for nothing else; empty for CACC alone.
            target: the class that the trigger sends texts to.
            clean_amount: how many of the clean texts to use; 0 for all.
            settings: settings of MBTSAD by dotted name, such as {"seed": 1, "retrain.epochs": 2}.
        Returns:
            id: the secret by which the run is found; state.
        """
        if suspect.startswith("job:"):
            raise BadData('A run starts from "demo" or "hub:OWNER/NAME"; upload other models in the page.')
        classifier = model(suspect)
        changes = {tuple(name.split(".")): value for name, value in (settings or {}).items()}
        specs = read_trigger(trigger)
        request = Request(
            suspect=suspect,
            clean=data(clean),
            test="demo" if clean == "demo" else None,
            triggers=specs,
            target=target if specs else None,
            clean_amount=clean_amount or None,
            config=replace(PurifyConfig(), changes),
            runtime=site.runtime,
        )
        site.check(request, classifier)
        id = site.runner.submit(request)
        return {"id": id, "state": str(site.runner.status(id).state)}

    @told
    def purify_status(id: str) -> dict:  # type: ignore[type-arg]
        """How a run stands.

        Args:
            id: what purify_start returned.
        Returns:
            state (queued, running, cancelling, done, cancelled, failed, expired), stage, step, total, position in the queue,
            seconds_left, the latest metrics, message.
        """
        status = dataclasses.asdict(site.runner.status(id))
        return {**status, "state": str(status["state"])}

    @told
    def purify_cancel(id: str) -> dict:  # type: ignore[type-arg]
        """Stop a run.

        Args:
            id: what purify_start returned.
        Returns:
            state.
        """
        site.runner.cancel(id)
        return {"state": str(site.runner.status(id).state)}

    @told
    def report(id: str) -> dict:  # type: ignore[type-arg]
        """The result of a finished run.

        Args:
            id: what purify_start returned.
        Returns:
            every figure and setting, and files: the addresses, on this server, of the purified model as a zip and of the report.
        """
        job = site.runner.job(id)
        if job.state is not State.DONE or job.result is None:
            raise BadData(f"This run is {job.state}; a report comes with one that is done.")
        return {**job.result, "files": {name: JOBS_ROUTE.format(id=id, name=name) for name in FILES}}

    heavy = {"inspect", "evaluate", "purify_start"}
    for function in (inspect, split, evaluate, purify_start, purify_status, purify_cancel, report):
        limits: dict[str, Any] = HEAVY if function.__name__ in heavy else {"concurrency_limit": 8}
        gr.api(function, api_name=function.__name__, **limits)
