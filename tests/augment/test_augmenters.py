"""AEDA, Add-Trig, nlpaug's offline augmenters, and what holds for every augmenter of the dict."""

from __future__ import annotations

import ast
import copy
import functools
import os
import random
import re
import string
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, VOCABULARY, tiny_bert
from nlpaug.augmenter.char import KeyboardAug, OcrAug, RandomCharAug
from nlpaug.augmenter.word import SpellingAug
from scipy.stats import chisquare
from transformers import BertConfig, BertForMaskedLM

from mbtsad_core.augment import AUGMENTER_NAMES, AUGMENTERS, BUDGET_MATCHED, unavailable
from mbtsad_core.augment.add_trigger import add_rare_word
from mbtsad_core.augment.aeda import MARKS, aeda
from mbtsad_core.augment.cwea import MODEL
from mbtsad_core.augment.nlpaug_augmenters import keyboard, ocr, random_char, spelling
from mbtsad_core.augment.token_splitting import budget, split_tokens

TEXT = (
    "It's a stirring, funny and finally transporting re-imagining of beauty and the beast; 1930s horror films, 10/10."
)
TOO_RARE = 1e-4  # a p-value below it is no accident; the draws are seeded, so a test that passes once always does
DRAWS = 6000
NLPAUG = {"keyboard": (keyboard, KeyboardAug), "ocr": (ocr, OcrAug), "random_char": (random_char, RandomCharAug)}


@pytest.fixture(autouse=True)
def needed(wordnet: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What EDA and CWEA need: a small WordNet, and an untrained masked language model."""
    monkeypatch.setenv(MODEL, str(_masked_language_model(str(tmp_path_factory.getbasetemp()))))


@functools.cache
def _masked_language_model(base: str) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32
    )
    folder = Path(base) / "masked-language-model"
    BertForMaskedLM(config).save_pretrained(folder)
    tiny_bert().tokenizer.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------- every augmenter


def test_what_an_augmenter_lacks_on_this_machine_is_told(wordnet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unavailable() == {}
    monkeypatch.delenv(MODEL)
    assert unavailable() == {"cwea": "a masked language model, named in MBTSAD_MASKED_LM"}
    (wordnet / "data.noun").unlink()
    assert unavailable() == {"eda": "WordNet's files", "cwea": "a masked language model, named in MBTSAD_MASKED_LM"}


@pytest.mark.parametrize("name", AUGMENTERS)
def test_an_augmenter_says_where_it_comes_from(name: str) -> None:
    module = sys.modules[AUGMENTERS[name].__module__].__doc__ or ""
    assert re.search(r"\b(20\d\d|paper)\b", module), "names its source"
    assert AUGMENTERS[name].__doc__


def test_every_augmenter_has_words_for_people() -> None:
    assert list(AUGMENTER_NAMES) == list(AUGMENTERS)
    assert len(set(AUGMENTER_NAMES.values())) == len(AUGMENTERS)
    assert set(AUGMENTERS) == {"ts", "eda", "aeda", "cwea", "add_trigger", "keyboard", "ocr", "random_char", "spelling"}


def test_with_a_matched_budget_there_are_as_many_changes_as_token_splitting_makes() -> None:
    assert list(BUDGET_MATCHED) == list(AUGMENTERS)
    for words in (1, 4, 12, 80):
        text = " ".join(["story"] * words)
        wanted = len(split_tokens(text, random.Random(0)).cuts)
        assert wanted == budget(text) == min(-(-3 * words // 10), 10)
        for seed in range(10):
            assert len(BUDGET_MATCHED["aeda"](text, random.Random(seed)).split()) == words + wanted
            assert BUDGET_MATCHED["add_trigger"](text, random.Random(seed)).split().count("cb") == wanted
            assert len(BUDGET_MATCHED["eda"](text, random.Random(seed)).split()) <= words + wanted
        assert words + wanted in {len(BUDGET_MATCHED["eda"](text, random.Random(seed)).split()) for seed in range(40)}


@pytest.mark.parametrize("name", AUGMENTERS)
def test_an_augmenter_changes_the_text_by_its_generator_alone(name: str) -> None:
    drawn = [AUGMENTERS[name](TEXT, random.Random(seed)) for seed in range(20)]
    assert drawn == [AUGMENTERS[name](TEXT, random.Random(seed)) for seed in range(20)]
    assert len(set(drawn)) > 3
    assert TEXT not in drawn


@pytest.mark.parametrize("name", AUGMENTERS)
def test_the_global_generators_are_neither_read_nor_changed(name: str) -> None:
    random.seed(1)
    np.random.seed(1)
    one = AUGMENTERS[name](TEXT, random.Random(5))
    random.seed(2)
    np.random.seed(2)
    before, numbers = random.getstate(), copy.deepcopy(np.random.get_state())
    assert AUGMENTERS[name](TEXT, random.Random(5)) == one
    assert random.getstate() == before
    after = np.random.get_state()
    assert all(np.array_equal(a, b) for a, b in zip(after, numbers, strict=True))


@pytest.mark.parametrize("name", AUGMENTERS)
@pytest.mark.parametrize("text", ["", "  ", "a", "!", "don't", " two  spaces ", "übergroß 映画", "\n"])
def test_no_text_is_too_odd(name: str, text: str) -> None:
    for seed in range(10):
        found = AUGMENTERS[name](text, random.Random(seed))
        assert isinstance(found, str)
        assert bool(found.strip()) == bool(text.strip()) or name == "add_trigger"


def test_a_result_is_the_same_in_every_process() -> None:
    """Whatever order its sets of strings have."""
    code = (
        "import random; from mbtsad_core.augment import AUGMENTERS; "
        f"print({{name: augment({TEXT!r}, random.Random(3)) for name, augment in AUGMENTERS.items()}})"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ast.literal_eval(run.stdout) == {
        name: augment(TEXT, random.Random(3)) for name, augment in AUGMENTERS.items()
    }


def test_threads_do_not_disturb_each_other() -> None:
    def many(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [keyboard(TEXT, rng) for _ in range(200)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(many, range(4))) == [many(seed) for seed in range(4)]


def test_the_augmenters_come_without_nlpaug_until_one_is_used() -> None:
    code = "import sys, mbtsad_core.augment; print('nlpaug' in sys.modules, 'numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


# ---------------------------------------------------------------- AEDA


def marks_before(text: str, found: str) -> list[int]:
    """The words, by number, that a mark stands before; fails where anything else has changed."""
    words, places = text.split(), []
    rest = iter(found.split())
    for i, word in enumerate(words):
        token = next(rest)
        if token != word:
            assert token in MARKS
            assert next(rest) == word
            places.append(i)
    assert list(rest) == []
    return places


@pytest.mark.parametrize(("words", "most"), [(1, 1), (2, 1), (3, 1), (4, 2), (7, 3), (10, 4), (20, 7), (40, 13)])
def test_aeda_draws_the_number_of_marks_uniformly(words: int, most: int) -> None:
    """From 1 to floor(0.3 n + 1)."""
    text = " ".join(["word"] * words)
    found = Counter(len(marks_before(text, aeda(text, random.Random(seed)))) for seed in range(1500))
    assert sorted(found) == list(range(1, most + 1))
    assert most == 1 or chisquare([found[q] for q in range(1, most + 1)]).pvalue > TOO_RARE


def test_aeda_marks_every_word_with_the_same_chance_and_every_mark_is_as_likely() -> None:
    text = "one two three four five six seven"
    drawn = [aeda(text, random.Random(seed)) for seed in range(DRAWS)]
    places = Counter(place for found in drawn for place in marks_before(text, found))
    assert chisquare([places[i] for i in range(7)]).pvalue > TOO_RARE
    marks = Counter(token for found in drawn for token in found.split() if token in MARKS)
    assert set(marks) == set(".,!?;:")
    assert chisquare(list(marks.values())).pvalue > TOO_RARE


@pytest.mark.parametrize("text", ["two  spaces", " leading", "trailing ", "a\ttab and\na line"])
def test_aeda_keeps_the_spacing_of_the_text(text: str) -> None:
    for seed in range(30):
        found, left = aeda(text, random.Random(seed)), text
        for mark in MARKS:
            found = found.replace(f"{mark} ", "")
        assert found == left


def test_aeda_leaves_a_text_without_words_alone() -> None:
    assert [aeda(text, random.Random(0)) for text in ("", "  \n")] == ["", "  \n"]


# ---------------------------------------------------------------- Add-Trig


def test_the_rare_word_lands_at_every_boundary_with_the_same_chance() -> None:
    text = "the old piano hums all night"
    found = Counter(add_rare_word(text, random.Random(seed)).split().index("cb") for seed in range(DRAWS))
    assert sorted(found) == list(range(7))
    assert chisquare([found[i] for i in range(7)]).pvalue > TOO_RARE


def test_the_rare_word_is_all_that_is_added() -> None:
    assert {add_rare_word("one  two", random.Random(seed)) for seed in range(40)} == {
        "cb one  two",
        "one  cb two",
        "one  two cb",
    }
    assert add_rare_word("", random.Random(0)) == "cb"


# ---------------------------------------------------------------- nlpaug


@pytest.mark.parametrize("name", NLPAUG)
def test_a_generator_gives_what_nlpaug_gives_with_its_global_one_in_the_same_state(name: str) -> None:
    ours, theirs = NLPAUG[name]
    augmenter = theirs()
    for seed in range(40):
        random.seed(seed)
        expected = augmenter.augment(TEXT)[0]
        assert ours(TEXT, random.Random(seed)) == expected


def test_misspellings_are_nlpaugs() -> None:
    known = SpellingAug().model.dict
    words = ["the", "beautiful", "film", "received", "believable", "reviews", "yesterday"]
    changed = set()
    for seed in range(60):
        found = spelling(" ".join(words), random.Random(seed)).split()
        assert len(found) == len(words)
        different = [(a, b) for a, b in zip(words, found, strict=True) if a != b.lower()]
        assert 0 < len(different) <= 3  # ceil(0.3 * 7)
        assert all(b.lower() in {other.lower() for other in known[a]} for a, b in different)
        changed |= {a for a, _ in different}
    assert len(changed) >= 5


def test_the_lists_of_nlpaug_itself_are_left_as_they_are() -> None:
    theirs = SpellingAug().model
    before = copy.deepcopy(theirs.dict)
    spelling(TEXT, random.Random(0))
    assert SpellingAug().model is theirs
    assert theirs.dict == before


@pytest.mark.parametrize("augmenter", [keyboard, random_char])
def test_short_words_are_left_alone(augmenter) -> None:  # type: ignore[no-untyped-def]
    assert augmenter("a cat sat on the mat", random.Random(0)) == "a cat sat on the mat"


def test_random_characters_replace_one_for_one() -> None:
    found = random_char("wonderful", random.Random(1))
    assert len(found) == len("wonderful")
    assert found != "wonderful"
    assert set(found) <= set(string.ascii_letters + string.digits + "!@#$%^&*()_+")
