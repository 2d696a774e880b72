"""What is kept of a tokenizer's files: known components with known settings, and no regular expression but those of
known families.

The library that tokenizes (huggingface/tokenizers) matches the expressions of tokenizer.json by backtracking, so that a
short one can take for ever; a Replace can make a text longer with each use; a charsmap that is read beyond its end ends
the process. So every component is checked before the library sees it, and what is a matter of the caller (templates of
chats, names of files) is left out.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import UnsafeModel
from mbtsad_core.vetting.checks import Check, either, flag, list_of, one_of, real, string, whole
from mbtsad_core.vetting.config_policy import check_no_code, check_tokenizer_class
from mbtsad_core.vetting.file_policy import printable
from mbtsad_core.vetting.first_bytes import HEAD
from mbtsad_core.vetting.strict_json import check_content, read_bytes, read_object

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "tokenizer.json"
VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt")
FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", NAME, *VOCABULARIES)
MEGABYTE = 1 << 20
LONGEST_TOKEN = 1000  # characters
ADDED = 20_000  # tokens beside the vocabulary
LONGEST_REPLACEMENT = 128  # bytes that sentencepiece's table may put in the place of a character
LONGEST_TEXT = 1 << 20  # tokens, of a truncation or padding
FEWEST_TOKENS = 8  # that a truncation leaves of a text

# Exactly what GPT-2's splitting (RoBERTa, DeBERTa) and the sentencepiece families (ALBERT, XLM-R, CamemBERT,
# DeBERTa-v2) use.
PATTERNS = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r" {2,}",
    r"\s{2,}|[\n\r\t]",
    r"\s+",
)
# Texts that a known family replaces by others, none longer
REPLACED = (("``", '"'), ("''", '"'), (" ", "▁"), ("▁", " "))

_ANY_TOKEN = string(LONGEST_TOKEN)
_MARK = string(8)  # a prefix, suffix or replacement: one character or a few
_SPLITTING = one_of("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
_METASPACE: dict[str, Check] = {
    "replacement": string(1),
    "prepend_scheme": one_of("always", "never", "first"),
    "split": flag,
    "add_prefix_space": flag,
    "str_rep": string(1),
}
_BYTE_LEVEL: dict[str, Check] = {"add_prefix_space": flag, "trim_offsets": flag, "use_regex": flag}


def vet_tokenizer(
    directory: Path, names: Iterable[str], rows: int | None, limits: VettingConfig = VettingConfig()
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What is kept of the tokenizer's files among `names`, as texts by file name, to be given to the library in their
    place; and the keys that are left out, by file name.

    rows  of the model's word embeddings: no token may stand beyond them. Raises UnsafeModel, or CouldNotTell where a
          file cannot be read.
    """
    names, left_out = set(names), dict[str, list[str]]()
    if NAME in names:  # the library reads no vocabulary beside it
        left_out = {name: [f"all, since {NAME} is read"] for name in VOCABULARIES if name in names}
        names -= set(VOCABULARIES)
    elif "vocab.txt" not in names and not {"vocab.json", "merges.txt"} <= names:
        raise _missing(directory)
    kept, unread = vet_files(directory, names, rows, limits)
    return kept, left_out | unread


def _missing(directory: Path) -> UnsafeModel:
    if pieces := sorted(path.name for path in directory.glob("*.model")):
        what = (
            f"{printable(pieces[0])} is a sentencepiece model, which is not read, and there is no {NAME}. Where you "
            "trust the files, AutoTokenizer.from_pretrained(folder).save_pretrained(folder), of transformers with "
            f"sentencepiece and protobuf, writes {NAME} beside it."
        )
    else:
        what = (
            f"The tokenizer's files are missing: it would know no words. Expected {NAME}, or vocab.txt, or vocab.json "
            "and merges.txt, beside the model. AutoTokenizer.from_pretrained(the model that it was trained "
            "from).save_pretrained(folder) writes them."
        )
    return UnsafeModel(what, "tokenizer.missing", NAME)


def vet_files(
    directory: Path, names: Iterable[str], rows: int | None, limits: VettingConfig = VettingConfig()
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """As `vet_tokenizer`, of files that need not be a whole tokenizer."""
    most = limits.json_megabytes * MEGABYTE
    kept, left_out = dict[str, str](), dict[str, list[str]]()
    for name in FILES:
        if name not in names:
            continue
        path = directory / name
        if name in ("vocab.txt", "merges.txt"):
            kept[name] = (
                _vet_lines(path, most, rows, limits) if name == "vocab.txt" else _vet_merges(path, most, limits)
            )
            continue
        values = (
            read_object(path)
            if name in ("tokenizer_config.json", "special_tokens_map.json")
            else read_object(path, most)
        )
        if name == NAME:
            sound = vet_tokenizer_json(values, rows, limits)
            _check_builds(json.dumps(sound))
            if unread := [part for part in _LENGTHS if values.get(part) != sound[part]]:
                left_out[name] = unread
        elif name in ("vocab.json", "added_tokens.json"):
            sound = values
            if name == "added_tokens.json" and len(values) > ADDED:
                raise _flaw(f"{name} adds {len(values)} tokens; {ADDED} are allowed", "tokenizer.vocabulary", name)
            _check_vocabulary(values, rows, limits, name)
        else:
            sound = (
                _vet_settings(values)
                if name == "tokenizer_config.json"
                else _known(values, _SPECIAL_TOKENS, name, "tokenizer.settings")
            )
            _check_numbers(
                {token["content"]: int(i) for i, token in sound.get("added_tokens_decoder", {}).items()},
                rows,
                limits,
                name,
            )
            if unread := sorted(set(values) - set(sound)):
                left_out[name] = unread
        kept[name] = json.dumps(sound)
    return kept, left_out


# ---------------------------------------------------------------- tokenizer.json


def vet_tokenizer_json(
    values: dict[str, Any], rows: int | None = None, limits: VettingConfig = VettingConfig()
) -> dict[str, Any]:
    """A tokenizer.json of known components alone; truncation and padding too only where they are known and bounded.
    Raises UnsafeModel."""
    for part in values:
        if part not in (
            "version",
            "truncation",
            "padding",
            "added_tokens",
            "normalizer",
            "pre_tokenizer",
            "post_processor",
            "decoder",
            "model",
        ):
            raise _flaw(f"{NAME} has a part {part[:40]!r}, which no version of the format has", "tokenizer.component")
    found: dict[str, Any] = {"version": "1.0"} | {
        part: values.get(part) if _is_bounded(values.get(part), part) else None for part in _LENGTHS
    }
    found["model"], vocabulary = _vet_model(values.get("model"), rows, limits)
    found["added_tokens"] = _vet_added(values.get("added_tokens"), rows, limits)
    for part, known in (
        ("normalizer", NORMALIZERS),
        ("pre_tokenizer", PRE_TOKENIZERS),
        ("post_processor", POST_PROCESSORS),
        ("decoder", DECODERS),
    ):
        found[part] = None if values.get(part) is None else _vet_component(values[part], known, part)
    _check_processor(found["post_processor"], rows)
    size = vocabulary + len(found["added_tokens"])
    if size > limits.vocabulary:
        raise _flaw(f"{NAME} holds {size} tokens; {limits.vocabulary} are allowed", "tokenizer.vocabulary")
    return found


def _is_bounded(value: Any, part: str) -> bool:
    """Whether a truncation or padding is one that the library can be given; each call of it sets its own."""
    checks = _LENGTHS[part]
    sound = (
        isinstance(value, dict)
        and set(value) == set(checks)
        and not any(check(value[key]) for key, check in checks.items())
    )
    return sound and value.get("stride", 0) + FEWEST_TOKENS <= value.get("max_length", FEWEST_TOKENS)


def _vet_component(value: Any, known: dict[str, dict[str, Check]], part: str, depth: int = 0) -> dict[str, Any]:
    """A component as it came, once all of it is known; a Sequence of them likewise, but none within another."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "Sequence" and depth == 0:
        lists = [key for key in value if key != "type"]
        if (
            len(lists) != 1
            or lists[0] not in ("normalizers", "pretokenizers", "processors", "decoders")
            or not isinstance(value[lists[0]], list)
        ):
            raise _flaw(f"{NAME} has a {part} that is no sequence of components", "tokenizer.component")
        if len(value[lists[0]]) > 16:
            raise _flaw(
                f"{NAME} has a {part} of {len(value[lists[0]])} components; 16 are allowed", "tokenizer.component"
            )
        return {"type": kind, lists[0]: [_vet_component(item, known, part, 1) for item in value[lists[0]]]}
    if not isinstance(kind, str) or kind not in known:
        raise _flaw(
            f"{NAME} has a {part} of type {str(kind)[:40]!r}; expected one of {', '.join(sorted(known))}",
            "tokenizer.component",
        )
    for key, setting in value.items():
        if key == "type":
            continue
        check = known[kind].get(key)
        expected = check(setting) if check else "no such setting"
        if expected:
            rule = "tokenizer.regex" if key == "pattern" else "tokenizer.component"
            raise _flaw(
                f"{NAME} sets {key[:40]!r} of its {part} {kind} to {str(setting)[:80]!r}; expected {expected}", rule
            )
    if kind == "Replace" and not _replaces_soundly(value):
        raise _flaw(
            f"{NAME} replaces {str(value.get('pattern'))[:60]} by {str(value.get('content'))[:40]!r}, which no known "
            "family does",
            "tokenizer.component",
        )
    return dict(value)


def _check_processor(value: dict[str, Any] | None, rows: int | None) -> None:
    """Raise UnsafeModel where what is put around a text is a token that the template does not know, or the model has
    not."""
    for part in (value or {}).get("processors", [value] if value else []):
        tokens = part.get("special_tokens", {})
        numbers = [i for token in tokens.values() for i in token["ids"]] + [
            part[key][1] for key in ("sep", "cls") if key in part
        ]
        if rows is not None and any(i >= rows for i in numbers):
            raise beyond(f"{NAME} puts a token of number {max(numbers)} around a text", max(numbers), rows)
        pieces = [
            piece["SpecialToken"]["id"]
            for side in ("single", "pair")
            for piece in part.get(side, [])
            if "SpecialToken" in piece
        ]
        if unknown := [piece for piece in pieces if piece not in tokens]:
            raise _flaw(
                f"{NAME} puts {unknown[0][:40]!r} around a text, and does not say what it is", "tokenizer.component"
            )


def _pattern(value: Any) -> str:
    """A text, or a regular expression of a known family."""
    if isinstance(value, dict) and len(value) == 1:
        if isinstance(value.get("String"), str) and len(value["String"]) <= 8:
            return ""
        if isinstance(value.get("Regex"), str) and value["Regex"] in PATTERNS:
            return ""
    return "the regular expression of a known family: others can take for ever"


def _replaces_soundly(value: dict[str, Any]) -> bool:
    pattern, content = value.get("pattern"), value.get("content")
    if not isinstance(pattern, dict):
        return False
    return content in (" ", "▁", "") if "Regex" in pattern else (pattern.get("String"), content) in REPLACED


def _charsmap(value: Any) -> str:
    """The table by which sentencepiece normalises."""
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) and len(value) <= 4 * MEGABYTE else b""
    except (ValueError, binascii.Error):
        data = b""
    return "" if is_sound_charsmap(data) else "a table of sentencepiece that is never read beyond its end"


def is_sound_charsmap(data: bytes) -> bool:
    """Whether no text can lead a reader of this table of sentencepiece out of it, or to a replacement longer than
    LONGEST_REPLACEMENT bytes.

    The table is a trie in a double array, of little-endian units of 32 bits, before the replacements, each ended by a
    NUL. Every unit that a text can reach is visited. Source: darts-clone, whose array this is, and sentencepiece's
    normalizer.
    """
    import numpy as np

    size = int.from_bytes(data[:4], "little")
    if len(data) < 8 or size % 4 or not 4 <= size <= len(data) - 4:
        return False
    return stays_within(np.frombuffer(data, "<u4", size // 4, 4).astype(np.int64), data[4 + size :])


def stays_within(units: NDArray[np.int64], words: bytes, longest: int = LONGEST_REPLACEMENT) -> bool:
    """Whether no text leads from the first of a trie's units out of them or of the replacements, or to one of more than
    `longest` bytes."""
    import numpy as np

    try:
        words.decode("utf-8")
    except ValueError:
        return False
    begins = np.array([b & 0xC0 != 0x80 for b in words] + [True])  # where a character begins, or all of it ends
    zeros = np.flatnonzero(np.frombuffer(words + b"\0", np.uint8) == 0)
    offset = (units >> 10) << ((units & 512) >> 6)
    seen = np.zeros(len(units), bool)
    bases = np.array([offset[0]])  # of the root, which stands at 0
    letters = np.arange(1, 256)
    while len(bases):
        following = []
        for at in range(0, len(bases), 4096):
            children = bases[at : at + 4096, None] ^ letters
            if children.max() >= len(units):
                return False
            hits = children[(units[children] & 0x800000FF) == letters]
            hits = np.unique(hits[~seen[hits]])
            seen[hits] = True
            after = hits ^ offset[hits]
            leaves = after[(units[hits] >> 8) & 1 == 1]
            if len(after) and after.max() >= len(units):
                return False
            values = units[leaves] & 0x7FFFFFFF
            if len(values) and (
                values.max() > len(words)
                or not begins[values].all()
                or (zeros[np.searchsorted(zeros, values)] - values).max() > longest
            ):
                return False
            following.append(after)
        bases = np.concatenate(following)
    return True


def _template(value: Any) -> str:
    """Pieces of a template in which the text, and its second, stand once at most."""
    expected = "a list of special tokens with each text once at most"
    if not isinstance(value, list) or len(value) > 16:
        return expected
    texts: list[str] = []
    for piece in value:
        kind, settings = next(iter(piece.items())) if isinstance(piece, dict) and len(piece) == 1 else ("", None)
        if (
            kind not in ("SpecialToken", "Sequence")
            or not isinstance(settings, dict)
            or set(settings) != {"id", "type_id"}
        ):
            return expected
        if string()(settings["id"]) or whole(0, 1)(settings["type_id"]):
            return expected
        if kind == "Sequence":
            texts.append(settings["id"])
    return "" if len(texts) == len(set(texts)) and set(texts) <= {"A", "B"} else expected


def _template_tokens(value: Any) -> str:
    expected = "special tokens with their numbers"
    if not isinstance(value, dict) or len(value) > 16:
        return expected
    for token in value.values():
        if not isinstance(token, dict) or set(token) != {"id", "ids", "tokens"}:
            return expected
        if (
            string()(token["id"])
            or list_of(whole(0, 1 << 31), 8)(token["ids"])
            or list_of(string(), 8)(token["tokens"])
        ):
            return expected
    return ""


def _numbered(value: Any) -> str:
    sound = isinstance(value, list) and len(value) == 2 and not string()(value[0]) and not whole(0, 1 << 31)(value[1])
    return "" if sound else "a token and its number"


def _fixed(value: Any) -> str:
    sound = isinstance(value, dict) and set(value) == {"Fixed"} and not whole(1, LONGEST_TEXT)(value["Fixed"])
    return "" if sound else "a length"


_SIDE = one_of("Left", "Right")
_LENGTHS: dict[str, dict[str, Check]] = {
    "truncation": {
        "direction": _SIDE,
        "max_length": whole(1, LONGEST_TEXT),
        "strategy": one_of("LongestFirst", "OnlyFirst", "OnlySecond"),
        "stride": whole(0, LONGEST_TEXT),
    },
    "padding": {
        "strategy": either(one_of("BatchLongest"), _fixed),
        "direction": _SIDE,
        "pad_to_multiple_of": whole(1, 4096, none=True),
        "pad_id": whole(0, 1 << 31),
        "pad_type_id": whole(0, 1),
        "pad_token": _ANY_TOKEN,
    },
}
_REPLACE: dict[str, Check] = {"pattern": _pattern, "content": string(1)}
NORMALIZERS: dict[str, dict[str, Check]] = {
    "BertNormalizer": {
        "clean_text": flag,
        "handle_chinese_chars": flag,
        "strip_accents": either(one_of(None), flag),
        "lowercase": flag,
    },
    **{name: {} for name in ("Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Nmt")},
    "Strip": {"strip_left": flag, "strip_right": flag},
    "Prepend": {"prepend": one_of("▁", " ")},
    "Precompiled": {"precompiled_charsmap": _charsmap},
    "Replace": _REPLACE,
}
PRE_TOKENIZERS: dict[str, dict[str, Check]] = {
    **{name: {} for name in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "UnicodeScripts")},
    "ByteLevel": _BYTE_LEVEL,
    "Metaspace": _METASPACE,
    "Punctuation": {"behavior": _SPLITTING},
    "Digits": {"individual_digits": flag},
    "CharDelimiterSplit": {"delimiter": string(1)},
    "Split": {"pattern": _pattern, "behavior": _SPLITTING, "invert": flag},
}
POST_PROCESSORS: dict[str, dict[str, Check]] = {
    "BertProcessing": {"sep": _numbered, "cls": _numbered},
    "RobertaProcessing": {"sep": _numbered, "cls": _numbered, "trim_offsets": flag, "add_prefix_space": flag},
    "TemplateProcessing": {"single": _template, "pair": _template, "special_tokens": _template_tokens},
    "ByteLevel": _BYTE_LEVEL,
}
DECODERS: dict[str, dict[str, Check]] = {
    "WordPiece": {"prefix": _MARK, "cleanup": flag},
    "ByteLevel": _BYTE_LEVEL,
    "Metaspace": _METASPACE,
    "BPEDecoder": {"suffix": _MARK},
    "Replace": _REPLACE,
    "Strip": {"content": string(1), "start": whole(0, 8), "stop": whole(0, 8)},
    "Fuse": {},
    "ByteFallback": {},
}
MODELS: dict[str, dict[str, Check]] = {
    # A word is compared with pieces of all its lengths: the time grows with the square of its letters.
    "WordPiece": {
        "unk_token": _ANY_TOKEN,
        "continuing_subword_prefix": _MARK,
        "max_input_chars_per_word": whole(1, 1000),
    },
    "BPE": {
        "dropout": one_of(None),  # else a text would be read otherwise each time
        "unk_token": string(LONGEST_TOKEN, none=True),
        "continuing_subword_prefix": string(8, none=True),
        "end_of_word_suffix": string(8, none=True),
        "fuse_unk": flag,
        "byte_fallback": flag,
        "ignore_merges": flag,
    },
    "Unigram": {"unk_id": whole(0, 1 << 31, none=True), "byte_fallback": flag},
    "WordLevel": {"unk_token": _ANY_TOKEN},
}


def _vet_model(value: Any, rows: int | None, limits: VettingConfig) -> tuple[dict[str, Any], int]:
    """The model of a tokenizer, and how many tokens its vocabulary has."""
    if not isinstance(value, dict):
        raise _flaw(f"{NAME} has no model", "tokenizer.malformed")
    kind = value.get("type") or _kind_by_keys(value)
    if not isinstance(kind, str) or kind not in MODELS:
        raise _flaw(
            f"{NAME} has a model of type {str(kind)[:40]!r}; expected one of {', '.join(MODELS)}", "tokenizer.component"
        )
    settings = {key: setting for key, setting in value.items() if key not in ("type", "vocab", "merges")}
    _vet_component({"type": kind, **settings}, MODELS, "model")
    found: dict[str, Any] = {"type": kind, **settings, "vocab": value.get("vocab")}
    if kind == "Unigram":
        vocabulary = value.get("vocab")
        score = real(-1e9, 1e9)
        if not isinstance(vocabulary, list) or not vocabulary:
            raise _flaw(f"{NAME} has a Unigram model without a vocabulary", "tokenizer.malformed")
        for item in vocabulary:
            if (
                not isinstance(item, list)
                or len(item) != 2
                or not isinstance(item[0], str)
                or len(item[0]) > LONGEST_TOKEN
                or score(item[1])
            ):
                raise _flaw(
                    f"{NAME} has an entry {str(item)[:60]!r} in its vocabulary; expected a token and its score",
                    "tokenizer.vocabulary",
                )
        _check_size(len(vocabulary), limits, NAME)
        _check_numbers({vocabulary[-1][0]: len(vocabulary) - 1}, rows, limits, NAME)
        unknown = value.get("unk_id")
        if unknown is not None and unknown >= len(vocabulary):
            raise _flaw(f"{NAME} has {len(vocabulary)} tokens, and unk_id is {unknown}", "tokenizer.vocabulary")
    else:
        vocabulary = value.get("vocab")
        if not isinstance(vocabulary, dict) or not vocabulary:
            raise _flaw(f"{NAME} has a {kind} model without a vocabulary", "tokenizer.malformed")
        _check_vocabulary(vocabulary, rows, limits, NAME)
    if kind == "BPE":
        found["merges"] = _merges(value.get("merges"), limits)
    return found, len(vocabulary)


def _kind_by_keys(value: dict[str, Any]) -> str:
    """The type of a model in files of old versions, which did not write it."""
    if "merges" in value:
        return "BPE"
    if "max_input_chars_per_word" in value or "continuing_subword_prefix" in value:
        return "WordPiece"
    return "Unigram" if isinstance(value.get("vocab"), list) else "WordLevel"


def _merges(value: Any, limits: VettingConfig) -> list[Any]:
    if not isinstance(value, list) or len(value) > 2 * limits.vocabulary:
        raise _flaw(f"{NAME} has no list of merges, or one of more than {2 * limits.vocabulary}", "tokenizer.malformed")
    for merge in value:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(p, str) and 0 < len(p) <= LONGEST_TOKEN for p in pair)
        ):
            raise _flaw(f"{NAME} has a merge {str(merge)[:60]!r}; expected two tokens", "tokenizer.malformed")
    return value


def _check_vocabulary(vocabulary: dict[str, Any], rows: int | None, limits: VettingConfig, name: str) -> None:
    for token, number in vocabulary.items():
        if len(token) > LONGEST_TOKEN or isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise _flaw(
                f"{name} numbers a token {token[:40]!r} as {str(number)[:40]!r}; expected a token and a number from 0",
                "tokenizer.vocabulary",
                name,
            )
    _check_size(len(vocabulary), limits, name)
    _check_numbers(vocabulary, rows, limits, name)


def _check_size(size: int, limits: VettingConfig, name: str) -> None:
    if size > limits.vocabulary:
        raise _flaw(f"{name} holds {size} tokens; {limits.vocabulary} are allowed", "tokenizer.vocabulary", name)


def _check_numbers(tokens: Mapping[str, int], rows: int | None, limits: VettingConfig, name: str) -> None:
    """Raise UnsafeModel where tokens are numbered beyond the model's word embeddings, or, where those are not known,
    beyond all that are allowed."""
    most = limits.vocabulary if rows is None else rows
    far = {token: number for token, number in tokens.items() if number >= most}
    if not far:
        return
    highest, lowest = max(far.values()), min(far.values())
    shown = ", ".join(repr(token[:40]) for token in list(far)[:3]) + (", ..." if far.keys() - list(far)[:3] else "")
    what = (
        f"a token of number {lowest} ({shown})"
        if len(far) == 1
        else f"{len(far)} tokens of numbers {lowest} to {str(highest)[:20]} ({shown})"
    )
    raise beyond(f"{name} holds {what}", highest, most, name)


def beyond(what: str, highest: int, rows: int, name: str = NAME) -> UnsafeModel:
    """The refusal of a tokenizer that has more tokens than the model has word embeddings."""
    return UnsafeModel(
        f"Refused: {what}, and the model has {rows} word embeddings (0 to {rows - 1}). Load both where you trust them, "
        f"call model.resize_token_embeddings({str(highest + 1)[:20]}), and save both; or remove from the tokenizer's "
        "files the tokens that were added to it.",
        "tokenizer.vocabulary",
        name,
    )


def _vet_added(value: Any, rows: int | None, limits: VettingConfig) -> list[dict[str, Any]]:
    tokens = [] if value is None else value
    if not isinstance(tokens, list) or len(tokens) > ADDED:
        raise _flaw(f"{NAME} adds more than {ADDED} tokens, or not as a list", "tokenizer.vocabulary")
    for token in tokens:
        if _added_token(token) or "id" not in token:
            raise _flaw(
                f"{NAME} adds a token as {str(token)[:100]!r}; expected its content, its number and flags",
                "tokenizer.vocabulary",
            )
    _check_numbers({token["content"]: token["id"] for token in tokens}, rows, limits, NAME)
    return tokens


# ---------------------------------------------------------------- settings


_ADDED_TOKEN: dict[str, Check] = {
    "content": _ANY_TOKEN,
    "id": whole(0, 1 << 31),
    **dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word", "special"), flag),
    "__type": one_of("AddedToken"),
}


def _added_token(value: Any) -> str:
    sound = (
        isinstance(value, dict)
        and value.get("content")
        and all(key in _ADDED_TOKEN and not _ADDED_TOKEN[key](v) for key, v in value.items())
    )
    return "" if sound else "a token"


_TOKEN: Check = either(string(LONGEST_TOKEN, none=True), _added_token)


def _tokens(value: Any) -> str:
    """Further special tokens, as a list or by name."""
    if isinstance(value, dict):
        return "" if len(value) <= ADDED and not any(_TOKEN(v) for v in value.values()) else "tokens by name"
    return list_of(_TOKEN, ADDED, none=True)(value)


def _decoded(value: Any) -> str:
    sound = (
        isinstance(value, dict)
        and len(value) <= ADDED
        and all(re.fullmatch("[0-9]{1,9}", i) and not _added_token(v) for i, v in value.items())
    )
    return "" if sound else "tokens by number"


_SPECIAL_TOKENS: dict[str, Check] = {
    **{f"{name}_token": _TOKEN for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")},
    "additional_special_tokens": _tokens,
    "extra_special_tokens": _tokens,
}
_SETTINGS: dict[str, Check] = _SPECIAL_TOKENS | {
    "model_max_length": real(3, 1e31),
    "added_tokens_decoder": _decoded,
    "model_input_names": list_of(one_of("input_ids", "attention_mask", "token_type_ids"), 3),
    "padding_side": one_of("right", "left"),
    "truncation_side": one_of("right", "left"),
    "strip_accents": either(one_of(None), flag),
    "errors": one_of("replace", "ignore", "strict"),
    "never_split": list_of(string(), 1000, none=True),
    "unk_id": whole(0, 1 << 31),
    "backend": one_of("tokenizers"),
    **dict.fromkeys(
        (
            *(
                "do_lower_case",
                "tokenize_chinese_chars",
                "do_basic_tokenize",
                "add_prefix_space",
                "trim_offsets",
                "clean_up_tokenization_spaces",
            ),
            *(
                "keep_accents",
                "remove_space",
                "split_by_punct",
                "add_bos_token",
                "add_eos_token",
                "split_special_tokens",
            ),
        ),
        flag,
    ),
}


def _vet_settings(values: dict[str, Any]) -> dict[str, Any]:
    """What is kept of tokenizer_config.json. Templates (Jinja, a language with loops), names of files and unknown keys
    are left out."""
    name = "tokenizer_config.json"
    check_no_code(values, name)
    kept = _known(values, _SETTINGS, name, "tokenizer.settings")
    wanted = values.get("tokenizer_class")
    check_tokenizer_class(wanted, name)
    return kept if wanted is None else kept | {"tokenizer_class": wanted}


def _known(values: dict[str, Any], known: dict[str, Check], name: str, rule: str) -> dict[str, Any]:
    for key, check in known.items():
        if key in values and (expected := check(values[key])):
            raise _flaw(f"{name} sets {key} to {str(values[key])[:80]!r}; expected {expected}", rule, name)
    return {key: values[key] for key in known if key in values}


# ---------------------------------------------------------------- vocabularies of their own


def _vet_lines(path: Path, most: int, rows: int | None, limits: VettingConfig) -> str:
    words = _text(path, most)
    lines = words.split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines or max(map(len, lines)) > LONGEST_TOKEN:
        raise _flaw(
            f"{path.name} is empty, or has a line of more than {LONGEST_TOKEN} characters",
            "tokenizer.vocabulary",
            path.name,
        )
    _check_size(len(lines), limits, path.name)
    _check_numbers({lines[-1]: len(lines) - 1}, rows, limits, path.name)
    return words


def _vet_merges(path: Path, most: int, limits: VettingConfig) -> str:
    words = _text(path, most)
    lines = [line for line in words.split("\n") if line and not line.startswith("#version")]
    if len(lines) > 2 * limits.vocabulary or any(
        len(line) > 2 * LONGEST_TOKEN or len(line.split(" ")) != 2 for line in lines
    ):
        raise _flaw(
            f"{path.name} has a line that is no pair of tokens, or too many of them", "tokenizer.malformed", path.name
        )
    return words


def _text(path: Path, most: int) -> str:
    data = read_bytes(path, most)
    check_content(data[:HEAD], path.name)
    try:
        return data.decode("utf-8")
    except ValueError as error:
        raise _flaw(f"{path.name} is not text in UTF-8", "tokenizer.malformed", path.name) from error


def _check_builds(serialized: str) -> None:
    """Let the library build the tokenizer: it finds merges without tokens. Raises UnsafeModel."""
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_str(serialized)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            # How a failure within the library comes to Python
            raise
        raise _flaw(f"{NAME} makes no tokenizer: {str(error)[:200]}", "tokenizer.malformed") from error


def _flaw(what: str, rule: str, name: str = NAME) -> UnsafeModel:
    return UnsafeModel(f"Refused: {what}. Give the files that tokenizer.save_pretrained wrote.", rule, name)
