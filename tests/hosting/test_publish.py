"""`mbtsad publish`: which files a Space gets, what is said where it cannot be done, and a whole upload to a stand-in
for the Hub."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, mbtsad

from mbtsad_core.errors import BadConfig, BadData
from mbtsad_core.publish import FILES, check_name, for_docker, project_files, staged

SUSPECT = "assets/demo/suspect/model.safetensors"


def publish(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which has no token of whoever runs the tests."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING_FACE_", "TRANSFORMERS_"))
    }
    command = [sys.executable, "-m", "mbtsad_core.cli", "publish", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=passed | environment, capture_output=True, text=True, timeout=120, check=False
    )


# ---------------------------------------------------------------- which files


def test_a_space_gets_the_page_its_assets_and_nothing_of_the_tests() -> None:
    names = [path.as_posix() for path in project_files(ROOT)]
    assert {
        "README.md",
        "app.py",
        "requirements.txt",
        "mbtsad_core/page/page.py",
        "mbtsad_core/page/page.css",
        SUSPECT,
    } <= set(names)
    assert len(names) == len(set(names))
    assert [
        n for n in names if n.startswith(("tests", ".")) or "__pycache__" in n or n in ("Dockerfile", ".dockerignore")
    ] == []


def test_all_that_app_py_and_the_front_matter_name_is_there() -> None:
    names = {path.as_posix() for path in project_files(ROOT, docker=True)}
    copied = {
        word
        for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
        if line.startswith("COPY")
        for word in line.split()[2:-1]
    }
    assert [
        source for source in copied if source not in names and not any(name.startswith(f"{source}/") for name in names)
    ] == []


def checkout(folder: Path) -> Path:
    """A small checkout, with a file that git does not know."""
    for path in (
        *project_files(ROOT)[: len(FILES)],
        Path("mbtsad_core/__init__.py"),
        Path(SUSPECT),
        Path("mbtsad_core/secret.py"),
        Path("docs/.token"),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"of {path}\n", encoding="utf-8")
    return folder


def test_what_git_does_not_know_is_not_published(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    before = {path.as_posix() for path in project_files(folder)}
    assert "mbtsad_core/secret.py" in before
    assert "docs/.token" not in before
    for command in (["init", "-q"], ["add", "mbtsad_core/__init__.py", SUSPECT]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    assert before - {path.as_posix() for path in project_files(folder)} == {"mbtsad_core/secret.py"}


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    (folder / SUSPECT).unlink()
    with pytest.raises(BadData, match=rf"{SUSPECT} is not there"):
        project_files(folder)


def test_a_docker_space_has_the_front_matter_of_one() -> None:
    with staged(ROOT, docker=True) as space:
        assert (space / "Dockerfile").is_file()
        _, block, rest = (space / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, gradio, text = readme.split("---\n", 2)
    assert rest == text
    found, before = yaml.safe_load(block), yaml.safe_load(gradio)
    assert found["sdk"] == "docker"
    assert found["app_port"] == 7860
    assert found.keys() ^ before.keys() == {"app_port", "app_file", "sdk_version", "python_version"}
    assert for_docker(for_docker(readme).replace("app_port: 7860\n", "")) == for_docker(readme)


@pytest.mark.parametrize("name", ["", "mbtsad", "a/b/c", "a/", "../x", "a b/c", "https://huggingface.co/spaces/a/b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(BadConfig, match="expected OWNER/NAME"):
        check_name(name)


# ---------------------------------------------------------------- the command


def test_a_dry_run_lists_files_and_sizes() -> None:
    run = mbtsad("publish", "ada/mbtsad", "--dry-run", "--folder", ROOT)
    assert run.returncode == 0, run.stderr
    *rows, total = run.stdout.splitlines()
    sizes = {name: int(size.replace(",", "")) for size, name in (row.split() for row in rows)}
    assert sizes[SUSPECT] == (ROOT / SUSPECT).stat().st_size
    assert total.split()[0] == f"{sum(sizes.values()):,}"
    assert f"{len(sizes)} files" in total


def test_without_a_token_it_says_how_to_get_one(tmp_path: Path) -> None:
    run = publish("ada/mbtsad", HF_HOME=str(tmp_path))
    assert run.returncode == 2
    assert "hf auth login" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_without_a_network_it_says_so(tmp_path: Path) -> None:
    run = publish("ada/mbtsad", HF_HOME=str(tmp_path), HF_TOKEN="hf_none", HF_ENDPOINT="http://127.0.0.1:9")
    assert run.returncode == 2
    assert "The Hub could not be reached" in run.stderr
    assert len(run.stderr.splitlines()) == 1


# ---------------------------------------------------------------- the upload


class Hub:
    """The parts of the Hub's interface that an upload uses; a file of over a megabyte goes to its storage for large
    ones."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {
            "app.py": b"old",
            "mbtsad_core/gone.py": b"old",
            "notes.md": b"the owner's",
            ".gitattributes": b"",
        }
        self.created: list[dict[str, Any]] = []
        self.large: dict[str, bytes] = {}
        self.token = "hf_right"

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, Any]:
        path = path.partition("?")[0]
        if path.startswith("/large/"):
            self.large[path.removeprefix("/large/")] = body
            return 200, {}
        if token != f"Bearer {self.token}":
            return 401, {"error": "Invalid credentials in Authorization header"}
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return 200, {"url": "https://huggingface.co/spaces/ada/mbtsad"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if method == "GET" and path == "/api/spaces/ada/mbtsad/tree/main":
            return 200, [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in self.files.items()
            ]
        if path == "/api/spaces/ada/mbtsad/preupload/main":
            asked = json.loads(body)["files"]
            return 200, {
                "files": [
                    {
                        "path": f["path"],
                        "uploadMode": "lfs" if f["size"] > 1 << 20 else "regular",
                        "shouldIgnore": False,
                    }
                    for f in asked
                ]
            }
        if path == "/spaces/ada/mbtsad.git/info/lfs/objects/batch":
            objects = [
                o | {"actions": {"upload": {"href": f"{self.address}/large/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        if path == "/api/spaces/ada/mbtsad/commit/main":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.files[value["path"]] = self.large[value["oid"]]
                elif line["key"] == "deletedFile":
                    del self.files[value["path"]]
            return 200, {
                "success": True,
                "commitOid": "1" * 40,
                "commitUrl": f"{self.address}/spaces/ada/mbtsad/commit/{'1' * 40}",
                "hookOutput": "",
            }
        return 404, {"error": f"not here: {method} {path}"}

    address = ""


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = hub.answer(self.command, self.path, body, self.headers.get("Authorization", ""))
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


def to(hub: Hub, tmp_path: Path, *arguments: str, token: str = "hf_right") -> subprocess.CompletedProcess[str]:
    return publish(
        "ada/mbtsad", *arguments, HF_HOME=str(tmp_path), HF_ENDPOINT=hub.address, HF_TOKEN=token, HF_HUB_DISABLE_XET="1"
    )


def test_a_space_is_made_and_filled_and_what_is_gone_goes(hub: Hub, tmp_path: Path) -> None:
    run = to(hub, tmp_path, "--hardware", "zero-a10g", "--private")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("Published: ")
    (made,) = hub.created
    assert {name: made[name] for name in ("name", "organization", "type", "sdk", "hardware")} == {
        "name": "mbtsad",
        "organization": "ada",
        "type": "space",
        "sdk": "gradio",
        "hardware": "zero-a10g",
    }
    wanted = {path.as_posix(): (ROOT / path).read_bytes() for path in project_files(ROOT)}
    assert hub.files == wanted | {"notes.md": b"the owner's", ".gitattributes": b""}
    assert (ROOT / SUSPECT).read_bytes() in hub.large.values()  # through the storage for large files


def test_a_docker_space_is_made(hub: Hub, tmp_path: Path) -> None:
    run = to(hub, tmp_path, "--docker")
    assert run.returncode == 0, run.stderr
    assert hub.created[0]["sdk"] == "docker"
    assert hub.files["Dockerfile"] == (ROOT / "Dockerfile").read_bytes()
    assert b"sdk: docker" in hub.files["README.md"]


def test_a_token_that_may_not_is_told_so(hub: Hub, tmp_path: Path) -> None:
    run = to(hub, tmp_path, token="hf_wrong")
    assert run.returncode == 2
    assert "The Hub refused to publish ada/mbtsad" in run.stderr
    assert "may write there" in run.stderr
    assert "Traceback" not in run.stderr
