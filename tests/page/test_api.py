"""The named endpoints, asked by the real client of a real server."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import ROOT, tiny_texts, write_tsv
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from server import log_of, until

from mbtsad_core.attacks.triggers import parse_triggers, triggered_test_set
from mbtsad_core.data import Columns
from mbtsad_core.evaluation import evaluate
from mbtsad_core.models import demo
from mbtsad_core.models.classifier import load_classifier, weights_hash
from mbtsad_core.service.purification import read_texts, scores_to_dict

pytest_plugins = ["pages"]
NAMED = ["/inspect", "/split", "/evaluate", "/purify_start", "/purify_status", "/purify_cancel", "/report"]
NAMED += ["/scan_start", "/scan_status", "/scan_result"]
SHORT = {"retrain.epochs": 1, "distil.epochs": 1, "split.copies": 1, "found_tokens": 0}
ENDED = ("done", "failed", "cancelled", "expired")
SECRET_BYTES = 24  # 192 bits


@pytest.fixture(scope="module")
def root(served: tuple[str, Path]) -> Path:
    return served[1]


@pytest.fixture(scope="module")
def url(served: tuple[str, Path]) -> str:
    return served[0]


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False)


def refusal(client: Client, *args: Any, api_name: str, **kwargs: Any) -> str:
    """The message that a call ends with."""
    with pytest.raises(AppError) as caught:
        client.predict(*args, api_name=api_name, **kwargs)
    return str(caught.value)


def fetch(url: str, address: str) -> bytes:
    with urllib.request.urlopen(url.rstrip("/") + address, timeout=60) as answer:
        return bytes(answer.read())


def test_exactly_the_named_endpoints_are_listed_and_described(client: Client) -> None:
    listed = client.view_api(return_format="dict", print_info=False)
    assert list(listed["named_endpoints"]) == NAMED
    assert not listed["unnamed_endpoints"]
    for name, endpoint in listed["named_endpoints"].items():
        assert endpoint["description"].endswith("."), name
        assert all(p["python_type"]["description"].endswith(".") for p in endpoint["parameters"]), name
    start = {
        p["parameter_name"]: p["parameter_default"] for p in listed["named_endpoints"]["/purify_start"]["parameters"]
    }
    assert start == {
        "suspect": "demo",
        "clean": "demo",
        "trigger": "cf | mn | bb | tq",
        "target": "positive",
        "clean_amount": 0,
        "settings": None,
    }
    assert [
        p["parameter_name"] for p in listed["named_endpoints"]["/split"]["parameters"] if not p["parameter_has_default"]
    ] == ["texts"]


def test_every_endpoint_is_documented_with_an_example() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in (*NAMED, "/upload_model", "/upload_texts"):
        assert f"| `{name[1:]}` |" in text
        assert f'api_name="{name}"' in text
    assert "docs/api.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_pages_own_listeners_cannot_be_called(client: Client, url: str) -> None:
    with urllib.request.urlopen(f"{url}config", timeout=60) as answer:
        listeners = json.load(answer)["dependencies"]
    private = [d for d in listeners if f"/{d['api_name']}" not in [*NAMED, "/upload_model", "/upload_texts"]]
    assert len(private) > 20
    assert {d["api_visibility"] for d in private} == {"private"}
    with pytest.raises(ValueError, match="Invalid function index"):
        client.predict(fn_index=private[0]["id"])
    with pytest.raises(ValueError, match="Cannot find a function"):
        client.predict(api_name=f"/{private[0]['api_name']}")


def test_inspect_describes_the_demo(client: Client) -> None:
    found = client.predict(api_name="/inspect")
    assert found == {
        "description": found["description"],
        "labels": ["negative", "positive"],
        "layers": 4,
        "heads": 12,
        "parameters": 6643330,
    }
    assert found["description"].startswith("BERT 4x384")


def test_split_gives_the_cuts_that_reproduce_the_texts(client: Client) -> None:
    texts = ["A truly wonderful little film about people.", "An <b>unbearable</b> evening, &c."]
    found = client.predict(texts, share=1.0, seed=3, api_name="/split")
    for text, split in zip(texts, found, strict=True):
        assert split["cuts"]
        assert "".join(c for at, c in enumerate(split["text"]) if at not in split["cuts"]) == text
    assert client.predict(texts, share=1.0, seed=3, api_name="/split") == found
    assert client.predict(texts, share=1.0, seed=4, api_name="/split") != found


def test_evaluate_agrees_with_the_core(client: Client) -> None:
    classifier = load_classifier(demo.demo_model("suspect"))
    texts = read_texts("demo", "test", classifier.labels, Columns()).texts
    triggered = triggered_test_set(texts, parse_triggers(["cf", "mn"], target=1, window=classifier.max_length // 2))
    expected = json.loads(json.dumps(scores_to_dict(evaluate(classifier, texts, triggered, 1)) | {"notes": []}))
    assert client.predict(trigger="cf | mn", api_name="/evaluate") == expected
    alone = client.predict(trigger="", api_name="/evaluate")
    assert (alone["cacc_hits"], alone["asr"]) == (expected["cacc_hits"], None)


def test_a_run_is_cancelled(client: Client) -> None:
    id = client.predict(clean_amount=160, settings={"retrain.epochs": 50, "found_tokens": 0}, api_name="/purify_start")[
        "id"
    ]
    until(lambda: client.predict(id, api_name="/purify_status")["state"] == "running")
    assert client.predict(id, api_name="/purify_cancel")["state"] in ("cancelling", "cancelled")
    until(lambda: client.predict(id, api_name="/purify_status")["state"] == "cancelled")
    assert "This run is cancelled" in refusal(client, id, api_name="/report")


def test_a_whole_purification_of_the_callers_own_suspect(
    client: Client, url: str, suspect_dir: Path, tmp_path: Path
) -> None:
    model = client.predict([handle_file(path) for path in sorted(suspect_dir.iterdir())], api_name="/upload_model")
    assert {v["verdict"] for v in model["report"]} <= {"accepted", "ignored"}
    texts = tiny_texts(96, seed=4)
    table = client.predict(handle_file(write_tsv(tmp_path / "mine.tsv", texts)), api_name="/upload_texts")
    assert (table["rows"], table["columns"]["label"]) == (96, "label")
    assert client.predict(model["handle"], api_name="/inspect")["layers"] == 2

    suspect = load_classifier(suspect_dir)
    triggered = triggered_test_set(texts, parse_triggers(["cf"], target=1, window=suspect.max_length // 2))
    expected = scores_to_dict(evaluate(suspect, texts, triggered, 1)) | {"notes": []}
    found = client.predict(model["handle"], table["handle"], "cf", "1", api_name="/evaluate")
    assert {name: found[name] for name in ("cacc_hits", "asr_hits", "asr_n")} == {
        name: expected[name] for name in ("cacc_hits", "asr_hits", "asr_n")
    }

    settings = {**SHORT, "seed": 1}
    started = client.predict(model["handle"], table["handle"], "cf", "1", settings=settings, api_name="/purify_start")
    id = started["id"]
    assert started["state"] in ("queued", "running")
    assert "a report comes with one that is done" in refusal(client, id, api_name="/report")
    assert "not done" in refusal(client, f"job:{id}", api_name="/inspect")
    status = until(lambda: s if (s := client.predict(id, api_name="/purify_status"))["state"] in ENDED else None)
    assert status["state"] == "done", status
    assert set(status) == {"id", "state", "stage", "step", "total", "position", "seconds_left", "metrics", "message"}
    assert (status["stage"], status["step"], status["id"]) == ("distil", status["total"], id)

    report = client.predict(id, api_name="/report")
    assert (report["settings"]["clean_texts"] + report["purified"]["cacc_n"], report["settings"]["seed"]) == (96, 1)
    assert report["suspect"]["asr"] > 0.9
    assert set(report["files"]) == {"model.zip", "report.html", "report.json", "report.sarif"}
    assert json.loads(fetch(url, report["files"]["report.json"]))["purified"] == report["purified"]
    assert fetch(url, report["files"]["report.html"]).lower().startswith(b"<!doctype html")
    assert json.loads(fetch(url, report["files"]["report.sarif"]))["version"] == "2.1.0"
    assert model["handle"].partition(":")[2] not in json.dumps(report)
    assert str(tmp_path.parent) not in json.dumps(report)
    (tmp_path / "model.zip").write_bytes(fetch(url, report["files"]["model.zip"]))
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    (config,) = (tmp_path / "unpacked").rglob("config.json")
    purified = load_classifier(config.parent)
    assert purified.labels == suspect.labels
    assert weights_hash(purified) != weights_hash(suspect)

    measured = client.predict(f"job:{id}", table["handle"], "cf", "1", api_name="/evaluate")
    expected = scores_to_dict(evaluate(purified, texts, triggered, 1))
    assert (measured["cacc_hits"], measured["asr_hits"]) == (expected["cacc_hits"], expected["asr_hits"])
    assert "done" in refusal(client, id, api_name="/purify_cancel")
    assert "upload_model" in refusal(client, f"job:{id}", api_name="/purify_start")

    for handle in (model["handle"], table["handle"]):
        assert re.fullmatch(rf"upload:[A-Za-z0-9_-]{{{SECRET_BYTES * 4 // 3}}}", handle)
    wrong = model["handle"][:-1] + ("A" if model["handle"][-1] != "A" else "B")
    stranger = Client(url, verbose=False)
    assert "There is no model" in refusal(stranger, wrong, api_name="/inspect")
    assert "There is no model" in refusal(stranger, table["handle"], api_name="/inspect")
    assert "There are no texts" in refusal(stranger, model["handle"], model["handle"], api_name="/evaluate")


def test_a_scan_of_the_callers_own_suspect(client: Client, suspect_dir: Path, tmp_path: Path) -> None:
    model = client.predict([handle_file(path) for path in sorted(suspect_dir.iterdir())], api_name="/upload_model")
    table = client.predict(handle_file(write_tsv(tmp_path / "mine.tsv", tiny_texts(64))), api_name="/upload_texts")
    started = client.predict(model["handle"], table["handle"], budget=60.0, api_name="/scan_start")
    assert started["state"] in ("queued", "running")
    assert "a result comes with one that is done" in refusal(client, started["id"], api_name="/scan_result")
    seen = []

    def ended() -> dict[str, Any] | None:
        seen.append(client.predict(started["id"], api_name="/scan_status"))
        return seen[-1] if seen[-1]["state"] in ENDED else None

    status = until(ended)
    assert status["state"] == "done", status
    assert {"stage", "step", "total", "seconds_left", "leading"} <= set(status)
    assert any(one["leading"] for one in seen)
    assert {len(one["leading"]) for one in seen} <= set(range(9))
    record = client.predict(started["id"], api_name="/scan_result")
    jsonschema.validate(record, json.loads((ROOT / "docs" / "scan.schema.json").read_text(encoding="utf-8")))
    assert (record["verdict"], record["triggers"][0]["target"]) == ("a trigger exists", "positive")
    assert model["handle"].partition(":")[2] not in json.dumps(record)
    assert "Ask scan_result" in refusal(client, started["id"], api_name="/report")
    assert "That is a scan" in refusal(client, f"job:{started['id']}", api_name="/inspect")


def test_a_zip_is_taken_and_a_pickle_refused(client: Client, suspect_dir: Path, tmp_path: Path) -> None:
    packed = shutil.make_archive(str(tmp_path / "mine"), "zip", suspect_dir)
    handle = client.predict([handle_file(packed)], api_name="/upload_model")["handle"]
    assert client.predict(handle, api_name="/inspect")["layers"] == 2
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    message = refusal(client, [handle_file(tmp_path / "pytorch_model.bin")], api_name="/upload_model")
    assert "pickle and could run code" in message
    assert "safe_serialization=True" in message


def test_uploads_name_no_file_of_the_server(client: Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret.tsv"
    secret.write_text("text\tlabel\nhush\t1\n", encoding="utf-8")
    for given in ({"path": str(secret)}, {"path": "../../etc/passwd"}, {"path": "a\0b"}, str(secret), None, 3):
        assert "handle_file" in refusal(client, given, api_name="/upload_texts")
        assert "handle_file" in refusal(client, [given], api_name="/upload_model")


@pytest.mark.parametrize(
    "place",
    [
        "../../etc",
        "/etc",
        "assets/demo/suspect",
        "upload:../../etc",
        "upload:/etc",
        "upload:",
        "upload:.",
        "C:\\models",
        "",
    ],
)
def test_no_place_of_the_server_is_a_model_or_texts(client: Client, place: str) -> None:
    for name in ("/inspect", "/evaluate", "/purify_start", "/scan_start"):
        message = refusal(client, place, api_name=name)
        assert message.startswith("There is no model")
        assert 'Give "demo"' in message  # as it is, and not as HTML
        assert str(ROOT) not in message
    assert refusal(client, "demo", place, api_name="/evaluate").startswith("There are no texts")
    assert refusal(client, "demo", place, api_name="/purify_start").startswith("There are no texts")


@pytest.mark.parametrize("source", ["hub:../../etc", "hub:/etc", "hub:"])
def test_a_hub_id_is_no_place_either(client: Client, source: str) -> None:
    assert "names no Hub model" in refusal(client, source, api_name="/inspect")
    assert "hub:" in refusal(client, "demo", source, api_name="/evaluate")


def test_a_trigger_is_never_a_file(client: Client, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("text\ttriggered\nhush\thush cf\n", encoding="utf-8")
    for name in ("/evaluate", "/purify_start"):
        for spec in (str(pairs), f"{pairs}.gz", f"cf | {pairs}"):
            assert "would be the name of a file" in refusal(client, trigger=spec, api_name=name)


def test_an_id_cannot_be_guessed_and_an_unknown_one_says_so(client: Client) -> None:
    id = client.predict(clean_amount=64, settings=SHORT, api_name="/purify_start")["id"]
    assert len(id) >= SECRET_BYTES * 4 // 3
    client.predict(id, api_name="/purify_cancel")
    for wrong in ("0", "1", "", id[:-1], id[:-1] + "~", "../" + id, "%", "' OR 1=1 --"):
        for name in ("/purify_status", "/purify_cancel", "/report", "/scan_status", "/scan_result"):
            assert "There is no such job" in refusal(client, wrong, api_name=name)
        assert "There is no such job" in refusal(client, f"job:{wrong}", api_name="/inspect")


def test_files_of_unknown_runs_are_not_found(url: str) -> None:
    for address in ("/mbtsad/jobs/1/model.zip", "/mbtsad/jobs/..%2F..%2Fetc/report.json", "/mbtsad/jobs/x/jobs.sqlite"):
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            fetch(url, address)
        caught.value.close()


BAD = [
    ("/inspect", {"suspect": 5}, "suspect: expected a string, got 5."),
    ("/split", {"texts": "one"}, "texts: expected a list of strings, got 'one'."),
    ("/split", {"texts": [1]}, "texts: expected a list of strings, got [1]."),
    ("/split", {"texts": ["a"], "share": "x"}, "share: expected a number, got 'x'."),
    ("/split", {"texts": ["a"], "share": 9}, "share must be at most 1.0; got 9."),
    ("/split", {"texts": ["a"], "cap": True}, "cap: expected an integer, got True."),
    ("/split", {"texts": ["a"] * 1001}, "1001 texts are more than the 1000 that one call takes."),
    ("/split", {"texts": ["a" * 1_000_001]}, "1000001 characters are more than the 1000000 that one call takes."),
    ("/evaluate", {"target": "dull"}, "There is no class 'dull'."),
    ("/purify_start", {"target": "dull"}, "There is no class 'dull'."),
    ("/purify_start", {"settings": {"retrain.epoch": 1}}, "Unknown setting 'retrain.epoch'. Known: "),
    ("/purify_start", {"settings": {"retrain.epochs": "2"}}, "retrain.epochs: expected an integer, got '2'."),
    ("/purify_start", {"settings": {"retrain.epochs": 0}}, "epochs must be at least 1; got 0."),
    ("/purify_start", {"settings": ["seed"]}, "settings: expected names and values"),
    ("/purify_start", {"clean_amount": 8}, "a smaller retrain.batch_size and distil.batch_size."),
    ("/purify_start", {"clean_amount": 1.5}, "clean_amount: expected an integer, got 1.5."),
    ("/scan_start", {"budget": -1.0}, "budget must be at least 0.0; got -1.0."),
    ("/scan_start", {"labeled": 1}, "labeled: expected true or false, got 1."),
    ("/purify_status", {"id": None}, "id: expected a string, got None."),
]


@pytest.mark.parametrize(("name", "given", "message"), BAD, ids=range(len(BAD)))
def test_bad_input_is_told_in_words_of_the_api(client: Client, name: str, given: dict[str, Any], message: str) -> None:
    said = refusal(client, api_name=name, **given)
    assert message in said
    assert not re.search(r"--[a-z]|&[a-z#]\w*;|Traceback", said)


def test_nothing_of_this_was_unforeseen(client: Client, root: Path) -> None:
    """Stands last: the log of the server has no error that has no words of its own."""
    assert client.predict(api_name="/inspect")["layers"] == 4
    assert "in the page" not in log_of(root).read_text(encoding="utf-8")
