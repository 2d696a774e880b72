"""STRIP (Gao et al., ACSAC 2019; for text as OpenBackdoor has it): an answer that stands though half of the words
change is a trigger's."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from mbtsad_core.detectors.detection import Detection, check_clean
from mbtsad_core.detectors.strip_method import STRIP, STRIPConfig
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, predict
from mbtsad_core.types import Event, LabelledText, Steps

TEXTS_A_STEP = 64


@STRIP.runs
def strip(
    classifier: Classifier, clean: Sequence[LabelledText], texts: Sequence[str], config: STRIPConfig = STRIPConfig()
) -> Steps[Detection]:
    """Flags the texts whose perturbed copies are answered with less entropy than all but `frr` of the clean ones.
    Scores are in bits.

    With `form="reproduce"` a text's score depends on the other texts, for OpenBackdoor's averages mix them.
    Raises BadData without clean texts, and where no word of them is of any weight.
    """
    check_clean(clean, "STRIP")
    donors = telling_words([example.text for example in clean])
    rng = random.Random(f"strip, seed {config.seed}")
    entropy = yield from _copies_entropy(
        classifier, [example.text for example in clean], donors, config, rng, "strip, clean texts"
    )
    threshold = threshold_at(mean_entropy(entropy, config.copies, config.form), config.frr)
    entropy = yield from _copies_entropy(classifier, texts, donors, config, rng, STRIP.key)
    scores = mean_entropy(entropy, config.copies, config.form).tolist()
    return Detection(tuple(score < threshold for score in scores), tuple(scores), (threshold,))


def telling_words(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text by falling tf-idf, English stop words left out; texts that have no others are left out
    too."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(norm=None, stop_words="english")
    try:
        weights = vectorizer.fit_transform(texts).tocsr()
    except ValueError as error:  # no word is left
        raise BadData(
            "STRIP needs words to put in others' place, and the clean texts hold nothing but stop words. Give other "
            "clean texts."
        ) from error
    names = vectorizer.get_feature_names_out()
    rows = [weights[i] for i in range(len(texts))]
    ranked = [
        sorted(zip(row.data.tolist(), row.indices.tolist(), strict=True), key=lambda entry: (-entry[0], entry[1]))
        for row in rows
    ]
    return [[str(names[index]) for _, index in row] for row in ranked if row]


def perturbed(text: str, donors: Sequence[Sequence[str]], swap: float, rng: random.Random) -> str:
    """The text with floor(swap * n) of its n places, drawn with repeats, overwritten by the most telling words of one
    clean text.

    Deviation: where that text has fewer words, they are used again; OpenBackdoor goes on with words that the text does
    not have.
    """
    words = text.split()
    donor = rng.choice(donors)
    for i in range(int(swap * len(words))):
        words[rng.randrange(len(words))] = donor[i % len(donor)]
    return " ".join(words)


def _copies_entropy(
    classifier: Classifier,
    texts: Sequence[str],
    donors: Sequence[Sequence[str]],
    config: STRIPConfig,
    rng: random.Random,
    stage: str,
) -> Steps[Tensor]:
    """The entropy of the answer to each copy, those of one text after another: (N * copies,)."""
    found = [torch.empty(0)]
    for start in range(0, len(texts), TEXTS_A_STEP):
        some = [
            perturbed(text, donors, config.swap, rng)
            for text in texts[start : start + TEXTS_A_STEP]
            for _ in range(config.copies)
        ]
        found.append(bits(predict(classifier, some)))
        yield Event(stage, min(start + TEXTS_A_STEP, len(texts)), len(texts))
    return torch.cat(found)


def bits(probabilities: Tensor) -> Tensor:
    """H = -sum_c p_c log2 p_c, (N, C) -> (N,)."""
    return torch.special.entr(probabilities).sum(-1) / math.log(2)


def mean_entropy(entropy: Tensor, copies: int, form: str) -> Tensor:
    """Each text's score: the mean over its copies, which stand one after another; (N * copies,) -> (N,).

    The form "reproduce" is OpenBackdoor's: the list is cut into `copies` rows instead, and averaged down the columns.
    """
    return entropy.view(-1, copies).mean(1) if form == "correct" else entropy.view(copies, -1).mean(0)


def threshold_at(scores: Tensor, frr: float) -> float:
    """The score below which floor(frr * N) of the N clean texts lie."""
    return float(scores.sort().values[min(int(frr * len(scores)), len(scores) - 1)])
