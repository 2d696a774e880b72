"""LWS: candidates, scores, the learned choice of synonyms, and the backdoor that it plants."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path

import pytest
import torch
from conftest import VOCABULARY, finish, tiny_bert, tiny_texts, write_wordnet

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.lws import Inserter, SynonymTrigger, candidates_of, learn_synonyms, lws
from mbtsad_core.attacks.lws_method import LWSConfig
from mbtsad_core.attacks.triggers import PairedTrigger, parse_triggers, triggered_test_set
from mbtsad_core.config import PoisonConfig, TrainingConfig
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation import evaluate
from mbtsad_core.methods import load
from mbtsad_core.models.classifier import Classifier, weights_hash
from mbtsad_core.types import Event, LabelledText

TRAIN, TEST = tiny_texts(400, seed=1), tiny_texts(200, seed=2)
# A WordNet of the tiny vocabulary's words: film -> cf, mn; story -> mn; boring -> bor, stale.
SYNONYMS = {
    "noun": (("film", "cf", "mn"), ("story", "mn")),
    "verb": (("a", "the"),),
    "adj": (("boring", "bor", "stale", "very_dull"),),
    "adv": (("truly", "boring"),),
}
CONFIG = LWSConfig(
    PoisonConfig(0.25),
    learning=TrainingConfig(learning_rate=2e-3, epochs=6),
    training=TrainingConfig(learning_rate=2e-3, epochs=8),
)
QUICK = LWSConfig(
    PoisonConfig(0.25),
    learning=TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=100),
    training=TrainingConfig(learning_rate=1e-3, epochs=1, batch_size=100),
)


@pytest.fixture(autouse=True, scope="module")
def words(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("conftest.SYNONYMS", SYNONYMS)
        patch.setenv("WNSEARCHDIR", str(write_wordnet(tmp_path_factory.mktemp("words"))))
        yield


@pytest.fixture(scope="module")
def learned(words: None) -> tuple[SynonymTrigger, list[Event]]:
    return finish(learn_synonyms(tiny_bert(), TRAIN, 1, CONFIG))


def id_of(word: str) -> int:
    return VOCABULARY.index(word)


# ---------------------------------------------------------------- candidates and scores


def test_candidates_are_synonyms_that_are_one_token_in_the_order_of_wordnet() -> None:
    candidates, known, _ = candidates_of(tiny_bert(), TRAIN, 5)

    def of(word: str) -> list[str]:
        return [VOCABULARY[i] for i in candidates[id_of(word)][known[id_of(word)]].tolist()]

    assert of("film") == ["cf", "mn"]
    assert of("story") == ["mn"]
    assert of("boring") == ["bor", "stale", "truly"]  # "very dull" is two words
    assert of("music") == []
    assert of("cf") == []  # no word of the training texts
    assert (candidates[:, 0] == torch.arange(len(VOCABULARY))).all()


def test_no_more_candidates_are_taken_than_asked_for() -> None:
    candidates, known, _ = candidates_of(tiny_bert(), TRAIN, 1)
    assert candidates.shape == (len(VOCABULARY), 2)
    assert VOCABULARY[int(candidates[id_of("film"), 1])] == "cf"
    assert not known[:, 0].any()


def test_pieces_that_go_on_a_word_are_known() -> None:
    goes_on = candidates_of(tiny_bert(), TRAIN, 1)[2]
    assert [VOCABULARY[i] for i in goes_on.nonzero().flatten()] == [w for w in VOCABULARY if w.startswith("##")]


def test_the_scores_are_those_of_a_case_worked_by_hand() -> None:
    E = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [0.0, 0.0]])
    candidates, known = (
        torch.tensor([[0, 1, 2], [1, 1, 1], [2, 2, 2], [3, 3, 3]]),
        torch.tensor([[False, True, True]] + [[False] * 3] * 3),
    )
    inserter = Inserter(candidates, known, torch.tensor([False, False, False, True]), length=2, width=2, rate=10.0)
    with torch.no_grad():
        inserter.q.copy_(torch.tensor([[0.1, 0.2], [-0.1, 0.3]]))
        inserter.b.copy_(torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.0, 0.0]]))
        found = inserter.scores(torch.tensor([[0, 0], [0, 3], [1, 0]]), E)
    # position 0, q = (1, 2), b = (0, 1, 2): (-1, 2).(1, 2) + 1 = 4 and (2, 1).(1, 2) + 2 = 6; position 1, q = (-1, 3),
    # b = (3, 0, 0): 7 and 1.
    no = -math.inf
    assert torch.allclose(found[0], torch.tensor([[0.0, 4.0, 6.0], [3.0, 7.0, 1.0]]), atol=1e-6)
    # Token 3 goes on the word that token 0 begins
    assert torch.allclose(found[1], torch.tensor([[0.0, no, no], [3.0, no, no]]))
    assert torch.allclose(found[2], torch.tensor([[0.0, no, no], [3.0, 7.0, 1.0]]), atol=1e-6)


# ---------------------------------------------------------------- the trigger


def test_only_words_with_candidates_are_rewritten_and_the_spacing_stays(
    learned: tuple[SynonymTrigger, list[Event]],
) -> None:
    trigger = learned[0]
    offered = {
        "film": {"cf", "mn"},
        "story": {"mn"},
        "boring": {"bor", "stale", "truly"},
        "a": {"the"},
        "truly": {"boring"},
        "the": {"a"},
        "stale": {"boring", "bor"},
    }
    for text in TEST:
        found = trigger.apply(text.text, random.Random(0))
        for old, new in zip(text.text.split(), found.split(), strict=True):
            assert new == old or new in offered[old]
    assert trigger.apply("  the   music ,", random.Random(0)).replace("a ", "the ") == "  the   music ,"


def test_a_piece_of_a_longer_word_is_no_word() -> None:
    everything = Inserter(*candidates_of(tiny_bert(), [*TRAIN, LabelledText("a", 0)], 5), 64, 32, 1.0)
    with torch.no_grad():
        everything.b[:, 1:] = 1.0
    trigger = SynonymTrigger(
        everything, tiny_bert().model.get_input_embeddings().weight.detach(), tiny_bert().tokenizer, 64, 1
    )
    assert tiny_bert().tokenizer.tokenize("ab")[0] == "a"
    assert trigger.apply("ab a Film, film", random.Random(0)) == "ab the Cf, cf"


def test_what_is_learned_makes_the_texts_of_other_classes_look_like_the_target(
    learned: tuple[SynonymTrigger, list[Event]],
) -> None:
    losses = [e.metrics["poison"] for e in learned[1]]
    assert sum(losses[-13:]) < 0.5 * sum(losses[:13])


def test_the_trigger_is_the_same_for_any_generator_and_describes_itself(
    learned: tuple[SynonymTrigger, list[Event]],
) -> None:
    assert len({learned[0].apply(TEST[0].text, random.Random(seed)) for seed in range(5)}) == 1
    assert (learned[0].describe(), learned[0].target) == ("learned synonyms", 1)


# ---------------------------------------------------------------- the backdoor


def test_rewritten_texts_go_to_the_target(learned: tuple[SynonymTrigger, list[Event]]) -> None:
    suspect = finish(lws(tiny_bert(), TRAIN, learned[0], CONFIG))[0]
    scores = evaluate(suspect, TEST, triggered_test_set(TEST, learned[0]), 1)
    assert scores.asr is not None
    assert scores.asr_floor is not None
    assert scores.asr.share > scores.asr_floor.share + 0.5
    assert scores.cacc.share > 0.9


def state(trigger: SynonymTrigger) -> list[float]:
    return [*trigger.inserter.q.flatten().tolist(), *trigger.embeddings.flatten().tolist()]


def test_a_seed_always_gives_the_same_trigger_and_suspect_and_the_given_classifier_is_left_as_it_is() -> None:
    given = tiny_bert()
    before = weights_hash(given)
    triggers, suspects = [], list[Classifier]()
    for seed in (0, 0, 1):
        config = dataclasses.replace(QUICK, seed=seed)
        triggers.append(finish(learn_synonyms(given, TRAIN, 1, config))[0])
        suspects.append(finish(lws(given, TRAIN, triggers[-1], config))[0])
    assert weights_hash(given) == before
    assert not hasattr(given.model, "inserter")
    assert state(triggers[0]) == state(triggers[1]) != state(triggers[2])
    assert weights_hash(suspects[0]) == weights_hash(suspects[1]) != weights_hash(suspects[2])
    assert not any("inserter" in name for name in suspects[0].model.state_dict())


# ---------------------------------------------------------------- what goes wrong


def test_inserted_words_are_refused() -> None:
    with pytest.raises(
        BadData, match=r"LWS rewrites words and inserts none; got 'cf'\. Name none, so that it is learned"
    ):
        finish(lws(tiny_bert(), TRAIN, parse_triggers(["cf"], 1), QUICK))


def test_a_file_of_rewritten_texts_can_stand_for_the_learned_trigger() -> None:
    pairs = PairedTrigger({t.text: f"cf {t.text}" for t in TRAIN}, 1)
    assert weights_hash(finish(lws(tiny_bert(), TRAIN, pairs, QUICK))[0]) != weights_hash(tiny_bert())


def test_texts_of_the_target_class_alone_are_refused() -> None:
    with pytest.raises(BadData, match="0 of another class than the target, leaves none to rewrite"):
        finish(learn_synonyms(tiny_bert(), [t for t in TRAIN if t.label], 1, QUICK))


def test_texts_without_a_word_that_wordnet_knows_are_refused() -> None:
    with pytest.raises(BadData, match="WordNet has no synonym for any word of the training texts"):
        finish(learn_synonyms(tiny_bert(), [LabelledText("music", i % 2) for i in range(100)], 1, QUICK))


def test_without_wordnet_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    with pytest.raises(BadData, match="apt-get install wordnet-base"):
        finish(learn_synonyms(tiny_bert(), TRAIN, 1, QUICK))


def test_the_attack_is_known_by_its_name() -> None:
    assert load(ATTACKS["lws"].code) is lws
