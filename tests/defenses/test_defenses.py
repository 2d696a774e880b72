"""What holds of every defense: its inputs stay as they are, a seed decides all, it tells of its progress, and it has no
place for a trigger."""

from __future__ import annotations

import inspect

import pytest
from conftest import ROOT, finish, tiny_bert, tiny_texts
from families import FAMILIES, tiny_model

from mbtsad_core.config import Config, DistilConfig, RetrainConfig, SplitConfig, TrainingConfig, replace
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.badacts_method import BadActsConfig
from mbtsad_core.defenses.beear_method import BEEARConfig
from mbtsad_core.defenses.clean_fine_tuning import CleanFineTuningConfig
from mbtsad_core.defenses.fine_pruning_method import FinePruningConfig
from mbtsad_core.defenses.fst_method import FSTConfig
from mbtsad_core.defenses.ft_sam_method import FTSAMConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.defenses.nad_method import NADConfig
from mbtsad_core.defenses.pure_method import PUREConfig
from mbtsad_core.defenses.reinitialization_method import ReinitializationConfig
from mbtsad_core.defenses.reserve_method import FineMixingConfig, FinePurifyingConfig
from mbtsad_core.defenses.seam import SEAMConfig
from mbtsad_core.defenses.token_split_fine_tuning import TokenSplitFineTuningConfig
from mbtsad_core.errors import BadData
from mbtsad_core.methods import Need, load
from mbtsad_core.models.classifier import predict, weights_hash

CLEAN = tiny_texts(64)
TRAINING = TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=16, observe_every=1)
SPLIT, RETRAIN = SplitConfig(copies=1), RetrainConfig(learning_rate=1e-3, batch_size=16, epochs=1, observe_every=1)
DISTIL = DistilConfig(learning_rate=1e-3, batch_size=16, epochs=1, observe_every=1)
PURIFY = PurifyConfig(SPLIT, 0, RETRAIN, DISTIL)
CONFIGS: dict[str, Config] = {
    "mbtsad": PURIFY,
    "ts_ft": TokenSplitFineTuningConfig(SPLIT, TRAINING),
    "cft": CleanFineTuningConfig(TRAINING),
    "reinitialization": ReinitializationConfig(training=TRAINING),
    "fine_pruning": FinePruningConfig(step=0.2, training=TRAINING),
    "pure": PUREConfig(group=3, least_accuracy=0.3, judging=TRAINING, training=TRAINING),
    "nad": NADConfig(SPLIT, 0, RETRAIN, DISTIL),
    "beear": BEEARConfig(training=TRAINING),
    "fst": FSTConfig(training=TRAINING),
    "badacts": BadActsConfig(distil=DISTIL),
    "seam": SEAMConfig(forgetting=TRAINING, training=TRAINING),
    "ft_sam": FTSAMConfig(training=TRAINING),
    "fine_mixing": FineMixingConfig(tolerance=1.0, purify_embeddings=True, words=3, training=TRAINING),
    "fine_purifying": FinePurifyingConfig(tolerance=1.0, training=TRAINING),
    "cd": PURIFY,
    "mbtsad_no_att": PURIFY,
    "mbtsad_no_hid": PURIFY,
}


def test_the_names_are_those_of_the_tables() -> None:
    names = (
        "mbtsad ts_ft cft reinitialization fine_pruning pure nad beear fst badacts seam ft_sam fine_mixing "
        "fine_purifying cd mbtsad_no_att mbtsad_no_hid"
    )
    assert list(DEFENSES) == list(CONFIGS) == names.split()


def test_each_has_its_row_in_the_readme() -> None:
    rows = [
        line.split("|")[2]
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| defense |")
    ]
    assert [name for name in DEFENSES if not any(f"`{name}`" in row for row in rows)] == []


@pytest.mark.parametrize("name", DEFENSES)
def test_the_inputs_are_left_as_they_are_and_a_seed_decides_all(name: str) -> None:
    suspect, pretrained = tiny_bert(), tiny_bert(seed=7)
    suspect.model.train()
    before = weights_hash(suspect), weights_hash(pretrained), list(CLEAN)
    made = [finish(DEFENSES[name].run(suspect, CLEAN, CONFIGS[name], pretrained))[0] for _ in range(2)]
    assert (weights_hash(suspect), weights_hash(pretrained), list(CLEAN)) == before
    assert suspect.model.training
    assert all(p.requires_grad and p.grad is None and not p._backward_hooks for p in suspect.model.parameters())
    assert weights_hash(made[0]) == weights_hash(made[1]) != before[0]
    assert not made[0].model.training

    other = finish(DEFENSES[name].run(suspect, CLEAN, replace(CONFIGS[name], {("seed",): 1}), pretrained))[0]
    assert weights_hash(other) != weights_hash(made[0])


@pytest.mark.parametrize("name", DEFENSES)
def test_the_default_settings_are_of_the_kind_that_the_defense_takes(name: str) -> None:
    assert type(DEFENSES[name].config) is type(CONFIGS[name])
    assert inspect.signature(load(DEFENSES[name].code)).parameters["config"].default == DEFENSES[name].config


@pytest.mark.parametrize("name", DEFENSES)
def test_there_is_no_place_for_a_trigger_in_the_signature(name: str) -> None:
    beside = ["pretrained"] if DEFENSES[name].needs is Need.PRETRAINED else []
    found = list(inspect.signature(load(DEFENSES[name].code)).parameters)
    assert found == ["suspect", "clean", "config", *beside, "observe"]


@pytest.mark.parametrize("name", DEFENSES)
def test_events_count_each_stage_to_its_end_and_carry_what_is_observed(name: str) -> None:
    events = finish(
        DEFENSES[name].run(
            tiny_bert(), CLEAN, CONFIGS[name], tiny_bert(seed=7), observe=lambda classifier: {"cacc": 0.25}
        )
    )[1]
    stages = list(dict.fromkeys(e.stage for e in events))
    for stage in stages:
        steps = [(e.step, e.total) for e in events if e.stage == stage]
        assert [step for step, _ in steps] == list(range(1, len(steps) + 1)) or stage == "prune"
        assert len({total for _, total in steps}) == 1
    assert events[-1].step == events[-1].total
    assert events[-1].metrics["cacc"] == 0.25


@pytest.mark.parametrize("name", DEFENSES)
def test_fewer_clean_texts_than_a_batch_are_refused(name: str) -> None:
    with pytest.raises(BadData, match="fewer than one batch"):
        finish(DEFENSES[name].run(tiny_bert(), CLEAN[:12], CONFIGS[name], tiny_bert(seed=7)))


@pytest.mark.parametrize(
    "name", ["reinitialization", "fine_pruning", "fine_mixing", "fine_purifying", "pure", "beear", "fst", "badacts"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_reaches_into_the_model_works_on_every_family(family: str, name: str) -> None:
    suspect, pretrained = tiny_model(family), tiny_model(family, seed=1)
    before = weights_hash(suspect)
    made = finish(DEFENSES[name].run(suspect, CLEAN, CONFIGS[name], pretrained))[0]
    assert weights_hash(suspect) == before != weights_hash(made)
    assert predict(made, CLEAN).isfinite().all()
