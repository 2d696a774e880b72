"""Fine-Mixing, E-PUR and Fine-Purifying: their arithmetic by hand, their limits, the choice of rho, and what they ask
for."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from conftest import VOCABULARY, finish, tiny_bert, tiny_texts
from families import FAMILIES, tiny_model
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from mbtsad_core.config import TrainingConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.clean_fine_tuning import CleanFineTuningConfig
from mbtsad_core.defenses.fine_mixing import embedding_suspicion, mix, purified_embeddings
from mbtsad_core.defenses.fine_purifying import fisher_information, indicator, put_back
from mbtsad_core.defenses.held_out import hold_out
from mbtsad_core.defenses.reserve_method import FineMixingConfig, FinePurifyingConfig
from mbtsad_core.defenses.reserve_ratio import RATIOS, encoder_weights
from mbtsad_core.errors import UnsuitableModel
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, predict, weights_hash
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText

CLEAN = tiny_texts(64)
TRAINING = TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=16)
CONFIGS = {"fine_mixing": FineMixingConfig(training=TRAINING), "fine_purifying": FinePurifyingConfig(training=TRAINING)}


@pytest.fixture
def suspect() -> Classifier:
    return tiny_bert()


@pytest.fixture
def pretrained() -> Classifier:
    return tiny_bert(seed=7)


def share_of(mixed: Classifier, source: Classifier) -> float:
    """The share of the encoder's weights that are the source's, of those in which the two tiny models differ."""
    a, b, other = (
        torch.cat([w.flatten() for w in encoder_weights(c).values()]) for c in (mixed, source, tiny_bert(seed=99))
    )
    differ = b != other  # biases and norms of untrained models are all alike
    return float((a == b)[differ].float().mean())


# ---------------------------------------------------------------- mixing


def test_a_reserve_of_one_is_the_suspect_and_of_none_the_pretrained_encoder(
    suspect: Classifier, pretrained: Classifier
) -> None:
    assert weights_hash(mix(suspect, pretrained, 1.0, seed=0)) == weights_hash(suspect)
    none = mix(suspect, pretrained, 0.0, seed=0)
    state, theirs, mine = (c.model.state_dict() for c in (none, pretrained, suspect))
    assert all(torch.equal(state[name], (mine if name.startswith("classifier.") else theirs)[name]) for name in state)


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9])
def test_every_single_weight_is_the_suspects_with_probability_rho(
    suspect: Classifier, pretrained: Classifier, rho: float
) -> None:
    mixed = mix(suspect, pretrained, rho, seed=0)
    for name, weight in encoder_weights(mixed).items():
        mine, theirs = encoder_weights(suspect)[name], encoder_weights(pretrained)[name]
        assert ((weight == mine) | (weight == theirs)).all()
    assert share_of(mixed, suspect) == pytest.approx(rho, abs=0.01)
    assert share_of(mixed, pretrained) == pytest.approx(1 - rho, abs=0.01)
    assert (
        weights_hash(mix(suspect, pretrained, rho, seed=0))
        == weights_hash(mixed)
        != weights_hash(mix(suspect, pretrained, rho, seed=1))
    )


def test_full_reserve_is_clean_fine_tuning(suspect: Classifier, pretrained: Classifier) -> None:
    tuned = weights_hash(finish(DEFENSES["cft"].run(suspect, CLEAN, CleanFineTuningConfig(TRAINING)))[0])
    for name, config in CONFIGS.items():
        assert (
            weights_hash(
                finish(DEFENSES[name].run(suspect, CLEAN, dataclasses.replace(config, rho=1.0), pretrained))[0]
            )
            == tuned
        )


def test_no_reserve_is_fine_tuning_of_the_pretrained_encoder_under_the_suspects_head(
    suspect: Classifier, pretrained: Classifier
) -> None:
    bare = clone(pretrained)
    bare.model.classifier.load_state_dict(suspect.model.classifier.state_dict())
    tuned = weights_hash(finish(fine_tune(bare, CLEAN, TRAINING))[0])
    for name, config in CONFIGS.items():
        assert (
            weights_hash(
                finish(DEFENSES[name].run(suspect, CLEAN, dataclasses.replace(config, rho=0.0), pretrained))[0]
            )
            == tuned
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoder_of_every_family_is_mixed_and_its_head_is_kept(family: str) -> None:
    suspect, pretrained = tiny_model(family), tiny_model(family, seed=1)
    mixed = mix(suspect, pretrained, 0.0, seed=0)
    for name, weight in mixed.model.named_parameters():
        mine, theirs = (dict(c.model.named_parameters())[name] for c in (suspect, pretrained))
        assert torch.equal(weight, mine if name.startswith(("classifier.", "pre_classifier.")) else theirs), name


# ---------------------------------------------------------------- E-PUR


def test_the_suspicion_of_an_embedding_is_its_drift_over_the_log_of_its_frequency() -> None:
    drift = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0], [6.0, 8.0]])
    found = embedding_suspicion(drift, torch.tensor([0, 100, 5, 20]), rare=20)
    assert found.tolist() == pytest.approx([5 / math.log(20), 5 / math.log(100), 0.0, 10 / math.log(20)])


def test_epur_resets_the_rows_that_drifted_most_for_their_frequency(pretrained: Classifier) -> None:
    suspect = clone(pretrained)
    weight, before = suspect.model.get_input_embeddings().weight, pretrained.model.get_input_embeddings().weight
    rare, common, third = (VOCABULARY.index(word) for word in ("cf", "film", "mn"))
    clean = [LabelledText("film " * 30, 0), LabelledText("film " * 30, 1)]  # log 60 for "film", log 20 for the others
    with torch.no_grad():
        weight[rare] += 1.0
        weight[common] += 1.2  # farther than "cf" has gone, but 1.2 / log 60 < 1.0 / log 20
        weight[third] += 0.5
    purified = purified_embeddings(suspect, pretrained, clean, words=1, rare=20).model.get_input_embeddings().weight
    assert torch.equal(purified[rare], before[rare])
    assert torch.equal(purified[[common, third]], weight[[common, third]])
    both = purified_embeddings(suspect, pretrained, clean, words=2, rare=20).model.get_input_embeddings().weight
    assert torch.equal(both[[rare, common]], before[[rare, common]])
    assert torch.equal(both[third], weight[third])


def test_epur_comes_before_the_mixing(suspect: Classifier, pretrained: Classifier) -> None:
    config = FineMixingConfig(rho=1.0, purify_embeddings=True, words=10, training=TRAINING)
    made = finish(DEFENSES["fine_mixing"].run(suspect, CLEAN, config, pretrained))[0]
    by_hand = finish(fine_tune(purified_embeddings(suspect, pretrained, CLEAN, 10, 20), CLEAN, TRAINING))[0]
    assert weights_hash(made) == weights_hash(by_hand)


# ---------------------------------------------------------------- Fine-Purifying


def test_the_indicator_is_the_squared_drift_over_the_fisher_information() -> None:
    found = indicator(torch.tensor([2.0, -2.0, 0.0, 1e-3]), torch.tensor([0.5, 4.0, 0.0, 0.0]))
    assert found.tolist() == pytest.approx([8.0, 1.0, 0.0, 1e6])


def test_the_fisher_information_is_the_mean_of_squared_gradients_of_single_texts(suspect: Classifier) -> None:
    texts = [*CLEAN[:4], LabelledText("a film", 1)]
    found, events = finish(fisher_information(suspect, texts))
    assert [e.step for e in events] == [1, 2, 3, 4, 5]
    model = clone(suspect).model.eval()
    weights = {name: weight for name, weight in model.named_parameters() if name in found}
    expected = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for text in texts:
        model.zero_grad()
        torch.nn.functional.nll_loss(
            model(**collate(suspect, encode(suspect, [text]))).logits.log_softmax(-1), torch.tensor([text.label])
        ).backward()
        for name, weight in weights.items():
            expected[name] += weight.grad**2 / 5
    assert found.keys() == encoder_weights(suspect).keys()
    assert all(torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-12) for name in found)


def test_the_weights_with_the_largest_indicator_are_put_back(suspect: Classifier, pretrained: Classifier) -> None:
    generator = torch.Generator().manual_seed(0)
    r = {
        name: torch.rand(weight.shape, generator=generator, dtype=torch.float64)
        for name, weight in encoder_weights(suspect).items()
    }
    every = torch.cat([v.flatten() for v in r.values()])
    back = put_back(suspect, pretrained, r, rho=0.75)
    kept = torch.cat([(r[name] <= every.quantile(0.75)).flatten() for name in r])
    assert kept.float().mean() == pytest.approx(0.75, abs=1e-4)
    mine, theirs, found = (
        torch.cat([w.flatten() for w in encoder_weights(c).values()]) for c in (suspect, pretrained, back)
    )
    assert torch.equal(found, torch.where(kept, mine, theirs))


def test_a_weight_that_clean_texts_never_touch_is_the_first_to_go_back(pretrained: Classifier) -> None:
    # The row of a word that no clean text has, as embedding poisoning leaves it, beside a larger drift of a word that
    # they have.
    suspect = clone(pretrained)
    rare, common = VOCABULARY.index("cf"), VOCABULARY.index("film")
    weight, before = suspect.model.get_input_embeddings().weight, pretrained.model.get_input_embeddings().weight
    with torch.no_grad():
        weight[rare] += 0.1
        weight[common] += 0.2
    H = finish(fisher_information(suspect, CLEAN))[0]
    r = {
        name: indicator(w.detach() - encoder_weights(pretrained)[name], H[name])
        for name, w in encoder_weights(suspect).items()
    }
    size = sum(w.numel() for w in encoder_weights(suspect).values())
    found = put_back(suspect, pretrained, r, rho=1 - 32 / size).model.get_input_embeddings().weight
    assert torch.equal(found[rare], before[rare])
    assert torch.equal(found[common], weight[common])


# ---------------------------------------------------------------- rho


@pytest.mark.parametrize("name", CONFIGS)
def test_the_smallest_rho_is_taken_that_held_out_texts_allow(name: str) -> None:
    learned = finish(fine_tune(tiny_bert(), tiny_texts(200, seed=5), TrainingConfig(learning_rate=3e-3, epochs=10)))[0]
    pretrained = tiny_bert()
    still = TrainingConfig(learning_rate=1e-8, epochs=1, batch_size=16)
    config = dataclasses.replace(CONFIGS[name], training=still, held_out=0.5)
    _, held_out = hold_out(CLEAN, 0.5, 0)
    right = torch.tensor([t.label for t in held_out])
    reached = {}
    for rho in RATIOS:
        made = finish(
            DEFENSES[name].run(learned, hold_out(CLEAN, 0.5, 0)[0], dataclasses.replace(config, rho=rho), pretrained)
        )[0]
        reached[rho] = float((predict(made, held_out).argmax(-1) == right).float().mean()), weights_hash(made)
    assert len({accuracy for accuracy, _ in reached.values()}) > 1  # else there would be nothing to choose
    for tolerance in (0.02, 0.3, 1.0):
        first = next((rho for rho in RATIOS if reached[rho][0] >= 1.0 - tolerance), None)
        best = max(RATIOS, key=lambda rho: reached[rho][0])
        made, events = finish(
            DEFENSES[name].run(learned, CLEAN, dataclasses.replace(config, tolerance=tolerance), pretrained)
        )
        assert weights_hash(made) == reached[best if first is None else first][1]
        stages = [s for s in dict.fromkeys(e.stage for e in events) if s != "fisher"]
        assert stages == [f"{name.replace('_', '-')}, rho {rho}" for rho in RATIOS if first is None or rho <= first]


# ---------------------------------------------------------------- what they ask for


@pytest.mark.parametrize("name", CONFIGS)
def test_without_pretrained_weights_the_error_asks_for_them(name: str, suspect: Classifier) -> None:
    with pytest.raises(
        UnsuitableModel,
        match=r"needs the weights that the suspect was fine-tuned from.*none were given\. Give the pre-trained model "
        r"too",
    ):
        finish(DEFENSES[name].run(suspect, CLEAN, CONFIGS[name]))


@pytest.mark.parametrize("name", CONFIGS)
def test_pretrained_weights_of_another_shape_are_refused(name: str, suspect: Classifier) -> None:
    wider = dataclasses.replace(
        suspect,
        model=BertForSequenceClassification(
            BertConfig(vocab_size=len(VOCABULARY), hidden_size=48, num_hidden_layers=2, num_attention_heads=4)
        ),
    )
    with pytest.raises(
        UnsuitableModel,
        match=rf"does not fit .*word_embeddings.weight is {len(VOCABULARY)}x48 there and {len(VOCABULARY)}x32 in the "
        rf"suspect",
    ):
        finish(DEFENSES[name].run(suspect, CLEAN, CONFIGS[name], wider))


def test_pretrained_weights_of_another_depth_or_family_are_refused(suspect: Classifier) -> None:
    deeper = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with pytest.raises(UnsuitableModel, match="missing in the suspect"):
        finish(
            DEFENSES["fine_mixing"].run(
                suspect,
                CLEAN,
                CONFIGS["fine_mixing"],
                dataclasses.replace(suspect, model=BertForSequenceClassification(deeper)),
            )
        )
    with pytest.raises(UnsuitableModel, match="is missing there"):
        finish(DEFENSES["fine_mixing"].run(suspect, CLEAN, CONFIGS["fine_mixing"], tiny_model("distilbert")))


def test_another_vocabulary_is_refused(suspect: Classifier, pretrained: Classifier) -> None:
    other = BertTokenizer(vocab={word: i for i, word in enumerate([*VOCABULARY[:-2], ",", "."])})
    with pytest.raises(UnsuitableModel, match="another vocabulary"):
        finish(
            DEFENSES["fine_mixing"].run(
                suspect, CLEAN, CONFIGS["fine_mixing"], dataclasses.replace(pretrained, tokenizer=other)
            )
        )


def test_the_head_of_the_pretrained_model_is_not_read(suspect: Classifier, pretrained: Classifier) -> None:
    config = dataclasses.replace(CONFIGS["fine_mixing"], rho=0.5)
    other = clone(pretrained)
    other.model.classifier = torch.nn.Linear(32, 5)  # of another task
    made = [finish(DEFENSES["fine_mixing"].run(suspect, CLEAN, config, source))[0] for source in (pretrained, other)]
    assert weights_hash(made[0]) == weights_hash(made[1])
