"""`mbtsad vet`: its verdicts, its exit codes, its three forms; folders with what no folder of a model has; damage of
any kind ends in a report."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from conftest import ROOT, VOCABULARY, mbtsad, tiny_bert

from mbtsad_core.config import UploadConfig, VettingConfig
from mbtsad_core.errors import CouldNotTell, UnsafeModel
from mbtsad_core.models.classifier import load_classifier, weights_hash
from mbtsad_core.vetting.judgment import vet
from mbtsad_core.vetting.model_folder import check_model_files, vet_model
from mbtsad_core.vetting.rules import RULES, table
from mbtsad_core.vetting.uploads import FileVerdict, PolicyReport, receive
from mbtsad_core.views.policy import policy_dict, policy_html, policy_sarif, policy_text


def vetted(path: str | Path, *more: str | Path) -> tuple[int, dict[str, Any]]:
    done = mbtsad("vet", path, "--json", *more)
    return done.returncode, json.loads(done.stdout)


def rules(report: dict[str, Any], verdict: str) -> list[tuple[str, str]]:
    return [(f["name"], f["rule"]) for f in report["files"] if f["verdict"] == verdict]


# ---------------------------------------------------------------- verdicts


def test_a_folder_is_clean_with_what_is_ignored(saved_tiny: Path) -> None:
    (saved_tiny / "README.md").write_text("# Tiny")
    (saved_tiny / ".gitattributes").write_text("*.safetensors filter=lfs")
    code, report = vetted(saved_tiny)
    assert (code, report["verdict"]) == (0, "clean")
    assert sorted(rules(report, "ignored")) == [(".gitattributes", "ignore.system"), ("README.md", "ignore.text")]
    assert len(rules(report, "accepted")) == 4


def test_a_zip_is_judged_and_nothing_of_it_kept(
    saved_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    path = Path(shutil.make_archive(str(tmp_path / "made"), "zip", saved_tiny))
    assert vetted(path)[0] == 0
    (saved_tiny / "evil.py").write_text("")
    path = Path(shutil.make_archive(str(tmp_path / "made"), "zip", saved_tiny))
    code, report = vetted(path)
    assert (code, report["verdict"], rules(report, "refused")) == (1, "refused", [("evil.py", "format.code")])
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_file_alone_is_judged(saved_tiny: Path, name: str) -> None:
    assert vetted(saved_tiny / name) == (0, {"verdict": "clean", "files": vetted(saved_tiny / name)[1]["files"]})
    (saved_tiny / name).write_bytes((saved_tiny / name).read_bytes()[:-20])
    code, report = vetted(saved_tiny / name)
    assert (code, report["verdict"]) == (1, "refused")
    assert [f[0] for f in rules(report, "refused")] == [name]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.gguf", "model.onnx", "evil.py", "x.tar.gz"])
def test_a_file_of_another_format_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    code, report = vetted(tmp_path / name)
    assert code == 1
    assert report["files"][0]["name"] == name


def make_nothing(folder: Path) -> str:
    return str(folder / "nowhere")


def make_readme(folder: Path) -> str:
    (folder / "README.md").write_text("x")
    return str(folder / "README.md")


def make_null(folder: Path) -> str:
    return "/dev/null"


@pytest.mark.parametrize(
    "make",
    [
        make_nothing,
        make_readme,
        make_null,
        lambda f: "",
        lambda f: "hub:a",
        lambda f: "hub:nobody/nothing",
        lambda f: "a\0b",
        lambda f: "a" * 5000,
    ],
)
def test_what_cannot_be_judged_is_not_clean(tmp_path: Path, make: Callable[[Path], str]) -> None:
    code, report = vetted(make(tmp_path))
    if make(tmp_path) == "":  # this folder
        assert code == 1
        return
    assert (code, report["verdict"]) == (2, "inconclusive")
    assert report["files"][0]["verdict"] == "inconclusive"


def test_an_incomplete_folder_is_refused_at_the_file_that_is_not_there(saved_tiny: Path) -> None:
    (saved_tiny / "model.safetensors").unlink()
    code, report = vetted(saved_tiny)
    assert (code, rules(report, "refused")) == (1, [("model.safetensors", "weights.missing")])


@pytest.mark.parametrize("pack", [False, True])
def test_the_limits_are_flags(saved_tiny: Path, tmp_path: Path, pack: bool) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "made"), "zip", saved_tiny)) if pack else saved_tiny
    assert vetted(path, "--layers", "2")[0] == 0
    code, report = vetted(path, "--layers", "1")
    assert (code, [f[1] for f in rules(report, "refused")]) == (1, ["config.value"])
    assert mbtsad("vet", path, "--layers", "0").returncode == 2


def test_wrong_arguments_are_no_verdict() -> None:
    assert mbtsad("vet").returncode == 2
    assert mbtsad("vet", ".", "--no-such-flag").returncode == 2


def test_a_defect_of_vetting_is_no_refusal(saved_tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: str, limits: VettingConfig) -> PolicyReport:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("mbtsad_core.vetting.judgment.vet", fail)
    code, report = vetted(saved_tiny)
    assert (code, report["verdict"], report["files"][0]["rule"]) == (2, "inconclusive", "vet.failure")
    assert "ZeroDivisionError: of ours" in report["files"][0]["reason"]


def test_a_zip_that_there_is_no_room_for_is_not_judged(saved_tiny: Path, tmp_path: Path) -> None:
    path = shutil.make_archive(str(tmp_path / "made"), "zip", saved_tiny)
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9999,) * 2); from mbtsad_core.cli "
        f"import main; sys.exit(main(['vet', {path!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, timeout=120)
    assert (done.returncode, "could not be stored here" in done.stdout) == (2, True), done.stderr


# ---------------------------------------------------------------- one verdict, however the files come


MODEL = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
LAYOUTS: dict[
    str, tuple[dict[str, str | None], str]
] = {  # files beside those of a sound model: the name of one of these, or nothing; and the rule
    "the model alone": ({}, ""),
    "checkpoints of a training": ({f"checkpoint-{n}/{name}": name for n in (10, 20) for name in MODEL}, ""),
    "a checkpoint with the state of its optimizer": (
        {"checkpoint-10/config.json": "config.json", "checkpoint-10/optimizer.pt": None},
        "format.pickle",
    ),
    "modules of sentence embeddings": (
        {"1_Pooling/config.json": "config.json", "2_Normalize/": None, "modules.json": None},
        "",
    ),
    "exports": ({"onnx/model.onnx": None, "openvino/openvino_model.bin": None}, "format.other"),
    "a tokenizer in a folder of its own": (
        {"tokenizer/tokenizer.json": "tokenizer.json", "tokenizer/vocab.txt": None},
        "",
    ),
    "weights deeper down": ({"fp16/model.safetensors": "model.safetensors", "fp16/a.safetensors": None}, ""),
    "code deeper down": ({"scripts/train.py": None, "README.md": None}, "format.code"),
    "logs and cards": ({"runs/Nov11/events.out.tfevents.1": None, "README.md": None, "all_results.json": None}, ""),
    "an archive": ({"old.zip": None}, "nested"),
    "names that differ in case": ({"notes/A.md": None, "notes/a.md": None}, "case"),
    "a name that cannot be seen": ({"notes/a\u202eb.md": None}, "name"),
    "a name with a backslash": ({"notes\\a.md": None}, "path"),
    "weights beside the model's": ({"adapter_model.safetensors": "model.safetensors"}, "weights.stray"),
    "a folder in the place of a file": ({"vocab.txt/": None}, "special"),
}


def laid_out(saved: Path, layout: str, within: str = "") -> Path:
    """A folder with a sound model, in `within` of it, and what a layout adds."""
    for name, of in LAYOUTS[layout][0].items():
        path = saved / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes((saved / of).read_bytes() if of else b"")
    if not within:
        return saved
    (saved.parent / "whole" / within).parent.mkdir(parents=True)
    saved.rename(saved.parent / "whole" / within)
    return saved.parent / "whole"


def said(report: PolicyReport) -> tuple[str, str, list[tuple[str, str, str]]]:
    """Verdict, rule, and name, verdict and rule of each file, whatever the files came in."""
    short = [(f.name, f.verdict, re.sub("^(zip|file)[.]", "", f.rule)) for f in report.files]
    assert len(short) == len({name for name, _, _ in short}), "a file is listed twice"
    return report.verdict, re.sub("^(zip|file)[.]", "", report.rule), sorted(short)


@pytest.mark.parametrize("within", ["", "tiny"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_its_zip_and_its_files_get_one_verdict(
    saved_tiny: Path, tmp_path: Path, layout: str, within: str
) -> None:
    folder = laid_out(saved_tiny, layout, within)
    verdict, rule, files = said(vet(str(folder)))
    assert (verdict, rule) == ("refused" if LAYOUTS[layout][1] else "clean", LAYOUTS[layout][1])
    assert {name for name, word, _ in files if word == "accepted"} >= {
        f"{within}/{name}".lstrip("/") for name in MODEL if name != "model.safetensors"
    }
    assert said(vet(shutil.make_archive(str(tmp_path / "made"), "zip", folder))) == (verdict, rule, files)
    sources = [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if path.is_file()]
    if "folder" not in layout:  # a browser sends no folders
        assert said(receive(sources, tmp_path / "received")) == (verdict, rule, files)


def test_what_a_clone_of_git_holds_of_its_own_is_nothing_of_the_model(saved_tiny: Path, tmp_path: Path) -> None:
    (saved_tiny / ".git" / "hooks").mkdir(parents=True)
    (saved_tiny / ".git" / "hooks" / "post-merge.py").write_text("")
    assert vet(str(saved_tiny)).accepted
    assert vet(shutil.make_archive(str(tmp_path / "made"), "zip", saved_tiny)).accepted


def test_a_model_in_a_folder_of_a_folder_is_loaded_from_there(saved_tiny: Path) -> None:
    expected = load_classifier(saved_tiny)
    whole = laid_out(saved_tiny, "checkpoints of a training", "a run/tiny")
    found = load_classifier(whole)
    assert weights_hash(found) == weights_hash(expected)
    assert found.origin is not None
    assert expected.origin is not None
    assert found.origin.sha256 == expected.origin.sha256


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_is_missing_is_said_in_the_same_words(saved_tiny: Path, tmp_path: Path, lacking: str) -> None:
    (saved_tiny / lacking).unlink()
    (saved_tiny / "README.md").write_text("")
    folder = vet(str(saved_tiny))
    zipped = vet(shutil.make_archive(str(tmp_path / "made"), "zip", saved_tiny))
    assert said(folder) == said(zipped)
    assert folder.problem.replace(str(saved_tiny), "The upload") == zipped.problem


def test_a_zip_is_vetted_by_the_limits_of_its_folder(saved_tiny: Path, tmp_path: Path) -> None:
    for number in range(100):  # more than an upload of the page may have
        (saved_tiny / f"note{number}.md").write_text("")
    path = shutil.make_archive(str(tmp_path / "made"), "zip", saved_tiny)
    assert vet(str(saved_tiny)).accepted
    assert vet(path).accepted
    assert receive([("made.zip", Path(path))], tmp_path / "received").rule == "zip.entries"
    few = VettingConfig(files=50)
    assert (vet(str(saved_tiny), few).rule, vet(path, few).rule) == ("folder.entries", "zip.entries")


@pytest.mark.parametrize("name", ["optimizer.pt", "onnx/model.onnx", "scripts/train.py", "a/b/c/d.pkl"])
def test_a_refused_file_is_listed_once_in_every_form(saved_tiny: Path, tmp_path: Path, name: str) -> None:
    (saved_tiny / name).parent.mkdir(parents=True, exist_ok=True)
    (saved_tiny / name).write_bytes(b"")
    code, report = vetted(saved_tiny, "--sarif", tmp_path / "found.sarif")
    assert (code, [f["name"] for f in report["files"]].count(name)) == (1, 1)
    results = json.loads((tmp_path / "found.sarif").read_text(encoding="utf-8"))["runs"][0]["results"]
    assert len(results) == 1
    assert mbtsad("vet", saved_tiny).stdout.count(f" {name}: ") == 1


def test_a_place_for_sarif_that_cannot_be_written_is_told_before_anything_is_judged(
    saved_tiny: Path, tmp_path: Path
) -> None:
    for command in (("vet", saved_tiny), ("scan", "demo")):
        run = mbtsad(*command, "--sarif", tmp_path / "absent" / "found.sarif")
        assert (run.returncode, run.stdout) == (2, "")
        assert "--sarif: " in run.stderr
        assert "Name another file" in run.stderr
        assert "scan 1/" not in run.stderr


# ---------------------------------------------------------------- forms


EVIL = "\x1b[2J\u202e<script>\n"
REPORT = PolicyReport(
    (
        FileVerdict("config.json", "accepted", "Settings of the model.", "accept.settings"),
        FileVerdict(EVIL, "refused", f"{EVIL} is a pickle.", "format.pickle"),
        FileVerdict("naïve 説明.md", "ignored", "A text for readers.", "ignore.text"),
        FileVerdict("vocab.txt", "inconclusive", "Could not be read.", "vet.unreadable"),
    ),
    f"Refused: {EVIL} is a pickle.",
    "format.pickle",
)


@pytest.mark.parametrize(
    "show",
    [
        lambda: policy_text(REPORT, EVIL),
        lambda: policy_dict(REPORT),
        lambda: policy_sarif([REPORT], "1"),
        lambda: policy_html(REPORT),
    ],
)
def test_no_name_can_steer_a_terminal_or_a_page(show: Callable[[], Any]) -> None:
    text = show() if isinstance(show(), str) else json.dumps(show(), ensure_ascii=False)
    assert not {"\x1b", "\u202e"} & set(text)
    assert len(text) > 100


def test_the_text_has_the_refused_file_first() -> None:
    lines = policy_text(REPORT, "upload.zip").split("\n")
    assert lines[0] == "refused: upload.zip: it must not be loaded."
    assert [re.search(r"refused|inconclusive|accepted|ignored", line).group() for line in lines[1:]] == [
        "refused",
        "inconclusive",
        "accepted",
        "ignored",
    ]  # type: ignore[union-attr]


def test_clean_promises_nothing_of_backdoors(saved_tiny: Path) -> None:
    done = mbtsad("vet", saved_tiny)
    assert done.returncode == 0
    assert done.stdout.startswith("clean: ")
    assert "This says nothing of a backdoor." in done.stdout


def test_json_has_the_agreed_keys_and_says_what_is_wrong_with_the_whole() -> None:
    found = policy_dict(PolicyReport((), "No file came.", "file.missing"))
    assert found == {
        "verdict": "refused",
        "files": [{"name": "", "verdict": "refused", "reason": "No file came.", "rule": "file.missing"}],
    }
    assert [set(f) for f in policy_dict(REPORT)["files"]] == [{"name", "verdict", "reason", "rule"}] * 4


def test_sarif_names_rules_places_and_levels(saved_tiny: Path, tmp_path: Path) -> None:
    (saved_tiny / "a b%.py").write_text("")
    (saved_tiny / "README.md").write_text("")
    code, _ = vetted(saved_tiny, "--sarif", tmp_path / "found.sarif")
    assert code == 1
    log = json.loads((tmp_path / "found.sarif").read_text(encoding="utf-8"))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    listed = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in listed] == list(RULES)
    assert all(rule["shortDescription"]["text"] for rule in listed)
    found = {}
    for result in run["results"]:
        assert listed[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"[A-Za-z0-9._/%~-]+", uri)
        found[unquote(uri)] = (result["level"], result["ruleId"])
    assert found == {"a b%.py": ("error", "format.code"), "README.md": ("note", "ignore.text")}
    assert run["invocations"] == [{"executionSuccessful": True}]


def test_a_sarif_file_that_cannot_be_written_is_no_verdict(saved_tiny: Path, tmp_path: Path) -> None:
    done = mbtsad("vet", saved_tiny, "--sarif", tmp_path)
    assert (done.returncode, "--sarif: " in done.stderr) == (2, True)


def test_several_models_are_judged_in_one_call_each_on_a_line_of_its_own(saved_tiny: Path, tmp_path: Path) -> None:
    (bad := tmp_path / "model.bin").write_bytes(b"")
    nothing = tmp_path / "nothing"
    for paths, code in (([saved_tiny, bad, nothing], 1), ([nothing, saved_tiny], 2), ([saved_tiny, saved_tiny], 0)):
        done = mbtsad("vet", *paths, "--json", "--sarif", tmp_path / "found.sarif")
        alone = [json.loads(mbtsad("vet", path, "--json").stdout) for path in paths]
        assert (done.returncode, [json.loads(line) for line in done.stdout.splitlines()]) == (code, alone)
        runs = json.loads((tmp_path / "found.sarif").read_text(encoding="utf-8"))["runs"]
        assert [run["invocations"][0]["executionSuccessful"] for run in runs] == [path != nothing for path in paths]


def test_the_command_prints_what_its_terminal_has_no_letters_for(saved_tiny: Path) -> None:
    (saved_tiny / "説明.md").write_text("")
    command = [sys.executable, "-m", "mbtsad_core.cli", "vet", str(saved_tiny)]
    done = subprocess.run(
        command, capture_output=True, cwd=ROOT, timeout=120, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u8aac\\u660e.md" in done.stdout


def test_a_reader_that_leaves_does_not_change_the_verdict(saved_tiny: Path) -> None:
    command = [sys.executable, "-m", "mbtsad_core.cli", "vet", str(saved_tiny / "config.json"), "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, timeout=120)
    os.close(writing)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("name", ["vocab.txt", "notes.xyz", "model.safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(saved_tiny: Path, name: str) -> None:
    (saved_tiny / name).unlink(missing_ok=True)
    os.mkfifo(saved_tiny / name)
    with pytest.raises(UnsafeModel) as refused:
        check_model_files(saved_tiny)
    assert (refused.value.rule, refused.value.file) == ("file.special", name)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors", "tokenizer.json"])
def test_a_folder_in_the_place_of_a_file_is_refused(saved_tiny: Path, name: str) -> None:
    (saved_tiny / name).unlink(missing_ok=True)
    (saved_tiny / name).mkdir()
    with pytest.raises(UnsafeModel) as refused:
        check_model_files(saved_tiny)
    assert (refused.value.rule, refused.value.file) == ("file.special", name)


@pytest.mark.parametrize("target", ["/etc/passwd", "../elsewhere.txt", "nowhere", "vocab.txt"])
def test_a_link_out_of_the_folder_is_refused(saved_tiny: Path, target: str) -> None:
    (saved_tiny.parent / "elsewhere.txt").write_text("a secret")
    (saved_tiny / "vocab.txt").symlink_to(target)
    with pytest.raises(UnsafeModel) as refused:
        check_model_files(saved_tiny)
    assert (refused.value.rule, refused.value.file) == ("file.link", "vocab.txt")


def test_links_of_the_hubs_cache_are_followed(saved_tiny: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "5eed"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(saved_tiny.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    check_model_files(snapshot)


def test_links_within_the_folder_are_followed(saved_tiny: Path) -> None:
    (saved_tiny / "weights").mkdir()
    (saved_tiny / "model.safetensors").rename(saved_tiny / "weights" / "1")
    (saved_tiny / "model.safetensors").symlink_to("weights/1")
    check_model_files(saved_tiny)


def test_what_stands_in_a_folder_of_its_own_is_not_read(saved_tiny: Path) -> None:
    (saved_tiny / "1_Pooling").mkdir()
    (saved_tiny / "1_Pooling" / "config.json").write_text("{")
    code, report = vetted(saved_tiny)
    assert (code, rules(report, "ignored")) == (0, [("1_Pooling/config.json", "ignore.folder")])


def test_a_folder_of_too_many_files_is_refused(saved_tiny: Path) -> None:
    with pytest.raises(UnsafeModel, match="holds more than 3 files") as refused:
        check_model_files(saved_tiny, VettingConfig(files=3))
    assert refused.value.rule == "folder.entries"


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        (VettingConfig(layers=1), "config.value"),
        (VettingConfig(hidden=31), "config.value"),
        (VettingConfig(heads=3), "config.value"),
        (VettingConfig(vocabulary=50), "config.value"),
        (VettingConfig(positions=63), "config.value"),
        (VettingConfig(labels=1), "config.labels"),
        (VettingConfig(label_length=7), "config.labels"),
        (VettingConfig(tensors=10), "weights.count"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_load_holds_the_limits_that_it_is_given(saved_tiny: Path, limits: VettingConfig, rule: str) -> None:
    """The tiny model has 2 layers of 32 in 4 heads, 57 tokens, 64 positions, and "negative" of 8 letters; each limit is
    just below."""
    load_classifier(saved_tiny)
    with pytest.raises(UnsafeModel) as refused:
        load_classifier(saved_tiny, limits=limits)
    assert refused.value.rule == rule


def test_memory_is_limited_before_it_is_taken(tmp_path: Path) -> None:
    """A model of 1.1 megabytes as float32, stored in half of that."""
    from transformers import BertConfig, BertForSequenceClassification

    tiny = tiny_bert()
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=32,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    model = BertForSequenceClassification(config)
    assert 1 << 20 < 4 * sum(p.numel() for p in model.parameters()) < 2 << 20
    model.half().save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    check_model_files(tmp_path, VettingConfig(megabytes=2))
    with pytest.raises(UnsafeModel) as refused:
        check_model_files(tmp_path, VettingConfig(megabytes=1))
    assert refused.value.rule == "size.memory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_not_judged(saved_tiny: Path) -> None:
    (saved_tiny / "config.json").chmod(0)
    with pytest.raises(CouldNotTell):
        check_model_files(saved_tiny)


def test_nan_in_the_second_of_two_files_is_found(tmp_path: Path) -> None:
    import torch

    tiny = tiny_bert()
    with torch.no_grad():
        tiny.model.classifier.weight[1, 5] = float("nan")
    tiny.model.save_pretrained(tmp_path, max_shard_size="20KB")
    tiny.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UnsafeModel, match=r"'classifier\.weight' of model-0000\d-of-0000\d\.safetensors holds NaN"):
        load_classifier(tmp_path)


def test_what_is_left_out_of_the_files_is_said(saved_tiny: Path) -> None:
    config = json.loads((saved_tiny / "config.json").read_text()) | {"finetuning_task": "sst2", "_name_or_path": "x/y"}
    (saved_tiny / "config.json").write_text(json.dumps(config))
    assert vet_model(saved_tiny).left_out == {"config.json": ["_name_or_path", "finetuning_task"]}
    (said,) = [f["reason"] for f in vetted(saved_tiny)[1]["files"] if f["name"] == "config.json"]
    assert said == "Settings of the model. Left out of it: _name_or_path, finetuning_task."


THREADS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from mbtsad_core.models.classifier import load_classifier, weights_hash
start = threading.Barrier(4)

def load(number):
    start.wait()
    return load_classifier(Path(sys.argv[1])).labels

with ThreadPoolExecutor(4) as pool:
    print(set(pool.map(load, range(4))))
"""


def test_the_first_models_of_a_process_can_be_loaded_in_many_threads_at_once(saved_tiny: Path) -> None:
    done = subprocess.run([sys.executable, "-c", THREADS, str(saved_tiny)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "{('negative', 'positive')}\n", done.stderr[-2000:]


# ---------------------------------------------------------------- any damage


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "vocab.txt"]
)
def test_no_damage_to_a_file_ends_in_anything_but_a_report(saved_tiny: Path, tmp_path: Path, name: str) -> None:
    rng = random.Random(name)
    valid = {p.name: p.read_bytes() for p in saved_tiny.iterdir()}
    if name == "vocab.txt":
        valid[name] = "\n".join(json.loads(valid.pop("tokenizer.json"))["model"]["vocab"]).encode()
    pieces = [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b"null",
        b"true",
        b"-1",
        b"1e999",
        b"9" * 30,
        b"\xff",
        b"\0",
        b"\\u0000",
        b"\\ud800",
        b"1.5",
        b'"x"',
        b"{}",
    ]
    head = len(valid[name]) if name != "model.safetensors" else 8 + int.from_bytes(valid[name][:8], "little")
    refused = 0
    for number in range(120):
        data = bytearray(valid[name])
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(head)
            data[at : at + rng.choice((0, 1, 1, 4))] = (
                rng.choice(pieces) if rng.random() < 0.8 else bytes([rng.randrange(256)])
            )
        sources = []
        for n, content in (valid | {name: bytes(data)}).items():
            (tmp_path / f"{number}-{n}").write_bytes(content)
            sources.append((n, tmp_path / f"{number}-{n}"))
        report = receive(sources, tmp_path / "model", UploadConfig())
        assert report.verdict in ("clean", "refused")
        assert report.accepted or report.rule in RULES
        refused += not report.accepted
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
    assert refused > 20


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_no_value_of_another_type_ends_in_anything_but_a_report(saved_tiny: Path, name: str) -> None:
    """Each value of the file, one at a time, is replaced by values of every type."""
    tree = json.loads((saved_tiny / name).read_text(encoding="utf-8"))
    others = [None, True, -1, 10**30, 1.5, "", "x", "\x1b", [], [[]], {}, {"a": {}}, [None] * 3]
    places = [p for p in paths(tree) if "vocab" not in p][:150]
    verdicts = set()
    rng = random.Random(0)
    for place in places:
        for other in rng.sample(others, 4):
            (saved_tiny / name).write_text(json.dumps(put(tree, place, other)), encoding="utf-8")
            report = vet(str(saved_tiny))
            assert report.verdict in ("clean", "refused")
            verdicts.add(report.rule)
    assert len(verdicts) > 2
    assert verdicts <= {"", *RULES}


def paths(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [p for key, value in items for p in ((*at, key), *paths(value, (*at, key)))]


def put(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    tree = json.loads(json.dumps(tree))
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return tree


# ---------------------------------------------------------------- rules and their page


def test_every_rule_that_is_raised_is_explained_and_every_one_explained_is_raised() -> None:
    sources = [p.read_text(encoding="utf-8") for p in (ROOT / "mbtsad_core").rglob("*.py") if p.name != "rules.py"]
    families = "|".join(sorted({rule.split(".")[0] for rule in RULES}))
    named = {f"{a}.{b}" for text in sources for a, b in re.findall(rf'["\']({families})\.([a-z0-9_]+)["\']', text)} - {
        "config.json",
        "tokenizer.json",
    }
    both = set(re.findall(r'\{kind\}\.([a-z]+)["\']', "".join(sources)))
    named |= {f"{kind}.{rule}" for kind in ("zip", "file") for rule in both}
    assert named == set(RULES)


def test_the_page_of_the_rules_is_up_to_date() -> None:
    assert table() in (ROOT / "docs" / "vetting.md").read_text(encoding="utf-8")
