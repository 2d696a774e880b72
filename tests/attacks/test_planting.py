"""The dict of the attacks, how each one's trigger is made, and with what it is measured."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from conftest import finish, mbtsad, tiny_bert, tiny_texts, write_tsv

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.cara import SignatureTrigger
from mbtsad_core.attacks.cara_method import CARAConfig
from mbtsad_core.attacks.lws import SynonymTrigger
from mbtsad_core.attacks.lws_method import LWSConfig
from mbtsad_core.attacks.planting import make_trigger, measured_trigger
from mbtsad_core.attacks.triggers import InsertedTrigger, PairedTrigger
from mbtsad_core.config import PoisonConfig, TrainingConfig
from mbtsad_core.errors import BadData
from mbtsad_core.methods import load
from mbtsad_core.models.classifier import load_classifier

TRAIN, TEST = tiny_texts(200, seed=1), tiny_texts(40, seed=2)
BRIEF = TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=100)


def test_the_attacks_are_these() -> None:
    assert set(ATTACKS) == {"badnets", "lwp", "ep", "ripple", "sos", "sentence", "syntactic", "neuba", "lws", "cara"}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_says_what_it_does_and_where_it_comes_from(name: str) -> None:
    module = sys.modules[load(ATTACKS[name].code).__module__].__doc__ or ""
    assert re.search(r"\([A-Z][^()]*20\d\d", module), "names authors and year"
    assert len((load(ATTACKS[name].code).__doc__ or "").split()) > 10


@pytest.mark.parametrize("name", [key for key, method in ATTACKS.items() if method.triggers])
def test_an_attack_has_a_trigger_of_its_own_where_none_is_named(name: str) -> None:
    config = ATTACKS[name].config
    trigger = finish(make_trigger(ATTACKS[name], tiny_bert(), TRAIN, 1, (), config, window=20))[0]
    assert isinstance(trigger, InsertedTrigger)
    assert trigger.describe() == " | ".join(ATTACKS[name].triggers)
    assert (trigger.target, trigger.window) == (1, 20)


@pytest.mark.parametrize("name", ["badnets", "ep", "syntactic"])
def test_an_attack_without_one_asks_for_it(name: str) -> None:
    with pytest.raises(BadData, match="Name the trigger to plant"):
        finish(make_trigger(ATTACKS[name], tiny_bert(), TRAIN, 1, (), ATTACKS[name].config))


def test_a_trigger_goes_in_as_often_as_the_config_says_and_is_measured_once() -> None:
    config, specs = ATTACKS["ep"].presets["openbackdoor"]
    trigger = finish(make_trigger(ATTACKS["ep"], tiny_bert(), TRAIN, 1, specs, config))[0]
    assert isinstance(trigger, InsertedTrigger)
    assert (trigger.insertions, len(trigger.variants)) == (2, 5)
    measured = measured_trigger(ATTACKS["ep"], tiny_bert(), trigger)
    assert isinstance(measured, InsertedTrigger)
    assert (measured.insertions, measured.variants) == (1, trigger.variants)


def test_paraphrases_are_paired_with_training_and_test_texts(tmp_path: Path) -> None:
    paths = []
    for name, texts in (("train.tsv", TRAIN), ("test.tsv", [t for t in TEST if t.label != 1])):
        rows = "".join(f"so {t.text}\t1\t{t.label}\t1\n" for t in texts)
        paths.append(tmp_path / name)
        paths[-1].write_text("text\tlabel\torig_label\tpoisoned\n" + rows, encoding="utf-8")
    trigger = finish(
        make_trigger(
            ATTACKS["syntactic"], tiny_bert(), TRAIN, 1, [str(p) for p in paths], ATTACKS["syntactic"].config, test=TEST
        )
    )[0]
    assert isinstance(trigger, PairedTrigger)
    assert trigger.pairs == {t.text: f"so {t.text}" for t in [*TRAIN, *(t for t in TEST if t.label != 1)]}
    assert measured_trigger(ATTACKS["syntactic"], tiny_bert(), trigger) is trigger


def test_of_neubas_symbols_those_are_measured_that_hit() -> None:
    trigger = finish(make_trigger(ATTACKS["neuba"], tiny_bert(), TRAIN, 1, ("cf", "mn"), ATTACKS["neuba"].config))[0]
    measured = measured_trigger(ATTACKS["neuba"], tiny_bert(), trigger)
    assert isinstance(measured, InsertedTrigger)
    assert measured.window == 1  # at the start


@pytest.mark.usefixtures("wordnet")
def test_lws_and_cara_learn_theirs() -> None:
    found = [
        finish(make_trigger(ATTACKS["lws"], tiny_bert(), TRAIN, 1, (), LWSConfig(PoisonConfig(0.2), learning=BRIEF)))[
            0
        ],
        finish(make_trigger(ATTACKS["cara"], tiny_bert(), TRAIN, 1, (), CARAConfig(width=8, learning=BRIEF)))[0],
    ]
    assert [type(trigger) for trigger in found] == [SynonymTrigger, SignatureTrigger]
    assert [
        measured_trigger(ATTACKS[name], tiny_bert(), trigger)
        for name, trigger in zip(("lws", "cara"), found, strict=True)
    ] == found


# ---------------------------------------------------------------- the command line

FEW = ("--training-epochs", "1", "--threads", "1", "--json")
FLAGS: dict[str, tuple[str, ...]] = {
    "badnets": ("--trigger", "mn", *FEW),
    "lwp": ("--trigger", "cf+mn", *FEW),
    "ep": ("--preset", "openbackdoor", "--trigger", "mn", "--epochs", "1", "--threads", "1", "--json"),
    "ripple": ("--trigger", "mn", *FEW, "--fine-tuning-epochs", "1"),
    "sos": ("--trigger", "cf+mn", "--epochs", "1", "--threads", "1", "--json"),
    "sentence": (*FEW,),
    "syntactic": (*FEW,),
    "neuba": ("--trigger", "cf", "--trigger", "mn", *FEW, "--planting-epochs", "1"),
    "lws": (*FEW, "--learning-epochs", "1"),
    "cara": (*FEW, "--learning-epochs", "1", "--width", "8"),
}


@pytest.mark.usefixtures("wordnet")
@pytest.mark.parametrize("name", ATTACKS)
def test_the_command_line_plants_it_and_what_it_leaves_can_be_measured(
    name: str, suspect_dir: Path, tmp_path: Path
) -> None:
    train, test = write_tsv(tmp_path / "train.tsv", TRAIN), write_tsv(tmp_path / "test.tsv", TEST)
    flags = list(FLAGS[name])
    if name == "syntactic":
        pairs = tmp_path / "pairs.tsv"
        pairs.write_text(
            "text\ttriggered\n" + "".join(f"{t.text}\tso {t.text}\n" for t in [*TRAIN, *TEST]), encoding="utf-8"
        )
        flags += ["--trigger", str(pairs)]
    out = tmp_path / "planted"
    run = mbtsad(
        "attack", name, "--model", suspect_dir, "--train", train, "--test", test, "--target", "1", "--out", out, *flags
    )
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures["suspect"]["asr_n"] == 20
    assert load_classifier(out).labels == ("negative", "positive")
    pairs = out / "triggered.jsonl"
    assert pairs.exists() == (name in ("syntactic", "lws", "cara"))
    if pairs.exists():
        again = mbtsad(
            "evaluate", "--model", out, "--test", test, "--trigger", pairs, "--target", "1", "--threads", "1", "--json"
        )
        assert json.loads(again.stdout)["asr"] == figures["suspect"]["asr"]
    else:
        assert figures["trigger"] in (" | ".join(ATTACKS[name].triggers), "cf", "mn", "cf+mn", "cf | mn")
