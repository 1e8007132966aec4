"""How fast a cached forecast is served, beside what the machine can do at all. Run it by hand, or with `make bench`.

    python tests/bench/bench_serving.py [--seconds 2] [--clients 16] [--socket PATH --symbol BTC/USDT]

In one run, taking turns so that a busy moment of the machine meets all of them alike:

* floor: two bare Python processes that send the same bytes to and fro over a Unix socket; nothing is parsed;
* asyncio: the same with a protocol of asyncio that does nothing else: the daemon has one loop, and this is what it costs;
* raw: a request to the control socket and the bytes of its reply, undecoded;
* client: `Client.get`, decoded to a `Forecast`;
* redis: redis-py with hiredis, GET of the same bytes and their decoding with msgpack (if redis-server and both are there);
* the rate with several client processes, of the control socket and of a bare epoll server with the same bytes.

Without ``--socket`` a control server with one ready forecast runs in a process of its own; with it, a whole daemon is asked.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack

from cryptod.client import Client
from cryptod.daemon.control import ControlServer, Ready
from cryptod.market import QUANTILE_LEVELS

Measured = dict[str, list[float]]
WARM_UP = 500
ROUND = 500
"""Requests of one kind before it is the next one's turn."""


def forecast_bytes(symbol: str = "BTC/USDT") -> bytes:
    """A forecast as it is on the wire: single floats, about 2.6 kB."""
    horizons = range(1, 25)
    pack = msgpack.Packer(use_single_float=True).pack
    quantiles = [[(level - 0.5) * horizon / 100 for level in QUANTILE_LEVELS] for horizon in horizons]
    fields = {
        "symbol": symbol, "cutoff": 1_700_000_000_000, "issued": 1_700_000_005_000, "expires": 1_700_003_600_000,
        "model": "full-20231112T0200-1", "close": 37123.45, "horizons": list(horizons), "levels": list(QUANTILE_LEVELS),
        "quantiles": quantiles, "prices": [[37123.45 * (1 + q) for q in row] for row in quantiles], "p_up": [0.5] * 24,
        "volatility": [0.01] * 24, "expected_return": [0.001] * 24, "score": 0.25, "flags": [], "age": 12.5, "stale": False, "reason": None,
    }  # fmt: skip
    data: bytes = pack(fields)
    return data


# -------------------------------------------------------------------------------------------------- servers, a process each


def serve_control(path: str) -> None:
    """The control server with one ready forecast, put together at each request as the daemon does it."""
    body = forecast_bytes()
    head, tail = body[:-20], body[-20:]

    async def run() -> None:
        server = ControlServer({"get": lambda request, peer: Ready(head, tail)}, allowed=lambda peer: False)
        await server.start(path)
        await asyncio.Event().wait()

    asyncio.run(run())


def serve_ping_pong(path: str, reply: bytes) -> None:
    """One client, blocking: what came is answered with the reply."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        connection, _ = listener.accept()
        while connection.recv(65536):
            connection.sendall(reply)


def serve_asyncio(path: str, reply: bytes) -> None:
    """As little as an asyncio server can do."""
    buffer = bytearray(65536)

    class Bare(asyncio.BufferedProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def get_buffer(self, sizehint: int) -> bytearray:
            return buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.transport.write(reply)

    async def run() -> None:
        await asyncio.get_running_loop().create_unix_server(Bare, path)
        await asyncio.Event().wait()

    asyncio.run(run())


def serve_epoll(path: str, reply: bytes) -> None:
    """As little as a server for many clients can do: wait, receive, send."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connection.setblocking(False)
                connections[connection.fileno()] = connection
                poll.register(connection.fileno(), select.EPOLLIN)
            elif connections[fd].recv(65536):
                connections[fd].send(reply)
            else:
                poll.unregister(fd)
                connections.pop(fd).close()


@contextlib.contextmanager
def process(target: Callable[..., None], path: str, *arguments: Any) -> Iterator[str]:
    """A server in a process of its own, answering; killed at the end."""
    one = multiprocessing.get_context("spawn").Process(target=target, args=(path, *arguments), daemon=True)
    one.start()
    try:
        wait_for(path)
        yield path
    finally:
        one.kill()
        one.join()


def wait_for(path: str) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                return
        time.sleep(0.01)
    raise SystemExit(f"nothing answers on {path}")


@contextlib.contextmanager
def redis_client(folder: Path, value: bytes) -> Iterator[Any]:
    """A redis-py client with hiredis of a redis-server of our own, or None where they are not installed."""
    server = shutil.which("redis-server")
    try:
        import hiredis  # noqa: F401 - redis-py uses it where it is
        import redis
    except ImportError:
        server = None
    if server is None:
        yield None
        return
    path = str(folder / "redis.sock")
    one = subprocess.Popen([server, "--port", "0", "--unixsocket", path, "--save", "", "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        wait_for(path)
        client = redis.Redis(unix_socket_path=path)
        client.set("BTC/USDT", value)
        yield client
        client.close()
    finally:
        one.terminate()
        one.wait()


# -------------------------------------------------------------------------------------------------- clients


def connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def exchange(connection: socket.socket, request: bytes, size: int) -> None:
    """Send the request, receive so many bytes."""
    connection.sendall(request)
    while size > 0:
        size -= len(connection.recv(65536))


def request_and_size(path: str, symbol: str) -> tuple[bytes, int]:
    """The request for this coin, and the bytes of its reply."""
    request = msgpack.packb([0, 1, "get", [symbol]])
    with connected(path) as connection:
        connection.sendall(request)
        size = 0
        messages = msgpack.Unpacker()
        while True:
            data = connection.recv(65536)
            size += len(data)
            messages.feed(data)
            for message in messages:
                if message[2] is not None:
                    raise SystemExit(f"{symbol}: {message[2]}")
                return request, size


def take_turns(kinds: dict[str, Callable[[], object]], seconds: float) -> Measured:
    """Microseconds of each call of each kind, in rounds."""
    found: Measured = {name: [] for name in kinds}
    for call in kinds.values():
        for _ in range(WARM_UP):
            call()
    end = time.perf_counter() + seconds * len(kinds)
    clock = time.perf_counter
    while clock() < end:
        for name, call in kinds.items():
            row = found[name]
            for _ in range(ROUND):
                begin = clock()
                call()
                row.append((clock() - begin) * 1e6)
    return found


def hammer(path: str, request: bytes, size: int, seconds: float, start: Any, counts: Any) -> None:
    """One of many client processes: as many requests as go in this time."""
    connection = connected(path)
    exchange(connection, request, size)
    start.wait()
    end = time.perf_counter() + seconds
    count = 0
    while time.perf_counter() < end:
        for _ in range(20):
            exchange(connection, request, size)
        count += 20
    counts.put(count)


def rate(path: str, request: bytes, size: int, clients: int, seconds: float) -> float:
    """Requests a second that so many client processes get answered together."""
    context = multiprocessing.get_context("fork")
    start, counts = context.Barrier(clients), context.Queue()
    crowd = [context.Process(target=hammer, args=(path, request, size, seconds, start, counts), daemon=True) for _ in range(clients)]
    for one in crowd:
        one.start()
    total: int = sum(counts.get() for _ in crowd)
    for one in crowd:
        one.join()
    return total / seconds


# -------------------------------------------------------------------------------------------------- figures


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def figure(
    value: float, unit: str, target: float | None, better: str, peer: float | None = None, ratio: float | None = None
) -> dict[str, Any]:
    """One entry of the last line. ``target`` is for the ratio where there is one, else for the value."""
    entry: dict[str, Any] = {"value": round(value, 2), "unit": unit, "target": target, "better": better}
    if peer is not None and ratio is not None:
        entry.update(peer=round(peer, 2), ratio=round(ratio, 3))
    judged = value if ratio is None else ratio
    entry["met"] = None if target is None else judged <= target if better == "lower" else judged >= target
    return entry


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each kind of call, and for each rate")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--socket", default="", help="of a running daemon, which is asked instead of a server of our own")
    parser.add_argument("--symbol", default="BTC/USDT")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        path = options.socket or stack.enter_context(process(serve_control, str(folder / "c.sock")))
        request, size = request_and_size(path, options.symbol)
        reply = bytes(size)
        floor_path = stack.enter_context(process(serve_ping_pong, str(folder / "floor.sock"), reply))
        # The probe of `wait_for` was the first client of the ping-pong server; it has hung up, and ours comes next.
        client = stack.enter_context(Client(path))
        raw, floor = stack.enter_context(connected(path)), stack.enter_context(connected(floor_path))
        loop = stack.enter_context(connected(stack.enter_context(process(serve_asyncio, str(folder / "loop.sock"), reply))))
        redis = stack.enter_context(redis_client(folder, forecast_bytes()))
        kinds: dict[str, Callable[[], object]] = {
            "floor": lambda: exchange(floor, request, size),
            "asyncio": lambda: exchange(loop, request, size),
            "raw": lambda: exchange(raw, request, size),
            "client": lambda: client.get(options.symbol),
        }
        if redis is not None:
            kinds["redis"] = lambda: msgpack.unpackb(redis.get("BTC/USDT"))
        found = take_turns(kinds, options.seconds)
        epoll_path = stack.enter_context(process(serve_epoll, str(folder / "epoll.sock"), reply))
        rates = [[rate(one, request, size, options.clients, options.seconds / 2) for one in (path, epoll_path)] for _ in range(3)]
        ours, bare = (statistics.median(column) for column in zip(*rates, strict=True))
    report(found, ours, bare, options.clients, size)


def report(found: Measured, ours: float, bare: float, clients: int, size: int) -> None:
    print(f"a reply of {size} bytes over a Unix socket, {os.cpu_count()} cores, Python {sys.version.split()[0]}\n")
    print(f"{'one client, microseconds':<36}{'p50':>9}{'p99':>9}{'p99.9':>9}{'calls':>9}")
    titles = {
        "floor": "floor: ping-pong of bare processes",
        "asyncio": "a bare asyncio protocol",
        "raw": "control socket, raw reply",
        "client": "Client.get, decoded",
        "redis": "redis-py + hiredis GET, decoded",
    }
    for name, values in found.items():
        row = "".join(f"{percentile(values, share):>9.1f}" for share in (0.5, 0.99, 0.999))
        print(f"{titles[name]:<36}{row}{len(values):>9}")
    print(f"\n{f'{clients} client processes':<36}{'requests/s':>12}")
    print(f"{'control socket':<36}{ours:>12,.0f}\n{'bare epoll server':<36}{bare:>12,.0f}\n")
    p50 = {name: percentile(values, 0.5) for name, values in found.items()}
    figures = {
        "get_raw_p50": figure(p50["raw"], "us", 1.25, "lower", p50["floor"], p50["raw"] / p50["floor"]),
        "get_raw_p50_of_asyncio": figure(p50["raw"], "us", None, "lower", p50["asyncio"], p50["raw"] / p50["asyncio"]),
        "get_raw_p99": figure(percentile(found["raw"], 0.99), "us", 1000, "lower"),
        "get_client_p50": figure(p50["client"], "us", None, "lower"),
        "get_client_p99": figure(percentile(found["client"], 0.99), "us", 1000, "lower"),
        f"get_rate_{clients}_clients": figure(ours, "1/s", 0.65, "higher", bare, ours / bare),
    }
    if "redis" in p50:
        figures["get_client_p50"] = figure(p50["client"], "us", 1.0, "lower", p50["redis"], p50["client"] / p50["redis"])
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
