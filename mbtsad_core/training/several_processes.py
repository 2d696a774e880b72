"""One batch over several processes, each with a GPU of its own: each takes a part of it, and the gradients are added
up.

`accelerate launch -m mbtsad_core.cli purify ...`, or torchrun, starts them. All of them run the same program: they hold
the same weights, draw the same batches and make the same steps; what is not the same (files, words on the screen) is
the business of process 0. In one process nothing here does anything, and accelerate is not imported.
"""

from __future__ import annotations

import importlib.util
import os
import random
from typing import Any

import torch
from torch import Tensor, distributed, nn

from mbtsad_core.errors import BadConfig
from mbtsad_core.types import T


def this_of_all() -> tuple[int, int]:
    """The number of this process, from 0, and how many were started; (0, 1) where no launcher started it."""
    if "LOCAL_RANK" not in os.environ:
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def join(*, cpu: bool) -> None:
    """Meet the other processes, and take this one's GPU unless `cpu`; once, however often it is called.

    Raises BadConfig where accelerate is not installed, or there are fewer GPUs than processes.
    """
    this, number = this_of_all()
    if number == 1:
        return
    if importlib.util.find_spec("accelerate") is None:
        raise BadConfig(
            f"{number} processes were started, which needs accelerate. Run: pip install 'mbtsad[several]', or start "
            "one process."
        )
    cpu = cpu or not torch.cuda.is_available()
    if not cpu and torch.cuda.device_count() <= int(os.environ["LOCAL_RANK"]):
        raise BadConfig(
            f"Process {this} of {number} has no GPU: {torch.cuda.device_count()} are there. Start as many processes as "
            "GPUs (--num_processes), or use `device` cpu."
        )
    from accelerate import PartialState

    PartialState(cpu=cpu)


def leave() -> None:
    """Take leave of the other processes, at an end that all of them come to."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def share_weights(model: nn.Module) -> None:
    """Join the others, and make the weights those of process 0: what is computed in each may differ in its last bits.

    Raises BadConfig where the model is not on the device that is this process's.
    """
    this, number = this_of_all()
    if number == 1:
        return
    device = next(model.parameters()).device
    join(cpu=device.type == "cpu")
    if (device.type, device.index or 0) != (_device().type, _device().index or 0):
        raise BadConfig(
            f"Process {this} of {number} trains on {_device()}, but its model is on {device}. Leave out `device`, so "
            "that each takes its own."
        )
    for p in model.parameters():
        distributed.broadcast(p.data, src=0)


def of_first(value: T) -> T:
    """Process 0's value, whatever it is in the others; those wait for it."""
    if this_of_all()[1] == 1:
        return value
    values: list[Any] = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def in_any(flag: bool) -> bool:
    """Whether it is so in any process; all of them wait for the last to say."""
    if this_of_all()[1] == 1:
        return flag
    said = torch.tensor(int(flag), device=_device())
    distributed.all_reduce(said, distributed.ReduceOp.MAX)
    return bool(said)


def part_of(n: int, *, parted: bool, process: int | None = None) -> range:
    """The places, of n, that this process takes, or another: as many as the others, or one fewer; process 0 takes all
    unless `parted`."""
    this, number = this_of_all()
    this = this if process is None else process
    if not parted:
        return range(n if this == 0 else 0)
    return range(-(-this * n // number), -(-(this + 1) * n // number))


def own_draws(seed: int, step: int) -> None:
    """Let this process drop out other units than the rest do at this step.

    Process 0 goes on drawing as it would alone; the others begin anew at every step, so that a run that is resumed
    needs no more than the generators of process 0.
    """
    this, _ = this_of_all()
    if this:
        torch.manual_seed(random.Random(f"draws, seed {seed}, step {step}, process {this}").getrandbits(63))


def add_up(model: nn.Module, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make the gradients, and the terms, those of the whole batch: sums over the processes. One whose part was empty
    has neither.

    A weight that has no gradient in any process keeps none: with a zero the optimizer would still decay it.
    """
    number = this_of_all()[1]
    if number == 1:
        return terms
    parameters = list(model.parameters())
    has_gradient = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=_device())
    distributed.all_reduce(has_gradient, distributed.ReduceOp.MAX)
    sums = []
    for p, has in zip(parameters, has_gradient.tolist(), strict=True):
        if has:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            # In place, and the next begins meanwhile: accelerate's reduce copies each, and waits
            sums.append(distributed.all_reduce(p.grad, async_op=True))
    parts: list[Any] = [None] * number
    distributed.all_gather_object(parts, {name: float(term) for name, term in terms.items()})
    for pending in sums:
        pending.wait()
    return {name: torch.tensor(sum(part[name] for part in parts if part)) for name in parts[0]}


def _device() -> torch.device:
    """This process's, as accelerate gave it out."""
    from accelerate import PartialState

    return PartialState().device
