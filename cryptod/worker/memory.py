"""The cap on a child's memory: what the child holds, measured as the kernel counts it.

Knows /proc and resource limits; nothing of orders. A limit on the data segment alone says little: importing the CUDA build of
torch takes 500 MB of it, most of which is never touched. So a thread looks at what is really held, and RLIMIT_DATA stands
behind it for what is taken between two looks.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from typing import Final

LOOK_S: Final = 0.1
"""Seconds between two looks. A look takes 0.05 ms, and some milliseconds once the resident set is above the cap."""
MB: Final = 1 << 20


def held() -> int:
    """Bytes that this process holds: its proportional set size (a shared page counts in parts), and what of it is swapped out."""
    return sum(_fields("/proc/self/smaps_rollup", "Pss:", "SwapPss:"))


def limit_data(megabytes: int) -> None:
    """Let the data segment grow by so much from now on, and no further."""
    (now,) = _fields("/proc/self/status", "VmData:")
    cap = now + megabytes * MB
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (cap if hard == resource.RLIM_INFINITY else min(cap, hard), hard))


def watch(megabytes: int, over: Callable[[], None]) -> None:
    """Call ``over``, in a thread of its own and once, when this process holds more than so many megabytes."""
    threading.Thread(target=_watch, args=(megabytes * MB, over), name="memory", daemon=True).start()


def _watch(cap: int, over: Callable[[], None]) -> None:
    # The resident set is quick to read and never smaller than the share of it that counts.
    while sum(_fields("/proc/self/status", "VmRSS:", "VmSwap:")) <= cap or held() <= cap:
        time.sleep(LOOK_S)
    over()


def _fields(path: str, *names: str) -> list[int]:
    """Bytes that these lines of a file in /proc name; its figures are in kB."""
    with open(path) as file:
        rows = [line.split() for line in file]
    return [int(row[1]) * 1024 for row in rows if row and row[0] in names]
