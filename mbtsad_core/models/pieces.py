"""The word pieces that a classifier reads: as a person can read them, and where two readings differ."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from mbtsad_core.models.classifier import Classifier, Encoded

LONGEST = 40  # characters of a piece that are shown: vocabularies of strangers may hold pages


def pieces(classifier: Classifier, encoded: Encoded) -> tuple[str, ...]:
    """One readable string a token. A leading space shows as "␣" where the vocabulary marks spaces (RoBERTa), "##" stays (BERT).

    Nothing is escaped: that is for whoever draws them.
    """
    raw = classifier.tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    return tuple(_readable(classifier, token, i) for token, i in zip(raw, encoded["input_ids"], strict=True))


def _readable(classifier: Classifier, token: str | None, index: int) -> str:
    shown = token or ""
    if shown.startswith("▁"):
        shown = "␣" + shown[1:]
    elif not shown.isascii():  # byte-level vocabularies write bytes as other letters: "ĠcafÃ©" is " café"
        shown = str(classifier.tokenizer.decode([index])) or shown
        shown = "␣" + shown[1:] if shown.startswith(" ") else shown
    shown = "".join(c if c.isprintable() else "�" for c in shown)  # no line breaks, no marks that turn the writing direction
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"


def special_positions(classifier: Classifier, encoded: Encoded) -> frozenset[int]:
    """Where the tokenizer's own tokens stand: [CLS], [SEP] and their like."""
    special = set(classifier.tokenizer.all_special_ids) - {classifier.tokenizer.unk_token_id}
    return frozenset(i for i, token in enumerate(encoded["input_ids"]) if token in special)


def aligned(before: Sequence[int] | Sequence[str], after: Sequence[int] | Sequence[str]) -> list[tuple[int, int]]:
    """Positions (in `before`, in `after`) of the tokens that two readings share, in order."""
    blocks = SequenceMatcher(a=before, b=after, autojunk=False).get_matching_blocks()
    return [(block.a + i, block.b + i) for block in blocks for i in range(block.size)]


def added(before: Sequence[int] | Sequence[str], after: Sequence[int] | Sequence[str]) -> tuple[int, ...]:
    """Positions in `after` whose token has no partner in `before`: a trigger's, where `after` is the triggered text."""
    partnered = {b for _, b in aligned(before, after)}
    return tuple(i for i in range(len(after)) if i not in partnered)


def word_positions(classifier: Classifier, encoded: Encoded, words: Sequence[str]) -> tuple[int, ...]:
    """Positions of all pieces of all occurrences of `words`, such as the words of a trigger, in an encoded text."""
    ids, found = encoded["input_ids"], set[int]()
    for word in words:
        for form in (word, " " + word):  # a vocabulary that marks spaces has two forms of a word
            needle = classifier.tokenizer(form, add_special_tokens=False)["input_ids"]
            for start in range(len(ids) - len(needle) + 1):
                if needle and ids[start : start + len(needle)] == needle:
                    found.update(range(start, start + len(needle)))
    return tuple(sorted(found))
