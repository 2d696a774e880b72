"""How fast this is: the same work done by us and the plain way, in turns, with the share of the machine's own peak that
is reached.

The plain way is what a user would write: the library's `Trainer`, eager attention, `output_attentions=True`, the texts
padded to the longest that the model reads, as the library's own text-classification example pads, or to the longest of
a batch. Each way runs in a process of its own, that stays between its runs; the runs take turns, and medians count.
What loads and warms a process is not timed, what a text goes through is.

All ways multiply in the same precision. The library's own default is another one on a CPU: there a `Trainer` whose
precision nobody sets trains in float32, where ours takes bfloat16 if the processor has it. A workload can be timed that
way too, in keys of their own; on a GPU bfloat16 is what both take.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Any, Literal, TextIO

from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig, SplitConfig, from_dict, to_dict
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import BadConfig, MBTSADError, UnknownMethod

if TYPE_CHECKING:
    from torch import Tensor

    from mbtsad_core.models.classifier import Batch, Classifier
    from mbtsad_core.types import LabelledText

OURS, EXAMPLE, DYNAMIC = "ours", "plain_example", "plain_dynamic"
ALL = (OURS, EXAMPLE, DYNAMIC)
# The plain ways in the precision that the library has by itself
BY_DEFAULT = {"plain_example_default": EXAMPLE, "plain_dynamic_default": DYNAMIC}
# Of a row: seconds of these ways, and their ratios to ours
DEFAULTS = {"default_example_s": "plain_example_default", "default_dynamic_s": "plain_dynamic_default"}
RATIOS = {
    "ratio_example": EXAMPLE,
    "ratio_dynamic": DYNAMIC,
    "ratio_default_example": "plain_example_default",
    "ratio_default_dynamic": "plain_dynamic_default",
}

Runs = dict[str, list[dict[str, Any]]]
"""What each way's runs told, in the order of the runs."""


@dataclass(frozen=True)
class Shape:
    """A BERT of random weights, which are as fast as trained ones."""

    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int = 30522


@dataclass(frozen=True)
class Workload:
    """What is timed.

    kind   purification, evaluation, token splitting, projection or start-up
    ways   who does it: we alone, or the plain ways too
    default  time the plain ways in the library's default precision too, where that is not ours: once, for it is slow,
             and only where all is timed
    shape  None: the demo's suspect
    texts  number of texts, on a CPU and on a GPU
    batch  texts of a step, likewise
    long   texts as long as IMDb's, many of them cut at `length`; else the demo's, which are as long as SST-2's
    length tokens of a text that the model reads
    """

    about: str
    kind: str = "purification"
    ways: tuple[str, ...] = ALL
    default: bool = False
    shape: Shape | None = None
    texts: tuple[int, int] = (320, 667)
    batch: tuple[int, int] = (32, 32)
    long: bool = False
    length: int = 128


MINILM, BERT_BASE = Shape(6, 384, 12, 1536), Shape(12, 768, 12, 3072)
WORKLOADS: dict[str, Workload] = {
    "demo": Workload("purification of the demo's suspect"),
    "sst2-minilm": Workload(
        "purification of a MiniLM on texts as long as SST-2's", shape=MINILM, texts=(160, 1384), default=True
    ),
    "sst2-bert": Workload("purification of a BERT-base on texts as long as SST-2's", shape=BERT_BASE, texts=(32, 1384)),
    "imdb-bert": Workload(
        "purification of a BERT-base on texts as long as IMDb's",
        shape=BERT_BASE,
        texts=(4, 320),
        batch=(2, 32),
        long=True,
        length=512,
    ),
    "token-splitting": Workload("token splitting; the plain way is nlpaug's", "token splitting", ways=(OURS, EXAMPLE)),
    "evaluation": Workload("classes of the demo's texts, in float32", "evaluation"),
    "projection": Workload("UMAP of the demo's texts before and after", "projection", ways=(OURS,)),
    "start-up": Workload("mbtsad --help, from the start of the process to its end", "start-up", ways=(OURS,)),
}
QUICK = ("demo", "sst2-minilm", "evaluation", "token-splitting", "start-up")
"""What is timed where nothing is named."""


# ---------------------------------------------------------------- in turns


def benchmark(
    names: Sequence[str], runtime: RuntimeConfig, rounds: int, say: Callable[[str], None], *, full: bool = True
) -> list[dict[str, Any]]:
    """One row a workload, its keys those of `row`; where it is not `full`, without the library's default precision.
    Raises UnknownMethod, and BadConfig where a package of the plain way is missing."""
    for name in names:
        if name not in WORKLOADS:
            raise UnknownMethod("workload", name, tuple(WORKLOADS))
    if not 1 <= rounds <= 1000:
        raise BadConfig(f"--rounds must be from 1 to 1000; got {rounds}.")
    if importlib.util.find_spec("accelerate") is None and any(DYNAMIC in WORKLOADS[name].ways for name in names):
        raise BadConfig(
            "The plain way is the library's Trainer, which needs accelerate. Run: pip install 'mbtsad[benchmark]'"
        )
    chosen = {name: dataclasses.replace(WORKLOADS[name], default=full and WORKLOADS[name].default) for name in names}
    return [timed(name, workload, runtime, rounds, say) for name, workload in chosen.items()]


Start = Callable[[Workload, str, RuntimeConfig], AbstractContextManager[Callable[[], dict[str, Any]]]]


def timed(
    name: str,
    workload: Workload,
    runtime: RuntimeConfig,
    rounds: int,
    say: Callable[[str], None],
    start: Start | None = None,
) -> dict[str, Any]:
    """The row of one workload; each way is done by what `start` gives, a process of its own unless one says
    otherwise."""
    start = start or _process
    ways = workload.ways
    runs: Runs = {way: [] for way in ways}
    with ExitStack() as stack:
        ask = {way: stack.enter_context(start(workload, way, runtime)) for way in ways}
        for i in range(rounds):
            for way in ways if i % 2 == 0 else ways[::-1]:
                runs[way].append(ask[way]() | {"load": os.getloadavg()[0]})
                say(f"{name}  {way}  {runs[way][-1]['seconds']:.2f} s  (load {runs[way][-1]['load']:.1f})")
    ours = runs[OURS][0]
    if workload.default and ours["precision"] != (precision := default_precision(ours["device"])):
        for way, plain in BY_DEFAULT.items():
            with start(workload, plain, dataclasses.replace(runtime, precision=precision)) as run:
                runs[way] = [run() | {"load": os.getloadavg()[0]}]
            say(f"{name}  {way}  {runs[way][0]['seconds']:.2f} s  (load {runs[way][0]['load']:.1f})")
    return row(name, runs)


def default_precision(device: str) -> Literal["float32", "bfloat16"]:
    """What the plain way multiplies in where nobody thinks of it: the library's float32 on a CPU; on a GPU its
    examples' users ask for bfloat16."""
    return "float32" if device == "cpu" else "bfloat16"


def row(name: str, runs: Runs) -> dict[str, Any]:
    """What the runs of a workload come to. Ratios are plain to ours, above 1 where ours is better; None where there is
    no plain way or no figure.

    ours_s, plain_example_s, plain_dynamic_s  medians of seconds
    default_example_s, default_dynamic_s, ratio_default_example, ratio_default_dynamic
                       the same with the plain ways in the library's default precision, `default_precision`; the ratios
                       of core-seconds `cpu_s` too
    intervals          the least and the largest of each ratio, of a round's run to our run of the same round: the
                       median lies between them in three of four cases with three rounds, in 15 of 16 with five
    share_of_peak      operations that the texts need, padding not counted, a second of ours, beside those of a product
                       of large matrices in our precision
    share_of_float32_peak  the same beside a product of large matrices in float32
    peak_memory_ratio  the example's peak to ours: of a GPU's memory in use, on a CPU of the process
    cpu_s              medians of a core's seconds, all threads together: what is left of the figures on a machine that
                       is busy with other things
    load               mean of the machine's load averages over the last minute, after each run
    scores             CACC and ASR of the purified models, a seed a round; on the demo, which is no model of random
                       weights
    """

    ours = runs[OURS][0]
    default = default_precision(ours["device"])
    if ours.get("precision") == default:
        runs = {way: runs[plain] for way, plain in BY_DEFAULT.items() if plain in runs} | runs
    seconds = {way: _median(runs, way, "seconds") for way in (*ALL, *BY_DEFAULT)}
    return {
        "workload": name,
        "ours_s": round(seconds[OURS], 4),
        **{f"{way}_s": seconds[way] and round(seconds[way], 4) for way in (EXAMPLE, DYNAMIC)},
        **{ratio: _ratio(runs, way, "seconds") for ratio, way in RATIOS.items() if way in ALL},
        **{figure: seconds[way] and round(seconds[way], 4) for figure, way in DEFAULTS.items()},
        **{ratio: _ratio(runs, way, "seconds") for ratio, way in RATIOS.items() if way not in ALL},
        "intervals": {ratio: _interval(runs, way) for ratio, way in RATIOS.items() if way in ALL},
        "default_precision": default,
        "cpu_ratios": {way: _ratio(runs, way, "cpu") for way in (EXAMPLE, DYNAMIC, *BY_DEFAULT)},
        "peak_memory_ratio": _ratio(runs, EXAMPLE, "memory"),
        **_speed(runs[OURS], seconds[OURS]),
        "cpu_s": {way: round(median(run["cpu"] for run in found), 3) for way, found in runs.items()},
        "peak_memory_mb": {way: round(max(run["memory"] for run in found) / 2**20) for way, found in runs.items()},
        **{key: ours.get(key) for key in ("device", "precision", "attention")},
        "load": round(mean(run["load"] for found in runs.values() for run in found), 2),
        "runs": {way: [round(run["seconds"], 4) for run in found] for way, found in runs.items()},
        "scores": {
            way: {rate: [round(run[rate], 4) for run in found] for rate in ("cacc", "asr")}
            for way, found in runs.items()
            if "cacc" in found[0]
        },
    }


def _median(runs: Runs, way: str, key: str) -> Any:
    values = [run[key] for run in runs.get(way, []) if run.get(key) is not None]
    return median(values) if values else None


def _ratio(runs: Runs, way: str, key: str) -> float | None:
    theirs, ours = _median(runs, way, key), _median(runs, OURS, key)
    return round(theirs / ours, 3) if theirs and ours else None


def _interval(runs: Runs, way: str) -> list[float] | None:
    ratios = [theirs["seconds"] / ours["seconds"] for theirs, ours in zip(runs.get(way, []), runs[OURS], strict=False)]
    return [round(min(ratios), 3), round(max(ratios), 3)] if ratios else None


def _speed(runs: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What our runs reach, as amounts a second and as shares of what the machine can do."""
    ours = runs[0]
    found: dict[str, Any] = {f"{key}_per_s": ours.get(key) for key in ("samples", "tokens")}
    found = {key: n and round(n / seconds, 2 if key == "samples_per_s" else 1) for key, n in found.items()}
    for share, gflops, key in (
        ("share_of_peak", "peak_gflops", "peak"),
        ("share_of_float32_peak", "peak_float32_gflops", "peak_float32"),
    ):
        peak, needed = max((run.get(key, 0.0) for run in runs), default=0.0), ours.get("operations")
        found[share] = round(needed / seconds / peak, 4) if needed and peak else None
        found[gflops] = round(peak / 1e9, 1) if peak else None
    return found


@contextmanager
def _process(workload: Workload, way: str, runtime: RuntimeConfig) -> Iterator[Callable[[], dict[str, Any]]]:
    """A process that does a workload one way each time that it is asked, and tells how it went."""
    command = [
        sys.executable,
        "-m",
        "mbtsad_core.research.benchmark",
        way,
        json.dumps(dataclasses.asdict(workload)),
        json.dumps(to_dict(runtime)),
    ]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as complaints,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def answered(asked: str) -> dict[str, Any]:
            line = ""
            try:
                stdin.write(asked)
                stdin.flush()
                line = stdout.readline()
            except BrokenPipeError:
                pass
            if not line:
                process.wait()
                complaints.seek(0)
                said = complaints.read().strip().splitlines() or ["it said nothing"]
                raise MBTSADError(
                    f"The process that timed the {workload.about} ({way}) ended with code {process.returncode}: "
                    f"{said[-1]}"
                )
            answer: dict[str, Any] = json.loads(line)
            return answer

        try:
            answered("")  # loaded and warm: what it does for that would else take time from a run of another way
            yield lambda: answered("run\n")
        except BaseException:
            process.kill()
            raise
        finally:
            stdin.close()


def serve(workload: Workload, way: str, runtime: RuntimeConfig, asked: TextIO, answers: TextIO) -> None:
    """The other end of `_process`: a line of JSON once it is ready, and one for each line that is asked."""
    job = prepare(workload, way, runtime)
    print(json.dumps({"ready": way}), file=answers, flush=True)
    for _ in asked:
        print(json.dumps(job()), file=answers, flush=True)


# ---------------------------------------------------------------- in the process of one way


def prepare(workload: Workload, way: str, runtime: RuntimeConfig) -> Callable[[], dict[str, Any]]:
    """Load and warm up what a workload needs, and return what does it once and tells of it.

    It tells "seconds", "cpu" seconds, "memory" in bytes, "device", and where they mean something "samples", "tokens",
    "operations", "peak" and "peak_float32" in operations a second, "precision" and "attention".
    """
    from mbtsad_core.models.linear import set_products

    if workload.kind == "start-up":
        return _starting()
    if workload.kind == "token splitting":
        return _splitting(workload, way)
    if workload.kind == "projection":
        return _projecting()
    suspect = suspect_of(workload, runtime)
    if way != OURS:
        set_products(suspect.model, onednn=False)  # as the library has them
    return _evaluating(workload, way, suspect) if workload.kind == "evaluation" else _purifying(workload, way, suspect)


def clock(work: Callable[[], Any], device: Any = None) -> dict[str, Any]:
    """Seconds, seconds of a processor's core, and peak memory of some work."""
    gpu = device is not None and device.type == "cuda"
    if gpu:
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    started, spent = time.perf_counter(), time.process_time()
    work()
    if gpu:
        torch.cuda.synchronize(device)
    seconds, spent = time.perf_counter() - started, time.process_time() - spent
    memory = torch.cuda.max_memory_allocated(device) if gpu else peak_memory()
    if gpu:
        torch.cuda.empty_cache()  # the other ways' processes share the GPU
    return {"seconds": seconds, "cpu": spent, "memory": memory, "device": str(device or "cpu")}


def peak_memory() -> int:
    """Bytes that this process has had in memory at once."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss counts what started this process too
        return 1024 * int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def suspect_of(workload: Workload, runtime: RuntimeConfig) -> Classifier:
    import torch

    from mbtsad_core.models.classifier import load_classifier, place
    from mbtsad_core.models.demo import demo_model

    demo = load_classifier(demo_model("suspect"), max_length=workload.length)
    if workload.shape is None:
        return place(demo, runtime)
    from transformers import BertConfig, BertForSequenceClassification

    shape = workload.shape
    sizes = dict(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
    )
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=shape.vocabulary, **sizes)).eval()
    return place(dataclasses.replace(demo, model=model, max_length=workload.length), runtime)


def texts_of(workload: Workload, n: int) -> list[LabelledText]:
    """The demo's clean texts over and over, or texts of them put together with about as many words as IMDb's have
    (median 174)."""
    from mbtsad_core.data import read_dataset
    from mbtsad_core.models import demo
    from mbtsad_core.types import LabelledText

    given = list(read_dataset(str(demo.demo_texts("clean")), labels=demo.LABELS).texts)
    rng, found, at = random.Random(0), [], 0
    for _ in range(n):
        wanted = math.exp(rng.gauss(math.log(174), 0.75)) if workload.long else 1
        words: list[str] = []
        while len(words) < wanted:
            words += given[at % len(given)].text.split()
            label, at = given[at % len(given)].label, at + 1
        found.append(LabelledText(" ".join(words), label))
    return found


def operations(suspect: Classifier, lengths: Sequence[int], *, training: bool, hidden: bool = False) -> int:
    """Operations that texts of these lengths need, a multiplication and an addition apart: 2 a parameter and token and
    4 T^2 D a layer for the two products of the attention, three times that in a training step. Word embeddings are
    looked up, not multiplied. What follows the last layer's attention counts for one token a text, which is all that
    the logits need (models/first_token.py), but where the last `hidden` states are needed too."""
    model = suspect.model
    sizes = {name: p.numel() for name, p in model.named_parameters() if "embeddings" not in name}
    last = f".layer.{model.config.num_hidden_layers - 1}."

    def for_one_token(name: str) -> bool:
        return ".layer." not in name or (not hidden and last in name and ".attention.self." not in name)

    once = sum(size for name, size in sizes.items() if for_one_token(name))
    attention = 4 * model.config.num_hidden_layers * model.config.hidden_size
    forward = sum(2 * (sum(sizes.values()) - once) * T + 2 * once + attention * T * T for T in lengths)
    return forward * (3 if training else 1)


SQUARES = {
    "cuda": ((8192, 4),),
    "cpu": ((1024, 30), (2048, 4)),
}  # rows of the products that tell the peak, and how often


def matrix_peak(device: Any, precision: str) -> float:
    """Operations a second of a product of large square matrices, the best of several: short ones too, that other work
    seldom interrupts; and on a CPU the best of what PyTorch chooses and oneDNN, in float32 often the faster one
    (models/linear.py)."""
    import torch

    from mbtsad_core.models.linear import onednn_is_faster

    best = 0.0
    products: list[Callable[[Tensor, Tensor], Tensor]] = [torch.matmul]
    if device.type == "cpu" and precision == "float32" and onednn_is_faster():
        products.append(lambda a, b: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
    for n, times in SQUARES["cuda" if device.type == "cuda" else "cpu"]:
        a, b = (torch.randn(n, n, device=device).to(getattr(torch, precision)) for _ in range(2))
        for product in products * times:
            best = max(best, 2 * n**3 / clock(lambda a=a, b=b, product=product: product(a, b), device)["seconds"])  # type: ignore[misc]
    return best


def matrix_peaks(device: Any, precision: str) -> dict[str, float]:
    peak = matrix_peak(device, precision)
    return {"peak": peak, "peak_float32": peak if precision == "float32" else matrix_peak(device, "float32")}


# ---------------------------------------------------------------- purification


def _purifying(workload: Workload, way: str, suspect: Classifier) -> Callable[[], dict[str, Any]]:
    from mbtsad_core.augment.token_splitting import augment
    from mbtsad_core.defenses.mbtsad import purify
    from mbtsad_core.models.classifier import encode
    from mbtsad_core.steps import drain
    from mbtsad_core.training.attention_map import choose

    gpu = suspect.device.type == "cuda"
    texts, batch = texts_of(workload, workload.texts[gpu]), workload.batch[gpu]
    config = PurifyConfig(
        split=SplitConfig(copies=1),
        found_tokens=0,
        retrain=RetrainConfig(epochs=1, batch_size=batch),
        distil=DistilConfig(epochs=1, batch_size=batch),
    )
    # Another one each time: what is measured of the purified models is of as many trainings as there are rounds
    seeds = iter(range(10**6))

    def work(chosen: Sequence[LabelledText], seed: int) -> Classifier:
        own = dataclasses.replace(config, seed=seed)
        if way == OURS:
            return drain(purify(suspect, chosen, own)).student
        return plain_purify(suspect, chosen, own, whole=way == EXAMPLE)

    about: dict[str, Any] = {"precision": suspect.precision}
    if way == OURS:
        about["attention"] = choose(suspect, config.distil).name
    work(texts[:batch], 0)

    def once() -> dict[str, Any]:
        seed, made = next(seeds), []
        timed = clock(lambda: made.append(work(texts, seed)), suspect.device)
        lengths = [len(e["input_ids"]) for e in encode(suspect, augment(texts, config.split, seed, 0))]
        student, teacher = (operations(suspect, lengths, training=training, hidden=True) for training in (True, False))
        needed = operations(suspect, lengths, training=True) + student + teacher
        counted = {"samples": 2 * len(lengths), "tokens": 2 * sum(lengths), "operations": needed}
        found = _scores(made[0]) if workload.shape is None else {}
        return (
            timed | about | counted | found | (matrix_peaks(suspect.device, suspect.precision) if way == OURS else {})
        )

    return once


def _scores(purified: Classifier) -> dict[str, float]:
    """CACC and ASR on the demo's test texts."""
    from mbtsad_core.evaluation import evaluate
    from mbtsad_core.service.purification import Request, prepare

    demo = prepare(Request())
    found = evaluate(purified, demo.test, demo.triggered, demo.target)
    assert found.asr is not None  # the demo has a trigger
    return {"cacc": found.cacc.share, "asr": found.asr.share}


def plain_purify(
    suspect: Classifier, clean: Sequence[LabelledText], config: PurifyConfig, *, whole: bool
) -> Classifier:
    """The paper's two stages with the library's Trainer. `whole` pads every text to all that the model reads, else to
    the longest of its batch."""
    import torch

    from mbtsad_core.augment.token_splitting import augment
    from mbtsad_core.models.classifier import clone

    teacher, student = clone(suspect), clone(suspect)
    rows = tokenized(suspect, augment(clean, config.split, config.seed, 0), whole=whole)
    for classifier in (teacher, student):
        classifier.model.set_attn_implementation("eager")
    trainer(teacher, rows, config.retrain, config.seed).train()
    teacher.model.eval()
    for module in student.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = config.distil.dropout or 0.0
    trainer(student, rows, config.distil, config.seed, teacher).train()
    student.model.eval()
    return student


def tokenized(suspect: Classifier, texts: Sequence[LabelledText], *, whole: bool) -> list[dict[str, Any]]:
    given = dict(truncation=True, max_length=suspect.max_length, padding="max_length" if whole else False)
    out = suspect.tokenizer([t.text for t in texts], **given)
    return [{key: out[key][i] for key in out} | {"labels": t.label} for i, t in enumerate(texts)]


def trainer(
    classifier: Classifier, rows: list[dict[str, Any]], config: Any, seed: int, teacher: Classifier | None = None
) -> Any:
    """The library's Trainer for one stage, as its examples set it up; with a teacher it distils."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    class Distiller(Trainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            assert teacher is not None
            return plain_loss(teacher.model, model, inputs, config)

    arguments = TrainingArguments(
        output_dir=str(Path(tempfile.gettempdir()) / "mbtsad-benchmark"),
        per_device_train_batch_size=config.batch_size,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup,
        max_grad_norm=config.clip,
        bf16=classifier.precision == "bfloat16",
        use_cpu=classifier.device.type == "cpu",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
    kind = Trainer if teacher is None else Distiller
    return kind(
        model=classifier.model,
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(classifier.tokenizer),
    )


def plain_loss(teacher: Any, student: Any, inputs: Batch, config: DistilConfig) -> Tensor:
    """Eq. (1) as one would write it down, on what the models return."""
    import torch

    asked = dict(output_attentions=True, output_hidden_states=True)
    with torch.no_grad():
        target = teacher(**{key: value for key, value in inputs.items() if key != "labels"}, **asked)
    found = student(**inputs, **asked)
    mask = inputs["attention_mask"].float()
    pairs = mask[:, :, None] * mask[:, None, :]
    loss = found.loss
    for A_T, A_S in zip(target.attentions, found.attentions, strict=True):
        maps = [(A.float() ** config.power).sum(1) * pairs for A in (A_T, A_S)]
        unit_T, unit_S = (F / F.norm(dim=(1, 2), keepdim=True) for F in maps)
        loss = loss + config.alpha * (unit_T - unit_S).norm(dim=(1, 2)).mean()
    for H_T, H_S in zip(target.hidden_states, found.hidden_states, strict=True):
        loss = loss + config.beta * (((H_T.float() - H_S.float()) ** 2).mean(-1) * mask).sum() / mask.sum()
    return loss  # type: ignore[no-any-return]


# ---------------------------------------------------------------- the rest


def _evaluating(workload: Workload, way: str, suspect: Classifier) -> Callable[[], dict[str, Any]]:
    from mbtsad_core.config import TrainingConfig
    from mbtsad_core.models.classifier import encode, predict

    suspect = dataclasses.replace(suspect, precision="float32")  # as all measurements are made
    texts = texts_of(workload, workload.texts[suspect.device.type == "cuda"])
    lengths = [len(e["input_ids"]) for e in encode(suspect, texts)]

    def work() -> None:
        if way == OURS:
            predict(suspect, texts)
        else:
            rows = tokenized(suspect, texts, whole=way == EXAMPLE)
            trainer(suspect, rows, TrainingConfig(), 0).predict(rows)

    about = {
        "samples": len(texts),
        "tokens": sum(lengths),
        "operations": operations(suspect, lengths, training=False),
        "precision": "float32",
    }
    work()
    return lambda: (
        clock(work, suspect.device) | about | (matrix_peaks(suspect.device, "float32") if way == OURS else {})
    )


def _splitting(workload: Workload, way: str) -> Callable[[], dict[str, Any]]:
    from mbtsad_core.augment.token_splitting import augment

    texts = texts_of(workload, 667)
    if way == OURS:
        return lambda: clock(lambda: augment(texts, SplitConfig(copies=1), 0)) | {"samples": len(texts)}
    from nlpaug.augmenter.word import SplitAug  # type: ignore[import-untyped]

    splitter = SplitAug()
    return lambda: clock(lambda: [splitter.augment(t.text) for t in texts]) | {"samples": len(texts)}


def _projecting() -> Callable[[], dict[str, Any]]:
    import numpy as np

    from mbtsad_core.evaluation.embeddings import project, warm_up

    drawn = np.random.default_rng(0)
    before, after = (drawn.normal(size=(667, 384)).astype(np.float32) for _ in range(2))
    warm_up()
    seeds = iter(range(10**6))  # a projection is remembered
    return lambda: clock(lambda: project(before, after, "umap", seed=next(seeds))) | {"samples": 2 * len(before)}


def _starting() -> Callable[[], dict[str, Any]]:
    command = [sys.executable, "-m", "mbtsad_core.cli", "--help"]
    return lambda: clock(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))


# ---------------------------------------------------------------- words


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people: Markdown."""

    def shown(value: Any, form: str = "{:.2f}") -> str:
        return "" if value is None else form.format(value)

    lines = [
        "| workload | ours, s | plain, padded to all, s | plain, padded to the batch, s | times faster | | in the "
        "library's default precision | | share of peak | of float32's | memory, plain to ours | load |",
        f"|{12 * '---|'}",
    ]
    for r in rows:
        seconds = [shown(r[key], "{:.3g}") for key in ("ours_s", "plain_example_s", "plain_dynamic_s")]
        ratios = [_with_interval(shown(r[key]), r.get("intervals", {}).get(key)) for key in RATIOS]
        shares = [shown(r[key], "{:.1%}") for key in ("share_of_peak", "share_of_float32_peak")]
        lines.append(
            "| "
            + " | ".join([r["workload"], *seconds, *ratios, *shares, shown(r["peak_memory_ratio"]), shown(r["load"])])
            + " |"
        )
    for r in rows:
        if found := r.get("scores"):
            said = "; ".join(
                f"{way} {_spread(rates['cacc'])} / {_spread(rates['asr'])}" for way, rates in found.items()
            )
            lines += [
                "",
                f"CACC / ASR of the purified {r['workload']}, %, mean ± standard deviation over the rounds, a seed "
                f"each: {said}.",
            ]
    return "\n".join(lines)


def _with_interval(ratio: str, interval: Sequence[float] | None) -> str:
    return f"{ratio} [{interval[0]:.2f}, {interval[1]:.2f}]" if ratio and interval else ratio


def _spread(shares: Sequence[float]) -> str:
    return f"{100 * mean(shares):.1f}" + (f" ± {100 * stdev(shares):.1f}" if len(shares) > 1 else "")


if __name__ == "__main__":
    line = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints is not an answer
    given = json.loads(sys.argv[2])
    given["shape"] = given["shape"] and Shape(**given["shape"])
    serve(Workload(**given), sys.argv[1], from_dict(RuntimeConfig, json.loads(sys.argv[3])), sys.stdin, line)
