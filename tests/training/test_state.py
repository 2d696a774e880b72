"""The saved state: what is read is what was written, and a failed write costs nothing."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, tiny_bert
from safetensors.torch import save_file
from torch import Tensor, nn

from mbtsad_core.errors import BadOutput
from mbtsad_core.training.state import TrainState, capture, read_state, restore, write_state

TENSORS = {
    "weights/a.weight": torch.arange(6.0).reshape(2, 3),
    "weights/b": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "teacher/a.weight": torch.tensor([0.1], dtype=torch.bfloat16),
    "optimizer/0/step": torch.tensor(7.0),
    "optimizer/11/exp_avg": torch.zeros(0, 4),
    "rng/cpu": torch.get_rng_state(),
    "flags": torch.tensor([True, False]),
    "counts": torch.tensor(2**40),
}
STATE = TrainState("distil", 41, TENSORS, {"seconds": 12.5, "name": "é"})


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """The same names, types, shapes and values."""
    return first.keys() == second.keys() and all(
        t.dtype == second[k].dtype and t.shape == second[k].shape and torch.equal(t, second[k])
        for k, t in first.items()
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.safetensors"


@pytest.fixture
def written(path: Path) -> Path:
    write_state(STATE, path)
    return path


def trained(seed: int, steps: int = 3) -> tuple[nn.Module, torch.optim.AdamW]:
    """A small network after some steps on inputs of the global generator."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    go_on(model, optimizer, steps)
    return model, optimizer


def go_on(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()


# ---------------------------------------------------------------- in memory


def test_a_restored_training_goes_on_as_the_captured_one() -> None:
    model, optimizer = trained(0)
    state = capture("retrain", 3, model, optimizer)
    go_on(model, optimizer, 4)
    other, its_optimizer = trained(1, steps=0)
    restore(state, other, its_optimizer)
    go_on(other, its_optimizer, 4)
    assert same(other.state_dict(), model.state_dict())


def test_a_captured_state_is_a_copy() -> None:
    model, optimizer = trained(0)
    state = capture("retrain", 3, model, optimizer)
    before = {k: v.clone() for k, v in state.tensors.items()}
    go_on(model, optimizer, 2)
    assert same(state.tensors, before)


def test_a_training_that_goes_on_leaves_the_state_it_was_restored_from() -> None:
    model, optimizer = trained(0)
    state = capture("retrain", 3, model, optimizer)
    before = {k: v.clone() for k, v in state.tensors.items()}
    restore(state, model, optimizer)
    go_on(model, optimizer, 2)
    assert same(state.tensors, before)


def test_a_part_has_the_rest_of_the_names() -> None:
    assert same(STATE.part("weights"), {"a.weight": TENSORS["weights/a.weight"], "b": TENSORS["weights/b"]})


def test_another_model_can_go_with_a_state() -> None:
    model = tiny_bert(seed=3).model
    both = STATE.having("other", model)
    assert same(both.part("other"), model.state_dict())
    assert same(both.part("weights"), STATE.part("weights"))
    assert (both.stage, both.step, both.numbers) == (STATE.stage, STATE.step, STATE.numbers)


# ---------------------------------------------------------------- on disk


def test_what_is_read_is_what_was_written(written: Path) -> None:
    found = read_state(written)
    assert (found.stage, found.step, found.numbers) == ("distil", 41, {"seconds": 12.5, "name": "é"})
    assert same(found.tensors, TENSORS)


def test_a_new_state_replaces_the_old_one(written: Path) -> None:
    write_state(TrainState("distil", 42, {"weights/a": torch.ones(2)}), written)
    found = read_state(written)
    assert (found.step, list(found.tensors)) == (42, ["weights/a"])


def test_only_the_state_is_left_in_the_directory(written: Path) -> None:
    write_state(STATE, written)
    assert [p.name for p in written.parent.iterdir()] == [written.name]


def test_a_write_for_which_there_is_no_room_leaves_the_old_state_whole(written: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Bytes a file may have: further writes fail, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"checkpoint"):
            write_state(TrainState("distil", 42, {"weights/a": torch.ones(100_000)}), written)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_state(written).step == 41
    assert same(read_state(written).tensors, TENSORS)


def test_a_state_can_be_written_after_a_failed_write(written: Path) -> None:
    written.with_suffix(".new").write_bytes(b"half a file")
    write_state(TrainState("distil", 42, {}), written)
    assert read_state(written).step == 42


def test_what_a_kill_left_of_a_state_goes_with_the_next(written: Path) -> None:
    """safetensors begins with a file of a name that it makes up; a kill leaves it where it is."""
    written.with_suffix(".new").mkdir()
    (written.with_suffix(".new") / ".tmpX3fk2b").write_bytes(b"half a file")
    write_state(TrainState("distil", 42, {}), written)
    assert read_state(written).step == 42
    assert [p.name for p in written.parent.iterdir()] == [written.name]


def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_state(path: Path) -> None:
    program = """
import itertools, sys, torch
from pathlib import Path
from mbtsad_core.training.state import TrainState, write_state
for step in itertools.count(1):
    write_state(TrainState("retrain", step, {"weights/a": torch.full((500_000,), float(step))}), Path(sys.argv[1]))
    print(step, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child, child.stdout as lines:
        for _ in range(3):
            last = int(lines.readline())
        child.send_signal(signal.SIGKILL)
    found = read_state(path)
    assert found.step >= last == 3
    assert found.tensors["weights/a"].unique().tolist() == [found.step]


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b"garbage" * 100,
        lambda b: b"\x00" * 4096,
        lambda b: b[: len(b) // 2],
        lambda b: b[:-1],
        lambda b: b[:8],
        lambda b: b + b"more",
    ],
    ids=["empty", "garbage", "zeros", "half", "one byte short", "no header", "too long"],
)
def test_a_damaged_file_is_refused(written: Path, damage: Callable[[bytes], bytes]) -> None:
    written.write_bytes(damage(written.read_bytes()))
    with pytest.raises(
        BadOutput,
        match=rf"{re.escape(str(written))} holds no checkpoint that can be read: .+ Start the run again without "
        rf"`resume`",
    ):
        read_state(written)


def test_a_truncated_file_is_refused_wherever_it_ends(written: Path) -> None:
    whole = written.read_bytes()
    for end in range(0, len(whole), 97):
        written.write_bytes(whole[:end])
        with pytest.raises(BadOutput):
            read_state(written)


@pytest.mark.parametrize("about", [None, "", "{", "[]", "3", "null", '"distil"', '{"stage": "distil"}'])
def test_a_file_that_is_no_state_is_refused(path: Path, about: str | None) -> None:
    save_file({"weights/a": torch.ones(2)}, path, metadata=None if about is None else {"state": about})
    with pytest.raises(BadOutput, match="holds no checkpoint that can be read"):
        read_state(path)


def test_a_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(BadOutput, match="Start the run again without `resume`"):
        read_state(path)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOutput, match="holds no checkpoint that can be read"):
        read_state(tmp_path)


def test_the_state_says_in_the_open_what_it_is(written: Path) -> None:
    header = json.loads(written.read_bytes()[8 : 8 + int.from_bytes(written.read_bytes()[:8], "little")])
    assert json.loads(header["__metadata__"]["state"]) == {"stage": "distil", "step": 41, "numbers": STATE.numbers}
