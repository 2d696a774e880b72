"""The language models made for CWEA and ONION: they learn, they are what the two load, and BERT's corruption is as it
was published."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from conftest import mbtsad, tiny_bert

from mbtsad_core.augment.cwea import contextual
from mbtsad_core.config import LanguageModelConfig
from mbtsad_core.detectors.onion import load_language_model, suspicions
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.research.language_model import IGNORED, KINDS, blocks_of, build_language_model, masked
from mbtsad_core.steps import drain

SENTENCE = "the film was truly lovely and the story was boring"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    save_classifier(tiny_bert(), folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One sentence again and again: a language that is learned in a few steps."""
    path = tmp_path_factory.mktemp("texts") / "texts.tsv"
    path.write_text(
        "text\tlabel\n" + f"{' '.join([SENTENCE] * 8)}\t0\n{' '.join([SENTENCE] * 8)}\t1\n" * 60, encoding="utf-8"
    )
    return path


CONFIG = LanguageModelConfig(length=10, epochs=3, learning_rate=5e-3)


@pytest.fixture(scope="module", params=KINDS)
def made(
    request: pytest.FixtureRequest, encoder: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, dict[str, float]]:
    out = tmp_path_factory.mktemp("made") / request.param
    return request.param, out, drain(build_language_model(request.param, texts, encoder, out, CONFIG))


def test_it_learns_the_language(made: tuple[str, Path, dict[str, float]]) -> None:
    _, _, figures = made
    # Ten words, of which "the" and "was" stand before two each; of the vocabulary's words by chance it would be far
    # more
    assert figures["perplexity"] < 2.5
    assert figures["tokens"] == 3 * (120 * 8 - 64) * 10


def test_it_is_what_the_method_loads(made: tuple[str, Path, dict[str, float]]) -> None:
    kind, out, _ = made
    if kind == "masked":
        offered = {contextual(str(out))("the film was truly lovely", random.Random(seed)) for seed in range(20)}
        assert all(len(text.split()) == 5 for text in offered)
        assert offered - {"the film was truly lovely"}
    else:
        found = suspicions(load_language_model(str(out)), "the film was music truly lovely", words=6)
        assert max(range(6), key=found.__getitem__) == 3  # the word that does not belong


def test_the_same_seed_gives_the_same_model(encoder: Path, texts: Path, tmp_path: Path) -> None:
    config = LanguageModelConfig(texts=40, length=10)
    first, again = (drain(build_language_model("causal", texts, encoder, tmp_path / name, config)) for name in "ab")
    assert first == again
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_a_text_is_cut_into_whole_blocks() -> None:
    assert blocks_of([[1, 2, 3, 4, 5], [6], [7, 8, 9, 10]], 2).tolist() == [[1, 2], [3, 4], [7, 8], [9, 10]]
    assert blocks_of([[1]], 2).shape == (0, 2)


def test_the_corruption_is_berts() -> None:
    tokenizer = tiny_bert().tokenizer
    blocks = torch.full((400, 100), 9)
    before = blocks.clone()
    given, wanted = masked(blocks, tokenizer, torch.Generator().manual_seed(0))
    told = wanted != IGNORED
    assert torch.equal(blocks, before)
    assert (wanted[told] == 9).all()
    assert (given[~told] == 9).all()
    assert told.float().mean().item() == pytest.approx(0.15, abs=0.01)
    as_mask = (given[told] == tokenizer.mask_token_id).float().mean().item()
    same = (given[told] == 9).float().mean().item()
    chance = 0.1 / len(tokenizer)  # that another token drawn is the mask, or the same
    assert as_mask == pytest.approx(0.8 + chance, abs=0.02)
    assert same == pytest.approx(0.1 + chance, abs=0.02)


def test_too_few_texts_are_refused(encoder: Path, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"8 blocks of 10 tokens.*Expected 128 or more"):
        drain(build_language_model("masked", texts, encoder, tmp_path / "out", LanguageModelConfig(texts=1, length=10)))


def test_the_command_prints_the_figures_and_where_there_is_no_encoder_says_so(
    encoder: Path, texts: Path, tmp_path: Path
) -> None:
    arguments = (
        "build-language-model",
        "causal",
        "--data",
        str(texts),
        "--length",
        "10",
        "--texts",
        "40",
        "--device",
        "cpu",
    )
    run = mbtsad(*arguments, "--base", str(encoder), "--out", str(tmp_path / "made"))
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout).keys() == {"kind", "tokens", "perplexity"}
    assert (tmp_path / "made" / "model.safetensors").exists()
    wrong = mbtsad(*arguments, "--base", str(tmp_path / "nothing"), "--out", str(tmp_path / "other"))
    assert wrong.returncode == 2
    assert "There is no pre-trained encoder" in wrong.stderr
    assert not (tmp_path / "other").exists()
