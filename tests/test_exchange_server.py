"""The simulated exchange seen by the real, unmodified ccxt, and by plain HTTP where ccxt hides what was said."""

from __future__ import annotations

import argparse
import asyncio
import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import ccxt
import ccxt.async_support
import numpy as np
import pytest

from cryptod.clock import parse_clock
from cryptod.errors import ConfigError, CryptodError
from cryptod.ingest import exchange as asking
from cryptod.market import CANDLE, HOUR, NO_TRADE, NOT_FETCHED
from cryptod.simulator import command
from cryptod.simulator.allowance import BAN_SECONDS, PATIENCE, Allowance
from cryptod.simulator.faults import KINDS, Fault, FaultTable, parse_fault
from cryptod.simulator.folder import FolderMarket
from cryptod.simulator.generator import GeneratedMarket
from cryptod.simulator.server import Exchange

NOW = 1_704_069_000_000  # 2024-01-01 00:30 UTC: an hour is half over
LAST = HOUR.floor(NOW)
HISTORY = 100 * 24 * HOUR.ms


class StillClock:
    """A clock that stands where the test puts it."""

    def __init__(self, time: int = NOW) -> None:
        self.time = time

    def now(self) -> int:
        return self.time

    def real_seconds(self, seconds: float) -> float:
        return seconds


@pytest.fixture(scope="module")
def market() -> GeneratedMarket:
    return GeneratedMarket(30, seed=1, first=LAST - HISTORY)


async def test_names_of_any_script_and_case_are_served_to_ccxt(tmp_path: Path) -> None:
    for name in ("kBONK-USDT", "\u5e01\u5b89\u4eba\u751f-USDT"):
        with gzip.open(tmp_path / f"{name}.csv.gz", "wt") as file:
            file.write("ts,open,high,low,close,volume\n" + "".join(f"{LAST - h * HOUR.ms},1,2,1,2,5\n" for h in range(9, 0, -1)))
    async with Exchange(FolderMarket(tmp_path), StillClock()) as exchange, asking.Exchange("binance", exchange.url) as client:
        trading = await client.load_markets()
        assert set(trading) == {"KBONK/USDT", "\u5e01\u5b89\u4eba\u751f/USDT"}  # ccxt has capitals
        for symbol in trading:
            assert len(await client.candles(symbol, HOUR, LAST - 5 * HOUR.ms, 100)) == 5


@pytest.fixture
async def exchange(market: GeneratedMarket) -> AsyncIterator[Exchange]:
    async with Exchange(market, StillClock()) as running:
        yield running


@pytest.fixture
async def binance(exchange: Exchange) -> AsyncIterator[Any]:
    async with asynchronous(exchange) as client:
        yield client


def asynchronous(exchange: Exchange, timeout: float = 5) -> Any:
    client = ccxt.async_support.binance({"timeout": int(timeout * 1000), "enableRateLimit": False})
    client.urls["api"] = exchange.api_urls
    return client


def quick(exchange: Exchange) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(exchange.url, timeout=aiohttp.ClientTimeout(total=5))


async def get(exchange: Exchange, endpoint: str, **query: Any) -> tuple[int, Any, Any]:
    """(status, headers, JSON) of a plain request."""
    async with quick(exchange) as session, session.get(f"/api/v3/{endpoint}", params=query) as response:
        return response.status, response.headers, await response.json(content_type=None)


def at(exchange: Exchange, time: int) -> None:
    """Put the exchange's clock."""
    assert isinstance(exchange.clock, StillClock)
    exchange.clock.time = time


# -- what ccxt sees


@pytest.fixture
def threaded(market: GeneratedMarket) -> Iterator[Exchange]:
    """An exchange in a thread of its own, for the blocking ccxt."""
    exchange = Exchange(market, StillClock())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(exchange.start(), loop).result(5)
    yield exchange
    asyncio.run_coroutine_threadsafe(exchange.stop(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def test_the_blocking_ccxt_loads_markets_tickers_time_and_candles(threaded: Exchange, market: GeneratedMarket) -> None:
    client = ccxt.binance({"enableRateLimit": False})
    client.urls["api"] = threaded.api_urls
    markets = client.load_markets()
    assert markets["BTC/USDT"]["spot"] is True
    assert {symbol for symbol, entry in markets.items() if not entry["active"]} == {"SRM/USDT"}
    assert client.fetch_time() == NOW
    assert client.fetch_status()["status"] == "ok"
    candles = client.fetch_ohlcv("BTC/USDT", "1h", since=LAST - 10 * HOUR.ms, limit=10)
    times, values = market.candles("BTC/USDT", LAST - 10 * HOUR.ms, LAST)
    assert [row[0] for row in candles] == times.tolist()
    assert np.array_equal(np.array(candles)[:, 1:], values)
    assert client.fetch_ticker("BTC/USDT")["last"] == pytest.approx(values[-1, 3], rel=0.05)
    client.session.close()


async def test_the_asynchronous_ccxt_loads_all_markets_with_their_precision(binance: Any, market: GeneratedMarket) -> None:
    markets = await binance.load_markets()
    assert len(markets) == len(market.listings)
    listing = market.listings[0]
    assert markets["BTC/USDT"]["precision"] == {"amount": listing.lot, "price": listing.price_tick, "base": 1e-8, "quote": 1e-8}
    assert markets["BTC/EUR"]["quote"] == "EUR"
    assert markets["BTC/USDT"]["id"] == "BTCUSDT"


async def test_a_year_is_paged_through_without_a_candle_lost_or_doubled(binance: Any, exchange: Exchange) -> None:
    since, rows = LAST - HISTORY, []
    while True:
        page = await binance.fetch_ohlcv("ETH/USDT", "1h", since=since, limit=1000)
        rows += page
        if len(page) < 1000:
            break
        since = page[-1][0] + HOUR.ms
    truth = exchange.market.candles("ETH/USDT", LAST - HISTORY, LAST)[1]
    assert [row[0] for row in rows] == list(range(LAST - HISTORY, LAST + 1, HOUR.ms))
    assert np.array_equal(np.array(rows)[:-1, 1:], truth)


async def test_the_last_candle_is_still_open_and_moves_with_the_clock_until_it_is_closed(binance: Any, exchange: Exchange) -> None:
    final = exchange.market.candles("BTC/USDT", LAST, LAST + HOUR.ms)[1][0]
    volumes = []
    for minute in (0, 10, 30, 59):
        at(exchange, LAST + minute * 60_000)
        row = (await binance.fetch_ohlcv("BTC/USDT", "1h", limit=1))[0]
        assert row[0] == LAST
        assert final[2] <= row[3] <= row[4] <= row[2] <= final[1]
        volumes.append(row[5])
    assert volumes == sorted(volumes)
    assert volumes[0] == 0.0
    assert volumes[-1] < final[4]
    at(exchange, LAST + HOUR.ms)
    closed = (await binance.fetch_ohlcv("BTC/USDT", "1h", limit=2))[0]
    assert closed == [LAST, *final]


@pytest.mark.parametrize("hour", [0, 17, 24])
async def test_tickers_rank_by_quote_volume_and_agree_with_the_candles(hour: int, binance: Any, exchange: Exchange) -> None:
    last = LAST + hour * HOUR.ms
    await binance.fetch_tickers()  # what it remembers of an earlier time must not show
    at(exchange, last + HOUR.ms - 1)
    tickers = await binance.fetch_tickers()
    assert len(tickers) == len(exchange.market.listings)
    values = exchange.market.candles("ETH/USDT", last - 23 * HOUR.ms, last + HOUR.ms)[1]
    ticker = tickers["ETH/USDT"]
    assert (ticker["open"], ticker["high"], ticker["low"]) == (values[0, 0], values[:, 1].max(), values[:, 2].min())
    assert ticker["close"] == pytest.approx(values[-1, 3], rel=1e-3)
    assert ticker["baseVolume"] == pytest.approx(values[:, 4].sum(), rel=1e-3)
    assert ticker["quoteVolume"] == pytest.approx((values[:, 4] * values[:, :4].mean(axis=1)).sum(), rel=1e-3)
    assert tickers["BTC/USDT"]["quoteVolume"] == max(entry["quoteVolume"] for entry in tickers.values())
    assert tickers["SRM/USDT"]["quoteVolume"] == 0
    assert set(await binance.fetch_tickers(["BTC/USDT", "ETH/USDT"])) == {"BTC/USDT", "ETH/USDT"}


# -- what Binance says, to the letter


async def test_klines_have_twelve_columns_of_binances_types(exchange: Exchange) -> None:
    _, headers, rows = await get(exchange, "klines", symbol="BTCUSDT", interval="1h", startTime=LAST - HOUR.ms, limit=1)
    assert [type(cell).__name__ for cell in rows[0]] == ["int"] + ["str"] * 5 + ["int", "str", "int", "str", "str", "str"]
    assert rows[0][6] == rows[0][0] + HOUR.ms - 1
    assert all(len(cell.partition(".")[2]) == 8 for cell in rows[0][1:6])
    assert headers["Content-Type"] == "application/json;charset=UTF-8"


@pytest.mark.parametrize(
    ("query", "first", "count"),
    [
        ({}, LAST - 499 * HOUR.ms, 500),
        ({"limit": 5000}, LAST - 999 * HOUR.ms, 1000),
        ({"limit": 3}, LAST - 2 * HOUR.ms, 3),
        ({"endTime": LAST - 1, "limit": 2}, LAST - 2 * HOUR.ms, 2),
        ({"endTime": LAST, "limit": 2}, LAST - HOUR.ms, 2),
        ({"startTime": LAST - 5 * HOUR.ms + 1, "limit": 2}, LAST - 4 * HOUR.ms, 2),
        ({"startTime": LAST - 5 * HOUR.ms, "endTime": LAST - 3 * HOUR.ms}, LAST - 5 * HOUR.ms, 3),
        ({"startTime": 0, "limit": 4}, LAST - HISTORY, 4),
        ({"startTime": LAST + 1}, 0, 0),
        ({"endTime": LAST - HISTORY - 1}, 0, 0),
        ({"startTime": LAST, "endTime": LAST - HOUR.ms}, 0, 0),
    ],
)
async def test_klines_select_as_binance_does(exchange: Exchange, query: dict[str, int], first: int, count: int) -> None:
    _, _, rows = await get(exchange, "klines", symbol="BTCUSDT", interval="1h", **query)
    assert [row[0] for row in rows] == [first + i * HOUR.ms for i in range(count)]


@pytest.mark.parametrize(
    ("endpoint", "query", "status", "code"),
    [
        ("klines", {"symbol": "NOSUCH", "interval": "1h"}, 400, -1121),
        ("klines", {"symbol": "BTCUSDT", "interval": "5m"}, 400, -1120),
        ("klines", {"symbol": "BTCUSDT"}, 400, -1102),
        ("klines", {"interval": "1h"}, 400, -1102),
        ("klines", {"symbol": "btc/usdt", "interval": "1h"}, 400, -1100),
        ("klines", {"symbol": "BTCUSDT", "interval": "1h", "limit": "many"}, 400, -1100),
        ("klines", {"symbol": "BTCUSDT", "interval": "1h", "limit": "0"}, 400, -1130),
        ("klines", {"symbol": "BTCUSDT", "interval": "1h", "startTime": "-5"}, 400, -1100),
        ("klines", {"symbol": "BTCUSDT", "interval": "1h", "colour": "red"}, 400, -1101),
        ("ticker/24hr", {"symbols": "BTCUSDT"}, 400, -1100),
        ("ticker/24hr", {"symbols": '["BTCUSDT","NOSUCH"]'}, 400, -1121),
        ("exchangeInfo", {"symbol": "NOSUCH"}, 400, -1121),
    ],
)
async def test_nonsense_is_refused_with_binances_codes(
    exchange: Exchange, endpoint: str, query: dict[str, Any], status: int, code: int
) -> None:
    answered, _, body = await get(exchange, endpoint, **query)
    assert (answered, body["code"]) == (status, code)
    assert body["msg"]


async def test_an_unknown_symbol_is_ccxts_bad_symbol_and_an_unknown_path_is_404(binance: Any, exchange: Exchange) -> None:
    await binance.load_markets()
    with pytest.raises(ccxt.BadSymbol):
        await binance.publicGetKlines({"symbol": "NOSUCH", "interval": "1h"})
    async with quick(exchange) as session, session.get("/api/v3/depth") as response:
        assert response.status == 404


async def test_a_coin_is_not_listed_before_its_first_candle(market: GeneratedMarket) -> None:
    async with Exchange(market, StillClock(LAST - HISTORY - 1)) as exchange:
        status, _, info = await get(exchange, "exchangeInfo")
        assert [symbol["symbol"] for symbol in info["symbols"]] == ["SRMUSDT"]
        status, _, body = await get(exchange, "klines", symbol="BTCUSDT", interval="1h")
        assert (status, body["code"]) == (400, -1121)


# -- weights


async def test_weights_are_counted_as_binance_does(exchange: Exchange) -> None:
    expected = 0
    for endpoint, query, weight in (
        ("ping", {}, 1),
        ("time", {}, 1),
        ("klines", {"symbol": "BTCUSDT", "interval": "1h"}, 2),
        ("exchangeInfo", {}, 20),
        ("ticker/24hr", {}, 80),
        ("ticker/24hr", {"symbol": "BTCUSDT"}, 2),
    ):
        before = exchange.allowance.used
        _, headers, _ = await get(exchange, endpoint, **query)
        expected = weight if int(headers["X-MBX-USED-WEIGHT-1M"]) < before else expected + weight  # a minute may turn over
        assert int(headers["X-MBX-USED-WEIGHT-1M"]) == expected
    counts = exchange.counts()
    assert counts["total"] == 6
    assert counts["endpoint"]["klines"] == 1
    assert counts["symbol"] == {"BTC/USDT": 1}


async def test_beyond_the_limit_it_answers_429_and_says_when_to_come_back(market: GeneratedMarket) -> None:
    async with Exchange(market, StillClock(), weight_limit=10) as exchange:
        status, headers, body = await get(exchange, "exchangeInfo")
        assert (status, body["code"]) == (429, -1003)
        assert 1 <= int(headers["Retry-After"]) <= 60
        async with asynchronous(exchange) as client:
            with pytest.raises(ccxt.DDoSProtection, match="429"):
                await client.load_markets()


def test_who_goes_on_after_429_is_banned_and_a_new_minute_forgives_the_weight() -> None:
    allowance = Allowance(limit=100)
    assert allowance.charge(100, now=6030.0) == (200, 0.0)
    assert allowance.charge(1, now=6030.0) == (429, 30.0)
    for _ in range(PATIENCE - 1):
        allowance.charge(1, now=6031.0)
    assert allowance.charge(1, now=6032.0) == (418, BAN_SECONDS)
    assert allowance.charge(1, now=6062.0) == (418, BAN_SECONDS - 30)
    assert allowance.charge(1, now=6033.0 + BAN_SECONDS) == (200, 0.0)
    assert allowance.used == 1


# -- faults


async def first_klines(client: Any) -> Any:
    await client.load_markets()
    return await client.fetch_ohlcv("BTC/USDT", "1h", since=LAST - 20 * HOUR.ms, limit=10)


BROKEN: dict[str, tuple[float | None, type[Exception]]] = {
    "timeout": (None, ccxt.RequestTimeout),
    "reset": (None, ccxt.NetworkError),
    "cut": (None, ccxt.ExchangeError),
    "drip": (30, ccxt.RequestTimeout),
    "rate_limited": (7, ccxt.DDoSProtection),
    "banned": (9, ccxt.DDoSProtection),
    "server_error": (503, ccxt.ExchangeNotAvailable),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_request_is_ccxts_error_and_the_next_one_is_answered(kind: str, exchange: Exchange) -> None:
    value, error = BROKEN[kind]
    tries = 2 if kind == "reset" else 1  # aiohttp itself asks again where a kept connection is reset
    exchange.set_faults([Fault(kind, endpoints=("klines",), times=tries, value=value)])
    async with asynchronous(exchange, timeout=0.5) as client:
        with pytest.raises(error):
            await first_klines(client)
        assert len(await first_klines(client)) == 10
    assert exchange.counts()["fault"] == {kind: tries}


@pytest.mark.parametrize(("kind", "status"), [("rate_limited", 429), ("banned", 418)])
async def test_a_limiting_fault_says_when_to_come_back(kind: str, status: int, exchange: Exchange) -> None:
    exchange.set_faults([Fault(kind, value=7)])
    answered, headers, body = await get(exchange, "time")
    assert (answered, headers["Retry-After"], body["code"]) == (status, "7", -1003)


async def test_truncated_json_is_a_whole_response_that_cannot_be_read(exchange: Exchange) -> None:
    exchange.set_faults([Fault("truncated", endpoints=("klines",))])
    async with quick(exchange) as session, session.get("/api/v3/klines?symbol=BTCUSDT&interval=1h") as response:
        text = await response.text()
    assert response.status == 200
    assert text.startswith("[[")
    assert not text.endswith("]]")


@pytest.mark.parametrize("kind", ["truncated", "html"])
async def test_ccxt_takes_what_is_no_json_for_no_candles(kind: str, exchange: Exchange) -> None:
    """Why a collector must not believe an empty page: 200 with a web page in it looks like one."""
    exchange.set_faults([Fault(kind, endpoints=("klines",), times=1)])
    async with asynchronous(exchange) as client:
        assert await first_klines(client) == []
        assert len(await first_klines(client)) == 10


def high_below_low(rows: list[Any]) -> bool:
    return any(float(row[2]) < float(row[3]) for row in rows)


SPOILT: dict[str, Callable[[list[Any]], bool]] = {
    "wrong_types": lambda rows: any(row[1] == "soon" and row[2] is None for row in rows),
    "nan": lambda rows: any(row[4] == "NaN" for row in rows),
    "negative": lambda rows: any(float(row[4]) < 0 for row in rows),
    "inverted": high_below_low,
    "missing": lambda rows: len(rows) == 9,
    "doubled": lambda rows: len(rows) == 11 and len({row[0] for row in rows}) == 10,
    "disordered": lambda rows: [row[0] for row in rows] != sorted(row[0] for row in rows),
    "future": lambda rows: [row[0] for row in rows[-3:]] == [LAST + i * HOUR.ms for i in (1, 2, 3)],
    "unaligned": lambda rows: any(row[0] % HOUR.ms for row in rows),
}


@pytest.mark.parametrize("kind", SPOILT)
async def test_spoilt_rows_are_in_the_answer_and_gone_with_the_fault(kind: str, exchange: Exchange) -> None:
    query = {"symbol": "BTCUSDT", "interval": "1h", "startTime": LAST - 9 * HOUR.ms, "limit": 10}
    _, _, sound = await get(exchange, "klines", **query)
    assert not SPOILT[kind](sound)
    exchange.set_faults([Fault(kind, symbols=("BTC/USDT",))])
    assert SPOILT[kind]((await get(exchange, "klines", **query))[2])
    assert not SPOILT[kind]((await get(exchange, "klines", **{**query, "symbol": "ETHUSDT"}))[2])
    exchange.set_faults([])
    assert (await get(exchange, "klines", **query))[2] == sound


async def test_a_revised_candle_is_wrong_while_young_and_right_later(binance: Any, exchange: Exchange) -> None:
    truth = exchange.market.candles("BTC/USDT", LAST - HOUR.ms, LAST)[1][0].tolist()
    exchange.set_faults([Fault("revised", value=3600)])
    young = (await binance.fetch_ohlcv("BTC/USDT", "1h", since=LAST - HOUR.ms, limit=1))[0]
    assert young[4] != truth[3]
    assert young[2] >= young[4]
    at(exchange, LAST + HOUR.ms)
    assert (await binance.fetch_ohlcv("BTC/USDT", "1h", since=LAST - HOUR.ms, limit=1))[0][1:] == truth


async def test_a_skewed_clock_shows_in_the_server_time(binance: Any, exchange: Exchange) -> None:
    exchange.set_faults([Fault("skewed", value=-90_000)])
    assert await binance.fetch_time() == NOW - 90_000


async def test_while_the_exchange_refuses_nobody_listens_and_then_it_does_again(exchange: Exchange) -> None:
    await get(exchange, "ping")
    exchange.set_faults([Fault("refused", end=NOW + 1)])
    for _ in range(100):
        await asyncio.sleep(0.01)
        if exchange.faults.hits["refused"]:
            break
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(exchange, "ping")
    at(exchange, NOW + 1)
    for _ in range(100):
        await asyncio.sleep(0.01)
        try:
            assert (await get(exchange, "ping"))[0] == 200
            break
        except aiohttp.ClientConnectorError:
            continue
    else:
        pytest.fail("the exchange did not come back")


async def test_a_halted_coin_is_on_break_and_has_a_hole_that_stays(binance: Any, exchange: Exchange) -> None:
    begin, end = LAST - 10 * HOUR.ms, LAST - 5 * HOUR.ms
    exchange.set_faults([Fault("halted", symbols=("ETH/USDT",), start=begin, end=end)])
    rows = await binance.fetch_ohlcv("ETH/USDT", "1h", since=begin - HOUR.ms, limit=3)
    assert [row[0] for row in rows] == [begin - HOUR.ms, end, end + HOUR.ms]
    assert exchange.market.panel(("ETH/USDT",), begin, end).status.tolist() == [[NO_TRADE]] * 5
    for time_, active in ((begin - 1, True), (begin, False), (end - 1, False), (end, True)):
        at(exchange, time_)
        assert (await binance.load_markets(True))["ETH/USDT"]["active"] is active


async def test_a_delisted_coin_keeps_its_history_and_a_removed_one_is_unknown(binance: Any, exchange: Exchange) -> None:
    day = LAST - 24 * HOUR.ms
    exchange.set_faults([Fault("delisted", symbols=("ETH/USDT",), start=day), Fault("removed", symbols=("SOL/USDT",), start=day)])
    markets = await binance.load_markets()
    assert markets["ETH/USDT"]["active"] is False
    assert "SOL/USDT" not in markets
    assert (await binance.fetch_ohlcv("ETH/USDT", "1h", limit=5))[-1][0] == day - HOUR.ms
    assert exchange.market.panel(("ETH/USDT",), day - HOUR.ms, day + HOUR.ms).status.tolist() == [[CANDLE], [NOT_FETCHED]]
    assert (await get(exchange, "klines", symbol="SOLUSDT", interval="1h"))[2]["code"] == -1121


async def test_a_renamed_coin_goes_on_under_its_new_name_also_when_renamed_twice(exchange: Exchange, market: GeneratedMarket) -> None:
    first, second = LAST - 20 * HOUR.ms, LAST - 10 * HOUR.ms
    exchange.set_faults(
        [
            Fault("renamed", symbols=("SOL/USDT",), start=first, to="LUNA/USDT"),
            Fault("renamed", symbols=("LUNA/USDT",), start=second, to="TERRA/USDT"),
        ]
    )
    names = ("SOL/USDT", "LUNA/USDT", "TERRA/USDT")
    panel = exchange.market.panel(names, LAST - 30 * HOUR.ms, LAST)
    assert (panel.status == CANDLE).sum(axis=0).tolist() == [10, 10, 10]
    assert np.array_equal(np.nansum(panel.values, axis=1), market.panel(("SOL/USDT",), LAST - 30 * HOUR.ms, LAST).values[:, 0])
    assert [exchange.market.trading(name, NOW) for name in names] == [False, False, True]
    assert len((await get(exchange, "klines", symbol="TERRAUSDT", interval="1h"))[2]) == 11


async def test_a_redenominated_coin_has_other_prices_and_volumes_and_a_flat_one_stands_still(
    exchange: Exchange, market: GeneratedMarket
) -> None:
    begin = LAST - 3 * HOUR.ms
    exchange.set_faults(
        [
            Fault("redenominated", symbols=("ETH/USDT",), start=begin, value=1000),
            Fault("flat", symbols=("BTC/USDT",), start=begin, end=begin + 2 * HOUR.ms),
        ]
    )
    before = market.candles("ETH/USDT", begin, LAST)[1]
    after = exchange.market.candles("ETH/USDT", begin, LAST)[1]
    assert np.allclose(after[:, :4] * 1000, before[:, :4])
    assert np.allclose(after[:, 4], before[:, 4] * 1000)
    flat = exchange.market.candles("BTC/USDT", begin + HOUR.ms, LAST)[1]
    assert len(set(flat[0, :4])) == 1
    assert flat[0, 4] == 0
    assert flat[1, 4] > 0
    rows = (await get(exchange, "klines", symbol="ETHUSDT", interval="1h", startTime=begin, limit=3))[2]
    assert np.array_equal(np.array([[float(cell) for cell in row[1:6]] for row in rows]), after)


def test_faults_hit_with_their_probability_in_their_window_and_not_more_often_than_they_may() -> None:
    table = FaultTable([Fault("reset", probability=0.1, start=100, end=200)], seed=3)
    assert not any(table.strike("klines", "BTC/USDT", now) for now in (0, 99, 200))
    hits = sum(bool(table.strike("klines", "BTC/USDT", 150)) for _ in range(2000))
    assert 150 < hits < 250
    table.replace([Fault("reset", times=2)])
    assert [bool(table.strike("time", "", 0)) for _ in range(4)] == [True, True, False, False]


def test_every_fault_in_the_table_has_a_test_here() -> None:
    elsewhere = {"html", "truncated", "revised", "skewed", "refused"}
    assert {kind for kind, row in KINDS.items() if row.stage != "market"} == set(BROKEN) | set(SPOILT) | elsewhere


def test_faults_are_read_from_the_command_line_and_nonsense_is_refused() -> None:
    fault = parse_fault("timeout,probability=0.02,symbols=BTC/USDT+ETH/USDT,value=3")
    assert fault == Fault("timeout", probability=0.02, symbols=("BTC/USDT", "ETH/USDT"), value=3.0)
    for text in ("explosion", "timeout,probability=2", "timeout,colour=red", "timeout,probability=often", "halted", "renamed,symbols=A/B"):
        with pytest.raises(CryptodError, match=r"fault|probability|coin|symbol"):
            parse_fault(text)


# -- control


async def test_faults_are_set_and_requests_counted_through_the_control_endpoint(exchange: Exchange) -> None:
    async with quick(exchange) as session:
        async with session.post("/control/faults", json=[{"kind": "server_error", "value": 502, "endpoints": ["time"]}]) as response:
            assert response.status == 200
        assert (await session.get("/api/v3/time")).status == 502
        assert (await session.get("/api/v3/ping")).status == 200
        for nonsense in (
            '[{"kind":"explosion"}]',
            '[{"kind":"reset","colour":1}]',
            "{}",
            "not json",
            '[{"kind":"halted","symbols":["NO/SUCH"]}]',
        ):
            async with session.post("/control/faults", data=nonsense) as response:
                assert response.status == 400
                assert (await response.json())["error"]
        assert [fault["kind"] for fault in await (await session.get("/control/faults")).json()] == ["server_error"]
        counts = await (await session.get("/control/requests")).json()
        assert counts["status"] == {"502": 1, "200": 1}
        assert counts["fault"] == {"server_error": 1}
        assert (await session.delete("/control/requests")).status == 200
        assert (await (await session.get("/control/requests")).json())["total"] == 0


def test_it_listens_on_loopback_only(market: GeneratedMarket) -> None:
    with pytest.raises(ConfigError, match="does not listen"):
        Exchange(market, StillClock(), host="0.0.0.0")


async def test_a_port_that_is_taken_is_named(exchange: Exchange, market: GeneratedMarket) -> None:
    with pytest.raises(ConfigError, match=str(exchange.port)):
        async with Exchange(market, StillClock(), port=exchange.port):
            pass


async def test_it_stops_at_once_even_with_a_client_in_the_middle_of_a_fault(market: GeneratedMarket) -> None:
    exchange = Exchange(market, StillClock(), faults=[Fault("timeout", endpoints=("time",)), Fault("drip", endpoints=("ping",), value=60)])
    await exchange.start()
    async with quick(exchange) as session:
        waiting = [asyncio.create_task(session.get(f"/api/v3/{endpoint}")) for endpoint in ("time", "ping")]
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        await exchange.stop()
        assert time.monotonic() - begin < 1
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_backfill_of_many_coins_takes_little_of_the_servers_time(exchange: Exchange) -> None:
    begin = time.process_time()
    async with quick(exchange) as session:
        for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT"):
            for page in range(2):
                start = LAST - (2000 - page * 1000) * HOUR.ms
                async with session.get(f"/api/v3/klines?symbol={symbol}&interval=1h&limit=1000&startTime={start}") as response:
                    assert len(await response.read()) > 100_000
    # 100 coins of 4,380 hours are 50 times as many rows and may take 60 s of the collector's time
    assert time.process_time() - begin < 1.0


# -- the command


def test_the_command_says_where_it_listens_and_what_time_it_is_and_stops_on_sigterm() -> None:
    program = (
        "import argparse, sys; from cryptod.simulator import command; parser = argparse.ArgumentParser();"
        "command.add_arguments(parser); sys.exit(command.run(parser.parse_args()))"
    )
    arguments = ["--coins", "3", "--start", "2023-06-01", "--speed", "60", "--fault", "server_error,endpoints=ping"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    try:
        assert process.stdout is not None
        listening, clock_line = process.stdout.readline().split(), process.stdout.readline().split()
        assert listening[:2] == ["listening", "on"]
        clock = parse_clock(clock_line[1])
        with ccxt_at(listening[2]) as client:
            assert abs(client.fetch_time() - clock.now()) < 60_000
            assert 1_685_577_600_000 <= client.fetch_time() < 1_685_577_600_000 + HOUR.ms
            assert len(client.fetch_ohlcv("BTC/USDT", "1h", limit=1000)) == 1000
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert time.monotonic() - begin < 1
    finally:
        process.kill()
        process.communicate()


class ccxt_at:
    """A blocking ccxt binance pointed at a URL."""

    def __init__(self, url: str) -> None:
        self.client = ccxt.binance({"enableRateLimit": False, "options": {"fetchMarkets": {"types": ["spot"]}}})
        self.client.urls["api"] = {"public": f"{url}/api/v3"}

    def __enter__(self) -> Any:
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.session.close()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--start", "yesterday"], "is not a date"),
        (["--coins", "0"], "0 coins"),
        (["--speed", "0"], "above 0"),
        (["--history-days", "0"], "at least 1"),
        (["--candles", "/nonexistent"], "no candles"),
        (["--fault", "explosion"], "no fault 'explosion'"),
        (["--clock", "noon"], "clock 'noon'"),
        (["--port", "99999", "--coins", "1"], "cannot listen on 127.0.0.1:99999"),
    ],
)
def test_arguments_that_cannot_be_end_with_a_sentence(options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args(options)) == 1
    assert complaint in capsys.readouterr().err
