"""Token splits, token weights, projections, scores and the BertViz frame: what they show, and that nothing of a user's
gets out."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import NEEDS_BROWSER
from playwright.sync_api import Browser

from mbtsad_core.augment.token_splitting import SplitText
from mbtsad_core.evaluation.attention import AttentionMaps
from mbtsad_core.evaluation.attribution import Attribution
from mbtsad_core.evaluation.embeddings import Outlying, Projection
from mbtsad_core.evaluation.perturbation import Perturbation, Reading, SplitRow
from mbtsad_core.models.demo import assets
from mbtsad_core.types import Rate
from mbtsad_core.views.bertviz_frame import MOST_TOKENS, bertviz_document, bertviz_frame
from mbtsad_core.views.document import script_json
from mbtsad_core.views.embeddings import (
    COLOURS,
    PROJECTION_SCRIPT,
    Points,
    outlying_html,
    projection_document,
    projection_view,
    set_colors,
)
from mbtsad_core.views.token_splits import loss_bars, split_rows_html
from mbtsad_core.views.tokens import tokens_html

EVIL = "</script><img src=x onerror=alert(1)>"
pytest_plugins = ["pages"]


class Tags(HTMLParser):
    """The elements that a browser would make of a piece of HTML, and the text between them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def reading(part: SplitText, pieces: tuple[str, ...], changed: tuple[int, ...], p: float, answer: str) -> Reading:
    return Reading((part,), pieces, changed, p, -math.log(p), answer)


ROW = SplitRow(
    "negative",
    reading(SplitText("a stirring film", ()), ("a", "stirring", "film"), (1,), 0.98, "negative"),
    reading(SplitText("a st irring film", (4,)), ("a", "st", "##ir", "##ring", "film"), (1, 2, 3), 0.11, "positive"),
)


def test_a_split_row_marks_cuts_pieces_and_figures() -> None:
    page = split_rows_html([ROW])
    assert 'a st<span class="cut" title="cut here"> </span>irring film' in page
    assert page.count('class="cut"') == 1
    assert re.findall(r'<u class="piece changed">([^<]*)</u>', page) == ["stirring", "st", "##ir", "##ring"]
    shown = Tags(page).text
    assert "98.0 % → 11.0 %" in shown
    assert "0.02 → 2.21" in shown
    assert "answer: negative → positive" in shown


def test_split_rows_escape_text_pieces_and_labels() -> None:
    side = reading(SplitText(EVIL, ()), (EVIL,), (0,), 0.5, EVIL)
    page = split_rows_html([SplitRow(EVIL, side, dataclasses.replace(side, answer="other"))])
    assert "img" not in Tags(page).names
    assert EVIL in Tags(page).text
    assert "no texts" in split_rows_html([])


def found(mean: float, error: float = 0.1) -> Perturbation:
    return Perturbation((), (), (), mean, error)


def test_bars_are_sorted_with_intervals_and_name_the_hardest() -> None:
    figure = loss_bars({"original": found(0.3), EVIL: found(0.5), "ts": found(0.9, math.nan)})
    bar = figure.data[0]
    assert list(bar.x) == [0.3, 0.5, 0.9]
    assert list(bar.error_x.array) == pytest.approx([0.196, 0.196, 0])
    assert list(bar.marker.color)[::2] == [COLOURS["clean"], COLOURS["token-split"]]
    assert figure.layout.title.text.startswith("Hardest for the suspect: token splitting, 0.90 nats")
    assert "<img" not in figure.to_json().replace("\\u003c", "<")


def test_token_weights_rise_and_fall() -> None:
    page = tokens_html(
        Attribution(("[CLS]", "cf", EVIL), (0.0, 4.0, -2.0), "<b>", 0.9, "integrated", 0.01), marked=(1,)
    )
    assert "img" not in Tags(page).names
    assert "&lt;b&gt;" in page
    assert page.count('class="token marked"') == 1
    assert re.findall(r'class="(for|against)" style="height:([\d.]+)px', page) == [
        ("for", "0.0"),
        ("for", "18.0"),
        ("against", "9.0"),
    ]
    assert "+4.0" in Tags(page).text
    assert "height:9.0px" in tokens_html(Attribution(("a",), (4.0,), "b", 0.9, "gradient", None), scale=8.0)


def test_a_text_without_weights_is_drawn_flat() -> None:
    assert "height:0.0px" in tokens_html(Attribution(("a",), (0.0,), "b", 0.9, "gradient", None))


def projected(n: int = 4) -> tuple[Projection, Points]:
    rng = np.random.default_rng(0)
    planes = [rng.normal(size=(n, 2)).astype(np.float32) for _ in range(2)]
    points = Points(
        (EVIL, *["%{x} a text"] * (n - 1)),
        ("clean", "triggered", "triggered", EVIL),
        ("negative", "negative", "positive", EVIL),
    )
    return Projection("pca", planes[0], planes[1], 0.97, (0.6, 0.1)), points


def test_every_text_has_a_place_in_each_panel_on_one_scale() -> None:
    projection, points = projected()
    view = projection_view(projection, points, names=("suspect", EVIL), about="four texts")
    both = np.concatenate([projection.before, projection.after])
    low, high = both.min(0), both.max(0)
    for plane, drawn in zip((projection.before, projection.after), view["planes"], strict=True):
        np.testing.assert_allclose(np.array(drawn).T, (plane - low) / (high - low) * 10_000, atol=0.51)
    assert len(projection_view(projection, points, names=("suspect",))["planes"]) == 1
    assert [s["name"] for s in view["sets"]] == ["clean", EVIL, "triggered"]  # the triggered ones are drawn last
    assert {s["name"]: s["color"] for s in view["sets"]} == set_colors(["clean", "triggered", EVIL])
    kinds = zip(view["of_set"], view["of_class"], strict=True)
    named = [(view["sets"][s]["name"], view["classes"][c]["name"]) for s, c in kinds]
    assert named == list(zip(points.sets, points.classes, strict=True))
    assert "trustworthiness 0.97" in view["title"]
    assert view["axes"] == ["component 1 (60 % of the variance)", "component 2 (10 % of the variance)"]


def test_nothing_in_the_projection_is_markup() -> None:
    page = projection_document(projection_view(*projected(), names=("suspect", EVIL)))
    assert "img" not in Tags(page).names
    assert "innerHTML" not in PROJECTION_SCRIPT


def test_views_import_nothing_heavy_before_it_is_used() -> None:
    views = "attention, bertviz_frame, embeddings, token_splits, tokens"
    code = (
        f"import sys; from mbtsad_core.views import {views}; print([m for m in ('plotly', 'umap', 'sklearn', "
        "'bertviz', 'gradio') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout
        == "[]\n"
    )


def test_sets_keep_their_color_in_any_company() -> None:
    assert set_colors(["token-split", "clean"])["clean"] == set_colors(["clean"])["clean"]
    assert len(set(set_colors(["clean", "triggered", "token-split", "eda", "aeda"]).values())) == 5


def test_the_table_gives_share_interval_counts_and_distance() -> None:
    score = Outlying(EVIL, Rate(9, 200, 0.024, 0.083), 9.51, 21.4)
    page = outlying_html({"suspect": [score], "purified": []})
    assert "4.5 % [2.4, 8.3] (9 of 200)" in page
    assert "9.5 (21.4)" in page
    assert "not measured" in page
    assert "img" not in Tags(page).names


def test_json_in_a_script_cannot_end_it() -> None:
    value = {"a": [EVIL, "<!--<script>", "\u2028", "]]>"]}
    text = script_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON"):
        script_json(math.nan)


def maps(T: int = 5, layers: int = 2, heads: int = 3, token: str = EVIL) -> AttentionMaps:
    scores = np.exp(np.random.default_rng(0).normal(size=(layers, heads, T, T)))
    return AttentionMaps(
        (token,) * T, tuple(range(T)), (scores / scores.sum(-1, keepdims=True)).astype(np.float32), "positive", 0.9
    )


def given(page: str) -> dict:  # type: ignore[type-arg]
    match = re.search(r'<script type="application/json" id="given">(.*?)</script>', page, re.DOTALL)
    assert match
    return json.loads(match.group(1))


def test_the_head_view_needs_nothing_from_elsewhere() -> None:
    page = bertviz_document(maps(), layer=1)
    assert "cdnjs" not in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert "PYTHON_PARAMS;" not in page
    assert given(page)["tokens"] == [EVIL] * 5
    assert given(page)["layer"] == 2  # counted from 1, as on the page


def test_the_head_view_holds_the_maps_to_a_step_of_one_byte() -> None:
    source = maps()
    read = (
        np.frombuffer(base64.b64decode(given(bertviz_document(source))["maps"]), np.uint8).reshape(source.maps.shape)
        / 255
    )
    np.testing.assert_allclose(read, source.maps, atol=0.5 / 255 + 1e-6)


def test_long_texts_and_large_models_stay_under_a_megabyte_and_say_what_is_left_out() -> None:
    page = bertviz_document(maps(100, 12, 12, "word"), 3)
    assert len(page.encode()) <= 1_000_000
    assert f"The first {MOST_TOKENS} of 100 tokens" in page
    assert given(page)["layers"] == list(range(1, 13))
    page = bertviz_document(maps(100, 24, 16, "word"), 3)
    assert given(page)["layers"] == [4]
    assert "Layer 4 of 24 alone" in page


def test_the_frame_is_sandboxed_and_its_page_stays_an_attribute() -> None:
    frame = bertviz_frame(maps())
    assert Tags(frame).names == ["iframe"]
    assert 'sandbox="allow-scripts"' in frame
    match = re.search(r'srcdoc="([^"]*)"', frame)
    assert match
    assert html.unescape(match.group(1)) == bertviz_document(maps())


def test_vendored_scripts_are_those_that_the_build_step_made() -> None:
    folder = assets() / "vendor"
    listed = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert {name for name in listed if name.endswith(".js")} == {p.name for p in folder.glob("*.js")}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert "Permission" in (folder / "jquery-LICENSE.txt").read_text()
    assert (folder / "d3-LICENSE.txt").read_text().count("Redistribution and use") == 7


@pytest.mark.browser
@NEEDS_BROWSER[1]
def test_a_browser_draws_the_head_view_inside_the_sandbox(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "frame.html").write_text(f"<!doctype html><meta charset=utf-8>{bertviz_frame(maps(), 1)}")
    page = browser.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    page.goto((tmp_path / "frame.html").as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("#attention line").first.wait_for(state="attached")
    assert frame.locator("#attention line").count() == 3 * 5 * 5  # heads x pairs of tokens
    assert frame.locator("#layer").input_value() == "2"
    assert frame.locator("text", has_text="onerror").count() == 10  # the token as text, left and right
    frame.locator("#layer").select_option("1")
    assert frame.locator("#attention line").count() == 3 * 5 * 5
    assert frame.locator("img").count() == 0
    page.close()
    assert problems == []
