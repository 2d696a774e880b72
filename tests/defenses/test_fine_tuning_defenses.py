"""CFT and TS-FT, the rivals that stand beside MBTSAD in every table."""

from __future__ import annotations

import torch
from conftest import finish, tiny_bert, tiny_texts

from mbtsad_core.augment.token_splitting import augment
from mbtsad_core.config import DistilConfig, RetrainConfig, SplitConfig, TrainingConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.clean_fine_tuning import CleanFineTuningConfig
from mbtsad_core.defenses.mbtsad import purify
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.defenses.token_split_fine_tuning import TokenSplitFineTuningConfig
from mbtsad_core.models.classifier import predict, weights_hash
from mbtsad_core.training.fine_tuning import fine_tune

CLEAN = tiny_texts(64)
TRAINING = TrainingConfig(learning_rate=1e-2, epochs=10, batch_size=16)
SPLIT = SplitConfig(copies=2)
CONFIGS = {
    "mbtsad": PurifyConfig(
        SPLIT, 0, RetrainConfig(learning_rate=1e-3, batch_size=16), DistilConfig(learning_rate=1e-3, batch_size=16)
    ),
    "ts_ft": TokenSplitFineTuningConfig(SPLIT, TRAINING),
    "cft": CleanFineTuningConfig(TRAINING),
}


def test_clean_fine_tuning_learns_the_clean_texts() -> None:
    made, events = finish(DEFENSES["cft"].run(tiny_bert(), CLEAN, CONFIGS["cft"]))
    assert {e.stage for e in events} == {"cft"}
    assert len(events) == 10 * 4  # ten passes over 64 texts in batches of 16
    test = tiny_texts(40, seed=1)
    assert (predict(made, test).argmax(-1) == torch.tensor([t.label for t in test])).float().mean() > 0.9


def test_token_split_fine_tuning_is_step_1_of_mbtsad() -> None:
    made, _ = finish(
        DEFENSES["ts_ft"].run(
            tiny_bert(), CLEAN, TokenSplitFineTuningConfig(SPLIT, RetrainConfig(learning_rate=1e-3, batch_size=16))
        )
    )
    purified, _ = finish(purify(tiny_bert(), CLEAN, CONFIGS["mbtsad"]))
    assert weights_hash(made) == weights_hash(purified.teacher)


def test_token_split_fine_tuning_trains_on_fresh_splits_alone() -> None:
    made, _ = finish(DEFENSES["ts_ft"].run(tiny_bert(), CLEAN, CONFIGS["ts_ft"]))
    by_hand, _ = finish(fine_tune(tiny_bert(), lambda epoch: augment(CLEAN, SPLIT, 0, epoch), TRAINING))
    assert weights_hash(made) == weights_hash(by_hand)
