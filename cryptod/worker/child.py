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
import signal
import socket
import threading
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any, Final, NamedTuple

import msgspec

from cryptod import logs
from cryptod.errors import CryptodError, ExchangeError, WorkerError, out_of_memory
from cryptod.worker import confinement, memory
from cryptod.worker.messages import Failed, Loaded, Order, Report

RUNNERS: Final = {
    "collect": "cryptod.ingest.collector",
    "train": "cryptod.training.engine",
    "score": "cryptod.scorecard",
    "report": "cryptod.livepage",
    "backup": "cryptod.store.backup",
}
"""Kind of child -> module whose ``run(order, report)`` carries out its orders."""
LENGTH: Final = 4
"""Bytes of the length (big-endian) that stands before each message."""
MAX_MESSAGE: Final = 16 << 20
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
OVER_MEMORY: Final = {
    "collect": "the exchange sends more than markets and candles take: check exchange.id and exchange.url, or raise worker.memory_mb",
    "train": "lower train.batch_size, raise worker.memory_mb, or install the CPU build of torch: it takes 280 MB less than the CUDA build",
    "score": "ask for a shorter time, or raise worker.memory_mb",
    "report": "ask for a shorter time, or raise worker.memory_mb",
    "backup": "raise worker.memory_mb",
}
"""Kind of child -> what to do when it needs more memory than it may have."""


class Settings(NamedTuple):
    """Plain values for one child. ``module``: the runner; ``memory_mb``: cap on its memory, 0 for none.

    ``eager``: import the runner before there is an order, with so many threads (0: one for each core); None to wait for the order.
    """

    kind: str
    module: str
    nice: int
    memory_mb: int
    log_level: str
    eager: int | None = None
    state: str = ""
    """The state directory, in which the child is confined to its part; empty: it is not confined."""


def main(wire: socket.socket, settings: Settings) -> None:
    """Entry point of the child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the daemon decides what ends
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _make_small(settings)
    if settings.state and not confinement.confine(confinement.rights_of(settings.kind, settings.state)):
        logs.get_logger("worker").debug("this kernel does not confine children (Landlock)", kind=settings.kind)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    decode = msgspec.msgpack.Decoder(Order).decode
    wire.setblocking(True)
    program = _Program(wire, settings)
    if settings.memory_mb:
        memory.watch(settings.memory_mb, program.end_over_memory)
    failed = None
    with wire.makefile("rb") as orders, suppress(BrokenPipeError):  # broken: nobody listens any more
        if settings.eager is not None:
            _limit_threads(settings.eager)
            failed = program.attempt(None)
            if failed is not None:
                program.report(failed)
        while data := _receive(orders):
            order = decode(data)
            logs.configure(settings.log_level, fields={"job": order.job} if order.job else None)
            _limit_threads(getattr(order, "threads", 1))
            failed = failed or program.attempt(order)
            if failed is not None:
                program.report(msgspec.structs.replace(failed, job=order.job))


def _receive(orders: io.BufferedReader) -> bytes:
    """The next order; nothing when the parent has hung up."""
    try:
        head = orders.read(LENGTH)
        return orders.read(int.from_bytes(head, "big")) if len(head) == LENGTH else b""
    except ConnectionError:
        return b""


class _Program:
    """What this child runs: a module that is loaded for the first order, and the order that it is at."""

    def __init__(self, wire: socket.socket, settings: Settings) -> None:
        self._wire, self._settings = wire, settings
        self._encode = msgspec.msgpack.Encoder().encode
        self._sending = threading.Lock()
        self._loaded = False
        self._job: int | None = None

    def report(self, message: Report) -> None:
        with self._sending:
            self._send(message)

    def _send(self, message: Report) -> None:
        data = self._encode(message)
        self._wire.sendall(len(data).to_bytes(LENGTH, "big") + data)

    def attempt(self, order: Any | None) -> Failed | None:
        """Load the module, if it is not, and carry out the order, if there is one; how that failed, or nothing."""
        self._job = None if order is None else order.job
        try:
            module = importlib.import_module(self._settings.module)
            if not self._loaded:
                self._loaded = True
                if self._settings.memory_mb:
                    memory.limit_data(self._settings.memory_mb)
                self.report(Loaded())
            if order is not None:
                module.run(order, self.report)
        except CryptodError as error:
            retry_after = error.retry_after if isinstance(error, ExchangeError) else None
            return Failed(job=0, error=error.message, hint=error.hint, retry_after=retry_after, code=error.code)
        except BrokenPipeError:
            raise  # in a report; `main` ends
        except Exception as error:  # noqa: BLE001 - a child's top: whatever it was, the parent is told and the log has the trace
            return self._failed(error)
        self._job = None
        return None

    def _failed(self, error: Exception) -> Failed:
        if out_of_memory(error):
            return self._over_memory()
        what = f"{type(error).__name__}: {error}"
        if not self._loaded:
            hint = "install what is missing" if isinstance(error, ModuleNotFoundError) else "a library is broken: install it anew"
            return Failed(job=0, error=f"the {self._settings.kind} child cannot load its program: {what}", hint=hint, loading=True)
        logs.get_logger("worker").exception("an order ended in a defect", kind=self._settings.kind)
        return Failed(job=0, error=what, hint="a defect; the log has the details", code=CryptodError.code)

    def _over_memory(self) -> Failed:
        kind, cap = self._settings.kind, f"{self._settings.memory_mb} MB"
        if self._loaded:
            text = f"the {kind} child needs more memory than its {cap}"
        else:
            text = f"the {kind} child cannot load its program: that takes more memory than its {cap}"
        return Failed(job=0, error=text, hint=OVER_MEMORY[kind], code=WorkerError.code, loading=not self._loaded)

    def end_over_memory(self) -> None:
        """Called in the thread that watches the memory: say so, unless a report is stuck on its way, and end the process."""
        if self._job is not None and self._sending.acquire(timeout=1.0):
            with suppress(OSError):
                self._send(msgspec.structs.replace(self._over_memory(), job=self._job))
        os._exit(1)


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
    """Lowest priority for processor and disk, no graphics card, and first in line when the kernel must end somebody."""
    import psutil  # here, because the daemon imports this module at its start

    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the CUDA build of torch leaves cards and their driver alone
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, settings.nice)
    with suppress(OSError, psutil.Error):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    for path, text in (("/proc/self/oom_score_adj", "1000"), ("/proc/self/comm", f"cryptod-{settings.kind}")):
        with suppress(OSError), open(path, "w") as file:
            file.write(text)
