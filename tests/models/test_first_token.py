"""The last layer for the first token alone: the same logits and gradients, less work, and nobody else notices."""

from __future__ import annotations

import threading

import pytest
import torch
import transformers
from conftest import tiny_bert, tiny_texts
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from mbtsad_core.models.classifier import collate, encode, logits_of, trace
from mbtsad_core.models.first_token import FAMILIES, first_token_only

SIZES = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
SIZES |= dict(max_position_embeddings=40, initializer_range=0.3)
CONFIGS = {
    "bert": ("Bert", {}),
    "roberta": ("Roberta", {}),
    "xlm-roberta": ("XLMRoberta", {}),
    "camembert": ("Camembert", {}),
    "electra": ("Electra", dict(embedding_size=16)),
    "distilbert": ("DistilBert", dict(dim=32, n_layers=2, n_heads=4, hidden_dim=128)),
    "albert": ("Albert", dict(embedding_size=16)),
    "mpnet": ("MPNet", {}),
    "deberta": ("Deberta", {}),
}


def model_of(family: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    name, own = CONFIGS[family]
    config = getattr(transformers, f"{name}Config")(**SIZES | dict(pad_token_id=1) | own)
    return getattr(transformers, f"{name}ForSequenceClassification")(config).double().eval()


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(2, 60, (5, 13), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(13) < torch.tensor([13, 9, 2, 13, 6])[:, None]
    return {"input_ids": ids.where(mask, 1), "attention_mask": mask.long()}


@pytest.mark.parametrize("family", CONFIGS)
def test_logits_and_gradients_are_those_of_the_whole_layer(family: str) -> None:
    model, labels = model_of(family), torch.tensor([0, 1, 1, 0, 1])
    whole = model(**batch()).logits
    with first_token_only(model):
        cut = model(**batch()).logits
    assert torch.allclose(cut, whole, rtol=1e-12, atol=1e-12)
    expected, found = (
        torch.autograd.grad(cross_entropy(x, labels), list(model.parameters()), allow_unused=True) for x in (whole, cut)
    )
    assert any(g.abs().max() > 1e-3 for g in expected if g is not None)
    for a, b in zip(expected, found, strict=True):
        assert (a is None and b is None) or torch.allclose(a, b, rtol=1e-10, atol=1e-12)
    assert torch.equal(model(**batch()).logits, whole), "the model is left as it was"


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_less_work(family: str) -> None:
    """Counted by PyTorch: of the products of a last layer with 5 x 13 tokens, those behind the attention are made for
    5."""
    model = model_of(family)
    counts = []
    for cut in (False, True):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            if cut:
                with first_token_only(model):
                    model(**batch())
            else:
                model(**batch())
        counts.append(counter.get_total_flops())
    saved = 2 * (65 - 5) * (2 * 32 * 128 + (0 if family == "distilbert" else 32 * 32))
    assert counts[0] - counts[1] == saved


def test_another_thread_that_uses_the_model_meanwhile_sees_the_whole_layer() -> None:
    classifier = tiny_bert()
    texts = collate(classifier, encode(classifier, tiny_texts(3)))
    expected = trace(classifier, texts).hidden[-1]
    found = []
    with first_token_only(classifier.model):
        other = threading.Thread(target=lambda: found.append(trace(classifier, texts).hidden[-1]))
        other.start()
        other.join()
        assert classifier.model(**texts, output_hidden_states=True).hidden_states[-1].shape[1] == 1
    assert torch.equal(found[0], expected)


def test_an_error_inside_leaves_the_model_whole() -> None:
    classifier = tiny_bert()
    texts = collate(classifier, encode(classifier, tiny_texts(3)))
    with pytest.raises(IndexError):
        logits_of(classifier, texts | {"input_ids": texts["input_ids"] + 10_000})
    assert trace(classifier, texts).hidden[-1].shape[1] == texts["input_ids"].shape[1]
