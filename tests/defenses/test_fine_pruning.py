"""Fine-Pruning: the activations that rank the neurons, how many go, and that they stay away."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import finish, tiny_bert, tiny_texts
from families import FAMILIES, tiny_model

from mbtsad_core.config import TrainingConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.encoder_layers import encoder_layers, zero
from mbtsad_core.defenses.fine_pruning import chosen, mean_activations, zeros
from mbtsad_core.defenses.fine_pruning_method import FinePruningConfig
from mbtsad_core.defenses.held_out import hold_out
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, predict
from mbtsad_core.training.fine_tuning import fine_tune

CLEAN = tiny_texts(60)
LEARNT = TrainingConfig(learning_rate=5e-3, epochs=6, batch_size=16)
CONFIG = FinePruningConfig(step=0.1, training=TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=16))


@pytest.fixture(scope="module")
def suspect() -> Classifier:
    return finish(fine_tune(tiny_bert(), tiny_texts(200, seed=5), LEARNT))[0]


def pruned_in(classifier: Classifier) -> torch.Tensor:
    """(L, I), True at the neurons that nothing leads out of."""
    return torch.stack([(layer.outer.weight == 0).all(dim=0) for layer in encoder_layers(classifier)])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("absolute", [True, False])
def test_a_neurons_activation_is_its_mean_over_the_real_tokens(family: str, absolute: bool) -> None:
    classifier = tiny_model(family)
    texts = [*CLEAN[:5], *[dataclasses.replace(t, text="a film") for t in CLEAN[:2]]]  # of two lengths
    found = mean_activations(classifier, texts, absolute=absolute, batch_size=3)

    seen: list[list[torch.Tensor]] = [[], []]
    for layer, kept in zip(encoder_layers(classifier), seen, strict=True):
        layer.outer.register_forward_pre_hook(lambda module, inputs, kept=kept: kept.append(inputs[0][0].detach()))
    for text in texts:  # one by one: there is no padding at all
        with torch.no_grad():
            classifier.model(**collate(classifier, encode(classifier, [text])))
    by_hand = torch.stack([(torch.cat(k).abs() if absolute else torch.cat(k)).mean(0) for k in seen])
    assert torch.allclose(found, by_hand, atol=1e-6)


def test_a_neuron_that_is_cut_out_is_as_if_it_answered_nothing(suspect: Classifier) -> None:
    gone = torch.rand(2, 64, generator=torch.Generator().manual_seed(0)) < 0.4
    cut, muted = clone(suspect), clone(suspect)
    zero(zeros(cut, gone))
    for layer, out in zip(encoder_layers(muted), gone, strict=True):
        layer.outer.register_forward_pre_hook(lambda module, inputs, out=out: (inputs[0].masked_fill(out, 0.0),))
    assert torch.allclose(predict(cut, CLEAN), predict(muted, CLEAN), atol=1e-6)
    assert torch.equal(pruned_in(cut), gone)
    assert mean_activations(cut, CLEAN)[gone].count_nonzero() == 0


def test_flat_indices_are_neurons() -> None:
    assert chosen(torch.empty(2, 3), torch.tensor([4, 0])).tolist() == [[True, False, False], [False, True, False]]


@pytest.mark.parametrize("ranking", ["absolute", "signed"])
def test_the_share_that_goes_is_the_least_active_of_all_layers(suspect: Classifier, ranking: str) -> None:
    config = dataclasses.replace(CONFIG, stop="share", most=0.25, ranking=ranking)
    made, events = finish(DEFENSES["fine_pruning"].run(suspect, CLEAN, config))
    activations = mean_activations(suspect, CLEAN, absolute=ranking == "absolute")
    assert torch.equal(pruned_in(made), activations <= activations.flatten().kthvalue(32).values)  # a quarter of 2 x 64
    assert {e.stage for e in events} == {"fine-pruning"}


def test_the_last_layer_alone_can_be_pruned(suspect: Classifier) -> None:
    made = finish(
        DEFENSES["fine_pruning"].run(
            suspect, CLEAN, dataclasses.replace(CONFIG, stop="share", most=0.5, scope="last_layer")
        )
    )[0]
    assert pruned_in(made).sum(dim=1).tolist() == [0, 32]


def test_pruned_neurons_stay_pruned_and_the_others_learn(suspect: Classifier) -> None:
    made = finish(DEFENSES["fine_pruning"].run(suspect, CLEAN, dataclasses.replace(CONFIG, stop="share", most=0.5)))[0]
    gone = pruned_in(made)
    assert gone.sum() == 64
    for old, new, out in zip(encoder_layers(suspect), encoder_layers(made), gone, strict=True):
        assert new.inner.weight[out].count_nonzero() == new.inner.bias[out].count_nonzero() == 0
        assert (new.inner.weight[~out] != old.inner.weight[~out]).any(dim=1).all()
    assert all(not p._backward_hooks for p in made.model.parameters())


def test_pruning_goes_on_while_the_accuracy_holds(suspect: Classifier) -> None:
    made, events = finish(
        DEFENSES["fine_pruning"].run(suspect, CLEAN, dataclasses.replace(CONFIG, tolerance=1.0, most=0.55))
    )
    looks = [e for e in events if e.stage == "prune"]
    # Steps of a tenth, and `most` at the end
    assert [round(e.metrics["pruned"] * 128) for e in looks] == [13, 26, 39, 52, 65, 70]
    assert pruned_in(made).sum() == 70


def needing_one_neuron(suspect: Classifier, activation: float) -> Classifier:
    """The same model, with one neuron of the last layer whose activation never changes, and without which every text
    gets one answer.

    The neuron adds what a large bias takes away again.
    """
    made = clone(suspect)
    layer = encoder_layers(made)[1]
    away = torch.linspace(-1.0, 1.0, 32) * 1000.0
    with torch.no_grad():
        layer.inner.weight[0] = 0.0
        layer.inner.bias[0] = activation
        constant = torch.nn.functional.gelu(torch.tensor(activation))
        layer.outer.weight[:, 0] = away / constant
        layer.outer.bias -= away
    return made


@pytest.mark.parametrize(("tolerance", "ends"), [(0.0, True), (0.4, True), (0.6, False)])
def test_pruning_ends_before_the_step_with_which_the_accuracy_falls_too_far(
    suspect: Classifier, tolerance: float, ends: bool
) -> None:
    needy = needing_one_neuron(suspect, 0.3)
    still = TrainingConfig(learning_rate=1e-8, epochs=1, batch_size=16, dropout=0.0)
    config = FinePruningConfig(tolerance=tolerance, most=1.0, step=0.05, training=still)  # six neurons of 128 a step
    made, events = finish(DEFENSES["fine_pruning"].run(needy, CLEAN, config))
    looks = [(round(e.metrics["pruned"] * 128), e.metrics["held_out_accuracy"]) for e in events if e.stage == "prune"]

    rest, _ = hold_out(CLEAN, config.held_out, config.seed)
    rank = mean_activations(needy, rest).flatten().argsort().tolist().index(64)  # how many neurons sleep deeper
    assert 20 < rank < 120
    assert {accuracy for count, accuracy in looks if count <= rank} == {1.0}
    assert {accuracy for count, accuracy in looks if count > rank} == {0.5}
    assert int(pruned_in(made).sum()) == (rank // 6 * 6 if ends else 128)
    assert looks[-1][0] == (rank // 6 * 6 + 6 if ends else 128)
