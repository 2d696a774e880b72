"""The attention-transfer loss of a layer, eqs. (3) and (4), in three forms that agree.

    plain         on the maps that the model returns: B x H x T x T for every layer and both models at once. What the
                  others are checked against
    checkpointed  on maps that are rebuilt from Q and K, those of one layer at a time, forward and backward; the model
                  itself runs without them
    fused         in Triton, from Q and K, with no map of a head in memory at all (attention_kernels.py)

Symbols: B texts, H heads, T tokens, D dimensions of a head; A maps, AE their energies, Q and K queries and keys;
indices T teacher, S student.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mbtsad_core.config import DistilConfig
from mbtsad_core.errors import BadConfig
from mbtsad_core.models.classifier import Batch, Classifier, encode, trace
from mbtsad_core.types import LabelledText, Trace

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "albert")
"""Architectures whose maps are softmax(scaling Q K^T) over the real tokens. Others add to the scores (DeBERTa, MPNet)
or window them."""


@dataclass(frozen=True, slots=True)
class QueriesKeys:
    """What a layer's maps are made of: A = softmax(scaling Q K^T) over the real tokens."""

    Q: Tensor  # (B, T, H, D)
    K: Tensor  # (B, T, H, D)
    scaling: float


@dataclass(frozen=True, slots=True)
class Record:
    """A Trace with queries and keys in place of the maps."""

    logits: Tensor  # (B, C)
    hidden: tuple[Tensor, ...]  # L+1 x (B, T, D), the embedding output first
    attention: tuple[QueriesKeys, ...]  # one a layer
    mask: Tensor  # (B, T)


Distance = Callable[[Any, Any, Tensor, float], Tensor]
"""(teacher's layer, student's layer, mask (B, T), p) -> eq. (4) of each text, (B,), in [0, sqrt 2]."""


@dataclass(frozen=True)
class Form:
    """How a batch is looked at, and how a layer's loss comes out of that."""

    look: Callable[[Classifier, Batch], Trace | Record]
    distance: Distance


@dataclass(frozen=True)
class Choice:
    """The form that is used, by its name in FORMS, and why it is."""

    name: str
    why: str

    @property
    def form(self) -> Form:
        return FORMS[self.name]


# ---------------------------------------------------------------- plain


def attention_energy(A: Tensor, mask: Tensor, p: float) -> Tensor:
    """Eq. (3): AE(A)_qk = sum over heads of |A_jqk|^p, (B, H, T, T) -> (B, T, T); rows and columns of padding are zero.

    The maps come out of a softmax, so |A| is A.
    """
    real = mask.float()
    return A.float().pow(p).sum(dim=1) * real[:, :, None] * real[:, None, :]


def attention_transfer(AE_T: Tensor, AE_S: Tensor) -> Tensor:
    """Eq. (4): the L2 distance of the two maps, each scaled to unit Frobenius norm; (B, T, T) x 2 -> (B,), in [0, sqrt
    2]. Texts without tokens: 0."""
    unit_T, unit_S = (
        AE.flatten(1) / AE.flatten(1).norm(dim=1, keepdim=True).clamp(min=torch.finfo(AE.dtype).tiny)
        for AE in (AE_T, AE_S)
    )
    return torch.linalg.vector_norm(unit_T - unit_S, dim=1)


def distance_of_maps(A_T: Tensor, A_S: Tensor, mask: Tensor, p: float) -> Tensor:
    """The form "plain", of maps (B, H, T, T)."""
    return attention_transfer(attention_energy(A_T, mask, p), attention_energy(A_S, mask, p))


# ---------------------------------------------------------------- checkpointed, fused


def rebuilt_map(Q: Tensor, K: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """A in float32, (B, H, T, T), from (B, T, H, D) x 2."""
    scores = torch.einsum("bqhd,bkhd->bhqk", Q.float(), K.float()) * scaling
    return scores.masked_fill(mask[:, None, None, :] == 0, torch.finfo(scores.dtype).min).softmax(-1)


def checkpointed_distance(teacher: QueriesKeys, student: QueriesKeys, mask: Tensor, p: float) -> Tensor:
    """The form "checkpointed": nothing of a layer's maps is kept for the backward pass, which builds them again."""

    def of_layer(Q_T: Tensor, K_T: Tensor, Q_S: Tensor, K_S: Tensor) -> Tensor:
        with torch.autocast(mask.device.type, enabled=False):
            return distance_of_maps(
                rebuilt_map(Q_T, K_T, mask, teacher.scaling), rebuilt_map(Q_S, K_S, mask, student.scaling), mask, p
            )

    return checkpoint(
        of_layer, teacher.Q, teacher.K, student.Q, student.K, use_reentrant=False, preserve_rng_state=False
    )  # type: ignore[no-any-return]


def fused_distance(teacher: QueriesKeys, student: QueriesKeys, mask: Tensor, p: float) -> Tensor:
    """The form "fused"; the teacher gets no gradient."""
    from mbtsad_core.training.attention_kernels import distance

    return distance(teacher.Q, teacher.K, student.Q, student.K, mask, p, student.scaling)


FORMS: dict[str, Form] = {
    "plain": Form(trace, distance_of_maps),
    "checkpointed": Form(lambda classifier, batch: record(classifier, batch), checkpointed_distance),
    "fused": Form(lambda classifier, batch: record(classifier, batch), fused_distance),
}


# ---------------------------------------------------------------- queries and keys of a model

RECORDING = "mbtsad_recording"
_heard: ContextVar[list[QueriesKeys]] = ContextVar("queries and keys of the forward pass under way")


def record(classifier: Classifier, batch: Batch) -> Record:
    """Logits, hidden states, queries and keys of a padded batch, with gradients where they are on. The model runs
    PyTorch's own attention for this call, and is set back after it. For architectures of FAMILIES."""
    heard: list[QueriesKeys] = []
    token = _heard.set(heard)
    try:
        with recording(classifier.model):
            out = classifier.model(**batch, output_hidden_states=True)
    finally:
        _heard.reset(token)
    assert len(heard) == classifier.model.config.num_hidden_layers, "every layer calls the attention that is set"
    return Record(out.logits, tuple(out.hidden_states), tuple(heard), batch["attention_mask"])


@contextlib.contextmanager
def recording(model: PreTrainedModel) -> Iterator[None]:
    register()
    before = model.config._attn_implementation
    model.set_attn_implementation(RECORDING)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@functools.cache
def register() -> None:
    """Make the recording attention known to transformers; the mask is made as for its "sdpa"."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attend(module: Any, query: Tensor, key: Tensor, *args: Any, scaling: float | None = None, **kwargs: Any) -> Any:
        _heard.get().append(
            QueriesKeys(
                query.transpose(1, 2), key.transpose(1, 2), query.shape[-1] ** -0.5 if scaling is None else scaling
            )
        )
        return sdpa_attention_forward(module, query, key, *args, scaling=scaling, **kwargs)

    AttentionInterface.register(RECORDING, attend)
    AttentionMaskInterface.register(RECORDING, sdpa_mask)


# ---------------------------------------------------------------- which form

MOST_MAPS = 2 * 2**30  # bytes of maps from which on a CPU's memory is spared at the cost of some time


def choose(classifier: Classifier, config: DistilConfig, texts: Sequence[LabelledText] = ()) -> Choice:
    """The form that `config.attention` names, or the one that suits this model, device and `texts`, which may be
    shorter than the model reads. Raises BadConfig where the named one cannot be used."""
    obstacle = no_record(classifier, config)
    if config.attention == "plain":
        return Choice("plain", "asked for")
    if config.attention != "auto":
        obstacle = obstacle or (no_kernels(classifier) if config.attention == "fused" else "")
        if obstacle:
            raise BadConfig(
                f"The form {config.attention!r} of the attention loss cannot be used: {obstacle}. Use auto, or plain, "
                "which always can."
            )
        return Choice(config.attention, "asked for")
    if obstacle:
        return Choice("plain", obstacle)
    if classifier.device.type == "cpu":  # measured: docs/speed.md
        size = bytes_of_maps(classifier, config.batch_size, classifier.max_length)
        if size > MOST_MAPS and texts:
            size = bytes_of_maps(
                classifier, config.batch_size, max(len(e["input_ids"]) for e in encode(classifier, texts))
            )
        if size > MOST_MAPS:
            return Choice("checkpointed", f"the maps of a batch can take {size / 2**30:.1f} GB")
        return Choice("plain", "the fastest on a CPU")
    if obstacle := no_kernels(classifier):
        return Choice("checkpointed", obstacle)
    return Choice("fused", "no maps in the memory of the GPU")


def bytes_of_maps(classifier: Classifier, batch_size: int, length: int) -> int:
    """What the maps of both models take on a batch of texts of so many tokens, in float32."""
    shape = classifier.model.config
    return 2 * 4 * shape.num_hidden_layers * batch_size * shape.num_attention_heads * length**2


def no_record(classifier: Classifier, config: DistilConfig) -> str:
    """Why the maps of a model cannot be rebuilt from its queries and keys; empty where they can."""
    if (kind := classifier.model.config.model_type) not in FAMILIES:
        return f"the maps of {kind!r} are more than a softmax of queries times keys"
    dropout = config.dropout
    if dropout is None:
        dropout = max(
            (module.p for module in classifier.model.modules() if isinstance(module, torch.nn.Dropout)), default=0.0
        )
    return f"a dropout of {dropout:g} falls on the maps" if dropout > 0 else ""


def no_kernels(classifier: Classifier) -> str:
    """Why the kernels cannot be used for a model; empty where they can. Tried once a device, precision and width."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install 'mbtsad[gpu]')"
    if classifier.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"there are kernels for NVIDIA and AMD GPUs alone, and the model is on {classifier.device.type!r}"
    shape = classifier.model.config
    dtype = torch.float32 if classifier.precision == "float32" else torch.bfloat16
    return _kernels_fail(classifier.device, dtype, shape.hidden_size // shape.num_attention_heads)


@functools.cache
def _kernels_fail(device: torch.device, dtype: torch.dtype, width: int) -> str:
    """What is wrong with the kernels on a device: they may not compile there, and are checked against the checkpointed
    form."""
    generator = torch.Generator().manual_seed(0)
    Q_T, K_T, Q_S, K_S = (torch.randn(1, 35, 2, width, generator=generator).to(device, dtype) for _ in range(4))
    mask = (torch.arange(35) < 30)[None].to(device)
    found = []
    for distance in (fused_distance, checkpointed_distance):
        Q, K = Q_S.clone().requires_grad_(), K_S.clone().requires_grad_()
        try:
            value = distance(QueriesKeys(Q_T, K_T, width**-0.5), QueriesKeys(Q, K, width**-0.5), mask, 2.0)
            gradients = torch.autograd.grad(value.sum(), (Q, K))
        except Exception as error:  # Triton and the GPU's compiler have each their own
            return (
                f"the kernels fail on this device ({type(error).__name__}: "
                f"{str(error).strip().partition(chr(10))[0][:200]})"
            )
        found.append(torch.cat([t.detach().flatten().float() for t in (value, *gradients)]))
    off = float((found[0] - found[1]).norm() / found[1].norm())
    return "" if off < 0.02 else f"the kernels are off by {off:.1%} on this device"
