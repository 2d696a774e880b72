"""The endpoints as tools of an MCP server, asked by the protocol's own client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ListToolsResult
from server import in_a_thread, log_of

pytest_plugins = ["pages"]
T = TypeVar("T")
NAMED = ["inspect", "split", "evaluate", "purify_start", "purify_status", "purify_cancel", "report"]
NAMED += ["scan_start", "scan_status", "scan_result"]


@pytest.fixture(scope="module")
def root(served: tuple[str, Path]) -> Path:
    return served[1]


@pytest.fixture(scope="module")
def url(served: tuple[str, Path]) -> str:
    return served[0]


def ask(url: str, question: Callable[[ClientSession], Awaitable[T]]) -> T:
    async def asking() -> T:
        async with (
            streamable_http_client(f"{url}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await question(session)

    return in_a_thread(asking())


def call(url: str, tool: str, **arguments: object) -> CallToolResult:
    return ask(url, lambda session: session.call_tool(tool, arguments))


def said(result: CallToolResult) -> str:
    return "".join(part.text for part in result.content if part.type == "text")


def test_the_named_endpoints_are_the_tools(url: str) -> None:
    listed: ListToolsResult = ask(url, lambda session: session.list_tools())
    assert [tool.name for tool in listed.tools] == NAMED
    for tool in listed.tools:
        assert tool.description
        assert all(parameter["description"] for parameter in tool.inputSchema["properties"].values()), tool.name
    (split,) = (tool for tool in listed.tools if tool.name == "split")
    assert split.inputSchema["required"] == ["texts"]


def test_tools_are_called(url: str) -> None:
    split = call(url, "split", texts=["a wonderful film"], share=1.0)
    assert not split.isError
    assert "cuts" in said(split)
    inspected = call(url, "inspect")
    assert not inspected.isError
    assert "BERT 4x384" in said(inspected)


def test_an_error_is_told_in_plain_words(url: str) -> None:
    refused = call(url, "inspect", suspect="../../etc")
    assert refused.isError
    assert said(refused).startswith("There is no model '../../etc'. Give \"demo\"")


def test_a_tool_fetches_no_file_of_the_server(url: str, root: Path, tmp_path: Path) -> None:
    """Gradio's bridge would read a file that an argument describes as one; flat types keep such arguments out."""
    secret = tmp_path / "secret.txt"
    secret.write_text("hush", encoding="utf-8")
    file = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    tries = [
        ("purify_start", {"settings": file}),
        ("purify_start", {"settings": {"seed": file}}),
        ("purify_start", {"suspect": file}),
        ("scan_start", {"clean": file}),
        ("split", {"texts": [file]}),
        ("split", {"texts": file}),
        ("inspect", {"other": file}),
        ("upload_texts", {"file": file}),
        ("upload_model", {"files": [file]}),
    ]
    for tool, arguments in tries:
        assert call(url, tool, **arguments).isError
    received = [path for path in (root / "received").rglob("*") if path.is_file()]
    assert not [path for path in received if "hush" in path.read_text(encoding="utf-8", errors="replace")]
    assert "in the page" not in log_of(root).read_text(encoding="utf-8")
