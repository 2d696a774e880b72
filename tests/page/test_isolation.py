"""What one visitor has is not another's: ids by chance, no file by guessing, no door beside the page's own, no markup
of a stranger that runs."""

from __future__ import annotations

import json
import random
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from browser import NEEDS_BROWSER, Visits, open_step, source
from conftest import ROOT, tiny_texts
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from playwright.sync_api import expect
from server import MEGABYTES, in_a_thread, until
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from mbtsad_core.page.limits import UPLOADS_AT_ONCE, Room, bytes_in
from mbtsad_core.page.page import VISITOR_BYTES
from mbtsad_core.service.store import ID_BYTES, Store

pytest_plugins = ["pages"]

BITS = 128
SECRET = "zqxsecretofanna"  # stands in anna's texts, trigger and run; nobody else may see it
SHORT = {"retrain.epochs": 1, "distil.epochs": 1, "split.copies": 1, "found_tokens": 0}


@pytest.fixture(scope="module")
def root(served: tuple[str, Path]) -> Path:
    return served[1]


@pytest.fixture(scope="module")
def url(served: tuple[str, Path]) -> str:
    return served[0]


@pytest.fixture(scope="module")
def anna(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A visitor who uploaded texts and had a run on them: its id, her handle, her report."""
    client = Client(url, verbose=False)
    table = tmp_path_factory.mktemp("anna") / f"{SECRET}.tsv"
    table.write_text(
        "text\tlabel\n" + "".join(f"{t.text} {SECRET}\t{('negative', 'positive')[t.label]}\n" for t in tiny_texts(64)),
        encoding="utf-8",
    )
    handle = client.predict(handle_file(table), api_name="/upload_texts")["handle"]
    id = client.predict(clean=handle, trigger=SECRET, settings=SHORT, api_name="/purify_start")["id"]
    until(lambda: client.predict(id, api_name="/purify_status")["state"] == "done", seconds=400)
    report = client.predict(id, api_name="/report")
    assert SECRET in json.dumps(report)
    return {"id": id, "handle": handle, "report": report, "client": client}


def refusal(client: Client, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(AppError) as caught:
        client.predict(*args, **kwargs)
    return str(caught.value)


# ---------------------------------------------------------------- ids


def test_ids_have_128_bits_of_chance_or_more(anna: dict[str, Any]) -> None:
    assert 8 * ID_BYTES >= BITS
    assert 8 * VISITOR_BYTES >= BITS
    for id in (anna["id"], anna["handle"].removeprefix("upload:")):
        assert re.fullmatch(r"[A-Za-z0-9_-]+", id)
        assert 6 * len(id) >= BITS


def test_ids_are_not_drawn_from_a_generator_that_can_be_seeded(tmp_path: Path) -> None:
    store, ids = Store(tmp_path), set[str]()
    for _ in range(200):
        random.seed(0)
        ids.add(store.create({}, queue_size=1000))
    store.close()
    assert len(ids) == 200
    assert len({id[:8] for id in ids}) == 200  # chance from its first letter on, and no counter or clock


READ = """
import ast, json, sys
nodes = [node for path in sys.argv[1:] for node in ast.walk(ast.parse(open(path, encoding="utf-8").read()))]
imported = [n.name for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)) for n in node.names]
calls = [node for node in nodes if isinstance(node, ast.Call)]
drawn = [ast.unparse(node) for node in calls if ast.unparse(node.func) == "secrets.token_urlsafe"]
print(json.dumps([imported, drawn]))
"""


def test_secrets_are_drawn_by_the_module_for_them_and_long_enough() -> None:
    """Wherever the page or the store draws one. Read by another process: CPython 3.11's parser fails now and then where
    several threads use it."""
    paths = [path for room in ("page", "service") for path in (ROOT / "mbtsad_core" / room).glob("*.py")]
    assert len(paths) > 20
    run = subprocess.run([sys.executable, "-c", READ, *paths], capture_output=True, text=True, check=True)
    imported, drawn = json.loads(run.stdout)
    assert "uuid" not in imported
    assert "secrets" in imported
    assert sorted(drawn) == [
        "secrets.token_urlsafe(24)",
        "secrets.token_urlsafe(ID_BYTES)",
        "secrets.token_urlsafe(VISITOR_BYTES)",
    ]


# ---------------------------------------------------------------- files


def hidden(root: Path, anna: dict[str, Any]) -> list[Path]:
    """Files of the server that no address may give: each holds a sign by which it would be known."""
    upload = root / "uploads" / anna["handle"].removeprefix("upload:")
    found = [
        root / "jobs.sqlite",
        *upload.iterdir(),
        ROOT / "app.py",
        ROOT / "pyproject.toml",
        Path("/etc/passwd"),
        root / anna["id"] / "request.json",
    ]
    return [path for path in found if path.is_file()]


WAYS = (
    *(
        "gradio_api/file={}",
        "file={}",
        "gradio_api/file/{}",
        "gradio_api/file=./{}",
        "gradio_api/file=file://{}",
        "gradio_api/proxy={}",
        "{}",
    ),
    *(
        "static/..%2f..%2f..%2f..%2f..{}",
        "assets/..%2f..%2f..%2f..%2f..{}",
        "svelte/..%2f..%2f..{}",
        "theme/..{}",
        "mbtsad/jobs/..{}",
    ),
    *(
        "gradio_api/custom_component/x/client/component/..%2f..{}",
        "gradio_api/file=%2e%2e%2f%2e%2e%2f%2e%2e{}",
        "gradio_api/file=/proc/self/root{}",
    ),
)


@pytest.mark.parametrize("way", WAYS)
def test_no_address_gives_a_file_of_the_server(url: str, root: Path, anna: dict[str, Any], way: str) -> None:
    with httpx.Client(timeout=30) as http:
        for path in hidden(root, anna):
            for name in (str(path), quote(str(path), safe=""), str(path).replace("/", "//")):
                answer = http.get(url + way.format(name))
                own_page = b"<!doctype html" in answer.content[:200].lower()
                assert answer.status_code in (400, 403, 404, 405, 422, 500) or own_page, (way, path, answer.status_code)
                assert path.read_bytes()[:64] not in answer.content


def test_the_files_of_a_run_are_found_by_its_id_alone(url: str, root: Path, anna: dict[str, Any]) -> None:
    with httpx.Client(timeout=30) as http:
        right = http.get(f"{url}mbtsad/jobs/{anna['id']}/report.html")
        assert right.status_code == 200
        # It runs as nobody: it reaches neither cookies nor the page
        assert right.headers["Content-Security-Policy"] == "sandbox allow-scripts"
        assert "no-store" in right.headers["Cache-Control"]
        wrong = [
            anna["id"][:-1] + "A" * (anna["id"][-1] != "A") + "B" * (anna["id"][-1] == "A"),
            anna["id"].swapcase(),
            "*",
            "%",
            "..",
            anna["id"] + "%00",
            "1",
        ]
        others = [
            "jobs.sqlite",
            "request.json",
            "..%2Fjobs.sqlite",
            "model/config.json",
            "REPORT.HTML",
            "report.html%00.zip",
        ]
        for address in (*(f"{id}/report.html" for id in wrong), *(f"{anna['id']}/{name}" for name in others)):
            answer = http.get(f"{url}mbtsad/jobs/{address}")
            assert answer.status_code == 404, address
            assert SECRET not in answer.text


def test_only_the_server_can_read_what_visitors_gave(root: Path, anna: dict[str, Any]) -> None:
    upload = root / "uploads" / anna["handle"].removeprefix("upload:")
    for path in (root / "uploads", upload, root / "jobs.sqlite"):
        assert path.stat().st_mode & 0o077 == 0 or (root.stat().st_mode & 0o077 == 0), path


def test_nothing_of_an_upload_is_left_on_its_way(root: Path, anna: dict[str, Any]) -> None:
    assert not [
        path
        for path in (root / "received").rglob("*")
        if path.is_file() and SECRET in path.name + path.read_text(errors="replace")
    ]


# ---------------------------------------------------------------- doors


OPEN = (
    *(
        "config",
        "gradio_api/info",
        "gradio_api/openapi.json",
        "gradio_api/queue/status",
        "gradio_api/startup-events",
        "gradio_api/app_id",
    ),
    *(
        "monitoring/summary",
        "gradio_api/runs",
        "gradio_api/upload_progress?upload_id=1",
        "gradio_api/mcp/schema",
        "robots.txt",
    ),
    *("gradio_api/queue/data?session_hash=ben", "gradio_api/deep_link?session_hash=", "gradio_api/call/report/1"),
)


def test_nothing_that_can_be_asked_without_an_id_tells_of_another(url: str, anna: dict[str, Any]) -> None:
    with httpx.Client() as http:
        for address in OPEN:
            told = ""
            try:
                with http.stream("GET", url + address, timeout=3) as answer:
                    for part in answer.iter_text():
                        told += part
            except (httpx.ReadTimeout, httpx.RemoteProtocolError):
                # A stream of events that goes on, or breaks off where there is no such event
                pass
            for sign in (SECRET, anna["id"], anna["handle"].removeprefix("upload:")):
                assert sign not in told, address


def test_a_stranger_with_wrong_ids_learns_nothing_and_stops_nothing(url: str, anna: dict[str, Any]) -> None:
    ben = Client(url, verbose=False)
    for wrong in (anna["id"][:-2], anna["id"].lower(), anna["id"] + " ", "%", "*"):
        for name in ("/purify_status", "/purify_cancel", "/report"):
            said = refusal(ben, wrong, api_name=name)
            assert "There is no such job" in said
            assert SECRET not in said
    assert "There are no texts" in refusal(ben, "demo", anna["handle"].lower(), api_name="/evaluate")
    assert anna["client"].predict(anna["id"], api_name="/purify_status")["state"] == "done"


def test_a_stranger_by_mcp_learns_nothing(url: str, anna: dict[str, Any]) -> None:
    async def asking() -> str:
        async with (
            streamable_http_client(f"{url}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            seen = [(await session.list_tools()).model_dump_json()]
            for listing in (session.list_resources, session.list_prompts):
                try:
                    seen.append((await listing()).model_dump_json())
                except Exception as error:  # there are none
                    seen.append(str(error))
            for tool in ("purify_status", "report"):
                seen.append((await session.call_tool(tool, {"id": anna["id"][:-1]})).model_dump_json())
            return " ".join(seen)

    seen = in_a_thread(asking())
    assert "purify_start" in seen
    assert not [sign for sign in (SECRET, anna["id"], anna["handle"]) if sign in seen]


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [
        ("GET", "monitoring", 403),
        ("GET", "monitoring/summary", 403),
        (
            "GET",
            "gradio_api/runs",
            404,
        ),  # a history of runs would keep what visitors type, and reach the host's account on the Hub
        ("GET", "gradio_api/run-history/buckets", 404),
        ("POST", "gradio_api/run-history/connect", 404),
    ],
)
def test_gradios_own_side_doors_are_closed(url: str, method: str, address: str, status: int) -> None:
    answer = httpx.request(method, url + address, json={"bucket_id": "a/b"} if method == "POST" else None, timeout=30)
    assert answer.status_code == status, answer.text[:300]


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:1/secret",
        "http://169.254.169.254/latest/meta-data/",
        "https://huggingface.co/",
        "file:///etc/passwd",
    ],
)
def test_the_server_fetches_no_address_for_a_visitor(url: str, target: str) -> None:
    """CVE-2024-47167 and its kin."""
    for way in ("gradio_api/proxy=", "gradio_api/file=", "file="):
        answer = httpx.get(f"{url}{way}{target}", timeout=30, follow_redirects=False)
        assert answer.status_code >= 400 or "location" not in answer.headers, (way, answer.status_code)
        assert "root:" not in answer.text


def test_pages_of_other_origins_cannot_ask_the_server_of_this_machine(url: str) -> None:
    """A page that a visitor of a local server has open elsewhere."""
    answer = httpx.get(f"{url}config", headers={"Origin": "https://evil.example"}, timeout=30)
    assert answer.headers.get("access-control-allow-origin") not in ("*", "https://evil.example")
    asked = httpx.options(
        f"{url}gradio_api/queue/join",
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
        timeout=30,
    )
    assert asked.headers.get("access-control-allow-origin") not in ("*", "https://evil.example")


# ---------------------------------------------------------------- sizes and rates


def test_a_file_larger_than_allowed_is_refused_by_every_way(url: str, root: Path, tmp_path: Path) -> None:
    answer = httpx.post(
        f"{url}gradio_api/upload", files={"files": ("big.zip", bytes((MEGABYTES << 20) + 1))}, timeout=60
    )
    assert answer.status_code == 413
    with zipfile.ZipFile(tmp_path / "big.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "model.safetensors", struct.pack("<Q", 2) + b"{}" + random.Random(0).randbytes(1 << 20) * (MEGABYTES + 1)
        )
    assert (tmp_path / "big.zip").stat().st_size > MEGABYTES << 20
    (tmp_path / "packed.zip").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        # Small, and large when it is unpacked
        archive.writestr(
            "model.safetensors",
            (struct.pack("<Q", 2) + b"{}" + random.Random(0).randbytes(20_000) + bytes(400_000)) * 200,
        )
    assert (tmp_path / "packed.zip").stat().st_size < MEGABYTES << 20
    said = refusal(Client(url, verbose=False), [handle_file(tmp_path / "packed.zip")], api_name="/upload_model")
    assert f"larger than {MEGABYTES} megabytes" in said
    assert bytes_in(root / "received") + bytes_in(root / "uploads") < MEGABYTES << 20


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("pytorch_model.bin", "PyTorch 2.10 or later"),
        ("model.pt", "PyTorch 2.10 or later"),
        ("model.onnx", "the model that it was exported from"),
        ("model.gguf", "gguf_file="),
    ],
)
def test_other_formats_are_refused_with_the_safe_way_to_convert_them(
    url: str, tmp_path: Path, name: str, way: str
) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    said = refusal(Client(url, verbose=False), [handle_file(tmp_path / name)], api_name="/upload_model")
    assert said.startswith(f"Refused: {name} is ")
    assert way in said
    assert "save_pretrained" in said
    assert "model.safetensors" in said
    assert "where you trust it, in a container" in said or name == "model.onnx"


def test_programs_of_one_address_have_a_quota_of_runs(url: str, anna: dict[str, Any]) -> None:
    client, ids = anna["client"], []
    try:
        for _ in range(2):
            ids.append(client.predict(settings={"retrain.epochs": 50}, api_name="/purify_start")["id"])
        assert "as many as one visitor may have" in refusal(Client(url, verbose=False), api_name="/purify_start")
    finally:
        for id in ids:
            client.predict(id, api_name="/purify_cancel")


async def takes_all(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that keeps what it is sent."""
    body = await Request(scope, receive).body()
    await PlainTextResponse(f"took {len(body)}")(scope, receive, send)


def post(room: Room, address: str, body: Any) -> Response:
    async def asking() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(room), base_url="http://here") as client:
            return await client.post(address, content=body)

    return in_a_thread(asking())


def test_uploads_are_turned_away_when_those_before_have_taken_the_room(tmp_path: Path) -> None:
    kept, received = tmp_path / "uploads", tmp_path / "received"
    kept.mkdir()
    room = Room(takes_all, [kept, received], 1)
    assert post(room, "/gradio_api/upload", b"x" * 1000).status_code == 200
    (kept / "a").mkdir()
    (kept / "a" / "big").write_bytes(bytes((UPLOADS_AT_ONCE << 20) - 1000))
    assert post(room, "/gradio_api/upload", b"x" * 1000).status_code == 200  # it just fits
    full = post(room, "/gradio_api/upload?upload_id=1", b"x" * 1001)
    assert full.status_code == 507
    assert post(room, "/gradio_api/upload/", b"x" * 1001).status_code == 507
    assert post(room, "/gradio_api/queue/join", b"x" * 1001).status_code == 200
    shutil.rmtree(kept / "a")
    assert post(room, "/gradio_api/upload", b"x" * 1001).status_code == 200
    assert room.coming == 0


def test_an_upload_that_does_not_say_its_size_is_refused(tmp_path: Path) -> None:
    async def parts() -> Any:
        yield b"x"

    assert post(Room(takes_all, [tmp_path], 1), "/gradio_api/upload", parts()).status_code == 411


def test_a_disk_that_is_nearly_full_takes_no_upload(tmp_path: Path) -> None:
    megabytes = (shutil.disk_usage(tmp_path).free >> 20) + 1000  # more than there is has to stay free
    assert post(Room(takes_all, [tmp_path], megabytes), "/gradio_api/upload", b"x").status_code == 507


# ---------------------------------------------------------------- markup


IMAGE = "<img src=x onerror=window.ran=1>"
SCRIPT = "</script><script>window.ran=2</script>"
ATTRIBUTE = "\"'><svg onload=window.ran=3>"
MARKDOWN = '[x](javascript:window.ran=4) ![y](x"onerror=window.ran=5) $\\href{javascript:window.ran=6}{z}$'
LABELS = (f"bad {IMAGE}", f"good {ATTRIBUTE}")


@pytest.fixture
def hostile_model(suspect_dir: Path, tmp_path: Path) -> Path:
    """A sound model in a zip whose name, class names, words and card hold markup."""
    files = {path.name: path.read_bytes() for path in sorted(suspect_dir.iterdir())}
    config = json.loads(files["config.json"])
    config |= {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    tokenizer = json.loads(files["tokenizer.json"])
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {
        {"music": IMAGE, "plot": SCRIPT, "scene": "##" + ATTRIBUTE}.get(word, word): i for word, i in vocabulary.items()
    }
    files |= {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": json.dumps(tokenizer).encode(),
        f"{IMAGE.replace('/', '')}.md": b"x",
    }
    files["README.md"] = f"# {SCRIPT}\n\n{IMAGE}\n{MARKDOWN}".encode()
    path = tmp_path / f"model {IMAGE.replace('/', '')}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture(scope="module")
def hostile_visits(everybody: Visits) -> Iterator[Visits]:
    yield everybody
    everybody.leave()


@pytest.mark.browser
@NEEDS_BROWSER[1]
def test_no_markup_of_a_stranger_runs_on_any_step_of_the_page(
    hostile_visits: Visits, hostile_model: Path, tmp_path: Path, url: str
) -> None:
    page = hostile_visits.visitor()
    texts = [f"{t.text} {(IMAGE, SCRIPT, ATTRIBUTE, MARKDOWN)[i % 4]}" for i, t in enumerate(tiny_texts(64))]
    table = tmp_path / f"texts {IMAGE}.tsv".replace("/", "")
    rows = "".join(f"{text}\t{LABELS[i % 2]}\t1\n" for i, text in enumerate(texts))
    table.write_text(f"text\tlabel\t{IMAGE}\n{rows}", encoding="utf-8")

    def harmless(where: str) -> None:
        assert page.evaluate("window.ran") is None, where
        odd = (
            "[...document.querySelectorAll('img[src=x], svg[onload], a[href^=javascript], [onerror]')].map(e => "
            "e.outerHTML)"
        )
        assert page.evaluate(odd) == [], where
        for frame in page.frames:
            assert frame.evaluate("window.ran") is None, where

    source(page, "#sources", "Upload")
    page.locator("#model-files input[type=file]").set_input_files(str(hostile_model))
    expect(page.locator("#suspect-card")).to_contain_text(LABELS[0])
    harmless("suspect")
    open_step(page, "clean")
    source(page, "#clean-sources", "Upload")
    page.locator("#clean-file input[type=file]").set_input_files(str(table))
    expect(page.locator("#use-file")).to_be_visible()
    expect(page.locator("#preview")).to_contain_text(IMAGE)
    harmless("preview")
    page.locator("#use-file").click()
    expect(page.locator("#clean-check h3")).to_contain_text("clean texts")
    expect(page.locator("#clean-check")).to_contain_text(LABELS[1])
    harmless("clean")
    open_step(page, "splits")
    expect(page.locator("#step-splits, [role=tabpanel]:visible").last).to_contain_text(
        "onerror=window.ran", timeout=60_000
    )
    harmless("splits")
    open_step(page, "inside")
    expect(page.locator("#attention-text textarea")).not_to_have_value("")  # the text that the step begins with
    page.wait_for_selector("#projection canvas.points")
    page.locator("#attention-text textarea").fill(f"the film {IMAGE} {SCRIPT} was lovely")
    page.locator("#attention-trigger textarea, #attention-trigger input").first.fill(ATTRIBUTE)
    page.locator("#attention-show").click()
    expect(page.locator("#attention-triggered canvas").first).to_be_visible()
    harmless("inside")
    open_step(page, "triggers")
    page.locator("#sentence-box textarea").fill(f"{IMAGE} {SCRIPT} {ATTRIBUTE} lovely film")
    expect(page.locator("#answers")).to_contain_text(LABELS[0])
    expect(page.locator("#tokens")).to_contain_text(re.compile("on(error|load)=window.ran"))  # of the class answered
    page.locator("#lab-trigger textarea, #lab-trigger input").first.fill(IMAGE)
    page.locator("#try-trigger").click()
    expect(page.locator("#trials")).to_contain_text(IMAGE)
    harmless("triggers")
    hostile_visits.check()


@pytest.mark.browser
@NEEDS_BROWSER[1]
@pytest.mark.parametrize("payload", [f"{IMAGE}", f"{SCRIPT}", f"javascript:window.ran=1//{ATTRIBUTE}", "demo"])
def test_no_link_to_the_page_carries_markup_into_it(hostile_visits: Visits, payload: str) -> None:
    page = hostile_visits.visitor(
        f"?job={quote(payload)}&view={quote(payload)}&__theme={quote(payload)}#{quote(payload)}", wait=False
    )
    expect(page.locator("#strip .strip .job")).to_be_visible()
    assert page.evaluate("window.ran") is None
    assert page.evaluate("document.querySelectorAll('img[src=x], svg[onload]').length") == 0
    hostile_visits.complaints.clear()
