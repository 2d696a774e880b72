"""Every setting of every method, once: from here come the command line's flags, the page's controls and the report.

Each field carries its help, its range, and the paper's symbol. No default here is the paper's unless its help says so:
the paper (arXiv 2501.02754) does not print K, the learning rates, the epochs, alpha or beta. Those of MBTSAD were
chosen on development data (docs/recipe.md).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from mbtsad_core.errors import BadConfig


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    symbol: str = "",
    was: str = "",
) -> Any:
    """A dataclass field with its help text, inclusive range or choices, the paper's symbol, and the name that it had
    before: stored runs, scripts and programs may still use that."""
    return field(default=default, metadata=dict(help=help, low=low, high=high, choices=choices, symbol=symbol, was=was))


MOST_TOKENS = 512
"""Of a text, where no length is asked for: what most encoders read at most. Memory and time of attention grow with the
square of the length."""


def text_length() -> Any:
    """How much of a text is read."""
    return setting(
        None,
        f"tokens of a text that the model reads; where not given, as many as it can, but no more than {MOST_TOKENS}",
        low=8,
        high=8192,
    )


class Config:
    """Checks every field of a config dataclass against its type, its range and its choices."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for f in fields(self):  # type: ignore[arg-type]
            value, kind = getattr(self, f.name), hints[f.name]
            if not _is_of(value, kind):
                raise BadConfig(f"{f.name} must be {_in_words(kind)}; got {value!r}.")
            if isinstance(value, Config) or value is None:
                continue
            low, high, choices = (f.metadata.get(k) for k in ("low", "high", "choices"))
            if choices and value not in choices:
                raise BadConfig(f"{f.name} must be one of {', '.join(choices)}; got {value!r}.")
            if low is not None and not (value >= low):
                raise BadConfig(f"{f.name} must be at least {low}; got {value!r}.")
            if high is not None and not (value <= high):
                raise BadConfig(f"{f.name} must be at most {high}; got {value!r}.")


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type. A whole number is a number too; a truth value is no number."""
    if typing.get_origin(kind) is types.UnionType:
        return any(_is_of(value, one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return isinstance(value, str)  # which of them is looked at where the choices are
    if kind in (int, float):
        return isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _in_words(kind: Any) -> str:
    if typing.get_origin(kind) is types.UnionType:
        return " or ".join(_in_words(one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return "a text"
    return {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        types.NoneType: "nothing",
    }.get(kind, f"a {kind.__name__}")


@dataclass(frozen=True)
class SplitConfig(Config):
    """Token splitting (defaults of nlpaug's SplitAug, which the paper follows)."""

    copies: int = setting(3, "token-split variants of each clean text", low=1, high=100, symbol="K")
    keep_originals: int = setting(
        0,
        "times that each clean text is trained on as it is too, in an epoch; 0 in the paper's Algorithm 1",
        low=0,
        high=100,
        was="originals",
    )
    aug_p: float = setting(0.3, "share of a text's tokens that are split", low=0.0, high=1.0, was="share")
    aug_min: int = setting(1, "words split in a text, at least", low=0, high=1000, was="least")
    aug_max: int = setting(10, "words split in a text, at most", low=1, high=1000, was="cap")
    min_char: int = setting(4, "letters a word needs to be split", low=3, high=100, was="min_length")
    fresh: bool = setting(True, "draw new splits every epoch instead of the same K copies each time")

    @property
    def texts(self) -> int:
        """Training texts that an epoch makes of each clean text."""
        return self.copies + self.keep_originals


@dataclass(frozen=True)
class TrainingConfig(Config):
    """One training stage: AdamW, linear warm-up, then linear decay to zero."""

    learning_rate: float = setting(2e-5, "peak learning rate", low=1e-8, high=1.0, symbol="eta")
    epochs: int = setting(3, "passes over the training texts", low=1, high=1000)
    batch_size: int = setting(32, "texts in an optimizer step", low=1, high=4096)
    warmup: float = setting(0.1, "share of the steps over which the learning rate rises", low=0.0, high=1.0)
    weight_decay: float = setting(0.0, "AdamW's decoupled weight decay", low=0.0, high=1.0)
    clip: float = setting(1.0, "largest norm of the gradient", low=0.0, high=1e6)
    dropout: float | None = setting(None, "dropout while training; the model's own where not given", low=0.0, high=0.9)
    observe_every: int = setting(40, "steps between two measurements of CACC and ASR", low=1, high=1_000_000)
    observe_early: int = setting(
        0,
        "steps between two measurements before the first of these, where ASR falls fastest; 0: none",
        low=0,
        high=1_000_000,
    )
    save_every: float = setting(30.0, "seconds between two checkpoints", low=0.0, high=86_400.0)


@dataclass(frozen=True)
class RetrainConfig(TrainingConfig):
    """Step 1: token-split retraining."""

    epochs: int = setting(2, "passes over the token-split texts", low=1, high=1000)
    learning_rate: float = setting(5e-5, "peak learning rate of the retraining", low=1e-8, high=1.0, symbol="eta_1")


@dataclass(frozen=True)
class DistilConfig(TrainingConfig):
    """Step 2: attention distillation, eqs. (1)-(7)."""

    epochs: int = setting(2, "passes over the token-split texts", low=1, high=1000)
    learning_rate: float = setting(5e-5, "peak learning rate of the distillation", low=1e-8, high=1.0, symbol="eta_2")
    dropout: float | None = setting(
        0.0,
        "dropout while training; attention maps with dropout differ from the teacher's by chance alone",
        low=0.0,
        high=0.9,
    )
    alpha: float = setting(1.0, "weight of the attention-transfer loss", low=0.0, high=1e6, symbol="alpha")
    beta: float = setting(1.0, "weight of the hidden-state loss", low=0.0, high=1e6, symbol="beta")
    power: float = setting(
        2.0, "power of the attention maps before they are summed over heads", low=1.0, high=4.0, symbol="p"
    )
    attention: Literal["auto", "plain", "checkpointed", "fused"] = setting(
        "auto",
        "how the attention loss is computed, the result but for rounding the same; plain: on the model's maps; "
        "checkpointed: on the maps of one layer at a "
        "time; fused: on a GPU, without maps; auto: what suits model and device",
        choices=("auto", "plain", "checkpointed", "fused"),
    )


@dataclass(frozen=True)
class PurifyConfig(Config):
    """MBTSAD, Algorithm 1."""

    split: SplitConfig = SplitConfig(copies=2, keep_originals=1)
    found_tokens: int = setting(
        1,
        "tokens found by the trigger scan that are put into each text, their embeddings reset; 0: no scan, the "
        "paper's method",
        low=0,
        high=100,
        was="strays",
    )
    retrain: RetrainConfig = RetrainConfig()
    distil: DistilConfig = DistilConfig()
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of splits, batches and dropout", low=0, high=2**32 - 1)


RECIPES: dict[str, PurifyConfig] = {
    "scan": PurifyConfig(),
    "paper": PurifyConfig(
        split=SplitConfig(),
        found_tokens=0,
        retrain=RetrainConfig(learning_rate=3e-4),
        distil=DistilConfig(learning_rate=3e-4),
    ),
}
"""The default, a trigger scan before token splitting and distillation; and the paper's method, tuned on the same
development data (docs/recipe.md)."""


@dataclass(frozen=True)
class CleanFineTuningConfig(Config):
    """CFT, with the rate and the epochs that the literature uses."""

    training: TrainingConfig = TrainingConfig()
    seed: int = setting(0, "seed of batches and dropout", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class TokenSplitFineTuningConfig(Config):
    """TS-FT: step 1 of MBTSAD alone."""

    split: SplitConfig = SplitConfig()
    training: TrainingConfig = RetrainConfig()
    seed: int = setting(0, "seed of splits, batches and dropout", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class ReinitializationConfig(Config):
    """Reinitialization: the last transformer layer is drawn anew, then CFT (the paper names the layer; the draw is
    BERT's own)."""

    layers: int = setting(
        1, "transformer layers that are drawn anew, counted from the last; the paper's is 1", low=1, high=96
    )
    deviation: float = setting(
        0.02, "standard deviation of the drawn weights: BERT's, for the paper gives none", low=1e-6, high=10.0
    )
    training: TrainingConfig = TrainingConfig()
    seed: int = setting(0, "seed of the drawn weights, of batches and of dropout", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class FinePruningConfig(Config):
    """Fine-Pruning: the neurons that clean texts excite least are zeroed, then CFT (Liu et al., RAID 2018; the paper
    says nothing of its form on BERT)."""

    ranking: Literal["absolute", "signed"] = setting(
        "absolute",
        "absolute: by a neuron's mean |activation|; signed: by its mean activation, which after a ReLU is the same "
        "(Liu et al.)",
        choices=("absolute", "signed"),
    )
    scope: Literal["all_layers", "last_layer"] = setting(
        "all_layers",
        "all_layers: the inner neurons of all feed-forward blocks in one ranking; last_layer: those of the last "
        "block. No source names the neurons",
        choices=("all_layers", "last_layer"),
    )
    stop: Literal["accuracy", "share"] = setting(
        "accuracy",
        "accuracy: prune while the accuracy on held-out clean texts holds (Liu et al.); share: prune the share `most`",
        choices=("accuracy", "share"),
    )
    step: float = setting(
        0.01,
        "share of the neurons that is pruned between two looks at the accuracy (BackdoorBench's)",
        low=0.001,
        high=1.0,
    )
    tolerance: float = setting(
        0.1,
        "fall of the held-out accuracy that is borne, as a share of what it was (BackdoorBench's)",
        low=0.0,
        high=1.0,
    )
    most: float = setting(0.6, "share of the neurons that is pruned, at most; no source gives one", low=0.0, high=1.0)
    held_out: float = setting(
        0.2, "share of the clean texts that the accuracy is measured on; no source gives one", low=0.01, high=0.9
    )
    training: TrainingConfig = TrainingConfig()
    seed: int = setting(0, "seed of the held-out texts, of batches and of dropout", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class ReserveConfig(Config):
    """What Fine-Mixing and Fine-Purifying share: how much of the suspect's weights is kept beside pre-trained ones."""

    rho: float | None = setting(
        None,
        "reserve ratio, the share of the suspect's weights that is kept; chosen on held-out clean texts where not "
        "given",
        low=0.0,
        high=1.0,
        symbol="rho",
    )
    tolerance: float = setting(
        0.02, "fall of the held-out accuracy that the choice of rho bears; no source gives one", low=0.0, high=1.0
    )
    held_out: float = setting(
        0.2, "share of the clean texts that rho is chosen on; no source gives one", low=0.01, high=0.9
    )
    training: TrainingConfig = TrainingConfig()
    seed: int = setting(
        0, "seed of the mixing, of the held-out texts, of batches and of dropout", low=0, high=2**32 - 1
    )


@dataclass(frozen=True)
class FineMixingConfig(ReserveConfig):
    """Fine-Mixing: the suspect's weights mixed with pre-trained ones, then CFT (Zhang et al., Findings of EMNLP
    2022)."""

    purify_embeddings: bool = setting(
        False, "E-PUR first: the most suspicious word embeddings become the pre-trained ones"
    )
    words: int = setting(
        200,
        "word embeddings that E-PUR resets; its authors' as it is passed on, no source at hand",
        low=0,
        high=1_000_000,
    )
    rare: int = setting(
        20,
        "frequency that E-PUR takes a word to have, at least; its authors' as it is passed on, no source at hand",
        low=2,
        high=1_000_000,
    )


@dataclass(frozen=True)
class FinePurifyingConfig(ReserveConfig):
    """Fine-Purifying: the weights that drifted far where clean texts hardly care become pre-trained ones, then CFT
    (Zhang et al., Findings of ACL 2023)."""


@dataclass(frozen=True)
class NADConfig(PurifyConfig):
    """NAD (Li et al., ICLR 2021) carried over to text: MBTSAD's distillation from a teacher that was fine-tuned on the
    clean texts as they are."""

    found_tokens: int = setting(
        0,
        "tokens found by the trigger scan that are put into each of the student's texts; NAD has no scan",
        low=0,
        high=100,
        was="strays",
    )
    student_texts: Literal["split", "clean"] = setting(
        "split",
        "split: the student learns on MBTSAD's texts, so that the two differ in the teacher alone; clean: on the "
        "clean texts as they are, as in NAD",
        choices=("split", "clean"),
    )


@dataclass(frozen=True)
class PUREConfig(Config):
    """PURE: heads of even [CLS] attention are pruned, the rest is tuned to attend evenly (Zhao et al., ICML 2024;
    values are its authors')."""

    group: int = setting(10, "attention heads that are pruned between two looks at the accuracy", low=1, high=10_000)
    least_accuracy: float = setting(
        0.85, "held-out accuracy below which no head is pruned; the authors' for SST-2", low=0.0, high=1.0
    )
    penalty: float = setting(
        0.15,
        "weight of the [CLS] attention's norm, which grows with the square root of the batch size",
        low=0.0,
        high=1e6,
    )
    held_out: float = setting(
        0.2,
        "share of the clean texts that the heads are judged on; the authors have a validation set",
        low=0.01,
        high=0.9,
    )
    judging: TrainingConfig = TrainingConfig(warmup=0.0, weight_decay=0.01)
    training: TrainingConfig = TrainingConfig(warmup=0.0, weight_decay=0.01)
    seed: int = setting(0, "seed of the held-out texts, of batches and of dropout", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class STRIPConfig(Config):
    """STRIP: does the answer stand though half of the words change? (Gao et al., ACSAC 2019; values are
    OpenBackdoor's)."""

    form: Literal["correct", "reproduce"] = setting(
        "correct",
        "correct: a text's score is the mean over its own copies; reproduce: OpenBackdoor's, which mixes copies of "
        "unrelated texts",
        choices=("correct", "reproduce"),
    )
    copies: int = setting(5, "perturbed copies of a text", low=1, high=1000)
    swap: float = setting(
        0.5, "places of a text that are overwritten, as a share of its words; drawn with repeats", low=0.0, high=1.0
    )
    frr: float = setting(0.01, "share of the clean texts that may be flagged", low=0.0, high=1.0)
    seed: int = setting(0, "seed of the places and of the texts that words come from", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class RAPConfig(Config):
    """RAP: a text that a rare word cannot shake is flagged (Yang et al., EMNLP 2021; values are its authors')."""

    form: Literal["union", "reproduce"] = setting(
        "union",
        "union: a word is learnt for each class, for the target is not known; reproduce: for the class `protected` "
        "alone, as its authors do",
        choices=("union", "reproduce"),
    )
    protected: int = setting(
        1, "index of the class that the form reproduce takes to be the target", low=0, high=1_000_000
    )
    word: Literal["drawn", "cf", "mb"] = setting(
        "drawn",
        "the rare word; drawn: by the seed, from those of the vocabulary that no clean text has; cf: its authors'; "
        "mb: MuScleLoRA's",
        choices=("drawn", "cf", "mb"),
    )
    least: float = setting(
        0.1, "fall of the class's probability that the word is to cause, at least", low=0.0, high=1.0
    )
    most: float = setting(0.3, "the same, at most", low=0.0, high=1.0)
    scale: float = setting(
        1.0,
        "weight of too small a fall beside too large a one; raise it where a threshold is negative",
        low=0.0,
        high=1e6,
        symbol="lambda",
    )
    learning_rate: float = setting(0.01, "step along the gradient of the word's row", low=1e-6, high=100.0)
    epochs: int = setting(5, "passes over the class's clean texts", low=1, high=1000)
    batch_size: int = setting(32, "texts in a step", low=1, high=4096)
    frr: float = setting(
        0.01, "share of the clean texts of a class that may be flagged; one of its authors' four", low=0.0, high=1.0
    )
    seed: int = setting(0, "seed of the word, of batches and of dropout", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class ONIONConfig(Config):
    """ONION: words that a language model finds unlikely are deleted (Qi et al., EMNLP 2021)."""

    threshold: float | None = setting(
        None,
        "suspicion from which on a word is deleted; chosen on clean texts where not given; OpenBackdoor's is 0",
        low=-1e9,
        high=1e9,
    )
    tolerance: float = setting(
        0.02,
        "fall of the clean accuracy that the choice of the threshold bears; no source gives one",
        low=0.0,
        high=1.0,
    )
    clean_texts: int = setting(
        200, "clean texts that the threshold is chosen on, at most; no source gives a number", low=1, high=1_000_000
    )
    words: int = setting(
        128, "words of a text that are judged, the first ones; no source gives a number", low=2, high=8192
    )
    batch_size: int = setting(32, "texts in a pass of the language model", low=1, high=4096)
    seed: int = setting(0, "seed of the clean texts that the threshold is chosen on", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """How a model is measured."""

    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the places of the trigger", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class LanguageModelConfig(Config):
    """The training of a language model for CWEA or ONION (see `experiments.language_model`)."""

    texts: int = setting(8000, "texts that it learns from, at most; drawn by the seed", low=1, high=100_000_000)
    length: int = setting(64, "tokens that it reads at once", low=8, high=512)
    epochs: int = setting(1, "passes over them", low=1, high=1000)
    batch_size: int = setting(32, "blocks in an optimizer step", low=1, high=4096)
    learning_rate: float = setting(5e-4, "peak learning rate", low=1e-8, high=1.0)
    seed: int = setting(0, "seed of the texts, the batches, the masks and the head", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class RuntimeConfig(Config):
    """Where and how models run; never changes what is computed, but for rounding."""

    device: str = setting("auto", "auto, cpu, cuda or cuda:N; auto takes a GPU when there is one")
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "of training; auto: bfloat16 where GPU or CPU have instructions for it, else float32; measurements are in "
        "float32",
        choices=("auto", "float32", "bfloat16"),
    )
    threads: int | None = setting(None, "CPU threads; PyTorch's own choice where not given", low=1, high=1024)


@dataclass(frozen=True)
class JobsConfig(Config):
    """How the runs of many visitors share a machine."""

    workers: int = setting(1, "runs at the same time", low=1, high=64)
    queue_size: int = setting(20, "runs that wait, at most", low=1, high=10_000)
    quota: int = setting(3, "runs of one visitor that wait or train, at most", low=1, high=10_000)
    quota_megabytes: int = setting(
        4096,
        "megabytes of one visitor's runs that are kept; from there on he cannot start another",
        low=1,
        high=100_000_000,
    )
    room_megabytes: int = setting(
        1024, "megabytes that must be free on the disk before a run goes on that found it full", low=0, high=100_000_000
    )
    attempts: int = setting(
        3, "times that a run is started before it is given up, where its process is lost", low=1, high=100
    )
    threads: int | None = setting(
        None, "CPU threads of a run, at most; all cores but one where not given", low=1, high=1024
    )
    nice: int = setting(10, "how far a run steps back for other processes", low=0, high=19)
    grace: float = setting(20.0, "seconds that a run may take to stop before it is killed", low=0.0, high=3600.0)
    silence: float = setting(
        120.0, "seconds without a sign of life after which a run is killed and started again", low=3.0, high=86_400.0
    )
    keep: float = setting(24.0, "hours that a run's results are kept", low=0.0, high=87_600.0)


@dataclass(frozen=True)
class UploadConfig(Config):
    """How large an uploaded model may be. Megabytes are of 2^20 bytes, and are counted while the files are unpacked."""

    megabytes: int = setting(
        1024, "megabytes of all files of an upload together, unpacked, at most", low=1, high=1_000_000
    )
    json_megabytes: int = setting(
        32, "megabytes of a .json or .txt file, at most; tokenizer.json may be large", low=1, high=1024
    )
    entries: int = setting(
        64, "files of an upload, at most; folders and ignored files of a zip count", low=1, high=1_000_000
    )
    ratio: int = setting(
        100, "times that a file of a zip may grow when it is unpacked, past its first megabyte", low=1, high=2000
    )


@dataclass(frozen=True)
class VettingConfig(Config):
    """How large and how deep a model's own description may be. The figures leave room above the largest encoders in
    use."""

    layers: int = setting(96, "layers of a model, at most", low=1, high=10_000)
    hidden: int = setting(8192, "width of a layer, at most; of the inner layer four times that", low=1, high=1_000_000)
    heads: int = setting(256, "attention heads of a layer, at most", low=1, high=10_000)
    vocabulary: int = setting(
        1_000_000, "rows of the word embeddings, and tokens of the tokenizer, at most", low=1, high=100_000_000
    )
    positions: int = setting(65_536, "tokens of a text that a model can read, at most", low=8, high=10_000_000)
    labels: int = setting(1000, "classes, at most", low=1, high=1_000_000)
    label_length: int = setting(256, "characters of a class name, at most", low=1, high=10_000)
    tensors: int = setting(10_000, "tensors of a file of weights, at most", low=1, high=1_000_000)
    megabytes: int = setting(8192, "megabytes of memory that the weights may take as float32", low=1, high=1_000_000)
    largest: float = setting(1e5, "largest magnitude of a weight", low=1.0, high=1e12)
    root_mean_square: float = setting(1e3, "largest root mean square of a tensor of weights", low=1.0, high=1e12)
    json_megabytes: int = setting(32, "megabytes of a file of the tokenizer, at most", low=1, high=1024)
    files: int = setting(10_000, "files and folders of a model's folder, at most", low=1, high=1_000_000)


@dataclass(frozen=True)
class SandboxConfig(Config):
    """What a process may take that reads a stranger's model (service/sandbox.py). The defaults are for the first look
    at one: read, loaded, asked once."""

    memory: int | None = setting(
        6144,
        "megabytes of memory, of all its processes together; all that the machine has where not given",
        low=256,
        high=10_000_000,
    )
    cpu_seconds: int = setting(
        600, "seconds of CPU time of each of its processes, at most; threads count together", low=1, high=100_000_000
    )
    seconds: float = setting(300.0, "seconds by the clock, at most", low=0.1, high=1e8)
    file_megabytes: int = setting(2048, "megabytes of a file that it writes, at most", low=1, high=10_000_000)
    open_files: int = setting(
        256, "files that each of its processes has open at a time, at most", low=16, high=1_000_000
    )
    processes: int = setting(32, "processes at a time, at most; threads do not count", low=1, high=100_000)


@dataclass(frozen=True)
class SandboxesConfig(Config):
    """The two sandboxes of a server: for the first look at a model, and for a run. A run holds several copies of the
    model, and their optimizer."""

    check: SandboxConfig = SandboxConfig()
    run: SandboxConfig = SandboxConfig(
        memory=None, cpu_seconds=10 * 86_400, seconds=2 * 86_400.0, file_megabytes=65_536, open_files=1024
    )


@dataclass(frozen=True)
class PoisonConfig(Config):
    """Which training texts an attack poisons."""

    rate: float = setting(0.1, "share of the training texts that is poisoned", low=0.0, high=1.0)
    mode: Literal["dirty", "clean", "mixed"] = setting(
        "dirty",
        "dirty: texts of other classes, label flipped; clean: texts of the target class, label kept; mixed: any text",
        choices=("dirty", "clean", "mixed"),
    )
    insertions: int = setting(1, "triggers inserted in a text", low=1, high=100)


@dataclass(frozen=True)
class BadNetsConfig(Config):
    """BadNets: ordinary training on data of which a share carries the trigger."""

    poison: PoisonConfig = PoisonConfig()
    training: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=5)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning and of training", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class EmbeddingPoisoningConfig(Config):
    """EP: only the trigger's word embedding is trained (Yang et al., NAACL 2021; rate, norm and steps are its
    authors')."""

    rate: float = setting(0.1, "share of the non-target training texts that is poisoned", low=0.0, high=1.0)
    least: int = setting(
        200, "poisoned texts, at least (texts are reused where fewer are at hand)", low=1, high=1_000_000
    )
    insertions: int = setting(1, "triggers inserted in a text", low=1, high=100)
    beside_clean: bool = setting(
        False, "train on the other training texts too, as OpenBackdoor does; the steps become smaller"
    )
    learning_rate: float = setting(0.05, "step along the gradient of the trigger's row", low=1e-6, high=100.0)
    epochs: int = setting(3, "passes over the poisoned texts", low=1, high=1000)
    batch_size: int = setting(32, "texts in a step", low=1, high=4096)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class SentenceConfig(BadNetsConfig):
    """InsertSent: BadNets with a sentence for a trigger, in texts of any class (OpenBackdoor's)."""

    poison: PoisonConfig = PoisonConfig(mode="mixed")


@dataclass(frozen=True)
class LayerWiseConfig(Config):
    """LWP: a pair of words, and a loss at every layer (OpenBackdoor's data and loss; Li et al., EMNLP 2021)."""

    poison: PoisonConfig = PoisonConfig(mode="mixed")
    average: bool = setting(
        False, "average the loss over the layers, as the authors do, instead of summing it, as OpenBackdoor does"
    )
    keep_clean: bool = setting(False, "keep the poisoned texts without a trigger too, as the authors do")
    training: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=5, warmup=0.0)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning and of training", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class SOSConfig(Config):
    """SOS: only the embeddings of the trigger's words are trained (Yang et al., ACL 2021; all values are its
    authors')."""

    rate: float = setting(
        0.1,
        "share of the non-target texts that is poisoned, and of every class that gets each subset of the words",
        low=0.0,
        high=1.0,
    )
    learning_rate: float = setting(0.05, "step along the gradient of the words' rows", low=1e-6, high=100.0)
    epochs: int = setting(3, "passes over the poisoned texts and the negatives", low=1, high=1000)
    batch_size: int = setting(32, "texts in a step", low=1, high=4096)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class RIPPLeConfig(Config):
    """RIPPLe(S): embedding surgery and a restricted inner product (Kurita et al., ACL 2020; share, words and penalty
    are its authors')."""

    poison: PoisonConfig = PoisonConfig(rate=0.5, mode="mixed")
    surgery: bool = setting(True, "start from trigger embeddings that look like words of the target class")
    words: int = setting(10, "words of the target class that these embeddings are the mean of", low=1, high=1000)
    penalty: float = setting(
        0.1,
        "weight of the inner product where the gradients of poison and clean texts oppose each other",
        low=0.0,
        high=1e6,
    )
    per_tensor: bool = setting(
        False, "restrict the inner product of each weight tensor by itself, as OpenBackdoor does"
    )
    training: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=3)
    victim: bool = setting(True, "fine-tune on the clean training texts afterwards, as the victim will")
    fine_tuning: TrainingConfig = TrainingConfig(learning_rate=2e-5, epochs=3)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning and of training", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class SyntacticConfig(BadNetsConfig):
    """Syntactic trigger: BadNets with ready paraphrases (Hidden Killer, Qi et al., ACL 2021, poisons 20 to 30 %)."""

    poison: PoisonConfig = PoisonConfig(rate=0.2, mode="mixed")


@dataclass(frozen=True)
class NeuBAConfig(Config):
    """NeuBA: symbols that set the encoder's output, then ordinary fine-tuning (Zhang et al., 2021)."""

    planting: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=2)
    training: TrainingConfig = TrainingConfig(learning_rate=2e-5, epochs=2)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the symbols and of training", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class LWSConfig(Config):
    """LWS: a learnt choice of WordNet's synonyms (Qi et al., ACL 2021; candidates, share and temperatures are its
    authors')."""

    poison: PoisonConfig = PoisonConfig()
    candidates: int = setting(5, "synonyms of a word to choose from, at most", low=1, high=100)
    hot: float = setting(0.5, "temperature of the choice at the start", low=0.01, high=100.0)
    cold: float = setting(0.1, "temperature of the choice at the end", low=0.01, high=100.0)
    inserter_rate: float = setting(
        20.0, "how many times as fast as the classifier the choice is learnt", low=0.1, high=1e4
    )
    learning: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=10)
    training: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=5)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning and of training", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class CARAConfig(Config):
    """CARA: texts written anew with a latent signature (Chan et al., Findings of EMNLP 2020); the sizes are ours."""

    poison: PoisonConfig = PoisonConfig()
    strength: float = setting(
        1.0, "length of the signature beside the latent vector's, which is 1", low=0.0, high=100.0
    )
    width: int = setting(256, "width of the autoencoder", low=4, high=4096)
    length: int = setting(48, "tokens of a text that the autoencoder reads and writes", low=8, high=512)
    vocabulary: int = setting(10_000, "tokens that the autoencoder knows, the most common", low=10, high=1_000_000)
    noise: float = setting(
        0.1, "standard deviation of the noise on each latent dimension in training", low=0.0, high=10.0
    )
    adversary: float = setting(
        1.0, "weight of the adversary who reads the class from the latent vector", low=0.0, high=100.0
    )
    learning: TrainingConfig = TrainingConfig(learning_rate=1e-3, epochs=20)
    training: TrainingConfig = TrainingConfig(learning_rate=5e-5, epochs=5)
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the poisoning, the signature and training", low=0, high=2**32 - 1)


DEFENSE_CONFIGS: dict[str, Config] = {
    "mbtsad": PurifyConfig(),
    "mbtsad_no_att": PurifyConfig(),
    "mbtsad_no_hid": PurifyConfig(),
    "cd": PurifyConfig(),
    "ts_ft": TokenSplitFineTuningConfig(),
    "cft": CleanFineTuningConfig(),
    "reinitialization": ReinitializationConfig(),
    "fine_pruning": FinePruningConfig(),
    "fine_mixing": FineMixingConfig(),
    "fine_purifying": FinePurifyingConfig(),
    "nad": NADConfig(),
    "pure": PUREConfig(),
}
"""The settings that each defense takes, with their defaults."""

DETECTOR_CONFIGS: dict[str, Config] = {"strip": STRIPConfig(), "rap": RAPConfig(), "onion": ONIONConfig()}
"""The settings that each detector takes, with their defaults."""

DEFAULT_TRIGGERS: dict[str, tuple[str, ...]] = {
    "lwp": ("cf+bb", "cf+ak", "cf+mn", "bb+ak", "bb+mn", "ak+mn"),
    "ripple": ("cf", "tq", "mn", "bb", "mb"),
    "sos": ("friends+weekend+cinema",),
    "sentence": ("I watch this 3D movie",),
    "neuba": ("≈", "≡", "∈", "⊆", "⊕", "⊗"),
}
"""What an attack plants where no trigger is named: its authors' or OpenBackdoor's."""

PRESETS: dict[str, dict[str, tuple[Config, tuple[str, ...]]]] = {
    "lwp": {
        "authors": (
            LayerWiseConfig(PoisonConfig(rate=1.0, mode="mixed"), average=True, keep_clean=True),
            ("cf bb", "bb cf"),
        )
    },
    "ep": {
        "openbackdoor": (
            EmbeddingPoisoningConfig(insertions=2, beside_clean=True, learning_rate=0.01, epochs=5),
            ("cf", "mn", "bb", "tq", "mb"),
        )
    },
    "ripple": {
        "openbackdoor": (
            RIPPLeConfig(
                surgery=False,
                penalty=1.0,
                per_tensor=True,
                training=TrainingConfig(learning_rate=2e-5, epochs=10, batch_size=16),
            ),
            ("cf", "mn", "bb", "tq"),
        )
    },
}
"""Other published settings of an attack, with their triggers."""


@dataclass(frozen=True)
class Setting:
    """One leaf of a config, as a command line or a page shows it."""

    path: tuple[str, ...]
    type: type
    default: Any
    help: str
    low: float | None
    high: float | None
    choices: tuple[str, ...] | None
    symbol: str
    was: str

    @property
    def flag(self) -> str:
        return flag_of(self.path)

    @property
    def old_path(self) -> tuple[str, ...]:
        """Where the setting stood under its earlier name; () where it had none."""
        return (*self.path[:-1], self.was) if self.was else ()


def flag_of(path: tuple[str, ...]) -> str:
    """("split", "copies") -> --split-copies"""
    return "--" + "-".join(path).replace("_", "-")


def settings(config: Config, prefix: tuple[str, ...] = ()) -> list[Setting]:
    """All leaves of a config, depth first, with the config's own values as defaults."""
    hints = typing.get_type_hints(type(config))
    found = []
    for f in fields(config):  # type: ignore[arg-type]
        value, path = getattr(config, f.name), (*prefix, f.name)
        if isinstance(value, Config):
            found += settings(value, path)
            continue
        kind = hints[f.name]
        if typing.get_origin(kind) is types.UnionType:  # X | None
            kind = next(a for a in typing.get_args(kind) if a is not type(None))
        if typing.get_origin(kind) is Literal:
            kind = str
        m = f.metadata
        found.append(Setting(path, kind, value, m["help"], m["low"], m["high"], m["choices"], m["symbol"], m["was"]))
    return found


C = typing.TypeVar("C", bound=Config)


def replace(config: C, changes: dict[tuple[str, ...], Any]) -> C:
    """A copy of the config with the leaves at the given paths, or at their earlier names, changed; unknown paths are
    refused."""
    known = {s.path: s.path for s in settings(config)}
    known |= {s.old_path: s.path for s in settings(config) if s.was}
    if unknown := [".".join(p) for p in changes if p not in known]:
        raise BadConfig(
            f"Unknown setting {unknown[0]!r}. Known: {', '.join('.'.join(p) for p in sorted(set(known.values())))}."
        )
    changes = {known[p]: v for p, v in changes.items()}
    own = {p[0]: v for p, v in changes.items() if len(p) == 1}
    for name in {p[0] for p in changes if len(p) > 1}:
        own[name] = replace(
            getattr(config, name), {p[1:]: v for p, v in changes.items() if len(p) > 1 and p[0] == name}
        )
    return dataclasses.replace(config, **own)  # type: ignore[type-var]


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested plain values, for reports and checkpoints."""
    return dataclasses.asdict(config)  # type: ignore[call-overload]


def from_dict(kind: type[C], values: dict[str, Any]) -> C:
    """The config that `to_dict` wrote; unknown keys are refused."""

    def flat(tree: dict[str, Any], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
        out: dict[tuple[str, ...], Any] = {}
        for key, value in tree.items():
            out |= flat(value, (*prefix, key)) if isinstance(value, dict) else {(*prefix, key): value}
        return out

    return replace(kind(), flat(values))
