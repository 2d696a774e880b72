"""The report of a run: its verdict in words, its figures, and what is escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest

from mbtsad_core.augment.split_effect import SplitEffect
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.evaluation import wilson
from mbtsad_core.rates import rates_to_dict
from mbtsad_core.service.purification import Request, Result, TurningSequence
from mbtsad_core.types import Event, Note, Scores
from mbtsad_core.views.course import course_svg
from mbtsad_core.views.curves import Whole
from mbtsad_core.views.model_card import model_card
from mbtsad_core.views.report import asked_of, report_html, report_text, verdict

SUSPECT = Scores(wilson(430, 500), wilson(240, 250), wilson(30, 250), ((220, 30), (40, 210)))
TEACHER = Scores(wilson(425, 500), wilson(60, 250), wilson(32, 250), ((215, 35), (40, 210)))
PURIFIED = Scores(wilson(428, 500), wilson(35, 250), wilson(31, 250), ((219, 31), (41, 209)))
EVIL = '<script>alert("1")</script>'


@pytest.fixture
def result() -> Result:
    return Result(
        suspect=SUSPECT,
        teacher=TEACHER,
        purified=PURIFIED,
        request=Request(
            suspect="models/reviews", triggers=("cf", "mn"), target="positive", config=PurifyConfig(seed=5)
        ),
        description="BERT 4x384, 6.7 M parameters, 2 classes",
        labels=("negative", "positive"),
        device="cpu",
        precision="float32",
        attention="plain",
        clean_texts=600,
        seconds=125.0,
        notes=(Note("table", "A note."),),
        events=tuple(
            Event(stage, 1, 1, {"loss": 1.0, "classification": 1.0, "cacc": 0.8, "asr": 0.5})
            for stage in ("retrain", "distil")
        ),
    )


def test_pieces_that_stand_out_are_named_and_escaped(result: Result) -> None:
    named = replace(result, found=(("tq", 9.28), (EVIL, 1.5)))
    assert "tq (9.3), " in report_text(named)
    assert "The trigger scan found tokens" in report_html(named)
    assert EVIL not in report_html(named)
    assert EVIL in unescape(report_html(named))
    assert "The trigger scan found no token" in report_text(result)


def test_without_a_scan_the_suspect_was_not_asked(result: Result) -> None:
    without = replace(result, request=replace(result.request, config=PurifyConfig(found_tokens=0)))
    assert "trigger scan" not in report_text(without)
    assert "The trigger scan" not in report_html(without)


def test_sequences_are_named_with_what_became_of_them_and_escaped(result: Result) -> None:
    unlearned = replace(result, events=(*result.events, Event("judging", 1, 1), Event("named", 1, 1)))
    sequence = TurningSequence(EVIL, "scattered", "negative", "positive", 0.979, 0.021)
    named = replace(unlearned, sequences=(sequence,))
    said = "(its tokens scattered; negative to positive: 97.9 % of texts before, 2.1 % after)"
    assert said in report_text(named)
    assert said in unescape(report_html(named))
    assert EVIL not in report_html(named)
    assert named.to_dict()["sequences"][0]["after"] == 0.021
    assert "counts as a trigger, so nothing was unlearned" in report_text(unlearned)
    weak = replace(sequence, tokens="side another", counts=False)
    both, alone = (report_text(replace(unlearned, sequences=some)) for some in ((sequence, weak), (weak,)))
    assert both.index(EVIL) < both.index("Unlearned to be safe") < both.index("side another")
    assert "No sequence of ordinary tokens counts as a trigger. Unlearned to be safe" in alone
    assert "unlearned" not in report_text(result)


def without_trigger(scores: Scores) -> Scores:
    return replace(scores, asr=None, asr_floor=None)


def test_the_verdict_says_where_asr_and_cacc_came_from_and_went_to(result: Result) -> None:
    assert (
        verdict(asked_of(result))
        == "ASR went from 96.0 % to 14.0 % (35 of 250; its floor is 12.4 %), CACC went from 86.0 % to 85.6 %."
    )


@pytest.fixture
def untold(result: Result) -> Result:
    """A run without a trigger."""
    return replace(
        result,
        suspect=without_trigger(SUSPECT),
        purified=without_trigger(PURIFIED),
        request=replace(result.request, triggers=(), target=None),
    )


def test_the_verdict_without_a_trigger_says_that_asr_was_not_measured(untold: Result) -> None:
    said = verdict(asked_of(untold))
    assert said == "CACC went from 86.0 % to 85.6 %. No trigger was given, so ASR was not measured."
    assert "None was given." in report_html(untold)
    assert "Trigger: none was given, so ASR was not measured." in model_card(untold)


def trial(word: str, before: int, after: int) -> dict[str, object]:
    rates = {
        name: rates_to_dict({"asr": wilson(hits, 200), "asr_floor": wilson(25, 200)})
        for name, hits in (("suspect", before), ("purified", after))
    }
    return {"trigger": word, "target": "positive", "found_by_scan": True, **rates}


def test_the_verdict_without_a_trigger_speaks_of_what_the_scan_found_first(untold: Result) -> None:
    tried = replace(untold, evidence={"tried": [trial("october", 200, 24), trial("august", 90, 30)]})
    said = (
        "No trigger was given. With “october”, which the scan found, ASR went from 100.0 % to 12.0 % (24 of 200; its "
        "floor is 12.5 %), CACC went from 86.0 % to 85.6 %."
    )
    assert verdict(asked_of(tried)) == said
    assert said in report_text(tried)
    page = report_html(tried)
    assert (
        "With “october”, the suspect sends 200 of 200 texts of other classes to “positive”, the purified model 24. "
        "Without it, the purified model sends 25 of the same texts there."
    ) in page
    assert "<b>october</b>, found by the scan, none was given, towards “positive”." in page
    assert f"{said}\n" in model_card(tried)
    assert "Trigger: none was given; the scan found <code>october</code>." in model_card(tried)


def test_a_report_without_a_trigger_says_how_sure_and_what_next_of_what_was_found(untold: Result) -> None:
    found = (("october", 3.3), ("august", 0.9), ("may", 0.6))
    tried = replace(untold, found=found, evidence={"tried": [trial("october", 200, 24), trial("august", 90, 30)]})
    page = report_html(tried)
    assert "its ASR between 8.2 and 17.2 % (200 texts)" in page
    assert "Not searched for: phrases, sentence shapes, styles." in page
    looked = report_html(replace(tried, events=(*tried.events, Event("judging", 1, 1), Event("named", 1, 1))))
    assert "Not searched for: sentence shapes but for their first word, styles." in looked
    assert "Do not use the suspect." in page
    assert "Found too, and not tried: may." in page
    still = report_html(replace(tried, evidence={"tried": [trial("october", 200, 150)]}))
    assert "Do not use this purified model." in still
    weak = report_html(replace(tried, evidence={"tried": [trial("august", 90, 30)]}))  # as honest words do too
    assert "Do not use the suspect." not in weak
    assert "Look at what the scan found" in weak


def test_a_report_says_where_the_asr_of_what_was_found_stands(untold: Result) -> None:
    where = "the ASR of “october”, which the scan found, stands under “Triggers tried”"
    assert where in report_html(replace(untold, evidence={"tried": [trial("october", 200, 24)]}))
    assert where not in report_html(untold)


def test_a_found_trigger_is_escaped(untold: Result) -> None:
    tried = replace(untold, evidence={"tried": [trial(EVIL, 200, 24)]})
    assert EVIL not in report_html(tried)
    assert EVIL in unescape(report_html(tried))
    assert "<script" not in model_card(tried)


def test_the_text_has_a_row_for_each_model_with_intervals_and_counts(result: Result) -> None:
    rows = re.findall(r"^(suspect|teacher|purified) +(.*?)  +(.*?)  +(.*)$", report_text(result), re.MULTILINE)
    assert rows == [
        ("suspect", "86.0 % [82.7, 88.8] (430 of 500)", "96.0 % [92.8, 97.8] (240 of 250)", "12.0 %"),
        ("teacher", "85.0 % [81.6, 87.9] (425 of 500)", "24.0 % [19.1, 29.7] (60 of 250)", "12.8 %"),
        ("purified", "85.6 % [82.3, 88.4] (428 of 500)", "14.0 % [10.2, 18.8] (35 of 250)", "12.4 %"),
    ]


def test_the_columns_of_the_text_stand_under_each_other(result: Result) -> None:
    head, suspect, *_ = report_text(result).splitlines()
    assert head.index("CACC") == suspect.index("86.0")
    assert head.index("ASR") == suspect.index("96.0")
    assert head.index("ASR floor") == suspect.index("12.0")


def test_the_text_ends_with_verdict_notes_and_what_was_run(result: Result) -> None:
    assert report_text(result).splitlines()[-4:] == [
        verdict(asked_of(result)),
        "The trigger scan found no token, alone or with another, that turns the suspect's answers.",
        "Note: A note.",
        "BERT 4x384, 6.7 M parameters, 2 classes; 600 clean texts; cpu, float32, attention loss plain; 2 min 05 s.",
    ]


def test_the_html_has_verdict_figures_confusion_and_settings(result: Result) -> None:
    page = report_html(result)
    assert "ASR went from 96.0 % to 14.0 % (35 of 250" in page
    assert "<tr><th>purified</th><td>85.6 % [82.3, 88.4] (428 of 500)</td><td>14.0 %" in page
    assert '<tr><th>purified: positive</th><td class="number">41</td><td class="number">209</td></tr>' in page
    assert "<tr><td>seed</td><td>5</td><td>0</td>" in page.partition("<h2>Figures</h2>")[0]
    assert '<tr><td>seed</td><td>5</td><td class="what">seed of splits, batches and dropout</td></tr>' in page
    assert "<tr><td>triggers</td><td>cf, mn</td>" in page
    assert "Note: A note." in page


def test_the_html_without_a_trigger_says_that_asr_was_not_measured(result: Result) -> None:
    page = report_html(
        replace(
            result,
            suspect=without_trigger(SUSPECT),
            teacher=without_trigger(TEACHER),
            purified=without_trigger(PURIFIED),
        )
    )
    assert "No trigger was given, so ASR was not measured." in page
    assert (
        "<tr><th>suspect</th><td>86.0 % [82.7, 88.8] (430 of 500)</td><td>not measured</td><td>not measured</td></tr>"
        in page
    )


def test_the_html_says_above_the_curves_how_asr_went_on_all_texts(result: Result) -> None:
    before = {"suspect_cacc": 0.86, "cacc_n": 200, "suspect_asr": 0.96, "asr_floor": 0.12, "asr_n": 200}
    after = {"loss": 1.0, "classification": 1.0, "cacc": 0.85, "cacc_n": 200, "asr": 0.14, "asr_n": 200}
    page = report_html(replace(result, events=(Event("measure", 1, 1, before), Event("retrain", 1, 1, after))))
    # As in the table, and not a sample's
    assert "<p>ASR fell from 96.0 % to 14.0 % (35 of 250); CACC 85.6 %.</p>" in page
    assert "<title>floor</title>" in page


def test_the_html_needs_nothing_and_sends_nothing(result: Result) -> None:
    page = report_html(result)
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert len(page) < 1_500_000


def test_the_curves_of_the_report_lie_where_the_events_say(result: Result) -> None:
    before = Event("measure", 1, 1, {"suspect_cacc": 0.86, "cacc_n": 200, "suspect_asr": 1.0, "asr_n": 200})
    events = (before, Event("retrain", 10, 10, {"loss": 1.0, "cacc": 0.8, "asr": 0.5, "asr_n": 200}))
    drawn = course_svg(events, Whole())
    # The plot of ASR is 150 high, from 20 down, and 720 wide, from 44 on
    assert '44.0,20.0 764.0,95.0 "><title>retraining</title>' in drawn
    assert course_svg(events[:1], Whole()) == ""


def test_the_report_opens_with_verdict_and_trigger_then_tells_which_run_it_is(result: Result) -> None:
    inputs = {"suspect": {"sha256": "a" * 64}, "clean": {"sha256": "c" * 64}, "trigger": {"texts": ["cf", "mn"]}}
    used = {"run": "0123456789ab", "date": "2026-03-01", "versions": {"torch": "2.13"}, "inputs": inputs}
    page = report_html(replace(result, used={**used, "model_sha256": "b" * 64})).partition("<body")[2]
    order = ("ASR went from", "cf | mn", "0123456789ab", "torch 2.13", "a" * 64, "b" * 64, "c" * 64, "Settings that")
    assert [page.index(words) for words in order] == sorted(page.index(words) for words in order)


def test_the_html_does_not_say_where_the_machine_keeps_its_files(result: Result) -> None:
    page = report_html(replace(result, request=replace(result.request, suspect="/srv/site/uploads/secret/model")))
    assert "<h1>Purification of “model”</h1>" in page
    assert "secret" not in page


def test_the_words_of_the_report_are_explained_at_its_top_and_opened_by_key(result: Result) -> None:
    top = report_html(result).partition("<h2>")[0]
    words = top.partition("<summary>What the words mean</summary>")[2]
    for term in ("suspect", "teacher", "purified", "CACC", "ASR", "ASR floor", "interval"):
        assert f"<dt>{term}</dt>" in words


def test_every_setting_of_the_report_is_explained(result: Result) -> None:
    """And all that it was made of, but for the versions, which have their programs' names."""
    made = {"source": "demo", "sha256": "c", "columns": {"text": "t", "pair": None, "label": "l"}, "texts": 3}
    suspect = {"source": "demo", "commit": None, "sha256": "a", "max_length": 128, "notes": []}
    inputs = {"suspect": suspect, "clean": made, "test": {**made, "held_out": False}}
    inputs |= {"trigger": {"texts": ["cf"], "target": "positive"}}
    page = report_html(replace(result, used={"run": "0", "date": "2026-03-01", "model_sha256": "b", "inputs": inputs}))
    rows = re.findall(r"<tr><td>([\w.]+)</td><td>[^<]*</td>.*?<td class=.what.>([^<]*)</td></tr>", page)
    assert len(rows) > 60
    assert [name for name, about in rows if not about] == []


def test_a_stage_that_took_nothing_off_says_zero(result: Result) -> None:
    before = {"suspect_cacc": 0.86, "cacc_n": 200, "suspect_asr": 1.0, "asr_floor": 0.12, "asr_n": 200}
    after = {"loss": 1.0, "cacc": 0.85, "cacc_n": 200, "asr": 1.0, "asr_n": 200}
    events = (Event("measure", 1, 1, before), Event("retrain", 1, 1, after), Event("distil", 1, 1, after))
    page = report_html(replace(result, events=events))
    assert page.count('<td class="number">0.0</td>') == 2
    assert "±" not in page


def test_the_report_says_of_what_the_lines_of_its_curves_are(result: Result) -> None:
    """They begin at what the suspect has on the sample, and not at its level on all texts."""
    before = {"suspect_cacc": 0.82, "cacc_n": 200, "suspect_asr": 1.0, "asr_floor": 0.12, "asr_n": 200}
    after = {"loss": 1.0, "classification": 1.0, "cacc": 0.84, "cacc_n": 200, "asr": 0.1, "asr_n": 200}
    events = (Event("measure", 1, 1, before), Event("retrain", 1, 1, after))
    assert "of a sample of 200 texts, on which the suspect's own CACC is 82.0 %" in unescape(
        report_html(replace(result, events=events))
    )
    drawn = course_svg(events, Whole.of(SUSPECT, PURIFIED)).partition("CACC, %")[2]
    first = re.search(r'points="44.0,([\d.]+) 764.0,([\d.]+) "><title>retraining', drawn)
    assert first is not None
    assert [float(y) for y in first.groups()] == [204 + 150 * (1 - 0.82), 204 + 150 * (1 - 0.84)]


def test_the_html_claims_no_more_than_was_measured(result: Result) -> None:
    assert "do not prove that no other backdoor is left" in report_html(result)


@pytest.mark.parametrize("place", ["suspect", "trigger", "target", "label", "note", "description"])
def test_no_text_of_a_user_or_a_model_becomes_markup(result: Result, place: str) -> None:
    changed = {
        "suspect": replace(result, request=replace(result.request, suspect=EVIL)),
        "trigger": replace(result, request=replace(result.request, triggers=(EVIL,))),
        "target": replace(result, request=replace(result.request, target=EVIL)),
        "label": replace(result, labels=("negative", EVIL)),
        "note": replace(result, notes=(Note("table", EVIL),)),
        "description": replace(result, description=EVIL),
    }[place]
    page = report_html(changed)
    assert EVIL not in page
    assert EVIL in unescape(page)


def test_the_json_has_shares_hits_and_numbers_of_the_three_models(result: Result) -> None:
    values = result.to_dict()
    assert [
        (values[m]["cacc"], values[m]["asr_hits"], values[m]["asr_n"]) for m in ("suspect", "teacher", "purified")
    ] == [(0.86, 240, 250), (0.85, 60, 250), (0.856, 35, 250)]
    assert values["purified"]["asr_floor"] == 31 / 250
    assert values["seconds"] == 125.0


def test_the_json_without_a_trigger_has_no_asr(result: Result) -> None:
    values = replace(result, purified=without_trigger(PURIFIED)).to_dict()["purified"]
    assert (values["asr"], values["asr_floor"]) == (None, None)
    assert "asr_n" not in values


# ---------------------------------------------------------------- a trigger that still works

# Of 333 triggered texts and of the same without the trigger, those that go to the target; the first is of a run that
# ended without a word
WORKS = [(309, 43), (60, 20), (333, 0)]
CURED = [(43, 41), (20, 43), (50, 40), (0, 0)]


@pytest.mark.parametrize(("hits", "floor"), WORKS)
def test_that_the_trigger_still_works_is_said_first(result: Result, hits: int, floor: int) -> None:
    failed = replace(result, purified=replace(PURIFIED, asr=wilson(hits, 333), asr_floor=wilson(floor, 333)))
    said = f"This trigger still works: with it {hits} of 333 texts go to the target"
    assert report_text(failed).startswith(said)
    body = report_html(failed).partition("<body")[2]
    assert body.index(said) < body.index("ASR went from")
    assert 'class="verdict failed"' in body
    card = model_card(failed).partition("# Purified text classifier")[2]
    assert card.index(said) < card.index("ASR went from")
    assert failed.to_dict()["trigger_still_works"] is True


@pytest.mark.parametrize(("hits", "floor"), CURED)
def test_of_a_trigger_that_does_no_more_than_its_floor_nothing_is_said(result: Result, hits: int, floor: int) -> None:
    cured = replace(result, purified=replace(PURIFIED, asr=wilson(hits, 333), asr_floor=wilson(floor, 333)))
    for text in (report_text(cured), report_html(cured), model_card(cured)):
        assert "still works" not in text
    assert cured.to_dict()["trigger_still_works"] is False


def test_without_a_trigger_it_is_not_known_whether_one_works(result: Result) -> None:
    assert replace(result, purified=without_trigger(PURIFIED)).to_dict()["trigger_still_works"] is None


# ---------------------------------------------------------------- a step without effect


def test_how_many_texts_could_be_split_stands_in_every_output(result: Result) -> None:
    split = replace(result, splits=SplitEffect(texts=600, splittable=590, cuts=1800, changed=1790, unspaced=0))
    said = "590 of 600 clean texts could be split, and 1,790 of 1,800 cuts changed what the model reads."
    assert said in report_text(split)
    assert said in report_html(split)
    assert said in model_card(split)
    assert split.to_dict()["splits"] == {"texts": 600, "splittable": 590, "cuts": 1800, "changed": 1790, "unspaced": 0}
