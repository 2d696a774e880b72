"""Models of the Hub: what is fetched is decided from the list of files first; no token goes out; judging and loading
use no network.

A stand-in of the Hub on loopback serves them to a child process, which refuses every connection beyond loopback, and
notes each one.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from conftest import tiny_bert

from mbtsad_core.errors import UnsuitableModel
from mbtsad_core.models.classifier import save_classifier
from mbtsad_core.vetting.hub import MODEL_ID, fetch_model

COMMIT = "5eed" * 10
ROOT = Path(__file__).parents[2]
TOKEN = "hf_of_the_server"

CHILD = """
import json, sys

connections = []

def loopback_only(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        connections.append(arguments[1][0])
        if arguments[1][0] != "127.0.0.1":
            raise OSError("not from here")

sys.addaudithook(loopback_only)

from mbtsad_core.errors import MBTSADError
from mbtsad_core.models.classifier import load_classifier
from mbtsad_core.vetting.hub import fetch_model
from mbtsad_core.vetting.model_folder import vet_model

answers = {}
for source in json.loads(sys.argv[2]):
    try:
        fetched = fetch_model(source)
        before = len(connections)
        vet_model(fetched.directory, names=fetched.names)
        load_classifier(fetched.directory)
        while_loading = connections[before:]
        origin = load_classifier(source).origin
        answers[source] = {
            "names": fetched.names, "files": [[f.name, f.verdict, f.rule] for f in fetched.files], "while loading": while_loading,
            "origin": [origin.source, origin.commit, origin.sha256, origin.pinned],
        }
    except MBTSADError as error:
        answers[source] = {"error": str(error), "rule": getattr(error, "rule", "")}
answers["beyond"] = [address for address in connections if address != "127.0.0.1"]
with open(sys.argv[1], "w") as file:
    json.dump(answers, file)
"""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("tiny")
    save_classifier(tiny_bert(), folder)
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    without = {name: data for name, data in files.items() if name != "model.safetensors"}
    extras = {
        "README.md": b"# Tiny",
        ".gitattributes": b"",
        "pytorch_model.bin": b"\x80\x04.",
        "onnx/model.onnx": b"x",
        "runs/config.json": b"{}",
    }
    return {
        "critics/tiny": files | extras,
        "critics/coded": files | {"modeling_tiny.py": b"raise SystemExit"},
        "critics/deep-code": files | {"inference/handler.py": b"raise SystemExit"},
        "critics/pickled": without | {"pytorch_model.bin": b"\x80\x04."},
        "critics/empty": {"README.md": b""},
        "critics/weightless": without,
        "critics/huge": files,
        "critics/unsized": files,
        "critics/hostile": files
        | {"config.json": json.dumps(json.loads(files["config.json"]) | {"auto_map": {"example": "example"}}).encode()},
    }


class StandIn(http.server.BaseHTTPRequestHandler):
    """HEAD, GET /OWNER/NAME/resolve/REVISION/FILE and GET /api/models/OWNER/NAME[/revision/REVISION]."""

    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        server: Any = self.server
        server.asked.append((self.command, path, self.headers.get("authorization")))
        parts = path.removeprefix("/api/models").strip("/").split("/")
        id, rest = "/".join(parts[:2]), parts[2:]
        files = server.repositories.get(id)
        if files is None:
            self.answer(404, x_error_code="RepoNotFound")
        elif path.startswith("/api/models/") and (not rest or rest[0] == "revision"):
            if rest and rest[1] not in ("main", COMMIT):
                self.answer(404, x_error_code="RevisionNotFound")
                return
            sizes = {
                name: 1 << 40 if id == "critics/huge" and name.endswith(".safetensors") else len(data)
                for name, data in files.items()
            }
            listed = [
                {"rfilename": name} | ({} if id == "critics/unsized" else {"size": size, "blobId": "0" * 40})
                for name, size in sizes.items()
            ]
            self.answer(
                200, json.dumps({"id": id, "sha": COMMIT, "siblings": listed}).encode(), content_type="application/json"
            )
        elif path.startswith("/api/models/") and rest[0] == "tree":
            listed = [
                {"type": "file", "oid": "0" * 40, "size": len(data), "path": name} for name, data in files.items()
            ]
            self.answer(200, json.dumps(listed).encode(), content_type="application/json")
        elif rest[0] == "resolve" and "/".join(rest[2:]) in files:
            data = files["/".join(rest[2:])]
            self.answer(200, data, etag=f'"{hashlib.sha1(data).hexdigest()}"', x_repo_commit=COMMIT)
        else:
            self.answer(404, x_error_code="EntryNotFound", x_repo_commit=COMMIT)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: what was asked is kept in `asked`."""


@pytest.fixture(scope="module")
def hub(repositories: dict[str, dict[str, bytes]]) -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.asked, server.repositories = [], repositories
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


@pytest.fixture(scope="module")
def answers(hub: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a child process gets from the stand-in, with a token of the server's in its environment."""
    folder = tmp_path_factory.mktemp("child")
    sources = [f"hub:{id}" for id in hub.repositories] + [
        "hub:critics/tiny@main",
        f"hub:critics/tiny@{COMMIT}",
        "hub:critics/tiny@no-such",
        "hub:no/where",
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
        "HF_HOME": str(folder / "home"),
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_TOKEN": TOKEN,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", CHILD, str(folder / "answers.json"), json.dumps(sources)]
    done = subprocess.run(command, env=kept | quiet | place, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "answers.json").read_text())


def test_only_what_is_read_is_fetched_and_the_rest_is_listed(answers: dict[str, Any], hub: Any) -> None:
    found = answers["hub:critics/tiny"]
    assert found["names"] == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    ignored = {name: rule for name, verdict, rule in found["files"] if verdict == "ignored"}
    assert ignored == {
        "README.md": "ignore.text",
        ".gitattributes": "ignore.system",
        "pytorch_model.bin": "ignore.format",
        "onnx/model.onnx": "ignore.format",
        "runs/config.json": "ignore.folder",
    }
    fetched = {path.rpartition("/")[2] for method, path, _ in hub.asked if "/critics/tiny/resolve/" in path}
    assert fetched == set(found["names"])


def test_files_come_from_the_commit_that_was_listed(answers: dict[str, Any], hub: Any) -> None:
    assert {path.split("/")[4] for _, path, _ in hub.asked if "/resolve/" in path} == {COMMIT}
    assert (
        answers["hub:critics/tiny@main"]["names"]
        == answers[f"hub:critics/tiny@{COMMIT}"]["names"]
        == answers["hub:critics/tiny"]["names"]
    )


def test_judging_and_loading_use_no_network(answers: dict[str, Any]) -> None:
    assert answers["hub:critics/tiny"]["while loading"] == []
    assert answers["beyond"] == []


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_a_loaded_model_says_which_commit_it_is_of(
    answers: dict[str, Any], repositories: dict[str, dict[str, bytes]], revision: str
) -> None:
    source = f"hub:critics/tiny{revision}"
    files = {name: repositories["critics/tiny"][name] for name in answers[source]["names"]}
    listed = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    assert answers[source]["origin"] == [
        source,
        COMMIT,
        hashlib.sha256(listed.encode()).hexdigest(),
        f"hub:critics/tiny@{COMMIT}",
    ]


def test_no_token_is_sent(answers: dict[str, Any], hub: Any) -> None:
    assert len(hub.asked) > 10
    assert {authorization for _, _, authorization in hub.asked} == {None}


@pytest.mark.parametrize(
    ("id", "rule", "words"),
    [
        ("coded", "format.code", "modeling_tiny.py is code that came with the model"),
        ("deep-code", "format.code", "handler.py is code that came with the model"),
        ("pickled", "format.pickle", "pytorch_model.bin is a pickle and could run code. Convert it where you trust it"),
        ("empty", "config.missing", "holds no config.json"),
        ("weightless", "weights.missing", "holds no model.safetensors"),
        ("huge", "size.total", "is of 1048576 megabytes; 8192 are allowed"),
        ("unsized", "", "does not say how large config.json"),
    ],
)
def test_a_repository_is_refused_by_its_list_of_files_before_anything_is_fetched(
    answers: dict[str, Any], hub: Any, id: str, rule: str, words: str
) -> None:
    found = answers[f"hub:critics/{id}"]
    assert (found["rule"], words in found["error"]) == (rule, True), found
    assert not [path for _, path, _ in hub.asked if f"/critics/{id}/resolve/" in path]


def test_a_repository_is_refused_by_its_content(answers: dict[str, Any]) -> None:
    assert answers["hub:critics/hostile"]["rule"] == "config.code"


@pytest.mark.parametrize("source", ["hub:no/where", "hub:critics/tiny@no-such"])
def test_what_is_not_there_is_said(answers: dict[str, Any], source: str) -> None:
    assert "could not be fetched: " in answers[source]["error"]
    assert TOKEN not in answers[source]["error"]


SOUND = ["hub:a/b", "hub:owner/name", "hub:Owner-1/na_me.2", f"hub:a/b@{COMMIT}", "hub:a/b@main", "hub:a/b@v1.0"]
UNSOUND = [
    *(
        "hub:",
        "hub:a",
        "hub:a/b/c",
        "hub:../b",
        "hub:a/..",
        "hub:a/b@",
        "hub:a/b@c@d",
        "hub:a/b@../c",
        "hub:a/b?x=1",
        "hub:a/b#x",
        "hub:a b/c",
        "hub:/a/b",
    ),
    *(
        "hub:a/b@refs/pr/1",
        "hub:a\n/b",
        "hub:a/b\n",
        "hub:ä/b",
        "hub:http://x/y",
        "hub:a/b%2f",
        "hub:-a/b",
        "hub:a/--b",
        "hub:a/b..c",
        "hub:" + "a" * 97 + "/b",
    ),
]


@pytest.mark.parametrize("source", SOUND)
def test_a_name_of_a_model_is_one(source: str) -> None:
    assert MODEL_ID.fullmatch(source)


@pytest.mark.parametrize("source", UNSOUND, ids=ascii)
def test_what_is_no_name_of_a_model_reaches_no_address(source: str) -> None:
    with pytest.raises(UnsuitableModel, match=r"names no Hub model\. Expected hub:OWNER/NAME\[@REVISION\]"):
        fetch_model(source)


@pytest.mark.parametrize(
    ("offline", "said"),
    [(True, "the Hub is switched off here (HF_HUB_OFFLINE is set)"), (False, "the Hub was not reached")],
)
def test_without_the_hub_it_is_said_what_is_missing(offline: bool, said: str) -> None:
    """In a process of its own: the library reads the variable as it is imported, and the Hub's address, which here is
    one where nobody answers."""
    code = "from mbtsad_core.vetting.hub import fetch_model\nfetch_model('hub:nobody/nothing')"
    env = {**os.environ, "HF_HUB_OFFLINE": str(int(offline)), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert (
        f"The Hub model 'nobody/nothing' could not be fetched: {said}, and this machine has no copy from before. Check"
        in done.stderr
    )
