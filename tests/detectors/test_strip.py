"""STRIP: entropies, averages, thresholds and perturbations by hand, and OpenBackdoor's mixed-up average."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import VOCABULARY, adding_bert, finish, tiny_texts

from mbtsad_core.detectors.strip import bits, mean_entropy, perturbed, strip, telling_words, threshold_at
from mbtsad_core.detectors.strip_method import STRIPConfig
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, load_classifier, predict

CLEAN, TEST = tiny_texts(150), tiny_texts(100, seed=1)
TEXTS = [t.text for t in TEST]


@pytest.fixture(scope="module")
def suspect(suspect_dir: Path) -> Classifier:
    return load_classifier(suspect_dir, max_length=64)


def test_entropy_is_in_bits() -> None:
    found = bits(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.5, 0.25, 0.25]]))
    assert found.tolist() == pytest.approx([1.0, 0.0, 1.5])


def test_a_score_is_the_mean_over_a_texts_own_copies() -> None:
    entropy = torch.tensor([0.0, 1.0, 10.0, 11.0, 20.0, 21.0])  # three texts, two copies each
    assert mean_entropy(entropy, 2, "correct").tolist() == [0.5, 10.5, 20.5]


def test_the_form_of_openbackdoor_mixes_copies_of_unrelated_texts() -> None:
    entropy = torch.tensor([0.0, 1.0, 10.0, 11.0, 20.0, 21.0])
    # Rows of three are made of [0, 1, 10] and [11, 20, 21]: text 0 is averaged with a copy of text 1, and so on.
    assert mean_entropy(entropy, 2, "reproduce").tolist() == [5.5, 10.5, 15.5]
    other = torch.rand(35, generator=torch.Generator().manual_seed(0))
    assert mean_entropy(other, 5, "reproduce").tolist() == pytest.approx(
        np.mean(np.reshape(other.numpy(), (5, -1)), axis=0).tolist()
    )


@pytest.mark.parametrize(("frr", "below"), [(0.0, 0), (0.01, 1), (0.019, 1), (0.05, 5), (1.0, 99)])
def test_the_threshold_leaves_that_share_of_the_clean_scores_below(frr: float, below: int) -> None:
    scores = torch.rand(100, generator=torch.Generator().manual_seed(0))
    assert int((scores < threshold_at(scores, frr)).sum()) == below


def test_telling_words_are_ranked_by_tf_idf() -> None:
    # Two texts of weight: "film" is in both, idf 1; "music" and "actor" in one, idf 1 + ln(4 / 2) with the third text
    # counted.
    found = telling_words(["the film, the FILM and music", "a film of the actor", "of the and"])
    assert found == [["film", "music"], ["actor", "film"]]  # 2 x (1 + ln 4/3) = 2.58 beats 1.69; 1.69 beats 1.29


def test_clean_texts_of_stop_words_alone_are_refused() -> None:
    with pytest.raises(BadData, match="nothing but stop words"):
        telling_words(["the and", "of"])


def test_half_of_the_places_are_drawn_and_overwritten_by_the_words_of_one_text() -> None:
    text, donors = "a b c d e f g h i", [["one", "two"], ["three", "four", "five", "six", "seven"]]
    seen = set()
    for seed in range(60):
        words = perturbed(text, donors, 0.5, random.Random(seed)).split()
        assert len(words) == 9
        new = {word for word, old in zip(words, text.split(), strict=True) if word != old}
        # floor(4.5) draws, with repeats
        assert 1 <= sum(word != old for word, old in zip(words, text.split(), strict=True)) <= 4
        assert new <= set(donors[0]) or new <= {"three", "four", "five", "six"}
        seen |= new
    assert seen == {"one", "two", "three", "four", "five", "six"}


def test_short_texts_and_a_swap_of_nothing_stay_as_they_are() -> None:
    assert perturbed("film", [["x"]], 0.5, random.Random(0)) == "film"
    assert perturbed("", [["x"]], 0.5, random.Random(0)) == ""
    assert perturbed("a film was", [["x"]], 0.0, random.Random(0)) == "a film was"


@pytest.mark.parametrize("form", ["correct", "reproduce"])
def test_the_scores_are_those_of_the_copies_that_the_seed_draws(suspect: Classifier, form: str) -> None:
    found = finish(strip(suspect, CLEAN, TEXTS, STRIPConfig(copies=3, frr=0.1, seed=4, form=form)))[0]
    rng, donors = random.Random("strip, seed 4"), telling_words([t.text for t in CLEAN])
    scores = []
    for texts in ([t.text for t in CLEAN], TEXTS):
        p = predict(suspect, [perturbed(text, donors, 0.5, rng) for text in texts for _ in range(3)]).double().numpy()
        entropy = -np.sum(p * np.log2(np.maximum(p, 1e-300)), axis=-1)
        scores.append(entropy.reshape(-1, 3).mean(1) if form == "correct" else entropy.reshape(3, -1).mean(0))
    assert found.scores == pytest.approx(scores[1].tolist(), abs=1e-5)
    assert found.thresholds == pytest.approx((np.sort(scores[0])[15],), abs=1e-5)
    assert found.flags == tuple(s < found.thresholds[0] for s in found.scores if s is not None)
    assert found.corrected is None


@pytest.mark.parametrize("seed", range(3))
def test_triggered_texts_are_flagged_and_clean_ones_hardly(seed: int) -> None:
    """With so much of the trigger that some of it outlives every copy; of a single word most copies have none left."""
    classifier = adding_bert(seed)
    with torch.no_grad():
        classifier.model.bert.embeddings.word_embeddings.weight[VOCABULARY.index("cf")] += 6 * torch.tensor(
            [1.0, -1.0] * 16
        )
    triggered = ["cf " * 9 + t.text for t in TEST if t.label == 0]
    config = STRIPConfig(frr=0.05, copies=20, seed=seed)
    clean, hit = (
        sum(finish(strip(classifier, CLEAN, texts, config))[0].flags) / len(texts) for texts in (TEXTS, triggered)
    )
    assert clean < 0.15
    assert hit > 0.9
