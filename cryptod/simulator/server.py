"""The exchange's HTTP server: routes, request weights, faults, and a control endpoint for tests. Loopback only.

Knows sockets and HTTP (aiohttp) and asks a `Market` and a `Clock`. What the answers look like is the business of `binance`, what
goes wrong that of `faults` and `events`.

    GET  /api/v3/{ping,time,exchangeInfo,klines,ticker/24hr}      the public spot API
    GET  /fapi/v1/{ping,time,exchangeInfo,klines,ticker/24hr}     instead of it the USD-M futures API, with the face `usdm.USDM`
    GET  /{fapi,dapi,eapi}/v1/exchangeInfo                        else no derivatives are listed here
    GET  /sapi/v1/system/status                                   normal
    GET  /control/requests        what was asked so far           DELETE  start counting anew
    GET  /control/faults          the faults in force             POST    a JSON list of faults replaces them
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from cryptod.clock import Clock
from cryptod.errors import ConfigError, CryptodError
from cryptod.simulator import binance
from cryptod.simulator.allowance import Allowance
from cryptod.simulator.answers import PARAMETERS, Answers
from cryptod.simulator.events import EventfulMarket
from cryptod.simulator.faults import KINDS, Fault, FaultTable, Stage
from cryptod.simulator.listing import Market

LISTENER_TURN: Final = 0.02  # real seconds between looks at whether the listener should be there

_HTML: Final = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center><h1>502 Bad Gateway</h1></center></body>\r\n</html>\r\n"
)


class Exchange:
    """An exchange in this process's event loop: ``async with Exchange(market, clock) as exchange: exchange.url``.

    ``weight_limit`` is per real minute.
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
        weight_limit: int | None = None,
        face: binance.Face = binance.SPOT,
    ) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ConfigError(
                f"the simulated exchange does not listen on {host}", hint="only on loopback: it has a control endpoint without a lock"
            )
        self.clock, self.host, self.port = clock, host, port
        self.faults = FaultTable(seed=seed)
        self.face = face
        self.allowance = Allowance(weight_limit or face.weight_limit)
        self.requests: Counter[str] = Counter()
        self._base = market
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._listener: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        self._faults_changed = asyncio.Event()
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
        """Replace the faults in force; those of the market change `market`. Raises `ConfigError` and leaves all as it was."""
        faults = tuple(faults)
        events = [fault for fault in faults if KINDS[fault.kind].stage == "market"]
        market = EventfulMarket(self._base, events) if events else self._base
        self._answers = Answers(market, self.allowance.limit, self.face)
        self.faults.replace(faults)
        self._faults_changed.set()

    @property
    def market(self) -> Market:
        """The truth: what a collector must have in the end."""
        return self._answers.market

    def prepare(self) -> None:
        """Do the slow part of the first tickers before anyone waits for it; worth it for thousands of coins."""
        self._answers.prepare(self.clock.now())

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
        try:
            await self._listen()
        except ConfigError:
            await self._runner.cleanup()
            raise
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
        except (OSError, OverflowError) as error:
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
            raise ConfigError(f"cannot listen on {self.host}:{self.port}: {why}", hint="choose another port, or 0 for any") from error
        self._site = site
        self.port = self._runner.addresses[0][1]

    async def _keep_listener(self) -> None:
        """Take the listener away while a "refused" fault is in its window, and put it back afterwards."""
        while True:
            self._faults_changed.clear()
            if not any(fault.kind == "refused" for fault in self.faults.faults) and self._site is not None:
                await self._faults_changed.wait()
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
                try:
                    await self._listen()
                except ConfigError:
                    pass  # somebody took the port meanwhile: try again until they leave

    # -- one request

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        endpoint = path.removeprefix(self.face.prefix)
        market_id = request.query.get("symbol", "")
        listing = self._answers.by_id.get(market_id)
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
        count, limit = query.get("limit", ""), binance.DEFAULT_KLINES
        limit = int(count) if count.isascii() and count.isdigit() and len(count) < 9 else limit
        weight = self.face.weight(endpoint, 1 if "symbol" in query else asked.count(",") + 1 if asked else None, limit)
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
            if path in {"fapi/v1/exchangeInfo", "dapi/v1/exchangeInfo", "eapi/v1/exchangeInfo"} - {f"{self.face.prefix}exchangeInfo"}:
                return 200, binance.exchange_info((), now, self.allowance.limit), {}
            if path == "sapi/v1/system/status":
                return 200, b'{"status":0,"msg":"normal"}', {}
            if not path.startswith(self.face.prefix) or endpoint not in PARAMETERS:
                return 404, _HTML.replace(b"502 Bad Gateway", b"404 Not Found"), {"Content-Type": "text/html"}
            body = self._answers.reply(endpoint, query, now)
            return 200, self.faults.spoil(struck["rows"], body, now) if "rows" in struck else body, {}
        except binance.Refusal as refusal:
            return refusal.status, refusal.body(), {"Retry-After": str(max(1, round(wait)))} if wait else {}

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
            self.set_faults(msgspec.json.decode(await request.read(), type=list[Fault]))
        except (msgspec.DecodeError, CryptodError) as error:
            return _json({"error": str(error)}, status=400)
        return _json(self.faults.faults)


def _reset(request: web.Request) -> None:
    """End the connection with RST: whoever waits gets ECONNRESET, not an orderly end."""
    if request.transport is not None:
        raw = request.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


def _json(answer: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(answer), content_type="application/json")
