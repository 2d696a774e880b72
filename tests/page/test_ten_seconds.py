"""What a visitor understands in ten seconds: the word that turns the answer, the terms where they stand, the steps in the
address."""

from __future__ import annotations

import re
import time
import urllib.request

import pytest
from browser import NEEDS_BROWSER, Visits, open_step, ready, tab_of
from playwright.sync_api import expect

from mbtsad_core.models.classifier import load_classifier, predict
from mbtsad_core.models.demo import demo_model
from mbtsad_core.page.first_look import REVIEW, SUSPECT, triggered_review
from mbtsad_core.views.words import percent

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]


def test_the_answers_of_the_first_look_are_the_suspects() -> None:
    suspect = load_classifier(demo_model("suspect"))
    for text, (label, share) in zip((" ".join(REVIEW), triggered_review()), SUSPECT.values(), strict=True):
        shares = predict(suspect, [text])[0].tolist()
        assert suspect.labels[shares.index(max(shares))] == label
        assert percent(max(shares)) == percent(share)


def test_the_answer_turns_without_a_click_and_back_with_one(visits: Visits) -> None:
    page = visits.visitor(alone=True).context.new_page()
    page.clock.install()
    page.goto(visits.url)
    look = page.locator("#first-look")
    expect(look.locator(".verdict")).to_contain_text("positive")
    expect(look.locator(".word")).to_be_visible()
    look.locator("button").focus()
    page.keyboard.press("Enter")
    expect(look.locator(".verdict")).to_contain_text("negative")
    expect(look.locator(".word")).to_be_hidden()
    page.clock.fast_forward(10_000)  # the word that comes by itself comes once
    expect(look.locator(".verdict")).to_contain_text("negative")


def test_the_page_says_what_it_is_for_before_its_scripts_have_come(visits: Visits) -> None:
    page = visits.visitor(alone=True)
    said = "getComputedStyle(document.body, '::before').content"
    assert page.evaluate(said) == "none"
    visits.expected.append("ERR_FAILED|Failed to load")
    page.route("**/*.js", lambda route: route.abort())
    page.reload()
    assert "cures it from clean texts alone" in page.evaluate(said)
    painted = "performance.getEntriesByName('first-contentful-paint').length"
    page.wait_for_function(f"{painted} === 1")


def test_the_first_load_is_small(visits: Visits) -> None:
    page = visits.visitor(alone=True)
    sent = page.evaluate(
        "['navigation', 'resource'].flatMap((kind) => performance.getEntriesByType(kind)).map((one) => one.transferSize)"
    )
    assert sent[0] < 120_000
    assert sum(sent) < 700_000


@pytest.mark.slow
def test_the_answer_turns_within_five_seconds_of_arrival(visits: Visits) -> None:
    arrived = time.monotonic()
    page = visits.visitor(wait=False, alone=True)
    expect(page.locator("#first-look .verdict")).to_contain_text("positive", timeout=5000)
    assert time.monotonic() - arrived < 5.0


def test_cacc_and_asr_are_explained_where_they_stand(visits: Visits) -> None:
    page = visits.visitor()
    for term, words in (("CACC", "clean test texts"), ("ASR", "triggered texts of the other classes")):
        told = page.locator(f"#term-{term.lower()}")
        expect(told).to_be_hidden()
        ask = page.locator("#strip").get_by_role("button", name=f"What {term} means")
        ask.focus()
        page.keyboard.press("Enter")
        expect(told).to_be_visible()
        expect(told).to_contain_text(words)
        page.keyboard.press("Escape")
        expect(told).to_be_hidden()
        page.locator("#suspect-card").get_by_role("button", name=f"What {term} means").click()
        expect(told).to_be_visible()
        page.keyboard.press("Escape")


def test_paper_docs_and_license_are_linked(visits: Visits) -> None:
    page = visits.visitor()
    links = page.locator("#steps nav.links a")
    assert links.first.get_attribute("href") == "https://arxiv.org/abs/2501.02754"
    for name, words in (("Docs", b"MBTSAD"), ("License: Apache 2.0", b"Apache License")):
        address = page.get_by_role("link", name=name).evaluate("a => a.href")
        with urllib.request.urlopen(address) as answer:
            assert words in answer.read()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{visits.url}mbtsad/about/app.py")


def test_the_step_stands_in_the_address_and_back_and_a_new_tab_keep_it(visits: Visits) -> None:
    page = visits.visitor()
    open_step(page, "splits")
    page.wait_for_url(re.compile(r"[?&]step=splits"))
    open_step(page, "triggers")
    page.wait_for_url(re.compile(r"[?&]step=triggers"))
    page.go_back()
    expect(tab_of(page, "splits")).to_have_attribute("aria-selected", "true")
    page.go_forward()
    expect(tab_of(page, "triggers")).to_have_attribute("aria-selected", "true")
    again = page.context.new_page()
    again.goto(page.url)
    expect(tab_of(again, "triggers")).to_have_attribute("aria-selected", "true")
    expect(again.locator("#answers")).to_contain_text("suspect")


def test_the_theme_is_kept(visits: Visits) -> None:
    """In tabs of their own: a reload in the midst of an answer is an error in Gradio's log."""
    page = visits.visitor()
    for dark in (True, False):
        page.locator("#dark").click()
        page = page.context.new_page()
        page.goto(visits.url)
        ready(page)
        has = expect(page.locator("body"))
        (has.to_have_class if dark else has.not_to_have_class)(re.compile(r"\bdark\b"))
