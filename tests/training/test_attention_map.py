"""The forms of the attention loss: each against a float64 reference, gradients included; padding; which form is chosen,
and what it costs in memory."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import ROOT, VOCABULARY, finish, tiny_bert, tiny_texts
from torch import Tensor

from mbtsad_core.config import DistilConfig
from mbtsad_core.errors import BadConfig
from mbtsad_core.models.classifier import Batch, Classifier, collate, encode, trace
from mbtsad_core.training import attention_map
from mbtsad_core.training.attention_map import (
    FAMILIES,
    FORMS,
    QueriesKeys,
    checkpointed_distance,
    choose,
    distance_of_maps,
    fused_distance,
    rebuilt_map,
    record,
)
from mbtsad_core.training.distillation import distil, distillation_loss

# Q_T, K_T, Q_S, K_S: (B, T, H, D); mask (B, T); weights (B,): the gradient that comes in; power, scaling
Case = dict[str, Any]
Found = tuple[Tensor, Tensor, Tensor]  # distance (B,), its gradients with respect to Q_S and K_S

HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed: pip install 'mbtsad[gpu]'")


def case(
    lengths: Sequence[int],
    T: int,
    heads: int,
    width: int,
    power: float,
    apart: float = 1.0,
    dtype: torch.dtype = torch.float32,
    left: bool = False,
) -> Case:
    """Texts of these lengths in T columns; the student is the teacher plus `apart` times noise."""
    g = torch.Generator().manual_seed(zlib.crc32(repr((lengths, T, heads, width, power)).encode()))
    Q_T, K_T, Q, K = (1.5 * torch.randn(len(lengths), T, heads, width, generator=g) for _ in range(4))
    mask = torch.tensor([[1] * n + [0] * (T - n) for n in lengths])
    values = dict(Q_T=Q_T, K_T=K_T, Q_S=Q_T + apart * Q, K_S=K_T + apart * K)
    return {name: x.to(dtype) for name, x in values.items()} | dict(
        mask=mask.flip(1) if left else mask,
        weights=torch.rand(len(lengths), generator=g) + 0.5,
        power=power,
        scaling=width**-0.5,
    )


def widened(given: Case, columns: int) -> Case:
    """The same texts with more columns of padding, and noise in them."""
    wide = dict(given)
    for name in ("Q_T", "K_T", "Q_S", "K_S"):
        x = given[name]
        wide[name] = torch.cat(
            [x, 5 * torch.randn(x.shape[0], columns, *x.shape[2:], generator=torch.Generator().manual_seed(0))], 1
        )
    wide["mask"] = torch.nn.functional.pad(given["mask"], (0, columns))
    return wide


# Tiles are of 32 tokens, or of 16 where a head is wider than 64.
CASES = {
    "two tiles, three narrow heads": case([35, 20], 35, 3, 8, 2.0),
    "power 1, exactly one tile": case([32, 7], 32, 2, 32, 1.0),
    "power 3.5": case([12, 3], 12, 2, 16, 3.5),
    "padding on the left": case([5, 18], 18, 2, 16, 2.0, left=True),
    "a width that is no power of two": case([20, 17], 20, 1, 80, 2.0),
    "a text of one token": case([1, 4], 4, 2, 16, 2.0),
    "near": case([25, 20], 25, 2, 16, 2.0, apart=1e-2),
    "nearer": case([25, 20], 25, 2, 16, 2.0, apart=1e-4),
    "equal": case([25, 20], 25, 2, 16, 2.0, apart=0.0),
    "a text without tokens": case([0, 9], 9, 2, 16, 2.0),
    "bfloat16": case([33, 20], 33, 2, 64, 2.0, dtype=torch.bfloat16),
}
WIDE = {name: widened(CASES[name], 30) for name in ("power 1, exactly one tile",)}
NEAR = ("near", "nearer")
ORDINARY = [name for name in CASES if name not in (*NEAR, "equal", "a text without tokens")]


def of(found: Tensor, given: Case, Q: Tensor, K: Tensor) -> Found:
    return (found.detach(), *torch.autograd.grad(found, (Q, K), given["weights"].to(found.dtype)))


def reference(given: Case, dtype: torch.dtype = torch.float64) -> Found:
    """Text by text on the real tokens alone, from the definition, differentiated by PyTorch."""
    Q_T, K_T, Q, K = (given[name].to(dtype) for name in ("Q_T", "K_T", "Q_S", "K_S"))
    Q.requires_grad_(), K.requires_grad_()

    def unit(Q: Tensor, K: Tensor, i: int) -> Tensor:
        real = given["mask"][i].bool()
        energy = sum(
            torch.softmax(Q[i, real, h] @ K[i, real, h].T * given["scaling"], -1) ** given["power"]
            for h in range(Q.shape[2])
        )
        assert isinstance(energy, Tensor)
        return energy / energy.square().sum().sqrt()

    return of(torch.stack([(unit(Q_T, K_T, i) - unit(Q, K, i)).norm() for i in range(len(Q))]), given, Q, K)


def checkpointed(given: Case) -> Found:
    Q, K = (given[name].clone().requires_grad_() for name in ("Q_S", "K_S"))
    teacher, student = QueriesKeys(given["Q_T"], given["K_T"], given["scaling"]), QueriesKeys(Q, K, given["scaling"])
    return of(checkpointed_distance(teacher, student, given["mask"], given["power"]), given, Q, K)


def plain(given: Case) -> Found:
    Q, K = (given[name].clone().requires_grad_() for name in ("Q_S", "K_S"))
    A_T, A_S = (rebuilt_map(q, k, given["mask"], given["scaling"]) for q, k in ((given["Q_T"], given["K_T"]), (Q, K)))
    return of(distance_of_maps(A_T, A_S, given["mask"], given["power"]), given, Q, K)


@pytest.fixture(scope="session")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tensor, ...]]:
    """What the kernels make of all cases, in Triton's interpreter; the wide ones by their names with "wide, " before
    them."""
    if not HAS_TRITON:
        pytest.skip("Triton is not installed: pip install 'mbtsad[gpu]'")
    folder = tmp_path_factory.mktemp("interpreted")
    torch.save(CASES | {f"wide, {name}": given for name, given in WIDE.items()}, folder / "cases")
    command = [
        sys.executable,
        str(Path(__file__).parent / "interpreted.py"),
        str(folder / "cases"),
        str(folder / "results"),
    ]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, check=True)
    found: dict[str, tuple[Tensor, ...]] = torch.load(folder / "results")
    return found


def off(found: Tensor, right: Tensor) -> float:
    """Relative error of a tensor as a whole."""
    return float((found.double() - right.double()).norm() / right.double().norm())


# ---------------------------------------------------------------- against float64


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("form", ["checkpointed", "fused"])
def test_distance_and_gradients_agree_with_float64(form: str, name: str, request: pytest.FixtureRequest) -> None:
    found = checkpointed(CASES[name]) if form == "checkpointed" else request.getfixturevalue("interpreted")[name]
    right = reference(CASES[name])
    assert off(found[0], right[0]) < 1e-6
    # a power multiplies the rounding of the scores; gradients come back in the precision of Q and K, and bfloat16 has
    # steps of 2^-8
    assert max(off(found[1], right[1]), off(found[2], right[2])) < (5e-3 if "bfloat16" in name else 3e-5)


@pytest.mark.parametrize("name", NEAR)
def test_near_equality_the_kernels_are_as_accurate_as_the_plain_form(
    name: str, interpreted: dict[str, tuple[Tensor, ...]]
) -> None:
    right, usual, found = reference(CASES[name]), plain(CASES[name]), interpreted[name]
    assert off(usual[0], right[0]) < 1e-2  # 2 - 2 <u_T, u_S> in float32 has lost all of it at 1e-4
    for i in range(3):
        assert off(found[i], right[i]) < 2 * off(usual[i], right[i]) + 1e-6


@pytest.mark.parametrize("form", ["checkpointed", "fused"])
def test_equal_maps_have_no_distance_and_no_gradient(form: str, request: pytest.FixtureRequest) -> None:
    found = checkpointed(CASES["equal"]) if form == "checkpointed" else request.getfixturevalue("interpreted")["equal"]
    assert found[0].tolist() == [0.0, 0.0]
    assert [float(gradient.abs().max()) for gradient in found[1:]] == [0.0, 0.0]


@pytest.mark.parametrize("form", ["plain", "checkpointed", "fused"])
def test_a_text_without_tokens_has_no_distance_and_disturbs_no_other(form: str, request: pytest.FixtureRequest) -> None:
    name = "a text without tokens"
    given = {key: value[1:] if isinstance(value, Tensor) else value for key, value in CASES[name].items()}
    found = (
        {"plain": plain, "checkpointed": checkpointed}[form](CASES[name])
        if form != "fused"
        else request.getfixturevalue("interpreted")[name]
    )
    right = reference(given)
    assert float(found[0][0]) == 0.0
    assert off(found[0][1:], right[0]) < 1e-6
    for i in (1, 2):
        assert float(found[i][0].abs().max()) == 0.0
        assert off(found[i][1:], right[i]) < 1e-5


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("form", ["checkpointed", "fused"])
def test_padding_with_noise_in_it_changes_nothing(form: str, name: str, request: pytest.FixtureRequest) -> None:
    T = CASES[name]["mask"].shape[1]
    if form == "checkpointed":
        narrow, wide = checkpointed(CASES[name]), checkpointed(WIDE[name])
    else:
        narrow, wide = (request.getfixturevalue("interpreted")[key] for key in (name, f"wide, {name}"))
    assert off(wide[0], narrow[0]) < 1e-6
    for i in (1, 2):
        assert off(wide[i][:, :T], narrow[i]) < 1e-5
        assert float(wide[i][:, T:].abs().max()) == 0.0


@needs_triton
@pytest.mark.parametrize(("width", "precision"), [(64, "bf16"), (32, "fp32")])
def test_the_kernels_compile_for_gpus_and_fit_their_shared_memory(width: int, precision: str) -> None:
    """Down to the machine code, which needs no GPU; in a process of its own, where no interpreter is set."""
    program = f"""
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mbtsad_core.training import attention_kernels as kernels
dtype = dict(bf16=torch.bfloat16, fp32=torch.float32)[{precision!r}]
constants = dict(POWER=2.0, WIDTH={width}, BLOCK=kernels.block_size(torch.empty(1, 1, 1, {width}, dtype=dtype)), PRODUCT=kernels.PRODUCTS[dtype])
types = {{"constexpr": tuple(constants), "i32": ("H", "T", "D"), "fp32": ("scaling",), "*i32": ("real",)}}
types["*{precision}"] = ("Q", "K", "Q_T", "K_T", "Q_S", "K_S", "dQ", "dK")
for name in ("rows_kernel", "sums_kernel", "slope_kernel", "query_kernel", "key_kernel"):
    kernel = getattr(kernels, name)
    signature = {{p.name: next((kind for kind, names in types.items() if p.name in names), "*fp32") for p in kernel.params}}
    print(name, triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 80, 32)).metadata.shared)
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    shared = [int(line.split()[1]) for line in printed.splitlines()]
    assert len(shared) == 5
    assert 0 < min(shared) <= max(shared) <= 48 * 1024  # what every program may have on any GPU


@pytest.mark.gpu
@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", ORDINARY)
def test_the_kernels_agree_with_float64_on_a_gpu(name: str) -> None:
    given = {key: value.cuda() if isinstance(value, Tensor) else value for key, value in CASES[name].items()}
    Q, K = given["Q_S"].requires_grad_(), given["K_S"].requires_grad_()
    scaling = given["scaling"]
    found = of(
        fused_distance(
            QueriesKeys(given["Q_T"], given["K_T"], scaling), QueriesKeys(Q, K, scaling), given["mask"], given["power"]
        ),
        given,
        Q,
        K,
    )
    right = reference(CASES[name])
    assert off(found[0].cpu(), right[0]) < 1e-4
    assert max(off(found[i].cpu(), right[i]) for i in (1, 2)) < (1e-2 if "bfloat16" in name else 1e-4)


# ---------------------------------------------------------------- models

SHAPE = dict(
    vocab_size=len(VOCABULARY),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=64,
)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "roberta": ("Roberta", dict(pad_token_id=0)),
    "xlm-roberta": ("XLMRoberta", dict(pad_token_id=0)),
    "camembert": ("Camembert", dict(pad_token_id=0)),
    "distilbert": ("DistilBert", dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64)),
    "electra": ("Electra", dict(embedding_size=16)),
    "albert": ("Albert", dict(embedding_size=16)),
    "mpnet": ("MPNet", dict(pad_token_id=0)),
    "deberta": ("Deberta", dict(relative_attention=True, pos_att_type=["c2p", "p2c"])),
    "deberta-v2": ("DebertaV2", dict(relative_attention=True, position_buckets=8, pos_att_type="p2c|c2p")),
}


def classifier_of(kind: str, seed: int = 0) -> Classifier:
    """An untrained model of an architecture, its attention far from even."""
    base, (name, sizes) = tiny_bert(), MODELS[kind]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**SHAPE | sizes, initializer_range=0.4)
    return dataclasses.replace(base, model=getattr(transformers, f"{name}ForSequenceClassification")(config).eval())


def batch_of(classifier: Classifier) -> Batch:
    return collate(
        classifier,
        [
            {"input_ids": e["input_ids"]}
            for e in encode(classifier, ["the lovely film", "a dreadful and boring story with a clumsy plot ."])
        ],
    )


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_maps_of_an_architecture_are_rebuilt_from_its_queries_and_keys(kind: str) -> None:
    classifier = classifier_of(kind)
    batch = batch_of(classifier)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        seen, found = trace(classifier, batch), record(classifier, batch)
    assert torch.allclose(found.logits, seen.logits, atol=1e-5)
    for A, layer in zip(seen.attention, found.attention, strict=True):
        rows = rebuilt_map(layer.Q, layer.K, found.mask, layer.scaling).transpose(1, 2)[real]
        assert float(rows.std()) > 0.02
        assert torch.allclose(rows, A.transpose(1, 2)[real], atol=1e-5)
    for H, other in zip(seen.hidden, found.hidden, strict=True):
        assert torch.allclose(other[real], H[real], atol=1e-4)


def gradients(
    student: Classifier, teacher: Classifier, form: str, batch: Batch
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The terms of the loss in a form, and the gradient of each weight."""
    look, distance = FORMS[form].look, FORMS[form].distance
    student.model.zero_grad()
    with torch.no_grad():
        target = look(teacher, batch)
    terms = distillation_loss(target, look(student, batch), torch.tensor([0, 1]), DistilConfig(), distance)
    terms["loss"].backward()
    found = {name: p.grad.clone() for name, p in student.model.named_parameters() if p.grad is not None}
    return {name: float(term.detach()) for name, term in terms.items()}, found


@pytest.mark.parametrize("kind", FAMILIES)
def test_terms_and_gradients_of_a_model_are_those_of_the_plain_form(kind: str) -> None:
    teacher, student = classifier_of(kind, 1), classifier_of(kind, 2)
    batch = batch_of(student)
    (terms, slopes), (other_terms, other_slopes) = (
        gradients(student, teacher, form, batch) for form in ("plain", "checkpointed")
    )
    assert terms["attention"] > 0.1
    assert other_terms == pytest.approx(terms, rel=1e-5)
    assert other_slopes.keys() == slopes.keys()
    scale = max(float(slope.norm()) for slope in slopes.values())
    for name, slope in slopes.items():
        assert float((other_slopes[name] - slope).norm()) < 1e-4 * scale, name


def weights_of(classifier: Classifier) -> Tensor:
    return torch.cat([p.detach().flatten() for p in classifier.model.parameters()])


@pytest.mark.parametrize("form", ["checkpointed", "fused"])
def test_distillation_gives_the_student_of_the_plain_form(form: str, request: pytest.FixtureRequest) -> None:
    def student(form: Any) -> Tensor:
        config = DistilConfig(learning_rate=1e-3, epochs=1, batch_size=2, attention=form)
        return weights_of(finish(distil(tiny_bert(seed=2), tiny_bert(seed=1), tiny_texts(4), config))[0])

    right, start = student("plain"), weights_of(tiny_bert(seed=2))
    found = student(form) if form == "checkpointed" else request.getfixturevalue("interpreted")["student"][0]
    assert off(found - start, right - start) < 0.01


def test_the_checkpointed_form_keeps_no_map_for_the_backward_pass() -> None:
    student, teacher = tiny_bert(seed=2), tiny_bert(seed=1)
    batch = batch_of(student)
    (B, T), H = batch["input_ids"].shape, 4
    kept: dict[str, list[int]] = {}
    for form in ("plain", "checkpointed"):
        sizes: list[int] = []

        def note(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.numel() if x.shape[-2:] == (T, T) else 0)
            return x

        with torch.no_grad():
            target = FORMS[form].look(teacher, batch)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            distillation_loss(
                target, FORMS[form].look(student, batch), torch.tensor([0, 1]), DistilConfig(), FORMS[form].distance
            )
        kept[form] = sizes
    assert max(kept["plain"]) == B * H * T * T
    assert max(kept["checkpointed"]) <= B * T * T  # the mask


def test_the_models_own_attention_is_set_back_also_after_a_failure(tiny: Classifier) -> None:
    before = tiny.model.config._attn_implementation
    record(tiny, batch_of(tiny))
    assert tiny.model.config._attn_implementation == before
    with pytest.raises(IndexError):
        record(tiny, {"input_ids": torch.tensor([[10**6]]), "attention_mask": torch.ones(1, 1)})
    assert tiny.model.config._attn_implementation == before


# ---------------------------------------------------------------- which form is used


def test_on_a_cpu_the_plain_form_is_chosen_while_the_maps_are_small(tiny: Classifier) -> None:
    assert choose(tiny, DistilConfig()).name == "plain"
    # 2 models x 4 bytes x 2 layers x 32 texts x 4 heads x 4096 x 4096
    long = dataclasses.replace(tiny, max_length=4096)
    chosen = choose(long, DistilConfig())
    assert (chosen.name, chosen.why) == ("checkpointed", "the maps of a batch can take 32.0 GB")


@pytest.mark.parametrize("kind", ["mpnet", "deberta", "deberta-v2"])
def test_an_architecture_with_other_maps_gets_the_plain_form_and_is_told_why(kind: str) -> None:
    classifier = classifier_of(kind)
    chosen = choose(dataclasses.replace(classifier, max_length=4096), DistilConfig())
    assert chosen.name == "plain"
    assert repr(kind) in chosen.why
    with pytest.raises(BadConfig, match=rf"'checkpointed'.*{kind}.*Use auto, or plain"):
        choose(classifier, DistilConfig(attention="checkpointed"))


@pytest.mark.parametrize("dropout", [0.2, None])  # None: the model's own, 0.1
def test_maps_under_dropout_are_compared_in_the_plain_form(tiny: Classifier, dropout: float | None) -> None:
    chosen = choose(dataclasses.replace(tiny, max_length=4096), DistilConfig(dropout=dropout))
    assert (chosen.name, chosen.why) == ("plain", f"a dropout of {dropout or 0.1:g} falls on the maps")
    with pytest.raises(BadConfig, match="dropout"):
        choose(tiny, DistilConfig(dropout=dropout, attention="checkpointed"))


@pytest.mark.parametrize("form", ["plain", "checkpointed"])
def test_a_form_can_be_asked_for(tiny: Classifier, form: Any) -> None:
    assert choose(tiny, DistilConfig(attention=form)).name == form


def test_the_kernels_are_refused_where_they_cannot_run(tiny: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(
        BadConfig, match=r"'fused' of the attention loss cannot be used: .*(GPU|not installed).*Use auto"
    ):
        choose(tiny, DistilConfig(attention="fused"))


def test_kernels_that_are_off_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        attention_map, "fused_distance", lambda T, S, mask, p: 1.1 * checkpointed_distance(T, S, mask, p)
    )
    attention_map._kernels_fail.cache_clear()
    assert (
        attention_map._kernels_fail(torch.device("cpu"), torch.float32, 16)
        == "the kernels are off by 10.0% on this device"
    )
    attention_map._kernels_fail.cache_clear()
