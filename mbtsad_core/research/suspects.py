"""The suspects of the experiments: a pre-trained encoder, a data set, an attack, trigger words and a seed make one;
kept on disk."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.badnets import BADNETS, BadNetsConfig
from mbtsad_core.attacks.planting import make_trigger, measured_trigger
from mbtsad_core.attacks.syntactic import read_paraphrases
from mbtsad_core.attacks.triggers import TriggeredText, parse_triggers, triggered_test_set
from mbtsad_core.augment.wordnet import NEEDED, find_wordnet
from mbtsad_core.config import Config, PoisonConfig, RuntimeConfig, TrainingConfig, replace, settings
from mbtsad_core.data import read_dataset, stratified_subset
from mbtsad_core.errors import BadConfig, BadData
from mbtsad_core.evaluation import evaluate
from mbtsad_core.methods import Attack, Need
from mbtsad_core.models import demo
from mbtsad_core.models.classifier import Classifier, load_classifier, place, save_classifier
from mbtsad_core.research.build_demo import POSITIONS, encoder_folder, load_encoder
from mbtsad_core.service.purification import scores_to_dict
from mbtsad_core.service.run_folder import write_json
from mbtsad_core.training.fine_tuning import fine_tune, texts_hash
from mbtsad_core.types import LabelledText, Steps, Trigger
from mbtsad_core.vetting.model_folder import digest


@dataclass(frozen=True)
class Task:
    """A data set as the experiments use it.

    target  the class that the backdoor sends texts to
    epochs  passes over the training texts
    most    texts of the training and of the test file that are used, at most: a stratified subset, the same in every
            run
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
    "imdb": Task(("negative", "positive"), 1, epochs=2, most_test=5000),
}

CLEAN_LABEL = f"{BADNETS.key}_clean_label"  # BadNets that poisons texts of the target class alone
PARAPHRASES = "poisoned/hiddenkiller_syntactic"  # of the folder of data sets
TRIGGERED = "triggered.jsonl"
# How the names of its files begin
TOKENIZER = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece", "sentencepiece")
MADE_OF = "made_of.json"  # beside a suspect: all that it depends on
NEUTRAL = ("max_length", "observe_every", "observe_early", "save_every", "attention", "seed")
"""Settings that no figure here depends on, by their last name: texts are read to POSITIONS tokens whatever they say, to
look and to save changes no weight, the attention loss is the same by every way, and the seed is the case's or the
grid point's own."""


@dataclass(frozen=True)
class Case:
    """One suspect. `split` is the file that it is measured on; the seed is that of poisoning, training and the places
    of the trigger.

    attack  a key of ATTACKS, or CLEAN_LABEL
    words   the triggers, as a user names them; none where they are learned or come as files
    """

    task: str
    split: str
    attack: str
    words: tuple[str, ...]
    seed: int

    @property
    def method(self) -> Attack[Any]:
        """What plants it; raises BadConfig where there is no such attack."""
        return attack_of(self.attack)

    @property
    def name(self) -> str:
        return "-".join(
            [self.task, self.attack, *(re.sub("[^a-z]+", "_", word.lower()) for word in self.words), str(self.seed)]
        )


def planted_case(attack: str, words: tuple[str, ...], seed: int, task: str = "sst2") -> Case:
    """A suspect that is measured on the test split; with the attack's own triggers where it has some, else with
    `words`."""
    method = attack_of(attack)
    return Case(task, "test", attack, method.triggers or (words if method.typed else ()), seed)


def attack_of(name: str) -> Attack[Any]:
    """The method that plants what a case names; raises BadConfig where there is none."""
    if name != CLEAN_LABEL and name not in ATTACKS:
        raise BadConfig(f"Unknown attack {name!r}. Known: {', '.join((*ATTACKS, CLEAN_LABEL))}.")
    return BADNETS if name == CLEAN_LABEL else ATTACKS[name]


def plan(case: Case) -> tuple[Attack[Any], Config]:
    """The method that makes the suspect, and its settings: BadNets at the rate and the epochs of its task, the others
    as they come."""
    method = case.method
    config = method.config
    if method is BADNETS:
        poison = PoisonConfig(mode="clean" if case.attack == CLEAN_LABEL else "dirty")
        config = BadNetsConfig(poison, TrainingConfig(learning_rate=5e-5, epochs=TASKS[case.task].epochs))
    return method, replace(config, {("seed",): case.seed})


def deciding(config: Config) -> dict[str, Any]:
    """Every setting of a config that figures depend on, by dotted name; those of a training of no epochs are none."""
    left_out = {s.path[:-1] for s in settings(config) if s.path[-1] == "epochs" and s.default == 0}
    return {
        ".".join(s.path): s.default
        for s in settings(config)
        if s.path[-1] not in NEUTRAL and s.path[:-1] not in left_out
    }


def inputs(case: Case, data: Path, base: Path | None) -> dict[str, str | int]:
    """What a suspect is made from and measured on, by digest: the training and the measured texts, the encoder, the
    tokens read, and what its attack needs."""
    found: dict[str, str | int] = {split: _texts_digest(data, case.task, split) for split in ("train", case.split)}
    found |= {"encoder": folder_digest(_encoder(TASKS[case.task], base)), "tokens": POSITIONS}
    needs = case.method.needs
    if needs is Need.PARAPHRASES:
        found |= {f"paraphrases of {path.stem}": file_digest(path) for path in paraphrases(case, data)}
    return found | (wordnet_digest() if needs is Need.WORDNET else {})


def wordnet_digest() -> dict[str, str | int]:
    folder = find_wordnet()
    return {"WordNet": digest(folder, NEEDED)[:16]} if folder else {}


@functools.lru_cache(maxsize=64)
def _texts_digest(data: Path, task: str, split: str) -> str:
    return texts_hash(texts(data, task, split))[:16]


@functools.lru_cache(maxsize=64)
def folder_digest(folder: Path) -> str:
    """Of a model: its configuration, weights and tokenizer."""
    names = [
        path.name
        for path in folder.iterdir()
        if path.name == "config.json" or path.name.startswith(TOKENIZER) or path.suffix == ".safetensors"
    ]
    return digest(folder, names)[:16]


def file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@dataclass(frozen=True)
class Measured:
    """The texts that a case is measured on."""

    test: Sequence[LabelledText]
    triggered: Sequence[TriggeredText]
    target: int


def texts(data: Path, task: str, split: str) -> Sequence[LabelledText]:
    """A split of a task's data set, cut to what the experiments use."""
    about = TASKS[task]
    folder = data / (about.folder or task)
    packed = folder / f"{split}.tsv.gz"
    found = read_dataset(packed if packed.exists() else folder / f"{split}.tsv", labels=about.labels).texts
    most = about.most_train if split == "train" else about.most_test
    return stratified_subset(found, most, seed=0) if most and len(found) > most else found


def named_trigger(case: Case, data: Path) -> Trigger | None:
    """The trigger of a case, None where it is learned. Raises BadData where the files of a syntactic one are not there
    or fit other texts."""
    about = TASKS[case.task]
    if case.method.needs is Need.PARAPHRASES:
        clean = [texts(data, case.task, split) for split in ("train", case.split)]
        return read_paraphrases(paraphrases(case, data), clean, about.target)
    return parse_triggers(case.words, about.target, window=64) if case.words else None


def paraphrases(case: Case, data: Path) -> list[Path]:
    """The files that a syntactic suspect is made from and measured with."""
    return [
        data / PARAPHRASES / f"{TASKS[case.task].folder or case.task}_{split}.tsv" for split in ("train", case.split)
    ]


def measured(case: Case, data: Path, work: Path | None = None) -> Measured:
    """The texts that a case is measured on; where its trigger was learned, as they are kept beside the suspect in
    `work`."""
    about, test = TASKS[case.task], texts(data, case.task, case.split)
    if case.method.rewrites:
        kept = None if work is None else work / case.name / TRIGGERED
        if kept is None or not kept.exists():
            raise BadData(
                f"The trigger of {case.name} is learned as the suspect is made, and none is kept in {work}. Make the "
                "suspect first."
            )
        trigger: Trigger = parse_triggers([str(kept)], about.target)
    else:
        trigger = named_trigger(case, data) or parse_triggers((), about.target)
    return Measured(test, triggered_test_set(test, trigger, case.seed), about.target)


def suspect(case: Case, data: Path, base: Path | None, work: Path, runtime: RuntimeConfig) -> Steps[Classifier]:
    """The suspect of a case: loaded from `work`/NAME, or made and kept there with its figures in scores.json."""
    kept = work / case.name
    with FileLock(work / f"{case.name}.lock"):
        if (kept / "scores.json").exists():
            return _kept(kept, made_of(case, data, base), runtime)
        return (yield from _plant(case, data, base, work, runtime))


def made_of(case: Case, data: Path, base: Path | None) -> dict[str, Any]:
    """All that a suspect depends on but the code."""
    method, config = plan(case)
    return json.loads(
        json.dumps(
            {**asdict(case), "plan": {"attack": method.key, **deciding(config)}, "inputs": inputs(case, data, base)}
        )
    )  # type: ignore[no-any-return]


def _kept(folder: Path, wanted: dict[str, Any], runtime: RuntimeConfig) -> Classifier:
    """A model that stands in `work`. Raises BadData where it is not known to be made of what is at hand."""
    record = folder / MADE_OF
    found = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    if differ := [name for name in wanted if found.get(name) != wanted[name]]:
        raise BadData(
            f"{folder} holds a model that was made of something else, or does not say of what: its {', '.join(differ)} "
            "differ from what is asked for. Name another folder with --work, or remove this one, and it is made anew."
        )
    return load_classifier(folder, max_length=POSITIONS, runtime=runtime)


def _plant(case: Case, data: Path, base: Path | None, work: Path, runtime: RuntimeConfig) -> Steps[Classifier]:
    about, (train, test) = TASKS[case.task], (texts(data, case.task, split) for split in ("train", case.split))
    method, config = plan(case)
    if method.clean_first:
        given = yield from clean_classifier(case.task, case.seed, data, base, work, runtime)
    else:
        given = _beginning(about, case.seed, base, runtime)
    trigger = named_trigger(case, data)
    if trigger is None:
        trigger = yield from make_trigger(method, given, train, about.target, (), config)
    made = yield from method.run(given, train, trigger, config)
    triggered = triggered_test_set(test, measured_trigger(method, made, trigger), case.seed)
    pairs = [{"text": t.clean.text, "triggered": t.triggered.text} for t in triggered] if method.rewrites else None
    _keep(
        made,
        work / case.name,
        scores_to_dict(evaluate(made, test, triggered, about.target)),
        made_of(case, data, base),
        pairs,
    )
    return made


def clean_classifier(
    task: str, seed: int, data: Path, base: Path | None, work: Path, runtime: RuntimeConfig
) -> Steps[Classifier]:
    """The encoder fine-tuned on the clean training texts: loaded from `work`/TASK-clean-SEED, or made and kept
    there."""
    kept, about = work / f"{task}-clean-{seed}", TASKS[task]
    if about.small:
        return _beginning(about, seed, base, runtime)
    training = TrainingConfig(learning_rate=5e-5, epochs=about.epochs)
    digests = {split: _texts_digest(data, task, split) for split in ("train", "test")}
    wanted = {
        "inputs": digests | {"encoder": folder_digest(_encoder(about, base)), "tokens": POSITIONS},
        "plan": deciding(training),
        "seed": seed,
    }
    with FileLock(f"{kept}.lock"):
        if (kept / "scores.json").exists():
            return _kept(kept, wanted, runtime)
        made = yield from fine_tune(
            _beginning(about, seed, base, runtime), texts(data, task, "train"), training, stage="clean", seed=seed
        )
        _keep(made, kept, scores_to_dict(evaluate(made, texts(data, task, "test"))), wanted)
        return made


def pretrained(case: Case, base: Path | None, runtime: RuntimeConfig) -> Classifier:
    """The encoder that a suspect was made from, for the defenses that put its weights back; its head is one that nobody
    trained."""
    about = TASKS[case.task]
    if about.small:
        raise BadConfig(
            f"The suspects of {case.task} begin from a trained classifier, not from pre-trained weights. Take a task "
            "that has some, such as sst2."
        )
    return _beginning(about, case.seed, base, runtime)


def _beginning(about: Task, seed: int, base: Path | None, runtime: RuntimeConfig) -> Classifier:
    """What a suspect is trained from."""
    if about.small:
        return load_classifier(_encoder(about, base), max_length=POSITIONS, runtime=runtime)
    return place(load_encoder(base, about.labels, seed), runtime)


def _encoder(about: Task, base: Path | None) -> Path:
    return demo.demo_model("clean") if about.small else encoder_folder(base)


def _keep(
    classifier: Classifier,
    directory: Path,
    scores: dict[str, Any],
    of: dict[str, Any],
    pairs: Sequence[dict[str, str]] | None = None,
) -> None:
    """Write a model, what it is made of, the texts that its trigger made, and, last, its figures: where these stand, it
    is whole."""
    shutil.rmtree(directory, ignore_errors=True)
    save_classifier(classifier, directory, precision="float32")
    write_json(directory / MADE_OF, of)
    if pairs is not None:
        (directory / TRIGGERED).write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8")
    write_json(directory / "scores.json", scores)


def read_scores(work: Path, case: Case) -> dict[str, Any]:
    """The figures of a suspect that `suspect` has made."""
    return json.loads((work / case.name / "scores.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
