"""A transformer text classifier: load, save, clone, predict, and trace what happens inside."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mbtsad_core.config import MOST_TOKENS, VettingConfig
from mbtsad_core.errors import BadConfig, CouldNotTell, MBTSADError, UnsafeModel, UnsuitableModel
from mbtsad_core.models.first_token import first_token_only
from mbtsad_core.models.lengths import length_limit
from mbtsad_core.models.linear import onednn_is_faster, set_products
from mbtsad_core.models.turns import alone, side_by_side
from mbtsad_core.sources import Source
from mbtsad_core.types import LabelledText, Trace
from mbtsad_core.vetting.blueprint import Lengths, lengths_of, library, quiet, set_lengths
from mbtsad_core.vetting.hub import COMMIT, fetch_model
from mbtsad_core.vetting.model_folder import Vetted, digest, vet_model
from mbtsad_core.vetting.uploads import unpack

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mbtsad_core.config import RuntimeConfig

Encoded = dict[str, list[int]]  # one text's token ids and, where the model has them, token types
Batch = dict[str, Tensor]  # input_ids, attention_mask, ...: (B, T) each

SUITABLE = "Expected an encoder such as BERT, DistilBERT, RoBERTa, ELECTRA or MPNet."
DECODERS = ("gpt2",)
ON_CPU, ON_GPU = 32, 64  # texts that are asked at once: on a CPU, what a layer gives of more leaves its cache


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a classifier was loaded from: what was vetted and measured is what is named here.

    source  as it was given: a folder, a zip, or hub:OWNER/NAME[@REVISION]
    commit  of the Hub's repository, 40 hexadecimal digits; None where it did not come from the Hub or its cache
    sha256  of all files that are read: what `sha256sum FILES | sha256sum` prints of them, sorted by name
    """

    source: Source
    commit: str | None
    sha256: str

    @property
    def pinned(self) -> Source:
        """The source, fixed at the commit: what to load to get the same model again."""
        return self.source.at(self.commit) if self.commit and self.source.is_hub else self.source


@dataclass(frozen=True, slots=True)
class Written:
    """How the files were written that a classifier was loaded from, where nothing of it shows in use: it is saved as it
    came.

    precision  of the weights: "float16", "bfloat16", "float32" or "float64"; where they differ, one that holds them all
    lengths    how the tokenizer's own part truncates and pads
    """

    precision: str = "float32"
    lengths: Lengths = (None, None)

    @property
    def rounds(self) -> bool:
        """Whether weights that were trained in float32 lose digits as they are saved."""
        return self.precision in ("float16", "bfloat16")


@dataclass(frozen=True)
class Classifier:
    """A model, its tokenizer, the names of its classes by index, and how it is run.

    max_length  tokens of a text that are read, special ones included
    precision   of the matrix products in training: "float32", or "bfloat16" under autocast, with losses and weights in
                float32; measurements are made in float32 either way
    origin      where it was loaded from; a clone keeps it, and so does what is trained from it. None where it was made
                here
    written     how its files were written
    notes       what was chosen as it was read, where its files leave a choice: a sentence each
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    max_length: int = 128
    precision: str = "float32"
    origin: Origin | None = None
    written: Written = Written()
    notes: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def describe(self) -> str:
        """Architecture and size in a few words: "BERT 4x384, 6.7 M parameters, 2 classes"."""
        config = self.model.config
        kind = {
            "bert": "BERT",
            "roberta": "RoBERTa",
            "distilbert": "DistilBERT",
            "electra": "ELECTRA",
            "mpnet": "MPNet",
        }
        size = sum(p.numel() for p in self.model.parameters()) / 1e6
        name = kind.get(config.model_type, config.model_type)
        return (
            f"{name} {config.num_hidden_layers}x{config.hidden_size}, {size:.1f} M parameters, {len(self.labels)} "
            "classes"
        )


def load_classifier(
    source: str | Path,
    *,
    max_length: int | None = None,
    runtime: RuntimeConfig | None = None,
    limits: VettingConfig = VettingConfig(),
) -> Classifier:
    """Load a classifier from a directory, a zip of one, or `hub:OWNER/NAME[@REVISION]`: safetensors only, no code of
    the model's is run.

    Config and tokenizer are built from what vetting keeps of their files; the network is used for `hub:` alone, and
    before anything is loaded. Where `max_length` is not given, texts are read as far as the model can, but no further
    than MOST_TOKENS. Raises UnsafeModel before anything is loaded, UnsuitableModel where the files hold no text
    classifier.
    """
    directory, vetted, origin = read_source(source, limits)
    config, tokenizer = vetted.config, vetted.tokenizer
    check_task(config, directory)
    if unnamed := [i for i in range(config.num_labels) if i not in config.id2label]:
        raise UnsuitableModel(
            f"The config.json in {directory} names no class {unnamed[0]} (id2label: {config.id2label}). "
            f"Expected id2label with a name for each of the {config.num_labels} classes, counted from 0, or no "
            "id2label at all."
        )
    with quiet():
        try:
            model, report = build_model(vetted, config)
        except Exception as error:  # transformers raises what its parts raise
            raise UnsuitableModel(
                f"The files in {directory} do not load as a text classifier: {reason_of(error)}. "
                f"Expected a Hugging Face sequence-classification model saved with save_pretrained, tokenizer included."
            ) from error
    if missing := sorted(report["missing_keys"]):
        raise UnsuitableModel(
            f"The model in {directory} has no weights for "
            f"{missing[0]!r}{f' and {len(missing) - 1} more' if missing[1:] else ''}: it is no trained text "
            "classifier. Expected a fine-tuned sequence-classification model with its head."
        )
    model.eval()
    labels = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    notes = tuple(note for found in vetted.notes.values() for note in found)
    notes += _settle_padding(model, tokenizer, directory)
    classifier = Classifier(
        model,
        tokenizer,
        labels,
        min(max_length or MOST_TOKENS, length_limit(model, tokenizer)),
        "float32",
        origin,
        written_as(vetted),
        notes,
    )
    return place(classifier, runtime) if runtime else classifier


def _settle_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> tuple[str, ...]:
    """See to it that a decoder has a padding token, by which it finds the last token of a text: what was chosen.

    Raises UnsuitableModel where none of its special tokens can be it.
    """
    config = model.config
    if config.model_type not in DECODERS or config.pad_token_id is not None:
        return ()
    own = tokenizer("")["input_ids"]
    for name in ("pad", "eos", "bos", "unk"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None and number not in own:
            config.pad_token_id = number
            return (f"config.json names no padding token: {getattr(tokenizer, f'{name}_token')!r} was taken.",)
    raise UnsuitableModel(
        f"The model in {directory} reads from left to right and has no padding token, so that it cannot tell where a "
        "text ends. Set pad_token_id in config.json to a token that ends no text."
    )


def check_task(config: Any, directory: Path) -> None:
    """Raise UnsuitableModel unless a model is made to choose one of several classes for a text."""
    reads = "One class of several is read for a text here, and the probabilities of all add up to 1."
    if config.problem_type == "multi_label_classification":
        raise UnsuitableModel(
            f"The model in {directory} is a multi-label classifier (problem_type in config.json): its "
            f"{config.num_labels} outputs are independent of each other. {reads} If each of its texts has one class "
            "all the same, set problem_type to single_label_classification."
        )
    if config.problem_type == "regression" or config.num_labels == 1:
        raise UnsuitableModel(
            f"The model in {directory} gives "
            f"{'a number' if config.num_labels == 1 else f'{config.num_labels} numbers'} for a text and no class "
            f"({'problem_type regression' if config.problem_type == 'regression' else 'one output'} in config.json). "
            f"{reads} Give a classifier of two classes or more."
        )


def written_as(vetted: Vetted) -> Written:
    """How a model's files were written."""
    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    precision = functools.reduce(torch.promote_types, {kinds[weight.dtype] for weight in vetted.weights.values()})
    return Written(str(precision).removeprefix("torch."), lengths_of(vetted.tokenizer))


def read_source(source: str | Path, limits: VettingConfig = VettingConfig()) -> tuple[Path, Vetted, Origin]:
    """The folder of a model, what is kept of it, and where it came from; a model of the Hub is fetched. Raises as
    `load_classifier`."""
    if Source(source).is_hub:
        fetched = fetch_model(str(source), limits)
        directory, names = fetched.directory, fetched.names
    else:
        directory, names = Path(source), None
    is_zip = directory.suffix.lower() == ".zip" and directory.is_file()
    vetted = _unpacked(directory, limits) if is_zip else vet_model(directory, limits, names)
    snapshot = vetted.directory.resolve()
    commit = snapshot.name if snapshot.parent.name == "snapshots" and COMMIT.fullmatch(snapshot.name) else None
    return directory, vetted, Origin(Source(source), commit, digest(vetted.directory, vetted.names))


def _unpacked(path: Path, limits: VettingConfig) -> Vetted:
    """What is kept of a model in a zip. Its files stand in a folder that goes with what is returned."""
    folder = Path(tempfile.mkdtemp(prefix="mbtsad-model-"))
    try:
        report = unpack(path, folder / "model", limits)
        if not report.accepted:
            raise (CouldNotTell if report.undecided else UnsafeModel)(
                f"{path}: {report.problem}", report.rule, path.name
            )
        vetted = vet_model(folder / "model", limits)
    except BaseException:
        shutil.rmtree(folder)
        raise
    weakref.finalize(vetted, shutil.rmtree, folder, ignore_errors=True)
    return vetted


def build_model(vetted: Vetted, config: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model with its weights as float32, and the library's report of what was missing."""
    from safetensors import safe_open

    weights: dict[str, Tensor] = {}
    with contextlib.ExitStack() as opened:
        files = {
            path: opened.enter_context(safe_open(path, framework="pt"))
            for path in {w.path for w in vetted.weights.values()}
        }
        for name, weight in vetted.weights.items():
            weights[name] = files[weight.path].get_tensor(weight.stored).to(torch.float32)
    kind = library().AutoModelForSequenceClassification._model_mapping[type(config)]
    return kind.from_pretrained(None, config=config, state_dict=weights, dtype=torch.float32, output_loading_info=True)


def reason_of(error: Exception) -> str:
    """The first line of an error's text, without its full stop."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def place(classifier: Classifier, runtime: RuntimeConfig) -> Classifier:
    """Move the classifier to the device of `runtime` and set its precision; "auto" takes a GPU, and bfloat16 where
    there are instructions for it. On a CPU its float32 products are left to what is faster there (models/linear.py)."""
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    gpu = torch.cuda.is_available()
    if runtime.device.startswith("cuda") and not gpu:
        raise BadConfig(
            f"Device {runtime.device!r} was asked for, but PyTorch sees no GPU here. Use `device` cpu or auto."
        )
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", runtime.device):
        raise BadConfig(f"Unknown device {runtime.device!r}. Expected `device` auto, cpu, cuda or cuda:N.")
    device = torch.device(("cuda" if gpu else "cpu") if runtime.device == "auto" else runtime.device)
    try:
        model = classifier.model.to(device)
    except RuntimeError as error:  # no such GPU, or no room on it
        raise BadConfig(
            f"The model cannot be put on {runtime.device!r}: {str(error).splitlines()[0]} Use another `device`, or "
            "`device` cpu."
        ) from error
    set_products(model, onednn=device.type == "cpu" and onednn_is_faster())
    precision = runtime.precision
    if precision == "auto":
        precision = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return dataclasses.replace(classifier, model=model, precision=precision)


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it: without them bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def as_saved(classifier: Classifier) -> Classifier:
    """The classifier that is loaded again once this one is saved: its weights as they are rounded then. Itself where
    nothing is."""
    if not classifier.written.rounds:
        return classifier
    rounded = clone(classifier)
    rounded.model.to(getattr(torch, classifier.written.precision)).to(torch.float32)
    return rounded


def save_classifier(classifier: Classifier, directory: Path, *, precision: str | None = None) -> None:
    """Write model and tokenizer as safetensors and JSON: with the weights in `precision`, or that which the classifier
    came in, and with the tokenizer as it came.

    `AutoModelForSequenceClassification.from_pretrained(directory)` loads them.
    """
    model, tokenizer = clone(classifier).model, copy.deepcopy(classifier.tokenizer)
    set_lengths(tokenizer, classifier.written.lengths)
    model.config.id2label = dict(enumerate(classifier.labels))
    model.config.label2id = {name: i for i, name in enumerate(classifier.labels)}
    from safetensors import SafetensorError

    try:
        with quiet():
            model.to("cpu", getattr(torch, precision or classifier.written.precision)).save_pretrained(directory)
            tokenizer.save_pretrained(directory)
    except SafetensorError as error:  # its way to say that the disk is full
        raise OSError(f"{directory}: {error}") from error


def clone(classifier: Classifier) -> Classifier:
    """An independent copy: training it leaves the original as it is."""
    return dataclasses.replace(classifier, model=copy.deepcopy(classifier.model))


def weights_hash(classifier: Classifier) -> str:
    """SHA-256 over the names, shapes and bytes of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(classifier.model.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(json.dumps([name, list(array.shape), str(array.dtype)]).encode())
        digest.update(array.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def encode(classifier: Classifier, texts: Sequence[str] | Sequence[LabelledText]) -> list[Encoded]:
    """Tokenise: one dict of integer lists a text, cut at `max_length`, not padded."""
    examples = [t if isinstance(t, LabelledText) else LabelledText(t, 0) for t in texts]
    found: dict[int, Encoded] = {}
    for paired in (False, True):  # apart, so that a text reads the same beside pairs and without them
        chosen = [i for i, t in enumerate(examples) if (t.pair is not None) == paired]
        if not chosen:
            continue
        pairs = [examples[i].pair for i in chosen] if paired else None
        out = classifier.tokenizer(
            [examples[i].text for i in chosen], pairs, truncation=True, max_length=classifier.max_length
        )
        keys = [k for k in out if k == "input_ids" or (k == "token_type_ids" and reads_types(classifier))]
        found |= {i: {k: out[k][at] or [padding_of(classifier)] for k in keys} for at, i in enumerate(chosen)}
    return [found[i] for i in range(len(examples))]


def reads_types(classifier: Classifier) -> bool:
    """Whether the model tells the second text of a pair by token types. Others have one embedding for all tokens, or
    none: they are trained without types, which a tokenizer of another family gives all the same. What CARA learns to
    write with is a network without a config."""
    return getattr(getattr(classifier.model, "config", None), "type_vocab_size", 0) > 1


def collate(classifier: Classifier, encoded: Sequence[Encoded]) -> Batch:
    """Pad to the longest text: tensors of shape (B, T) on the classifier's device; attention_mask is 1 at real
    tokens."""
    longest = max(len(e["input_ids"]) for e in encoded)
    fill = {"input_ids": padding_of(classifier), "token_type_ids": 0}
    batch = {k: torch.tensor([e[k] + [fill[k]] * (longest - len(e[k])) for e in encoded]) for k in encoded[0]}
    batch["attention_mask"] = torch.tensor(
        [[1] * len(e["input_ids"]) + [0] * (longest - len(e["input_ids"])) for e in encoded]
    )
    return {k: v.to(classifier.device) for k, v in batch.items()}


def padding_of(classifier: Classifier) -> int:
    """The token that fills texts up. A decoder answers at the last token that is another one."""
    if is_decoder(classifier) and classifier.model.config.pad_token_id is not None:
        return int(classifier.model.config.pad_token_id)
    return int(classifier.tokenizer.pad_token_id or 0)


def is_decoder(classifier: Classifier) -> bool:
    """Whether the model reads from left to right, and answers at the last token. What CARA learns to write with is a
    network without a config."""
    return getattr(getattr(classifier.model, "config", None), "model_type", "") in DECODERS


def autocast(classifier: Classifier) -> contextlib.AbstractContextManager[None]:
    """The precision that the classifier is trained in, where its weights are in another one."""
    if classifier.precision == "float32" or next(classifier.model.parameters()).dtype == torch.bfloat16:
        return contextlib.nullcontext()
    return torch.autocast(classifier.device.type, dtype=torch.bfloat16)


def in_training_precision(classifier: Classifier) -> Classifier:
    """A copy whose weights are in the precision of the training throughout: forward passes that cast nothing."""
    return dataclasses.replace(
        classifier, model=copy.deepcopy(classifier.model).to(getattr(torch, classifier.precision))
    )


def logits_of(classifier: Classifier, batch: Batch) -> Tensor:
    """The logits of a padded batch as float32, (B, C), with gradients where they are on; the last layer computes no
    more than they need."""
    with side_by_side(classifier.model), first_token_only(classifier.model):
        return classifier.model(**batch).logits.float()  # type: ignore[no-any-return]


def head_states(classifier: Classifier, batch: Batch) -> Tensor:
    """The last layer's hidden state at the token that the head reads: the first, [CLS] or <s>, and of a decoder the
    last one. (B, D); padding does not enter it."""
    with side_by_side(classifier.model):
        states: Tensor = classifier.model.base_model(**batch).last_hidden_state
    at = batch["attention_mask"].sum(dim=1) - 1 if is_decoder(classifier) else 0
    return states[torch.arange(len(states), device=states.device), at]


@torch.inference_mode()
def predict(
    classifier: Classifier, texts: Sequence[str] | Sequence[LabelledText], *, batch_size: int | None = None
) -> Tensor:
    """Class probabilities, (N, C), computed in float32, on the CPU. Dropout is off; the model's mode is left as it
    was."""
    return answers_of(classifier, encode(classifier, texts), batch_size=batch_size).softmax(-1)


@torch.inference_mode()
def answers_of(classifier: Classifier, encoded: Sequence[Encoded], *, batch_size: int | None = None) -> Tensor:
    """The logits of tokenized texts, (N, C), as float32 on the CPU; computed in float32, or in what `autocast` sets
    around the call. Dropout is off; the model's mode is left as it was."""
    batch_size = batch_size or (ON_CPU if classifier.device.type == "cpu" else ON_GPU)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))  # little padding
    logits = torch.empty(len(encoded), len(classifier.labels))
    with evaluation_mode(classifier.model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            logits[chosen] = logits_of(classifier, collate(classifier, [encoded[i] for i in chosen])).cpu()
    return logits


def trace(classifier: Classifier, batch: Batch) -> Trace:
    """Logits, hidden states and attention maps of a padded batch, with gradients where they are on.

    Attention maps need the plain ("eager") attention, which is set for this call and set back after it.
    Raises UnsuitableModel where the architecture returns none.
    """
    with eager_attention(classifier.model):
        out = classifier.model(**batch, output_hidden_states=True, output_attentions=True)
    attention = getattr(out, "attentions", None)
    length = batch["input_ids"].shape[1]
    if not attention or any(a is None or a.shape[-2:] != (length, length) for a in attention):
        raise UnsuitableModel(
            f"The architecture {classifier.model.config.model_type!r} returns no token-to-token attention maps, which "
            f"the distillation needs. {SUITABLE}"
        )
    return Trace(out.logits, tuple(out.hidden_states), tuple(attention), batch["attention_mask"])


@contextlib.contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model has the plain attention, and this thread has the model alone."""
    with alone(model):
        before = model.config._attn_implementation
        if before != "eager":
            model.set_attn_implementation("eager")
        try:
            yield
        finally:
            if before != "eager":
                model.set_attn_implementation(before)


def quicker_attention(classifier: Classifier) -> contextlib.AbstractContextManager[None]:
    """The attention that a training step is quicker with: on a CPU the plain one under dropout, and in bfloat16 where
    there are gradients.

    PyTorch's own falls back to a slow form there for either. Forward alone it is about as quick, and holds no maps,
    which may fill the memory in large batches.
    """
    drops = classifier.model.training and any(isinstance(m, nn.Dropout) and m.p > 0 for m in classifier.model.modules())
    backward = classifier.precision == "bfloat16" and torch.is_grad_enabled()
    return (
        eager_attention(classifier.model)
        if classifier.device.type == "cpu" and (drops or backward)
        else contextlib.nullcontext()
    )


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within it nothing of the model is in training; afterwards each of its modules is as it was."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def check_suitable(classifier: Classifier) -> None:
    """Raise UnsuitableModel unless the classifier has two classes or more, answers a batch, and returns softmaxed
    attention maps."""
    if len(classifier.labels) < 2:
        raise UnsuitableModel(
            f"The model has {len(classifier.labels)} output; expected a classifier of two classes or more."
        )
    architecture = f"The architecture {classifier.model.config.model_type!r}"
    batch = collate(classifier, encode(classifier, ["a text", "another, longer one, so that the first is padded"]))
    with torch.no_grad(), evaluation_mode(classifier.model):
        try:
            seen = trace(classifier, batch)
        except MBTSADError:
            raise
        except Exception as error:  # each architecture has its own
            raise UnsuitableModel(
                f"{architecture} fails on a batch of two texts: {reason_of(error)}. {SUITABLE}"
            ) from error
    for A in seen.attention:
        rows = A.transpose(1, 2)[seen.mask.bool()].float()  # (real tokens, H, T)
        if rows.min() < 0 or (rows.sum(-1) - 1).abs().max() > 0.01:
            raise UnsuitableModel(
                f"{architecture} returns attention scores that are no distributions over tokens, which the "
                f"distillation needs. {SUITABLE}"
            )


os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
