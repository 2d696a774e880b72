"""`python app.py` where it cannot serve: a sentence and an exit code, and no traceback."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.parametrize("wrong", ["port", "jobs"])
def test_what_keeps_the_page_from_being_served_is_said_in_a_sentence(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    jobs = tmp_path / ("file/jobs" if wrong == "jobs" else "jobs")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if wrong == "port" else 0
        command = [sys.executable, "app.py", "--port", str(port), "--jobs", str(jobs)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    last = run.stderr.splitlines()[-1]
    assert last.startswith("app.py: The page could not be served: ")
    assert last.endswith(". Check --host, --port and --jobs.")
    assert (str(port) if wrong == "port" else "file") in last
