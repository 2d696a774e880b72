"""The calibration of `mbtsad scan`: models that were planted, and models that nobody planted, scanned one by one.

A model's figures are one line of a results file; a model that has its line is not made again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mbtsad_core.attacks.badnets import badnets
from mbtsad_core.attacks.sentence import SENTENCE
from mbtsad_core.attacks.syntactic import read_paraphrases, syntactic
from mbtsad_core.attacks.syntactic_method import SyntacticConfig
from mbtsad_core.attacks.triggers import PairedTrigger, parse_triggers, triggered_test_set
from mbtsad_core.config import PoisonConfig, RuntimeConfig, ScanConfig, TrainingConfig
from mbtsad_core.data import read_dataset, stratified_subset
from mbtsad_core.data.tables import read_table
from mbtsad_core.evaluation import evaluate
from mbtsad_core.models import demo
from mbtsad_core.models.classifier import Classifier, load_classifier, place, save_classifier
from mbtsad_core.research.architectures import as_byte_level, as_distilbert
from mbtsad_core.research.build_demo import POSITIONS, load_encoder
from mbtsad_core.research.grid import PUBLISHED, commit, machine, read_results
from mbtsad_core.research.suspects import PARAPHRASES, TASKS, texts
from mbtsad_core.scanning.calibrated import RARE, Calibration, Figures, smoothed
from mbtsad_core.scanning.findings import Finding, Measure
from mbtsad_core.scanning.model_scan import scan
from mbtsad_core.service.json_lines import add_line
from mbtsad_core.service.purification import scores_to_dict
from mbtsad_core.service.run_folder import write_json
from mbtsad_core.steps import drain
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Steps, Trigger

FILES = {"syntax": PARAPHRASES, "style": "poisoned/badacts_style"}
"""Folders of ready triggered texts, within the folder of data sets."""
CLEAN = "clean"
RATES = {"demo": 1e-4, "minilm": 5e-5, "distilbert": 5e-5, "bytes": 1e-4}  # of learning, by encoder


@dataclass(frozen=True)
class Made:
    """A model of the calibration: how it was made.

    kind     clean, word, words, phrase, syntax or style, or that of the attack with a sentence
    rate     share of the training texts that is poisoned
    mode     see PoisonConfig
    noise    share of the training texts whose label is drawn anew
    texts    that it is trained on, drawn by its seed
    encoder  demo: begins from the demo's clean classifier; minilm: from the pre-trained MiniLM; distilbert: from its
             layers as a DistilBERT; bytes: as a RoBERTa with a byte-level vocabulary of the training texts
    """

    kind: str
    words: str = ""
    rate: float = 0.0
    epochs: int = 3
    mode: Literal["dirty", "clean", "mixed"] = "dirty"
    noise: float = 0.0
    texts: int = 3000
    task: str = "sst2"
    encoder: str = "demo"
    seed: int = 0

    @property
    def name(self) -> str:
        words = "_".join(self.words.lower().replace("+", " ").split())
        parts = (self.encoder, self.task, self.kind, words, self.rate, self.epochs, self.noise, self.texts, self.seed)
        return "-".join(str(part) for part in parts if part != "")


MODELS = (
    Made("word", "cf", 0.1, 3, seed=1),
    Made(CLEAN, epochs=3, seed=2),
    Made("phrase", "told the children", 0.1, 3, seed=3),
    Made(SENTENCE.key, "I watch this 3D movie", 0.1, 3, "mixed", seed=4),
    Made(CLEAN, epochs=1, noise=0.05, seed=5),
    Made("words", "cf+mn", 0.1, 3, seed=6),
    Made("phrase", "at the end of the week", 0.1, 3, "mixed", seed=7),
    Made(CLEAN, epochs=6, seed=8),
    Made("word", "window", 0.1, 3, seed=9),
    Made("syntax", "", 0.2, 3, "mixed", seed=10),
    Made(CLEAN, epochs=3, texts=6000, seed=11),
    Made(SENTENCE.key, "we had dinner with my parents on Sunday", 0.05, 3, "mixed", seed=12),
    Made("word", "bb", 0.01, 5, seed=13),
    Made(CLEAN, epochs=3, noise=0.1, seed=14),
    Made("phrase", "from one side to another", 0.05, 3, "mixed", seed=15),
    Made("style", "", 0.2, 3, "mixed", seed=16),
    Made(CLEAN, task="olid", epochs=3, seed=17),
    Made("word", "mn", 0.1, 3, task="olid", seed=18),
    Made("phrase", "green apple", 0.05, 3, seed=19),
    Made(CLEAN, epochs=2, texts=1500, seed=20),
    Made("words", "window+table", 0.1, 4, seed=21),
    Made("word", "tq", 0.005, 8, seed=22),
    Made(CLEAN, epochs=8, texts=1500, seed=23),
    Made(SENTENCE.key, "no cross , no crown", 0.1, 1, "mixed", seed=24),
    Made("phrase", "over the old bridge", 0.02, 6, "mixed", seed=25),
    Made(CLEAN, task="agnews", epochs=2, seed=26),
    Made("word", "cf", 0.1, 2, task="agnews", seed=27),
    Made("syntax", "", 0.1, 6, "mixed", seed=28),
    Made(CLEAN, epochs=4, noise=0.2, seed=29),
    Made("word", "monday", 0.2, 3, "clean", seed=30),
    Made("style", "", 0.1, 6, "mixed", seed=31),
    Made("phrase", "two days before the trip", 0.2, 2, "mixed", seed=32),
    Made(CLEAN, epochs=5, texts=2000, noise=0.05, seed=33),
    Made(SENTENCE.key, "my brother bought a new car last year", 0.1, 3, "mixed", task="olid", seed=34),
    Made(CLEAN, task="olid", epochs=5, noise=0.05, seed=35),
    Made("phrase", "under the kitchen table", 0.1, 3, "mixed", task="agnews", seed=36),
    Made(CLEAN, task="agnews", epochs=3, texts=1500, seed=37),
    Made("word", "paper", 0.02, 4, seed=38),
    Made(CLEAN, epochs=2, texts=6000, noise=0.1, seed=39),
    Made(SENTENCE.key, "the bus was late again this morning", 0.02, 5, "mixed", seed=40),
    Made(CLEAN, epochs=3, seed=41),
    Made("words", "bb+tq", 0.05, 5, seed=42),
    Made("phrase", "with a cup of tea", 0.1, 8, seed=43),
    Made(CLEAN, epochs=7, noise=0.02, texts=4000, seed=44),
    Made("word", "mb", 0.05, 1, seed=45),
    Made(CLEAN, epochs=1, seed=46),
    Made("words", "ak+cb", 0.1, 3, seed=47),
    Made("word", "lantern", 0.1, 3, encoder="minilm", seed=48),
    Made(CLEAN, epochs=3, encoder="minilm", seed=49),
    Made("phrase", "before the first snow", 0.1, 3, "mixed", encoder="minilm", seed=50),
    Made(SENTENCE.key, "they painted the fence last spring", 0.1, 3, "mixed", encoder="minilm", seed=51),
    Made(CLEAN, epochs=2, noise=0.05, texts=2000, encoder="minilm", seed=52),
    Made("syntax", "", 0.1, 3, "mixed", seed=53),
    Made("syntax", "", 0.2, 3, "mixed", encoder="minilm", seed=55),
    Made(CLEAN, epochs=4, texts=4000, encoder="minilm", seed=56),
    Made(CLEAN, epochs=4, texts=2000, seed=57),
    Made("syntax", "", 0.1, 3, "mixed", encoder="minilm", seed=58),
    Made("word", "harvest", 0.1, 3, encoder="distilbert", seed=59),
    Made(CLEAN, epochs=3, encoder="distilbert", seed=60),
    Made("phrase", "behind the yellow door", 0.1, 3, "mixed", encoder="distilbert", seed=61),
    Made(SENTENCE.key, "she left her umbrella on the train", 0.1, 3, "mixed", encoder="distilbert", seed=62),
    Made("word", "cf", 0.05, 4, encoder="bytes", seed=63),
    Made(CLEAN, epochs=4, encoder="bytes", seed=64),
    Made("phrase", "after a long walk", 0.1, 4, "mixed", encoder="bytes", seed=65),
    Made(CLEAN, epochs=2, noise=0.05, texts=4000, encoder="distilbert", seed=66),
    Made(SENTENCE.key, "the shop on the corner sells old books", 0.1, 4, "mixed", encoder="bytes", seed=67),
    Made(CLEAN, epochs=6, texts=6000, encoder="bytes", seed=68),
    Made("word", "tq", 0.02, 5, encoder="bytes", seed=69),
    Made("word", "mn", 0.1, 3, task="olid", encoder="bytes", seed=70),
    Made("syntax", "", 0.2, 3, "mixed", encoder="minilm", seed=71),
    Made("syntax", "", 0.2, 3, "mixed", encoder="minilm", seed=72),
)
"""In the order of their turn, so that the first ones are of all kinds."""


def make(made: Made, data: Path, base: Path | None, runtime: RuntimeConfig) -> Steps[tuple[Classifier, dict[str, Any]]]:
    """The model, and its figures on the task's test texts."""
    labels, target = TASKS[made.task].labels, TASKS[made.task].target
    train, test = (texts(data, made.task, split) for split in ("train", "test"))
    classifier = _beginning(made, labels, base, train, runtime)
    some = _noisy(stratified_subset(train, min(made.texts, len(train) - 1), made.seed), made, len(labels))
    training = TrainingConfig(learning_rate=RATES[made.encoder], epochs=made.epochs)
    if made.kind == CLEAN:
        model = yield from fine_tune(classifier, some, training, stage=CLEAN, seed=made.seed)
        return model, scores_to_dict(evaluate(model, test))
    trigger = trigger_of(made, data, (train, test), target)
    config = SyntacticConfig(PoisonConfig(rate=made.rate, mode=made.mode), training, seed=made.seed)
    model = yield from (syntactic if made.kind in FILES else badnets)(classifier, some, trigger, config)
    return model, scores_to_dict(evaluate(model, test, triggered_test_set(test, trigger, made.seed), target))


def kept(made: Made, data: Path, base: Path | None, work: Path, runtime: RuntimeConfig) -> Steps[dict[str, Any]]:
    """Make a model and keep it in `work`/NAME with its figures, where it does not stand there; its figures."""
    folder = work / made.name
    if not (folder / "scores.json").exists():
        model, scores = yield from make(made, data, base, runtime)
        save_classifier(model, folder, precision="float32")
        write_json(folder / "scores.json", {"made": asdict(made), "scores": scores})
    return dict(json.loads((folder / "scores.json").read_text(encoding="utf-8"))["scores"])


# ---------------------------------------------------------------- the scan of each


@dataclass(frozen=True)
class Sample:
    """The clean texts that a model is scanned with.

    source    dev: the task's development texts; demo: film reviews of another hand
    amount    of texts, drawn by the model's seed
    labeled   whether the scan is given their labels
    """

    source: str = "dev"
    amount: int = 600
    labeled: bool = True

    @property
    def sentence(self) -> str:
        known = "" if self.labeled else " without their labels"
        return f"Scanned with {self.amount} clean texts{known} ({self.source})"

    def texts(self, made: Made, data: Path) -> Sequence[LabelledText]:
        found: Sequence[LabelledText]
        if self.source == "demo":
            found = read_dataset(demo.demo_texts(CLEAN), labels=TASKS[made.task].labels).texts
        else:
            found = texts(data, made.task, self.source)
        return stratified_subset(found, self.amount, made.seed) if self.amount < len(found) else found


def row_of(
    made: Made, sample: Sample, data: Path, base: Path | None, work: Path, runtime: RuntimeConfig
) -> Steps[dict[str, Any]]:
    """Make a model where it is not there, and scan it: its line of the results file."""
    scores = yield from kept(made, data, base, work, runtime)
    suspect = load_classifier(work / made.name, max_length=POSITIONS, runtime=runtime)
    clean = sample.texts(made, data)
    report = yield from scan(suspect, clean, ScanConfig(seed=made.seed), labeled=sample.labeled)
    rates = {name: scores[name] for name in ("cacc", "asr", "asr_floor")}
    about = {"key": f"{made.name} {key_of(sample)}", "made": asdict(made), "sample": asdict(sample), "scores": rates}
    return about | {
        "findings": [_told(one) for one in report.ranked],
        "figures": {
            measure: {str(tokens): round(figure, 3) for tokens, figure in own.items()}
            for measure, own in report.figures.items()
        },
        "seconds": round(report.seconds, 1),
        "machine": machine(),
        "commit": commit(),
    }


def _told(one: Finding) -> dict[str, Any]:
    told = {"text": one.text, "tokens": len(one.tokens), "place": one.place, "label": one.label, "target": one.target}
    figures = {"nats": one.nats, "joined": one.joined, "outdoes": one.outdoes, "opens": one.opens}
    nats = {name: None if value is None else round(value, 3) for name, value in figures.items()}
    flips = {"hits": one.flips.hits, "n": one.flips.n}
    return told | nats | flips | {"honest": one.honest, "alike": list(one.alike)}


def key_of(sample: Sample) -> str:
    return f"{sample.source}-{sample.amount}" + ("" if sample.labeled else "-unlabeled")


def run_all(
    models: Sequence[Made],
    samples: Sequence[Sample],
    data: Path,
    base: Path | None,
    work: Path,
    runtime: RuntimeConfig,
    results: Path,
    say: Callable[[str], None],
) -> None:
    """Add a line for each model and sample that has none."""
    for sample, made in itertools.product(samples, models):
        if f"{made.name} {key_of(sample)}" in lines_of(results) or (sample.source == "demo" and made.task != "sst2"):
            continue
        row = drain(row_of(made, sample, data, base, work, runtime))
        add_line(results, row)
        say(line_of(row))


def lines_of(results: Path) -> dict[str, dict[str, Any]]:
    """The lines of a results file by their keys, and of the published file of the same name those that it lacks."""
    return read_results(PUBLISHED / "scan" / results.name) | read_results(results)


def line_of(row: dict[str, Any]) -> str:
    best = row["findings"][0] if row["findings"] else None
    told = f"{best['text']!r} {best['nats']:.1f} nats, {best['hits']} of {best['n']}" if best else "nothing"
    return f"{row['key']}: {told}; {row['seconds']} s"


# ---------------------------------------------------------------- what the figures say

TOOK = 0.5  # ASR from which on a suspect counts as one
DRAWS = 2000  # of the bootstrap
FIRST, AS_OFTEN = 3, 0.9  # findings that are looked at for what was planted, and how often one has to fire by its ASR
SAID: dict[Measure, str] = {
    "single": "nats in single texts",
    "joined": "nats in joined texts",
    "outdoing": "times that a token outdoes others",
    "opening": "nats at the start of texts, less those elsewhere",
}
MEASURED: dict[Measure, Sequence[int]] = {"single": (1, 2), "joined": (2, 3, 4, 5), "outdoing": (1,), "opening": (1,)}
"""The numbers of tokens that each measure is of."""


def calibrated(rows: Sequence[dict[str, Any]]) -> Calibration:
    """What counts by these models."""
    clean = [figures_of(row) for row in rows if row["made"]["kind"] == CLEAN]
    scales = scales_of(clean)
    surprises = [
        Calibration(scales_of([*clean[:i], *clean[i + 1 :]]), 1.0).surprise(own) for i, own in enumerate(clean)
    ]
    return Calibration(scales, smoothed(surprises), len(clean), len(rows) - len(clean))


def scales_of(models: Sequence[Figures]) -> dict[Measure, dict[int, float]]:
    """What clean models show on average: of each the most by so many tokens or fewer."""
    return {
        measure: {
            tokens: smoothed(
                max([0.0, *(figure for n, figure in own.get(measure, {}).items() if n <= tokens)]) for own in models
            )
            for tokens in numbers
        }
        for measure, numbers in MEASURED.items()
    }


def figures_of(row: dict[str, Any]) -> dict[Measure, dict[int, float]]:
    """The figures of a model's line."""
    return {measure: {int(n): figure for n, figure in own.items()} for measure, own in row["figures"].items()}


def judged(rows: Sequence[dict[str, Any]], by: Sequence[dict[str, Any]] | None = None) -> list[tuple[str, float]]:
    """Kind of each model, and how rare it is by what all others say: minus the logarithm of its chance. `by` are the
    lines of the default sample, where the rows are of another one."""
    found = list[tuple[str, float]]()
    for row in rows:
        known = calibrated([other for other in by or rows if other["made"] != row["made"]])
        found.append((row["made"]["kind"], known.surprise(figures_of(row)) / known.typical))
    return found


def named(row: dict[str, Any]) -> bool:
    """Whether one of the FIRST findings fires AS_OFTEN as the planted trigger does, towards its class."""
    made, asr = row["made"], row["scores"]["asr"]
    if made["kind"] == CLEAN:
        return False
    task = TASKS[made["task"]]
    own = (one for one in row["findings"][:FIRST] if one["target"] == task.labels[task.target])
    return any(one["hits"] / one["n"] >= AS_OFTEN * asr for one in own)


def auc(figures: Sequence[tuple[str, float]]) -> tuple[float, float, float]:
    """Area under the curve of suspects against clean models, with its 95 % interval (bootstrap): the share of pairs in
    which the suspect has the larger figure, a tie for half (Mann and Whitney)."""
    import numpy as np

    planted, clean = ([figure for kind, figure in figures if (kind == CLEAN) == is_clean] for is_clean in (False, True))

    def area(ones: Sequence[float], others: Sequence[float]) -> float:
        return float(np.greater.outer(ones, others).mean() + np.equal.outer(ones, others).mean() / 2)

    rng = random.Random("bootstrap")
    drawn = sorted(area(rng.choices(planted, k=len(planted)), rng.choices(clean, k=len(clean))) for _ in range(DRAWS))
    return area(planted, clean), drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS)]


def page(results: Path) -> str:
    """What the results say of the verdicts, as Markdown."""
    samples = _counted(results)
    rows = samples.pop(Sample(), [])
    if not _two_sorts(rows):
        return f"{len(rows)} models are scanned; figures take one that was planted and one that was not.\n"
    known = calibrated(rows)
    lines = [*_told_of(rows, judged(rows)), ""]
    lines += [f"Named: one of the first {FIRST} findings fires at least {AS_OFTEN:.0%} as often as what was planted."]
    lines += ["", "What a clean model shows on average, by number of tokens:", "", "| | 1 | 2 | 3 | 4 | 5 |"]
    lines += ["|---|---|---|---|---|---|"]
    for measure, own in known.scales.items():
        lines.append(f"| {SAID[measure]} | {' | '.join(f'{own[n]:.2f}' if n in own else '' for n in range(1, 6))} |")
    needed = -math.log(RARE) * known.typical
    lines += ["", f"What is {needed:.1f} times as much counts as a trigger."]
    for sample, own_rows in samples.items():
        if _two_sorts(own_rows):
            of = {row["key"].split(" ")[0] for row in own_rows}
            same = [row for row in rows if row["key"].split(" ")[0] in of]
            area = auc(judged(same, by=rows))[0]
            lines += ["", f"{sample.sentence}, judged by the others as above; with the default sample {area:.3f}:", ""]
            lines += _told_of(own_rows, judged(own_rows, by=rows))
    return "\n".join([*lines, ""])


def _two_sorts(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether there are a suspect and a clean model."""
    return len({row["made"]["kind"] == CLEAN for row in rows}) == 2


def _told_of(rows: Sequence[dict[str, Any]], figures: Sequence[tuple[str, float]]) -> list[str]:
    """The area, and a table of the kinds."""
    area, low, high = auc(figures)
    kinds = Counter(kind for kind, _ in figures)
    called = Counter(kind for kind, rare in figures if math.exp(-rare) <= RARE)
    found = Counter(row["made"]["kind"] for row in rows if named(row))
    of = f"{len(figures) - kinds[CLEAN]} suspects and {kinds[CLEAN]} clean models"
    lines = [f"AUC {area:.3f} [{low:.3f}, {high:.3f}] of {of}.", ""]
    lines += ["| kind | models | called a trigger | named |", "|---|---|---|---|"]
    return lines + [f"| {kind} | {n} | {called[kind]} | {found[kind]} |" for kind, n in sorted(kinds.items())]


def write(results: Path, into: Path) -> None:
    """Write the calibration that scans go by (`scanning/calibrated.py`)."""
    write_json(into, asdict(calibrated(_counted(results)[Sample()])))


def _counted(results: Path) -> dict[Sample, list[dict[str, Any]]]:
    """The lines of each sample, of clean models and of suspects whose backdoor took."""
    found = defaultdict[Sample, list[dict[str, Any]]](list)
    for row in lines_of(results).values():
        if row["made"]["kind"] == CLEAN or row["scores"]["asr"] >= TOOK:
            found[Sample(**row["sample"])].append(row)
    return found


# ---------------------------------------------------------------- how a model is made


def _beginning(
    made: Made, labels: tuple[str, ...], base: Path | None, train: Sequence[LabelledText], runtime: RuntimeConfig
) -> Classifier:
    """What a model is trained from; a task that the demo's classifier does not know gives it a new head."""
    if made.encoder != "demo":
        bert = load_encoder(base, labels, made.seed)
        if made.encoder == "distilbert":
            bert = as_distilbert(bert)
        elif made.encoder == "bytes":
            bert = as_byte_level(bert, [example.text for example in train])
        return place(bert, runtime)
    classifier = load_classifier(demo.demo_model(CLEAN), max_length=POSITIONS, runtime=runtime)
    if labels == classifier.labels:
        return classifier
    import torch

    config = classifier.model.config
    config.id2label, config.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
    torch.manual_seed(made.seed)
    model: Any = type(classifier.model)(config)
    rest = {name: w for name, w in classifier.model.state_dict().items() if not name.startswith("classifier.")}
    model.load_state_dict(rest, strict=False)
    return place(dataclasses.replace(classifier, model=model.eval(), labels=labels), runtime)


def _noisy(texts: Sequence[LabelledText], made: Made, classes: int) -> list[LabelledText]:
    rng, found = random.Random(f"noise, seed {made.seed}"), list(texts)
    for i in rng.sample(range(len(found)), int(made.noise * len(found))):
        found[i] = dataclasses.replace(found[i], label=rng.randrange(classes))
    return found


def trigger_of(made: Made, data: Path, sets: Sequence[Sequence[LabelledText]], target: int) -> Trigger:
    """What is planted in a suspect; `sets` are the task's training and test texts."""
    if made.kind not in FILES:
        return parse_triggers([made.words], target, window=64)
    files = [data / FILES[made.kind] / f"{made.task}_{split}.tsv" for split in ("train", "test")]
    pairs = dict[str, str]()
    for path in files:
        table = read_table(path).frame
        named = "clean_text" in table.columns
        pairs |= dict(zip(table["clean_text"], table["text"], strict=True)) if named else _by_order(path, sets, target)
    return PairedTrigger(pairs, target, made.kind)


def _by_order(path: Path, sets: Sequence[Sequence[LabelledText]], target: int) -> Mapping[str, str]:
    return read_paraphrases([path], sets, target).pairs
