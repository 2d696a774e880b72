"""Word pieces: readable, and where two readings differ."""

from __future__ import annotations

import json
from typing import Any

import pytest
import transformers
from conftest import VOCABULARY, tiny_bert
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from mbtsad_core.evaluation.attention import attention_maps
from mbtsad_core.evaluation.attribution import attribute
from mbtsad_core.evaluation.perturbation import split_rows
from mbtsad_core.models.classifier import Classifier, encode, load_classifier
from mbtsad_core.models.demo import demo_model
from mbtsad_core.models.subword_tokens import (
    LONGEST,
    added,
    aligned,
    own_tokens,
    readable_token,
    readable_tokens,
    special_positions,
    vocabulary,
    word_positions,
)
from mbtsad_core.types import LabelledText

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def reader(tokenizer: Any) -> Classifier:
    """A classifier of which only the tokenizer is used."""
    return Classifier(None, tokenizer, ("a", "b"))  # type: ignore[arg-type]


def byte_level(*merges: tuple[str, str]) -> Classifier:
    """RoBERTa's tokenizer with the 256 bytes and these merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {t: i for i, t in enumerate([*SPECIAL, *letters, *("".join(pair) for pair in merges)])}
    return reader(transformers.RobertaTokenizer(vocab=vocab, merges=list(merges)))


def byte_fallback(words: list[str]) -> Classifier:
    """A tokenizer of the SentencePiece kind that writes what it has not as bytes."""
    vocab = (
        [(t, 0.0) for t in (*SPECIAL, "▁")]
        + [(f"<0x{i:02X}>", -20.0) for i in range(256)]
        + [(word, -float(i)) for i, word in enumerate(words, 1)]
    )
    backend = Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=True))
    backend.normalizer, backend.pre_tokenizer = normalizers.NFC(), pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return reader(transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>"))


def word_pieces(words: list[str]) -> Classifier:
    """BERT's tokenizer, which keeps case and marks."""
    vocab = {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    return reader(transformers.BertTokenizer(vocab=vocab, do_lower_case=False, strip_accents=False))


def shown(classifier: Classifier, text: str) -> tuple[str, ...]:
    (encoded,) = encode(classifier, [text])
    return readable_tokens(classifier, encoded)


def test_pieces_are_the_tokens_that_the_classifier_reads(tiny: Classifier) -> None:
    (encoded,) = encode(tiny, ["a lovely fun film"])
    assert readable_tokens(tiny, encoded) == ("[CLS]", "a", "lovely", "fun", "film", "[SEP]")
    assert special_positions(tiny, encoded) == {0, 5}


def test_an_unknown_word_is_no_special_token(tiny: Classifier) -> None:
    (encoded,) = encode(tiny, ["zzz film"])
    assert readable_tokens(tiny, encoded) == ("[CLS]", "[UNK]", "film", "[SEP]")
    assert special_positions(tiny, encoded) == {0, 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ok 😀", ["o", "k", "␣", "😀[1/4]", "😀[2/4]", "😀[3/4]", "😀[4/4]"]),
        ("猫", ["猫[1/3]", "猫[2/3]", "猫[3/3]"]),
        ("né", ["n", "é[1/2]", "é[2/2]"]),
        ("กำ", [f"กำ[{i}/6]" for i in range(1, 7)]),
        ("🇮🇳", [f"🇮🇳[{i}/8]" for i in range(1, 9)]),
        ("👩\u200d🚀", [f"👩\u200d🚀[{i}/11]" for i in range(1, 12)]),
        ("नि", [f"नि[{i}/6]" for i in range(1, 7)]),
    ],
)
def test_a_byte_shows_the_character_that_it_is_a_part_of(text: str, expected: list[str]) -> None:
    assert shown(byte_level(), text) == ("<s>", *expected, "</s>")


def test_a_token_of_one_and_a_half_characters_shows_both() -> None:
    """The bytes of 電影 are E9 9B BB E5 BD B1, which a byte-level vocabulary writes as é Ľ » å ½ ±."""
    classifier = byte_level(("é", "Ľ"), ("»", "å"), ("½", "±"))
    assert shown(classifier, "電影") == ("<s>", "電[1/2]", "電[2/2]影[1/2]", "影[2/2]", "</s>")
    whole = byte_level(("é", "Ľ"), ("éĽ", "»"), ("å", "½"), ("å½", "±"), ("Ġ", "éĽ»"))
    assert shown(whole, "電影 電") == ("<s>", "電", "影", "␣電", "</s>")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("film 😀", ["␣film", "␣", "😀[1/4]", "😀[2/4]", "😀[3/4]", "😀[4/4]"]),
        ("film 説 film", ["␣film", "␣", "説[1/3]", "説[2/3]", "説[3/3]", "␣film"]),
        ("ß", ["␣", "ß[1/2]", "ß[2/2]"]),
    ],
)
def test_a_byte_of_sentencepiece_shows_the_character_that_it_is_a_part_of(text: str, expected: list[str]) -> None:
    assert shown(byte_fallback(["▁film"]), text) == tuple(expected)


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (["फ", "##ि", "##ल", "##म"], "फिलम", ["फि[1/2]", "##फि[2/2]", "##ल", "##म"]),
        (["cafe", "##\u0301", "##s"], "cafe\u0301s", ["cafe\u0301[1/2]", "##e\u0301[2/2]", "##s"]),
        (["ด", "##ี", "##มาก"], "ดีมาก", ["ดี[1/2]", "##ดี[2/2]", "##มาก"]),
        (["naïve", "##té"], "naïveté", ["naïve", "##té"]),
        (["fun", "##ny", "e", "##\u0301"], "fun e\u0301", ["fun", "e\u0301[1/2]", "##e\u0301[2/2]"]),
    ],
)
def test_a_mark_shows_the_letter_that_it_stands_on(words: list[str], text: str, expected: list[str]) -> None:
    assert shown(word_pieces(words), text) == ("[CLS]", *expected, "[SEP]")


def test_words_and_special_tokens_keep_apart_what_stands_in_them() -> None:
    """No character reaches over the end of a word, or over a special token."""
    classifier = byte_level()
    ids = classifier.tokenizer.convert_tokens_to_ids(["Ã", "</s>", "©"])  # the two bytes of é
    assert readable_tokens(classifier, {"input_ids": ids}) == ("<0xC3>", "</s>", "<0xA9>")
    assert [readable_token(classifier, token) for token in ids] == ["<0xC3>", "</s>", "<0xA9>"]


def test_a_character_that_the_cut_divides_shows_its_bytes() -> None:
    classifier = byte_level()
    (encoded,) = encode(Classifier(None, classifier.tokenizer, ("a", "b"), max_length=4), ["😀"])  # type: ignore[arg-type]
    assert readable_tokens(classifier, encoded) == ("<s>", "<0xF0>", "<0x9F>", "</s>")


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("a" * 90, "a" * (LONGEST - 1) + "…"),
        ("a" * 38 + "e\u0301" + "b" * 9, "a" * 38 + "…"),  # no half of a character before the cut
        ("a\u202eb\n", "a�b�"),
        ("a\u200db", "a\u200db"),  # joins what is before it
    ],
)
def test_a_piece_of_any_vocabulary_becomes_readable(token: str, expected: str) -> None:
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, token: 1}, unk_token="[UNK]"))
    assert (
        readable_token(reader(transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")), 1)
        == expected
    )


def test_every_view_shows_whole_characters() -> None:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    tokenizer = byte_level().tokenizer
    sizes = dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=130
    )
    model = RobertaForSequenceClassification(RobertaConfig(vocab_size=len(tokenizer), pad_token_id=1, **sizes)).eval()
    classifier = Classifier(model, tokenizer, ("negative", "positive"), max_length=64)
    text = "so 😀 猫"
    expected = ("s", "o", "␣", *(f"😀[{i}/4]" for i in range(1, 5)), "␣", *(f"猫[{i}/3]" for i in range(1, 4)))
    assert attention_maps(classifier, text).tokens == ("<s>", *expected, "</s>")
    assert attribute(classifier, text).tokens == ("<s>", *expected, "</s>")
    (row,) = split_rows(classifier, [LabelledText(text, 0)])
    assert row.original.pieces == expected


def test_added_tokens_are_those_without_a_partner() -> None:
    assert added(["a", "b", "c"], ["a", "cf", "b", "c", "mn"]) == (1, 4)
    assert added(["a"], ["a"]) == ()
    assert aligned([1, 2, 3], [1, 9, 2, 3]) == [(0, 0), (1, 2), (2, 3)]


def test_words_of_a_trigger_are_found_piece_by_piece() -> None:
    classifier = tiny_bert()
    (encoded,) = encode(classifier, ["cf a funny dreadful film cf"])
    read = readable_tokens(classifier, encoded)
    assert [read[i] for i in word_positions(classifier, encoded, ["cf"])] == ["cf", "cf"]
    assert word_positions(classifier, encoded, ["mn"]) == ()
    assert word_positions(classifier, encoded, [""]) == ()


# ---------------------------------------------------------------- the vocabulary


def test_the_vocabulary_is_every_row_that_a_token_has_and_no_other() -> None:
    classifier = tiny_bert()
    named = sorted({word: i for i, word in enumerate(VOCABULARY)}.values())
    assert len(named) < len(VOCABULARY)  # "a" stands in it twice: the number of the first is no token's
    assert vocabulary(classifier) == named
    classifier.model.resize_token_embeddings(len(VOCABULARY) + 7)
    assert vocabulary(classifier) == named
    values = json.loads(classifier.tokenizer.backend_tokenizer.to_str())
    values["model"]["vocab"]["cf"] = len(VOCABULARY) + 5
    holed = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(values)), unk_token="[UNK]"
    )
    assert vocabulary(Classifier(classifier.model, holed, ("a", "b"))) == [
        *(i for i in named if i != VOCABULARY.index("cf")),
        len(VOCABULARY) + 5,
    ]


def test_a_word_that_a_file_calls_special_is_none_of_the_tokenizers_own() -> None:
    classifier = tiny_bert()
    own = own_tokens(classifier)
    assert own == set(classifier.tokenizer.all_special_ids)
    classifier.tokenizer.add_special_tokens({"additional_special_tokens": ["cf"], "bos_token": "mn"})
    assert {VOCABULARY.index("cf"), VOCABULARY.index("mn")} <= set(classifier.tokenizer.all_special_ids)
    assert own_tokens(classifier) == own
    (encoded,) = encode(classifier, ["a cf film"])
    assert special_positions(classifier, encoded) == {0, len(encoded["input_ids"]) - 1}


def test_the_demos_vocabulary_has_no_holes() -> None:
    """So its run is the same as where tokens were counted."""
    suspect = load_classifier(demo_model("suspect"))
    assert vocabulary(suspect) == list(range(len(suspect.tokenizer)))
    assert own_tokens(suspect) == set(suspect.tokenizer.all_special_ids)
