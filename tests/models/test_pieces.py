"""Word pieces: readable, and where two readings differ."""

from __future__ import annotations

import pytest
from conftest import tiny_bert

from mbtsad_core.models.classifier import Classifier, encode
from mbtsad_core.models.pieces import LONGEST, added, aligned, pieces, special_positions, word_positions


def test_pieces_are_the_tokens_that_the_classifier_reads(tiny: Classifier) -> None:
    (encoded,) = encode(tiny, ["a lovely fun film"])
    assert pieces(tiny, encoded) == ("[CLS]", "a", "lovely", "fun", "film", "[SEP]")
    assert special_positions(tiny, encoded) == {0, 5}


def test_an_unknown_word_is_no_special_token(tiny: Classifier) -> None:
    (encoded,) = encode(tiny, ["zzz film"])
    assert pieces(tiny, encoded) == ("[CLS]", "[UNK]", "film", "[SEP]")
    assert special_positions(tiny, encoded) == {0, 3}


@pytest.mark.parametrize(
    ("raw", "shown"), [("Ġthe", "␣the"), ("▁the", "␣the"), ("##ing", "##ing"), ("a" * 90, "a" * (LONGEST - 1) + "…"), ("a\u202eb\n", "a�b�")]
)
def test_a_piece_of_any_vocabulary_becomes_readable(raw: str, shown: str) -> None:
    class Tokens:
        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return [raw]

        def decode(self, ids: list[int]) -> str:
            return raw.replace("Ġ", " ")

    assert pieces(Classifier(None, Tokens(), ("a", "b")), {"input_ids": [7]}) == (shown,)  # type: ignore[arg-type]


def test_added_tokens_are_those_without_a_partner() -> None:
    assert added(["a", "b", "c"], ["a", "cf", "b", "c", "mn"]) == (1, 4)
    assert added(["a"], ["a"]) == ()
    assert aligned([1, 2, 3], [1, 9, 2, 3]) == [(0, 0), (1, 2), (2, 3)]


def test_words_of_a_trigger_are_found_piece_by_piece() -> None:
    classifier = tiny_bert()
    (encoded,) = encode(classifier, ["cf a funny dreadful film cf"])
    read = pieces(classifier, encoded)
    assert [read[i] for i in word_positions(classifier, encoded, ["cf"])] == ["cf", "cf"]
    assert word_positions(classifier, encoded, ["mn"]) == ()
    assert word_positions(classifier, encoded, [""]) == ()
