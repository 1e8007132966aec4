"""ccxt behind one file: recorded answers of real exchanges, trouble and how it is told, manners towards the exchange."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cryptod.errors import ExchangeError
from cryptod.examination import examine
from cryptod.ingest import exchange as module
from cryptod.ingest.exchange import Exchange, UnknownSymbol
from cryptod.market import HOUR, Timeframe

NOW = 1_607_277_316_000  # when the recorded candles were asked for: 2020-12-06 17:55:16
BTC = {"BTC/USDT": {"id": "BTCUSDT", "symbol": "BTC/USDT", "base": "BTC", "quote": "USDT", "type": "spot", "spot": True, "active": True}}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def recorded(name: str) -> bytes:
    """A recorded answer, or a skip where the shared recordings are not at hand."""
    candles = os.environ.get("CRYPTOD_CANDLES")
    if not candles:
        pytest.skip("CRYPTOD_CANDLES is not set: recorded answers of exchanges lie beside it")
    folder = Path(candles).resolve().parent.parent / "exchange-responses"
    if not (folder / name).exists():
        pytest.skip(f"{folder} has no {name}")
    content = (folder / name).read_bytes()
    return gzip.decompress(content) if name.endswith(".gz") else content


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.002)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """The address of a server that answers everything with ``handler``."""
    application = web.Application()
    application.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def answers(*replies: tuple[int, bytes | str, dict[str, str]]) -> tuple[Handler, list[str]]:
    """A handler that gives these (status, body, headers) one after the other, the last one for ever; and what was asked."""
    left, asked = list(replies), []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        status, body, headers = left.pop(0) if len(left) > 1 else left[0]
        body = body if isinstance(body, bytes) else body.encode()
        return web.Response(status=status, body=body, headers={"Content-Type": "application/json", **headers})

    return handle, asked


def by_path(replies: dict[str, bytes]) -> tuple[Handler, list[str]]:
    asked: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        return web.Response(body=replies[request.path], headers={"Content-Type": "application/json"})

    return handle, asked


def kline(open_time: int) -> list[Any]:
    return [open_time, "10.0", "12.0", "9.0", "11.0", "5.0", open_time + HOUR.ms - 1, "50.0", 3, "1.0", "10.0", "0"]


GOOD = json.dumps([kline(NOW - NOW % HOUR.ms - HOUR.ms)])


async def candles(url: str, **options: Any) -> tuple[list[list[Any]], Exchange]:
    async with Exchange("binance", url, **options) as exchange:
        exchange.use_markets(BTC)
        return await exchange.candles("BTC/USDT", HOUR, NOW - 2 * HOUR.ms, 3), exchange


# What real exchanges answered


async def test_binance_as_recorded() -> None:
    handler, asked = by_path({"/api/v3/exchangeInfo": recorded("binance_symbols.json.gz"), "/api/v3/klines": recorded("binance_ohlc.json")})
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        trading = await exchange.load_markets()
        assert trading["BTC/USDT"] is True
        assert trading["BCC/USDT"] is False
        assert asked == ["/api/v3/exchangeInfo"]  # spot, public, and nothing else
        rows = await exchange.candles("BTC/USDT", HOUR, 0, 500)
        assert asked[1] == "/api/v3/klines?interval=1h&limit=500&symbol=BTCUSDT&startTime=0"
        answer = examine(rows, NOW, HOUR)
        assert (len(rows), len(answer.open_times), answer.refused) == (500, 499, {})  # the last one is still open
        assert answer.open_times[-1] == NOW - NOW % HOUR.ms - HOUR.ms
        assert exchange.page == 1000


async def test_a_later_exchange_info_of_binance_as_recorded() -> None:
    handler, _ = by_path({"/api/v3/exchangeInfo": recorded("binancer_spot_exchange_info.json.gz")})
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        trading = await exchange.load_markets()
        assert sum(trading.values()) > 1000
        records = exchange.records(["BTC/USDT", "NO/SUCH"])
        assert list(records) == ["BTC/USDT"]
        assert len(json.dumps(records)) < 800


async def test_kraken_as_recorded_with_its_unclosed_last_candle_and_its_720_rows() -> None:
    handler, asked = by_path({"/0/public/OHLC": recorded("kraken_ohlc.json")})
    async with serving(handler) as url, Exchange("kraken", url) as exchange:
        exchange.use_markets({"BTC/USD": {**BTC["BTC/USDT"], "id": "XXBTZUSD", "symbol": "BTC/USD", "quote": "USD"}})
        assert exchange.page == 720
        rows = await exchange.candles("BTC/USD", HOUR, 0, 720)
        assert asked[-1].startswith("/0/public/OHLC?pair=XXBTZUSD&interval=60")
        last = int(rows[-1][0])
        answer = examine(rows, last + 10 * 60_000, HOUR)
        assert (answer.rows, len(answer.open_times), answer.last, answer.refused) == (720, 719, last, {})


async def test_coinbase_as_recorded_newest_first_and_low_before_high() -> None:
    daily = Timeframe("1d", 24 * HOUR.ms)
    products = [product for product in json.loads(recorded("cryptofeed_coinbase_0.json")) if product["id"] == "BTC-USD"]
    handler, asked = by_path(
        {"/products": json.dumps(products).encode(), "/products/BTC-USD/candles": recorded("davinsonr_coinbase_candles.json")}
    )
    async with serving(handler) as url, Exchange("coinbaseexchange", url) as exchange:
        assert await exchange.load_markets() == {"BTC/USD": True}
        rows = await exchange.candles("BTC/USD", daily, 1_785_542_400_000, exchange.page)
        answer = examine(rows, 1_786_320_000_000 + daily.ms, daily)
        assert (len(answer.open_times), answer.refused) == (10, {})
        assert answer.values[-1].tolist() == [64848.68, 65341.83, 63733.03, 63911.88, 6197.02944527]
        assert "start=" in asked[-1]
        assert exchange.page == 300


# Questions


async def test_its_time_is_told() -> None:
    handler, _ = answers((200, '{"serverTime": 1607277316000}', {}))
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        assert await exchange.time() == NOW


async def test_markets_that_were_kept_need_not_be_asked_for_again() -> None:
    handler, asked = answers((200, GOOD, {}))
    async with serving(handler) as url:
        rows, exchange = await candles(url)
        assert [len(row) for row in rows] == [6]
        assert (len(asked), exchange.requests) == (1, 1)
        assert exchange.records(["BTC/USDT"])["BTC/USDT"]["id"] == "BTCUSDT"


async def test_the_last_day_of_all_pairs_has_figures_or_noughts() -> None:
    tickers = [
        {"symbol": "BTCUSDT", "lastPrice": "100", "highPrice": "110", "lowPrice": "90", "quoteVolume": "5000", "volume": "50"},
        {"symbol": "ETHUSDT", "lastPrice": "10", "highPrice": None, "lowPrice": "NaN", "quoteVolume": None, "volume": "3"},
    ]
    handler, asked = answers((200, json.dumps(tickers), {}))
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        exchange.use_markets({**BTC, "ETH/USDT": {**BTC["BTC/USDT"], "id": "ETHUSDT", "symbol": "ETH/USDT", "base": "ETH"}})
        days = await exchange.last_day({"BTC/USDT": True, "ETH/USDT": True}, "USDT", NOW)
        assert asked == ["/api/v3/ticker/24hr"]
        assert (days["BTC/USDT"].quote_volume, days["BTC/USDT"].high) == (5000.0, 110.0)
        assert (days["ETH/USDT"].quote_volume, days["ETH/USDT"].low) == (30.0, 0.0)


def test_an_exchange_that_ccxt_does_not_know_is_named() -> None:
    with pytest.raises(ExchangeError, match="there is no exchange 'binnance' in ccxt"):
        Exchange("binnance")


# Trouble


@pytest.mark.parametrize(
    "trouble",
    [
        (500, "oops", {}),
        (502, "<html>Bad Gateway</html>", {"Content-Type": "text/html"}),
        (200, "<html>welcome to the wifi</html>", {"Content-Type": "text/html"}),
        (200, GOOD[:40], {}),
        (200, "", {}),
        (200, "NaN", {}),
        (200, '[{"open": 1}]', {}),
        (200, "[[]]", {}),
        (200, '[["soon", "later"]]', {}),
        (200, "17", {}),
        (404, "not here", {}),
        (200, '{"code": -1001, "msg": "DISCONNECTED"}', {}),
        (503, '{"code": -1000, "msg": "An unknown error occurred"}', {}),
    ],
)
async def test_trouble_that_passes_is_tried_again(trouble: tuple[int, str, dict[str, str]]) -> None:
    handler, asked = answers(trouble, (200, GOOD, {}))
    async with serving(handler) as url:
        rows, exchange = await candles(url)
    sound = examine(rows, NOW, HOUR)
    assert len(sound.open_times) == 1 if len(asked) == 2 else not len(sound.open_times)
    assert exchange.requests == len(asked)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ((503, "down", {}), "HTTP status 503"),
        ((200, "{", {}), "answered nonsense: not JSON"),
    ],
)
async def test_trouble_that_stays_is_told_after_four_attempts(trouble: tuple[int, str, dict[str, str]], said: str) -> None:
    handler, asked = answers(trouble)
    async with serving(handler) as url:
        with pytest.raises(ExchangeError, match="binance was asked for candles of BTC/USDT") as caught:
            await candles(url)
    assert said in caught.value.message
    assert len(asked) == module.ATTEMPTS


async def test_nobody_there_is_told_with_the_reason() -> None:
    with pytest.raises(ExchangeError, match=r"binance cannot be reached: .*Connect call failed"):
        await candles("http://127.0.0.1:9")


async def test_an_answer_that_does_not_come_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_MS", 50)
    monkeypatch.setattr(module, "ATTEMPTS", 2)

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"[")
        await asyncio.sleep(5)
        return response

    async with serving(handle) as url:
        with pytest.raises(ExchangeError, match="did not answer in"):
            await candles(url)


async def test_a_connection_that_is_cut_in_the_middle_of_an_answer_is_tried_again() -> None:
    asked: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        response = web.StreamResponse(headers={"Content-Length": str(len(GOOD))})
        await response.prepare(request)
        await response.write(GOOD.encode() if len(asked) > 1 else GOOD[:30].encode())
        if len(asked) == 1:
            assert request.transport is not None
            request.transport.abort()
        return response

    async with serving(handle) as url:
        rows, _ = await candles(url)
    assert (len(rows), len(asked)) == (1, 2)


async def test_a_pair_that_the_exchange_does_not_know_is_told_apart_and_not_asked_for_again() -> None:
    handler, asked = answers((400, '{"code": -1121, "msg": "Invalid symbol."}', {}))
    async with serving(handler) as url:
        with pytest.raises(UnknownSymbol, match="does not know it"):
            await candles(url)
    assert len(asked) == 1


async def test_a_refusal_for_good_is_not_tried_again() -> None:
    handler, asked = answers((400, '{"code": -1102, "msg": "Mandatory parameter was not sent."}', {}))
    async with serving(handler) as url:
        with pytest.raises(ExchangeError, match="Mandatory parameter"):
            await candles(url)
    assert len(asked) == 1


# Manners


async def test_a_429_is_waited_for_as_long_as_it_says() -> None:
    handler, asked = answers((429, "{}", {"Retry-After": "1"}), (200, GOOD, {}))
    heard: list[str] = []
    began = time.monotonic()
    async with serving(handler) as url:
        rows, _ = await candles(url, on_wait=heard.append)
    assert time.monotonic() - began >= 1.0
    assert (len(rows), len(asked), heard) == (1, 2, ["binance asks to wait for 1 s"])


async def test_a_429_for_longer_than_our_patience_ends_the_run_and_says_when_to_come_back() -> None:
    handler, asked = answers((429, "{}", {"retry-after": "55"}))
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        for _ in range(3):
            with pytest.raises(ExchangeError, match="asks for fewer requests") as caught:
                await exchange.time()
        assert caught.value.retry_after == 55
        assert exchange.blocked is caught.value
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("status", "headers", "seconds"), [(418, {"Retry-After": "120"}, 120), (418, {}, 300), (403, {"Retry-After": "soon"}, 300)]
)
async def test_a_ban_ends_the_run_at_once_for_whoever_still_asks(status: int, headers: dict[str, str], seconds: float) -> None:
    handler, asked = answers((status, "{}", headers))
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        exchange.use_markets(BTC)
        questions = [exchange.candles("BTC/USDT", HOUR, NOW, 3) for _ in range(20)]
        errors = await asyncio.gather(*questions, return_exceptions=True)
    assert {type(error) for error in errors} == {ExchangeError}
    assert {error.retry_after for error in errors if isinstance(error, ExchangeError)} == {seconds}
    assert len(asked) <= 3  # those that were under way when the ban was heard


async def test_a_limit_that_is_said_in_the_text_counts_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNSAID_WAIT", 0.0)
    handler, asked = answers((200, '{"error": ["EGeneral:Temporary lockout"]}', {}), (200, '{"error": [], "result": {"unixtime": 1}}', {}))
    async with serving(handler) as url, Exchange("kraken", url) as exchange:
        assert await exchange.time() == 1000
    assert len(asked) == 2


async def test_an_exchange_that_nobody_reaches_is_not_asked_for_ever() -> None:
    handler, asked = answers((500, "", {}))
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        for _ in range(10):
            with pytest.raises(ExchangeError):
                await exchange.time()
        assert exchange.blocked is not None
        assert exchange.blocked.retry_after is None
    assert len(asked) == module.GIVE_UP_AFTER * module.ATTEMPTS


async def test_requests_are_spaced_as_the_exchange_wants_it() -> None:
    handler, asked = answers((200, GOOD, {}))
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        exchange.use_markets(BTC)
        began = time.monotonic()
        await asyncio.gather(*(exchange.candles("BTC/USDT", HOUR, NOW, 3) for _ in range(21)))
        assert time.monotonic() - began >= 0.35  # 20 ms each: a tenth of the weight that Binance allows would be 10 ms
    assert len(asked) == 21


# Weight


def imports(code: str) -> Iterator[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return iter(done.stdout.split())


def test_one_exchange_does_not_load_the_code_of_all_others() -> None:
    code = """
import sys
from cryptod.ingest.exchange import Exchange
for name in ("binance", "kraken", "coinbase"):
    Exchange(name)
print(sum(name.startswith("ccxt.async_support.") and name.count(".") == 2 for name in sys.modules))
import ccxt.async_support as ccxt
assert isinstance(Exchange("binance")._client, ccxt.binance)
print(ccxt.kraken().id)
"""
    modules, name = imports(code)
    assert int(modules) < 8
    assert name == "kraken"


# Blocks, and words that an exchange chooses


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (451, '{"code": 0, "msg": "Service unavailable from a restricted location according to b. Eligibility."}'),
        (451, ""),
        (403, "<html>The Amazon CloudFront distribution is configured to block access from your country.</html>"),
        (403, '{"error": "not available in your region"}'),
    ],
)
async def test_a_country_that_is_not_served_is_named_as_such(status: int, body: str) -> None:
    handler, asked = answers((status, body, {}))
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        with pytest.raises(ExchangeError, match=rf"binance does not serve this country or network \(status {status}\)") as caught:
            await exchange.time()
    assert "exchange.id" in caught.value.hint
    assert caught.value.retry_after == 3600
    assert len(asked) == 1


async def test_a_403_without_a_place_may_be_a_ban_or_a_country() -> None:
    handler, _ = answers((403, "<html>Forbidden</html>", {}))
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        with pytest.raises(ExchangeError, match="refuses this address: a ban, or it does not serve this country") as caught:
            await exchange.time()
    assert caught.value.retry_after == 300


async def test_an_exchanges_words_are_cleaned_and_cut_in_an_error() -> None:
    hostile = "\x1b]0;owned\x07\x9b31m\u202e" + "x" * 10_000
    handler, _ = answers(
        (400, json.dumps({"code": -1, "msg": hostile}), {}), (400, '{"code": -1, "msg": "\u202e' + "y" * 10_000 + '"}', {})
    )
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        for _ in range(2):
            with pytest.raises(ExchangeError) as caught:
                await exchange.time()
            assert caught.value.message.isprintable()
            assert len(caught.value.message) < 300


async def test_pairs_with_hostile_names_are_left_out_at_the_border() -> None:
    names = ["BTC", "\x1b]0;owned\x07", "EVIL\u202e", "A" * 10_000, "币安人生", "<img src=x>"]
    symbols = [{"symbol": f"N{n}", "status": "TRADING", "baseAsset": name, "quoteAsset": "USDT"} for n, name in enumerate(names)]
    handler, _ = answers((200, json.dumps({"symbols": symbols}), {}))
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        assert sorted(await exchange.load_markets()) == ["BTC/USDT", "币安人生/USDT"]


async def test_a_time_that_is_no_number_is_not_repeated_in_full() -> None:
    handler, _ = answers((200, json.dumps({"serverTime": "\x1b[31m" + "9" * 10_000}), {}))
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        with pytest.raises(ExchangeError) as caught:
            await exchange.time()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


# Proxies


def proxies(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that answers for every host with a clock, and what it was asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(str(request.url))
        return web.json_response({"serverTime": NOW})

    async with serving(answer) as address:
        yield address, asked


async def test_an_exchange_is_asked_through_the_proxy_of_the_setting_or_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = "http://exchange.invalid"
    async with proxy() as (address, asked):
        proxies(monkeypatch)
        async with Exchange("binance", elsewhere, proxy=address) as exchange:
            assert await exchange.time() == NOW
        proxies(monkeypatch, HTTP_PROXY=address)
        async with Exchange("binance", elsewhere) as exchange:
            assert await exchange.time() == NOW
        proxies(monkeypatch, HTTP_PROXY="http://127.0.0.1:9")
        async with Exchange("binance", elsewhere, proxy=address) as exchange:
            assert await exchange.time() == NOW, "the setting comes before the environment"
        assert asked == ["http://exchange.invalid/api/v3/time"] * 3


async def test_the_environment_s_proxy_is_left_out_for_this_machine_and_where_no_proxy_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy() as (address, asked), proxy() as (local, reached):
        proxies(monkeypatch, HTTP_PROXY=address)
        async with Exchange("binance", local) as exchange:
            assert await exchange.time() == NOW
        assert (asked, reached) == ([], [f"{local}/api/v3/time"])
        proxies(monkeypatch, HTTP_PROXY=address, NO_PROXY="exchange.invalid")
        async with Exchange("binance", "http://exchange.invalid") as exchange:
            with pytest.raises(ExchangeError, match="binance cannot be reached: "):
                await exchange.time()
        assert asked == []


async def test_a_proxy_that_does_not_answer_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies(monkeypatch)
    async with Exchange("binance", "http://exchange.invalid", proxy="http://127.0.0.1:9") as exchange:
        with pytest.raises(ExchangeError, match="cannot be reached through the proxy") as told:
            await exchange.time()
    assert "exchange.proxy" in told.value.hint


async def test_a_time_in_seconds_is_read_as_one() -> None:
    handler, _ = answers((200, '{"iso": "2025-07-20T15:12:13.466Z", "epoch": 1753024333.466}', {}))
    async with serving(handler) as url, Exchange("dydx", url, "swap") as exchange:
        assert await exchange.time() == 1_753_024_333_000


# An exchange without volumes


async def test_where_no_volumes_are_told_a_day_of_candles_of_each_pair_tells_them() -> None:
    open_time = NOW - NOW % HOUR.ms - HOUR.ms

    async def handle(request: web.Request) -> web.Response:
        if request.path == "/api/v3/ticker/24hr":
            return web.json_response([])
        if request.query["symbol"] == "ETHUSDT":
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        return web.json_response([kline(open_time)])

    said: list[str] = []
    async with serving(handle) as url, Exchange("binance", url, on_wait=said.append) as exchange:
        exchange.use_markets({**BTC, "ETH/USDT": {**BTC["BTC/USDT"], "id": "ETHUSDT", "symbol": "ETH/USDT", "base": "ETH"}})
        days = await exchange.last_day(
            {"BTC/USDT": True, "ETH/USDT": True, "OLD/USDT": False, "BTC/EUR": True}, "USDT", open_time + HOUR.ms
        )
    assert {symbol: day.quote_volume for symbol, day in days.items()} == {"BTC/USDT": 55.0, "ETH/USDT": 0.0}
    assert said == ["binance tells no volumes: 2 pairs are asked for a day of candles each"]


async def test_an_exchange_without_volumes_and_with_too_many_pairs_asks_for_names() -> None:
    handler, _ = answers((200, "[]", {}))
    async with serving(handler) as url, Exchange("binance", url) as exchange:
        exchange.use_markets(BTC)
        with pytest.raises(ExchangeError, match="tells no volumes of its 601 pairs") as caught:
            await exchange.last_day({f"A{n}/USDT": True for n in range(601)}, "USDT", NOW)
    assert "universe.include" in caught.value.hint
