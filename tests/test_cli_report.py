"""`mbtsad report`: the same report again from a run's folder, whose figures are those of report.json, which fits its
published schema."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import ROOT, mbtsad, tiny_texts, write_tsv

from mbtsad_core.rates import rate_of
from mbtsad_core.views.words import percent, rate

SCHEMA = json.loads((ROOT / "docs" / "report.schema.json").read_text("utf-8"))
SCAN_SCHEMA = json.loads((ROOT / "docs" / "scan.schema.json").read_text("utf-8"))
SHARE = re.compile(r"\d+\.\d(?= %)")
INTERVAL = re.compile(r"\[(\d+\.\d), (\d+\.\d)\]")
COUNTS = re.compile(r"(\d+) of (\d+)")
QUICK = ("--retrain-epochs", "1", "--distil-epochs", "1", "--split-copies", "1", "--retrain-batch-size", "16")


@pytest.fixture(scope="module", params=[("cf",), ()], ids=["trigger", "no trigger"])
def run(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("report")
    data = (str(write_tsv(folder / f"{name}.tsv", tiny_texts(64, seed))) for name, seed in (("clean", 1), ("test", 2)))
    trigger = [flag for word in request.param for flag in ("--trigger", word, "--target", "positive")]
    flags = zip(("--clean", "--test"), data, strict=True)
    done = mbtsad(
        "purify", "--suspect", str(suspect_dir), *(part for flag in flags for part in flag), *trigger, *QUICK,
        "--distil-batch-size", "16", "--found-tokens", "4", "--device", "cpu", "--out", str(folder / "run"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_the_report_is_made_again_as_it_was(run: Path) -> None:
    before = (run / "report.html").read_text("utf-8")
    (run / "report.html").unlink()
    again = mbtsad("report", str(run))
    assert (again.returncode, again.stdout.strip()) == (0, str(run / "report.html"))
    assert (run / "report.html").read_text("utf-8") == before
    assert len(before) < 1_500_000


def test_every_figure_of_the_report_is_that_of_the_json(run: Path) -> None:
    page, report = unescape((run / "report.html").read_text("utf-8")), json.loads((run / "report.json").read_text())
    for model in ("suspect", "teacher", "purified"):
        cells = "".join(f"<td>{rate(rate_of(report[model], name))}</td>" for name in ("cacc", "asr", "asr_floor"))
        assert f"<tr><th>{model}</th>{cells}</tr>" in page
    for token, nats in report["found"]:
        assert f"{token} ({nats:.1f})" in page.partition("<h2>")[0]  # above all tables
    assert report["found"][0][0] == "cf"  # whether it was named or not
    assert report["run"] in page


def leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """All values of a JSON tree, each with the name that it has."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, dict | list):
            yield from leaves(value)
        else:
            yield str(key), value


def counts_in(tree: Any) -> Iterator[tuple[str, str]]:
    """(hits, n) of all rates of a JSON tree."""
    for node in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(node, dict | list):
            yield from counts_in(node)
    if isinstance(tree, dict):
        yield from ((str(tree[k]), str(tree[f"{k[:-5]}_n"])) for k in tree if k.endswith("_hits"))


def known_figures(run: Path) -> tuple[set[str], set[tuple[str, ...]], set[tuple[str, str]]]:
    """Shares, intervals and counts that the report may show: those of report.json, and of events.jsonl what was
    measured while it trained. What is drawn as a picture is left out."""
    report = json.loads((run / "report.json").read_text())
    attention, projection = report["pictures"].pop("attention"), report["pictures"].pop("projection")
    events = [json.loads(line)["metrics"] for line in (run / "events.jsonl").read_text().splitlines()]
    measured = [m for m in events if m.keys() & {"cacc", "suspect_cacc"}]
    shares = [v for _, v in leaves(report) if isinstance(v, float) and 0 <= v <= 1]
    shares += [v for m in measured for k, v in m.items() if k.removeprefix("suspect_") in ("cacc", "asr", "asr_floor")]
    shares += [attention["moved"], sum(projection["explained"])]
    shares.append(max(v for name in ("suspect", "purified") for _, v in leaves(attention[name])))
    shares += [v / 100 for m in measured for v in (0, m.get("asr_n", 0)) if v == 0]  # where an axis begins
    ends = [
        v for key in ("cacc", "asr", "asr_floor", "whole", "split", "trigger_split") for v in intervals(report, key)
    ]
    counts = set(counts_in(report))
    counts |= {
        (str(round(share * m["asr_n"])), str(round(m["asr_n"])))
        for m in measured
        for key, share in m.items()
        if key in ("asr", "suspect_asr", "asr_floor") and "asr_n" in m
    }
    splits = report["splits"]
    counts |= {(str(splits[a]), str(splits[b])) for a, b in (("splittable", "texts"), ("changed", "cuts"))}
    return {f"{100 * share:.1f}" for share in shares}, set(ends), counts


def intervals(tree: Any, key: str) -> Iterator[tuple[str, ...]]:
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if name == f"{key}_interval":
            yield tuple(f"{100 * end:.1f}" for end in value)
        elif isinstance(value, dict | list):
            yield from intervals(value, key)


def strangers(page: str, run: Path) -> list[Any]:
    """The figures of a report's visible words that no figure of the run is."""
    words = re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<(style|head)\b.*?</\1>", " ", page))
    shares, ends, counts = known_figures(run)
    shares |= set(itertools.chain(*ends))
    found: list[Any] = [share for share in SHARE.findall(words) if share not in shares]
    found += [pair for pair in INTERVAL.findall(words) if pair not in ends]
    return found + [pair for pair in COUNTS.findall(words) if pair not in counts]


def test_the_report_shows_no_figure_that_the_run_has_not(run: Path) -> None:
    page = unescape((run / "report.html").read_text("utf-8"))
    assert strangers(page, run) == []
    shown = [pattern.findall(page) for pattern in (SHARE, INTERVAL, COUNTS)]
    assert all(len(found) >= 10 for found in shown)
    other = page.replace(f"{shown[0][0]} %", "33.3 %", 1)
    assert strangers(other, run) == ["33.3"]
    hits, n = shown[2][0]
    assert strangers(page.replace(f"({hits} of {n})", f"({int(hits) + 1000} of {n})", 1), run) != []


def test_every_rate_of_the_json_stands_in_the_report(run: Path) -> None:
    page, report = unescape((run / "report.html").read_text("utf-8")), json.loads((run / "report.json").read_text())
    for one in (
        report["suspect"],
        report["teacher"],
        report["purified"],
        report["turned"],
        *leaves_of(report["tried"]),
    ):
        for key in (k.removesuffix("_hits") for k in one if k.endswith("_hits")):
            assert rate(rate_of(one, key)) in page, key
    for name in ("suspect", "purified"):
        for row in report[name]["confusion"]:
            assert "".join(f'<td class="number">{n}</td>' for n in row) in page


def leaves_of(tried: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from (one[model] for one in tried for model in ("suspect", "purified"))


def test_each_word_of_a_trigger_of_several_is_tried_by_itself(suspect_dir: Path, tmp_path: Path) -> None:
    clean, test = (
        str(write_tsv(tmp_path / f"{name}.tsv", tiny_texts(64, seed))) for name, seed in (("c", 1), ("t", 2))
    )
    done = mbtsad(
        "purify", "--suspect", str(suspect_dir), "--clean", clean, "--test", test, "--trigger", "cf", "--trigger",
        "plot", "--target", "positive", *QUICK, "--distil-batch-size", "16", "--found-tokens", "0", "--device", "cpu",
        "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [one["trigger"] for one in report["tried"]] == ["cf | plot", "cf", "plot"]
    both, cf, plot = (one["suspect"]["asr_hits"] for one in report["tried"])
    assert plot < both < cf == report["tried"][1]["suspect"]["asr_n"]
    page = unescape((tmp_path / "run" / "report.html").read_text("utf-8"))
    assert "cf | plot</b>, one of them in each text, towards “positive”." in page
    assert "begin with the suspect." in page  # nothing was scanned, so nothing was reset


def test_a_scan_of_the_same_suspect_stands_in_it(run: Path, tmp_path: Path) -> None:
    """Verdict, reason and findings, in HTML, JSON and SARIF; of another model it is refused."""
    asked = json.loads((run / "run.json").read_text())["request"]
    scanned = mbtsad("scan", asked["suspect"], "--clean", asked["clean"], "--budget", "20", "--device", "cpu", "--json")
    record = json.loads(scanned.stdout)
    (tmp_path / "scan.json").write_text(scanned.stdout)
    shutil.copytree(run, tmp_path / "run")
    again = mbtsad("report", tmp_path / "run", "--scan", tmp_path / "scan.json", "--sarif", tmp_path / "run.sarif")
    assert again.returncode == 0, again.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["scanned"] == record
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    jsonschema.Draft202012Validator(SCAN_SCHEMA).validate(report["scanned"])
    page = unescape((tmp_path / "run" / "report.html").read_text("utf-8"))
    top, _, rest = page.partition("<h2>")
    said = f"<b>{record['verdict'].capitalize()}.</b> {record['reason']}"
    assert said in top
    assert said in rest
    for one in record["triggers"] or [record["strongest"]]:
        assert f"“{one['text']}”" in rest
        assert f"({one['flips']} of {one['n']})" in rest
    names = [one["tool"]["driver"]["name"] for one in json.loads((tmp_path / "run.sarif").read_text())["runs"]]
    assert names == ["mbtsad vet", "mbtsad purify", "mbtsad scan"]
    record["inputs"]["model"]["sha256"] = "0" * 64
    (tmp_path / "scan.json").write_text(json.dumps(record))
    refused = mbtsad("report", tmp_path / "run", "--scan", tmp_path / "scan.json")
    assert refused.returncode == 2
    assert "The scan is of another model" in refused.stderr


def test_what_the_report_draws_and_tries_has_the_figures_of_the_json(run: Path) -> None:
    page, report = unescape((run / "report.html").read_text("utf-8")), json.loads((run / "report.json").read_text())
    assert report["tried"][0]["found_by_scan"] is (not report["settings"]["triggers"])
    assert report["tried"][0]["trigger"] == "cf"
    for one in report["tried"]:
        for model in ("suspect", "purified"):
            asr, floor = (rate(rate_of(one[model], name)) for name in ("asr", "asr_floor"))
            assert f"{asr}<small>floor {floor}</small>" in page
    for name in ("whole", "split", "trigger_split"):
        assert rate(rate_of(report["turned"], name)) in page
    attention, projection = report["pictures"]["attention"], report["pictures"]["projection"]
    assert f"{percent(attention['moved'])} of its attention" in page
    assert "cf" in [attention["tokens"][i] for i in attention["marked"]]
    assert page.count("<rect") >= 2 * len(attention["tokens"]) ** 2
    assert f"{len(projection['sets'])} texts under suspect and purified model" in page
    assert f"{percent(sum(projection['explained']))} of their variance" in page
    for row in report["pictures"]["splits"]:
        assert f"{percent(row['original']['probability'])} → {percent(row['split']['probability'])}" in page


def test_sarif_has_the_vetting_the_tokens_and_a_trigger_that_works(run: Path, tmp_path: Path) -> None:
    done = mbtsad("report", str(run), "--sarif", str(tmp_path / "run.sarif"))
    assert done.returncode == 0, done.stderr
    log, report = json.loads((tmp_path / "run.sarif").read_text()), json.loads((run / "report.json").read_text())
    vetting, purified = log["runs"]
    assert [(one["ruleId"], one["level"], one.get("kind")) for one in vetting["results"]] == [
        ("suspect.vetted", "none", "pass")
    ]
    assert report["inputs"]["suspect"]["sha256"] in vetting["results"][0]["message"]["text"]
    found = [(one["ruleId"], one["level"]) for one in purified["results"]]
    assert found[: len(report["found"])].count(("scan.token", "error")) >= (not report["settings"]["triggers"])
    assert ("trigger.suspect" in dict(found)) is bool(report["settings"]["triggers"])
    assert purified["results"][0]["message"]["text"].startswith("'cf' ")
    for one in log["runs"]:
        rules = [rule["id"] for rule in one["tool"]["driver"]["rules"]]
        assert [rules[result["ruleIndex"]] for result in one["results"]] == [r["ruleId"] for r in one["results"]]
    if "SARIF_SCHEMA" in os.environ:  # a file: OASIS's sarif-schema-2.1.0
        jsonschema.Draft7Validator(json.loads(Path(os.environ["SARIF_SCHEMA"]).read_text("utf-8"))).validate(log)


def test_other_methods_stand_beside_it_in_html_and_json(run: Path, tmp_path: Path) -> None:
    """Figures as the command line measured them; of other texts they are refused."""
    asked = json.loads((run / "run.json").read_text())["request"]
    words = [flag for word in asked["triggers"] for flag in ("--trigger", word, "--target", "positive")]
    shared = ("--suspect", asked["suspect"], "--clean", asked["clean"], "--test", asked["test"], *words, "--json")
    tuned = mbtsad(
        "defend", "cft", *shared, "--training-epochs", "1", "--device", "cpu", "--out", str(tmp_path / "cft")
    )
    assert tuned.returncode == 0, tuned.stderr
    figures = json.loads(tuned.stdout)
    (tmp_path / "cft.json").write_text(tuned.stdout)
    shutil.copytree(run, tmp_path / "run")
    again = mbtsad("report", str(tmp_path / "run"), "--compare", str(tmp_path / "cft.json"))
    assert again.returncode == 0, again.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    assert [one["method"] for one in report["compared"]] == ["cft"]
    assert report["compared"][0]["result"] == figures["purified"]
    page = unescape((tmp_path / "run" / "report.html").read_text("utf-8"))
    rows = page.partition("Methods compared")[2].partition("</table>")[0]
    for scores in (report["suspect"], report["purified"], figures["purified"]):
        for found in (rate_of(scores, name) for name in ("cacc", "asr")):
            assert (
                found is None
                or f"{percent(found.share)}</b><small>[{100 * found.low:.1f}, {100 * found.high:.1f}]" in rows
            )
    figures["inputs"]["test"]["sha256"] = "0" * 64
    (tmp_path / "cft.json").write_text(json.dumps(figures))
    refused = mbtsad("report", str(tmp_path / "run"), "--compare", str(tmp_path / "cft.json"))
    assert refused.returncode == 2
    assert "cft was measured with another test set than the run" in refused.stderr


def test_the_json_fits_the_published_schema(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    checker = jsonschema.Draft202012Validator(SCHEMA)
    checker.check_schema(SCHEMA)
    checker.validate(report)
    assert set(report) <= set(SCHEMA["properties"])
    for broken in ({**report, "seconds": -1}, {**report, "suspect": {**report["suspect"], "cacc": 85.7}}):
        with pytest.raises(jsonschema.ValidationError):
            checker.validate(broken)


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    refused = mbtsad("report", str(tmp_path / "nothing"))
    assert refused.returncode == 2
    assert "There is no finished run in" in refused.stderr
