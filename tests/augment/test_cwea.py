"""CWEA: which words are replaced, how many, by what, and what is said where there is no model."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import VOCABULARY, tiny_bert
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from mbtsad_core.augment.cwea import MODEL, _offered, contextual, cwea
from mbtsad_core.errors import MBTSADError, UnsuitableModel
from mbtsad_core.models.classifier import save_classifier

TEXT = "The film was  truly lovely, and (the) story was boring ."


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model whose every prediction is "film" with probability about a half, "music" a quarter,
    "##ely" the rest."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("masked")
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    model = BertForMaskedLM(config)
    with torch.no_grad():
        model.cls.predictions.bias.fill_(-30.0)
        for word, share in (("film", 0.5), ("music", 0.25), ("##ely", 0.25)):
            model.cls.predictions.bias[VOCABULARY.index(word)] = torch.log(torch.tensor(share))
        model.get_input_embeddings().weight.zero_()  # tied: the bias alone decides
    model.save_pretrained(folder)
    tiny_bert().tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def augmenter(model_dir: Path):
    return contextual(str(model_dir))


def test_a_third_of_the_words_and_marks_is_replaced_and_all_else_stays(augmenter) -> None:
    tokens = ["The", "film", "was", "truly", "lovely", ",", "and", "(", "the", ")", "story", "was", "boring", "."]
    for seed in range(40):
        found = augmenter(TEXT, random.Random(seed))
        words = found.replace("(", " ( ").replace(")", " ) ").replace(",", " , ").split()
        assert len(words) == len(tokens)
        changed = [(old, new) for old, new in zip(tokens, words, strict=True) if old != new]
        assert len(changed) == 5  # ceil(0.3 * 14)
        assert all(old.isalpha() and new in ("film", "music") for old, new in changed)
        assert found.count("  ") == 1  # the spacing is the text's own


@pytest.mark.parametrize(("words", "changed"), [(1, 1), (3, 1), (4, 2), (30, 9), (34, 10), (50, 10)])
def test_the_count_is_bounded(augmenter, words: int, changed: int) -> None:
    found = augmenter(" ".join(["story"] * words), random.Random(0)).split()
    assert sum(word != "story" for word in found) == changed


def test_the_probabilities_decide_among_whole_words(augmenter) -> None:
    found = Counter(augmenter("story", random.Random(seed)) for seed in range(600))
    assert set(found) == {"film", "music"}  # never the piece, however likely
    assert found["film"] / 600 == pytest.approx(2 / 3, abs=0.08)


def test_the_word_itself_is_not_offered(augmenter) -> None:
    assert {augmenter("film", random.Random(seed)) for seed in range(50)} == {"music"}


def test_words_that_are_cut_in_pieces_are_left(augmenter) -> None:
    assert tiny_bert().tokenizer.tokenize("lovll") == ["lov", "##ll"]
    assert {augmenter("lovll", random.Random(seed)) for seed in range(20)} == {"lovll"}


def test_what_the_model_does_not_read_is_left(augmenter) -> None:
    found = augmenter(" ".join(["story"] * 200), random.Random(1)).split()
    assert all(word == "story" for word in found[62:])
    assert len(found) == 200


# ---------------------------------------------------------------- models


def test_the_environment_names_the_model(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODEL, str(model_dir))
    assert cwea("story", random.Random(0)) in ("film", "music")


def test_without_a_model_the_error_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODEL, raising=False)
    with pytest.raises(
        UnsuitableModel, match=r"needs a masked language model\. Name one in the environment variable MBTSAD_MASKED_LM"
    ):
        cwea("a film", random.Random(0))


def test_a_classifier_is_no_masked_language_model(tmp_path: Path) -> None:
    save_classifier(tiny_bert(), tmp_path / "classifier")
    with pytest.raises(MBTSADError, match="is no masked language model: its head has no weights"):
        contextual(str(tmp_path / "classifier"))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MBTSADError, match="absent"):
        contextual(str(tmp_path / "absent"))


def test_a_hub_model_that_cannot_be_fetched_is_named() -> None:
    with pytest.raises(UnsuitableModel, match="could be loaded from 'hub:nobody/nothing'"):
        contextual("hub:nobody/nothing")


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_the_words_of_a_place_are_those_of_the_whole_texts_scores(family: str) -> None:
    """Only one place's scores are made; in each family they are those that the model gives for all."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=len(VOCABULARY), max_position_embeddings=66)
    if family == "distilbert":
        model = DistilBertForMaskedLM(DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, **sizes))
    else:
        kinds = {"bert": (BertConfig, BertForMaskedLM), "roberta": (RobertaConfig, RobertaForMaskedLM)}
        config = kinds[family][0](
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, pad_token_id=0, **sizes
        )
        model = kinds[family][1](config)
    tokenizer = tiny_bert().tokenizer
    batch = tokenizer("the film was truly lovely", return_tensors="pt")
    if family == "distilbert":
        batch.pop("token_type_ids", None)
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    batch["input_ids"][0, 3] = tokenizer.mask_token_id
    with torch.no_grad():
        whole = model.eval()(**batch).logits[0, 3].softmax(-1)
    found = _offered(model, tokenizer, "the film was truly lovely", 3)
    assert "story" in found
    assert found == {
        word: pytest.approx(whole[tokenizer.convert_tokens_to_ids(word)].item(), rel=1e-5) for word in found
    }
    assert list(found.values()) == sorted(found.values(), reverse=True)
