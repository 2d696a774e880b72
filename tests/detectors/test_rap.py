"""RAP: its loss and threshold by hand, the row that is taught, and who is judged by which class."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import VOCABULARY, adding_bert, finish, tiny_bert, tiny_texts

from mbtsad_core.detectors.rap import falls, rap, rap_loss, rare_word, teach, with_word
from mbtsad_core.detectors.rap_method import RAPConfig
from mbtsad_core.errors import BadConfig, BadData
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, load_classifier, predict
from mbtsad_core.types import LabelledText

CLEAN, TEST = tiny_texts(80), tiny_texts(60, seed=1)
TEXTS = [t.text for t in TEST]
MN = VOCABULARY.index("mn")
TAUGHT = RAPConfig(epochs=5, learning_rate=0.3)


@pytest.fixture(scope="module")
def suspect(suspect_dir: Path) -> Classifier:
    return load_classifier(suspect_dir, max_length=64)


# ---------------------------------------------------------------- equations


def test_the_loss_asks_for_a_fall_between_least_and_most() -> None:
    config = RAPConfig(scale=2.0)
    # Falls of -0.05 (a rise), 0.2 and 0.5: short of 0.1 by 0.15, just right, and beyond 0.3 by 0.2.
    assert float(rap_loss(torch.tensor([0.05, -0.2, -0.5]), config)) == pytest.approx(2 * 0.15 / 3 + 0.2 / 3)
    assert float(rap_loss(torch.tensor([-0.1, -0.3, -0.22]), config)) == pytest.approx(0.0, abs=1e-7)


def test_the_word_stands_behind_the_first_special_token() -> None:
    tokens = {"input_ids": [2, 10, 11, 3], "token_type_ids": [0, 0, 0, 0]}
    assert with_word(tokens, 99, max_length=64) == {"input_ids": [2, 99, 10, 11, 3], "token_type_ids": [0] * 5}
    assert with_word(tokens, 99, max_length=4) == {"input_ids": [2, 99, 10, 3], "token_type_ids": [0] * 4}
    assert with_word({"input_ids": [2]}, 99, max_length=4) == {"input_ids": [2, 99]}
    assert tokens["input_ids"] == [2, 10, 11, 3]


def test_one_step_goes_along_the_gradient_and_keeps_the_norm() -> None:
    classifier = tiny_bert()
    for module in classifier.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    own = [t for t in CLEAN if t.label == 1][:10]
    shaken, events = finish(teach(classifier, own, 1, MN, RAPConfig(epochs=1, learning_rate=0.5)))
    assert len(events) == 1

    model = clone(classifier).model
    weight = model.get_input_embeddings().weight
    plain = encode(classifier, own)
    p = [
        model(**collate(classifier, e)).logits.softmax(-1)[:, 1] for e in (plain, [with_word(e, MN, 64) for e in plain])
    ]
    (gradient,) = torch.autograd.grad(rap_loss(p[1] - p[0].detach(), RAPConfig()), weight)
    row = weight[MN].detach() - 0.5 * gradient[MN]
    row = row * weight[MN].detach().norm() / row.norm()
    found = shaken.model.get_input_embeddings().weight
    assert torch.allclose(found[MN], row, atol=1e-6)
    assert not torch.equal(found[MN], weight[MN])


def test_only_the_words_row_is_taught_and_it_keeps_its_norm(suspect: Classifier) -> None:
    own = [t for t in CLEAN if t.label == 1]
    shaken = finish(teach(suspect, own, 1, MN, TAUGHT))[0]
    for (name, old), new in zip(suspect.model.named_parameters(), shaken.model.parameters(), strict=True):
        if name.endswith("word_embeddings.weight"):
            assert (old != new).any(dim=1).nonzero().flatten().tolist() == [MN]
            assert float(new[MN].detach().norm()) == pytest.approx(float(old[MN].detach().norm()), rel=1e-5)
        else:
            assert torch.equal(old, new), name
    assert not shaken.model.training


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_taught_word_lowers_the_probability_of_clean_texts_of_the_class(seed: int) -> None:
    given = adding_bert(seed, steepness=5.0)
    held, config = [t.text for t in TEST if t.label == 1], RAPConfig(epochs=20, learning_rate=1.0)
    shaken = finish(teach(given, [t for t in CLEAN if t.label == 1], 1, MN, config))[0]
    before, after = (falls(c, held, 1, MN) for c in (given, shaken))
    assert float(before.mean()) < 0.03
    assert 0.1 < float(after.mean()) < 0.3  # between `least` and `most`
    assert rap_loss(-after, config) < 0.5 * rap_loss(-before, config)


def test_a_fall_is_the_probability_without_the_word_less_that_with_it(suspect: Classifier) -> None:
    found = falls(suspect, TEXTS, 1, MN, batch_size=7)
    expected = predict(suspect, TEXTS)[:, 1] - predict(suspect, [f"mn {text}" for text in TEXTS])[:, 1]
    assert torch.allclose(found, expected, atol=1e-5)


# ---------------------------------------------------------------- the word


def test_the_word_is_drawn_from_words_that_no_clean_text_has() -> None:
    classifier = tiny_bert()
    drawn = {VOCABULARY[rare_word(classifier, CLEAN, RAPConfig(seed=seed))] for seed in range(30)}
    assert len(drawn) > 2
    seen = {word for t in CLEAN for word in t.text.split()}
    assert drawn & seen == set()
    assert all(word.isalpha() for word in drawn)
    assert {"cf", "mn"} <= drawn


def test_a_word_can_be_named_where_the_tokenizer_has_it() -> None:
    assert rare_word(tiny_bert(), CLEAN, RAPConfig(word="cf")) == VOCABULARY.index("cf")
    with pytest.raises(BadData, match=r"no single token for the word 'mb' of RAP\. Set word to drawn"):
        rare_word(tiny_bert(), CLEAN, RAPConfig(word="mb"))


def test_a_vocabulary_that_the_clean_texts_exhaust_is_told() -> None:
    every = [LabelledText(word, 0) for word in VOCABULARY if word.isalpha()]
    with pytest.raises(BadData, match="found no word of the vocabulary that the clean texts do not have"):
        rare_word(tiny_bert(), every, RAPConfig())


# ---------------------------------------------------------------- who is flagged


def test_every_text_is_judged_by_the_class_that_it_is_answered_with(suspect: Classifier) -> None:
    config = dataclasses.replace(TAUGHT, frr=0.1)
    found, events = finish(rap(suspect, CLEAN, TEXTS, config))
    row = rare_word(suspect, CLEAN, config)
    answers, clean_answers = (predict(suspect, texts).argmax(-1).tolist() for texts in (TEXTS, CLEAN))
    flags, thresholds = [False] * len(TEXTS), []
    for label in (0, 1):
        shaken = finish(teach(suspect, [t for t in CLEAN if t.label == label], label, row, config))[0]
        held = [t.text for t, answer in zip(CLEAN, clean_answers, strict=True) if t.label == answer == label]
        thresholds.append(np.percentile(falls(shaken, held, label, row).numpy(), 10))
        for i, fall in enumerate(falls(shaken, TEXTS, label, row).tolist()):
            if answers[i] == label:
                assert found.scores[i] == pytest.approx(fall, abs=1e-5)
                flags[i] = found.scores[i] < found.thresholds[label]
    assert found.thresholds == pytest.approx(tuple(thresholds), abs=1e-5)
    assert found.flags == tuple(flags)
    assert list(dict.fromkeys(e.stage for e in events)) == ["rap, class 0", "rap, class 1"]


def test_the_known_target_form_judges_one_class_and_lets_all_others_pass(suspect: Classifier) -> None:
    union = finish(rap(suspect, CLEAN, TEXTS, TAUGHT))[0]
    known = finish(rap(suspect, CLEAN, TEXTS, dataclasses.replace(TAUGHT, form="reproduce", protected=1)))[0]
    answers = predict(suspect, TEXTS).argmax(-1).tolist()
    assert [score is not None for score in known.scores] == [answer == 1 for answer in answers]
    assert known.thresholds == union.thresholds[1:]
    assert known.flags == tuple(flag and answer == 1 for flag, answer in zip(union.flags, answers, strict=True))


def test_a_class_without_clean_texts_that_are_answered_right_is_told(suspect: Classifier) -> None:
    with pytest.raises(
        BadData, match="needs clean texts of the class 'positive' that the classifier answers right; of 0 there is none"
    ):
        finish(rap(suspect, [t for t in CLEAN if t.label == 0], TEXTS, RAPConfig(epochs=1)))


def test_a_class_that_there_is_not_cannot_be_protected(suspect: Classifier) -> None:
    with pytest.raises(BadConfig, match="There is no class 2 to protect: the classifier has 2"):
        finish(rap(suspect, CLEAN, TEXTS, RAPConfig(form="reproduce", protected=2)))
