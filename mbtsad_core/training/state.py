"""The state of a training stage: all that is needed to go on as if nothing had happened. One safetensors file, written
atomically."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mbtsad_core.errors import BadOutput


@dataclass(frozen=True)
class TrainState:
    """After `step` optimizer steps of `stage`.

    tensors  weights, optimizer moments and generator states, by "weights/NAME", "optimizer/INDEX/KEY", "rng/DEVICE",
             and whatever an algorithm adds ("teacher/NAME")
    numbers  plain values that go with them
    The order of the data is no part of it: it follows from the seed and the step.
    """

    stage: str
    step: int
    tensors: dict[str, Tensor]
    numbers: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix/`, by the rest of their names."""
        return {k.removeprefix(prefix + "/"): v for k, v in self.tensors.items() if k.startswith(prefix + "/")}

    def having(self, prefix: str, model: nn.Module) -> TrainState:
        """This state with the weights of another model that it goes with, under `prefix/`."""
        weights = {f"{prefix}/{k}": v.detach().to("cpu", copy=True).contiguous() for k, v in model.state_dict().items()}
        return dataclasses.replace(self, tensors=self.tensors | weights)


Save = Callable[[TrainState], None]


def capture(stage: str, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
    """A copy, on the CPU, of where the training stands."""
    tensors = {f"weights/{k}": v for k, v in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in moments.items()}
    tensors |= {f"rng/{device}": generator for device, generator in generators(model).items()}
    return TrainState(stage, step, {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()})


def restore(state: TrainState, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put model, optimizer and generators where `capture` found them."""
    model.load_state_dict(state.part("weights"))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.part("optimizer").items():
        index, key = name.split("/")
        moments.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    set_generators(state.part("rng"), model)


def generators(model: nn.Module) -> dict[str, Tensor]:
    """The states of the random generators that the model draws from, by kind of device."""
    device = next(model.parameters()).device
    on_gpu = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **on_gpu}


def set_generators(states: dict[str, Tensor], model: nn.Module) -> None:
    """Put the generators where `generators` found them."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], next(model.parameters()).device)


def write_state(state: TrainState, path: Path) -> None:
    """Write so that at any moment `path` holds either the old state or the new one, whole, even where the power
    fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = json.dumps({"stage": state.stage, "step": state.step, "numbers": state.numbers})
    new = unfinished(path)
    remove_unfinished(path)
    new.mkdir()
    try:
        save_file(state.tensors, new / path.name, metadata={"state": about})
        sync(new / path.name)
        os.replace(new / path.name, path)
    except SafetensorError as error:  # its way to say that the disk is full
        raise OSError(f"{new / path.name}: {error}") from error
    finally:
        remove_unfinished(path)  # what did not come to be whole takes room that is needed
    sync(path.parent)


def unfinished(path: Path) -> Path:
    """Where `write_state` puts a state together: a folder, for safetensors begins with a file whose name nobody else
    knows."""
    return path.with_suffix(".new")


def remove_unfinished(path: Path) -> None:
    """Take away what a kill left of a state that was being written."""
    new = unfinished(path)
    if new.is_dir():
        shutil.rmtree(new)
    else:
        new.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the disk has what is in a file, or which files are in a directory: a rename alone may be forgotten in
    a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_state(path: Path) -> TrainState:
    """Read what `write_state` wrote; raises BadOutput where that is no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            about = json.loads((stored.metadata() or {})["state"])
            tensors = {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118 (no mapping)
        return TrainState(about["stage"], about["step"], tensors, about["numbers"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BadOutput(
            f"{path} holds no checkpoint that can be read: {error}. Start the run again without `resume`."
        ) from error
