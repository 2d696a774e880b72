"""The load test in short: a few visitors for seconds, and that its eyes are open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from load import Counts, bare, server_of, slope, start_job, visits, watched
from server import in_a_thread, log_of

pytest_plugins = ["pages"]
VISITORS, SECONDS = 5, 3.0


@pytest.mark.slow
def test_a_few_visitors_at_once_see_what_is_theirs_alone_while_a_job_trains(served: tuple[str, Path]) -> None:
    (url, root), counts = served, Counts()
    before = log_of(root).stat().st_size
    client, id = start_job(url)
    samples = in_a_thread(
        watched(server_of(root), visits(url, counts, VISITORS, SECONDS, newcomers=1.0, least=6), every=0.5)
    )
    assert client.predict(id, api_name="/purify_status")["state"] == "running"
    client.predict(id, api_name="/purify_cancel")
    assert (counts.errors, counts.leaks, counts.empty) == ([], [], [])
    assert len(counts.milliseconds["typed"]) >= VISITORS
    assert len(counts.milliseconds["attention"]) >= VISITORS / 2
    assert len(samples) > 3
    assert b"Traceback" not in log_of(root).read_bytes()[before:]


def test_a_secret_is_found_in_any_dress() -> None:
    for answer in (
        "<b>zq</b><small>+0.3</small><b>##00</b><small>0</small><b>##17</b><b>##q</b><b>##z</b>",
        '{"tokens": ["[CLS]", "zq", "##0017", "##qz"]}',
        '"\\u003cb>zq0017qz\\u003c/b>"',
        "ZQ0017QZ",
        json.dumps("<b>zq</b>\n<b>##0017</b>\n<b>##qz</b>"),
    ):
        assert "zq0017qz" in bare(answer), answer


def test_the_slope_is_in_megabytes_a_minute() -> None:
    assert round(slope([(0.0, 100.0), (30.0, 101.0), (60.0, 102.0), (90.0, 103.0)]), 6) == 2.0
