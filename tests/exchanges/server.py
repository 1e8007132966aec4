"""An exchange over loopback HTTP, made from a short description of one: its `Shape`.

A shape says where an exchange answers, how a pair is called there, and which rules its candle endpoint has: the names and
units of its parameters, rows per answer, order, which end of a long window it cuts off, how far back it goes, whether it
fills hours without trades. The server follows these rules over a `World`, which knows what is true. ccxt, unmodified,
stands between it and the collector.

To try another exchange, or another market of one, add a `Shape` to `large.py`, `others.py` or `futures.py`:

    Shape(
        id="okx", market="swap", name="{B}-{Q}-SWAP",
        time=Route("/api/v5/public/time", lambda w: {"code": "0", "data": [{"ts": str(w.now)}]}),
        markets=[Route("/api/v5/public/instruments", lambda w: {...for coin in w.coins...}, where={"instType": "SWAP"})],
        tickers=[Route(...)],
        candles=Route("/api/v5/market/candles", lambda w, rows: {"code": "0", "data": rows}),
        symbol="instId", since=Param("before", exclusive=True), until=Param("after", exclusive=True), limit="limit",
        page=300, newest_first=True, row=lambda c, r: [str(r.time), ...],
    )

and run it: ``with served(shape, world) as server: collector.run(order(server.url, ...), report)``. A request that no route
knows is answered with 404 and stands in ``server.unknown``; ``server.asked`` counts candle requests.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
import numpy as np
from aiohttp import web

from cryptod.market import CANDLE, HOUR, NO_TRADE, NOT_FETCHED, Bool, Float64, UInt8

H: Final = HOUR.ms
COINS: Final = ("BTC", "ETH", "XRP", "SOL", "ADA")
"""By traded value, largest first. BTC trades each hour; ETH has single hours without trades; XRP a halt of 30 hours and a quiet
night; SOL was listed 500 hours ago; ADA skips an hour in seven. Nothing trades during the outage."""
SMALLEST: Final = "DOT"
"""Trades less than any other: it is not followed."""
OUTAGE: Final = (300, 306)
"""Hours before the newest closed one, in which nothing traded."""
LISTED: Final = 500


@dataclass(frozen=True, slots=True)
class Row:
    """A candle: open time in UTC ms, prices and base volume."""

    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float

    @property
    def value(self) -> float:
        """Quote volume."""
        return round(self.volume * self.close, 6)


@dataclass(frozen=True, slots=True)
class Coin:
    """A pair as the exchange lists it, with the figures of its last 24 hours."""

    base: str
    quote: str
    id: str
    last: float
    high: float
    low: float
    open: float
    volume: float

    @property
    def value(self) -> float:
        return round(self.volume * self.last, 6)


@lru_cache(maxsize=8)
def _truth(hours: int) -> tuple[dict[str, Float64], dict[str, Bool]]:
    """coin -> values float64 [hours, 5], and whether it traded, bool [hours]; the last hour is the newest."""
    values, traded = {}, {}
    for number, coin in enumerate((*COINS, SMALLEST)):
        random = np.random.default_rng(number)
        close = np.round(100 / 3**number * np.exp(np.cumsum(random.normal(0, 0.006, hours))), 6)
        opened = np.concatenate((close[:1], close[:-1]))
        high = np.round(np.maximum(opened, close) * (1 + random.uniform(0.0001, 0.01, hours)), 6)
        low = np.round(np.minimum(opened, close) * (1 - random.uniform(0.0001, 0.01, hours)), 6)
        volume = np.round(random.uniform(10, 20, hours) * 5**-number * 3**number, 4)
        values[coin] = np.column_stack((opened, high, low, close, volume))
        trades = np.ones(hours, np.bool_)
        ago = np.arange(hours)[::-1]  # 0 is the newest
        trades[(ago >= OUTAGE[0]) & (ago < OUTAGE[1])] = False
        if coin == "ETH":
            trades[[int(place) for place in random.choice(hours - 60, 40, replace=False)]] = False
        if coin == "XRP":
            trades[((ago >= 700) & (ago < 730)) | ((ago >= 50) & (ago < 57))] = False
        if coin == "SOL":
            trades[ago >= LISTED] = False
        if coin == "ADA":
            trades[ago % 7 == 5] = False
        traded[coin] = trades
    return values, traded


class World:
    """What is true: ``hours`` hours of six coins up to the one that is open at ``now`` (UTC ms)."""

    def __init__(self, now: int, hours: int, quote: str = "USDT", name: str = "{B}{Q}") -> None:
        self.now = now
        self.quote, self._name = quote, name
        self._hours = hours + 8  # some are still to come
        self.first = now // H * H - hours * H
        self._values, self.traded = _truth(self._hours)

    def pair(self, base: str) -> str:
        """The exchange's own name of a coin's pair."""
        return self._name.format(B=base, Q=self.quote, b=base.lower(), q=self.quote.lower())

    @property
    def _open(self) -> int:
        """Place of the hour that is open now."""
        return (self.now - self.first) // H

    @property
    def coins(self) -> list[Coin]:
        """All pairs, in no useful order."""
        found = []
        for base in sorted((*COINS, SMALLEST)):
            day = self._values[base][self._open - 24 : self._open][self.traded[base][self._open - 24 : self._open]]
            found.append(
                Coin(
                    base,
                    self.quote,
                    self.pair(base),
                    float(day[-1, 3]),
                    float(day[:, 1].max()),
                    float(day[:, 2].min()),
                    float(day[0, 0]),
                    round(float(day[:, 4].sum()), 4),
                )
            )
        return found

    def rows(self, base: str, fills: bool) -> list[Row]:
        """All candles that the exchange can have now, oldest first, with the one that is still open.

        One that ``fills`` has a flat candle without volume for an hour without trades, but none for an outage.
        """
        values, present = self._filled(base, fills)
        times = self.first + H * np.flatnonzero(present[: self._open + 1])
        return [Row(int(time), *map(float, values[(int(time) - self.first) // H])) for time in times]

    def expected(self, base: str, start: int, end: int, fills: bool, keeps: int | None) -> tuple[UInt8, Float64]:
        """What the store must hold of the hours from ``start`` to ``end``: status uint8 [T], values float64 [T, 5]."""
        values, present = self._filled(base, fills)
        begin, stop = (start - self.first) // H, (end - self.first) // H
        status = np.where(present, CANDLE, NO_TRADE).astype(np.uint8)
        begins = int(np.flatnonzero(present)[0])
        if keeps is not None:
            kept = np.flatnonzero(present[: self._open + 1])
            begins = max(begins, int(kept[-min(keeps, len(kept))]))
        status[:begins] = NOT_FETCHED
        return status[begin:stop], values[begin:stop]

    def _filled(self, base: str, fills: bool) -> tuple[Float64, Bool]:
        values, present = self._values[base], self.traded[base]
        if not fills:
            return values, present
        values, places = values.copy(), np.arange(self._hours)
        ago = places[::-1]
        filled = ~present & (places > np.flatnonzero(present)[0]) & ~((ago >= OUTAGE[0]) & (ago < OUTAGE[1]))
        before = np.maximum.accumulate(np.where(present, places, 0))
        values[filled] = values[before[filled], 3][:, None]
        values[filled, 4] = 0.0
        return values, present | filled


@dataclass(frozen=True, slots=True)
class Param:
    """A time in a request: its name, its unit (``ms``, ``s`` or ``iso``), and whether it excludes the hour that it names."""

    name: str
    unit: str = "ms"
    exclusive: bool = False

    def read(self, asked: Mapping[str, str]) -> int | None:
        text = asked.get(self.name)
        if text is None:
            return None
        if self.unit == "iso":
            return int(datetime.fromisoformat(text.replace("Z", "+00:00").replace(" ", "T")).replace(tzinfo=UTC).timestamp() * 1000)
        return int(float(text)) * (1000 if self.unit == "s" else 1)


@dataclass(frozen=True, slots=True)
class Route:
    """A path, the answer to it (of the world, or of the world and candle rows), and what a request must say to be meant.

    ``{pair}`` in a path stands for a pair's name; any other name in braces for a parameter.
    """

    path: str
    body: Callable[..., Any]
    where: Mapping[str, str] = field(default_factory=dict)

    def match(self, path: str, asked: Mapping[str, str]) -> dict[str, str] | None:
        parts, given = self.path.split("/"), path.split("/")
        if len(parts) != len(given) or any(asked.get(key) != value for key, value in self.where.items()):
            return None
        found = {}
        for part, text in zip(parts, given, strict=True):
            head, brace, rest = part.partition("{")
            name, _, tail = rest.partition("}")
            if not brace:
                if part != text:
                    return None
            elif text.startswith(head) and text.endswith(tail):
                found[name] = text[len(head) : len(text) - len(tail)]
            else:
                return None
        return found


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One exchange's public face: where it answers, and the rules of its candles."""

    id: str
    market: str = "spot"
    quote: str = "USDT"
    name: str = "{B}{Q}"
    time: Route | None = None
    markets: Sequence[Route] = ()
    tickers: Sequence[Route] = ()
    candles: Sequence[Route] = ()
    """Their bodies take the world, the coin's name, and the rows as `row` made them."""
    row: Callable[[Row], Any]
    symbol: str = "symbol"
    """The parameter with a pair's name; ``pair`` if it stands in the path."""
    since: Param | None = None
    until: Param | None = None
    limit: str = "limit"
    page: int
    """Rows per answer at most, whatever is asked for."""
    default: int = 100
    """Rows per answer when no number is asked for; with a window and no number, `page` counts."""
    newest: bool = False
    """Of a window with more rows than an answer holds: the newest, not the oldest. Without a start it is always the newest."""
    newest_first: bool = False
    fills: bool = False
    keeps: int | None = None
    """So many rows and no older ones."""
    window: Callable[[Mapping[str, str]], tuple[int, int]] | None = None
    """Start and end (inclusive) of what is asked for, where it is said in another way."""
    refuses: Callable[[Mapping[str, str], int], tuple[int, Any] | None] = lambda asked, now: None
    """(request, now) -> status and body of a refusal."""
    months: int = 3
    volumes: bool = True
    """Whether it tells all pairs' volumes."""
    factor: float = 2.2
    """So many times the least possible number of candle requests are allowed."""
    note: str = ""
    """What does not work, for the table in the documents."""

    @property
    def told(self) -> str:
        return f"{self.id}-{self.market}"

    def pair(self, base: str) -> str:
        """ccxt's name of a coin's pair."""
        return f"{base}/{self.quote}" if self.market == "spot" else f"{base}/{self.quote}:{self.quote}"


class Server:
    """A shape, answering. ``asked`` lists the candle requests, ``unknown`` what nobody knows, ``sent`` counts all."""

    def __init__(self, shape: Shape, world: World) -> None:
        self.shape, self.world = shape, world
        self.asked: list[dict[str, str]] = []
        self.unknown: list[str] = []
        self.sent = 0
        self.url = ""
        self._names = {world.pair(base): base for base in (*COINS, SMALLEST)}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _answer(self, request: web.Request) -> web.Response:
        self.sent += 1
        asked = dict(parse_qsl(request.query_string))
        if request.method == "POST":
            body = await request.read()
            asked |= {key: str(value) for key, value in _flat(msgspec.json.decode(body)).items()} if body else {}
        for route in self.shape.candles:
            if (found := route.match(request.path, asked)) is not None:
                return self._candles(route, asked | found)
        for route in (*([self.shape.time] if self.shape.time else []), *self.shape.markets, *self.shape.tickers):
            if route.match(request.path, asked) is not None:
                return _json(200, route.body(self.world))
        self.unknown.append(f"{request.method} {request.path_qs}")
        return _json(404, {"code": 404, "message": "no such endpoint"})

    def _candles(self, route: Route, asked: dict[str, str]) -> web.Response:
        shape, world = self.shape, self.world
        self.asked.append(asked)
        refusal = shape.refuses(asked, world.now)
        if refusal is not None:
            return _json(*refusal)
        base = self._names.get(asked[shape.symbol])
        if base is None:
            self.unknown.append(f"candles of {asked[shape.symbol]}")
            return _json(404, {"code": 404, "message": "no such pair"})
        rows = world.rows(base, shape.fills)
        if shape.keeps is not None:
            rows = rows[-shape.keeps :]
        since = until = None
        if shape.window is not None:
            since, until = shape.window(asked)
        else:
            if shape.since is not None and (since := shape.since.read(asked)) is not None and shape.since.exclusive:
                since += 1
            if shape.until is not None and (until := shape.until.read(asked)) is not None and shape.until.exclusive:
                until -= 1
        rows = [row for row in rows if (since is None or row.time >= since) and (until is None or row.time <= until)]
        count = min(shape.page, int(asked.get(shape.limit) or (shape.default if since is None else shape.page)))
        rows = rows[-count:] if since is None or shape.newest else rows[:count]
        if shape.newest_first:
            rows.reverse()
        return _json(200, route.body(world, asked[shape.symbol], [shape.row(row) for row in rows]))


@contextmanager
def served(shape: Shape, world: World) -> Iterator[Server]:
    server = Server(shape, world)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _json(status: int, body: Any) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")


def _flat(body: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in body.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat
