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
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from types import TracebackType
from typing import Any, Final, NamedTuple

import psutil

from tests.fuzz import grammar
from tests.fuzz.inside import Wrong, answers
from tests.integration.house import Daemon, SimulatedExchange, short_folder, wait_for

READER: Final = 65_534
USERS: Final = 4
"""Users who tell the grammar's streams, from the reader's id downwards."""
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


CROWD: Final = """
import os, resource, select, socket, sys
path, uid, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
said = [bytes.fromhex(line) for line in sys.stdin.read().split()]
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
if os.getuid() == 0:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
poll = select.epoll()
def join():
    one = socket.socket(socket.AF_UNIX)
    one.connect(path)
    one.setblocking(False)
    poll.register(one, select.EPOLLIN | select.EPOLLOUT)
    lines[one.fileno()] = [one, memoryview(said[len(lines) % len(said)]), 0]
lines = {}
for _ in range(count):
    join()
print("there", flush=True)
while lines:
    for fd, mask in poll.poll(1):
        line = lines[fd]
        try:
            if mask & ~select.EPOLLOUT and not line[0].recv(1 << 20):
                raise ConnectionError
            if mask & select.EPOLLOUT:
                line[2] = (line[2] + line[0].send(line[1][line[2]:])) % len(line[1])
        except BlockingIOError:
            pass
        except OSError:
            poll.unregister(fd)
            del lines[fd]
            line[0].close()
"""
"""Connections of one user that all send what they were given, over and over, as fast as it is taken, and read the answers."""
BARE: Final = """
import os, socket, sys, time
ours, theirs = socket.socketpair()
if os.fork() == 0:
    ours.close()
    while data := theirs.recv(1 << 16): theirs.sendall(data * 50)
    os._exit(0)
theirs.close()
found, end = [], time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    began = time.perf_counter()
    ours.sendall(b"x" * 40)
    ours.recv(1 << 16)
    found.append(time.perf_counter() - began)
    time.sleep(0.001)
print(*sorted(found))
"""
"""The same question put to a bare process that answers bytes with bytes: what the machine itself makes anybody wait for."""
HOSTILE: Final = 60_001
"""The first user id of those who crowd in; the reader whose delays are taken is another."""


class Size(NamedTuple):
    rss: int
    descriptors: int


@contextmanager
def as_user(uid: int = READER) -> Iterator[None]:
    """Who connects in here is this user to the daemon, where the test run is root's."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def _asked(method: str, *parameters: Any) -> bytes:
    return bytes(grammar.pack([0, 1, method, parameters]))


STORMS: Final[dict[str, tuple[list[bytes], int, int]]] = {
    "get_many of 9,000 unknown names": ([_asked("get_many", grammar.names(9000, 3, 1000))], 1000, 1),
    "get_many of 16,300 distinct names": ([_asked("get_many", grammar.names(16_300, 3, 1000))], 1000, 1),
    "the same from four users": ([_asked("get_many", grammar.names(16_300, 3, 1000))], 1000, 4),
    "get of cached coins": ([ASK], 1000, 1),
    "an unknown coin": ([_asked("get", "NONSENSE")], 1000, 1),
    "a name of 65 kB": ([_asked("get", "x" * 65_000)], 1000, 1),
    "export of 16,000 names": ([_asked("export", "forecasts", grammar.names(16_000, 3, 1000))], 1000, 1),
    "export of candles": ([_asked("export", "candles")], 1000, 1),
    "report": ([_asked("report")], 1000, 1),
    "scores of coins that never were": ([_asked("scores", f"{name}/USDT") for name in grammar.names(1000)], 1000, 1),
    "status": ([_asked("status")], 1000, 1),
    "candles": ([_asked("candles", "BTC/USDT", 744)], 1000, 1),
}
"""Name -> what is said, by how many connections, of how many users."""


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

    def connect(self, *, blocking: bool = True, uid: int = READER) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        with as_user(uid):
            one.connect(str(self.daemon.socket))  # blocking: there may be more to be accepted than the kernel keeps
        one.settimeout(30.0 if blocking else None)
        return one

    def tell(self, data: bytes, uid: int = READER) -> bytes:
        """What a client is answered that says this and then no more."""
        read = bytearray()
        with self.connect(uid=uid) as one:
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
            data = grammar.largest(chance) if i % 500 == 0 else grammar.large(chance) if i % 50 == 0 else grammar.stream(chance)
            answers(self.tell(data.replace(b"scores", b"sc0res"), READER - i % USERS), hung_up=False)
            if i % 100 == 0:
                self.tell_together(chance)

    def tell_together(self, chance: Random, count: int = 24) -> None:
        """Streams of several users at once, large requests among them, some of whom go without their answers."""
        with ExitStack() as stack:
            crowd = [stack.enter_context(self.connect(uid=READER - i % USERS)) for i in range(count)]
            for one in crowd:
                data = grammar.large(chance) if chance.randrange(3) else grammar.stream(chance)
                with contextlib.suppress(ConnectionError):
                    one.sendall(data.replace(b"scores", b"sc0res"))
                    one.shutdown(socket.SHUT_WR)
            for one in crowd[count // 3 :]:
                read = bytearray()
                with contextlib.suppress(ConnectionError):
                    while part := one.recv(1 << 20):
                        read += part
                self.read += len(read)
                answers(bytes(read), hung_up=False)

    def size(self) -> Size:
        """How large it is once its clients are gone: once it has no more connections on its socket's path than we have."""
        with self.daemon.client() as client:
            client.ping()
            wait_for(lambda: self.connections() == 1, "its clients are gone", seconds=300)
            return Size(self.process.memory_info().rss, self.process.num_fds())

    def connections(self) -> int:
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
    def storm(self, said: Sequence[bytes], connections: int = 1000, users: int = 1) -> Iterator[None]:
        """So many connections, shared out among users who are nobody else, that send these requests without end."""
        with ExitStack() as stack:
            for user in range(users):
                command = [sys.executable, "-c", CROWD, str(self.daemon.socket), str(HOSTILE + user), str(connections // users)]
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                stack.callback(process.wait)
                stack.callback(process.kill)
                assert process.stdin is not None
                assert process.stdout is not None
                stack.callback(process.stdout.close)
                process.stdin.write("\n".join(data.hex() for data in said))
                process.stdin.close()
                assert process.stdout.readline() == "there\n"
            yield

    @contextmanager
    def highest(self) -> Iterator[list[int]]:
        """The largest resident size meanwhile, in bytes."""
        seen, end = [self.process.memory_info().rss], threading.Event()

        def look() -> None:
            while not end.wait(0.05):
                seen[0] = max(seen[0], self.process.memory_info().rss)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield seen
        finally:
            end.set()
            thread.join()

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

    def storms(self, seconds: float = 10.0) -> None:
        """What another user waits beside a thousand connections that ask for what costs most, and how large the daemon becomes."""
        for name, (said, connections, users) in STORMS.items():
            before = self.process.memory_info().rss
            with self.highest() as highest, self.storm(said, connections, users):
                time.sleep(2.0)
                bare = subprocess.Popen([sys.executable, "-c", BARE, str(seconds)], stdout=subprocess.PIPE, text=True)
                try:
                    self._line(f"{name}", self.delays(seconds))
                except TimeoutError:
                    print(f"{name:42} no answer in 30 s", flush=True)
                self._line("  a bare process meanwhile", list(map(float, bare.communicate()[0].split())))
            print(f"{'':42} {before / 1e6:.0f} MB before, {highest[0] / 1e6:.0f} at most", flush=True)
            wait_for(lambda: self.connections() == 0, "its clients are gone", seconds=300)

    @staticmethod
    def _line(what: str, delays: list[float]) -> None:
        p99, worst = delays[int(len(delays) * 0.99)], delays[-1]
        print(f"{what:42} median {statistics.median(delays) * 1e3:6.2f} ms  p99 {p99 * 1e3:6.2f}  worst {worst * 1e3:6.2f}", flush=True)
