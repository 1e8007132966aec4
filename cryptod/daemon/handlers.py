"""The commands: what each row of the protocol's table does.

Knows the parts of the service and asks them; holds no state of its own. No handler waits for training or for the
exchange: what takes long becomes a job. `get` answers with bytes that were rendered when the forecast was made.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import struct
from collections.abc import Callable, Collection
from time import monotonic
from typing import Annotated, Any, Final, Literal

import msgpack
import msgspec

from cryptod import __version__, logs
from cryptod.daemon import account
from cryptod.daemon.control import Ready
from cryptod.daemon.crowd import SLICE_S
from cryptod.daemon.dispatch import NOT_UNDERSTOOD, pack
from cryptod.daemon.listening import Peer
from cryptod.daemon.recent import MAX_HOURS
from cryptod.daemon.service import Service
from cryptod.daemon.symbols import LONGEST
from cryptod.daemon.wire import FRESH, answer
from cryptod.errors import CryptodError, DataError, RequestError, StoreError
from cryptod.market import parse_symbol
from cryptod.protocol import (
    COMMANDS,
    JOB_KINDS,
    LOG_LEVELS,
    MAX_SYMBOLS,
    PROTOCOL,
    TOP_KEYS,
    WINDOWS,
    Backup,
    CacheClear,
    Candles,
    Coin,
    Export,
    Get,
    GetMany,
    JobId,
    Jobs,
    Level,
    LogLines,
    Nothing,
    Page,
    Periodic,
    Rollback,
    Scores,
    Top,
    Train,
)

_decode_get: Final = msgspec.msgpack.Decoder(
    tuple[Literal[0], Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)], Literal["get"], tuple[str]]
).decode
"""The kind of a request, its id, the command, the symbol."""
_EXPRESS: Final = struct.Struct(f">3sI{1 + len(FRESH) + 9}sq5sd").pack
_EXPRESS_FRESH: Final = b"\xc0" + FRESH + b"\xa7expires\xd3"


def _exact(text: str, unknown: RequestError) -> str:
    """The name of a coin that is not followed, if it is one: the ledger may know it. Those that were given up are judged as well."""
    try:
        return parse_symbol(text)
    except DataError:
        raise unknown from None


log = logs.get_logger("handlers")


def _meant(text: str, choices: Collection[str], cutoff: float = 0.6) -> str:
    """The hint for a word that is none of the choices: the nearest of them, or all."""
    near = difflib.get_close_matches(text[:32], choices, n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(choices)}"


def _check_window(window: str) -> None:
    if window not in WINDOWS:
        raise RequestError("bad_request", f"window is {window[:32]!r}", hint=_meant(window, WINDOWS, cutoff=0.4))


LOOK_EVERY: Final = 16
"""Coins after which it is looked whether a slice is over."""


def _array(size: int) -> bytes:
    """How MessagePack opens an array."""
    return b"\xdd" + size.to_bytes(4, "big")


def _map(size: int) -> bytes:
    return b"\xdf" + size.to_bytes(4, "big")


class _Slices:
    """A turn before each quarter of a millisecond's work: ``await slices.turn()`` once in `LOOK_EVERY` coins."""

    def __init__(self, peer: Peer) -> None:
        self._peer, self._end = peer, monotonic() + SLICE_S

    async def turn(self) -> None:
        if monotonic() > self._end:
            await self._peer.turn()
            self._end = monotonic() + SLICE_S


class Handlers:
    """One method per command, of the command's name."""

    def __init__(self, service: Service) -> None:
        self._service, self._publisher, self._now = service, service.publisher, service.clock.now

    def table(self) -> dict[str, Callable[[Any, Peer], Any]]:
        names = [name for name in vars(type(self)) if name in COMMANDS]
        return {name: getattr(self, name) for name in names}

    def ping(self, _: Nothing, __: Peer) -> dict[str, Any]:
        return {"version": __version__, "protocol": PROTOCOL, "now": self._service.clock.now(), "pid": self._service.pid}

    def status(self, _: Nothing, __: Peer) -> dict[str, Any]:
        return account.status(self._service)

    def health(self, _: Nothing, __: Peer) -> dict[str, Any]:
        return {"severity": self._service.health.severity, "conditions": self._service.health.findings}

    def express(self, message: bytes) -> bytes | None:
        """The response to a `get` of exactly the name of a coin whose forecast is cached and not stale, in as few steps as can be."""
        try:
            _, number, _, (symbol,) = _decode_get(message)
        except NOT_UNDERSTOOD:
            return None
        now = self._now()
        entry = self._publisher.fresh(symbol, now)
        if entry is None:
            return None
        return _EXPRESS(b"\x94\x01\xce", number, _EXPRESS_FRESH, entry.expires, b"\xa3age\xcb", (now - entry.issued) / 1000) + entry.body

    def get(self, request: Get, _: Peer) -> Any:
        publisher, now, named = self._publisher, self._now(), request.symbol
        entry = publisher.cached(named, now) if len(named) <= LONGEST else None
        if entry is not None:
            return Ready(*answer(entry, now, publisher.stale_reason(entry, now)))
        return self._compute(self._service.symbols.find(named), now)

    async def _compute(self, symbol: str, now: int) -> Ready:
        publisher = self._service.publisher
        entry = publisher.cached(symbol, now) or await publisher.on_demand(symbol, now)
        return Ready(*answer(entry, now, publisher.stale_reason(entry, now)))

    async def get_many(self, request: GetMany, peer: Peer) -> Ready:
        service, publisher, slices = self._service, self._service.publisher, _Slices(peer)
        now = service.clock.now()
        refused: dict[str, bytes] = {}
        if request.symbols is None:
            wanted = dict.fromkeys(service.collection.followed)
        else:
            if len(request.symbols) > MAX_SYMBOLS:
                raise RequestError("bad_request", f"symbols names {len(request.symbols)} coins, at most {MAX_SYMBOLS} are allowed")
            wanted = {}
            index, alone = service.symbols, len(request.symbols) == 1
            followed = index.followed
            for i, text in enumerate(request.symbols):
                if i % LOOK_EVERY == LOOK_EVERY - 1:
                    await slices.turn()
                try:
                    wanted[text if text in followed else index.find(text, suggest=alone)] = None
                except RequestError as error:
                    refused[text[:64]] = pack({"code": error.code, "message": error.message, "hint": error.hint})
        await self._fill(list(wanted), now, slices)
        parts: list[bytes] = []
        for i, symbol in enumerate(wanted):
            if i % LOOK_EVERY == LOOK_EVERY - 1:
                await slices.turn()
            entry = publisher.cached(symbol, now)
            if entry is None:
                try:
                    entry = await publisher.on_demand(symbol, now)
                except CryptodError as error:
                    refused[symbol] = pack({"code": error.code, "message": error.message, "hint": error.hint})
                    continue
            parts += answer(entry, now, publisher.stale_reason(entry, now))
        head = b"\x82\xa9forecasts" + _array(len(parts) // 2)
        tail = [b"\xa7refused" + _map(len(refused))]
        for i, (name, said) in enumerate(refused.items()):
            if i % LOOK_EVERY == LOOK_EVERY - 1:
                await slices.turn()
            tail += (pack(name), said)
        return Ready(head, *parts, *tail)

    async def _fill(self, symbols: list[str], now: int, slices: _Slices) -> None:
        """Have the forecasts made that are missing, all in one go."""
        for first in range(0, len(symbols), 8 * LOOK_EVERY):
            if not self._publisher.has_all(symbols[first : first + 8 * LOOK_EVERY], now):
                await asyncio.shield(self._publisher.fill(symbols, now))  # others wait for them too
                return
            await slices.turn()

    async def top(self, request: Top, peer: Peer) -> Any:
        publisher, followed, now = self._service.publisher, self._service.symbols.followed, self._service.clock.now()
        if request.by not in TOP_KEYS:
            raise RequestError("bad_request", f"by is {request.by[:32]!r}", hint=f"one of {', '.join(TOP_KEYS)}")
        if not 1 <= request.count <= MAX_SYMBOLS:
            raise RequestError("bad_request", f"count is {request.count}", hint=f"1 to {MAX_SYMBOLS}")
        if not 1 <= request.horizon <= publisher.horizons:
            raise RequestError("bad_request", f"horizon is {request.horizon}", hint=f"1 to {publisher.horizons} hours")
        slices = _Slices(peer)
        await self._fill(list(followed), now, slices)
        entries = publisher.top(request.count, request.by, request.horizon, followed, now)
        moves: dict[str, dict[str, Any]] = {}
        if entries:
            with contextlib.suppress(StoreError):  # a ranking without them is better than none
                collection, wanted = self._service.collection, [entry.symbol for entry in entries]
                moves = await self._service.recent.moves(wanted, collection.followed, collection.collected_to)
        rows = [_array(len(entries))]
        for i, entry in enumerate(entries):
            if i % LOOK_EVERY == LOOK_EVERY - 1:
                await slices.turn()
            rows.append(pack(publisher.ranked(entry, request.horizon, now) | moves.get(entry.symbol, {})))
        return Ready(*rows)

    async def candles(self, request: Candles, peer: Peer) -> dict[str, Any]:
        if not 1 <= request.hours <= MAX_HOURS:
            raise RequestError("bad_request", f"hours is {request.hours}", hint=f"1 to {MAX_HOURS}")
        symbol = self._service.symbols.find(request.symbol)
        async with self._service.reading.turn(peer.uid):
            return await self._service.recent.of(symbol, request.hours, self._service.collection.collected_to)

    async def scores(self, request: Scores, peer: Peer) -> Ready:
        _check_window(request.window)
        symbol = ""
        unknown: RequestError | None = None
        if request.symbol is not None:
            try:
                symbol = self._service.symbols.find(request.symbol)
            except RequestError as error:
                symbol, unknown = _exact(request.symbol, error), error
        found = await self._service.scorecards.get(symbol, request.window, peer.uid)
        if unknown is not None and not found.issued:
            raise unknown
        return Ready(found.card)

    async def report(self, request: Page, peer: Peer) -> Ready:
        _check_window(request.window)
        service = self._service

        def told() -> bytes:
            said = {"status": account.status(service), "jobs": service.training.recent(500), "followed": service.collection.followed}
            packed: bytes = msgpack.packb(said)
            return packed

        return Ready(b"\x81\xa4html", await service.scorecards.page(request.window, service.state / "candles", told, peer.uid))

    def symbols(self, _: Nothing, __: Peer) -> dict[str, Any]:
        return account.symbols(self._service)

    def schedule(self, _: Nothing, __: Peer) -> list[dict[str, Any]]:
        return self._service.scheduler.describe(self._service.clock.now())

    def jobs(self, request: Jobs, _: Peer) -> list[dict[str, Any]]:
        if not 1 <= request.limit <= 500:
            raise RequestError("bad_request", f"limit is {request.limit}", hint="1 to 500")
        return self._service.training.recent(request.limit)

    def train(self, request: Train, _: Peer) -> dict[str, Any]:
        if request.kind not in JOB_KINDS:
            raise RequestError("bad_request", f"kind is {request.kind[:32]!r}", hint=_meant(request.kind, JOB_KINDS))
        return self._service.enqueue(request.kind, "requested").describe()

    def cancel(self, request: JobId, _: Peer) -> dict[str, Any]:
        return self._service.training.cancel(request.job, self._service.clock.now()).describe()

    def cache_stats(self, _: Nothing, __: Peer) -> dict[str, Any]:
        return self._service.publisher.stats()

    async def cache_pregenerate(self, _: Nothing, __: Peer) -> dict[str, Any]:
        return await self._service.pregenerate()

    async def cache_clear(self, request: CacheClear, _: Peer) -> dict[str, Any]:
        symbols = None if request.symbols is None else [self._service.symbols.find(text) for text in request.symbols]
        return {"dropped": await self._service.publisher.clear(symbols)}

    def log_lines(self, request: LogLines, peer: Peer) -> list[dict[str, Any]]:
        if not 1 <= request.limit <= logs.KEPT:
            raise RequestError("bad_request", f"limit is {request.limit}", hint=f"1 to {logs.KEPT}")
        lines = logs.recent(request.limit)
        return lines if self._service.allowed(peer) else logs.impersonal(lines)

    def models(self, _: Nothing, __: Peer) -> dict[str, Any]:
        return self._service.publisher.describe_models()

    async def models_rollback(self, request: Rollback, _: Peer) -> dict[str, Any]:
        if not 1 <= request.steps <= 100:
            raise RequestError("bad_request", f"steps is {request.steps}", hint="1 or more; `cryptoctl models list` shows the history")
        return await self._service.roll_back(request.steps)

    def models_pin(self, _: Nothing, __: Peer) -> dict[str, Any]:
        self._publisher.pin(self._now())
        log.info("models pinned", generation=self._publisher.generation)
        return self._publisher.describe_models()

    def models_unpin(self, _: Nothing, __: Peer) -> dict[str, Any]:
        self._publisher.unpin()
        log.info("models unpinned", generation=self._publisher.generation)
        return self._publisher.describe_models()

    # What else may be changed while it runs

    def symbols_add(self, request: Coin, _: Peer) -> dict[str, Any]:
        service = self._service
        symbol = service.symbols.known(request.symbol) or service.collection.meant(request.symbol)
        changed = service.collection.add(symbol)
        return self._amended("a coin was added", symbol, changed)

    async def symbols_remove(self, request: Coin, _: Peer) -> dict[str, Any]:
        service = self._service
        symbol = service.symbols.known(request.symbol) or service.collection.meant(request.symbol)
        known = (*service.collection.followed, *service.collection.left_out, *service.collection.unmet)
        if symbol not in known:
            service.symbols.find(request.symbol)  # says what is near
        changed = service.collection.remove(symbol)
        reply = self._amended("a coin was removed", symbol, changed)
        if changed:
            await self._publisher.clear([symbol])
        return reply

    def _amended(self, what: str, symbol: str, changed: bool) -> dict[str, Any]:
        service = self._service
        if changed:
            service.index()
            log.info(what, symbol=symbol)
        followed = symbol in service.collection.followed
        return {"symbol": symbol, "changed": changed, "followed": followed, "reason": service.collection.left_out.get(symbol, "")}

    def schedule_pause(self, request: Periodic, _: Peer) -> dict[str, Any]:
        name = self._row(request.name)
        self._service.pause(name, True)
        log.info("a periodic job was paused", job=name)
        return self._described(name)

    def schedule_resume(self, request: Periodic, _: Peer) -> dict[str, Any]:
        name = self._row(request.name)
        self._service.pause(name, False)
        log.info("a periodic job was resumed", job=name)
        return self._described(name)

    def schedule_run(self, request: Periodic, _: Peer) -> dict[str, Any]:
        name = self._row(request.name)
        self._service.run_now(name, self._now())
        return self._described(name)

    async def export(self, request: Export, peer: Peer) -> Ready:
        service, slices = self._service, _Slices(peer)
        symbols = None
        if request.symbols is not None:  # coins that were given up have a past too
            named = set()
            for i, text in enumerate(request.symbols[:MAX_SYMBOLS]):
                if i % LOOK_EVERY == LOOK_EVERY - 1:
                    await slices.turn()
                named.add(service.symbols.known(text) or service.collection.meant(text))
            symbols = frozenset(named)
        async with service.reading.turn(peer.uid):
            return Ready(await service.exports.chunk(request.what, request.since, request.until, symbols, request.after))

    async def backup(self, request: Backup, _: Peer) -> dict[str, Any]:
        return await self._service.backups.piece(request.token, request.offset)

    def _row(self, name: str) -> str:
        rows = self._service.scheduler.rows
        if name not in rows:
            raise RequestError("bad_request", f"there is no periodic job {name[:32]!r}", hint=_meant(name, rows))
        return name

    def _described(self, name: str) -> dict[str, Any]:
        return next(row for row in self._service.scheduler.describe(self._now()) if row["name"] == name)

    def log_level(self, request: Level, _: Peer) -> dict[str, Any]:
        if request.level not in LOG_LEVELS:
            raise RequestError("bad_request", f"log level {request.level[:32]!r} is not known", hint=f"one of {', '.join(LOG_LEVELS)}")
        was = logs.level()
        logs.set_level(request.level)
        log.warning("the log level was changed", level=request.level, was=was)
        return {"level": request.level, "was": was}
