"""What a server remembers: each value made once, and an attempt that failed leaves nothing behind."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mbtsad_core.errors import UnsafeModel
from mbtsad_core.page.site import Kept


def refused() -> str:
    raise UnsafeModel("weights.bin is a pickle")


def test_attempts_that_fail_leave_nothing_behind_and_the_next_may_succeed() -> None:
    kept = Kept(10)
    for key in ("an upload", ("tried", "hub:owner/name"), 7):
        for _ in range(3):
            with pytest.raises(UnsafeModel, match="pickle"):
                kept.get(key, refused)
        assert kept._making == {}
        assert kept.get(key, lambda: "sound") == "sound"
        assert kept.get(key, refused) == "sound"
    assert kept._making == {}


def test_a_value_that_many_want_is_made_once() -> None:
    kept, made, all_ask = Kept(10), list[int](), threading.Barrier(4)

    def make() -> str:
        made.append(1)
        return "model"

    def ask() -> str:
        all_ask.wait(60)
        return kept.get("key", make)

    with ThreadPoolExecutor(4) as pool:
        assert [f.result(60) for f in [pool.submit(ask) for _ in range(4)]] == ["model"] * 4
    assert made == [1]


def test_who_waited_for_an_attempt_that_failed_tries_it_himself() -> None:
    kept, begun, go_on = Kept(10), threading.Event(), threading.Event()

    def fail_late() -> str:
        begun.set()
        go_on.wait(60)
        return refused()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(kept.get, "key", fail_late)
        begun.wait(60)
        second = pool.submit(kept.get, "key", lambda: "sound")
        go_on.set()
        assert isinstance(first.exception(60), UnsafeModel)
        assert second.result(60) == "sound"
    assert kept._making == {}
