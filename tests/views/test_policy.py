"""The verdicts on an upload as a table: a word and a mark each, nothing of a visitor's gets out of its cell."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from mbtsad_core.vetting.uploads import FileVerdict, PolicyReport
from mbtsad_core.views.policy import POLICY_STYLE, policy_html

EVIL = "</td></table><script>alert(1)</script><img src=x onerror='alert(1)'>\""
TAKEN = PolicyReport(
    (
        FileVerdict("README.md", "ignored", "A text for readers.", "ignore.text"),
        FileVerdict("tiny/config.json", "accepted", "Settings of the model.", "accept.settings"),
        FileVerdict("tiny/model.safetensors", "accepted", "Weights.", "accept.weights"),
    )
)
PICKLE = FileVerdict(
    "pytorch_model.bin", "refused", "pytorch_model.bin is a pickle and could run code. Remove it.", "format.pickle"
)
REFUSED = PolicyReport((*TAKEN.files, PICKLE), f"Refused: {PICKLE.reason}")


class Table(HTMLParser):
    """The rows of cells that a browser would make of a piece of HTML, all element names with their attributes, and all
    text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.within = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.within = True

    def handle_endtag(self, tag: str) -> None:
        self.within = self.within and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.within:
            self.rows[-1][-1] += data


def test_every_file_has_its_row_the_refused_ones_first() -> None:
    assert Table(policy_html(REFUSED)).rows == [
        ["file", "verdict", "reason"],
        ["pytorch_model.bin", "✗refused", "pytorch_model.bin is a pickle and could run code. Remove it."],
        ["tiny/config.json", "✓accepted", "Settings of the model."],
        ["tiny/model.safetensors", "✓accepted", "Weights."],
        ["README.md", "○ignored", "A text for readers."],
    ]


def test_a_refusal_says_why_and_that_nothing_was_kept() -> None:
    page = policy_html(REFUSED)
    assert (
        "Refused: pytorch_model.bin is a pickle and could run code. Remove it. Nothing of the upload was kept."
        in Table(page).text
    )
    assert 'role="alert"' in page


def test_what_was_taken_is_counted() -> None:
    page = policy_html(TAKEN)
    assert "Upload taken: 2 files kept, 1 ignored." in Table(page).text
    assert "alert" not in page
    assert "Upload taken: 1 file kept. " in policy_html(PolicyReport(TAKEN.files[1:2]))


def test_a_problem_without_files_needs_no_table() -> None:
    page = policy_html(PolicyReport((), "No file came. Expected config.json."))
    assert "No file came. Expected config.json. Nothing of the upload was kept." in Table(page).text
    assert "<table" not in page


@pytest.mark.parametrize("verdict", ["accepted", "refused", "ignored"])
def test_nothing_of_a_visitors_becomes_an_element(verdict: str) -> None:
    file = FileVerdict(EVIL, verdict, EVIL, EVIL)  # type: ignore[arg-type]
    found = Table(policy_html(PolicyReport((file,), EVIL)))
    expected = Table(policy_html(PolicyReport((FileVerdict("a", verdict, "b", "c"),), "d")))  # type: ignore[arg-type]
    assert found.elements == expected.elements
    assert found.rows[1][0] == EVIL
    assert found.rows[1][2] == EVIL


@pytest.mark.parametrize("character", ["\n", "\x00", "\x1b", "\u202e", "\u2028", "\u200b", "\ud800"])
def test_what_cannot_be_seen_is_shown_as_an_escape(character: str) -> None:
    hidden = f"a{character}b"
    page = policy_html(PolicyReport((FileVerdict(hidden, "refused", hidden, "zip.name"),), hidden))
    assert all(character not in cell for row in Table(page).rows for cell in row)
    assert Table(page).rows[1][0] == f"a\\u{ord(character):04x}b"
    page.encode()  # can be sent


def test_a_very_long_name_is_cut_in_its_middle() -> None:
    name = Table(
        policy_html(PolicyReport((FileVerdict("x" * 60_000 + ".json", "refused", "Too long.", "zip.name"),), "No."))
    ).rows[1][0]
    assert len(name) == 120
    assert name.endswith("x.json")


def test_a_verdict_is_read_out_as_its_word_alone() -> None:
    marks = [
        attributes for tag, attributes in Table(policy_html(REFUSED)).elements if attributes.get("class") == "mark"
    ]
    assert len(marks) == 5  # of four files and of the whole
    assert all(attributes["aria-hidden"] == "true" for attributes in marks)


def test_the_table_is_read_out_as_one() -> None:
    elements = Table(policy_html(REFUSED)).elements
    assert [attributes["scope"] for tag, attributes in elements if tag == "th"] == [
        "col",
        "col",
        "col",
        "row",
        "row",
        "row",
        "row",
    ]
    assert elements[0] == ("section", {"class": "mbtsad policy", "aria-label": "What became of the upload"})


def test_every_class_that_is_styled_is_used_and_colors_are_those_of_the_shared_look() -> None:
    used = {
        c
        for report in (REFUSED, TAKEN)
        for _, attributes in Table(policy_html(report)).elements
        for c in (attributes.get("class") or "").split()
    }
    assert set(re.findall(r"\.([a-z]+)", POLICY_STYLE)) <= used
    assert not re.search(r"#[0-9a-fA-F]{3}", POLICY_STYLE)


def test_nothing_is_called_safe() -> None:
    assert "safe" not in (policy_html(REFUSED) + policy_html(TAKEN)).replace("safetensors", "").lower()
