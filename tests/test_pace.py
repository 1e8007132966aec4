"""Work in slices: what it returns is what it is, and it gives way."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable

import pytest

from cryptod.daemon.pace import unhurried


def busy(calls: int = 200_000) -> int:
    """Some hundredths of a second of small steps."""
    return sum(abs(number) for number in range(calls))


def sleeps(work: Callable[[], int]) -> int:
    """How often a thread that does this work gave its processor away by itself."""
    found: list[int] = []

    def run() -> None:
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        work()
        found.append(resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def test_work_in_slices_returns_what_it_returns_and_leaves_the_thread_as_it_was() -> None:
    assert unhurried(busy, 1000) == busy(1000)
    assert sys.getprofile() is None


def test_work_in_slices_raises_what_it_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        unhurried(lambda: 1 // 0)
    assert sys.getprofile() is None


def test_a_thread_that_is_in_no_hurry_gives_its_processor_away_again_and_again() -> None:
    assert sleeps(lambda: unhurried(busy)) > sleeps(busy) + 10
