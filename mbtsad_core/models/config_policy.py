"""What is kept of a config.json: the keys of known architectures, each with its range. Nothing else of it reaches the library.

What asks for code to be fetched or run is refused, wherever in the file it stands; what is only unknown is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import UnsafeModel
from mbtsad_core.models.checks import Check, either, flag, list_of, one_of, real, text, visible, whole

NAME = "config.json"
ASKS_FOR_CODE = (
    *("auto_map", "trust_remote_code", "custom_pipelines", "custom_generate", "quantization_config", "code_revision"),
    *("_attn_implementation_internal", "_experts_implementation_internal", "use_kernels", "kernel_config"),
)
IMPLEMENTATIONS = (
    *("attn_implementation", "_attn_implementation", "attention_implementation"),
    *("experts_implementation", "_experts_implementation"),
)
OWN_IMPLEMENTATIONS = (None, "eager", "sdpa", "batched_mm", "grouped_mm")  # of PyTorch's; others can be fetched from the Hub and run
NAMED_BY_PEOPLE = ("id2label", "label2id")  # their keys are names of classes

ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu6", "silu", "swish", "mish", "tanh", "linear")
NO_MAPS = "others are not vetted, and many have no token-to-token attention maps, which the distillation needs"
KNOWN = "Expected an encoder such as BERT, DistilBERT, RoBERTa, ELECTRA or MPNet"


def check_no_code(values: dict[str, Any], name: str) -> None:
    """Raise UnsafeModel where anything in a tree of JSON asks for code to be fetched or run."""
    for key, value in _leaves(values):
        if (key in ASKS_FOR_CODE and value) or (key in IMPLEMENTATIONS and not (value is None or (isinstance(value, str) and value in OWN_IMPLEMENTATIONS))):
            raise UnsafeModel(
                f"Refused: {name} sets {key!r}, which asks for code to be fetched or run. Remove the key if the model works without it.",
                "config.kernel" if key in IMPLEMENTATIONS or "implementation" in key or "kernel" in key else "config.code",
                name,
            )


def _leaves(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """All keys with their values, at any depth, in lists too.

    In a dict of implementations, one for each part of a model, each counts under the dict's key.
    """
    waiting: list[tuple[str, Any]] = [("", values)]
    while waiting:
        parent, tree = waiting.pop()
        if isinstance(tree, dict):
            for key, value in tree.items():
                name = parent if parent in IMPLEMENTATIONS else key
                if key in ASKS_FOR_CODE or not isinstance(value, (dict, list)):
                    yield name if key not in ASKS_FOR_CODE else key, value
                if isinstance(value, (dict, list)) and key not in NAMED_BY_PEOPLE:
                    waiting.append((name, value))
        else:
            for value in tree:
                if isinstance(value, (dict, list)):
                    waiting.append((parent, value))
                else:
                    yield parent, value


def vet_config(values: dict[str, Any], limits: VettingConfig = VettingConfig()) -> tuple[dict[str, Any], list[str]]:
    """What is kept of a config.json, to build the architecture's configuration from, and the names of what is left out.

    Raises UnsafeModel.
    """
    check_no_code(values, NAME)
    kind = values.get("model_type")
    allowed = _architectures(limits)
    if not isinstance(kind, str) or kind not in allowed:
        raise UnsafeModel(
            f"The architecture {str(kind)[:60]!r} of {NAME} is none of those that are read ({', '.join(sorted(allowed))}): {NO_MAPS}. {KNOWN}.",
            "config.architecture",
            NAME,
        )
    checks = _common(limits) | allowed[kind]
    for key, check in checks.items():
        if key in values and (expected := check(values[key])):
            raise UnsafeModel(f"Refused: {NAME} sets {key} to {str(values[key])[:80]!r}. Expected {expected}.", "config.value", NAME)
    if labels := _label_flaw(values, limits):
        raise UnsafeModel(f"Refused: {NAME} {labels}", "config.labels", NAME)
    kept = {key: values[key] for key in checks if key in values and key not in LEFT_OUT}
    if isinstance(kept.get("id2label"), dict):
        kept["id2label"] = {int(i): name for i, name in kept["id2label"].items()}
        kept["label2id"] = {name: i for i, name in kept["id2label"].items()}
        kept.pop("num_labels", None)
    else:
        kept.pop("id2label", None)
        kept.pop("label2id", None)
    _check_shape(kind, kept)
    return {"model_type": kind, **kept}, sorted(key for key in values if key not in kept and key not in ("model_type", *LEFT_OUT))


LEFT_OUT = ("dtype", "torch_dtype", "transformers_version", "gradient_checkpointing", "position_embedding_type", "pruned_heads", "return_dict")


def _common(limits: VettingConfig) -> dict[str, Check]:
    """Keys of every architecture."""
    token = whole(0, limits.vocabulary, none=True)
    dtype = either(one_of(None), one_of("float16", "bfloat16", "float32", "float64", "auto"))
    return {
        "architectures": list_of(_class_name, 4, none=True),
        "vocab_size": whole(1, limits.vocabulary),
        "max_position_embeddings": whole(1, limits.positions),
        "initializer_range": real(0.0, 100.0),
        "pad_token_id": token,
        "bos_token_id": token,
        "eos_token_id": either(token, list_of(token, 8)),
        "tie_word_embeddings": flag,
        "problem_type": one_of(None, "single_label_classification", "multi_label_classification", "regression"),
        "num_labels": whole(1, limits.labels),
        "id2label": either(one_of(None), _dict),
        "label2id": either(one_of(None), _dict),
        "is_decoder": one_of(False),
        "is_encoder_decoder": one_of(False),
        "add_cross_attention": one_of(False),
        "chunk_size_feed_forward": one_of(0),
        "use_cache": flag,
        # Checked, then left out: the library's own defaults are meant.
        "dtype": dtype,
        "torch_dtype": dtype,
        "transformers_version": text(64, none=True),
        "gradient_checkpointing": flag,
        "position_embedding_type": one_of("absolute"),
        "pruned_heads": one_of({}),
        "return_dict": either(one_of(None), flag),
    }


def _architectures(limits: VettingConfig) -> dict[str, dict[str, Check]]:
    """The keys of each architecture, beside those of all."""
    width, share = whole(1, limits.hidden), real(0.0, 0.999)
    layers, heads, inner = whole(1, limits.layers), whole(1, limits.heads), whole(1, 4 * limits.hidden)
    activation = one_of(*ACTIVATIONS)
    encoder: dict[str, Check] = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "hidden_act": activation,
        "hidden_dropout_prob": share,
        "attention_probs_dropout_prob": share,
        "layer_norm_eps": real(1e-20, 1.0),
    }
    bert = encoder | {"type_vocab_size": whole(1, 64), "classifier_dropout": real(0.0, 0.999, none=True)}
    summary: dict[str, Check] = {
        "embedding_size": width,
        "summary_type": one_of("first", "last", "mean"),
        "summary_use_proj": flag,
        "summary_activation": one_of(None, *ACTIVATIONS),
        "summary_last_dropout": share,
        "summary_first_dropout": share,
        "summary_proj_to_labels": flag,
    }
    part = one_of("c2p", "p2c", "p2p")
    deberta = encoder | {
        "type_vocab_size": whole(0, 64),
        "relative_attention": flag,
        "max_relative_positions": whole(-1, limits.positions),
        "position_buckets": whole(-1, limits.positions),
        "position_biased_input": flag,
        "pos_att_type": either(one_of(None, "c2p", "p2c", "c2p|p2c", "p2c|c2p"), list_of(part, 3)),
        "share_att_key": flag,
        "norm_rel_ebd": one_of("none", "layer_norm"),
        "pooler_dropout": share,
        "pooler_hidden_act": activation,
        "pooler_hidden_size": width,
        "cls_dropout": real(0.0, 0.999, none=True),
        "embedding_size": width,
        "attention_head_size": width,
        "conv_kernel_size": whole(0, 15),
        "conv_groups": one_of(1),
        "conv_act": activation,
        "talking_head": one_of(False),
        "legacy": flag,
    }
    return {
        "bert": bert,
        "roberta": bert,
        "xlm-roberta": bert,
        "camembert": bert,
        "electra": bert | summary,
        "mpnet": encoder | {"relative_attention_num_buckets": whole(2, 1024)},
        "distilbert": {
            "dim": width,
            "n_layers": layers,
            "n_heads": heads,
            "hidden_dim": inner,
            "dropout": share,
            "attention_dropout": share,
            "activation": activation,
            "sinusoidal_pos_embds": flag,
            "qa_dropout": share,
            "seq_classif_dropout": share,
        },
        "albert": encoder
        | {
            "type_vocab_size": whole(1, 64),
            "embedding_size": width,
            "num_hidden_groups": layers,
            "inner_group_num": whole(1, 16),
            "classifier_dropout_prob": share,
        },
        "deberta": deberta,
        "deberta-v2": deberta,
    }


def _class_name(value: Any) -> str:
    return "" if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,79}", value) else "a name of a class"


def _dict(value: Any) -> str:
    return "" if isinstance(value, dict) else "an object"


def _label_flaw(values: dict[str, Any], limits: VettingConfig) -> str:
    """What is wrong with the names of the classes; "" where nothing is."""
    names = values.get("id2label") or {}
    if len(names) > limits.labels or len(values.get("label2id") or {}) > limits.labels:
        return f"names more than {limits.labels} classes."
    for index, name in names.items():
        if not re.fullmatch(r"0|[1-9][0-9]{0,8}", index) or int(index) >= limits.labels:
            return f"names a class {index[:40]!r}. Expected the numbers of classes, from 0."
        if not isinstance(name, str) or not 0 < len(name) <= limits.label_length or not visible(name):
            return f"calls class {index} {str(name)[:40]!r}. Expected a name of visible characters, {limits.label_length} at most."
    if names and "num_labels" in values and values["num_labels"] != len(names):
        return f"says num_labels {values['num_labels']} and names {len(names)} classes."
    return ""


COUNT_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")  # positions are counted from behind the padding index
FEWEST_POSITIONS = 8


def _check_shape(kind: str, kept: dict[str, Any]) -> None:
    """Relations between keys on which an index or a division would fail later."""
    width, heads = kept.get("hidden_size", kept.get("dim")), kept.get("num_attention_heads", kept.get("n_heads"))
    if width and heads and width % heads:
        raise UnsafeModel(f"Refused: {NAME} divides a width of {width} among {heads} heads, which is no whole number.", "config.value", NAME)
    rows, padding = kept.get("vocab_size"), kept.get("pad_token_id", 0)
    if rows and (padding or 0) >= rows:
        raise UnsafeModel(f"Refused: {NAME} has {rows} tokens, and its pad_token_id is {padding}.", "config.value", NAME)
    if kind in COUNT_FROM_PADDING and "pad_token_id" in kept and padding is None:
        raise UnsafeModel(f"Refused: {NAME} sets no pad_token_id, from which {kind!r} counts positions.", "config.value", NAME)
    positions = kept.get("max_position_embeddings", FEWEST_POSITIONS + 2)
    positions -= padding + 1 if kind in COUNT_FROM_PADDING and "pad_token_id" in kept else 0
    if positions < FEWEST_POSITIONS:
        raise UnsafeModel(f"Refused: a model of {NAME} can read {positions} tokens; expected {FEWEST_POSITIONS} at least.", "config.value", NAME)
