"""The steps of check.sh: python tests/gpu/check.py tests | numbers | cure | long prints a step's figures as JSON, and
table FOLDER what the steps left there."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig
from mbtsad_core.defenses.mbtsad import purify
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.models.classifier import Classifier, collate, eager_attention, encode, logits_of, predict
from mbtsad_core.research.benchmark import (
    EXAMPLE,
    MINILM,
    OURS,
    WORKLOADS,
    Shape,
    Workload,
    clock,
    suspect_of,
    texts_of,
    timed,
)
from mbtsad_core.steps import drain
from mbtsad_core.training.attention_map import FORMS, QueriesKeys, record
from mbtsad_core.training.distillation import distil

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
RUNTIME = RuntimeConfig(device=DEVICE.type)
EXACT = RuntimeConfig(device=DEVICE.type, precision="float32")
TINY = Shape(2, 32, 4, 64)
# At most; seconds on a GPU alone
BARS = {"distance_error": 1e-4, "gradient_error": 1e-3, "logit_error": 1e-3, "answer_error": 1e-2, "cure_s": 45.0}
TARGETS = {"times_faster": 5.0, "times_less_memory": 4.0}  # at least, on a GPU


def sized(workload: Workload) -> Workload:
    """The workload, or on a CPU one of its kind that takes seconds."""
    return workload if GPU else dataclasses.replace(workload, shape=TINY, texts=(8, 8), batch=(4, 4), default=False)


# ---------------------------------------------------------------- steps


def tests() -> dict[str, Any]:
    """The tests that need a GPU: all of them pass, or are skipped where there is none."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, file=sys.stderr)
    if done.returncode:
        raise SystemExit(done.stdout.strip().splitlines()[-1])
    return {"gpu_tests": done.stdout.strip().splitlines()[-1].strip("= ")}


def numbers() -> dict[str, Any]:
    """Each form of the attention loss, and each attention of the model, against the CPU."""
    forms = ["plain", "checkpointed", *(["fused"] if _has_triton() else [])]
    found = {f"distance_error, {form}": 0.0 for form in forms} | {f"gradient_error, {form}": 0.0 for form in forms}
    for case in _cases():
        expected = _distance_in_float64(*case)
        for form in forms:
            for key, error in zip(("distance_error", "gradient_error"), _errors(form, case, expected), strict=True):
                found[f"{key}, {form}"] = max(found[f"{key}, {form}"], error)
    return found | _logit_errors() | _answer_errors(forms)


def _has_triton() -> bool:
    try:
        import mbtsad_core.training.attention_kernels
    except ImportError:
        return False
    return bool(mbtsad_core.training.attention_kernels)


Case = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float]
"""Q and K of a teacher and a student, (B, T, H, D) each, mask (B, T), p."""


def _cases() -> Iterator[Case]:
    torch.manual_seed(0)
    for T, H, D, p in ((512, 12, 64, 2.0), (77, 4, 80, 1.0), (33, 12, 32, 3.5)) if GPU else ((19, 2, 8, 2.0),):
        mask = (torch.arange(T)[None] < torch.tensor([T, T // 2, 1])[:, None]).long()
        yield (*(torch.randn(3, T, H, D) for _ in range(4)), mask, p)


def _distance_in_float64(Q_T: Tensor, K_T: Tensor, Q_S: Tensor, K_S: Tensor, mask: Tensor, p: float) -> list[Tensor]:
    """Eq. (4) of each text, and its gradients, as they are written down."""
    Q, K = (x.double().requires_grad_() for x in (Q_S, K_S))
    units = []
    for queries, keys in ((Q_T.double(), K_T.double()), (Q, K)):
        scores = torch.einsum("bqhd,bkhd->bhqk", queries, keys) / queries.shape[-1] ** 0.5
        maps = scores.masked_fill(mask[:, None, None] == 0, -torch.inf).softmax(-1)
        energy = (maps**p).sum(1) * mask[:, :, None] * mask[:, None]
        units.append(energy / energy.norm(dim=(1, 2), keepdim=True))
    distance = (units[0] - units[1]).norm(dim=(1, 2))
    return [distance.detach(), *torch.autograd.grad(distance[:2].sum(), (Q, K))]  # a map of one token has no gradient


def _errors(form: str, case: Case, expected: list[Tensor]) -> tuple[float, float]:
    """The largest error of a distance, and of a gradient beside its largest entry."""
    Q_T, K_T, Q, K, mask = (x.to(DEVICE) for x in case[:5])
    Q.requires_grad_()
    K.requires_grad_()
    scaling = Q.shape[-1] ** -0.5
    if form == "plain":
        layers: list[Any] = []
        for queries, keys in ((Q_T, K_T), (Q, K)):
            scores = torch.einsum("bqhd,bkhd->bhqk", queries, keys) * scaling
            layers.append(scores.masked_fill(mask[:, None, None] == 0, -1e30).softmax(-1))
    else:
        layers = [QueriesKeys(Q_T, K_T, scaling), QueriesKeys(Q, K, scaling)]
    distance = FORMS[form].distance(*layers, mask, case[5])
    gradients = torch.autograd.grad(distance[:2].sum(), (Q, K))
    off = [(g.cpu() - e).abs().max() / e.abs().max() for g, e in zip(gradients, expected[1:], strict=True)]
    return float((distance.detach().cpu() - expected[0]).abs().max()), float(max(off))


def _demo(runtime: RuntimeConfig = EXACT) -> Classifier:
    return suspect_of(WORKLOADS["demo"], runtime)


@torch.no_grad()
def _logit_errors() -> dict[str, float]:
    """The logits of the demo's suspect under each attention, in float32, against the CPU's in float64."""
    here, texts = _demo(), texts_of(WORKLOADS["demo"], 32)
    there = _demo(RuntimeConfig(device="cpu", precision="float32", threads=1))
    there.model.double()
    expected = there.model(**collate(there, encode(there, texts))).logits
    batch = collate(here, encode(here, texts))
    found = {"own": logits_of(here, batch), "recorded": record(here, batch).logits}
    with eager_attention(here.model):
        found["plain"] = logits_of(here, batch)
    return {
        f"logit_error, {name} attention": float((logits.cpu() - expected).abs().max()) for name, logits in found.items()
    }


def _answer_errors(forms: list[str]) -> dict[str, float]:
    """Probabilities of a student that was distilled here in each form, against one that was on the CPU."""
    texts = texts_of(WORKLOADS["demo"], 64 if GPU else 8)

    def student(form: Any, runtime: RuntimeConfig) -> Tensor:
        config = DistilConfig(epochs=1, batch_size=16 if GPU else 4, attention=form)
        model = drain(distil(_demo(runtime), _demo(runtime), texts, config))
        return predict(model, texts)

    expected = student("plain", RuntimeConfig(device="cpu", precision="float32"))
    return {f"answer_error, {form}": float((student(form, EXACT) - expected).abs().max()) for form in forms}


def cure() -> dict[str, Any]:
    """The whole cure of a BERT-base by 1,384 texts as long as SST-2's, by default, twice; the first compiles."""
    workload = sized(WORKLOADS["sst2-bert"])
    suspect, texts = suspect_of(workload, RUNTIME), texts_of(workload, workload.texts[GPU])
    short: dict[str, Any] = dict(epochs=1, batch_size=4)
    config = PurifyConfig() if GPU else PurifyConfig(retrain=RetrainConfig(**short), distil=DistilConfig(**short))
    few = dataclasses.replace(config, found_tokens=0, unlearn=dataclasses.replace(config.unlearn, epochs=0))
    drain(purify(suspect, texts[:64], few))  # warm
    found = clock(lambda: drain(purify(suspect, texts, config)), suspect.device)
    return {"cure_s": round(found["seconds"], 2), "cure_peak_mb": found["memory"] >> 20, "texts": len(texts)}


def long() -> dict[str, Any]:
    """Both stages on texts of 512 tokens, beside the library's Trainer in the same precision; MiniLM too."""
    found: dict[str, Any] = {}
    minilm = dataclasses.replace(WORKLOADS["imdb-bert"], shape=MINILM)
    for name, workload in {"BERT-base": WORKLOADS["imdb-bert"], "MiniLM": minilm}.items():
        asked = dataclasses.replace(sized(workload), ways=(OURS, EXAMPLE))
        row = timed(name, asked, RUNTIME, 1, lambda line: print(line, file=sys.stderr))
        figures = {
            "ours_s": row["ours_s"],
            "plain_s": row["plain_example_s"],
            "times_faster": row["ratio_example"],
            "times_less_memory": row["peak_memory_ratio"],
            "share_of_peak": row["share_of_peak"],
            "form": row["attention"],
        }
        found |= {f"{key}, 512 tokens, {name}": value for key, value in figures.items()}
    return found


STEPS: dict[str, Callable[[], dict[str, Any]]] = {"tests": tests, "numbers": numbers, "cure": cure, "long": long}


# ---------------------------------------------------------------- the table


def verdict(figure: str, value: Any) -> str:
    """What a figure is held against, and whether it reaches that; "" where it is held against nothing here."""
    key = figure.partition(",")[0]
    if key in TARGETS and GPU:
        return f"{'reached' if value >= TARGETS[key] else 'missed'}: at least {TARGETS[key]:g}"
    if key in BARS and (GPU or "error" in key):
        return f"{'reached' if value <= BARS[key] else 'missed'}: at most {BARS[key]:g}"
    return ""


def table(folder: Path) -> int:
    """Print the figures of the steps that are done. Returns 1 where a number is wrong or a step is missing."""
    device = torch.cuda.get_device_name() if GPU else "CPU, tiny sizes: no time of it says anything of a GPU"
    print(f"| {device} | | |\n|---|---|---|")
    sound = True
    for step in STEPS:
        if not (file := folder / f"{step}.json").exists():
            print(f"| {step} | not done | |")
            sound = False
            continue
        for figure, value in json.loads(file.read_text(encoding="utf-8")).items():
            said = verdict(figure, value)
            print(f"| {figure} | {f'{value:.3g}' if isinstance(value, float) else value} | {said} |")
            sound = sound and not ("error" in figure and said.startswith("missed"))
    return int(not sound)


if __name__ == "__main__":
    if sys.argv[1] == "table":
        sys.exit(table(Path(sys.argv[2])))
    print(json.dumps(STEPS[sys.argv[1]]()))
