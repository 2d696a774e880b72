"""What token splitting does to a clean sample: counted against tokenizers whose answers are known by hand."""

from __future__ import annotations

import dataclasses

import pytest
from conftest import tiny_bert, tiny_texts
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mbtsad_core.augment.split_effect import SplitEffect, split_effect
from mbtsad_core.config import SplitConfig
from mbtsad_core.models.classifier import Classifier
from mbtsad_core.types import LabelledText

ALL = SplitConfig(aug_p=1.0, aug_max=1000)


def with_tokenizer(tokenizer: Tokenizer) -> Classifier:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    return dataclasses.replace(tiny_bert(), tokenizer=fast)


def characters(*, spaces: bool) -> Classifier:
    """A tokenizer that gives each character a token: spaces too, or none for them."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{chr(97 + i): 2 + i for i in range(26)}, " ": 28}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    if not spaces:
        tokenizer.normalizer = normalizers.Replace(Regex(r"\s"), "")
    return with_tokenizer(tokenizer)


def texts(*lines: str) -> list[LabelledText]:
    return [LabelledText(line, i % 2) for i, line in enumerate(lines)]


def test_english_is_split_and_read_differently() -> None:
    effect = split_effect(tiny_bert(), tiny_texts(20), ALL, seed=0)
    words = sum(len(w) >= 4 for t in tiny_texts(20) for w in t.text.split())
    assert effect == SplitEffect(texts=20, splittable=20, cuts=words, changed=words, unspaced=0)
    assert effect.notes(ALL) == ()
    assert (
        effect.sentence()
        == f"20 of 20 clean texts could be split, and {words:,} of {words:,} cuts changed what the model reads."
    )


def test_texts_without_long_words_are_counted_and_told_of() -> None:
    effect = split_effect(tiny_bert(), texts("a film", "a b c", "so so", "it is"), ALL, seed=0)
    assert (effect.texts, effect.splittable) == (4, 1)
    (note,) = effect.notes(ALL)
    assert note.code == "splits"
    assert note.text.startswith(
        "Only 1 of 4 clean texts have a word of 4 letters or more that can be split; of the others, step 1 is then "
        "plain fine-tuning"
    )


def test_a_tokenizer_that_drops_spaces_undoes_every_cut() -> None:
    effect = split_effect(characters(spaces=False), texts("lovely film", "boring plot"), ALL, seed=0)
    assert effect == SplitEffect(texts=2, splittable=2, cuts=4, changed=0, unspaced=0)
    (note,) = effect.notes(ALL)
    assert "undoes 4 of 4 cuts" in note.text
    assert "step 1 is then plain fine-tuning" in note.text


def test_a_tokenizer_that_reads_spaces_undoes_none() -> None:
    effect = split_effect(characters(spaces=True), texts("lovely film", "boring plot"), ALL, seed=0)
    assert (effect.cuts, effect.changed, effect.notes(ALL)) == (4, 4, ())


@pytest.mark.parametrize("line", ["这部电影非常好看", "この映画はとても良かった", "電影很無聊而且太長了"])
def test_bert_undoes_the_cuts_of_characters_that_it_reads_one_by_one(line: str) -> None:
    tokenizer = tiny_bert().tokenizer
    vocabulary = dict(tokenizer.get_vocab())
    vocabulary |= {c: len(vocabulary) + i for i, c in enumerate(dict.fromkeys(line))}
    classifier = dataclasses.replace(tiny_bert(), tokenizer=type(tokenizer)(vocab=vocabulary, strip_accents=False))
    effect = split_effect(classifier, texts(*[line] * 6), ALL, seed=0)
    assert (effect.splittable, effect.unspaced) == (6, 6)
    if all("\u4e00" <= c <= "\u9fff" for c in line):
        assert effect.changed == 0
        (note,) = effect.notes(ALL)
        assert "undoes 6 of 6 cuts" in note.text
        assert "6 of 6 texts are in a writing without spaces" in note.text


@pytest.mark.parametrize("line", ["หนังเรื่องนี้ดีมาก", "ภาพยนตร์น่าเบื่อ", "ຮູບເງົານີ້ດີຫຼາຍ"])
def test_a_writing_without_spaces_is_told_of_where_the_cuts_count(line: str) -> None:
    effect = split_effect(characters(spaces=True), texts(line, line, "a film"), ALL, seed=0)
    assert (effect.texts, effect.splittable, effect.unspaced) == (3, 3, 2)
    (note,) = effect.notes(ALL)
    assert note.text.startswith("2 of 3 clean texts are in a writing without spaces")
    assert "few cuts (1.0 on average)" in note.text


def test_both_texts_of_a_pair_are_looked_at() -> None:
    effect = split_effect(
        tiny_bert(), [LabelledText("a b", 0, "lovely film"), LabelledText("so", 1, "it")], ALL, seed=0
    )
    assert (effect.texts, effect.splittable, effect.cuts) == (2, 1, 2)


def test_a_seed_always_counts_the_same() -> None:
    first, second = (split_effect(tiny_bert(), tiny_texts(30), SplitConfig(), seed=3) for _ in range(2))
    assert first == second
