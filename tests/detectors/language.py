"""A causal language model whose every prediction is set by hand: the next token does not depend on those before it."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import VOCABULARY, tiny_bert
from transformers import GPT2Config, GPT2LMHeadModel

REST = 1e-4  # the probability of a token that is not named


def save_language_model(folder: Path, shares: dict[str, float]) -> Path:
    """Save a one-layer GPT-2 that gives each of these words its probability and other tokens REST, divided by the sum
    of all."""
    width = len(VOCABULARY) + len(VOCABULARY) % 2
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(VOCABULARY),
            n_embd=width,
            n_layer=1,
            n_head=2,
            n_positions=64,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    with torch.no_grad():
        # Tied to the head: the last norm's bias is the logits
        model.transformer.wte.weight.copy_(torch.eye(len(VOCABULARY), width))
        model.transformer.ln_f.weight.zero_()
        bias = torch.zeros(width)
        bias[: len(VOCABULARY)] = torch.tensor([shares.get(word, REST) for word in VOCABULARY]).log()
        model.transformer.ln_f.bias.copy_(bias)
    model.save_pretrained(folder)
    tiny_bert().tokenizer.save_pretrained(folder)
    return folder
