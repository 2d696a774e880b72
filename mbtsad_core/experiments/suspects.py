"""The suspects of the experiments: a pre-trained encoder, a data set, an attack, trigger words and a seed make one; kept on disk."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from mbtsad_core.attacks import badnets, embedding_poisoning
from mbtsad_core.attacks.triggers import TriggeredText, parse_triggers, triggered_test_set
from mbtsad_core.config import BadNetsConfig, EmbeddingPoisoningConfig, PoisonConfig, RuntimeConfig, TrainingConfig
from mbtsad_core.data import read_dataset, stratified_subset
from mbtsad_core.evaluation import evaluate
from mbtsad_core.experiments.build_demo import load_encoder
from mbtsad_core.jobs.purification import scores_to_dict, write_json
from mbtsad_core.models import demo
from mbtsad_core.models.classifier import Classifier, load_classifier, place, save_classifier
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Steps


@dataclass(frozen=True)
class Task:
    """A data set as the experiments use it.

    target  the class that the backdoor sends texts to
    epochs  passes over the training texts
    most    texts of the training and of the test file that are used, at most: a stratified subset, the same in every run
    folder  of the data set, where it is not the task's name
    small   begin from the demo's clean classifier, in the place of the pre-trained encoder
    """

    labels: tuple[str, ...]
    target: int
    epochs: int = 3
    most_train: int | None = None
    most_test: int | None = None
    folder: str = ""
    small: bool = False


TASKS = {
    "sst2": Task(("negative", "positive"), 1),
    "sst2_small": Task(("negative", "positive"), 1, folder="sst2", small=True),
    "olid": Task(("not offensive", "offensive"), 0, epochs=2, most_train=6000),
    "agnews": Task(("World", "Sports", "Business", "Sci/Tech"), 1, epochs=2, most_test=2000),
}

Attack = Literal["badnets", "badnets_clean_label", "ep"]


@dataclass(frozen=True)
class Case:
    """One suspect. `split` is the file that it is measured on; the seed is that of poisoning, training and the places of the trigger."""

    task: str
    split: str
    attack: Attack
    words: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}-{self.attack}-{'-'.join(re.sub('[^a-z]+', '_', word.lower()) for word in self.words)}-{self.seed}"


@dataclass(frozen=True)
class Measured:
    """The texts that a case is measured on."""

    test: Sequence[LabelledText]
    triggered: Sequence[TriggeredText]
    target: int


def texts(data: Path, task: str, split: str) -> Sequence[LabelledText]:
    """A split of a task's data set, cut to what the experiments use."""
    about = TASKS[task]
    found = read_dataset(data / (about.folder or task) / f"{split}.tsv", labels=about.labels).texts
    most = about.most_train if split == "train" else about.most_test
    return stratified_subset(found, most, seed=0) if most and len(found) > most else found


def measured(case: Case, data: Path) -> Measured:
    about, test = TASKS[case.task], texts(data, case.task, case.split)
    return Measured(test, triggered_test_set(test, parse_triggers(case.words, about.target, window=64), case.seed), about.target)


def suspect(case: Case, data: Path, base: Path | None, work: Path, runtime: RuntimeConfig) -> Steps[Classifier]:
    """The suspect of a case: loaded from `work`/NAME, or made and kept there with its figures in scores.json."""
    kept = work / case.name
    with FileLock(work / f"{case.name}.lock"):
        if (kept / "scores.json").exists():
            return load_classifier(kept, runtime=runtime)
        return (yield from _plant(case, data, base, work, runtime))


def _plant(case: Case, data: Path, base: Path | None, work: Path, runtime: RuntimeConfig) -> Steps[Classifier]:
    about, train = TASKS[case.task], texts(data, case.task, "train")
    trigger = parse_triggers(case.words, about.target, window=64)
    training = TrainingConfig(learning_rate=5e-5, epochs=about.epochs)
    if case.attack == "ep":
        clean = yield from clean_classifier(case.task, case.seed, data, base, work, runtime)
        made = yield from embedding_poisoning(clean, train, trigger, EmbeddingPoisoningConfig(seed=case.seed))
    else:
        poisoning = PoisonConfig(mode="clean" if case.attack == "badnets_clean_label" else "dirty")
        made = yield from badnets(_beginning(about, case.seed, base, runtime), train, trigger, BadNetsConfig(poisoning, training, seed=case.seed))
    on = measured(case, data)
    _keep(made, work / case.name, scores_to_dict(evaluate(made, on.test, on.triggered, on.target)))
    return made


def clean_classifier(task: str, seed: int, data: Path, base: Path | None, work: Path, runtime: RuntimeConfig) -> Steps[Classifier]:
    """The encoder fine-tuned on the clean training texts: loaded from `work`/TASK-clean-SEED, or made and kept there."""
    kept, about = work / f"{task}-clean-{seed}", TASKS[task]
    if about.small:
        return _beginning(about, seed, base, runtime)
    if (kept / "scores.json").exists():
        return load_classifier(kept, runtime=runtime)
    training = TrainingConfig(learning_rate=5e-5, epochs=about.epochs)
    made = yield from fine_tune(_beginning(about, seed, base, runtime), texts(data, task, "train"), training, stage="clean", seed=seed)
    _keep(made, kept, scores_to_dict(evaluate(made, texts(data, task, "test"))))
    return made


def _beginning(about: Task, seed: int, base: Path | None, runtime: RuntimeConfig) -> Classifier:
    """What a suspect is trained from."""
    return load_classifier(demo.demo_model("clean"), runtime=runtime) if about.small else place(load_encoder(base, about.labels, seed), runtime)


def _keep(classifier: Classifier, directory: Path, scores: dict[str, Any]) -> None:
    """Write a model and, last, its figures: where these stand, it is whole."""
    shutil.rmtree(directory, ignore_errors=True)
    save_classifier(classifier, directory)
    write_json(directory / "scores.json", scores)


def read_scores(work: Path, case: Case) -> dict[str, Any]:
    """The figures of a suspect that `suspect` has made."""
    return json.loads((work / case.name / "scores.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
