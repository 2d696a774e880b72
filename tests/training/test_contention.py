"""How many threads a run takes, by what the kernel counted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
import torch

from mbtsad_core.training.contention import Reading, Threads, read


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def looks(most: int, *rates: tuple[float, float, float]) -> list[int | None]:
    """What comes of looks after so many seconds, in each of which threads waited for so many cores, and so many had
    nothing to do."""
    seconds, waited, idle = zip((1e-6, 0.0, 0.0), *rates, strict=True)
    began = time.monotonic() - 1e6
    counts = zip(
        itertools.accumulate(seconds, initial=began),
        itertools.accumulate((s * w for s, w in zip(seconds, waited, strict=True)), initial=0.0),
        itertools.accumulate((s * i for s, i in zip(seconds, idle, strict=True)), initial=0.0),
        strict=True,
    )
    readings = [Reading(*count) for count in counts]
    torch.set_num_threads(most)
    threads = Threads(most, iter(readings[1:]).__next__)
    assert threads.look() == (most if most > 1 else None)
    found = [threads.look() for _ in rates]
    assert torch.get_num_threads() == threads.now
    threads.close()
    assert torch.get_num_threads() == most
    return found


ALONE, CROWDED, LEFT = (2.0, 0.02, 0.3), (2.0, 0.9, 0.0), (2.0, 0.0, 1.0)


def test_threads_that_all_find_a_core_stay() -> None:
    assert looks(2, ALONE, ALONE, (2.0, 0.24, 0.0)) == [None] * 3


def test_beside_a_busy_process_one_thread_of_two_is_taken() -> None:
    assert looks(2, ALONE, CROWDED, CROWDED, ALONE) == [None, 1, None, None]


def test_so_many_threads_go_as_found_no_core() -> None:
    assert looks(8, (2.0, 0.3, 0.0), (2.0, 2.5, 0.0), (2.0, 9.0, 0.0)) == [7, 4, 1]


def test_a_core_that_is_left_is_taken_again() -> None:
    assert looks(2, CROWDED, *[LEFT] * 5) == [1, None, None, None, None, 2]  # ten seconds later


def test_of_cores_that_are_left_so_many_are_taken() -> None:
    assert looks(8, (2.0, 5.5, 0.0), (12.0, 0.0, 2.9), (2.0, 0.0, 5.0)) == [2, 4, 8]


def test_what_was_tried_in_vain_is_tried_again_later_and_later() -> None:
    tries = [(2.0, 0.9, 0.0), (10.0, 0.0, 1.0)]
    assert looks(2, *tries, *tries) == [1, 2, 1, None]
    assert looks(2, *tries, (2.0, 0.9, 0.0), (20.0, 0.0, 1.0), (2.0, 0.9, 0.0), (39.0, 0.0, 1.0), (1.0, 0.0, 1.0)) == [
        1,
        2,
        1,
        2,
        1,
        None,
        2,
    ]
    # Once it was not in vain, it is soon tried again
    assert looks(2, *tries, (60.0, 0.0, 0.0), *tries) == [1, 2, None, 1, 2]


def test_one_thread_stays_and_is_not_looked_at() -> None:
    assert looks(1, CROWDED, LEFT) == [None, None]


def test_a_system_without_these_counts_keeps_its_threads() -> None:
    threads = Threads(2, lambda: None)
    assert [threads.look(), threads.look()] == [None, None]


def test_the_kernel_counts_go_up() -> None:
    first = read()
    if first is None:
        pytest.skip("the system has no /proc/self/task/*/schedstat")
    second = read()
    assert second is not None
    assert second.at > first.at
    assert second.waited >= first.waited >= 0
    assert second.idle >= first.idle > 0
