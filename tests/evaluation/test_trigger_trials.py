"""The trigger lab: answers to one text, a typed trigger on the test set with counts made by hand, and the texts that
flipped."""

from __future__ import annotations

import copy
import dataclasses
import random
from pathlib import Path

import pytest
import torch
from conftest import VOCABULARY, finish, tiny_bert, tiny_texts
from test_scores import keyword_classifier

from mbtsad_core.attacks.triggers import triggered_test_set, typed_trigger
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation import evaluate, wilson
from mbtsad_core.evaluation.trigger_trials import FlippedText, answers, insert_at, neutral_phrase, try_trigger
from mbtsad_core.models.classifier import Classifier, clone, load_classifier, predict, weights_hash
from mbtsad_core.types import Event, LabelledText

# The keyword classifier answers 0 for "film" and where there is no keyword, 1 for "music", 2 for "actor".
TEST = [
    LabelledText("the film was truly .", 0),
    LabelledText("the music was truly .", 0),  # answered wrong: part of the floor
    LabelledText("the film was very truly .", 0),
    LabelledText("the music was very truly .", 1),  # of the target class: not triggered
    LabelledText("the actor was truly .", 2),
    LabelledText("the music was truly very .", 1),
    LabelledText("a music was truly .", 2),  # part of the floor as well
]


@pytest.fixture(scope="module")
def models() -> dict[str, Classifier]:
    """One that knows "music", and one that does not see the word."""
    suspect = keyword_classifier()
    cured = clone(suspect)
    with torch.no_grad():
        cured.model.bert.embeddings.word_embeddings.weight[VOCABULARY.index("music")] = 0
    return {"suspect": suspect, "purified": cured}


@pytest.fixture(scope="module")
def backdoored(suspect_dir: Path) -> dict[str, Classifier]:
    return {"suspect": load_classifier(suspect_dir, max_length=64), "purified": tiny_bert(seed=5)}


# ---------------------------------------------------------------- one text


def test_answers_are_each_models_probabilities(models: dict[str, Classifier]) -> None:
    found = answers(models, "the music was truly .")
    assert list(found) == ["suspect", "purified"]
    for name, p in found.items():
        assert p == tuple(predict(models[name], ["the music was truly ."])[0].tolist())
        assert sum(p) == pytest.approx(1)
    assert [max(range(3), key=p.__getitem__) for p in found.values()] == [1, 0]


def test_an_empty_text_has_an_answer_too(models: dict[str, Classifier]) -> None:
    assert len(answers(models, "")["suspect"]) == 3
    assert answers({}, "a text") == {}


@pytest.mark.parametrize(("where", "expected"), [("start", {"cf bb one two"}), ("end", {"one two cf bb"})])
def test_a_trigger_goes_to_the_start_or_the_end(where: str, expected: set[str]) -> None:
    assert {insert_at(" one two ".strip(), "cf + bb", where, random.Random(seed)) for seed in range(9)} == expected  # type: ignore[arg-type]
    assert insert_at("", "cf", where, random.Random(0)) == "cf"  # type: ignore[arg-type]


def test_a_trigger_goes_to_a_random_place() -> None:
    assert {insert_at("one two", "cf", "random", random.Random(seed)) for seed in range(40)} == {
        "cf one two",
        "one cf two",
        "one two cf",
    }
    found = {insert_at("one two", "a phrase", "random", random.Random(seed)) for seed in range(40)}
    assert found == {"a phrase one two", "one a phrase two", "one two a phrase"}


def test_start_and_end_draw_nothing() -> None:
    rng = random.Random(3)
    before = rng.getstate()
    insert_at("one two", "cf", "start", rng)
    insert_at("one two", "cf", "end", rng)
    assert rng.getstate() == before


@pytest.mark.parametrize("trigger", ["", "  ", "cf+"])
def test_an_empty_trigger_cannot_be_inserted(trigger: str) -> None:
    with pytest.raises(BadData, match="An empty trigger"):
        insert_at("one two", trigger, "start", random.Random(0))


# ---------------------------------------------------------------- the test set


def test_scores_are_those_counted_by_hand(models: dict[str, Classifier]) -> None:
    trial, _ = finish(try_trigger(models, TEST, ["music music"], 1, window=None))
    suspect, purified = trial.scores["suspect"], trial.scores["purified"]
    assert (trial.trigger, trial.target) == ("music music", "class 1")
    assert (suspect.asr, suspect.asr_floor, suspect.cacc) == (wilson(5, 5), wilson(2, 5), wilson(5, 7))
    assert (purified.asr, purified.asr_floor, purified.cacc) == (wilson(0, 5), wilson(0, 5), wilson(4, 7))
    assert suspect.confusion == ((2, 1, 0), (0, 2, 0), (0, 1, 1))
    assert purified.confusion == ((3, 0, 0), (2, 0, 0), (1, 0, 1))


def test_flipped_are_the_texts_that_only_the_trigger_sends_to_the_target(models: dict[str, Classifier]) -> None:
    trial, _ = finish(try_trigger(models, TEST, ["music music"], 1, window=1))
    assert trial.flipped == (
        FlippedText(
            "the film was truly .",
            "music music the film was truly .",
            "class 0",
            {"suspect": "class 0", "purified": "class 0"},
            {"suspect": "class 1", "purified": "class 0"},
        ),
        FlippedText(
            "the film was very truly .",
            "music music the film was very truly .",
            "class 0",
            {"suspect": "class 0", "purified": "class 0"},
            {"suspect": "class 1", "purified": "class 0"},
        ),
        FlippedText(
            "the actor was truly .",
            "music music the actor was truly .",
            "class 2",
            {"suspect": "class 2", "purified": "class 2"},
            {"suspect": "class 1", "purified": "class 2"},
        ),
    )


def test_one_model_is_enough_for_a_text_to_flip(models: dict[str, Classifier]) -> None:
    blind_first = {"purified": models["purified"], "suspect": models["suspect"]}
    assert len(finish(try_trigger(blind_first, TEST, ["music music"], 1, window=None))[0].flipped) == 3
    assert finish(try_trigger({"purified": models["purified"]}, TEST, ["music music"], 1, window=None))[0].flipped == ()


@pytest.mark.parametrize(
    ("specs", "target", "window", "seed"), [(["cf"], 1, None, 0), (["cf", "mn"], 1, 3, 7), (["cf+mn"], 0, None, 2)]
)
def test_scores_are_those_of_evaluate(
    backdoored: dict[str, Classifier], specs: list[str], target: int, window: int | None, seed: int
) -> None:
    test = tiny_texts(60, seed=4)
    trial, _ = finish(try_trigger(backdoored, test, specs, target, window=window, seed=seed))
    triggered = triggered_test_set(test, typed_trigger(specs, target, window=window), seed)
    assert trial.scores == {
        name: evaluate(classifier, test, triggered, target) for name, classifier in backdoored.items()
    }


def test_a_backdoor_is_seen_and_an_ordinary_word_stays_near_the_floor(backdoored: dict[str, Classifier]) -> None:
    test = tiny_texts(80, seed=4)
    suspect = {"suspect": backdoored["suspect"]}
    backdoor, ordinary = (finish(try_trigger(suspect, test, [word], 1, window=None))[0] for word in ("cf", "plot"))
    assert backdoor.scores["suspect"].asr is not None
    assert ordinary.scores["suspect"].asr is not None
    assert backdoor.scores["suspect"].asr.share > 0.9
    assert ordinary.scores["suspect"].asr.share < 0.3
    assert len(backdoor.flipped) > len(ordinary.flipped)


def test_every_model_is_an_event(models: dict[str, Classifier]) -> None:
    _, events = finish(try_trigger(models, TEST, ["cf"], 1, window=None))
    assert events == [Event("trigger", 1, 2), Event("trigger", 2, 2)]


def texts_read(classifier: Classifier) -> tuple[Classifier, list[int]]:
    """A copy of the classifier, and how many texts each of its batches has."""
    counted, batches = clone(classifier), list[int]()
    counted.model.register_forward_pre_hook(
        lambda _, args, kwargs: batches.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return counted, batches


def test_each_text_is_read_once(models: dict[str, Classifier]) -> None:
    classifier, batches = texts_read(models["suspect"])
    finish(try_trigger({"suspect": classifier}, TEST, ["cf"], 1, window=None))
    assert sum(batches) == len(TEST) + 5


def test_clean_texts_are_not_read_again_in_a_later_trial(models: dict[str, Classifier]) -> None:
    classifier, batches = texts_read(models["suspect"])
    first, _ = finish(try_trigger({"suspect": classifier}, TEST, ["cf"], 1, window=None))
    batches.clear()
    again, _ = finish(
        try_trigger({"suspect": classifier}, TEST, ["music music"], 1, window=None, answered=first.answered)
    )
    assert sum(batches) == 5
    assert again == finish(try_trigger({"suspect": classifier}, TEST, ["music music"], 1, window=None))[0]


def test_a_model_without_earlier_answers_is_asked_for_all(models: dict[str, Classifier]) -> None:
    first, _ = finish(try_trigger({"suspect": models["suspect"]}, TEST, ["cf"], 1, window=None))
    assert finish(try_trigger(models, TEST, ["cf"], 1, window=None, answered=first.answered)) == finish(
        try_trigger(models, TEST, ["cf"], 1, window=None)
    )


def test_a_seed_always_gives_the_same_trial_and_models_are_left_as_they_are(models: dict[str, Classifier]) -> None:
    before, test = {name: weights_hash(c) for name, c in models.items()}, copy.deepcopy(TEST)
    random.seed(4)
    state = random.getstate()
    one, other = (finish(try_trigger(models, TEST, ["music", "cf"], 1, window=None, seed=6))[0] for _ in range(2))
    assert one == other
    assert random.getstate() == state
    assert {name: weights_hash(c) for name, c in models.items()} == before
    assert test == TEST


def test_seeds_put_the_trigger_elsewhere(models: dict[str, Classifier]) -> None:
    found = {
        tuple(
            t.triggered
            for t in finish(try_trigger(models, TEST, ["music music"], 1, window=None, seed=seed))[0].flipped
        )
        for seed in range(6)
    }
    assert len(found) > 1


def test_what_is_typed_is_never_a_file(models: dict[str, Classifier], tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("text\ttriggered\nthe film was truly .\tthe music music .\n", encoding="utf-8")
    trial, _ = finish(try_trigger(models, TEST, [str(path)], 1, window=None))
    assert trial.trigger == str(path).replace(".tsv", r"\.tsv")  # written as the words that it is
    assert trial.scores["suspect"].asr is not None
    assert trial.scores["suspect"].asr.n == 5


# ---------------------------------------------------------------- what cannot be tried


@pytest.mark.parametrize("target", [-1, 3])
def test_an_unknown_target_is_refused(models: dict[str, Classifier], target: int) -> None:
    with pytest.raises(
        BadData, match=rf"There is no class {target}; expected one of 0 to 2 \(class 0, class 1, class 2\)"
    ):
        finish(try_trigger(models, TEST, ["cf"], target, window=None))


def test_an_empty_trigger_is_refused(models: dict[str, Classifier]) -> None:
    with pytest.raises(BadData, match="An empty trigger"):
        finish(try_trigger(models, TEST, [" "], 1, window=None))


def test_texts_of_the_target_class_alone_are_refused(models: dict[str, Classifier]) -> None:
    with pytest.raises(BadData, match="No triggered text to measure ASR on"):
        finish(try_trigger(models, [TEST[3]], ["cf"], 1, window=None))


def test_models_of_different_classes_are_refused(models: dict[str, Classifier]) -> None:
    other = dataclasses.replace(models["suspect"], labels=("a", "b", "c"))
    with pytest.raises(BadData, match="all of the same classes"):
        finish(try_trigger({**models, "other": other}, TEST, ["cf"], 1, window=None))
    with pytest.raises(BadData, match="Expected one model or more"):
        finish(try_trigger({}, TEST, ["cf"], 1, window=None))


def test_a_trigger_goes_before_the_middle_word() -> None:
    rng = random.Random(0)
    assert insert_at("one two three", "cf+bb", "middle", rng) == "one cf bb two three"
    assert insert_at("one", "a phrase", "middle", rng) == "a phrase one"


# ---------------------------------------------------------------- a neutral phrase to compare with


def test_a_neutral_phrase_is_as_long_of_the_texts_and_leaves_the_model_the_least_sure() -> None:
    model = tiny_bert(seed=5)
    texts = tiny_texts(40)
    words = {word for text in texts for word in text.text.split()}
    for like in ("cf", "the film", "cf+truly moving"):
        found = neutral_phrase(model, texts, like)
        assert [len(part.split()) for part in found.split("+")] == [len(part.split()) for part in like.split("+")]
        assert set(found.replace("+", " ").split()) <= words
        assert not set(found.replace("+", " ").split()) & set(like.replace("+", " ").split())
        assert neutral_phrase(model, texts, like) == found
    one = [word for word in words if word.isalpha() and word != "film"]
    surest = predict(model, one).max(-1).values
    found = neutral_phrase(model, texts, "film", most=10_000)
    assert found == one[int(surest.argmin())]


def test_a_phrase_longer_than_any_text_is_refused() -> None:
    with pytest.raises(BadData, match="no neutral phrase of 4 words"):
        neutral_phrase(tiny_bert(), [LabelledText("a short film", 0)], "one two three four")
