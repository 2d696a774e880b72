"""The steps' handlers, called as Gradio calls them and without a browser: what each answers to which component."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from browser import request

from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import BadData, MBTSADError
from mbtsad_core.evaluation.attention import attention_maps, moved_by_trigger
from mbtsad_core.page import (
    clean_data,
    compare,
    inside,
    page,
    planting,
    purify,
    splits,
    suspect,
    take_away,
    tour,
    triggers,
)
from mbtsad_core.page.method_settings import controls, read
from mbtsad_core.page.parts import Parts
from mbtsad_core.page.session import Session, of_request
from mbtsad_core.page.site import Site
from mbtsad_core.service.runner import AttachedRunner
from mbtsad_core.views.report_facts import suspect_name


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with AttachedRunner(tmp_path / "jobs") as runner:
        yield Site(tmp_path / "jobs", runner)


@pytest.fixture
def parts(site: Site) -> Iterator[Parts]:
    """A page that steps are built on."""
    with gr.Blocks(), gr.Tabs() as tabs:
        yield Parts(site, gr.State(Session()), tabs)


@pytest.fixture
def session(site: Site, suspect_dir: Path, tmp_path: Path) -> Session:
    """A visitor with a tiny suspect, 64 clean texts, 40 to measure on and the trigger "cf"."""
    return of_request(request(suspect_dir, tmp_path, runtime=site.runtime), "somebody", "")


def event(**data: Any) -> gr.EventData:
    return gr.EventData(None, data)


def plain(html: str) -> str:
    return re.sub(r"<[^>]+>", " ", html)


# ---------------------------------------------------------------- step 1


def test_the_suspect_is_measured_and_known_to_every_session_that_asks_the_same_of_it(
    site: Site, session: Session
) -> None:
    card = suspect.measure(site, session)
    inputs, scores = site.inputs(session), site.scores(session)
    assert scores is not None
    assert scores.asr is not None
    assert (scores.cacc.n, scores.asr.n) == (len(inputs.test), len(inputs.triggered))
    assert f"CACC {100 * scores.cacc.share:.1f} %" in " ".join(plain(card).split())
    assert site.scores(session.having(job="a run", visitor="another")) == scores
    for other in (session.having(triggers=("bb",)), Session("me")):
        assert site.scores(other) is None
    assert site.described(session).suspect.description == "BERT 2x32, 0.0 M parameters, 2 classes"
    assert site.described(Session("me")) == Session("me")


def test_an_upload_that_is_refused_leaves_the_suspect(parts: Parts, session: Session, tmp_path: Path) -> None:
    report, weights = gr.HTML(), tmp_path / "pytorch_model.bin"
    weights.write_bytes(b"\x80\x02}q\x00.")
    said = suspect.take_upload(parts, report, session, [str(weights)])
    assert said[parts.session] == session
    assert "Nothing of the upload was kept" in said[report]
    assert suspect.take_upload(parts, report, session, None) == {report: ""}


def test_an_upload_of_the_suspects_own_files_is_the_suspect(parts: Parts, session: Session, suspect_dir: Path) -> None:
    report, copies = gr.HTML(), [parts.site.root / path.name for path in suspect_dir.iterdir()]
    for copy in copies:
        copy.write_bytes((suspect_dir / copy.name).read_bytes())
    said = suspect.take_upload(parts, report, session, [str(copy) for copy in copies])
    assert said[parts.session].suspect.name == "uploaded model"
    assert suspect_name(said[parts.session].suspect.source) == "“uploaded-model”"
    assert said[parts.session].triggers == ()
    assert "Upload taken" in plain(said[report])
    assert not any(copy.exists() for copy in copies)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("a stranger's", "a-stranger-s"),
        ("modèle_2-b", "modèle_2-b"),
        ("..", "model"),
        ("../up", "up"),
        ("", "model"),
        ("x" * 300, "x" * 60),
    ],
)
def test_an_upload_is_kept_under_its_own_name_which_the_report_tells(name: str, folder: str) -> None:
    assert suspect.folder_name(name) == folder


def test_a_planting_waits_in_the_queue_and_can_be_stopped(site: Site) -> None:
    session = suspect.plant_backdoor(site, Session("me"), "ep", "quince", "positive")
    assert site.runner.job(session.planting).request["triggers"] == ["quince"]
    with pytest.raises(BadData, match="is being planted"):
        suspect.plant_backdoor(site, session, "ep", "quince", "positive")
    shown = planting.Planted(gr.HTML(), gr.Button(), gr.Button(), gr.Textbox())
    answer, moves = planting.update_planted(site, shown, session)
    assert moves
    assert "EP with “quince”: queued" in plain(answer[shown.panel])
    assert shown.ready not in answer
    suspect.stop_planting(site, session)
    answer, moves = planting.update_planted(site, shown, session)
    assert not moves
    assert "stopped. Nothing was planted." in plain(answer[shown.panel])
    assert suspect.become(site, session, "another") == session


# ---------------------------------------------------------------- step 2


def test_a_table_is_previewed_checked_and_used(parts: Parts, session: Session, tmp_path: Path) -> None:
    site, step = parts.site, clean_data.clean_step(parts)
    table = tmp_path / "mine.tsv"
    table.write_text("text\tlabel\n" + "a good film\tpositive\na bad film\tnegative\n" * 20, encoding="utf-8")
    picked = clean_data.pick(site, step, session, str(table))
    assert picked[step.text].choices == [("text", "text"), ("label", "label")]
    assert (picked[step.text].value, picked[step.label].value) == ("text", "label")
    kept = picked[step.picked]
    used = clean_data.use(site, step, session, kept, None, "text", "label", "", None, "", None, False)
    assert used[step.problem] == ("", "")
    shown = clean_data.show(site, step, used[step.session], ("", ""))
    assert "✓ mine.tsv: 32 clean texts, 8 to measure on" in plain(shown[step.check])
    assert "50.0 %" in shown[step.check]
    assert "stand in it more than once" in shown[step.check]


def test_a_table_that_is_refused_leaves_the_clean_texts(parts: Parts, session: Session, tmp_path: Path) -> None:
    site, step = parts.site, clean_data.clean_step(parts)
    table = tmp_path / "mine.tsv"
    table.write_text("note\tverdict\na good film\tsplendid\n", encoding="utf-8")
    kept = clean_data.pick(site, step, session, str(table))[step.picked]
    used = clean_data.use(site, step, session, kept, None, "note", "verdict", None, None, None, None, False)
    assert set(used) == {step.problem}
    shown = clean_data.show(site, step, session, used[step.problem])
    assert set(shown) == {step.check}
    assert "✗ Not taken: mine.tsv" in plain(shown[step.check])
    assert "splendid" in shown[step.check]


def test_fewer_clean_texts_are_kept_in_the_session_and_all_is_no_number(site: Site, session: Session) -> None:
    fewer = clean_data.set_amount(site, session, 40)
    assert fewer.clean.amount == 40
    assert clean_data.set_amount(site, fewer, 64).clean == session.clean
    assert clean_data.set_amount(site, session, 64) is session


# ---------------------------------------------------------------- step 4


def test_the_sliders_show_the_sessions_splits_and_hold_for_the_run(session: Session) -> None:
    sliders = splits.make_sliders()
    kept = splits.keep(session, 0.5, 3.0, 6.0)
    assert splits.show_sliders(sliders, kept) == dict(zip(sliders.values(), (0.5, 3, 6), strict=True))
    assert (kept.config.split.copies, kept.config.retrain) == (session.config.split.copies, session.config.retrain)


def test_a_page_of_texts_is_split_as_drawn_and_pages_go_round(site: Site, session: Session) -> None:
    first, again, other = (splits.draw(site, session, 0, seed, 1.0, 10, 3) for seed in (0, 0, 1))
    assert first == again != other
    assert splits.draw(site, session, 64, 0, 1.0, 10, 3) == first  # 64 texts, 5 a page
    assert splits.draw(site, session, 1, 0, 1.0, 10, 3) != first


# ---------------------------------------------------------------- step 5


def test_before_a_run_a_typed_trigger_is_the_next_runs(parts: Parts, session: Session) -> None:
    answer = gr.HTML()
    said = purify.measure(parts, answer, session, "bb | mn", "negative")
    assert (said[parts.session].triggers, said[parts.session].target) == (("bb", "mn"), "negative")
    assert "next run will measure it" in said[answer]
    with pytest.raises(BadData, match="Type a trigger first"):
        purify.measure(parts, answer, session, " ", "negative")


def test_while_it_runs_a_typed_trigger_is_measured_and_the_session_stays(parts: Parts, session: Session) -> None:
    running, answer = parts.site.submit(session), gr.HTML()
    said = purify.measure(parts, answer, running, "bb", "negative")
    assert set(said) == {answer}
    assert [m.triggers for m in parts.site.runner.measures(running.job)] == [("bb",)]
    purify.cancel(parts.site, running)
    assert str(parts.site.runner.status(running.job).state) == "cancelled"


def test_settings_are_shown_read_and_kept(parts: Parts, session: Session) -> None:
    step = purify.purify_step(parts)
    controls = step.controls
    shown = purify.show_chosen(parts.site, step, session, None)
    assert (shown[step.trigger], shown[step.target].value) == ("cf", "positive")
    values = [shown[control] for control in controls]
    assert purify.use_settings(session, *values).config == session.config
    labels = [control.label for control in controls]
    values[labels.index("Batch size")] = "7"
    assert purify.use_settings(session, *values).config.retrain.batch_size == 7
    values[labels.index("Batch size")] = "many"
    with pytest.raises(MBTSADError, match=r"`retrain\.batch_size`: expected a whole number, got 'many'"):
        purify.use_settings(session, *values)
    assert purify.show_chosen(parts.site, step, session, shown[step.chosen]) == {step.chosen: shown[step.chosen]}
    assert not [label for label in labels if "_" in label or label[0].islower()]


def test_a_method_that_needs_another_model_asks_for_it(parts: Parts, session: Session) -> None:
    step = compare.compare_part(parts)
    assert compare.choose(parts.site, step, session, "fine_mixing")[step.pretrained].visible
    assert not compare.choose(parts.site, step, session, "cft")[step.pretrained].visible
    with pytest.raises(BadData, match="Type its id on the Hub"):
        compare.begin(parts.site, session, "fine_mixing", "")
    shown = compare.show(parts.site, step, session, "cft", "")
    assert "No other method has been run" in plain(shown[step.table])
    assert step.accordion not in shown
    again, moving = compare.update_compared(parts.site, step, session, "cft", shown[step.sent])
    assert set(again) == {step.run, step.stop}  # the table is sent only where it changed
    assert not moving


# ---------------------------------------------------------------- step 6


def test_a_text_is_shown_alone_and_with_the_trigger_in_its_middle(parts: Parts, session: Session) -> None:
    step = inside.inside_step(parts)
    shown = inside.show(parts.site, step, session, "a good film", "cf", (10**6, None))
    tokens = [json.loads(shown[view])["tokens"] for view in (step.plain, step.triggered)]
    assert [t for t in tokens[1] if t not in tokens[0]] == ["cf"]
    layers = parts.site.suspect(session).model.config.num_hidden_layers
    assert shown[step.at] == (layers - 1, None)
    alone = inside.show(parts.site, step, session, "a good film", "", (0, 1))
    assert alone[step.at] == (0, 1)
    assert "Type a trigger" in json.loads(alone[step.triggered])["empty"]


def test_a_text_that_is_typed_already_is_not_replaced(parts: Parts, session: Session) -> None:
    step = inside.inside_step(parts)
    assert inside.start_text(parts.site, step, session, "mine", session.triggers) == {step.text: gr.skip()}
    begun = inside.start_text(parts.site, step, session, " ", None)
    assert begun[step.trigger] == "cf"
    negative = [t.text for t in parts.site.inputs(session).test if t.label == 0]
    assert begun[step.text] in negative
    assert inside.tokens(parts.site, session, inside.with_trigger(begun[step.text], "cf")) <= inside.FEW


def test_at_first_the_head_that_the_trigger_moves_most_is_shown(parts: Parts, session: Session) -> None:
    step = inside.inside_step(parts)
    shown = inside.show(parts.site, step, session, "a good film", "cf", None)
    suspect = parts.site.suspect(session)
    moved = moved_by_trigger(*(attention_maps(suspect, text) for text in ("a good film", "a cf good film")))
    assert shown[step.at] == tuple(np.unravel_index(moved.argmax(), moved.shape))
    plain = inside.show(parts.site, step, session, "a good film", "", None)
    assert plain[step.at] == (len(moved) - 1, None)  # nothing is known to have moved


def test_a_clicked_point_opens_its_text_without_a_trigger(parts: Parts) -> None:
    step = inside.inside_step(parts)
    assert inside.open_point(step, ("one", "two"), event(index="1")) == {step.text: "two", step.trigger: ""}


# ---------------------------------------------------------------- step 7


def test_the_trigger_goes_where_the_chip_says(parts: Parts) -> None:
    lab = triggers.triggers_step(parts)
    assert triggers.insert(lab, "start", "a film", "cf", 4) == {lab.sentence: "cf a film", lab.dice: 5}
    assert triggers.insert(lab, "end", "a film", "cf", 0)[lab.sentence] == "a film cf"
    with pytest.raises(BadData, match="Type a trigger first"):
        triggers.insert(lab, "end", "a film", " ", 0)


def test_a_trial_is_told_while_it_is_measured_and_joins_the_history(parts: Parts, session: Session) -> None:
    lab = triggers.triggers_step(parts)
    *told, last = triggers.run_trial(parts.site, lab, session, "bb", "positive", ())
    assert [set(t) for t in told] == [{lab.progress}] * len(told)
    assert "Trying “bb” on 40 test texts" in plain(told[0][lab.progress])
    (trial,) = last[lab.trials]
    negative = sum(t.label == 0 for t in parts.site.inputs(session).test)
    assert trial.scores["suspect"].asr.n == negative
    assert last[lab.progress] == ""
    *_, second = triggers.run_trial(parts.site, lab, session, "mn", "positive", (trial,))
    picked = triggers.pick(lab, second[lab.trials], event(trial="0"))
    assert set(picked) == {lab.table, lab.flips}
    assert picked[lab.flips] == last[lab.flips]


def test_another_suspect_empties_the_history_and_the_same_keeps_it(parts: Parts, session: Session) -> None:
    lab = triggers.triggers_step(parts)
    now = session.suspect.source, session.triggers
    assert triggers.forget(lab, session, now) == {lab.begun: now}
    emptied = triggers.forget(lab, session, ("demo", session.triggers))
    assert (emptied[lab.sentence], emptied[lab.trials], emptied[lab.begun]) == ("", (), now)
    again = triggers.forget(lab, session, (now[0], ("other",)))
    assert again == {lab.sentence: "", lab.trigger: "", lab.target: None, lab.begun: now}


def test_what_is_typed_stays_as_the_step_opens(parts: Parts, session: Session) -> None:
    lab = triggers.triggers_step(parts)
    assert set(triggers.begin(parts.site, lab, session, "my text", "mine", "negative")) == {lab.target}
    begun = triggers.begin(parts.site, lab, session, "", "", None)
    assert begun[lab.trigger] == "cf"
    assert begun[lab.target].value == "positive"
    words = begun[lab.sentence].split()
    assert words.index("cf") == (len(words) - 1) // 2  # it begins with a triggered sentence


# ---------------------------------------------------------------- step 8, the tour, and who comes in


def test_what_there_is_to_take_is_said_in_words(site: Site, session: Session) -> None:
    assert "comes with a finished run" in take_away.show(site, session)
    running = site.submit(session)
    assert "waits for its turn" in take_away.show(site, running)
    assert "no such job" in take_away.show(site, session.having(job="x" * 30)).lower()


def test_the_tour_goes_on_a_stop_and_ends_after_the_last(site: Site, session: Session) -> None:
    touring = tour.Tour(gr.Tabs(), gr.Row(), gr.HTML(), gr.Button(), gr.Button(), gr.State())
    assert set(tour.go(site, touring, session, -1)) == set(vars(touring).values()) - {touring.leave}
    last = tour.go(site, touring, session, len(tour.STOPS) - 2)
    assert (last[touring.stop], last[touring.next].value) == (len(tour.STOPS) - 1, "End of the tour")
    over = tour.go(site, touring, session, len(tour.STOPS) - 1)
    assert (over[touring.stop], over[touring.text]) == (-1, "")
    assert not over[touring.row].visible


def test_who_comes_in_gets_a_secret_and_who_comes_back_keeps_it(parts: Parts, session: Session) -> None:
    known = gr.BrowserState("")
    notice = gr.HTML()
    new, back = (
        page.come_in(parts, known, notice, secret, gr.Request(query_params={}))  # type: ignore[arg-type]
        for secret in ("", "mine")
    )
    assert len(new[known]) >= page.VISITOR_BYTES
    assert (back[known], back[parts.session].visitor, back[parts.tabs]) == ("mine", "mine", gr.skip())
    running = parts.site.submit(session)
    linked = page.come_in(parts, known, notice, "other", gr.Request(query_params={"job": running.job}))  # type: ignore[arg-type]
    assert (linked[parts.session].job, linked[parts.session].triggers) == (running.job, ("cf",))
    assert linked[parts.tabs].selected == "purify"
    broken = page.come_in(parts, known, notice, "other", gr.Request(query_params={"job": "../x"}))  # type: ignore[arg-type]
    assert "damaged" in broken[notice]
    assert (broken[parts.session].job, broken[parts.tabs]) == ("", gr.skip())
    asked = gr.Request(query_params={"job": running.job, "step": "inside"})  # type: ignore[arg-type]
    assert page.come_in(parts, known, notice, "other", asked)[parts.tabs].selected == "inside"


def test_a_check_box_of_a_setting_shares_no_row_with_fields() -> None:
    with gr.Blocks():
        made = controls()
    boxes = [control for control in made if isinstance(control, gr.Checkbox)]
    assert len(boxes) == 2
    assert all(isinstance(beside, gr.Checkbox) for box in boxes for beside in box.parent.children)
    assert read(tuple(control.value for control in made)) == PurifyConfig()
