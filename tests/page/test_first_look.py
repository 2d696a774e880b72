"""What the page does with a visitor's model before its own process opens it, on hosts with and without processes of its
own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import tiny_bert

from mbtsad_core.config import JobsConfig, SandboxConfig
from mbtsad_core.errors import CouldNotTell, UnsuitableModel
from mbtsad_core.models.classifier import load_classifier, save_classifier, weights_hash
from mbtsad_core.page.site import UPLOADS, Site
from mbtsad_core.service.runner import AttachedRunner, DetachedRunner

COMMIT = "5eed" * 10
TIGHT = SandboxConfig(seconds=0.1)  # too little for any model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the sandbox lacks what `missing` says")


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[DetachedRunner]:
    with DetachedRunner(tmp_path / "jobs", JobsConfig(nice=0)) as runner:
        yield runner


@pytest.fixture
def site(tmp_path: Path, runner: DetachedRunner) -> Site:
    return Site(tmp_path / "jobs", runner)


def tightened(site: Site) -> Site:
    """A server on the same directory, whose sandbox no model gets out of in time."""
    return Site(site.root, site.runner, check=TIGHT)


def test_an_upload_is_loaded_once_it_has_been_in_the_sandbox(site: Site, saved_tiny: Path) -> None:
    with site.upload() as folder:
        report = site.receive([(path.name, path) for path in saved_tiny.iterdir()], folder / "model")
    assert report.verdict == "clean"
    site._check = TIGHT  # so a second time in the sandbox would fail
    assert weights_hash(site.model(str(folder / "model"))) == weights_hash(load_classifier(saved_tiny))
    with pytest.raises(CouldNotTell, match=r"at most 0\.1 seconds"):
        # A server that has been started again knows nothing of it
        tightened(site).model(str(folder / "model"))
    assert sorted(path.name for path in (site.root / UPLOADS).iterdir()) == [folder.name]


def test_an_upload_that_does_not_get_out_of_the_sandbox_is_not_kept(site: Site, saved_tiny: Path) -> None:
    with site.upload() as folder:
        report = tightened(site).receive([(path.name, path) for path in saved_tiny.iterdir()], folder / "model")
    assert (report.verdict, report.rule) == ("inconclusive", "vet.cage")
    assert list(folder.iterdir()) == []


def test_a_sound_upload_that_the_method_cannot_treat_is_not_kept(site: Site, tmp_path: Path) -> None:
    save_classifier(tiny_bert(classes=1), tmp_path / "one")
    with pytest.raises(UnsuitableModel), site.upload() as folder:
        site.receive([(path.name, path) for path in (tmp_path / "one").iterdir()], folder / "model")
    assert list((site.root / UPLOADS).iterdir()) == []


def test_a_model_of_the_hub_is_tried_and_loaded_at_the_same_commit(
    site: Site, saved_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--critics--tiny"
    shutil.copytree(saved_tiny, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    assert weights_hash(site.model("hub:critics/tiny")) == weights_hash(load_classifier(saved_tiny))
    site._check = TIGHT
    site.model(f"hub:critics/tiny@{COMMIT}")  # the same files, under another name
    with pytest.raises(CouldNotTell):
        tightened(site).model("hub:critics/tiny")


def test_what_the_server_brings_or_wrote_itself_needs_no_sandbox(site: Site) -> None:
    narrow = tightened(site)
    assert len(narrow.model("demo").labels) == 2
    with site.upload() as folder:
        save_classifier(tiny_bert(), folder / "model")
    narrow.needs_no_preflight(folder / "model")
    assert len(narrow.model(str(folder / "model")).labels) == 2


def test_a_host_without_processes_judges_all_the_same_and_says_that_it_has_no_sandbox(
    saved_tiny: Path, tmp_path: Path
) -> None:
    with AttachedRunner(tmp_path / "jobs") as attached:
        site = Site(tmp_path / "jobs", attached, check=TIGHT)
        assert "without a sandbox" in site.sandbox_words()
        with site.upload() as folder:
            assert site.receive([(path.name, path) for path in saved_tiny.iterdir()], folder / "model").accepted
        site.model(str(folder / "model"))
        (saved_tiny / "evil.py").write_text("")
        with site.upload() as folder:
            assert (
                site.receive([(path.name, path) for path in saved_tiny.iterdir()], folder / "model").rule
                == "format.code"
            )


def test_a_system_that_lacks_a_limit_is_named_on_the_page(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site.sandbox_words() == ""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert site.sandbox_words() == (
        "A model is first opened in a sandbox, a process of its own. On this system the sandbox lacks a limit on memory; "
        "a limit on the number of processes; an end of processes that leave its group."
    )
