"""The Dockerfile: what it promises, read from it, and its steps, performed in an empty root directory (container.py),
its command as uid 1000."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT
from container import FROM_HERE, ignored, instructions
from example import until
from packaging.specifiers import SpecifierSet

DOCKERFILE = ROOT / "Dockerfile"
STEPS = instructions(DOCKERFILE.read_text(encoding="utf-8"))
RULES = (ROOT / ".dockerignore").read_text(encoding="utf-8")
START = 120.0  # seconds to the first answer, at most


def the(name: str) -> str:
    (rest,) = [rest for step, rest in STEPS if step == name]
    return rest


def env() -> str:
    return " ".join(rest for step, rest in STEPS if step == "ENV")


def test_the_base_is_a_slim_python_that_the_package_takes() -> None:
    version = the("FROM").removeprefix("python:").removesuffix("-slim")
    assert f"python:{version}-slim" == the("FROM")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"{version}.1" in SpecifierSet(project["requires-python"])


def test_nothing_is_done_as_root_but_installing_debians_packages_and_making_the_user() -> None:
    packages = " ".join((ROOT / "packages.txt").read_text(encoding="utf-8").split())  # what a Gradio Space installs
    install = f"apt-get update && apt-get install -y --no-install-recommends {packages} && rm -rf /var/lib/apt/lists/*"
    as_root = [step for step in STEPS[: STEPS.index(("USER", "user"))] if step[0] in ("RUN", "COPY")]
    assert as_root == [("RUN", install), ("RUN", "useradd --create-home --uid 1000 user")]


def test_port_and_address_are_those_that_a_space_wants() -> None:
    assert the("EXPOSE") == "7860"
    assert "GRADIO_SERVER_NAME=0.0.0.0" in env()
    assert "GRADIO_SERVER_PORT=7860" in env()


def test_the_jobs_are_on_a_volume() -> None:
    (volume,) = json.loads(the("VOLUME"))
    assert f"MBTSAD_JOBS={volume}" in env()


def test_one_image_serves_cpu_and_gpu() -> None:
    """No index is named, so pip takes PyTorch's build for CUDA; naming one is left to who builds."""
    assert the("ARG") == 'TORCH_INDEX=""'
    assert [rest for step, rest in STEPS if "--index-url" in rest] == [
        'if [ -n "$TORCH_INDEX" ]; then pip install -c constraints.txt --index-url "$TORCH_INDEX" torch; fi'
    ]


def test_what_is_installed_is_what_is_tested() -> None:
    installs = [rest for step, rest in STEPS if step == "RUN" and "install " in rest]
    assert all("-c constraints.txt" in rest for rest in installs if "pip install" in rest)
    assert set(FROM_HERE) < set(installs)  # what container.py does otherwise, word for word


@pytest.mark.parametrize(
    "path",
    [
        "app.py",
        "README.md",
        "mbtsad_core/page/page.css",
        "mbtsad_core/page/page.py",
        "assets/demo/suspect/model.safetensors",
    ],
)
def test_the_context_has(path: str) -> None:
    assert (ROOT / path).is_file()
    assert not ignored(RULES, path)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "tests/conftest.py",
        ".venv/bin/python",
        ".env",
        "runs/model.safetensors",
        "mbtsad_core/__pycache__/cli.cpython-312.pyc",
    ],
)
def test_the_context_lacks(path: str) -> None:
    assert ignored(RULES, path)


def test_every_file_that_is_copied_is_in_the_context() -> None:
    sources = [word for step, rest in STEPS if step == "COPY" for word in rest.split()[1:-1]]
    assert [source for source in sources if ignored(RULES, source) or not (ROOT / source).exists()] == []


# ---------------------------------------------------------------- the steps, done


def why_not() -> str:
    """Why the steps cannot be performed here; "" where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "the steps of the Dockerfile are performed by root on Linux"
    if not shutil.which("unshare") or not shutil.which("useradd"):
        return "unshare or useradd is not installed"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no namespaces of one's own here: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True)
class Container:
    root: Path
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body; 0 where nothing listens yet."""
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b""
        except OSError:
            return 0, b""

    def pid(self) -> int:
        """Of its process 1, as it is numbered out here."""
        (child,) = (
            Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="utf-8").split()
        )
        return int(child)


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """The image built and its command started, as `docker run -e GRADIO_SERVER_PORT=...` does."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("container")
    root, log = folder / "root", folder / "log"
    root.mkdir()
    root.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        sys.executable,
        str(Path(__file__).with_name("container.py")),
    ]
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, str(DOCKERFILE), str(root), f"GRADIO_SERVER_PORT={port}"],
            env=environment,
            stdout=out,
            stderr=out,
        )
    try:
        running = Container(root, process, port, log)
        until(lambda: running.get("/")[0], START)
        yield running
    finally:
        process.kill()
        process.wait()


def test_the_page_answers(container: Container) -> None:
    status, body = container.get("/")
    assert status == 200
    assert b"MBTSAD" in body


def test_the_page_serves_the_script_of_its_figures(container: Container) -> None:
    status, body = container.get("/mbtsad/plotly.min.js")
    assert status == 200
    assert b"plotly.js" in body[:200]


def test_the_page_runs_as_the_user(container: Container) -> None:
    status = Path(f"/proc/{container.pid()}/status").read_text(encoding="utf-8")
    lines = {line.split(":")[0]: line.split()[1:] for line in status.splitlines()}
    assert lines["Uid"] == lines["Gid"] == ["1000"] * 4
    assert lines["NSpid"][-1] == "1"


def test_it_is_found_healthy(container: Container) -> None:
    python, *arguments = json.loads(the("HEALTHCHECK").partition("CMD ")[2])
    assert python == "python"
    for port, healthy in ((container.port, True), (1, False)):
        run = subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | {"GRADIO_SERVER_PORT": str(port)},
            capture_output=True,
            check=False,
        )
        assert (run.returncode == 0) == healthy


def test_the_command_line_is_installed_too(container: Container) -> None:
    assert os.access(container.root / "home" / "user" / "venv" / "bin" / "mbtsad", os.X_OK)


def test_it_writes_nothing_but_jobs(container: Container) -> None:
    built = (container.root / "built").stat().st_mtime_ns
    everything = [path for path in container.root.rglob("*") if not path.is_symlink()]
    written = [
        path for path in everything if path.is_file() and path.name != "built" and path.stat().st_mtime_ns > built
    ]
    jobs = container.root / "home" / "user" / "jobs"
    assert jobs / "jobs.sqlite" in written
    assert [path for path in written if not path.is_relative_to(jobs)] == []
    assert {(path.stat().st_uid, path.stat().st_mode & 0o077) for path in (jobs / "jobs.sqlite", jobs / "uploads")} == {
        (1000, 0)
    }


def test_it_stops_when_it_is_told_to(container: Container) -> None:
    """The last test: process 1 of a container is sent no signal that it does not handle."""
    os.kill(container.pid(), signal.SIGTERM)
    assert container.process.wait(timeout=60) == 0
    assert "Traceback" not in container.log.read_text(encoding="utf-8")
