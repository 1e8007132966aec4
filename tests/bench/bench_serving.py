"""How fast the daemon answers, beside what the machine can do at all: idle, while it trains, while it refreshes, from its start on.

    python -m tests.bench.bench_serving [--coins 100] [--seconds 3] [--clients 16]

A whole house runs: a simulated exchange, `cryptod run`, models trained on six months of candles. What is compared is measured in
turns, so that a busy moment of the machine meets all of it alike:

* floor: two bare Python processes that send the same bytes to and fro over a Unix socket; nothing is parsed;
* epoll: the same from a bare server that waits for many clients, as any server does that has more than one;
* raw: a request to the control socket and the bytes of its reply, undecoded;
* client: `Client.get`, decoded to a `Forecast`;
* redis: redis-py with hiredis, GET of the same bytes and their decoding with msgpack;
* the same while all forecasts are made anew ten times a second, with and without bots that follow each of them;
* the rate with several client processes, of the control socket and of a bare epoll server with the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import psutil

from cryptod.client import Client
from tests.bench import peers
from tests.bench.figures import Figure, beside, house, percentile, ratio_of, report, take_turns
from tests.integration.house import BIN, Daemon

COIN = "BTC/USDT"
GET = msgpack.packb([0, 1, "get", [COIN]])
HEAD = 8
"""Bytes of a response before its result."""
MISS_BYTES = 3_000
"""What a miss writes to the ledger, about."""
REFRESH_SPEED = 720.0
"""A simulated hour lasts five seconds."""


def connected(path: str | Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


def exchange(connection: socket.socket, request: bytes, size: int) -> None:
    """Send the request, receive so many bytes."""
    connection.sendall(request)
    while size > 0:
        size -= len(connection.recv(65536))


def reply_to(path: str | Path, request: bytes) -> bytes:
    """The bytes of the reply."""
    with connected(path) as connection:
        connection.sendall(request)
        data, messages = b"", msgpack.Unpacker()
        while True:
            part = connection.recv(65536)
            data += part
            messages.feed(part)
            for message in messages:
                if message[2] is not None:
                    raise SystemExit(f"{request!r}: {message[2]}")
                return data


# -------------------------------------------------------------------------------------------------- one client, idle


def places() -> dict[str, tuple[set[int], set[int]]]:
    """Where the servers are and where their client is: on one processor, and on two if there are two.

    Linux keeps two processes that talk to each other where they happen to be, and that decides more than what they do: waking another
    processor takes longer than the whole exchange on one. Left alone, one peer has the luck and the other not.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    return {"one_core": ({first}, {first})} | ({"two_cores": ({first}, {others[0]})} if others else {})


@contextlib.contextmanager
def placed(servers: set[int], clients: set[int]) -> Iterator[None]:
    """All children of this process, with their threads, on some processors, and this process on others."""
    before = os.sched_getaffinity(0)
    tasks = [task.id for child in psutil.Process().children(recursive=True) for task in child.threads()]
    try:
        for task in tasks:
            os.sched_setaffinity(task, servers)
        os.sched_setaffinity(0, clients)
        yield
    finally:
        os.sched_setaffinity(0, before)
        for task in tasks:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(task, before)


def one_client(daemon: Daemon, folder: Path, seconds: float) -> Iterator[Figure]:
    reply = reply_to(daemon.socket, GET)
    size = len(reply)
    with contextlib.ExitStack() as stack:
        floor, epoll = (
            stack.enter_context(connected(stack.enter_context(peers.serving(one, folder, reply)))) for one in (peers.ping_pong, peers.epoll)
        )
        redis = stack.enter_context(peers.redis(folder))
        client, raw = stack.enter_context(daemon.client()), stack.enter_context(connected(daemon.socket))
        calls: dict[str, Callable[[], object]] = {
            "floor": lambda: exchange(floor, GET, size),
            "epoll": lambda: exchange(epoll, GET, size),
            "raw": lambda: exchange(raw, GET, size),
            "client": lambda: client.get(COIN),
        }
        if redis is None:
            print("no figures of Redis: install redis-tools (Debian), redis and hiredis (`make bench-serving` does)")
        else:
            redis.set(COIN, reply[HEAD:])
            calls["redis"] = lambda: msgpack.unpackb(redis.get(COIN))
        print(f"a reply of {size} bytes; one client, microseconds")
        for place, (servers, clients) in places().items():
            with placed(servers, clients):
                found = take_turns(calls, seconds)
            p50 = {name: percentile(values, 0.5) for name, values in found.items()}
            print(f"\n{place.replace('_', ' '):<16}{'p50':>9}{'p99':>9}{'p99.9':>9}{'calls':>9}")
            for name, values in found.items():
                print(f"  {name:<14}{''.join(f'{percentile(values, share):>9.1f}' for share in (0.5, 0.99, 0.999))}{len(values):>9}")
            for peer, target in (("floor", 1.25), ("epoll", None)):
                ratio = ratio_of(found, "raw", peer)
                yield Figure(f"get_raw_p50_{place}_beside_{peer}", p50["raw"], "us", target, "lower", p50[peer], ratio)
            if redis is not None:
                ratio = ratio_of(found, "client", "redis")
                yield Figure(f"get_client_p50_{place}", p50["client"], "us", 1.0, "lower", p50["redis"], ratio)
            yield Figure(f"get_client_p99_{place}", percentile(found["client"], 0.99) / 1000, "ms", 1.0, "lower")
        everything = msgpack.packb([0, 1, "get_many", [None]])
        many = len(reply_to(daemon.socket, everything))
        slow = take_turns(
            {
                "top": lambda: client.top(20),
                "get_many": lambda: exchange(raw, everything, many),
                "get_many_client": lambda: client.get_many(),
            },
            seconds / 3, 20,
        )  # fmt: skip
        yield Figure("top_20_p50", percentile(slow["top"], 0.5) / 1000, "ms", 1.0, "lower")
        yield Figure("get_many_p50", percentile(slow["get_many"], 0.5) / 1000, "ms", 1.0, "lower")
        yield Figure("get_many_decoded_p50", percentile(slow["get_many_client"], 0.5) / 1000, "ms", None, "lower")
        yield from misses(client, daemon.state, 100)


def misses(client: Client, folder: Path, count: int) -> Iterator[Figure]:
    """A coin whose forecast was dropped: computed, written to the ledger, synced, sent; in turns with a bare commit beside it."""
    times, commits = [], []
    with lmdb.open(str(folder / "bare"), map_size=64 << 20) as bare:
        for number in range(count):
            client.cache_clear([COIN])
            begin = time.perf_counter()
            client.get(COIN)
            times.append((time.perf_counter() - begin) * 1000)
            begin = time.perf_counter()
            with bare.begin(write=True) as txn:
                txn.put(number.to_bytes(8, "big"), bytes(MISS_BYTES))
            commits.append((time.perf_counter() - begin) * 1000)
    yield Figure("miss_p50", percentile(times, 0.5), "ms", 5.0, "lower")
    yield Figure("miss_p99", percentile(times, 0.99), "ms", None, "lower")
    yield beside("miss_p50_beside_a_commit", percentile(times, 0.5), "ms", None, "lower", percentile(commits, 0.5))


# -------------------------------------------------------------------------------------------------- many clients


def hammer(path: str, size: int, seconds: float, start: Any, counts: Any) -> None:
    """One of many client processes: as many requests as go in this time."""
    with connected(path) as connection:
        exchange(connection, GET, size)
        start.wait()
        end = time.perf_counter() + seconds
        count = 0
        while time.perf_counter() < end:
            for _ in range(20):
                exchange(connection, GET, size)
            count += 20
    counts.put(count)


def rate(path: str, size: int, clients: int, seconds: float) -> float:
    """Requests a second that so many client processes get answered together."""
    context = multiprocessing.get_context("fork")
    start, counts = context.Barrier(clients), context.Queue()
    crowd = [context.Process(target=hammer, args=(path, size, seconds, start, counts), daemon=True) for _ in range(clients)]
    for one in crowd:
        one.start()
    total: int = sum(counts.get() for _ in crowd)
    for one in crowd:
        one.join()
    return total / seconds


def many_clients(daemon: Daemon, folder: Path, clients: int, seconds: float) -> Iterator[Figure]:
    reply = reply_to(daemon.socket, GET)
    with peers.serving(peers.epoll, folder, reply) as bare:
        rates = [[rate(path, len(reply), clients, seconds / 4) for path in (str(daemon.socket), bare)] for _ in range(5)]
    ours, least = (statistics.median(column) for column in zip(*rates, strict=True))
    ratio = statistics.median(row[0] / row[1] for row in rates)
    yield Figure(f"get_rate_{clients}_clients", ours, "1/s", 0.65, "higher", least, ratio)


# -------------------------------------------------------------------------------------------------- beside other work


def gets(client: Client, until: Callable[[], bool]) -> list[tuple[float, float]]:
    """(when it was asked, seconds until it was answered) of one get after the other; ``until`` is asked every quarter of a second."""
    found: list[tuple[float, float]] = []
    look = time.monotonic() + 0.25
    while True:
        begin = time.monotonic()
        client.get(COIN)
        found.append((begin, time.monotonic() - begin))
        if begin > look:
            if until():
                return found
            look = time.monotonic() + 0.25


def while_it_trains(daemon: Daemon) -> Iterator[Figure]:
    with daemon.client() as client, daemon.client() as other:
        number = other.train("full")["id"]
        found = gets(client, lambda: other.jobs(1)[0]["state"] not in ("queued", "running"))
        (job,) = (row for row in other.jobs(1) if row["id"] == number)
    times = [took * 1000 for _, took in found]
    print(f"\na full retrain: {job['state']} in {found[-1][0] - found[0][0]:.1f} s, {len(times):,} gets meanwhile")
    yield Figure("get_client_p50_training", percentile(times, 0.5), "ms", None, "lower")
    yield Figure("get_client_p99_training", percentile(times, 0.99), "ms", 2.0, "lower")


def while_it_refreshes(daemon: Daemon, refreshes: int) -> Iterator[Figure]:
    """The hour's refresh, with the collecting before it: the longest that a get takes meanwhile, which is one in hundreds."""
    published: list[tuple[float, float]] = []

    def watch() -> None:
        with daemon.client() as other:
            other.subscribe(["forecasts"])
            while len(published) < refreshes:
                if other.next_event(30.0) is None:
                    raise SystemExit("no forecasts were published for 30 s")
                end = time.monotonic()
                published.append((end, float(other.cache_stats()["refresh_seconds"])))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    with daemon.client() as client:
        found = gets(client, lambda: not watching.is_alive())
    worst, quiet, seconds, inside = [], [], [], []
    for end, took in published[1:]:  # the first one catches up with the time since the last daemon
        ends = (end, end + 2 * took)
        meanwhile, later = ([wait * 1000 for begin, wait in found if begin < at and begin + wait > at - took] for at in ends)
        if meanwhile and later:
            worst.append(max(meanwhile))
            quiet.append(max(later))
            seconds.append(took)
            inside += meanwhile
    for what, each in (("in each", worst), ("in as long a time soon after each", quiet)):
        print(f"{len(each)} hourly refreshes, the longest get {what}: {', '.join(f'{wait:.2f}' for wait in each)} ms")
    yield Figure("refresh_get_p99", percentile(inside, 0.99), "ms", 1.0, "lower")
    longest, usual = statistics.median(worst), statistics.median(quiet)
    yield Figure("refresh_longest_get", longest, "ms", None, "lower", usual, longest / usual)
    yield Figure("refresh_holds_up", longest - usual, "ms", 1.0, "lower")
    yield Figure("refresh_seconds", statistics.median(seconds), "s", 0.3, "lower")


def follow(path: str, start: Any, stop: Any, counts: Any) -> None:
    """A bot: every new forecast of every coin, until ``stop``; how many there were, and how many were dropped."""
    heard = dropped = 0
    with Client(path) as client:
        client.subscribe(["coins"])
        start.wait()
        while not stop.is_set():
            event = client.next_event(0.2)
            if event is not None:
                heard, dropped = (heard + 1, dropped) if event.topic == "coins" else (heard, dropped + int(event.payload["count"]))
    counts.put((heard, dropped))


def while_bots_follow(daemon: Daemon, bots: int, seconds: float) -> Iterator[Figure]:
    """All forecasts made anew ten times a second, with and without bots that are sent each of them, in turns of half a second's work."""
    context = multiprocessing.get_context("fork")
    found: dict[str, list[float]] = {"nobody": [], "bots": []}
    lasted: list[float] = []
    heard = lost = 0
    spent = 0.0
    for turn in range(4):
        who = ("nobody", "bots")[turn % 2]
        start, stop, counts = context.Barrier((bots if who == "bots" else 0) + 1), context.Event(), context.Queue()
        arguments = str(daemon.socket), start, stop, counts
        crowd = [context.Process(target=follow, args=arguments, daemon=True) for _ in range(start.parties - 1)]
        for one in crowd:
            one.start()
        start.wait()
        began = time.monotonic()

        def work(began: float = began, end: float = began + seconds) -> None:
            with daemon.client() as other:
                for number in range(int((end - began) / 0.1)):
                    other.cache_pregenerate()
                    time.sleep(max(0.0, began + 0.1 * (number + 1) - time.monotonic()))
            lasted.append(time.monotonic() - began)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        with daemon.client() as client:
            found[who] += [took * 1000 for _, took in gets(client, lambda: not worker.is_alive())]  # noqa: B023 - asked in this turn only
        stop.set()
        for one in crowd:
            events, dropped = counts.get()
            heard, lost = heard + events, lost + dropped
            one.join()
        spent += lasted[-1] if crowd else 0.0
    p50, p99 = ({who: percentile(times, share) for who, times in found.items()} for share in (0.5, 0.99))
    print(f"\n{bots} bots: {heard / bots / spent:,.0f} forecasts a second to each of them, {lost} dropped")
    print(f"a get meanwhile: p50 {p50['bots']:.3f} ms (without bots {p50['nobody']:.3f}), p99 {p99['bots']:.3f} ms ({p99['nobody']:.3f})")
    yield Figure("events_to_each_bot", heard / bots / spent, "1/s", None, "higher")
    yield Figure("get_client_p50_events", p50["bots"], "ms", None, "lower", p50["nobody"], p50["bots"] / p50["nobody"])
    yield Figure("get_client_p99_events", p99["bots"], "ms", 2.0, "lower", p99["nobody"], p99["bots"] / p99["nobody"])


# -------------------------------------------------------------------------------------------------- from the start on


def from_the_start(daemon: Daemon, count: int) -> Iterator[Figure]:
    """``daemon`` is stopped and started ``count`` times on its store; the cache lacks one coin each time."""
    rows = []
    for _ in range(count):
        with daemon.client() as client:
            client.cache_clear([COIN])
        daemon.stop()
        daemon.start().ready()
        ready = daemon.notify.times("READY=1")[0] - daemon.began
        with daemon.client() as client:
            begin = time.monotonic()
            client.get("ETH/USDT")
            first = time.monotonic() - begin
            client.get(COIN)
            rows.append((ready, first * 1000, time.monotonic() - daemon.began))
    ready, first, miss = (statistics.median(column) for column in zip(*rows, strict=True))
    yield Figure("start_to_ready", ready, "s", 0.3, "lower")
    yield Figure("first_answer_after_ready", first, "ms", 5.0, "lower")
    yield Figure("start_to_miss_answered", miss, "s", 0.5, "lower")


def command_line(daemon: Daemon, count: int) -> Iterator[Figure]:
    """The whole command, in turns with a Python that only loads what it cannot do without."""
    times: dict[str, list[float]] = {"cryptoctl": [], "python": []}
    commands = {
        "cryptoctl": [str(BIN / "cryptoctl"), "get", COIN],
        "python": [str(BIN / "python"), "-c", "import argparse, socket, msgpack"],
    }
    for _ in range(count):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run(command, env=daemon.environ, check=True, stdout=subprocess.DEVNULL)
            times[name].append((time.perf_counter() - begin) * 1000)
    whole, least = (percentile(column, 0.5) for column in times.values())
    yield Figure("cryptoctl_get_p50", whole, "ms", 60.0, "lower")
    yield beside("cryptoctl_get_p50_beside_python", whole, "ms", None, "lower", least)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--coins", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each kind of call")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--bots", type=int, default=1, help="that follow every forecast")
    options = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name, house(options.coins) as daemon:
        folder = Path(name)
        figures += from_the_start(daemon, 7)
        figures += one_client(daemon, folder, options.seconds)
        figures += command_line(daemon, 21)
        figures += many_clients(daemon, folder, options.clients, options.seconds)
        figures += while_bots_follow(daemon, options.bots, options.seconds)
        figures += while_it_trains(daemon)
        daemon.stop()
        with house(options.coins, speed=REFRESH_SPEED, trained=False, after=daemon, CRYPTOD_INCREMENTAL_ENABLED="false") as sped:
            figures += while_it_refreshes(sped, 8)
    report(figures)


if __name__ == "__main__":
    main()
