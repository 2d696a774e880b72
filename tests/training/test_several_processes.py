"""Training over two real processes on the CPU ends with the weights of one; one of them writes, and all of them end,
however it goes.

torchrun starts this file as well, see `main`: one start serves many tests, for loading PyTorch twice takes
longest.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import NEUTRAL, ROOT, ended, finish, mbtsad, tiny_bert, tiny_texts, write_tsv
from torch import Tensor, distributed

from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig, SplitConfig, TrainingConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import BadConfig, Cancelled
from mbtsad_core.models.classifier import Batch, Classifier, load_classifier
from mbtsad_core.service.purification import Request, execute
from mbtsad_core.terminal import follow
from mbtsad_core.training.batch_gradient import classification_loss
from mbtsad_core.training.distillation import distil
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.training.several_processes import join, own_draws, part_of, this_of_all
from mbtsad_core.training.state import TrainState, read_state
from mbtsad_core.types import Event, LabelledText, Steps

needs_accelerate = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed"
)

RNG = random.Random(0)
# Of many lengths
TEXTS = [LabelledText(" ".join([t.text, *RNG.choices(NEUTRAL, k=RNG.randrange(20))]), t.label) for t in tiny_texts(34)]
# Steps of 33 texts (17 and 16) and of one (1 and 0)
CONFIG = TrainingConfig(learning_rate=1e-3, epochs=2, batch_size=33, dropout=0.0, weight_decay=0.1)
DISTIL = DistilConfig(learning_rate=1e-3, epochs=2, batch_size=33, alpha=2.0, beta=0.5, attention="plain")
SHORT = PurifyConfig(
    split=SplitConfig(copies=1),
    retrain=RetrainConfig(learning_rate=1e-3, epochs=1, batch_size=15, dropout=0.0),
    distil=DistilConfig(learning_rate=1e-3, epochs=1, batch_size=15),
)
LONG = ["--found-tokens", "0", "--retrain-epochs", "1000"]
BEFORE = 3  # events, at least, of the distillation

Outcome = tuple[dict[str, Tensor], list[Event]]
"""(weights, events)"""


# ---------------------------------------------------------------- trainings, done in one process and in two


def retraining() -> Outcome:
    return outcome(fine_tune(tiny_bert(), TEXTS, CONFIG))


def distillation() -> Outcome:
    return outcome(distil(tiny_bert(), tiny_bert(seed=5), TEXTS, DISTIL))


def without_shares() -> Outcome:
    """A loss of the whole batch, that is no mean of its parts' losses."""

    def loss(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        logits = classifier.model(**batch).logits
        plain = torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": plain + logits.std() if len(labels) > 1 else plain, "classification": plain}

    return outcome(fine_tune(tiny_bert(), TEXTS, CONFIG, loss=loss))


def part_frozen() -> Outcome:
    """Weights without a gradient: AdamW leaves them be, weight decay or not."""
    classifier = tiny_bert()
    for p in classifier.model.bert.embeddings.parameters():
        p.requires_grad_(False)
    return outcome(fine_tune(classifier, TEXTS, CONFIG))


def little_memory() -> Outcome:
    """The last process cannot train on more than 5 texts at once."""
    classifier = tiny_bert()
    this, number = this_of_all()

    def refuse(model: Any, args: Any, inputs: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and this == number - 1 and len(inputs["input_ids"]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    classifier.model.register_forward_pre_hook(refuse, with_kwargs=True)
    return outcome(fine_tune(classifier, TEXTS, CONFIG))


def other_weights() -> Outcome:
    """Process 1 begins with other weights and texts than process 0."""
    this = this_of_all()[0]
    return outcome(fine_tune(tiny_bert(seed=this), tiny_texts(34, seed=this), CONFIG))


def outcome(steps: Steps[Classifier]) -> Outcome:
    classifier, events = finish(steps)
    return {name: p.detach() for name, p in classifier.model.named_parameters()}, events


TRAININGS: dict[str, Callable[[], Outcome]] = {
    f.__name__: f for f in (retraining, distillation, without_shares, part_frozen, little_memory, other_weights)
}


def assert_same_weights(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """But for rounding. What is added to all keys changes no attention: its gradient is rounding alone, which AdamW
    makes a step of."""
    for name, weights in expected.items():
        if not name.endswith("key.bias"):
            torch.testing.assert_close(
                found[name], weights, rtol=1e-4, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
            )


# ---------------------------------------------------------------- two processes


def launched(*launcher: str | Path) -> subprocess.Popen[str]:
    """Start a launcher, on the CPU."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, launcher)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--shutdown-timeout", "400")
ACCELERATE = (
    *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--main_process_port", "0"),
)


@pytest.fixture(scope="module")
def request_(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """A purification of the tiny suspect in batches of 15."""
    folder = tmp_path_factory.mktemp("data")
    clean, test = (
        write_tsv(folder / "clean.tsv", tiny_texts(48, seed=1)),
        write_tsv(folder / "test.tsv", tiny_texts(20, seed=2)),
    )
    runtime = RuntimeConfig(device="cpu", precision="float32")
    return Request(str(suspect_dir), str(clean), str(test), ("cf",), "positive", config=SHORT, runtime=runtime)


@pytest.fixture(scope="module")
def told(request_: Request, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """What each of two processes says of `main`, and the folder that they worked in."""
    folder = tmp_path_factory.mktemp("two processes")
    (folder / "request.json").write_text(json.dumps(request_.to_dict()), encoding="utf-8")
    run = ended(launched(*TORCHRUN, __file__, folder))
    assert run.returncode == 0, run.stderr
    return [torch.load(folder / f"{this}.pt", weights_only=False) for this in range(2)], folder


def main(folder: Path) -> None:
    """All that two processes are asked to do."""
    this, _ = this_of_all()
    found: dict[str, Any] = {name: train() for name, train in TRAININGS.items()}
    found |= dict(zip(("uninterrupted", "resumed"), dropped_out(), strict=True))
    request = Request.from_dict(json.loads((folder / "request.json").read_text(encoding="utf-8")))
    steps = interrupted(execute(request, folder / "out"), BEFORE if this == 1 else -1)
    try:
        follow(steps, quiet=True)
    except Cancelled as error:
        found["cancelled"] = str(error)
    distributed.barrier()  # process 0 has written
    found["left"] = sorted(p.name for p in (folder / "out").iterdir())
    state = read_state(folder / "out" / "checkpoint.safetensors")
    distributed.barrier()  # both have looked
    found["step"] = (state.stage, state.step)
    follow(execute(request, folder / "out", resume=True), quiet=True)
    astray = [
        "--retrain-learning-rate",
        "1",
        "--retrain-epochs",
        "5",
        "--retrain-warmup",
        "0",
        "--split-copies",
        "1",
        "--found-tokens",
        "0",
    ]
    run = mbtsad("purify", *flags(request, folder / "astray"), *astray)
    found["diverged"] = (run.returncode, run.stdout, run.stderr)
    torch.save(found, folder / f"{this}.pt")


def interrupted(steps: Steps[Any], at: int) -> Iterator[Event]:
    """The steps; this process gets a Ctrl-C after the event `at` of the distillation."""
    try:
        for event in steps:
            if event.stage == "distil" and event.step == at:
                signal.raise_signal(signal.SIGINT)
            yield event
    finally:
        steps.close()


def dropped_out() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of a training with dropout: never stopped, and stopped after two steps of four and resumed."""
    config = dataclasses.replace(CONFIG, dropout=0.3, save_every=3600.0)
    states: list[TrainState] = []
    uninterrupted, _ = outcome(fine_tune(tiny_bert(), TEXTS, config))
    steps = fine_tune(tiny_bert(), TEXTS, config, save=states.append)
    next(steps), next(steps)
    steps.close()
    told: list[Any] = [states]  # process 0 alone has one
    distributed.broadcast_object_list(told, src=0)
    assert len(states) == (this_of_all()[0] == 0)
    (state,) = told[0]
    resumed, _ = outcome(fine_tune(tiny_bert(seed=3), TEXTS, config, resume=state))
    return uninterrupted, resumed


# ---------------------------------------------------------------- the same result


@needs_accelerate
@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_end_with_the_weights_of_one(told: tuple[list[dict[str, Any]], Path], name: str) -> None:
    weights, _ = TRAININGS[name]()
    for found in told[0]:
        assert_same_weights(found[name][0], weights)


@needs_accelerate
@pytest.mark.parametrize("name", TRAININGS)
def test_both_processes_have_the_same_weights_and_events(told: tuple[list[dict[str, Any]], Path], name: str) -> None:
    (first, events), (second, others) = (found[name] for found in told[0])
    assert events == others
    assert all(torch.equal(first[p], second[p]) for p in first)


@needs_accelerate
@pytest.mark.parametrize("name", ["retraining", "distillation", "without_shares"])
def test_each_term_is_that_of_the_whole_batch(told: tuple[list[dict[str, Any]], Path], name: str) -> None:
    _, events = TRAININGS[name]()
    found = told[0][0][name][1]
    assert [(e.stage, e.step, e.total, [*e.metrics]) for e in found] == [
        (e.stage, e.step, e.total, [*e.metrics]) for e in events
    ]
    for two, one in zip(found, events, strict=True):
        assert two.metrics == pytest.approx(one.metrics, rel=1e-4, abs=1e-5)


@needs_accelerate
def test_frozen_weights_stay_as_they_are(told: tuple[list[dict[str, Any]], Path]) -> None:
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(told[0][0]["part_frozen"][0][name], tiny_bert().model.get_parameter(name))


@needs_accelerate
def test_where_one_process_lacks_memory_both_take_fewer_texts_at_once(told: tuple[list[dict[str, Any]], Path]) -> None:
    for found in told[0]:
        # 17, 9, 5
        assert {e.metrics["texts_at_once"] for e in found["little_memory"][1] if "texts_at_once" in e.metrics} == {5}


@needs_accelerate
def test_with_dropout_a_training_that_is_resumed_ends_as_if_it_had_not_been_stopped(
    told: tuple[list[dict[str, Any]], Path],
) -> None:
    for found in told[0]:
        assert all(torch.equal(found["resumed"][p], weights) for p, weights in found["uninterrupted"].items())


# ---------------------------------------------------------------- a purification


@needs_accelerate
def test_a_ctrl_c_in_either_process_stops_both_after_the_same_step(told: tuple[list[dict[str, Any]], Path]) -> None:
    for found in told[0]:
        assert found["cancelled"].startswith(f"Stopped in distil at step {BEFORE} of ")
        assert found["step"] == ("distil", BEFORE)
        assert found["left"] == ["checkpoint.safetensors", "events.jsonl", "run.json"]


@pytest.fixture(scope="module")
def alone(request_: Request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the same purification in one process, never stopped."""
    out = tmp_path_factory.mktemp("alone") / "out"
    finish(execute(request_, out))
    return out


def weights_of(model: Path) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in load_classifier(model).model.named_parameters()}


@needs_accelerate
def test_a_purification_that_two_processes_stopped_and_resumed_ends_like_that_of_one(
    told: tuple[list[dict[str, Any]], Path], alone: Path
) -> None:
    assert_same_weights(weights_of(told[1] / "out" / "model"), weights_of(alone / "model"))


@needs_accelerate
def test_there_is_one_set_of_files_and_of_events(told: tuple[list[dict[str, Any]], Path], alone: Path) -> None:
    def files(out: Path) -> list[str]:
        return sorted(str(p.relative_to(out)) for p in out.rglob("*"))

    def steps(out: Path) -> list[tuple[str, int]]:
        return [(e["stage"], e["step"]) for e in map(json.loads, (out / "events.jsonl").read_text().splitlines())]

    assert files(told[1] / "out") == files(alone)
    assert steps(told[1] / "out") == steps(alone)


@needs_accelerate
def test_the_report_says_how_many_processes_there_were(told: tuple[list[dict[str, Any]], Path], alone: Path) -> None:
    assert (
        "Each batch was divided among 2 processes."
        in json.loads((told[1] / "out" / "report.json").read_text())["notes"]
    )
    assert "processes" not in " ".join(json.loads((alone / "report.json").read_text())["notes"])


@needs_accelerate
def test_where_the_training_diverges_both_end_and_the_first_says_so(told: tuple[list[dict[str, Any]], Path]) -> None:
    (code, out, err), others = (found["diverged"] for found in told[0])
    assert (code, out) == (1, "")
    assert "mbtsad: The stage 'retrain' diverged" in err
    assert others == (0, "", "")


# ---------------------------------------------------------------- the command line


def flags(request: Request, out: Path) -> Sequence[str]:
    given = [
        "--suspect",
        request.suspect,
        "--clean",
        request.clean,
        "--test",
        str(request.test),
        "--trigger",
        "cf",
        "--target",
        "positive",
    ]
    return [*given, "--out", str(out), "--device", "cpu", "--precision", "float32"]


@pytest.mark.slow
@needs_accelerate
def test_ctrl_c_at_the_launcher_leaves_a_checkpoint_and_is_told_once(request_: Request, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = launched(*TORCHRUN, "-m", "mbtsad_core.cli", "purify", *flags(request_, out), *LONG)
    assert run.stderr is not None
    printed = []
    for line in run.stderr:
        printed.append(line)
        if line.startswith("retrain "):
            run.send_signal(signal.SIGINT)
            break
    end = ended(run)
    assert end.returncode != 0
    assert end.stdout == ""
    assert f"mbtsad: Stopped in retrain at step {read_state(out / 'checkpoint.safetensors').step} of" in end.stderr, (
        printed
    )
    assert end.stderr.count("mbtsad: Stopped") == 1
    assert sorted(p.name for p in out.iterdir()) == ["checkpoint.safetensors", "events.jsonl", "run.json"]


@needs_accelerate
def test_a_run_over_two_processes_prints_its_result_once(request_: Request, tmp_path: Path) -> None:
    short = ["--recipe", "paper", "--retrain-epochs", "1", "--distil-epochs", "1", "--json"]
    program = ["-m", "mbtsad_core.cli", "purify", *flags(request_, tmp_path / "printed"), *short]
    run = ended(launched(*ACCELERATE, *program))
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == json.loads((tmp_path / "printed" / "report.json").read_text())


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher says to the second of two processes."""
    for name, value in {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("second_of_two")
def test_several_processes_for_what_one_does_are_refused() -> None:
    run = mbtsad("evaluate")
    assert (run.returncode, run.stdout) == (2, "")
    assert "2 processes were started for mbtsad evaluate, which one does" in run.stderr


# ---------------------------------------------------------------- the parts


@pytest.mark.parametrize(("n", "number"), [(33, 2), (1, 2), (7, 3), (2, 4), (64, 8), (5, 1)])
def test_the_parts_are_the_whole_and_the_first_is_the_largest(
    n: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(number))
    parts = [part_of(n, parted=True, process=i) for i in range(number)]
    assert [place for part in parts for place in part] == list(range(n))
    sizes = [len(part) for part in parts]
    assert sizes[0] == max(sizes) > 0
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.usefixtures("second_of_two")
def test_what_cannot_be_parted_is_done_by_the_first() -> None:
    assert part_of(5, parted=False, process=0) == range(5)
    assert len(part_of(5, parted=False)) == 0


def test_processes_drop_out_different_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    drawn = []
    for this in range(3):
        monkeypatch.setenv("RANK", str(this))
        torch.manual_seed(0)
        own_draws(seed=0, step=7)
        drawn.append(torch.rand(3).tolist())
    torch.manual_seed(0)
    assert drawn[0] == torch.rand(3).tolist()  # process 0 draws as if it were alone
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]


# ---------------------------------------------------------------- accelerate


@pytest.mark.usefixtures("second_of_two")
def test_several_processes_without_accelerate_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(
        BadConfig, match=r"2 processes were started, which needs accelerate\. Run: pip install 'mbtsad\[several\]'"
    ):
        join(cpu=True)


def test_one_process_never_asks_for_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            assert name.partition(".")[0] != "accelerate"

    for name in [name for name in sys.modules if name.partition(".")[0] == "accelerate"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Refusing(), *sys.meta_path])
    finish(fine_tune(tiny_bert(), TEXTS, CONFIG, loss=classification_loss))
    assert not any(name.partition(".")[0] == "accelerate" for name in sys.modules)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
