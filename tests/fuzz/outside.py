"""A real daemon on its real socket, told the grammar's streams by a reader, crowded and flooded; how large it is before and after.

The reader is another user, where the test run is root's: what it asks to be changed must be refused, or nothing would be as before.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from types import TracebackType
from typing import Any, Final, NamedTuple

import psutil

from tests.fuzz import grammar
from tests.fuzz.inside import Wrong, answers
from tests.integration.house import Daemon, SimulatedExchange, short_folder, wait_for

READER: Final = 65_534
GROWTH: Final = 8 << 20
"""Bytes by which the daemon may have grown: what it keeps anyway (log lines, figures of the hours) and the allocator's slack."""
ASK: Final = grammar.pack([0, 1, "get", ["BTC/USDT"]])
FLOOD: Final = """
import socket, sys, threading
one = socket.socket(fileno=int(sys.argv[1]))
one.settimeout(None)
def read():
    while one.recv(1 << 20): pass
threading.Thread(target=read, daemon=True).start()
data = bytes.fromhex(sys.argv[2]); data *= 1 + 60000 // len(data)
while True: one.sendall(data)
"""


class Size(NamedTuple):
    rss: int
    descriptors: int


@contextmanager
def as_reader() -> Iterator[None]:
    """Who connects in here is the reader to the daemon."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(READER)
    try:
        yield
    finally:
        os.seteuid(0)


class Outside:
    """``with Outside() as daemon: daemon.tell_many(...)``."""

    def __init__(self, coins: int = 5) -> None:
        self.coins = coins
        self.read = 0
        """Bytes of answers."""

    def __enter__(self) -> Outside:
        self._stack = ExitStack()
        with ExitStack() as opening:
            folder = opening.enter_context(short_folder())
            exchange = opening.enter_context(SimulatedExchange("--coins", str(self.coins)))
            settings: dict[str, Any] = {"cryptod_universe_size": self.coins}
            self.daemon = opening.enter_context(Daemon(folder, exchange, **settings))
            self.daemon.wait_for(lambda client: client.cache_stats()["entries"] == self.coins, "the first forecasts", seconds=300)
            self.daemon.wait_for(lambda client: client.status()["training"]["running"] is None, "the end of the training", seconds=300)
            self.process = psutil.Process(self.daemon.process.pid)
            self._stack = opening.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def connect(self, *, blocking: bool = True) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(30.0 if blocking else None)
        with as_reader():
            one.connect(str(self.daemon.socket))
        return one

    def tell(self, data: bytes) -> bytes:
        """What a client is answered that says this and then no more."""
        read = bytearray()
        with self.connect() as one:
            with contextlib.suppress(ConnectionError):  # hung up on: the reason can be read all the same
                one.sendall(data)
                one.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while part := one.recv(1 << 20):
                    read += part
        self.read += len(read)
        return bytes(read)

    def tell_many(self, chance: Random, count: int) -> None:
        """So many streams of the grammar; `Wrong` if an answer is. Not scorecards: each that is not there yet takes a child seconds."""
        for i in range(count):
            data = grammar.largest(chance) if i % 500 == 0 else grammar.stream(chance)
            answers(self.tell(data.replace(b"scores", b"sc0res")), hung_up=False)

    def size(self) -> Size:
        """How large it is once its clients are gone: once it has no more connections on its socket's path than we have."""
        with self.daemon.client() as client:
            client.ping()
            wait_for(lambda: self._connections() == 1, "its clients are gone", seconds=300)
            return Size(self.process.memory_info().rss, self.process.num_fds())

    def _connections(self) -> int:
        """Connected sockets (state 03) of its path: the private one at which it was bound before it was renamed (`listening.bind`)."""
        bound = self.daemon.socket.with_name(f".{self.daemon.socket.name}.{self.process.pid}")
        with open("/proc/net/unix") as table:
            rows = [line.split() for line in table]
        return sum(row[-1] == str(bound) and row[5] == "03" for row in rows)

    @staticmethod
    def compare(before: Size, after: Size) -> None:
        if after.descriptors > before.descriptors or after.rss > before.rss + GROWTH:
            raise Wrong(f"it grows: {before} {after}")

    # ---------------------------------------------------------------------------------------------- crowds

    def delays(self, seconds: float) -> list[float]:
        """Seconds that a client waits which asks, is answered, and asks again a millisecond later."""
        found = []
        with self.connect() as one:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                began = time.perf_counter()
                one.sendall(ASK)
                one.recv(1 << 16)
                found.append(time.perf_counter() - began)
                time.sleep(0.001)
        return sorted(found)

    @contextmanager
    def flood(self, request: bytes) -> Iterator[None]:
        """A process that sends this as fast as it is taken."""
        with self.connect() as one:  # as the reader, whom the interpreter may be out of reach for
            process = subprocess.Popen([sys.executable, "-c", FLOOD, str(one.fileno()), request.hex()], pass_fds=(one.fileno(),))
        try:
            yield
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def crowd(self, count: int, said: bytes, *, drip: bool = False) -> Iterator[list[socket.socket]]:
        """So many clients that have said this and wait."""
        with ExitStack() as stack:
            crowd = [stack.enter_context(self.connect()) for _ in range(count)]
            for one in crowd:
                for piece in [said[i : i + 1] for i in range(len(said))] if drip else [said]:
                    one.sendall(piece)
            yield crowd

    def report(self, seconds: float = 5.0) -> None:
        """What a client waits, alone and beside others that are hostile."""
        quiet = self.delays(seconds)
        self._line("alone", quiet)
        floods = {
            "get": ASK,
            "get_many of all": grammar.pack([0, 1, "get_many", []]),
            "an unknown command": grammar.pack([0, 1, "nonsense", []]),
            "an unknown coin": grammar.pack([0, 1, "get", ["NONSENSE"]]),
            "60,000 elements": b"\xdc\xea\x60" + b"\xc0" * 60_000,
            "status": grammar.pack([0, 1, "status", []]),
        }
        for name, request in floods.items():
            with self.flood(request):
                time.sleep(0.5)
                self._line(f"beside a flood of: {name}", self.delays(seconds))
        with self.crowd(1000, b""):
            self._line("beside 1,000 silent clients", self.delays(seconds))
        with self.crowd(1000, ASK[:7], drip=True):
            self._line("beside 1,000 with half a request", self.delays(seconds))
        with self.crowd(1000, ASK) as crowd:
            for one in crowd:
                answers(one.recv(1 << 16), hung_up=False)
            print("1,000 clients that asked at once were all answered", flush=True)

    @staticmethod
    def _line(what: str, delays: list[float]) -> None:
        p99, worst = delays[int(len(delays) * 0.99)], delays[-1]
        print(f"{what:42} median {statistics.median(delays) * 1e3:6.2f} ms  p99 {p99 * 1e3:6.2f}  worst {worst * 1e3:6.2f}", flush=True)
