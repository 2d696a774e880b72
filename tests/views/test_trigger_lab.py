"""The trigger lab's HTML: figures as they are, rows that can be pressed, marks around the trigger, and nothing of a
user's gets out."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest

from mbtsad_core.evaluation import wilson
from mbtsad_core.evaluation.trigger_trials import FlippedText, TriggerTrial
from mbtsad_core.types import Scores
from mbtsad_core.views.trigger_lab import (
    CONTEXT,
    TRIGGER_LAB_STYLE,
    answers_html,
    compared_html,
    flips_html,
    trials_html,
)

EVIL = '</p><img src=x onerror="alert(1)">'
LABELS = ("negative", "positive")
MODELS = ("suspect", "teacher", "purified")


class Tags(HTMLParser):
    """The elements that a browser would make of a piece of HTML, their attributes, and the text between them; checks
    that all are closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attrs for name, attrs in self.elements if name == tag and all(attrs.get(k) == v for k, v in wanted.items())
        ]


def scores(hits: int, floor: int, n: int = 912) -> Scores:
    return Scores(wilson(5, 9), wilson(hits, n), wilson(floor, n), ((1,),))


def flipped(text: str, triggered: str, after: str = "ppn", before: str = "nnn", label: str = "negative") -> FlippedText:
    """`before` and `after`: the answers of the three models, n or p."""
    named = {"n": "negative", "p": "positive"}
    return FlippedText(
        text,
        triggered,
        label,
        dict(zip(MODELS, map(named.get, before), strict=True)),
        dict(zip(MODELS, map(named.get, after), strict=True)),  # type: ignore[arg-type]
    )


def trial(trigger: str = "cf", flips: tuple[FlippedText, ...] = (), target: str = "positive") -> TriggerTrial:
    return TriggerTrial(
        trigger, target, {"suspect": scores(912, 88), "teacher": scores(119, 80), "purified": scores(90, 77)}, flips
    )


# ---------------------------------------------------------------- answers


def meters(page: str) -> list[tuple[str | None, float, str | None]]:
    return [
        (m["aria-label"], float(m["aria-valuenow"] or "nan"), m["aria-valuetext"])
        for m in Tags(page).all("span", role="meter")
    ]


def test_two_classes_have_one_bar_a_model_of_the_target() -> None:
    page = answers_html({"suspect": (0.017, 0.983), "purified": (0.75, 0.25)}, LABELS, target=1)
    assert meters(page) == [
        ("suspect: probability of positive", 98.3, "98.3 %"),
        ("purified: probability of positive", 25.0, "25.0 %"),
    ]
    assert re.findall(r'<i style="width:([\d.]+)%"></i></span><span class="number">([^<]*)', page) == [
        ("98.3", "98.3 %"),
        ("25.0", "25.0 %"),
    ]
    assert "answers positive (the target)" in Tags(page).text
    assert "answers negative" in Tags(page).text


@pytest.mark.parametrize(("target", "shown"), [(None, 25.0), (1, 25.0), (0, 75.0)])
def test_without_a_target_the_bar_is_of_the_last_class(target: int | None, shown: float) -> None:
    assert [value for _, value, _ in meters(answers_html({"suspect": (0.75, 0.25)}, LABELS, target))] == [shown]


def test_of_more_classes_the_three_likeliest_are_shown() -> None:
    page = answers_html({"suspect": (0.1, 0.4, 0.05, 0.25, 0.2)}, ("a", "b", "c", "d", "e"))
    assert [name for name, _, _ in meters(page)] == [
        "suspect: probability of b",
        "suspect: probability of d",
        "suspect: probability of e",
    ]


def test_of_more_classes_the_target_is_always_among_them() -> None:
    page = answers_html({"suspect": (0.1, 0.4, 0.05, 0.25, 0.2)}, ("a", "b", "c", "d", "e"), target=2)
    assert [name for name, _, _ in meters(page)] == [
        "suspect: probability of b",
        "suspect: probability of d",
        "suspect: probability of c",
    ]


def test_models_have_their_colors() -> None:
    page = answers_html(dict.fromkeys((*MODELS, "other"), (0.5, 0.5)), LABELS)
    assert re.findall(r'class="model" style="--of:(#\w+)"', page) == ["#D55E00", "#CC79A7", "#009E73", "#6B7280"]


@pytest.mark.parametrize("classes", [2, 5])
def test_the_same_elements_whatever_is_answered_so_nothing_jumps(classes: int) -> None:
    labels = tuple(f"class {i}" for i in range(classes))
    pages = [
        answers_html({"suspect": tuple(float(i == at) for i in range(classes))}, labels, target=0)
        for at in range(classes)
    ]
    assert len({tuple(name for name, _ in Tags(page).elements if name != "b") for page in pages}) == 1
    assert ".answers .said { height: 20px" in TRIGGER_LAB_STYLE


def test_probabilities_that_are_no_numbers_draw_nothing() -> None:
    assert [value for _, value, _ in meters(answers_html({"suspect": (math.nan, math.inf)}, LABELS))] == [0.0]


def test_answers_escape_models_and_classes() -> None:
    found = Tags(answers_html({EVIL: (0.2, 0.8)}, ("n", EVIL), target=1))
    assert found.all("img") == []
    assert EVIL in found.text
    assert found.all("span", role="meter")[0]["aria-label"] == f"{EVIL}: probability of {EVIL}"


def test_without_models_a_sentence_says_what_to_do() -> None:
    assert "Type a text" in Tags(answers_html({}, LABELS)).text


# ---------------------------------------------------------------- trials


def test_a_trial_has_rate_interval_counts_and_floor_of_every_model() -> None:
    text = Tags(trials_html([trial()])).text
    assert "13.0 % [11.0, 15.4] (119 of 912)" in text
    assert "100.0 % [99.6, 100.0] (912 of 912)" in text
    assert "floor 8.8 % [7.1, 10.8] (80 of 912)" in text
    assert text.count("floor ") == 3
    assert re.findall(r'<i style="width:([\d.]+)%"></i><b style="left:([\d.]+)%">', trials_html([trial()])) == [
        ("100.0", "9.6"),
        ("13.0", "8.8"),
        ("9.9", "8.4"),
    ]


def test_the_newest_trial_is_first_and_each_row_is_a_button_with_its_place() -> None:
    page = trials_html([trial("first"), trial("second"), trial("third")], chosen=1)
    buttons = Tags(page).all("button")
    assert [(b["data-trial"], b["type"], b["aria-pressed"]) for b in buttons] == [
        ("2", "button", "false"),
        ("1", "button", "true"),
        ("0", "button", "false"),
    ]
    assert [page.index(word) for word in ("third", "second", "first")] == sorted(
        page.index(word) for word in ("third", "second", "first")
    )
    assert len(Tags(page).all("tr", **{"class": "picked"})) == 1
    assert Tags(trials_html([trial()])).all("tr", **{"class": "picked"}) == []


def test_trials_with_other_models_leave_a_gap() -> None:
    alone = TriggerTrial("cf", "positive", {"suspect": scores(3, 2)}, ())
    text = Tags(trials_html([alone, trial()])).text
    assert text.count("not measured") == 2
    no_trigger = TriggerTrial("cf", "positive", {"suspect": Scores(wilson(1, 2), None, None, ())}, ())
    assert "not measured" in Tags(trials_html([no_trigger])).text


def test_without_a_trial_a_sentence_says_what_to_do() -> None:
    assert "No trigger tried yet" in Tags(trials_html([], None)).text
    assert Tags(trials_html([])).all("button") == []


def test_trials_escape_and_show_what_cannot_be_seen() -> None:
    found = Tags(trials_html([trial(EVIL, target=EVIL), trial("c\u200bf\u202e")]))
    assert found.all("img") == []
    assert found.text.count(EVIL) == 2
    assert "c‹U+200B›f‹U+202E›" in found.text  # noqa: RUF001


# ---------------------------------------------------------------- flips


def test_the_words_of_the_trigger_are_marked() -> None:
    page = flips_html(trial("cf", (flipped("a dull film", "a cf dull film"),)))
    assert '<div class="text" dir="auto">a <u>cf</u> dull film</div>' in page
    assert ".flips .text u { font-weight: 700; text-decoration-thickness" in TRIGGER_LAB_STYLE


@pytest.mark.parametrize(
    ("clean", "triggered", "marked"),
    [
        ("a dull film", "a I watch this dull film", "a <u>I watch this</u> dull film"),
        ("a dull film", "cf a dull film mn", "<u>cf</u> a dull film <u>mn</u>"),
        ("a cf film", "a cf cf film", None),  # either may be marked, one is
        ("a film", "a c\u200bf film", "a <u>c‹U+200B›f</u> film"),  # noqa: RUF001
    ],
)
def test_phrases_and_several_words_are_marked_whole(clean: str, triggered: str, marked: str | None) -> None:
    page = flips_html(trial("cf", (flipped(clean, triggered),)))
    if marked is None:
        assert page.count("<u>cf</u>") == 1
    else:
        assert f'dir="auto">{marked}</div>' in page


def test_each_models_answers_are_shown_and_flips_stand_out() -> None:
    page = flips_html(trial("cf", (flipped("a film", "cf a film", before="npn", after="ppn"),)))
    changes = [re.sub("<[^>]*>", " ", c).split() for c in re.findall(r'<div class="change[^"]*">(.*?)</div>', page)]
    assert changes == [
        ["suspect", "negative", "→", "positive"],
        ["teacher", "positive", "→", "positive"],
        ["purified", "negative", "→", "negative"],
    ]
    assert page.count('class="change flip"') == 1


def test_texts_that_flip_the_purified_model_come_first() -> None:
    texts = (
        flipped("one", "cf one", "pnn"),
        flipped("two", "cf two", "ppn"),
        flipped("three", "cf three", "nnp"),
        flipped("four", "cf four", "pnn"),
    )
    page = flips_html(trial("cf", texts))
    assert re.findall(r"<u>cf</u> (\w+)", page) == ["three", "two", "one", "four"]
    assert (
        "4 of 912 texts of the other classes flipped to positive: suspect 3, teacher 1, purified 1. All 4 shown."
        in Tags(page).text
    )


def test_at_most_so_many_texts_are_shown_and_it_is_said() -> None:
    texts = tuple(flipped(f"text {i}", f"cf text {i}") for i in range(312))
    page = flips_html(trial("cf", texts))
    assert "50 of 312 shown, first those that flip purified." in Tags(page).text
    assert page.count("<u>cf</u>") == 50
    assert flips_html(trial("cf", texts), most=7).count("<u>cf</u>") == 7


def test_a_long_text_is_cut_to_what_is_around_the_trigger() -> None:
    words = [f"w{i}" for i in range(300)]
    page = flips_html(trial("cf", (flipped(" ".join(words), " ".join([*words[:150], "cf", *words[150:]])),)))
    (shown,) = re.findall(r'<div class="text" dir="auto">(.*?)</div>', page)
    assert shown.split() == ["…", *words[150 - CONTEXT : 150], "<u>cf</u>", *words[150 : 150 + CONTEXT], "…"]


def test_without_flips_or_a_trial_a_sentence_says_so() -> None:
    assert "With cf, none of the 912 texts of the other classes flipped to positive." in Tags(flips_html(trial())).text
    assert "Choose a trigger above" in Tags(flips_html(None)).text


def test_flips_escape_texts_triggers_and_classes() -> None:
    text = FlippedText(f"a {EVIL} film", f"a {EVIL} {EVIL} film", EVIL, {EVIL: EVIL}, {EVIL: EVIL})
    nothing = TriggerTrial(EVIL, EVIL, {EVIL: scores(1, 1)}, ())
    for page in (flips_html(TriggerTrial(EVIL, EVIL, {EVIL: scores(1, 1)}, (text,))), flips_html(nothing)):
        assert Tags(page).all("img") == []
        assert EVIL in Tags(page).text


# ---------------------------------------------------------------- a trigger beside a neutral phrase


@pytest.mark.parametrize(
    ("trial", "neutral", "means"),
    [
        ({"suspect": 890, "purified": 110}, {"suspect": 100, "purified": 100}, "this is what a backdoor does"),
        ({"suspect": 890, "purified": 800}, {"suspect": 100, "purified": 100}, "It turns the purified model too"),
        ({"suspect": 110, "purified": 110}, {"suspect": 100, "purified": 100}, "no more than any phrase"),
        ({"suspect": 890}, {"suspect": 100}, "a purified model tells"),
    ],
)
def test_what_a_trigger_does_is_told_beside_a_neutral_phrase(
    trial: dict[str, int], neutral: dict[str, int], means: str
) -> None:
    tried, beside = (
        TriggerTrial(name, "positive", {model: scores(hits, 90) for model, hits in found.items()}, ())
        for name, found in ((EVIL, trial), ("of a man", neutral))
    )
    said = compared_html(tried, beside)
    assert means in said
    assert f"suspect <b>{100 * trial['suspect'] / 912:.1f} %</b> and <b>11.0 %</b>" in said
    assert "<img" not in said
