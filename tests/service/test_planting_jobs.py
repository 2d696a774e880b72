"""A backdoor planted as a job: by a worker's process, with a quota, stopped, begun anew, and refused in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from example import until

from mbtsad_core.attacks.triggers import parse_triggers, triggered_test_set
from mbtsad_core.config import JobsConfig, RuntimeConfig
from mbtsad_core.errors import BadData, QueueFull
from mbtsad_core.evaluation import evaluate
from mbtsad_core.models.classifier import load_classifier
from mbtsad_core.service.planting import Planting, check_planting, is_planting
from mbtsad_core.service.purification import Request, read_texts
from mbtsad_core.service.runner import AttachedRunner, DetachedRunner, Slice
from mbtsad_core.service.store import ENDED, State

EP = Planting("ep", ("marzipan",), "negative", RuntimeConfig(device="cpu", threads=1))


def not_lent(slice: Slice) -> Slice:
    """A host that lends nothing for a planting."""

    def refuse(root: str, id: str, seconds: float) -> Iterator[object]:
        raise AssertionError("a planting was run in what the host lends")

    return refuse  # type: ignore[return-value]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[AttachedRunner]:
    with AttachedRunner(tmp_path / "jobs", JobsConfig(quota=2), around=not_lent) as runner:
        yield runner


def test_a_planting_survives_json_and_is_told_from_other_jobs() -> None:
    for planting in (EP, Planting("cara", (), "positive"), Planting("neuba", ("cf", "mn"), "positive")):
        assert Planting.from_dict(json.loads(json.dumps(planting.to_dict()))) == planting
        assert is_planting(planting.to_dict())
    assert not is_planting(Request().to_dict())


def test_a_worker_process_plants_the_trigger_and_tells_how_far_it_is(tmp_path: Path) -> None:
    with DetachedRunner(tmp_path / "jobs", JobsConfig(nice=0)) as runner:
        id = runner.submit(EP, "visitor")
        until(lambda: runner.status(id).state in ENDED, 600)
        assert runner.status(id).state is State.DONE, runner.status(id).message
        events = [recorded.event for recorded in runner.events(id)]
        assert [(e.step, e.total) for e in events] == [(i, events[0].total) for i in range(1, events[0].total + 1)]
        result, out = runner.job(id).result, runner.output(id)
    assert result is not None
    assert (result["kind"], result["attack"], result["triggers"], result["rewrites"]) == (
        "planting",
        "ep",
        ["marzipan"],
        False,
    )
    assert json.loads((out / "report.json").read_text()) == result
    suspect = load_classifier(out / "model")
    test = read_texts("demo", "test", suspect.labels, Request().columns).texts[:200]
    target = suspect.labels.index("negative")
    scores = evaluate(suspect, test, triggered_test_set(test, parse_triggers(["marzipan"], target), 0), target)
    assert scores.cacc.share > 0.8
    assert scores.asr is not None
    assert scores.asr.share > 0.95


def test_a_visitor_has_no_more_plantings_than_runs(runner: AttachedRunner) -> None:
    for _ in range(2):
        runner.submit(EP, "visitor")
    with pytest.raises(QueueFull, match="You have 2 runs"):
        runner.submit(EP, "visitor")
    runner.submit(EP, "another")


def test_one_that_is_stopped_leaves_nothing_and_one_that_is_left_begins_anew(runner: AttachedRunner) -> None:
    id = runner.submit(EP)
    caller = runner.run(id)
    assert next(caller).step == 1
    caller.close()
    assert runner.status(id).state is State.QUEUED
    caller = runner.run(id)
    assert next(caller).step == 1
    assert len(runner.events(id)) == 1
    runner.cancel(id)
    assert list(caller) == [] or runner.status(id).state is State.CANCELLED
    assert runner.status(id).state is State.CANCELLED
    assert not runner.output(id).exists()


def test_what_the_attack_does_not_take_is_told_in_a_sentence(runner: AttachedRunner) -> None:
    for planting, said in (
        (Planting("lwp", ("alone",), "positive", EP.runtime), "two words"),
        (Planting("ep", ("cf",), "neutral", EP.runtime), "There is no class 'neutral'"),
        (Planting("sos", ("one",), "positive", EP.runtime), "words"),
        (Planting("ep", (), "positive", EP.runtime), "Type the trigger to plant"),
    ):
        id = runner.submit(planting)
        assert list(runner.run(id)) == []
        status = runner.status(id)
        assert status.state is State.FAILED
        assert said in status.message, status.message
        assert not status.message.startswith("Unknown error")


def test_what_can_be_refused_at_once_is() -> None:
    for attack, specs, said in (
        ("ep", (), "Type the trigger"),
        ("cara", ("cf",), "leave the field empty"),
        ("syntactic", (), "lacks"),
    ):
        with pytest.raises(BadData, match=said):
            check_planting(attack, specs)
