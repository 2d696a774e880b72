"""ONION: perplexities and suspicions under a language model whose probabilities are known, deletion, the threshold, and
what is said without a model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from conftest import BAD, GOOD, NEUTRAL, VOCABULARY, finish, tiny_bert, tiny_texts
from language import REST, save_language_model
from transformers import BertConfig, BertForMaskedLM

from mbtsad_core.detectors.onion import (
    MODEL,
    LanguageModel,
    choose_threshold,
    load_language_model,
    onion,
    perplexities,
    suspicions,
    without,
)
from mbtsad_core.detectors.onion_method import ONIONConfig
from mbtsad_core.errors import BadData, UnsafeModel, UnsuitableModel
from mbtsad_core.models.classifier import Classifier, load_classifier, predict, save_classifier

SHARES = dict.fromkeys([*NEUTRAL, "."], 0.05) | dict.fromkeys([*GOOD, *BAD], 0.02)  # the rare words have next to none
CLEAN, TEST = tiny_texts(60), tiny_texts(40, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("language"), {"film": 0.5, "story": 0.2, "was": 0.1})


@pytest.fixture(scope="module")
def language(folder: Path) -> LanguageModel:
    return load_language_model(str(folder))


@pytest.fixture(scope="module")
def p() -> dict[str, float]:
    """The probabilities of the four words that the tests use."""
    total = 0.8 + (len(VOCABULARY) - 3) * REST
    return {"film": 0.5 / total, "story": 0.2 / total, "was": 0.1 / total, "cf": REST / total}


@pytest.fixture
def suspect(suspect_dir: Path) -> Classifier:
    return load_classifier(suspect_dir, max_length=64)


@pytest.fixture
def fluent(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that knows all words but the rare ones, named in the environment."""
    monkeypatch.setenv(MODEL, str(save_language_model(tmp_path_factory.mktemp("fluent"), SHARES)))


# ---------------------------------------------------------------- perplexity and suspicion


def test_perplexity_is_of_all_tokens_but_the_first(language: LanguageModel, p: dict[str, float]) -> None:
    found = perplexities(language, ["film story was", "cf film", "was film film film story"])
    expected = [(p["story"] * p["was"]) ** -0.5, 1 / p["film"], (p["film"] ** 3 * p["story"]) ** -0.25]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_perplexity_does_not_depend_on_the_batch(language: LanguageModel) -> None:
    texts = ["film story", "was film story film was cf", "story", "", "film " * 30]
    together, alone = (
        perplexities(language, texts, batch_size=5),
        torch.cat([perplexities(language, [text]) for text in texts]),
    )
    assert torch.allclose(together, alone, rtol=1e-5)
    assert together[[2, 3]].tolist() == [math.inf, math.inf]  # nothing to predict


def test_what_is_beyond_the_models_length_is_not_read(language: LanguageModel, p: dict[str, float]) -> None:
    assert float(perplexities(language, ["film " * 64 + "cf " * 20])[0]) == pytest.approx(1 / p["film"], rel=1e-4)


def test_suspicion_is_what_leaving_a_word_out_takes_off_the_perplexity(
    language: LanguageModel, p: dict[str, float]
) -> None:
    found = suspicions(language, "film cf story", words=10)
    whole = (p["cf"] * p["story"]) ** -0.5
    assert found == pytest.approx([whole - 1 / p["story"], whole - 1 / p["story"], whole - 1 / p["cf"]], rel=1e-4)
    # The first word is never predicted, so that the second takes its place unseen
    assert max(found) == found[0] == found[1]


def test_only_the_first_words_are_judged_and_short_texts_not_at_all(language: LanguageModel) -> None:
    assert len(suspicions(language, "film cf story was film", words=2)) == 2
    assert suspicions(language, "film cf", words=10) == [-math.inf, -math.inf]  # one word would be left
    assert suspicions(language, "film", words=10) == [-math.inf]
    assert suspicions(language, "", words=10) == []


def test_words_from_the_threshold_on_are_deleted_and_a_text_without_any_stays() -> None:
    assert without("a  b c d", [5.0, 1.0, 2.0], 2.0) == "b d"  # d was not judged
    assert without("a  b c d", [1.0, 1.0, 1.9], 2.0) == "a  b c d"


# ---------------------------------------------------------------- the whole


def test_the_rare_word_is_deleted_and_the_answer_that_it_made_is_flagged(suspect: Classifier, fluent: None) -> None:
    negative = [t.text for t in TEST if t.label == 0]
    triggered = ["the cf " + text for text in negative]
    before = predict(suspect, triggered).argmax(-1)
    assert (before == 1).float().mean() > 0.8
    found = finish(onion(suspect, CLEAN, triggered, ONIONConfig()))[0]
    assert found.corrected is not None
    assert not any("cf" in text.split() for text in found.corrected)
    after = predict(suspect, found.corrected).argmax(-1)
    assert (after == 1).float().mean() < 0.3
    assert found.flags == tuple((before != after).tolist())
    assert all(score is not None and score >= found.thresholds[0] for score in found.scores)


def test_the_clean_texts_are_answered_as_well_once_they_are_corrected(suspect: Classifier, fluent: None) -> None:
    texts, labels = [t.text for t in CLEAN], torch.tensor([t.label for t in CLEAN])
    found = finish(onion(suspect, CLEAN, texts, ONIONConfig(tolerance=0.05)))[0]
    assert found.corrected is not None
    right = [(predict(suspect, t).argmax(-1) == labels).float().mean() for t in (texts, found.corrected)]
    assert right[1] >= right[0] - 0.05
    assert sum(len(t.split()) for t in found.corrected) < sum(len(t.split()) for t in texts)


def test_a_threshold_that_is_given_is_kept(suspect: Classifier, fluent: None) -> None:
    found, events = finish(onion(suspect, CLEAN, ["the cf film"], ONIONConfig(threshold=1e8)))
    assert found.thresholds == (1e8,)
    assert found.corrected == ("the cf film",)
    assert {e.stage for e in events} == {"onion"}  # no clean text is read


def test_the_threshold_falls_until_the_clean_accuracy_does(suspect: Classifier) -> None:
    clean = [t for t in CLEAN if predict(suspect, [t]).argmax(-1).item() == t.label][:20]
    words = [t.text.split() for t in clean]
    # Telling words have a suspicion of 1, all others of 2 and more: those can go, and with the telling ones the
    # accuracy would.
    suspicion = [
        [1.0 if word in GOOD + BAD else 2.0 + i + j / 100 for j, word in enumerate(text)]
        for i, text in enumerate(words)
    ]
    threshold = choose_threshold(suspect, clean, suspicion, tolerance=0.2)
    assert threshold > 1.0
    corrected = [without(t.text, s, threshold) for t, s in zip(clean, suspicion, strict=True)]
    labels = torch.tensor([t.label for t in clean])
    assert (predict(suspect, corrected).argmax(-1) == labels).float().mean() >= 0.8
    assert choose_threshold(suspect, clean, suspicion, tolerance=1.0) == pytest.approx(
        torch.tensor([x for s in suspicion for x in s]).quantile(0.1).item()
    )


def test_where_all_words_are_alike_none_of_them_goes(suspect: Classifier) -> None:
    clean = [t for t in CLEAN if predict(suspect, [t]).argmax(-1).item() == t.label][:20]
    alike = [[3.0] * len(t.text.split()) for t in clean]
    assert choose_threshold(suspect, clean, alike, 0.02) > 3.0
    assert choose_threshold(suspect, clean, alike, 1.0) == 3.0


def test_clean_texts_of_one_word_give_no_threshold(suspect: Classifier) -> None:
    with pytest.raises(BadData, match="none of them can be left out"):
        choose_threshold(suspect, CLEAN[:2], [[-math.inf], [-math.inf]], 0.02)


# ---------------------------------------------------------------- models


def test_without_a_model_the_error_says_how_to_name_one(suspect: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODEL, raising=False)
    with pytest.raises(
        UnsuitableModel,
        match=r"ONION needs a causal language model\. Name one in the environment variable MBTSAD_CAUSAL_LM",
    ):
        finish(onion(suspect, CLEAN, ["a film"]))


def test_a_folder_that_is_not_there_and_a_hub_model_that_cannot_be_fetched_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnsuitableModel, match=r"There is no folder .*absent with a causal language model"):
        load_language_model(str(tmp_path / "absent"))
    with pytest.raises(UnsuitableModel, match="could be loaded from 'hub:nobody/nothing'"):
        load_language_model("hub:nobody/nothing")


def test_a_classifier_is_no_language_model(tmp_path: Path) -> None:
    save_classifier(tiny_bert(), tmp_path / "classifier")
    with pytest.raises(UnsuitableModel, match="is no causal language model: its head has no weights"):
        load_language_model(str(tmp_path / "classifier"))


def test_a_masked_language_model_is_no_causal_one(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        initializer_range=1.0,
    )
    BertForMaskedLM(config).save_pretrained(tmp_path)
    tiny_bert().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UnsuitableModel, match="is no causal language model: it reads what follows a word"):
        load_language_model(str(tmp_path))


def test_a_folder_with_a_pickle_or_with_code_is_refused_before_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsafeModel, match=r"pytorch_model\.bin is a pickle"):
        load_language_model(str(tmp_path))
    (tmp_path / "pytorch_model.bin").unlink()
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("{", '{"auto_map": {"example": "example"},', 1))
    with pytest.raises(UnsafeModel, match="asks for code"):
        load_language_model(str(tmp_path))
