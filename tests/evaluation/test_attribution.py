"""Token weights: against finite differences, and adding up."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_bert

from mbtsad_core.errors import UnknownMethod
from mbtsad_core.evaluation.attribution import attribute
from mbtsad_core.models.classifier import Classifier, collate, encode, weights_hash
from mbtsad_core.types import LabelledText


def sure(classes: int = 2) -> Classifier:
    """A tiny BERT whose head is steep enough for weights to be seen."""
    classifier = tiny_bert(classes)
    with torch.no_grad():
        classifier.model.classifier.weight.mul_(20)
    return classifier


def log_odds(classifier: Classifier, x: torch.Tensor, c: int) -> float:
    p = classifier.model(inputs_embeds=x, attention_mask=torch.ones(x.shape[:2])).logits.double().softmax(-1)[0]
    return float((p[c] / (1 - p[c])).log())


@pytest.mark.parametrize("classes", [2, 3])
def test_gradient_weights_agree_with_finite_differences(classes: int) -> None:
    classifier = sure(classes)
    found = attribute(classifier, "a lovely film", "gradient")
    c = classifier.labels.index(found.label)
    with torch.no_grad():
        x = classifier.model.get_input_embeddings()(
            collate(classifier, encode(classifier, ["a lovely film"]))["input_ids"]
        )
        for i, weight in enumerate(found.weights):
            up, down = x.clone(), x.clone()
            up[0, i] *= 1 + 1e-2
            down[0, i] *= 1 - 1e-2
            assert weight == pytest.approx(
                (log_odds(classifier, up, c) - log_odds(classifier, down, c)) / 2e-2, abs=2e-3
            )


def test_integrated_weights_add_up_to_the_log_odds_over_the_baseline() -> None:
    classifier = sure()
    found = attribute(classifier, "a lovely film", "integrated")
    c = classifier.labels.index(found.label)
    ids = collate(classifier, encode(classifier, ["a lovely film"]))["input_ids"]
    blank = ids.clone()
    blank[0, 1:-1] = classifier.tokenizer.pad_token_id
    with torch.no_grad():
        f, f_0 = (log_odds(classifier, classifier.model.get_input_embeddings()(x), c) for x in (ids, blank))
    assert found.missing is not None
    assert sum(found.weights) + found.missing == pytest.approx(f - f_0, abs=1e-3)
    assert abs(found.missing) < 0.05 * max(abs(w) for w in found.weights) + 1e-3
    assert found.weights[0] == found.weights[-1] == 0  # [CLS] and [SEP] are in the baseline


def test_weights_of_two_classes_are_opposite() -> None:
    classifier = sure()
    one, other = (attribute(classifier, "a lovely film", "gradient", label=c) for c in (0, 1))
    assert one.weights == pytest.approx([-w for w in other.weights], abs=1e-5)
    assert one.probability + other.probability == pytest.approx(1)


def test_the_classifier_is_left_as_it_was(tiny: Classifier) -> None:
    before = weights_hash(tiny)
    found = attribute(tiny, LabelledText("a film", 0, "the plot"))
    assert found.tokens == ("[CLS]", "a", "film", "[SEP]", "the", "plot", "[SEP]")
    assert weights_hash(tiny) == before
    assert all(p.grad is None for p in tiny.model.parameters())
    assert not tiny.model.training


def test_an_unknown_method_lists_the_known(tiny: Classifier) -> None:
    with pytest.raises(UnknownMethod, match="gradient, integrated"):
        attribute(tiny, "a film", "shap")
