"""Other methods beside MBTSAD: what is measured of them, and how they fare as jobs, in worker processes and in this
one."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import finish, tiny_bert, tiny_texts
from example import until, write_texts

from mbtsad_core.config import JobsConfig, RetrainConfig, RuntimeConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.detectors.onion import MODEL
from mbtsad_core.errors import UnknownMethod
from mbtsad_core.models.classifier import predict, save_classifier, weights_hash
from mbtsad_core.page.compare import lacking, offered, others
from mbtsad_core.rates import rates_to_dict
from mbtsad_core.service.comparison import (
    Comparison,
    compare,
    floor_behind,
    is_comparison,
    read_inputs,
    run_defense,
    run_detector,
    subject,
)
from mbtsad_core.service.purification import Inputs, Request, scores_to_dict
from mbtsad_core.service.runner import AttachedRunner, DetachedRunner, Runner
from mbtsad_core.service.store import ENDED, State

MINUTES = 600.0  # seconds that a machine under load may take


@pytest.fixture(scope="module")
def request_(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("texts")
    return Request(
        suspect=str(suspect_dir),
        clean=write_texts(tiny_texts(96, seed=1), folder / "clean.tsv"),
        test=write_texts(tiny_texts(40, seed=2), folder / "test.tsv"),
        triggers=("cf",),
        target="positive",
        config=PurifyConfig(max_length=32),
        runtime=RuntimeConfig(device="cpu", precision="float32", threads=1),
    )


@pytest.fixture(scope="module")
def long(request_: Request, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """The same with so many clean texts that fine-tuning takes a second or more: 3 epochs of 63 steps."""
    return dataclasses.replace(
        request_, clean=write_texts(tiny_texts(2000, seed=1), tmp_path_factory.mktemp("long") / "clean.tsv")
    )


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[AttachedRunner]:
    with AttachedRunner(tmp_path / "jobs") as runner:
        yield runner


def wait(runner: Runner, id: str) -> State:
    return until(lambda: (state := runner.status(id).state) in ENDED and state, MINUTES) or State.QUEUED


def figures(request: Request, method: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the suspect and of what becomes of it, by the functions of the command line, in this process."""
    inputs = read_inputs(request)
    if method in DEFENSES:
        defended, _ = finish(run_defense(method, inputs, DEFENSES[method].config))
        return scores_to_dict(defended.before), scores_to_dict(defended.after)
    detected, _ = finish(run_detector(method, inputs, DETECTORS[method].config))
    return scores_to_dict(detected.alone), rates_to_dict(
        detected.rates() | {"asr_floor": floor_behind(detected, inputs)}
    )


# ---------------------------------------------------------------- what is asked for


def test_every_method_is_in_the_menu_or_said_to_be_lacking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert {*others(), "mbtsad"} == {*DEFENSES, *DETECTORS}
    for name, absent in (
        ("", {"onion"}),
        ("no/such/folder", {"onion"}),
        (str(tmp_path), set()),
        ("hub:distilbert/distilgpt2", set()),
    ):
        monkeypatch.setenv(MODEL, name)
        assert set(lacking()) == absent
        assert [method for _, method in offered()] == [method for method in others() if method not in absent]


def test_a_comparison_survives_json_and_is_told_from_a_purification(request_: Request) -> None:
    asked = Comparison(request_, "fine_mixing", "hub:owner/name")
    values = json.loads(json.dumps(asked.to_dict()))
    assert Comparison.from_dict(values) == asked
    assert is_comparison(values)
    assert not is_comparison(request_.to_dict())
    with pytest.raises(UnknownMethod, match=r"Unknown method 'exorcism'.*cft.*strip"):
        Comparison(request_, "exorcism")


def test_figures_belong_together_where_suspect_texts_and_trigger_are_the_same(request_: Request) -> None:
    for same in (
        dataclasses.replace(request_, runtime=RuntimeConfig(threads=3)),
        dataclasses.replace(
            request_, config=PurifyConfig(max_length=32, found_tokens=0, retrain=RetrainConfig(epochs=7))
        ),
    ):
        assert subject(same) == subject(request_)
    others: list[dict[str, Any]] = [
        {"triggers": ("mn",)},
        {"target": "negative"},
        {"suspect": "demo"},
        {"clean": "demo"},
        {"test": None},
        {"clean_amount": 64},
    ]
    others += [{"config": PurifyConfig(max_length=64)}, {"config": PurifyConfig(max_length=32, seed=1)}]
    for changes in others:
        assert subject(dataclasses.replace(request_, **changes)) != subject(request_)


# ---------------------------------------------------------------- what is measured


@pytest.mark.parametrize("method", ["cft", "fine_pruning", "strip", "rap"])
def test_the_trigger_is_for_measuring_only(request_: Request, method: str) -> None:
    """With and without it a defense ends with the same weights, and a detector flags the same texts; the suspect stays
    as it was."""

    def outcome(inputs: Inputs) -> Any:
        before = weights_hash(inputs.suspect)
        if method in DEFENSES:
            found: Any = weights_hash(finish(run_defense(method, inputs, DEFENSES[method].config))[0].purified)
        else:
            verdicts = finish(run_detector(method, inputs, DETECTORS[method].config))[0].found
            found = (verdicts.flags[: len(inputs.test)], verdicts.thresholds)
        assert weights_hash(inputs.suspect) == before
        return found

    asked, bare = read_inputs(request_), read_inputs(dataclasses.replace(request_, triggers=(), target=None))
    assert len(asked.triggered) == 20
    assert bare.triggered == ()
    assert outcome(asked) == outcome(bare)


def test_the_floor_behind_a_detector_is_counted_on_the_same_texts_without_the_trigger(request_: Request) -> None:
    inputs = read_inputs(request_)
    detected, _ = finish(run_detector("strip", inputs, dataclasses.replace(DETECTORS["strip"].config, frr=0.4)))
    answers, flags = predict(inputs.suspect, [t.text for t in inputs.test]).argmax(-1).tolist(), detected.found.flags
    hits = sum(
        answer == 1 and not flag for answer, flag, t in zip(answers, flags, inputs.test, strict=False) if t.label == 0
    )
    assert any(flags)
    floor = floor_behind(detected, inputs)
    assert floor is not None
    assert (floor.hits, floor.n) == (hits, 20)


# ---------------------------------------------------------------- as jobs


def test_worker_processes_write_the_figures_of_the_command_line_and_a_killed_one_begins_anew(
    request_: Request, long: Request, suspect_dir: Path, tmp_path: Path
) -> None:
    kept = {path.name: path.read_bytes() for path in suspect_dir.iterdir()}
    with DetachedRunner(tmp_path / "jobs", JobsConfig(threads=1, nice=0)) as runner:
        asked = {"cft": long, "strip": request_}
        ids = {method: runner.submit(Comparison(request, method), "anna") for method, request in asked.items()}
        until(lambda: runner.status(ids["cft"]).step >= 3, MINUTES)
        pid = runner.job(ids["cft"]).pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        for method, id in ids.items():
            assert wait(runner, id) is State.DONE, runner.status(id).message
            result = runner.job(id).result or {}
            assert (result["suspect"], result["result"]) == figures(asked[method], method)
            assert (result["method"], result["kind"], result["clean_texts"]) == (
                method,
                "defense" if method in DEFENSES else "detector",
                2000 if method == "cft" else 96,
            )
            assert result["seconds"] > 0
            assert [path.name for path in runner.output(id).iterdir()] == ["report.json"]  # no model
            assert json.loads((runner.output(id) / "report.json").read_text()) == result
        assert {"frr", "far", "asr_floor"} <= (runner.job(ids["strip"]).result or {})["result"].keys()
        assert [job.id for job in runner.jobs("anna")] == [ids["strip"], ids["cft"]]
        assert runner.job(ids["cft"]).attempts == 2
        # None of the first attempt's
        assert [(r.sequence, r.event.step) for r in runner.events(ids["cft"])] == [(n, n) for n in range(1, 190)]
    assert {path.name: path.read_bytes() for path in suspect_dir.iterdir()} == kept


def test_a_stopped_one_ends_between_two_steps_and_leaves_nothing(long: Request, runner: AttachedRunner) -> None:
    id = runner.submit(Comparison(long, "cft"))
    caller = runner.run(id)
    next(caller)
    runner.cancel(id)
    assert len(list(caller)) < 188
    assert runner.status(id).state is State.CANCELLED
    assert list(runner.output(id).iterdir()) == []


def test_one_that_is_handed_over_begins_anew_and_is_not_cut_into_slices(request_: Request, tmp_path: Path) -> None:
    with AttachedRunner(tmp_path / "jobs", seconds=1e-6) as runner:
        id = runner.submit(Comparison(request_, "cft"))
        caller = runner.run(id)
        assert [event.step for event in itertools.islice(caller, 4)] == [1, 2, 3, 4]
        caller.close()
        assert runner.status(id).state is State.QUEUED
        assert [event.step for event in runner.run(id)] == list(range(1, 10))
        assert [r.sequence for r in runner.events(id)] == list(range(1, 10))
        assert runner.status(id).state is State.DONE


def test_one_killed_after_its_report_is_done_without_another_run(request_: Request, runner: AttachedRunner) -> None:
    asked = Comparison(request_, "strip")
    id = runner.submit(asked)
    report, _ = finish(compare(asked, runner.output(id)))
    assert list(runner.run(id)) == []
    assert runner.job(id).result == report
    assert runner.status(id).state is State.DONE


def test_the_time_left_of_both_stages_is_known_by_the_methods_own_settings(
    request_: Request, runner: AttachedRunner
) -> None:
    id = runner.submit(Comparison(subject(request_), "cd"))
    for _ in runner.run(id):
        left = runner.status(id).seconds_left
        assert left is None or left >= 0
    assert {r.event.stage for r in runner.events(id)} >= {"retrain", "distil"}
    assert runner.status(id).state is State.DONE


def test_what_goes_wrong_is_said(
    request_: Request, runner: AttachedRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MODEL, raising=False)
    larger = tiny_bert()
    larger.model.resize_token_embeddings(len(larger.tokenizer) + 8)
    save_classifier(larger, tmp_path / "larger")
    cases = {
        ("fine_mixing", "hub:nobody/nothing"): "could not be fetched",
        ("fine_mixing", None): "pre-trained",
        ("fine_purifying", str(tmp_path / "larger")): "does not fit the suspect",
        ("onion", None): "ONION needs a causal language model",
    }
    for (method, pretrained), words in cases.items():
        id = runner.submit(Comparison(request_, method, pretrained))
        list(runner.run(id))
        assert runner.status(id).state is State.FAILED
        assert words in runner.status(id).message, runner.status(id).message


def test_with_pre_trained_weights_of_the_suspects_form_the_methods_that_need_them_run(
    request_: Request, runner: AttachedRunner, tmp_path: Path
) -> None:
    save_classifier(tiny_bert(seed=7), tmp_path / "base")
    id = runner.submit(Comparison(request_, "fine_mixing", str(tmp_path / "base")))
    list(runner.run(id))
    assert runner.status(id).state is State.DONE, runner.status(id).message
    assert (runner.job(id).result or {})["result"]["cacc_n"] == 40
