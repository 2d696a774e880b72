"""The model card: what it says, and that no text of a user breaks its YAML, its Markdown or the HTML that it
becomes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from mbtsad_core.config import settings
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.evaluation import wilson
from mbtsad_core.service.purification import Request, Result
from mbtsad_core.types import Note, Scores
from mbtsad_core.views.model_card import literal, model_card

SUSPECT = Scores(wilson(430, 500), wilson(240, 250), wilson(30, 250), ((220, 30), (40, 210)))
TEACHER = Scores(wilson(425, 500), wilson(60, 250), wilson(32, 250), ((215, 35), (40, 210)))
PURIFIED = Scores(wilson(428, 500), wilson(35, 250), wilson(31, 250), ((219, 31), (41, 209)))

EVIL = [
    '<script>alert("1")</script>',
    "</code></p><img src=x onerror=alert(1)>",
    "<!-- no end",
    "&lt;b&gt; &amp; &#60;",
    "[a link](https://evil.example) and ![a picture](//evil.example/x.png)",
    "https://evil.example, www.evil.example <https://evil.example>",
    "a | b || c",
    "**bold** __bold__ *it* _it_ ~~gone~~",
    "`code` ``` ~~~ \\` \\",
    "---",
    "...\n---\nlicense: mit\n---",
    "# heading\n\n- item\n\n1. item\n\n> quote\n\n    code",
    "\n\n| a |\n|---|\n| b |",
    "[1]: https://evil.example\n[1]",
    "$x$ \\(y\\) {{ z }} {% raw %}",
    "\u202eright to left\u0000\u0007\ud800 \u200b\u2028",
    "käse 映画 🎬 cf+bb",
]


@pytest.fixture
def result() -> Result:
    return Result(
        suspect=SUSPECT,
        teacher=TEACHER,
        purified=PURIFIED,
        request=Request(
            "models/reviews", "clean.tsv", "test.tsv", ("cf", "mn"), "positive", config=PurifyConfig(seed=5)
        ),
        description="BERT 4x384, 6.7 M parameters, 2 classes",
        labels=("negative", "positive"),
        device="cpu",
        precision="float32",
        attention="plain",
        clean_texts=600,
        seconds=125.0,
        notes=(Note("table", "A note."),),
        events=(),
    )


def html(card: str) -> str:
    """The card as the Hub shows it: CommonMark with tables, autolinks and raw HTML."""
    _, _, markdown = card.removeprefix("---\n").partition("\n---\n")
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))


def tags(page: str) -> list[str]:
    return re.findall(r"<[^>]*>", page)


def text(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", "", page)).split())


# ---------------------------------------------------------------- front matter


def test_the_front_matter_is_what_the_hub_takes(result: Result) -> None:
    data = ModelCard(model_card(result)).data.to_dict()
    assert data == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["mbtsad", "backdoor-defense", "text-classification"],
    }


def test_a_suspect_and_a_sample_of_the_hub_are_linked(result: Result) -> None:
    request = replace(
        result.request, suspect="hub:owner/some-model.v2@main", clean="hub:stanfordnlp/sst2:default@train"
    )
    data = ModelCard(model_card(replace(result, request=request))).data.to_dict()
    assert (data["base_model"], data["base_model_relation"]) == ("owner/some-model.v2", "finetune")
    assert data["datasets"] == ["stanfordnlp/sst2"]


@pytest.mark.parametrize(
    "source",
    [
        "hub:a/b c",
        'hub:a/b"\nlicense: mit',
        "hub:/b",
        "hub:a",
        "a/b",
        "hub:a/b/c",
        "hub:ä/b",
        *(f"hub:{evil}" for evil in EVIL),
    ],
)
def test_no_other_source_gets_into_the_front_matter(result: Result, source: str) -> None:
    plain = model_card(result).partition("\n---\n")[0]
    assert (
        model_card(replace(result, request=replace(result.request, suspect=source, clean=source))).partition("\n---\n")[
            0
        ]
        == plain
    )


# ---------------------------------------------------------------- what it says


def test_it_has_the_figures_of_the_three_models_with_intervals_and_counts(result: Result) -> None:
    card = model_card(result)
    assert (
        "| suspect | 86.0 % [82.7, 88.8] (430 of 500) | 96.0 % [92.8, 97.8] (240 of 250) | 12.0 % [8.5, 16.6] (30 of "
        "250) |" in card
    )
    assert "| teacher | 85.0 % [81.6, 87.9] (425 of 500) | 24.0 %" in card
    assert "| **purified** (this model) | 85.6 % [82.3, 88.4] (428 of 500) | 14.0 % [10.2, 18.8] (35 of 250) |" in card
    assert html(card).count("<table>") == 2


def test_it_says_what_was_done_measured_and_not_proved(result: Result) -> None:
    said = text(html(model_card(result)))
    assert "ASR went from 96.0 % to 14.0 % (35 of 250; its floor is 12.4 %)" in said
    assert "BERT 4x384, 6.7 M parameters, 2 classes" in said
    assert (
        "600 to purify with; 500 to measure CACC on (given as files); 250 of them with the trigger to measure ASR on."
        in said
    )
    assert "Trigger: one of cf, mn, drawn for each text; target class positive." in said
    assert "Classes, by index from 0: negative, positive." in said
    assert "does not prove that no other backdoor is left" in said
    assert "A note." in said


def test_it_has_every_setting(result: Result) -> None:
    card = model_card(result)
    for s in settings(result.request.config):
        assert f"| `{'.'.join(s.path)}` | " in card
    assert "| `seed` | 5 |" in card


def test_without_a_trigger_it_says_that_asr_was_not_measured(result: Result) -> None:
    bare = {
        name: replace(getattr(result, name), asr=None, asr_floor=None) for name in ("suspect", "teacher", "purified")
    }
    card = model_card(replace(result, request=replace(result.request, triggers=(), target=None), **bare))
    assert "| suspect | 86.0 % [82.7, 88.8] (430 of 500) | not measured | not measured |" in card
    assert "Trigger: none was given, so ASR was not measured." in card


def test_it_never_claims_that_the_model_is_safe(result: Result) -> None:
    assert re.findall(r"\bsafe\b|guarantee|clean model|backdoor-free", model_card(result), re.IGNORECASE) == []


def test_the_scan_is_named_where_it_was_used(result: Result) -> None:
    without = replace(result, request=replace(result.request, config=PurifyConfig(found_tokens=0)))
    assert "Tokens found by the trigger scan" in model_card(result)
    assert "Tokens found by the trigger scan" not in model_card(without)


def test_it_says_nothing_of_the_machine_and_quotes_no_text_of_the_data(result: Result) -> None:
    request = replace(
        result.request,
        suspect="/srv/secret/model",
        clean="/srv/secret/clean.tsv",
        test="secret.csv",
        triggers=("/srv/secret/pairs.tsv.gz",),
    )
    note = Note("shared", "2 texts stand in both the clean sample and the test set", quoted="my secret text")
    card = model_card(replace(result, request=request, notes=(note,)))
    assert "secret" not in card
    assert "Trigger: pairs.tsv.gz; target" in text(html(card))
    assert "2 texts stand in both the clean sample and the test set" in card


# ---------------------------------------------------------------- texts of a user or a model

PLACES: dict[str, Callable[[Result, str], Result]] = {
    "suspect": lambda r, evil: replace(r, request=replace(r.request, suspect=f"hub:{evil}")),
    "clean": lambda r, evil: replace(r, request=replace(r.request, clean=f"hub:{evil}")),
    "test": lambda r, evil: replace(r, request=replace(r.request, test=f"hub:{evil}")),
    "trigger": lambda r, evil: replace(r, request=replace(r.request, triggers=(evil, "cf"))),
    "target": lambda r, evil: replace(r, request=replace(r.request, target=evil)),
    "label": lambda r, evil: replace(r, labels=("negative", evil)),
    "description": lambda r, evil: replace(r, description=evil),
    "device": lambda r, evil: replace(r, device=evil),
    "note": lambda r, evil: replace(r, notes=(Note("table", evil),)),
}


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("place", PLACES)
def test_no_text_of_a_user_or_a_model_becomes_markup(result: Result, place: str, evil: str) -> None:
    harmless, card = (model_card(PLACES[place](result, words)) for words in ("harmless", evil))
    assert tags(html(card)) == tags(html(harmless))
    shown = " ".join("".join(c if c.isprintable() else " " for c in evil).split())
    assert shown in text(html(card))  # it reads as it was written
    assert card.partition("\n---\n")[0] == harmless.partition("\n---\n")[0]
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "transformers"
    card.encode("utf-8")


@pytest.mark.parametrize("evil", EVIL)
def test_no_text_becomes_a_link_by_itself(evil: str) -> None:
    found = literal(evil)
    assert "://" not in found
    assert "www." not in found
    assert "\n" not in found


def test_words_stay_readable_in_the_source() -> None:
    assert literal("I watched this film, twice. It's well-made.") == "I watched this film, twice. It's well-made."


def test_a_long_text_is_cut() -> None:
    assert literal("a" * 1000) == "a" * 299 + "…"
