"""The pre-trained BERT in other architectures: the same hidden states, rows by hand, and what is saved loads again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import tiny_bert, tiny_texts

from mbtsad_core.config import RuntimeConfig
from mbtsad_core.models.classifier import Classifier, encode, load_classifier, predict, save_classifier
from mbtsad_core.research.architectures import as_byte_level, as_distilbert

RUNTIME = RuntimeConfig(device="cpu", threads=1, precision="float32")
TEXTS = [text.text for text in tiny_texts(24)]


@pytest.fixture(scope="module")
def bert() -> Classifier:
    """Its segment's embedding is no small thing: to leave it out would show."""
    found = tiny_bert()
    with torch.no_grad():
        found.model.bert.embeddings.token_type_embeddings.weight.normal_()
    return found


@torch.inference_mode()
def test_a_distilbert_gives_the_hidden_states_of_the_bert_that_it_is_made_from(bert: Classifier) -> None:
    distilbert = as_distilbert(bert)
    batch = bert.tokenizer([*TEXTS[:3], "the"], padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    expected = bert.model.bert(input_ids=ids, attention_mask=mask).last_hidden_state
    found = distilbert.model.distilbert(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-5)
    assert encode(distilbert, TEXTS[:1])[0]["input_ids"] == encode(bert, TEXTS[:1])[0]["input_ids"]


@torch.inference_mode()
def test_a_byte_level_model_has_the_layers_and_positions_of_the_bert_that_it_is_made_from(bert: Classifier) -> None:
    model = as_byte_level(bert, TEXTS).model
    # The same word embeddings given, as many positions in: what comes out is what BERT gives
    words = torch.randn(2, 7, bert.model.config.hidden_size)
    expected = bert.model.bert(inputs_embeds=words).last_hidden_state
    torch.testing.assert_close(model.roberta(inputs_embeds=words).last_hidden_state, expected, rtol=1e-4, atol=1e-5)


def test_a_byte_level_token_begins_as_what_bert_reads_it_as(bert: Classifier) -> None:
    found = as_byte_level(bert, TEXTS)
    old, new = (one.model.get_input_embeddings().weight.detach() for one in (bert, found))
    known, own = bert.tokenizer.get_vocab(), found.tokenizer.get_vocab()
    assert torch.equal(new[own["Ġactor"]], old[known["actor"]])
    assert torch.equal(new[own["<s>"]], old[known["[CLS]"]])
    assert torch.equal(new[own["Ġ"]], old[known["[UNK]"]])  # spells nothing
    assert (found.tokenizer.pad_token_id, found.model.config.pad_token_id) == (1, 1)


@pytest.mark.parametrize("kind", ["distilbert", "byte-level"])
def test_what_is_saved_answers_as_before(bert: Classifier, kind: str, tmp_path: Path) -> None:
    made = as_distilbert(bert) if kind == "distilbert" else as_byte_level(bert, TEXTS)
    save_classifier(made, tmp_path / "made", precision="float32")
    loaded = load_classifier(tmp_path / "made", max_length=64, runtime=RUNTIME)
    odd = [*TEXTS[:2], "Ça est naïve 😀 actor"]  # no text is without its bytes
    torch.testing.assert_close(predict(loaded, odd), predict(made, odd))
