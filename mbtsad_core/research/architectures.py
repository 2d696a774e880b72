"""The pre-trained BERT in other architectures, for models of the calibration that none of the pre-trained ones at hand
has: its weights stay, and what stands around them changes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mbtsad_core.models.classifier import Classifier

BYTE_TOKENS = 8000  # subword tokens of the byte-level vocabulary
BEFORE = 2  # RoBERTa's positions begin after its padding index
SPECIAL = {"<s>": "[CLS]", "<pad>": "[PAD]", "</s>": "[SEP]", "<unk>": "[UNK]", "<mask>": "[MASK]"}
"""RoBERTa's special tokens, in the order of its ids, and BERT's."""
OF_DISTILBERT = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
"""BERT's names of a layer's parts, and DistilBERT's."""


def as_distilbert(bert: Classifier) -> Classifier:
    """The same encoder as a DistilBERT, with its head, which is new. For texts of one segment it gives the same hidden
    states: what BERT adds to each token for its segment is added to the positions."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification, DistilBertTokenizerFast

    own = bert.model.config
    config = DistilBertConfig(
        vocab_size=own.vocab_size,
        max_position_embeddings=own.max_position_embeddings,
        n_layers=own.num_hidden_layers,
        n_heads=own.num_attention_heads,
        dim=own.hidden_size,
        hidden_dim=own.intermediate_size,
        activation=own.hidden_act,
        pad_token_id=own.pad_token_id,
        id2label=own.id2label,
        label2id=own.label2id,
    )
    model = DistilBertForSequenceClassification(config)
    known = _encoder_weights(bert)
    known["embeddings.position_embeddings.weight"] += known.pop("embeddings.token_type_embeddings.weight")[0]
    found = {_in_distilbert(name): weight for name, weight in known.items()}
    model.distilbert.load_state_dict(found)
    tokenizer = DistilBertTokenizerFast(tokenizer_object=bert.tokenizer.backend_tokenizer)
    return Classifier(model.eval(), tokenizer, bert.labels, max_length=bert.max_length)


def _in_distilbert(name: str) -> str:
    name = name.replace("encoder.layer.", "transformer.layer.")
    for old, new in OF_DISTILBERT.items():
        name = name.replace(f".{old}.", f".{new}.")
    return name


def as_byte_level(bert: Classifier, texts: Iterable[str]) -> Classifier:
    """The same layers as a RoBERTa with BYTE_TOKENS byte-level subword tokens of the texts and a new head. A token that
    BERT's vocabulary lacks begins as the mean of those that BERT reads it as."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    tokenizer = _byte_level(texts, bert.model.config.max_position_embeddings)
    own = bert.model.config
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=own.max_position_embeddings + BEFORE,
        num_hidden_layers=own.num_hidden_layers,
        num_attention_heads=own.num_attention_heads,
        hidden_size=own.hidden_size,
        intermediate_size=own.intermediate_size,
        layer_norm_eps=own.layer_norm_eps,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        id2label=own.id2label,
        label2id=own.label2id,
    )
    model = RobertaForSequenceClassification(config)
    known = _encoder_weights(bert)
    positions = known["embeddings.position_embeddings.weight"]
    known["embeddings.position_embeddings.weight"] = torch.cat([positions[:1].repeat(BEFORE, 1), positions])
    known["embeddings.token_type_embeddings.weight"] = known["embeddings.token_type_embeddings.weight"][:1]
    known["embeddings.word_embeddings.weight"] = _rows(bert, tokenizer)
    model.roberta.load_state_dict(known)
    return Classifier(model.eval(), tokenizer, bert.labels, max_length=bert.max_length)


def _encoder_weights(bert: Classifier) -> dict[str, Tensor]:
    """All weights but those of the pooler, which goes with the head, by their names within the encoder; copies."""
    own = bert.model.bert.state_dict()
    return {name: weight.clone() for name, weight in own.items() if not name.startswith("pooler.")}


def _byte_level(texts: Iterable[str], positions: int) -> Any:
    """A tokenizer as RoBERTa's, of the most common runs of bytes in the texts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    trained = ByteLevelBPETokenizer(add_prefix_space=True)
    trained.train_from_iterator(texts, vocab_size=BYTE_TOKENS, special_tokens=list(SPECIAL), show_progress=False)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, add_prefix_space=True, model_max_length=positions)


def _rows(bert: Classifier, tokenizer: Any) -> Tensor:
    """An embedding for each token of a byte-level tokenizer, (tokens, width): the mean of BERT's for what it spells."""
    old, known = bert.model.get_input_embeddings().weight.detach(), bert.tokenizer.get_vocab()
    rows = list[Tensor]()
    for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer))):
        spelled = tokenizer.convert_tokens_to_string([token])
        if token in SPECIAL:
            pieces = [known[SPECIAL[token]]]
        elif f"##{spelled}" in known:  # what a space comes before is spelled with it
            pieces = [known[f"##{spelled}"]]
        else:
            pieces = bert.tokenizer(spelled, add_special_tokens=False)["input_ids"] or [known["[UNK]"]]
        rows.append(old[pieces].mean(dim=0))
    return torch.stack(rows)
