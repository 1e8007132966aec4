"""Work beside which others are to be answered: in slices, with a pause after each.

Knows threads and the clock's seconds, nothing of the work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

SLICE_S: Final = 0.0003
PAUSE_S: Final = 0.00005
"""The kernel makes some 0.1 ms of it."""


def unhurried(work: Callable[..., T], *arguments: Any) -> T:
    """What ``work`` returns; this thread sleeps for a moment at the first call or return of a function after each `SLICE_S`.

    The thread that answers, or its client, is woken on the processor that it last ran on. Where this thread computes there, both wait
    for the scheduler's next tick, up to 4 ms, though another processor has become free: the kernel does not look for so short a sleep's
    sake. A thread that sleeps is overtaken. What it costs, a third more time at 100 coins, nobody waits for.
    """
    clock, sleep, before = time.perf_counter, time.sleep, sys.getprofile()
    end = clock() + SLICE_S

    def look(*_: object) -> None:
        nonlocal end
        if clock() > end:
            sleep(PAUSE_S)
            end = clock() + SLICE_S

    sys.setprofile(look)
    try:
        return work(*arguments)
    finally:
        sys.setprofile(before)
