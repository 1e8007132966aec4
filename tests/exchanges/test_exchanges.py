"""Exchanges as they differ, behind unmodified ccxt, through the daemon's own collector: what is stored is the truth."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryptod.ingest import collector
from cryptod.ingest.exchange import Exchange
from cryptod.market import CANDLE, NOT_FETCHED
from cryptod.store.candles import CandleStore
from cryptod.worker.messages import CollectDone, CollectOrder, Failed, Report
from tests.exchanges.server import COINS, H, Server, Shape, World, served
from tests.exchanges.shapes import SHAPES

MONTH = 730
MINUTE = 60_000
PACE = 1000.0


class Collected:
    """Runs of the collector against a server, and what they left."""

    def __init__(self, server: Server, path: Path, **order: Any) -> None:
        self.server, self.path, self._order = server, path, order
        self.done: list[CollectDone] = []

    def run(self, now: int, *, select: bool = False) -> CollectDone:
        server, shape = self.server, self.server.shape
        server.world.now = now
        symbols = self.done[-1].symbols if self.done else ()
        order = CollectOrder(
            job=1, now=now, candles=str(self.path / "candles"), exchange=shape.id, market=shape.market, url=server.url, quote=shape.quote,
            timeframe="1h",
            months_back=shape.months, size=len(COINS), include=(), exclude=(), select_universe=select, symbols=symbols,
            pace=PACE, **self._order,
        )  # fmt: skip
        reports: list[Report] = []
        collector.run(order, reports.append)
        last = reports[-1]
        assert not isinstance(last, Failed), f"{last.error} ({last.hint}); unknown: {server.unknown[:3]}"
        assert isinstance(last, CollectDone)
        self.done.append(last)
        return last

    def wrong(self, now: int) -> dict[str, tuple[int, int, int]]:
        """coin -> false hours, lost hours, candles with another value, where any is not 0."""
        shape, found = self.server.shape, {}
        end = now // H * H
        with CandleStore.open(self.path / "candles") as store:
            for coin in COINS:
                symbol = shape.pair(coin)
                start = end - shape.months * MONTH * H
                if shape.keeps is not None:
                    start = max(start, end - (shape.keeps - 1) * H)
                held = store.panel([symbol], start, end)
                status, values = held.status[:, 0], held.values[:, 0]
                expected, true = self.server.world.expected(coin, start, end, shape.fills, None)
                both = (status == CANDLE) & (expected == CANDLE)
                other = int((~np.isclose(values[both], true[both], rtol=1e-6)).any(axis=1).sum())
                false = int(((status != NOT_FETCHED) & (status != expected)).sum())
                lost = int(((status == NOT_FETCHED) & (expected != NOT_FETCHED)).sum())
                if false or lost or other:
                    found[coin] = (false, lost, other)
        return found


def least(shape: Shape) -> int:
    """The fewest candle requests that can bring all coins' hours."""
    hours = min(shape.months * MONTH, shape.keeps or 1 << 30)
    return len(COINS) * -(-hours // shape.page)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.told)
def test_an_exchange_as_it_is_leaves_the_truth(shape: Shape, tmp_path: Path) -> None:
    now = int(time.time() * 1000) // H * H - 2 * H + 20 * MINUTE
    with served(shape, World(now, (shape.months + 1) * MONTH, shape.quote, shape.name)) as server:
        collected = Collected(server, tmp_path)
        done = collected.run(now, select=True)
        first = len(server.asked) - (0 if shape.volumes else len(COINS) + 1)
        assert server.unknown == []
        assert (done.failed, done.left_out) == ({}, {})
        assert done.symbols == tuple(shape.pair(coin) for coin in COINS)
        assert collected.wrong(now) == {}
        assert first <= least(shape) * shape.factor + 2  # of the first coin, to learn how it answers
        again = -(-shape.months * MONTH // shape.page)  # the second run may look once more for where a coin's history begins
        for later, spare in ((now + 5 * MINUTE, again), (now + 10 * MINUTE, 0), (now + H, 0)):
            before = server.sent
            done = collected.run(later)
            assert done.failed == {}
            assert collected.wrong(later) == {}
            each = 2 if shape.window is not None else 1  # where a day is an answer, two hours may lie in two of them
            assert server.sent - before <= len(COINS) * each + 2 + spare


def by_id(name: str) -> Shape:
    return next(shape for shape in SHAPES if shape.id == name and shape.market == "spot")


def backfilled(shape: Shape, path: Path) -> tuple[Server, CollectDone]:
    now = int(time.time() * 1000) // H * H - 2 * H + 20 * MINUTE
    with served(shape, World(now, (shape.months + 1) * MONTH, shape.quote, shape.name)) as server:
        collected = Collected(server, path)
        done = collected.run(now, select=True)
        assert collected.wrong(now) == {}
        return server, done


def test_kraken_is_asked_about_as_often_as_it_has_coins(tmp_path: Path) -> None:
    """It keeps 720 hours, one answer's worth. It was asked six times a coin once."""
    server, _ = backfilled(by_id("kraken"), tmp_path)
    assert len(server.asked) <= 2 * len(COINS) + 1


@pytest.mark.parametrize(
    ("name", "rows", "asked"), [("bullish", 100, 1000), ("btcmarkets", 200, 1000), ("bitbank", 24, 1000), ("mexc", 500, 1000)]
)
def test_an_exchange_that_gives_fewer_rows_than_ccxt_says_is_not_believed_to_be_quiet(
    name: str, rows: int, asked: int, tmp_path: Path
) -> None:
    shape = by_id(name)
    assert (shape.page, Exchange(name).page) == (rows, asked)
    _, done = backfilled(replace(shape, months=1), tmp_path)
    assert done.failed == {}


@pytest.mark.parametrize("name", ["bybit", "woo"])
def test_volumes_of_perpetual_futures_do_not_choose_spot_coins(name: str, tmp_path: Path) -> None:
    """The shapes serve perpetual futures in the opposite order of volume."""
    _, done = backfilled(replace(by_id(name), months=1), tmp_path)
    assert done.symbols == tuple(f"{coin}/USDT" for coin in COINS)


@pytest.mark.parametrize("name", ["phemex", "tokocrypto"])
def test_what_ccxt_reads_in_a_market_is_there_in_the_next_run(name: str, tmp_path: Path) -> None:
    shape = by_id(name)
    now = int(time.time() * 1000) // H * H - 2 * H + 20 * MINUTE
    with served(replace(shape, months=1), World(now, 2 * MONTH, shape.quote, shape.name)) as server:
        collected = Collected(server, tmp_path)
        collected.run(now, select=True)
        server.shape = replace(server.shape, markets=())  # they are not asked for again
        assert collected.run(now + H).failed == {}
        assert server.unknown == []
        assert collected.wrong(now + H) == {}


def test_a_coin_that_was_listed_anew_under_its_name_is_another_coin_and_begins_anew(tmp_path: Path) -> None:
    shape = next(shape for shape in SHAPES if (shape.id, shape.market) == ("binance", "swap"))
    now = int(time.time() * 1000) // H * H - 2 * H + 20 * MINUTE
    relisted = now // H * H - 100 * H

    def contracts(world: World) -> Any:
        found = shape.markets[0].body(world)
        for contract in found["symbols"]:
            if contract["symbol"] == "XRPUSDT":
                contract["onboardDate"] = relisted
        return found

    with served(replace(shape, months=1), World(now, 2 * MONTH, shape.quote, shape.name)) as server:
        collected = Collected(server, tmp_path)
        assert collected.run(now, select=True).renewed == ()
        server.shape = replace(server.shape, markets=[replace(shape.markets[0], body=contracts)])
        done = collected.run(now + H, select=True)
        assert (done.renewed, done.failed, len(done.symbols)) == (("XRP/USDT:USDT",), {}, len(COINS))
        assert set(collected.wrong(now + H)) == {"XRP"}  # of which the hours before are gone
        with CandleStore.open(tmp_path / "candles") as store:
            held = store.panel(["XRP/USDT:USDT"], relisted - 500 * H, now // H * H)
        assert (held.status[:500] == NOT_FETCHED).all()
        assert (held.status[500:] != NOT_FETCHED).all()
        assert collected.run(now + 2 * H, select=True).renewed == ()
