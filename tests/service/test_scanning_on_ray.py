"""The scan of many models on Ray: a worker that is ended in between costs no verdict, and none is there twice."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import mbtsad, phrase_bert, tiny_texts, with_a_trigger_word, write_tsv

from mbtsad_core import ScanConfig
from mbtsad_core.config import RuntimeConfig
from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.service.json_lines import add_line
from mbtsad_core.service.scanning import ScanRequest
from mbtsad_core.service.scanning_on_ray import scan_on_ray
from mbtsad_core.sources import Source

MODELS, WORKERS = 8, 2
CPU = ("--nats", "3", "--device", "cpu", "--threads", "1")


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of two workers on this machine."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'mbtsad[ray]'")
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def models(tmp_path: Path) -> list[Source]:
    """Every other one has a trigger, and one is refused."""
    for number in range(MODELS - 1):
        save_classifier(with_a_trigger_word(16.0) if number % 2 else phrase_bert(0.0), tmp_path / f"m{number}")
    (tmp_path / f"m{MODELS - 1}").mkdir()
    return [Source(tmp_path / f"m{number}") for number in range(MODELS)]


def busy_workers() -> list[int]:
    """The processes below this one that scan a model for Ray."""
    parents, scanning = dict[int, int](), list[int]()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (process / "stat").read_text(), (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended by now
        parents[int(process.name)] = int(status.rpartition(")")[2].split()[1])
        if command.startswith(b"ray::_scan_there"):
            scanning.append(int(process.name))

    def is_ours(process: int) -> bool:
        return process == os.getpid() or (process in parents and is_ours(parents[process]))

    return [process for process in scanning if is_ours(process)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # ray's own
def test_of_eight_models_every_verdict_is_there_once_when_a_worker_is_killed_in_between(
    cluster: str, models: list[Source], tmp_path: Path
) -> None:
    table = write_tsv(tmp_path / "clean.tsv", tiny_texts(60, seed=5))
    runtime = RuntimeConfig(device="cpu", threads=1)
    request = ScanRequest(Source(table), config=ScanConfig(nats=3.0), runtime=runtime)
    records, killed = list[dict[str, Any]](), list[int]()
    for record in scan_on_ray(models, request, cluster, lambda: False):
        if not killed and (busy := busy_workers()):
            os.kill(busy[0], signal.SIGKILL)
            killed.append(busy[0])
        records.append(record)
    assert killed
    verdicts = {record["model"]: record["verdict"] for record in records}
    assert Counter(record["model"] for record in records) == Counter(map(str, models))
    expected = ["nothing found", "a trigger exists"] * (MODELS // 2)
    assert [verdicts[str(model)] for model in models] == [*expected[:-1], "refused"]

    out = tmp_path / "out.jsonl"
    for record in records[2:]:
        add_line(out, record)
    run = mbtsad("scan", *models, "--clean", table, "--ray", cluster, "--out", out, "--json", *CPU)
    assert run.returncode == 3
    again = {record["model"]: record["verdict"] for record in map(json.loads, run.stdout.splitlines())}
    assert again == verdicts
    assert len(out.read_text(encoding="utf-8").splitlines()) == MODELS


def test_without_ray_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray"):
        pytest.skip("ray is installed here")
    run = mbtsad("scan", tmp_path / "a", "--clean", "demo", "--ray", "local")
    assert run.returncode == 2
    assert "pip install 'mbtsad[ray]'" in run.stderr


def test_jobs_of_this_machine_and_a_cluster_are_not_asked_for_together(tmp_path: Path) -> None:
    run = mbtsad("scan", tmp_path / "a", "--clean", "demo", "--ray", "local", "--jobs", "2")
    assert (run.returncode, "--ray" in run.stderr) == (2, True)
