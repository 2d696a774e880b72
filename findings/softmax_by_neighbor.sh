#!/usr/bin/env bash
# TextAttack takes the softmax of probabilities where those of another text in the same batch do not add up to 1, and so finds attacks that are none.
#
# textattack 0.3.11. A goal function for classification takes what the model gives as it is where every row of the batch adds up to 1 within 1e-6. Else it takes all of them for logits: one row that was
# rounded to 0.9333, 0.0333, 0.0333 is enough. A text with a probability of 0.9 has a score, 1 - p, of 0.1 when it is asked about alone and of 0.46 beside that row. With target_max_score=0.8, "bring the
# probability below 0.8", the attack on a model that rounds to four digits is a success, with the text whose probability is 0.9; without the rounding it fails. Scores of different batches, which a search
# compares, are on different scales. Probabilities in half precision or from an API are rounded so. Nothing is said.
#
# Found in no issue. Of the many packages that textattack imports those that have no part in this are replaced by empty modules.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1 TA_CACHE_DIR="$place/textattack" OMP_NUM_THREADS=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy==2.4.6 scipy==1.17.1 lru-dict==1.4.1
"$place/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps textattack==0.3.11
cd "$place"
venv/bin/python -W ignore - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import logging
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

UNUSED = """OpenHowNet bert_score datasets editdistance flair jieba langdetect lemminflect language_tool_python Levenshtein more_itertools
nltk num2words pandas pinyin requests terminaltables word2number""".split()


class Unused:
    """Empty modules in place of those that are imported and not used."""

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in UNUSED else None

    def create_module(self, spec):
        return MagicMock(__path__=[], __name__=spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Unused())
from textattack import Attack
from textattack.goal_functions import UntargetedClassification
from textattack.models.wrappers import ModelWrapper
from textattack.search_methods import GreedySearch
from textattack.shared import AttackedText
from textattack.transformations import WordSwap

logging.disable(logging.WARNING)
PROBABILITIES = {"good film": (0.95, 0.03, 0.02), "fine film": (14 / 15, 1 / 30, 1 / 30), "decent film": (0.9, 0.06, 0.04)}


class Model(ModelWrapper):
    def __init__(self, digits):
        self.model, self.digits = self, digits

    def __call__(self, texts):
        return [[round(p, self.digits) for p in PROBABILITIES[text]] for text in texts]


class Synonyms(WordSwap):
    def _get_replacement_words(self, word):
        return ["fine", "decent"] if word == "good" else []


def scores(digits, *texts):
    """1 - the probability of the first class, as the goal function has it for a batch."""
    goal = UntargetedClassification(Model(digits), use_cache=False)
    goal.init_attack_example(AttackedText("good film"), 0)
    return [round(float(result.score), 2) for result in goal.get_results([AttackedText(text) for text in texts])[0]]


def attacked(digits):
    """The attack's result, its text, and the probability that it shows for the first class."""
    goal = UntargetedClassification(Model(digits), target_max_score=0.8)
    found = Attack(goal, [], Synonyms(), GreedySearch()).attack("good film", 0)
    return type(found).__name__, found.perturbed_result.attacked_text.text, round(float(found.perturbed_result.raw_output[0]), 2)


told("decent film alone", scores(4, "decent film"), [0.1])
told("decent film, fine film", scores(16, "decent film", "fine film"), [0.1, 0.07])
told("the same, rounded to four digits", scores(4, "decent film", "fine film"), [0.46, 0.45])
told("attack", attacked(16), ("FailedAttackResult", "decent film", 0.9))
told("attack, rounded to four digits", attacked(4), ("SuccessfulAttackResult", "decent film", 0.54))
PY
