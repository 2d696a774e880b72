"""A scan as a job: by a worker's process, with who leads, stopped with a last word, begun anew, refused in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import plain_texts, with_a_trigger_word, write_tsv
from example import until

from mbtsad_core.config import JobsConfig, RuntimeConfig, ScanConfig
from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.service.runner import AttachedRunner, DetachedRunner, Slice
from mbtsad_core.service.scan_job import ScanJob, is_scan
from mbtsad_core.service.scanning import ScanRequest
from mbtsad_core.service.store import ENDED, State
from mbtsad_core.sources import Source


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> ScanJob:
    folder = tmp_path_factory.mktemp("scanned")
    save_classifier(with_a_trigger_word(16.0), folder / "suspect")
    clean = write_tsv(folder / "clean.tsv", plain_texts(60, seed=3))
    asked = ScanRequest(Source(clean), config=ScanConfig(nats=6.0), runtime=RuntimeConfig(device="cpu", threads=1))
    return ScanJob(Source(folder / "suspect"), asked)


def not_lent(slice: Slice) -> Slice:
    def refuse(root: str, id: str, seconds: float) -> Iterator[object]:
        raise AssertionError("a scan was run in what the host lends")

    return refuse  # type: ignore[return-value]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[AttachedRunner]:
    with AttachedRunner(tmp_path / "jobs", around=not_lent) as runner:
        yield runner


def test_a_scan_survives_json_and_is_told_from_other_jobs(job: ScanJob) -> None:
    assert ScanJob.from_dict(json.loads(json.dumps(job.to_dict()))) == job
    assert is_scan(job.to_dict())
    assert not is_scan({"suspect": "demo", "method": "cft"})


def test_a_worker_process_scans_and_tells_who_leads(tmp_path: Path, job: ScanJob) -> None:
    with DetachedRunner(tmp_path / "jobs", JobsConfig(nice=0)) as runner:
        id = runner.submit(job, "visitor")
        led = until(lambda: runner.status(id).leading)
        until(lambda: runner.status(id).state in ENDED)
        assert runner.status(id).state is State.DONE, runner.status(id).message
        result, out = runner.job(id).result, runner.output(id)
    assert 0 < len(led) <= 8
    assert set(led[0]) == {"text", "place", "label", "nats", "flips"}
    assert led[0]["flips"]["hits"] <= led[0]["flips"]["n"]
    assert result is not None
    assert (result["verdict"], result["model"]) == ("a trigger exists", "suspect")
    assert result["triggers"][0]["target"] == "positive"
    assert json.loads((out / "report.json").read_text()) == result


def test_one_that_is_stopped_has_a_last_word_and_one_that_is_left_begins_anew(
    runner: AttachedRunner, job: ScanJob
) -> None:
    id = runner.submit(job)
    caller = runner.run(id)
    assert next(caller).step == 1
    caller.close()
    assert runner.status(id).state is State.QUEUED
    caller = runner.run(id)
    assert next(caller).step == 1
    runner.cancel(id)
    stages = [event.stage for event in caller]
    assert set(stages) <= {"scan", "pairs", "openings", "sequences", "judging"}
    assert stages[-1] == "judging"
    assert runner.status(id).state is State.DONE
    result = runner.job(id).result
    assert result is not None
    assert "sequences of tokens" in " ".join(result["not_looked_at"])


def test_what_cannot_be_scanned_is_told_in_a_sentence(runner: AttachedRunner, job: ScanJob, tmp_path: Path) -> None:
    (tmp_path / "suspect").mkdir()
    (tmp_path / "suspect" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    for asked, said in (
        (ScanJob(Source(tmp_path / "suspect"), job.request), "is a pickle and could run code"),
        (ScanJob(job.suspect, ScanRequest(Source(tmp_path / "none.tsv"), runtime=job.request.runtime)), "none.tsv"),
    ):
        id = runner.submit(asked)
        assert list(runner.run(id)) == []
        status = runner.status(id)
        assert status.state is State.FAILED
        assert said in status.message, status.message
        assert not status.message.startswith("Unknown error")
