"""The subword tokens that a classifier reads: as a person can read them, and where two readings differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from typing import Any

import regex

from mbtsad_core.models.classifier import Classifier, Encoded, encode
from mbtsad_core.types import LabelledText

LONGEST = 40  # characters of a token that are shown: vocabularies of strangers may hold pages
BYTE = re.compile("<0x([0-9A-F]{2})>")  # a byte of a character that a SentencePiece vocabulary has not
WITHIN = "\u200c\u200d"  # cannot be seen by themselves; join, or keep apart, the parts of one character
NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True, slots=True)
class _Spelled:
    """What a token spells: bytes of the text behind a mark of the vocabulary's.

    goes_on  its bytes follow on those of the token before, and a character can be divided between the two
    """

    data: bytes
    mark: str = ""
    goes_on: bool = True


@dataclass(frozen=True, slots=True)
class _Character:
    """What a person reads as one character, at these bytes of a run of tokens: a letter with its marks, an emoji of
    several code points."""

    begin: int
    end: int
    shown: str


def readable_tokens(classifier: Classifier, encoded: Encoded) -> tuple[str, ...]:
    """One readable string a token. A leading space shows as "␣" where the vocabulary marks spaces (RoBERTa), "##" stays
    (BERT).

    A token that is a part of a character shows it with which part it is: of an emoji that byte-level tokenizers divide
    in two, "😂[1/2]" and "😂[2/2]". Nothing is escaped: that is for whoever draws them.
    """
    spelled = _spell(classifier, encoded["input_ids"])
    starts = [i for i, token in enumerate(spelled) if i == 0 or not token.goes_on]
    shown = [
        text
        for start, end in zip(starts, [*starts[1:], len(spelled)], strict=True)
        for text in _read(spelled[start:end])
    ]
    return tuple(_shortened(token.mark + text) for token, text in zip(spelled, shown, strict=True))


def readable_token(classifier: Classifier, token: int) -> str:
    """A token by itself. Of a part of a character its bytes are shown: "<0xF0>"."""
    return readable_tokens(classifier, {"input_ids": [token]})[0]


def readable_sequence(classifier: Classifier, tokens: Sequence[int]) -> str:
    """Tokens as they are read one by one, with spaces between them."""
    return " ".join(readable_token(classifier, token) for token in tokens)


def _spell(classifier: Classifier, ids: Sequence[int]) -> list[_Spelled]:
    """What each token spells, by how the vocabulary writes it."""
    tokenizer = classifier.tokenizer
    names: list[str | None] = tokenizer.convert_ids_to_tokens(list(ids))
    added = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    backend: Any = tokenizer.backend_tokenizer
    bytes_of = (
        _byte_letters()
        if any(b"ByteLevel" in part.__getstate__() for part in (backend.pre_tokenizer, backend.decoder) if part)
        else {}
    )
    words = type(backend.model).__name__ in ("WordPiece", "WordLevel")  # a token without their mark begins a word
    mark = getattr(backend.model, "continuing_subword_prefix", None) or ""
    found, apart = list[_Spelled](), True
    for index, name in zip(ids, names, strict=True):
        if name is None or index in added:
            found.append(_Spelled((name or f"[{index}]").encode("utf-8", "replace"), goes_on=False))
            apart = True
            continue
        if byte := BYTE.fullmatch(name):
            token = _Spelled(bytes([int(byte[1], 16)]), goes_on=not apart)
        elif bytes_of and all(letter in bytes_of for letter in name):
            token = _Spelled(bytes(bytes_of[letter] for letter in name), goes_on=not apart)
        elif mark and name.startswith(mark):
            token = _Spelled(name.removeprefix(mark).encode("utf-8", "replace"), mark, goes_on=not apart)
        else:
            space = " " + name[1:] if name.startswith("▁") else name
            token = _Spelled(space.encode("utf-8", "replace"), goes_on=not (apart or words))
        found.append(token)
        apart = False
    return found


@cache
def _byte_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for: a letter of Latin-1 that can be seen for its
    own, the others in order."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    own = {letter: ord(letter) for letter in letters if ord(letter) < 256}
    return own | dict(
        zip((c for c in letters if c not in own), sorted(set(range(256)) - set(own.values())), strict=True)
    )


def _read(run: Sequence[_Spelled]) -> Iterator[str]:
    """What each token of a run shows: the characters that it has bytes of."""
    ends = [sum(len(token.data) for token in run[: i + 1]) for i in range(len(run))]
    spans = [(end - len(token.data), end) for token, end in zip(run, ends, strict=True)]
    characters = list(_characters(b"".join(token.data for token in run)))
    sharing = [[i for i, (begin, end) in enumerate(spans) if max(begin, c.begin) < min(end, c.end)] for c in characters]
    for i in range(len(run)):
        shown = ""
        for character, tokens in zip(characters, sharing, strict=True):
            if i in tokens:
                shown += character.shown if tokens == [i] else f"{character.shown}[{tokens.index(i) + 1}/{len(tokens)}]"
        yield "␣" + shown[1:] if shown.startswith(" ") else shown


def _characters(data: bytes) -> Iterator[_Character]:
    """The characters of bytes in UTF-8. A byte that belongs to none, as of one that was cut off, stands for itself."""
    at = 0
    while at < len(data):
        try:
            text, broken = data[at:].decode("utf-8"), 0
        except UnicodeDecodeError as error:
            text, broken = data[at : at + error.start].decode("utf-8"), error.end - error.start
        for cluster in regex.findall(r"\X", text):
            size = len(cluster.encode("utf-8"))
            yield _Character(
                at, at + size, "".join(c if c.isprintable() or (c in WITHIN and cluster[1:]) else "�" for c in cluster)
            )
            at += size
        for byte in data[at : at + broken]:
            yield _Character(at, at + 1, f"<0x{byte:02X}>")
            at += 1


def _shortened(shown: str) -> str:
    """At most LONGEST characters, cut between what a person reads as two."""
    if len(shown) <= LONGEST:
        return shown
    kept = ""
    for cluster in regex.findall(r"\X", shown):
        if len(kept) + len(cluster) >= LONGEST:
            break
        kept += cluster
    return (kept or shown[: LONGEST - 1]) + "…"


def vocabulary(classifier: Classifier) -> list[int]:
    """The rows of the word embeddings that a text can reach: the numbers of all tokens, in order. These may have holes,
    so that the highest is beyond how many tokens there are; and a model may have more rows."""
    rows = len(classifier.model.get_input_embeddings().weight)
    return sorted(number for number in set(classifier.tokenizer.get_vocab().values()) if number < rows)


def own_tokens(classifier: Classifier) -> frozenset[int]:
    """The tokens of the tokenizer's own: what it puts around a text, and what stands for the unknown, the masked and
    for padding, where that is written in brackets, as no word is. A file may call any word a special token."""
    tokenizer = classifier.tokenizer
    named = {getattr(tokenizer, f"{name}_token"): getattr(tokenizer, f"{name}_token_id") for name in NAMED}
    bracketed = {
        number for token, number in named.items() if number is not None and re.fullmatch(r"\[.+\]|<.+>", token)
    }
    return frozenset({*bracketed, *tokenizer("")["input_ids"]})


def special_positions(classifier: Classifier, encoded: Encoded) -> frozenset[int]:
    """Where the tokenizer's own tokens stand: [CLS], [SEP] and their like."""
    special = own_tokens(classifier) - {classifier.tokenizer.unk_token_id}
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
    """Positions of all tokens of all occurrences of `words`, such as the words of a trigger, in an encoded text."""
    ids, found = encoded["input_ids"], set[int]()
    for word in words:
        for form in (word, " " + word):  # a vocabulary that marks spaces has two forms of a word
            needle = classifier.tokenizer(form, add_special_tokens=False)["input_ids"]
            for start in range(len(ids) - len(needle) + 1):
                if needle and ids[start : start + len(needle)] == needle:
                    found.update(range(start, start + len(needle)))
    return tuple(sorted(found))


def token_counts(classifier: Classifier, texts: Sequence[LabelledText]) -> Counter[int]:
    """How often the texts have each token, {token id: times}; special ones left out."""
    special = own_tokens(classifier)
    return Counter(token for e in encode(classifier, texts) for token in e["input_ids"] if token not in special)
