"""Attention as a forward pass needs it whose head reads the first token alone.

The last layer mixes what the first token looks at, and nothing for the others. And in bfloat16 on a CPU without AMX,
PyTorch's own attention takes twice as long as products of a few texts at a time, whose scores stay in the cache of the
processor (docs/speed.md).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

FIRST_TOKEN = "mbtsad_first_token"  # the name that transformers knows it by
SCORES = 2**18  # that are computed at once in bfloat16; with their softmax in float32 they take 1.5 MB

_last: ContextVar[nn.Module | None] = ContextVar("the last attention of the forward pass under way", default=None)


@contextlib.contextmanager
def attending(model: Any, last: nn.Module) -> Iterator[None]:
    """Within it, and in this thread, what `last` gives is right for the first token and zero for the others. For models
    whose every token sees all others.

    A model that has PyTorch's own attention is given this one for good, as other threads may use it meanwhile: outside
    of this it is PyTorch's own, or gives the same.
    """
    if model.config._attn_implementation == "sdpa":
        _register()
        model.set_attn_implementation(FIRST_TOKEN)
    token = _last.set(last)
    try:
        yield
    finally:
        _last.reset(token)


@functools.cache
def _register() -> None:
    """Make the attention known to transformers; the mask is made as for its "sdpa"."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        tokens = query.shape[2]
        if module is _last.get():
            query = query[:, :, :1]
            attention_mask = None if attention_mask is None else attention_mask[:, :, :1]
        if kwargs.get("dropout", 0.0) == 0.0 and suits(query):
            scaling = kwargs.get("scaling")
            mixed = in_parts(query, key, value, attention_mask, query.shape[-1] ** -0.5 if scaling is None else scaling)
        else:
            mixed, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        missing = tokens - mixed.shape[1]
        return (nn.functional.pad(mixed, (0, 0, 0, 0, 0, missing)) if missing else mixed), None

    AttentionInterface.register(FIRST_TOKEN, attend)
    AttentionMaskInterface.register(FIRST_TOKEN, sdpa_mask)


def suits(query: Tensor) -> bool:
    """Whether `in_parts` is the faster form: bfloat16 without gradients, on a processor that has products of it but
    not AMX, which PyTorch's own attention uses (docs/speed.md)."""
    return (
        query.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and not torch.is_grad_enabled()
        and _bfloat16_without_amx()
    )


@functools.cache
def _bfloat16_without_amx() -> bool:
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16")) and not capabilities.get("amx_bf16")


def in_parts(
    query: Tensor, key: Tensor, value: Tensor, real: Tensor | None, scaling: float, at_once: int = SCORES
) -> Tensor:
    """softmax(scaling * query key^T) value, (B, Q, H, D), of (B, H, Q, D) and (B, H, T, D) twice, with so many scores
    at once, those of one text at least.

    real  which tokens are no padding, the same for each query: (B, 1, Q, T), booleans; None: all are
    """
    texts, heads, queries, width = query.shape
    tokens = key.shape[2]
    mixed = query.new_empty(texts, queries, heads, width)
    padding = None if real is None else _of_padding(real, query.dtype)
    part = max(1, at_once // (heads * queries * tokens))
    for start in range(0, texts, part):
        q, k, v = (x[start : start + part].flatten(0, 1) for x in (query, key, value))
        if padding is None:
            scores = torch.bmm(q, k.transpose(1, 2)) * scaling
        else:
            added = padding[start : start + part].expand(-1, heads, 1, tokens).flatten(0, 1)
            scores = torch.baddbmm(added, q, k.transpose(1, 2), alpha=scaling)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        mixed[start : start + part] = torch.bmm(weights, v).unflatten(0, (-1, heads)).transpose(1, 2)
    return mixed


def _of_padding(real: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores: nothing for real tokens, minus infinity for padding. (B, 1, 1, T)"""
    row = real[:, :, :1]
    return torch.zeros_like(row, dtype=dtype).masked_fill_(~row, -torch.inf)
