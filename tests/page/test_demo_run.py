"""A server with a past, and the run of the demo that it makes for all: made once, open to all, stopped by nobody."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import LATE, NEEDS_BROWSER, Look, Visits, open_step, request, state, tab_of, write_table
from conftest import tiny_texts
from playwright.sync_api import Browser, Page, expect
from server import serving, until

from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig, SplitConfig
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.errors import WrongState
from mbtsad_core.page.api import purify_cancel
from mbtsad_core.page.demo_run import digest, make_demo_run
from mbtsad_core.page.first_look import cured_words
from mbtsad_core.page.session import Session
from mbtsad_core.page.site import Site
from mbtsad_core.service.purification import Request
from mbtsad_core.service.runner import AttachedRunner, DetachedRunner
from mbtsad_core.service.store import BACKGROUND, State, Store
from mbtsad_core.service.worker import _explain, work

pytest_plugins = ["pages"]
SHORT = Request(
    config=PurifyConfig(
        split=SplitConfig(copies=1),
        retrain=RetrainConfig(epochs=1, observe_every=2),
        distil=DistilConfig(epochs=1, observe_every=2),
        found_tokens=0,
    )
)


class Waiting(DetachedRunner):
    """A runner that starts nothing."""

    def _supervise(self) -> None:
        self._closing.wait()


def test_a_server_makes_it_once_and_lets_that_of_another_version_go(tmp_path: Path) -> None:
    with Waiting(tmp_path) as runner:
        sites = [Site(tmp_path, runner) for _ in range(3)]
        for site in sites[:2]:
            make_demo_run(site)
        assert sites[0].demo == sites[1].demo
        (job,) = runner.store.of_owner(BACKGROUND)
        assert Request.from_dict(job.request) == Session().request(RuntimeConfig())
        runner.store.claim()
        runner.store.fail(job.id, "lost")
        make_demo_run(sites[1])
        assert sites[1].demo != sites[0].demo
        make_demo_run(sites[2], dataclasses.replace(Session().request(RuntimeConfig()), clean_amount=100.0))
        runner.store.expire()
        assert runner.status(job.id).state is State.EXPIRED
        assert [job.id for job in runner.store.of_owner(BACKGROUND) if job.state is State.QUEUED][-1] == sites[2].demo


def test_nobody_stops_it(tmp_path: Path) -> None:
    with Waiting(tmp_path) as runner:
        site = Site(tmp_path, runner)
        make_demo_run(site)
        with pytest.raises(WrongState, match="all visitors"):
            purify_cancel(site, site.demo)
        assert runner.status(site.demo).state is State.QUEUED


def test_the_page_says_whether_it_waits_or_runs(tmp_path: Path) -> None:
    with Waiting(tmp_path) as runner:
        site = Site(tmp_path, runner)
        make_demo_run(site)
        assert cured_words(site).startswith("This server cures the suspect next, for all visitors: ")
        runner.store.claim()
        assert cured_words(site).startswith("This server is curing the suspect now, for all visitors: ")
        runner.store.fail(site.demo, "lost")
        assert cured_words(site).endswith("Run it yourself.")


def test_where_jobs_need_a_caller_there_is_none(tmp_path: Path) -> None:
    with AttachedRunner(tmp_path) as runner:
        site = Site(tmp_path, runner)
        make_demo_run(site)
        assert site.demo == ""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared") / "jobs"


@pytest.fixture(scope="module")
def ids(root: Path, suspect_dir: Path) -> dict[str, str]:
    """What a server has left that was stopped in the midst of a run, as test_runner.py interrupts it: a failed, an
    expired and the interrupted run."""
    folder = root.parent
    asked, ids = request(suspect_dir, folder).to_dict(), dict[str, str]()
    with Store(root) as store:
        for name, keep in (("failed", 86_400.0), ("expired", 0.0)):
            id = ids[name] = store.create(asked, keep=keep)
            store.claim(id)
            store.begin(id, os.getpid())
            store.fail(id, _explain(MemoryError()))
        store.expire()
        id = ids["interrupted"] = store.create(request(suspect_dir, folder, epochs=6).to_dict())
        store.claim(id)
        stages = [""]  # as its events tell them; the store hears of them now and then
        for event in work(root, id, stopping=lambda: stages[-1] == "retrain"):
            stages.append(event.stage)
        assert (stages[-1], store.get(id).state) == ("retrain", State.QUEUED)
    return ids


@pytest.fixture(scope="module")
def shared(browser: Browser, root: Path, ids: dict[str, str], suspect_dir: Path) -> Iterator[Visits]:
    """The server that is started then. Its run of the demo is a short one, on few texts, and waits behind the
    interrupted one and a visitor's that has no end."""
    folder = root.parent
    clean, test = (write_table(folder / f"{seed}.tsv", tiny_texts(48, seed=seed)) for seed in (0, 1))
    short = dataclasses.replace(SHORT, clean=clean, test=test)
    with Store(root) as store:
        store.create(short.to_dict(), BACKGROUND, keep=1e9, id=f"demo-{digest(Session().request(RuntimeConfig()))}-0")
        store.create(request(suspect_dir, folder, epochs=1000).to_dict(), "a visitor")
    with serving(root, "--demo-run") as url:
        visits = Visits(browser, url, root)
        yield visits
        visits.leave()
        visits.close()


def walk(visits: Visits) -> Page:
    """A visitor who sees what each step has of the run that is all visitors'."""
    (job,) = visits.store.of_owner(BACKGROUND)
    until(lambda: visits.store.get(job.id).state is State.DONE)
    page = visits.visitor()
    state(page, "done")
    page.locator("#see-demo").click()
    expect(page.locator("#curves .plot .point").first).to_be_visible()
    open_step(page, "clean")
    expect(page.locator("#clean-check h3")).to_be_visible()
    open_step(page, "splits")
    expect(page.locator("#split-rows .row").nth(1)).to_be_visible()
    open_step(page, "inside")
    expect(page.locator("#attention-triggered canvas").first).to_be_visible()
    expect(page.locator("#projection canvas.points").first).to_be_visible()
    open_step(page, "triggers")
    expect(page.locator("#answers")).to_contain_text("purified")
    open_step(page, "take")
    expect(page.locator("#take-away a.download")).to_have_count(4)
    return page


class TestInABrowser:
    pytestmark = NEEDS_BROWSER

    def test_server_restarted(self, shared: Visits, ids: dict[str, str], look: Look) -> None:
        page = shared.visitor(f"?job={ids['interrupted']}")
        expect(page.locator("#strip .who")).to_contain_text("suspect of this run")
        look(page, "server-restarted")
        state(page, "done")
        job = shared.store.get(ids["interrupted"])
        assert job.attempts == 1  # handed over, not lost
        shared.check()

    def test_until_it_is_there_the_page_says_how_long_it_takes(self, shared: Visits) -> None:
        page = shared.visitor()
        expect(page.locator("#first-cure")).to_contain_text(re.compile(r"for all visitors: .* (on two cores|left)\."))
        open_step(page, "purify")
        expect(page.locator("#stop")).to_be_disabled()
        expect(page.locator("#start")).to_have_text("Run it yourself")
        (before,) = shared.store.of_owner("a visitor")
        shared.store.request_cancel(before.id)
        open_step(page, "suspect")
        expect(page.locator("#first-cure")).to_contain_text("A finished run of the demo is here", timeout=LATE)
        shared.check()

    def test_failed_for_lack_of_memory(self, shared: Visits, ids: dict[str, str], look: Look) -> None:
        page = shared.visitor(f"?job={ids['failed']}")
        state(page, "failed")
        expect(page.locator("#job-panel")).to_contain_text(
            "not enough memory for this run. Use a smaller batch size or a smaller maximal length."
        )
        look(page, "failed-memory")
        shared.check()

    def test_job_expired(self, shared: Visits, ids: dict[str, str], look: Look) -> None:
        assert shared.store.get(ids["expired"]).state is State.EXPIRED
        page = shared.visitor(f"?job={ids['expired']}")
        state(page, "expired")
        expect(page.locator("#job-panel")).to_contain_text(
            "The results were kept for a limited time, and they are gone now. Start a new run."
        )
        expect(page.locator("#notice")).to_contain_text("The run of this link has expired")
        look(page, "expired")
        open_step(page, "take")
        expect(page.locator("#take-away")).to_contain_text("its files are gone. Start a new one in step 5.")
        shared.check()

    def test_all_steps_are_walked_with_it(self, shared: Visits) -> None:
        page = walk(shared)
        assert "job=" not in page.url
        shared.check()

    @pytest.mark.slow
    def test_the_walk_takes_half_a_minute_at_most(self, shared: Visits) -> None:
        arrived = time.monotonic()
        walk(shared)
        assert time.monotonic() - arrived < 30

    @pytest.mark.slow
    def test_ones_own_run_is_another(self, shared: Visits) -> None:
        page = shared.visitor()
        page.locator("#run-demo").click()
        own = shared.job(page)
        assert own.owner != BACKGROUND
        expect(tab_of(page, "purify")).to_have_attribute("aria-selected", "true")
        expect(page.locator("#stop")).to_be_enabled()
        page.locator("#stop").click()
        state(page, "stopped")
        shared.check()
