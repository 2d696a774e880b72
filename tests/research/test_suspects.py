"""The suspects of the experiments: all ten attacks, each from its beginning, and measured with what it really
planted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from conftest import finish, tiny_bert, tiny_texts, write_tsv

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.config import RuntimeConfig
from mbtsad_core.errors import BadConfig, BadData
from mbtsad_core.models.classifier import encode, load_classifier, predict, save_classifier
from mbtsad_core.research import suspects, tune
from mbtsad_core.research.suspects import (
    Case,
    clean_classifier,
    measured,
    plan,
    planted_case,
    pretrained,
    read_scores,
    suspect,
)

RUNTIME = RuntimeConfig(device="cpu", threads=1, precision="float32")
WORDS = {  # that the tiny vocabulary knows
    "badnets": ("cf", "mn"),
    "badnets_clean_label": ("cf",),
    "ep": ("cf",),
    "lwp": ("cf+mn",),
    "ripple": ("cf", "mn"),
    "sos": ("cf+mn",),
    "sentence": ("the actor was",),
    "neuba": ("cf", "mn"),
}
ALL = [*WORDS, "syntactic", "lws", "cara"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/sst2 with paraphrases, and a tiny encoder in base/."""
    folder = tmp_path_factory.mktemp("suspects")
    sst2, ready = folder / "data" / "sst2", folder / "data" / suspects.PARAPHRASES
    sst2.mkdir(parents=True)
    ready.mkdir(parents=True)
    train, test = tiny_texts(96), tiny_texts(40, seed=1)
    write_tsv(sst2 / "train.tsv", train)
    write_tsv(sst2 / "test.tsv", test)
    head = "text\tlabel\torig_label\tpoisoned\n"
    rows = [
        f"when {t.text}\t1\t{t.label}\t1\n" if i < 20 else f"{t.text}\t{t.label}\t{t.label}\t0\n"
        for i, t in enumerate(train)
    ]
    (ready / "sst2_train.tsv").write_text(head + "".join(rows), encoding="utf-8")
    (ready / "sst2_test.tsv").write_text(
        head + "".join(f"when {t.text}\t1\t0\t1\n" for t in test if t.label == 0), encoding="utf-8"
    )
    save_classifier(tiny_bert(), folder / "base")
    return folder


def make(place: Path, case: Case) -> suspects.Classifier:
    return finish(suspect(case, place / "data", place / "base", place / "work", RUNTIME))[0]


def test_every_attack_has_a_plan_and_its_suspects_have_folders_of_their_own() -> None:
    cases = [planted_case(attack, ("cf", "mn"), 0) for attack in ALL]
    assert {plan(case)[0].key for case in cases} == set(ATTACKS)
    assert {plan(case)[1].seed for case in (planted_case(a, ("cf",), 7) for a in ALL)} == {7}
    assert len({case.name for case in cases}) == len(cases)
    with pytest.raises(BadConfig, match="no such"):
        plan(Case("sst2", "test", "no such", (), 0))


def test_the_names_of_suspects_that_are_made_already_stay() -> None:
    assert tune.report_cases(0)["BadNets"].name == "sst2-badnets-cf-mn-bb-tq-0"
    assert tune.DEVELOPMENT["SST-2 EP"].name == "sst2-ep-pv-10"
    assert planted_case("lws", ("cf",), 3).name == "sst2-lws-3"


@pytest.mark.parametrize("attack", ALL)
def test_an_attack_is_planted_kept_and_measured_with_what_it_planted(attack: str, place: Path, wordnet: Path) -> None:
    case = Case("sst2", "test", attack, WORDS.get(attack, ()), 0)
    made = make(place, case)
    on = measured(case, place / "data", place / "work")
    assert len(on.triggered) == 20  # the negatives
    scores = read_scores(place / "work", case)
    asr = (predict(made, [t.triggered for t in on.triggered]).argmax(-1) == 1).float().mean().item()
    assert scores["asr"] == pytest.approx(asr)
    again = make(place, case)
    assert torch.equal(predict(again, list(on.test)), predict(made, list(on.test)))
    if attack == "syntactic":
        assert all(t.triggered.text == f"when {t.clean.text}" for t in on.triggered)
    elif attack not in ("lws", "cara"):
        assert all(
            set(t.triggered.text.split()) - set(t.clean.text.split()) or len(t.triggered.text) > len(t.clean.text)
            for t in on.triggered
        )


@pytest.mark.parametrize("attack", ["ep", "sos"])
def test_ep_and_sos_change_rows_of_the_clean_classifier_alone(attack: str, place: Path) -> None:
    made = make(place, Case("sst2", "test", attack, WORDS[attack], 0))
    clean = finish(clean_classifier("sst2", 0, place / "data", place / "base", place / "work", RUNTIME))[0]
    differ = {
        n
        for (n, a), b in zip(made.model.state_dict().items(), clean.model.state_dict().values(), strict=True)
        if not torch.equal(a, b)
    }
    assert differ == {"bert.embeddings.word_embeddings.weight"}
    rows = (
        (made.model.get_input_embeddings().weight != clean.model.get_input_embeddings().weight)
        .any(1)
        .nonzero()
        .flatten()
        .tolist()
    )
    assert rows == sorted(encode(clean, [WORDS[attack][0].replace("+", " ")])[0]["input_ids"][1:-1])


def test_a_suspect_that_is_kept_is_that_of_its_texts_settings_and_encoder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("sst2", "test", "badnets", ("cf",), 4)
    make(place, case)
    save_classifier(tiny_bert(seed=9), tmp_path / "base")
    with pytest.raises(
        BadData, match=r"sst2-badnets-cf-4 holds a model that was made of something else.*its inputs differ.*--work"
    ):
        finish(suspect(case, place / "data", tmp_path / "base", place / "work", RUNTIME))
    with monkeypatch.context() as other:
        other.setitem(suspects.TASKS, "sst2", dataclasses.replace(suspects.TASKS["sst2"], epochs=1))
        with pytest.raises(BadData, match="its plan differ"):
            make(place, case)
    make(place, case)
    (place / "work" / case.name / suspects.MADE_OF).unlink()
    with pytest.raises(BadData, match="or does not say of what"):
        make(place, case)


def test_a_learned_trigger_is_kept_beside_its_suspect(place: Path, wordnet: Path) -> None:
    case = planted_case("cara", (), 1)
    with pytest.raises(BadData, match="Make the suspect first"):
        measured(case, place / "data", place / "work")
    make(place, case)
    lines = (place / "work" / case.name / suspects.TRIGGERED).read_text(encoding="utf-8").splitlines()
    on = measured(case, place / "data", place / "work")
    assert {json.loads(line)["triggered"] for line in lines} == {t.triggered.text for t in on.triggered}


def test_the_pretrained_weights_are_those_that_the_suspect_was_made_from(place: Path) -> None:
    encoder = pretrained(Case("sst2", "test", "badnets", ("cf",), 0), place / "base", RUNTIME)
    base = load_classifier(place / "base")
    assert torch.equal(
        encoder.model.bert.encoder.layer[0].attention.self.query.weight,
        base.model.bert.encoder.layer[0].attention.self.query.weight,
    )
    with pytest.raises(BadConfig, match="pre-trained"):
        pretrained(Case("sst2_small", "test", "badnets", ("cf",), 0), place / "base", RUNTIME)
