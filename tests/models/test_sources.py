"""Every family from a folder, a zip and the Hub: the same verdict, the same figures, the same digest.

The Hub's stand-in serves them on loopback to a child process, which vets and evaluates all of them.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, mbtsad, tiny_texts
from test_families import FAMILIES, write
from test_hub_models import COMMIT, StandIn

from mbtsad_core.errors import UnsafeModel
from mbtsad_core.models.classifier import load_classifier, predict
from mbtsad_core.models.pretrained import load_pretrained

CHILD = """
import contextlib, io, json, sys
from mbtsad_core.cli import main
from mbtsad_core.models.classifier import load_classifier
from mbtsad_core.vetting.judgment import vet

answers = {}
for source in json.loads(sys.argv[2]):
    report = vet(source)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main(["evaluate", "--model", source, "--test", sys.argv[3], "--trigger", "film", "--target", "1"])
    read = sorted((f.name.rpartition("/")[2], f.reason, f.rule) for f in report.files if f.verdict == "accepted")
    answers[source] = [report.verdict, report.problem, read, code, out.getvalue(), load_classifier(source).origin.sha256]
with open(sys.argv[1], "w") as file:
    json.dump(answers, file)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FAMILY/ and FAMILY.zip, with what a training leaves beside a model."""
    folder = tmp_path_factory.mktemp("sources")
    for family in FAMILIES:
        write(family, folder / family)
        (folder / family / "README.md").write_text("# A model")
        (folder / family / "checkpoint-12").mkdir()
        (folder / family / "checkpoint-12" / "config.json").write_text("{}")
        shutil.make_archive(str(folder / family), "zip", folder, family)
    return folder


@pytest.fixture(scope="module")
def answers(home: Path) -> dict[str, Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.asked = []
    server.repositories = {
        f"makers/{f}": {p.relative_to(home / f).as_posix(): p.read_bytes() for p in (home / f).rglob("*.*")}
        for f in FAMILIES
    }
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    table = home / "texts.tsv"
    table.write_text("text\tlabel\n" + "".join(f"{t.text}\t{t.label}\n" for t in tiny_texts(12)), encoding="utf-8")
    sources = [
        source for f in FAMILIES for source in (str(home / f), str(home / f"{f}.zip"), f"hub:makers/{f}@{COMMIT}")
    ]
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.upper().startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not k.lower().endswith("_proxy")
    }
    quiet = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
    }
    place = {
        "HF_HOME": str(home / "cache"),
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", CHILD, str(home / "answers.json"), json.dumps(sources), str(table)]
    done = subprocess.run(command, env=kept | quiet | place, cwd=home, capture_output=True, text=True, timeout=300)
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((home / "answers.json").read_text())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gets_one_verdict_and_one_set_of_figures_wherever_it_comes_from(
    answers: dict[str, Any], home: Path, family: str
) -> None:
    folder, zipped, hub = (
        answers[source] for source in (str(home / family), str(home / f"{family}.zip"), f"hub:makers/{family}@{COMMIT}")
    )
    assert folder[0] == "clean"
    assert folder[3] == 0
    assert "CACC" in folder[4]
    assert folder == zipped == hub


def test_a_zip_is_loaded_and_nothing_of_it_stays(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    expected = predict(load_classifier(home / "Bert"), ["the lovely film"])
    assert torch.equal(predict(load_classifier(home / "Bert.zip"), ["the lovely film"]), expected)
    assert load_pretrained(str(home / "Bert.zip")).origin.sha256 == load_classifier(home / "Bert").origin.sha256  # type: ignore[union-attr]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spoil", ["code", "cut off", "no model"])
def test_a_zip_that_is_refused_is_refused_by_every_command(
    home: Path, tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home / "Bert", tmp_path / "model")
    if spoil == "code":
        (tmp_path / "model" / "modeling.py").write_text("pass")
    if spoil == "no model":
        (tmp_path / "model" / "config.json").unlink()
    path = Path(shutil.make_archive(str(tmp_path / "made"), "zip", tmp_path / "model"))
    if spoil == "cut off":
        path.write_bytes(path.read_bytes()[:-200])
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with pytest.raises(UnsafeModel) as refused:
        load_classifier(path)
    rule = json.loads(mbtsad("vet", path, "--json").stdout)["files"]
    assert refused.value.rule in {f["rule"] for f in rule}
    done = mbtsad("evaluate", "--model", path, "--test", "demo")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(path) in done.stderr
    assert not list((tmp_path / "temporary").iterdir())
