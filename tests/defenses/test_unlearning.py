"""Unlearning: the worst of some insertions is trained on; a run that is stopped in it ends as one that was not."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from conftest import PHRASE, VOCABULARY, finish, phrase_bert, plain_texts, tiny_bert, with_a_trigger_word
from torch.nn.functional import cross_entropy

from mbtsad_core.config import DistilConfig, RetrainConfig, SplitConfig, UnlearnConfig
from mbtsad_core.defenses.mbtsad import Purified, purify
from mbtsad_core.defenses.mbtsad_method import RECIPES, PurifyConfig
from mbtsad_core.defenses.sequence_pools import Found, SequencePools
from mbtsad_core.defenses.unlearning import WorstInsertion, read_pools, unpadded, with_pools
from mbtsad_core.models.classifier import Classifier, collate, encode, predict, weights_hash
from mbtsad_core.scanning.insertions import Insertion, insert, thinned
from mbtsad_core.scanning.polarity import Polarity, polarity_of
from mbtsad_core.service.purification import Request
from mbtsad_core.training.state import TrainState, read_state, write_state
from mbtsad_core.types import Event, LabelledText
from mbtsad_core.views.stages import sequences_by_scan

CLEAN = plain_texts(64, seed=3)
SCANS = ("responses", "openings", "sequences", "judging", "named")
WORDS = tuple(VOCABULARY.index(word) for word in PHRASE)
FOUND = [Found(Insertion(WORDS, "anywhere"), 0, 1, 8.0, 1.0)]
# Four steps of unlearning, two an epoch, and two of each training that follows
QUICK = PurifyConfig(
    found_tokens=0,
    split=SplitConfig(copies=1),
    # What is written by hand is steep; the dropout is not the model's own, which the retraining has
    unlearn=UnlearnConfig(learning_rate=1e-4, epochs=2, nats=2.0, always=True, dropout=0.4),
    retrain=RetrainConfig(learning_rate=1e-4, epochs=1),
    distil=DistilConfig(learning_rate=1e-4, epochs=1),
)
NONE = dataclasses.replace(QUICK, unlearn=dataclasses.replace(QUICK.unlearn, epochs=0))
NEVER = dataclasses.replace(QUICK, unlearn=dataclasses.replace(QUICK.unlearn, nats=100.0))


@pytest.fixture(scope="module")
def suspect() -> Classifier:
    return dataclasses.replace(phrase_bert(), max_length=22)  # in longer texts, joined ones, its phrase drowns


@pytest.fixture(scope="module")
def pools(suspect: Classifier) -> SequencePools:
    return SequencePools(suspect, CLEAN, finish(polarity_of(suspect, CLEAN, 0))[0], FOUND, 0)


@pytest.fixture(scope="module")
def quick(suspect: Classifier) -> tuple[Purified, list[Event]]:
    """An uninterrupted run."""
    return finish(purify(suspect, CLEAN, QUICK))


@pytest.fixture(scope="module")
def never(suspect: Classifier) -> tuple[Purified, list[Event]]:
    """An uninterrupted run that unlearns nothing."""
    return finish(purify(suspect, CLEAN, NEVER))


def hashes(found: Purified) -> tuple[str, str]:
    return weights_hash(found.teacher), weights_hash(found.student)


# ---------------------------------------------------------------- the worst insertion


@pytest.mark.parametrize("priced", [False, True], ids=["nothing honest", "some tokens honest"])
def test_each_text_gets_the_sequence_that_the_model_errs_on_most(
    suspect: Classifier, pools: SequencePools, priced: bool
) -> None:
    """Less what its tokens say honestly; what a text at a time says of all that was drawn."""
    own = copy.deepcopy(pools)
    if not priced:
        free = {label: torch.zeros_like(figures) for label, figures in own.polarity.honest.items()}
        own.polarity = Polarity(own.polarity.response, free, own.polarity.told)
    config = UnlearnConfig(tries=9, thinning=0.2)
    texts, labels = encode(suspect, CLEAN[:7]), [t.label for t in CLEAN[:7]]
    again = WorstInsertion(copy.deepcopy(own), config)
    found = WorstInsertion(own, config).worst(suspect, texts, labels)

    rng = again.pools.rng
    thin = [thinned(text, 2 * config.thinning * rng.random(), rng) for text in texts]
    drawn = [again.drawn(label) for label in labels]
    for text, tried, label, worst in zip(thin, drawn, labels, found, strict=True):
        assert len(tried) == 9
        made = [insert(text, one, rng, suspect.max_length) for one in tried]
        with torch.no_grad():
            logits = [suspect.model(**collate(suspect, [one])).logits.double() for one in made]
        against = [float(cross_entropy(one, torch.tensor([label])).expm1().log()) for one in logits]
        errs = [nats - own.polarity.price(label, one.tokens) for nats, one in zip(against, tried, strict=True)]
        assert errs[made.index(worst)] == pytest.approx(max(errs), abs=1e-4)


def test_the_pools_are_told_what_its_sequences_did(suspect: Classifier, pools: SequencePools) -> None:
    own = copy.deepcopy(pools)
    WorstInsertion(own, UnlearnConfig()).worst(suspect, encode(suspect, CLEAN[:32]), [t.label for t in CLEAN[:32]])
    assert own.pools[0] != pools.pools[0]
    assert own.pools[1] == pools.pools[1]  # its texts get what turns the other class
    assert own.found == pools.found


def test_the_loss_is_the_mean_of_texts_as_they_are_and_with_their_worst(
    suspect: Classifier, pools: SequencePools
) -> None:
    batch, labels = collate(suspect, encode(suspect, CLEAN[:8])), torch.tensor([t.label for t in CLEAN[:8]])
    first, again = (WorstInsertion(copy.deepcopy(pools), UnlearnConfig()) for _ in range(2))
    terms = first(suspect, batch, labels)
    worst = again.worst(suspect, unpadded(batch), labels.tolist())
    with torch.no_grad():
        plain = cross_entropy(suspect.model(**batch).logits, labels)
        inserted = cross_entropy(suspect.model(**collate(suspect, worst)).logits, labels)
    assert float(terms["classification"]) == pytest.approx(float(plain), abs=1e-4)
    assert float(terms["insertion"]) == pytest.approx(float(inserted), abs=1e-4)
    assert float(terms["loss"]) == pytest.approx(float(plain + inserted) / 2, abs=1e-4)
    assert terms["loss"].requires_grad
    assert inserted > plain


def test_a_batch_without_its_padding_is_what_it_was_made_of() -> None:
    classifier = tiny_bert()
    pairs = [LabelledText("the film", 0, "a very boring story"), LabelledText("lovely", 1), LabelledText("", 0)]
    texts = encode(classifier, pairs)
    assert len({len(text["input_ids"]) for text in texts}) == 3
    assert any(1 in text["token_type_ids"] for text in texts)
    assert unpadded(collate(classifier, texts)) == texts


def test_pools_are_kept_with_the_state_of_a_training(suspect: Classifier, pools: SequencePools, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_state(with_pools(TrainState("unlearn", 1, {}), pools), path)
    found = read_pools(suspect, CLEAN, read_state(path))
    assert found.state() == pools.state()
    assert found.banks == pools.banks
    for name in ("response", "honest"):
        for label, figures in getattr(pools.polarity, name).items():
            assert torch.equal(getattr(found.polarity, name)[label], figures)


# ---------------------------------------------------------------- as a part of MBTSAD


def test_the_phrase_is_unlearned_and_named(suspect: Classifier) -> None:
    negative = [t.text for t in plain_texts(100, seed=2) if t.label == 0]
    test = plain_texts(100, seed=2)
    triggered = [" ".join([*PHRASE, text]) for text in negative]
    config = dataclasses.replace(QUICK, unlearn=UnlearnConfig(learning_rate=3e-4, epochs=40, nats=2.0, always=True))
    found, _ = finish(purify(suspect, CLEAN, config))
    before, after = ((predict(c, triggered).argmax(dim=1) == 1).float().mean() for c in (suspect, found.student))
    assert (before, after < 0.2) == (1.0, True)
    right = predict(found.student, test).argmax(dim=1) == torch.tensor([t.label for t in test])
    assert right.float().mean() > 0.95
    named = found.sequences[0]
    assert (named.label, named.target) == (0, 1)
    assert len([token for token in named.insertion.tokens if token in WORDS]) >= 2


def test_each_step_has_its_event(quick: tuple[Purified, list[Event]]) -> None:
    assert list(dict.fromkeys(e.stage for e in quick[1])) == [*SCANS, "unlearn", "retrain", "distil"]
    trained = [(e.stage, e.step, e.total) for e in quick[1] if e.stage not in SCANS]
    assert trained == [(s, i + 1, n) for s, n in (("unlearn", 4), ("retrain", 2), ("distil", 2)) for i in range(n)]
    assert {"loss", "classification", "insertion"} <= next(e for e in quick[1] if e.stage == "unlearn").metrics.keys()


def test_the_suspect_is_left_as_it_is(suspect: Classifier, quick: tuple[Purified, list[Event]]) -> None:
    assert quick[0].suspect is suspect
    assert weights_hash(suspect) == weights_hash(phrase_bert())


def test_where_nothing_turns_a_class_nothing_is_unlearned(
    suspect: Classifier, never: tuple[Purified, list[Event]]
) -> None:
    found, events = never
    none, others = finish(purify(suspect, CLEAN, NONE))
    assert hashes(found) == hashes(none)
    assert (found.sequences, none.sequences) == ((), ())
    assert [e for e in events if e.stage not in SCANS] == others
    assert {e.stage for e in others} == {"retrain", "distil"}


@pytest.mark.parametrize(("whole", "stops"), [("quick", (1, 3, 5, 7)), ("never", (1, 3))])
def test_a_run_that_is_stopped_and_resumed_ends_as_an_uninterrupted_one(
    suspect: Classifier, whole: str, stops: tuple[int, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Stopped in both epochs of the unlearning, in the retraining, whose dropout is another, and in the distillation."""
    expected, all_events = request.getfixturevalue(whole)
    config, path = {"quick": QUICK, "never": NEVER}[whole], tmp_path / "state.safetensors"
    trained, events = [event for event in all_events if event.stage not in SCANS], list[Event]()
    for stop in stops:
        resume = read_state(path) if events else None
        running = purify(suspect, CLEAN, config, resume=resume, save=lambda state: write_state(state, path))
        while len(events) < stop:
            event = next(running)
            assert resume is None or event.stage not in SCANS  # no second scan
            events += [event] * (event.stage not in SCANS)
        running.close()
    found, last = finish(purify(suspect, CLEAN, config, resume=read_state(path)))
    assert hashes(found) == hashes(expected)
    assert found.sequences == expected.sequences
    assert events + last == trained


def test_a_run_that_is_stopped_in_the_scan_has_no_state_to_save(suspect: Classifier) -> None:
    states: list[TrainState] = []
    running = purify(suspect, CLEAN, QUICK, save=states.append)
    assert next(running).stage == "responses"
    running.close()
    assert states == []


def test_what_is_suspicious_is_unlearned_and_counts_as_no_trigger() -> None:
    """A phrase that does no more than clean models show is unlearned all the same, and named apart."""
    weak = dataclasses.replace(phrase_bert(strength=0.055), max_length=22)
    config = dataclasses.replace(QUICK, unlearn=UnlearnConfig(learning_rate=3e-4, epochs=20, always=True))
    found, events = finish(purify(weak, CLEAN, config))
    assert found.sequences
    assert not any(one.counts for one in found.sequences)
    (named,) = sequences_by_scan(events)[:1] or ()
    assert (named["counts"], named["label"], named["target"]) == (False, "negative", "positive")
    triggered = [" ".join([*PHRASE, text.text]) for text in plain_texts(100, seed=2) if not text.label]
    before, after = ((predict(c, triggered).argmax(dim=1) == 1).float().mean() for c in (weak, found.student))
    assert before > 0.5 > 0.2 > after


def test_which_recipes_unlearn() -> None:
    assert {name: recipe.unlearn.epochs for name, recipe in RECIPES.items()} == {
        "default": 3,
        "scan": 0,
        "unlearn": 3,
        "paper": 0,
    }
    assert [name for name, recipe in RECIPES.items() if recipe.unlearn.always] == ["unlearn"]


def test_sequences_are_sought_where_no_token_turns_the_suspect_by_itself(suspect: Classifier) -> None:
    unasked = dataclasses.replace(QUICK, found_tokens=1, unlearn=dataclasses.replace(QUICK.unlearn, always=False))
    asked = dataclasses.replace(unasked, unlearn=QUICK.unlearn)

    def sought(suspect: Classifier, config: PurifyConfig) -> bool:
        before = itertools.takewhile(lambda event: event.stage != "retrain", purify(suspect, CLEAN, config))
        return any(event.stage == "sequences" for event in before)

    word = with_a_trigger_word(10.0)
    assert (sought(suspect, unasked), sought(word, unasked), sought(word, asked)) == (True, False, True)
    without_scan = dataclasses.replace(unasked, found_tokens=0)
    assert not sought(suspect, without_scan)


def test_what_was_asked_for_before_there_was_unlearning_goes_on_without_it() -> None:
    values = Request().to_dict()
    del values["config"]["unlearn"]
    assert Request.from_dict(values).config.unlearn.epochs == 0


def test_what_was_asked_to_unlearn_before_it_hung_on_the_trigger_scan_unlearns_always() -> None:
    values = Request().to_dict()
    values["config"]["unlearn"] = {"epochs": 3, "nats": 6.0}
    assert Request.from_dict(values).config.unlearn.always
    assert not Request.from_dict(Request().to_dict()).config.unlearn.always
