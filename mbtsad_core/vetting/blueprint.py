"""What the library makes of what was kept: the configuration, the tokenizer, and the names and shapes of the weights,
taken from its own model built without memory ("meta"). So a file's header can be compared with the config before
anything is allocated.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import CouldNotTell, UnsafeModel
from mbtsad_core.vetting.safetensors_header import FLOATS, Stored
from mbtsad_core.vetting.tokenizer_policy import beyond

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a checkpoint may hold beside the classifier: tables that are computed anew, and the heads and poolers of other
# tasks. Never read.
LEFT_OVER = re.compile(
    r"(.+\.)?(position_ids|token_type_ids|attn\.(masked_)?bias)"
    r"|(cls|lm_head|predictions|generator_predictions|generator_lm_head|discriminator_predictions|lm_predictions|mask_predictions|sop_classifier|qa_outputs)\..+"
    r"|vocab_(transform|layer_norm|projector)\..+"
    r"|([a-z_]+\.)?(pooler|embeddings\.position_embeddings)\..+"
)
COMPILED = "_orig_mod."  # before the names of what torch.compile wraps, wherever that stands
ADAPTER = re.compile(r"\.(lora_|base_layer\.|modules_to_save\.|original_module\.|adapters?\.)")
PROBE = "a text with a sign that no vocabulary has: \U000f1234"  # finds an unknown token that is unknown itself
# Of the first BERT checkpoints
OLD_NAMES = ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias"))


@dataclass(frozen=True, slots=True)
class Weight:
    """Where a weight of the model stands: under which name in which file, and as which kind of number ("F16")."""

    path: Path
    stored: str
    dtype: str


@dataclass(frozen=True)
class Blueprint:
    """The weights of an architecture: shapes by name, and the first part of the encoder's names ("bert")."""

    shapes: Mapping[str, tuple[int, ...]]
    encoder: str

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    @cached_property
    def modules(self) -> frozenset[str]:
        """The names of the model's own modules, and of its encoder's."""
        return frozenset(
            name.removeprefix(prefix).partition(".")[0] for name in self.shapes for prefix in ("", f"{self.encoder}.")
        )

    def stands_beside(self, name: str) -> bool:
        """Whether a tensor of this name is none of a module of the model's."""
        return name.partition(".")[0] not in self.modules


def library() -> Any:
    """The module transformers. It puts another module into its place while it is imported; a thread that waits for
    another's import of it is given the first, which has no attributes."""
    import transformers  # noqa: F401

    return sys.modules["transformers"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and load reports from the library: what matters is raised or reported by us."""
    log = library().utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def build_tokenizer(files: Mapping[str, str], config: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of what was kept of its files. They are written into a folder of their own: the library reads
    nothing else there.

    Raises UnsafeModel where there is none, or where it has tokens that the configuration has no word embeddings for.
    """
    builder = library().AutoTokenizer
    with tempfile.TemporaryDirectory(prefix="mbtsad-tokenizer-") as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        try:
            with quiet():
                tokenizer = builder.from_pretrained(
                    folder, config=config, local_files_only=True, trust_remote_code=False
                )
                _check_added(tokenizer)
                lengths = lengths_of(tokenizer)
                tokenizer(PROBE, truncation=True, max_length=8)
                set_lengths(tokenizer, lengths)
        except BaseException as error:
            # What fails within tokenizers comes as a PanicException, which is no Exception.
            if isinstance(error, ImportError):
                raise CouldNotTell(
                    f"The tokenizer could not be built here: {str(error).strip().partition(chr(10))[0][:300]}",
                    "vet.library",
                ) from error
            if isinstance(error, (MemoryError, UnsafeModel)) or not (
                isinstance(error, Exception) or type(error).__name__ == "PanicException"
            ):
                raise
            reason = str(error).strip().partition("\n")[0][:200].replace(folder, "").rstrip(".")
            raise _no_tokenizer(
                f"They make no tokenizer: {reason or type(error).__name__}", "tokenizer.malformed"
            ) from error
    tokenizer.name_or_path = ""  # the folder is gone
    tokenizer.init_kwargs.pop("name_or_path", None)
    tokens = tokenizer.get_vocab()
    if len(tokens) <= len(tokenizer.all_special_tokens):
        # The library makes up an empty one where it finds no vocabulary that it can use
        raise _no_tokenizer("The tokenizer knows no words", "tokenizer.missing")
    highest = max(tokens, key=lambda token: tokens[token])
    if tokens[highest] >= config.vocab_size:
        raise beyond(
            f"the tokenizer's files have a token of number {tokens[highest]} ({highest[:40]!r})",
            tokens[highest],
            config.vocab_size,
        )
    return tokenizer


def _check_added(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UnsafeModel where a token was added of which normalizing leaves nothing: it would stand everywhere in a
    text, and the library fails."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    for number, token in tokenizer.added_tokens_decoder.items():
        if token.normalized and normalizer is not None and not normalizer.normalize_str(token.content):
            raise UnsafeModel(
                f"Refused: the tokenizer adds a token {token.content[:40]!r} (number {number}) that its own normalizer "
                "takes away whole, so that it is no part of any text. Add it with normalized=False, or remove it from "
                "the tokenizer's files.",
                "tokenizer.vocabulary",
                "tokenizer.json",
            )


def _no_tokenizer(what: str, rule: str) -> UnsafeModel:
    return UnsafeModel(
        f"Refused: the tokenizer's files do not fit. {what}. Give the files that tokenizer.save_pretrained wrote.",
        rule,
        "tokenizer.json",
    )


Lengths = tuple[dict[str, Any] | None, dict[str, Any] | None]  # how a tokenizer's own part truncates and pads


def lengths_of(tokenizer: PreTrainedTokenizerBase) -> Lengths:
    """How its own part truncates and pads, which every call of the tokenizer sets anew, and which is saved as the last
    one left it."""
    return tokenizer.backend_tokenizer.truncation, tokenizer.backend_tokenizer.padding


def set_lengths(tokenizer: PreTrainedTokenizerBase, lengths: Lengths) -> None:
    truncation, padding = lengths
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(**truncation) if truncation else backend.no_truncation()
    backend.enable_padding(**padding) if padding else backend.no_padding()


def build_config(kept: dict[str, Any]) -> Any:
    """The architecture's configuration from what was kept of config.json. Raises UnsafeModel where the library refuses
    it."""
    settings, builder = dict(kept), library().AutoConfig
    try:
        return builder.for_model(settings.pop("model_type"), **settings)
    except Exception as error:  # each architecture checks in its own way
        raise _no_model(kept, error) from error


def blueprint(config: Any, kept: dict[str, Any]) -> Blueprint:
    """The weights that a classifier of this configuration has. Takes no memory for them. Raises UnsafeModel."""
    import torch

    builder = library().AutoModelForSequenceClassification
    try:
        with torch.device("meta"):
            model = builder.from_config(config)
    except MemoryError:
        raise
    except Exception as error:  # sizes that do not divide each other
        raise _no_model(kept, error) from error
    return Blueprint(
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, model.base_model_prefix
    )


def _no_model(kept: dict[str, Any], error: Exception) -> UnsafeModel:
    reason = str(error).strip().partition("\n")[0][:200]
    return UnsafeModel(
        f"Refused: config.json makes no model of the architecture {kept['model_type']!r}: {reason}",
        "config.value",
        "config.json",
    )


@dataclass(frozen=True)
class Match:
    """Which tensor of which file is which weight of the model.

    left_out  tensors of the file that are not read: tables that are computed anew, heads of other tasks, and what
              stands beside the model
    notes     what was chosen, a sentence each
    """

    weights: dict[str, Weight]
    left_out: list[str]
    notes: list[str]


def match(
    plan: Blueprint,
    files: Mapping[Path, Mapping[str, Stored]],
    kept: dict[str, Any],
    limits: VettingConfig = VettingConfig(),
) -> Match:
    """Find the model's weights among the tensors of the files.

    What wraps a model puts a prefix before its names: it is taken off. Tensors that stand beside the model, such as
    the weights of a loss, are left out, as the library does; an unknown one within it is of another model than the
    configuration describes.

    Raises UnsafeModel where a weight is missing, comes twice, has another shape, is no float, or where a tensor within
    the model is unknown. An encoder that does not call itself a classifier needs none of the classifier's head.
    """
    _check_memory(plan, limits)
    names = [stored for tensors in files.values() for stored in tensors]
    prefix = _prefix(names, plan)
    found, left, beside = dict[str, Weight](), list[str](), list[str]()
    for path, tensors in files.items():
        for stored, tensor in tensors.items():
            inner = _inner(stored, prefix)
            name = _current(inner, plan)
            if name is None:
                if not LEFT_OVER.fullmatch(inner):
                    if not plan.stands_beside(inner) or tensor.dtype not in (*FLOATS, "I64"):
                        raise _unknown(stored, path, kept)
                    beside.append(stored)
                left.append(stored)
                continue
            if name in found:
                raise UnsafeModel(
                    f"Refused: {path.name} holds {stored[:100]!r}, which came before.", "weights.duplicate", path.name
                )
            _check_tensor(stored, tensor, plan.shapes[name], path)
            found[name] = Weight(path, stored, tensor.dtype)
    if missing := _missing(plan, found, kept):
        file = next(iter(files))
        if beside:  # the weights of another architecture, by their names
            raise _unknown(beside[0], file, kept)
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise UnsafeModel(
            f"Refused: the model has no weights for {missing[0]!r}{more}: {INCOMPLETE}", "weights.missing", file.name
        )
    wrapped = [part for part in (COMPILED if any(COMPILED in name for name in names) else "", prefix) if part]
    return Match(found, left, _notes(wrapped, beside))


def _missing(plan: Blueprint, found: Collection[str], kept: dict[str, Any]) -> list[str]:
    """The weights that the model cannot be without and that were not found."""
    named = kept.get("architectures") or ["ForSequenceClassification"]
    is_classifier = any("ForSequenceClassification" in name for name in named)
    return [name for name in plan.shapes if name not in found and (is_classifier or _is_of_encoder(name, plan))]


def _notes(wrapped: Sequence[str], beside: Sequence[str]) -> list[str]:
    """What was taken off the names, and what stands beside the model."""
    names = " and ".join(map(repr, wrapped))
    notes = [f"The names of the weights were read without {names}, as what wraps a model calls them."] * bool(wrapped)
    if beside:
        more = f" and {len(beside) - 1} more tensors" if beside[1:] else ""
        notes.append(f"The weights hold {beside[0][:100]!r}{more} beside the model: not read.")
    return notes


def _check_memory(plan: Blueprint, limits: VettingConfig) -> None:
    if plan.parameters * 4 > limits.megabytes << 20:
        size = plan.parameters * 4 >> 20
        raise UnsafeModel(
            f"Refused: config.json describes a model of {size} megabytes; {limits.megabytes} are allowed. Give a "
            "smaller model.",
            "size.memory",
            "config.json",
        )


def _check_tensor(stored: str, tensor: Stored, shape: tuple[int, ...], path: Path) -> None:
    if tensor.shape != shape:
        raise UnsafeModel(
            f"Refused: {stored!r} of {path.name} has the shape {list(tensor.shape)}, and config.json makes it "
            f"{list(shape)}. Give the config.json that was saved with these weights.",
            "weights.mismatch",
            path.name,
        )
    if tensor.dtype not in FLOATS:
        raise UnsafeModel(
            f"Refused: {stored!r} of {path.name} is stored as {tensor.dtype}. Expected float16, bfloat16, float32 or "
            "float64: give the model as it was before it was quantized.",
            "weights.dtype",
            path.name,
        )


def _unknown(stored: str, path: Path, kept: dict[str, Any]) -> UnsafeModel:
    """The refusal of a tensor that the model has not, with what to do about it: saving such a model again would give it
    random weights."""
    if ADAPTER.search(stored):
        remedy = (
            "It is part of an adapter: merge that into the model where you trust it (merge_and_unload of PEFT), "
            "and give what save_pretrained then writes."
        )
    else:
        called = ", ".join(kept.get("architectures") or [])
        remedy = (
            f"config.json{f', which calls the model {called},' if called else ''} belongs to other weights, or the "
            "model is none that the library knows. Give the config.json that was saved with these weights."
        )
    return UnsafeModel(
        f"Refused: {path.name} holds a tensor {stored[:100]!r} that a classifier of the architecture "
        f"{kept['model_type']!r} has not. {remedy}",
        "weights.unknown",
        path.name,
    )


INCOMPLETE = "files are missing, or config.json belongs to another model. Give all files that save_pretrained wrote."


def _inner(stored: str, prefix: str) -> str:
    return stored.replace(COMPILED, "").removeprefix(prefix)


def _prefix(names: list[str], plan: Blueprint) -> str:
    """What a wrapper put before the names of the model's weights, such as "module." or "base_model.model."; "" where
    there is nothing, or more than one."""
    first = next(iter(plan.shapes))
    bare = first.removeprefix(f"{plan.encoder}.")
    inner = [name.replace(COMPILED, "") for name in names]
    for weight in (first, bare):
        before = {name.removesuffix(weight) for name in inner if name == weight or name.endswith(f".{weight}")}
        if before:
            return before.pop() if len(before) == 1 and before != {f"{plan.encoder}."} else ""
    return ""


def _current(stored: str, plan: Blueprint) -> str | None:
    """The name of a stored tensor in the library's model; None where it has none."""
    for old, new in (("", ""), *OLD_NAMES):
        name = stored.removesuffix(old) + new if stored.endswith(old) else stored
        for candidate in (name, f"{plan.encoder}.{name}"):
            if candidate in plan.shapes:
                return candidate
    return None


def _is_of_encoder(name: str, plan: Blueprint) -> bool:
    return name.startswith(f"{plan.encoder}.") and ".pooler." not in name
