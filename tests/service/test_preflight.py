"""A model's first look, in a sandbox: real processes that judge, load and ask the tiny model; what is wrong with it
comes back as an error of ours."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import mbtsad, tiny_bert

from mbtsad_core.config import SandboxConfig, UploadConfig, VettingConfig
from mbtsad_core.errors import CouldNotTell, MBTSADError, UnsafeModel, UnsuitableModel
from mbtsad_core.models.classifier import load_classifier, save_classifier, weights_hash
from mbtsad_core.service.preflight import _lacked_memory, _raised, _read, _take, _why, attempt, receive, vet
from mbtsad_core.service.sandbox import Ended
from mbtsad_core.vetting import judgment
from mbtsad_core.views.policy import policy_dict

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the sandbox lacks what `missing` says")


def sources(directory: Path) -> list[tuple[str, Path]]:
    return [(path.name, path) for path in sorted(directory.iterdir())]


def test_a_sound_upload_is_taken_and_nothing_else_is_left(
    saved_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no more memory than PyTorch itself needs, and a half."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    place = tmp_path / "uploads"
    place.mkdir()
    report = receive(sources(saved_tiny), place / "model", sandbox=SandboxConfig(memory=1024))
    assert (report.verdict, sorted(file.name for file in report.files)) == (
        "clean",
        sorted(path.name for path in saved_tiny.iterdir()),
    )
    assert {file.verdict for file in report.files} == {"accepted"}
    assert [path.name for path in place.iterdir()] == ["model"]
    assert weights_hash(load_classifier(place / "model")) == weights_hash(load_classifier(saved_tiny))
    assert {oct(path.stat().st_mode & 0o777) for path in (place / "model").iterdir()} == {"0o600"}


def test_a_refused_upload_comes_back_with_its_report_and_is_not_kept(saved_tiny: Path, tmp_path: Path) -> None:
    (saved_tiny / "evil.py").write_text("raise SystemExit")
    place = tmp_path / "uploads"
    place.mkdir()
    report = receive(sources(saved_tiny), place / "model", UploadConfig(), VettingConfig())
    assert (report.verdict, report.rule) == ("refused", "format.code")
    assert [file.name for file in report.files if file.verdict == "refused"] == ["evil.py"]
    assert list(place.iterdir()) == []


def test_a_sound_model_of_one_class_is_unsuitable(tmp_path: Path) -> None:
    save_classifier(tiny_bert(classes=1), tmp_path / "one")
    with pytest.raises(UnsuitableModel, match=r"one output in config\.json.*two classes"):
        attempt(tmp_path / "one", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_model_that_reaches_a_limit_is_not_judged_and_the_limit_is_named(saved_tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(CouldNotTell, match=r"at most 0\.1 seconds, and it took more\. Give a smaller model") as caught:
        attempt(saved_tiny, tmp_path, sandbox=SandboxConfig(seconds=0.1))
    assert caught.value.rule == "vet.cage"
    report = receive(sources(saved_tiny), tmp_path / "model", sandbox=SandboxConfig(seconds=0.1))
    assert (report.verdict, report.rule, (tmp_path / "model").exists()) == ("inconclusive", "vet.cage", False)


def test_memory_is_limited_in_words(saved_tiny: Path, tmp_path: Path) -> None:
    """256 megabytes are fewer than PyTorch takes before any model."""
    with pytest.raises(CouldNotTell, match="256 megabytes of memory"):
        attempt(saved_tiny, tmp_path, sandbox=SandboxConfig(memory=256))


def test_what_is_refused_while_loading_comes_back_with_its_rule_and_file(saved_tiny: Path, tmp_path: Path) -> None:
    path = saved_tiny / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4:] = struct.pack("<f", float("nan"))
    path.write_bytes(data)
    with pytest.raises(UnsafeModel, match="holds NaN") as caught:
        attempt(saved_tiny, tmp_path)
    assert (type(caught.value), caught.value.rule, caught.value.file) == (
        UnsafeModel,
        "weights.finite",
        "model.safetensors",
    )


# ---------------------------------------------------------------- mbtsad vet --sandbox


def vetted(path: Path, *more: str) -> tuple[int, dict[str, Any]]:
    done = mbtsad("vet", path, "--json", "--sandbox", *more)
    return done.returncode, json.loads(done.stdout)


def test_a_verdict_from_the_sandbox_is_that_of_vet(tmp_path: Path) -> None:
    """What the method cannot treat is clean all the same."""
    model = tmp_path / "one"
    save_classifier(tiny_bert(classes=1), model)
    code, said = vetted(model)
    assert (code, said) == (0, policy_dict(judgment.vet(str(model))))
    assert said["verdict"] == "clean"
    (model / "evil.py").write_text("")
    assert vetted(model) == (1, policy_dict(judgment.vet(str(model))))


def test_a_limit_of_the_sandbox_is_a_flag_and_reaching_it_is_no_verdict(saved_tiny: Path) -> None:
    code, report = vetted(saved_tiny, "--seconds", "0.1")
    assert (code, report["verdict"], [file["rule"] for file in report["files"]]) == (2, "inconclusive", ["vet.cage"])
    assert mbtsad("vet", saved_tiny, "--sandbox", "--open-files", "0").returncode == 2


def test_a_model_of_the_hub_that_does_not_come_is_not_judged() -> None:
    assert vet("hub:nobody/nothing").rule == "vet.fetch"


# ---------------------------------------------------------------- the words of a sandboxed process


def test_only_errors_of_ours_are_made_of_its_words_and_they_are_shown_as_text() -> None:
    assert type(_raised(dict(kind="SystemExit", message="bye\x1b[31m", rule="", file=""))) is MBTSADError
    assert str(_raised(dict(kind="UnsuitableModel", message="bye\x1b[31m", rule="", file=""))).isprintable()
    found = _raised(dict(kind="CouldNotTell", message="no", rule="vet.memory", file="a"))
    assert isinstance(found, CouldNotTell)
    assert (found.rule, found.file) == ("vet.memory", "a")


@pytest.mark.parametrize(
    "answer",
    [
        [],
        None,
        {},
        {"files": []},
        {
            "files": [{"name": "a", "verdict": "<b>", "reason": "", "rule": ""}],
            "problem": "",
            "rule": "",
            "undecided": False,
            "error": None,
        },
        {
            "files": [{"name": "a", "verdict": [], "reason": "", "rule": ""}],
            "problem": "",
            "rule": "",
            "undecided": False,
            "error": None,
        },
        {"files": ["clean"], "problem": "", "rule": "", "undecided": False, "error": None},
        {"files": [], "problem": "", "rule": "", "undecided": False, "error": {"kind": "UnsafeModel"}},
        {"files": [], "problem": "", "rule": "", "undecided": False, "error": "no"},
    ],
    ids=repr,
)
def test_an_answer_of_another_form_is_none(answer: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        _read(answer)


@pytest.mark.parametrize("leave", ["a link", "a file", "nothing"])
def test_only_a_folder_is_taken_from_a_sandbox(tmp_path: Path, leave: str) -> None:
    (tmp_path / "secret").mkdir()
    if leave == "a link":
        (tmp_path / "made").symlink_to(tmp_path / "secret")
    elif leave == "a file":
        (tmp_path / "made").write_text("")
    with pytest.raises(CouldNotTell):
        _take(tmp_path / "made", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_process_that_ends_without_an_answer_is_said_with_its_limits() -> None:
    said = _why(Ended(-11, None, b"", b""), SandboxConfig(memory=300, file_megabytes=7, open_files=20))
    assert "limits (300 megabytes of memory, 7 of a file, 20 open files), and signal 11 ended it." in said
    assert "it ended with status 3" in _why(Ended(3, None, b"", b""), SandboxConfig())


def test_a_want_of_memory_is_known_behind_other_errors() -> None:
    def led_to(error: BaseException, cause: BaseException) -> BaseException:
        error.__cause__ = cause
        return error

    assert _lacked_memory(led_to(UnsuitableModel("no"), MemoryError()))
    assert _lacked_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"))
    assert _lacked_memory(OSError(12, os.strerror(12)))
    assert not _lacked_memory(UnsuitableModel("no"))
