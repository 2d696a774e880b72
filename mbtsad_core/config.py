"""Every setting of every method, once: from here come the command line's flags, the page's controls and the report.

Each field carries its help, its range, and the paper's symbol. No default here is the paper's unless its help says so:
the paper (arXiv 2501.02754) does not print K, the learning rates, the epochs, alpha or beta. Those of MBTSAD were
chosen on development data (docs/recipe.md).
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
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


types_of = functools.cache(
    typing.get_type_hints
)  # working them out takes longer than all else that is done with a config


class Config:
    """Checks every field of a config dataclass against its type, its range and its choices."""

    def __post_init__(self) -> None:
        hints = types_of(type(self))  # type: ignore[arg-type]
        for f in fields(self):  # type: ignore[arg-type]
            value, kind = getattr(self, f.name), hints[f.name]
            if not _is_of(value, kind):
                raise BadConfig(f"`{f.name}` must be {_in_words(kind)}; got {value!r}.")
            if isinstance(value, Config) or value is None:
                continue
            low, high, choices = (f.metadata.get(k) for k in ("low", "high", "choices"))
            if choices and value not in choices:
                raise BadConfig(f"`{f.name}` must be one of {', '.join(choices)}; got {value!r}.")
            if low is not None and not (value >= low):
                raise BadConfig(f"`{f.name}` must be at least {low}; got {value!r}.")
            if high is not None and not (value <= high):
                raise BadConfig(f"`{f.name}` must be at most {high}; got {value!r}.")


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
class UnlearnConfig(TrainingConfig):
    """Unlearning of the sequences that the trigger scan finds, before step 1."""

    epochs: int = setting(
        3, "passes over the clean texts; 0: no scan for sequences, and nothing is unlearned", low=0, high=1000
    )
    always: bool = setting(
        False, "scan for sequences also where the trigger scan found a token that turns the suspect, or is left out"
    )
    learning_rate: float = setting(2e-4, "peak learning rate of the unlearning", low=1e-8, high=1.0)
    nats: float | None = setting(
        None,
        "nats by which a sequence must lower the log-odds of a class to be unlearned; where not given, the calibration "
        "of the scan decides",
        low=0.0,
        high=100.0,
    )
    tries: int = setting(8, "sequences that are tried in a text, of which the worst is trained on", low=1, high=100)
    thinning: float = setting(
        0.35, "mean share of a text's tokens that are left out where a sequence is put in", low=0.0, high=0.5
    )
    split: float = setting(0.5, "share of the texts that are token-split", low=0.0, high=1.0)


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
        "checkpointed: on the maps of one layer at a time; fused: on a GPU, without maps; auto: what suits model and "
        "device",
        choices=("auto", "plain", "checkpointed", "fused"),
    )


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """How a model is measured."""

    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the places of the trigger", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class ScanConfig(Config):
    """The scan of a model."""

    nats: float | None = setting(
        None,
        "nats by which a sequence must lower the log-odds of a class to count as a trigger; where not given, what "
        "hardly any clean model of the calibration does",
        low=0.0,
        high=100.0,
    )
    budget: float | None = setting(
        None,
        "seconds that the scan may take, its last word included; as long as it takes where not given",
        low=0.0,
        high=1e7,
    )
    max_length: int | None = text_length()
    seed: int = setting(0, "seed of the texts that are held out, and of the search", low=0, high=2**32 - 1)


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
    demo_run: bool = setting(True, "cure the demo once, in the background, so that every visitor finds a finished run")


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
    def bounds(self) -> str:
        """The range in words; "" where there is none."""
        if self.low is None or self.high is None:
            return ""
        return " to ".join(f"{end:,.0f}" if end == int(end) else f"{end:g}" for end in (self.low, self.high))

    @property
    def old_path(self) -> tuple[str, ...]:
        """Where the setting stood under its earlier name; () where it had none."""
        return (*self.path[:-1], self.was) if self.was else ()


def flag_of(path: tuple[str, ...]) -> str:
    """("split", "copies") -> --split-copies"""
    return "--" + "-".join(path).replace("_", "-")


def settings(config: Config, prefix: tuple[str, ...] = ()) -> list[Setting]:
    """All leaves of a config, depth first, with the config's own values as defaults."""
    hints = types_of(type(config))  # type: ignore[arg-type]
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
    return replace(kind(), paths(values))


def paths(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The leaves of nested values, by their path."""
    out: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        out |= paths(value, (*prefix, key)) if isinstance(value, dict) else {(*prefix, key): value}
    return out
