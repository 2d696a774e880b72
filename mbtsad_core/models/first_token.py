"""The last layer for the first token alone: the head of a BERT reads [CLS] and nothing else, so what the last layer
would make of the other tokens is not made.

Logits and gradients are the same but for the order in which they are summed. Of a layer of width D and inner width 4 D
this saves three quarters of the products: D² of attention's output and 8 D² of the feed-forward block, of 12 D²; and
all of its attention but that of one token.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from mbtsad_core.models.attention import attending

# Their heads read the first token, and between attention and head nothing mixes tokens. (In ALBERT the last layer is
# every layer.)
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")


@contextlib.contextmanager
def first_token_only(model: Any) -> Iterator[None]:
    """Within it, and in this thread, the models of FAMILIES give logits alone: their last hidden states lack all tokens
    but the first, or have them wrong.

    Other models, and other threads that use the same model, see no difference.
    """
    if model.config.model_type not in FAMILIES:
        yield
        return
    thread = threading.get_ident()

    def cut(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return tuple(x[:, :1].contiguous() for x in given) if threading.get_ident() == thread else None

    handle = _after_attention(model).register_forward_pre_hook(cut)
    try:
        with attending(model, _attention(model)):
            yield
    finally:
        handle.remove()


def _attention(model: Any) -> nn.Module:
    """The last layer's attention."""
    if model.config.model_type == "distilbert":
        return model.base_model.transformer.layer[-1].attention  # type: ignore[no-any-return]
    return model.base_model.encoder.layer[-1].attention.self  # type: ignore[no-any-return]


def _after_attention(model: Any) -> nn.Module:
    """What comes first in the last layer after the tokens were mixed; its arguments are (B, T, D) each."""
    if model.config.model_type == "distilbert":
        return model.base_model.transformer.layer[-1].ffn  # type: ignore[no-any-return]
    return model.base_model.encoder.layer[-1].attention.output  # type: ignore[no-any-return]
