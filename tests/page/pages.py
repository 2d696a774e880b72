"""Fixtures of the browser tests: a plugin and no conftest, whose name the one of all tests has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Visits, chromium, request
from playwright.sync_api import Browser
from server import MEGABYTES, serving, until

from mbtsad_core.service.store import State, Store


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server for all tests that ask nothing special of it, and it allows little: some ask as programs do, and not
    always what they may. Its address, and the directory of its jobs."""
    root = tmp_path_factory.mktemp("server") / "jobs"
    with serving(root, "--grace", "5", "--megabytes", str(MEGABYTES), "--quota", "2") as url:
        yield url, root


@pytest.fixture(scope="module")
def all_visits(browser: Browser, served: tuple[str, Path]) -> Iterator[Visits]:
    visits = Visits(browser, *served)
    yield visits
    visits.leave()
    visits.close()


@pytest.fixture
def visits(all_visits: Visits) -> Iterator[Visits]:
    """Visitors who leave when the test ends."""
    yield all_visits
    all_visits.leave()


@pytest.fixture(scope="session")
def finished(served: tuple[str, Path], suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny run that is done, the same for all tests: its id."""
    with Store(served[1]) as store:
        id = store.create(request(suspect_dir, tmp_path_factory.mktemp("finished")).to_dict())
        until(lambda: store.get(id).state is State.DONE)
    return id
