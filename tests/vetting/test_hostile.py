"""The hostile corpus: every upload is refused under the right rule, or taken without its sting; nothing of it runs,
nothing is left."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, mbtsad, tiny_bert
from hostile import Files, Hostile, all_hostile, zipped

from mbtsad_core.config import UploadConfig, VettingConfig
from mbtsad_core.models.classifier import load_classifier, predict, save_classifier
from mbtsad_core.vetting.rules import RULES
from mbtsad_core.vetting.uploads import PolicyReport, receive

SECONDS, MEGABYTES = 10, 1024  # that a refusal may take


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("house")


@pytest.fixture(scope="module")
def valid(house: Path) -> Files:
    save_classifier(tiny_bert(), house / "valid")
    return {p.name: p.read_bytes() for p in sorted((house / "valid").iterdir())}


@pytest.fixture(scope="module")
def corpus(valid: Files) -> list[Hostile]:
    return list(all_hostile(valid))


def send(case: Hostile, folder: Path) -> PolicyReport:
    """Receive an upload into folder/model; nothing else may stand in the folder afterwards but what was sent."""
    sent = folder / "sent"
    sent.mkdir(parents=True)
    if case.zip is not None:
        (sent / "0").write_bytes(case.zip)
        sources = [("model.zip", sent / "0")]
    else:
        sources = []
        for number, (name, data) in enumerate((case.files or {}).items()):
            (sent / str(number)).write_bytes(data)
            sources.append((name, sent / str(number)))
    return receive(sources, folder / "model", case.uploads, case.limits)


def test_the_corpus_is_large_and_its_rules_exist(corpus: list[Hostile]) -> None:
    assert len(corpus) >= 150
    assert len({case.name for case in corpus}) == len(corpus)
    assert {case.rule for case in corpus} <= set(RULES)


@pytest.mark.parametrize("pack", [False, True])
def test_the_valid_upload_is_accepted(valid: Files, tmp_path: Path, pack: bool) -> None:
    case = Hostile("valid", "", zip=zipped(valid)) if pack else Hostile("valid", "", valid)
    assert send(case, tmp_path).accepted
    load_classifier(tmp_path / "model")


def test_each_is_refused_under_its_rule_or_taken_without_its_sting(corpus: list[Hostile], house: Path) -> None:
    wrong = []
    for number, case in enumerate(corpus):
        folder = house / str(number)
        started = time.monotonic()
        report = send(case, folder)
        seconds = time.monotonic() - started
        if case.harmless:
            right = report.accepted and case.rule in {f.rule for f in report.files}
        else:
            right = (
                report.verdict == "refused"
                and report.rule == case.rule
                and case.rule in {f.rule for f in report.files if f.verdict == "refused"}
            )
        if not right or seconds > SECONDS:
            wrong.append((case.name, case.rule, report.verdict, report.rule, round(seconds, 1), report.problem[:200]))
        assert {p.name for p in folder.iterdir()} == ({"sent", "model"} if report.accepted else {"sent"}), case.name
        if case.harmless and report.accepted:
            assert predict(load_classifier(folder / "model"), ["the lovely film"]).shape == (1, 2), case.name
        shutil.rmtree(folder)
    assert not wrong
    assert {p.name for p in house.iterdir()} == {"valid"}


def test_the_command_gives_the_same_verdicts(corpus: list[Hostile], valid: Files, house: Path) -> None:
    """One of each rule, as a zip or a folder."""
    seen = set[str]()
    for case in corpus:
        if (case.rule in seen or case.uploads != UploadConfig()) or (  # of the page's alone
            case.zip is None
            and any(
                "/" in name or "\\" in name or not name.isprintable() or len(name) > 200 for name in case.files or {}
            )
        ):
            continue
        path = house / ("one.zip" if case.zip is not None else "one")
        if case.zip is not None:
            path.write_bytes(case.zip)
        else:
            path.mkdir()
            for name, data in (case.files or {}).items():
                (path / name).write_bytes(data)
        usual = VettingConfig()
        flags = [
            f"--{key}={value}" for key, value in dataclasses.asdict(case.limits).items() if value != getattr(usual, key)
        ]
        done = mbtsad("vet", path, "--json", *flags)
        report = json.loads(done.stdout)
        if case.rule != "file.case":  # names of one folder; on this file system they are two
            seen.add(case.rule)
            assert done.returncode == (0 if case.harmless else 1), (case.name, report)
            assert case.rule in {f["rule"] for f in report["files"] if case.harmless or f["verdict"] == "refused"}, (
                case.name,
                report,
            )
        path.unlink() if path.is_file() else shutil.rmtree(path)
    assert len(seen) > 45


MEASURED = """
import json, sys
from pathlib import Path
from mbtsad_core.config import UploadConfig, VettingConfig
from mbtsad_core.vetting.uploads import receive

did = []
sys.addaudithook(lambda event, given: did.append(event) if event in ("pickle.find_class", "os.system", "subprocess.Popen", "socket.connect") else None)
folder = Path(sys.argv[1])
for name, case in json.loads((folder / "rules.json").read_text()).items():
    report = receive([(name, folder / name)], folder / name.removesuffix(".zip"), UploadConfig(**case["uploads"]), VettingConfig(**case["limits"]))
    assert report.accepted == case["harmless"], (case, report)
assert not did, did
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) // 1024)  # the peak of this program; ru_maxrss would count what the tests had before they started it
"""


def test_the_script_writes_them_and_judging_all_runs_nothing_and_takes_less_than_a_gigabyte(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "tests/vetting/hostile.py"), str(tmp_path / "made")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert made.returncode == 0, made.stderr
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "made")],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < MEGABYTES
