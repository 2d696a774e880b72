"""The benchmark: both ways do the same work, figures follow from their definition, and a run of it, small, from the
command line."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib.util
import io
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import ROOT, mbtsad, tiny_bert, tiny_texts

from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig, SplitConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import BadConfig, MBTSADError, UnknownMethod
from mbtsad_core.models.classifier import collate, encode, trace, weights_hash
from mbtsad_core.research import benchmark as module
from mbtsad_core.research.benchmark import (
    ALL,
    DYNAMIC,
    EXAMPLE,
    OURS,
    QUICK,
    WORKLOADS,
    Shape,
    Start,
    Workload,
    benchmark,
    operations,
    plain_loss,
    plain_purify,
    prepare,
    row,
    serve,
    table,
    texts_of,
    timed,
    tokenized,
)
from mbtsad_core.training.distillation import distillation_loss

CPU = RuntimeConfig(device="cpu", threads=1)
KEYS = {
    "workload",
    "ours_s",
    "plain_example_s",
    "plain_dynamic_s",
    "ratio_example",
    "ratio_dynamic",
    "share_of_peak",
    "peak_memory_ratio",
    "load",
}
MORE = {
    "default_example_s",
    "default_dynamic_s",
    "ratio_default_example",
    "ratio_default_dynamic",
    "share_of_float32_peak",
}
needs_accelerate = pytest.mark.skipif(
    not importlib.util.find_spec("accelerate"), reason="accelerate is not installed: pip install 'mbtsad[benchmark]'"
)


@pytest.fixture
def little_garbage() -> None:
    """The library's Trainer looks for garbage several times a training: not through all that was imported so far."""
    import transformers.trainer  # noqa: F401

    gc.freeze()


def run(seconds: float, memory: int = 2**20, **others: Any) -> dict[str, Any]:
    return dict(seconds=seconds, cpu=seconds, memory=memory, device="cpu", load=1.0) | others


# ---------------------------------------------------------------- the same work


def test_the_plain_loss_is_ours() -> None:
    teacher, student = tiny_bert(seed=1), tiny_bert(seed=2)
    batch = collate(student, encode(student, ["the lovely film", "a dreadful and boring story with a clumsy plot ."]))
    labels, config = torch.tensor([1, 0]), DistilConfig(alpha=3.0, beta=0.5, power=1.5)
    with torch.no_grad():
        ours = distillation_loss(trace(teacher, batch), trace(student, batch), labels, config)["loss"]
        for classifier in (teacher, student):
            classifier.model.set_attn_implementation("eager")
        plain = plain_loss(teacher.model, student.model, {**batch, "labels": labels}, config)
    assert float(plain) == pytest.approx(float(ours), rel=1e-5)


@needs_accelerate
@pytest.mark.usefixtures("little_garbage")
@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize("whole", [True, False])
def test_the_plain_way_trains_both_stages_and_leaves_the_suspect(whole: bool) -> None:
    suspect = tiny_bert()
    before = weights_hash(suspect)
    config = PurifyConfig(
        split=SplitConfig(copies=1),
        found_tokens=0,
        retrain=RetrainConfig(epochs=1, batch_size=8),
        distil=DistilConfig(epochs=1, batch_size=8),
    )
    student = plain_purify(suspect, tiny_texts(16), config, whole=whole)
    assert weights_hash(suspect) == before != weights_hash(student)
    assert not student.model.training


def test_the_example_pads_to_all_that_the_model_reads_and_the_other_not_at_all() -> None:
    texts = tiny_texts(3)
    whole, dynamic = (tokenized(tiny_bert(), texts, whole=whole) for whole in (True, False))
    assert {len(r["input_ids"]) for r in whole} == {64}
    assert [len(r["input_ids"]) for r in dynamic] == [sum(r["attention_mask"]) for r in whole]
    assert [r["labels"] for r in whole] == [t.label for t in texts]


# ---------------------------------------------------------------- figures


def test_operations_are_those_of_the_matrices_and_of_the_attention() -> None:
    """Two layers, each of four maps of 32 x 32, two of 32 x 64 and two norms; a pooler and a classifier of two classes,
    which read one token."""
    query_key_value, norm = 3 * (32 * 32 + 32), 2 * 32
    rest = 32 * 32 + 32 + norm + (32 * 64 + 64) + (64 * 32 + 32) + norm
    head = 32 * 32 + 32 + 32 * 2 + 2
    attention = 4 * 2 * 32 * (5 * 5 + 9 * 9)
    whole = 2 * (2 * (query_key_value + rest)) * (5 + 9) + 2 * head * 2 + attention
    assert operations(tiny_bert(), [5, 9], training=False, hidden=True) == whole
    assert operations(tiny_bert(), [5, 9], training=True, hidden=True) == 3 * whole
    assert operations(tiny_bert(), [5, 9], training=False) == whole - 2 * rest * (5 + 9 - 2)
    assert operations(tiny_bert(), [5, 9], training=True) == 3 * (whole - 2 * rest * (5 + 9 - 2))


def test_a_row_holds_medians_and_ratios_of_plain_to_ours() -> None:
    ours = [
        run(s, 100 * 2**20, operations=30.0, peak=peak, samples=8, tokens=80)
        for s, peak in ((2.0, 30.0), (9.0, 20.0), (1.0, 10.0))
    ]
    found = row("demo", {OURS: ours, EXAMPLE: [run(6.0, 250 * 2**20)], DYNAMIC: [run(3.0), run(5.0)]})
    assert found["ours_s"] == 2.0
    assert (found["ratio_example"], found["ratio_dynamic"], found["peak_memory_ratio"]) == (3.0, 2.0, 2.5)
    assert found["share_of_peak"] == 0.5  # 30 operations in 2 seconds, of at most 30 a second
    assert (found["samples_per_s"], found["tokens_per_s"]) == (4.0, 40.0)
    assert found["peak_memory_mb"] == {OURS: 100, EXAMPLE: 250, DYNAMIC: 1}
    assert found["load"] == 1.0


def test_the_interval_of_a_ratio_is_of_the_runs_of_one_round() -> None:
    runs = {OURS: [run(2.0), run(4.0), run(1.0)], EXAMPLE: [run(6.0), run(8.0), run(5.0)], DYNAMIC: [run(3.0)]}
    found = row("demo", runs)
    assert found["intervals"] == {"ratio_example": [2.0, 5.0], "ratio_dynamic": [1.5, 1.5]}
    assert "| 3.00 [2.00, 5.00] | 1.50 [1.50, 1.50] |" in table([found])


def test_what_is_timed_by_default_is_a_part_and_leaves_the_librarys_precision_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(name: str, workload: Workload, *rest: Any) -> dict[str, Any]:
        return row(name, {OURS: [run(1.0, precision="bfloat16")]}) | {"default": workload.default}

    monkeypatch.setattr(module, "timed", told)
    asked = {flags: json.loads(mbtsad("benchmark", "--json", *flags).stdout) for flags in ((), ("--full",))}
    assert [found["workload"] for found in asked[()]] == [*QUICK]
    assert [found["workload"] for found in asked["--full",]] == [*WORKLOADS]
    assert [found["workload"] for found in asked["--full",] if found["default"]] == ["sst2-minilm"]
    assert not any(found["default"] for found in asked[()])
    (alone,) = json.loads(mbtsad("benchmark", "--json", "--workload", "sst2-minilm").stdout)
    assert alone["default"]


def test_the_librarys_default_precision_has_keys_of_its_own() -> None:
    def figures(seconds: float, precision: str, **others: Any) -> dict[str, Any]:
        return run(seconds, precision=precision) | others

    ours = figures(2.0, "bfloat16", operations=30.0, peak=60.0, peak_float32=20.0)
    runs = {OURS: [ours], EXAMPLE: [figures(6.0, "bfloat16")], DYNAMIC: [figures(3.0, "bfloat16")]}
    by_default = {
        "plain_example_default": [figures(20.0, "float32")],
        "plain_dynamic_default": [figures(10.0, "float32")],
    }
    found = row("demo", runs | by_default)
    assert [
        found[key] for key in ("ratio_example", "ratio_dynamic", "ratio_default_example", "ratio_default_dynamic")
    ] == [3.0, 1.5, 10.0, 5.0]
    assert (found["default_example_s"], found["default_dynamic_s"], found["default_precision"]) == (
        20.0,
        10.0,
        "float32",
    )
    assert (found["share_of_peak"], found["share_of_float32_peak"]) == (0.25, 0.75)
    assert found["cpu_ratios"] == {
        EXAMPLE: 3.0,
        DYNAMIC: 1.5,
        "plain_example_default": 10.0,
        "plain_dynamic_default": 5.0,
    }
    # Of another precision, so not to be mistaken for it
    assert {row("demo", runs)[key] for key in MORE if "share" not in key} == {None}
    same = row("demo", {way: [r | {"precision": "float32"} for r in found] for way, found in runs.items()})
    assert (same["ratio_default_example"], same["default_dynamic_s"]) == (3.0, 3.0)


def test_scores_of_both_ways_stand_in_the_row_and_in_words() -> None:
    found = row(
        "demo",
        {OURS: [run(1.0, cacc=0.8, asr=0.1), run(1.0, cacc=0.9, asr=0.1)], DYNAMIC: [run(2.0, cacc=0.85, asr=0.2)]},
    )
    assert found["scores"] == {OURS: {"cacc": [0.8, 0.9], "asr": [0.1, 0.1]}, DYNAMIC: {"cacc": [0.85], "asr": [0.2]}}
    assert "ours 85.0 ± 7.1 / 10.0 ± 0.0; plain_dynamic 85.0 / 20.0" in table([found])


def test_a_row_without_a_plain_way_has_no_ratios() -> None:
    found = row("start-up", {OURS: [run(0.5)]})
    assert [
        found[key]
        for key in (
            "plain_example_s",
            "plain_dynamic_s",
            "ratio_example",
            "ratio_dynamic",
            "share_of_peak",
            "peak_memory_ratio",
        )
    ] == [None] * 6
    assert found.keys() >= KEYS
    assert table([found]).splitlines()[2] == "| start-up | 0.5 |" + 9 * "  |" + " 1.00 |"


def test_long_texts_are_as_long_as_imdbs() -> None:
    words = sorted(len(t.text.split()) for t in texts_of(WORKLOADS["imdb-bert"], 301))
    assert 150 < words[150] < 230
    assert words[-1] > 600
    assert max(len(t.text.split()) for t in texts_of(WORKLOADS["sst2-bert"], 301)) < 100


# ---------------------------------------------------------------- running it


@pytest.mark.slow
@needs_accelerate
def test_a_workload_is_timed_in_turns_and_printed_as_json() -> None:
    done = mbtsad("benchmark", "--workload", "token-splitting", "--rounds", "2", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found.keys() >= KEYS
    assert found["workload"] == "token-splitting"
    assert 0 < found["ours_s"] < found["plain_example_s"]
    assert [line.split()[1] for line in done.stderr.splitlines()] == [OURS, EXAMPLE, EXAMPLE, OURS]
    assert found["peak_memory_mb"][OURS] > 50


@contextlib.contextmanager
def here(workload: Workload, way: str, runtime: RuntimeConfig) -> Iterator[Callable[[], dict[str, Any]]]:
    yield prepare(workload, way, runtime)


@needs_accelerate
@pytest.mark.usefixtures("little_garbage")
@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize("start", [here, pytest.param(None, marks=pytest.mark.slow)], ids=["here", "processes"])
def test_purification_is_timed_in_all_three_ways(start: Start | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In five processes, or here; that processes are asked in turns is told by another test."""
    monkeypatch.setitem(module.SQUARES, "cpu", ((512, 5),))  # far above what so small a model comes to
    small = Workload(
        "purification of a tiny model",
        shape=Shape(1, 32, 2, 64, 6500),
        texts=(8, 8),
        batch=(4, 4),
        length=48,
        default=True,
    )
    said: list[str] = []
    found = timed("tiny", small, dataclasses.replace(CPU, precision="bfloat16"), 1, said.append, start)
    assert found.keys() >= KEYS | MORE
    assert all(found[key] > 0 for key in (KEYS | MORE) - {"workload"})
    assert (found["device"], found["attention"], found["precision"], found["default_precision"]) == (
        "cpu",
        "plain",
        "bfloat16",
        "float32",
    )
    assert [line.split()[1] for line in said] == [*ALL, "plain_example_default", "plain_dynamic_default"]
    assert 0 < found["share_of_peak"] < 1


def test_a_process_says_that_it_is_ready_before_it_is_asked_for_anything() -> None:
    """Else it would load while another one is timed."""
    said = io.StringIO()
    serve(Workload("token splitting", "token splitting", ways=(OURS,), texts=(2, 2)), OURS, CPU, io.StringIO(), said)
    assert json.loads(said.getvalue()) == {"ready": OURS}


def test_a_process_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(MBTSADError, match=r"timed the broken thing \(ours\) ended with code 1: .*no such device"):
        timed(
            "broken",
            Workload("broken thing", ways=(OURS,)),
            RuntimeConfig(device="no such device"),
            1,
            lambda line: None,
        )


def test_an_unknown_workload_lists_the_known_ones() -> None:
    done = mbtsad("benchmark", "--workload", "sst3")
    assert done.returncode == 2
    assert all(name in done.stderr for name in WORKLOADS)
    with pytest.raises(UnknownMethod):
        benchmark(["sst3"], CPU, 1, lambda line: None)


def test_no_rounds_are_refused() -> None:
    with pytest.raises(BadConfig, match="--rounds must be from 1"):
        benchmark(["start-up"], CPU, 0, lambda line: None)


def test_the_lack_of_accelerate_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "accelerate" else found(name, *rest)
    )
    with pytest.raises(BadConfig, match=r"needs accelerate. Run: pip install 'mbtsad\[benchmark\]'"):
        benchmark(["demo"], CPU, 1, lambda line: pytest.fail(line))


# ---------------------------------------------------------------- start-up


def seconds_of(*command: str) -> float:
    """The best of several: the machine's load only ever adds to it."""
    best = 99.0
    for _ in range(5):
        started = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime)
    return best


def test_the_package_is_imported_in_half_a_second() -> None:
    assert seconds_of("-c", "import mbtsad_core") < 0.5


def test_help_comes_within_a_second() -> None:
    assert seconds_of("-m", "mbtsad_core.cli", "--help") < 1.0
