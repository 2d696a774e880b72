"""What the library makes of what was kept: the configuration, the tokenizer, and the names and shapes of the weights, taken from its own
model built without memory ("meta"). So a file's header can be compared with the config before anything is allocated.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import CouldNotTell, UnsafeModel
from mbtsad_core.models.safetensors_header import FLOATS, Stored

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a checkpoint may hold beside the classifier: tables that are computed anew, and the heads and poolers of other tasks. Never read.
LEFT_OVER = re.compile(
    r"(.+\.)?(position_ids|token_type_ids)"
    r"|(cls|lm_head|predictions|generator_predictions|generator_lm_head|discriminator_predictions|lm_predictions|mask_predictions|sop_classifier|qa_outputs)\..+"
    r"|vocab_(transform|layer_norm|projector)\..+"
    r"|([a-z_]+\.)?pooler\..+"
)
PROBE = "a text with a sign that no vocabulary has: \U000f1234"  # finds an unknown token that is unknown itself
OLD_NAMES = ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias"))  # of the first BERT checkpoints


@dataclass(frozen=True, slots=True)
class Weight:
    """Where a weight of the model stands: under which name in which file."""

    path: Path
    stored: str


@dataclass(frozen=True)
class Blueprint:
    """The weights of an architecture: shapes by name, and the first part of the encoder's names ("bert")."""

    shapes: Mapping[str, tuple[int, ...]]
    encoder: str

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())


def library() -> Any:
    """The module transformers. It puts another module into its place while it is imported; a thread that waits for another's import of it is
    given the first, which has no attributes."""
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
    """The tokenizer of what was kept of its files. They are written into a folder of their own: the library reads nothing else there.

    Raises UnsafeModel where there is none, or where it has tokens that the configuration has no word embeddings for.
    """
    builder = library().AutoTokenizer
    with tempfile.TemporaryDirectory(prefix="mbtsad-tokenizer-") as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        try:
            with quiet():
                tokenizer = builder.from_pretrained(folder, config=config, local_files_only=True, trust_remote_code=False)
                tokenizer(PROBE, truncation=True, max_length=8)
        except BaseException as error:
            # What fails within tokenizers comes as a PanicException, which is no Exception.
            if isinstance(error, ImportError):
                raise CouldNotTell(f"The tokenizer could not be built here: {str(error).strip().partition(chr(10))[0][:300]}", "vet.library") from error
            if isinstance(error, MemoryError) or not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
                raise
            reason = str(error).strip().partition("\n")[0][:200].replace(folder, "").rstrip(".")
            raise _no_tokenizer(f"They make no tokenizer: {reason or type(error).__name__}", "tokenizer.malformed") from error
    tokenizer.name_or_path = ""  # the folder is gone
    tokenizer.init_kwargs.pop("name_or_path", None)
    numbers = tokenizer.get_vocab().values()
    if len(numbers) <= len(tokenizer.all_special_tokens):  # the library makes up an empty one where it finds no vocabulary that it can use
        raise _no_tokenizer("The tokenizer knows no words", "tokenizer.missing")
    if max(numbers) >= config.vocab_size:
        raise _no_tokenizer(f"They have a token of number {max(numbers)}, and the model has {config.vocab_size} word embeddings", "tokenizer.vocabulary")
    return tokenizer


def _no_tokenizer(what: str, rule: str) -> UnsafeModel:
    return UnsafeModel(f"Refused: the tokenizer's files do not fit. {what}. Give the files that tokenizer.save_pretrained wrote.", rule, "tokenizer.json")


def build_config(kept: dict[str, Any]) -> Any:
    """The architecture's configuration from what was kept of config.json. Raises UnsafeModel where the library refuses it."""
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
    return Blueprint({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, model.base_model_prefix)


def _no_model(kept: dict[str, Any], error: Exception) -> UnsafeModel:
    reason = str(error).strip().partition("\n")[0][:200]
    return UnsafeModel(f"Refused: config.json makes no model of the architecture {kept['model_type']!r}: {reason}", "config.value", "config.json")


def match(
    plan: Blueprint, files: Mapping[Path, Mapping[str, Stored]], kept: dict[str, Any], limits: VettingConfig = VettingConfig()
) -> tuple[dict[str, Weight], list[str]]:
    """Which tensor of which file is which weight, and the names of those that are left out because they belong to another task.

    Raises UnsafeModel where a weight is missing, comes twice, has another shape, is no float, or where a tensor is unknown. An encoder
    that does not call itself a classifier needs none of the classifier's head.
    """
    if plan.parameters * 4 > limits.megabytes << 20:
        size = plan.parameters * 4 >> 20
        raise UnsafeModel(
            f"Refused: config.json describes a model of {size} megabytes; {limits.megabytes} are allowed. Give a smaller model.", "size.memory", "config.json"
        )
    found: dict[str, Weight] = {}
    left: list[str] = []
    for path, tensors in files.items():
        for stored, tensor in tensors.items():
            name = _current(stored, plan)
            if name is None:
                if not LEFT_OVER.fullmatch(stored):
                    raise UnsafeModel(
                        f"Refused: {path.name} holds a tensor {stored[:100]!r} that a model of the architecture {kept['model_type']!r} has not. "
                        f"Load the model where you trust it, and save it again with save_pretrained.",
                        "weights.unknown",
                        path.name,
                    )
                left.append(stored)
                continue
            if name in found:
                raise UnsafeModel(f"Refused: {path.name} holds {stored[:100]!r}, which came before.", "weights.duplicate", path.name)
            if tensor.shape != plan.shapes[name]:
                raise UnsafeModel(
                    f"Refused: {stored!r} of {path.name} has the shape {list(tensor.shape)}, and config.json makes it {list(plan.shapes[name])}. "
                    f"Give the config.json that was saved with these weights.",
                    "weights.mismatch",
                    path.name,
                )
            if tensor.dtype not in FLOATS:
                raise UnsafeModel(
                    f"Refused: {stored!r} of {path.name} is stored as {tensor.dtype}. Expected float16, bfloat16, float32 or float64: "
                    f"load the model where you trust it and save it again without quantisation.",
                    "weights.dtype",
                    path.name,
                )
            found[name] = Weight(path, stored)
    is_classifier = any("ForSequenceClassification" in name for name in kept.get("architectures") or ["ForSequenceClassification"])
    if missing := [name for name in plan.shapes if name not in found and (is_classifier or _is_of_encoder(name, plan))]:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise UnsafeModel(f"Refused: the model has no weights for {missing[0]!r}{more}: {INCOMPLETE}", "weights.missing", next(iter(files)).name)
    return found, left


INCOMPLETE = "files are missing, or config.json belongs to another model. Give all files that save_pretrained wrote."


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
