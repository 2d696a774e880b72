"""Untrained two-layer classifiers of the five families, 32 wide with 4 heads and 64 inner neurons, with the tiny
vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from conftest import VOCABULARY, tiny_bert
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from mbtsad_core.models.classifier import Classifier

SIZE = dict(
    vocab_size=len(VOCABULARY),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=80,
    pad_token_id=0,
)
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZE)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZE)),
    "electra": lambda: ElectraForSequenceClassification(ElectraConfig(**SIZE, embedding_size=16)),
    "mpnet": lambda: MPNetForSequenceClassification(MPNetConfig(**SIZE)),
    "distilbert": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=len(VOCABULARY), dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=80
        )
    ),
}


def tiny_model(family: str, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return dataclasses.replace(tiny_bert(), model=FAMILIES[family]().eval())
