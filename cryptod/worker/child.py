"""The child's side of the process wall: make oneself small and harmless, take orders, report, end.

Knows the orders' runners by name and imports one only when an order asks for it: the daemon, which imports this file to
name `main`, loads neither torch nor ccxt. There is no heartbeat but the runner's own reports of progress: a thread that
beats while the work hangs would lie. The child ends when its parent hangs up, and at once when its parent dies, however
that died.
"""

from __future__ import annotations

import importlib
import io
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any, Final, NamedTuple

import msgspec

from cryptod import logs
from cryptod.errors import CryptodError, ExchangeError
from cryptod.worker.messages import Failed, Order, Report

RUNNERS: Final = {
    "collect": "cryptod.ingest.collector",
    "train": "cryptod.training.engine",
    "score": "cryptod.scorecard",
    "report": "cryptod.livepage",
}
"""Kind of child -> module whose ``run(order, report)`` carries out its orders."""
LENGTH: Final = 4
"""Bytes of the length (big-endian) that stands before each message."""
MAX_MESSAGE: Final = 16 << 20
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_NO_MEMORY: Final = ("can't allocate memory", "can't start new thread", "std::bad_alloc", "Cannot allocate memory")
"""How torch, Python's threads, C++ and the C library say that the cap was reached."""


class Settings(NamedTuple):
    """Plain values for one child. ``module``: the runner; ``memory_mb``: cap on its data (RLIMIT_DATA), 0 for none.

    ``eager``: import the runner before there is an order, with so many threads (0: one for each core); None to wait for the order.
    """

    kind: str
    module: str
    nice: int
    memory_mb: int
    log_level: str
    eager: int | None = None


def main(wire: socket.socket, settings: Settings) -> None:
    """Entry point of the child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the daemon decides what ends
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _make_small(settings)
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(Order).decode
    wire.setblocking(True)
    if settings.eager is not None:
        _limit_threads(settings.eager)
        importlib.import_module(settings.module)

    def report(message: Report) -> None:
        data = encode(message)
        wire.sendall(len(data).to_bytes(LENGTH, "big") + data)

    with wire.makefile("rb") as orders, suppress(BrokenPipeError):  # broken: nobody listens any more
        while data := _receive(orders):
            order = decode(data)
            logs.configure(settings.log_level, fields={"job": order.job} if order.job else None)
            _limit_threads(getattr(order, "threads", 1))
            _carry_out(order, settings, report)


def _receive(orders: io.BufferedReader) -> bytes:
    """The next order; nothing when the parent has hung up."""
    try:
        head = orders.read(LENGTH)
        return orders.read(int.from_bytes(head, "big")) if len(head) == LENGTH else b""
    except ConnectionError:
        return b""


def _carry_out(order: Any, settings: Settings, report: Callable[[Report], None]) -> None:
    try:
        importlib.import_module(settings.module).run(order, report)
    except CryptodError as error:
        retry_after = error.retry_after if isinstance(error, ExchangeError) else None
        report(Failed(job=order.job, error=error.message, hint=error.hint, retry_after=retry_after, code=error.code))
    except BrokenPipeError:
        raise  # in a report; `main` ends
    except Exception as error:  # noqa: BLE001 - a child's top: whatever it was, the parent is told and the log has the trace
        if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
            text = f"the {settings.kind} child needs more memory than its {settings.memory_mb} MB"
            report(Failed(job=order.job, error=text, hint="raise worker.memory_mb, or lower train.batch_size"))
        else:
            logs.get_logger("worker").exception("an order ended in a defect", kind=settings.kind)
            report(Failed(job=order.job, error=f"{type(error).__name__}: {error}", hint="a defect; the log has the details"))


def _end_with_parent() -> None:
    """PR_SET_PDEATHSIG would not do: the process that forked this one is the forkserver, not the daemon."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)


def _limit_threads(threads: int) -> None:
    """Read by numpy's and torch's libraries when they are imported, which is later; 0 is one for each core."""
    for name in _THREADS:
        os.environ[name] = str(threads or os.cpu_count() or 1)


def _make_small(settings: Settings) -> None:
    """Lowest priority for processor and disk, a cap on memory, and first in line when the kernel must end somebody."""
    import psutil  # here, because the daemon imports this module at its start

    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, settings.nice)
    with suppress(OSError, psutil.Error):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    for path, text in (("/proc/self/oom_score_adj", "1000"), ("/proc/self/comm", f"cryptod-{settings.kind}")):
        with suppress(OSError), open(path, "w") as file:
            file.write(text)
    if settings.memory_mb:
        cap = settings.memory_mb << 20
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (cap if hard == resource.RLIM_INFINITY else min(cap, hard), hard))
