"""Token splitting (TS): cut random words of a text in two, "funny" -> "fu nny" (paper, section III-B).

The distribution is that of nlpaug's SplitAug, which the paper follows: how many words are cut, which words can be, and
where. Three things differ, all on purpose. The random generator is an argument and the cuts are returned. The text
keeps its own spacing, where nlpaug re-joins all its tokens with spaces ("don't" -> "don ' t"). And a letter's marks
(vowel signs, accents) belong to its word and are never cut off, where nlpaug takes each for punctuation: of Hindi it
would leave hardly a word of four letters.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import regex

from mbtsad_core.config import SplitConfig
from mbtsad_core.types import LabelledText

# A run of word characters, letters with the marks and joiners that follow them, or one punctuation mark. Of texts
# without marks these are the tokens of Python's own r"\w+|[^\w\s]", which nlpaug has.
TOKEN = regex.compile(r"(?:\p{L}(?:\p{M}|[\u200c\u200d](?=[\p{L}\p{M}]))*|[\p{N}_])+|[^\s\x1c-\x1f]")
# As a person reads it: a letter and its marks (a grapheme cluster, Unicode's annex 29)
CHARACTER = regex.compile(r"\X")


@dataclass(frozen=True, slots=True)
class SplitText:
    """A token-split text; `cuts` are the positions, in `text`, of the spaces that the splitting put in, ascending."""

    text: str
    cuts: tuple[int, ...]

    @property
    def original(self) -> str:
        """The text before it was split: everything but the inserted spaces."""
        starts = (0, *(cut + 1 for cut in self.cuts))
        return "".join(self.text[a:b] for a, b in zip(starts, (*self.cuts, len(self.text)), strict=True))


def split_tokens(text: str, rng: random.Random, config: SplitConfig = SplitConfig()) -> SplitText:
    """Cut k random words of `text` in two, k = clip(ceil(aug_p * tokens), aug_min, aug_max).

    Tokens are words and punctuation marks; words of at least `min_char` letters, signs of vowels counted, can be cut,
    at a point that is uniform over 1 ... length - 2, so that the second part has two of them or more, and that lies
    between two characters as a person reads them. A text without such words comes back unchanged, with no cuts.
    """
    tokens = [(m.start(), m.end()) for m in TOKEN.finditer(text)]
    candidates = [(a, b) for a, b in tokens if b - a >= config.min_char and _points(text[a:b])]
    chosen = sorted(rng.sample(candidates, min(_count(len(tokens), config), len(candidates))))
    points = [a + rng.choice(_points(text[a:b])) for a, b in chosen]
    parts = [text[a:b] for a, b in zip([0, *points], [*points, len(text)], strict=True)]
    return SplitText(" ".join(parts), tuple(point + i for i, point in enumerate(points)))


def _points(word: str) -> Sequence[int]:
    """Where a word can be cut."""
    inside = range(1, len(word) - 1)
    return inside if word.isascii() else [m.start() for m in CHARACTER.finditer(word) if m.start() in inside]


def budget(text: str, config: SplitConfig = SplitConfig()) -> int:
    """How many words of the text are cut, where it has that many that can be: what the other augmenters are given for a
    fair comparison."""
    return _count(len(TOKEN.findall(text)), config)


def _count(tokens: int, config: SplitConfig) -> int:
    return min(max(math.ceil(config.aug_p * tokens), config.aug_min), config.aug_max)


def token_splitting(text: str, rng: random.Random) -> str:
    """The augmenter with the paper's settings."""
    return split_tokens(text, rng).text


def augment(clean: Sequence[LabelledText], config: SplitConfig, seed: int, epoch: int = 0) -> list[LabelledText]:
    """D_aug: K token-split variants of every clean text, labels kept; the originals are not among them (Algorithm 1),
    or `config.keep_originals` times each.

    With `config.fresh` each epoch has splits of its own. The result depends on the arguments alone.
    """
    rng = random.Random(f"token splitting, seed {seed}, epoch {epoch if config.fresh else 0}")

    def variants() -> Iterator[LabelledText]:
        for _ in range(config.copies):
            for example in clean:
                pair = None if example.pair is None else split_tokens(example.pair, rng, config).text
                yield LabelledText(split_tokens(example.text, rng, config).text, example.label, pair)

    return [*variants(), *(config.keep_originals * list(clean))]


def split_some(
    clean: Sequence[LabelledText], share: float, config: SplitConfig, seed: int, epoch: int = 0
) -> list[LabelledText]:
    """Each clean text once, labels kept: this share of them, drawn one by one, token-split."""
    split = augment(clean, dataclasses.replace(config, copies=1, keep_originals=0), seed, epoch)
    rng = random.Random(f"which are split, seed {seed}, epoch {epoch}")
    return [version if rng.random() < share else text for text, version in zip(clean, split, strict=True)]
