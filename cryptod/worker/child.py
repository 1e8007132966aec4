"""The child's side of the process wall: make oneself small and harmless, take orders, report, end.

Knows the orders' runners by name and imports one only when an order asks for it: the daemon, which imports this file to
name `main`, loads neither torch nor ccxt. A child that has had no order for a while ends, and its memory goes back. It
ends at once when its parent dies, however that died.
"""

from __future__ import annotations

import importlib
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
import psutil

from cryptod import logs
from cryptod.errors import CryptodError, ExchangeError
from cryptod.worker.messages import Failed, Order, Report

RUNNERS: Final = {"collect": "cryptod.ingest.collector", "train": "cryptod.training.engine"}
"""Kind of child -> module whose ``run(order, report)`` carries out its orders."""
STRIPPED: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""What systemd told the daemon is not for its children: a child's word must not pass for the daemon's."""
LENGTH: Final = 4
MAX_MESSAGE: Final = 16 << 20


class Settings(NamedTuple):
    """Plain values for one child. ``memory_mb``: cap on its data (RLIMIT_DATA), 0 for none; ``linger_s``: how long it
    waits for another order before it ends."""

    kind: str
    module: str
    nice: int
    memory_mb: int
    linger_s: float
    log_level: str


def main(wire: socket.socket, settings: Settings) -> None:
    """Entry point of the child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the daemon decides what ends
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name in STRIPPED:
        os.environ.pop(name, None)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _make_small(settings)
    logs.configure(settings.log_level)
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(Order).decode
    wire.settimeout(None)

    def report(message: Report) -> None:
        data = encode(message)
        wire.sendall(len(data).to_bytes(LENGTH, "big") + data)

    while (data := _receive(wire, settings.linger_s)) is not None:
        _carry_out(decode(data), settings.module, report)


def _carry_out(order: Any, module: str, report: Callable[[Report], None]) -> None:
    try:
        importlib.import_module(module).run(order, report)
    except CryptodError as error:
        retry_after = error.retry_after if isinstance(error, ExchangeError) else None
        report(Failed(job=order.job, error=error.message, hint=error.hint, retry_after=retry_after))
    except MemoryError:
        report(Failed(job=order.job, error="out of memory", hint="raise worker.memory_mb, or lower train.batch_size"))
    except BrokenPipeError:
        raise SystemExit(0) from None  # nobody listens any more
    except Exception as error:  # noqa: BLE001 - a child's top: whatever it was, the parent is told and the log has the trace
        logs.get_logger("child").exception("an order ended in a defect", kind=type(order).__name__)
        report(Failed(job=order.job, error=f"{type(error).__name__}: {error}", hint="a defect; the log has the details"))


def _receive(wire: socket.socket, linger_s: float) -> bytes | None:
    """The next order; None when there is none within ``linger_s``, or the parent has hung up."""
    wire.settimeout(linger_s if linger_s > 0 else None)
    try:
        head = wire.recv(LENGTH, socket.MSG_WAITALL)
        wire.settimeout(None)
        data = wire.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL) if len(head) == LENGTH else b""
    except (TimeoutError, ConnectionError):
        return None
    return data or None


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)


def _make_small(settings: Settings) -> None:
    """Lowest priority for processor and disk, a cap on memory, and first in line when the kernel must end somebody."""
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
