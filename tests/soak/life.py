"""A daemon that is left alone: lived through at speed beside a simulated exchange, read by clients throughout, measured from outside.

Knows the house, the client, the stores' files and the market's truth. Judges nothing but single answers: what may be asked of a whole
month stands in `month` and `storms`, what of a day in ``tests/integration/test_soak.py``.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from cryptod.client import Client
from cryptod.clock import parse_clock
from cryptod.daemon.publisher import GRACE_MS
from cryptod.errors import CryptodError, RequestError
from cryptod.market import CANDLE, HOUR, MAX_HORIZON, QUANTILE_LEVELS
from cryptod.replies import Forecast
from cryptod.simulator.events import EventfulMarket
from cryptod.simulator.faults import KINDS, Fault
from cryptod.simulator.generator import GeneratedMarket
from cryptod.simulator.listing import Market
from cryptod.store import ledger
from cryptod.store.candles import CandleStore
from cryptod.store.environment import open_environment
from cryptod.store.ledger import Issue, Ledger
from tests.integration.house import START, Daemon, SimulatedExchange

DAY = 24 * HOUR.ms
SEED = 7
HISTORY_DAYS = 400
PAUSE = 0.02
"""Seconds between two reads of one client."""


@dataclass(slots=True)
class Sample:
    """The house at one moment. ``at``: UTC ms of the exchange's clock; memory is PSS in bytes, sizes are bytes on disk."""

    at: int
    daemon: int
    all: int
    working: bool
    """Whether any child worked: what is compared is the house at rest."""
    descriptors: int
    serving: int
    candles: int
    checkpoints: int


@dataclass(slots=True)
class Reads:
    """What the clients met."""

    count: int = 0
    refused: int = 0
    """Of coins that the exchange has no more: refused with the reason, as they must be."""
    failed: list[str] = field(default_factory=list)
    dishonest: list[str] = field(default_factory=list)
    oldest: float = 0.0
    """Seconds of the clock's: the greatest age of a forecast that was not called stale."""


@dataclass(slots=True)
class Life:
    """What was seen, and what is left of it."""

    samples: list[Sample] = field(default_factory=list)
    reads: Reads = field(default_factory=Reads)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    conditions: dict[str, int] = field(default_factory=dict)
    """Name of a condition -> how often it was raised."""
    requests: dict[str, Any] = field(default_factory=dict)
    followed: tuple[str, ...] = ()
    events: list[Fault] = field(default_factory=list)
    """What happened to coins, besides the faults that the exchange was started with."""
    issues: list[Issue] = field(default_factory=list)
    scored: list[tuple[int, int]] = field(default_factory=list)
    unscored: list[tuple[int, int]] = field(default_factory=list)
    held: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Cutoff -> how many outcomes of all horizons are known, and how many of them lay within the 80 % intervals."""
    wrong: dict[str, str] = field(default_factory=dict)
    """Symbol -> in what its candles differ from the truth."""
    log: str = ""
    end: int = 0

    def day(self, number: int) -> list[Sample]:
        """The samples of the day of that number, from 1 on, in which no child trained."""
        return [one for one in self.samples if (one.at - START) // DAY == number - 1 and not one.working]

    def median(self, number: int, what: Callable[[Sample], float]) -> float:
        found = [what(one) for one in self.day(number)]
        return statistics.median(found) if found else float("nan")

    def late(self, since: int) -> list[tuple[int, str]]:
        """(cutoff, symbol) of forecasts from the cutoff ``since`` on that were not issued before the next candle closed."""
        issued: dict[int, set[str]] = {}
        for issue in self.issues:
            if issue.issued < issue.cutoff + HOUR.ms:
                issued.setdefault(issue.cutoff, set()).update(issue.symbols)
        hours = range(since, self.end - HOUR.ms, HOUR.ms)
        return [(cutoff, symbol) for cutoff in hours for symbol in self.followed if symbol not in issued.get(cutoff, ())]

    def coverage(self, start: int, end: int) -> float | None:
        """The share of the 80 % intervals issued at cutoffs from ``start`` to ``end`` that held; None if no outcome is known."""
        rows = [held for cutoff, held in self.held.items() if start <= cutoff <= end]
        known = sum(row[0] for row in rows)
        return sum(row[1] for row in rows) / known if known else None

    def unscored_by(self, cutoff: int) -> list[tuple[int, int]]:
        """Issues without a score though their last horizon had passed at this cutoff."""
        return [key for key in self.unscored if key[0] + MAX_HORIZON * HOUR.ms <= cutoff]


@contextmanager
def lived(
    folder: Path,
    exchange: SimulatedExchange,
    coins: int,
    faults: Iterable[Fault] = (),
    *,
    clients: int = 3,
    every: float = 1.0,
    **settings: Any,
) -> Iterator[tuple[Daemon, Life, Callable[[Callable[[Client], bool], str, float], None]]]:
    """A daemon on an exchange that runs, with clients that read. ``watch(until, what, seconds)`` samples every ``every`` seconds until
    ``until(client)``. At the end of the context the daemon is stopped, and what it left is read and compared with the truth.
    """
    life = Life()
    given: dict[str, Any] = {"cryptod_universe_size": coins, "cryptod_forecast_base_model": "true"} | settings
    stop = threading.Event()
    with Daemon(folder, exchange, **given) as daemon:
        daemon.wait_for(lambda client: client.cache_stats()["entries"] >= coins, "the first forecasts", seconds=120)
        life.followed = tuple(row["symbol"] for row in daemon.wait_for(lambda client: client.symbols()["followed"], "the coins"))
        crowd = [threading.Thread(target=_read, args=(daemon, life, stop, number), daemon=True) for number in range(clients)]
        crowd.append(threading.Thread(target=_listen, args=(daemon, life, stop), daemon=True))
        for one in crowd:
            one.start()

        def watch(until: Callable[[Client], bool], what: str, seconds: float) -> None:
            end = time.monotonic() + seconds
            with daemon.client() as client:
                while not until(client):
                    assert daemon.process.poll() is None, f"the daemon ended: {daemon.log()[-3000:]}"
                    assert time.monotonic() < end, f"{what}: not within {seconds} s: {daemon.log()[-3000:]}"
                    life.samples.append(sample(daemon))
                    time.sleep(every)

        try:
            yield daemon, life, watch
            with daemon.client() as client:
                life.jobs, status = client.jobs(500), client.status()
                life.followed = tuple(row["symbol"] for row in client.symbols()["followed"])
            life.end = status["candles"]["newest_close"]
            life.requests = requests(exchange)
        finally:
            stop.set()
            for one in crowd:
                one.join(20)
        daemon.stop()
        life.log = daemon.log()
    _look_back(daemon.state, life)
    life.wrong = differences(daemon.state, truth(exchange, coins, (*faults, *life.events)), life.followed, life.end)


def requests(exchange: SimulatedExchange) -> dict[str, Any]:
    """What the exchange was asked so far: see `Exchange.counts`."""
    with urllib.request.urlopen(f"{exchange.url}/control/requests", timeout=20) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def set_faults(exchange: SimulatedExchange, faults: Iterable[Fault]) -> None:
    """These faults and no others from now on."""
    request = urllib.request.Request(f"{exchange.url}/control/faults", msgspec.json.encode(list(faults)), method="POST")
    with urllib.request.urlopen(request, timeout=20):
        pass


def spelt(fault: Fault) -> str:
    """The fault as the command line has it."""
    parts = [fault.kind, f"probability={fault.probability:g}", f"start={fault.start}", f"end={fault.end}", f"times={fault.times}"]
    parts += [f"symbols={'+'.join(fault.symbols)}"] if fault.symbols else []
    parts += [f"endpoints={'+'.join(fault.endpoints)}"] if fault.endpoints else []
    parts += [f"value={fault.value:g}"] if fault.value is not None else []
    parts += [f"to={fault.to}"] if fault.to else []
    return ",".join(parts)


def options(coins: int, faults: Iterable[Fault] = ()) -> list[str]:
    """Of the exchange's command line."""
    found = ["--coins", str(coins), "--seed", str(SEED), "--history-days", str(HISTORY_DAYS)]
    return found + [part for fault in faults for part in ("--fault", spelt(fault))]


def truth(exchange: SimulatedExchange, coins: int, faults: Iterable[Fault]) -> Market:
    """What really happened on the exchange of these `options`."""
    start = int(exchange.clock.partition("@")[0])
    market = GeneratedMarket(coins, SEED, first=start - HISTORY_DAYS * DAY)
    events = [fault for fault in faults if KINDS[fault.kind].stage == "market"]
    return EventfulMarket(market, events) if events else market


def differences(state: Path, market: Market, symbols: Iterable[str], end: int, *, settled: bool = True) -> dict[str, str]:
    """Symbol -> in what its stored candles of hours that close by ``end`` differ from the truth; nothing where they agree.

    Without ``settled`` hours that were not fetched may be missing, but every candle that is there must be true.
    """
    found = {}
    with CandleStore.open(state / "candles") as store:
        for symbol in symbols:
            span = store.span(symbol)
            if span is None:
                found[symbol] = "no candles at all"
                continue
            stored, true = store.panel((symbol,), span[0], end), market.panel((symbol,), span[0], end)
            there = stored.status == CANDLE
            wrong = there & ((true.status != CANDLE) | (stored.values != true.values).any(axis=2))
            absent = ~there & (true.status == CANDLE)
            if wrong.any() or (settled and absent.any()):
                hours = [(int(time) - end) // HOUR.ms for time in stored.open_times[(wrong | absent)[:, 0]]]
                found[symbol] = f"{wrong.sum()} wrong and {absent.sum()} absent of {len(there)} hours: {hours[:5]} h before the end"
    return found


def sample(daemon: Daemon) -> Sample:
    """The house as it is now."""
    family = {process.pid: process for process in daemon.relatives().values()}
    own = psutil.Process(daemon.process.pid)
    names, sizes = [], [own.memory_full_info().pss]
    for process in family.values():
        with contextlib.suppress(psutil.Error):
            sizes.append(process.memory_full_info().pss)
            names.append(process.name())
    state = daemon.state
    return Sample(
        at=daemon.exchange.now(), daemon=sizes[0], all=sum(sizes), working=any(name.startswith("cryptod-") for name in names),
        descriptors=own.num_fds(), serving=_size(state / "serving" / "data.mdb"), candles=_size(state / "candles" / "data.mdb"),
        checkpoints=len(list((state / "checkpoints").glob("*/weights.safetensors"))),
    )  # fmt: skip


def _size(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.exists() else 0


# -- the clients


def _read(daemon: Daemon, life: Life, stop: threading.Event, number: int) -> None:
    """One client after the other: some keep their connection for a while, all check what they are told of ages."""
    chance = random.Random(number)
    clock, reads = parse_clock(daemon.exchange.clock), life.reads
    while not stop.is_set():
        with daemon.client() as client:
            for _ in range(chance.choice((1, 5, 50))):
                symbol, before = chance.choice(life.followed), clock.now()
                try:
                    found = list(client.get_many().values()) if chance.random() < 0.05 else [client.get(symbol)]
                    if chance.random() < 0.02:
                        client.top(10)
                except RequestError as error:
                    if error.code == "unknown_symbol" and symbol not in {row["symbol"] for row in client.symbols()["followed"]}:
                        reads.refused += 1
                    else:
                        reads.failed.append(f"{symbol} at {before}: {error}")
                except CryptodError as error:
                    if not stop.is_set():
                        reads.failed.append(f"{symbol} at {before}: {error}")
                else:
                    after = clock.now()
                    for forecast in found:
                        _check(forecast, before, after, reads)
                reads.count += 1
                if stop.wait(PAUSE):
                    return


def _check(forecast: Forecast, before: int, after: int, reads: Reads) -> None:
    """The answer came between these two moments (UTC ms): its age and whether it is stale follow from its own times."""
    if not before - forecast.issued - 1 <= forecast.age * 1000 <= max(after, forecast.issued) - forecast.issued + 1:
        reads.dishonest.append(f"{forecast.symbol} of {forecast.issued} said to be {forecast.age} s old from {before} to {after}")
    newest = forecast.cutoff + HOUR.ms + GRACE_MS
    if before >= newest and not forecast.stale:
        reads.dishonest.append(f"{forecast.symbol} of {forecast.cutoff} is not called stale at {before}")
    if forecast.stale and after < newest and after < forecast.expires:
        reads.dishonest.append(f"{forecast.symbol} of {forecast.cutoff} is called stale at {before}: {forecast.reason}")
    if not forecast.stale:
        reads.oldest = max(reads.oldest, forecast.age)


def _listen(daemon: Daemon, life: Life, stop: threading.Event) -> None:
    """Count the conditions as they are told."""
    with contextlib.suppress(CryptodError), daemon.client() as client:
        client.subscribe(["conditions"])
        while not stop.is_set():
            event = client.next_event(timeout=0.5)
            if event is not None and event.payload["what"] == "raised":
                name = event.payload["name"]
                life.conditions[name] = life.conditions.get(name, 0) + 1


# -- afterwards


def _look_back(state: Path, life: Life) -> None:
    """The ledger, issues without their quantiles' weight."""
    with open_environment(state / "serving", databases=ledger.DATABASES, writer=False) as environment:
        book = Ledger(environment)
        empty = np.empty((0, 0, 0), np.float32)
        for issue in book.read(0, 1 << 62):
            life.issues.append(
                Issue(
                    issue.issued, issue.cutoff, issue.symbols, issue.models, issue.close, empty, empty, empty, issue.flags, None, issue.seq
                )
            )
        for score in book.scores(0, 1 << 62):
            known, inside = life.held.get(score.cutoff, (0, 0))
            within = (score.level > QUANTILE_LEVELS.index(0.1)) & (score.level <= QUANTILE_LEVELS.index(0.9))
            life.held[score.cutoff] = known + int((score.level < 255).sum()), inside + int(within.sum())
        life.unscored = book.unscored(0, 1 << 62)
        open_keys = set(life.unscored)
        life.scored = [key for key in book.keys(0, 1 << 62) if key not in open_keys]
