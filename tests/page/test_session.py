"""What a visitor types is read as words, and his session holds no more than names."""

from __future__ import annotations

import pytest

from mbtsad_core.config import RuntimeConfig
from mbtsad_core.errors import BadData
from mbtsad_core.page.session import Session, of_request, read_hub_id, read_trigger, trigger_of, write_trigger
from mbtsad_core.service.purification import Request


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("cf", ("cf",)),
        (" cf | mn ", ("cf", "mn")),
        ("cf+bb", ("cf+bb",)),
        (r"c\+\+ | a\|b", (r"c\+\+", r"a\|b")),
        ("I watched it, on Monday", ("I watched it, on Monday",)),
        ("| |", ()),
        ("", ()),
    ],
)
def test_a_typed_trigger_is_read_in_ways(typed: str, read: tuple[str, ...]) -> None:
    assert read_trigger(typed) == read


@pytest.mark.parametrize("typed", ["owner/name@v1", " hub:owner/name@v1 ", "https://huggingface.co/owner/name@v1"])
def test_an_id_on_the_hub_may_be_typed_as_its_address(typed: str) -> None:
    assert read_hub_id(typed) == "owner/name@v1"
    assert read_hub_id(typed.replace(".co/", ".co/datasets/"), "datasets/") == "owner/name@v1"
    assert read_hub_id(None) == ""


@pytest.mark.parametrize("typed", ["/etc/secret.csv", "cf | pairs.TSV", "pairs.jsonl.gz", "x.parquet"])
def test_a_visitor_cannot_name_a_file_of_the_server_as_a_trigger(typed: str) -> None:
    with pytest.raises(BadData, match="name of a file"):
        read_trigger(typed)


@pytest.mark.parametrize("typed", ["cf+", "c++", "mn | +cf"])
def test_a_part_that_is_empty_is_refused_as_on_the_command_line(typed: str) -> None:
    with pytest.raises(BadData, match="An empty trigger"):
        read_trigger(typed)


def test_a_trigger_is_written_as_it_is_read() -> None:
    assert read_trigger(write_trigger(("cf+bb", "a phrase"))) == ("cf+bb", "a phrase")


@pytest.mark.parametrize(("typed", "target"), [("", "positive"), ("  |", "positive"), ("cf", None), ("cf", "")])
def test_a_trigger_to_measure_needs_words_and_a_class(typed: str, target: str | None) -> None:
    with pytest.raises(BadData):
        trigger_of(typed, target)


def test_a_link_opens_the_session_that_its_job_was_started_from() -> None:
    request = Session("me").request(RuntimeConfig(device="cpu"))
    found = of_request(Request.from_dict(request.to_dict()), "you", "job")
    assert found.request(RuntimeConfig(device="cpu")) == request
    assert (found.visitor, found.job) == ("you", "job")


def test_the_page_starts_the_demo_as_the_command_line_does_but_for_how_often_it_looks() -> None:
    asked, plain = Session().request(RuntimeConfig()).to_dict(), Request().to_dict()
    for stage in ("retrain", "distil"):
        for how_often in ("observe_every", "observe_early"):
            assert asked["config"][stage].pop(how_often) != plain["config"][stage].pop(how_often)
    assert asked == plain
