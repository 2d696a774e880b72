"""The programs of fuzzing, without hours: all their seeds and some hundred changes of them; and that what drives them
finds a defect."""

from __future__ import annotations

import importlib
import importlib.util
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

FOLDER = ROOT / "tests" / "fuzz"
PROGRAMS = sorted(path.stem for path in FOLDER.glob("fuzz_*.py"))
CHANGES = {"fuzz_vetting": 60, "fuzz_data": 200}  # the slower ones
HAS_ATHERIS = importlib.util.find_spec("atheris") is not None


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_the_targets_of_the_threat_model_are_fuzzed() -> None:
    assert [name.removeprefix("fuzz_") for name in PROGRAMS] == [
        "config",
        "data",
        "json",
        "safetensors",
        "tokenizer",
        "vetting",
        "zip",
    ]


@pytest.mark.filterwarnings("ignore")
def test_every_seed_ends_in_an_answer_or_an_error_of_ours(program: ModuleType) -> None:
    seeds = program.seeds()
    assert len(seeds) >= 6
    for seed in (*seeds, b"", b"\0", b"\xff"):
        program.once(seed)


@pytest.mark.filterwarnings("ignore")
def test_changes_of_the_seeds_do_too(program: ModuleType) -> None:
    seeds, rng = program.seeds(), random.Random(0)
    changed = set[bytes]()
    for _ in range(most := CHANGES.get(program.__name__, 400)):
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 3))):
            data = program.change(data, rng)
        changed.add(data)
        try:
            program.once(data)
        except Exception:
            pytest.fail(f"{program.__name__} fails on {data!r}")
    assert len(changed - set(seeds)) > most / 2


DEFECT = """
import sys
sys.path.insert(0, {folder!r})
from fuzzing import change_bytes, fuzz

def once(data):
    if data[:1] == b"M" and data[1:2] == b"B" and data[2:3] == b"T":
        raise KeyError("a defect behind three comparisons")

fuzz(__file__, once, [b"a seed of some length"], change_bytes)
"""


@pytest.mark.skipif(not HAS_ATHERIS, reason="atheris is not installed: pip install -c constraints.txt '.[fuzz]'")
def test_a_defect_is_found_by_what_was_reached_before_and_its_input_kept(tmp_path: Path) -> None:
    """Chance alone would need some ten million inputs for three bytes in their places."""
    path = tmp_path / "fuzz_defect.py"
    path.write_text(DEFECT.format(folder=str(FOLDER)), encoding="utf-8")
    command = [sys.executable, str(path), "-runs=300000", "-seed=1"]
    environment = {"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert run.returncode == 77, run.stderr[-2000:]
    assert "KeyError: 'a defect behind three comparisons'" in run.stderr + run.stdout
    (crash,) = (tmp_path / "mbtsad-fuzz" / "defect").glob("crash-*")
    assert crash.read_bytes().startswith(b"MBT")


@pytest.mark.skipif(not HAS_ATHERIS, reason="atheris is not installed: pip install -c constraints.txt '.[fuzz]'")
def test_a_program_runs_watched(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "fuzz_data.py"), "-runs=300"]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Instrumenting mbtsad_core.data.files" in run.stderr
    assert "Done 300 runs" in run.stderr
