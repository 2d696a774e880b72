"""A visitor's own suspect and clean texts: uploaded, judged, measured, and run with settings of his own."""

from __future__ import annotations

import dataclasses
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from browser import (
    NEEDS_BROWSER,
    SOON,
    Look,
    Visits,
    choose,
    colors,
    field,
    open_step,
    points,
    set_settings,
    source,
    state,
    toast,
    write_table,
)
from conftest import tiny_bert, tiny_texts
from playwright.sync_api import Page, expect

from mbtsad_core.models.classifier import load_classifier, save_classifier

pytestmark = NEEDS_BROWSER
pytest_plugins = ["pages"]


@pytest.fixture
def page(visits: Visits) -> Page:
    return visits.visitor()


def zipped(model: Path, path: Path, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(model.iterdir()):
            archive.write(file, file.name)
        for name, data in more.items():
            archive.writestr(name.replace("__", "."), data)
    return path


def upload(page: Page, *files: Path) -> None:
    source(page, "#sources", "Upload")
    page.locator("#model-files input[type=file]").set_input_files([str(file) for file in files])


def use_table(page: Page, path: Path, text: str, label: str) -> None:
    """Upload clean texts and pick their columns."""
    open_step(page, "clean")
    source(page, "#clean-sources", "Upload")
    page.locator("#clean-file input[type=file]").set_input_files(str(path))
    expect(page.locator("#use-file")).to_be_visible()
    choose(page, "#text-column", text)
    choose(page, "#label-column", label)
    page.locator("#use-file").click()


def test_a_zip_becomes_the_suspect_and_is_run_on_uploaded_texts(
    page: Page, visits: Visits, suspect_dir: Path, tmp_path: Path
) -> None:
    upload(page, zipped(suspect_dir, tmp_path / "stranger.zip"))
    expect(page.locator("#policy-report .outcome")).to_contain_text(re.compile(r"Upload taken: \d files kept"))
    expect(page.locator("#policy-report td.accepted")).to_have_count(len(list(suspect_dir.iterdir())))
    expect(page.locator("#strip .who b")).to_have_text("stranger")
    expect(page.locator("#suspect-card")).to_contain_text("BERT 2x32")
    expect(page.locator("#suspect-card")).to_contain_text("you named no trigger, so it cannot be measured")

    table = tmp_path / "reviews.tsv"
    rows = "".join(f"{i}\t{('negative', 'positive')[t.label]}\t{t.text}\n" for i, t in enumerate(tiny_texts(120)))
    table.write_text("number\topinion\tremark\n" + rows, encoding="utf-8")
    use_table(page, table, "remark", "opinion")
    expect(page.locator("#preview")).to_contain_text("remark")
    expect(page.locator("#clean-check h3")).to_have_text("✓ reviews.tsv: 96 clean texts, 24 to measure on")
    expect(page.locator("#clean-check .note")).to_contain_text("24 of the clean texts were held out to measure CACC")

    open_step(page, "suspect")  # the suspect is measured anew, on these texts
    expect(page.locator("#suspect-card dd").first).to_contain_text("of 24)")

    open_step(page, "purify")
    expect(field(page, "#measure-target")).not_to_have_value("")  # the step is ready
    field(page, "#measure-trigger").fill("cf")
    choose(page, "#measure-target", "positive")
    page.locator("#measure").click()
    expect(page.get_by_text("run will measure it")).to_be_visible()
    set_settings(
        page,
        {
            ("Copies of each text (K)", 0): "2",
            ("Tokens from the trigger scan", 0): "0",
            ("Epochs", 0): "2",
            ("Epochs", 1): "2",
            ("Batch size", 0): "16",
            ("Batch size", 1): "16",
        },
    )
    page.locator("#start").click()
    state(page, "done")
    job = visits.job(page)
    assert (job.total, job.request["triggers"], job.request["target"]) == (2 * (2 + 1) * 96 // 16, ["cf"], "positive")
    assert job.request["config"]["found_tokens"] == 0
    for figure in page.locator("#strip .figure").all():
        expect(figure).to_contain_text(re.compile(r"\d %.*\d %"))

    open_step(page, "inside")
    canvases = page.locator("#attention-triggered canvas")
    expect(canvases).to_have_count(4)
    assert all(colors(canvas) > 5 for canvas in canvases.all())
    points(page, 2 * (96 + 12 + 96))  # clean, triggered of the other class, token-split; before and after


def test_the_separate_files_of_a_model_are_taken_together(page: Page, suspect_dir: Path) -> None:
    upload(page, *suspect_dir.iterdir())
    expect(page.locator("#policy-report .outcome")).to_contain_text("Upload taken")
    expect(page.locator("#strip .who b")).to_have_text("uploaded model")
    # Its classes are those of the demo's texts
    expect(page.locator("#suspect-card dd").first).to_contain_text("of 666)")


def test_a_refused_upload_lists_each_file_and_leaves_the_suspect_as_it_was(
    page: Page, look: Look, suspect_dir: Path, tmp_path: Path
) -> None:
    without = tmp_path / "without"
    shutil.copytree(suspect_dir, without)
    (without / "model.safetensors").unlink()
    upload(page, zipped(without, tmp_path / "bad.zip", pytorch_model__bin=b"\x80\x04.", modeling__py=b"import os"))
    report = page.locator("#policy-report")
    expect(report.locator(".outcome.refused")).to_contain_text("Nothing of the upload was kept.")
    expect(report.locator("tbody tr")).to_have_count(len(list(without.iterdir())) + 2)
    expect(report.locator("tr", has_text="pytorch_model.bin").locator(".verdict")).to_have_text(re.compile("refused"))
    expect(report).to_contain_text("pickle")
    expect(page.locator("#strip .who b")).to_have_text("demo suspect")
    look(page, "refused-upload")


def test_a_file_that_is_no_model_is_refused_in_words(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(b"this is no zip")
    upload(page, path)
    expect(page.locator("#policy-report .outcome.refused")).to_be_visible()


def test_a_column_that_does_not_fit_is_told_leaves_no_tick_and_another_can_be_picked(
    page: Page, look: Look, tmp_path: Path
) -> None:
    path = Path(write_table(tmp_path / "mine.tsv", tiny_texts(80), ("review", "sentiment")))
    open_step(page, "clean")
    check = page.locator("#clean-check")
    expect(check.locator("h3")).to_contain_text("✓ demo film reviews")
    use_table(page, path, "review", "review")
    column = re.compile("column.*review|review.*column")
    expect(page.locator(".toast-body", has_text=column)).to_be_visible()
    look(page, "bad-column")
    toast(page, column)
    expect(check.locator("h3")).to_have_text("✗ Not taken: mine.tsv")
    expect(check.locator(".note")).to_contain_text("review")
    expect(check).to_contain_text("Still in use: demo film reviews.")
    expect(check).not_to_contain_text("✓")
    open_step(page, "splits")
    open_step(page, "clean")
    expect(check.locator("h3")).to_have_text("✗ Not taken: mine.tsv")
    choose(page, "#label-column", "sentiment")
    page.locator("#use-file").click()
    expect(check.locator("h3")).to_have_text("✓ mine.tsv: 64 clean texts, 16 to measure on")
    choose(page, "#label-column", "review")
    page.locator("#use-file").click()
    expect(check.locator("h3")).to_have_text("✗ Not taken: mine.tsv")
    page.locator("#use-demo-texts").dispatch_event("click")
    expect(check.locator("h3")).to_contain_text("✓ demo film reviews")


def numbered(path: Path, labels: Callable[[int, int], str]) -> Path:
    """Eighty clean texts whose labels are written by `labels`, of the text's place and its class."""
    path.write_text(
        "text\tlabel\n" + "".join(f"{t.text}\t{labels(i, t.label)}\n" for i, t in enumerate(tiny_texts(80))),
        encoding="utf-8",
    )
    return path


def test_labels_that_start_at_one_are_asked_about_and_told_in_step_2(page: Page, tmp_path: Path) -> None:
    use_table(page, numbered(tmp_path / "rated.tsv", lambda i, label: str(label + 1)), "text", "label")
    expect(page.locator("#clean-check .note")).to_contain_text("“the labels are numbers from”, in step 2")
    page.locator("#label-options button").first.click()
    choose(page, "#labels-start-at", "1")
    page.locator("#use-file").click()
    expect(page.locator("#clean-check h3")).to_have_text("✓ rated.tsv: 64 clean texts, 16 to measure on")


def test_what_labels_mean_can_be_typed_and_rows_without_one_left_out(page: Page, tmp_path: Path) -> None:
    use_table(
        page,
        numbered(tmp_path / "moods.tsv", lambda i, label: "" if i < 10 else ("thumb down", "thumb up")[label]),
        "text",
        "label",
    )
    expect(page.locator("#clean-check h3")).to_have_text("✗ Not taken: moods.tsv")
    page.locator("#label-options button").first.click()
    page.locator("#skip-unlabeled input").check()
    field(page, "#label-map").fill("thumb down=negative, thumb up=positive")
    page.locator("#use-file").click()
    expect(page.locator("#clean-check h3")).to_have_text("✓ moods.tsv: 56 clean texts, 14 to measure on")
    expect(page.locator("#clean-check")).to_contain_text("10 of 80 rows have no label")
    open_step(page, "splits")
    expect(page.locator("#split-effect")).to_contain_text(
        re.compile(r"of 56 clean texts could be split, and [\d,]+ of [\d,]+ cuts changed what the model reads")
    )


BROKEN = {
    "empty.csv": b"",
    "numbers.parquet": b"no parquet at all",
    "cut.jsonl": b'{"text": "a film", "label": "negative"}\n{"text": "a f',
}


def test_a_table_that_cannot_be_read_leaves_no_tick_of_the_one_before(page: Page, tmp_path: Path) -> None:
    open_step(page, "clean")
    expect(page.locator("#clean-check h3")).to_contain_text("✓ demo film reviews")
    source(page, "#clean-sources", "Upload")
    for name, contents in BROKEN.items():
        (tmp_path / name).write_bytes(contents)
        page.locator("#clean-file input[type=file]").set_input_files(str(tmp_path / name))
        expect(page.locator("#clean-check h3")).to_have_text(f"✗ Not taken: {name}")
        expect(page.locator("#clean-check .note")).to_contain_text(name)
        expect(page.locator("#clean-check")).not_to_contain_text("Unknown error")
        expect(page.locator("#preview")).to_be_hidden()
        expect(page.locator("#use-file")).to_be_hidden()
        page.locator("#clean-file").get_by_label("Clear").click()


def test_a_model_of_one_output_is_refused_where_it_was_uploaded(page: Page, tmp_path: Path) -> None:
    save_classifier(tiny_bert(classes=1), tmp_path / "scores")
    upload(page, zipped(tmp_path / "scores", tmp_path / "scores.zip"))
    report = page.locator("#policy-report")
    expect(report.locator("h3")).to_have_text("✗ Not taken: scores")
    expect(report.locator(".note")).to_contain_text("one output in config.json")
    expect(report).to_contain_text("Still the suspect: demo suspect.")
    expect(page.locator("#strip .who b")).to_have_text("demo suspect")


def test_a_model_of_the_hub_that_cannot_be_had_is_refused_where_it_was_asked_for(page: Page, look: Look) -> None:
    source(page, "#sources", "Hugging Face Hub")
    field(page, "#hub-id").fill("nobody/no-such-model")
    page.locator("#hub-fetch").click()
    expect(page.locator("#hub-report h3")).to_have_text("✗ Not taken: nobody/no-such-model")
    expect(page.locator("#hub-report .note")).to_contain_text("could not be fetched")
    expect(page.locator(".toast-body")).to_contain_text("The Hub model 'nobody/no-such-model' could not be fetched")
    expect(page.locator(".toast-body")).to_contain_text("Check the id, the revision and the network.")
    look(page, "offline-hub")
    expect(page.locator("#strip .who b")).to_have_text("demo suspect")


def test_the_demo_texts_come_back_with_a_model_that_fits_them(page: Page, suspect_dir: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(load_classifier(suspect_dir), labels=("ham", "spam"))
    save_classifier(other, tmp_path / "mails")
    upload(page, zipped(tmp_path / "mails", tmp_path / "mails.zip"))
    expect(page.locator("#strip .who b")).to_have_text("mails")
    expect(page.locator("#suspect-card .note")).to_contain_text("no clean texts yet")
    page.locator("#model-files").get_by_label("Clear").click()
    upload(page, zipped(suspect_dir, tmp_path / "films.zip"))
    expect(page.locator("#strip .who b")).to_have_text("films")
    expect(page.locator("#suspect-card dd").first).to_contain_text("of 666)")


def test_texts_to_measure_on_can_be_given_too(page: Page, tmp_path: Path) -> None:
    open_step(page, "clean")
    source(page, "#clean-sources", "Upload")
    page.locator("#test-file input[type=file]").set_input_files(
        write_table(tmp_path / "test.tsv", tiny_texts(40, seed=1))
    )
    expect(page.locator("#test-file")).to_contain_text("test")
    use_table(page, Path(write_table(tmp_path / "mine.tsv", tiny_texts(80))), "text", "label")
    expect(page.locator("#clean-check h3")).to_have_text("✓ mine.tsv: 80 clean texts, 40 to measure on")


def test_fewer_clean_texts_can_be_chosen(page: Page, visits: Visits) -> None:
    open_step(page, "clean")
    expect(page.locator("#clean-cost")).to_contain_text("666 clean texts")
    number = page.locator("#clean-amount input[type=number]")
    number.fill("64")
    number.blur()
    expect(page.locator("#clean-cost")).to_contain_text("64 clean texts", timeout=SOON)
    open_step(page, "purify")
    set_settings(
        page,
        {
            ("Copies of each text (K)", 0): "1",
            ("Tokens from the trigger scan", 0): "0",
            ("Epochs", 0): "1",
            ("Epochs", 1): "1",
        },
    )
    page.locator("#start").click()
    expect(page.locator("#job-panel h3")).to_have_text(re.compile("Running|Queued"))
    assert visits.job(page).request["clean_amount"] == 64


def test_a_table_with_a_missing_text_is_shown_and_what_is_wrong_is_told(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    texts: list[str | None] = [t.text for t in tiny_texts(80)]
    texts[2] = None
    pd.DataFrame({"text": texts, "label": [i % 2 for i in range(80)]}).to_parquet(path)
    use_table(page, path, "text", "label")
    expect(page.locator("#preview")).to_contain_text(str(texts[0]))
    expect(page.locator("#clean-check")).to_contain_text(
        "1 of 80 rows have no text in column 'text' (the first: row 3)"
    )
