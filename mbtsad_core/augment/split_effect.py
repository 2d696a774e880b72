"""What token splitting does to a clean sample: which texts can be split, and which cuts the model's tokenizer lets
through.

A cut that gives the model the tokens that it had without it is undone, and training on such a text is training on the
text as it is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import regex

from mbtsad_core.augment.token_splitting import split_tokens
from mbtsad_core.config import SplitConfig
from mbtsad_core.models.classifier import Classifier
from mbtsad_core.types import LabelledText, Note

LETTER = regex.compile(r"\p{L}")
# Scripts written without spaces between words
UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")


@dataclass(frozen=True, slots=True)
class SplitEffect:
    """Counted on one split variant of each clean text.

    texts       clean texts; a pair is one
    splittable  of these, with a word that is long enough to be cut
    cuts        words that were cut
    changed     of these, which the model then reads as other tokens
    unspaced    texts of which most letters are of a writing without spaces
    """

    texts: int
    splittable: int
    cuts: int
    changed: int
    unspaced: int

    def sentence(self) -> str:
        return (
            f"{self.splittable} of {self.texts} clean texts could be split, and {self.changed:,} of {self.cuts:,} cuts "
            "changed what the model reads."
        )

    def notes(self, config: SplitConfig) -> tuple[Note, ...]:
        """What a user is to know before the training: that splitting has no effect on most of his texts, and what is
        done in its place."""
        found = []
        unspaced = 2 * self.unspaced > self.texts
        plain = "step 1 is then plain fine-tuning on the clean texts"
        if 2 * self.splittable < self.texts:
            found.append(
                f"Only {self.splittable} of {self.texts} clean texts have a word of {config.min_char} letters or more "
                f"that can be split; of the others, {plain}. Give longer texts, or lower `split.min_char`."
            )
        if 2 * self.changed < self.cuts:
            why = f" {self.unspaced} of {self.texts} texts are in a writing without spaces." if unspaced else ""
            found.append(
                f"The model's tokenizer undoes {self.cuts - self.changed} of {self.cuts} cuts: with a space in the "
                f"word it reads the same tokens.{why} Such texts are trained on as they are: {plain}."
            )
        elif unspaced:
            found.append(
                f"{self.unspaced} of {self.texts} clean texts are in a writing without spaces: what stands between two "
                f"spaces or marks counts as one word, so a text gets few cuts ({self.cuts / self.texts:.1f} on "
                "average), and step 1 is not far from plain fine-tuning."
            )
        return tuple(Note("splits", text) for text in found)


def split_effect(classifier: Classifier, clean: Sequence[LabelledText], config: SplitConfig, seed: int) -> SplitEffect:
    """Split each text once, by a generator of its own, and look at what the classifier's tokenizer makes of the cut
    words."""
    rng = random.Random(f"effect of token splitting, seed {seed}")
    splittable, words = 0, list[tuple[str, str]]()
    for example in clean:
        found = [pair for part in (example.text, example.pair or "") for pair in _cut_words(part, rng, config)]
        splittable += bool(found)
        words += found
    unspaced = sum(_is_unspaced(f"{example.text} {example.pair or ''}") for example in clean)
    return SplitEffect(len(clean), splittable, len(words), _changed(classifier, words), unspaced)


def _cut_words(text: str, rng: random.Random, config: SplitConfig) -> list[tuple[str, str]]:
    """The words of a text that are cut, whole and in two."""
    split = split_tokens(text, rng, config)
    bounds = [0, *split.cuts, len(split.text)]
    found = []
    for before, cut, after in zip(bounds, split.cuts, bounds[2:], strict=False):
        head, tail = split.text[before:cut].split()[-1], split.text[cut + 1 : after].split()[0]
        found.append((head + tail, f"{head} {tail}"))
    return found


def _changed(classifier: Classifier, words: Sequence[tuple[str, str]]) -> int:
    if not words:
        return 0
    whole, cut = (
        classifier.tokenizer(list(side), add_special_tokens=False)["input_ids"] for side in zip(*words, strict=True)
    )
    return sum(a != b for a, b in zip(whole, cut, strict=True))


def _is_unspaced(text: str) -> bool:
    return 2 * len(UNSPACED.findall(text)) > len(LETTER.findall(text))
