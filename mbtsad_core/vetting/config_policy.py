"""What is kept of a config.json: the keys of known architectures, each with its range. Nothing else of it reaches the
library.

What asks for code to be fetched or run is refused, wherever in the file it stands; what is only unknown is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import UnsafeModel
from mbtsad_core.vetting.checks import Check, either, flag, list_of, one_of, real, text, visible, whole
from mbtsad_core.vetting.strict_json import kind_of

NAME = "config.json"
ASKS_FOR_CODE = (
    *("auto_map", "trust_remote_code", "custom_pipelines", "custom_generate", "quantization_config", "code_revision"),
    *("_attn_implementation_internal", "_experts_implementation_internal", "use_kernels", "kernel_config"),
)
IMPLEMENTATIONS = (
    *("attn_implementation", "_attn_implementation", "attention_implementation"),
    *("experts_implementation", "_experts_implementation"),
)
# Of PyTorch's; others can be fetched from the Hub and run
OWN_IMPLEMENTATIONS = (None, "eager", "sdpa", "batched_mm", "grouped_mm")
NAMED_BY_PEOPLE = ("id2label", "label2id")  # their keys are names of classes

ACTIVATIONS = (
    *(
        "gelu",
        "gelu_10",
        "gelu_accurate",
        "gelu_fast",
        "gelu_new",
        "gelu_python",
        "gelu_python_tanh",
        "gelu_pytorch_tanh",
        "quick_gelu",
    ),
    *(
        "relu",
        "relu2",
        "relu6",
        "leaky_relu",
        "silu",
        "swish",
        "mish",
        "hardswish",
        "laplace",
        "sigmoid",
        "tanh",
        "linear",
    ),
)
NO_MAPS = "others are not vetted, and many have no token-to-token attention maps, which the distillation needs"
KNOWN = "Expected an encoder such as BERT, DistilBERT, RoBERTa, ELECTRA or MPNet, or GPT-2"

# Those that transformers builds out of tokenizers' own parts: other classes run code, programs or tables of their own
# on a text.
TOKENIZERS = (
    *(
        "BertTokenizer",
        "DistilBertTokenizer",
        "ElectraTokenizer",
        "MPNetTokenizer",
        "RobertaTokenizer",
        "XLMRobertaTokenizer",
        "CamembertTokenizer",
    ),
    *(
        "AlbertTokenizer",
        "DebertaTokenizer",
        "DebertaV2Tokenizer",
        "GPT2Tokenizer",
        "PreTrainedTokenizer",
        "TokenizersBackend",
    ),
    *(
        "HerbertTokenizer",
        "BartTokenizer",
        "LongformerTokenizer",
        "MobileBertTokenizer",
        "SqueezeBertTokenizer",
        "LayoutLMTokenizer",
        "ConvBertTokenizer",
    ),
)


def check_no_code(values: dict[str, Any], name: str) -> None:
    """Raise UnsafeModel where anything in a tree of JSON asks for code to be fetched or run."""
    for key, value in _leaves(values):
        if (key in ASKS_FOR_CODE and value) or (
            key in IMPLEMENTATIONS and not (value is None or (isinstance(value, str) and value in OWN_IMPLEMENTATIONS))
        ):
            if key == "quantization_config":
                raise UnsafeModel(
                    f"Refused: {name} sets {key!r}: the weights are quantized, which needs code of its own to be read. "
                    f"Give the model in float16, bfloat16 or float32, as it was before.",
                    "config.code",
                    name,
                )
            raise UnsafeModel(
                f"Refused: {name} sets {key!r}, which asks for code to be fetched or run. Remove the key if the model "
                "works without it.",
                "config.kernel"
                if key in IMPLEMENTATIONS or "implementation" in key or "kernel" in key
                else "config.code",
                name,
            )


def check_tokenizer_class(wanted: Any, name: str) -> None:
    """Raise UnsafeModel where a file asks for a tokenizer that is not read. None asks for none."""
    if wanted is not None and not (isinstance(wanted, str) and wanted.removesuffix("Fast") in TOKENIZERS):
        raise UnsafeModel(
            f"Refused: {name} asks for a tokenizer {str(wanted)[:60]!r}, which is none of those that are read here, "
            f"and another would read other tokens. Expected one of {', '.join(TOKENIZERS)}.",
            "tokenizer.class",
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
    if kind is None:
        raise UnsafeModel(
            f'{NAME} does not say of which architecture the model is. Add "model_type": "{_likely(values)}" to it, if '
            "it is one "
            f"({', '.join(sorted(allowed))} are read).",
            "config.architecture",
            NAME,
        )
    if not isinstance(kind, str) or kind not in allowed:
        raise UnsafeModel(
            f"The architecture {str(kind)[:60]!r} of {NAME} is none of those that are read "
            f"({', '.join(sorted(allowed))}): {NO_MAPS}. {KNOWN}.",
            "config.architecture",
            NAME,
        )
    checks = _common(limits) | allowed[kind]
    for key, check in checks.items():
        if key in values and (expected := check(values[key])):
            raise UnsafeModel(
                f"Refused: {NAME} sets {key} to {str(values[key])[:80]!r}. Expected {expected}.", "config.value", NAME
            )
    check_tokenizer_class(values.get("tokenizer_class"), NAME)
    kept = {key: values[key] for key in checks if key in values and key not in LEFT_OUT}
    if values.get("tokenizer_class") is not None:
        kept["tokenizer_class"] = values["tokenizer_class"]
    if names := class_names(values, limits):
        kept["id2label"] = names
        kept["label2id"] = {name: i for i, name in names.items()}
        kept.pop("num_labels", None)
    else:
        kept.pop("id2label", None)
        kept.pop("label2id", None)
    _check_shape(kind, kept)
    return {"model_type": kind, **kept}, sorted(
        key for key in values if key not in kept and key not in ("model_type", *LEFT_OUT)
    )


def _likely(values: Mapping[str, Any]) -> str:
    """The architecture that a config.json which does not name it is most likely of."""
    named = str((values.get("architectures") or [""])[0]) if isinstance(values.get("architectures"), list) else ""
    classes = {
        "DebertaV2": "deberta-v2",
        "XLMRoberta": "xlm-roberta",
        "DistilBert": "distilbert",
        "Camembert": "camembert",
        "Roberta": "roberta",
    }
    classes |= {"Deberta": "deberta", "Electra": "electra", "Albert": "albert", "MPNet": "mpnet", "Bert": "bert"}
    classes |= {"GPT2": "gpt2"}
    if kind := next((kind for prefix, kind in classes.items() if named.startswith(prefix)), ""):
        return kind
    telling = {
        "n_layers": "distilbert",
        "num_hidden_groups": "albert",
        "relative_attention_num_buckets": "mpnet",
        "position_buckets": "deberta-v2",
    }
    telling |= {"pos_att_type": "deberta", "generator_hidden_size": "electra", "embedding_size": "electra"}
    telling |= {"n_embd": "gpt2"}
    return next(
        (kind for key, kind in telling.items() if key in values),
        "roberta" if values.get("max_position_embeddings") == 514 else "bert",
    )


LEFT_OUT = (
    *(
        "dtype",
        "torch_dtype",
        "transformers_version",
        "gradient_checkpointing",
        "position_embedding_type",
        "pruned_heads",
        "return_dict",
    ),
    "chunk_size_feed_forward",
)


def _common(limits: VettingConfig) -> dict[str, Check]:
    """Keys of every architecture."""
    token = whole(0, limits.vocabulary, none=True)
    dtype = either(one_of(None), one_of("float16", "bfloat16", "float32", "float64", "auto"))
    return {
        "architectures": list_of(_identifier, 16, none=True),
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
        "use_cache": flag,
        # Checked, then left out: the library's own defaults are meant, or it makes no difference to the answers.
        "chunk_size_feed_forward": whole(0, limits.positions),
        "dtype": dtype,
        "torch_dtype": dtype,
        "transformers_version": text(64, none=True),
        "gradient_checkpointing": flag,
        "position_embedding_type": one_of("absolute"),
        "pruned_heads": one_of({}),
        "return_dict": either(one_of(None), flag),
    }


SHARE, ACTIVATION = real(0.0, 0.999), one_of(*ACTIVATIONS)


def _architectures(limits: VettingConfig) -> dict[str, dict[str, Check]]:
    """The keys of each architecture, beside those of all."""
    width = whole(1, limits.hidden)
    layers, heads, inner = whole(1, limits.layers), whole(1, limits.heads), whole(1, 4 * limits.hidden)
    encoder: dict[str, Check] = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "hidden_act": ACTIVATION,
        "hidden_dropout_prob": SHARE,
        "attention_probs_dropout_prob": SHARE,
        "layer_norm_eps": real(1e-20, 1.0),
    }
    bert = encoder | {"type_vocab_size": whole(1, 64), "classifier_dropout": real(0.0, 0.999, none=True)}
    summary: dict[str, Check] = {
        "embedding_size": width,
        "summary_type": one_of("first", "last", "mean"),
        "summary_use_proj": flag,
        "summary_activation": one_of(None, *ACTIVATIONS),
        "summary_last_dropout": SHARE,
        "summary_first_dropout": SHARE,
        "summary_proj_to_labels": flag,
    }
    return {
        "bert": bert,
        "roberta": bert,
        "xlm-roberta": bert,
        "camembert": bert,
        "electra": bert | summary,
        "mpnet": encoder | {"relative_attention_num_buckets": whole(2, 1024)},
        "distilbert": _distilbert(limits),
        "albert": encoder
        | {
            "type_vocab_size": whole(1, 64),
            "embedding_size": width,
            "num_hidden_groups": layers,
            "inner_group_num": whole(1, 16),
            "classifier_dropout_prob": SHARE,
        },
        "deberta": encoder | _deberta(limits),
        "deberta-v2": encoder | _deberta(limits),
        "gpt2": _gpt2(limits),
    }


def _distilbert(limits: VettingConfig) -> dict[str, Check]:
    """DistilBERT has names of its own for everything."""
    return {
        "dim": whole(1, limits.hidden),
        "n_layers": whole(1, limits.layers),
        "n_heads": whole(1, limits.heads),
        "hidden_dim": whole(1, 4 * limits.hidden),
        "dropout": SHARE,
        "attention_dropout": SHARE,
        "activation": ACTIVATION,
        "sinusoidal_pos_embds": flag,
        "qa_dropout": SHARE,
        "seq_classif_dropout": SHARE,
    }


def _gpt2(limits: VettingConfig) -> dict[str, Check]:
    """GPT-2 has names of its own too, and a summary that no classifier of texts reads."""
    return {
        "n_embd": whole(1, limits.hidden),
        "n_layer": whole(1, limits.layers),
        "n_head": whole(1, limits.heads),
        "n_inner": whole(1, 4 * limits.hidden, none=True),
        "n_positions": whole(1, limits.positions),
        "activation_function": ACTIVATION,
        "resid_pdrop": SHARE,
        "embd_pdrop": SHARE,
        "attn_pdrop": SHARE,
        "layer_norm_epsilon": real(1e-20, 1.0),
        "scale_attn_weights": flag,
        "scale_attn_by_inverse_layer_idx": flag,
        "reorder_and_upcast_attn": flag,
    }


def _deberta(limits: VettingConfig) -> dict[str, Check]:
    """What DeBERTa has beside any encoder."""
    part = one_of("c2p", "p2c", "p2p")
    return {
        "type_vocab_size": whole(0, 64),
        "relative_attention": flag,
        "max_relative_positions": whole(-1, limits.positions),
        "position_buckets": whole(-1, limits.positions),
        "position_biased_input": flag,
        "pos_att_type": either(one_of(None, "c2p", "p2c", "c2p|p2c", "p2c|c2p"), list_of(part, 3)),
        "share_att_key": flag,
        "norm_rel_ebd": one_of("none", "layer_norm"),
        "pooler_dropout": SHARE,
        "pooler_hidden_act": ACTIVATION,
        "pooler_hidden_size": whole(1, limits.hidden),
        "cls_dropout": real(0.0, 0.999, none=True),
        "embedding_size": whole(1, limits.hidden),
        "attention_head_size": whole(1, limits.hidden),
        "conv_kernel_size": whole(0, 15),
        "conv_groups": one_of(1),
        "conv_act": ACTIVATION,
        "talking_head": one_of(False),
        "legacy": flag,
    }


def _identifier(value: Any) -> str:
    return "" if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,79}", value) else "a name of a class"


def _dict(value: Any) -> str:
    return "" if isinstance(value, dict) else "an object"


NOTHING = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))  # breaks and marks that leave no trace in a name
JOINERS = dict.fromkeys(map(ord, "\u200c\u200d"))  # which many scripts and emoji are written with


def class_names(values: Mapping[str, Any], limits: VettingConfig = VettingConfig()) -> dict[int, str]:
    """The names of the classes by number, as they are shown; empty where a config.json names none. Raises UnsafeModel.

    As the library takes them, names may be numbers, truths or null, of which texts are made: "0", "True", "LABEL_0".
    """
    names = values.get("id2label") or {}
    if len(names) > limits.labels or len(values.get("label2id") or {}) > limits.labels:
        raise _labels(f"names more than {limits.labels} classes")
    found = dict[int, str]()
    for index, name in names.items():
        if not re.fullmatch(r"[0-9]{1,9}", index) or int(index) >= limits.labels or int(index) in found:
            raise _labels(f"names a class {index[:40]!r}. Expected the numbers of classes, from 0, each once")
        shown = _class_name(name, int(index))
        if not 0 < len(shown) <= limits.label_length or not visible(shown.translate(JOINERS)):
            raise _labels(
                f"calls class {index} {str(name)[:40]!r}, which is {kind_of(name)}. Expected a text of visible "
                f"characters, {limits.label_length} at most"
            )
        found[int(index)] = shown
    return dict(sorted(found.items()))


def _class_name(name: Any, index: int) -> str:
    """The name of a class as it is shown; "" where it can be none."""
    if name is None:
        return f"LABEL_{index}"
    if isinstance(name, (int, float)):  # a truth is an int
        return str(name)
    return " ".join(name.translate(NOTHING).split()) if isinstance(name, str) else ""


def _labels(what: str) -> UnsafeModel:
    return UnsafeModel(
        f"Refused: {NAME} {what}. Mend id2label, or remove it and label2id, and give their number as num_labels.",
        "config.labels",
        NAME,
    )


def notes_on(values: Mapping[str, Any], limits: VettingConfig = VettingConfig()) -> list[str]:
    """What was chosen where a config.json that is kept leaves a choice, a sentence each."""
    names, found = values.get("id2label") or {}, class_names(values, limits)
    notes = []
    if odd := [index for index, name in names.items() if found[int(index)] != name]:
        first = odd[0]
        what = (
            "has spaces or signs that cannot be seen"
            if isinstance(names[first], str)
            else f"is {kind_of(names[first])}"
        )
        notes.append(f"{NAME} calls class {first} {names[first]!r}, which {what}: it is read as {found[int(first)]!r}.")
    if names and values.get("num_labels", len(names)) != len(names):
        notes.append(
            f"{NAME} says num_labels {values['num_labels']} and names {len(names)} classes: the names are taken."
        )
    numbers = values.get("label2id") or {}
    if names and (
        other := [
            name
            for name, i in numbers.items()
            if isinstance(i, int) and i in found and found[i] != name and name in found.values()
        ]
    ):
        notes.append(f"In {NAME}, label2id numbers {other[0]!r} otherwise than id2label does: id2label is taken.")
    if numbers and not names:
        notes.append(
            f"{NAME} names classes in label2id alone, which nothing reads: they are called LABEL_0, LABEL_1, ..."
        )
    return notes


# Positions are counted from behind the padding index
COUNT_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
FEWEST_POSITIONS = 8


def _check_shape(kind: str, kept: dict[str, Any]) -> None:
    """Relations between keys on which an index or a division would fail later."""
    width = kept.get("hidden_size", kept.get("dim", kept.get("n_embd")))
    heads = kept.get("num_attention_heads", kept.get("n_heads", kept.get("n_head")))
    if width and heads and width % heads:
        raise UnsafeModel(
            f"Refused: {NAME} divides a width of {width} among {heads} heads, which is no whole number.",
            "config.value",
            NAME,
        )
    rows, padding = kept.get("vocab_size"), kept.get("pad_token_id", 0)
    if rows and (padding or 0) >= rows:
        raise UnsafeModel(
            f"Refused: {NAME} has {rows} tokens, and its pad_token_id is {padding}.", "config.value", NAME
        )
    if kind in COUNT_FROM_PADDING and "pad_token_id" in kept and padding is None:
        raise UnsafeModel(
            f"Refused: {NAME} sets no pad_token_id, from which {kind!r} counts positions.", "config.value", NAME
        )
    given = [kept[name] for name in ("max_position_embeddings", "n_positions") if name in kept]
    positions = min(given, default=FEWEST_POSITIONS + 2)
    positions -= padding + 1 if kind in COUNT_FROM_PADDING and "pad_token_id" in kept else 0
    if positions < FEWEST_POSITIONS:
        raise UnsafeModel(
            f"Refused: a model of {NAME} can read {positions} tokens; expected {FEWEST_POSITIONS} at least.",
            "config.value",
            NAME,
        )
