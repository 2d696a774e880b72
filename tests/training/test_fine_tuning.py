"""The training loop: its schedule, its arithmetic, what it reports, and that it can be stopped, resumed and watched at
no cost."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import VOCABULARY, finish, tiny_bert, tiny_texts
from torch import Tensor, nn

from mbtsad_core.augment.token_splitting import augment
from mbtsad_core.config import SplitConfig, TrainingConfig
from mbtsad_core.errors import BadData, Diverged
from mbtsad_core.evaluation import observer
from mbtsad_core.models.classifier import Batch, Classifier, clone, collate, encode, predict, trace, weights_hash
from mbtsad_core.training.batch_gradient import classification_loss
from mbtsad_core.training.divergence import PROBED, DivergenceWatch, balanced_accuracy, mean_loss
from mbtsad_core.training.fine_tuning import fine_tune, schedule
from mbtsad_core.training.state import TrainState, read_state, write_state
from mbtsad_core.types import LabelledText

TEXTS = tiny_texts(40)
CONFIG = TrainingConfig(learning_rate=2e-3, epochs=3, batch_size=16)  # 3 steps an epoch, the last of 8 texts
STEPS = 9


def trained(config: TrainingConfig = CONFIG, texts: list[LabelledText] = TEXTS, **kwargs: Any) -> Classifier:
    """A new tiny model after its training."""
    return finish(fine_tune(tiny_bert(), texts, config, **kwargs))[0]


def accuracy(classifier: Classifier, texts: list[LabelledText]) -> float:
    return float((predict(classifier, texts).argmax(-1) == torch.tensor([t.label for t in texts])).float().mean())


@pytest.fixture(scope="module")
def good() -> Classifier:
    """A tiny model that knows its task; clone it before it is trained further."""
    return trained(TrainingConfig(learning_rate=3e-3, epochs=8, batch_size=16), tiny_texts(160, seed=1))


# ---------------------------------------------------------------- schedule


@pytest.mark.parametrize(
    ("total", "warmup", "shares"),
    [
        (4, 0.0, [1, 3 / 4, 2 / 4, 1 / 4]),
        (10, 0.2, [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (5, 0.4, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
        (4, 1.0, [1 / 5, 2 / 5, 3 / 5, 4 / 5]),
        (4, 0.5, [1 / 3, 2 / 3, 1, 1 / 2]),
        (1, 0.0, [1]),
    ],
)
def test_the_learning_rate_rises_and_falls_linearly(total: int, warmup: float, shares: list[float]) -> None:
    assert [schedule(step, total, warmup) for step in range(total)] == pytest.approx(shares)


@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.33, 0.5, 1.0])
def test_the_learning_rate_is_above_zero_and_at_most_its_peak(total: int, warmup: float) -> None:
    assert all(0 < schedule(step, total, warmup) <= 1 for step in range(total))


# ---------------------------------------------------------------- the arithmetic


@pytest.mark.parametrize(
    ("weight_decay", "clip", "warmup"),
    [(0.0, 1e6, 0.0), (0.3, 1e6, 0.0), (0.0, 0.5, 0.5), (0.1, 0.2, 1.0)],
    ids=["plain", "decay", "clipped", "all"],
)
def test_training_agrees_with_a_loop_that_is_written_out(weight_decay: float, clip: float, warmup: float) -> None:
    config = TrainingConfig(
        learning_rate=3e-3, epochs=8, batch_size=40, warmup=warmup, weight_decay=weight_decay, clip=clip, dropout=0.0
    )
    found = trained(config)

    expected = tiny_bert()
    batch, labels = collate(expected, encode(expected, TEXTS)), torch.tensor([t.label for t in TEXTS])
    optimizer = torch.optim.AdamW(expected.model.parameters(), lr=1.0, weight_decay=weight_decay, foreach=False)
    for step in range(8):
        optimizer.param_groups[0]["lr"] = 3e-3 * schedule(step, 8, warmup)
        optimizer.zero_grad()
        nn.functional.cross_entropy(expected.model(**batch).logits, labels).backward()
        gradients = [p.grad for p in expected.model.parameters() if p.grad is not None]
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
        for g in gradients:
            g *= min(1.0, clip / norm)
        optimizer.step()

    assert torch.allclose(predict(found, TEXTS), predict(expected, TEXTS), atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"weight_decay": 0.5},
        {"clip": 0.01},
        {"warmup": 0.9},
        {"learning_rate": 1e-3},
        {"epochs": 2},
        {"batch_size": 8},
        {"dropout": 0.5},
    ],
)
def test_every_setting_of_the_training_counts(change: dict[str, Any]) -> None:
    assert weights_hash(trained(dataclasses.replace(CONFIG, **change))) != weights_hash(trained())


def test_training_learns_texts_that_it_has_not_seen(good: Classifier) -> None:
    assert accuracy(good, tiny_texts(200, seed=2)) > 0.95


def test_every_text_is_trained_on_once_an_epoch() -> None:
    seen: list[tuple[int, ...]] = []

    def loss(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        seen.extend(
            tuple(ids[mask == 1].tolist())
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        )
        return classification_loss(classifier, batch, labels)

    trained(loss=loss)
    texts = Counter(tuple(e["input_ids"]) for e in encode(tiny_bert(), TEXTS))
    assert [Counter(seen[i : i + 40]) for i in (0, 40, 80)] == [texts] * 3


def test_every_text_keeps_its_label() -> None:
    pairs: list[tuple[tuple[int, ...], int]] = []

    def loss(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        pairs.extend(
            (tuple(ids[mask == 1].tolist()), int(y))
            for ids, mask, y in zip(batch["input_ids"], batch["attention_mask"], labels, strict=True)
        )
        return classification_loss(classifier, batch, labels)

    trained(loss=loss)
    assert set(pairs) == {
        (tuple(e["input_ids"]), t.label) for e, t in zip(encode(tiny_bert(), TEXTS), TEXTS, strict=True)
    }


def test_every_epoch_has_the_texts_that_are_made_for_it() -> None:
    lengths: list[int] = []

    def loss(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        lengths.extend(batch["attention_mask"].sum(1).tolist())
        return classification_loss(classifier, batch, labels)

    finish(
        fine_tune(
            tiny_bert(), lambda epoch: [LabelledText("the " * (epoch + 1), i % 2) for i in range(16)], CONFIG, loss=loss
        )
    )
    assert lengths == [3] * 16 + [4] * 16 + [5] * 16  # [CLS] and [SEP] included


# ---------------------------------------------------------------- dropout

ARCHITECTURES = {
    "Bert": {},
    "DistilBert": {},
    "Roberta": {"pad_token_id": 0},
    "Electra": {"embedding_size": 32},
    "MPNet": {"pad_token_id": 0},
    "Albert": {"embedding_size": 32},
    "DebertaV2": {},
}


def built(architecture: str, **settings: Any) -> Classifier:
    """An untrained two-layer model of an architecture, with much dropout of its own."""
    bert = tiny_bert()
    sizes = dict(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    rates = (
        dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64, dropout=0.5, attention_dropout=0.5)
        if architecture == "DistilBert"
        else {}
    )
    rates |= dict(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**sizes | rates | ARCHITECTURES[architecture] | settings)
    return dataclasses.replace(
        bert, model=getattr(transformers, f"{architecture}ForSequenceClassification")(config).eval()
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_can_be_switched_off_in_any_architecture(architecture: str) -> None:
    classifier = built(architecture)
    expected = nn.functional.nll_loss(
        predict(classifier, TEXTS[:16]).log(), torch.tensor([t.label for t in TEXTS[:16]])
    )
    config = TrainingConfig(batch_size=16, epochs=1, dropout=0.0)
    first = next(fine_tune(clone(classifier), TEXTS[:16], config))
    assert first.metrics["loss"] == pytest.approx(float(expected), rel=1e-5)
    own = next(fine_tune(clone(classifier), TEXTS[:16], dataclasses.replace(config, dropout=None)))
    assert own.metrics["loss"] != pytest.approx(float(expected), rel=1e-5)


# ---------------------------------------------------------------- what it reports and what it touches


def test_an_event_follows_every_step() -> None:
    events = finish(fine_tune(tiny_bert(), TEXTS, CONFIG, stage="retrain"))[1]
    assert [(e.stage, e.step, e.total) for e in events] == [("retrain", i + 1, STEPS) for i in range(STEPS)]


def test_events_are_plain_values() -> None:
    events = finish(fine_tune(tiny_bert(), TEXTS, CONFIG, observe=observer(TEXTS)))[1]
    assert json.loads(json.dumps([dataclasses.asdict(e) for e in events])) == [dataclasses.asdict(e) for e in events]


def test_the_classifier_is_trained_in_place_and_returned() -> None:
    classifier = tiny_bert()
    before = weights_hash(classifier)
    assert finish(fine_tune(classifier, TEXTS, CONFIG))[0] is classifier
    assert weights_hash(classifier) != before


def test_a_trained_classifier_is_out_of_training_mode() -> None:
    assert not any(module.training for module in trained().model.modules())


def test_the_texts_are_left_as_they_are() -> None:
    texts = list(TEXTS)
    trained(texts=texts)
    assert texts == TEXTS


def test_a_seed_always_gives_the_same_weights() -> None:
    assert weights_hash(trained(seed=5)) == weights_hash(trained(seed=5))


def test_seeds_give_different_weights() -> None:
    assert len({weights_hash(trained(seed=seed)) for seed in range(4)}) == 4


def test_the_seed_alone_decides_whatever_was_drawn_before() -> None:
    first = weights_hash(trained())
    classifier = tiny_bert()
    torch.rand(3)
    random.seed(99)
    assert weights_hash(finish(fine_tune(classifier, TEXTS, CONFIG))[0]) == first


# ---------------------------------------------------------------- observers


def looks_at_everything(classifier: Classifier) -> dict[str, float]:
    """Reads all that there is, and leaves the model in another mode than it found it in."""
    measured = observer(TEXTS)(classifier)
    trace(classifier, collate(classifier, encode(classifier, ["the film"])))
    weights_hash(classifier)
    classifier.model.train()
    return measured | {"answer": 42.0}


@pytest.mark.parametrize("observe", [observer(TEXTS), looks_at_everything], ids=["scores", "everything"])
def test_an_observer_changes_nothing(observe: Callable[[Classifier], dict[str, float]]) -> None:
    assert weights_hash(trained(dataclasses.replace(CONFIG, observe_every=1), observe=observe)) == weights_hash(
        trained()
    )


def test_an_observer_looks_every_so_many_steps_and_at_the_end() -> None:
    config = dataclasses.replace(CONFIG, observe_every=4)
    events = finish(fine_tune(tiny_bert(), TEXTS, config, observe=lambda classifier: {"cacc": 1.0}))[1]
    assert [e.step for e in events if "cacc" in e.metrics] == [4, 8, 9]


def test_an_observer_looks_more_often_at_the_start_where_that_is_asked_for() -> None:
    config = dataclasses.replace(CONFIG, observe_every=5, observe_early=2)
    events = finish(fine_tune(tiny_bert(), TEXTS, config, observe=lambda classifier: {"cacc": 1.0}))[1]
    assert [e.step for e in events if "cacc" in e.metrics] == [2, 4, 5, 9]


def test_an_observer_sees_the_model_as_it_stands_without_dropout() -> None:
    seen: list[tuple[bool, str]] = []

    def observe(classifier: Classifier) -> dict[str, float]:
        seen.append((any(m.training for m in classifier.model.modules()), weights_hash(classifier)))
        return {}

    found = trained(dataclasses.replace(CONFIG, observe_every=3), observe=observe)
    assert [training for training, _ in seen] == [False] * 3
    assert len({weights for _, weights in seen}) == 3
    assert seen[-1][1] == weights_hash(found)


# ---------------------------------------------------------------- stop and resume


def fresh(epoch: int) -> list[LabelledText]:
    """Texts of an epoch that differ from those of another."""
    return augment(TEXTS, SplitConfig(copies=1), 0, epoch)


def stopped(steps: int, path: Path, resume: TrainState | None = None) -> TrainState:
    """The state on disk of a training that is stopped after so many steps more."""
    training = fine_tune(tiny_bert(), fresh, CONFIG, resume=resume, save=lambda state: write_state(state, path))
    for _ in range(steps):
        next(training)
    training.close()
    return read_state(path)


@pytest.fixture(scope="module")
def uninterrupted() -> str:
    return weights_hash(finish(fine_tune(tiny_bert(), fresh, CONFIG))[0])


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 7, 8, 9], ids=lambda n: f"step {n} of 9, 3 an epoch")
def test_a_stopped_training_ends_with_the_weights_of_an_uninterrupted_one(
    step: int, tmp_path: Path, uninterrupted: str
) -> None:
    state = stopped(step, tmp_path / "state.safetensors")
    found, events = finish(fine_tune(tiny_bert(seed=step), fresh, CONFIG, resume=state))
    assert [e.step for e in events] == list(range(step + 1, STEPS + 1))
    assert weights_hash(found) == uninterrupted


def test_a_training_can_be_stopped_again_and_again(tmp_path: Path, uninterrupted: str) -> None:
    state = None
    for steps in (1, 2, 3, 1):
        state = stopped(steps, tmp_path / "state.safetensors", state)
    assert weights_hash(finish(fine_tune(tiny_bert(seed=3), fresh, CONFIG, resume=state))[0]) == uninterrupted


def test_a_training_that_was_killed_goes_on_from_any_saved_state(uninterrupted: str) -> None:
    states: list[TrainState] = []
    finish(fine_tune(tiny_bert(), fresh, dataclasses.replace(CONFIG, save_every=0.0), save=states.append))
    assert [state.step for state in states] == list(range(1, STEPS + 1))
    for state in states[::3]:
        assert weights_hash(finish(fine_tune(tiny_bert(seed=3), fresh, CONFIG, resume=state))[0]) == uninterrupted


def test_saving_changes_nothing(uninterrupted: str) -> None:
    found = finish(fine_tune(tiny_bert(), fresh, dataclasses.replace(CONFIG, save_every=0.0), save=lambda state: None))[
        0
    ]
    assert weights_hash(found) == uninterrupted


def test_what_is_drawn_between_stop_and_resume_changes_nothing(tmp_path: Path, uninterrupted: str) -> None:
    state = stopped(4, tmp_path / "state.safetensors")
    torch.rand(100)
    assert weights_hash(finish(fine_tune(tiny_bert(), fresh, CONFIG, resume=state))[0]) == uninterrupted


def test_nothing_is_saved_before_the_time_for_it_has_come() -> None:
    states: list[TrainState] = []
    finish(fine_tune(tiny_bert(), TEXTS, dataclasses.replace(CONFIG, save_every=3600.0), save=states.append))
    assert states == []


def test_slow_saves_are_further_apart() -> None:
    """A save that takes a hundredth of a second, asked for every thousandth: it gets a tenth of the time and no
    more."""
    taken: list[float] = []

    def slow(state: TrainState) -> None:
        start = time.monotonic()
        while time.monotonic() - start < 0.01:
            pass
        taken.append(time.monotonic() - start)

    start = time.monotonic()
    finish(fine_tune(tiny_bert(), TEXTS, dataclasses.replace(CONFIG, epochs=20, save_every=0.001), save=slow))
    assert taken
    assert sum(taken) <= 0.1 * (time.monotonic() - start) + max(taken)


@pytest.mark.parametrize(
    "other",
    [TEXTS[:-1] + tiny_texts(1, seed=8), TEXTS[::-1], [dataclasses.replace(t, label=1 - t.label) for t in TEXTS]],
)
def test_a_training_does_not_go_on_with_other_texts(other: list[LabelledText]) -> None:
    states: list[TrainState] = []
    training = fine_tune(tiny_bert(), TEXTS, CONFIG, stage="retrain", save=states.append)
    next(training)
    training.close()
    before = weights_hash(student := tiny_bert())
    with pytest.raises(
        BadData,
        match=r"cannot go on from step 1 of the stage 'retrain': .* other texts\. Give the clean texts, the seed and "
        r"the settings",
    ):
        finish(fine_tune(student, other, CONFIG, stage="retrain", resume=states[0]))
    assert weights_hash(student) == before


def test_a_training_without_a_place_to_save_can_be_stopped_too() -> None:
    training = fine_tune(tiny_bert(), TEXTS, CONFIG)
    next(training)
    training.close()
    assert next(training, None) is None


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("texts", [[], TEXTS[:15]], ids=["none", "one too few"])
def test_fewer_texts_than_a_batch_are_refused(texts: list[LabelledText]) -> None:
    with pytest.raises(
        BadData,
        match=rf"{len(texts)} training texts are fewer than one batch of 16\. Give more clean texts, .*smaller batch "
        rf"size",
    ):
        finish(fine_tune(tiny_bert(), texts, CONFIG))


def test_as_many_texts_as_a_batch_are_enough() -> None:
    assert len(finish(fine_tune(tiny_bert(), TEXTS[:16], CONFIG))[1]) == 3


def test_a_loss_that_is_no_number_at_once_ends_the_training() -> None:
    broken = tiny_bert()
    with torch.no_grad():
        broken.model.classifier.bias[0] = torch.nan
    with pytest.raises(
        Diverged, match=r"The stage 'retrain' diverged at step 1: the loss is nan\. Lower its learning rate"
    ) as caught:
        finish(fine_tune(broken, TEXTS, CONFIG, stage="retrain"))
    assert caught.value.best is None


def turned(steps: int, factor: float) -> Callable[[Classifier, Batch, Tensor], dict[str, Tensor]]:
    """Cross-entropy for so many steps; what is minimized is this multiple of it from then on."""
    count = iter(range(10**6))

    def loss(classifier: Classifier, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        terms = classification_loss(classifier, batch, labels)
        return {**terms, "loss": terms["loss"] * (1.0 if next(count) < steps else factor)}

    return loss


def test_an_infinite_loss_ends_the_training_with_the_best_model_so_far(good: Classifier) -> None:
    config = TrainingConfig(learning_rate=1e-4, epochs=30, batch_size=16)
    with pytest.raises(Diverged, match=r"at step 51: the loss is inf") as caught:
        finish(fine_tune(clone(good), TEXTS, config, loss=turned(50, math.inf)))
    assert caught.value.best is not None
    assert accuracy(caught.value.best, tiny_texts(200, seed=2)) > 0.95
    assert not caught.value.best.model.training


def test_a_learning_rate_that_is_far_too_high_ends_the_training(good: Classifier) -> None:
    with pytest.raises(Diverged, match=r"diverged at step \d+: .+ Lower its learning rate"):
        finish(fine_tune(clone(good), TEXTS, TrainingConfig(learning_rate=1.0, epochs=30, batch_size=16)))


def test_a_training_that_goes_astray_late_gives_back_what_it_had_learned(good: Classifier) -> None:
    config = TrainingConfig(learning_rate=1e-3, epochs=60, batch_size=16)
    ruined = clone(good)
    with pytest.raises(Diverged, match="no better than guessing") as caught:
        finish(fine_tune(ruined, TEXTS, config, loss=turned(50, -1.0)))  # uphill after 50 steps
    assert caught.value.best is not None
    assert [accuracy(c, tiny_texts(200, seed=2)) > 0.95 for c in (caught.value.best, ruined)] == [True, False]


ASTRAY = TrainingConfig(learning_rate=1e-3, epochs=60, batch_size=16)


@pytest.fixture(scope="module")
def astray(good: Classifier) -> Diverged:
    """What a training says that goes uphill after 50 steps."""
    with pytest.raises(Diverged) as caught:
        finish(fine_tune(clone(good), TEXTS, ASTRAY, loss=turned(50, -1.0)))
    return caught.value


@pytest.mark.parametrize("step", [1, 20, 45, 60])
def test_a_training_that_was_stopped_goes_astray_at_the_same_step_with_the_same_best(
    good: Classifier, astray: Diverged, step: int, tmp_path: Path
) -> None:
    training = fine_tune(
        clone(good),
        TEXTS,
        ASTRAY,
        loss=turned(50, -1.0),
        save=lambda state: write_state(state, tmp_path / "state.safetensors"),
    )
    for _ in range(step):
        next(training)
    training.close()
    with pytest.raises(Diverged) as parted:
        finish(
            fine_tune(
                tiny_bert(),
                TEXTS,
                ASTRAY,
                loss=turned(50 - step, -1.0),
                resume=read_state(tmp_path / "state.safetensors"),
            )
        )
    assert str(parted.value) == str(astray)
    assert astray.best is not None
    assert parted.value.best is not None
    assert weights_hash(parted.value.best) == weights_hash(astray.best)


def test_a_short_training_that_goes_astray_is_noticed_too(good: Classifier) -> None:
    with pytest.raises(Diverged):
        finish(fine_tune(clone(good), TEXTS, TrainingConfig(learning_rate=1.0, epochs=3, batch_size=16, warmup=0.0)))


@pytest.mark.parametrize("n", [20, 33, 63, 192])
def test_the_loss_before_the_first_step_is_that_of_few_texts_of_each_class_and_form(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three forms of each text beside each other, classes in turns, as `augment` gives them: every sixth is of one
    class and form."""
    seen: list[LabelledText] = []

    def watching(classifier: Classifier, texts: Sequence[LabelledText]) -> float:
        seen.extend(texts)
        return mean_loss(classifier, texts)

    monkeypatch.setattr("mbtsad_core.training.fine_tuning.mean_loss", watching)
    texts = [LabelledText(f"a good film {i}", i // 3 % 2) for i in range(n)]
    next(fine_tune(tiny_bert(), texts, TrainingConfig(batch_size=8)))
    at = [texts.index(t) for t in seen]
    assert len(set(at)) == len(at) == min(n, PROBED)
    assert {(i % 3, i // 3 % 2) for i in at} == {(form, label) for form in range(3) for label in range(2)}


def test_the_loss_before_the_first_step_is_in_the_precision_of_the_training(good: Classifier) -> None:
    exact = float(nn.functional.nll_loss(predict(good, TEXTS).log(), torch.tensor([t.label for t in TEXTS])))
    assert mean_loss(good, TEXTS) == pytest.approx(exact, rel=1e-6)
    rounded = mean_loss(dataclasses.replace(good, precision="bfloat16"), TEXTS)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.1, abs=0.01)


@pytest.mark.parametrize(("wrong", "astray"), [(0.15, False), (0.5, True)])
def test_a_loss_as_high_as_guessing_is_astray_only_where_the_answers_are_guesses(
    good: Classifier, wrong: float, astray: bool
) -> None:
    """A model that is sure of all its answers, some of which are wrong, has the loss of one that knows nothing."""
    texts = [
        LabelledText(t.text, 1 - t.label if i % 100 < 100 * wrong else t.label) for i, t in enumerate(tiny_texts(100))
    ]
    watch = DivergenceWatch(good, "retrain", 40, texts)
    watch.first = 0.05
    before = weights_hash(good)

    def check() -> None:
        for step in range(11, 41):
            watch.check({"loss": 0.7, "classification": 0.7}, step)

    if astray:
        with pytest.raises(Diverged, match="no better than guessing"):
            check()
    else:
        check()
    assert weights_hash(good) == before


def test_accuracy_is_balanced_between_the_classes(good: Classifier) -> None:
    texts = [t for t in tiny_texts(40) if t.label == 0] + [t for t in tiny_texts(40) if t.label == 1][:4]
    wrong = [LabelledText(t.text, 1 - t.label) if t.label == 1 else t for t in texts]
    assert balanced_accuracy(good, texts) == 1.0
    assert balanced_accuracy(good, wrong) == 20 / 24  # one class alone
    half = [LabelledText(t.text, 1) for t in texts[:4]] + texts[4:]
    assert balanced_accuracy(good, half) == (1.0 + 4 / 8) / 2


def test_a_model_that_knew_nothing_at_first_may_go_on_guessing() -> None:
    config = TrainingConfig(learning_rate=1e-8, epochs=10, batch_size=16)
    assert len(finish(fine_tune(tiny_bert(), TEXTS, config))[1]) == 30
