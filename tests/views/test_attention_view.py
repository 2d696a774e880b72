"""The attention payload: its error, its size, its escaping; and the script that draws it, in node and in a browser."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from browser import NEEDS_BROWSER
from playwright.sync_api import Browser

from mbtsad_core.errors import BadData
from mbtsad_core.evaluation.attention import AttentionMaps, moved, one_map
from mbtsad_core.views.attention import (
    ATTENTION_SCRIPT,
    LARGEST,
    attention_document,
    attention_view,
    dequantise,
    payload_bytes,
    quantize,
)

EVIL = "</script><img src=x onerror=alert(1)>"
pytest_plugins = ["pages"]


def maps(
    T: int, layers: int = 2, heads: int = 3, seed: int = 0, sharp: float = 2.0, token: str = "word"
) -> AttentionMaps:
    scores = np.exp(sharp * np.random.default_rng(seed).normal(size=(layers, heads, T, T)))
    return AttentionMaps(
        tuple(f"{token}{i}" for i in range(T)),
        tuple(range(T)),
        (scores / scores.sum(-1, keepdims=True)).astype(np.float32),
        "positive",
        0.75,
    )


def three(T: int, **kind: float) -> dict[str, AttentionMaps]:
    return {name: maps(T, seed=seed, **kind) for seed, name in enumerate(("suspect", "teacher", "purified"))}  # type: ignore[arg-type]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [6, 8])
def test_a_value_is_off_by_at_most_the_promised_error(bits: int, signed: bool) -> None:
    values = np.random.default_rng(0).uniform(-2 if signed else 0, 2, (40, 40)).astype(np.float32)
    values[0, :3] = 0, 2, 1e-4
    found = quantize(values, 2.0, signed=signed, bits=bits)
    h = (1 if signed else 0.5) / found.levels
    bound = 2.0 * (2 * np.sqrt(np.abs(values) / 2) * h + h**2) + 1e-6
    read = dequantise(found, 40)
    assert (np.abs(read - values) <= bound).all()
    assert read[0, 0] == 0  # white is exactly zero
    assert read[0, 1] == 2


def test_maps_of_one_view_share_a_scale_and_the_difference_is_symmetric() -> None:
    found = three(12)
    view = attention_view(found, 1, 2)
    exact = {name: one_map(m, 1, 2) for name, m in found.items()}
    assert len({panel.map.high for panel in view.panels if panel.map}) == 1
    assert view.panels[0].map is not None
    assert view.panels[0].map.high == pytest.approx(max(m.max() for m in exact.values()))
    assert view.difference is not None
    assert view.difference.signed
    assert view.difference.high == pytest.approx(np.abs(exact["purified"] - exact["suspect"]).max())
    np.testing.assert_allclose(
        dequantise(view.difference, 12), exact["purified"] - exact["suspect"], atol=view.difference.high * 0.02
    )


@pytest.mark.parametrize("head", [0, None])
@pytest.mark.parametrize(("T", "bits", "derived"), [(30, 8, False), (440, 8, True), (512, 6, True)])
def test_a_view_stays_under_a_megabyte(T: int, bits: int, derived: bool, head: int | None) -> None:
    found = {
        name: maps(T, layers=1, heads=12, seed=seed, token="\u4e2d" * 36)
        for seed, name in enumerate(("suspect", "teacher", "purified"))
    }
    view = attention_view(found, 0, head, overview=("moved", np.zeros((12, 12), np.float32)))
    assert payload_bytes(view) <= LARGEST
    assert view.panels[0].map is not None
    assert view.panels[0].map.bits == bits
    assert (view.panels[-1].map is None) == derived


def test_a_panel_left_out_is_the_first_plus_the_difference() -> None:
    found = three(470)
    view = attention_view(found, 0, None)
    assert view.panels[2].map is None
    assert view.panels[0].map is not None
    assert view.difference is not None
    read = dequantise(view.panels[0].map, 470) + dequantise(view.difference, 470)
    exact = one_map(found["purified"], 0, None)
    np.testing.assert_allclose(read, exact, atol=0.06 * view.panels[0].map.high)


def test_one_classifier_has_no_difference_and_marks_stay_in_the_text() -> None:
    view = attention_view({"suspect": maps(5)}, 0, 0, marked=(3, 3, 9, -1))
    assert view.difference is None
    assert view.marked == (3,)
    assert len(view.panels) == 1


def test_equal_classifiers_differ_by_zero() -> None:
    view = attention_view({"suspect": maps(5), "purified": maps(5)}, 0, 0)
    assert view.difference is not None
    assert not dequantise(view.difference, 5).any()


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(BadData, match="no layer 3"):
        attention_view({"suspect": maps(5)}, 2)
    with pytest.raises(BadData, match="different tokens"):
        attention_view({"suspect": maps(5), "purified": maps(6)}, 0)


def test_no_token_leaves_the_document_s_script() -> None:
    found = dataclasses.replace(maps(4), tokens=(EVIL, "<!--", "&amp;", "\u2028"), answer=EVIL)
    page = attention_document(
        [attention_view({EVIL: found}, 0, overview=(EVIL, np.zeros((2, 3), np.float32)))], title=EVIL
    )
    assert "<img" not in page
    assert page.count("</script>") == 1
    assert "<!--" not in page
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert ".innerHTML" not in ATTENTION_SCRIPT


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.parametrize("T", [9, 470])
def test_the_script_reads_the_values_that_python_wrote(T: int, tmp_path: Path) -> None:
    view = attention_view(three(T), 1, None)
    reader = re.search(r"  function values\(map\) \{.*?\n  \}\n", ATTENTION_SCRIPT, re.DOTALL)
    assert reader
    script = tmp_path / "read.js"
    script.write_text(
        f"const T = {T};\n{reader.group()}\nconst v = {json.dumps(view.to_json())};\n"
        "console.log(JSON.stringify([v.panels[0].map, v.difference].map((m) => Array.from(values(m)))));"
    )
    out = subprocess.run(["node", script], capture_output=True, text=True, check=True, timeout=60)
    first, difference = json.loads(out.stdout)
    assert view.panels[0].map is not None
    assert view.difference is not None
    np.testing.assert_allclose(first, dequantise(view.panels[0].map, T).ravel(), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(difference, dequantise(view.difference, T).ravel(), rtol=1e-5, atol=1e-9)


COUNT = """() => [...document.querySelectorAll("canvas")].map((canvas) => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height), colors = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) colors.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
  return colors.size;
})"""


@pytest.mark.browser
@NEEDS_BROWSER[1]
def test_a_browser_draws_every_map_and_answers_to_pointer_and_keys(browser: Browser, tmp_path: Path) -> None:
    found = three(9)
    found = {name: dataclasses.replace(m, tokens=(EVIL, *m.tokens[1:])) for name, m in found.items()}
    grid = ("Share of attention that moved", moved(found["suspect"], found["purified"]))
    page_file = tmp_path / "attention.html"
    page_file.write_text(
        attention_document(
            [attention_view(found, layer, head, marked=(4,), overview=grid) for layer in (0, 1) for head in (0, None)]
        )
    )
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.goto(page_file.as_uri())
    page.wait_for_selector("canvas")
    assert page.locator("canvas").count() == 4  # three models and the difference
    assert min(page.evaluate(COUNT)) > 20  # nearly every cell has a color of its own
    assert page.locator(".grid button").count() == 2 * 3 + 2
    page.locator("canvas").first.hover(position={"x": 200, "y": 200})
    read = page.locator(".read").inner_text()
    assert re.search(r"looks at .* suspect 0\.\d{3} · teacher .* purified − suspect [+-]", read)  # noqa: RUF001
    page.locator("canvas").first.focus()
    page.keyboard.press("ArrowDown")
    assert "word1" in page.locator(".read").inner_text()
    page.get_by_role("button", name="layer 2, sum over heads").click()
    assert "Layer 2, sum over heads" in page.locator(".where").inner_text()
    assert "word1" in page.locator(".read").inner_text()  # the chosen pair stays
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert "does not hold" in page.locator("#missing").inner_text()
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert min(page.evaluate(COUNT)) > 20
    assert page.locator("img").count() == 0
    page.close()
    assert problems == []
