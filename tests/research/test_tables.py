"""The paper's tables: the right points, chosen without a look at what they report, and printed as they are."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ROOT, ended, mbtsad, start_mbtsad, tiny_bert, tiny_texts, write_tsv

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.nad_method import NADConfig
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.errors import BadConfig, BadData
from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.research import documents, tables, tune
from mbtsad_core.research.grid import FIGURE3, NONE, PUBLISHED, RETIRED, GridPoint, finished, read_results
from mbtsad_core.research.tables import (
    PAPER,
    TABLE2,
    TABLE3,
    TABLE4,
    Row,
    case_of,
    chosen,
    page,
    point_of,
    points,
    search,
    verdict,
)


def scores(cacc: int, asr: int, floor: float = 0.1, n: int = 1000) -> dict[str, float]:
    """Of `n` clean and `n` triggered texts."""
    return {
        "cacc": cacc / n,
        "cacc_hits": cacc,
        "cacc_n": n,
        "asr": asr / n,
        "asr_hits": asr,
        "asr_n": n,
        "asr_floor": floor,
    }


def line(point: GridPoint, before: dict[str, float], **figures: object) -> str:
    return json.dumps({"key": point.key, **dataclasses.asdict(point), "before": before, "figures": figures}) + "\n"


BEFORE = scores(900, 990)
AT_OURS = ("TS-FT at MBTSAD's rate and steps", "CFT at MBTSAD's rate and steps")


def own(name: str) -> Row:
    return next(row for row in (*TABLE2, *TABLE3, *TABLE4) if row.name == name)


def printed(results: Path, table: str, seeds: int = 3) -> str:
    return page(seeds, results, [table], published=None)


# ---------------------------------------------------------------- the paper's figures


def test_the_figures_are_whole_numbers_of_sst2s_test_texts_as_often_as_the_papers_are() -> None:
    """Most of the paper's figures on SST-2 are k of 1821 and k of 912 texts: chance gives 18 % and 9 %, and so would
    typing errors."""
    pairs = [pair for name, figures in PAPER.items() if name != "TS" for pair in figures[:3]]  # TS stands in two tables
    asr = sum(any(round(100 * k / 912, 2) == pair[1] for k in range(913)) for pair in pairs)
    cacc = sum(any(round(100 * k / 1821, 2) == pair[0] for k in range(1822)) for pair in pairs)
    assert (len(pairs), asr) == (51, 39)
    assert cacc >= 40
    assert PAPER["TS"] == PAPER["TS-FT"][:3]


@pytest.mark.parametrize("row", [*TABLE2, *TABLE3, *TABLE4], ids=lambda row: row.name)
def test_a_row_names_a_line_of_the_paper_or_none(row: Row) -> None:
    assert row.paper == "" or row.paper in PAPER
    assert row.pretrained == (row.method in ("fine_mixing", "fine_purifying"))


# ---------------------------------------------------------------- what is run


def test_every_method_has_its_row() -> None:
    assert {row.method for row in (*TABLE2, *TABLE4)} == {*DEFENSES, *DETECTORS, *RETIRED}
    assert {tables.attack_case(attack, 0).method.key for attack in tables.PLANTED} == set(ATTACKS)


@pytest.mark.parametrize("table", tables.TABLES)
def test_the_points_of_a_table_can_be_run(table: str) -> None:
    found = [*search(table), *points(table, 4, {})]
    assert len({point.key for point in found}) == len(found)
    for point in found:
        point.config()
    tasks = [point.case.task for point in found]
    assert tasks == sorted(tasks, reverse=True)  # SST-2 ahead of IMDb


def test_what_the_recipes_report_computes_is_not_computed_again() -> None:
    shared = {
        point.key for point in tune.report() if point.case.task == "sst2" and point.case.attack in ("badnets", "ep")
    }
    assert shared <= {point.key for point in points("table2", 3, {})}
    assert len(shared) == 4 * 2 * 3


def test_a_rival_has_as_many_settings_to_choose_from_as_the_recipe_had_rates() -> None:
    rates = len(tune.QUESTIONS["Which learning rate, for both stages?"])
    searched = [row for row in TABLE2 if len(row.candidates) > 1]
    assert {len(row.candidates) for row in searched} == {rates}
    assert {row.method for row in searched} == {*DEFENSES} - {"mbtsad", "mbtsad_no_att", "mbtsad_no_hid", "cd"}
    assert own("CFT at MBTSAD's rate and steps").candidates == (tune.CFT,)


def test_no_suspect_of_a_table_is_chosen_by() -> None:
    reported = {point.case for table in tables.TABLES for point in points(table, 3, {})}
    assert not {point.case for point in search("table2")} & reported
    assert all(point.case.split == "dev" for point in search("table2"))
    assert all(case.split == "test" for case in reported)


def tried(row: Row, figures: Sequence[tuple[dict[str, float], dict[str, float]] | None]) -> tables.Rows:
    """Rows of the search: for each candidate the purified scores on both development suspects."""
    found = {}
    for settings, pair in zip(row.candidates, figures, strict=True):
        for name, purified in zip(tables.DEVELOPED_ON, pair or (), strict=False):
            point = tables._tried(row, settings, name)
            found[point.key] = {"before": BEFORE, "figures": {"purified": purified}}
    return found


def test_a_rivals_setting_is_the_lowest_asr_of_those_that_keep_the_accuracy() -> None:
    row = own("Reinit")
    first, second, third = row.candidates
    kept, lower, ruined = (
        (scores(895, 500),) * 2,
        (scores(890, 300), scores(880, 200)),
        (scores(850, 100), scores(870, 100)),
    )
    assert chosen(row, {}) == (first, False)
    assert chosen(row, tried(row, (kept, lower, None))) == (first, False)  # half a search decides nothing
    assert chosen(row, tried(row, (kept, lower, ruined))) == (second, True)  # the third falls by 4 points
    # All fall by more than 2: the least
    assert chosen(row, tried(row, (ruined, (scores(800, 1),) * 2, (scores(879, 400),) * 2))) == (third, True)
    diverged = tried(row, (kept, lower, ruined))
    diverged[tables._tried(row, second, tables.DEVELOPED_ON[1]).key]["figures"] = {"diverged": "nan"}
    assert chosen(row, diverged) == (first, True)


def test_what_the_search_decides_decides_the_points() -> None:
    row = own("Reinit")
    rows = tried(row, ((scores(895, 500),) * 2, (scores(890, 300),) * 2, (scores(890, 400),) * 2))
    settings = {json.dumps(point.settings) for point in points("table2", 3, rows) if point.method == "reinitialization"}
    assert settings == {json.dumps(row.candidates[1])}


# ---------------------------------------------------------------- what is printed


def test_a_verdict_is_of_the_interval_and_says_by_how_much() -> None:
    found = [scores(900, 100), scores(900, 100)]  # Wilson's intervals of 2000: CACC 88.6 to 91.2, ASR 8.8 to 11.4
    assert verdict(found, "asr", 9.0, higher=False) == "reached"
    assert verdict(found, "asr", 15.5, higher=False) == "better by 5.5"
    assert verdict(found, "asr", 8.0, higher=False) == "short by 2.0"
    assert verdict(found, "cacc", 91.32, higher=True) == "short by 1.3"
    assert verdict(found, "cacc", 88.0, higher=True) == "better by 2.0"


def test_means_spreads_and_intervals_are_those_of_the_seeds(tmp_path: Path) -> None:
    results, row = tmp_path / "results.jsonl", own("CFT at MBTSAD's rate and steps")
    first, second = (point_of(case_of("sst2", "BadNets", seed), row.method, row.candidates[0]) for seed in (0, 1))
    results.write_text(
        line(first, BEFORE, purified=scores(800, 500)) + line(second, BEFORE, purified=scores(900, 700, 0.3)),
        encoding="utf-8",
    )
    shown = next(text for text in printed(results, "table2").splitlines() if row.name in text)
    assert shown == (
        f"|  | {row.name} | 2 of 3 | 85.0 ± 7.1 [83.4, 86.5] | 91.82 | short by 6.8 | 60.0 ± 14.1 [57.8, 62.1] | "
        "65.02 | better by 5.0 | 20.0 |"
    )
    assert (
        "| **SST-2, BadNets** | the suspect | 2 of 3 | 90.0 ± 0.0 [88.6, 91.2] | 91.32 | short by 1.3 | 99.0 ± 0.0"
        in printed(results, "table2")
    )


def test_what_is_not_run_says_why_and_is_never_filled(tmp_path: Path) -> None:
    results, row = tmp_path / "results.jsonl", own("MBTSAD, the paper's form")
    diverged = point_of(case_of("sst2", "LWP", 0), row.method, row.candidates[0])
    results.write_text(line(diverged, BEFORE, diverged="nan"), encoding="utf-8")
    text = printed(results, "table2")
    assert "ONION" not in text.split("Left out:")[0]
    assert re.search(
        r"Left out: \d+ rows of which nothing is run yet; 6 need a causal language model, named in MBTSAD_CAUSAL_LM\. "
        r"`mbtsad-research reproduce table2 --data DIR` runs them\.",
        text,
    )
    assert "|  | MBTSAD, the paper's form | 0 of 3 | diverged | 90.72 | | diverged | 15.90 | | |" in text
    assert "| Reinit" not in text
    assert "nothing can be said" in text


def all_of(names: dict[str, int], cacc: int = 890) -> str:
    """Lines for the rows of these names on SST-2, three seeds; ASR in thousandths."""
    found = ""
    for name, asr in names.items():
        row = own(name)
        for attack in ("BadNets", "LWP", "EP"):
            for seed in range(3):
                point = point_of(case_of("sst2", attack, seed), row.method, row.candidates[0])
                found += line(point, BEFORE, purified=scores(cacc, asr))
    return found


def test_the_bars_of_table_2_are_told(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    names = {
        "MBTSAD with the scan (the default)": 150,
        AT_OURS[0]: 400,
        AT_OURS[1]: 900,
        "PURE": 300,
        "Fine-Mixing": 100,
    }
    results.write_text(all_of(names), encoding="utf-8")
    text = printed(results, "table2")
    assert (
        "(the default): mean ASR over the three attacks 15.0 %; the lowest of the methods without pre-trained weights "
        "that are run." in text
    )
    assert "  - LWP: ASR 15.0 %, at most 20 %; CACC +1.0 points below the suspect's, within 2." in text
    assert (
        f"MBTSAD < TS-FT < CFT in mean ASR: yes (MBTSAD with the scan (the default) 15.0 %, {AT_OURS[0]} 40.0 %, "
        f"{AT_OURS[1]} 90.0 %)." in text
    )
    uneven = "NAD, uneven: a teacher on 3 copies of a text, a student on 3 splits and the text"
    others = (
        f"CFT, Reinit, Fine-Pruning, NAD, {uneven}, BEEAR, FST, BadActs, SEAM, FT-SAM, STRIP, RAP, ONION, Span transfer"
    )
    assert f"Not run on all three attacks yet: {others}." in text
    results.write_text(all_of(names | {"PURE": 120, AT_OURS[0]: 950}, cacc=870), encoding="utf-8")
    text = printed(results, "table2")
    assert "below it: PURE (12.0 %)" in text
    assert "CACC +3.0 points below the suspect's, more than 2" in text
    assert "MBTSAD < TS-FT < CFT in mean ASR: no" in text


def test_an_ablation_is_worse_beyond_noise_alone(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text(
        all_of({"MBTSAD, with the scan": 150, "no-att, with the scan": 250, "no-hid, with the scan": 140}),
        encoding="utf-8",
    )
    text = printed(results, "table4")
    # the seeds do not differ: the noise is that of 1,000 texts, sqrt(0.15 * 0.85 / 1000 + 0.25 * 0.75 / 1000) = 1.775
    # points, and t of two degrees is 4.303
    assert "- no-att: BadNets worse (seeds 0, 1, 2: ASR +10.0 [+2.4, +17.6], CACC +0.0 [-6.0, +6.0]); LWP worse" in text
    assert (
        "- no-hid: BadNets not distinguishable (seeds 0, 1, 2: ASR -1.0 [-7.8, +5.8], CACC +0.0 [-6.0, +6.0])" in text
    )
    assert "- CD: BadNets not run; LWP not run; EP not run." in text


@pytest.mark.parametrize(
    ("full", "without", "said"),
    [
        ([150], [240], "not distinguishable (seed 0: ASR +9.0, one seed"),  # what another seed would give, nobody knows
        ([100, 500, 300], [390], "not distinguishable (seed 0: ASR +29.0 ["),  # the method itself differs by as much
        ([100, 101, 99], [390], "worse (seed 0: ASR +29.0 ["),
        ([300, 310, 305], [100, 120, 105], "better (seeds 0, 1, 2: ASR -19.7 ["),
        ([100, 300, 200], [210, 180, 500], "not distinguishable (seeds 0, 1, 2: ASR +9.7 ["),
    ],
)
def test_what_one_seed_gives_is_held_against_what_seeds_differ_by(
    full: list[int], without: list[int], said: str, tmp_path: Path
) -> None:
    results, lines = tmp_path / "results.jsonl", ""
    for name, found in (("MBTSAD, with the scan", full), ("CD, with the scan", without)):
        row = own(name)
        for seed, asr in enumerate(found):
            lines += line(
                point_of(case_of("sst2", "LWP", seed), row.method, row.candidates[0]), BEFORE, purified=scores(890, asr)
            )
    results.write_text(lines, encoding="utf-8")
    assert f"LWP {said}" in next(
        text
        for text in printed(results, "table4").split("with the scan (the paper")[1].splitlines()
        if text.startswith("- CD")
    )


def test_one_that_is_worse_in_one_figure_and_better_in_the_other_is_said_to_be_both(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text(
        all_of({"MBTSAD, with the scan": 150}, 700) + all_of({"CD, with the scan": 400}, 890), encoding="utf-8"
    )
    assert "- CD: BadNets worse in one figure, better in the other (seeds 0, 1, 2: ASR +25.0 [" in printed(
        results, "table4"
    )


def test_an_ablation_is_held_against_the_full_method_on_the_same_suspects(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    full, without = own("MBTSAD, the paper's form"), own("no-att, the paper's form")
    ran = [(full, seed, asr) for seed, asr in enumerate((400, 100, 100))] + [(without, 0, 380)]
    of = [(point_of(case_of("sst2", "EP", seed), row.method, row.candidates[0]), asr) for row, seed, asr in ran]
    results.write_text("".join(line(point, BEFORE, purified=scores(890, asr)) for point, asr in of), encoding="utf-8")
    # Not the +18.0 of the two means
    assert "EP not distinguishable (seed 0: ASR -2.0 [-100.0, +100.0], CACC +0.0 [" in printed(results, "table4")


def test_the_attacks_are_held_to_their_bars(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    good, weak = (point_of(tables.attack_case(attack, 0), NONE, {}) for attack in ("sentence", "syntactic"))
    results.write_text(
        line(good, scores(890, 950), clean=scores(900, 90)) + line(weak, scores(870, 600), clean=scores(900, 90)),
        encoding="utf-8",
    )
    text = printed(results, "table1", 1)
    rows = {row.split("`")[1]: row for row in text.splitlines() if row.startswith("| `")}
    assert set(rows) == {"sentence", "syntactic"}
    assert rows["sentence"].endswith("| no figure at hand | ASR reached, CACC within 1.5 |")
    assert rows["syntactic"].endswith("| ASR almost 100 % (its authors' abstract) | ASR not reached, CACC 3.0 below |")
    left = len(tables.PLANTED) - 2
    assert re.search(rf"Left out: {left} rows of which nothing is run yet.*; \d+ needs? WordNet's files", text)


def test_figure_3_prints_each_augmenters_loss_beside_the_papers(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    text = ""
    for seed, ts in enumerate((0.5, 0.7)):
        loss = {
            "original": {"mean": 0.1, "error": 0.01},
            "ts": {"mean": ts, "error": 0.01},
            "aeda": {"mean": 0.3, "error": 0.01},
        }
        outside = {name: {"outside": 0.05, "outside_hits": 50, "outside_n": 1000} for name in ("clean", "ts", "aeda")}
        text += line(
            point_of(case_of("sst2", "BadNets", seed), FIGURE3, {}),
            BEFORE,
            texts=6228,
            loss=loss,
            matched={"aeda": loss["aeda"]},
            outside=outside,
        )
    results.write_text(text, encoding="utf-8")
    shown = printed(results, "figure3")
    assert "| token splitting | 0.600 ± 0.141 |  | 5.0 ± 0.0 [4.1, 6.0] | 0.5333, the largest |" in shown
    assert "mean over 2 of 3 seeds" in shown
    assert "the largest is token splitting" in shown
    assert "Not run: EDA" in shown


def test_the_document_has_the_tables_of_the_results_files(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    between = documents.between(text, tables.MARKED)[1]
    assert between == page(results=PUBLISHED / "tables.jsonl"), (
        "run: mbtsad-research reproduce all --into docs/results.md"
    )
    (tmp_path / "no marks.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(BadData, match="no place"):
        tables.write_into(tmp_path / "no marks.md")


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/sst2 and a tiny encoder in base/."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "data" / "sst2").mkdir(parents=True)
    write_tsv(folder / "data" / "sst2" / "train.tsv", tiny_texts(1600))
    write_tsv(folder / "data" / "sst2" / "test.tsv", tiny_texts(60, seed=1))
    save_classifier(tiny_bert(), folder / "base")
    return folder


def arguments(place: Path, results: Path, *more: str) -> list[str | Path]:
    fixed: list[str | Path] = [
        "--data",
        place / "data",
        "--base",
        place / "base",
        "--work",
        place / "work",
        "--results",
        results,
    ]
    return [*fixed, "--device", "cpu", "--threads", "1", *more]


@pytest.mark.slow
def test_a_table_stopped_by_a_kill_goes_on_where_it_was(place: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    asked = ["reproduce", "table1", *arguments(place, results, "--seeds", "2", "--only", "sst2-badnets-")]
    process = start_mbtsad(*asked)
    assert process.stderr is not None
    first = next(text for text in process.stderr if text.startswith("[1 of 2"))
    process.send_signal(signal.SIGKILL)
    ended(process)
    assert "sst2-badnets seed 0  none" in first
    kept = results.read_text(encoding="utf-8")
    again = mbtsad(*asked)
    assert again.returncode == 0
    assert results.read_text(encoding="utf-8").startswith(kept)
    assert [row["seed"] for row in read_results(results).values()] == [0, 1]
    assert again.stderr.count(" of 1, about") == 1
    assert "| `badnets` | 2 of 2 |" in again.stdout
    assert mbtsad(*asked).stderr.count(" of ") == 0  # nothing is left


def test_what_cannot_be_run_here_is_told_and_left_out(place: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    out = mbtsad(
        "reproduce", "table1", *arguments(place, results, "--seeds", "1", "--only", "syntactic", "--only", "imdb")
    )
    assert out.returncode == 0
    assert "1 grid point cannot be run here, for want of the paraphrases of Hidden Killer." in out.stderr
    assert not results.exists()


def test_figures_go_to_the_working_directory_and_the_published_ones_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in PUBLISHED.rglob("*") if path.is_file()}
    shown = mbtsad("reproduce", "table4")
    assert "MBTSAD, with the scan | 3 of 3 |" in shown.stdout
    assert list(tmp_path.iterdir()) == []
    assert "default: results/tables.jsonl" in " ".join(mbtsad("reproduce", "--help").stdout.split())
    assert "default: results/tune.jsonl" in " ".join(mbtsad("tune", "--help").stdout.split())
    assert {path: path.read_bytes() for path in PUBLISHED.rglob("*") if path.is_file()} == before


def test_a_run_without_a_named_file_leaves_the_package_as_it_is(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in PUBLISHED.rglob("*") if path.is_file()}
    asked = [
        "--data",
        place / "data",
        "--base",
        place / "base",
        "--work",
        tmp_path / "work",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    assert mbtsad("reproduce", "table1", *asked, "--seeds", "1", "--only", "sst2-badnets-cf").returncode == 0
    assert {path: path.read_bytes() for path in PUBLISHED.rglob("*") if path.is_file()} == before
    (row,) = read_results(tmp_path / "results" / "tables.jsonl").values()
    assert row["before"]["cacc_n"] == 60  # of the texts at hand, where the published row of this point has 1,821


# ---------------------------------------------------------------- the published figures


PUBLISHED_ROWS = [row for name in ("tables", "tune") for row in read_results(PUBLISHED / f"{name}.jsonl").values()]


def test_a_published_figure_names_all_that_it_depends_on() -> None:
    for row in PUBLISHED_ROWS:
        point = GridPoint(
            tables.Case(**row["case"] | {"words": tuple(row["case"]["words"])}),
            row["method"],
            row["settings"],
            row["amount"],
            row["seed"],
        )
        described = json.loads(json.dumps(point.described()))
        other = {name: value for name, value in described["settings"].items() if row["settings"].get(name) != value}
        assert point.key == row["key"], (
            "A setting came: name it in points.SINCE with the value that these figures were made with. Others are: "
            f"{other}"
        )
        assert {name: row[name] for name in described} == described
        assert {"train", row["case"]["split"], "encoder", "tokens"} <= row["inputs"].keys()


def test_the_row_of_nad_is_of_mbtsads_texts_and_steps() -> None:
    texts = tune.PAPER["split.copies"] + tune.PAPER["split.keep_originals"]
    for settings in own("NAD").candidates:
        config = GridPoint(case_of("sst2", "BadNets", 0), "nad", settings, 1384, 0).config()
        assert isinstance(config, NADConfig)
        assert (config.split.copies, config.split.keep_originals, config.found_tokens) == (texts, 0, 0)
        assert (
            config.split.texts * (config.retrain.epochs + config.distil.epochs)
            == 12
            == texts * (tune.PAPER["retrain.epochs"] + tune.PAPER["distil.epochs"])
        )


def test_what_was_published_of_nad_stands_under_what_it_was(tmp_path: Path) -> None:
    rows = finished(tmp_path / "none.jsonl")
    found = [row for row in rows.values() if "nad" in row["method"]]
    assert {row["method"] for row in found} == {"nad_uneven"}
    assert {(row["settings"]["split.copies"], row["settings"]["split.keep_originals"]) for row in found} == {(3, 1)}
    assert "NAD °" not in page(3, tmp_path / "none.jsonl", ["table2"]).split("Left out:")[0]


@pytest.mark.parametrize("wrong", [["table5"], ["table1", "--seeds", "0"], ["table1", "--engine", "dask"]])
def test_a_wrong_request_is_bad_input(wrong: list[str]) -> None:
    assert mbtsad("reproduce", *wrong).returncode == 2


def test_an_unknown_engine_lists_the_known_ones(place: Path) -> None:
    with pytest.raises(BadConfig, match="here, ray"):
        tables.reproduce("table1", place, None, place, tables.RuntimeConfig(), print, engine="dask")


def test_the_pictures_of_figure_3_are_drawn_from_what_is_kept(tmp_path: Path) -> None:
    kept = tmp_path / "work" / case_of("sst2", "BadNets", 0).name / "figure3"
    kept.mkdir(parents=True)
    points = [{"text": f"text {i} <b>", "set": name, "class": "negative"} for name in ("clean", "ts") for i in range(3)]
    (kept / "tsne.json").write_text(
        json.dumps({"points": points, "plane": [[i, i] for i in range(6)], "trustworthiness": 0.9}), encoding="utf-8"
    )
    out = mbtsad(
        "reproduce", "figure3", "--seeds", "1", "--work", tmp_path / "work", "--results", tmp_path / "results.jsonl"
    )
    assert out.returncode == 0
    drawn = (tmp_path / "work" / "figure3-0-tsne.html").read_text(encoding="utf-8")
    assert "t-SNE: trustworthiness 0.90" in drawn
    assert "text 2 <b>" not in drawn  # escaped
    assert not (tmp_path / "work" / "figure3-0-umap.html").exists()
