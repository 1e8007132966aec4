"""The exchange's HTTP server: routes, request weights, faults, and a control endpoint for tests. Loopback only.

Knows sockets and HTTP (aiohttp) and asks a `Market` and a `Clock`. What the answers look like is the business of `binance`, what
goes wrong that of `faults` and `events`.

    GET  /api/v3/{ping,time,exchangeInfo,klines,ticker/24hr}      the public spot API
    GET  /{fapi,dapi,eapi}/v1/exchangeInfo                        no derivatives are listed here
    GET  /control/requests        what was asked so far           DELETE  start counting anew
    GET  /control/faults          the faults in force             POST    a JSON list of faults replaces them
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import numpy as np
from aiohttp import web

from cryptod.clock import Clock
from cryptod.errors import ConfigError, CryptodError
from cryptod.market import CANDLE, CLOSE, HIGH, HOUR, LOW, OPEN, VOLUME, Float64, Int64
from cryptod.simulator import binance
from cryptod.simulator.events import EventfulMarket
from cryptod.simulator.faults import FOREVER, Fault, FaultTable, Stage
from cryptod.simulator.listing import Listing, Market, unclosed

PATIENCE: Final = 50
"""Requests that may be refused with 429 in a minute before the address is banned."""
BAN_SECONDS: Final = 120
LISTENER_TURN: Final = 0.02  # real seconds between looks at whether the listener should be there

_PARAMETERS: Final = {
    "klines": {"symbol", "interval", "startTime", "endTime", "timeZone", "limit"},
    "exchangeInfo": {"symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"},
    "ticker/24hr": {"symbol", "symbols", "type", "symbolStatus"},
    "time": set[str](),
    "ping": set[str](),
}
_SYMBOL_PATTERN: Final = "^[A-Z0-9-_.]{1,20}$"
_HTML: Final = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center><h1>502 Bad Gateway</h1></center></body>\r\n</html>\r\n"
)


class Allowance:
    """Request weight used in the current real minute, and the ban of those who do not stop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = self.refused = self.peak = 0
        self._minute = -1
        self._banned_until = 0.0

    def charge(self, weight: int, now: float) -> tuple[int, float]:
        """(HTTP status, Retry-After seconds) of a request of ``weight`` at ``now`` (monotonic seconds)."""
        if now < self._banned_until:
            return 418, self._banned_until - now
        if int(now // 60) != self._minute:
            self._minute, self.used, self.refused = int(now // 60), 0, 0
        self.used += weight
        self.peak = max(self.peak, self.used)
        if self.used <= self.limit:
            return 200, 0.0
        self.refused += 1
        if self.refused > PATIENCE:
            self._banned_until = now + BAN_SECONDS
            return 418, float(BAN_SECONDS)
        return 429, 60 - now % 60


class Exchange:
    """An exchange in this process's event loop: ``async with Exchange(market, clock) as exchange: exchange.url``.

    ``market`` afterwards is the truth with the market-changing faults in it. ``weight_limit`` is per real minute.
    """

    def __init__(
        self,
        market: Market,
        clock: Clock,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        faults: Iterable[Fault] = (),
        seed: int = 1,
        weight_limit: int = binance.WEIGHT_LIMIT,
    ) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ConfigError(
                f"the simulated exchange does not listen on {host}", hint="only on loopback: it has a control endpoint without a lock"
            )
        self.clock, self.host, self.port = clock, host, port
        self.faults = FaultTable(seed=seed)
        self.allowance = Allowance(weight_limit)
        self.requests: Counter[str] = Counter()
        self._base = market
        self._days: tuple[int, tuple[Listing, ...], Float64, Float64] | None = None
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._listener: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        self.set_faults(faults)

    @property
    def url(self) -> str:
        return f"http://{self.host if ':' not in self.host else f'[{self.host}]'}:{self.port}"

    @property
    def api_urls(self) -> dict[str, str]:
        """What ccxt's ``binance`` keeps in ``urls["api"]``, pointed here."""
        hosts = {"public": "/api/v3", "private": "/api/v3", "v1": "/api/v1", "sapi": "/sapi/v1"}
        hosts |= {f"{kind}apiPublic": f"/{kind}api/v1" for kind in "fde"}
        return {name: self.url + path for name, path in hosts.items()}

    def set_faults(self, faults: Iterable[Fault]) -> None:
        """Replace the faults in force; those of the market change `market`."""
        self.faults.replace(faults)
        events = self.faults.of_stage("market")
        self.market: Market = EventfulMarket(self._base, events) if events else self._base
        self._symbols = {listing.market_id: listing for listing in self.market.listings}
        self._days = None

    def counts(self) -> dict[str, Any]:
        """What `/control/requests` says: requests by endpoint, status, symbol (of klines) and fault, and the weight used."""
        parts: dict[str, Any] = {part: {} for part in ("endpoint", "status", "symbol")}
        for name, number in self.requests.items():
            part, _, rest = name.partition(":")
            parts[part][rest] = number
        weight = {"used": self.allowance.used, "peak": self.allowance.peak, "limit": self.allowance.limit}
        return {"total": sum(parts["endpoint"].values()), **parts, "fault": dict(self.faults.hits), "weight": weight}

    async def __aenter__(self) -> Exchange:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises `ConfigError` if the port cannot be had."""
        application = web.Application()
        application.router.add_get("/control/requests", self._control_requests)
        application.router.add_delete("/control/requests", self._control_forget)
        application.router.add_get("/control/faults", self._control_faults)
        application.router.add_post("/control/faults", self._control_set_faults)
        application.router.add_get("/{path:.*}", self._answer)
        self._stopped.clear()
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handle_signals=False)
        await self._runner.setup()
        await self._listen()
        self._listener = asyncio.create_task(self._keep_listener())

    async def stop(self) -> None:
        """Close everything, also connections in the middle of a slow fault."""
        self._stopped.set()
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = self._site = self._listener = None

    async def _listen(self) -> None:
        assert self._runner is not None
        site = web.TCPSite(self._runner, self.host, self.port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self.host}:{self.port}: {error.strerror}", hint="choose another port, or 0 for any"
            ) from error
        self._site = site
        self.port = self._runner.addresses[0][1]

    async def _keep_listener(self) -> None:
        """Take the listener away while a "refused" fault is in its window, and put it back afterwards."""
        while True:
            await asyncio.sleep(LISTENER_TURN)
            refused = self.faults.active("refused", self.clock.now())
            if refused and self._site is not None:
                await self._site.stop()
                self._site = None
                assert self._runner is not None
                assert self._runner.server is not None
                for connection in self._runner.server.connections:
                    if connection.transport is not None:
                        connection.transport.abort()
                self.faults.hits["refused"] += 1
            elif not refused and self._site is None:
                await self._listen()

    # -- one request

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        endpoint = path.removeprefix("api/v3/")
        market_id = request.query.get("symbol", "")
        listing = self._symbols.get(market_id)
        self.requests[f"endpoint:{endpoint}"] += 1
        if endpoint == "klines" and listing is not None:
            self.requests[f"symbol:{listing.symbol}"] += 1
        struck = self.faults.strike(endpoint, listing.symbol if listing else "", self.clock.now())
        if fault := struck.get("connection"):
            return await self._break(request, fault.amount if fault.kind == "timeout" else 0.0)
        status, body, headers = self._reply(path, endpoint, request.query, struck)
        self.requests[f"status:{status}"] += 1
        headers["X-MBX-USED-WEIGHT"] = headers["X-MBX-USED-WEIGHT-1M"] = str(self.allowance.used)
        headers.setdefault("Content-Type", "application/json;charset=UTF-8")
        if (fault := struck.get("body")) is not None:
            if fault.kind != "truncated":
                return await self._slowly(request, status, body, headers, fault)
            body = body[: int(len(body) * fault.amount)]
        return web.Response(status=status, body=body, headers=headers)

    def _reply(
        self, path: str, endpoint: str, query: Mapping[str, str], struck: Mapping[Stage, Fault]
    ) -> tuple[int, bytes, dict[str, str]]:
        """(status, body, headers) of a request, with the faults of the stages answer, clock and rows."""
        now = self.clock.now() + (int(struck["clock"].amount) if "clock" in struck else 0)
        asked = query.get("symbols")
        weight = binance.weight(endpoint, 1 if "symbol" in query else asked.count(",") + 1 if asked else None)
        status, wait = self.allowance.charge(weight, time.monotonic())
        if fault := struck.get("answer"):
            if fault.kind in ("html", "server_error"):
                return int(fault.amount), _HTML, {"Content-Type": "text/html"}
            status, wait = (429 if fault.kind == "rate_limited" else 418), fault.amount
        try:
            if status == 429:
                raise binance.too_much(self.allowance.limit)
            if status == 418:
                raise binance.banned(now + int(wait * 1000))
            if path in ("fapi/v1/exchangeInfo", "dapi/v1/exchangeInfo", "eapi/v1/exchangeInfo"):
                return 200, binance.exchange_info((), now, self.allowance.limit), {}
            if not path.startswith("api/v3/") or endpoint not in _PARAMETERS:
                return 404, _HTML.replace(b"502 Bad Gateway", b"404 Not Found"), {"Content-Type": "text/html"}
            if extra := set(query) - _PARAMETERS[endpoint]:
                raise binance.unknown_parameters(len(query) - len(extra), len(query))
            body = self._public(endpoint, query, now)
            return 200, self.faults.spoil(struck["rows"], body, now) if "rows" in struck else body, {}
        except binance.Refusal as refusal:
            return refusal.status, refusal.body(), {"Retry-After": str(max(1, round(wait)))} if wait else {}

    def _public(self, endpoint: str, query: Mapping[str, str], now: int) -> bytes:
        match endpoint:
            case "klines":
                return self._klines(query, now)
            case "exchangeInfo":
                listings = self._asked(query, now)
                return binance.exchange_info([(one, self.market.trading(one.symbol, now)) for one in listings], now, self.allowance.limit)
            case "ticker/24hr":
                tickers = self._tickers(self._asked(query, now), now)
                return msgspec.json.encode(tickers[0] if "symbol" in query else tickers)
            case "time":
                return msgspec.json.encode({"serverTime": now})
            case _:
                return b"{}"

    def _listed(self, listing: Listing, now: int) -> bool:
        return listing.first <= now and not (isinstance(self.market, EventfulMarket) and self.market.removed(listing.symbol, now))

    def _listing(self, market_id: str, now: int) -> Listing:
        if not market_id:
            raise binance.missing("symbol")
        if (
            len(market_id) > 20
            or not market_id.replace("-", "").replace("_", "").replace(".", "").isalnum()
            or market_id != market_id.upper()
        ):
            raise binance.illegal("symbol", _SYMBOL_PATTERN)
        listing = self._symbols.get(market_id)
        if listing is None or not self._listed(listing, now):
            raise binance.INVALID_SYMBOL
        return listing

    def _asked(self, query: Mapping[str, str], now: int) -> tuple[Listing, ...]:
        """The pairs that ``symbol`` or ``symbols`` name, or all that are listed."""
        if "symbol" in query:
            return (self._listing(query["symbol"], now),)
        if "symbols" in query:
            try:
                names = msgspec.json.decode(query["symbols"], type=list[str])
            except msgspec.DecodeError as error:
                raise binance.illegal("symbols", '^\\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\\]$') from error
            return tuple(self._listing(name, now) for name in names)
        return tuple(listing for listing in self.market.listings if self._listed(listing, now))

    def _klines(self, query: Mapping[str, str], now: int) -> bytes:
        listing = self._listing(query.get("symbol", ""), now)
        if not query.get("interval"):
            raise binance.missing("interval")
        if query["interval"] != HOUR.name:
            raise binance.INVALID_INTERVAL
        limit = min(_integer(query, "limit", binance.DEFAULT_KLINES), binance.MAX_KLINES)
        if limit < 1:
            raise binance.INVALID_LIMIT
        last = HOUR.floor(now)
        end = min(_integer(query, "endTime", FOREVER), last) + 1
        if "startTime" in query:
            start = max(_integer(query, "startTime", 0), listing.first)
            times, values = self._forward(listing, start, end, limit)
        else:
            times, values = self._backward(listing, end, limit)
        if len(times) and times[-1] == last:
            values = values.copy()
            values[-1] = unclosed(values[-1], (now - last) / HOUR.ms, listing.price_tick, listing.lot)
        return binance.klines(times, values)

    def _forward(self, listing: Listing, start: int, end: int, limit: int) -> tuple[Int64, Float64]:
        """The first ``limit`` candles that open in [start, end), however long the holes are."""
        span = limit * HOUR.ms
        while True:
            times, values = self.market.candles(listing.symbol, start, min(end, start + span))
            if len(times) >= limit or start + span >= end:
                return times[:limit], values[:limit]
            span *= 4

    def _backward(self, listing: Listing, end: int, limit: int) -> tuple[Int64, Float64]:
        """The last ``limit`` candles that open before ``end``."""
        span = limit * HOUR.ms
        while True:
            times, values = self.market.candles(listing.symbol, max(listing.first, end - span), end)
            if len(times) >= limit or end - span <= listing.first:
                return times[-limit:], values[-limit:]
            span *= 4

    def _tickers(self, listings: tuple[Listing, ...], now: int) -> list[dict[str, Any]]:
        """Statistics of the 23 closed hours before the current one and of what has passed of it."""
        last = HOUR.floor(now)
        if self._days is None or self._days[0] != last:
            everyone = self.market.listings
            panel = self.market.panel(tuple(listing.symbol for listing in everyone), last - 23 * HOUR.ms, last + HOUR.ms)
            self._days = (last, everyone, panel.values, np.where(panel.status == CANDLE, 1.0, 0.0))
        _, everyone, hours, present = self._days
        places = {listing.symbol: place for place, listing in enumerate(everyone)}
        fraction = (now - last) / HOUR.ms
        tickers = []
        for listing in listings:
            place = places[listing.symbol]
            rows = hours[present[:, place] > 0, place]
            if present[-1, place]:
                rows[-1] = unclosed(rows[-1], fraction, listing.price_tick, listing.lot)
            day = binance.Day(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
            if len(rows):
                quote_volume = float((rows[:, VOLUME] * rows[:, : CLOSE + 1].mean(axis=1)).sum())
                extremes = float(rows[:, HIGH].max()), float(rows[:, LOW].min())
                day = binance.Day(float(rows[0, OPEN]), *extremes, float(rows[-1, CLOSE]), float(rows[:, VOLUME].sum()), quote_volume)
            tickers.append(binance.ticker(listing, day, now, int(np.ceil(day.quote_volume / 400))))
        return tickers

    # -- broken connections

    async def _break(self, request: web.Request, seconds: float) -> web.StreamResponse:
        """Say nothing for a while, then reset the connection."""
        await self._pause(seconds)
        _reset(request)
        return web.Response()

    async def _slowly(self, request: web.Request, status: int, body: bytes, headers: dict[str, str], fault: Fault) -> web.StreamResponse:
        """Send the body in ten trickles ("drip") or a part of it and no more ("cut")."""
        response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(body))})
        await response.prepare(request)
        try:
            if fault.kind == "cut":
                await response.write(body[: int(len(body) * fault.amount)])
                _reset(request)
                return response
            size = -(-len(body) // 10)
            for begin in range(0, len(body), size):
                await response.write(body[begin : begin + size])
                await self._pause(fault.amount / 10)
            await response.write_eof()
        except ConnectionResetError:
            pass  # the client had enough of it, as it should
        return response

    async def _pause(self, seconds: float) -> None:
        """Real seconds, or until the exchange stops."""
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            pass

    # -- control

    async def _control_requests(self, _: web.Request) -> web.Response:
        return _json(self.counts())

    async def _control_forget(self, _: web.Request) -> web.Response:
        self.requests.clear()
        self.faults.hits.clear()
        self.allowance.peak = self.allowance.used
        return _json({})

    async def _control_faults(self, _: web.Request) -> web.Response:
        return _json(self.faults.faults)

    async def _control_set_faults(self, request: web.Request) -> web.Response:
        try:
            faults = msgspec.json.decode(await request.read(), type=list[Fault])
        except (msgspec.DecodeError, CryptodError) as error:
            return _json({"error": str(error)}, status=400)
        self.set_faults(faults)
        return _json(self.faults.faults)


def _integer(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise binance.illegal(name, "^[0-9]{1,20}$")
    return int(text)


def _reset(request: web.Request) -> None:
    """End the connection with RST: whoever waits gets ECONNRESET, not an orderly end."""
    if request.transport is not None:
        raw = request.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


def _json(answer: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(answer), content_type="application/json")


@asynccontextmanager
async def serve(
    market: Market, clock: Clock, *, faults: Iterable[Fault] = (), ready: Callable[[Exchange], None] | None = None, **options: Any
) -> AsyncIterator[Exchange]:
    """An exchange that listens while the block lasts; ``options`` are `Exchange`'s, ``ready`` is told when it listens."""
    async with Exchange(market, clock, faults=faults, **options) as exchange:
        if ready is not None:
            ready(exchange)
        yield exchange
