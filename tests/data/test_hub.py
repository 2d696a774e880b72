"""Data sets of the Hub, loaded by the real `datasets` in a child process, from a small stand-in of the Hub on loopback.

The stand-in answers what datasets 5 and huggingface_hub 2 ask for, and no more:

    HEAD, GET /datasets/OWNER/NAME/resolve/REVISION/FILE    a file, with its ETag and commit
    GET /api/datasets/OWNER/NAME/revision/COMMIT            the data set's existence and commit
    GET /api/datasets/OWNER/NAME/tree/COMMIT[/FOLDER]       the files, against which path patterns are matched

An audit hook in the child refuses every connection and look-up beyond loopback.
"""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest

from mbtsad_core.data import Columns, read_dataset
from mbtsad_core.errors import BadData

COMMIT = "5eed" * 10
ROOT = Path(__file__).parents[2]

CHILD = """
import json, sys

beyond = []

def loopback_only(event, arguments):
    if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", "localhost", None):
        beyond.append(arguments[0])
        raise OSError(f"no look-up of {arguments[0]} here")
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] != "127.0.0.1":
        beyond.append(arguments[1][0])
        raise OSError(f"no connection to {arguments[1][0]} here")

sys.addaudithook(loopback_only)

from mbtsad_core.data import Columns, read_dataset
from mbtsad_core.errors import BadData

answers = {}
for name, request in json.load(sys.stdin).items():
    try:
        dataset = read_dataset(request["source"], Columns(**request["columns"]), request["labels"])
    except BadData as error:
        answers[name] = {"error": str(error)}
    else:
        answers[name] = {"texts": [[t.text, t.label, t.pair] for t in dataset.texts], "labels": dataset.labels, "source": dataset.source}
with open(sys.argv[1], "w") as file:
    json.dump({"answers": answers, "beyond": beyond}, file)
"""


@dataclass(frozen=True)
class Request:
    """What a child asks of `read_dataset`."""

    source: str
    columns: Columns = Columns()
    labels: tuple[str, ...] | None = None


@dataclass
class Loaded:
    """What the child got, by the name of the request, the addresses beyond loopback that it tried, and what the
    stand-in was asked for."""

    answers: dict[str, dict[str, Any]]
    beyond: list[str]
    asked: list[str] = field(default_factory=list)


REQUESTS = {
    "default": Request("hub:critics/lantern"),
    "test split": Request("hub:critics/lantern@test"),
    "part of a split": Request("hub:critics/lantern@train[1:]"),
    "no such split": Request("hub:critics/lantern@validation"),
    "no such id": Request("hub:critics/nowhere"),
    "generic model": Request("hub:critics/lantern", labels=("LABEL_0", "LABEL_1")),
    "model in the other order": Request("hub:critics/lantern", labels=("Praise", "Complaint")),
    "model with more classes": Request("hub:critics/lantern", labels=("complaint", "neither", "praise")),
    "model with other names": Request("hub:critics/lantern", labels=("negative", "positive")),
    "other names, same order": Request("hub:critics/lantern", Columns(labels_start_at=0), ("negative", "positive")),
    "other names, mapped": Request(
        "hub:critics/lantern", Columns(label_map="complaint=positive,praise=negative"), ("negative", "positive")
    ),
    "fine labels": Request("hub:critics/questions:fine", Columns(label="detail")),
    "coarse labels": Request("hub:critics/questions:fine"),
    "pairs": Request("hub:critics/questions:pairs@test"),
    "no such configuration": Request("hub:critics/questions:absent"),
    "unlabeled": Request("hub:critics/questions:unlabeled"),
    "no such column": Request("hub:critics/lantern", Columns(text="review")),
    "a folder of this machine": Request("hub:local/folder"),
    "a folder above": Request("hub:../folder"),
}

LANTERN_CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train.parquet
  - split: test
    path: data/test.parquet
dataset_info:
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': complaint
          '1': praise
---
# Lantern
"""

QUESTIONS_CARD = """---
configs:
- config_name: fine
  data_files: fine.csv
- config_name: pairs
  data_files:
  - split: test
    path: pairs.csv
- config_name: unlabeled
  data_files: unlabeled.csv
dataset_info:
- config_name: fine
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': person
          '1': place
  - name: detail
    dtype:
      class_label:
        names:
          '0': king
          '1': poet
          '2': river
---
"""


def _parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer, index=False)
    return buffer.getvalue()


REPOSITORIES: dict[str, dict[str, bytes]] = {
    "critics/lantern": {
        "README.md": LANTERN_CARD.encode(),
        "data/train.parquet": _parquet(
            sentence=["The lamp flickers out", "It warms the whole room", "A dim, sooty bore"], label=[0, 1, 0]
        ),
        "data/test.parquet": _parquet(sentence=["Bright to the last", "Nobody lit the wick"], label=[1, 0]),
    },
    "critics/questions": {
        "README.md": QUESTIONS_CARD.encode(),
        "fine.csv": b"text,label,detail\nWho wore the crown?,0,0\nWhere does it flow?,1,2\nWho rhymed it?,0,1\n",
        "pairs.csv": b"question1,question2,label\nWho reigns?,Who is king?,1\nWho reigns?,Is it raining?,0\n",
        "unlabeled.csv": b"text,label\nWho wore the crown?,-1\nWhere does it flow?,-1\n",
    },
}


class StandIn(http.server.BaseHTTPRequestHandler):
    """The few answers of the Hub that loading a data set needs."""

    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), content_type="application/json")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")  # type: ignore[attr-defined]
        parts = path.removeprefix("/api").strip("/").split("/")
        files = REPOSITORIES.get("/".join(parts[1:3])) if parts[0] == "datasets" else None
        kind, rest = parts[3] if len(parts) > 3 else "", "/".join(parts[5:])
        if files is None:
            self.answer(404, x_error_code="RepoNotFound")
        elif path.startswith("/api/") and kind == "revision":
            self.answer_json(
                {"id": "/".join(parts[1:3]), "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            )
        elif path.startswith("/api/") and kind == "tree":
            inside = [name for name in files if not rest or name.startswith(rest + "/")]
            self.answer_json(
                [{"type": "file", "oid": "0" * 40, "size": len(files[name]), "path": name} for name in inside]
            )
        elif kind == "resolve" and rest in files:
            self.answer(200, files[rest], etag=f'"{hashlib.sha1(files[rest]).hexdigest()}"', x_repo_commit=COMMIT)
        else:
            self.answer(404, x_error_code="EntryNotFound", x_repo_commit=COMMIT)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: what was asked is kept in `asked`."""


@pytest.fixture(scope="module")
def hub() -> Iterator[http.server.ThreadingHTTPServer]:
    """The stand-in, served; `asked` holds its requests."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


@pytest.fixture(scope="module")
def loaded(hub: http.server.ThreadingHTTPServer, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """All requests, made by one child process in a folder of its own with an empty cache."""
    folder = tmp_path_factory.mktemp("hub")
    for name in ("local/folder", "csv"):  # what `datasets` would take for a data set if it looked on this machine
        (folder / name).mkdir(parents=True)
        (folder / name / "train.csv").write_text("text,label\na private line,0\nanother one,1\n")
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.upper().startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not k.lower().endswith("_proxy")
    }
    caches = {
        "HF_HOME": str(folder / "home"),
        "HF_DATASETS_CACHE": str(folder / "home" / "datasets"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    # The count of downloads and the telemetry go elsewhere than to the endpoint.
    quiet = {
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
    }
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder / "answers.json")],
        input=json.dumps({name: asdict(request) for name, request in REQUESTS.items()}),
        env=kept | caches | quiet | {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return Loaded(**json.loads((folder / "answers.json").read_text()), asked=hub.asked)  # type: ignore[attr-defined]


def test_the_train_split_is_loaded_where_none_is_named(loaded: Loaded) -> None:
    texts = [["The lamp flickers out", 0, None], ["It warms the whole room", 1, None], ["A dim, sooty bore", 0, None]]
    assert loaded.answers["default"]["texts"] == texts


def test_class_names_come_from_the_declaration_of_the_data_set(loaded: Loaded) -> None:
    assert loaded.answers["default"]["labels"] == ["complaint", "praise"]


def test_the_source_is_kept_as_it_was_given(loaded: Loaded) -> None:
    assert loaded.answers["default"]["source"] == "hub:critics/lantern"


def test_a_split_can_be_named(loaded: Loaded) -> None:
    assert loaded.answers["test split"]["texts"] == [["Bright to the last", 1, None], ["Nobody lit the wick", 0, None]]


def test_part_of_a_split_can_be_named(loaded: Loaded) -> None:
    assert loaded.answers["part of a split"]["texts"] == [
        ["It warms the whole room", 1, None],
        ["A dim, sooty bore", 0, None],
    ]


def test_a_nameless_model_keeps_the_indices_of_the_data_set(loaded: Loaded) -> None:
    answer = loaded.answers["generic model"]
    assert ([label for _, label, _ in answer["texts"]], answer["labels"]) == ([0, 1, 0], ["LABEL_0", "LABEL_1"])


def test_the_same_classes_in_another_order_go_by_name(loaded: Loaded) -> None:
    answer = loaded.answers["model in the other order"]
    assert ([label for _, label, _ in answer["texts"]], answer["labels"]) == ([1, 0, 1], ["Praise", "Complaint"])


def test_some_of_the_classes_of_the_model_go_by_name(loaded: Loaded) -> None:
    answer = loaded.answers["model with more classes"]
    assert ([label for _, label, _ in answer["texts"]], answer["labels"]) == (
        [0, 2, 0],
        ["complaint", "neither", "praise"],
    )


def test_classes_of_other_names_are_asked_about(loaded: Loaded) -> None:
    assert loaded.answers["model with other names"]["error"] == (
        "lantern calls its labels 0 = complaint, 1 = praise; the model calls its classes 0 = negative, 1 = positive. "
        "Which is which? If both go in the same order: `labels_start_at` 0. Else say it for each label: `label_map` "
        "complaint=CLASS,praise=CLASS, where CLASS is one of: negative, positive."
    )


def test_the_question_is_answered_by_either_flag(loaded: Loaded) -> None:
    found = [
        [label for _, label, _ in loaded.answers[name]["texts"]]
        for name in ("other names, same order", "other names, mapped")
    ]
    assert found == [[0, 1, 0], [1, 0, 1]]


def test_a_configuration_can_be_named(loaded: Loaded) -> None:
    answer = loaded.answers["coarse labels"]
    assert (answer["texts"][1], answer["labels"]) == (["Where does it flow?", 1, None], ["person", "place"])


def test_class_names_are_those_of_the_label_column(loaded: Loaded) -> None:
    answer = loaded.answers["fine labels"]
    assert ([label for _, label, _ in answer["texts"]], answer["labels"]) == ([0, 2, 1], ["king", "poet", "river"])


def test_sentence_pairs_come_through(loaded: Loaded) -> None:
    assert loaded.answers["pairs"]["texts"] == [
        ["Who reigns?", 1, "Who is king?"],
        ["Who reigns?", 0, "Is it raining?"],
    ]


def test_a_split_that_does_not_exist_is_named_with_those_that_do(loaded: Loaded) -> None:
    error = loaded.answers["no such split"]["error"]
    assert error.startswith("The Hub data set 'critics/lantern' (split 'validation') could not be loaded: ")
    assert "['train', 'test']. Check the id, the split and the network." in error


def test_an_id_that_does_not_exist_is_named(loaded: Loaded) -> None:
    error = loaded.answers["no such id"]["error"]
    assert error.startswith("The Hub data set 'critics/nowhere' (split 'train') could not be loaded: ")
    assert "doesn't exist on the Hub or cannot be accessed. Check the id" in error


def test_a_configuration_that_does_not_exist_is_named_with_those_that_do(loaded: Loaded) -> None:
    error = loaded.answers["no such configuration"]["error"]
    assert "'absent'" in error
    assert "['fine', 'pairs', 'unlabeled']" in error


def test_a_split_without_labels_is_refused(loaded: Loaded) -> None:
    assert "every text has the label '-1'" in loaded.answers["unlabeled"]["error"]


def test_an_absent_column_is_named_beside_those_of_the_data_set(loaded: Loaded) -> None:
    assert loaded.answers["no such column"]["error"].startswith(
        "There is no column 'review'. Columns of lantern: sentence, label."
    )


@pytest.mark.parametrize("name", ["a folder of this machine", "a folder above"])
def test_a_folder_of_this_machine_is_never_taken_for_a_data_set(loaded: Loaded, name: str) -> None:
    assert "could not be loaded" in loaded.answers[name]["error"]


def test_only_the_files_of_the_data_sets_were_downloaded(loaded: Loaded) -> None:
    got = {request.rpartition("/")[2] for request in loaded.asked if request.startswith("GET /datasets/")}
    assert got == {"README.md", "train.parquet", "test.parquet", "fine.csv", "pairs.csv", "unlabeled.csv"}


def test_nothing_but_the_endpoint_and_its_viewer_was_asked(loaded: Loaded) -> None:
    assert set(loaded.beyond) <= {"datasets-server.127.0.0.1"}


@pytest.mark.parametrize(
    "source",
    [
        "hub:",
        "hub:lantern",
        "hub:csv",
        "hub:a/b/c",
        "hub:critics/lantern@",
        "hub:critics/lantern:",
        "hub:a b/c",
        "hub:critics/",
    ],
)
def test_a_malformed_source_is_answered_with_the_form_and_an_example(source: str) -> None:
    with pytest.raises(
        BadData,
        match=rf"'{source}' names no Hub data set\. Expected hub:OWNER/NAME\[:CONFIG\]\[@SPLIT\], for example hub:",
    ):
        read_dataset(source)


def test_without_the_network_the_message_names_the_data_set_and_the_network() -> None:
    with pytest.raises(
        BadData,
        match=r"The Hub data set 'critics/lantern' \(split 'train'\) could not be loaded: .*Check the id, the split "
        r"and the network",
    ):
        read_dataset("hub:critics/lantern")
