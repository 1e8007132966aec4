"""What more coins cost: a full retrain, an hour's refresh, memory and a client's `get`, with 100, 1,000 and 10,000 coins.

    python -m tests.bench.bench_scale [--sizes 100 1000 10000] [--batches 4] [--plot docs/scaling.svg]

A generated market; three months of hours lie in the candle store before the daemon starts (`collected`), so no exchange and no HTTP is in
these figures. The daemon is the real one. Shorter than life, so that all three sizes take a few minutes:

* The models of the 100 coins are trained. Larger universes are served by copies of these under other coins' names: what it costs to load
  and to serve a model does not depend on whose it is.
* An earlier day's forecasts are laid into the ledger: the first hour's, under the cutoffs of the 23 hours before it. So the hour that is
  timed learns from outcomes at all 24 horizons and scores an issue that has matured, as every hour of a daemon that runs.
* A retrain of more than ``--batches`` batches is cancelled after so many. What all batches need first (season, market) is timed whole, over
  all coins, and each batch with its promotion into the models of all coins; the time of all batches is reckoned from these.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cryptod.client import Client
from cryptod.forecast.model import Model
from cryptod.market import HOUR
from cryptod.simulator.generator import GeneratedMarket
from cryptod.store import ledger
from cryptod.store.candles import CandleStore, Fetched
from cryptod.store.checkpoints import CheckpointStore, read_checkpoint, write_checkpoint
from cryptod.store.environment import open_environment
from cryptod.store.ledger import Ledger
from tests.bench import peers
from tests.bench.bench_memory import MB, Memory, family, rest, told
from tests.bench.bench_serving import GET, connected, exchange, placed, places, reply_to
from tests.bench.bench_training import Watched
from tests.bench.collected import COINS
from tests.bench.figures import ROOT, Figure, beside, percentile, report, take_turns
from tests.bench.plot import LogLog
from tests.integration.house import START, Daemon, SimulatedExchange

MONTHS = 3
BATCH = 25
GETS = 4000
MARGIN_HOURS = 12
"""Hours in the store that are still to come when the daemon starts."""
PATIENCE = 600.0


class Costs(NamedTuple):
    """Of one size: seconds, megabytes, microseconds. ``floor``: what two bare processes needed for the bytes of a get, in turns with it."""

    coins: int
    train: float
    refresh: float
    idle: float
    peak: float
    get: float
    floor: float


def fill(store: Path, market: GeneratedMarket, coins: Sequence[str], end: int) -> None:
    """Lay the coins' candles into the store, up to some hours beyond ``end``."""
    begin, last = end - MONTHS * 730 * HOUR.ms, end + MARGIN_HOURS * HOUR.ms
    none = np.empty(0, np.int64)
    with CandleStore.open(store, writer=True) as candles:
        for first in range(0, len(coins), 500):
            candles.apply([Fetched(symbol, *market.candles(symbol, begin, last), none) for symbol in coins[first : first + 500]])


@contextlib.contextmanager
def running(folder: Path, coins: Sequence[str], hours: int) -> Iterator[Daemon]:
    """The daemon on ``folder``/state so many hours after `START`, with its coins collected."""
    clock = SimulatedExchange(start=START + hours * HOUR.ms)
    clock.port = 1  # nobody asks it
    names = folder / "coins"
    names.write_text("\n".join(coins))
    settings: dict[str, Any] = {
        COINS: names, "CRYPTOD_UNIVERSE_SIZE": 100, "CRYPTOD_TRAIN_BATCH_SIZE": BATCH, "CRYPTOD_TRAIN_MONTHS_BACK": MONTHS,
        "CRYPTOD_INCREMENTAL_ENABLED": "false",
    }  # fmt: skip
    within = (sys.executable, "-m", "tests.bench.collected")
    with Daemon(folder, clock, within=within, **settings) as daemon:
        yield daemon


def trained(root: Path) -> list[Model]:
    """The models that serve."""
    return [Model.from_checkpoint(name, *read_checkpoint(root, name)) for name in CheckpointStore(root).load_current().names]


def copied(models: Sequence[Model], root: Path, coins: Sequence[str], cutoff: int) -> None:
    """Let copies of these models serve all the coins."""
    names = []
    for number, first in enumerate(range(0, len(coins), BATCH)):
        symbols, like = tuple(coins[first : first + BATCH]), models[number % len(models)]
        model = replace(like, symbols=symbols, name=f"{cutoff}-full-{number:03d}-copy")
        write_checkpoint(root, model.name, model.arrays(), model.document(), created=cutoff)
        names.append(model.name)
    CheckpointStore(root).promote(names, cutoff, followed=coins)


def a_day_before(state: Path) -> None:
    """Lay the last issue into the ledger, with what the references said, under the cutoffs of the 23 hours before it."""
    environment = open_environment(state / "serving", databases=_databases(), writer=True)
    try:
        kept = Ledger(environment)
        issue = kept.last()
        assert issue is not None
        references = kept.references(issue.cutoff, issue.seq)
        for hours in range(1, 24):
            before = issue.cutoff - hours * HOUR.ms
            kept.append(replace(issue, cutoff=before, issued=before), references)
    finally:
        environment.close()


def _databases() -> tuple[str, ...]:
    return ledger.DATABASES


def size_of(market: GeneratedMarket, coins: Sequence[str], folder: Path, batches: int) -> Costs:
    """Live through two hours and a retrain with the models that stand in ``folder``/state."""
    with running(folder, coins, 1) as daemon:
        published(daemon, len(coins))
    a_day_before(daemon.state)
    with running(folder, coins, 2) as daemon:
        refresh = published(daemon, len(coins))
        rest(daemon)
        idle = sum(size for *_, size in family(daemon.process.pid)) / MB
        (get, floor), slow = gets(daemon, coins, folder), others(daemon)
        with Memory(daemon) as memory:
            train = retrain(daemon, batches)
        told(f"{len(coins):6,} coins, full retrain", memory)
        print(
            f"{len(coins):6,} coins: full retrain {train:.1f} s, refresh {refresh:.3f} s, get {get:.1f} us (floor {floor:.1f}),"
            f" idle {idle:.0f} MB; {slow}",
            flush=True,
        )
        return Costs(len(coins), train, refresh, idle, memory.peak, get, floor)


def published(daemon: Daemon, coins: int) -> float:
    """Seconds of the first refresh, once all coins have a forecast made with the newest candles."""
    wanted = HOUR.floor(daemon.exchange.now())
    daemon.wait_for(lambda one: one.status()["candles"]["newest_close"] == wanted, "the candles are in", seconds=PATIENCE)
    return daemon.wait_for(lambda one: fresh(one, coins, wanted), "forecasts of all coins", seconds=PATIENCE)


def fresh(client: Client, coins: int, cutoff: int) -> float | None:
    stats = client.cache_stats()
    if stats["entries"] < coins or not stats["refresh_seconds"]:
        return None
    return float(stats["refresh_seconds"]) if client.get(client.top(1)[0]["symbol"]).cutoff == cutoff else None


def gets(daemon: Daemon, coins: Sequence[str], folder: Path) -> tuple[float, float]:
    """p50 of `Client.get`, over coins from all places of the list, and of the floor's exchange of as many bytes; all on one processor.

    The sizes are minutes apart, and the machine is not the same then: what grows is told by the ratio.
    """
    asked = itertools.cycle([coins[(7919 * i) % len(coins)] for i in range(GETS)])
    reply = reply_to(daemon.socket, GET)
    with peers.serving(peers.ping_pong, folder, reply) as path, connected(path) as floor, daemon.client() as client:
        servers, clients = places()["one_core"]
        with placed(servers, clients):
            calls = {"get": lambda: client.get(next(asked)), "floor": lambda: exchange(floor, GET, len(reply))}
            found = take_turns(calls, 2.0)
    return percentile(found["get"], 0.5), percentile(found["floor"], 0.5)


def others(daemon: Daemon) -> str:
    """What the other questions take, in words: ``status 1.2 ms, top ...``."""
    found = []
    with daemon.client() as client:
        for name, call in (("status", client.status), ("top", client.top), ("symbols", client.symbols), ("jobs", client.jobs)):
            times = []
            for _ in range(5):
                begin = time.perf_counter()
                call()
                times.append(time.perf_counter() - begin)
            found.append(f"{name} {1000 * statistics.median(times):.1f} ms")
    return ", ".join(found)


def retrain(daemon: Daemon, most: int) -> float:
    """Seconds of a full retrain; of more than ``most`` batches, reckoned from these."""
    seen: list[float] = []
    with daemon.client() as client, Watched(daemon) as watched:
        number = client.train("full")["id"]
        began, total, ended = 0.0, 0, False
        while not ended and len(seen) <= most:
            when, topic, job = watched.next()
            if topic != "jobs" or job["id"] != number or job["state"] == "queued":
                continue
            began, total = began or when, len(job["batches"])
            if any(batch["state"] == "failed" for batch in job["batches"]):
                raise SystemExit(f"a batch failed: {job['batches']}")
            done = sum(batch["state"] == "done" for batch in job["batches"])
            seen += [when] * (done - len(seen))
            ended = done == total
        if not ended:
            client.cancel(number)
        a_batch = (seen[-1] - seen[0]) / max(len(seen) - 1, 1)
        return seen[0] - began + a_batch * (total - 1)


def judged(found: Sequence[Costs]) -> Iterator[Figure]:
    first, last = found[0], found[-1]
    for one in found:
        yield Figure(f"full_retrain_{one.coins}", one.train, "s", None, "lower")
        yield Figure(f"refresh_{one.coins}", one.refresh, "s", 30.0 if one.coins >= 10_000 else None, "lower")
        yield beside(f"get_p50_{one.coins}", one.get, "us", None, "lower", one.floor)
        yield Figure(f"idle_{one.coins}", one.idle, "MB", None, "lower")
        yield Figure(f"peak_{one.coins}", one.peak, "MB", None, "lower")
    if len(found) > 1:
        each = last.train / last.coins, first.train / first.coins
        yield Figure("train_time_per_coin_growth", 1000 * each[0], "ms", 1.0, "lower", 1000 * each[1], each[0] / each[1])
        yield Figure("peak_growth", last.peak - first.peak, "MB", 100.0, "lower")
        like = first.get * last.floor / first.floor  # what it would have been then
        yield Figure("get_p50_growth", last.get, "us", 1.1, "lower", like, last.get / like)


def plot(found: Sequence[Costs], path: Path) -> None:
    chart = LogLog("What coins cost", "coins", "seconds, megabytes, microseconds")
    coins = [one.coins for one in found]
    for name, values in (
        ("full retrain, s", [one.train for one in found]),
        ("refresh, s", [one.refresh for one in found]),
        ("get p50, us", [one.get for one in found]),
        ("at rest, MB", [one.idle for one in found]),
        ("peak, MB", [one.peak for one in found]),
    ):
        chart.line(name, coins, values)
    path.write_text(chart.svg())
    print(f"\n{path}: cost against coins")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--batches", type=int, default=8, help="of a retrain that are carried out at most")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "scaling.svg")
    options = parser.parse_args()
    if any(size % BATCH for size in options.sizes):
        parser.error(f"sizes are multiples of {BATCH}, a batch of coins")
    for package in ("cryptod", "ctl"):
        compileall.compile_dir(ROOT / package, quiet=1)
    sizes, end = sorted(options.sizes), HOUR.floor(START)
    market = GeneratedMarket(sizes[-1], seed=7, companions=False)
    found: list[Costs] = []
    with tempfile.TemporaryDirectory(prefix="cryptod-") as name:
        filled, before = 0, Path()
        models: list[Model] = []
        for size in sizes:
            folder = Path(name) / str(size)
            state, coins = folder / "state", market.coins[:size]
            folder.mkdir()
            if before.name:
                state.mkdir()
                (before / "candles").rename(state / "candles")
            begin = time.monotonic()
            fill(state / "candles", market, coins[filled:], end)
            print(f"{size:6,} coins: {size - filled:,} coins' candles laid into the store in {time.monotonic() - begin:.1f} s", flush=True)
            if not before.name:
                with running(folder, coins, 0) as daemon:
                    daemon.wait_for(lambda client: client.status()["training"]["last_full"], "models", seconds=PATIENCE)
                models = trained(state / "checkpoints")
            else:
                copied(models, state / "checkpoints", coins, end)
            found.append(size_of(market, coins, folder, options.batches))
            filled, before = size, state
    plot(found, options.plot)
    report(judged(found))


if __name__ == "__main__":
    main()
