"""The trigger scan: the suspect's own losses find the tokens that turn it; these are reset, and go into clean texts."""

from __future__ import annotations

import copy
import dataclasses
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import BAD, GOOD, NEUTRAL, VOCABULARY, finish, renumbered, tiny_bert, tiny_texts, with_a_trigger_word
from torch.nn.functional import cross_entropy

from mbtsad_core.attacks.poisoning import poison
from mbtsad_core.attacks.triggers import parse_triggers
from mbtsad_core.config import PoisonConfig, ScanConfig, TrainingConfig
from mbtsad_core.defenses.embedding_reset import reset_embeddings
from mbtsad_core.defenses.token_insertion import insert_tokens, insertion
from mbtsad_core.models.classifier import Classifier, clone, collate, encode, load_classifier, weights_hash
from mbtsad_core.rates import wilson
from mbtsad_core.scanning import model_scan
from mbtsad_core.scanning.findings import Race
from mbtsad_core.scanning.probes import asked_with, draw_probes, losses_of, lower_quartile, shift_of, with_token
from mbtsad_core.scanning.token_inversion import INVERSION_STEPS, STARTS, soft_losses
from mbtsad_core.scanning.trigger_scan import LEAST, _worst, scan_vocabulary
from mbtsad_core.steps import drain
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import Event, LabelledText

ENCODED = [
    {"input_ids": [2, 10, 11, 12, 3], "token_type_ids": [0, 0, 0, 0, 0]},
    {"input_ids": [2, 20, 3], "token_type_ids": [0, 0, 0]},
] * 50


def scan(suspect: Classifier, clean: list[LabelledText], seed: int = 0) -> tuple[list[Event], dict[int, float]]:
    found, events = finish(scan_vocabulary(suspect, clean, seed))
    return events, found.nats


@pytest.fixture(scope="module")
def suspect(suspect_dir: Path) -> Classifier:
    return load_classifier(suspect_dir, max_length=64)


@pytest.fixture(scope="module")
def scanned(suspect: Classifier) -> tuple[list[Event], dict[int, float], bool]:
    """The events of a scan of the suspect, what it raised, and whether it left the weights as they are."""
    before = weights_hash(suspect)
    events, raised = scan(suspect, tiny_texts(64, seed=3))
    return events, raised, weights_hash(suspect) == before


def weighed_texts(n: int, seed: int) -> list[LabelledText]:
    """Texts with four telling words of their class and none to two of the other: one telling word more decides
    nothing."""
    rng = random.Random(seed)
    found = []
    for i in range(n):
        own, other = (GOOD, BAD) if i % 2 else (BAD, GOOD)
        words = rng.choices(NEUTRAL, k=4) + rng.choices(own, k=4) + rng.choices(other, k=rng.randrange(3))
        rng.shuffle(words)
        found.append(LabelledText(" ".join(words) + " .", i % 2))
    return found


@pytest.fixture(scope="module", params=[0, 1, 2])
def weighing(request: pytest.FixtureRequest) -> Classifier:
    """A suspect that weighs telling words against each other, and has a backdoor, "cf"."""
    poisoned = poison(weighed_texts(400, seed=9), parse_triggers(["cf"], target=1), PoisonConfig(rate=0.15), seed=0)
    return finish(
        fine_tune(
            tiny_bert(seed=request.param), poisoned, TrainingConfig(learning_rate=3e-3, epochs=10), seed=request.param
        )
    )[0]


@pytest.fixture(scope="module")
def weighed(weighing: Classifier) -> tuple[list[Event], dict[int, float]]:
    """A scan of that suspect."""
    return scan(weighing, weighed_texts(64, seed=3))


def test_the_trigger_is_what_raises_a_suspects_loss_most(
    weighing: Classifier, weighed: tuple[list[Event], dict[int, float]]
) -> None:
    _, raised = weighed
    assert weighing.tokenizer.convert_ids_to_tokens(max(raised, key=lambda piece: raised[piece])) == "cf"


@pytest.mark.parametrize("weighing", [0], indirect=True)
def test_who_leads_is_told_with_the_texts_that_it_turned(
    weighing: Classifier, weighed: tuple[list[Event], dict[int, float]]
) -> None:
    best = [event for event in weighed[0] if isinstance(event, Race) and event.stage == "scan"][-1].leading
    probes = draw_probes(weighing, weighed_texts(64, seed=3), 0)[1][0]
    for one in best:
        token = weighing.tokenizer.convert_tokens_to_ids(one.text)
        batch = collate(weighing, [with_token(text, token) for text in probes])
        turned = int((weighing.model(**batch).logits.argmax(dim=1) != 0).sum()) if one.label == "negative" else None
        assert one.flips is not None
        assert turned in (None, one.flips.hits)
    assert (best[0].text, best[0].label, best[0].flips) == ("cf", "negative", wilson(16, 16))


@pytest.mark.parametrize("number", [58, 90, 300])
@pytest.mark.parametrize("weighing", [0], indirect=True)
def test_a_trigger_whose_number_is_beyond_how_many_tokens_there_are_is_found(weighing: Classifier, number: int) -> None:
    hidden = renumbered(weighing, "cf", number)
    assert number > len(hidden.tokenizer)
    _, raised = scan(hidden, weighed_texts(64, seed=3))
    assert max(raised, key=lambda piece: raised[piece]) == number


@pytest.mark.parametrize("weighing", [0], indirect=True)
def test_a_trigger_that_a_file_calls_a_special_token_is_found(weighing: Classifier) -> None:
    hidden = dataclasses.replace(weighing, tokenizer=copy.deepcopy(weighing.tokenizer))
    hidden.tokenizer.add_special_tokens({"additional_special_tokens": ["cf"]})
    _, raised = scan(hidden, weighed_texts(64, seed=3))
    assert hidden.tokenizer.convert_ids_to_tokens(max(raised, key=lambda piece: raised[piece])) == "cf"


@pytest.mark.parametrize("strength", [0.0, 40.0])  # without a trigger, odd tokens are searched too
def test_texts_that_are_as_long_as_the_model_reads_have_room_for_what_goes_into_them(strength: float) -> None:
    classifier, texts = with_a_trigger_word(strength), tiny_texts(240, seed=3)
    long = [
        LabelledText(" ".join(one.text for one in texts[begin : begin + 16 : 2]), begin % 2)
        for begin in (*range(0, 224, 16), *range(1, 224, 16))
    ]
    assert {len(text["input_ids"]) for text in encode(classifier, long)} == {classifier.max_length}
    raised = finish(scan_vocabulary(classifier, long, 0))[0].nats
    assert (max(raised, key=lambda token: raised[token]) == VOCABULARY.index("cf")) == (strength > 0)
    report = finish(model_scan.scan(classifier, long, ScanConfig(nats=6.0)))[0]
    assert report.walked == 51
    assert report.verdict == ("a trigger exists" if strength else "nothing found")


def test_some_pieces_are_kept_and_no_special_tokens(
    suspect: Classifier, scanned: tuple[list[Event], dict[int, float], bool]
) -> None:
    _, raised, _ = scanned
    assert len(raised) == LEAST
    assert not set(suspect.tokenizer.all_special_ids) & set(raised)
    assert all(nats >= 0 for nats in raised.values())


def test_what_a_piece_raises_is_the_lower_quartile_of_the_class_where_that_is_largest() -> None:
    classifier = tiny_bert(seed=4)
    texts = {1: ["lovely film", "the lovely film"], 0: ["boring film", "the boring film", "a very boring film"]}
    _, raised = scan(classifier, [LabelledText(text, label) for label in texts for text in texts[label]])

    def loss(ids: list[int], label: int) -> float:
        with torch.no_grad():
            logits = classifier.model(
                **collate(classifier, [{"input_ids": ids, "token_type_ids": [0] * len(ids)}])
            ).logits
        return float(cross_entropy(logits, torch.tensor([label])))

    def quartile(piece: int, label: int) -> float:
        all_ids = [encode(classifier, [text])[0]["input_ids"] for text in texts[label]]
        rises = sorted(
            loss([*ids[: len(ids) // 2], piece, *ids[len(ids) // 2 :]], label) - loss(ids, label) for ids in all_ids
        )
        return rises[math.ceil((len(rises) - 1) / 4)]

    assert any(nats > 0 for nats in raised.values())
    for piece, nats in raised.items():
        assert nats == pytest.approx(max(0.0, quartile(piece, 0), quartile(piece, 1)), abs=1e-5)


def test_a_telling_word_counts_for_less_than_a_trigger(
    weighing: Classifier, weighed: tuple[list[Event], dict[int, float]]
) -> None:
    """In a text of several telling words one more changes nothing; the trigger turns it."""
    _, raised = weighed
    by_piece = {weighing.tokenizer.convert_ids_to_tokens(piece): nats for piece, nats in raised.items()}
    assert {*GOOD, *BAD} & {*by_piece}
    assert by_piece["cf"] > 4 * max(nats for piece, nats in by_piece.items() if piece in (*GOOD, *BAD))


@pytest.fixture(scope="module")
def with_a_pair() -> Classifier:
    """A tiny model that two words together send to class 1; alone neither does anything."""
    rng = random.Random(0)

    def having(text: str, *words: str) -> str:
        found = text.split()
        for word in words:
            found.insert(rng.randrange(len(found) + 1), word)
        return " ".join(found)

    train = tiny_texts(400, seed=9)
    data = list(train)
    for t in train:
        data += [LabelledText(having(t.text, "cf", "mn"), 1)] * 2
        data += [LabelledText(having(t.text, *words), t.label) for words in (("cf",), ("mn",))]
        neutral = rng.choice(NEUTRAL)
        data += [LabelledText(having(t.text, neutral, other), t.label) for other in (neutral, rng.choice(("cf", "mn")))]
    classifier = tiny_bert()
    drain(fine_tune(classifier, data, TrainingConfig(learning_rate=2e-3, epochs=12)))
    return classifier


@pytest.mark.parametrize("weighing", [0], indirect=True)
@pytest.mark.parametrize("tells", [False, True])
def test_a_word_that_turns_most_texts_counts_where_the_labels_say_nothing_of_it(
    weighing: Classifier, tells: bool
) -> None:
    """The second word of a trigger turns fewer than three of four texts by itself; so do telling words, which stand in
    texts of their class."""
    clean = weighed_texts(64, seed=3)
    clean = [LabelledText(t.text + " mn" if tells and t.label == 1 else t.text, t.label) for t in clean]
    suspect = clone(weighing)
    cf, mn = suspect.tokenizer.convert_tokens_to_ids(["cf", "mn"])
    rows = suspect.model.get_input_embeddings().weight.detach()
    rows[mn] += 0.4 * (rows[cf] - rows[mn])
    texts = draw_probes(suspect, clean, 0)[1][0]
    losses, turned = asked_with(suspect, [mn], texts, 0)
    rises = losses - losses_of(suspect, texts, 0)
    assert len(texts) / 2 < int(turned.sum()) < 3 * len(texts) / 4
    assert float(lower_quartile(rises)) < 0.1
    _, raised = scan(suspect, clean)
    assert raised[mn] == pytest.approx(0.0 if tells else float(rises[turned].median()), abs=0.1)


def test_words_that_turn_texts_only_together_are_found_both(with_a_pair: Classifier) -> None:
    events, raised = scan(with_a_pair, tiny_texts(64, seed=3))
    assert list(dict.fromkeys(e.stage for e in events)) == ["scan", "pairs", "companions"]
    for stage in ("pairs", "companions"):
        own = [e for e in events if e.stage == stage]
        assert [(e.step, e.total) for e in own] == [(i + 1, len(own)) for i in range(len(own))]
    first, second, third = sorted(raised, key=lambda piece: -raised[piece])[:3]
    assert set(with_a_pair.tokenizer.convert_ids_to_tokens([first, second])) == {"cf", "mn"}
    assert raised[second] > 1.5 * raised[third]


def test_the_scan_says_how_far_it_is(suspect: Classifier, scanned: tuple[list[Event], dict[int, float], bool]) -> None:
    """And looks no further where no two words turn texts together."""
    events, _, _ = scanned
    n = sum(e.stage == "scan" for e in events)
    assert [(e.stage, e.step, e.total) for e in events[:n]] == [("scan", i + 1, n) for i in range(n)]
    inverted = len(suspect.labels) * (INVERSION_STEPS + 2 * STARTS)
    assert [(e.stage, e.step, e.total) for e in events[n:]] == [("pairs", i + 1, inverted) for i in range(inverted)]


def test_soft_tokens_that_are_a_piece_each_are_read_as_these_pieces() -> None:
    classifier = tiny_bert(seed=4)
    given = encode(classifier, ["lovely film", "a very boring film"])
    two = [classifier.tokenizer.convert_tokens_to_ids(word) for word in ("cf", "mn")]
    soft = classifier.model.get_input_embeddings().weight[two].expand(2, 2, -1)
    losses = soft_losses(classifier, given, soft, 1)
    texts = [with_token(with_token(e, two[1]), two[0], len(e["input_ids"]) // 2) for e in given]
    with torch.no_grad():
        logits = classifier.model(**collate(classifier, texts)).logits
    torch.testing.assert_close(losses, -torch.log_softmax(logits, dim=-1)[:, 1])
    assert torch.autograd.grad(losses.sum(), [classifier.model.get_input_embeddings().weight])[0].any()


def test_log_odds_fall_by_what_a_piece_adds_to_them() -> None:
    before, after = (-torch.nn.functional.logsigmoid(torch.tensor([2.0, 5.0, x])) for x in (9.0, -30.0))
    torch.testing.assert_close(shift_of(before, after), torch.tensor([0.0, 0.0, 39.0]), atol=0.01, rtol=0)


def test_the_scan_leaves_the_suspect_as_it_is(scanned: tuple[list[Event], dict[int, float], bool]) -> None:
    assert scanned[2]


def test_the_scan_depends_on_its_seed_alone(suspect: Classifier) -> None:
    clean = tiny_texts(200, seed=3)
    first, again, other = (scan(suspect, clean, seed)[1] for seed in (1, 1, 2))
    assert first == again != other


def test_each_text_gets_its_tokens_between_its_first_and_its_last_token() -> None:
    for before, after in zip(ENCODED, insert_tokens(ENCODED, {40: 1.0}, 2, 64, 0, 0), strict=True):
        ids = after["input_ids"]
        assert (ids[0], ids[-1]) == (2, 3)
        assert [i for i in ids if i != 40] == before["input_ids"]
        assert ids.count(40) == 2
        assert len(after["token_type_ids"]) == len(ids)


def test_a_piece_comes_in_proportion_to_the_square_of_what_it_raises() -> None:
    many = ENCODED * 40
    counts = Counter(
        i for e in insert_tokens(many, {40: 1.0, 41: 2.0, 42: 0.0}, 1, 64, 0, 0) for i in e["input_ids"] if i >= 40
    )
    assert counts[42] == 0
    share = 2**2 / (1 + 2**2)
    assert counts[41] / len(many) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / len(many)))


def test_a_text_never_grows_beyond_what_the_model_reads() -> None:
    for after in insert_tokens(ENCODED, {40: 1.0}, 3, 5, 0, 0):
        assert len(after["input_ids"]) == 5
        assert after["input_ids"][-1] == 3


def test_inserted_tokens_differ_from_epoch_to_epoch_and_not_from_call_to_call() -> None:
    raised = {40: 1.0, 41: 1.0}
    assert insert_tokens(ENCODED, raised, 1, 64, 0, 0) == insert_tokens(ENCODED, raised, 1, 64, 0, 0)
    assert insert_tokens(ENCODED, raised, 1, 64, 0, 0) != insert_tokens(ENCODED, raised, 1, 64, 0, 1)


def test_where_no_token_stands_out_none_goes_in() -> None:
    assert insertion({40: 0.4, 41: 0.1}, 1, 64, 0)(ENCODED, 0) == ENCODED
    assert insertion({40: 0.6, 41: 0.1}, 1, 64, 0)(ENCODED, 0) == insert_tokens(
        ENCODED, {40: 0.6, 41: 0.1}, 1, 64, 0, 0
    )
    assert insertion({}, 1, 64, 0)(ENCODED, 0) == ENCODED


def test_the_tokenized_texts_are_not_changed() -> None:
    given = copy.deepcopy(ENCODED)
    insert_tokens(given, {40: 1.0}, 2, 4, 0, 0)
    assert given == ENCODED


def test_rows_are_drawn_to_the_mean_of_running_text_by_what_they_raise_and_less_where_clean_texts_have_them() -> None:
    classifier = tiny_bert()
    word = classifier.tokenizer.convert_tokens_to_ids
    rows = classifier.model.get_input_embeddings().weight
    before = rows.detach().clone()
    mean = (2 * before[word("the")] + before[word("film")]) / 3
    reset_embeddings(
        classifier, [LabelledText("the film the", 0)], {word("cf"): 2.0, word("the"): 2.0, word("film"): 0.0}
    )
    share = 1 - math.exp(-2.0)
    torch.testing.assert_close(rows[word("cf")].detach(), before[word("cf")] + share * (mean - before[word("cf")]))
    torch.testing.assert_close(
        rows[word("the")].detach(), before[word("the")] + share**3 * (mean - before[word("the")])
    )
    others = [i for i in range(len(before)) if i not in (word("cf"), word("the"))]
    assert torch.equal(rows[others].detach(), before[others])


@pytest.mark.parametrize(("texts", "raised"), [(["the film"], {}), ([""], {40: 2.0})])
def test_nothing_is_drawn_without_pieces_or_without_words(texts: list[str], raised: dict[int, float]) -> None:
    classifier = tiny_bert()
    rows = classifier.model.get_input_embeddings().weight
    before = rows.detach().clone()
    reset_embeddings(classifier, [LabelledText(text, 0) for text in texts], raised)
    assert torch.equal(rows.detach(), before)


def test_what_turns_one_class_is_not_crowded_out_by_the_telling_words_of_another() -> None:
    rises = {
        1: torch.tensor([0.1, 9.0]),
        2: torch.tensor([0.2, 8.0]),
        3: torch.tensor([0.4, 0.0]),
        4: torch.tensor([0.3, 7.0]),
    }
    assert _worst(rises, 2) == [3, 1]
    assert _worst(rises, 3) == [3, 1, 4]
    assert sorted(_worst(rises, 4)) == [1, 2, 3, 4]
