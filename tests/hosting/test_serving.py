"""`python app.py` where it cannot serve: a sentence and an exit code, and no traceback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import gradio as gr
import pytest
from conftest import ROOT
from server import free_port, until

from mbtsad_core.page.launch import PAUSE, main
from mbtsad_core.terminal import INTERRUPTED


def assert_said(printed: str, what: str) -> None:
    assert "Traceback" not in printed
    last = printed.splitlines()[-1]
    assert last.startswith("app.py: The page could not be served: ")
    assert last.endswith(". Check --host, --port and --jobs.")
    assert what in last


def test_a_port_that_is_taken_is_said_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "app.py", "--port", port, "--jobs", str(tmp_path / "jobs")]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert_said(run.stderr, f"port {port} of 127.0.0.1 cannot be had")
    assert not (tmp_path / "jobs").exists()  # nothing was begun for it


def test_a_port_that_there_is_not_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "65536", "--jobs", str(tmp_path)]) == 1
    assert_said(capsys.readouterr().err, "port 65536 of 127.0.0.1 cannot be had")


def test_one_that_is_stopped_before_the_page_is_up_says_so_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "app.py", "--port", str(free_port()), "--jobs", str(tmp_path / "jobs")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until((tmp_path / "jobs" / "jobs.sqlite").exists)
        process.send_signal(signal.SIGTERM)
        _, printed = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert printed.splitlines()[-1] == "app.py: stopped."
    assert "Traceback" not in printed


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    (tmp_path / "file").touch()
    assert main(["--port", "0", "--jobs", str(tmp_path / "file" / "jobs")]) == 1
    assert_said(capsys.readouterr().err, "file")


def test_gradios_queue_still_pauses_for_less_than_the_page_lets_it() -> None:
    """Under these names, which are no part of its interface."""
    with gr.Blocks(analytics_enabled=False) as page:
        pass
    queue = page.queue()._queue
    assert 0 < queue.sleep_when_free < PAUSE
    assert 0 < queue.progress_update_sleep_when_free < PAUSE
